"""How a policy is learned from evidence: exactly, system by system, or from batches of rows.

Letters as in :mod:`bandit._evidence`. A system is a bandit of its own, with the reference's ratios
for reference; its solution then gets the mass that the reference gives to its arms. So whatever the
log says nothing about stays as in the reference: the ratios between systems, and with them every
arm that was never seen.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any, NamedTuple

import numpy as np

from bandit import groups, losses, preferences
from bandit._checks import Array
from bandit._evidence import Evidence, Places
from bandit.analysis import NotIdentifiedWarning, Solution, solve
from bandit.pairs import Pairs, from_counts, independent
from bandit.policies import LogLinear
from bandit.presets import Method
from bandit.problem import Bandit, log_softmax

# Cutting planes for kinked losses take seconds for this many arms, and minutes for twice as many.
MOST_KINKED_ARMS = 40
# Newton's method on preferences of so many arms takes minutes, and of ten times as many for ever.
MOST_ARMS = 2000
STEADY = ("value", "behavior", "optimal")
# Losses whose minimizer over all softmax policies is π_ref exp(r/β)/Z for whatever pairs.
CONTRASTIVE = ("copg", "rloo", "log_variance", "rebel")


class Lesson(NamedTuple):
    """What there is to learn from: everything checked, all arrays (X, K)."""

    evidence: Evidence
    method: Method
    problem: Bandit  # rewards as estimated
    preference: Array | str | None  # (X, K, K), "rows" or "bradley_terry"
    reward: Array  # as the method sees it
    behavior: Array | None  # what importance weights are told
    shift: Array | None  # from a cell's mean to its estimated reward, if that is not the mean


class Learned(NamedTuple):
    """A policy (X, K), and whether it is the solution."""

    log_policy: Array
    converged: bool
    message: str
    theta: Array | None = None
    exact: bool = True


def reward_for(method: Method, evidence: Evidence, problem: Bandit) -> Array:
    """The number for each cell that stands for its rows in the expected loss, (X, K).

    The estimated reward, where the loss is affine in it. The likelihood's weights exp(r/β) are not:
    there β ln of their mean serves.
    """
    if _weighs_rows(method.loss):
        given = getattr(method.loss, "keywords", {})
        return problem.reward + evidence.log_mean_exp(given.get("beta", problem.beta))
    return problem.reward


def reads_rows(method: Method) -> bool:
    """Whether a method asks more of a cell's rows than their sums: who beats whom, or exp(r/β)."""
    loss = method.loss
    return "preference" in losses.traits(loss).requires or _weighs_rows(loss)


def _weighs_rows(loss: Any) -> bool:
    given = getattr(loss, "keywords", {})
    return groups.name_of(loss) == "reward_weighted" and not given.get("normalize", False)


# --------------------------------------------------------------------------------- tabular, exact


def learn_exactly(lesson: Lesson) -> Learned:
    """The policy of every system, each with the mass the reference gives it."""
    log_policy = lesson.problem.log_reference.ravel().copy()
    troubles = []
    for places in lesson.evidence.systems:
        if places.shape[1] == 1:
            continue
        log_reference = lesson.problem.log_reference.ravel()[places]
        mass = np.logaddexp.reduce(log_reference, axis=-1, keepdims=True)
        found, trouble = _learn_systems(lesson, places, np.exp(log_reference - mass))
        log_policy[places] = found + mass
        if trouble:
            troubles.append(trouble)
    message = "; ".join(dict.fromkeys(troubles)) or "converged"
    return Learned(log_policy.reshape(lesson.problem.shape), not troubles, message)


def _learn_systems(lesson: Lesson, places: Places, reference: Array) -> tuple[Array, str]:
    """ln π (N, m) of systems of one size, and what went wrong, or ""."""
    loss, reward = lesson.method.loss, lesson.reward.ravel()[places]
    closed = _closed_form(lesson, places, reward, reference)
    most = MOST_KINKED_ARMS if losses.traits(loss).piecewise_linear else MOST_ARMS
    if closed is None and places.shape[1] > most:
        raise ValueError(
            f"solver: expected 'minibatch' for {groups.name_of(loss)} with more than {most} arms "
            f"to compare in a context, got {places.shape[1]}"
        )
    if closed is not None:
        return closed.log_optimal_policy(), ""
    problem = Bandit(reward, lesson.problem.beta, reference)
    solution = _quietly(
        solve,
        problem,
        loss,
        pairs_of(lesson, places),
        preference=preference_of(lesson, places),
        baseline=lesson.method.baseline,
    )
    return log_softmax(solution.logits), "" if solution.converged else solution.message


