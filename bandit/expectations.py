"""Expectations of a loss over all groups, and their derivatives, in the form with a context axis.

Shapes: policies (..., X, K), with X = 1 for a problem without contexts; see :mod:`bandit.groups`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bandit import _checks, arrays, groups, losses
from bandit._checks import Array
from bandit._kept_groups import Block, KeptGroups
from bandit.groups import Setting
from bandit.losses import Group, Loss
from bandit.policies import LogLinear
from bandit.problem import Bandit, log_softmax


def log_policy_of(problem: Bandit, theta: Any, policy: LogLinear | None) -> Any:
    """ln π with a context axis, (..., X, K); of logits in torch or JAX there."""
    if arrays.is_foreign(theta):
        if policy is not None:
            raise TypeError(
                "policy: expected None with logits of torch or JAX (give features @ theta for "
                "logits), got bandit.LogLinear"
            )
        logits = _checks.foreign_numbers("logits", theta)
        _checks.trailing_shape("logits", logits, problem.shape, problem.letters)
        log_policy = log_softmax(logits)
        return log_policy if problem.n_contexts is not None else log_policy[..., None, :]
    if policy is not None:
        theta = _checks.finite_array("theta", theta)
        _checks.trailing_shape("theta", theta, (policy.n_parameters,), "(..., d)")
        theta = policy.logits(theta)
    logits = _checks.finite_array("logits", theta)
    _checks.trailing_shape("logits", logits, problem.shape, problem.letters)
    log_policy = log_softmax(logits)
    return log_policy if problem.n_contexts is not None else log_policy[..., None, :]


def logit_gradient(loss: Loss, log_policy: Any, arm_weight: Any) -> Any:
    """Σ_y a(y) ∇ ln π(y) = a − π Σ a: the gradient by the logits from the weight on each arm.

    The weights of a contrastive loss sum to zero; taking that as exact keeps the digits of an arm
    with tiny weight, which the rounding of the sum would bury.
    """
    if losses.traits(loss).contrastive:
        return arm_weight
    xp = arrays.namespace(log_policy)
    return arm_weight - xp.exp(log_policy) * xp.sum(arm_weight, axis=-1, keepdims=True)


def expected(where: Setting, loss: Loss, log_policy: Any, group_size: int = 2) -> tuple[Any, Any]:
    """Expected value (..., X), and the expected weight that falls on each arm (..., X, K).

    Of a policy in torch or JAX they are computed there, and the value can be differentiated.
    """
    return Expectation(where, loss, group_size)(log_policy)


class Expectation:
    """:func:`expected` of one policy after another: what the data say is made once for all."""

    def __init__(self, where: Setting, loss: Loss, group_size: int = 2) -> None:
        self.where, self.loss, self.own = where, loss, losses.traits(loss)
        group_size = groups.check_group_size(where, loss, group_size)
        self.blocks = KeptGroups(where, loss, group_size)
        separable = group_size == 2 and self.own.separable and where.pairs.is_independent
        self._average = _AgainstAverage(where, loss) if separable else None

    def __call__(self, log_policy: Any) -> tuple[Any, Any]:
        """Value (..., X) and weight (..., X, K) of policies (..., X, K)."""
        if self._average is not None:
            return self._average(log_policy)
        xp = arrays.namespace(log_policy)
        value = arrays.zeros(log_policy, log_policy.shape[:-1])
        arm_weight = arrays.zeros(log_policy, log_policy.shape)
        for block in self.blocks:
            # Groups that cannot occur may have infinite weights (ln μ = −∞): they count for 0.
            probability = arrays.constant(log_policy, block.probability)
            possible = probability > 0
            with np.errstate(invalid="ignore", over="ignore"):
                score = self.loss(block.gather(log_policy))
                value += xp.sum(xp.where(possible, probability * score.value, 0.0), axis=-1)
                mass = xp.where(possible[..., None], probability[..., None] * score.weight, 0.0)
            arm_weight += block.onto_arms(mass)
        return value, arm_weight

    def weight(self, log_policy: Any) -> Any:
        """The weight alone."""
        return self(log_policy)[1] if self._average is None else self._average.weight(log_policy)

    def jacobian(self, log_policy: Array, size: float, affine: bool) -> Array:
        """Jacobian (X, K, K) of each context's expected gradient by its logits, at policies (X, K).

        The loss is differenced group by group, O(K²) evaluations for pairs, and the chain rule
        through ln π and the softmax is exact. ``size`` is a typical change of the logits: an
        ``affine`` loss is differenced over it, without error; any other one over a small step, to
        fourth order.
        """
        arms, pi = log_policy.shape[-1], np.exp(log_policy)
        steps = _steps(size, affine, self.where.beta)
        arm_weight, by_log_prob, by_baseline = _slopes(self, log_policy, steps)
        if isinstance(self.where.baseline, str):
            moved = _baseline_slope(self.where, log_policy)
            by_log_prob += by_baseline[..., :, None] * moved[..., None, :]
        # d ln π(y) / d logit(k) = [y = k] − π(k), then the product rule on a − π Σ a.
        if self.own.contrastive:
            return by_log_prob
        by_logits = by_log_prob - by_log_prob.sum(axis=-1, keepdims=True) * pi[..., None, :]
        total = arm_weight.sum(axis=-1)[..., None, None]
        softmax_slope = pi[..., None] * (np.eye(arms) - pi[..., None, :])
        pulled = pi[..., None] * by_logits.sum(axis=-2, keepdims=True)
        return by_logits - pulled - total * softmax_slope


class _AgainstAverage:
    r"""Expectation over independent pairs in O(K), for weights that are affine in the other arm.

    Let m be an "average completion", whose every field is the mean of the arms' fields. Then the
    expected weight of y is its weight against m, and as what the two arms say jointly is bilinear
    and centered at m, E f(y, y') = E f(y, m') + E f(m, y') − f(m, m').
    """

    def __init__(self, where: Setting, loss: Loss) -> None:
        self.where, self.loss = where, loss
        # A loss that is the same from both sides needs to be seen from one only.
        own = losses.traits(loss)
        self.one_side = where.pairs.is_symmetric_product and own.exchangeable
        self._kept: _Averages | None = None

    def _averages(self, log_policy: Any) -> _Averages:
        """What the data say, in the library of the policy; numpy's is made once."""
        if arrays.is_foreign(log_policy):
            return _Averages.of(self.where, self.loss, log_policy)
        if self._kept is None:
            self._kept = _Averages.of(self.where, self.loss, log_policy)
        return self._kept

    def __call__(self, log_policy: Any) -> tuple[Any, Any]:
        """Value (..., X) and weight (..., X, K) of policies (..., X, K)."""
        data, xp = self._averages(log_policy), arrays.namespace(log_policy)
        left, right = self._sides(data, log_policy)
        means = _mean(log_policy, data.mu), _mean(log_policy, data.other)
        middle = self._score(log_policy, *means, data.middle).value[..., 0]
        value = (
            xp.sum(_counted(data.mu, left.value), axis=-1)
            + xp.sum(_counted(data.other, right.value), axis=-1)
            - middle
        )
        return value, self._weight(data, left, right)

    def weight(self, log_policy: Any) -> Any:
        """The weight alone, for less."""
        data = self._averages(log_policy)
        return self._weight(data, *self._sides(data, log_policy))

    def _weight(self, data: _Averages, left: losses.Score, right: losses.Score) -> Any:
        of_other = right.weight[..., 0 if self.one_side else 1]
        return _counted(data.mu, left.weight[..., 0]) + _counted(data.other, of_other)

    def _sides(self, data: _Averages, log_policy: Any) -> tuple[losses.Score, losses.Score]:
        """Every arm against the average second one, and the average first one against every arm."""
        left = self._score(log_policy, log_policy, _mean(log_policy, data.other), data.left)
        if self.one_side:
            return left, left
        right = self._score(log_policy, _mean(log_policy, data.mu), log_policy, data.right)
        return left, right

    def _score(self, log_policy: Any, one: Any, two: Any, data: list[Any]) -> losses.Score:
        log_prob = _side_by_side(one, two, log_policy.shape[:-1])
        lead = log_prob.shape[: log_policy.ndim - 2]
        xp = arrays.namespace(log_policy)
        reference, reward, behavior = (
            x if x is None or not lead else xp.broadcast_to(x, (*lead, *x.shape)) for x in data
        )
        baseline = groups.baseline_value(self.where, log_policy)
        if baseline is not None:
            baseline = xp.broadcast_to(baseline[..., None], log_prob.shape[:-1])
        with np.errstate(invalid="ignore", over="ignore"):
            return self.loss(Group(log_prob, reference, reward, None, behavior, baseline))


