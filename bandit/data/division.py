"""Logs put together, and taken apart: sums of many parts, and rows held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandit import _checks
from bandit.data.counts import Codes, Counts, Labels, Tally, from_counts
from bandit.data.labels import Coder
from bandit.data.log import Log

# Propensities of a cell are one number if their spread is below this share of their mean.
STEADY = 1e-6
# Of what the hypergeometric distribution is drawn from.
MOST_ROWS = 1_000_000_000


def count(parts: Iterable[Log | Counts]) -> Counts:
    """The sums of many logs as if they were one: chunks, days, machines.

    Parameters
    ----------
    parts : iterable of Log or Counts
        Taken one after the other, so that a generator of chunks needs the memory of one. Contexts
        and arms are matched by their labels; all parts have propensities, or none has.

    Returns
    -------
    Counts
        Labels in the order in which the parts have them.

    Raises
    ------
    ValueError, TypeError
        If there is no part, or one does not go with the others.

    Examples
    --------
    >>> monday = Log(None, [0, 1], [1.0, 0.0], arm_labels=["red", "blue"])
    >>> tuesday = Log(None, [0, 0], [1.0, 1.0], arm_labels=["green"])
    >>> sums = count([monday, tuesday])
    >>> sums.arm_labels, sums.n.tolist()
    (('red', 'blue', 'green'), [[1.0, 1.0, 2.0]])
    """
    tally: Tally | None = None
    contexts, arms, dropped = _Places(), _Places(), Counter[str]()
    told, alone = False, False
    for at, part in enumerate(parts):
        if not isinstance(part, (Log, Counts)):
            raise TypeError(f"parts: expected Logs and Counts, got {type(part).__name__}")
        mine = _has_propensities(part), part.context_labels == (None,)
        if tally is None:
            (told, alone), tally = mine, Tally(has_propensities=mine[0])
        kinds = ("propensities", told), ("no contexts", alone)
        for found, (what, expected) in zip(mine, kinds, strict=True):
            if found != expected:
                raise ValueError(
                    f"parts: expected all of them with {what} or none, got another at index {at}"
                )
        rows, columns = contexts.of(part.context_labels), arms.of(part.arm_labels)
        tally.grow((len(contexts), len(arms)))
        if isinstance(part, Log):
            tally.add(rows[part.contexts], columns[part.arms], part.rewards, part.propensities)
        else:
            tally.add_sums(part, rows, columns)
        dropped.update(part.dropped)
    if tally is None:
        raise ValueError("parts: expected a Log or Counts, got none")
    return tally.counts(tuple(contexts), tuple(arms), dropped=dropped)


class _Places(Coder):
    """Places of labels, in order of first appearance."""

    def of(self, labels: Labels) -> Codes:
        return np.array([self[label] for label in labels], dtype=np.int64)  # type: ignore[index]


def _has_propensities(part: Log | Counts) -> bool:
    return (part.propensities if isinstance(part, Log) else part.inverse) is not None


def split(
    data: Log | Counts, share: float, *, rng: np.random.Generator | int
) -> tuple[Log | Counts, Log | Counts]:
    """The rows to learn from and those held out, drawn at random without replacement.

    Parameters
    ----------
    data : Log or Counts
        Of counts the rows are not known, but how many there are of each kind is, where rewards are
        0 or 1 and the propensities of a cell are one number (or there are none). Then the rows held
        out are drawn from the multivariate hypergeometric distribution: the same as dividing rows.
    share : float
        Of the rows held out, in (0, 1).
    rng : Generator or int

    Returns
    -------
    rest, held : Log or Counts, as data
        With all labels of both; ``held`` has round(share · n) rows.

    Raises
    ------
    ValueError, TypeError
        If a side would have no rows, or counts do not tell kinds of rows.
    """
    if not isinstance(data, (Log, Counts)):
        raise TypeError(f"data: expected a Log or Counts, got {type(data).__name__}")
    part = _checks.positive_number("share", share)
    held = round(part * len(data)) if part < 1 else len(data)
    if not 0 < held < len(data):
        raise ValueError(
            f"share: expected a share that leaves rows on both sides, got {held} of {len(data)}"
        )
    rng = _checks.generator_of(rng)
    if isinstance(data, Counts):
        return _split_kinds(data, held, rng)
    order = rng.permutation(len(data))
    return rows_of(data, np.sort(order[held:])), rows_of(data, np.sort(order[:held]))


def rows_of(log: Log, at: NDArray[np.int64], arms: Labels | None = None) -> Log:
    """Some rows of a log, with all its labels, or others for its arms."""
    return Log(
        log.contexts[at],
        log.arms[at],
        log.rewards[at],
        None if log.propensities is None else log.propensities[at],
        context_labels=log.context_labels,
        arm_labels=log.arm_labels if arms is None else arms,
        dropped=log.dropped,
    )


def _split_kinds(counts: Counts, held: int, rng: np.random.Generator) -> tuple[Counts, Counts]:
    ones, rows = counts.reward, counts.n
    whole = (ones == np.round(ones)) & (rows == np.round(rows)) & (counts.reward2 == ones)
    if not (whole & (ones >= 0) & (ones <= rows)).all():
        raise ValueError(
            "data: expected rows, or counts of rewards 0 and 1, got sums that do not tell rows"
        )
    propensity = None
    if counts.inverse is not None:
        propensity = steady_propensities(counts)
        if propensity is None:
            raise ValueError(
                "data: expected rows, or counts whose propensities are one number in each cell, "
                "got sums over propensities that drift"
            )
    if len(counts) >= MOST_ROWS:
        raise ValueError(f"data: expected counts of fewer than {MOST_ROWS} rows, got {len(counts)}")
    kinds = np.stack([rows - ones, ones]).astype(np.int64)  # (2, X, K)
    drawn = rng.multivariate_hypergeometric(kinds.ravel(), held, method="marginals")
    taken = drawn.reshape(kinds.shape)
    return _of_kinds(counts, kinds - taken, propensity), _of_kinds(counts, taken, propensity)


def _of_kinds(counts: Counts, kinds: NDArray[np.int64], propensity: Any) -> Counts:
    return from_counts(
        kinds.sum(axis=0),
        kinds[1],
        propensity,
        context_labels=counts.context_labels,
        arm_labels=counts.arm_labels,
    )


def steady_propensities(counts: Counts) -> NDArray[np.float64] | None:
    """p of each cell, (X, K), if every row of a cell has the same one; 1 without rows."""
    assert counts.inverse is not None
    assert counts.inverse2 is not None
    rows = np.maximum(counts.n, 1.0)
    mean = np.where(counts.n > 0, counts.inverse / rows, 1.0)
    spread = np.where(counts.n > 0, counts.inverse2 / rows - mean**2, 0.0)
    if (spread > STEADY**2 * mean**2).any():
        return None
    return np.minimum(1 / mean, 1.0)
