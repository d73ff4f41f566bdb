"""The formulas of :mod:`bandit.ope`, from sums per context and arm; input is checked there."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bandit._checks import Array, shown
from bandit.data.counts import Counts
from bandit.data.log import Data, counts_of

_TINY = float(np.finfo(np.float64).tiny)


def cell_means(data: Data, shrinkage: float | str = 0.0) -> Array:
    r"""The mean reward of each context and arm, (X, K), drawn towards the mean of all rows.

    .. math::
        q(x, y) = \frac{\sum r + \kappa\, \bar r}{n(x, y) + \kappa}

    Parameters
    ----------
    data : Log or Counts
    shrinkage : float or "auto"
        κ ≥ 0, in rows. "auto": the variance of a row within cells over that between cells, both
        by moments (analysis of variance); everything is the mean if cells do not differ.

    Notes
    -----
    A cell without rows has the mean of all rows.
    """
    counts = counts_of(data)
    rows, overall = counts.n, counts.reward.sum() / counts.n.sum()
    means = np.where(rows > 0, counts.reward / np.maximum(rows, 1.0), overall)
    kappa = auto_shrinkage(counts, means, overall) if shrinkage == "auto" else shrinkage
    if isinstance(kappa, (bool, str)) or not isinstance(kappa, (int, float, np.number)):
        raise TypeError(f'shrinkage: expected a number or "auto", got {shown(kappa)}')
    if not kappa >= 0:
        raise ValueError(f"shrinkage: expected at least 0, got {kappa:g}")
    return overall + (means - overall) * rows / np.maximum(rows + kappa, _TINY)


def auto_shrinkage(counts: Counts, means: Array, overall: float) -> float:
    """κ by moments; infinite if cells do not differ more than chance makes them."""
    rows, cells = counts.n, int((counts.n > 0).sum())
    n = rows.sum()
    if cells < 2 or n <= cells:
        return 0.0
    within = _within(counts, means).sum() / (n - cells)
    between = (rows * (means - overall) ** 2).sum() / (cells - 1)
    spread = (between - within) * (cells - 1) / (n - (rows**2).sum() / n)
    return float(within / spread) if spread > 0 else float("inf")


def _within(counts: Counts, means: Array) -> Array:
    """Σ (r − cell mean)² per cell."""
    return np.maximum(counts.reward2 - counts.n * means**2, 0.0)


# ----------------------------------------------------------------------------------- formulas


class Given(NamedTuple):
    """Everything a formula needs, checked: the counts, π (X, K), and q where there is one."""

    counts: Counts
    policy: Array
    model: Array
    fitted: float | None  # the shrinkage of a model fitted here; None for a given one


def _ipw(given: Given) -> tuple[float, float]:
    counts, pi = given.counts, given.policy
    assert counts.inverse_reward is not None
    assert counts.inverse2_reward2 is not None
    n = counts.n.sum()
    value = float((pi * counts.inverse_reward).sum() / n)
    squares = (pi**2 * counts.inverse2_reward2).sum() - n * value**2
    return value, standard_error(squares, n)


def _snipw(given: Given) -> tuple[float, float]:
    counts, pi = given.counts, given.policy
    assert counts.inverse is not None
    assert counts.inverse_reward is not None
    weight = (pi * counts.inverse).sum()
    if weight == 0:
        return float("nan"), float("nan")
    value = float((pi * counts.inverse_reward).sum() / weight)
    squares = (pi**2 * _squared_residuals(counts, np.asarray(value))).sum()
    return value, float(np.sqrt(max(squares, 0.0)) / weight)


def _dm(given: Given) -> tuple[float, float]:
    counts, pi = given.counts, given.policy
    n, met = counts.n.sum(), counts.n.sum(axis=1)
    said = (pi * given.model).sum(axis=1)
    value = float(met @ said / n)
    # How far a row moves the value, times n: by its cell, and by its reward within the cell.
    by_cell, by_reward, noise = _influence_on_model(given, met)
    by_cell = by_cell + (said - value)[:, None]
    by_cell = by_cell - (counts.n * by_cell).sum() / n
    between = standard_error((counts.n * by_cell**2).sum(), n) ** 2
    within = np.where(counts.n > 0, by_reward**2 * noise, 0.0) * counts.n / n**2
    return value, float(np.sqrt(between + within.sum()))


def _influence_on_model(given: Given, met: Array) -> tuple[Array, Array, Array]:
    """Delta method for q, a blend of the cell's mean and that of all rows, both random.

    Returns what a row at its cell's mean does, the slope in its reward, and the variance of a
    reward within its cell (pooled where there is but one); (X, K) each.
    """
    if given.fitted is None:
        zero = np.zeros(given.policy.shape)
        return zero, zero, zero
    counts, q = given.counts, given.model
    rows, n = counts.n, counts.n.sum()
    overall = counts.reward.sum() / n
    means = np.where(rows > 0, counts.reward / np.maximum(rows, 1.0), overall)
    below = np.where(rows > 0, rows + given.fitted, 1.0)
    played = met[:, None] * given.policy
    own = np.where(rows > 0, played / below, 0.0)
    rest = (played * (1 - rows / below)).sum() / n
    squares, free = _within(counts, means), np.maximum(rows - 1, 0.0)
    pooled = squares.sum() / free.sum() if free.sum() > 0 else float("nan")
    noise = np.where(rows > 1, squares / np.maximum(free, 1.0), pooled)
    return own * (means - q) + rest * (means - overall), own + rest, noise


def _dr(given: Given) -> tuple[float, float]:
    n = given.counts.n.sum()
    value = corrected_total(given) / float(n)
    return value, standard_error(corrected_squares(given, value), n)


def corrected_total(given: Given) -> float:
    """Σ_i t_i of the terms t_i = Σ_y π q + w_i (r_i − q_i) of the doubly robust estimate."""
    said = (given.policy * given.model).sum(axis=1)
    return float(given.counts.n.sum(axis=1) @ said + _correction(given).sum())


def corrected_squares(given: Given, center: float) -> float:
    """Σ_i (t_i − center)²."""
    off = (given.policy * given.model).sum(axis=1) - center
    squares = (given.policy**2 * _squared_residuals(given.counts, given.model)).sum()
    return float(given.counts.n.sum(axis=1) @ off**2 + 2 * _correction(given) @ off + squares)


def _sndr(given: Given) -> tuple[float, float]:
    counts, pi, q = given.counts, given.policy, given.model
    assert counts.inverse is not None
    n, weight = float(counts.n.sum()), float((pi * counts.inverse).sum())
    if weight == 0:
        return float("nan"), float("nan")
    off = (pi * q).sum(axis=1)
    direct = float(counts.n.sum(axis=1) @ off / n)
    off = off - direct
    correction = float(_correction(given).sum() / weight)
    left = given._replace(model=q + correction)  # what the correction leaves of the residuals
    scale = n / weight
    squares = counts.n.sum(axis=1) @ off**2 + 2 * scale * _correction(left) @ off
    squares += scale**2 * (pi**2 * _squared_residuals(counts, left.model)).sum()
    return direct + correction, float(np.sqrt(max(squares, 0.0)) / n)


def _correction(given: Given) -> Array:
    """Σ w (r − q) per context."""
    counts = given.counts
    assert counts.inverse is not None
    assert counts.inverse_reward is not None
    return (given.policy * (counts.inverse_reward - given.model * counts.inverse)).sum(axis=1)


def _squared_residuals(counts: Counts, center: Array) -> Array:
    """Σ (r − center)²/p² per cell."""
    assert counts.inverse2 is not None
    assert counts.inverse2_reward is not None
    assert counts.inverse2_reward2 is not None
    return (
        counts.inverse2_reward2 - 2 * center * counts.inverse2_reward + center**2 * counts.inverse2
    )


def standard_error(squares: float, n: float) -> float:
    """Of a mean of n terms, from the sum of their squared deviations."""
    return float(np.sqrt(max(squares, 0.0) / (n * (n - 1)))) if n > 1 else float("nan")


FORMULAS: dict[str, Callable[[Given], tuple[float, float]]] = {
    "ipw": _ipw,
    "self_normalized_ipw": _snipw,
    "direct_method": _dm,
    "doubly_robust": _dr,
    "self_normalized_doubly_robust": _sndr,
}
MODELED = ("direct_method", "doubly_robust", "self_normalized_doubly_robust")


# ------------------------------------------------------------------------------------ weights


def unseen_share(counts: Counts, policy: Array) -> float:
    """The share of the policy's choices, over the logged contexts, that no row shows."""
    share = counts.n.sum(axis=1) / counts.n.sum()
    return float(share @ np.where(counts.n == 0, policy, 0.0).sum(axis=1))


def mean_weight(counts: Counts, policy: Array) -> tuple[float, float]:
    r"""The mean of w, and its standard error: the larger one of those by weights and propensities.

    Of the weights that came: √(Σ (w − w̄)²)/n. Of the propensities, whatever came: the square root
    of (Σ_x Σ_y π²/p − (Σ π)²)/n over what was seen, which knows that heavy rows come rarely.
    """
    assert counts.inverse is not None
    assert counts.inverse2 is not None
    n, some = counts.n.sum(), counts.n > 0
    mean = float((policy * counts.inverse).sum() / n)
    came = (policy**2 * counts.inverse2).sum() / n - mean**2
    share = (counts.n.sum(axis=1) / n)[:, None]
    inverse = np.where(some, counts.inverse / np.where(some, counts.n, 1.0), 0.0)
    expected = (share * policy**2 * inverse).sum() - (share * policy * some).sum() ** 2
    return mean, float(np.sqrt(max(came, expected, 0.0) / n))