def _closed_form(lesson: Lesson, places: Places, reward: Array, reference: Array) -> Bandit | None:
    """The bandit whose π* is the solution, where there is one."""
    loss, beta = lesson.method.loss, lesson.problem.beta
    name, given = groups.name_of(loss), getattr(loss, "keywords", {})
    if losses.REGISTRY.get(name) is not _innermost(loss):
        return None
    # With these baselines a policy gradient vanishes where R_β is the same for all arms.
    steady = name == "policy_gradient" and lesson.method.baseline in STEADY
    if name in CONTRASTIVE or (steady and not given):
        beta = 1 / given["eta"] if "eta" in given else given.get("beta", beta)
        return Bandit(reward, beta, reference)
    if name == "reward_weighted" and not given.get("normalize", False):
        # The likelihood imitates what was logged: the frequencies take the reference's place.
        rows = marginals(lesson, places)
        return Bandit(reward, given.get("beta", beta), rows)
    return None


def _innermost(loss: Any) -> Any:
    while isinstance(loss, functools.partial):
        loss = loss.func
    return loss


def marginals(lesson: Lesson, places: Places) -> Array:
    """The share of each arm among the rows of its system, (N, m)."""
    rows = lesson.evidence.rows.ravel()[places]
    return rows / rows.sum(axis=-1, keepdims=True)


def pairs_of(lesson: Lesson, places: Places) -> Pairs:
    """The pairs of systems of one size."""
    evidence = lesson.evidence
    told = None if lesson.behavior is None else lesson.behavior.ravel()[places]
    if evidence.compared is None:
        return independent(marginals(lesson, places), behavior=told)
    pairs = from_counts(evidence.among(places, evidence.compared.times))
    pairs.behavior = told
    return pairs


def preference_of(lesson: Lesson, places: Places) -> Array | None:
    """P(y ≻ y') within systems of one size, (N, m, m)."""
    given = lesson.preference
    if given is None:
        return None
    if isinstance(given, str):
        if given == "rows":
            return lesson.evidence.preferences(places)
        return preferences.bradley_terry(lesson.problem.reward.ravel()[places])
    context, arm = np.divmod(places, lesson.problem.n_arms)
    return given[context[:, :1, None], arm[:, :, None], arm[:, None, :]]


def _quietly(solver: Any, *args: Any, **data: Any) -> Solution:
    """The solution alone: what it warns of is in its message."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotIdentifiedWarning)
        return solver(*args, **data)


# ------------------------------------------------------------------------------ log-linear, exact


def learn_features(lesson: Lesson, policy: LogLinear) -> Learned:
    """The log-linear policy of all contexts with rows together; features carry it to the others."""
    problem, arms = lesson.problem, lesson.problem.n_arms
    policy = policy.for_problem(problem.shape)
    met = np.flatnonzero(lesson.evidence.rows.sum(axis=1) > 0)
    places = met[:, None] * arms + np.arange(arms)
    weights = lesson.evidence.rows[met].sum(axis=1)
    here = Bandit(lesson.reward[met], problem.beta, problem.reference[met], weights / weights.sum())
    solution = _quietly(
        solve,
        here,
        lesson.method.loss,
        pairs_of(lesson, places),
        preference=preference_of(lesson, places),
        baseline=baseline_of(lesson, lesson.reward[met]),
        policy=LogLinear(policy.features[met]),
    )
    assert solution.theta is not None
    log_policy = log_softmax(policy.logits(solution.theta))
    return Learned(log_policy, solution.converged, solution.message, solution.theta)


def baseline_of(lesson: Lesson, rewards: Array) -> str | Array | None:
    """The method's; of a likelihood a number that keeps exp(r/β) in range, and scales the loss."""
    if groups.name_of(lesson.method.loss) == "reward_weighted" and lesson.method.baseline is None:
        return np.asarray(rewards.max())
    return lesson.method.baseline
