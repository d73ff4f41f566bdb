r"""The exact side of the laboratory: expectations over all groups, and where methods come to rest.

Letters: ``X`` contexts (optional), ``K`` arms, ``d`` parameters of a log-linear policy, ``...`` any
leading axes. The population loss of a method is the expectation of its value over contexts (weights
ρ) and groups (pairs from ν, or ``group_size`` independent draws from μ); its gradient is the
expectation of :math:`\sum_i \text{weight}_i \nabla\ln\pi(y_i)`. Nothing here is sampled.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from bandit import arrays, groups, losses, presets
from bandit._checks import Array
from bandit.expectations import expected, log_policy_of, logit_gradient
from bandit.groups import Setting
from bandit.losses import Loss
from bandit.policies import LogLinear
from bandit.presets import Method
from bandit.problem import Bandit
from bandit.solutions import NotIdentifiedWarning, Solution, solve

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "NotIdentifiedWarning",
    "Solution",
    "compare",
    "covariance",
    "gradient_variance",
    "population",
    "solve",
]

# ------------------------------------------------------------------------------- expectations


def population(
    problem: Bandit,
    loss: Loss,
    logits: Any,
    pairs: Any,
    *,
    preference: ArrayLike | None = None,
    baseline: str | ArrayLike | None = None,
    group_size: int = 2,
    policy: LogLinear | None = None,
) -> tuple[Any, Any]:
    """Expected value and expected gradient of a loss, exactly.

    Parameters
    ----------
    problem : Bandit
    loss : function of :mod:`bandit.losses`, or one with the same contract
        ``beta`` (and ``eta`` = 1/β) are the problem's unless bound with ``functools.partial``.
    logits : array_like (..., [X,] K)
        Of the softmax policies to look at; with ``policy`` its parameters θ (..., d). Of an array
        of torch or JAX the results are too, on its device and in its dtype, and ``value`` can be
        differentiated: its derivative is ``gradient``.
    pairs : Pairs or array_like ([X,] K, K)
        Who is compared with whom.
    preference : array_like ([X,] K, K), optional
        P(y ≻ y'), for losses on preferences.
    baseline : {"value", "behavior", "reward", "optimal"} or array_like ([X]), optional
        E_π[R], E_μ[R] (recomputed at every policy, constant in the weight), E_μ[r], V* = β ln Z, or
        given numbers. "behavior" is also what a value learned beside the policy comes to.
    group_size : int
        2: pairs from ν. Else that many independent draws from the one μ of ``pairs``.
    policy : LogLinear, optional

    Returns
    -------
    value : ndarray (...)
        Averaged over contexts.
    gradient : ndarray (..., [X,] K), or (..., d) with ``policy``
        Of the averaged value by the logits (so each context's part carries its weight ρ), with the
        method's constants held constant.

    Notes
    -----
    O(K) where the loss is separable and the pairs independent; otherwise O(K²) pairs in blocks of
    bounded memory.
    """
    loss = groups.bind(loss, problem, baseline)
    where = groups.setting(problem, loss, pairs, preference, baseline)
    policy = LogLinear.checked(policy, problem.shape)
    log_policy = log_policy_of(problem, logits, policy)
    value, arm_weight = expected(where, loss, log_policy, group_size)
    rho = arrays.constant(log_policy, _context_weights(problem))
    gradient = rho[:, None] * logit_gradient(loss, log_policy, arm_weight)
    return value @ rho, _outward(problem, gradient, policy)


def _context_weights(problem: Bandit) -> Array:
    return np.ones(1) if problem.context_weights is None else problem.context_weights


def _outward(problem: Bandit, gradient: Any, policy: LogLinear | None = None) -> Any:
    """From (..., X, K) to the shape the caller uses."""
    gradient = gradient if problem.n_contexts is not None else gradient[..., 0, :]
    return gradient if policy is None else policy.pull_back(gradient)


# ------------------------------------------------------------------------------------- spread


def covariance(
    problem: Bandit,
    loss: Loss,
    logits: Any,
    pairs: Any,
    *,
    preference: ArrayLike | None = None,
    baseline: str | ArrayLike | None = None,
    group_size: int = 2,
) -> Any:
    """Covariance of the gradient of one group, exactly; arguments as in :func:`population`.

    Returns
    -------
    ndarray (..., [X,] K, K)
        Given the context: of Σ_i weight_i ∇ ln π(y_i) for one group drawn in context x. The
        covariance of the mean gradient of a batch in that context is this over the batch's size.
        Computed by numpy; of logits in torch or JAX the result is handed back as theirs.
    """
    loss = groups.bind(loss, problem, baseline)
    where = groups.setting(problem, loss, pairs, preference, baseline)
    log_policy = log_policy_of(problem, arrays.to_numpy(logits), None)
    moment = np.zeros((*log_policy.shape, problem.n_arms))
    for at, vectors, probability, pi in _group_gradients(where, loss, log_policy, group_size):
        pull = vectors.sum(axis=1)
        weighted = sparse.csr_array(vectors.multiply(probability[:, None]))
        cross = np.outer(weighted.T @ pull, pi)
        moment[at] += (vectors.T @ weighted).toarray() - cross - cross.T
        moment[at] += (probability @ pull**2) * np.outer(pi, pi)
    mean = logit_gradient(loss, log_policy, expected(where, loss, log_policy, group_size)[1])
    result = moment - mean[..., :, None] * mean[..., None, :]
    result = result if problem.n_contexts is not None else result[..., 0, :, :]
    return arrays.constant(logits, result)


def gradient_variance(
    problem: Bandit,
    loss: Loss,
    logits: Any,
    pairs: Any,
    *,
    preference: ArrayLike | None = None,
    baseline: str | ArrayLike | None = None,
    group_size: int = 2,
) -> Any:
    """Trace of :func:`covariance` averaged over contexts, (...), without a (K, K) matrix."""
    loss = groups.bind(loss, problem, baseline)
    where = groups.setting(problem, loss, pairs, preference, baseline)
    log_policy = log_policy_of(problem, arrays.to_numpy(logits), None)
    square = np.zeros(log_policy.shape[:-1])
    for at, vectors, probability, pi in _group_gradients(where, loss, log_policy, group_size):
        pull = vectors.sum(axis=1)
        length = vectors.multiply(vectors).sum(axis=1) - 2 * pull * (vectors @ pi)
        square[at] += probability @ (length + pull**2 * (pi @ pi))
    mean = logit_gradient(loss, log_policy, expected(where, loss, log_policy, group_size)[1])
    variance = (square - (mean**2).sum(axis=-1)) @ _context_weights(problem)
    return arrays.constant(logits, variance)


def _group_gradients(
    where: Setting, loss: Loss, log_policy: Array, group_size: int
) -> Iterator[tuple[tuple[int, ...], sparse.csr_array, Array, Array]]:
    """For each policy and context: the weights of every group by arm (N, K), with probabilities."""
    arms = log_policy.shape[-1]
    for listing in groups.listings(where, loss, group_size):
        with np.errstate(invalid="ignore", over="ignore"):
            weight = loss(groups.gather(where, log_policy, listing.members)).weight
        count, size = listing.members.shape
        for at in np.ndindex(log_policy.shape[:-1]):
            probability = listing.probability[min(at[-1], len(listing.probability) - 1)]
            mine = np.where(probability[:, None] > 0, weight[at], 0.0)
            vectors = sparse.csr_array(
                (mine.ravel(), listing.members.ravel(), np.arange(0, count * size + 1, size)),
                shape=(count, arms),
                copy=True,  # adding up duplicates moves the indices, which are all contexts'
            )
            vectors.sum_duplicates()
            yield at, vectors, probability, np.exp(log_policy[at])


# --------------------------------------------------------------------------------- comparison


def compare(
    problem: Bandit,
    pairs: Any,
    methods: Iterable[str] | Mapping[str, Method | Loss] | None = None,
    preference: ArrayLike | None = None,
) -> pd.DataFrame:
    """Each method's exact solution and how it gets there, a row a method.

    Parameters
    ----------
    problem : Bandit
    pairs : Pairs or array_like ([X,] K, K)
    methods : names of ``bandit.presets.METHODS``, or a mapping name → loss or ``presets.Method``
        Default: every method whose data is there (those on preferences need ``preference``).
    preference : array_like ([X,] K, K), optional

    Returns
    -------
    DataFrame, index ``method``
        ``policy`` (the solution, an array), ``kl_to_optimal`` (KL(π‖π*), nats), ``regret`` (units
        of reward), ``slowest_eigenvalue`` (rate of convergence per unit of step size; above 0 is
        unstable), ``variance_at_reference`` and ``variance_at_solution`` (trace of the covariance
        of one pair's gradient, in squared units of the method's weight), ``converged``,
        ``message``. Where there is no solution the numbers about it are NaN.
    """
    import pandas as pd

    rows = {}
    for name, method in chosen(methods, preference is not None).items():
        rows[name] = summary(problem, method, pairs, preference)
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.rename_axis("method")


def chosen(
    methods: Iterable[str] | Mapping[str, Method | Loss] | None, with_preference: bool
) -> dict[str, Method]:
    """Name → method, from what :func:`compare` is given for ``methods``."""
    if isinstance(methods, str):
        methods = [methods]
    if methods is None:
        return {
            name: method
            for name, method in presets.METHODS.items()
            if with_preference or "preference" not in losses.traits(method.loss).requires
        }
    if callable(methods) or not isinstance(methods, Iterable):
        raise TypeError(
            f"methods: expected names or a mapping from name to loss, got {type(methods).__name__}"
        )
    if isinstance(methods, Mapping):
        return {
            name: method if isinstance(method, Method) else Method(name, method)
            for name, method in methods.items()
        }
    return {name: presets.method(name) for name in methods}


def summary(problem: Bandit, method: Method, pairs: Any, preference: Any) -> dict[str, Any]:
    """One method's row of :func:`compare`, as a mapping from column to value."""
    needs = "preference" in losses.traits(method.loss).requires
    data: dict[str, Any] = {
        "preference": preference if needs else None,
        "baseline": method.baseline,
    }
    with warnings.catch_warnings():
        # The row itself says what the warning would.
        warnings.simplefilter("ignore", NotIdentifiedWarning)
        solution = solve(problem, method.loss, pairs, **data)

    def variance(logits: Array) -> float:
        # Weights beyond float64 have no finite variance, and the table shows that.
        with np.errstate(invalid="ignore", over="ignore"):
            return float(gradient_variance(problem, method.loss, logits, pairs, **data))

    return {
        "policy": solution.policy,
        "kl_to_optimal": solution.kl_to_optimal,
        "regret": solution.regret,
        "slowest_eigenvalue": solution.slowest_eigenvalue if solution.converged else float("nan"),
        "variance_at_reference": variance(problem.log_reference),
        "variance_at_solution": variance(solution.logits) if solution.converged else float("nan"),
        "converged": solution.converged,
        "message": solution.message,
    }
