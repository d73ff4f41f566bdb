"""Preference matrices P with P[y, y'] = P(y ≻ y'), the probability that y is preferred to y'.

Shapes: ``(..., K, K)`` with ``K`` arms; P + Pᵀ = 1, so the diagonal is ½.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from bandit import _checks
from bandit._checks import Array

COMPLEMENT_TOLERANCE = 1e-8


def bradley_terry(reward: ArrayLike, scale: float = 1.0) -> Array:
    """P(y ≻ y') = σ(scale · (r(y) − r(y'))), from rewards (..., K).

    ``scale`` is per unit of reward: higher means less noisy preferences.
    """
    reward = _checks.finite_array("reward", reward)
    if reward.ndim == 0:
        raise ValueError("reward: expected shape (..., K), got a single number")
    scale = _checks.positive_number("scale", scale)
    with np.errstate(over="ignore"):  # σ(±∞) is as certain as it should be
        return expit(scale * (reward[..., :, None] - reward[..., None, :]))


def deterministic(reward: ArrayLike) -> Array:
    """P(y ≻ y') = 1 where r(y) > r(y'), 0 where it is lower, ½ on ties; from rewards (..., K)."""
    reward = _checks.finite_array("reward", reward)
    if reward.ndim == 0:
        raise ValueError("reward: expected shape (..., K), got a single number")
    with np.errstate(over="ignore"):
        return 0.5 + 0.5 * np.sign(reward[..., :, None] - reward[..., None, :])


def from_counts(wins: ArrayLike) -> Array:
    """P from win counts (..., K, K), ``wins[y, y']`` = how often y beat y'.

    A tie is half a win for each side. Pairs never compared get ½: combine them with
    :func:`bandit.pairs.from_counts`, which gives such pairs no weight.
    """
    wins = _checks.finite_array("wins", wins)
    if wins.ndim < 2 or wins.shape[-1] != wins.shape[-2]:
        raise ValueError(f"wins: expected shape (..., K, K), got {wins.shape}")
    if (wins < 0).any():
        raise ValueError(f"wins: expected counts of at least 0, got {wins.min():g}")
    total = wins + np.swapaxes(wins, -1, -2)
    compared = total > 0
    return np.where(compared, wins / np.where(compared, total, 1.0), 0.5)


def check(preference: ArrayLike, shape: tuple[int, ...]) -> Array:
    """``preference`` as probabilities for arms of ``shape`` ([X,] K), or a one-line error."""
    matrix = _checks.finite_array("preference", preference)
    arms = shape[-1]
    if matrix.shape not in ((arms, arms), (*shape, arms)):
        raise ValueError(
            f"preference: expected shape {(arms, arms)}"
            + (f" or {(*shape, arms)}" if len(shape) > 1 else "")
            + f", got {matrix.shape}"
        )
    if matrix.min() < 0 or matrix.max() > 1:
        found = matrix.min() if matrix.min() < 0 else matrix.max()
        raise ValueError(f"preference: expected probabilities in [0, 1], got {found:g}")
    error = np.abs(matrix + np.swapaxes(matrix, -1, -2) - 1).max()
    if error > COMPLEMENT_TOLERANCE:
        raise ValueError(f"preference: expected P + Pᵀ = 1, got a difference of {error:.3g}")
    return matrix
