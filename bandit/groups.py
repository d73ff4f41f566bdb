"""From arms to groups and back: the bridge between a bandit's arms and :mod:`bandit.losses`.

The losses see groups of completions; the bandit has arms and a distribution of groups. A
:class:`Listing` names the arms of every possible group with its probability. Here its fields are
gathered into a :class:`~bandit.losses.Group`, and the weights a loss returns are scattered back
onto the arms. The exact analysis takes expectations over listings; the trainer draws counts of
their rows.

Inside this module and its callers every array has the context axis ``X`` (of length 1 for a problem
without contexts): shapes are (..., X, K) for arms, (..., X, N, G) for N groups of G.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.special import gammaln

from bandit import _checks, arrays, losses, preferences
from bandit._checks import Array
from bandit.losses import Group, Loss
from bandit.pairs import Pairs, as_pairs
from bandit.problem import Bandit, check_problem

# About a million groups are looked at together: large enough for numpy, small enough for memory.
BLOCK = 1 << 20
MOST_GROUPS = 1 << 22
# Of larger groups the number of orders, and the probability of each, may not fit into float64.
LARGEST_FACTORIAL = 170

BASELINES = ("value", "behavior", "reward", "optimal")
"""Baselines with a name: E_π[R], E_μ[R], E_μ[r] and V* = β ln Z, in units of reward."""


class Listing(NamedTuple):
    """N groups of G arms: ``members`` (N, G), and each one's ``probability`` (X, N)."""

    members: Any
    probability: Array


class Setting(NamedTuple):
    """Problem and data in the form with a context axis: what groups are made from."""

    reward: Array  # (X, K)
    log_reference: Array  # (X, K)
    beta: float
    pairs: Pairs  # marginals (1 or X, K)
    preference: Array | None  # (1 or X, K, K)
    baseline: str | Array | None  # a name only if it moves with the policy; else numbers (X,)


def bind(loss: Loss, problem: Bandit, baseline: Any = None) -> Loss:
    """``loss`` with what the problem knows filled in where it was left open.

    ``beta`` is the problem's; ``eta`` its inverse (one mirror-descent round from the reference that
    ends at π*); a baseline asked for in the analysis switches a loss that has the option to it.
    """
    check_problem(problem)
    if isinstance(loss, str):
        loss = losses.get(loss)
    if not callable(loss):
        raise TypeError(f"loss: expected a function of bandit.losses, got {type(loss).__name__}")
    options = inspect.signature(loss).parameters
    bound = loss.keywords if isinstance(loss, functools.partial) else {}
    known = {"beta": problem.beta, "eta": 1 / problem.beta}
    extra: dict[str, Any] = {k: v for k, v in known.items() if k in options and k not in bound}
    if baseline is not None and "baseline" in options and "baseline" not in bound:
        extra["baseline"] = "given"
    return functools.partial(loss, **extra) if extra else loss


def name_of(loss: Any) -> str:
    """A loss's name, also when hyper-parameters are bound."""
    while isinstance(loss, functools.partial):
        loss = loss.func
    return loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)


def setting(
    problem: Bandit,
    loss: Loss,
    pairs: Any,
    preference: ArrayLike | None = None,
    baseline: str | ArrayLike | None = None,
) -> Setting:
    """Check what the loss needs and bring everything to the form with a context axis."""
    required = losses.traits(loss).requires
    if "preference" in required and preference is None:
        raise ValueError(f"preference: expected an array (..., K, K) for {name_of(loss)}, got None")
    if isinstance(baseline, str):
        _checks.one_of("baseline", baseline, BASELINES)
    elif baseline is not None:
        baseline = _checks.finite_array("baseline", baseline)
        contexts = problem.shape[:-1]
        if baseline.shape not in ((), contexts):
            raise ValueError(
                f"baseline: expected one of {', '.join(BASELINES)}, a number or shape {contexts}, "
                f"got {baseline.shape}"
            )
        baseline = np.broadcast_to(baseline, contexts or (1,))
    if baseline is not None and not _takes_baseline(loss):
        raise ValueError(f"baseline: expected None for {name_of(loss)}, which has none")
    known = as_pairs(pairs, problem.shape)
    if isinstance(baseline, str) and baseline in ("reward", "optimal"):
        # These stay where they are whatever the policy.
        fixed = problem.beta * problem.log_partition()
        if baseline == "reward":
            fixed = (known.exposure / 2 * problem.reward).sum(axis=-1)
        baseline = np.atleast_1d(fixed)
    matrix = None if preference is None else preferences.check(preference, problem.shape)
    return Setting(
        reward=np.atleast_2d(problem.reward),
        log_reference=np.atleast_2d(problem.log_reference),
        beta=problem.beta,
        pairs=_with_context_axis(known),
        preference=matrix if matrix is None or matrix.ndim == 3 else matrix[None],
        baseline=baseline,
    )


def _takes_baseline(loss: Loss) -> bool:
    """Registered losses say so; of one from elsewhere it isn't known."""
    return losses.traits(loss).reads_baseline or name_of(loss) not in losses.REGISTRY


