"""Counts: a log reduced to sums per context and arm, all that evaluation needs.

Letters: ``n`` rows, ``X`` contexts, ``K`` arms; p is the propensity of a row.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bandit import _checks
from bandit._checks import Array

if TYPE_CHECKING:
    import pandas as pd

Codes = NDArray[np.int64]
Labels = tuple[Hashable, ...]

# Sums hold r²/p²: within these bounds no sum over a log overflows.
LARGEST_REWARD = 1e50
SMALLEST_PROPENSITY = 1e-50
# What a certain choice has in single precision is 1.
LARGEST_PROPENSITY = 1 + 1e-6
# Ten tables of them are 1.6 GB: more contexts are those of a column that never repeats itself.
MOST_CELLS = 20_000_000


@dataclass(frozen=True, eq=False)
class Counts:
    """Sums over the logged rows of each context and arm, all of shape (X, K).

    Attributes
    ----------
    n, reward, reward2 : ndarray (X, K)
        How many rows, Σ r and Σ r².
    inverse, inverse_reward, inverse_reward2 : ndarray (X, K) or None
        Σ 1/p, Σ r/p and Σ r²/p; None without propensities.
    inverse2, inverse2_reward, inverse2_reward2 : ndarray (X, K) or None
        Σ 1/p², Σ r/p² and Σ r²/p²; None without propensities.
    largest_inverse : ndarray (X, K) or None
        The largest 1/p. Where a table has only sums, the smallest number that they show it cannot
        exceed: mean + √((n−1) · variance).
    context_labels, arm_labels : tuple
        What the rows and columns stand for.
    dropped : dict of str to int
        How many rows of the log were left out, by reason.

    Raises
    ------
    ValueError
        If shapes differ, a number is not finite, or there are no rows.

    Notes
    -----
    Spread is told from Σ r², which holds it only where it is not below some 1e-6 of the rewards'
    size: from rewards of 1e8 give or take 1, take off a constant first, or standard errors and
    whatever else asks for spread are rounding.
    """

    n: Array
    reward: Array
    reward2: Array
    inverse: Array | None = None
    inverse_reward: Array | None = None
    inverse_reward2: Array | None = None
    inverse2: Array | None = None
    inverse2_reward: Array | None = None
    inverse2_reward2: Array | None = None
    largest_inverse: Array | None = None
    context_labels: Labels = (None,)
    arm_labels: Labels = ()
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.context_labels), len(self.arm_labels))
        for name in SUMS:
            given = getattr(self, name)
            if given is None:
                continue
            array = _checks.finite_array(name, given)
            if array.shape != shape:
                raise ValueError(f"{name}: expected shape (X, K) = {shape}, got {array.shape}")
            object.__setattr__(self, name, _checks.read_only(array))
        if (self.n < 0).any() or self.n.sum() == 0:
            raise ValueError(f"n: expected counts of at least 0, and some, got {self.n.sum():g}")
        given = [name for name in WITH_PROPENSITY if getattr(self, name) is not None]
        if given and len(given) < len(WITH_PROPENSITY):
            missing = next(name for name in WITH_PROPENSITY if name not in given)
            raise ValueError(f"{missing}: expected an array like {given[0]}, got None")
        if given and self.largest_inverse is None:
            object.__setattr__(self, "largest_inverse", self._largest_possible())

    def _largest_possible(self) -> Array:
        # Samuelson's inequality: no number of n is further than √(n−1) standard deviations (of
        # the population) from their mean.
        assert self.inverse is not None
        assert self.inverse2 is not None
        rows = np.maximum(self.n, 1.0)
        mean = self.inverse / rows
        variance = np.maximum(self.inverse2 / rows - mean**2, 0.0)
        return _checks.read_only(mean + np.sqrt((rows - 1) * variance))

    def __len__(self) -> int:
        return round(float(self.n.sum()))

    @property
    def shape(self) -> tuple[int, int]:
        """(X, K)."""
        return self.n_contexts, self.n_arms

    @property
    def n_contexts(self) -> int:
        """X."""
        return len(self.context_labels)

    @property
    def n_arms(self) -> int:
        """K."""
        return len(self.arm_labels)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per context and arm, with labels and every sum there is."""
        import pandas as pd

        keys = [(x, y) for x in self.context_labels for y in self.arm_labels]
        columns: dict[str, Any] = {
            "context": [x for x, _ in keys],
            "arm": [y for _, y in keys],
        }
        for name in SUMS:
            if getattr(self, name) is not None:
                columns[name] = getattr(self, name).ravel()
        return pd.DataFrame(columns)

    def __repr__(self) -> str:
        known = "" if self.inverse is not None else ", no propensities"
        return (
            f"Counts({len(self)} rows, {self.n_contexts} contexts, {self.n_arms} arms, "
            f"total reward {self.reward.sum():g}{known})"
        )


