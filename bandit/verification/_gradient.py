r"""Is ``weight`` the gradient of ``value``?

By central differences of ``value`` in ``log_prob``, to fourth order over a ladder of steps, taking
those that agree best: far steps err by what they skip, near ones by rounding, and around a kink
only the near ones agree. What a loss holds constant moves along in a difference, so automatic
differentiation decides where it is at hand: it alone sees a stop-gradient.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bandit._checks import Array
from bandit.verification import _draws
from bandit.verification._examples import GroupCase, group_example, shrink_group
from bandit.verification._forms import apart, numbers, scale_of
from bandit.verification._libraries import Library
from bandit.verification._report import FAULT, PASSED, PROPERTY, SKIPPED, Finding
from bandit.verification._subject import LossError, Subject

STEPS = 0.2 * 2.0 ** -np.arange(14)
TOLERANCE = 1e-6
# Where the differences themselves are this uncertain they decide nothing.
UNCERTAIN = 1e-3
# Differences of numbers around 1 are not better than this.
ROUNDING = 1e-9
# Of each value, relative to it: a few operations lose that much.
LOST = 4 * np.finfo(np.float64).eps
# Examples are made small as long as the gap can be read off four digits.
VISIBLE = 1e-2
HINT = (
    "what it holds constant on purpose is declared with "
    "traits = bandit.losses.Traits(semi_gradient=True), and then checked with torch or JAX"
)
HELD = "what it holds constant on purpose has to be detached in value"
TOGETHER = "not judged, as a group alone does not show what it shows in a batch"


def central_differences(subject: Subject, case: GroupCase) -> tuple[Array, Array]:
    """∂ value / ∂ log_prob (..., G) of groups (..., G), and how far to trust it (..., G)."""
    log_prob = case.group.log_prob
    size = log_prob.shape[-1]
    slopes, errors = np.empty(log_prob.shape), np.empty(log_prob.shape)
    for member in range(size):
        move = np.multiply.outer(STEPS, np.eye(size)[member])  # (S, G)
        move = move.reshape(len(STEPS), *(1,) * (log_prob.ndim - 1), size)

        def value(sign: float, move: Array = move) -> Array:
            moved = np.array(log_prob + sign * move)
            fields = case.group._replace(log_prob=moved)
            spread = [
                f if f is None or name == "log_prob" else np.broadcast_to(f, (len(STEPS), *f.shape))
                for name, f in fields._asdict().items()
            ]
            score = subject.score(type(case.group)(*spread), case.beta)
            return np.asarray(score.value, dtype=np.float64)

        above, below = value(1.0), value(-1.0)
        rise = above - below
        step = STEPS[1:].reshape(-1, *(1,) * (rise.ndim - 1))
        fourth = (8 * rise[1:] - rise[:-1]) / (12 * step)
        # Beside what differences disagree by, what they lose of values that are large.
        lost = LOST * np.maximum(np.abs(above), np.abs(below))[2:] / step[1:]
        change = np.abs(np.diff(fourth, axis=0)) + lost
        change = np.where(np.isfinite(change), change, np.inf)
        best = change.argmin(axis=0)[None]
        slopes[..., member] = np.take_along_axis(fourth, best + 1, axis=0)[0]
        errors[..., member] = np.take_along_axis(change, best, axis=0)[0]
    return slopes, errors


def check_gradient(
    subject: Subject, rng: np.random.Generator, libraries: Sequence[Library]
) -> Iterator[Finding]:
    """Central differences and automatic differentiation of ``value`` against ``weight``."""
    able = next((lib for lib in libraries if lib.takes(subject)), None)
    differs = held = None
    compared = 0
    for size in subject.sizes:
        for beta in _draws.BETAS:
            case = _draws.groups(rng, size, beta, subject.baseline)
            if able is not None and differs is None and able.gap(subject, case) > TOLERANCE:
                differs = case
            wrong, sure = _by_differences(subject, case)
            compared += int(sure.sum())
            if held is None and wrong.any():
                held = case
    if able is not None and differs is not None:
        yield _fault(subject, differs, able)
    elif able is not None:
        yield _held(subject, held, able.name)
    elif held is None and compared:
        yield Finding("gradient", PASSED, "weight is the gradient of value, by central differences")
    elif held is None:
        text = "value is not smooth enough for differences anywhere, and torch was not asked"
        yield Finding("gradient", SKIPPED, text)
    elif subject.own.semi_gradient:
        text = "it holds something constant, which only torch or JAX can follow"
        yield Finding("gradient", SKIPPED, text)
    else:
        assert held is not None
        yield _fault(subject, held, None)


def _by_differences(subject: Subject, case: GroupCase) -> tuple[Array, Array]:
    """Where differences contradict the weight, and where they are certain at all; (..., G)."""
    slope, error = central_differences(subject, case)
    weight = np.asarray(subject.score(case.group, case.beta).weight, dtype=np.float64)
    scale = np.maximum(np.abs(slope), np.abs(weight)).max(axis=-1, keepdims=True)
    sure = error <= UNCERTAIN * scale + ROUNDING
    gap = np.abs(slope - weight)
    return sure & (gap > TOLERANCE * scale + 10 * error + ROUNDING), sure


def _difference_gap(subject: Subject, case: GroupCase) -> float:
    """The greatest contradiction in one group, relative to its weights; 0 where there is none."""
    wrong, _ = _by_differences(subject, case)
    slope, _ = central_differences(subject, case)
    weight = np.asarray(subject.score(case.group, case.beta).weight, dtype=np.float64)
    return float(np.where(wrong, np.abs(slope - weight), 0.0).max() / scale_of(slope, weight))


def _smallest(
    subject: Subject, case: GroupCase, gap: Callable[[GroupCase], float], trials: int
) -> GroupCase | None:
    """The smallest group in ``case`` with a gap that is plain to see; None if none has one."""

    def fails(candidate: GroupCase, least: float, numbers: bool = True) -> bool:
        try:
            found = gap(candidate)
        except LossError:
            return False
        # What is no number shows another trouble than numbers that differ.
        return found > least and math.isfinite(found) == numbers

    alone = [case.one(index) for index in np.ndindex(case.group.log_prob.shape[:-1])]
    for least, numbers_ in ((VISIBLE, True), (TOLERANCE, True), (TOLERANCE, False)):
        same = functools.partial(fails, least=least, numbers=numbers_)
        for one in alone:
            if same(one):
                return shrink_group(one, same, subject.sizes, trials)
    return None


def _fault(subject: Subject, case: GroupCase, library: Library | None) -> Finding:
    def both(case: GroupCase) -> tuple[Array, Array]:
        if library is not None:
            return library.slope_and_weight(subject, case)
        weight = subject.score(case.group, case.beta).weight
        return central_differences(subject, case)[0], np.asarray(weight, dtype=np.float64)

    def gap(case: GroupCase) -> float:
        return _difference_gap(subject, case) if library is None else library.gap(subject, case)

    who = "central differences" if library is None else library.name
    trials = Library.trials if library is None else library.trials
    small = _smallest(subject, case, gap, trials)
    if small is None:
        return Finding("gradient", SKIPPED, TOGETHER)
    relation = _relation(*both(case))
    slopes, weights = apart(*both(small))
    seen = f"weight {weights}, {who} of value {slopes}"
    text = f"weight is not the gradient of value: {seen}{relation}"
    if not subject.own.semi_gradient and not relation:
        text += f"; {HINT if library is None else HELD}"
    example = group_example(small, subject.hyper(small.beta), seen)
    return Finding("gradient", FAULT, text, {"by": who}, example)


def _relation(slope: Array, weight: Array) -> str:
    """In words, where the one is a plain multiple of the other in several groups."""
    if not np.abs(slope).max() > 1e-12 * max(np.abs(weight).max(), 1e-300):
        return " (value does not depend on log_prob)" if np.abs(weight).max() > 0 else ""
    if not np.abs(weight).max() > 0:
        return " (weight is 0)"
    factor = float((weight * slope).sum() / (slope**2).sum())
    if np.abs(weight - factor * slope).max() > 1e-6 * np.abs(weight).max():
        return ""
    return f" ({apart(np.asarray(factor), np.asarray(1.0))[0]} times it)"


def _held(subject: Subject, held: GroupCase | None, by: str) -> Finding:
    """Automatic differentiation agrees; do differences too?"""
    if held is None:
        text = f"weight is the gradient of value, by central differences and {by}"
        return Finding("gradient", PASSED, text, {"by": by, "holds_constant": False})
    facts = {"by": by, "holds_constant": True}
    if subject.own.semi_gradient:
        text = f"weight is the gradient of value by {by}, with something held constant as declared"
        return Finding("gradient", PASSED, text, facts)
    held = _smallest(subject, held, lambda c: _difference_gap(subject, c), Library.trials)
    if held is None:
        return Finding("gradient", SKIPPED, TOGETHER)
    slope, _ = central_differences(subject, held)
    weight = np.asarray(subject.score(held.group, held.beta).weight)
    seen = f"weight {numbers(weight)}, with nothing held {numbers(slope)}"
    example = group_example(held, subject.hyper(held.beta), seen)
    text = f"weight is the gradient of value by {by}, but something is held constant"
    if subject.declared:
        return Finding("gradient", FAULT, f"{text}, against what is declared", facts, example)
    return Finding("gradient", PROPERTY, f"{text}: {seen}", facts, example)
