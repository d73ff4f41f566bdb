r"""Off-policy evaluation: what a policy is worth, from what another one logged.

Letters: ``n`` rows (x_i, y_i, r_i, p_i), ``X`` contexts, ``K`` arms; π is the policy evaluated, of
shape (K,) or (X, K), w_i = π(y_i|x_i)/p_i its importance weight and q(x, y) a model of the reward.
Values are in units of reward.

.. math::
    \begin{aligned}
    \text{IPW} &= \tfrac1n \sum_i w_i r_i, &
    \text{SNIPW} &= \sum_i w_i r_i \Big/ \sum_i w_i, \\
    \text{DM} &= \tfrac1n \sum_i \sum_y \pi(y|x_i)\, q(x_i, y), &
    \text{DR} &= \text{DM} + \tfrac1n \sum_i w_i\, (r_i - q(x_i, y_i)).
    \end{aligned}

Every function takes a :class:`bandit.data.Log` or a :class:`bandit.data.Counts`: the formulas and
their standard errors need only sums per context and arm, so that both give the same. Sources: IPW,
Horvitz and Thompson (1952); self-normalized, Swaminathan and Joachims (NeurIPS 2015); doubly
robust, arXiv:1103.4601; effective sample size, Kish (1965).

Standard errors are those of independent rows. A log of a policy that adapts is not quite that.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from bandit import _checks
from bandit._checks import Array
from bandit._estimators import FORMULAS, MODELED, Given, auto_shrinkage, cell_means
from bandit.data.counts import Counts
from bandit.data.log import Log

if TYPE_CHECKING:
    import pandas as pd

Data = Log | Counts
__all__ = [
    "Estimate",
    "Interval",
    "LowOverlapWarning",
    "bootstrap",
    "cell_means",
    "direct_method",
    "doubly_robust",
    "evaluate",
    "ipw",
    "self_normalized_ipw",
]
LOW_OVERLAP = 0.05


class LowOverlapWarning(UserWarning):
    """The effective sample size is under 5 % of the rows."""


@dataclass(frozen=True)
class Estimate:
    """An estimated value and how far to trust it.

    Attributes
    ----------
    method : str
    value : float
        In units of reward.
    standard_error : float
        NaN where the log cannot tell (a single row).
    n : int
        Rows.
    effective_sample_size : float
        (Σ w)²/Σ w²; NaN without propensities.
    max_weight : float
        The largest w of a row; for tables without maxima the least that it is sure not to exceed.
        NaN without propensities.
    unseen : float
        The share of the policy's choices, over the logged contexts, that no row of the log shows.
        About these only a model can say anything; the weighted estimates take their reward as 0,
        or leave them out (self-normalized).
    """

    method: str
    value: float
    standard_error: float
    n: int
    effective_sample_size: float
    max_weight: float
    unseen: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """value ± z · standard error: a normal interval, good where many rows carry weight.

        Parameters
        ----------
        level : float
            In (0, 1).
        """
        reach = float(ndtri(0.5 + _level(level) / 2)) * self.standard_error
        return self.value - reach, self.value + reach


def _level(level: float) -> float:
    level = _checks.positive_number("level", level)
    if level >= 1:
        raise ValueError(f"level: expected a number in (0, 1), got {level:g}")
    return level


# --------------------------------------------------------------------------------- estimators


def ipw(data: Data, policy: ArrayLike) -> Estimate:
    r"""Inverse propensity weighting, (1/n) Σ w r: unbiased where the logger plays all π plays.

    Parameters
    ----------
    data : Log or Counts
        With propensities.
    policy : array_like (K,) or (X, K)

    Returns
    -------
    Estimate
        Standard error √(Σ (w r − IPW)² / (n (n−1))).

    Raises
    ------
    ValueError, TypeError
        If the policy does not fit the log, or the log has no propensities.

    Warns
    -----
    LowOverlapWarning
        If the effective sample size is under 5 % of n.

    References
    ----------
    Horvitz and Thompson, JASA 47 (1952).
    """
    return _estimate("ipw", data, policy)


def self_normalized_ipw(data: Data, policy: ArrayLike) -> Estimate:
    r"""Σ w r / Σ w: a little biased, never outside the range of rewards, often far less noisy.

    Parameters
    ----------
    data : Log or Counts
        With propensities.
    policy : array_like (K,) or (X, K)

    Returns
    -------
    Estimate
        Standard error by the delta method, √(Σ w² (r − SNIPW)²) / Σ w.

    Raises
    ------
    ValueError, TypeError
        As :func:`ipw`; also if no row shows anything the policy plays.

    Warns
    -----
    LowOverlapWarning
        If the effective sample size is under 5 % of n.

    References
    ----------
    Swaminathan and Joachims, "The Self-Normalized Estimator for Counterfactual Learning",
    NeurIPS 2015.
    """
    return _estimate("self_normalized_ipw", data, policy)


def direct_method(
    data: Data,
    policy: ArrayLike,
    *,
    shrinkage: float | str = 0.0,
    model: ArrayLike | None = None,
) -> Estimate:
    r"""(1/n) Σ_i Σ_y π(y|x_i) q(x_i, y): what a model of the reward says; needs no propensities.

    Parameters
    ----------
    data : Log or Counts
    policy : array_like (K,) or (X, K)
    shrinkage : float or "auto"
        Of the cell means that serve as q, see :func:`cell_means`.
    model : array_like (K,) or (X, K), optional
        Another q, not fitted to these rows.

    Returns
    -------
    Estimate
        Standard error by the delta method, for the contexts met and the cell means (cells of one
        row take the pooled variance of a row); κ is taken as given. With a model: for the contexts
        alone. The bias of a wrong model, of shrinkage and of cells without rows is in neither.

    Raises
    ------
    ValueError, TypeError
        If policy, shrinkage or model do not fit the log.
    """
    return _estimate("direct_method", data, policy, shrinkage, model)


def doubly_robust(
    data: Data,
    policy: ArrayLike,
    *,
    shrinkage: float | str = 0.0,
    model: ArrayLike | None = None,
) -> Estimate:
    r"""DM + (1/n) Σ w (r − q), also AIPW: the model's answer, corrected on the rows logged.

    Parameters
    ----------
    data : Log or Counts
        With propensities.
    policy : array_like (K,) or (X, K)
    shrinkage : float or "auto"
        Of the cell means that serve as q, see :func:`cell_means`.
    model : array_like (K,) or (X, K), optional
        Another q. One that was not fitted to these rows leaves the estimate exactly unbiased.

    Returns
    -------
    Estimate
        Standard error √(Σ (t − DR)² / (n (n−1))) of the terms t_i = Σ_y π q + w_i (r_i − q).
        Fitting the cell means adds nothing to first order if the propensities are right; if they
        are not, only a bootstrap shows what it adds.

    Raises
    ------
    ValueError, TypeError
        If policy, shrinkage or model do not fit the log, or it has no propensities.

    Warns
    -----
    LowOverlapWarning
        If the effective sample size is under 5 % of n.

    Notes
    -----
    With plain cell means and a logging policy that did not change the correction is 0: DR is DM.

    References
    ----------
    Dudík, Langford and Li, arXiv:1103.4601.
    """
    return _estimate("doubly_robust", data, policy, shrinkage, model)


# -------------------------------------------------------------------------- checks around them


def _prepare(
    method: str,
    data: Data,
    policy: ArrayLike,
    shrinkage: float | str = 0.0,
    model: ArrayLike | None = None,
) -> Given:
    if not isinstance(data, (Log, Counts)):
        raise TypeError(f"data: expected a Log or Counts, got {type(data).__name__}")
    counts = data.counts() if isinstance(data, Log) else data
    pi = _fitting("policy", _checks.distribution("policy", policy), counts.shape)
    if method != "direct_method" and counts.inverse is None:
        raise ValueError("data: expected propensities, got a log without; direct_method needs none")
    if model is not None:
        if shrinkage != 0.0:
            raise ValueError(f"shrinkage: expected 0 beside a given model, got {shrinkage!r}")
        q = _fitting("model", _checks.finite_array("model", model), counts.shape)
        return Given(counts, pi, q, None)
    if method not in MODELED:
        return Given(counts, pi, np.zeros(counts.shape), None)
    overall = counts.reward.sum() / counts.n.sum()
    q = cell_means(counts, shrinkage)
    kappa = shrinkage
    if shrinkage == "auto":
        kappa = auto_shrinkage(counts, cell_means(counts), overall)
    return Given(counts, pi, q, float(kappa))


def _fitting(name: str, array: Array, shape: tuple[int, int]) -> Array:
    if array.shape not in (shape, shape[1:]):
        raise ValueError(
            f"{name}: expected shape (K,) = {shape[1:]} or (X, K) = {shape}, got {array.shape}"
        )
    return np.broadcast_to(array, shape)


def _estimate(
    method: str,
    data: Data,
    policy: ArrayLike,
    shrinkage: float | str = 0.0,
    model: ArrayLike | None = None,
    *,
    warn: bool = True,
) -> Estimate:
    given = _prepare(method, data, policy, shrinkage, model)
    counts, pi = given.counts, given.policy
    value, error = FORMULAS[method](given)
    if np.isnan(value):
        raise ValueError("policy: expected some arm that the log shows, got none")
    size, largest = float("nan"), float("nan")
    if counts.inverse is not None:
        assert counts.inverse2 is not None
        assert counts.largest_inverse is not None
        squares = (pi**2 * counts.inverse2).sum()
        size = float((pi * counts.inverse).sum() ** 2 / squares) if squares > 0 else 0.0
        largest = float((pi * counts.largest_inverse).max())
    share = counts.n.sum(axis=1) / counts.n.sum()
    unseen = float(share @ np.where(counts.n == 0, pi, 0.0).sum(axis=1))
    if warn and method != "direct_method":
        _warn_of_low_overlap(size, len(counts), stacklevel=4)
    return Estimate(method, value, error, len(counts), size, largest, unseen)


def _warn_of_low_overlap(size: float, n: int, stacklevel: int) -> None:
    if size < LOW_OVERLAP * n:
        warnings.warn(
            f"effective sample size {size:.3g} of {n} rows ({size / n:.2%}): the logging policy "
            "rarely did what this policy does; do not trust the weighted estimates",
            LowOverlapWarning,
            stacklevel=stacklevel,
        )


# ------------------------------------------------------------------------- tables, intervals


def evaluate(
    data: Data,
    policy: ArrayLike,
    *,
    shrinkage: float | str = 0.0,
    model: ArrayLike | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """All estimates side by side, one row each, with normal intervals.

    Parameters
    ----------
    data : Log or Counts
        Without propensities only the direct method is there.
    policy : array_like (K,) or (X, K)
    shrinkage, model
        For the direct method and the doubly robust estimate.
    level : float
        Of the intervals, in (0, 1).

    Returns
    -------
    DataFrame
        Index "method"; columns value, standard_error, low, high, n, effective_sample_size,
        max_weight, unseen.

    Warns
    -----
    LowOverlapWarning
        Once, if the effective sample size is under 5 % of n.
    """
    import pandas as pd

    if not isinstance(data, (Log, Counts)):
        raise TypeError(f"data: expected a Log or Counts, got {type(data).__name__}")
    counts = data.counts() if isinstance(data, Log) else data
    methods = list(FORMULAS) if counts.inverse is not None else ["direct_method"]
    records = []
    for method in methods:
        extra = (shrinkage, model) if method in MODELED else ()
        estimate = _estimate(method, counts, policy, *extra, warn=False)
        low, high = estimate.interval(level)
        records.append({**asdict(estimate), "low": low, "high": high})
    if counts.inverse is not None:
        _warn_of_low_overlap(records[0]["effective_sample_size"], len(counts), stacklevel=3)
    columns = ["value", "standard_error", "low", "high", "n", "effective_sample_size"]
    return pd.DataFrame(records).set_index("method")[[*columns, "max_weight", "unseen"]]


class Interval(NamedTuple):
    """A bootstrap interval; ``undefined`` replicates had no row that the policy plays."""

    low: float
    high: float
    level: float
    replicates: int
    undefined: int


def bootstrap(
    log: Log,
    policy: ArrayLike,
    method: str = "self_normalized_ipw",
    *,
    rng: np.random.Generator | int,
    replicates: int = 1000,
    level: float = 0.95,
    shrinkage: float | str = 0.0,
    model: ArrayLike | None = None,
) -> Interval:
    """A percentile interval from logs resampled row by row; the model is fitted anew each time.

    Parameters
    ----------
    log : Log
        Rows, not counts: sums do not say which reward came with which propensity, so nothing can
        be resampled from them. For counts there is :meth:`Estimate.interval`.
    policy : array_like (K,) or (X, K)
    method : str
        ipw, self_normalized_ipw, direct_method or doubly_robust.
    rng : Generator or int
    replicates : int
        How many logs are drawn.
    level : float
        In (0, 1).
    shrinkage, model
        For the direct method and the doubly robust estimate.

    Returns
    -------
    Interval

    Notes
    -----
    Rows that are the same are drawn together, from the multinomial distribution of how often each
    kind of row comes up. Where few rows carry the weight the bootstrap has not seen the rows that
    matter either: look at the effective sample size first.
    """
    if not isinstance(log, Log):
        raise TypeError(
            f"log: expected a Log, got {type(log).__name__}: a bootstrap resamples rows, and sums "
            "do not say which reward came with which propensity; use Estimate.interval"
        )
    _checks.one_of("method", method, FORMULAS)
    extra = (shrinkage, model) if method in MODELED else ()
    if method not in MODELED and (model is not None or shrinkage != 0.0):
        raise ValueError(f"method: expected one with a model, got {method!r}")
    _estimate(method, log, policy, *extra, warn=False)
    level, times = _level(level), _checks.positive_integer("replicates", replicates)
    rng = np.random.default_rng(rng)
    kinds, often = _kinds_of_rows(log)
    drawn = np.empty(times)
    for i in range(times):
        again = kinds.counts(rng.multinomial(len(log), often / len(log)))
        drawn[i] = FORMULAS[method](_prepare(method, again, policy, *extra))[0]
    defined = drawn[~np.isnan(drawn)]
    if defined.size == 0:
        raise ValueError("log: expected rows that the policy plays in some replicate, got none")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, times, times - defined.size)


def _kinds_of_rows(log: Log) -> tuple[Log, Array]:
    """The different rows of a log, and how often each is there."""
    p = np.ones(len(log)) if log.propensities is None else log.propensities
    rows = np.column_stack([log.contexts, log.arms, log.rewards, p])
    rows, often = np.unique(rows, axis=0, return_counts=True)
    kinds = Log(
        rows[:, 0].astype(np.int64),
        rows[:, 1].astype(np.int64),
        rows[:, 2],
        None if log.propensities is None else rows[:, 3],
        context_labels=log.context_labels,
        arm_labels=log.arm_labels,
    )
    return kinds, often.astype(np.float64)
