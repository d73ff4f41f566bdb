"""The behavior of least variance, b* ∝ q = π |A| ‖e_y − π‖, and what is shared by all who need it.
Letters as in :mod:`bandit.related.active_sampling`."""

from __future__ import annotations

from typing import Any

import numpy as np

from bandit._checks import Array


def estimated(counts: Array, drawn_from: Array, policy: Array, advantage: Array) -> Array:
    """b̂ ∝ counts q / drawn_from, or the policy where nothing that matters was drawn; (..., K)."""
    drawn = counts > 0
    rarest = np.min(drawn_from, axis=-1, keepdims=True, where=drawn, initial=1.0)
    with np.errstate(over="ignore"):
        chance = np.ldexp(drawn_from, -np.frexp(rarest)[1])
    seen = np.where(drawn, unit(counts)[0] / np.where(drawn, chance, 1.0), 0.0)
    return shares(seen * mass(policy, unit(np.where(drawn, advantage, 0.0))[0]), policy)


def unit(numbers: Array) -> tuple[Array, Any]:
    """``numbers`` (..., K) less a power of two that leaves at most 1; and its exponent (..., 1).

    No digit is lost by it, and nothing overflows after it.
    """
    exponent = np.frexp(np.abs(numbers).max(axis=-1, keepdims=True))[1]
    return np.ldexp(numbers, -exponent), exponent


def shares(mass: Array, otherwise: Array) -> Array:
    """``mass`` (..., K) over its sum, or ``otherwise`` where that is 0."""
    total = mass.sum(axis=-1, keepdims=True)
    return np.where(total > 0, mass / np.where(total > 0, total, 1.0), otherwise)


def mass(policy: Array, advantage: Array) -> Array:
    """q = π |A| ‖e_y − π‖, where ‖e_y − π‖² = (Σ_{k≠y} π(k))² + Σ_{k≠y} π(k)²."""
    length = np.sqrt(others(policy) ** 2 + others(policy**2))
    return policy * np.abs(advantage) * length


def others(numbers: Array) -> Array:
    """Σ_{k≠y} of ``numbers`` (..., K), added up: a sum less one term would cancel."""
    before, after = np.zeros(numbers.shape), np.zeros(numbers.shape)
    np.cumsum(numbers[..., :-1], axis=-1, out=before[..., 1:])
    np.cumsum(numbers[..., :0:-1], axis=-1, out=after[..., -2::-1])
    return before + after
