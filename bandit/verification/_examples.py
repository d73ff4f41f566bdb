"""Cases that show a finding: written as Python, and made smaller while they still show it.

What hypothesis does for tests, in little: propose a simpler case, keep it if it still fails. Cases
are pure data, proposals are made in a fixed order, so the same loss gets the same counterexample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from bandit import pairs, preferences
from bandit._checks import Array
from bandit.losses import Group
from bandit.problem import Bandit
from bandit.verification._report import Example

PER_GROUP = ("preference", "baseline")


class GroupCase(NamedTuple):
    """Groups of completions and the regularization strength they are scored at."""

    group: Group
    beta: float

    def one(self, index: Any) -> GroupCase:
        """The group at ``index`` of the leading axes, alone."""
        fields = (None if f is None else np.asarray(f[index]) for f in self.group)
        return self._replace(group=Group(*fields))


class ProblemCase(NamedTuple):
    """A problem, two behaviors to draw the arms from, and a policy to look at; arrays ([X,] K)."""

    reward: Array
    beta: float
    reference: Array
    mu: Array
    other: Array
    logits: Array
    context_weights: Array | None = None

    @property
    def problem(self) -> Bandit:
        """The bandit."""
        return Bandit(self.reward, self.beta, self.reference, self.context_weights)

    def pairs(self, data: str) -> Any:
        """Who is compared with whom: ``mu`` or ``other`` (independent pairs), or ``joint``, where
        the first arm tells of the second."""
        if data != "joint":
            return pairs.independent(getattr(self, data))
        return _correlated(self.mu, self.other)

    @property
    def preference(self) -> Array:
        """Bradley–Terry preferences with the rewards."""
        return preferences.bradley_terry(self.reward)


def _correlated(mu: Array, other: Array) -> Array:
    """ν ∝ μ(y) μ'(y') twice over where y stands before y': neither independent nor symmetric."""
    arms = mu.shape[-1]
    twice = 1 + np.triu(np.ones((arms, arms)), 1)
    joint = mu[..., :, None] * other[..., None, :] * twice
    return joint / joint.sum(axis=(-2, -1), keepdims=True)


# ------------------------------------------------------------------------------------ shrinking

Case = TypeVar("Case")


def shrink(
    case: Case,
    fails: Callable[[Case], bool],
    simpler: Callable[[Case], Iterator[Case]],
    cost: Callable[[Case], float],
    budget: int,
) -> Case:
    """The simplest case that still fails which ``budget`` trials lead to, boldest proposals first.

    Only what costs less is tried, so that it comes to an end.
    """
    improved = True
    while improved:
        improved = False
        for candidate in simpler(case):
            if cost(candidate) >= cost(case):
                continue
            if budget == 0:
                return case
            budget -= 1
            if fails(candidate):
                case, improved = candidate, True
                break
    return case


def shrink_group(
    case: GroupCase, fails: Callable[[GroupCase], bool], sizes: tuple[int, ...], budget: int = 400
) -> GroupCase:
    """Groups with fewer members, β = 1 and round numbers, as far as they still fail."""
    return shrink(case, fails, lambda c: _simpler_groups(c, sizes), _group_cost, budget)


def shrink_problem(
    case: ProblemCase, fails: Callable[[ProblemCase], bool], budget: int = 24
) -> ProblemCase:
    """A problem without contexts, with fewer arms and round numbers, as far as it still fails."""
    return shrink(case, fails, _simpler_problems, _problem_cost, budget)


def _digits(values: Any) -> float:
    """How much there is to read; of numbers as long as each other the smaller is simpler."""
    flat = np.ravel(values).tolist()
    return sum(len(f"{x:g}") - 0.5 * (x == 0) + 1e-3 * min(abs(x), 9) for x in flat)


def _group_cost(case: GroupCase) -> float:
    fields = [f for f in case.group if f is not None]
    return 100 * case.group.log_prob.shape[-1] + sum(map(_digits, fields)) + _digits(case.beta)


def _simpler_groups(case: GroupCase, sizes: tuple[int, ...]) -> Iterator[GroupCase]:
    group = case.group
    size = group.log_prob.shape[-1]
    if size - 1 in sizes or (size == 5 and 3 in sizes):
        gone = 1 if size - 1 in sizes else 2
        for start in range(size):
            keep = [i for i in range(size) if (i - start) % size >= gone]
            fewer = {
                name: field if field is None or name in PER_GROUP else field[..., keep]
                for name, field in zip(Group._fields, group, strict=True)
            }
            if size - gone == 2:
                fewer["preference"] = np.full(group.log_prob.shape[:-1], 0.75)
            yield case._replace(group=Group(**fewer))
    for name in Group._fields[2:]:
        if getattr(group, name) is not None:
            yield case._replace(group=group._replace(**{name: None}))
    for beta in (1.0, round(case.beta, 1)):
        if beta > 0:
            yield case._replace(beta=beta)
    for name, field in zip(Group._fields, group, strict=True):
        if field is None:
            continue
        for decimals in (0, 1):
            yield case._replace(group=group._replace(**{name: _tame(name, field, decimals)}))
        for index in np.ndindex(field.shape):
            for decimals in (-1, 0, 1):  # −1: zero, or the like
                changed = field.copy()
                changed[index] = _tame(name, field, decimals)[index]
                yield case._replace(group=group._replace(**{name: changed}))


