"""Where a method comes to rest: the minimizer of its population loss, or a stationary point."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from bandit import expectations, groups, losses, solvers
from bandit._checks import Array
from bandit.groups import Setting
from bandit.losses import Loss
from bandit.pairs import Components, Pairs, components
from bandit.policies import LogLinear
from bandit.problem import Bandit, log_softmax

# Up to this many unknowns Jacobians are matrices; beyond it Newton's method works without them.
DENSE_LIMIT = 600
# What is left for an arm that is never drawn is known to 1e-16; below this it may as well be gone.
GONE = 1e-12


class NotIdentifiedWarning(UserWarning):
    """The data do not determine the solution, or there is none: see the message."""


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """Where a method comes to rest.

    Attributes
    ----------
    policy, logits : ndarray ([X,] K)
        The solution; where there is none or it is not determined, the place the search ended
        (ratios within each component are right, its mass is what the reference gives it).
    value : float
        Population loss there.
    residual : float
        Greatest entry of the population gradient there (for a kinked loss: how far the value is
        above a proven lower bound).
    converged : bool
        True only if this is *the* solution.
    eigenvalues : ndarray ([X,] K) or (d,)
        Of the Jacobian of the descent field −gradient by the parameters, the shift of all logits
        (always 0) first, then the slowest. All others below 0: stable, and gradient descent with a
        small step η contracts by exp(η·eigenvalue) per step. NaN where it was not computed.
    components : tuple
        Connected components of the comparison graph, as :func:`bandit.pairs.components` gives them.
    regret, kl_to_optimal : float
        Of the solution against π*; NaN unless converged.
    message : str
        What happened, in a sentence.
    theta : ndarray (d,) or None
        Parameters of a log-linear solution.
    """

    policy: Array
    logits: Array
    value: float
    residual: float
    converged: bool
    eigenvalues: Array
    components: Components | tuple[Components, ...]
    regret: float
    kl_to_optimal: float
    message: str
    theta: Array | None = None

    @property
    def slowest_eigenvalue(self) -> float:
        """The greatest real part over contexts, leaving out the shift of all logits."""
        values = self.eigenvalues if self.theta is not None else self.eigenvalues[..., 1:]
        return float(np.real(values).max()) if values.size else float("nan")

    def _repr_html_(self) -> str:
        import pandas as pd

        rows = {
            "converged": self.converged,
            "regret": f"{self.regret:.6g}",
            "KL(π‖π*)": f"{self.kl_to_optimal:.6g}",
            "slowest eigenvalue": f"{self.slowest_eigenvalue:.6g}",
            "residual": f"{self.residual:.2g}",
            "message": self.message,
        }
        if self.policy.size <= 12:
            rows = {"policy": np.array2string(self.policy, precision=6)} | rows
        return pd.DataFrame({"solution": rows}).to_html()


def solve(
    problem: Bandit,
    loss: Loss,
    pairs: Any,
    *,
    preference: ArrayLike | None = None,
    baseline: str | ArrayLike | None = None,
    policy: LogLinear | None = None,
) -> Solution:
    """Where a method comes to rest, exactly: by Newton's method to a gradient below 1e-10.

    That is the minimizer of the population loss, or the stationary point of a method that holds
    something constant. The search starts at the reference. A Newton step below 1e-8 is asked for
    beside the small gradient, so that a flat place is not taken for a solution. Arguments as in
    :func:`bandit.analysis.population`.

    Warns
    -----
    NotIdentifiedWarning
        If the pairs do not determine the solution, or none was found; ``converged`` is False then.
    """
    loss = groups.bind(loss, problem, baseline)
    where = groups.setting(problem, loss, pairs, preference, baseline)
    policy = LogLinear.checked(policy, problem.shape)
    graph = _per_context(_components(where.pairs), problem)
    # What overflows on the way is seen in the end: a result counts only if it is finite.
    with np.errstate(all="ignore"):
        if policy is not None:
            found = _solve_log_linear(problem, where, loss, policy, graph)
        elif losses.traits(loss).piecewise_linear:
            found = _solve_piecewise_linear(where, loss, graph)
        else:
            found = _solve_tabular(where, loss, graph)
        result = _describe(problem, where, loss, graph, found)
    if not result.converged:
        warnings.warn(
            f"{groups.name_of(loss)}: {result.message}", NotIdentifiedWarning, stacklevel=2
        )
    return result


# ------------------------------------------------------------------------------ the three searches


class _Found(NamedTuple):
    """What a search hands on: a root per system, the Jacobian there, and what it saw on the way."""

    logits: Array  # (X, K)
    residual: float
    trouble: str  # what went wrong, or ""
    jacobian: Array | None  # (X, K, K), or (d, d) with theta
    theta: Array | None = None


class _Logits:
    """The gradient by the logits as a field to find a root of, each context a system of its own."""

    def __init__(self, where: Setting, loss: Loss, graph: tuple[Components, ...]) -> None:
        own = losses.traits(loss)
        self.where, self.loss = where, loss
        self.affine = own.quadratic and own.contrastive
        self.size = groups.typical_log_ratio(where, loss)
        self.start: Array = where.log_reference
        self.dense = where.reward.shape[-1] <= DENSE_LIMIT
        exposure = np.broadcast_to(where.pairs.exposure, where.reward.shape)
        self.unseen = exposure == 0
        self.balance = _balance(graph, exposure) if own.contrastive and self.dense else None
        # A regularized reward is rounded to some 1e-16 of this.
        self.unit = max(where.beta, float(np.nan_to_num(np.abs(self.field(self.start)).max())))
        if self.dense:
            self.gauge = _invisible_shifts(graph, where.reward.shape[-1], own.contrastive)
        else:
            self.scale = np.where(exposure > 0, exposure, 1.0)

    def field(self, theta: Array) -> Array:
        """Expected gradient (..., X, K) at logits (..., X, K)."""
        log_policy = log_softmax(theta)
        weight = expectations.expected(self.where, self.loss, log_policy)[1]
        gradient = expectations.logit_gradient(self.loss, log_policy, weight)
        if self.balance is None:
            return gradient
        return (self.balance @ gradient[..., None])[..., 0]

    def jacobian(self, theta: Array) -> Array:
        """Its Jacobian (X, K, K) at logits (X, K)."""
        log_policy = log_softmax(theta)
        found = expectations.jacobian(self.where, self.loss, log_policy, self.size, self.affine)
        return found if self.balance is None else self.balance @ found

    def linearize(self, theta: Array, now: Array) -> solvers.Linearization:
        """The field around a place."""
        if self.dense:
            return solvers.Dense(self.jacobian(theta), self.gauge)
        return solvers.Krylov(self.field, theta, now, self.scale, self.size, self.affine)

    def root(self, start: Array, **options: Any) -> solvers.Root:
        """Where the field vanishes."""
        return solvers.find_root(
            self.field, self.linearize, start, affine=self.affine, unit=self.unit, **options
        )


def _solve_tabular(where: Setting, loss: Loss, graph: tuple[Components, ...]) -> _Found:
    """Newton's method on the logits; where it gets lost, after following the gradient flow."""
    system = _Logits(where, loss, graph)
    contrastive = losses.traits(loss).contrastive
    root = system.root(system.start)
    if contrastive or not system.dense:
        logits = _anchored(root.theta, where, graph) if contrastive else root.theta
        matrix = system.jacobian(root.theta) if system.dense else None
        trouble = _trouble_of(root)
        # A curvature that fades as log-ratios grow, as DPO's, may fade away between sets of arms.
        if (
            not (trouble or system.affine or matrix is None)
            and _undetermined(matrix, system.gauge, system.unseen, least=1e-13).any()
        ):
            trouble = (
                "no finite solution: between some arms the curvature is nothing but rounding, so "
                "log-ratios grow without bound (or are lost in rounding)"
            )
        return _Found(logits, float(root.residual.max()), trouble, matrix)
    # Of two arms that are never drawn nothing tells one from the other, wherever the flow leads.
    open_ended = system.unseen.sum(axis=-1) > 1
    lost = np.logical_not(root.converged)
    lost |= _undetermined(system.jacobian(root.theta), system.gauge, system.unseen)
    lost &= np.isfinite(root.residual) & ~open_ended
    if open_ended.any():
        first = int(open_ended.argmax())
        arms = _listed(tuple(np.flatnonzero(system.unseen[first]).tolist()))
        where_to = "" if len(graph) == 1 else f" in context {first}"
        trouble = f"arms {{{arms}}} are never drawn{where_to}: nothing tells their shares apart"
        return _Found(root.theta, float(root.residual.max()), trouble, system.jacobian(root.theta))
    if lost.any():
        nearer = root.theta.copy()
        for x in np.flatnonzero(lost):
            nearer[x] = _along_the_flow(groups.one_context(where, int(x)), loss, graph[x : x + 1])
        root = system.root(nearer, first_time_step=np.inf)
    matrix = system.jacobian(root.theta)
    trouble = _given_up(system, root) or _trouble_of(root)
    if not trouble and _undetermined(matrix, system.gauge, system.unseen).any():
        trouble = "the stationary point is not isolated: some arm's share is not determined"
    if not trouble and not _smooth(system.field, root.theta, matrix):
        trouble = (
            "no isolated stationary point: where the search ended the field is flat, has a "
            "kink, or is lost in rounding"
        )
    return _Found(root.theta, float(root.residual.max()), trouble, matrix)


