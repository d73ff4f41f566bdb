"""The three searches: on the logits, on the parameters of features, and between kinks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit import expectations, groups, losses, solvers
from bandit._checks import Array
from bandit._stiff_flow import follow_flow
from bandit.groups import Setting
from bandit.losses import Loss
from bandit.pairs import Components
from bandit.policies import LogLinear
from bandit.problem import Bandit, log_softmax
from bandit.solutions._determined import (
    COUNTED,
    anchored,
    balance,
    in_context,
    invisible_parameters,
    invisible_shifts,
    listed,
    one_component,
    smooth,
    undetermined,
)

# Up to this many unknowns Jacobians are matrices; beyond it Newton's method works without them.
DENSE_LIMIT = 600
# What is left for an arm that is never drawn is known to 1e-16; below this it may as well be gone.
GONE = 1e-12
# Arms drawn more seldom than this make a flow whose rates are that far apart.
RARE = 1e-4


class Found(NamedTuple):
    """What a search hands on: a root per system, the Jacobian there, and what it saw on the way."""

    logits: Array  # (X, K)
    residual: float
    trouble: str  # what went wrong, or ""
    jacobian: Array | None  # (X, K, K), or (d, d) with theta
    theta: Array | None = None


def trouble_of(root: solvers.Root) -> str:
    """Why a root is none, in a sentence; "" if it is one."""
    if root.converged.all():
        return ""
    if not np.isfinite(root.residual).all():
        return "the gradient is not finite at the reference"
    if root.vanishing.any():
        return (
            f"no finite solution: the gradient has all but vanished ({root.residual.max():.1g}) "
            f"where a Newton step is still {root.step[root.vanishing].max():.2g} nats long, so "
            "log-ratios grow without bound (or are lost in rounding)"
        )
    if root.dead.any():
        return (
            "no finite solution: of some arm the gradient has all but vanished where a Newton step "
            f"is still {root.step[root.dead].max():.2g} nats long, so log-ratios grow without "
            f"bound; elsewhere it is still {root.residual.max():.2g}"
        )
    return (
        f"no stationary point found: the gradient is still {root.residual.max():.2g} and a Newton "
        f"step {root.step.max():.2g} nats long"
    )


# ------------------------------------------------------------------------------ on the logits


class _Logits:
    """The gradient by the logits as a field to find a root of, each context a system of its own."""

    def __init__(self, where: Setting, loss: Loss, graph: tuple[Components, ...]) -> None:
        own = losses.traits(loss)
        self.loss, self.expectation = loss, expectations.Expectation(where, loss)
        self.contrastive = own.contrastive
        self.affine = own.quadratic and own.contrastive
        self.size = groups.typical_log_ratio(where, loss)
        self.start: Array = where.log_reference
        self.dense = where.reward.shape[-1] <= DENSE_LIMIT
        exposure = np.broadcast_to(where.pairs.exposure, where.reward.shape)
        self.unseen = exposure == 0
        self.rare = bool(((exposure > 0) & (exposure < RARE)).any())
        self.balance = balance(graph, exposure) if own.contrastive and self.dense else None
        # A regularized reward is rounded to some 1e-16 of this.
        self.unit = max(where.beta, float(np.nan_to_num(np.abs(self.field(self.start)).max())))
        if self.dense:
            self.gauge = invisible_shifts(graph, where.reward.shape[-1], own.contrastive)
        else:
            self.scale = np.where(exposure > 0, exposure, 1.0)

    def field(self, theta: Array) -> Array:
        """Expected gradient (..., X, K) at logits (..., X, K), balanced."""
        gradient = self.gradient(theta)
        if self.balance is None:
            return gradient
        return (self.balance @ gradient[..., None])[..., 0]

    def gradient(self, theta: Array) -> Array:
        """The same as it is computed for each arm by itself."""
        log_policy = log_softmax(theta)
        weight = self.expectation.weight(log_policy)
        return expectations.logit_gradient(self.loss, log_policy, weight)

    def jacobian(self, theta: Array) -> Array:
        """Its Jacobian (X, K, K) at logits (X, K)."""
        found = self.slopes(theta)
        return found if self.balance is None else self.balance @ found

    def slopes(self, theta: Array) -> Array:
        """Jacobian of :meth:`gradient`."""
        return self.expectation.jacobian(log_softmax(theta), self.size, self.affine)

    def linearize(self, theta: Array, now: Array) -> solvers.Linearization:
        """The field around a place."""
        if self.dense:
            return solvers.Dense(self.jacobian(theta), self.gauge)
        return solvers.Krylov(self.field, theta, now, self.scale, self.size, self.affine)

    def gone(self, theta: Array) -> NDArray[np.bool_]:
        """Whether an arm that is never drawn has lost its share, in each context (X,)."""
        return (self.unseen & (np.exp(log_softmax(theta)) < GONE)).any(axis=-1)

    def root(self, start: Array, **options: Any) -> solvers.Root:
        """Where the field vanishes."""
        return solvers.find_root(
            self.field,
            self.linearize,
            start,
            affine=self.affine,
            unit=self.unit,
            gone=self.gone if self.unseen.any() and not self.contrastive else None,
            **options,
        )


def tabular(where: Setting, loss: Loss, graph: tuple[Components, ...]) -> Found:
    """Newton's method on the logits; where it gets lost, after following the gradient flow."""
    system = _Logits(where, loss, graph)
    root = system.root(system.start)
    matrix = system.jacobian(root.theta) if system.dense else None
    if system.contrastive or matrix is None:
        trouble = trouble_of(root) or _faded(system, root.theta, matrix)
        logits = anchored(root.theta, where, graph) if system.contrastive else root.theta
        return Found(logits, float(root.residual.max()), trouble, matrix)
    # Of two arms that are never drawn nothing tells one from the other, wherever the flow leads.
    trouble = _told_apart_by_nothing(system)
    if not trouble:
        lost = np.logical_not(root.converged)
        lost |= undetermined(matrix, system.gauge, system.unseen)
        lost &= np.isfinite(root.residual)
        if lost.any():
            nearer = root.theta.copy()
            for x in np.flatnonzero(lost):
                here = groups.one_context(where, int(x))
                nearer[x] = _along_the_flow(here, loss, graph[x : x + 1])
            root = system.root(nearer, first_time_step=np.inf)
            matrix = system.jacobian(root.theta)
        trouble = _given_up(system, root) or trouble_of(root) or _not_isolated(system, root, matrix)
    return Found(root.theta, float(root.residual.max()), trouble, matrix)


