"""Drawing batches of groups: as tables of counts where groups are of few kinds, else one by one.

Letters: ``R`` runs, ``C`` kinds of group (cells), ``B`` groups in a batch, ``G`` arms in a group,
``S`` steps drawn together. Arms of all contexts are numbered through: arm ``y`` of context ``x`` is
place ``x·K + y``, so that from here on a context is nothing special. The runs' axis is the last one
in memory: every array operation works on all runs at once.

Each run has random streams of its own, read in the order of the steps. So the numbers of a run
depend neither on how many runs there are nor on how many steps are drawn together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import gammaln, xlog1py, xlogy

from bandit import groups, losses
from bandit._checks import Array
from bandit.groups import Setting
from bandit.losses import Group, Loss
from bandit.pairs import LoggedPairs

Streams = Sequence[np.random.Generator]

# Up to this many cells are drawn as counts even when a batch holds fewer groups.
FEW_CELLS = 64
MOST_CELLS = 1 << 16
# Binomials of this many table entries together are looked up instead of computed.
MOST_TABLE_ENTRIES = 1 << 18


class Cells(NamedTuple):
    """All kinds of group that matter; a batch is how often each occurs."""

    members: Any  # (C, G) places
    probability: Array  # (C,), on-policy: without the policy's part
    group: Group  # fields (C, G) and (C,), at the reference policy
    complete: bool  # whether every group is in some cell


def worth_listing(where: Setting, loss: Loss, group_size: int, batch_size: int) -> bool:
    """Whether a table of counts is no longer than the batch itself."""
    contexts, arms = where.reward.shape
    if sparse.issparse(where.pairs.joint):
        cells = contexts * where.pairs.joint.nnz
    elif losses.traits(loss).exchangeable:
        cells = contexts * math.comb(arms + group_size - 1, group_size)
    else:
        cells = contexts * arms**group_size
    return cells <= min(max(batch_size, FEW_CELLS), MOST_CELLS)


def list_cells(
    where: Setting, loss: Loss, group_size: int, context_weights: Array, labels: bool
) -> Cells:
    """The kinds of group with their probabilities; with ``labels``, once for either preference.

    Groups that cannot occur are left out, and of a contrastive loss those whose members are all the
    same arm: their weights cancel.
    """
    arms = where.reward.shape[-1]
    contrastive = losses.traits(loss).contrastive
    first_place = arms * np.arange(len(where.reward))[:, None, None]
    found = []
    for listing in groups.listings(where, loss, group_size):
        probability = context_weights[:, None] * listing.probability  # (X, N)
        keep = probability > 0
        if contrastive:
            keep &= (listing.members != listing.members[:, :1]).any(axis=-1)
        group = groups.gather(where, where.log_reference, listing.members)
        places = listing.members + first_place  # (X, N, G)
        found.append((places[keep], probability[keep], *(_kept(f, keep) for f in group)))
    parts: list[Any] = [
        None if part[0] is None else np.concatenate(part) for part in zip(*found, strict=True)
    ]
    members, probability, group = parts[0], parts[1], Group(*parts[2:])
    if labels:
        preferred = group.preference
        members, probability = np.tile(members, (2, 1)), np.tile(probability, 2)
        group = Group(*(None if f is None else np.concatenate([f, f]) for f in group))
        label = np.repeat([1.0, 0.0], len(preferred))
        probability = probability * np.concatenate([preferred, 1 - preferred])
        keep = probability > 0
        group = Group(*(_kept(f, keep) for f in group._replace(preference=label)))
        members, probability = members[keep], probability[keep]
    return Cells(members, probability, group, complete=not contrastive)


def _kept(field: Any, keep: Any) -> Any:
    return None if field is None else field[keep]


# ------------------------------------------------------------------------------- counts of cells


class Counts:
    """Draws how often each cell occurs in batches of ``batch_size`` groups.

    Small batches go through tables of the conditional binomials: a uniform number and a look-up
    each, several times faster than numpy's inversion.
    """

    def __init__(self, cells: Cells, batch_size: int) -> None:
        self.batch_size = batch_size
        self.n_cells = len(cells.probability)
        p = cells.probability
        if not cells.complete:
            p = np.append(p, max(0.0, 1.0 - p.sum()))
        self.probability = p
        self.tables: tuple[Array, Any] | None = None
        if (len(p) - 1) * (batch_size + 1) ** 2 <= MOST_TABLE_ENTRIES:
            left = np.cumsum(p[::-1])[::-1]
            self.tables = _alias_tables(_binomials(p[:-1] / left[:-1], batch_size))

    def draw(self, streams: Streams, steps: int) -> Array:
        """Counts (S, C, R), as floats."""
        if self.tables is not None:
            return self._look_up(streams, steps)
        counts = np.empty((steps, self.n_cells, len(streams)))
        for run, stream in enumerate(streams):
            table = stream.multinomial(self.batch_size, self.probability, size=steps)
            counts[:, :, run] = table[:, : self.n_cells]
        return counts

    def _look_up(self, streams: Streams, steps: int) -> Array:
        share, other = self.tables  # type: ignore[misc]
        width, binomials = self.batch_size + 1, len(self.probability) - 1
        uniform = uniforms(streams, steps, (binomials,))
        left = np.full((steps, len(streams)), self.batch_size)
        counts = np.empty((steps, self.n_cells, len(streams)))
        for j in range(binomials):
            x = uniform[:, j] * width
            column = x.astype(np.intp)
            place = (j * width + left) * width + column
            count = np.where(x - column < share.take(place), column, other.take(place))
            left -= count
            counts[:, j] = count
        if binomials < self.n_cells:
            counts[:, binomials] = left
        return counts


def _binomials(p: Array, n: int) -> Array:
    """Probability of each count 0..n of m ≤ n draws, (len(p), n + 1, n + 1)."""
    m, k = np.ogrid[: n + 1, : n + 1]
    with np.errstate(invalid="ignore"):
        ways = gammaln(m + 1) - gammaln(k + 1) - gammaln(np.maximum(m - k, 0) + 1)
        log_p = xlogy(k, p[:, None, None]) + xlog1py(np.maximum(m - k, 0), -p[:, None, None])
    mass = np.where(k <= m, np.exp(ways + log_p), 0.0)
    return mass / mass.sum(axis=-1, keepdims=True)


def _alias_tables(mass: Array) -> tuple[Array, Any]:
    """Walker's alias method, for every row of probabilities (..., M); both results are flat.

    A uniformly drawn column keeps itself with probability ``share``, else it stands for ``other``.
    """
    width = mass.shape[-1]
    height = mass.reshape(-1, width) * width
    share, other = np.ones(height.shape), np.tile(np.arange(width), (len(height), 1))
    rows = np.arange(len(height))
    while True:
        # The lowest column is filled up to 1 from the highest, which then counts with what is left.
        low, high = height.argmin(axis=-1), height.argmax(axis=-1)
        lowest = height[rows, low]
        open_ = lowest < 1 - 1e-12
        if not open_.any():
            return share.ravel(), other.ravel()
        row, low, high, lowest = rows[open_], low[open_], high[open_], lowest[open_]
        share[row, low], other[row, low] = lowest, high
        height[row, high] -= 1 - lowest
        height[row, low] = 1.0


def counts_of_policy(
    streams: Streams, probability: Array, batch_size: int, complete: bool
) -> Array:
    """Counts (C, R) of one batch per run, from probabilities (C, R) of the run's own."""
    cells = len(probability)
    if not complete:
        rest = np.maximum(0.0, 1.0 - probability.sum(axis=0))
        probability = np.concatenate([probability, rest[None]])
    probability = probability / probability.sum(axis=0)
    counts = [
        stream.multinomial(batch_size, probability[:, run])[:cells]
        for run, stream in enumerate(streams)
    ]
    return np.stack(counts, axis=-1).astype(np.float64)