def _given_up(system: _Logits, root: solvers.Root) -> str:
    """Whether an arm that is never drawn lost all its share on the way, in a sentence."""
    lost = system.unseen & (np.exp(log_softmax(root.theta)) < GONE)
    if not (lost & ~root.converged[:, None]).any():
        return ""
    x, arm = np.argwhere(lost & ~root.converged[:, None])[0].tolist()
    where_to = "" if len(lost) == 1 else f" in context {x}"
    return f"no finite solution: arm {arm} is never drawn{where_to}, and given up"


def _along_the_flow(here: Setting, loss: Loss, graph: tuple[Components, ...]) -> Array:
    """Where gradient descent with tiny steps ends from the reference, roughly, in one context."""
    system = _Logits(here, loss, graph)
    return solvers.follow_flow(
        lambda theta: system.field(theta[None])[0],
        lambda theta: system.jacobian(theta[None])[0],
        system.linearize,
        system.start[0],
        gone=lambda theta: bool((np.exp(log_softmax(theta))[system.unseen[0]] < GONE).any()),
    )


def _solve_log_linear(
    problem: Bandit, where: Setting, loss: Loss, policy: LogLinear, graph: tuple[Components, ...]
) -> _Found:
    """One system of d unknowns for all contexts together."""
    own = losses.traits(loss)
    if own.piecewise_linear:
        raise ValueError(
            f"policy: expected None for {groups.name_of(loss)}, whose kinks need a tabular policy"
        )
    affine, size = own.quadratic and own.contrastive, groups.typical_log_ratio(where, loss)
    rho = np.ones(1) if problem.context_weights is None else problem.context_weights
    features = policy.features.reshape(len(rho), -1, policy.n_parameters)

    def logits_of(theta: Array) -> Array:
        return np.einsum("xkd,...d->...xk", features, theta)

    def field(theta: Array) -> Array:
        log_policy = log_softmax(logits_of(theta))
        gradient = expectations.logit_gradient(
            loss, log_policy, expectations.expected(where, loss, log_policy)[1]
        )
        return np.einsum("x,xkd,...xk->...d", rho, features, gradient)

    def jacobian(theta: Array) -> Array:
        by_logits = expectations.jacobian(
            where, loss, log_softmax(logits_of(theta)[0]), size, affine
        )
        pulled = (rho[:, None, None] * by_logits) @ features  # (X, K, d)
        return np.tensordot(features, pulled, axes=([0, 1], [0, 1]))[None]

    seen = graph if own.contrastive else _one_component(where)
    gauge, rank = _invisible_parameters(features, seen, rho)

    def linearize(theta: Array, now: Array) -> solvers.Linearization:
        return solvers.Dense(jacobian(theta), gauge[None], floor=1e-14)

    start = np.zeros((1, policy.n_parameters))
    root = solvers.find_root(field, linearize, start, affine=affine, unit=where.beta)
    trouble = _trouble_of(root)
    if not trouble and rank < _invisible_parameters(features, _one_component(where), rho)[1]:
        trouble = "the pairs do not determine all parameters of the features"
    return _Found(
        logits_of(root.theta[0]),
        float(root.residual.max()),
        trouble,
        jacobian(root.theta)[0],
        root.theta[0],
    )


