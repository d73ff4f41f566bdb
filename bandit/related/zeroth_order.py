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

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize as solvers
from scipy.special import logit, roots_jacobi
from scipy.stats import binom

from bandit import _checks, batches, descent, preferences
from bandit._checks import Array
from bandit.batches import Streams
from bandit.descent import Progress
from bandit.history import History, seed_of
from bandit.optimizers import Optimizer
from bandit.problem import Bandit, log_softmax

__all__ = [
    "limit_policy",
    "link_inverse_mean",
    "mean_gradient",
    "optimize",
    "zeroth_order_gradient",
]

# Directions that a quadrature or an enumeration may take.
MOST_DIRECTIONS = 1 << 20


class _Question(NamedTuple):
    """What is asked of the judges, all of it checked."""

    judges: int | None
    smoothing: float
    trim: float
    block: int


def _question(problem: Any, judges: Any, smoothing: Any, trim: Any, block: Any) -> _Question:
    if not isinstance(problem, Bandit):
        raise TypeError(f"problem: expected a bandit.Bandit, got {type(problem).__name__}")
    judges, trim = _judging(judges, trim)
    smoothing = _checks.positive_number("smoothing", smoothing)
    size = problem.reward.size
    if not isinstance(block, (bool, int, np.integer)):
        raise TypeError(f"block: expected a number of logits or False, got {block!r}")
    if not 0 <= block <= size:
        raise ValueError(f"block: expected a number of logits from 0 to {size}, got {block}")
    return _Question(judges, smoothing, trim, int(block))


def _judging(judges: Any, trim: Any) -> tuple[int | None, float]:
    if judges is not None:
        judges = _checks.positive_integer("judges", judges)
    trim = _checks.positive_number("trim", trim)
    if trim >= 0.5:
        raise ValueError(f"trim: expected a number below 1/2, got {trim:g}")
    return judges, trim


def _logits(problem: Bandit, logits: ArrayLike) -> Array:
    logits = _checks.finite_array("logits", logits)
    if logits.shape != problem.shape:
        raise ValueError(f"logits: expected shape {problem.shape}, got {logits.shape}")
    return logits


# -------------------------------------------------------------------------------- the estimator


