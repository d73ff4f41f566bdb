"""What a loss does far out: finite, infinite or a refusal are answers, NaN is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from bandit.losses import Group
from bandit.verification import _draws
from bandit.verification._examples import GroupCase, group_example, shrink_group
from bandit.verification._forms import numbers
from bandit.verification._report import FAULT, PASSED, PROPERTY, Example, Finding
from bandit.verification._subject import LossError, Subject


class _Extreme(NamedTuple):
    what: str
    change: Callable[[Group], dict[str, Any]]
    reads: str


def _alternating(group: Group, size: float) -> Any:
    return np.broadcast_to(size * (-1.0) ** np.arange(group.log_prob.shape[-1]), group[0].shape)


EXTREMES = (
    _Extreme("rewards of ±1e300", lambda g: {"reward": _alternating(g, 1e300)}, "reward"),
    _Extreme("rewards all 1e300", lambda g: {"reward": np.full_like(g[0], 1e300)}, "reward"),
    _Extreme(
        "log-ratios of ±1e3", lambda g: {"ref_log_prob": g[0] - _alternating(g, 1e3)}, "log_prob"
    ),
    _Extreme("log-ratios all −1e3", lambda g: {"log_prob": g.ref_log_prob - 1e3}, "log_prob"),
    _Extreme(
        "ratios to the behavior of e^±1000",
        lambda g: {"behavior_log_prob": g[0] - _alternating(g, 1e3)},
        "behavior_log_prob",
    ),
    _Extreme("equal rewards", lambda g: {"reward": np.full_like(g[0], 0.1)}, "reward"),
    _Extreme(
        "no difference at all",
        lambda g: (
            {name: np.full_like(g[0], -1.0) for name in ("log_prob", "ref_log_prob", "reward")}
            | {"behavior_log_prob": np.full_like(g[0], -1.0)}
        ),
        "log_prob",
    ),
    _Extreme("preferences of 0 and 1", lambda g: _certain(g), "preference"),
    _Extreme(
        "preferences of 0 and 1 at log-ratios of ±1e3",
        lambda g: _certain(g) | {"ref_log_prob": g[0] - _alternating(g, 1e3)},
        "preference",
    ),
)


def _certain(group: Group) -> dict[str, Any]:
    if group.preference is None:
        return {}
    return {"preference": np.arange(group.preference.size, dtype=float) % 2}


def check_extremes(subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """Far out a loss may overflow to infinity or refuse; NaN says nothing and spoils a batch."""
    said: dict[str, list[str]] = {"infinity": [], "refusal": []}
    tried = 0
    for extreme in EXTREMES:
        if extreme.reads not in subject.reads | {"log_prob"}:
            continue
        tried += 1
        for size in subject.sizes:
            case = _draws.groups(rng, size, 1.0, subject.baseline)
            changed = case._replace(group=case.group._replace(**extreme.change(case.group)))
            outcome = _far_out(subject, changed)
            if outcome.startswith("fault"):
                example, text = _smallest_nan(subject, changed, outcome)
                numbers_ = {"where": extreme.what}
                yield Finding("extremes", FAULT, f"{extreme.what}: {text}", numbers_, example)
                return
            if outcome and extreme.what not in said[outcome]:
                said[outcome].append(extreme.what)
    words = [
        f"{verb} at {', '.join(said[outcome])}"
        for outcome, verb in (("infinity", "overflows to infinity"), ("refusal", "refuses"))
        if said[outcome]
    ]
    if words:
        yield Finding("extremes", PROPERTY, "; ".join(words) + "; nowhere NaN", said)
    else:
        yield Finding("extremes", PASSED, f"finite in all {tried} kinds of extreme groups", said)


def _far_out(subject: Subject, case: GroupCase) -> str:
    """ "" for finite, "infinity", "refusal", or "fault" and its kind."""
    try:
        score = subject.score(case.group, case.beta)
    except LossError as trouble:
        # A line that says what was wrong with the input is an answer.
        spoken = trouble.kind in ("ValueError", "OverflowError")
        return "refusal" if spoken else f"fault {trouble.kind}"
    value, weight = (np.asarray(part, dtype=np.float64) for part in score)
    overflows = np.isinf(weight).any(axis=-1)
    # A sum of opposite infinities is not a number either: that is overflow, and its weights say so.
    if np.isnan(weight).any() or (np.isnan(value) & ~overflows).any():
        return "fault NaN"
    return "" if np.isfinite(value).all() and not overflows.any() else "infinity"


def _smallest_nan(subject: Subject, case: GroupCase, outcome: str) -> tuple[Example, str]:
    def fails(candidate: GroupCase) -> bool:
        return _far_out(subject, candidate) == outcome

    for index in np.ndindex(case.group.log_prob.shape[:-1]):
        if fails(case.one(index)):
            case = shrink_group(case.one(index), fails, subject.sizes)
            break
    try:
        score = subject.score(case.group, case.beta)
        text = f"value is {numbers(score.value)}, weight {numbers(score.weight)}"
    except LossError as trouble:
        text = trouble.text
    return group_example(case, subject.hyper(case.beta), text), text
