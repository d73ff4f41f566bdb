r"""First drafts of objectives, to learn from: written as one would write them, three of them wrong.

None of them is meant to be trained with, :func:`bounded_contrast` excepted. What is wrong with a
draft is said by ``bandit.verify(draft)``; the notebook *Bring your own objective and verify it*
reads the verdicts. ``R`` is the regularized reward r − β (ln π − ln π_ref), shape (..., G).
"""

from __future__ import annotations

from bandit.arrays import held
from bandit.losses import Group, Score, Traits

__all__ = ["bounded_contrast", "forgotten_axis", "mean_reward_baseline", "wrong_sign"]


def wrong_sign(group: Group, *, beta: float) -> Score:
    """Regularized rewards are to be equal; a minus is lost on the way to the weight."""
    regularized = group.reward - beta * (group.log_prob - group.ref_log_prob)
    deviation = regularized - regularized.mean(axis=-1, keepdims=True)
    value = (deviation**2).sum(axis=-1) / (2 * beta)
    weight = deviation
    return Score(value, weight)


def forgotten_axis(group: Group, *, beta: float) -> Score:
    """The same with the sign put right, and a mean over too much."""
    regularized = group.reward - beta * (group.log_prob - group.ref_log_prob)
    deviation = regularized - regularized.mean()
    value = (deviation**2).sum(axis=-1) / (2 * beta)
    weight = -deviation
    return Score(value, weight)


def mean_reward_baseline(group: Group, *, beta: float) -> Score:
    """A policy gradient whose rewards are centered within the group, and only then regularized."""
    centered = group.reward - group.reward.mean(axis=-1, keepdims=True)
    advantage = held(centered - beta * (group.log_prob - group.ref_log_prob))
    value = -(advantage * group.log_prob).sum(axis=-1)
    weight = -advantage
    return Score(value, weight)


def bounded_contrast(group: Group, *, beta: float, scale: float = 1.0) -> Score:
    r"""A contrast of two regularized rewards that no single pair can pull harder than ``scale``.

    .. math:: \text{value} = \frac{s^2}{\beta}\Bigl(\sqrt{1 + (R_1 - R_2)^2/s^2} - 1\Bigr), \qquad
              \text{weight} = \mp\frac{R_1 - R_2}{\sqrt{1 + (R_1 - R_2)^2/s^2}}

    Parameters
    ----------
    group : Group
        ``log_prob``, ``ref_log_prob``, ``reward``: (..., 2).
    beta : float
        Regularization strength, in units of reward.
    scale : float
        s > 0, in units of reward: the least upper bound of a weight. For s → ∞ it is CoPG.

    Returns
    -------
    Score
        ``value`` (...) and ``weight`` (..., 2), in units of reward.
    """
    regularized = group.reward - beta * (group.log_prob - group.ref_log_prob)
    difference = regularized - regularized[..., [1, 0]]
    root = (1 + (difference / scale) ** 2) ** 0.5
    value = scale**2 * (root.mean(axis=-1) - 1) / beta
    weight = -difference / root
    return Score(value, weight)


bounded_contrast.traits = Traits(  # type: ignore[attr-defined]
    requires=frozenset({"reward"}), sizes=(2, 2), exchangeable=True, contrastive=True
)