def zeroth_order_gradient(
    problem: Bandit,
    logits: ArrayLike,
    rng: int | np.random.SeedSequence | np.random.Generator,
    *,
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
        To go *up* along, in units of reward; its expectation is :func:`mean_gradient`.

    Raises
    ------
    ValueError, TypeError
        One line with the argument's name, what was expected and what came.

    References
    ----------
    Zhang and Ying 2024, arXiv:2409.17401 (there without a KL penalty, and for whole trajectories).
    """
    question = _question(problem, judges, smoothing, trim, block)
    directions = _checks.positive_integer("directions", directions)
    pairs = _checks.positive_integer("pairs", pairs)
    preference = preferences.bradley_terry(problem.reward)
    generator = descent.generator_of(rng)
    here = _logits(problem, logits)
    return _estimate(problem, preference, here, generator, directions, pairs, question)


def _estimate(
    problem: Bandit,
    preference: Array,
    logits: Array,
    rng: np.random.Generator,
    directions: int,
    pairs: int,
    ask: _Question,
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
    difference = logit(np.clip(frequency, ask.trim, 1 - ask.trim))
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


# ------------------------------------------------------------------------ its exact expectation


def link_inverse_mean(preference: ArrayLike, *, judges: int | None, trim: float) -> Array:
    r"""What M judges' trimmed frequency says of a difference of rewards, on average.

    .. math:: h_M(p) = \sum_{k=0}^M \binom{M}{k} p^k (1-p)^{M-k}
                \,\sigma^{-1}\bigl(\mathrm{clip}(k/M, \Delta, 1-\Delta)\bigr)

    Parameters
    ----------
    preference : array_like
        p in [0, 1], of any shape.
    judges : int or None
        M; None: the limit, σ⁻¹(clip(p, Δ, 1 − Δ)).
    trim : float
        Δ in (0, ½).

    Returns
    -------
    ndarray
        In units of reward, shaped like ``preference``, and odd in p − ½. It exceeds σ⁻¹(p) by
        (2p − 1)/(2Mp(1 − p)) to first order in 1/M where nothing is trimmed, and falls short of it
        where the trim binds: one judge gives (2p − 1) ln((1 − Δ)/Δ).
    """
    judges, trim = _judging(judges, trim)
    p = _checks.finite_array("preference", preference)
    if p.size and (p.min() < 0 or p.max() > 1):
        raise ValueError(
            f"preference: expected probabilities in [0, 1], got {p.min():g} to {p.max():g}"
        )
    if judges is None:
        return np.asarray(logit(np.clip(p, trim, 1 - trim)))
    k = np.arange(judges + 1)
    read_as = logit(np.clip(k / judges, trim, 1 - trim))
    # From both sides, so that the mean is odd to the last digit.
    odd = binom.pmf(k, judges, p[..., None]) - binom.pmf(k, judges, 1 - p[..., None])
    return 0.5 * odd @ read_as


def mean_gradient(
    problem: Bandit,
    logits: ArrayLike,
    *,
    judges: int | None,
    smoothing: float,
    trim: float,
    block: bool | int = False,
    nodes: int = 12,
) -> Array:
    r"""The expectation of :func:`zeroth_order_gradient`, exactly: nothing is sampled.

    Judges' outcomes and arms are summed over. Directions of a block are enumerated; over the sphere
    a product of Gauss–Jacobi rules integrates, exact for polynomials up to degree
    ``2·nodes − 1``, so that the error falls geometrically with ``nodes``.

    Parameters
    ----------
    problem : Bandit
    logits : array_like ([X,] K)
    judges : int or None
    smoothing : float
        0 gives the limit: the gradient at π of :math:`\pi \mapsto \mathbb{E}[h_M(P(y, y'))] -
        \beta\,\mathrm{KL}(\pi\|\pi_\text{ref})` with y' from the policy as it is.
    trim : float
    block : bool or int
        As in :func:`zeroth_order_gradient`.
    nodes : int
        Of the rule of each angle of the sphere.

    Returns
    -------
    ndarray ([X,] K)
        ∇J as smoothing → 0 and M → ∞, if Δ is below every P(y ≻ y').

    Raises
    ------
    ValueError
        If there are more than about a million directions to sum over.
    """
    limit = not isinstance(smoothing, bool) and np.isscalar(smoothing) and smoothing == 0
    ask = _question(problem, judges, 1.0 if limit else smoothing, trim, block)
    here = _logits(problem, logits)
    margin = _margins(problem, ask)
    if limit:
        return _slope_at_zero(problem, margin, here)
    total = np.zeros(here.size)
    for v, weight in _all_directions(
        here.size, ask.block, _checks.positive_integer("nodes", nodes)
    ):
        moved = log_softmax(here + ask.smoothing * v.reshape(-1, *problem.shape))
        total += (weight * _mean_difference(problem, margin, moved, log_softmax(here))) @ v
    return (here.size / ask.smoothing * total).reshape(problem.shape)


def _margins(problem: Bandit, ask: _Question) -> Array:
    """H ([X,] K, K): the mean of what the judges' answers on (y, y') are read as."""
    preference = preferences.bradley_terry(problem.reward)
    return link_inverse_mean(preference, judges=ask.judges, trim=ask.trim)


def _mean_difference(problem: Bandit, margin: Array, moved: Array, here: Array) -> Array:
    """Mean of the estimated difference of values along each direction, (V,)."""
    gain = np.einsum("...y,...yz,...z->...", np.exp(moved), margin, np.exp(here))
    penalty = problem.kl(_normalized(moved)) - problem.kl(_normalized(here))
    return problem.average(gain) - problem.beta * penalty


def _normalized(log_policy: Array) -> Array:
    policy = np.exp(log_policy)
    return policy / policy.sum(axis=-1, keepdims=True)


def _slope_at_zero(problem: Bandit, margin: Array, logits: Array) -> Array:
    """Limit of the mean as smoothing → 0: the policy gradient of the pseudo-reward H π."""
    log_policy = log_softmax(logits)
    policy = np.exp(log_policy)
    score = np.einsum("...yz,...z->...y", margin, policy)
    score -= problem.beta * (log_policy - problem.log_reference)
    gradient = policy * (score - (policy * score).sum(axis=-1, keepdims=True))
    rho = problem.context_weights
    return gradient if rho is None else rho[:, None] * gradient


def _all_directions(size: int, block: int, nodes: int) -> Iterator[tuple[Array, Array]]:
    """All directions (V, size) with their probabilities (V,), in parts."""
    count = math.comb(size, block) * 2**block if block else 2 * nodes ** (size - 1)
    if count > MOST_DIRECTIONS:
        raise ValueError(
            f"logits: expected few enough for {MOST_DIRECTIONS} directions, got {size} logits, "
            f"which take {count}; choose a small block" + ("" if block else " or fewer nodes")
        )
    if not block:
        yield _sphere_rule(size, nodes)
        return
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=block))) / math.sqrt(block)
    for chosen in itertools.combinations(range(size), block):
        v = np.zeros((len(signs), size))
        v[:, list(chosen)] = signs
        yield v, np.full(len(signs), 1 / count)


def _sphere_rule(size: int, nodes: int) -> tuple[Array, Array]:
    """Points and weights for the mean over the unit sphere of ``size`` dimensions.

    v = (t, √(1 − t²) u) with u on the sphere of one dimension less and t of density
    ∝ (1 − t²)^((size − 3)/2): Gauss–Jacobi in t, dimension by dimension.
    """
    points, weights = np.array([[-1.0], [1.0]]), np.array([0.5, 0.5])
    for dimension in range(2, size + 1):
        t, w = roots_jacobi(nodes, (dimension - 3) / 2, (dimension - 3) / 2)
        rest = np.sqrt(1 - t**2)[:, None, None] * points
        first = np.broadcast_to(t[:, None, None], (nodes, len(points), 1))
        points = np.concatenate([first, rest], axis=-1).reshape(-1, dimension)
        weights = np.outer(w / w.sum(), weights).ravel()
    return points, weights


def limit_policy(problem: Bandit, *, judges: int | None, trim: float) -> Array:
    r"""Where ascent along the mean gradient comes to rest as smoothing → 0.

    There :math:`\pi \propto \pi_\text{ref} \exp(H\pi/\beta)` with
    :math:`H(y, y') = h_M(P(y \succ y'))` of :func:`link_inverse_mean`: the regularized equilibrium
    of a game between the policy and itself. As H is antisymmetric there is exactly one. With one
    judge H = (2P − 1) ln((1 − Δ)/Δ), and the judges' preferences are played for rather than the
    rewards behind them; without trimming and with M → ∞ it is π*.

    Parameters
    ----------
    problem : Bandit
    judges : int or None
    trim : float

    Returns
    -------
    ndarray ([X,] K)
        A policy at which :func:`mean_gradient` with ``smoothing=0`` is below 1e-12 β.

    Raises
    ------
    RuntimeError
        If it is not found to that accuracy.
    """
    margin = _margins(problem, _question(problem, judges, 1.0, trim, False))
    arms = problem.n_arms
    stacked = zip(
        np.broadcast_to(margin, (*problem.shape, arms)).reshape(-1, arms, arms),
        problem.log_reference.reshape(-1, arms),
        strict=True,
    )
    log_policy = [_equilibrium(one, ref, problem.beta) for one, ref in stacked]
    return np.exp(np.reshape(log_policy, problem.shape))


def _equilibrium(margin: Array, log_reference: Array, beta: float) -> Array:
    """ln π with π ∝ π_ref exp(H π/β), by Newton from the reference, H turned up bit by bit."""

    def residual(logits: Array, share: float) -> Array:
        policy = np.exp(log_softmax(logits))
        return logits - log_softmax(log_reference + share * (margin @ policy) / beta)

    logits = log_reference
    for share in np.linspace(0, 1, 1 + math.ceil(1 + np.abs(margin).max() / beta))[1:]:
        logits = solvers.root(residual, logits, args=(share,), method="hybr", tol=1e-14).x
    error = np.abs(residual(logits, 1.0)).max()
    if not error < 1e-10:
        raise RuntimeError(f"limit_policy: no equilibrium found, the residual is {error:.3g} nats")
    return log_softmax(logits)


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
    ask = _question(problem, judges, smoothing, trim, block)
    for name, number in (("directions", directions), ("pairs", pairs), ("runs", runs)):
        _checks.positive_integer(name, number)
    every = descent.record_interval(record_every, steps)
    descent.check_helpers(optimizer, progress)
    settings = {
        **ask._asdict(),
        "directions": int(directions),
        "pairs": int(pairs),
        "judgments_per_step": None if ask.judges is None else directions * pairs * ask.judges,
        "steps": int(steps),
        "optimizer": repr(optimizer),
        "runs": int(runs),
        "seed": seed_of(rng) if not isinstance(rng, bool) else None,
        "record_every": every,
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
    return History(
        problem=problem,
        method="zeroth_order",
        settings=settings,
        steps=course.steps,
        logits=course.theta.reshape(*course.theta.shape[:2], *problem.shape),
        interrupted=course.interrupted,
    )


class _Perturber:
    """The learner that asks judges about moved policies."""

    block = 1

    def __init__(self, problem: Bandit, directions: int, pairs: int, ask: _Question) -> None:
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