def _with_context_axis(pairs: Pairs) -> Pairs:
    if pairs.first.ndim == 2:
        return pairs
    first = pairs.first[None]
    second = first if pairs.first is pairs.second else pairs.second[None]
    joint = (
        pairs.joint if pairs.joint is None or sparse.issparse(pairs.joint) else pairs.joint[None]
    )
    return Pairs(first, second, joint, None if pairs.behavior is None else pairs.behavior[None])


# ------------------------------------------------------------------------------ listing groups


def listings(where: Setting, loss: Loss, group_size: int = 2) -> Iterator[Listing]:
    """All groups with their probabilities, in blocks of bounded size.

    Pairs come from ν. Larger groups are ``group_size`` independent draws from one distribution, and
    are listed as multisets with their multinomial probabilities.
    """
    size = check_group_size(where, loss, group_size)
    own = losses.traits(loss)
    symmetric = own.exchangeable
    if size == 2:
        # The arms of a pair may be drawn from different distributions; then a loss that looks at
        # them must know which one stood first.
        tells = "behavior_log_prob" in own.requires and where.pairs.first is not where.pairs.second
        yield from _pairs(where, symmetric and not tells)
    elif symmetric:
        yield from _multisets(where.pairs.first, size)
    else:
        yield from _sequences(where.pairs.first, size)


def check_group_size(where: Setting, loss: Loss, group_size: Any) -> int:
    """``group_size`` if the loss takes such groups and the data can give them, else one line."""
    size = _checks.positive_integer("group_size", group_size)
    least, most = losses.traits(loss).sizes
    if size < least or (most is not None and size > most):
        raise ValueError(
            f"group_size: expected {least if most == least else f'at least {least}'} "
            f"for {name_of(loss)}, got {size}"
        )
    if size != 2 and not where.pairs.is_symmetric_product:
        raise ValueError(
            f"group_size: expected 2 unless pairs are bandit.pairs.independent(mu), got {size}"
        )
    return size


