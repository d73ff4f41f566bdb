r"""What a method does without sampling noise: its velocity and its path in the space of policies.

Letters: ``X`` contexts (optional), ``K`` arms, ``T`` times, ``...`` any leading axes. A method that
descends along g(θ) moves the logits with velocity −g, and the softmax pushes that velocity forward:

.. math:: \dot\pi(y) = \pi(y) \Bigl(\dot\theta(y) - \sum_{y'} \pi(y') \dot\theta(y')\Bigr) .
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from bandit import _checks, expectations, groups
from bandit._checks import Array
from bandit.analysis import population
from bandit.losses import Loss
from bandit.problem import Bandit, log_softmax


def simplex_grid(resolution: int) -> Array:
    """Evenly spread policies of three arms, all strictly inside the simplex.

    Parameters
    ----------
    resolution : int
        Policies along each side, at least 1.

    Returns
    -------
    ndarray (resolution (resolution + 1) / 2, 3)
    """
    resolution = _checks.positive_integer("resolution", resolution)
    first, second = np.meshgrid(np.arange(resolution), np.arange(resolution), indexing="ij")
    inside = first + second < resolution
    first, second = first[inside], second[inside]
    counts = np.stack([first, second, resolution - 1 - first - second], axis=-1)
    # A third of a cell on every arm keeps the outermost policies off the border, centroid unmoved.
    return (counts + 1 / 3) / resolution


def policy_velocity(
    problem: Bandit, loss: Loss, policy: ArrayLike, pairs: Any, **data: Any
) -> Array:
    """How fast each probability changes along the population gradient flow of a method.

    Parameters
    ----------
    problem : Bandit
    loss : function of :mod:`bandit.losses`
    policy : array_like (..., [X,] K)
        All entries above 0.
    pairs : Pairs or array_like ([X,] K, K)
    **data
        ``preference``, ``baseline``, ``group_size`` as in :func:`bandit.analysis.population`.

    Returns
    -------
    ndarray (..., [X,] K)
        dπ/dt, summing to 0 over the arms, per unit of step size times steps.
    """
    policy = _checks.distribution("policy", policy, strictly_positive=True)
    descent = -population(problem, loss, np.log(policy), pairs, **data)[1]
    return policy * (descent - (policy * descent).sum(axis=-1, keepdims=True))


def gradient_flow(
    problem: Bandit, loss: Loss, start: ArrayLike, pairs: Any, times: ArrayLike, **data: Any
) -> Array:
    """Policies along the population gradient flow dθ/dt = −gradient, by an eighth-order integrator.

    Parameters
    ----------
    problem : Bandit
    loss : function of :mod:`bandit.losses`
    start : array_like (..., [X,] K)
        Policies to start from, all entries above 0.
    pairs : Pairs or array_like ([X,] K, K)
    times : array_like (T,)
        Ascending from 0; a time is step size times number of steps, in the limit of small steps.
    **data
        ``preference``, ``baseline``, ``group_size`` as in :func:`bandit.analysis.population`.

    Returns
    -------
    ndarray (T, ..., [X,] K)

    Raises
    ------
    ValueError
        If times do not ascend from 0.
    RuntimeError
        If the integrator cannot follow the flow.
    """
    start = _checks.distribution("start", start, strictly_positive=True)
    times = _checks.finite_array("times", times)
    if times.ndim != 1 or len(times) < 2 or times[0] != 0 or (np.diff(times) <= 0).any():
        raise ValueError("times: expected at least two numbers ascending from 0, got others")

    def velocity(_: float, theta: Array) -> Array:
        return -population(problem, loss, theta.reshape(start.shape), pairs, **data)[1].ravel()

    span = (0.0, float(times[-1]))
    path = solve_ivp(velocity, span, np.log(start).ravel(), "DOP853", times, rtol=1e-10, atol=1e-12)
    if not path.success:
        raise RuntimeError(f"gradient_flow: {path.message}")
    return np.exp(log_softmax(path.y.T.reshape(len(times), *start.shape)))


def gradient_descent(
    problem: Bandit,
    loss: Loss,
    start: ArrayLike,
    pairs: Any,
    *,
    learning_rate: float,
    steps: int,
    preference: ArrayLike | None = None,
    baseline: str | ArrayLike | None = None,
    group_size: int = 2,
) -> Array:
    """Policies along gradient descent on the population loss: training without sampling noise.

    Parameters
    ----------
    problem : Bandit
    loss : function of :mod:`bandit.losses`
    start : array_like (..., [X,] K)
        Policies to start from, all entries above 0; they descend side by side.
    pairs : Pairs or array_like ([X,] K, K)
    learning_rate : float
        Logits move by −learning_rate · gradient; above 0. Near a solution whose eigenvalues are λ
        an error shrinks by 1 + learning_rate · λ per step, so that steps above 2/|λ| do not settle.
    steps : int
    preference, baseline, group_size
        As in :func:`bandit.analysis.population`.

    Returns
    -------
    ndarray (steps + 1, ..., [X,] K)
        The start, and the policy after every step; NaN from where a descent leaves float64 on.
    """
    start = _checks.distribution("start", start, strictly_positive=True)
    rate = _checks.positive_number("learning_rate", learning_rate)
    steps = _checks.positive_integer("steps", steps)
    loss = groups.bind(loss, problem, baseline)
    where = groups.setting(problem, loss, pairs, preference, baseline)
    group_size = groups.check_group_size(where, loss, group_size)
    weights = 1.0 if problem.context_weights is None else problem.context_weights[:, None]
    expectation = expectations.Expectation(where, loss, group_size)
    theta = expectations.log_policy_of(problem, np.log(start), None)
    path = np.empty((steps + 1, *theta.shape))
    # A descent that leaves float64 goes on as NaN beside the others.
    with np.errstate(all="ignore"):
        for step in range(steps + 1):
            path[step] = theta = log_softmax(theta)
            weight = expectation.weight(theta)
            theta = theta - rate * weights * expectations.logit_gradient(loss, theta, weight)
    return np.exp(path).reshape(steps + 1, *start.shape)
