r"""Reward learning on policy: a reward model refitted where the policy went, without new labels.

A Bradley–Terry model, :math:`P(y \succ y') = \sigma(\hat r(y) - \hat r(y'))` with
:math:`\hat r = \phi \cdot w`, is fitted to comparisons; the policy is made optimal for it. Where
comparisons were few the model is wrong, and there the policy goes. So outputs are drawn from the
policy and clustered by what they say, and those of the largest cluster count as preferred to the
others, if it is large enough: synthetic comparisons, on which the model is fitted again.

Everything but that drawing is exact: what the policy is, what it is truly worth, what the model
thinks it is worth.

Letters: ``X`` contexts (optional), ``K`` arms, ``d`` features, ``e`` coordinates of an embedding.
After arXiv:2403.19279.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit

from bandit import _checks, losses, pairs, preferences
from bandit._checks import Array
from bandit.analysis import population
from bandit.descent import Progress, check_progress, reporter
from bandit.policies import LogLinear
from bandit.problem import Bandit, check_problem
from bandit.related._synthetic import Example, Synthetic, example, synthetic_wins

__all__ = [
    "Example",
    "OverOptimization",
    "Relearning",
    "RewardModel",
    "Synthetic",
    "example",
    "over_optimization",
    "relearn_on_policy",
    "synthetic_wins",
]

# Newton steps after the search, each of about one unit of reward where comparisons are certain.
MOST_POLISHING = 60

# ------------------------------------------------------------------------------ the reward model


@dataclasses.dataclass(frozen=True, eq=False)
class RewardModel:
    """A reward that is linear in features, learned from comparisons; see :meth:`fit`.

    Attributes
    ----------
    features : ndarray ([X,] K, d)
    weights : ndarray (d,)
        In units of reward per unit of feature, with noise of one logistic in the comparisons.
    """

    features: Array
    weights: Array

    def __post_init__(self) -> None:
        for name in ("features", "weights"):
            object.__setattr__(self, name, _checks.finite_array(name, getattr(self, name)))
        if self.features.ndim not in (2, 3):
            raise ValueError(
                f"features: expected shape (K, d) or (X, K, d), got {self.features.shape}"
            )
        if self.weights.shape != self.features.shape[-1:]:
            raise ValueError(
                f"weights: expected shape {self.features.shape[-1:]}, got {self.weights.shape}"
            )

    @property
    def reward(self) -> Array:
        """r̂ ([X,] K), up to a constant in each context that comparisons cannot see."""
        return self.features @ self.weights

    def applied_to(self, problem: Bandit) -> Bandit:
        """The problem as the model sees it: the same with r̂ for its reward."""
        check_problem(problem)
        if self.reward.shape not in (problem.shape, problem.shape[-1:]):
            raise ValueError(
                f"features: expected shape {(*problem.shape, 'd')}, got {self.features.shape}"
            )
        reward = np.broadcast_to(self.reward, problem.shape)
        return Bandit(reward, problem.beta, problem.reference, problem.context_weights)

    def log_loss(self, wins: ArrayLike) -> float:
        """Mean of −ln σ(r̂(winner) − r̂(loser)) over comparisons, in nats; ln 2 is a coin's.

        Parameters
        ----------
        wins : array_like ([X,] K, K)
            How often each arm was preferred to each other: those of the fit, or held out.
        """
        wins, reward = _check_wins(wins), self.reward
        if reward.shape not in (wins.shape[:-1], wins.shape[-2:-1]):
            raise ValueError(
                f"wins: expected shape {(*reward.shape, reward.shape[-1])}, got {wins.shape}"
            )
        margin = reward[..., :, None] - reward[..., None, :]
        return float((wins * np.logaddexp(0.0, -margin)).sum() / wins.sum())

    @classmethod
    def fit(cls, features: ArrayLike, wins: ArrayLike, *, ridge: float) -> RewardModel:
        r"""Maximum likelihood of a Bradley–Terry model, with a ridge penalty.

        .. math:: \min_w \; -\frac{1}{\sum \text{wins}} \sum_{x,y,y'} \text{wins}(x,y,y')
                  \ln\sigma(\hat r(x,y) - \hat r(x,y')) + \frac{\text{ridge}}{2} \|w\|^2

        Parameters
        ----------
        features : array_like (K, d) or (X, K, d)
        wins : array_like (K, K) or (X, K, K)
            How often each arm was preferred to each other; any numbers of at least 0.
        ridge : float
            Above 0, in nats; it makes the weights unique, and finite where every arm always won or
            always lost.

        Returns
        -------
        RewardModel

        Raises
        ------
        RuntimeError
            If float64 does not resolve the minimum.

        Notes
        -----
        The likelihood is :func:`bandit.losses.dpo` at β = 1 for the log-linear policy with these
        features: a reward model is a policy seen as a reward.
        """
        wins = _check_wins(wins)
        ridge = _checks.positive_number("ridge", ridge)
        given = LogLinear(features).for_problem(wins.shape[:-1])
        # In units of the greatest feature: tolerances are for numbers about one.
        unit = float(np.abs(given.features).max()) or 1.0
        found = _maximum_likelihood(LogLinear(given.features / unit), wins, ridge / unit / unit)
        if found is None:
            raise RuntimeError(
                f"RewardModel.fit: no minimum that float64 resolves at ridge = {ridge:g} and "
                f"features up to {unit:.3g}; try another ridge"
            )
        return cls(given.features, found / unit)


def _maximum_likelihood(policy: LogLinear, wins: Array, ridge: float) -> Array | None:
    """Weights (d,) of the fit, or None if they cannot be told."""
    mass = wins.sum(axis=(-2, -1))
    # A context without comparisons has weight 0: what is compared there plays no part.
    compared = np.where((mass > 0)[..., None, None], wins, 1.0)
    data: dict[str, Any] = {
        "pairs": pairs.from_counts(compared),
        "preference": preferences.from_counts(compared),
        "policy": policy,
    }
    weights = mass / mass.sum() if wins.ndim == 3 else None
    neutral = Bandit(np.zeros(wins.shape[:-1]), beta=1.0, context_weights=weights)
    shares = wins / wins.sum()

    def cost(w: Array) -> tuple[float, Array]:
        value, gradient = population(neutral, losses.dpo, w, **data)
        return float(value) + ridge / 2 * float(w @ w), gradient + ridge * w

    def curvature(w: Array) -> Array:
        return _fisher_information(policy, shares, w) + ridge * np.eye(len(w))

    start = np.zeros(policy.n_parameters)
    # What overflows or is singular is seen in the end: a fit counts only if it has arrived.
    with np.errstate(all="ignore"), contextlib.suppress(np.linalg.LinAlgError, ValueError):
        w = minimize(cost, start, jac=True, hess=curvature, method="trust-exact", tol=1e-9).x
        for _ in range(MOST_POLISHING):  # far out the likelihood is flat, and its gradient small
            step = np.asarray(np.linalg.solve(curvature(w), cost(w)[1]), dtype=np.float64)
            w = w - step
            moved, reward = (np.ptp(policy.logits(v), axis=-1).max() for v in (step, w))
            if moved < 1e-6 * (1 + reward):
                return w.astype(np.float64)
    return None


def _fisher_information(policy: LogLinear, wins: Array, w: Array) -> Array:
    """Second derivative (d, d) of the mean logistic loss; ``wins`` sum to one."""
    reward = policy.logits(w)
    spread = reward[..., :, None] - reward[..., None, :]
    either_won = wins + np.swapaxes(wins, -1, -2)
    noise = either_won * expit(spread) * expit(-spread)
    laplacian = np.eye(wins.shape[-1]) * noise.sum(axis=-1)[..., None] - noise
    information = np.swapaxes(policy.features, -1, -2) @ laplacian @ policy.features
    return information.reshape(-1, len(w), len(w)).sum(axis=0)


def _check_wins(wins: ArrayLike) -> Array:
    wins = _checks.finite_array("wins", wins)
    if wins.ndim not in (2, 3) or wins.shape[-1] != wins.shape[-2]:
        raise ValueError(f"wins: expected shape (K, K) or (X, K, K), got {wins.shape}")
    if wins.size and wins.min() < 0:
        raise ValueError(f"wins: expected numbers of at least 0, got {wins.min():g}")
    if wins.size == 0 or wins.max() == 0:
        raise ValueError("wins: expected at least one comparison, got none")
    # Only their proportions count: a power of two less, no digit is lost and no sum overflows.
    return np.ldexp(wins, -np.frexp(wins.max())[1])


# ---------------------------------------------------------------------------- over-optimization


class OverOptimization(NamedTuple):
    """Optimizing a learned reward harder and harder; all (N,), over the betas.

    ``kl`` in nats from the reference; ``true_value`` E[r] and ``learned_value`` E[r̂], the latter
    shifted to agree with the former at the reference; both in units of reward.
    """

    betas: Array
    kl: Array
    true_value: Array
    learned_value: Array


def over_optimization(problem: Bandit, model: RewardModel, betas: ArrayLike) -> OverOptimization:
    """What the optimal policy under a learned reward is worth, truly and to the model, exactly.

    Parameters
    ----------
    problem : Bandit
        Its β is not used.
    model : RewardModel
    betas : array_like (N,)
        Regularization strengths, all above 0.
    """
    check_problem(problem)
    if not isinstance(model, RewardModel):
        raise TypeError(f"model: expected a RewardModel, got {type(model).__name__}")
    betas = _checks.finite_array("betas", betas)
    if betas.ndim != 1:
        raise ValueError(f"betas: expected shape (N,), got {betas.shape}")
    if not (betas > 0).all():
        raise ValueError(f"betas: expected numbers above 0, got {betas.min():g}")
    rows = []
    for beta in betas:
        base = Bandit(problem.reward, float(beta), problem.reference, problem.context_weights)
        rows.append(_worth(base, model))
    return OverOptimization(betas, *np.array(rows).reshape(-1, 3).T)


def _worth(problem: Bandit, model: RewardModel) -> tuple[float, float, float]:
    """KL, true and learned value of the optimal policy under the model."""
    seen = model.applied_to(problem)
    policy = seen.optimal_policy()
    shift = problem.expected_reward(problem.reference) - seen.expected_reward(problem.reference)
    return (
        float(problem.kl(policy)),
        float(problem.expected_reward(policy)),
        float(seen.expected_reward(policy) + shift),
    )


# ------------------------------------------------------------------------------------ relearning


@dataclasses.dataclass(frozen=True, eq=False)
class Relearning:
    """The course of :func:`relearn_on_policy`; ``T`` fits, the first on the given comparisons.

    Attributes
    ----------
    models : tuple of RewardModel (T,)
    kl, true_value, learned_value : ndarray (T,)
        Of the optimal policy under each model, as in :class:`OverOptimization`.
    synthetic : tuple of Synthetic (T − 1,)
    interrupted : bool
        True if stopped from the keyboard; the fits are those made until then.
    """

    models: tuple[RewardModel, ...]
    kl: Array
    true_value: Array
    learned_value: Array
    synthetic: tuple[Synthetic, ...]
    interrupted: bool = False


def relearn_on_policy(
    problem: Bandit,
    features: ArrayLike,
    wins: ArrayLike,
    embedding: ArrayLike,
    *,
    samples: int,
    sets: int,
    distance: float,
    confidence: float,
    share: float,
    ridge: float,
    rounds: int = 1,
    rng: int | np.random.SeedSequence | np.random.Generator,
    progress: bool | Progress | None = None,
) -> Relearning:
    """Fit a reward model, then refit it on what its own optimal policy says most often.

    Parameters
    ----------
    problem : Bandit
        Its reward is the truth, which only the reported values look at.
    features : array_like (K, d) or (X, K, d)
        Of the reward model.
    wins : array_like ([X,] K, K)
        The given comparisons.
    embedding : array_like (K, e) or (X, K, e)
    samples, sets, distance, confidence
        Of :func:`synthetic_wins`.
    share : float
        Weight of the synthetic comparisons among all, between 0 and 1. Where no set was kept the
        given ones stand alone.
    ridge : float
    rounds : int
        Refits; each draws from the policy of the fit before, and keeps only its own synthetic
        comparisons.
    rng : int, SeedSequence or Generator
    progress : bool or callable, optional
        As in :func:`bandit.train`.

    Returns
    -------
    Relearning
        Stopped from the keyboard, the part done until then (with a warning).

    Warns
    -----
    RuntimeWarning
        On an interrupt.
    """
    check_problem(problem)
    wins = _check_wins(wins)
    if wins.shape[:-1] != problem.shape:
        raise ValueError(
            f"wins: expected shape {(*problem.shape, problem.n_arms)}, got {wins.shape}"
        )
    if not 0 < _checks.positive_number("share", share) < 1:
        raise ValueError(f"share: expected a number between 0 and 1, got {share:g}")
    _checks.positive_integer("rounds", rounds)
    check_progress(progress)
    streams = _checks.generator_of(rng).spawn(rounds)
    models, drawn, interrupted = [RewardModel.fit(features, wins, ridge=ridge)], [], False
    with reporter(progress, rounds) as report:
        try:
            for t, stream in enumerate(streams):
                made = synthetic_wins(
                    models[-1].applied_to(problem).optimal_policy(),
                    embedding,
                    samples=samples,
                    sets=sets,
                    distance=distance,
                    confidence=confidence,
                    rng=stream,
                )
                models.append(RewardModel.fit(features, _mixed(wins, made, share), ridge=ridge))
                drawn.append(made)
                report(t + 1, rounds)
        except KeyboardInterrupt:
            interrupted = True
            models = models[: len(drawn) + 1]
            warnings.warn(
                f"relearn_on_policy: interrupted; {len(drawn)} of {rounds} rounds are returned",
                RuntimeWarning,
                stacklevel=2,
            )
    kl, true_value, learned_value = np.array([_worth(problem, model) for model in models]).T
    return Relearning(tuple(models), kl, true_value, learned_value, tuple(drawn), interrupted)


def _mixed(wins: Array, made: Synthetic, share: float) -> Array:
    if made.kept == 0:
        return wins
    return (1 - share) * wins / wins.sum() + share * made.wins / made.wins.sum()
