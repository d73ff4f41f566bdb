"""What the tests compare with: definitions written out as loops, with nothing of the package but
the losses themselves (which test_losses.py checks against formulas of its own)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bandit.losses import Group


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def with_contexts(array: np.ndarray, problem: Any, axes: int) -> np.ndarray:
    """The array with a context axis, also where all contexts share it."""
    array = np.asarray(array, dtype=float)
    contexts = problem.n_contexts or 1
    return np.broadcast_to(array, (contexts, *array.shape[array.ndim - axes :]))


def contexts_of(problem: Any) -> Iterator[tuple[int, float, np.ndarray, np.ndarray]]:
    """Index, weight, rewards and reference of each context."""
    rewards, references = np.atleast_2d(problem.reward), np.atleast_2d(problem.reference)
    rho = [1.0] if problem.n_contexts is None else problem.context_weights
    for x, (weight, r, ref) in enumerate(zip(rho, rewards, references, strict=True)):
        yield x, float(weight), r, ref


def every_group(nu: np.ndarray, mu: np.ndarray | None, size: int) -> Iterator[tuple]:
    """(arms, probability) of every ordered group: pairs from ν, else independent draws from μ."""
    arms = len(nu) if mu is None else len(mu)
    for members in itertools.product(range(arms), repeat=size):
        if size == 2 and nu is not None:
            yield members, float(nu[members])
        else:
            yield members, math.prod(float(mu[y]) for y in members)


def group_gradients(
    problem: Any,
    loss: Callable,
    logits: np.ndarray,
    nu: np.ndarray | None,
    preference: np.ndarray | None = None,
    baseline: Any = None,
    mu: np.ndarray | None = None,
    group_size: int = 2,
) -> Iterator[tuple[int, float, float, float, np.ndarray]]:
    """(context, ρ, probability, value, gradient by that context's logits) of every group."""
    logits = with_contexts(logits, problem, 1)
    nu = None if nu is None else with_contexts(nu, problem, 2)
    mu = None if mu is None else with_contexts(mu, problem, 1)
    preference = None if preference is None else with_contexts(preference, problem, 2)
    for x, rho, r, ref in contexts_of(problem):
        log_policy = log_softmax(logits[x])
        policy = np.exp(log_policy)
        first = nu[x].sum(axis=1) if nu is not None else mu[x]
        second = nu[x].sum(axis=0) if nu is not None else mu[x]
        b = baseline_of(baseline, x, policy, r, ref, problem.beta, first, second)
        for members, probability in every_group(
            None if nu is None else nu[x], None if mu is None else mu[x], group_size
        ):
            if probability == 0:
                continue
            at = list(members)
            drawn_from = [first, second] if group_size == 2 else [first] * group_size
            group = Group(
                log_prob=log_policy[at],
                ref_log_prob=np.log(ref[at]),
                reward=r[at],
                preference=None if preference is None else preference[x][at[0], at[1]],
                behavior_log_prob=np.log([d[y] for d, y in zip(drawn_from, at, strict=True)]),
                baseline=b,
            )
            score = loss(group)
            gradient = np.zeros(len(r))
            for y, weight in zip(at, score.weight, strict=True):
                gradient[y] += weight
                gradient -= weight * policy
            yield x, rho, probability, float(score.value), gradient


def baseline_of(
    baseline: Any,
    x: int,
    policy: np.ndarray,
    r: np.ndarray,
    ref: np.ndarray,
    beta: float,
    *drawn: np.ndarray,
) -> float | None:
    """The baseline of context ``x``: what the name says, or the number given for it."""
    if baseline is None:
        return None
    if isinstance(baseline, str):
        if baseline == "optimal":
            return beta * math.log(sum(q * math.exp(a / beta) for q, a in zip(ref, r, strict=True)))
        weights = policy if baseline == "value" else (drawn[0] + drawn[1]) / 2
        averaged = r if baseline == "reward" else r - beta * np.log(policy / ref)
        return float(sum(w * a for w, a in zip(weights, averaged, strict=True)))
    return float(baseline if np.ndim(baseline) == 0 else baseline[x])


def population(problem: Any, loss: Callable, logits: np.ndarray, nu: Any, *args: Any, **data: Any):
    """Value, and gradient shaped like the problem, by enumeration of all groups."""
    value, gradient = 0.0, np.zeros(np.atleast_2d(problem.reward).shape)
    for x, rho, probability, one, slope in group_gradients(
        problem, loss, logits, nu, *args, **data
    ):
        value += rho * probability * one
        gradient[x] += rho * probability * slope
    return value, gradient.reshape(problem.shape)


def covariance(problem: Any, loss: Callable, logits: np.ndarray, nu: Any, *args: Any, **data: Any):
    """Covariance ([X,] K, K) of the gradient of one group given the context."""
    arms = problem.n_arms
    contexts = problem.n_contexts or 1
    mean, square = np.zeros((contexts, arms)), np.zeros((contexts, arms, arms))
    for x, _, probability, _, slope in group_gradients(problem, loss, logits, nu, *args, **data):
        mean[x] += probability * slope
        square[x] += probability * np.outer(slope, slope)
    result = square - mean[:, :, None] * mean[:, None, :]
    return result.reshape(*problem.shape, arms)


def central_differences(
    function: Callable[[np.ndarray], Any], at: np.ndarray, step: float = 1e-3
) -> np.ndarray:
    """Derivative by each entry of ``at`` (entries first), to sixth order in ``step``."""
    at = np.asarray(at, dtype=float)
    slopes = []
    for index in np.ndindex(at.shape):
        unit = np.zeros(at.shape)
        unit[index] = step
        difference = [
            np.asarray(function(at + k * unit)) - np.asarray(function(at - k * unit))
            for k in (1, 2, 3)
        ]
        slopes.append((45 * difference[0] - 9 * difference[1] + difference[2]) / (60 * step))
    return np.array(slopes).reshape(at.shape + np.shape(slopes[0]))


def components(joined: np.ndarray) -> list[tuple[int, ...]]:
    """Connected components of a boolean matrix, by union-find."""
    parent = list(range(len(joined)))

    def root(y: int) -> int:
        while parent[y] != y:
            y = parent[y]
        return y

    for i, j in zip(*np.nonzero(joined), strict=True):
        parent[root(int(i))] = root(int(j))
    parts: dict[int, list[int]] = {}
    for y in range(len(joined)):
        parts.setdefault(root(y), []).append(y)
    return sorted(tuple(part) for part in parts.values())
