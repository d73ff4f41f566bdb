"""From a batch to the gradient of its mean loss, for all runs at once.

Three ways to the same sum, letters as in :mod:`bandit.batches` (with ``P`` = X·K places, and
parameters kept as (P or d, R)):

* :class:`Listed` evaluates the loss once for each kind of group and weights it with its count;
* :class:`Affine` is the same where the loss's weights are affine in the logits: the affine map is
  read off the loss once, and a batch takes two matrix products;
* :class:`Drawn` evaluates the loss on every group of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from bandit import batches, expectations, groups, losses
from bandit._checks import Array
from bandit.batches import Cells, Counts, Drawing, Draws, RowDraws, Streams
from bandit.descent import Learner
from bandit.groups import Setting
from bandit.losses import Group, Loss
from bandit.pairs import LoggedPairs
from bandit.problem import log_softmax

# Incidence matrices up to this many entries are faster dense than sparse.
DENSE_ENTRIES = 2048
# Run i is to come out the same to the last bit however many runs there are. But dense matrix
# products round columns that do not fill a block in their own way, and sums a column that is alone.
BLOCK_OF_PRODUCTS = 8
BLOCK_OF_SUMS = 2


class Task(NamedTuple):
    """What a learner has to know, all of it checked."""

    where: Setting
    loss: Loss
    context_weights: Array  # (X,)
    group_size: int
    batch_size: int
    on_policy: bool
    labels: bool  # whether preferences are drawn
    noise: float  # standard deviation of a completion's reward
    features: Array | None  # (P, d) of a log-linear policy


def learner(task: Task) -> Learner:
    """The cheapest way that is exact for the task."""
    own = losses.traits(task.loss)
    if isinstance(task.where.pairs, LoggedPairs):
        return Drawn(task)
    tallied = not task.noise or own.affine_in_reward
    if not (
        tallied and batches.worth_listing(task.where, task.loss, task.group_size, task.batch_size)
    ):
        return Drawn(task)
    fixed = not (task.noise or task.on_policy or task.where.baseline is not None)
    if own.quadratic and own.contrastive and fixed and "behavior_log_prob" not in own.requires:
        return Affine(task)
    return Listed(task)


# ------------------------------------------------------------------- parameters and policies


def _log_policy(task: Task, theta: Array) -> Array:
    """ln π (R, X, K); for a contrastive loss off-policy any multiple of π serves."""
    logits = theta if task.features is None else task.features @ theta
    logits = logits.reshape(*task.where.reward.shape, -1).transpose(2, 0, 1)
    if losses.traits(task.loss).contrastive and not task.on_policy:
        return logits
    return log_softmax(logits)


def _flat(x: Array) -> Array:
    """(R, X, K) as (P, R), a view where memory allows."""
    return x.transpose(1, 2, 0).reshape(-1, len(x))


def _pull_back(task: Task, log_policy: Array, arm_weight: Array) -> Array:
    """Gradient by the parameters from the batch's mean weight on every place, (P, R)."""
    by_arm = arm_weight.reshape(*task.where.reward.shape, -1).transpose(2, 0, 1)
    gradient = _flat(expectations.logit_gradient(task.loss, log_policy, by_arm))
    return gradient if task.features is None else task.features.T @ gradient


def _drawable(log_policy: Array) -> Array:
    """π to draw from, (R, X, K); uniform where a run has diverged and is NaN anyway."""
    policy = np.exp(log_policy)
    lost = ~np.isfinite(policy).all(axis=-1, keepdims=True)
    return np.where(lost, 1 / policy.shape[-1], policy)


def _moving_baseline(task: Task, log_policy: Array, context: Any) -> Array | None:
    """The baseline of groups of the contexts ``context`` (C,) at these policies, (R, C)."""
    value = groups.baseline_value(task.where, log_policy)
    return None if value is None else value[:, context]


def _small_dense(matrix: sparse.csr_array) -> Any:
    return matrix.toarray() if matrix.shape[0] * matrix.shape[1] <= DENSE_ENTRIES else matrix


# ----------------------------------------------------------------------- batches as counts


