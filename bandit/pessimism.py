r"""Pessimism: rewards that do not promise more than a log can back, and policies chosen by them.

Letters: ``X`` contexts, ``K`` arms, n(x, y) rows of a cell with mean reward r̄(x, y). Learned from
cell means a policy seeks out the cells whose means came out too high. A lower confidence bound, or
shrinkage towards what cells have in common, takes that away: both return rewards (X, K), finite
everywhere, that go into any objective through ``bandit.fit(..., rewards=...)``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import betaln, digamma, expit, ndtri

from bandit import _checks
from bandit._checks import Array, shown
from bandit._ppl import Pessimistic, pessimistic_policy
from bandit.data.counts import Counts
from bandit.data.log import Data, Log, counts_of

KINDS = ("normal", "wilson", "bernstein")
_TINY = float(np.finfo(np.float64).tiny)

__all__ = [
    "BetaPrior",
    "NormalPrior",
    "Pessimistic",
    "empirical_bayes",
    "fit_prior",
    "lower_confidence_bound",
    "pessimistic_policy",
]


# ------------------------------------------------------------------------------- lower bounds


def lower_confidence_bound(
    data: Data,
    *,
    level: float = 0.95,
    kind: str = "normal",
    bounds: tuple[float, float] | None = None,
) -> Array:
    r"""One-sided lower confidence bounds of the mean reward of each cell.

    With δ = 1 − level, z the normal quantile of the level and s² the variance of a cell's rows,

    .. math::
        \begin{aligned}
        \text{normal:}\quad & \bar r - z\,\hat\sigma/\sqrt n, \qquad
            \hat\sigma^2 \text{ pooled over cells} \\
        \text{wilson:}\quad & \Bigl(\bar r + \tfrac{z^2}{2n}
            - z\sqrt{\tfrac{\bar r(1-\bar r)}{n} + \tfrac{z^2}{4n^2}}\Bigr)
            \Big/ \Bigl(1 + \tfrac{z^2}{n}\Bigr) \\
        \text{bernstein:}\quad & \bar r - \sqrt{\frac{2 s^2 \ln(2/\delta)}{n}}
            - \frac{7 (b-a) \ln(2/\delta)}{3(n-1)}
        \end{aligned}

    Parameters
    ----------
    data : Log or Counts
    level : float
        In (0, 1), of each bound by itself; above ½ for "normal" and "wilson" to be below the mean.
    kind : {"normal", "wilson", "bernstein"}
        "wilson" is for rewards of 0 and 1. "bernstein" holds for every n, but for rewards known to
        lie in [a, b].
    bounds : (float, float), optional
        a and b: no bound falls below a. Default: 0 and 1 where all rewards are 0 or 1; else none,
        and then "bernstein" is refused.

    Returns
    -------
    ndarray (X, K)
        In units of reward. A cell without rows gets a, or without ``bounds`` the lowest bound of
        any cell with rows; for "bernstein" so does a cell of a single row.

    Raises
    ------
    ValueError, TypeError
        If level, kind or bounds do not fit the log.

    References
    ----------
    Wilson, JASA 22 (1927); empirical Bernstein: Maurer and Pontil, arXiv:0907.3740, theorem 4.
    """
    counts = counts_of(data)
    _checks.one_of("kind", kind, KINDS)
    level = _checks.level_between_0_and_1(level)
    binary = is_binary(data)
    low, high = _bounds(counts, bounds, binary)
    some, n = counts.n > 0, np.maximum(counts.n, 1.0)
    mean = counts.reward / n
    spread = np.maximum(counts.reward2 - counts.n * mean**2, 0.0)  # Σ (r − mean)²
    if kind == "normal":
        bound = _normal(counts.n, mean, spread, level)
    elif kind == "wilson":
        if not binary:
            raise ValueError("kind: expected 'wilson' only where rewards are 0 or 1")
        bound = _wilson(n, mean, level)
    else:
        if low is None or high is None:
            raise ValueError("bounds: expected (lowest, highest) reward for 'bernstein', got None")
        some = counts.n > 1
        bound = _bernstein(n, mean, spread, high - low, level)
    if low is not None:
        return np.where(some, np.maximum(bound, low), low)
    return np.where(some, bound, bound[some].min())


def _normal(n: Array, mean: Array, spread: Array, level: float) -> Array:
    free = np.maximum(n - 1, 0.0).sum()
    if free == 0:
        raise ValueError("data: expected a cell with two rows, to tell how rewards vary")
    return mean - float(ndtri(level)) * np.sqrt(spread.sum() / free / np.maximum(n, 1.0))


def _wilson(n: Array, mean: Array, level: float) -> Array:
    z = float(ndtri(level))
    middle, half = mean + z**2 / (2 * n), mean * (1 - mean) / n + z**2 / (4 * n**2)
    return (middle - z * np.sqrt(half)) / (1 + z**2 / n)


def _bernstein(n: Array, mean: Array, spread: Array, width: float, level: float) -> Array:
    free, log_term = np.maximum(n - 1, 1.0), float(np.log(2 / (1 - level)))
    reach = np.sqrt(2 * spread / free * log_term / n)
    return mean - reach - 7 * width * log_term / (3 * free)


def _bounds(counts: Counts, bounds: Any, binary: bool) -> tuple[float | None, float | None]:
    if bounds is None:
        return (0.0, 1.0) if binary else (None, None)
    pair = _checks.finite_array("bounds", bounds)
    if pair.shape != (2,) or not pair[0] < pair[1]:
        raise ValueError(f"bounds: expected two rising numbers, got {shown(bounds)}")
    low, high = pair.tolist()
    mean = counts.reward / np.maximum(counts.n, 1.0)
    outside = (counts.n > 0) & ((mean < low) | (mean > high))
    if outside.any():
        raise ValueError(
            f"bounds: expected all rewards in [{low:g}, {high:g}], got a cell whose mean is "
            f"{mean[outside][0]:g}"
        )
    return low, high


def is_binary(data: Data) -> bool:
    """Whether every reward is 0 or 1; of counts, whether their sums look like it.

    Parameters
    ----------
    data : Log or Counts
    """
    if isinstance(data, Log):
        return bool(np.isin(data.rewards, (0.0, 1.0)).all())
    possible = (data.reward >= 0) & (data.reward <= data.n)
    return bool((possible & (data.reward == data.reward2)).all())


# ---------------------------------------------------------------------------- empirical Bayes


class BetaPrior(NamedTuple):
    """Rates of cells ~ Beta(α, β), rewards 0 or 1; no scatter between cells: α + β infinite.

    ``mean`` is α/(α+β) and ``rows`` = α + β, how many rows the prior is worth.
    """

    mean: float
    rows: float


class NormalPrior(NamedTuple):
    """Means of cells ~ N(``mean``, τ²), rewards of a cell with variance σ².

    ``rows`` = σ²/τ², how many rows the prior is worth; infinite without scatter between cells.
    """

    mean: float
    rows: float


def empirical_bayes(data: Data) -> Array:
    r"""Posterior means of the cells' rewards under the prior that explains the log best.

    .. math::
        \hat r(x, y) = \frac{n\,\bar r + \kappa\, m}{n + \kappa}

    with m and κ of :func:`fit_prior`.

    Parameters
    ----------
    data : Log or Counts

    Returns
    -------
    ndarray (X, K)
        In units of reward; m for a cell without rows.
    """
    counts, prior = counts_of(data), fit_prior(data)
    if np.isinf(prior.rows):
        return np.full(counts.shape, prior.mean)
    total = np.maximum(counts.n + prior.rows, _TINY)
    return prior.mean + (counts.reward - counts.n * prior.mean) / total


def fit_prior(data: Data) -> BetaPrior | NormalPrior:
    r"""What the cells of a log have in common, by maximum marginal likelihood.

    Rewards of 0 and 1: successes of a cell are binomial, their rate is Beta(mκ, (1−m)κ). Other
    rewards: r̄ ~ N(μ, σ²/n) with σ² the pooled variance within cells, taken as known, and
    μ ~ N(m, σ²/κ).

    Parameters
    ----------
    data : Log or Counts
        All cells of all contexts are taken to be alike.

    Returns
    -------
    BetaPrior or NormalPrior
        κ is infinite where cells differ no more than chance makes them.

    Raises
    ------
    ValueError
        If no cell has two rows, so that nothing tells within from between.

    References
    ----------
    Robbins 1956; Efron and Morris, JASA 70 (1975); beta-binomial: Skellam 1948.
    """
    counts = counts_of(data)
    used = counts.n > 0
    n, total = counts.n[used], counts.reward[used]
    if not (n > 1).any():
        raise ValueError("data: expected a cell with two rows, to tell chance from difference")
    if is_binary(data):
        return _beta_prior(n, total)
    return _normal_prior(n, total, counts.reward2[used])


def _beta_prior(n: Array, ones: Array) -> BetaPrior:
    """By the marginal likelihood in (logit m, ln κ)."""
    overall = ones.sum() / n.sum()
    if overall in (0.0, 1.0):
        return BetaPrior(float(overall), float("inf"))
    # Beyond this many rows the prior is a point as far as float64 can tell betaln apart.
    most = np.log(n.max() * 1e4)

    def misfit(at: Array) -> tuple[float, Array]:
        share, rows = expit(at[0]), np.exp(at[1])
        a, b = rows * share, rows * (1 - share)
        both = digamma(a + b) - digamma(a + b + n)
        by_a = (digamma(a + ones) - digamma(a) + both).sum()
        by_b = (digamma(b + n - ones) - digamma(b) + both).sum()
        value = -float((betaln(a + ones, b + n - ones) - betaln(a, b)).sum())
        return value, -np.array([a * (1 - share) * (by_a - by_b), a * by_a + b * by_b])

    binomial = -float((ones * np.log(overall) + (n - ones) * np.log1p(-overall)).sum())
    center = float(np.log(overall / (1 - overall)))
    box = [(center - 8, center + 8), (np.log(1e-3), most)]
    starts = [np.array([center, guess]) for guess in np.linspace(0, most - 3, 3)]
    best = min(
        (
            minimize(misfit, start, jac=True, bounds=box, method="L-BFGS-B", tol=1e-13)
            for start in starts
        ),
        key=lambda found: found.fun,
    )
    # A point prior is the limit κ → ∞, whose likelihood is the binomial one.
    if best.fun >= binomial - 1e-9 * max(1.0, abs(binomial)) or best.x[1] >= most - 1e-6:
        return BetaPrior(float(overall), float("inf"))
    return BetaPrior(float(expit(best.x[0])), float(np.exp(best.x[1])))


def _normal_prior(n: Array, total: Array, squares: Array) -> NormalPrior:
    """By the marginal likelihood in ln κ, with the mean profiled out."""
    means = total / n
    within = np.maximum(squares - n * means**2, 0.0).sum() / np.maximum(n - 1, 0.0).sum()
    overall = float(total.sum() / n.sum())
    if within <= 1e-30 * max(squares.max(), _TINY):
        return NormalPrior(overall, 0.0)

    def profiled(rows: float) -> tuple[float, float]:
        weight = 1 / (1 / n + 1 / rows)  # of a cell's mean, in units of 1/σ²
        mean = float((weight * means).sum() / weight.sum())
        fit = (weight * (means - mean) ** 2).sum() / within - np.log(weight).sum()
        return float(fit), mean

    low, high = np.log(1e-6), np.log(n.max() * 1e8)
    grid = np.linspace(low, high, 60)
    at = grid[int(np.argmin([profiled(np.exp(x))[0] for x in grid]))]
    step = grid[1] - grid[0]
    best = minimize_scalar(
        lambda x: profiled(np.exp(x))[0],
        bounds=(max(low, at - step), min(high, at + step)),
        method="bounded",
        options={"xatol": 1e-10},
    )
    point = ((n * (means - overall) ** 2).sum() / within) - np.log(n).sum()
    if best.fun >= point - 1e-9 * max(1.0, abs(point)):
        return NormalPrior(overall, float("inf"))
    return NormalPrior(profiled(np.exp(best.x))[1], float(np.exp(best.x)))
