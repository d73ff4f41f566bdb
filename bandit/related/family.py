r"""The family of contrastive policy gradient: what its descendants and cousins do beyond one loss.

The losses themselves are in :mod:`bandit.losses`, with the others in ``bandit.presets.METHODS``.
Here are what several of them have in common (:data:`SCALES`), rounds of mirror descent (REBEL, the
Kimi form), values solved together with the policy (DRO, trajectory balance) or estimated from
samples of the reference (A*-PO), and exact gradient steps on data that grow stale (PPO, the clipped
objective). Nothing is sampled.

Letters: ``X`` contexts (optional), ``K`` arms, ``T`` rounds or records, ``N`` sets of samples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bandit import _checks, analysis, descent, groups
from bandit import pairs as pairing
from bandit._checks import Array
from bandit.analysis import NotIdentifiedWarning, Solution
from bandit.batches import Streams
from bandit.descent import Progress, check_progress, reporter
from bandit.history import History, hyper_of
from bandit.losses import Loss
from bandit.optimizers import Optimizer
from bandit.problem import Bandit, check_problem, log_softmax
from bandit.related._value_estimates import Estimates, value_estimates

__all__ = [
    "SCALES",
    "Estimates",
    "Joint",
    "descend_on_stale_data",
    "greedy_policy",
    "joint_solution",
    "mirror_descent",
    "value_estimates",
]

# Of arms that are drawn more seldom, rounding leaves too little to solve for.
RAREST = 1e-12
# Squares of step sizes have to fit into float64.
EXTREME = 1e150

SCALES: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "copg": lambda beta: 1.0,
        "rloo": lambda beta: 1.0,
        "policy_gradient_behavior": lambda beta: 1.0,
        "log_variance": lambda beta: 1 / (2 * beta),
        "rebel": lambda beta: beta,
        "value_regression": lambda beta: beta,
        "trajectory_balance": lambda beta: 1 / beta,
    }
)
"""Name of a method → β → its expected gradient over CoPG's, for independent pairs from any one μ.