class _Averages(NamedTuple):
    """What the data say of every arm and of the average one, beside each other.

    The lists are ln π_ref, the reward and ln μ as pairs (X, K or 1, 2); ln μ is None unless asked
    for.
    """

    mu: Any  # (1 or X, K)
    other: Any
    left: list[Any]  # each arm first, the average one second
    right: list[Any]
    middle: list[Any]  # the average ones of both sides

    @classmethod
    def of(cls, where: Setting, loss: Loss, like: Any) -> _Averages:
        """In the library of the policy ``like``."""
        pairs = where.pairs
        mu = other = arrays.constant(like, pairs.first)
        if pairs.second is not pairs.first:
            other = arrays.constant(like, pairs.second)
        told, told_other = pairs.told
        first = _arm_fields(where, loss, like, told)
        second = first if told is told_other else _arm_fields(where, loss, like, told_other)
        mean_first = [_mean(x, mu) for x in first]
        mean_second = [_mean(x, other) for x in second]
        lead = where.reward.shape[:-1]

        def beside(one: list[Any], two: list[Any]) -> list[Any]:
            return [_side_by_side(a, b, lead) for a, b in zip(one, two, strict=True)]

        return cls(
            mu,
            other,
            beside(first, mean_second),
            beside(mean_first, second),
            beside(mean_first, mean_second),
        )


