"""Random problems and data: uneven references, lopsided rewards, contexts, unequal behaviors.

Hypothesis chooses sizes, scales and a seed; numpy fills the arrays. So examples are small to print
and quick to make, and no two numbers in them are alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

import bandit

seeds = st.integers(0, 2**32 - 1)


class Case(NamedTuple):
    """A problem with everything a method may ask for."""

    problem: bandit.Bandit
    mu: np.ndarray  # ([X,] K), all above 0
    nu: np.ndarray  # ([X,] K, K), dense, not symmetric
    preference: np.ndarray  # ([X,] K, K), of no reward
    logits: np.ndarray  # ([X,] K)
    rng: np.random.Generator


def simplex(rng: np.random.Generator, shape: tuple[int, ...], floor: float = 0.02) -> np.ndarray:
    """Probabilities over the last axis, unequal and at least about ``floor`` / K."""
    weights = rng.gamma(1.0, size=shape)
    weights = weights / weights.sum(axis=-1, keepdims=True)
    return (1 - floor) * weights + floor / shape[-1]


def preference_matrix(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """P ([X,] K, K) with P + Pᵀ = 1 that no reward explains."""
    upper = rng.uniform(0.05, 0.95, size=(*shape, shape[-1]))
    keep = np.triu(np.ones((shape[-1], shape[-1])), 1)
    return keep * upper + keep.T * (1 - np.swapaxes(upper, -1, -2)) + 0.5 * np.eye(shape[-1])


@st.composite
def cases(
    draw: st.DrawFn,
    max_arms: int = 6,
    max_contexts: int = 4,
    contexts: bool | None = None,
    spread: float = 6.0,
) -> Case:
    """A random :class:`Case`; ``contexts`` None: with or without a context axis.

    ``spread`` bounds r/β from one end to the other, so that no arm of π* goes out of sight.
    """
    arms = draw(st.integers(2, max_arms))
    x = draw(st.integers(1, max_contexts))
    with_contexts = draw(st.booleans()) if contexts is None else contexts
    beta = 10.0 ** draw(st.floats(-1.5, 1.5))
    rng = np.random.default_rng(draw(seeds))
    return make_case(rng, (x, arms) if with_contexts else (arms,), beta, spread)


def make_case(
    rng: np.random.Generator, shape: tuple[int, ...], beta: float = 0.7, spread: float = 6.0
) -> Case:
    """The case of one generator, for tests that need a particular size."""
    arms = shape[-1]
    problem = bandit.Bandit(
        reward=beta * rng.uniform(-0.3, 0.7, size=shape) * spread,
        beta=beta,
        reference=simplex(rng, shape, floor=0.2),
        context_weights=simplex(rng, shape[:1]) if len(shape) == 2 else None,
    )
    nu = simplex(rng, (*shape[:-1], arms * arms)).reshape(*shape, arms)
    return Case(
        problem=problem,
        mu=simplex(rng, shape),
        nu=nu,
        preference=preference_matrix(rng, shape),
        logits=rng.normal(scale=1.5, size=shape),
        rng=rng,
    )
