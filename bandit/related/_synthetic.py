"""Comparisons that nobody made: sets of outputs clustered, the largest cluster preferred; and an
example that needs them.

Letters: ``X`` contexts (optional), ``K`` arms, ``d`` features, ``e`` coordinates of an embedding.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from bandit import _checks, preferences
from bandit._checks import Array
from bandit.problem import Bandit


class Synthetic(NamedTuple):
    """Comparisons made up from clusters: ``wins`` ([X,] K, K), of total 1 for each set that was
    ``kept`` of those ``asked``."""

    wins: Array
    asked: int
    kept: int


def synthetic_wins(
    policy: ArrayLike,
    embedding: ArrayLike,
    *,
    samples: int,
    sets: int,
    distance: float,
    confidence: float,
    rng: int | np.random.SeedSequence | np.random.Generator,
) -> Synthetic:
    """Draw sets of outputs, cluster each, and prefer the largest cluster to the rest.

    Parameters
    ----------
    policy : array_like ([X,] K)
    embedding : array_like (K, e) or (X, K, e)
        Where each arm lies; near arms say the same.
    samples : int
        Outputs in a set, drawn independently.
    sets : int
        Sets drawn in each context.
    distance : float
        Greatest distance between two outputs of one cluster (complete linkage).
    confidence : float
        Least share of the set that the largest cluster must have, in (0, 1]. A set whose largest
        cluster is smaller, or tied, or all there is, says nothing.
    rng : int, SeedSequence or Generator

    Returns
    -------
    Synthetic
        Of each kept set, every output of the largest cluster beats every other output, with equal
        parts of one comparison.
    """
    policy = _checks.distribution("policy", policy)
    if policy.ndim not in (1, 2):
        raise ValueError(f"policy: expected shape (K,) or (X, K), got {policy.shape}")
    rows = np.atleast_2d(policy)
    places = _check_embedding(embedding, policy.shape)
    for name, number in (("samples", samples), ("sets", sets)):
        _checks.positive_integer(name, number)
    distance = _checks.positive_number("distance", distance)
    if _checks.positive_number("confidence", confidence) > 1:
        raise ValueError(f"confidence: expected a share of at most 1, got {confidence:g}")
    wins, kept = np.zeros((*rows.shape, rows.shape[-1])), 0
    for x, stream in enumerate(_checks.generator_of(rng).spawn(len(rows))):
        clusters = functools.cache(functools.partial(_clusters, places[x], distance))
        for counts in stream.multinomial(samples, rows[x] / rows[x].sum(), size=sets):
            seen = np.flatnonzero(counts)
            label = clusters(tuple(seen.tolist()))
            size = np.bincount(label, weights=counts[seen])
            largest = int(size.argmax())
            # As a quotient: 0.28 · 25 is rounded to more than 7.
            if size[largest] / samples < confidence or size[largest] == samples:
                continue
            if (size == size[largest]).sum() > 1:
                continue
            won = np.where(label == largest, counts[seen], 0) / size[largest]
            lost = np.where(label == largest, 0, counts[seen]) / (samples - size[largest])
            wins[x][np.ix_(seen, seen)] += np.outer(won, lost)
            kept += 1
    return Synthetic(wins.reshape(*policy.shape, -1), sets * len(rows), kept)


def _check_embedding(embedding: ArrayLike, shape: tuple[int, ...]) -> Array:
    """(X, K, e), shared by all contexts where it has no context axis."""
    places = _checks.finite_array("embedding", embedding)
    if places.ndim < 2 or places.shape[:-1] not in (shape, shape[-1:]) or places.size == 0:
        raise ValueError(f"embedding: expected shape {(*shape, 'e')}, got {places.shape}")
    with np.errstate(over="ignore"):
        reach = np.square(np.ptp(places, axis=-2)).sum(axis=-1)
    if not np.isfinite(reach).all():
        raise ValueError("embedding: expected distances whose squares fit into float64")
    contexts = shape[0] if len(shape) == 2 else 1
    return np.broadcast_to(places, (contexts, *places.shape[-2:]))


def _clusters(places: Array, distance: float, members: tuple[int, ...]) -> np.ndarray:
    """A label from 0 for each of ``members``."""
    if len(members) == 1:
        return np.zeros(1, dtype=int)
    # Given points that look like a table of distances, linkage would warn.
    tree = linkage(pdist(places[list(members)]), method="complete")
    return fcluster(tree, distance, criterion="distance") - 1


# ----------------------------------------------------------------------------------- an example


class Example(NamedTuple):
    """A problem with what is needed to learn its reward; arrays as :func:`relearn_on_policy` takes
    them."""

    problem: Bandit
    features: Array
    wins: Array
    embedding: Array


def example(
    *,
    beta: float,
    right: float,
    length: float,
    contexts: int = 12,
    rng: int | np.random.SeedSequence | np.random.Generator,
) -> Example:
    """Questions with right, wrong and absurd answers, judged by a model that likes length.

    Five right answers (true reward about 1) lie close together, four wrong ones (about 0) likewise,
    and three absurd ones (about −1) each alone. The model sees a noisy hint of the reward and the
    length. Right answers are a little longer than wrong ones, and absurd ones were never compared.

    Parameters
    ----------
    beta : float
    right : float
        What the reference gives to the right answers together, in (0, 0.97); the absurd ones get
        0.03 and the wrong ones the rest.
    length : float
        Of the absurd answers; right ones have 0.6 and wrong ones 0.4.
    contexts : int
    rng : int, SeedSequence or Generator
    """
    if not 0 < _checks.positive_number("right", right) < 0.97:
        raise ValueError(f"right: expected a share between 0 and 0.97, got {right:g}")
    length = _checks.positive_number("length", length)
    rng, kind = _checks.generator_of(rng), np.repeat([0, 1, 2], [5, 4, 3])
    shape = (_checks.positive_integer("contexts", contexts), len(kind))
    reward = np.array([1.0, 0.0, -1.0])[kind] + 0.1 * rng.normal(size=shape)
    hint = np.array([1.0, 0.0, 0.3])[kind] + 0.7 * rng.normal(size=shape)
    lengths = np.array([0.6, 0.4, length])[kind] + 0.15 * rng.normal(size=shape)
    # The right around one place, the wrong around another, the absurd far from all and each other.
    centers = np.array([[0.0, 0.0]] * 5 + [[6.0, 0.0]] * 4 + [[3.0, 9.0], [-6.0, 9.0], [12.0, 9.0]])
    embedding = centers + rng.uniform(-0.5, 0.5, size=(*shape, 2))
    reference = rng.gamma(4.0, size=shape)
    for group, mass in enumerate((right, 0.97 - right, 0.03)):
        own = np.where(kind == group, reference, 0.0)
        reference = np.where(kind == group, mass * own / own.sum(axis=-1, keepdims=True), reference)
    known = np.where(kind < 2, reference, 0.0)
    compared = known[..., :, None] * known[..., None, :]
    return Example(
        Bandit(reward, beta, reference),
        np.stack([hint, lengths], axis=-1),
        compared * preferences.bradley_terry(reward, scale=2.0),
        embedding,
    )
