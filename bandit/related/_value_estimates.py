"""V* estimated from samples of the reference: all that can come out, with its probability. Letters
as in :mod:`bandit.related.family`."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from bandit import _checks, groups
from bandit._checks import Array
from bandit.problem import Bandit, check_problem


class Estimates(NamedTuple):
    """All values an estimate can take, with their probabilities."""

    value: Array  # ([X,] N), in units of reward
    probability: Array  # ([X,] N)


def value_estimates(problem: Bandit, samples: int) -> Estimates:
    r"""The exact distribution of V* estimated from samples of the reference.

    .. math:: \hat V = \beta \ln \frac1M \sum_{m=1}^M e^{r(y_m)/\beta}, \qquad
              y_m \sim \pi_\text{ref}

    Parameters
    ----------
    problem : Bandit
    samples : int
        M, per context.

    Returns
    -------
    Estimates
        ``value`` ([X,] N) for each of the N sets of M arms, in units of reward, and its
        ``probability`` ([X,] N).

    Raises
    ------
    ValueError
        If there are more than about four million sets.

    Notes
    -----
    exp(V̂/β) is unbiased, and so V̂ is too low on average: E[V̂] ≤ V* = β ln Z.

    References
    ----------
    Brantley et al. 2025, arXiv:2505.20686 (version 1), the first stage.
    """
    check_problem(problem)
    samples, arms = _checks.positive_integer("samples", samples), problem.n_arms
    how_many = math.comb(arms + samples - 1, samples) if arms > 1 else 1
    if how_many > groups.MOST_GROUPS:
        raise ValueError(
            f"samples: expected at most {groups.MOST_GROUPS} different sets of arms to list, got "
            f"{_checks.shown(how_many)} sets of {samples} out of {arms} arms"
        )
    counts = _counts(arms, samples)
    tilted = np.atleast_2d(problem.reward) / problem.beta
    value = [problem.beta * (logsumexp(x, axis=-1, b=counts) - np.log(samples)) for x in tilted]
    probability = [_multinomial(counts, ref) for ref in np.atleast_2d(problem.reference)]
    found = Estimates(np.array(value), np.array(probability))
    return found if problem.n_contexts is not None else Estimates(*(x[0] for x in found))


def _counts(arms: int, samples: int) -> np.ndarray:
    """Every way to draw ``samples`` arms (N, K), by how often each is drawn: the first first."""
    columns: list[np.ndarray] = []
    left = np.array([samples])  # to be drawn from the arms to come
    for _ in range(arms - 1):
        ways = left + 1
        parent = np.repeat(np.arange(len(left)), ways)
        first = np.cumsum(ways) - ways
        rest = np.arange(len(parent)) - first[parent]
        columns = [column[parent] for column in columns] + [left[parent] - rest]
        left = rest
    return np.stack([*columns, left], axis=-1)


def _multinomial(counts: np.ndarray, share: Array) -> Array:
    """Probabilities (N,) of counts (N, K): each arm's given those before it, which is binomial."""
    from scipy.stats import binom  # slow to import, and seldom needed

    left, tail = counts.sum(axis=-1), np.cumsum(share[::-1])[::-1]
    probability = np.ones(len(counts))
    for count, own, whole in zip(counts.T[:-1], share, tail, strict=False):
        probability *= binom.pmf(count, left, own / whole)
        left = left - count
    return probability