def _solve_piecewise_linear(where: Setting, loss: Loss, graph: tuple[Components, ...]) -> _Found:
    """Kinked losses: a linear program per context, by cutting planes."""
    logits, gaps, troubles = [], [], []
    arms = where.reward.shape[-1]
    # The distance between kinks, in nats: the search is over log-ratios in this unit.
    unit = 1 / getattr(loss, "keywords", {}).get("beta", where.beta)
    for x, parts in enumerate(graph):
        here = groups.one_context(where, x)

        def function(moved: Array, here: Setting = here) -> tuple[float, Array]:
            log_policy = log_softmax(here.log_reference + unit * moved)
            value, weight = expectations.expected(here, loss, log_policy)
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
    anchored = _anchored(np.array(logits), where, graph)
    return _Found(anchored, max(gaps), troubles[0] if troubles else "", None)


# ---------------------------------------------------------------------- what cannot be determined


def _one_component(where: Setting) -> tuple[Components, ...]:
    contexts, arms = where.reward.shape
    return ((tuple(range(arms)),),) * contexts


def _invisible_shifts(graph: tuple[Components, ...], arms: int, contrastive: bool) -> Array:
    """Projectors (X, K, K) on the shifts of logits that change nothing: of all arms together, and
    for a contrastive loss of each component of the comparison graph."""
    if not contrastive:
        return np.full((1, arms, arms), 1.0 / arms)
    projectors = np.zeros((len(graph), arms, arms))
    for x, parts in enumerate(graph):
        for part in parts:
            projectors[x][np.ix_(part, part)] = 1.0 / len(part)
    return projectors


