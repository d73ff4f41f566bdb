"""Logs: one context, arm, reward and propensity for each decision.

Letters: ``n`` rows, ``X`` contexts, ``K`` arms. p is the propensity of a row: the probability with
which the logging policy chose the arm it chose, given the context.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from bandit import _checks
from bandit._checks import Array
from bandit.data.counts import (
    LARGEST_PROPENSITY,
    LARGEST_REWARD,
    SMALLEST_PROPENSITY,
    Codes,
    Counts,
    Labels,
    Tally,
)

if TYPE_CHECKING:
    import pandas as pd


# There is a place for each code up to the largest: these are positions, not names of any size.
MOST_CODES = 10_000_000


class BadRowsWarning(UserWarning):
    """Rows of a file were dropped, as asked."""


class Log:
    """Logged decisions: one context, arm and reward per row, and the propensity where known.

    Parameters
    ----------
    contexts : array_like (n,) of integers, or None
        Codes from 0. None: a log without contexts, X = 1.
    arms : array_like (n,) of integers
        Codes from 0.
    rewards : array_like (n,)
        Finite numbers.
    propensities : array_like (n,), optional
        In (0, 1]: the probability that the logging policy gave to the logged arm. What exceeds 1 by
        a millionth or less is 1.
    context_labels, arm_labels : sequences, optional
        What the codes stand for; their lengths are X and K. Default: the codes themselves, up to
        the largest one logged.
    dropped : mapping, optional
        How many rows were left out, by reason.

    Attributes
    ----------
    contexts, arms : ndarray (n,) int64
    rewards : ndarray (n,)
    propensities : ndarray (n,) or None
    context_labels, arm_labels : tuple
    dropped : dict of str to int
        Empty if every row is here.

    Raises
    ------
    ValueError, TypeError
        One line with the argument's name, what was expected and what came.

    Examples
    --------
    >>> log = Log(None, [0, 1, 1], [1.0, 0.0, 1.0], [0.2, 0.8, 0.8], arm_labels=["red", "blue"])
    >>> len(log), log.n_contexts, log.n_arms
    (3, 1, 2)
    >>> log.counts().reward.tolist()
    [[1.0, 1.0]]
    """

    def __init__(
        self,
        contexts: ArrayLike | None,
        arms: ArrayLike,
        rewards: ArrayLike,
        propensities: ArrayLike | None = None,
        *,
        context_labels: Iterable[Hashable] | None = None,
        arm_labels: Iterable[Hashable] | None = None,
        dropped: Mapping[str, int] | None = None,
    ) -> None:
        self.rewards = _checks.read_only(_rewards(rewards))
        n = self.rewards.size
        if contexts is None:
            contexts = np.zeros(n, dtype=np.int64)
            context_labels = (None,) if context_labels is None else context_labels
        self.contexts, self.context_labels = _coded("contexts", contexts, n, context_labels)
        self.arms, self.arm_labels = _coded("arms", arms, n, arm_labels)
        self.propensities = None
        if propensities is not None:
            self.propensities = _checks.read_only(_propensities(propensities, n))
        self.dropped: dict[str, int] = dict(dropped or {})

    def __len__(self) -> int:
        return self.rewards.size

    @property
    def n_contexts(self) -> int:
        """X."""
        return len(self.context_labels)

    @property
    def n_arms(self) -> int:
        """K."""
        return len(self.arm_labels)

    @property
    def shape(self) -> tuple[int, int]:
        """(X, K)."""
        return self.n_contexts, self.n_arms

    def counts(self, multiplicity: ArrayLike | None = None) -> Counts:
        """The log reduced to sums per context and arm.

        Parameters
        ----------
        multiplicity : array_like (n,), optional
            How many times each row counts, at least 0. Default: once.
        """
        tally = Tally(has_propensities=self.propensities is not None)
        repeats = None if multiplicity is None else _multiplicity(multiplicity, len(self))
        tally.grow(self.shape)
        tally.add(self.contexts, self.arms, self.rewards, self.propensities, repeats)
        return tally.counts(self.context_labels, self.arm_labels, dropped=self.dropped)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per decision, with labels: columns context, arm, reward[, propensity]."""
        import pandas as pd

        columns = {
            "context": [self.context_labels[code] for code in self.contexts.tolist()],
            "arm": [self.arm_labels[code] for code in self.arms.tolist()],
            "reward": self.rewards,
        }
        if self.propensities is not None:
            columns["propensity"] = self.propensities
        return pd.DataFrame(columns)

    def __repr__(self) -> str:
        known = "" if self.propensities is not None else ", no propensities"
        lost = f", {sum(self.dropped.values())} dropped" if self.dropped else ""
        return f"Log({len(self)} rows, {self.n_contexts} contexts, {self.n_arms} arms{known}{lost})"


