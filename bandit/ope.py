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

Beside these: self-normalized doubly robust, and doubly robust or inverse propensity weighting with
weights that are cut or shrunk (:func:`switch_doubly_robust`, :func:`optimistic_doubly_robust`,
:func:`clipped_ipw`), among which :func:`slope` chooses.

Every function takes a :class:`bandit.data.Log` or a :class:`bandit.data.Counts`: the formulas and
their standard errors need only sums per context and arm, so that both give the same. Only what
draws rows at random (:func:`bootstrap`, and folds of :func:`doubly_robust`) or does something to a
weight needs the rows.
Sources: IPW, Horvitz and Thompson (1952); self-normalized, Swaminathan and Joachims (NeurIPS 2015);
doubly robust, arXiv:1103.4601; cross-fitting, arXiv:1608.00060; effective sample size, Kish (1965).

Standard errors are those of independent rows. A log of a policy that adapts is not quite that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from bandit._bootstrap import Interval, bootstrap
from bandit._checks import shown
from bandit._cross_fitting import cross_fitted
from bandit._estimate import (
    LOW_OVERLAP,
    Estimate,
    LowOverlapWarning,
    PropensityWarning,
    table,
    warn_of_weights,
)
from bandit._estimators import FORMULAS, MODELED, cell_means
from bandit._ope_inputs import NOTHING_SHOWN, given
from bandit._ope_intervals import clopper_pearson, empirical_bernstein
from bandit._shaped_weights import (
    clipped_ipw,
    optimistic_doubly_robust,
    slope,
    switch_doubly_robust,
)
from bandit.data.log import Data, counts_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "LOW_OVERLAP",
    "Estimate",
    "Interval",
    "LowOverlapWarning",
    "PropensityWarning",
    "bootstrap",
    "cell_means",
    "clipped_ipw",
    "clopper_pearson",
    "direct_method",
    "doubly_robust",
    "empirical_bernstein",
    "evaluate",
    "ipw",
    "optimistic_doubly_robust",
    "self_normalized_doubly_robust",
    "self_normalized_ipw",
    "slope",
    "switch_doubly_robust",
    "table",
]
# Those of a first look.
EVERYDAY = ("ipw", "self_normalized_ipw", "direct_method", "doubly_robust")

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
    PropensityWarning
        If the weights do not average one, by more than chance can explain: the propensities are
        not those that the arms were drawn with.

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
    LowOverlapWarning, PropensityWarning
        As :func:`ipw`.

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
    folds: int | str | None = None,
    rng: np.random.Generator | int | None = None,
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
    folds : int, "rows" or None
        Cross-fitting, which leaves the estimate exactly unbiased too: each row is corrected by cell
        means of rows that it is not among. A number divides the rows of a Log at random into as
        many folds, and the others make a fold's q; "rows" leaves each row out by itself, which is
        exact from sums too and needs no random numbers. None: q is fitted to all rows.
    rng : Generator or int, optional
        What draws a number of folds.

    Returns
    -------
    Estimate
        Standard error √(Σ (t − DR)² / (n (n−1))) of the terms t_i = Σ_y π q + w_i (r_i − q_i).
        Fitting the cell means adds nothing to first order if the propensities are right; if they
        are not, only a bootstrap shows what it adds.

    Raises
    ------
    ValueError, TypeError
        If policy, shrinkage, model, folds or rng do not fit the log or each other, or the log has
        no propensities.

    Warns
    -----
    LowOverlapWarning, PropensityWarning
        As :func:`ipw`.

    Notes
    -----
    With plain cell means and a logging policy that did not change the correction is 0: DR is DM.

    Fitted to the rows that they correct, cell means follow their noise: a cell of one row is
    never corrected at all. The bias this leaves is of the order of 1/n; cross-fitting has none.

    References
    ----------
    Dudík, Langford and Li, arXiv:1103.4601. Cross-fitting: Chernozhukov et al., arXiv:1608.00060.
    """
    return _estimate("doubly_robust", data, policy, shrinkage, model, (folds, rng))


def self_normalized_doubly_robust(
    data: Data,
    policy: ArrayLike,
    *,
    shrinkage: float | str = 0.0,
    model: ArrayLike | None = None,
) -> Estimate:
    r"""DM + Σ w (r − q) / Σ w: doubly robust, with a correction within the range of r − q.

    Parameters
    ----------
    data : Log or Counts
        With propensities.
    policy : array_like (K,) or (X, K)
    shrinkage, model
        As for :func:`doubly_robust`.

    Returns
    -------
    Estimate
        Standard error by the delta method, √(Σ (t − DM)²) / n of the terms
        t_i = Σ_y π q + w_i (r_i − q_i − C) / w̄, with C the correction and w̄ the mean weight.

    Raises
    ------
    ValueError, TypeError
        As :func:`doubly_robust`; also if no row shows anything the policy plays.

    Warns
    -----
    LowOverlapWarning, PropensityWarning
        As :func:`ipw`.

    References
    ----------
    Kallus and Uehara, arXiv:1906.03735.
    """
    return _estimate("self_normalized_doubly_robust", data, policy, shrinkage, model)


# -------------------------------------------------------------------------- what they share


def _estimate(
    method: str,
    data: Data,
    policy: ArrayLike,
    shrinkage: float | str = 0.0,
    model: ArrayLike | None = None,
    fitting: tuple[int | str | None, np.random.Generator | int | None] = (None, None),
    *,
    warn: bool = True,
) -> Estimate:
    folds, rng = fitting
    if folds is None and rng is not None:
        raise ValueError(f"rng: expected none without folds, got {shown(rng)}")
    if folds is not None and model is not None:
        raise ValueError(f"folds: expected None beside a given model, got {shown(folds)}")
    counts = counts_of(data)
    checked = given(method, counts, policy, shrinkage, model)
    if folds is None:
        value, error = FORMULAS[method](checked)
    else:
        value, error = cross_fitted(data, checked.policy, shrinkage, folds, rng)
    if np.isnan(value):
        raise ValueError(NOTHING_SHOWN)
    if warn and method != "direct_method":
        warn_of_weights(counts, checked.policy, stacklevel=4)
    return Estimate.of(method, (value, error), counts, checked.policy)


# ------------------------------------------------------------------------- tables, intervals


def evaluate(
    data: Data,
    policy: ArrayLike,
    *,
    shrinkage: float | str = 0.0,
    model: ArrayLike | None = None,
    folds: int | str | None = None,
    rng: np.random.Generator | int | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """The four estimates that most people want, one row each, with normal intervals.

    Parameters
    ----------
    data : Log or Counts
        Without propensities only the direct method is there.
    policy : array_like (K,) or (X, K)
    shrinkage, model
        For the direct method and the doubly robust estimate.
    folds, rng
        For the doubly robust estimate.
    level : float
        Of the intervals, in (0, 1).

    Returns
    -------
    DataFrame
        Index "method"; columns value, standard_error, low, high, n, effective_sample_size,
        max_weight, unseen.

    Raises
    ------
    ValueError, TypeError
        As the estimates; also if folds are asked for and there are no propensities.

    Warns
    -----
    LowOverlapWarning
        Once, if the effective sample size is under 5 % of n.
    PropensityWarning
        Once, if the weights do not average one.

    See Also
    --------
    table : for others, such as :func:`switch_doubly_robust`.
    """
    counts = counts_of(data)
    methods = EVERYDAY if counts.inverse is not None else ("direct_method",)
    if (folds, rng) != (None, None) and counts.inverse is None:
        raise ValueError("folds: expected None for a log without propensities, and no rng")
    estimates = []
    for method in methods:
        extra: tuple[Any, ...] = (shrinkage, model) if method in MODELED else ()
        if method == "doubly_robust":
            extra += ((folds, rng),)
        rows = data if folds is not None else counts  # reduced to counts once
        estimates.append(_estimate(method, rows, policy, *extra, warn=False))
    if counts.inverse is not None:
        pi = given("ipw", counts, policy).policy
        warn_of_weights(counts, pi, stacklevel=3)
    return table(estimates, level=level)