class Listed:
    """The loss once for each kind of group."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.cells = batches.list_cells(
            task.where, task.loss, task.group_size, task.context_weights, task.labels
        )
        cells, places = len(self.cells.members), task.where.reward.size
        self.members = np.ascontiguousarray(self.cells.members.T)  # (G, C)
        self.context = self.members[0] // task.where.reward.shape[-1]
        self.onto = _small_dense(groups.incidence(self.members, places) * (1 / task.batch_size))
        dense = task.features is not None or isinstance(self.onto, np.ndarray)
        self.block = BLOCK_OF_PRODUCTS if dense else BLOCK_OF_SUMS
        self.counts = None if task.on_policy else Counts(self.cells, task.batch_size)
        self.numbers = cells * (1 + (task.group_size if task.noise else 0))
        self.ways = task.where.reward.shape[-1] ** task.group_size * self.cells.probability

    def draw(self, streams: tuple[Streams, Streams], steps: int) -> Iterator[Any]:
        """Counts (C, R), or on-policy the streams to draw them from, each with noise (G, C, R)."""
        counts: Any = [streams[0]] * steps
        if self.counts is not None:
            counts = self.counts.draw(streams[0], steps)
        noise: Any = [None] * steps
        if self.task.noise:
            noise = batches.normals(streams[1], steps, self.members.shape)
        yield from zip(counts, noise, strict=True)

    def gradient(self, theta: Array, batch: Any) -> Array:
        """Gradient of the batch's mean loss by the parameters."""
        task, (counts, noise) = self.task, batch
        log_policy = _log_policy(task, theta)
        log_prob = _flat(log_policy)[self.members]  # (G, C, R)
        if self.counts is None:
            counts = self._counts_of(_drawable(log_policy), counts)
        changing: dict[str, Any] = {
            "log_prob": log_prob.T,
            "baseline": _moving_baseline(task, log_policy, self.context),
        }
        if task.on_policy:
            changing["behavior_log_prob"] = log_prob.T
        if noise is not None:
            # The mean over c noisy rewards of a cell: all that an affine loss sees.
            noise = noise * (task.noise / np.sqrt(np.maximum(counts, 1.0)))
            changing["reward"] = self.cells.group.reward + noise.T
        weight = task.loss(self.cells.group._replace(**changing)).weight.T  # (G, C, R)
        # Where nothing was drawn, nothing counts, not even an infinite weight.
        weighted = np.multiply(weight, counts, where=counts > 0, out=np.zeros(weight.shape))
        arm_weight = self.onto @ weighted.reshape(-1, theta.shape[-1])
        return _pull_back(task, log_policy, arm_weight)

    def _counts_of(self, policy: Array, streams: Streams) -> Array:
        drawn = _flat(policy)[self.members].prod(axis=0)
        return batches.counts_of_policy(
            streams, self.ways[:, None] * drawn, self.task.batch_size, self.cells.complete
        )


class Affine(Listed):
    """weights = slope · parameters + offset, gradient = onto · (weights × counts)."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        slope = _slope(task, self.cells)
        reference = task.where.log_reference.ravel()
        at_reference = task.loss(self.cells.group).weight.T.ravel()
        self.offset = (at_reference - slope @ reference)[:, None]
        self.slope = _small_dense(slope)
        if task.features is not None:
            self.slope, self.onto = slope @ task.features, task.features.T @ self.onto

    def draw(self, streams: tuple[Streams, Streams], steps: int) -> Iterator[Any]:
        """Counts (C, R)."""
        yield from self.counts.draw(streams[0], steps)  # type: ignore[union-attr]

    def gradient(self, theta: Array, batch: Any) -> Array:
        """Gradient of the batch's mean loss by the parameters."""
        weight = self.slope @ theta
        weight += self.offset
        by_member = weight.reshape(self.members.shape + theta.shape[1:])  # (G, C, R)
        by_member *= batch
        return self.onto @ weight


