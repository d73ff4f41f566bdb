"""What a loss promises of itself (its traits), and what its answer depends on.

The exact analysis and the trainer take shortcuts where a trait allows one, so a trait that is not
true gives wrong numbers without a word: that is a fault. A loss without traits promises nothing;
for it the same checks say what it could declare.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bandit._checks import Array
from bandit.losses import Group, Score
from bandit.verification import _draws
from bandit.verification._examples import GroupCase, group_example, shrink_group
from bandit.verification._forms import listed, numbers, scale_of
from bandit.verification._report import FAULT, PASSED, PROPERTY, Finding
from bandit.verification._subject import LossError, Subject

TOLERANCE = 1e-8
OPTIONAL = ("reward", "preference", "behavior_log_prob")


def _score(subject: Subject, case: GroupCase) -> Score:
    score = subject.score(case.group, case.beta)
    return Score(*(np.asarray(part, dtype=np.float64) for part in score))


def _cases(subject: Subject, rng: np.random.Generator) -> list[GroupCase]:
    return [
        _draws.groups(rng, size, beta, subject.baseline)
        for size in subject.sizes
        for beta in _draws.BETAS
    ]


# -------------------------------------------------------------------------------------- reads


def check_reads(subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """Which fields of a group change the answer, next to what is declared."""
    reads: set[str] = set()
    for case in _cases(subject, rng):
        for field in Group._fields:
            if getattr(case.group, field) is not None and _matters(subject, case, field):
                reads.add(field)
    subject.reads = frozenset(reads)
    shown = [field for field in Group._fields if field in reads]
    text = f"its answer depends on {listed(shown)}" if shown else "its answer depends on nothing"
    facts = {"reads": shown}
    if not subject.declared:
        yield Finding("reads", PROPERTY, text, facts)
        return
    known = {"log_prob", "ref_log_prob"} | ({"baseline"} if subject.own.reads_baseline else set())
    extra = sorted(reads - subject.own.requires - known)
    needless = _needs_more(subject, rng)
    if extra:
        text += f", but {listed(extra)} is not in traits.requires"
        yield Finding("reads", FAULT, text, facts)
    elif needless:
        yield Finding("reads", FAULT, needless, facts)
    else:
        yield Finding("reads", PASSED, f"{text}, as declared", facts)


def _matters(subject: Subject, case: GroupCase, field: str) -> bool:
    before = _score(subject, case)
    values = getattr(case.group, field)
    changed = 1 - values if field == "preference" else 0.7 * values[..., ::-1] - 0.3
    after = _score(subject, case._replace(group=case.group._replace(**{field: changed})))
    scale = scale_of(*before)
    return any(np.abs(a - b).max() > TOLERANCE * scale for a, b in zip(before, after, strict=True))


def _needs_more(subject: Subject, rng: np.random.Generator) -> str:
    """What goes wrong when only the declared fields are there."""
    for case in _cases(subject, rng):
        absent = {name: None for name in OPTIONAL if name not in subject.own.requires}
        try:
            subject.score(case.group._replace(**absent), case.beta)
        except LossError as trouble:
            return f"without {listed(absent)}, which it does not require, it {trouble.text}"
    return ""


# ------------------------------------------------------------------------------------- traits


def check_traits(subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """Every trait that is declared is true; or, of a loss without traits, which seem to be."""
    cases = _cases(subject, rng)
    directions = np.random.default_rng(rng.integers(2**32))
    true: list[str] = []
    false: list[Finding] = []
    for trait, breach in BREACHES.items():
        if subject.declared and not getattr(subject.own, trait):
            continue
        usable = [c for c in cases if trait != "separable" or c.group.log_prob.shape[-1] == 2]
        if not usable:
            continue
        seed = int(directions.integers(2**32))
        found = next((c for c in usable if _broken(subject, breach, c, seed)), None)
        if found is None:
            true.append(trait)
        elif subject.declared:
            false.append(_false_trait(subject, trait, breach, found, seed))
    subject.seen = tuple(true)
    facts = {"true": true}
    if false:
        subject.distrust([finding.numbers["trait"] for finding in false])
        yield _also(false)
    elif subject.declared:
        text = f"{listed(true)}, as declared" if true else "none declared"
        yield Finding("traits", PASSED, text, facts)
    elif true:
        text = f"declares none, so the exact analysis takes no shortcut; seen: {listed(true)}"
        yield Finding("traits", PROPERTY, text, facts)
    else:
        yield Finding("traits", PROPERTY, "declares none, and none of them was seen", facts)


def _also(false: list[Finding]) -> Finding:
    """The first of some traits that are not true, with the names of the others."""
    others = [finding.numbers["trait"] for finding in false[1:]]
    text = false[0].text + (f"; neither is {listed(others)}" if others else "")
    text += ". The exact analysis was told not to rely on it"
    return dataclasses.replace(false[0], text=text)


Breach = Callable[[Subject, GroupCase, np.random.Generator], float]


def _broken(subject: Subject, breach: Breach, case: GroupCase, seed: int) -> bool:
    try:
        gap = breach(subject, case, np.random.default_rng(seed))
    except LossError:
        return False
    return not gap <= TOLERANCE


def _false_trait(
    subject: Subject, trait: str, breach: Breach, case: GroupCase, seed: int
) -> Finding:
    for index in np.ndindex(case.group.log_prob.shape[:-1]):
        if _broken(subject, breach, case.one(index), seed):
            case = shrink_group(
                case.one(index), lambda c: _broken(subject, breach, c, seed), subject.sizes
            )
            break
    seen = f"weight {numbers(_score(subject, case).weight)}"
    if trait == "contrastive":
        moved = _score(subject, _moved_together(case)).weight
        seen += f", and {numbers(moved)} when every log_prob is 0.7 less"
    text = f"{trait} is declared and not true: {MEANINGS[trait]}"
    example = group_example(case, subject.hyper(case.beta), seen)
    return Finding("traits", FAULT, text, {"trait": trait}, example)


MEANINGS = {
    "exchangeable": "reordering a group changes its value or the weights of its members",
    "separable": "a weight of a pair is not affine in the other completion",
    "contrastive": "weights do not sum to 0, or change when all log_prob move together",
    "quadratic": "weights are not affine in log_prob",
    "piecewise_linear": "the value is not convex and piecewise linear in log_prob",
    "affine_in_reward": "weights are not affine in reward",
}


def _gap(one: Array, two: Array, *scale: Array) -> float:
    return float(np.abs(one - two).max() / scale_of(one, two, *scale))


def _exchangeable(subject: Subject, case: GroupCase, rng: np.random.Generator) -> float:
    before = _score(subject, case)
    turned = {
        name: field if field is None or field.ndim < case.group.log_prob.ndim else field[..., ::-1]
        for name, field in case.group._asdict().items()
    }
    if turned["preference"] is not None:
        turned["preference"] = 1 - turned["preference"]
    after = _score(subject, case._replace(group=Group(**turned)))
    return max(_gap(before.value, after.value), _gap(before.weight, after.weight[..., ::-1]))


def _contrastive(subject: Subject, case: GroupCase, rng: np.random.Generator) -> float:
    before = _score(subject, case).weight
    after = _score(subject, _moved_together(case)).weight
    return max(_gap(before.sum(axis=-1), np.zeros(()), before), _gap(before, after))


def _moved_together(case: GroupCase) -> GroupCase:
    return case._replace(group=case.group._replace(log_prob=case.group.log_prob - 0.7))


def _second_difference(subject: Subject, case: GroupCase, moves: dict[str, Array]) -> Array:
    """w(+move) − 2 w + w(−move), relative to the three: 0 where w is affine along the move."""

    moves = {name: m for name, m in moves.items() if getattr(case.group, name) is not None}

    def weight(sign: float) -> Array:
        fields = {name: getattr(case.group, name) + sign * move for name, move in moves.items()}
        return _score(subject, case._replace(group=case.group._replace(**fields))).weight

    up, here, down = weight(1.0), weight(0.0), weight(-1.0)
    return np.abs(up - 2 * here + down) / scale_of(up, here, down)


def _quadratic(subject: Subject, case: GroupCase, rng: np.random.Generator) -> float:
    move = -0.3 * rng.uniform(0.2, 1.0, size=case.group.log_prob.shape[-1])
    return float(_second_difference(subject, case, {"log_prob": move}).max())


def _affine_in_reward(subject: Subject, case: GroupCase, rng: np.random.Generator) -> float:
    move = rng.normal(size=case.group.log_prob.shape[-1])
    return float(_second_difference(subject, case, {"reward": move}).max())


def _separable(subject: Subject, case: GroupCase, rng: np.random.Generator) -> float:
    worst = 0.0
    for other in (0, 1):
        moves = {
            name: rng.uniform(-0.3, 0.3) * np.eye(2)[other]
            for name in ("log_prob", "ref_log_prob", *OPTIONAL)
            if name != "preference"
        }
        change = _second_difference(subject, case, moves)[..., 1 - other]
        worst = max(worst, float(change.max()))
    return worst


def _piecewise_linear(subject: Subject, case: GroupCase, rng: np.random.Generator) -> float:
    """How far the value bends the wrong way, or the weights move between kinks."""
    move = rng.normal(size=case.group.log_prob.shape)

    def at(step: float) -> Score:
        moved = case.group._replace(log_prob=case.group.log_prob + step * move)
        return _score(subject, case._replace(group=moved))

    left, here, right = at(-1.0), at(0.0), at(1.0)
    bend = here.value - (left.value + right.value) / 2
    # Somewhere along a tiny step there may be a kink, but hardly in most groups at once.
    drift = np.abs(at(1e-6).weight - here.weight).max(axis=-1)
    typical = float(np.median(drift))
    # A constant in the value is not what bends are measured by.
    rounding = 4 * np.finfo(np.float64).eps * np.abs(here.value).max()
    scale = scale_of(here.weight, left.value - here.value, right.value - here.value)
    return max(float(bend.max()) - rounding, typical) / scale


BREACHES: dict[str, Breach] = {
    "exchangeable": _exchangeable,
    "separable": _separable,
    "contrastive": _contrastive,
    "quadratic": _quadratic,
    "piecewise_linear": _piecewise_linear,
    "affine_in_reward": _affine_in_reward,
}


# ------------------------------------------------------------------------------------- shifts


def check_reward_shift(subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """r + c for all completions: π* does not change; do the weights?"""
    if "reward" not in subject.reads:
        text = "it does not look at rewards"
        yield Finding("reward_shift", PROPERTY, text, {"invariant": True})
        return
    text = "adding 1 to every reward"
    text += ", and so to the baseline," if subject.baseline else ""
    yield _shift(subject, rng, "reward_shift", "reward", 1.0, text)


def check_log_ratio_shift(subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """ln π − 1 for all completions of a group, as an unknown normalization would do."""
    text = "taking 1 nat from every log-ratio"
    yield _shift(subject, rng, "log_ratio_shift", "log_prob", -1.0, text)


def _shift(
    subject: Subject, rng: np.random.Generator, check: str, field: str, by: float, text: str
) -> Finding:
    def moved(case: GroupCase) -> GroupCase:
        changed = {field: getattr(case.group, field) + by}
        if case.group.baseline is not None:
            # Named baselines are means of rewards, and some of regularized ones.
            follows = subject.baseline in ("value", "behavior")
            along = by if field == "reward" else -by * case.beta * follows
            changed["baseline"] = case.group.baseline + along
        return case._replace(group=case.group._replace(**changed))

    def change(case: GroupCase, part: str) -> float:
        if getattr(case.group, field) is None:
            return 0.0
        try:
            here, there = _score(subject, case), _score(subject, moved(case))
        except LossError:
            return 0.0
        return _gap(getattr(here, part), getattr(there, part))

    cases = _cases(subject, rng)
    facts: dict[str, Any] = {}
    for part in ("value", "weight"):
        facts[part] = not any(change(case, part) > TOLERANCE for case in cases)
    facts["invariant"] = facts["weight"]
    if facts["weight"]:
        rest = "" if facts["value"] else " (the value changes)"
        return Finding(check, PROPERTY, f"{text} leaves the weights as they are{rest}", facts)
    found = next(case for case in cases if change(case, "weight") > TOLERANCE)
    for index in np.ndindex(found.group.log_prob.shape[:-1]):
        if change(found.one(index), "weight") > 0.05:
            found = shrink_group(
                found.one(index), lambda c: change(c, "weight") > 0.05, subject.sizes
            )
            break
    else:
        found = found.one((0,))
    here, there = (_score(subject, case).weight for case in (found, moved(found)))
    seen = f"weight {numbers(here)} becomes {numbers(there)}"
    example = group_example(found, subject.hyper(found.beta), seen)
    return Finding(check, PROPERTY, f"{text} changes the weights: {seen}", facts, example)