def _faded(system: _Logits, theta: Array, matrix: Array | None) -> str:
    """Whether curvature that fades as log-ratios grow, as DPO's, is gone between sets of arms."""
    if system.affine or matrix is None:
        return ""
    singular = undetermined(matrix, system.gauge, system.unseen, least=1e-13).any()
    if not (singular or _left_behind(system, theta)):
        return ""
    return (
        "no finite solution: between some arms the curvature is nothing but rounding, so "
        "log-ratios grow without bound (or are lost in rounding)"
    )


def _left_behind(system: _Logits, theta: Array) -> bool:
    """Whether an arm's own slopes have faded away, and its own Newton step is long all the same.

    What balances the others' gradients may be nothing but their rounding.
    """
    slope = np.abs(system.slopes(theta)).max(axis=-1)
    faded = slope < 1e-15 * np.abs(system.slopes(system.start)).max(axis=-1)
    return bool((faded & ~(np.abs(system.gradient(theta)) < 1e-3 * slope)).any())


def _told_apart_by_nothing(system: _Logits) -> str:
    """Whether a context has several arms that are never drawn."""
    several = system.unseen.sum(axis=-1) > 1
    if not several.any():
        return ""
    x = int(several.argmax())
    arms = listed(np.flatnonzero(system.unseen[x]).tolist())
    return (
        f"arms {arms} {COUNTED} are never drawn{in_context(x, len(several))}: nothing tells their "
        "shares apart"
    )


def _given_up(system: _Logits, root: solvers.Root) -> str:
    """Whether an arm that is never drawn lost all its share on the way."""
    lost = system.unseen & (np.exp(log_softmax(root.theta)) < GONE) & ~root.converged[:, None]
    if not lost.any():
        return ""
    x, arm = np.argwhere(lost)[0].tolist()
    return (
        f"no finite solution: arm {arm} {COUNTED} is never drawn{in_context(x, len(lost))}, and "
        "given up"
    )


def _not_isolated(system: _Logits, root: solvers.Root, matrix: Array) -> str:
    """Whether there is more than this one stationary point close by."""
    if undetermined(matrix, system.gauge, system.unseen).any():
        return "the stationary point is not isolated: some arm's share is not determined"
    if not smooth(system.field, root.theta, matrix):
        return (
            "no isolated stationary point: where the search ended the field is flat, has a "
            "kink, or is lost in rounding"
        )
    return ""


