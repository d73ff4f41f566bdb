"""The exact side of :mod:`bandit.related.zeroth_order`: what its estimator is on average, and where
ascent along that ends. Letters as there; nothing is sampled."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logit, roots_jacobi
from scipy.stats import binom

from bandit import _checks, preferences
from bandit._checks import Array, shown
from bandit.problem import Bandit, check_problem, log_softmax
from bandit.related._equilibrium import against, follow, least_residual

# Directions that a quadrature or an enumeration may take.
MOST_DIRECTIONS = 1 << 20
# Numbers of votes to sum over, for all preferences together.
MOST_OUTCOMES = 1 << 24


class Question(NamedTuple):
    """What is asked of the judges, all of it checked."""

    judges: int | None
    smoothing: float
    trim: float
    block: int


def question_of(problem: Any, judges: Any, smoothing: Any, trim: Any, block: Any) -> Question:
    check_problem(problem)
    judges, trim = _judging(judges, trim)
    smoothing = _checks.positive_number("smoothing", smoothing)
    size = problem.reward.size
    if not np.isfinite(size / smoothing):
        raise ValueError(
            f"smoothing: expected one whose inverse fits into float64, got {smoothing:g}"
        )
    if not isinstance(block, (bool, int, np.integer)):
        raise TypeError(f"block: expected a number of logits or False, got {shown(block)}")
    if not 0 <= block <= size:
        raise ValueError(f"block: expected a number of logits from 0 to {size}, got {block}")
    return Question(judges, smoothing, trim, int(block))


def _judging(judges: Any, trim: Any) -> tuple[int | None, float]:
    if judges is not None:
        judges = _checks.positive_integer("judges", judges)
    trim = _checks.positive_number("trim", trim)
    if trim >= 0.5:
        raise ValueError(f"trim: expected a number below 1/2, got {trim:g}")
    return judges, trim


def read_as(frequency: ArrayLike, trim: float) -> Array:
    """σ⁻¹(clip(frequency, Δ, 1 − Δ)), also for a Δ so small that 1 − Δ is rounded to 1."""
    most = -logit(trim)
    return np.asarray(np.clip(logit(frequency), -most, most))


def logits_of(problem: Bandit, logits: ArrayLike) -> Array:
    logits = _checks.finite_array("logits", logits)
    if logits.shape != problem.shape:
        raise ValueError(f"logits: expected shape {problem.shape}, got {logits.shape}")
    return logits


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
        return read_as(p, trim)
    k = _outcomes(judges, p.size)
    # From both sides, so that the mean is odd to the last digit.
    odd = binom.pmf(k, judges, p[..., None]) - binom.pmf(k, judges, 1 - p[..., None])
    return 0.5 * odd @ read_as(k / judges, trim)


def _link_inverse_moment(preference: Array, ask: Question) -> Array:
    """The mean square of what M judges' trimmed frequency is read as, (...)."""
    if ask.judges is None:
        return read_as(preference, ask.trim) ** 2
    k = _outcomes(ask.judges, preference.size)
    return binom.pmf(k, ask.judges, preference[..., None]) @ read_as(k / ask.judges, ask.trim) ** 2


def _outcomes(judges: int, preferences: int) -> np.ndarray:
    """0, 1, … M votes."""
    if preferences and judges >= MOST_OUTCOMES // preferences:
        raise ValueError(
            f"judges: expected fewer than {MOST_OUTCOMES // preferences} to sum over for "
            f"{preferences} preferences, got {judges}; None is their limit"
        )
    return np.arange(judges + 1)


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
    r"""The expectation of the estimator ``zeroth_order_gradient``, exactly: nothing is sampled.

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
        As in ``zeroth_order_gradient``.
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
    ask = question_of(problem, judges, 1.0 if limit else smoothing, trim, block)
    here = logits_of(problem, logits)
    margin = _margins(problem, ask)
    if limit:
        return _slope_at_zero(problem, margin, here)
    total = np.zeros(here.size)
    for v, weight in _all_directions(here.size, ask.block, nodes):
        way = _way(problem, here, ask.smoothing * v)
        total += (weight * _mean_difference(problem, margin, way)) @ v
    return (here.size / ask.smoothing * total).reshape(problem.shape)


def variance(
    problem: Bandit,
    logits: ArrayLike,
    *,
    directions: int,
    pairs: int,
    judges: int | None,
    smoothing: float,
    trim: float,
    block: bool | int = False,
    nodes: int = 12,
) -> float:
    r"""Trace of the covariance of ``zeroth_order_gradient``, exactly: what its judgments buy.

    With m(v) and s²(v) the mean and the variance of what one pair says along v,

    .. math:: \operatorname{tr}\operatorname{Cov} \hat g = \frac1V \Bigl[\frac{d^2}{\mu^2}\,
              \mathbb{E}_v\bigl[m^2 + s^2/N\bigr] - \|\mathbb{E}\,\hat g\|^2\Bigr] .

    Parameters
    ----------
    problem, logits, directions, pairs, judges, smoothing, trim, block
        As in ``zeroth_order_gradient``.
    nodes : int
        As in :func:`mean_gradient`.

    Returns
    -------
    float
        In squared units of reward. With the number V·N of pairs given it is least for N = 1: a
        fresh direction for every pair.

    Raises
    ------
    ValueError
        If there are more than about a million directions to sum over.
    """
    ask = question_of(problem, judges, smoothing, trim, block)
    for name, number in (("directions", directions), ("pairs", pairs)):
        _checks.positive_integer(name, number)
    here = logits_of(problem, logits)
    preference = preferences.bradley_terry(problem.reward)
    margin, square = _margins(problem, ask), _link_inverse_moment(preference, ask)
    mean, moment = np.zeros(here.size), 0.0
    for v, weight in _all_directions(here.size, ask.block, nodes):
        way = _way(problem, here, ask.smoothing * v)
        along = _mean_difference(problem, margin, way)
        noise = np.maximum(_square_difference(problem, margin, square, way) - along**2, 0.0)
        mean += (weight * along) @ v
        moment += float(weight @ (along**2 + noise / pairs))
    # Lengths first, then (d/μ)²: so a small μ costs no digits.
    return (here.size / ask.smoothing) ** 2 * max(moment - float(mean @ mean), 0.0) / directions


def _margins(problem: Bandit, ask: Question) -> Array:
    """H ([X,] K, K): the mean of what the judges' answers on (y, y') are read as."""
    preference = preferences.bradley_terry(problem.reward)
    return link_inverse_mean(preference, judges=ask.judges, trim=ask.trim)


class _Way(NamedTuple):
    """From a policy π to others π', with the digits of small differences; V directions."""

    policy: Array  # π, ([X,] K)
    ratio: Array  # ln π/π_ref
    change: Array  # π' − π, (V, [X,] K)
    shift: Array  # ln π'/π