def _rewards(values: ArrayLike) -> Array:
    rewards = _checks.finite_array("rewards", values)
    if rewards.ndim != 1 or rewards.size == 0:
        raise ValueError(f"rewards: expected shape (n,) with n > 0, got {rewards.shape}")
    if np.abs(rewards).max() > LARGEST_REWARD:
        worst = rewards[np.argmax(np.abs(rewards))]
        raise ValueError(f"rewards: expected at most {LARGEST_REWARD:g} in size, got {worst:g}")
    return rewards


def _propensities(values: ArrayLike, n: int) -> Array:
    propensities = _checks.finite_array("propensities", values)
    if propensities.shape != (n,):
        raise ValueError(f"propensities: expected shape (n,) = ({n},), got {propensities.shape}")
    bad = (propensities < SMALLEST_PROPENSITY) | (propensities > LARGEST_PROPENSITY)
    expected = f"numbers in [{SMALLEST_PROPENSITY:g}, 1]"
    _checks.refuse("propensities", propensities, bad, expected)
    return np.minimum(propensities, 1.0)


Data = Log | Counts
"""What is learned from, or judged by: rows, or their sums."""


def counts_of(data: Data) -> Counts:
    """The sums of a log; counts as they are.

    Parameters
    ----------
    data : Log or Counts

    Raises
    ------
    TypeError
        If it is anything else.
    """
    if not isinstance(data, (Log, Counts)):
        raise TypeError(f"data: expected a Log or Counts, got {type(data).__name__}")
    return data.counts() if isinstance(data, Log) else data


# ------------------------------------------------------------------------------------ arguments


def _coded(
    name: str, values: ArrayLike, n: int, labels: Iterable[Hashable] | None
) -> tuple[Codes, Labels]:
    codes = np.asarray(values)
    if codes.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integer codes, got {codes.dtype}")
    if codes.shape != (n,):
        raise ValueError(f"{name}: expected shape (n,) = ({n},), got {codes.shape}")
    codes = codes.astype(np.int64)
    if labels is None and codes.max() >= MOST_CODES:
        row = int(np.argmax(codes))
        raise ValueError(
            f"{name}: expected codes from 0, below {MOST_CODES} without {name[:-1]}_labels, "
            f"got {codes[row]} at index {row}"
        )
    names = tuple(range(int(codes.max()) + 1)) if labels is None else tuple(labels)
    if len(set(names)) != len(names):
        raise ValueError(f"{name[:-1]}_labels: expected different labels, got one twice")
    bad = (codes < 0) | (codes >= len(names))
    _checks.refuse(name, codes, bad, f"codes from 0 to {len(names) - 1}")
    return _checks.read_only(codes), names


def _multiplicity(values: ArrayLike, n: int) -> Array:
    repeats = _checks.finite_array("multiplicity", values)
    if repeats.shape != (n,):
        raise ValueError(f"multiplicity: expected shape (n,) = ({n},), got {repeats.shape}")
    if repeats.min() < 0:
        raise ValueError(f"multiplicity: expected at least 0, got {repeats.min():g}")
    return repeats
