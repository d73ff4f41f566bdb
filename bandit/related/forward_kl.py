r"""Regularization by the forward KL divergence, KL(π_ref‖π), beside the usual KL(π‖π_ref).

.. math::
    J_F(\pi) = \mathbb{E}_x\Bigl[\sum_y \pi(y) r(y) - \beta\,\mathrm{KL}(\pi_\text{ref}\|\pi)\Bigr],
    \qquad \pi_F(y) = \frac{\beta\,\pi_\text{ref}(y)}{\lambda - r(y)},

with the number λ(x) > max r that makes the probabilities sum to one. J_F is strictly concave, so
π_F is its only maximizer. Where π* gives up an arm exponentially in its gap over β, π_F keeps at
least the share β / (β + gap) of what the reference gave it.

On preferences the penalty is a likelihood of the data, :func:`bandit.losses.dpo_with_data_term`,
here also called ``loss``. After arXiv:2409.05622, for tabular policies.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from bandit._checks import Array
from bandit.losses import dpo_with_data_term as loss
from bandit.problem import Bandit, check_problem, kl_divergence

__all__ = ["loss", "objective", "optimal_policy"]


def optimal_policy(problem: Bandit) -> Array:
    """π_F = β π_ref / (λ − r), the best policy under the forward KL penalty.

    Parameters
    ----------
    problem : Bandit

    Returns
    -------
    ndarray ([X,] K)
        Every entry exact to a few units in its last place, also where β is tiny.

    Examples
    --------
    >>> from bandit import presets
    >>> optimal_policy(presets.three_armed_bandit()).round(8).tolist()
    [0.68071834, 0.22376188, 0.09551978]
    """
    check_problem(problem)
    # Distances below the best arm, in units of β: λ enters as its distance above, at most 1.
    gap = (problem.reward.max(axis=-1, keepdims=True) - problem.reward) / problem.beta
    if problem.n_contexts is None:
        return _normalized(problem.reference, gap)
    return np.stack([_normalized(*one) for one in zip(problem.reference, gap, strict=True)])


def _normalized(reference: Array, gap: Array) -> Array:
    """reference / (t + gap) with the one t > 0 that makes it sum to one."""

    def excess(t: float) -> float:
        return float((reference / (t + gap)).sum()) - 1

    # The best arms alone take t = their mass for a sum of one; all gaps at 0 would take t = 1.
    low, high = float(reference[gap == 0].sum()), 1.0
    if excess(low) <= 0:  # nothing beside the best arms, or nothing that float64 can see
        return reference / (low + gap)
    if excess(high) >= 0:
        return reference / (high + gap)
    root = brentq(excess, low, high, xtol=np.finfo(float).tiny, rtol=4 * np.finfo(float).eps)
    return reference / (root + gap)


def objective(problem: Bandit, policy: ArrayLike) -> Array:
    """J_F(policy) = E_x[E_π r − β KL(π_ref‖π)], in units of reward.

    Parameters
    ----------
    problem : Bandit
    policy : array_like (..., [X,] K)

    Returns
    -------
    ndarray (...)
        −∞ for a policy that leaves out an arm of the reference.
    """
    check_problem(problem)
    with np.errstate(divide="ignore"):
        log_policy = np.log(problem.check_policy(policy))
    divergence = kl_divergence(problem.log_reference, log_policy)
    return problem.expected_reward(policy) - problem.beta * problem.average(divergence)
