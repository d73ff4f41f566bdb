"""Learning from batches of rows: the losses see pairs of rows with their own, noisy rewards.

Every system of :mod:`bandit._evidence` is trained as a context of its own, so that what is trained
has the exact solution for its limit. Letters: ``S`` systems of at least two arms.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit import preferences
from bandit._checks import Array
from bandit._evidence import Evidence, Places
from bandit._learning import Learned, Lesson, baseline_of
from bandit.data.log import Log
from bandit.descent import DEFAULT_RECORDS
from bandit.history import History
from bandit.pairs import from_rows
from bandit.policies import LogLinear
from bandit.problem import Bandit, log_softmax
from bandit.training import train

# What an arm outside a system has for a reference: as good as nothing, yet its logarithm is finite.
NOTHING = 1e-300
# Records of a history together hold at most this many logits, if there are at least two.
MOST_LOGITS = 1 << 24


class Rows(NamedTuple):
    """Rows to train on, all (n,); propensities None if nothing reads them."""

    place: Places
    reward: Array
    propensity: Array | None


class Systems(NamedTuple):
    """The systems of at least two arms: their ``context`` (S,), which arms are ``inside`` (S, K),
    and ``of`` (X·K,), the system of each place or −1."""

    context: Places
    inside: NDArray[np.bool_]
    of: Places


def learn_from_batches(
    lesson: Lesson, policy: LogLinear | None, *, steps: int, **options: Any
) -> tuple[Learned, History]:
    """Train on pairs of rows; ``options`` as for :func:`bandit.train`."""
    log = lesson.evidence.data
    if not isinstance(log, Log):
        raise ValueError("data: expected a Log with solver='minibatch', got Counts, without rows")
    rows, problem, systems = _rows(lesson, log), lesson.problem, None
    context, arm = np.divmod(rows.place, problem.n_arms)
    of = np.arange(problem.shape[0])
    if policy is None:
        systems = _systems(lesson.evidence)
        mine = systems.of[rows.place]
        kept = mine >= 0
        told = None if rows.propensity is None else rows.propensity[kept]
        rows = Rows(rows.place[kept], rows.reward[kept], told)
        context, arm, of = mine[kept], arm[kept], systems.context
        if not rows.place.size:
            raise ValueError("data: expected two arms to compare in some context, got none")
        problem = _as_contexts(problem, systems)
    records = max(1, min(DEFAULT_RECORDS, MOST_LOGITS // problem.reward.size))
    history = train(
        problem,
        lesson.method.loss,
        pairs=from_rows(
            context,
            arm,
            rows.reward,
            (len(of), problem.n_arms),
            propensities=rows.propensity,
            consecutive=lesson.evidence.compared is not None,
        ),
        preference=_preference(lesson, problem, of),
        # What the rows say comes drawn with them; anything else is known as a probability.
        preference_labels="sampled" if _by_rows(lesson) else "probability",
        baseline=baseline_of(lesson, rows.reward),
        policy=policy,
        steps=steps,
        record_every=max(1, steps // records),
        **options,
    )
    if systems is not None:
        history = _in_place(lesson, history, systems)
    return _learned(history), history


def _by_rows(lesson: Lesson) -> bool:
    return isinstance(lesson.preference, str) and lesson.preference == "rows"


def _rows(lesson: Lesson, log: Log) -> Rows:
    """The rows of the log and those assumed, moved so that cells have their estimated rewards."""
    evidence = lesson.evidence
    place = log.contexts * log.n_arms + log.arms
    reward = log.rewards
    if lesson.shift is not None:
        reward = reward + lesson.shift.ravel()[place]
    assumed = np.flatnonzero((evidence.rows > evidence.counts.n).ravel())
    propensity = None
    if lesson.behavior is not None and log.propensities is not None:
        told = lesson.behavior.ravel()[assumed]
        propensity = np.concatenate([log.propensities, told])
    return Rows(
        np.concatenate([place, assumed]),
        np.concatenate([reward, lesson.problem.reward.ravel()[assumed]]),
        propensity,
    )


def _systems(evidence: Evidence) -> Systems:
    contexts, arms = evidence.shape
    groups = [places for places in evidence.systems if places.shape[1] > 1]
    of = np.full(contexts * arms, -1)
    n = 0
    for places in groups:
        of[places] = n + np.arange(len(places))[:, None]
        n += len(places)
    context = np.concatenate([np.empty(0, np.int64), *(p[:, 0] // arms for p in groups)])
    inside = of.reshape(contexts, arms)[context] == np.arange(n)[:, None]
    return Systems(context, inside, of)


def _as_contexts(problem: Bandit, systems: Systems) -> Bandit:
    """A bandit with a context for each system; contexts come as often as their rows anyway."""
    reference = np.where(systems.inside, problem.reference[systems.context], 0.0)
    reference = reference / reference.sum(axis=-1, keepdims=True)
    return Bandit(problem.reward[systems.context], problem.beta, np.maximum(reference, NOTHING))


def _preference(lesson: Lesson, problem: Bandit, of: Places) -> Array | None:
    if lesson.preference is None:
        return None
    if not isinstance(lesson.preference, str):
        return lesson.preference[of]
    if lesson.preference == "rows":
        return np.full((problem.n_arms, problem.n_arms), 0.5)  # labels take its place
    return preferences.bradley_terry(problem.reward)


def _in_place(lesson: Lesson, history: History, systems: Systems) -> History:
    """The history of the whole problem: every system with the mass the reference gives it."""
    problem = lesson.problem
    logits = np.broadcast_to(
        problem.log_reference, (*history.logits.shape[:2], *problem.shape)
    ).copy()
    for s, (x, inside) in enumerate(zip(systems.context, systems.inside, strict=True)):
        mass = np.logaddexp.reduce(problem.log_reference[x, inside])
        logits[:, :, x, inside] = log_softmax(history.logits[:, :, s, inside]) + mass
    return dataclasses.replace(history, problem=problem, logits=logits)


def _learned(history: History) -> Learned:
    log_policy = log_softmax(history.logits[-1, 0])
    last = int(history.steps[-1])
    theta = None if history.theta is None else history.theta[-1, 0]
    if not np.isfinite(log_policy).all():
        raise ValueError(
            "optimizer: expected a smaller step size, training diverged: logits not finite"
        )
    message = f"trained for {last} steps" + (", then interrupted" if history.interrupted else "")
    return Learned(log_policy, not history.interrupted, message, theta, exact=False)
