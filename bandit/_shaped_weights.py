r"""Estimates whose weights are cut or shrunk: a little bias for less variance.

Letters as in :mod:`bandit.ope`. With s(w) in place of w,

.. math::
    \frac1n \sum_i \Bigl[ \sum_y \pi(y|x_i)\, q(x_i, y) + s(w_i)\,(r_i - q(x_i, y_i)) \Bigr] .

What s does depends on the weight of a row, so rows are needed, or counts of a logging policy that
did not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bandit._checks import Array, level_between_0_and_1, shown
from bandit._estimate import Estimate, warn_of_weights
from bandit._estimators import standard_error
from bandit._ope_inputs import given
from bandit.data.counts import Codes
from bandit.data.division import steady_propensities
from bandit.data.log import Data, Log, counts_of


def clipped_ipw(data: Data, policy: ArrayLike, *, largest: float) -> Estimate:
    r"""(1/n) Σ min(w, largest) r: biased towards 0, and not at the mercy of a few heavy rows.

    Parameters
    ----------
    data : Log or Counts
        With propensities; of counts, with one propensity for all rows of a cell.
    policy : array_like (K,) or (X, K)
    largest : float
        What weights are cut to, at least 0; infinite: :func:`bandit.ope.ipw`.

    Returns
    -------
    Estimate
        Standard error √(Σ (t − mean)² / (n (n−1))) of the terms, which does not hold the bias.
        Effective sample size and largest weight are those before weights are cut.

    Raises
    ------
    ValueError, TypeError
        As :func:`bandit.ope.ipw`; also for counts of propensities that drift.

    Warns
    -----
    LowOverlapWarning, PropensityWarning
        As :func:`bandit.ope.ipw`.

    References
    ----------
    Ionides, "Truncated importance sampling", J. Comput. Graph. Stat. 17 (2008).
    """
    most = _limit("largest", largest)
    return _shaped("clipped_ipw", data, policy, lambda w: np.minimum(w, most))


def switch_doubly_robust(
    data: Data,
    policy: ArrayLike,
    *,
    threshold: float,
    shrinkage: float | str = 0.0,
    model: ArrayLike | None = None,
) -> Estimate:
    r"""SWITCH: rows of a weight above the threshold correct nothing, there the model speaks alone.

    Parameters
    ----------
    data : Log or Counts
        With propensities; of counts, with one propensity for all rows of a cell.
    policy : array_like (K,) or (X, K)
    threshold : float
        At least 0. 0 is the direct method, infinite the doubly robust estimate.
    shrinkage, model
        As for :func:`bandit.ope.doubly_robust`.

    Returns
    -------
    Estimate
        As of :func:`clipped_ipw`. The standard error takes q as given: where weights are cut the
        model speaks, so let other rows fit it.

    Raises
    ------
    ValueError, TypeError
        As :func:`bandit.ope.doubly_robust`; also for counts of propensities that drift.

    Warns
    -----
    LowOverlapWarning, PropensityWarning
        As :func:`bandit.ope.ipw`.

    References
    ----------
    Wang, Agarwal and Dudík, arXiv:1612.01205.
    """
    most = _limit("threshold", threshold)
    method = "switch_doubly_robust"
    return _shaped(method, data, policy, lambda w: np.where(w <= most, w, 0.0), shrinkage, model)


def optimistic_doubly_robust(
    data: Data,
    policy: ArrayLike,
    *,
    strength: float,
    shrinkage: float | str = 0.0,
    model: ArrayLike | None = None,
) -> Estimate:
    r"""DRos: doubly robust with optimistic shrinkage of the weights, λ w / (w² + λ).

    Parameters
    ----------
    data : Log or Counts
        With propensities; of counts, with one propensity for all rows of a cell.
    policy : array_like (K,) or (X, K)
    strength : float
        λ ≥ 0. 0 is the direct method, infinite the doubly robust estimate; no weight is above √λ/2.
    shrinkage, model
        As for :func:`bandit.ope.doubly_robust`.

    Returns
    -------
    Estimate
        As of :func:`clipped_ipw`. The standard error takes q as given: where weights are cut the
        model speaks, so let other rows fit it.

    Raises
    ------
    ValueError, TypeError
        As :func:`bandit.ope.doubly_robust`; also for counts of propensities that drift.

    Warns
    -----
    LowOverlapWarning, PropensityWarning
        As :func:`bandit.ope.ipw`.

    References
    ----------
    Su, Dimakopoulou, Krishnamurthy and Dudík, arXiv:1907.09623.
    """
    most = _limit("strength", strength)

    def shape(w: Array) -> Array:
        return w / (1 + w**2 / most) if most > 0 else np.zeros(w.shape)

    return _shaped("optimistic_doubly_robust", data, policy, shape, shrinkage, model)


def slope(estimates: Sequence[Estimate], *, level: float = 0.95) -> Estimate:
    """SLOPE: the most biased of some estimates that the less biased ones do not contradict.

    Parameters
    ----------
    estimates : sequence of Estimate
        From the least to the most biased, such as those of a switch with falling thresholds.
        Standard errors that do not fall are taken as the smallest one so far.
    level : float
        In (0, 1), of the normal intervals.

    Returns
    -------
    Estimate
        The last one before which all intervals, of twice their usual width, have a number in common
        with its own.

    Raises
    ------
    ValueError, TypeError
        If there is none, or one has no standard error.

    References
    ----------
    Su, Srinath and Krishnamurthy, arXiv:2002.07729.
    """
    level = level_between_0_and_1(level)
    estimates = list(estimates) if isinstance(estimates, Iterable) else []
    if not estimates or not all(isinstance(one, Estimate) for one in estimates):
        raise TypeError("estimates: expected a sequence of Estimates, and some")
    low, high, error, chosen = -np.inf, np.inf, np.inf, estimates[0]
    for one in estimates:
        if not np.isfinite(one.standard_error):
            raise ValueError(f"estimates: expected a standard error of {one.method}, got nan")
        error = min(error, one.standard_error)
        unit = Estimate("", 0.0, error, one.n, 0.0, 0.0, 0.0)
        reach = 2 * unit.interval(level)[1]
        low, high = max(low, one.value - reach), min(high, one.value + reach)
        if low > high:
            break
        chosen = one
    return chosen


# ------------------------------------------------------------------------------ what they share


class _Kinds(NamedTuple):
    """Rows of one cell and propensity each, all (M,)."""

    context: Codes
    arm: Codes
    propensity: Array
    n: Array
    reward: Array
    reward2: Array


def _kinds(data: Data) -> _Kinds:
    if isinstance(data, Log):
        assert data.propensities is not None
        r, once = data.rewards, np.ones(len(data))
        return _Kinds(data.contexts, data.arms, data.propensities, once, r, r**2)
    steady = steady_propensities(data)
    if steady is None:
        raise ValueError(
            "data: expected a Log, or counts whose propensities are one number in each cell: what "
            "is done to a weight needs its row, got sums over propensities that drift"
        )
    x, y = np.nonzero(data.n > 0)
    return _Kinds(x, y, steady[x, y], data.n[x, y], data.reward[x, y], data.reward2[x, y])


def _shaped(
    method: str,
    data: Data,
    policy: ArrayLike,
    shape: Callable[[Array], Array],
    shrinkage: float | str = 0.0,
    model: ArrayLike | None = None,
) -> Estimate:
    counts = counts_of(data)
    # Without a model q is 0 everywhere.
    like = "ipw" if method == "clipped_ipw" else "doubly_robust"
    checked = given(like, counts, policy, shrinkage, model)
    pi, rows = checked.policy, _kinds(data)
    q = checked.model[rows.context, rows.arm]
    s = shape(pi[rows.context, rows.arm] / rows.propensity)
    said = (pi * checked.model).sum(axis=1)[rows.context]
    n, left = float(rows.n.sum()), rows.reward - rows.n * q
    value = float((rows.n * said + s * left).sum() / n)
    off = said - value
    residuals = rows.reward2 - 2 * q * rows.reward + rows.n * q**2
    squares = (rows.n * off**2 + 2 * off * s * left + s**2 * residuals).sum()
    warn_of_weights(counts, pi, stacklevel=4)
    return Estimate.of(method, (value, standard_error(squares, n)), counts, pi)


def _limit(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name}: expected a number, got {shown(value)}")
    if not value >= 0:
        raise ValueError(f"{name}: expected at least 0, got {value:g}")
    return float(value)
