r"""Policy gradient with active importance sampling: choose who draws the data.

A completion drawn from a behavior b estimates the policy gradient, without bias, by

.. math::
    g(y) = \frac{\pi(y)}{b(y)} A(y) (e_y - \pi), \qquad
    \operatorname{tr}\operatorname{Cov}_b g = \sum_y \frac{q(y)^2}{b(y)} - \|\nabla J\|^2, \qquad
    q(y) = \pi(y)\,|A(y)|\,\|e_y - \pi\| .

By Cauchy–Schwarz :math:`b^* \propto q` makes it least, :math:`(\sum_y q)^2 - \|\nabla J\|^2`:
never more than on-policy sampling, and less unless :math:`|A(y)|\,\|e_y-\pi\|` is the same for all
arms. As b* has to be estimated, it is used in a defensive mixture
:math:`(1-\alpha)\hat b + \alpha\pi`, whose importance weights are at most 1/α.

Letters: ``X`` contexts (optional), ``K`` arms, ``T`` records, ``...`` any leading axes. With
contexts every one has a behavior of its own, and what is said here holds given the context.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bandit import _checks, descent, expectations, losses
from bandit._checks import Array
from bandit.batches import Streams
from bandit.descent import Progress
from bandit.history import History
from bandit.losses import Group
from bandit.optimizers import Optimizer
from bandit.problem import Bandit, check_problem, log_softmax
from bandit.related._best_behavior import estimated, mass, others, shares, unit

__all__ = [
    "ActiveRun",
    "advantage",
    "defensive",
    "estimate_behavior",
    "optimal_behavior",
    "optimize",
    "variance",
]

SAMPLING = ("active", "oracle", "policy")


# ------------------------------------------------------------------------------- exact formulas


def advantage(problem: Bandit, policy: ArrayLike) -> Array:
    """A(y) = R(y) − E_π[R] with R = r − β ln(π/π_ref), in units of reward; (..., [X,] K).

    ``policy`` (..., [X,] K) has to give every arm a probability above 0.
    """
    check_problem(problem)
    policy = _checks.distribution("policy", policy, strictly_positive=True)
    problem.check_policy(policy)
    score = problem.reward - problem.beta * (np.log(policy) - problem.log_reference)
    return score - (policy * score).sum(axis=-1, keepdims=True)


def optimal_behavior(policy: ArrayLike, advantage: ArrayLike) -> Array:
    r"""The behavior of least variance, b* ∝ π |A| ‖e_y − π‖.

    Parameters
    ----------
    policy : array_like (..., K)
    advantage : array_like (..., K)
        A, in any units: only its ratios matter. With other weights than A = R − b of the policy
        gradient, put those.

    Returns
    -------
    ndarray (..., K)
        Where all advantages are 0 any behavior has variance 0; then it is the policy.

    References
    ----------
    Papini et al. 2024, arXiv:2405.05630 (there for trajectories).
    """
    policy, advantage = _policy_and_advantage(policy, advantage)
    return shares(mass(policy, unit(advantage)[0]), policy)


def variance(behavior: ArrayLike, policy: ArrayLike, advantage: ArrayLike) -> Array:
    r"""Trace of the covariance of the gradient from one draw of ``behavior``, exactly.

    Parameters
    ----------
    behavior, policy : array_like (..., K)
    advantage : array_like (..., K)
        In units of reward.

    Returns
    -------
    ndarray (...)
        :math:`\sum_y q(y)^2/b(y) - \|\nabla J\|^2`, in squared units of reward; that of a batch of
        n draws is this over n. Infinite where the behavior never draws an arm that matters (then
        the estimate is biased too), or where the number is too large for float64.
    """
    policy, advantage = _policy_and_advantage(policy, advantage)
    behavior = _checks.distribution("behavior", behavior)
    _checks.trailing_shape("behavior", behavior, policy.shape[-1:], "(..., K)")
    advantage, exponent = unit(advantage)
    q = mass(policy, advantage)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        moment = np.where(q > 0, q / behavior * q, 0.0).sum(axis=-1)
    # ∇J = π (A − Σ π A), without the arm's own part of the sum.
    pull = policy * advantage
    mean = pull * others(policy) - policy * others(pull)
    # What rounding leaves of a variance of 0 may be negative.
    spread = np.maximum(moment - (mean**2).sum(axis=-1), 0.0)
    with np.errstate(over="ignore"):
        return np.ldexp(spread, 2 * exponent[..., 0])


def defensive(behavior: ArrayLike, policy: ArrayLike, share: float) -> Array:
    """The mixture (1 − share) · behavior + share · policy; (..., K).

    Its importance weights π/b are at most 1/share. Its second moment is at most 1/share times that
    of the policy, and at most 1/(1 − share) times that of the behavior.

    Parameters
    ----------
    behavior, policy : array_like (..., K)
    share : float
        α in (0, 1].
    """
    policy = _checks.distribution("policy", policy)
    behavior = _checks.distribution("behavior", behavior)
    _checks.trailing_shape("behavior", behavior, policy.shape[-1:], "(..., K)")
    share = _share(share)
    return (1 - share) * behavior + share * policy


def estimate_behavior(
    counts: ArrayLike, drawn_from: ArrayLike, policy: ArrayLike, advantage: ArrayLike
) -> Array:
    r"""b* as a sample tells it: the cross-entropy fit of a behavior to importance-weighted draws.

    Over all distributions b, :math:`\sum_i \frac{q(y_i)}{b'(y_i)} \ln b(y_i)`, for draws from
    b', is greatest at :math:`\hat b(y) \propto \text{counts}(y)\, q(y)/b'(y)`: arms that were not
    drawn get 0, which is why it is used in a :func:`defensive` mixture.

    Parameters
    ----------
    counts : array_like (..., K)
        How often each arm was drawn.
    drawn_from : array_like (..., K)
        The behavior b' that drew them.
    policy, advantage : array_like (..., K)
        Advantages of arms that were not drawn are not looked at.

    Returns
    -------
    ndarray (..., K)
        Where no arm that matters was drawn it is the policy.
    """
    policy, advantage = _policy_and_advantage(policy, advantage)
    counts = _checks.finite_array("counts", counts)
    drawn_from = _checks.distribution("drawn_from", drawn_from)
    for name, array in (("counts", counts), ("drawn_from", drawn_from)):
        _checks.trailing_shape(name, array, policy.shape[-1:], "(..., K)")
    if counts.min() < 0:
        raise ValueError(f"counts: expected numbers of at least 0, got {counts.min():g}")
    if ((drawn_from == 0) & (counts > 0)).any():
        raise ValueError("drawn_from: expected above 0 for every arm that was drawn, got 0")
    return estimated(counts, drawn_from, policy, advantage)


def _policy_and_advantage(policy: ArrayLike, advantage: ArrayLike) -> tuple[Array, Array]:
    policy = _checks.distribution("policy", policy)
    advantage = _checks.finite_array("advantage", advantage)
    _checks.trailing_shape("advantage", advantage, policy.shape[-1:], "(..., K)")
    return policy, advantage


def _share(share: Any) -> float:
    share = _checks.positive_number("share", share)
    if share > 1:
        raise ValueError(f"share: expected a number in (0, 1], got {share:g}")
    return share


# ------------------------------------------------------------------------------------- training


class ActiveRun(NamedTuple):
    """What :func:`optimize` returns.

    Attributes
    ----------
    history : History
    behavior : ndarray (T − 1, runs, [X,] K)
        ``behavior[t]`` drew the batch of the step that follows record t.
    """

    history: History
    behavior: Array


def optimize(
    problem: Bandit,
    *,
    batch_size: int,
    steps: int,
    optimizer: Optimizer,
    rng: int | np.random.SeedSequence | np.random.Generator,
    share: float = 0.2,
    sampling: str = "active",
    baseline: str = "value",
    runs: int = 1,
    record_every: int | None = None,
    start: ArrayLike | None = None,
    progress: bool | Progress | None = None,
) -> ActiveRun:
    """Ascend J from batches of a behavior that is fitted to the batch before.

    Every step fits b* of the present policy to the last batch (:func:`estimate_behavior`, the first
    step takes the policy), draws a batch from its :func:`defensive` mixture, and descends along the
    mean of ``bandit.losses.importance_sampling``. No draw is spent on the behavior alone.

    Parameters
    ----------
    problem : Bandit
    batch_size : int
        Draws per step; contexts are drawn too, by their weights.
    steps : int
        Number of updates.
    optimizer : Optimizer
    rng : int, SeedSequence or Generator
    share : float
        α in (0, 1], the policy's share in the mixture.
    sampling : {"active", "oracle", "policy"}
        For comparison: ``"oracle"`` is told b* itself, ``"policy"`` draws on-policy.
    baseline : {"value", "none"}
        A = R − E_π[R] with the exact value, or A = R: then gradients stay noisy also at π*.
    runs : int
        Independent trainings, each with random streams of its own.
    record_every : int, optional
        Steps between records. Default: as many as give about 200 records.
    start : array_like ([X,] K) or (runs, [X,] K), optional
        Logits to start from, default the reference.
    progress : bool or callable, optional
        As in :func:`bandit.train`.

    Returns
    -------
    ActiveRun
        Stopped from the keyboard, the part done until then (with a warning).

    Raises
    ------
    ValueError, TypeError
        One line with the argument's name, what was expected and what came.

    Warns
    -----
    RuntimeWarning
        If runs diverged, or on an interrupt.
    """
    check_problem(problem)
    for name, number in (("batch_size", batch_size), ("runs", runs)):
        _checks.positive_integer(name, number)
    every = descent.record_interval(record_every, steps)
    descent.check_helpers(optimizer, progress)
    share = _share(share)
    sampling = _checks.one_of("sampling", sampling, SAMPLING)
    _checks.one_of("baseline", baseline, ("value", "none"))
    shown = descent.record_steps(steps, every)
    learn = _Sampler(problem, batch_size, share, sampling, baseline == "value", shown)
    settings = {
        "batch_size": int(batch_size),
        "share": share,
        "sampling": sampling,
        "baseline": baseline,
        **descent.settings_of(steps, optimizer, runs, rng, every),
    }
    course = descent.follow(
        learn,
        descent.start_of(start, problem.log_reference, runs),
        optimizer,
        steps=steps,
        record_every=every,
        rng=rng,
        progress=progress,
    )
    descent.warn_of_trouble("optimize", course, steps)
    history = descent.history_of(problem, course, "active_sampling", settings)
    kept = learn.kept[: len(course.steps) - 1]
    return ActiveRun(history, np.reshape(kept, (len(kept), *history.logits.shape[1:])))


class _Sampler:
    """The learner that chooses its behavior; arrays (R, X, K) with a context axis."""

    block = 1

    def __init__(
        self,
        problem: Bandit,
        batch_size: int,
        share: float,
        sampling: str,
        centered: bool,
        record_steps: np.ndarray,
    ) -> None:
        self.problem, self.batch_size, self.share = problem, batch_size, share
        self.sampling, self.centered, self.step = sampling, centered, 0
        self.wanted = frozenset(record_steps.tolist())
        self.kept: list[Array] = []
        self.numbers = problem.reward.size
        self.counts: Array | None = None
        self.drawn_from = np.empty(0)

    def draw(self, streams: tuple[Streams, Streams], steps: int) -> Iterator[Any]:
        """Every run's generator: the batch depends on where the run has come to."""
        for _ in range(steps):
            yield streams[0]

    def gradient(self, theta: Array, batch: Any) -> Array:
        """Gradient (P, R) of the mean importance-weighted loss of a batch, drawn here."""
        arms, runs = self.problem.n_arms, theta.shape[1]
        log_policy = log_softmax(theta.T.reshape(runs, -1, arms))
        policy, reference = np.exp(log_policy), self.problem.log_reference.reshape(-1, arms)
        reward = self.problem.reward.reshape(-1, arms)
        score = reward - self.problem.beta * (log_policy - reference)
        value = (policy * score).sum(axis=-1) * self.centered
        behavior = self._behavior(policy, score - value[..., None])
        if self.step in self.wanted:
            self.kept.append(behavior.reshape(runs, *self.problem.shape))
        self.step += 1
        self.counts, self.drawn_from = self._drawn(batch, behavior), behavior
        group = Group(
            log_prob=log_policy[..., None],
            ref_log_prob=np.broadcast_to(reference, log_policy.shape)[..., None],
            reward=np.broadcast_to(reward, log_policy.shape)[..., None],
            behavior_log_prob=np.log(behavior)[..., None],
            baseline=np.broadcast_to(value[..., None], log_policy.shape),
        )
        loss = losses.importance_sampling
        weight = loss(group, beta=self.problem.beta, baseline="given").weight[..., 0]
        share = self.counts / self.batch_size
        arm_weight = np.multiply(weight, share, where=share > 0, out=np.zeros(share.shape))
        gradient = expectations.logit_gradient(loss, log_policy, arm_weight)
        return gradient.reshape(runs, -1).T

    def _behavior(self, policy: Array, own_advantage: Array) -> Array:
        if self.sampling == "policy":
            return policy
        if self.sampling == "oracle":
            every = np.ones(policy.shape)
            best = estimated(every, every, policy, own_advantage)
        elif self.counts is None:
            return policy
        else:
            best = estimated(self.counts, self.drawn_from, policy, own_advantage)
        return (1 - self.share) * best + self.share * policy

    def _drawn(self, streams: Streams, behavior: Array) -> Array:
        """Counts (R, X, K) of the batch of every run; a run that has diverged draws nothing."""
        rho = self.problem.context_weights
        cells = behavior if rho is None else rho[:, None] * behavior
        counts = np.zeros(behavior.shape)
        for run, rng in enumerate(streams):
            chance = cells[run].ravel()
            if np.isfinite(chance).all():
                drawn = rng.multinomial(self.batch_size, chance / chance.sum())
                counts[run] = drawn.reshape(counts[run].shape)
        return counts
