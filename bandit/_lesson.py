"""From the arguments of :func:`bandit.fit` to a lesson: everything checked, all arrays (X, K)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bandit import _checks, _learning, groups, losses, ope, preferences, presets
from bandit._checks import Array
from bandit._evidence import Evidence
from bandit._learning import Lesson
from bandit.data.log import Data, counts_of
from bandit.presets import Method
from bandit.problem import Bandit

Rewards = str | Callable[[Data], ArrayLike] | ArrayLike
REWARDS = ("mean", "lower_confidence_bound", "empirical_bayes")


def method_of(method: Any) -> Method:
    """A method under the name it goes by."""
    if isinstance(method, Method):
        return method
    if isinstance(method, str):
        return presets.method(method)._replace(label=method)
    if callable(method):
        return Method(groups.name_of(method), method)
    raise TypeError(
        f"method: expected a name, a bandit.presets.Method or a loss, got {type(method).__name__}"
    )


def lesson_of(
    data: Data,
    method: Method,
    beta: float,
    reference: ArrayLike | str | None,
    preference: ArrayLike | str | None,
    rewards: Rewards,
    pairing: str,
) -> Lesson:
    evidence = Evidence(data, pairing)
    means = _cell_means(evidence, method)
    estimated, shift = evidence.scores(means), None
    if not (isinstance(rewards, str) and rewards == "mean"):
        estimated = _estimated(rewards, evidence)
        shift = estimated - means
        evidence = Evidence(data, pairing, assumed=evidence.counts.n == 0)
    contexts = evidence.counts.n.sum(axis=1)
    problem = Bandit(estimated, beta, _reference(reference, evidence), contexts / contexts.sum())
    requires = losses.traits(method.loss).requires
    chosen: Array | str | None = None
    if "preference" in requires:
        chosen = _preference(preference, evidence, problem, rewards)
    elif preference is not None:
        raise ValueError(f"preference: expected None for {method.label}, which reads rewards")
    behavior = None
    if "behavior_log_prob" in requires and evidence.counts.inverse is not None:
        behavior = evidence.propensities()
    seen = _learning.reward_for(method, evidence, problem)
    return Lesson(evidence, method, problem, chosen, seen, behavior, shift)


def _cell_means(evidence: Evidence, method: Method) -> Array:
    """Mean rewards; as importance weights see them, for methods that use them."""
    means = ope.cell_means(evidence.counts)
    weighted = "behavior_log_prob" in losses.traits(method.loss).requires
    if weighted and evidence.counts.inverse is not None:
        return np.where(evidence.counts.n > 0, evidence.weighted_means(), means)
    return means


def _estimated(rewards: Any, evidence: Evidence) -> Array:
    """Rewards (X, K) that are not means."""
    if evidence.compared is not None:
        raise ValueError(
            "rewards: expected 'mean' with pairing='consecutive', whose scores come from pairs"
        )
    if isinstance(rewards, str):
        from bandit import pessimism

        _checks.one_of("rewards", rewards, REWARDS)
        rewards = getattr(pessimism, rewards)
    if callable(rewards):
        rewards = rewards(evidence.data)
    return _checks.per_cell("rewards", _checks.finite_array("rewards", rewards), evidence.shape)


def _reference(reference: Any, evidence: Evidence) -> Array:
    if isinstance(reference, str):
        _checks.one_of("reference", reference, ("uniform", "logging"))
        if reference == "logging":
            return logging_policy(evidence.counts)
        reference = None
    if reference is None:
        return np.full(evidence.shape, 1 / evidence.shape[1])
    table = _checks.distribution("reference", reference, strictly_positive=True)
    return _checks.per_cell("reference", table, evidence.shape)


def _preference(preference: Any, evidence: Evidence, problem: Bandit, rewards: Any) -> Array | str:
    plain = isinstance(rewards, str) and rewards == "mean"
    if preference is None:
        preference = "rows" if plain else "bradley_terry"
    if isinstance(preference, str):
        _checks.one_of("preference", preference, ("rows", "bradley_terry"))
        if preference == "rows" and not plain:
            raise ValueError(
                "preference: expected 'bradley_terry' or an array with rewards other than 'mean', "
                "which 'rows' does not see"
            )
        return preference
    matrix = preferences.check(preference, problem.shape)
    return np.broadcast_to(matrix, (*problem.shape, problem.n_arms))


def logging_policy(data: Data) -> Array:
    """The logging policy as its frequencies tell it, (X, K): (n + ½)/(Σ n + K/2), above 0.

    Parameters
    ----------
    data : Log or Counts
    """
    rows = counts_of(data).n + 0.5
    return rows / rows.sum(axis=-1, keepdims=True)