def _pairs(where: Setting, symmetric: bool) -> Iterator[Listing]:
    pairs, (contexts, arms) = where.pairs, where.reward.shape
    if sparse.issparse(pairs.joint):
        table = pairs.joint.tocoo()
        yield Listing(np.stack([table.row, table.col], axis=-1), table.data[None])
        return
    rows = max(1, BLOCK // (arms * contexts))
    for start in range(0, arms, rows):
        i, j = np.meshgrid(
            np.arange(start, min(start + rows, arms)), np.arange(arms), indexing="ij"
        )
        keep = (i <= j) if symmetric else np.ones(i.shape, dtype=bool)
        i, j = i[keep], j[keep]
        probability = pairs.probability(i, j)
        if symmetric:
            probability = probability + np.where(i == j, 0.0, pairs.probability(j, i))
        yield Listing(np.stack([i, j], axis=-1), probability)


def _multisets(mu: Array, size: int) -> Iterator[Listing]:
    arms = mu.shape[-1]
    how_many = math.comb(arms + size - 1, size)
    _affordable(how_many, arms, size)
    flat = itertools.chain.from_iterable(itertools.combinations_with_replacement(range(arms), size))
    members = np.fromiter(flat, dtype=np.intp, count=how_many * size).reshape(how_many, size)
    # Arms come sorted: the multinomial coefficient is size! over the factorials of the run lengths.
    new = np.diff(members, axis=-1, prepend=-1) != 0
    place = np.arange(size)
    run = place - np.maximum.accumulate(np.where(new, place, 0), axis=-1) + 1
    log_ways = gammaln(size + 1) - np.log(run).sum(axis=-1)
    if size <= LARGEST_FACTORIAL:
        yield Listing(members, mu[..., members].prod(axis=-1) * np.exp(log_ways))
        return
    with np.errstate(divide="ignore"):
        yield Listing(members, np.exp(np.log(mu)[..., members].sum(axis=-1) + log_ways))


def _sequences(mu: Array, size: int) -> Iterator[Listing]:
    arms = mu.shape[-1]
    _affordable(arms**size, arms, size)
    members = np.stack(np.unravel_index(np.arange(arms**size), (arms,) * size), axis=-1)
    yield Listing(members, mu[..., members].prod(axis=-1))


def _affordable(how_many: int, arms: int, size: int) -> None:
    if how_many > MOST_GROUPS:
        raise ValueError(
            f"group_size: expected at most {MOST_GROUPS} different groups to list, got {how_many} "
            f"groups of {size} out of {arms} arms; sample with bandit.train instead"
        )


# ----------------------------------------------------------------------- gathering, scattering


def gather(where: Setting, log_policy: Any, members: Any) -> Group:
    """The groups ``members`` (N, G) of a policy (..., X, K) as a Group of fields (..., X, N, G)."""
    return with_policy(where, log_policy, members, data_of(where, members))


def data_of(where: Setting, members: Any) -> Group:
    """What the data say of the groups ``members`` (N, G), fields (X, N, G): all but the policy's
    log-probability and the baseline, which may follow it."""
    first, second = where.pairs.told
    contexts = where.reward.shape[0]
    return Group(
        log_prob=None,
        ref_log_prob=where.log_reference[..., members],
        reward=where.reward[..., members],
        preference=_spread(preference_of(where, members), contexts),
        behavior_log_prob=_spread(_log_behavior(first, second, members), contexts, 3),
    )


def with_policy(where: Setting, log_policy: Any, members: Any, data: Group) -> Group:
    """The groups ``members`` with :func:`data_of` them, of a policy (..., X, K)."""
    baseline = baseline_value(where, log_policy)
    if baseline is not None:
        lead = (*log_policy.shape[:-1], len(members))
        baseline = arrays.namespace(log_policy).broadcast_to(baseline[..., None], lead)
    return Group(
        log_prob=log_policy[..., members],
        ref_log_prob=arrays.constant(log_policy, data.ref_log_prob),
        reward=arrays.constant(log_policy, data.reward),
        preference=arrays.constant(log_policy, data.preference),
        behavior_log_prob=arrays.finite_constant(log_policy, data.behavior_log_prob),
        baseline=baseline,
    )


def _spread(field: Array | None, contexts: int, axes: int = 2) -> Array | None:
    """A field shared by all contexts, repeated (as a view) along the context axis."""
    if field is None or field.shape[-axes] == contexts:
        return field
    shape = list(field.shape)
    shape[-axes] = contexts
    return np.broadcast_to(field, shape)


def preference_of(where: Setting, members: Any) -> Array | None:
    """P(first ≻ second) of listed pairs, (1 or X, N)."""
    if where.preference is None or members.shape[-1] != 2:
        return None
    return where.preference[..., members[..., 0], members[..., 1]]


def _log_behavior(first: Array, second: Array, members: Any) -> Array:
    with np.errstate(divide="ignore"):
        if first is second or members.shape[-1] != 2:
            return np.log(first)[..., members]
        return np.stack(
            [np.log(first)[..., members[..., 0]], np.log(second)[..., members[..., 1]]], axis=-1
        )


def baseline_value(where: Setting, log_policy: Any) -> Any:
    """The baseline of each context, (..., X): E_π[R] or E_μ[R] at this policy, or the given one;
    a constant of automatic differentiation.

    On-policy, where it moves, the mean reward is called "policy_reward": E_π[r].
    """
    if where.baseline is None:
        return None
    xp, policy = arrays.namespace(log_policy), arrays.held(log_policy)
    if not isinstance(where.baseline, str):
        return xp.broadcast_to(arrays.constant(policy, where.baseline), policy.shape[:-1])
    reward, log_reference, exposure = (
        arrays.constant(policy, x)
        for x in (where.reward, where.log_reference, where.pairs.exposure)
    )
    if where.baseline == "policy_reward":
        return xp.sum(xp.exp(policy) * reward, axis=-1)
    regularized = reward - where.beta * (policy - log_reference)
    mass = xp.exp(policy) if where.baseline == "value" else exposure / 2
    return xp.sum(mass * regularized, axis=-1)


def onto_arms(members: Any, arms: int, weight: Any) -> Any:
    """Sum of per-member weights (..., N, G) over the ``members`` that are each arm, (..., K)."""
    if arrays.is_foreign(weight):
        flat = weight.reshape(*weight.shape[:-2], -1)
        return arrays.sums_at(np.ravel(members), flat, arms)
    return scatter(incidence(members, arms), weight)


def incidence(members: Any, arms: int) -> sparse.csr_array:
    """(K, N·G) zeros and ones: which arm each member of each group is."""
    flat = np.ravel(members)
    return sparse.csr_array(
        (np.ones(flat.size), flat, np.arange(flat.size + 1)), shape=(flat.size, arms)
    ).T.tocsr()


def scatter(onto: sparse.csr_array, weight: Array) -> Array:
    """Sum of per-member weights (..., N, G) over the members that are each arm, (..., K)."""
    lead = weight.shape[:-2]
    flat = weight.reshape(-1, weight.shape[-2] * weight.shape[-1])
    return (onto @ flat.T).T.reshape(*lead, onto.shape[0])


def one_context(where: Setting, x: int) -> Setting:
    """The setting of context ``x`` alone."""

    def pick(field: Any) -> Any:
        if field is None or isinstance(field, str) or sparse.issparse(field) or len(field) == 1:
            return field
        return field[x : x + 1]

    first = pick(where.pairs.first)
    second = first if where.pairs.first is where.pairs.second else pick(where.pairs.second)
    return where._replace(
        reward=pick(where.reward),
        log_reference=pick(where.log_reference),
        pairs=Pairs(first, second, pick(where.pairs.joint), pick(where.pairs.behavior)),
        preference=pick(where.preference),
        baseline=pick(where.baseline),
    )


def typical_log_ratio(where: Setting, loss: Loss) -> float:
    """The size of log-ratios to expect at a solution, in nats: the step to difference over."""
    spread = float(np.ptp(where.reward, axis=-1).max()) / where.beta
    if "preference" in losses.traits(loss).requires:
        spread = 1 / where.beta
    return max(1.0, spread)