WITHOUT_PROPENSITY = ("n", "reward", "reward2")
WITH_PROPENSITY = (
    "inverse",
    "inverse_reward",
    "inverse_reward2",
    "inverse2",
    "inverse2_reward",
    "inverse2_reward2",
)
LARGEST = "largest_inverse"
SUMS = (*WITHOUT_PROPENSITY, *WITH_PROPENSITY, LARGEST)


class Tally:
    """Sums that grow row by row.

    Rows are added one after the other, in their order, so that a log read in chunks of any size
    has the same sums to the last bit.

    Parameters
    ----------
    has_propensities : bool
    """

    def __init__(self, *, has_propensities: bool) -> None:
        extra = (*WITH_PROPENSITY, "largest_inverse") if has_propensities else ()
        self.sums = {name: np.zeros((0, 0)) for name in (*WITHOUT_PROPENSITY, *extra)}

    def grow(self, shape: tuple[int, int]) -> None:
        """Make room for (X, K) cells."""
        old = self.sums["n"].shape
        if shape[0] * shape[1] > MOST_CELLS:
            raise ValueError(
                f"context: expected at most {MOST_CELLS} cells, got {shape[0]} contexts of "
                f"{shape[1]} arms so far; contexts that never return teach nothing"
            )
        if shape != old:
            room = ((0, shape[0] - old[0]), (0, shape[1] - old[1]))
            self.sums = {name: np.pad(table, room) for name, table in self.sums.items()}

    def add(
        self,
        contexts: Codes,
        arms: Codes,
        rewards: Array,
        propensities: Array | None,
        multiplicity: Array | None = None,
    ) -> None:
        """Add rows; every code has room."""
        once = np.ones(rewards.size) if multiplicity is None else multiplicity
        terms = {"n": once, "reward": once * rewards, "reward2": once * rewards**2}
        cells = contexts * self.sums["n"].shape[1] + arms
        if propensities is not None:
            inverse = 1.0 / propensities
            terms["inverse"] = once * inverse
            terms["inverse_reward"] = once * inverse * rewards
            terms["inverse_reward2"] = once * inverse * rewards**2
            terms["inverse2"] = once * inverse**2
            terms["inverse2_reward"] = once * inverse**2 * rewards
            terms["inverse2_reward2"] = once * inverse**2 * rewards**2
            largest = self.sums["largest_inverse"].reshape(-1)
            np.maximum.at(largest, cells, np.where(once > 0, inverse, 0.0))
        for name, term in terms.items():
            np.add.at(self.sums[name].reshape(-1), cells, term)

    def add_sums(self, counts: Counts, contexts: Codes, arms: Codes) -> None:
        """Add the sums of another log, whose contexts and arms have these places."""
        here = np.ix_(contexts, arms)
        for name, table in self.sums.items():
            more = getattr(counts, name)
            table[here] = np.maximum(table[here], more) if name == LARGEST else table[here] + more

    def counts(
        self,
        context_labels: Labels,
        arm_labels: Labels,
        order: tuple[Codes, Codes] | None = None,
        dropped: Mapping[str, int] | None = None,
    ) -> Counts:
        """The sums so far, with rows and columns in ``order``."""
        sums: dict[str, Any] = dict(self.sums)
        if order is not None:
            sums = {name: table[np.ix_(*order)] for name, table in sums.items()}
        return Counts(
            **sums,
            context_labels=context_labels,
            arm_labels=arm_labels,
            dropped=dict(dropped or {}),
        )