The methods that *are* CoPG, each on a scale of its own (REBEL for the one round with η = 1/β).
"""


# ------------------------------------------------------------------------ rounds of mirror descent


def mirror_descent(
    problem: Bandit,
    loss: Loss,
    *,
    eta: float,
    rounds: int,
    pairs: Any = None,
    baseline: str | ArrayLike | None = None,
    regularized: bool = False,
    progress: bool | Progress | None = None,
) -> Array:
    r"""Solve a loss exactly against the previous policy, again and again.

    Round t is the exact solution of ``loss`` for the bandit with reference π_t, regularization
    strength 1/η and rewards r, or r − β ln(π_t/π_ref) if ``regularized``. With
    :func:`bandit.losses.rebel` this is

    .. math:: \pi_{t+1} \propto \pi_t\, e^{\eta r}, \qquad
              \pi_{t+1} \propto \pi_t^{1-\eta\beta}\, \pi_\text{ref}^{\eta\beta}\, e^{\eta r} .

    Parameters
    ----------
    problem : Bandit
    loss : function of :mod:`bandit.losses`, or its name
    eta : float
        Step size of a round, per unit of reward; from 1e-150 to 1e150.
    rounds : int
    pairs : Pairs or array_like ([X,] K, K), optional
        The data of every round. Default: pairs drawn from the policy the round starts from.
    baseline : str or array_like, optional
        As in :func:`bandit.analysis.population`.
    regularized : bool
        Whether the KL penalty of ``problem`` is part of the rewards of a round.
    progress : bool or callable, optional
        As in :func:`bandit.train`.

    Returns
    -------
    ndarray (T + 1, [X,] K)
        ln π_0 = ln π_ref, ln π_1, … ln π_T. Stopped from the keyboard, the part done until then
        (with a warning).

    Raises
    ------
    ValueError
        If the data do not determine a round, or an arm's probability underflows (without ``pairs``:
        if it falls below 1e-12, as the policy's own data then hardly show it).

    Warns
    -----
    RuntimeWarning
        On an interrupt.

    Notes
    -----
    The limit of REBEL's rounds is :func:`greedy_policy` without the penalty (π* is passed after
    t η = 1/β). With it, ln π_t − ln π* shrinks by 1 − ηβ in every round up to a constant: to π* if
    ηβ < 2, at once if ηβ = 1, and never if ηβ ≥ 2.

    References
    ----------
    Gao et al. 2024, arXiv:2404.16767 (REBEL); Kimi team 2025, arXiv:2501.12599, section 2.3.2.
    """
    check_problem(problem)
    eta, rounds = _checks.positive_number("eta", eta), _checks.positive_integer("rounds", rounds)
    if not 1 / EXTREME <= eta <= EXTREME:
        raise ValueError(f"eta: expected from {1 / EXTREME:g} to {EXTREME:g}, got {eta:g}")
    check_progress(progress)
    path = [problem.log_reference]
    with reporter(progress, rounds) as report:
        try:
            for t in range(rounds):
                step, data = _round(problem, path[-1], eta, pairs, regularized, (t, rounds))
                path.append(_determined(step, loss, data, baseline, t).logits)
                report(t + 1, rounds)
        except KeyboardInterrupt:
            warnings.warn(
                f"mirror_descent: interrupted; {len(path) - 1} of {rounds} rounds are returned",
                RuntimeWarning,
                stacklevel=2,
            )
    return np.array(path)


def _round(
    problem: Bandit,
    log_policy: Array,
    eta: float,
    pairs: Any,
    regularized: bool,
    count: tuple[int, int],
) -> tuple[Bandit, Any]:
    """The bandit and the data of a round that starts from a policy; ``count`` is (t, rounds)."""
    policy, reward = np.exp(log_policy), problem.reward
    if policy.min() == 0 or (pairs is None and policy.min() < RAREST):
        hint = "" if pairs is not None else " (pairs of its own would help)"
        raise ValueError(
            f"rounds: expected at most {count[0]}, as then an arm has probability "
            f"{policy.min():.2g}{hint}, got {count[1]}"
        )
    if regularized:
        reward = reward - problem.beta * (log_policy - problem.log_reference)
    step = Bandit(reward, 1 / eta, policy, problem.context_weights)
    return step, pairing.independent(policy) if pairs is None else pairs


def _determined(step: Bandit, loss: Loss, data: Any, baseline: Any, t: int) -> Solution:
    """A round's solution; its successors would make nothing of a place that is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotIdentifiedWarning)
        solution = analysis.solve(step, loss, data, baseline=baseline)
    if not solution.converged:
        raise ValueError(f"pairs: expected data that determine round {t + 1}: {solution.message}")
    return solution


def greedy_policy(problem: Bandit) -> Array:
    """π_ref on the arms of greatest reward, ([X,] K): mirror descent's limit without a penalty."""
    check_problem(problem)
    best = problem.reward == problem.reward.max(axis=-1, keepdims=True)
    kept = np.where(best, problem.reference, 0.0)
    return kept / kept.sum(axis=-1, keepdims=True)


# --------------------------------------------------------- values beside the policy: V, V*, ln Z


class Joint(NamedTuple):
    """A policy and a value that minimize a loss together."""

    solution: Solution
    value: Array  # (), or (X,) with contexts; in units of reward


def joint_solution(problem: Bandit, loss: Loss, pairs: Any) -> Joint:
    """Minimize a loss over the policy and its value V together, exactly.

    Parameters
    ----------
    problem : Bandit
    loss : :func:`bandit.losses.value_regression` or :func:`bandit.losses.trajectory_balance`
    pairs : Pairs or array_like ([X,] K, K)

    Returns
    -------
    Joint
        ``solution``, and ``value``: V, in units of reward (for trajectory balance β ln Z), a number
        or (X,). If the data reach every arm these are π* and V* = β ln Z.

    Notes
    -----
    At every policy the best V is E_μ[R], the mean over the completions of the pairs. With it put in
    for V what is left is half the variance of R, whose gradient is the loss's with this V held.
    """
    name = groups.name_of(loss)
    if name not in ("value_regression", "trajectory_balance"):
        raise ValueError(
            f"loss: expected value_regression or trajectory_balance, whose value is learned, "
            f"got {name}"
        )
    solution = analysis.solve(problem, loss, pairs, baseline="behavior")
    bound = groups.bind(loss, problem)
    where = groups.setting(problem, bound, pairs, baseline="behavior")
    value = groups.baseline_value(where, np.atleast_2d(log_softmax(solution.logits)))
    assert value is not None
    return Joint(solution, value if problem.n_contexts is not None else value[0])


