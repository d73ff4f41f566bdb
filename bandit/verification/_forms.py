"""Does a loss keep the contract's form: a score of the right shapes, finite, the same for a group
alone as in a batch, without touching what it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import is_jax_array

from bandit.losses import Group, Score
from bandit.tables import MOST_SHOWN
from bandit.verification import _draws
from bandit.verification._examples import GroupCase, group_example, shrink_group
from bandit.verification._report import FAULT, PASSED, Example, Finding
from bandit.verification._subject import LossError, Subject

# Two ways to the same number, up to the order in which float64 adds.
SAME = 1e-9
# Numbers all below this are those of rounding where ordinary ones are around 1.
LEAST = 1e-6
# Kinds of trouble that are found here, not raised by the loss.
OWN_KINDS = ("form", "shape", "not finite")


def scale_of(*arrays: Any) -> float:
    """The greatest finite magnitude, to measure differences by; never 0."""
    flat = np.concatenate([np.abs(np.ravel(np.asarray(a, dtype=np.float64))) for a in arrays])
    return max(float(flat[np.isfinite(flat)].max(initial=0.0)), 1e-12)


def numbers(values: Any, digits: int = 4) -> str:
    """A few numbers for a line of text, at a precision that is the same on every machine."""
    flat = np.round(np.ravel(values), 10) + 0.0
    shown = ", ".join(f"{x:.{digits}g}" for x in flat[:MOST_SHOWN].tolist())
    more = ", …" if flat.size > MOST_SHOWN else ""
    return shown if np.ndim(values) == 0 else f"({shown}{more})"


def apart(one: Any, other: Any) -> tuple[str, str]:
    """Two lots of numbers for a line of text, with as many digits as it takes to tell them apart
    (if they are not rounding)."""
    # Where the sixth digit is the first that differs, it alone would exaggerate.
    steps = ((4, 4), (6, 8), (8, 11))
    telling = (more for d, more in steps if numbers(one, d) != numbers(other, d))
    digits = next(telling, 11)
    return numbers(one, digits), numbers(other, digits)


def trouble_of(subject: Subject, case: GroupCase) -> LossError | None:
    """What goes wrong with a case, NaN and infinity included; None if nothing does."""
    try:
        score = subject.score(case.group, case.beta)
    except LossError as trouble:
        return trouble
    for part, array in zip(Score._fields, score, strict=True):
        if not np.isfinite(np.asarray(array, dtype=np.float64)).all():
            return LossError(f"{part} is {numbers(array)}", "not finite")
    return None


def smallest(
    subject: Subject, case: GroupCase, error: LossError, sizes: tuple[int, ...]
) -> tuple[Example, str]:
    """The smallest group of a case that gives the same trouble, and what it says there."""

    def fails(candidate: GroupCase) -> bool:
        found = trouble_of(subject, candidate)
        if found is None or found.kind != error.kind:
            return False
        # Another complaint of the same type is another trouble.
        return error.kind in OWN_KINDS or found.text == error.text

    case = reduced(case, fails, sizes)
    found = trouble_of(subject, case) or error
    return group_example(case, subject.hyper(case.beta), found.text), found.text


def reduced(
    case: GroupCase,
    fails: Callable[[GroupCase], bool],
    sizes: tuple[int, ...],
    *,
    alone: bool = True,
) -> GroupCase:
    """The smallest group in a batch that fails, or two of them, or else the whole batch."""
    groups = [case.one(index) for index in np.ndindex(case.group.log_prob.shape[:-1])]
    pairs = [_two(case, index) for index in range(len(case.group.log_prob))]
    for fewer in (*(groups if alone else ()), *pairs):
        if fails(fewer):
            return shrink_group(fewer, fails, sizes)
    return case


# ------------------------------------------------------------------------------------ returns


def check_returns(subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """A finite score of the right shapes for ordinary groups; finds out for which sizes."""
    troubles: dict[int, tuple[GroupCase, LossError, bool]] = {}
    answered: list[int] = []
    for size in _sizes_to_try(subject):
        case = _draws.groups(rng, size, _draws.BETAS[0], subject.baseline)
        trouble = trouble_of(subject, case)
        if trouble is not None and not subject.declared and not answered:
            given = np.round(rng.normal(size=_draws.GROUPS), 3)
            with_baseline = case._replace(group=case.group._replace(baseline=given))
            if trouble_of(subject, with_baseline) is None:
                subject.baseline, trouble = "value", None
        if trouble is None:
            answered.append(size)
        else:
            troubles[size] = case, trouble, _every_group_fails(subject, case)
    subject.sizes = tuple(sorted(answered))
    broken = [
        size for size, (_, _, all_of_it) in troubles.items() if subject.declared or not all_of_it
    ]
    if broken or not answered:
        subject.sizes = ()
        size = broken[0] if broken else next(iter(troubles))
        case, trouble, _ = troubles[size]
        # A size that it does not take is no smaller case of this trouble.
        sizes = (*answered, size) if answered else _draws.SIZES
        example, text = smallest(subject, case, trouble, sizes)
        where = f"groups of {size}: " if answered else ""
        facts = {"size": size, "kind": trouble.kind}
        yield Finding("returns", FAULT, where + text, facts, example)
        return
    found = _leaves_its_input_alone(subject, rng) or _too_coarse(subject)
    if found is not None:
        subject.sizes = ()  # whatever is found of it would not be about what it was asked
        yield found
        return
    text = f"a finite score of the right shapes, for groups of {listed(subject.sizes)}"
    if troubles:
        size = min(troubles)
        alone = trouble_of(subject, troubles[size][0].one((0,))) or troubles[size][1]
        text += f"; not of {listed(sorted(troubles))} ({alone.text})"
    yield Finding("returns", PASSED, text, {"sizes": list(subject.sizes)})


def listed(items: Any) -> str:
    """1, 2 and 3."""
    words = [str(item) for item in items]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _sizes_to_try(subject: Subject) -> list[int]:
    least, most = subject.own.sizes
    usual = [s for s in _draws.SIZES if s >= least and (most is None or s <= most)]
    return usual or [least]


def _every_group_fails(subject: Subject, case: GroupCase) -> bool:
    return all(
        trouble_of(subject, case.one(index)) is not None
        for index in np.ndindex(case.group.log_prob.shape[:-1])
    )


def _leaves_its_input_alone(subject: Subject, rng: np.random.Generator) -> Finding | None:
    case = _draws.groups(rng, subject.sizes[-1], _draws.BETAS[0], subject.baseline)
    name = _changed_field(subject, case)
    if name is not None:
        text = f"it changes group.{name}, which is the caller's"
        small = reduced(case, lambda c: _changed_field(subject, c) == name, subject.sizes)
        example = group_example(small, subject.hyper(small.beta), f"group.{name} is another one")
        return Finding("returns", FAULT, text, {"field": name}, example)
    once = [np.array(part) for part in subject.score(case.group, case.beta)]
    again = subject.score(case.group, case.beta)
    for part, one, two in zip(Score._fields, once, again, strict=True):
        if not np.array_equal(one, two):
            seen = _then(one, np.asarray(two))
            text = f"it answers the same group differently at a second call: {part} {seen}"
            return Finding("returns", FAULT, text, {"part": part})
    subject.witness = case.group, Score(*once)
    return None


def _changed_field(subject: Subject, case: GroupCase) -> str | None:
    """The field of a group that is another one after it was scored; the case stays as it is."""
    given = Group(*(None if f is None else np.array(f) for f in case.group))
    try:
        subject.score(given, case.beta)
    except LossError:
        return None
    for name, old, new in zip(Group._fields, case.group, given, strict=True):
        if old is not None and not np.array_equal(old, new):
            return name
    return None


def _too_coarse(subject: Subject) -> Finding | None:
    """A fault if nothing that follows could tell its numbers from rounding."""
    assert subject.witness is not None
    group, score = subject.witness
    answer = subject.score(group, _draws.BETAS[0])
    for part, array, given in zip(Score._fields, score, answer, strict=True):
        if array.dtype.kind == "f" and np.finfo(array.dtype).eps > np.finfo(np.float64).eps:
            text = f"{part} is {array.dtype} for arrays of float64, which loses digits"
            if is_jax_array(given):
                text += " (JAX keeps them after jax.config.update('jax_enable_x64', True))"
            return Finding("returns", FAULT, text, {"part": part})
    size = max(float(np.abs(array).max()) for array in score)
    if 0 < size < LEAST:
        text = (
            f"value and weight are at most {size:.2g} for ordinary groups, which cannot be told "
            "from rounding: multiply it by a constant"
        )
        return Finding("returns", FAULT, text, {"size": size})
    return None


def _then(old: Any, new: Any) -> str:
    """Two answers where they differ first, in words."""
    index = next(i for i, (a, b) in enumerate(zip(old, new, strict=True)) if (a != b).any())
    one, two = apart(old[index], new[index])
    return f"{one}, then {two}" if one != two else f"{one}, then with other last digits"


def changed_since(subject: Subject) -> Finding | None:
    """A fault if a group that was scored at the beginning has another score now."""
    if subject.witness is None or not subject.sizes:
        return None
    group, before = subject.witness
    text = "it answers a group differently after other groups"
    try:
        now = subject.score(group, _draws.BETAS[0])
    except LossError as error:
        return Finding("returns", FAULT, f"{text}: {error.text}")
    for part, old, new in zip(Score._fields, before, now, strict=True):
        if not np.array_equal(old, new):
            seen = f"{part} {_then(old, np.asarray(new))}"
            return Finding("returns", FAULT, f"{text}: {seen}", {"part": part})
    return None


# -------------------------------------------------------------------------------------- batch


class _Batch(NamedTuple):
    """One of the ways in which groups (B, G) come together."""

    what: str
    of: Callable[[GroupCase], GroupCase]
    place: Callable[[int, int], tuple[int, ...]]  # of a group of so many


def _folded(case: GroupCase) -> GroupCase:
    """As a batch of two batches."""
    fields = (None if f is None else f.reshape(2, -1, *f.shape[1:]) for f in case.group)
    return case._replace(group=Group(*fields))


def _shared(case: GroupCase) -> GroupCase:
    """As an analysis asks of two policies at once: they share all but ``log_prob``."""
    twice = np.stack([case.group.log_prob] * 2)
    return case._replace(group=case.group._replace(log_prob=twice))


BATCHES = (
    _Batch("in a batch", lambda case: case, lambda index, of: (index,)),
    _Batch("in a batch of batches", _folded, lambda index, of: divmod(index, of // 2)),
    _Batch(
        "with a reference and rewards that several policies share",
        _shared,
        lambda index, of: (1, index),
    ),
)


def check_batch(subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """Leading axes are groups side by side: each group's score is its score alone; and fields with
    fewer of them, which all policies of an analysis share, serve every one."""
    for size in subject.sizes:
        case = _draws.groups(rng, size, _draws.BETAS[1], subject.baseline)
        for batch in BATCHES:
            found = _misjudged(subject, case, batch, SAME)
            if found is not None:
                yield _batch_fault(subject, case, batch, found)
                return
    yield Finding("batch", PASSED, "a group's score is the same alone and in a batch")


def _misjudged(
    subject: Subject, case: GroupCase, batch: _Batch, least: float
) -> tuple[str, str] | None:
    """What is otherwise than alone for one of the groups in a batch: its kind, and in words."""
    many = len(case.group.log_prob)
    try:
        alone = [subject.score(case.one(index).group, case.beta) for index in range(many)]
    except LossError:
        return None  # another trouble
    try:
        together = subject.score(batch.of(case).group, case.beta)
    except LossError as error:
        spread = "; adding 0 * group.log_prob spreads it" if error.kind == "shape" else ""
        return error.kind, f"{batch.what}, {error.text}{spread}"
    scale = scale_of(*together)
    for index, score in enumerate(alone):
        for part, mine, all_of_them in zip(Score._fields, score, together, strict=True):
            single, other = np.asarray(mine), np.asarray(all_of_them)[batch.place(index, many)]
            if np.abs(other - single).max() > least * scale:
                shown = apart(single, other)
                return "difference", f"{part} of a group is {shown[0]} alone and {shown[1]} " + (
                    batch.what
                )
    return None


def _batch_fault(
    subject: Subject, case: GroupCase, batch: _Batch, found: tuple[str, str]
) -> Finding:
    kind, small = found[0], case
    for least in (1e-2, SAME):  # as plain to see as may be

        def fails(candidate: GroupCase, least: float = least) -> bool:
            return (_misjudged(subject, candidate, batch, least) or ("", ""))[0] == kind

        small = reduced(case, fails, subject.sizes, alone=False)
        if small is not case:
            break
    text = (_misjudged(subject, small, batch, SAME) or found)[1]
    example = None
    if small is not case:  # too much to read
        example = group_example(batch.of(small), subject.hyper(small.beta), text)
    return Finding("batch", FAULT, text, {"kind": kind}, example)


def _two(case: GroupCase, index: int) -> GroupCase:
    """The group at ``index`` and its neighbor, as a batch of two."""
    rows = [index, (index + 1) % len(case.group.log_prob)]
    return case._replace(group=Group(*(None if f is None else f[rows] for f in case.group)))
