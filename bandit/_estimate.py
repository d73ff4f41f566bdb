"""An estimated value with all that tells how far to trust it, and the warnings that go with it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from scipy.special import ndtri

from bandit._checks import Array, level_between_0_and_1
from bandit._estimators import mean_weight, unseen_share
from bandit.data.counts import Counts

if TYPE_CHECKING:
    import pandas as pd

LOW_OVERLAP = 0.05


# How far the mean weight may be from one: standard errors, and what rounded propensities explain.
MOST_ERRORS, MOST_ROUNDING = 5.0, 0.01


class LowOverlapWarning(UserWarning):
    """The effective sample size is under 5 % of the rows."""


class PropensityWarning(UserWarning):
    """The weights do not average one: the propensities are not those that arms were drawn with."""


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
        The largest w of a row. For tables of sums that lack the maxima, such as those of
        :func:`bandit.data.open_bandit`, an upper bound: the least number that, given the sums, no
        weight can exceed (see :attr:`bandit.data.Counts.largest_inverse`). NaN without
        propensities.
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

    @classmethod
    def of(cls, method: str, found: tuple[float, float], counts: Counts, policy: Array) -> Estimate:
        """A value and its standard error, with what the weights of the policy (X, K) say."""
        size, largest = float("nan"), float("nan")
        if counts.inverse is not None:
            assert counts.largest_inverse is not None
            size = effective_sample_size(counts, policy)
            largest = float((policy * counts.largest_inverse).max())
        unseen = unseen_share(counts, policy)
        return cls(method, *found, len(counts), size, largest, unseen)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """value ± z · standard error: a normal interval, good where many rows carry weight.

        Parameters
        ----------
        level : float
            In (0, 1).
        """
        reach = float(ndtri(0.5 + level_between_0_and_1(level) / 2)) * self.standard_error
        return self.value - reach, self.value + reach


def effective_sample_size(counts: Counts, policy: Array) -> float:
    """(Σ w)²/Σ w²; 0 where nothing that the policy plays was logged."""
    assert counts.inverse is not None
    assert counts.inverse2 is not None
    squares = (policy**2 * counts.inverse2).sum()
    return float((policy * counts.inverse).sum() ** 2 / squares) if squares > 0 else 0.0


def warn_of_weights(counts: Counts, policy: Array, *, stacklevel: int) -> None:
    """What the weights say against trusting them, as warnings."""
    size, n = effective_sample_size(counts, policy), len(counts)
    if size < LOW_OVERLAP * n:
        warnings.warn(
            f"effective sample size {size:.3g} of {n} rows ({size / n:.2%}): the logging policy "
            "rarely did what this policy does; do not trust the weighted estimates",
            LowOverlapWarning,
            stacklevel=stacklevel,
        )
    wrong = implausible_weights(counts, policy)
    if wrong:
        warnings.warn(wrong, PropensityWarning, stacklevel=stacklevel)


def implausible_weights(counts: Counts, policy: Array) -> str:
    """What is wrong with the mean weight, or "".

    Weights average one, less the weight of what the logging policy never does: at most the share
    that no row shows.
    """
    mean, error = mean_weight(counts, policy)
    far = MOST_ERRORS * error + MOST_ROUNDING
    if 1 - unseen_share(counts, policy) - far <= mean <= 1 + far:
        return ""
    return (
        f"the weights of the policy average {mean:.3g} instead of 1, with a standard error of "
        f"{error:.2g}: the propensities are not those that the arms were drawn with"
    )


def table(estimates: Iterable[Estimate], *, level: float = 0.95) -> pd.DataFrame:
    """Any estimates side by side, one row each, with normal intervals.

    Parameters
    ----------
    estimates : iterable of Estimate
    level : float
        Of the intervals, in (0, 1).

    Returns
    -------
    DataFrame
        Index "method"; columns value, standard_error, low, high, n, effective_sample_size,
        max_weight, unseen.
    """
    import pandas as pd

    records = []
    for estimate in estimates:
        low, high = estimate.interval(level)
        records.append({**asdict(estimate), "low": low, "high": high})
    columns = ["value", "standard_error", "low", "high", "n", "effective_sample_size"]
    columns += ["max_weight", "unseen"]
    return pd.DataFrame(records, columns=["method", *columns]).set_index("method")