# --------------------------------------------------------------------------- data that grow stale


def descend_on_stale_data(
    problem: Bandit,
    loss: Loss,
    *,
    refresh: int,
    steps: int,
    optimizer: Optimizer,
    baseline: str | ArrayLike | None = None,
    start: ArrayLike | None = None,
    progress: bool | Progress | None = None,
) -> History:
    """Exact gradient steps on data that the policy itself drew, some steps ago.

    Every ``refresh`` steps the behavior μ becomes the policy; between, the expected loss over
    single completions from μ is descended.

    Parameters
    ----------
    problem : Bandit
    loss : function of :mod:`bandit.losses`, or its name
        One that takes groups of one completion.
    refresh : int
        Steps on the same data; 1 is on-policy.
    steps : int
        Number of steps in all.
    optimizer : Optimizer
        ``bandit.SGD(lr)`` or ``bandit.Adam(lr)``.
    baseline : str or array_like, optional
        As in :func:`bandit.analysis.population`.
    start : array_like ([X,] K), optional
        Logits to start from, default the reference.
    progress : bool or callable, optional
        As in :func:`bandit.train`.

    Returns
    -------
    History
        Of one run, with a record at every step. Stopped from the keyboard, the part done until then
        (with a warning).

    Warns
    -----
    RuntimeWarning
        If it diverged, or on an interrupt.
    """
    bound = groups.bind(loss, problem, baseline)
    descent.check_helpers(optimizer, progress)
    course = descent.follow(
        _OnStaleData(problem, bound, _checks.positive_integer("refresh", refresh), baseline),
        descent.start_of(start, problem.log_reference, 1),
        optimizer,
        steps=_checks.positive_integer("steps", steps),
        record_every=1,
        rng=0,  # of which nothing is drawn
        progress=progress,
    )
    descent.warn_of_trouble("descend_on_stale_data", course, steps)
    settings = {
        "hyper": hyper_of(bound),
        "baseline": baseline if isinstance(baseline, str | None) else np.asarray(baseline).tolist(),
        "refresh": int(refresh),
        "steps": int(steps),
        "optimizer": repr(optimizer),
    }
    return descent.history_of(problem, course, groups.name_of(loss), settings)


class _OnStaleData:
    """The learner whose batch is every completion, with the probability it had some steps ago."""

    numbers, block = 0, 1

    def __init__(self, problem: Bandit, loss: Loss, refresh: int, baseline: Any) -> None:
        self.problem, self.loss, self.refresh, self.baseline = problem, loss, refresh, baseline
        self.taken = 0
        # Each context learns by itself: its weight only says how much it counts in averages.
        rho = problem.context_weights
        self.weights = np.ones(1) if rho is None else np.where(rho > 0, rho, 1.0)[:, None]

    def draw(self, streams: tuple[Streams, Streams], steps: int) -> Iterator[bool]:
        """Whether fresh data are due."""
        for _ in range(steps):
            yield self.taken % self.refresh == 0
            self.taken += 1

    def gradient(self, theta: Array, batch: bool) -> Array:
        """Expected gradient by the logits (P, 1)."""
        logits = theta.reshape(self.problem.shape)
        if not np.isfinite(logits).all():
            return np.full(theta.shape, np.nan)
        if batch:
            self.data = pairing.independent(np.exp(log_softmax(logits)))
        gradient = analysis.population(
            self.problem, self.loss, logits, self.data, baseline=self.baseline, group_size=1
        )[1]
        return (gradient / self.weights).reshape(theta.shape)