def _balance(graph: tuple[Components, ...], exposure: Array) -> Array:
    """Matrices (X, K, K) that take the gradient of each component's commonest arm from the others'.

    What a contrastive loss pulls up in a component it pulls down there. Beside an arm that is drawn
    nearly always, the entries of rare ones are sound to the last digit, and its own is not.
    """
    contexts, arms = exposure.shape
    result = np.tile(np.eye(arms), (contexts, 1, 1))
    for x, parts in enumerate(graph):
        for part in parts:
            members = np.array(part)
            commonest = members[exposure[x, members].argmax()]
            result[x, commonest, members] = -1.0
            result[x, commonest, commonest] = 0.0
    return result


def _invisible_parameters(
    features: Array, graph: tuple[Components, ...], rho: Array
) -> tuple[Array, int]:
    """Projector (d, d) on the θ that change no ratio inside any component, and the rank left."""
    rows = []
    for x, parts in enumerate(graph):
        for part in parts:
            if rho[x] > 0:
                mine = features[x][list(part)]
                rows.append(mine - mine.mean(axis=0))
    # What follows needs no left factors, which would be as many numbers as rows squared.
    triangle = np.linalg.qr(np.concatenate(rows), mode="r")
    _, singular, right = np.linalg.svd(triangle, full_matrices=True)
    rank = int((singular > 1e-12 * max(singular.max(), 1e-300)).sum())
    return right[rank:].T @ right[rank:], rank


def _anchored(theta: Array, where: Setting, graph: tuple[Components, ...]) -> Array:
    """Logits whose components have the reference's mass: the data say nothing about it."""
    logits = theta.copy()
    for x, parts in enumerate(graph):
        if len(parts) == 1:
            continue
        for part in parts:
            arms = list(part)
            mass = np.exp(where.log_reference[x, arms]).sum()
            logits[x, arms] = log_softmax(theta[x, arms]) + np.log(mass)
    return logits


def _undetermined(
    jacobian: Array, gauge: Array, unseen: NDArray[np.bool_], least: float = 1e-9
) -> NDArray[np.bool_]:
    """Where the Jacobian (X, K, K) is singular beyond its gauge (to ``least``), or not finite.

    The row and the column of an arm that is never drawn, ``unseen`` (X, K), may be nothing but
    rounding, which must not be blown up.
    """
    finite = np.atleast_1d(np.isfinite(jacobian).all(axis=(-2, -1)))
    jacobian = np.where(finite[:, None, None], jacobian, 0.0)
    # An arm of tiny probability has a small row and a small column: that alone says nothing.
    matrix = _even(jacobian, axis=-2, rounding=unseen[:, None, :])
    matrix = _even(_even(matrix, axis=-1, rounding=unseen[:, :, None]) + gauge, axis=-1)
    singular = np.linalg.svd(matrix, compute_uv=False)
    return ~finite | (singular[..., -1] < least * singular[..., 0])


def _smooth(field: Callable[[Array], Array], theta: Array, jacobian: Array) -> bool:
    """Whether the Jacobian describes the field close by: beside a clipped region it does not."""
    directions = np.random.default_rng(0).normal(size=(8, *theta.shape))
    directions -= directions.mean(axis=-1, keepdims=True)
    h = 1e-6
    change = (field(theta + h * directions) - field(theta - h * directions)) / (2 * h)
    expected = np.einsum("xij,dxj->dxi", jacobian, directions)
    scale = np.abs(jacobian).max(axis=-1)
    scale = np.where(scale > 0, scale, 1.0)
    noise = 1e-9 * np.abs(jacobian).max() / h * 1e-6
    return bool((np.abs(change - expected) <= 1e-3 * scale + noise).all())


