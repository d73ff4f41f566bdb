"""Intervals that hold for every number of rows, under conditions that are named."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv

from bandit import _checks
from bandit._checks import Array, level_between_0_and_1, shown
from bandit._estimators import FORMULAS
from bandit._ope_inputs import NOTHING_SHOWN, given
from bandit.data.counts import Counts
from bandit.data.division import steady_propensities
from bandit.data.log import Data, Log, counts_of

# Weights are one number if they differ by no more than this share.
SAME = 1e-9


def empirical_bernstein(
    data: Data,
    policy: ArrayLike,
    *,
    bounds: tuple[float, float],
    largest_weight: float,
    level: float = 0.95,
) -> tuple[float, float]:
    r"""An interval around :func:`bandit.ope.ipw` that covers for every n, however few rows matter.

    With s² the variance of the terms w r, which lie in an interval of length R, and δ = 1 − level,

    .. math::
        \text{IPW} \pm \Bigl( \sqrt{\frac{2 s^2 \ln(4/\delta)}{n}}
            + \frac{7 R \ln(4/\delta)}{3 (n-1)} \Bigr) .

    Parameters
    ----------
    data : Log or Counts
        With propensities, of independent rows.
    policy : array_like (K,) or (X, K)
    bounds : (float, float)
        What rewards can be, known in advance.
    largest_weight : float
        What π/p can be at most, known in advance: the largest weight that came is too little, since
        the rows that would be heavier are those that are missing.
    level : float
        In (0, 1).

    Returns
    -------
    low, high : float

    Raises
    ------
    ValueError, TypeError
        If rewards or weights of the log are beyond what was said, or there is a single row.

    References
    ----------
    Maurer and Pontil, arXiv:0907.3740, theorem 4, for both sides.
    """
    counts = counts_of(data)
    checked = given("ipw", counts, policy)
    lowest, highest = _bounds(bounds)
    most = _checks.positive_number("largest_weight", largest_weight)
    _refuse_beyond(data, counts, checked.policy, (lowest, highest), most)
    n = float(counts.n.sum())
    if n < 2:
        raise ValueError("data: expected two rows or more, got one")
    value, error = FORMULAS["ipw"](checked)
    log_term = float(np.log(4 / (1 - level_between_0_and_1(level))))
    length = most * (max(highest, 0.0) - min(lowest, 0.0))
    reach = error * np.sqrt(2 * log_term) + 7 * length * log_term / (3 * (n - 1))
    return value - reach, value + reach


def _bounds(bounds: Any) -> tuple[float, float]:
    pair = _checks.finite_array("bounds", bounds)
    if pair.shape != (2,) or not pair[0] < pair[1]:
        raise ValueError(f"bounds: expected two rising numbers, got {shown(bounds)}")
    return float(pair[0]), float(pair[1])


def _refuse_beyond(
    data: Data, counts: Counts, policy: Array, bounds: tuple[float, float], most: float
) -> None:
    """Of sums no more can be told than by their means."""
    assert counts.inverse is not None
    some = counts.n > 0
    if isinstance(data, Log):
        assert data.propensities is not None
        rewards = data.rewards
        weights = policy[data.contexts, data.arms] / data.propensities
    else:
        rewards = counts.reward[some] / counts.n[some]
        weights = (policy * counts.inverse)[some] / counts.n[some]
    if rewards.min() < bounds[0] or rewards.max() > bounds[1]:
        worst = rewards.min() if rewards.min() < bounds[0] else rewards.max()
        raise ValueError(f"bounds: expected all rewards in {bounds}, got {worst:g}")
    if weights.max() > most * (1 + SAME):
        raise ValueError(
            f"largest_weight: expected at least the weights that came, got {most:g} "
            f"and a weight of {weights.max():g}"
        )


def clopper_pearson(data: Data, policy: ArrayLike, *, level: float = 0.95) -> tuple[float, float]:
    r"""An exact interval where all weights are alike: what was logged is what the policy does.

    So it is when the logging policy chose uniformly and π plays one arm of each context, or some
    with equal probabilities. Then the m rows with w > 0 are a sample of what π does, of which k
    have reward 1, and k/m is :func:`bandit.ope.self_normalized_ipw`.

    Parameters
    ----------
    data : Log or Counts
        With propensities, and rewards of 0 and 1.
    policy : array_like (K,) or (X, K)
    level : float
        In (0, 1). The interval covers with at least this probability, for every n.

    Returns
    -------
    low, high : float

    Raises
    ------
    ValueError, TypeError
        If rewards are others, weights differ, or no row shows anything the policy plays.

    References
    ----------
    Clopper and Pearson, Biometrika 26 (1934). Rows as a sample: Li et al., arXiv:1003.5956.
    """
    counts = counts_of(data)
    pi = given("ipw", counts, policy).policy
    level = level_between_0_and_1(level)
    if isinstance(data, Log):
        binary = np.isin(data.rewards, (0.0, 1.0)).all()
    else:
        binary = (counts.reward == counts.reward2).all() and (counts.reward >= 0).all()
    if not binary:
        raise ValueError("data: expected rewards of 0 and 1")
    played = (counts.n > 0) & (pi > 0)
    if not played.any():
        raise ValueError(NOTHING_SHOWN)
    p = steady_propensities(counts)
    weights = None if p is None else (pi / p)[played]
    if weights is None or np.ptp(weights) > SAME * weights.max():
        raise ValueError(
            "policy: expected the same weight for all that it plays, got weights that differ; "
            "empirical_bernstein takes any"
        )
    m, k = counts.n[played].sum(), counts.reward[played].sum()
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(betaincinv(k, m - k + 1, tail))
    high = 1.0 if k == m else float(betaincinv(k + 1, m - k, 1 - tail))
    return low, high
