"""What to know of a learned policy before trusting it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from bandit import groups, losses, ope
from bandit._estimate import implausible_weights
from bandit._evidence import each_context
from bandit._learning import Learned, Lesson
from bandit.policies import LogLinear

Labels = tuple[Hashable, ...]


@dataclass(frozen=True)
class Diagnostics:
    """How far to trust a learned policy.

    Attributes
    ----------
    rows : int
        Of the log.
    unseen : tuple of tuples
        The labels of the arms without rows, a tuple per context.
    components : tuple of tuples of tuples
        The labels of the arms of each component of the comparison graph, per context: only ratios
        inside a component come from the log.
    converged : bool
        Whether the policy is the solution that was asked for; after training by batches that is
        not known, and False says that it was interrupted.
    message : str
        What happened, in a sentence.
    effective_sample_size, max_weight : float
        Of the learned policy on its own log; NaN without propensities.
    kl : float
        KL(π‖π_ref) in nats, contexts weighted by their rows.
    value, reference_value : float
        What the estimated rewards promise of the policy, and of the reference. The log that chose
        the policy also judges it here: expect less.
    warnings : tuple of str
        What to be wary of, in sentences.
    """

    rows: int
    unseen: tuple[Labels, ...]
    components: tuple[tuple[Labels, ...], ...]
    converged: bool
    message: str
    effective_sample_size: float
    max_weight: float
    kl: float
    value: float
    reference_value: float
    warnings: tuple[str, ...] = ()


def diagnose(lesson: Lesson, learned: Learned, policy: LogLinear | None) -> Diagnostics:
    """What can be told of a learned policy from the log it was learned from."""
    evidence, problem = lesson.evidence, lesson.problem
    counts, pi = evidence.counts, np.exp(learned.log_policy)
    arms = counts.arm_labels
    unseen = tuple(tuple(arms[k] for k in np.flatnonzero(row == 0)) for row in counts.n)
    components = tuple(
        tuple(tuple(arms[k] for k in part) for part in parts)
        for parts in each_context(counts.shape, evidence.systems)
    )
    size, largest = float("nan"), float("nan")
    if counts.inverse is not None:
        estimate = ope.Estimate.of("weights", (float("nan"), float("nan")), counts, pi)
        size, largest = estimate.effective_sample_size, estimate.max_weight
    return Diagnostics(
        rows=len(counts),
        unseen=unseen,
        components=components,
        converged=learned.converged,
        message=learned.message,
        effective_sample_size=size,
        max_weight=largest,
        kl=float(problem.kl(pi)),
        value=float(problem.expected_reward(pi)),
        reference_value=float(problem.expected_reward(problem.reference)),
        warnings=tuple(_worries(lesson, learned, policy, size)),
    )


def _worries(lesson: Lesson, learned: Learned, policy: LogLinear | None, size: float) -> list[str]:
    evidence, loss = lesson.evidence, lesson.method.loss
    found = [] if learned.converged else [learned.message]
    empty = int((evidence.counts.n == 0).sum())
    if empty and policy is None:
        assumed = (evidence.rows > evidence.counts.n).any()
        fate = (
            "each counts as one row of its estimated reward"
            if assumed
            else "each keeps its reference probability"
        )
        found.append(f"{empty} of {evidence.counts.n.size} cells have no rows: {fate}")
    if not any(places.shape[1] > 1 for places in evidence.systems) and policy is None:
        found.append("no context has two arms to compare: there is nothing to learn from the log")
    if evidence.compared is not None and policy is None:
        parts = sum(len(places) for places in evidence.systems if places.shape[1] > 1)
        met = int((evidence.counts.n.sum(axis=1) > 0).sum())
        if parts > met:
            found.append(
                f"the comparisons fall into {parts} components in {met} contexts: only ratios "
                "inside each come from the log, and their masses from the reference"
            )
    own = losses.traits(loss)
    exact = own.affine_in_reward or "preference" in own.requires
    if learned.exact and not (exact or groups.name_of(loss) == "reward_weighted"):
        found.append(
            f"{groups.name_of(loss)} is not affine in the reward: the exact solver saw the mean of "
            "each cell, not its rows"
        )
    if "behavior_log_prob" in own.requires and lesson.behavior is None:
        found.append(
            "the log has no propensities: importance weights use the frequencies of its arms"
        )
    n = len(evidence.counts)
    if evidence.counts.inverse is not None:
        wrong = implausible_weights(evidence.counts, np.exp(learned.log_policy))
        found += [wrong] if wrong else []
    if size < ope.LOW_OVERLAP * n:
        found.append(
            f"the effective sample size of the policy is {size:.3g} of {n} rows: what the log says "
            "of its value is hardly more than noise"
        )
    return found
