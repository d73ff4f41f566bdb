"""Bootstrap intervals for the estimates of :mod:`bandit.ope`: logs resampled row by row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bandit import _checks
from bandit._checks import Array, shown
from bandit._estimators import FORMULAS, MODELED
from bandit._ope_inputs import NOTHING_SHOWN, given
from bandit.data.log import Log


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
        raise ValueError(f"method: expected one with a model, got {shown(method)}")
    if np.isnan(FORMULAS[method](given(method, log, policy, *extra))[0]):
        raise ValueError(NOTHING_SHOWN)
    level = _checks.level_between_0_and_1(level)
    times = _checks.positive_integer("replicates", replicates)
    rng = _checks.generator_of(rng)
    kinds, often = _kinds_of_rows(log)
    drawn = np.empty(times)
    for i in range(times):
        again = kinds.counts(rng.multinomial(len(log), often / len(log)))
        drawn[i] = FORMULAS[method](given(method, again, policy, *extra))[0]
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
