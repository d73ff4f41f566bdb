"""Logs whose truth is known: what a policy learned from them is worth can be computed exactly.

Letters: ``X`` contexts (optional), ``K`` arms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bandit import _checks
from bandit._checks import Array
from bandit.data.examples import items, production_prior
from bandit.data.log import Log
from bandit.problem import Bandit

HELD_OUT_EVERY = 4


@dataclass(frozen=True, eq=False)
class Simulation:
    """A log with the problem that it came from.

    Attributes
    ----------
    log : Log
    reward : ndarray (K,) or (X, K)
        The true expected reward.
    behavior : ndarray (K,) or (X, K)
        The policy that logged.
    """

    log: Log
    reward: Array
    behavior: Array

    def problem(self, beta: float) -> Bandit:
        """The bandit with the true reward, and the logging policy as reference.

        Parameters
        ----------
        beta : float
            In units of reward.
        """
        return Bandit(self.reward, beta, self.behavior)


# ------------------------------------------------------------------------------ clicks


def semi_synthetic(campaign: str, n: int, rng: np.random.Generator | int) -> Simulation:
    """Clicks drawn from production click rates, logged by a Thompson policy; without contexts.

    Parameters
    ----------
    campaign : {"all", "men", "women"}
        80, 34 and 46 items.
    n : int
        Rows.
    rng : Generator or int

    Returns
    -------
    Simulation
        True rates (K,) are the means α/(α+β) of :func:`bandit.data.production_prior`; the logging
        policy is :func:`thompson_policy` on it, with three slots as on the page.
    """
    alpha, beta = production_prior(campaign)
    rows = _checks.positive_integer("n", n)
    rng = _checks.generator_of(rng)
    rate, behavior = alpha / (alpha + beta), thompson_policy(alpha, beta, slots=3)
    arms = rng.choice(alpha.size, size=rows, p=behavior)
    clicks = rng.random(rows) < rate[arms]
    log = Log(None, arms, clicks, behavior[arms], arm_labels=items(campaign).labels)
    return Simulation(log, rate, behavior)


def thompson_policy(
    alpha: ArrayLike, beta: ArrayLike, *, slots: int = 1, panels: int = 100
) -> Array:
    r"""Probability that a slot of Thompson sampling shows each arm, exact to quadrature.

    A rate is drawn for each arm from its Beta distribution and the arms with the highest ``slots``
    rates are shown; this is the average over slots,

    .. math::
        \pi(y) = \tfrac{1}{S} \int f_y(t)\, P(\text{fewer than } S \text{ other rates exceed } t)
        \,\mathrm{d}t .

    Parameters
    ----------
    alpha, beta : array_like (K,)
        Above 0.
    slots : int
        S, at most K.
    panels : int
        Of Gauss–Legendre quadrature, twenty nodes each, between the smallest and largest quantile
        that matter.

    Returns
    -------
    ndarray (K,)

    Raises
    ------
    ValueError
        If the quadrature misses more than 1e-6 of the probability: it needs more panels.
    """
    from scipy import stats

    alpha, beta = _checks.finite_array("alpha", alpha), _checks.finite_array("beta", beta)
    if alpha.ndim != 1 or alpha.shape != beta.shape or not ((alpha > 0) & (beta > 0)).all():
        raise ValueError("alpha: expected positive numbers of shape (K,), and beta like it")
    slots = _checks.positive_integer("slots", slots)
    if slots > alpha.size:
        raise ValueError(f"slots: expected at most K = {alpha.size}, got {slots}")
    arms = stats.beta(alpha, beta)
    low, high = float(arms.ppf(1e-14).min()), float(arms.isf(1e-14).max())
    edges = np.linspace(low, high, _checks.positive_integer("panels", panels) + 1)
    points, weights = np.polynomial.legendre.leggauss(20)
    width = (high - low) / panels
    t = (edges[:-1, None] + width * (points + 1) / 2).ravel()
    weights = np.tile(weights, panels) * width / 2
    density = np.exp(stats.beta.logpdf(t, alpha[:, None], beta[:, None]))  # (K, T)
    above = stats.beta.sf(t, alpha[:, None], beta[:, None])
    # exceed[j]: probability that exactly j of the other arms are above t, arm by arm.
    exceed = np.zeros((slots, *above.shape))
    exceed[0] = 1.0
    for other, chance in enumerate(above):
        others = np.arange(alpha.size) != other
        moved = exceed[:, others] * (1 - chance)
        moved[1:] += exceed[:-1, others] * chance
        exceed[:, others] = moved
    policy = (density * exceed.sum(axis=0)) @ weights / slots
    if not abs(policy.sum() - 1) <= 1e-6:
        raise ValueError(f"panels: expected more than {panels}, the sum is {policy.sum():.8f}")
    return policy / policy.sum()


# ------------------------------------------------------------------------------ digits


@dataclass(frozen=True, eq=False)
class Digits(Simulation):
    """Pictures of digits as contexts; the reward is 1 for the arm that names the digit.

    Attributes
    ----------
    log : Log
        Rows 2i and 2i + 1 are a pair: two arms for the same picture.
    reward : ndarray (1797, 10)
    behavior : ndarray (1797, 10)
    features : ndarray (1797, 64)
        Gray levels in [0, 1].
    digit : ndarray (1797,)
        The right arm.
    train, test : ndarray of int
        Which pictures the log draws from, and which are held out.
    """

    features: Array
    digit: NDArray[np.int64]
    train: NDArray[np.int64]
    test: NDArray[np.int64]

    def accuracy(self, policy: ArrayLike, pictures: ArrayLike | None = None) -> float:
        """The probability of the right digit, averaged over pictures.

        Parameters
        ----------
        policy : array_like (1797, 10)
        pictures : array_like of int, optional
            Default: those held out.
        """
        policy = _checks.distribution("policy", policy)
        _checks.trailing_shape("policy", policy, self.reward.shape, "(X, K)")
        chosen = self.test if pictures is None else np.asarray(pictures)
        return float((policy * self.reward)[chosen].sum(axis=-1).mean())


def digits(
    n_pairs: int, rng: np.random.Generator | int, behavior: ArrayLike | None = None
) -> Digits:
    """Scikit-learn's 1,797 pictures of digits as a contextual bandit; needs scikit-learn.

    Parameters
    ----------
    n_pairs : int
        Pairs of arms: a picture at random from those for training (three of four), and two arms
        drawn independently.
    rng : Generator or int
    behavior : array_like (10,) or (1797, 10), optional
        The policy that draws the arms, above 0. Default: uniform.

    Returns
    -------
    Digits

    Raises
    ------
    ModuleNotFoundError
        Without scikit-learn (``pip install "copg-bandit[data]"``).
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'digits: expected scikit-learn; pip install "copg-bandit[data]"'
        ) from error
    pairs = _checks.positive_integer("n_pairs", n_pairs)
    rng = _checks.generator_of(rng)
    pictures = load_digits()
    digit = np.asarray(pictures.target, dtype=np.int64)
    reward = np.equal.outer(digit, np.arange(10)).astype(np.float64)  # (X, 10)
    mu = np.full(10, 0.1) if behavior is None else behavior
    mu = _checks.distribution("behavior", mu, strictly_positive=True)
    if mu.shape not in ((10,), reward.shape):
        raise ValueError(f"behavior: expected shape (10,) or {reward.shape}, got {mu.shape}")
    mu = np.broadcast_to(mu, reward.shape)
    held_out = np.arange(digit.size) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    train, test = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    contexts = np.repeat(rng.choice(train, size=pairs), 2)
    below = rng.random((2 * pairs, 1)) * mu[contexts].sum(axis=-1, keepdims=True)
    arms = (mu[contexts].cumsum(axis=-1) <= below).sum(axis=-1).clip(max=9)
    log = Log(
        contexts,
        arms,
        reward[contexts, arms],
        mu[contexts, arms],
        context_labels=range(digit.size),
        arm_labels=range(10),
    )
    features = np.asarray(pictures.data, dtype=np.float64) / 16
    return Digits(log, reward, np.array(mu), features, digit, train, test)