def _even(matrix: Array, axis: int, rounding: Any = False) -> Array:
    """Rows (axis −1) or columns (axis −2) brought to greatest entry 1; not those of ``rounding``
    that are below 1e-9 times the greatest of all."""
    scale = np.abs(matrix).max(axis=axis, keepdims=True)
    least = 1e-9 * np.abs(matrix).max(axis=(-2, -1), keepdims=True)
    return matrix / np.where((scale > 0) & ~(rounding & (scale < least)), scale, 1.0)


def _trouble_of(root: solvers.Root) -> str:
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
    return (
        f"no stationary point found: the gradient is still {root.residual.max():.2g} and a Newton "
        f"step {root.step.max():.2g} nats long"
    )


# -------------------------------------------------------------------------------- describing it


def _describe(
    problem: Bandit, where: Setting, loss: Loss, graph: tuple[Components, ...], found: _Found
) -> Solution:
    trouble = found.trouble
    if losses.traits(loss).contrastive and found.theta is None:
        trouble = "; ".join(filter(None, [_disconnected(graph), trouble]))
    log_policy = log_softmax(found.logits)
    value = expectations.expected(where, loss, log_policy)[0]
    flat = problem.n_contexts is None
    shown = log_policy[0] if flat else log_policy
    known = not trouble
    policy = np.exp(shown)
    return Solution(
        policy=policy,
        logits=shown,
        value=float(problem.average(value)) if not flat else float(value[0]),
        residual=found.residual,
        converged=known,
        eigenvalues=_eigenvalues(found, where.reward.shape, flat),
        components=graph[0] if flat else graph,
        regret=float(problem.regret(policy)) if known else float("nan"),
        kl_to_optimal=float(problem.kl_to_optimal(policy)) if known else float("nan"),
        message=trouble or "converged",
        theta=found.theta,
    )


def _disconnected(graph: tuple[Components, ...]) -> str:
    for x, parts in enumerate(graph):
        if len(parts) > 1:
            named = ", ".join("{" + _listed(part) + "}" for part in parts[:6])
            more = f" and {len(parts) - 6} more" if len(parts) > 6 else ""
            context = f" in context {x}" if len(graph) > 1 else ""
            return (
                f"the comparison graph has {len(parts)} components{context}, arms {named}{more}: "
                "only ratios inside each are determined"
            )
    return ""


def _listed(part: tuple[int, ...]) -> str:
    return ", ".join(map(str, part[:8])) + (", …" if len(part) > 8 else "")


def _eigenvalues(found: _Found, shape: tuple[int, int], flat: bool) -> Array:
    if found.jacobian is None or not np.isfinite(found.jacobian).all():
        size = shape if found.theta is None else found.theta.shape
        return np.full(size[1:] if flat and found.theta is None else size, np.nan)
    if found.theta is not None:
        return _descending(np.linalg.eigvals(-found.jacobian))
    rates = [_descending(np.linalg.eigvals(-_without_shift(m))) for m in found.jacobian]
    values = np.concatenate([np.zeros((shape[0], 1)), np.array(rates)], axis=-1)
    return values[0] if flat else values


def _without_shift(jacobian: Array) -> Array:
    """A Jacobian (K, K) by the logits as one by their K − 1 differences from one arm's.

    From the arm with the smallest row, the others by size: rates that differ by many orders of
    magnitude then keep their digits.
    """
    order = np.argsort(-np.abs(jacobian).max(axis=-1), kind="stable")
    graded = jacobian[np.ix_(order, order)]
    return graded[:-1, :-1] - graded[-1:, :-1]


def _descending(values: Any) -> Array:
    values = values[np.argsort(-values.real, kind="stable")]
    return values.real if not np.iscomplexobj(values) or not values.imag.any() else values


def _per_context(graph: Any, problem: Bandit) -> tuple[Components, ...]:
    """One tuple of components per context, also where all contexts share the pairs."""
    if problem.n_contexts is None:
        return (graph[0],)
    return graph if len(graph) == problem.n_contexts else graph * problem.n_contexts


def _components(pairs: Pairs) -> tuple[Components, ...]:
    if sparse.issparse(pairs.joint):
        return (components(Pairs(pairs.first[0], pairs.second[0], pairs.joint)),)  # type: ignore
    return components(pairs)  # type: ignore[return-value]
