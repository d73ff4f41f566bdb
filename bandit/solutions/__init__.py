"""Where a method comes to rest: the minimizer of its population loss, or a stationary point."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bandit import expectations, groups, losses
from bandit._checks import Array
from bandit.groups import Setting
from bandit.losses import Loss
from bandit.pairs import Components
from bandit.policies import LogLinear
from bandit.problem import Bandit, log_softmax
from bandit.solutions._determined import comparison_graph, disconnected
from bandit.solutions._searches import Found, log_linear, piecewise_linear, tabular

__all__ = ["NotIdentifiedWarning", "Solution", "solve"]


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
        What happened, in a sentence. Arms and contexts are counted from 0, as in the arrays.
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
    graph = comparison_graph(where)
    # What overflows on the way is seen in the end: a result counts only if it is finite.
    with np.errstate(all="ignore"):
        if policy is not None:
            found = log_linear(problem, where, loss, policy, graph)
        elif losses.traits(loss).piecewise_linear:
            found = piecewise_linear(where, loss, graph)
        else:
            found = tabular(where, loss, graph)
        result = _describe(problem, where, loss, graph, found)
    if not result.converged:
        warnings.warn(
            f"{groups.name_of(loss)}: {result.message}", NotIdentifiedWarning, stacklevel=2
        )
    return result


# -------------------------------------------------------------------------------- describing it


def _describe(
    problem: Bandit, where: Setting, loss: Loss, graph: tuple[Components, ...], found: Found
) -> Solution:
    trouble = found.trouble
    if losses.traits(loss).contrastive and found.theta is None:
        trouble = "; ".join(filter(None, [disconnected(graph), trouble]))
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


def _eigenvalues(found: Found, shape: tuple[int, int], flat: bool) -> Array:
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
