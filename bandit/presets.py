"""Ready-made problems and the catalog of methods that the figures, the notebook and the command
line share."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from bandit import losses
from bandit._checks import Array, shown
from bandit.losses import Loss
from bandit.problem import Bandit


class Method(NamedTuple):
    """A loss and the baseline it is run with, under the name used in tables and pictures."""

    label: str
    loss: Loss
    baseline: str | None = None


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "copg": Method("CoPG", losses.copg),
        "rloo": Method("RLOO", losses.rloo),
        "log_variance": Method("log-variance", losses.log_variance),
        "rebel": Method("REBEL, one round", losses.rebel),
        "value_regression": Method("value regression (DRO)", losses.value_regression, "behavior"),
        "trajectory_balance": Method(
            "trajectory balance, learned Z", losses.trajectory_balance, "behavior"
        ),
        "optimal_advantage": Method("A*-PO, exact V*", losses.value_regression, "optimal"),
        "policy_gradient": Method("PG, no baseline", losses.policy_gradient),
        "policy_gradient_value": Method("PG, value baseline", losses.policy_gradient, "value"),
        "policy_gradient_behavior": Method(
            "PG, behavior baseline", losses.policy_gradient, "behavior"
        ),
        "pmd_mean": Method("mirror descent, mean reward", losses.pmd_mean, "reward"),
        "asymmetric_reinforce": Method(
            "asymmetric REINFORCE", losses.asymmetric_reinforce, "behavior"
        ),
        "importance_sampling": Method("PG, importance weights", losses.importance_sampling),
        "ppo_clip": Method("PPO clip", losses.ppo_clip, "value"),
        "clipped_objective": Method("clipped objective", losses.clipped_objective, "value"),
        "grpo": Method("GRPO", losses.grpo),
        "reward_weighted": Method("reward-weighted", losses.reward_weighted),
        "ipo": Method("IPO", losses.ipo),
        "dpo": Method("DPO", losses.dpo),
        "dpo_with_data_term": Method("DPO + data term", losses.dpo_with_data_term),
        "slic": Method("SLiC hinge", losses.slic),
    }
)
"""Name → method, in the order of tables."""


def method(name: str) -> Method:
    """The method called ``name``; a ValueError that lists the names if there is none."""
    if name not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}; got {shown(name)}")
    return METHODS[name]


def three_armed_bandit() -> Bandit:
    """Our three-armed bandit: rewards (2.5, 2, 1), uniform reference, β = 0.5."""
    return Bandit(reward=[2.5, 2.0, 1.0], beta=0.5)


def three_armed_behavior() -> Array:
    """The behavior that goes with it, μ = (0.1, 0.2, 0.7): it favors the worst arm."""
    return np.array([0.1, 0.2, 0.7])
