"""What a log says to a learner: estimated rewards, who is compared with whom, who is preferred.

Letters: ``X`` contexts, ``K`` arms. Cells of all contexts are numbered through: arm ``y`` of
context ``x`` is place ``x·K + y``. A *system* is a connected component of the comparison graph
within a context: the log determines the ratios of probabilities inside it and nothing else. Systems
of the same size m are solved together, from arrays of ``N`` systems, (N, m) and (N, m, m).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bandit import _checks
from bandit._checks import Array
from bandit.data.log import Data, Log, counts_of
from bandit.pessimism import is_binary

Places = NDArray[np.int64]


class Kinds(NamedTuple):
    """The different rows of a log: ``times`` (M,) rows of ``reward`` (M,) at ``place`` (M,)."""

    place: Places
    reward: Array
    times: Array


class Compared(NamedTuple):
    """Pairs of rows that were logged together, by their places: ``times`` (M,) of them,
    ``gap`` (M,) the mean of r − r' and ``wins`` (M,) how often the first had the higher reward,
    a tie being half a win."""

    first: Places
    second: Places
    times: Array
    gap: Array
    wins: Array


class Evidence:
    """A log as a learner reads it.

    Parameters
    ----------
    data : Log or Counts
    pairing : {"all", "consecutive"}
        Pairs of any two rows of a context, or of rows 2i and 2i + 1.
    assumed : ndarray (X, K) of bool, optional
        Cells without rows that count as one row all the same.

    Attributes
    ----------
    counts : Counts
    rows : ndarray (X, K)
        How many rows, with those assumed.
    compared : Compared or None
        None: any two rows of a context are a pair.
    systems : list of ndarray (N, m)
        Places of the arms of each system, by size m; every place is in one system.
    """

    def __init__(
        self, data: Data, pairing: str = "all", assumed: NDArray[np.bool_] | None = None
    ) -> None:
        self.data, self.counts = data, counts_of(data)
        self.shape = self.counts.shape
        _checks.one_of("pairing", pairing, ("all", "consecutive"))
        self.compared = _consecutive(data) if pairing == "consecutive" else None
        self.rows = self.counts.n if assumed is None else self.counts.n + assumed
        self.system_of = self._system_of()
        self.systems = _by_size(self.system_of)

    def _system_of(self) -> Places:
        """A number for each place, the same within a system."""
        n = self.rows.size
        if self.compared is None:
            contexts = np.repeat(np.arange(self.shape[0]), self.shape[1])
            return np.where(self.rows.ravel() > 0, contexts, self.shape[0] + np.arange(n))
        from scipy.sparse.csgraph import connected_components  # slow to import

        pairs = self.compared
        graph = sparse.coo_array((pairs.times, (pairs.first, pairs.second)), shape=(n, n))
        return connected_components(graph.tocsr(), directed=False)[1].astype(np.int64)

    # --------------------------------------------------------------------------------- rewards

    @functools.cached_property
    def kinds(self) -> Kinds:
        """The different rows, by place and then reward; from counts, if rewards are 0 or 1."""
        if isinstance(self.data, Log):
            place = self.data.contexts * self.shape[1] + self.data.arms
            order = np.lexsort((self.data.rewards, place))
            place, reward = place[order], self.data.rewards[order]
            new = np.append(True, (np.diff(place) != 0) | (np.diff(reward) != 0))
            starts = np.flatnonzero(new)
            return Kinds(
                place[starts], reward[starts], np.diff(np.append(starts, place.size)) * 1.0
            )
        if not is_binary(self.data):
            raise ValueError(
                "data: expected a Log, or Counts of rewards 0 and 1: sums do not say how rewards "
                "are spread, got Counts"
            )
        ones, n = self.counts.reward.ravel(), self.counts.n.ravel()
        place, count = np.repeat(np.arange(n.size), 2), np.stack([n - ones, ones], axis=-1).ravel()
        kept = count > 0
        return Kinds(place[kept], np.tile([0.0, 1.0], n.size)[kept], count[kept])

    def weighted_means(self) -> Array:
        """Σ(r/p)/Σ(1/p) of each cell, (X, K): all that importance weights see; 0 without rows."""
        assert self.counts.inverse is not None
        assert self.counts.inverse_reward is not None
        some = self.counts.n > 0
        return np.where(
            some, self.counts.inverse_reward / np.where(some, self.counts.inverse, 1.0), 0.0
        )

    def propensities(self) -> Array:
        """n/Σ(1/p), the harmonic mean of the propensities of a cell, (X, K); 1 without rows."""
        assert self.counts.inverse is not None
        some = self.counts.n > 0
        return np.where(some, self.counts.n / np.where(some, self.counts.inverse, 1.0), 1.0)

    def scores(self, means: Array) -> Array:
        """Least-squares scores (X, K) of the observed differences of pairs.

        Within each system they minimize Σ (s(y) − s(y') − (r − r'))² over its pairs, shifted so
        that the rows of the system have the mean they have in ``means``. Where any two rows of a
        context are a pair, the scores are the means.
        """
        if self.compared is None:
            return means
        from scipy.sparse.linalg import spsolve  # slow to import

        pairs, n = self.compared, means.size
        laplacian = sparse.coo_array(
            (
                np.concatenate([pairs.times, pairs.times, -pairs.times, -pairs.times]),
                (
                    np.concatenate([pairs.first, pairs.second, pairs.first, pairs.second]),
                    np.concatenate([pairs.first, pairs.second, pairs.second, pairs.first]),
                ),
            ),
            shape=(n, n),
        ).tocsc()
        pull = np.bincount(pairs.first, pairs.times * pairs.gap, n)
        pull -= np.bincount(pairs.second, pairs.times * pairs.gap, n)
        # One arm of each system stays where it is: its score is a matter of convention.
        _, anchors = np.unique(self.system_of, return_index=True)
        free = np.setdiff1d(np.arange(n), anchors)
        scores = np.zeros(n)
        if free.size:
            scores[free] = spsolve(laplacian[free][:, free].tocsc(), pull[free])
        rows = self.rows.ravel()
        below = np.maximum(np.bincount(self.system_of, rows), 1.0)
        shift = np.bincount(self.system_of, rows * (means.ravel() - scores)) / below
        alone = np.bincount(self.system_of)[self.system_of] == 1
        return np.where(alone, means.ravel(), scores + shift[self.system_of]).reshape(means.shape)

    def log_mean_exp(self, beta: float) -> Array:
        """β ln of the mean of exp(r/β) over the rows of each cell, less the mean r, (X, K)."""
        place, reward, count = self.kinds
        n = self.rows.size
        top = np.full(n, -np.inf)
        np.maximum.at(top, place, reward)
        top = np.where(np.isfinite(top), top, 0.0)
        total = np.bincount(place, count * np.exp((reward - top[place]) / beta), n)
        some = self.counts.n.ravel() > 0
        rows = np.where(some, self.counts.n.ravel(), 1.0)
        mean = np.where(some, self.counts.reward.ravel(), 0.0) / rows
        value = top + beta * np.log(np.where(some, total, 1.0) / rows) - mean
        return np.where(some, value, 0.0).reshape(self.shape)

    # ------------------------------------------------------------------------------- preferences

    def preferences(self, places: Places) -> Array:
        """P(y ≻ y') estimated from rows, (N, m, m): the share of pairs of rows in which y had the
        higher reward, ties counting half; ½ where there is no pair."""
        if self.compared is not None:
            pairs = self.compared
            wins = self.among(places, pairs.wins)
            lost = self.among(places, pairs.times - pairs.wins)
            wins, lost = wins + lost.swapaxes(1, 2), lost + wins.swapaxes(1, 2)
            played = wins + lost
            return np.where(played > 0, wins / np.where(played > 0, played, 1.0), 0.5)
        place, reward, count = self.kinds
        starts = np.searchsorted(place, np.arange(self.rows.size + 1))
        result = np.full((*places.shape, places.shape[1]), 0.5)
        for system, mine in zip(result, places, strict=True):
            parts = [slice(starts[p], starts[p + 1]) for p in mine]
            for i, part in enumerate(parts):
                if part.start == part.stop:
                    continue
                below = np.append(0.0, np.cumsum(count[part]))
                for j, other in enumerate(parts[:i]):
                    if other.start == other.stop:
                        continue
                    left = np.searchsorted(reward[part], reward[other], side="left")
                    right = np.searchsorted(reward[part], reward[other], side="right")
                    beaten = (below[left] + below[right]) / 2 @ count[other]
                    system[j, i] = beaten / (below[-1] * count[other].sum())
                    system[i, j] = 1 - system[j, i]
        return result

    def among(self, places: Places, values: Array) -> Array:
        """Sums of ``values`` (M,) of the pairs that were logged together, (N, m, m)."""
        assert self.compared is not None
        n, m = places.shape
        where = np.full(self.rows.size, -1)
        where[places.ravel()] = np.arange(places.size)
        first, second = where[self.compared.first], where[self.compared.second]
        here = first >= 0
        flat = first[here] * m + second[here] % m
        return np.bincount(flat, values[here], n * m * m).astype(np.float64).reshape(n, m, m)


def _consecutive(data: Data) -> Compared:
    if not isinstance(data, Log):
        raise ValueError("pairing: expected 'all' for Counts, which know no order of rows")
    if len(data) % 2:
        raise ValueError(f"pairing: expected an even number of rows, got {len(data)}")
    apart = data.contexts[::2] != data.contexts[1::2]
    if apart.any():
        row = 2 * int(apart.argmax())
        raise ValueError(
            "pairing: expected rows 2i and 2i + 1 to have the same context, got "
            f"{data.context_labels[data.contexts[row]]!r} and "
            f"{data.context_labels[data.contexts[row + 1]]!r} in rows {row} and {row + 1}"
        )
    place = data.contexts * data.n_arms + data.arms
    size = data.n_contexts * data.n_arms
    code, which = np.unique(place[::2] * size + place[1::2], return_inverse=True)
    gap = data.rewards[::2] - data.rewards[1::2]
    times = np.bincount(which).astype(np.float64)
    return Compared(
        code // size,
        code % size,
        times,
        np.bincount(which, gap) / times,
        np.bincount(which, 0.5 + 0.5 * np.sign(gap)).astype(np.float64),
    )


def _by_size(system_of: Places) -> list[Places]:
    """The places of each system, those of the same size together, (N, m) each."""
    order = np.argsort(system_of, kind="stable")
    cuts = np.flatnonzero(np.diff(system_of[order])) + 1
    starts = np.append(0, cuts)
    sizes = np.diff(np.append(starts, order.size))
    return [
        order[starts[sizes == m][:, None] + np.arange(m)].astype(np.int64)
        for m in np.unique(sizes).tolist()
    ]


def each_context(shape: tuple[int, int], systems: list[Places]) -> Iterator[list[list[int]]]:
    """The arms of each system of a context, by their first arm; one context after the other."""
    contexts, arms = shape
    found: list[list[list[int]]] = [[] for _ in range(contexts)]
    for group in systems:
        for place, row in zip(group[:, 0] // arms, (group % arms).tolist(), strict=True):
            found[place].append(row)
    yield from (sorted(parts) for parts in found)