def _slope(task: Task, cells: Cells) -> sparse.csr_array:
    """Derivative of every member's weight by the logits, (G·C, P), of a loss where it is constant.

    Differenced over as many nats as log-ratios will come to have: then nothing is lost to rounding.
    """
    where, group = task.where, cells.group
    size = groups.typical_log_ratio(where, task.loss)
    n, g = cells.members.shape
    by_member = np.empty((g, g, n))  # derivative of the weight of i by the log_prob of j
    for j in range(g):
        step = np.zeros((n, g))
        step[:, j] = size
        up = task.loss(group._replace(log_prob=group.log_prob + step)).weight
        down = task.loss(group._replace(log_prob=group.log_prob - step)).weight
        by_member[:, j] = ((up - down) / (2 * size)).T
    row = np.broadcast_to(np.arange(g * n).reshape(g, 1, n), by_member.shape)
    column = np.broadcast_to(cells.members.T[None], by_member.shape)
    entries = (by_member.ravel(), (row.ravel(), column.ravel()))
    return sparse.coo_array(entries, shape=(g * n, where.reward.size)).tocsr()


# ----------------------------------------------------------------------- batches one by one


class Drawn:
    """The loss on every group of the batch."""

    def __init__(self, task: Task) -> None:
        self.task, pairs = task, task.where.pairs
        self.draws: Draws | RowDraws = (
            RowDraws(pairs, task.group_size, task.batch_size, task.labels)
            if isinstance(pairs, LoggedPairs)
            else Draws(
                task.where, task.group_size, task.batch_size, task.context_weights, task.labels
            )
        )
        shape = task.where.reward.shape
        first, second = pairs.told
        with np.errstate(divide="ignore"):
            self.log_behavior = [np.broadcast_to(np.log(m), shape).ravel() for m in (first, second)]
        self.block = BLOCK_OF_SUMS if task.features is None else BLOCK_OF_PRODUCTS
        self.numbers = task.batch_size * (
            self.draws.numbers + (task.group_size if task.noise else 0)
        )

    def draw(self, streams: tuple[Streams, Streams], steps: int) -> Iterator[Any]:
        """Uniform numbers (B, numbers, R) for a batch, and noise (G, B, R)."""
        uniform = self.draws.uniforms(streams[0], steps)
        noise: Any = [None] * steps
        if self.task.noise:
            shape = (self.task.batch_size, self.task.group_size)
            noise = batches.normals(streams[1], steps, shape).swapaxes(1, 2)
        yield from zip(uniform, noise, strict=True)

    def gradient(self, theta: Array, batch: Any) -> Array:
        """Gradient of the batch's mean loss by the parameters."""
        task, (uniform, noise) = self.task, batch
        log_policy = _log_policy(task, theta)
        drawn = self.draws.groups(uniform, _drawable(log_policy) if task.on_policy else None)
        group = self._gather(log_policy, drawn)
        if noise is not None:
            group = group._replace(reward=group.reward + task.noise * noise.T)
        weight = task.loss(group).weight.T  # (G, B, R)
        runs = theta.shape[-1]
        n = task.where.reward.size * runs
        at = (drawn.places * runs + np.arange(runs)).ravel()
        mean_weight = weight.ravel() / task.batch_size
        arm_weight: Any = np.bincount(at, weights=mean_weight, minlength=n)
        return _pull_back(task, log_policy, arm_weight.reshape(-1, runs))

    def _gather(self, log_policy: Array, drawn: Drawing) -> Group:
        """Fields (R, B, G) of the groups drawn."""
        places, labels = drawn.places, drawn.labels
        where, runs = self.task.where, np.arange(places.shape[-1])
        context, arm = np.divmod(places, where.reward.shape[-1])
        log_prob = _flat(log_policy)[places, runs]
        if self.task.on_policy:
            behavior = log_prob
        elif drawn.log_behavior is not None:
            behavior = drawn.log_behavior
        else:
            behavior = np.stack(
                [self.log_behavior[min(i, 1)][place] for i, place in enumerate(places)]
            )
        if labels is None and where.preference is not None and len(places) == 2:
            of = context[0] if len(where.preference) > 1 else 0
            labels = where.preference[of, arm[0], arm[1]]
        baseline = groups.baseline_value(where, log_policy)
        return Group(
            log_prob=log_prob.T,
            ref_log_prob=where.log_reference.ravel()[places].T,
            reward=(where.reward.ravel()[places] if drawn.reward is None else drawn.reward).T,
            preference=None if labels is None else labels.T,
            behavior_log_prob=behavior.T,
            baseline=None if baseline is None else baseline[runs, context[0]].T,
        )
