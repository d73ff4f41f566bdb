"""Expectations of a loss over all groups, and their derivatives, in the form with a context axis.

Shapes: policies (..., X, K), with X = 1 for a problem without contexts; see :mod:`bandit.groups`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bandit import _checks, arrays, groups, losses
from bandit._checks import Array
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
    own, xp = losses.traits(loss), arrays.namespace(log_policy)
    if group_size == 2 and own.separable and where.pairs.is_independent:
        return _expected_against_average(where, loss, log_policy)
    value = arrays.zeros(log_policy, log_policy.shape[:-1])
    arm_weight = arrays.zeros(log_policy, log_policy.shape)
    for listing in groups.listings(where, loss, group_size):
        # Groups that cannot occur may have infinite weights (ln μ = −∞): they count for nothing.
        probability = arrays.constant(log_policy, listing.probability)
        possible = probability > 0
        with np.errstate(invalid="ignore", over="ignore"):
            score = loss(groups.gather(where, log_policy, listing.members))
            value += xp.sum(xp.where(possible, probability * score.value, 0.0), axis=-1)
            mass = xp.where(possible[..., None], probability[..., None] * score.weight, 0.0)
        arm_weight += groups.onto_arms(listing.members, log_policy.shape[-1], mass)
    return value, arm_weight


def _expected_against_average(where: Setting, loss: Loss, log_policy: Any) -> tuple[Any, Any]:
    r"""Expectation over independent pairs in O(K), for weights that are affine in the other arm.

    Let m be an "average completion", whose every field is the mean of the arms' fields. Then the
    expected weight of y is its weight against m, and as what the two arms say jointly is bilinear
    and centered at m, E f(y, y') = E f(y, m') + E f(m, y') − f(m, m').
    """
    xp = arrays.namespace(log_policy)
    mu = arrays.constant(log_policy, where.pairs.first)
    other = mu
    if where.pairs.second is not where.pairs.first:
        other = arrays.constant(log_policy, where.pairs.second)
    told, told_other = where.pairs.told
    first = _arm_fields(where, loss, log_policy, told)
    second = first if told is told_other else _arm_fields(where, loss, log_policy, told_other)
    mean_first, mean_second = _mean_fields(first, mu), _mean_fields(second, other)
    baseline = groups.baseline_value(where, log_policy)

    def score(one: list[Any], two: list[Any]) -> losses.Score:
        fields = [_side_by_side(a, b, log_policy) for a, b in zip(one, two, strict=True)]
        group = Group(fields[0], fields[1], fields[2], None, fields[3])
        if baseline is not None:
            per_group = xp.broadcast_to(baseline[..., None], group.log_prob.shape[:-1])
            group = group._replace(baseline=per_group)
        with np.errstate(invalid="ignore", over="ignore"):
            return loss(group)

    def expectation(mass: Any, x: Any) -> Any:
        with np.errstate(invalid="ignore"):
            return xp.where(mass > 0, mass * x, 0.0)

    # A loss that is the same from both sides needs to be seen from one only.
    both = where.pairs.is_symmetric_product and losses.traits(loss).exchangeable
    left = score(first, mean_second)
    right = left if both else score(mean_first, second)
    middle = score(mean_first, mean_second).value[..., 0]
    value = (
        xp.sum(expectation(mu, left.value), axis=-1)
        + xp.sum(expectation(other, right.value), axis=-1)
        - middle
    )
    of_other = right.weight[..., 0 if both else 1]
    return value, expectation(mu, left.weight[..., 0]) + expectation(other, of_other)


def _arm_fields(where: Setting, loss: Loss, log_policy: Any, told: Array) -> list[Any]:
    xp, log_told = arrays.namespace(log_policy), None
    if "behavior_log_prob" in losses.traits(loss).requires:
        mass = arrays.constant(log_policy, told)
        # Arms that are never drawn count for nothing, and must not be infinite on the way.
        log_told = xp.log(xp.where(mass > 0, mass, 1.0))
    constants = (arrays.constant(log_policy, x) for x in (where.log_reference, where.reward))
    return [log_policy, *constants, log_told]


def _mean_fields(fields: list[Any], mass: Any) -> list[Any]:
    xp = arrays.namespace(mass)
    with np.errstate(invalid="ignore"):
        return [
            None if x is None else xp.sum(xp.where(mass > 0, mass * x, 0.0), axis=-1, keepdims=True)
            for x in fields
        ]


def _side_by_side(one: Any, two: Any, log_policy: Any) -> Any:
    """Two fields (..., X, K or 1) as the two completions of pairs (..., X, N, 2).

    Laid out as two contiguous planes, which is several times faster for a million arms.
    """
    if one is None or two is None:
        return None
    width = max(one.shape[-1], two.shape[-1])
    if arrays.is_foreign(log_policy):
        xp, shape = arrays.namespace(log_policy), (*log_policy.shape[:-1], width)
        return xp.stack([xp.broadcast_to(one, shape), xp.broadcast_to(two, shape)], axis=-1)
    planes = np.empty((2, *log_policy.shape[:-1], width))
    planes[0], planes[1] = one, two
    return np.moveaxis(planes, 0, -1)


# -------------------------------------------------------------------------------- derivatives


def jacobian(where: Setting, loss: Loss, log_policy: Array, size: float, affine: bool) -> Array:
    """Jacobian (X, K, K) of each context's expected gradient by its logits, at policies (X, K).

    The loss is differenced group by group, O(K²) evaluations for pairs, and the chain rule through
    ln π and the softmax is exact. ``size`` is a typical change of the logits: an ``affine`` loss is
    differenced over it, without error; any other one over a small step, to fourth order.
    """
    arms = log_policy.shape[-1]
    pi = np.exp(log_policy)
    arm_weight = np.zeros(log_policy.shape)
    by_log_prob = np.zeros((*log_policy.shape, arms))
    by_baseline = np.zeros(log_policy.shape)
    moving_baseline = isinstance(where.baseline, str)
    for listing in groups.listings(where, loss):
        group = groups.gather(where, log_policy, listing.members)
        mass = listing.probability[..., None]
        if losses.traits(loss).contrastive:
            # An arm against itself pulls nowhere; its slopes cancel, but for rounding.
            alike = (listing.members == listing.members[:, :1]).all(axis=-1)
            mass = np.where(alike[:, None], 0.0, mass)

        def weight(field: str, direction: Array, group: Group = group, mass: Array = mass):
            changed = group._replace(**{field: getattr(group, field) + direction})
            with np.errstate(invalid="ignore", over="ignore"):
                return np.where(mass > 0, mass * loss(changed).weight, 0.0)

        onto = groups.incidence(listing.members, arms)
        arm_weight += groups.scatter(onto, weight("log_prob", np.zeros(())))
        size_of_group = listing.members.shape[-1]
        for member in range(size_of_group):
            unit = np.eye(size_of_group)[member]
            slope = _difference(
                lambda h, u=unit: weight("log_prob", h * u), size, affine, where.beta
            )
            place = listing.members * arms + listing.members[:, member, None]
            for x in range(len(slope)):
                by_log_prob[x] += np.bincount(
                    place.ravel(), weights=slope[x].ravel(), minlength=arms * arms
                ).reshape(arms, arms)
        if moving_baseline:
            slope = _difference(
                lambda h: weight("baseline", np.asarray(h * where.beta)), size, affine, where.beta
            )
            by_baseline += groups.scatter(onto, slope / where.beta)
    if moving_baseline:
        by_log_prob += by_baseline[..., :, None] * _baseline_slope(where, log_policy)[..., None, :]
    # d ln π(y) / d logit(k) = [y = k] − π(k), then the product rule on a − π Σ a.
    if losses.traits(loss).contrastive:
        return by_log_prob
    by_logits = by_log_prob - by_log_prob.sum(axis=-1, keepdims=True) * pi[..., None, :]
    total = arm_weight.sum(axis=-1)[..., None, None]
    softmax_slope = pi[..., None] * (np.eye(arms) - pi[..., None, :])
    pulled = pi[..., None] * by_logits.sum(axis=-2, keepdims=True)
    return by_logits - pulled - total * softmax_slope


def _difference(function, size: float, affine: bool, beta: float) -> Array:
    """Derivative at 0 of an array function of one number."""
    if affine:
        return (function(size) - function(-size)) / (2 * size)
    h = 1e-3 / max(1.0, beta)
    near, far = function(h) - function(-h), function(2 * h) - function(-2 * h)
    return (8 * near - far) / (12 * h)


def _baseline_slope(where: Setting, log_policy: Array) -> Array:
    """d baseline / d ln π(y), (X, K), for the baselines E_π[R] and E_μ[R]."""
    pi = np.exp(log_policy)
    if where.baseline == "value":
        regularized = where.reward - where.beta * (log_policy - where.log_reference)
        return pi * (regularized - where.beta)
    return -where.beta * where.pairs.exposure / 2 + 0 * pi