def from_counts(
    n: ArrayLike,
    reward: ArrayLike,
    propensity: ArrayLike | None = None,
    *,
    reward2: ArrayLike | None = None,
    context_labels: Iterable[Hashable] | None = None,
    arm_labels: Iterable[Hashable] | None = None,
) -> Counts:
    """Counts from a table of how often each arm was played and what it got in all.

    Parameters
    ----------
    n : array_like (K,) or (X, K)
        How many rows, at least 0.
    reward : array_like like n
        Sum of their rewards.
    propensity : array_like (K,) or (X, K), optional
        The probability of each arm under a logging policy that did not change. In (0, 1] where
        there are rows.
    reward2 : array_like like n, optional
        Sum of squared rewards. Default: rewards are 0 or 1, so it is their sum.
    context_labels, arm_labels : sequences, optional
        What the rows and columns stand for. Default: numbers from 0 (None for the one context of a
        table of shape (K,)).

    Raises
    ------
    ValueError, TypeError
        One line with the argument's name, what was expected and what came.
    """
    rows = _checks.finite_array("n", n)
    if rows.ndim not in (1, 2) or rows.size == 0:
        raise ValueError(f"n: expected shape (K,) or (X, K), got {rows.shape}")
    total = _table("reward", reward, rows.shape)
    if reward2 is None:
        expected = "sums of 0s and 1s, or reward2 beside it"
        _checks.refuse("reward", total, (total < 0) | (total > rows), expected)
        squares = total
    else:
        squares = _table("reward2", reward2, rows.shape)
        too_few = squares * rows < total**2 * (1 - 1e-12)
        _checks.refuse("reward2", squares, too_few, "at least reward²/n everywhere")
    for name, table in (("reward", total), ("reward2", squares)):
        _checks.refuse(name, table, (rows == 0) & (table != 0), "0 where n is 0")
    sums: dict[str, Any] = {"n": rows, "reward": total, "reward2": squares}
    if propensity is not None:
        inverse = _inverse(propensity, rows)
        for power, prefix in ((1, "inverse"), (2, "inverse2")):
            sums[prefix] = rows * inverse**power
            sums[f"{prefix}_reward"] = total * inverse**power
            sums[f"{prefix}_reward2"] = squares * inverse**power
        sums["largest_inverse"] = np.where(rows > 0, inverse, 0.0)
    shape = np.atleast_2d(rows).shape
    default = (None,) if rows.ndim == 1 else tuple(range(shape[0]))
    wide: dict[str, Any] = {name: np.atleast_2d(table) for name, table in sums.items()}
    return Counts(
        **wide,
        context_labels=default if context_labels is None else tuple(context_labels),
        arm_labels=tuple(range(shape[1])) if arm_labels is None else tuple(arm_labels),
    )


def _table(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Array:
    table = _checks.finite_array(name, values)
    if table.shape != shape:
        raise ValueError(f"{name}: expected shape {shape} like n, got {table.shape}")
    return table


def _inverse(propensity: ArrayLike, rows: Array) -> Array:
    table = _checks.finite_array("propensity", propensity)
    if table.shape not in (rows.shape, rows.shape[-1:]):
        raise ValueError(f"propensity: expected shape {rows.shape} like n, got {table.shape}")
    table = np.broadcast_to(table, rows.shape)
    used = rows > 0
    strange = used & ((table < SMALLEST_PROPENSITY) | (table > LARGEST_PROPENSITY))
    expected = f"numbers in [{SMALLEST_PROPENSITY:g}, 1] where n is above 0"
    _checks.refuse("propensity", table, strange, expected)
    return 1.0 / np.where(used, np.minimum(table, 1.0), 1.0)