def _arm_fields(where: Setting, loss: Loss, like: Any, told: Array) -> list[Any]:
    xp, log_told = arrays.namespace(like), None
    if "behavior_log_prob" in losses.traits(loss).requires:
        mass = arrays.constant(like, told)
        # Arms that are never drawn count for nothing, and must not be infinite on the way.
        log_told = xp.log(xp.where(mass > 0, mass, 1.0))
    return [*(arrays.constant(like, x) for x in (where.log_reference, where.reward)), log_told]


def _counted(mass: Any, x: Any) -> Any:
    """mass · x, 0 where there is no mass."""
    with np.errstate(invalid="ignore"):
        return arrays.namespace(mass).where(mass > 0, mass * x, 0.0)


def _mean(x: Any, mass: Any) -> Any:
    """Mean of a field (..., X, K), as (..., X, 1); None of none."""
    if x is None:
        return None
    return arrays.namespace(mass).sum(_counted(mass, x), axis=-1, keepdims=True)


def _side_by_side(one: Any, two: Any, lead: tuple[int, ...]) -> Any:
    """Two fields (..., X, K or 1) as the two completions of pairs (*lead, N, 2).

    Laid out as two contiguous planes, which is several times faster for a million arms.
    """
    if one is None or two is None:
        return None
    width = max(one.shape[-1], two.shape[-1])
    if arrays.is_foreign(one):
        xp, shape = arrays.namespace(one), (*lead, width)
        return xp.stack([xp.broadcast_to(one, shape), xp.broadcast_to(two, shape)], axis=-1)
    planes = np.empty((2, *lead, width))
    planes[0], planes[1] = one, two
    return np.moveaxis(planes, 0, -1)


# -------------------------------------------------------------------------------- derivatives


def _slopes(
    expectation: Expectation, log_policy: Array, steps: Array
) -> tuple[Array, Array, Array]:
    """Expected weight by arm (X, K), and its slopes by ln π (X, K, K) and by the baseline (X, K).

    A loss is asked once for all changes of a block of groups.
    """
    where, (contexts, arms) = expectation.where, log_policy.shape
    arm_weight, by_baseline = np.zeros(log_policy.shape), np.zeros(log_policy.shape)
    by_log_prob = np.zeros((contexts, arms * arms))
    for block in expectation.blocks:
        size = block.members.shape[-1]
        # Nothing, each member's ln π up and down, then the baseline.
        member = np.repeat(np.arange(size + 1), len(steps))
        moves = np.zeros((len(member) + 1, size + 1))
        moves[np.arange(1, len(moves)), member] = np.tile(steps, size + 1)
        if not isinstance(where.baseline, str):
            moves = moves[: -len(steps)]
        for part in block.parts(groups.BLOCK // (contexts * len(moves))):
            weight = _moved(expectation, part, log_policy, moves)
            arm_weight += part.onto_arms(weight[0])
            changes = weight[1:].reshape(-1, len(steps), *weight.shape[1:])
            for m, slope in enumerate(_difference(changes, steps)):
                if m == size:
                    by_baseline += part.onto_arms(slope / where.beta)
                    continue
                place = (part.members * arms + part.members[:, m, None]).ravel()
                for x in range(contexts):
                    by_log_prob[x] += np.bincount(place, slope[x].ravel(), arms * arms)
    return arm_weight, by_log_prob.reshape(contexts, arms, arms), by_baseline


def _moved(expectation: Expectation, block: Block, log_policy: Array, moves: Array) -> Array:
    """Weights (M, X, N, G) times probabilities, with ln π of the members and the baseline (in β)
    changed by ``moves`` (M, G + 1)."""
    group = block.gather(log_policy)
    log_prob = group.log_prob + moves[:, None, None, :-1]
    baseline = group.baseline
    if isinstance(expectation.where.baseline, str):
        baseline = baseline + (moves[:, -1] * expectation.where.beta)[:, None, None]
    mass = block.unlike if expectation.own.contrastive else block.probability
    mass = mass[..., None]
    with np.errstate(invalid="ignore", over="ignore"):
        weight = expectation.loss(group._replace(log_prob=log_prob, baseline=baseline)).weight
        return np.where(mass > 0, mass * weight, 0.0)


def _steps(size: float, affine: bool, beta: float) -> Array:
    """Where to look for a derivative: at ±h, or to fourth order also at ±2h."""
    h = size if affine else 1e-3 / max(1.0, beta)
    return np.array([h, -h] if affine else [h, -h, 2 * h, -2 * h])


def _difference(values: Array, steps: Array) -> Array:
    """Derivatives at 0 from values (..., S, X, N, G) at the steps (S,)."""
    near = values[:, 0] - values[:, 1]
    if len(steps) == 2:
        return near / (2 * steps[0])
    return (8 * near - (values[:, 2] - values[:, 3])) / (12 * steps[0])


def _baseline_slope(where: Setting, log_policy: Array) -> Array:
    """d baseline / d ln π(y), (X, K), for the baselines E_π[R] and E_μ[R]."""
    pi = np.exp(log_policy)
    if where.baseline == "value":
        regularized = where.reward - where.beta * (log_policy - where.log_reference)
        return pi * (regularized - where.beta)
    return -where.beta * where.pairs.exposure / 2 + 0 * pi