def _along_the_flow(here: Setting, loss: Loss, graph: tuple[Components, ...]) -> Array:
    """Where gradient descent with tiny steps ends from the reference, roughly, in one context."""
    system = _Logits(here, loss, graph)
    return follow_flow(
        lambda theta: system.field(theta[None])[0],
        lambda theta: system.jacobian(theta[None])[0],
        system.linearize,
        system.start[0],
        gone=lambda theta: bool(system.gone(theta[None])[0]),
        rare=system.rare,
    )


# --------------------------------------------------------------------------- on the parameters


def log_linear(
    problem: Bandit, where: Setting, loss: Loss, policy: LogLinear, graph: tuple[Components, ...]
) -> Found:
    """One system of d unknowns for all contexts together."""
    own = losses.traits(loss)
    if own.piecewise_linear:
        raise ValueError(
            f"policy: expected None for {groups.name_of(loss)}, whose kinks need a tabular policy"
        )
    affine, size = own.quadratic and own.contrastive, groups.typical_log_ratio(where, loss)
    expectation = expectations.Expectation(where, loss)
    rho = np.ones(1) if problem.context_weights is None else problem.context_weights
    features = policy.features.reshape(len(rho), -1, policy.n_parameters)

    def logits_of(theta: Array) -> Array:
        return np.einsum("xkd,...d->...xk", features, theta)

    def field(theta: Array) -> Array:
        log_policy = log_softmax(logits_of(theta))
        weight = expectation.weight(log_policy)
        gradient = expectations.logit_gradient(loss, log_policy, weight)
        return np.einsum("x,xkd,...xk->...d", rho, features, gradient)

    def jacobian(theta: Array) -> Array:
        by_logits = expectation.jacobian(log_softmax(logits_of(theta)[0]), size, affine)
        pulled = (rho[:, None, None] * by_logits) @ features  # (X, K, d)
        return np.tensordot(features, pulled, axes=([0, 1], [0, 1]))[None]

    seen = graph if own.contrastive else one_component(where)
    gauge, rank = invisible_parameters(features, seen, rho)

    def linearize(theta: Array, now: Array) -> solvers.Linearization:
        return solvers.Dense(jacobian(theta), gauge[None], floor=1e-14)

    start = np.zeros((1, policy.n_parameters))
    root = solvers.find_root(field, linearize, start, affine=affine, unit=where.beta)
    trouble = trouble_of(root)
    if not trouble and rank < invisible_parameters(features, one_component(where), rho)[1]:
        trouble = "the pairs do not determine all parameters of the features"
    return Found(
        logits_of(root.theta[0]),
        float(root.residual.max()),
        trouble,
        jacobian(root.theta)[0],
        root.theta[0],
    )


# -------------------------------------------------------------------------------- between kinks


def piecewise_linear(where: Setting, loss: Loss, graph: tuple[Components, ...]) -> Found:
    """Kinked losses: a linear program per context, by cutting planes."""
    logits, gaps, troubles = [], [], []
    arms = where.reward.shape[-1]
    # The distance between kinks, in nats: the search is over log-ratios in this unit.
    unit = 1 / getattr(loss, "keywords", {}).get("beta", where.beta)
    for x, parts in enumerate(graph):
        here = groups.one_context(where, x)
        expectation = expectations.Expectation(here, loss)

        def function(moved: Array, here=here, expectation=expectation) -> tuple[float, Array]:
            log_policy = log_softmax(here.log_reference + unit * moved)
            value, weight = expectation(log_policy)
            slope = expectations.logit_gradient(loss, log_policy, weight)[0]
            return float(value[0]), unit * slope

        fixed = np.isin(np.arange(arms), [part[0] for part in parts])
        least = solvers.minimize_piecewise_linear(function, np.zeros(arms), fixed, 4.0 * arms)
        logits.append(here.log_reference[0] + unit * least.theta)
        gaps.append(least.gap)
        if not least.converged:
            troubles.append(f"the minimum is only known to {least.gap:.2g}")
        elif not least.unique:
            troubles.append(
                "the minimizer is not unique: a whole set of policies has the least value"
            )
    result = anchored(np.array(logits), where, graph)
    return Found(result, max(gaps), troubles[0] if troubles else "", None)
