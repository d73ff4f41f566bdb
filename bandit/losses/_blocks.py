"""The building blocks of the formulas in :mod:`bandit.losses`."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from bandit._checks import shown
from bandit.arrays import held as hold
from bandit.contract import Group


def total(x: Any) -> Any:
    """The sum over the group, the last axis."""
    return array_namespace(x).sum(x, axis=-1)


def log_ratio_of(group: Group) -> Any:
    """ln π(y_i) − ln π_ref(y_i), in nats."""
    return group.log_prob - group.ref_log_prob


def regularized_reward(group: Group, beta: float) -> Any:
    """R_i = r_i − β (ln π(y_i) − ln π_ref(y_i)), in units of reward."""
    return group.reward - beta * log_ratio_of(group)


def minus_mean_of_others(x: Any) -> Any:
    """x_i − mean over j ≠ i of x_j, in O(G): G/(G−1) times the deviation from the group's mean."""
    size = x.shape[-1]
    mean = array_namespace(x).mean(x, axis=-1, keepdims=True)
    return (x - mean) * (size / (size - 1))


def advantage_of(group: Group, beta: float, baseline: str) -> Any:
    """The regularized reward less a baseline, held constant."""
    regularized = hold(regularized_reward(group, beta))
    if baseline in ("none", "leave_one_out") and group.baseline is not None:
        raise ValueError(
            f"baseline: expected 'given' because group.baseline is set, got {shown(baseline)}"
        )
    if baseline == "none":
        return regularized
    if baseline == "given":
        return regularized - per_member(given(group))
    if baseline == "leave_one_out":
        if regularized.shape[-1] < 2:
            raise ValueError(
                "baseline: expected groups of at least 2 for 'leave_one_out', got groups of 1"
            )
        return minus_mean_of_others(regularized)
    raise ValueError(f"baseline: expected none, given or leave_one_out; got {shown(baseline)}")


def given(group: Group) -> Any:
    """The group's baseline; a ValueError if there is none."""
    if group.baseline is None:
        raise ValueError("baseline: expected group.baseline for 'given', got None")
    return group.baseline


def per_member(x: Any) -> Any:
    """A per-group quantity as it meets the group axis; plain numbers meet it as they are."""
    return x[..., None] if getattr(x, "shape", ()) else x


def ratio_of(group: Group) -> Any:
    """The importance ratio ρ_i = π(y_i)/μ(y_i)."""
    return array_namespace(group.log_prob).exp(group.log_prob - group.behavior_log_prob)


def times(ratio: Any, advantage: Any) -> Any:
    """ρ A: 0 where A is, also for a ratio beyond the largest number."""
    xp = array_namespace(advantage)
    return xp.where(advantage == 0, xp.zeros_like(ratio), ratio) * advantage


def difference(x: Any) -> Any:
    """x_1 − x_2 of a pair."""
    return x[..., 0] - x[..., 1]


def opposed(slope: Any) -> Any:
    """The weights of a pair from the derivative by Δ: one up, the other down."""
    return array_namespace(slope).stack([slope, -slope], axis=-1)


def sigmoid_and_cost(z: Any) -> tuple[Any, Any]:
    """σ(z) and −ln σ(z), without overflow on either side."""
    xp = array_namespace(z)
    cost = xp.logaddexp(xp.zeros_like(z), -z)
    return xp.exp(-cost), cost


def within_clip(advantage: Any, ratio: Any, epsilon: float) -> Any:
    """Where the unclipped branch of PPO's minimum is the active one."""
    too_likely = (advantage > 0) & (ratio > 1 + epsilon)
    too_rare = (advantage < 0) & (ratio < 1 - epsilon)
    return ~(too_likely | too_rare)
