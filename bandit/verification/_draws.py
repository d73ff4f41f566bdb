"""Random groups and problems to examine a loss on, in numbers short enough to be read."""

from __future__ import annotations

import numpy as np

from bandit._checks import Array
from bandit.losses import Group
from bandit.problem import log_softmax
from bandit.verification._examples import GroupCase, ProblemCase, rounded_simplex

SIZES = (2, 1, 3, 5)
BETAS = (0.5, 1.7)
GROUPS = 8
ARMS = 7


def groups(rng: np.random.Generator, size: int, beta: float, baseline: str | None) -> GroupCase:
    """``GROUPS`` groups (B, G), half of a behavior close to the policy, half of a distant one; with
    a random baseline if there is to be one."""
    shape = (GROUPS, ARMS)
    log_prob = log_softmax(rng.normal(scale=1.2, size=shape))
    reference = log_softmax(rng.normal(scale=0.8, size=shape))
    distant = log_softmax(rng.normal(scale=1.0, size=shape))
    near = log_prob + rng.uniform(-0.15, 0.15, size=shape)
    behavior = np.where(np.arange(GROUPS)[:, None] % 2 == 0, near, distant)
    reward = rng.normal(loc=0.4, scale=1.3, size=shape)
    members = np.argsort(rng.uniform(size=shape), axis=-1)[:, :size]

    def drawn(field: Array) -> Array:
        return np.round(np.take_along_axis(field, members, axis=-1), 3)

    preference = np.round(rng.uniform(0.05, 0.95, size=GROUPS), 3)
    given = np.round(rng.normal(size=GROUPS), 3)
    group = Group(
        log_prob=drawn(np.minimum(log_prob, -0.3)),
        ref_log_prob=drawn(np.minimum(reference, -0.3)),
        reward=drawn(reward),
        preference=preference if size == 2 else None,
        behavior_log_prob=drawn(np.minimum(behavior, -0.3)),
        baseline=given if baseline else None,
    )
    return GroupCase(group, beta)


def problems(rng: np.random.Generator, how_many: int) -> list[ProblemCase]:
    """Up to five problems, the simplest first: what fails there needs no shrinking."""
    listed = [
        _fixed(reward=(1, 0), beta=1, reference=(0.8, 0.2), mu=(0.3, 0.7), other=(0.6, 0.4)),
        _fixed(
            reward=(1, 0, -1),
            beta=0.5,
            reference=(0.5, 0.3, 0.2),
            mu=(0.2, 0.2, 0.6),
            other=(0.4, 0.5, 0.1),
        ),
        random_problem(rng, (2, 3)),
        random_problem(rng, (4,)),
        random_problem(rng, (3, 5)),
    ]
    return listed[:how_many]


def _fixed(*, beta: float, **arrays: tuple[float, ...]) -> ProblemCase:
    given = {name: np.array(values, dtype=float) for name, values in arrays.items()}
    arms = len(given["reward"])
    return ProblemCase(beta=float(beta), logits=np.array([0.0, 1.0, -0.5])[:arms], **given)


def random_problem(rng: np.random.Generator, shape: tuple[int, ...]) -> ProblemCase:
    """A problem of shape ([X,] K): an uneven reference, lopsided rewards, unequal behaviors."""
    beta = round(float(np.exp(rng.uniform(-1, 1))), 1)

    def simplex(size: tuple[int, ...]) -> Array:
        return rounded_simplex(rng.gamma(1.5, size=size) + 0.2, 2)

    return ProblemCase(
        reward=np.round(beta * rng.uniform(-1.5, 2.5, size=shape), 2) + 0.0,
        beta=beta,
        reference=simplex(shape),
        mu=simplex(shape),
        other=simplex(shape),
        logits=np.round(rng.normal(size=shape), 1) + 0.0,
        context_weights=simplex(shape[:1]) if len(shape) == 2 else None,
    )