def _tame(name: str, field: Array, decimals: int) -> Array:
    """Rounder numbers of the same kind: log-probabilities stay below 0."""
    if decimals < 0:
        return np.full_like(field, -1.0 if name.endswith("log_prob") else 0.0)
    rounded = np.asarray(np.round(field, decimals) + 0.0)
    return np.minimum(rounded, -(10.0**-decimals)) if name.endswith("log_prob") else rounded


def _problem_cost(case: ProblemCase) -> float:
    return 1000 * case.reward.size + sum(_digits(f) for f in case if f is not None)


def _simpler_problems(case: ProblemCase) -> Iterator[ProblemCase]:
    by_arm = ("reward", "reference", "mu", "other", "logits")
    if case.context_weights is not None:
        for x in range(len(case.reward)):
            alone: dict[str, Any] = {name: getattr(case, name)[x] for name in by_arm}
            yield case._replace(**alone, context_weights=None)
    arms = case.reward.shape[-1]
    for arm in range(arms) if arms > 2 else ():
        keep = [k for k in range(arms) if k != arm]
        fewer: dict[str, Any] = {name: getattr(case, name)[..., keep] for name in by_arm}
        for name in ("reference", "mu", "other"):
            fewer[name] = rounded_simplex(fewer[name], 2)
        yield case._replace(**fewer)
    yield case._replace(
        reward=np.round(case.reward) + 0.0,
        logits=np.round(case.logits) + 0.0,
        reference=rounded_simplex(case.reference, 1),
        mu=rounded_simplex(case.mu, 1),
        other=rounded_simplex(case.other, 1),
        beta=1.0,
    )
    yield case._replace(beta=1.0)
    for name in ("reward", "logits"):
        for decimals in (0, 1):
            changed: Any = {name: np.round(getattr(case, name), decimals) + 0.0}
            yield case._replace(**changed)
    for name in ("reference", "mu", "other"):
        changed = {name: rounded_simplex(getattr(case, name), 1)}
        yield case._replace(**changed)


def rounded_simplex(probability: Array, decimals: int) -> Array:
    """Probabilities that sum to 1 and can be read; none is rounded to 0."""
    unit = 10.0**-decimals
    total = probability.sum(axis=-1, keepdims=True)
    rounded = np.maximum(np.round(probability / total, decimals), unit)
    largest = rounded.argmax(axis=-1)[..., None]
    missing = 1 - rounded.sum(axis=-1, keepdims=True)
    value = np.take_along_axis(rounded, largest, axis=-1) + missing
    np.put_along_axis(rounded, largest, value, axis=-1)
    return np.round(rounded, decimals)


# --------------------------------------------------------------------------------- as Python


def group_example(case: GroupCase, hyper: dict[str, float], seen: str) -> Example:
    """One group, as the call that scores it."""
    fields = {
        name: field.tolist()
        for name, field in zip(Group._fields, case.group, strict=True)
        if field is not None
    }
    written = "".join(f"    {name}=np.array({value}),\n" for name, value in fields.items())
    given = "".join(f", {name}={value!r}" for name, value in hyper.items())
    code = f"group = bandit.losses.Group(\n{written})\nscore = loss(group{given})"
    return Example({"group": fields, **hyper}, code, seen)


def problem_example(
    case: ProblemCase,
    data: Sequence[str],
    seen: str,
    preference: str | None = None,
    baseline: str | None = None,
) -> Example:
    """A problem and its pairs (of each kind in ``data``), as the calls that solve it."""
    inputs, code, call = _problem(case, preference, baseline)
    for place, kind in enumerate(data):
        number = "" if place == 0 else str(place + 1)
        if kind == "joint":
            who = np.round(case.pairs(kind), 12).tolist()
            written = f"np.array({who})"
        else:
            who = getattr(case, kind).tolist()
            written = f"bandit.pairs.independent({who})"
        inputs[f"{'nu' if kind == 'joint' else 'mu'}{number}"] = who
        code += (
            f"\npairs{number} = {written}\n"
            f"solution{number} = bandit.analysis.solve(problem, loss, pairs{number}{call})"
        )
    return Example(inputs, code, seen)


def policy_example(
    case: ProblemCase,
    size: int,
    seen: str,
    preference: str | None = None,
    baseline: str | None = None,
) -> Example:
    """A problem and a policy to look at it from, as the call that takes the expected gradient."""
    inputs, code, call = _problem(case, preference, baseline)
    logits = case.logits.tolist()
    code += (
        f"\nlogits = np.array({logits})\n"
        "policy = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)\n"
        "pairs = bandit.pairs.independent(policy)\n"
        "_, gradient = bandit.analysis.population(\n"
        f"    problem, loss, logits, pairs, group_size={size}{call}\n"
        ")"
    )
    return Example({**inputs, "logits": logits, "group_size": size}, code, seen)


def _problem(
    case: ProblemCase, preference: str | None, baseline: str | None
) -> tuple[dict[str, Any], str, str]:
    """A problem as numbers, as Python, and what a call is given beside it."""
    arrays = {"reward": case.reward, "beta": case.beta, "reference": case.reference}
    if case.context_weights is not None:
        arrays["context_weights"] = case.context_weights
    inputs = {name: np.asarray(value).tolist() for name, value in arrays.items()}
    written = ", ".join(f"{name}={value}" for name, value in inputs.items())
    code, call = f"problem = bandit.Bandit({written})", ""
    if preference is not None:
        inputs["preference"] = preference
        code += f"\npreference = bandit.preferences.{preference}(problem.reward)"
        call += ", preference=preference"
    if baseline is not None:
        inputs["baseline"] = baseline
        call += f", baseline={baseline!r}"
    return inputs, code, call
