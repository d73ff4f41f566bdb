r"""Doubly robust estimates whose reward model never saw the row that it is corrected on.

The terms are t_i = Σ_y π(y|x_i) q₋ᵢ(x_i, y) + w_i (r_i − q₋ᵢ(x_i, y_i)), with q₋ᵢ the cell means
(drawn towards the mean of all rows) of rows that row i is not among. Given the others, row i has
E[t_i] = the value of π, whatever q₋ᵢ is: their mean is unbiased for every number of rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bandit import _checks
from bandit._checks import Array, shown
from bandit._estimators import (
    Given,
    cell_means,
    corrected_squares,
    corrected_total,
    standard_error,
)
from bandit.data.counts import Counts
from bandit.data.log import Data, Log, counts_of

ROW_BY_ROW = "rows"


def cross_fitted(
    data: Data, policy: Array, shrinkage: float | str, folds: Any, rng: Any
) -> tuple[float, float]:
    """The mean of the terms and its standard error √(Σ (t − mean)²/(n (n−1)))."""
    if folds == ROW_BY_ROW:
        if rng is not None:
            raise ValueError(f'rng: expected none with folds "{ROW_BY_ROW}", got {shown(rng)}')
        if isinstance(shrinkage, str):
            raise ValueError(
                f'shrinkage: expected a number with folds "{ROW_BY_ROW}", got {shown(shrinkage)}, '
                "which would be another one for every row"
            )
        return _leave_one_out(counts_of(data), policy, shrinkage)
    if isinstance(folds, str):
        raise ValueError(f'folds: expected a number or "{ROW_BY_ROW}", got {shown(folds)}')
    many = _checks.positive_integer("folds", folds)
    if not isinstance(data, Log):
        raise TypeError(
            f"data: expected a Log to divide into folds, got {type(data).__name__}; "
            f'sums can be cross-fitted with folds="{ROW_BY_ROW}"'
        )
    if not 2 <= many <= len(data):
        raise ValueError(f"folds: expected from 2 to n = {len(data)}, got {many}")
    if rng is None:
        raise ValueError(f"rng: expected a Generator or a seed to draw {many} folds, got None")
    return _in_folds(data, policy, shrinkage, many, _checks.generator_of(rng))


def _in_folds(
    log: Log, policy: Array, shrinkage: float | str, many: int, rng: np.random.Generator
) -> tuple[float, float]:
    fold = rng.permutation(len(log)) % many  # their sizes differ by one row at most
    parts = [
        Given(log.counts(fold == f), policy, cell_means(log.counts(fold != f), shrinkage), None)
        for f in range(many)
    ]
    n = float(len(log))
    value = sum(map(corrected_total, parts)) / n
    return value, standard_error(sum(corrected_squares(part, value) for part in parts), n)


def _leave_one_out(counts: Counts, policy: Array, shrinkage: float) -> tuple[float, float]:
    r"""As many folds as rows, from sums alone.

    Without a row of reward r, the mean of all is α − ε r and its own cell's q is c − d r, so that
    t = a − b r + w ((1 + d) r − c) with numbers that depend on the cell only.
    """
    assert counts.inverse is not None
    assert counts.inverse_reward is not None
    n, rows, total = counts.n, counts.n.sum(), counts.reward.sum()
    if rows < 2:
        raise ValueError(f"data: expected two rows or more to cross-fit, got {rows:g}")
    cell_means(counts, shrinkage)  # checks it
    means = counts.reward / np.maximum(n, 1.0)
    trust = _share(n, shrinkage)  # of the cell's mean in its q
    alpha, epsilon = total / (rows - 1), 1 / (rows - 1)
    own = _share(n - 1, shrinkage) / np.maximum(n - 1, 1.0)
    rest = 1 - _share(n - 1, shrinkage)
    c, d = own * counts.reward + rest * alpha, own + rest * epsilon
    # What other cells of the context say: those with the row's own cell, less that one.
    said = (policy * trust * means).sum(axis=1, keepdims=True) - policy * trust * means
    left = (policy * (1 - trust)).sum(axis=1, keepdims=True) - policy * (1 - trust)
    a, b = said + alpha * left + policy * c, epsilon * left + policy * d
    value = n * a - b * counts.reward
    value += policy * ((1 + d) * counts.inverse_reward - c * counts.inverse)
    mean = float(value.sum() / rows)
    squares = _squares(counts, policy, (a - mean, b, c, d))
    return mean, standard_error(squares, float(rows))


def _share(n: Array, shrinkage: float) -> Array:
    """n/(n + κ); 0 where n is not above 0."""
    if np.isinf(shrinkage):
        return np.zeros(n.shape)
    return np.where(n > 0, n / np.maximum(n + shrinkage, np.finfo(np.float64).tiny), 0.0)


def _squares(counts: Counts, policy: Array, numbers: tuple[Array, Array, Array, Array]) -> float:
    """Σ (a − b r + w ((1 + d) r − c))²."""
    a, b, c, d = numbers
    e = 1 + d
    plain = counts.n * a**2 - 2 * a * b * counts.reward + b**2 * counts.reward2
    assert counts.inverse is not None
    assert counts.inverse_reward is not None
    assert counts.inverse_reward2 is not None
    assert counts.inverse2 is not None
    assert counts.inverse2_reward is not None
    assert counts.inverse2_reward2 is not None
    mixed = a * e * counts.inverse_reward - a * c * counts.inverse
    mixed += b * c * counts.inverse_reward - b * e * counts.inverse_reward2
    weighted = e**2 * counts.inverse2_reward2 - 2 * e * c * counts.inverse2_reward
    weighted += c**2 * counts.inverse2
    return float((plain + 2 * policy * mixed + policy**2 * weighted).sum())