# --------------------------------------------------------------------------------- one by one


def uniforms(streams: Streams, steps: int, shape: tuple[int, ...]) -> Array:
    """Uniform numbers in [0, 1), (S, *shape, R)."""
    numbers = np.empty((steps, *shape, len(streams)))
    for run, stream in enumerate(streams):
        numbers[..., run] = stream.random((steps, *shape))
    return numbers


def normals(streams: Streams, steps: int, shape: tuple[int, ...]) -> Array:
    """Standard normal numbers, (S, *shape, R)."""
    numbers = np.empty((steps, *shape, len(streams)))
    for run, stream in enumerate(streams):
        numbers[..., run] = stream.standard_normal((steps, *shape))
    return numbers


def ladder(probability: Array) -> Array:
    """Cumulative probabilities of the rows of (L, K), end to end: row l climbs from l to l + 1."""
    steps = np.cumsum(probability, axis=-1)
    return (steps / steps[:, -1:] + np.arange(len(steps))[:, None]).ravel()


def climb(rungs: Array, n_rows: int, row: Any, uniform: Array) -> Any:
    """The arm that ``uniform`` falls on in ``row`` of a ladder."""
    height = np.minimum(row + uniform, np.nextafter(row + 1.0, 0.0))
    width = len(rungs) // n_rows
    return np.searchsorted(rungs, height, side="right") - width * np.asarray(row)


class Drawing(NamedTuple):
    """A batch of groups drawn one by one: places (G, B, R), and what else was drawn."""

    places: Any
    labels: Array | None = None  # (B, R)
    reward: Array | None = None  # (G, B, R), where rows have their own
    log_behavior: Array | None = None  # (G, B, R)


