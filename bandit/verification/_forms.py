"""Does a loss keep the contract's form: a score of the right shapes, finite, the same for a group
alone as in a batch, without touching what it was given, and finite or outspoken far out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from bandit.losses import Group, Score
from bandit.tables import MOST_SHOWN
from bandit.verification import _draws
from bandit.verification._examples import GroupCase, group_example, shrink_group
from bandit.verification._report import FAULT, PASSED, PROPERTY, Example, Finding
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


def numbers(values: Any) -> str:
    """A few numbers for a line of text, at a precision that is the same on every machine."""
    flat = np.round(np.ravel(values), 10) + 0.0
    shown = ", ".join(f"{x:.4g}" for x in flat[:MOST_SHOWN].tolist())
    more = ", …" if flat.size > MOST_SHOWN else ""
    return shown if np.ndim(values) == 0 else f"({shown}{more})"


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

    alone = [case.one(index) for index in np.ndindex(case.group.log_prob.shape[:-1])]
    for one in alone:
        if fails(one):
            case = shrink_group(one, fails, sizes)
            break
    else:  # only several at once do it
        two = GroupCase(Group(*_two(case, 0)), case.beta)
        case = two if fails(two) else case
    found = trouble_of(subject, case) or error
    return group_example(case, subject.hyper(case.beta), found.text), found.text


# ------------------------------------------------------------------------------------ returns


def check_returns(subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """A finite score of the right shapes for ordinary groups; finds out for which sizes."""
    troubles: dict[int, tuple[GroupCase, LossError, bool]] = {}
    answered: list[int] = []
    for size in _sizes_to_try(subject):
        case = _draws.groups(rng, size, _draws.BETAS[0], subject.baseline)
        trouble = trouble_of(subject, case)
        if trouble is not None and not subject.declared and not answered:
            with_baseline = _draws.groups(rng, size, _draws.BETAS[0], "value")
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
        yield Finding("returns", FAULT, f"groups of {size}: {text}", {"size": size}, example)
        return
    found = _leaves_its_input_alone(subject, rng) or _too_coarse(subject)
    if found is not None:
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
    before = [None if f is None else f.copy() for f in case.group]
    once = [np.array(part) for part in subject.score(case.group, case.beta)]
    for name, old, new in zip(Group._fields, before, case.group, strict=True):
        if old is not None and not np.array_equal(old, new):
            text = f"it changes group.{name}, which is the caller's"
            return Finding("returns", FAULT, text, {"field": name})
    again = subject.score(case.group, case.beta)
    if not all(np.array_equal(a, b) for a, b in zip(once, again, strict=True)):
        return Finding("returns", FAULT, "it answers the same group differently at a second call")
    subject.witness = case.group, Score(*once)
    return None


def _too_coarse(subject: Subject) -> Finding | None:
    """A fault if nothing that follows could tell its numbers from rounding."""
    assert subject.witness is not None
    score = subject.witness[1]
    for part, array in zip(Score._fields, score, strict=True):
        if array.dtype.kind == "f" and np.finfo(array.dtype).eps > np.finfo(np.float64).eps:
            subject.sizes = ()
            text = f"{part} is {array.dtype} for arrays of float64, which loses digits"
            return Finding("returns", FAULT, text, {"part": part})
    size = max(float(np.abs(array).max()) for array in score)
    if 0 < size < LEAST:
        subject.sizes = ()
        text = (
            f"value and weight are at most {size:.2g} for ordinary groups, which cannot be told "
            "from rounding: multiply it by a constant"
        )
        return Finding("returns", FAULT, text, {"size": size})
    return None


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
            seen = f"{part} {numbers(old[0])}, then {numbers(np.asarray(new)[0])}"
            return Finding("returns", FAULT, f"{text}: {seen}", {"part": part})
    return None


# -------------------------------------------------------------------------------------- batch


def check_batch(subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """Leading axes are groups side by side: each group's score is its score alone; and fields with
    fewer of them, which all policies of an analysis share, serve every one."""
    for size in subject.sizes:
        case = _draws.groups(rng, size, _draws.BETAS[1], subject.baseline)
        try:
            found = _misjudged(subject, case)
        except LossError as error:
            text = f"with a reference and rewards that several policies share, {error.text}"
            yield Finding("batch", FAULT, text, {"size": size})
            return
        if found is not None:
            yield found
            return
    yield Finding("batch", PASSED, "a group's score is the same alone and in a batch")


def _misjudged(subject: Subject, case: GroupCase) -> Finding | None:
    """A fault if a group of the case has another score in one of three kinds of batch."""
    half = _draws.GROUPS // 2
    folded = Group(*(None if f is None else f.reshape(2, half, *f.shape[1:]) for f in case.group))
    shared = case.group._replace(log_prob=np.stack([case.group.log_prob] * 2))
    batches = [
        [np.asarray(part) for part in subject.score(group, case.beta)]
        for group in (case.group, folded, shared)
    ]
    scale = scale_of(*batches[0])
    for index in range(_draws.GROUPS):
        alone = subject.score(case.one(index).group, case.beta)
        places: tuple[Any, ...] = (index, divmod(index, half), (1, index))
        for place, name in enumerate(Score._fields):
            single = np.asarray(alone[place])
            for batch, at in zip(batches, places, strict=True):
                if np.abs(batch[place][at] - single).max() > SAME * scale:
                    text = (
                        f"{name} of a group is {numbers(single)} alone and "
                        f"{numbers(batch[place][at])} in a batch"
                    )
                    two = GroupCase(Group(*_two(case, index)), case.beta)
                    example = group_example(two, subject.hyper(case.beta), text)
                    return Finding("batch", FAULT, text, {}, example)
    return None


def _two(case: GroupCase, index: int) -> list[Any]:
    """The group at ``index`` and its neighbor, as a batch of two."""
    rows = [index, (index + 1) % _draws.GROUPS]
    return [None if f is None else f[rows] for f in case.group]


# ----------------------------------------------------------------------------------- extremes


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
