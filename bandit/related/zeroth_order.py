r"""Zeroth-order policy gradient from preferences: no reward model, no gradient of any reward.

The parameters θ (here the logits) are moved by :math:`\mu v` for a random direction v. Judges
compare what the moved policy says with what the unmoved one says; how often the former wins, put
through the inverse of the Bradley–Terry link, estimates the difference of the two values, hence the
slope along v:

.. math::
    \hat g = \frac{d}{\mu} \, \frac1V \sum_v \Bigl[\frac1N \sum_n
      \sigma^{-1}\bigl(\mathrm{clip}(w_n/M,\, \Delta,\, 1-\Delta)\bigr)
      - \beta\bigl(\ell_{\theta+\mu v}(y_n) - \ell_\theta(y'_n)\bigr)\Bigr] v ,

with :math:`y_n \sim \pi_{\theta+\mu v}`, :math:`y'_n \sim \pi_\theta` and :math:`w_n` of M judges
preferring :math:`y_n`. Letters: ``X`` contexts (optional), ``K`` arms, ``d`` = X·K (or K) logits,
``V`` directions, ``N`` pairs a direction, ``M`` judges a pair.

The judges see rewards alone, as people would. The KL term needs no judge: the learner knows its own
log-ratios, and the second term is exactly unbiased for −β times the difference of the divergences.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bandit import _checks, batches, descent, preferences
from bandit._checks import Array
from bandit.batches import Streams
from bandit.descent import Progress
from bandit.history import History
from bandit.optimizers import Optimizer
from bandit.problem import Bandit, log_softmax
from bandit.related._zeroth_order_mean import (
    Question,
    limit_policy,
    link_inverse_mean,
    logits_of,
    mean_gradient,
    question_of,
    read_as,
    variance,
)

__all__ = [
    "limit_policy",
    "link_inverse_mean",
    "mean_gradient",
    "optimize",
    "variance",
    "zeroth_order_gradient",
]

# -------------------------------------------------------------------------------- the estimator


def zeroth_order_gradient(
    problem: Bandit,
    logits: ArrayLike,
    rng: int | np.random.SeedSequence | np.random.Generator,
    directions: int,
    pairs: int,
    judges: int | None,
    smoothing: float,
    trim: float,
    block: bool | int = False,
) -> Array:
    """One sampled estimate of ∇J, from ``directions · pairs · judges`` judgments.

    Parameters
    ----------
    problem : Bandit
        Its rewards are used by the Bradley–Terry judges only: P(y ≻ y') = σ(r(y) − r(y')).
    logits : array_like ([X,] K)
    rng : int, SeedSequence or Generator
        A generator moves on.
    directions : int
        V, directions v.
    pairs : int
        N, pairs (y of the moved policy, y' of the unmoved one) for each direction, with a context
        of their own each.
    judges : int or None
        M, judges asked about each pair. None: so many that their frequency is P itself.
    smoothing : float
        μ, how far the logits are moved, in nats.
    trim : float
        Δ in (0, ½): frequencies are kept in [Δ, 1 − Δ], and estimated differences within
        ±ln((1 − Δ)/Δ).
    block : bool or int
        False: v uniform on the unit sphere. A number k (True: 1): ±1/√k on k logits drawn afresh.

    Returns
    -------
    ndarray ([X,] K)
        To go *up* along, in units of reward; its expectation is :func:`mean_gradient`, its noise
        :func:`variance`.

    Raises
    ------
    ValueError, TypeError
        One line with the argument's name, what was expected and what came.

    References
    ----------
    Zhang and Ying 2024, arXiv:2409.17401 (there without a KL penalty, and for whole trajectories).
    """
    question = question_of(problem, judges, smoothing, trim, block)
    directions = _checks.positive_integer("directions", directions)
    pairs = _checks.positive_integer("pairs", pairs)
    preference = preferences.bradley_terry(problem.reward)
    generator = _checks.generator_of(rng)
    here = logits_of(problem, logits)
    return _estimate(problem, preference, here, generator, directions, pairs, question)


def _estimate(
    problem: Bandit,
    preference: Array,
    logits: Array,
    rng: np.random.Generator,
    directions: int,
    pairs: int,
    ask: Question,
) -> Array:
    size, arms = logits.size, problem.n_arms
    contexts = problem.n_contexts or 1
    v = _draw_directions(rng, directions, size, ask.block)
    here = log_softmax(logits).reshape(contexts, arms)
    moved = log_softmax(logits + ask.smoothing * v.reshape(-1, *problem.shape))
    moved = moved.reshape(directions, contexts, arms)
    # One uniform number each for the context, the arm of the moved and the arm of the other policy.
    uniform = rng.random((3, directions, pairs))
    x = np.zeros((directions, pairs), dtype=np.intp)
    if problem.context_weights is not None:
        x = batches.climb(batches.ladder(problem.context_weights[None]), 1, 0, uniform[0])
    row = np.arange(directions)[:, None] * contexts + x
    rungs = batches.ladder(np.exp(moved).reshape(-1, arms))
    first = batches.climb(rungs, directions * contexts, row, uniform[1])
    second = batches.climb(batches.ladder(np.exp(here)), contexts, x, uniform[2])
    frequency = preference.reshape(contexts, arms, arms)[x, first, second]
    if ask.judges is not None:
        frequency = rng.binomial(ask.judges, frequency) / ask.judges
    difference = read_as(frequency, ask.trim)
    ratios = moved - problem.log_reference.reshape(contexts, arms)
    ratio_here = (here - problem.log_reference.reshape(contexts, arms))[x, second]
    ratio_moved = ratios.reshape(-1, arms)[row, first]
    slope = (difference - problem.beta * (ratio_moved - ratio_here)).mean(axis=1)
    return (size / (ask.smoothing * directions) * (slope @ v)).reshape(problem.shape)


def _draw_directions(rng: np.random.Generator, count: int, size: int, block: int) -> Array:
    """Unit vectors (count, size) with E[v vᵀ] = 1/size, of either kind."""
    if not block:
        normal = rng.standard_normal((count, size))
        return normal / np.linalg.norm(normal, axis=1, keepdims=True)
    signs = rng.choice([-1.0, 1.0], size=(count, block)) / math.sqrt(block)
    v = np.zeros((count, size))
    chosen = rng.permuted(np.tile(np.arange(size), (count, 1)), axis=1)[:, :block]
    np.put_along_axis(v, chosen, signs, axis=1)
    return v


# ------------------------------------------------------------------------------------- training


def optimize(
    problem: Bandit,
    *,
    directions: int,
    pairs: int,
    judges: int | None,
    smoothing: float,
    trim: float,
    block: bool | int = False,
    steps: int,
    optimizer: Optimizer,
    runs: int = 1,
    rng: int | np.random.SeedSequence | np.random.Generator,
    record_every: int | None = None,
    start: ArrayLike | None = None,
    progress: bool | Progress | None = None,
) -> History:
    """Ascend J along :func:`zeroth_order_gradient`.

    Parameters
    ----------
    problem : Bandit
    directions, pairs, judges, smoothing, trim, block
        As in :func:`zeroth_order_gradient`.
    steps : int
        Number of updates.
    optimizer : Optimizer
    runs : int
        Independent trainings, each with random streams of its own.
    rng : int, SeedSequence or Generator
    record_every : int, optional
        Steps between records. Default: as many as give about 200 records.
    start : array_like ([X,] K) or (runs, [X,] K), optional
        Logits to start from, default the reference.
    progress : bool or callable, optional
        As in :func:`bandit.train`.

    Returns
    -------
    History
        Its settings have ``judgments_per_step``: directions · pairs · judges, or None where the
        judges are infinitely many. Stopped from the keyboard, the part done until then (with a
        warning).

    Raises
    ------
    ValueError, TypeError
        One line with the argument's name, what was expected and what came.

    Warns
    -----
    RuntimeWarning
        If runs diverged, or on an interrupt.
    """
    ask = question_of(problem, judges, smoothing, trim, block)
    for name, number in (("directions", directions), ("pairs", pairs), ("runs", runs)):
        _checks.positive_integer(name, number)
    every = descent.record_interval(record_every, steps)
    descent.check_helpers(optimizer, progress)
    settings = {
        **ask._asdict(),
        "directions": int(directions),
        "pairs": int(pairs),
        "judgments_per_step": None if ask.judges is None else directions * pairs * ask.judges,
        **descent.settings_of(steps, optimizer, runs, rng, every),
    }
    course = descent.follow(
        _Perturber(problem, directions, pairs, ask),
        descent.start_of(start, problem.log_reference, runs),
        optimizer,
        steps=steps,
        record_every=every,
        rng=rng,
        progress=progress,
    )
    descent.warn_of_trouble("optimize", course, steps)
    return descent.history_of(problem, course, "zeroth_order", settings)


class _Perturber:
    """The learner that asks judges about moved policies."""

    block = 1

    def __init__(self, problem: Bandit, directions: int, pairs: int, ask: Question) -> None:
        self.problem, self.directions, self.pairs, self.ask = problem, directions, pairs, ask
        self.preference = preferences.bradley_terry(problem.reward)
        self.numbers = directions * (problem.reward.size + 4 * pairs)

    def draw(self, streams: tuple[Streams, Streams], steps: int) -> Iterator[Any]:
        """Every run's generator: what is asked depends on where the run has come to."""
        for _ in range(steps):
            yield streams[0]

    def gradient(self, theta: Array, batch: Any) -> Array:
        """The estimates (P, R), turned downhill."""
        down = np.full(theta.shape, np.nan)
        for run, rng in enumerate(batch):
            logits = theta[:, run].reshape(self.problem.shape)
            if np.isfinite(logits).all():
                up = _estimate(
                    self.problem,
                    self.preference,
                    logits,
                    rng,
                    self.directions,
                    self.pairs,
                    self.ask,
                )
                down[:, run] = -up.ravel()
        return down