class Draws:
    """Draws groups one by one, with labels if asked for."""

    def __init__(
        self, where: Setting, group_size: int, batch_size: int, context_weights: Array, labels: bool
    ) -> None:
        self.where, self.size, self.batch_size, self.labels = where, group_size, batch_size, labels
        self.contexts = len(context_weights)
        self.context_rungs = ladder(context_weights[None])
        pairs = where.pairs
        self.table: Any = None
        if pairs.joint is None or group_size != 2:
            first = ladder(pairs.first)
            second = first if pairs.first is pairs.second else ladder(pairs.second)
            self.rungs = [first] + [second] * (group_size - 1)
            self.rows = len(pairs.first)
        elif sparse.issparse(pairs.joint):
            joint = pairs.joint.tocoo()
            self.table, self.rows = np.stack([joint.row, joint.col]), 1
            self.rungs = [ladder(joint.data[None])]
        else:
            arms = pairs.joint.shape[-1]
            self.table = np.stack(np.divmod(np.arange(arms * arms), arms))
            self.rows = len(pairs.joint)
            self.rungs = [ladder(pairs.joint.reshape(self.rows, -1))]

    @property
    def numbers(self) -> int:
        """Uniform numbers per group."""
        return len(self.rungs) + (self.contexts > 1) + self.labels

    def uniforms(self, streams: Streams, steps: int) -> Array:
        """The random numbers of S batches, (S, B, numbers, R)."""
        return uniforms(streams, steps, (self.batch_size, self.numbers))

    def groups(self, uniform: Array, policy: Array | None = None) -> Drawing:
        """The groups that ``uniform`` (B, numbers, R) stands for.

        On-policy they are drawn from ``policy`` (R, X, K).
        """
        arms, runs = self.where.reward.shape[-1], uniform.shape[-1]
        context = np.zeros((self.batch_size, runs), dtype=np.intp)
        if self.contexts > 1:
            context = climb(self.context_rungs, 1, 0, uniform[:, -1 - self.labels])
        rungs, rows, row = self.rungs, self.rows, context if self.rows > 1 else 0
        if policy is not None:
            rungs = [ladder(policy.reshape(-1, arms))] * self.size
            rows, row = runs * self.contexts, np.arange(runs) * self.contexts + context
        drawn = [climb(rung, rows, row, uniform[:, i]) for i, rung in enumerate(rungs)]
        members = self.table[:, drawn[0]] if self.table is not None else np.stack(drawn)
        labels = None
        if self.labels:
            preference = self.where.preference
            of = context if len(preference) > 1 else 0  # type: ignore[arg-type]
            likely = preference[of, members[0], members[1]]  # type: ignore[index]
            labels = (uniform[:, -1] < likely).astype(np.float64)
        return Drawing(members + arms * context, labels)


class RowDraws:
    """Draws groups of rows of a log: with a row comes another of its context, or the one it was
    logged with. A label is what their rewards say."""

    def __init__(self, pairs: LoggedPairs, group_size: int, batch_size: int, labels: bool) -> None:
        self.pairs, self.size, self.batch_size, self.labels = pairs, group_size, batch_size, labels
        self.arms = pairs.n_arms

    @property
    def numbers(self) -> int:
        """Uniform numbers per group."""
        return 1 if self.pairs.starts is None else self.size

    def uniforms(self, streams: Streams, steps: int) -> Array:
        """The random numbers of S batches, (S, B, numbers, R)."""
        return uniforms(streams, steps, (self.batch_size, self.numbers))

    def groups(self, uniform: Array, policy: Array | None = None) -> Drawing:
        """The groups that ``uniform`` (B, numbers, R) stands for; never from a policy."""
        pairs, n = self.pairs, np.asarray(self.pairs.places.size)
        if pairs.starts is None or pairs.sizes is None:
            first = 2 * _one_of(n // 2, uniform[:, 0])
            rows = np.stack([first, first + 1])
        else:
            first = _one_of(n, uniform[:, 0])
            context = pairs.places[first] // self.arms
            others = [
                pairs.starts[context] + _one_of(pairs.sizes[context], uniform[:, i])
                for i in range(1, self.size)
            ]
            rows = np.stack([first, *others])
        reward = pairs.rewards[rows]
        labels = 0.5 + 0.5 * np.sign(reward[0] - reward[1]) if self.labels else None
        log_p = pairs.log_propensities
        return Drawing(pairs.places[rows], labels, reward, None if log_p is None else log_p[rows])


def _one_of(n: Any, uniform: Array) -> Any:
    """A number from 0 to n − 1."""
    return np.minimum((uniform * n).astype(np.intp), n - 1)
