"""Groups that are gone through again and again, as a policy changes and the data do not."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import sparse

from bandit import arrays, groups
from bandit._checks import Array
from bandit.groups import Listing, Setting
from bandit.losses import Group, Loss

# So many groups times contexts are kept for the next policy: some tens of megabytes.
MOST_KEPT = 1 << 18


class Block:
    """A listing with what the data say of its groups, and the way back to the arms."""

    def __init__(self, where: Setting, listing: Listing) -> None:
        self.where, (self.members, self.probability) = where, listing
        self.data = groups.data_of(where, self.members)

    def gather(self, log_policy: Any) -> Group:
        """The groups of a policy (..., X, K), as :func:`bandit.groups.gather` has them."""
        return groups.with_policy(self.where, log_policy, self.members, self.data)

    def onto_arms(self, weight: Any) -> Any:
        """Sum of per-member weights (..., N, G) over the members that are each arm, (..., K)."""
        arms = self.where.reward.shape[-1]
        if arrays.is_foreign(weight):
            return groups.onto_arms(self.members, arms, weight)
        if weight.size == self.members.size:
            # The same sums in the same order as the matrix's, which need not be made.
            sums = np.bincount(self.members.ravel(), weights=weight.ravel(), minlength=arms)
            return sums.reshape(*weight.shape[:-2], arms)
        return groups.scatter(self._incidence, weight)

    def parts(self, most: int) -> Iterator[Block]:
        """Itself, or pieces of at most so many groups (at least one)."""
        count, most = len(self.members), max(1, most)
        if count <= most:
            yield self
            return
        for start in range(0, count, most):
            rows = slice(start, start + most)
            yield Block(self.where, Listing(self.members[rows], self.probability[:, rows]))

    @functools.cached_property
    def _incidence(self) -> sparse.csr_array:
        return groups.incidence(self.members, self.where.reward.shape[-1])

    @functools.cached_property
    def unlike(self) -> Array:
        """Probabilities (X, N), 0 for groups of one arm with itself."""
        alike = (self.members == self.members[:, :1]).all(axis=-1)
        return np.where(alike, 0.0, self.probability)


class KeptGroups:
    """All groups of a setting, in blocks of bounded size; kept for the next time if they are few.

    Each pass gives the blocks of :func:`bandit.groups.listings`.
    """

    def __init__(self, where: Setting, loss: Loss, group_size: int = 2) -> None:
        self.where, self.loss, self.group_size = where, loss, group_size
        self._kept: list[Block] = []

    def __iter__(self) -> Iterator[Block]:
        return iter(self._kept) if self._kept else self._made()

    def _made(self) -> Iterator[Block]:
        found = groups.listings(self.where, self.loss, self.group_size)
        blocks = (Block(self.where, listing) for listing in found)
        begin = list(itertools.islice(blocks, 1))
        if sum(len(self.where.reward) * len(block.members) for block in begin) <= MOST_KEPT:
            begin += itertools.islice(blocks, 1)
            if len(begin) == 1:
                self._kept = begin
        yield from itertools.chain(begin, blocks)