def _way(problem: Bandit, logits: Array, step: Array) -> _Way:
    """From the policy with ``logits`` to those with ``step`` (V, X·K) added."""
    here, step = log_softmax(logits), step.reshape(-1, *problem.shape)
    policy, ratio = np.exp(here), here - problem.log_reference
    if np.abs(step).max() > 1:
        there = log_softmax(here + step)
        return _Way(policy, ratio, np.exp(there) - policy, there - here)
    shift = step - np.log1p((policy * np.expm1(step)).sum(axis=-1, keepdims=True))
    return _Way(policy, ratio, policy * np.expm1(shift), shift)


def _mean_difference(problem: Bandit, margin: Array, way: _Way) -> Array:
    """Mean of the estimated difference of values along each direction, (V,)."""
    # π itself against π gains nothing, as H is antisymmetric.
    gain = np.einsum("...y,...yz,...z->...", way.change, margin, way.policy)
    kept = (way.change * way.ratio + (way.policy + way.change) * way.shift).sum(axis=-1)
    return problem.average(gain - problem.beta * kept)


def _square_difference(problem: Bandit, margin: Array, square: Array, way: _Way) -> Array:
    """Mean square of what one pair says along each direction, (V,).

    Before the move it says H − β(ℓ(y) − ℓ(y')), which nearly vanishes at the optimum; then there is
    what the judges add to it, and what the move does.
    """
    still = margin - problem.beta * (way.ratio[..., :, None] - way.ratio[..., None, :])
    judged = np.maximum(square - margin**2, 0.0)
    first = np.einsum("...yz,...z->...y", still, way.policy)
    second = np.einsum("...yz,...z->...y", still**2 + judged, way.policy)
    own = problem.beta * way.shift
    each = second - 2 * own * first + own**2
    return problem.average(((way.policy + way.change) * each).sum(axis=-1))


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
    nodes = _checks.positive_integer("nodes", nodes)
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
    of a game between the policy and itself (:func:`bandit.related.nash.equilibrium`). As H is
    antisymmetric there is exactly one. With one judge H = (2P − 1) ln((1 − Δ)/Δ), and the judges'
    preferences are played for rather than the rewards behind them; without trimming and with M → ∞
    it is π*.

    Parameters
    ----------
    problem : Bandit
    judges : int or None
    trim : float

    Returns
    -------
    ndarray ([X,] K)
        It differs from π_ref exp(Hπ/β) / Z by at most 1e-12, or 1e-15 max |H| / β where that is
        more (float64 cannot tell better), and never by more than 1e-6.

    Raises
    ------
    RuntimeError
        If it is not found to that accuracy.
    """
    margin = _margins(problem, question_of(problem, judges, 1.0, trim, False))
    arms, beta = problem.n_arms, problem.beta
    games = np.broadcast_to(margin, (*problem.shape, arms)).reshape(-1, arms, arms)
    references = problem.log_reference.reshape(-1, arms)
    log_policy = np.stack(
        [
            follow(game, reference, beta, "limit_policy: beta")
            for game, reference in zip(games, references, strict=True)
        ]
    )
    policy = np.exp(log_policy)
    answer = np.exp(log_softmax(references + against(games, policy) / beta))
    error = float(np.abs(policy - answer).max())
    allowed = least_residual(float(np.abs(margin).max()), beta)
    if not error <= allowed:
        raise RuntimeError(
            f"limit_policy: expected a residual of at most {allowed:.1g}, got {error:.2g} at "
            f"beta = {beta:g}; try a larger beta"
        )
    return policy.reshape(problem.shape)
