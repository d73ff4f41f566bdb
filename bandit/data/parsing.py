"""From chunks of raw columns to coded rows: the checks that every kind of file shares."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Generator, Hashable, Iterable, Sequence
from contextlib import closing
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bandit import _checks
from bandit._checks import Array, shown
from bandit.data.counts import LARGEST_REWARD, SMALLEST_PROPENSITY, Codes, Labels
from bandit.data.log import BadRowsWarning, Log

MOST_SHOWN = 40


class Columns(NamedTuple):
    """Names of the columns; None where a log has no such column."""

    context: str | None
    arm: str
    reward: str
    propensity: str | None

    @property
    def names(self) -> list[str]:
        """Those there are."""
        return [name for name in self if name is not None]

    def check(self, file: str, header: Sequence[str]) -> None:
        """Raise unless every column is there, once."""
        for role, name in zip(self._fields, self, strict=True):
            if name is None and role in ("context", "propensity"):
                continue
            if not isinstance(name, str):
                raise TypeError(f"{role}: expected the name of a column, got {shown(name)}")
            found = header.count(name)
            if found == 0:
                there = short(", ".join(map(repr, header)), 200)
                raise ValueError(
                    f"{role}: expected a column of {file} ({there}), got {shown(name)}"
                )
            if found > 1:
                raise ValueError(f"{file}: expected one column {name!r} in the header, got {found}")


class Rows(NamedTuple):
    """Good rows, coded in the order in which labels were first seen."""

    contexts: Codes
    arms: Codes
    rewards: Array
    propensities: Array | None


class Chunk(Protocol):
    """Some rows of a file, as they stand in it."""

    before: int
    size: int

    @property
    def malformed(self) -> NDArray[np.bool_] | None:
        """Rows with a wrong number of fields, or None."""

    def text(self, column: str, row: int) -> str:
        """What stands there, for messages; empty if nothing does."""

    def labels(self, column: str) -> tuple[Codes, list[str]]:
        """Codes (n,) and what they stand for; −1 where nothing stands."""

    def numbers(self, column: str) -> Array:
        """Numbers (n,), NaN where there is none."""


Chunks = Generator[Chunk, None, None]


class _Coder(dict[str, int]):
    """Codes in order of first appearance."""

    def __missing__(self, key: str) -> int:
        self[key] = len(self)
        return self[key]


class TextChunk:
    """Rows of a CSV file; see :class:`Chunk`.

    Parameters
    ----------
    rows : list of lists of str
    header : list of str
    before : int
        How many rows came before.
    """

    def __init__(self, rows: list[list[str]], header: list[str], before: int) -> None:
        self.before, self.size, self.width = before, len(rows), len(header)
        self.at = {name: header.index(name) for name in header}
        self.malformed: NDArray[np.bool_] | None = None
        if {len(row) for row in rows} != {self.width}:
            self.malformed = np.array([len(row) != self.width for row in rows])
            self.found = [len(row) for row in rows]
            rows = [row + [""] * (self.width - len(row)) for row in rows]
        self.rows = rows

    def text(self, column: str, row: int) -> str:
        """What stands there, for messages; empty if nothing does."""
        return self.rows[row][self.at[column]]

    def labels(self, column: str) -> tuple[Codes, list[str]]:
        """Codes (n,) and what they stand for; −1 where nothing stands."""
        at, coder = self.at[column], _Coder()
        codes = np.array([coder[row[at]] for row in self.rows], dtype=np.int64)
        for name, code in coder.items():
            if not name.strip():
                codes[codes == code] = -1
        return codes, list(coder)

    def numbers(self, column: str) -> Array:
        """Numbers (n,), NaN where there is none."""
        at = self.at[column]
        return text_numbers([row[at] for row in self.rows])


def text_numbers(texts: list[str]) -> Array:
    """Texts as numbers, NaN where one is not a number."""
    try:
        numbers = np.array(list(map(float, texts)), dtype=np.float64)
    except ValueError:
        numbers = np.array([_number(text) for text in texts], dtype=np.float64)
    # Python reads 1_000 as a number; no data format does.
    if any("_" in text for text in texts):
        numbers[["_" in text for text in texts]] = np.nan
    return numbers


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


class Parser:
    """Checks chunks, codes their labels and keeps account of bad rows.

    Parameters
    ----------
    file : str
        Its name, for messages.
    columns : Columns
    arms : iterable, optional
        All arms there are.
    on_bad : {"error", "drop"}
    """

    def __init__(
        self, file: str, columns: Columns, *, arms: Iterable[Hashable] | None, on_bad: str
    ) -> None:
        self.file, self.columns = file, columns
        self.on_bad = _checks.one_of("on_bad", on_bad, ("error", "drop"))
        self.contexts, self.arms = _Coder(), _Coder()
        self.given: Labels | None = None
        if isinstance(arms, str):
            raise TypeError(f"arms: expected a sequence of arms, got {shown(arms)}")
        if arms is not None:
            self.given = tuple(arms)
            for arm in self.given:
                self.arms[str(arm)]
            if len(self.arms) != len(self.given) or not self.given:
                raise ValueError("arms: expected different arms, and some")
        self.read = 0
        self.bad: Counter[str] = Counter()

    @property
    def shape(self) -> tuple[int, int]:
        """(X, K) so far."""
        return len(self.contexts) if self.columns.context is not None else 1, len(self.arms)

    @property
    def dropped(self) -> dict[str, int]:
        """How many rows were left out, by reason."""
        return dict(sorted(self.bad.items()))

    def __call__(self, chunk: Chunk) -> Rows:
        """The good rows of a chunk; raises at the first bad one unless they are dropped."""
        columns = self.columns
        self.read += chunk.size
        rewards = chunk.numbers(columns.reward)
        propensities = None if columns.propensity is None else chunk.numbers(columns.propensity)
        contexts = None if columns.context is None else chunk.labels(columns.context)
        arms = chunk.labels(columns.arm)
        good = self._good(chunk, contexts, arms, rewards, propensities)
        if not good.all():
            self._bad_rows(chunk, np.flatnonzero(~good))
        return Rows(
            np.zeros(int(good.sum()), dtype=np.int64)
            if contexts is None
            else _merge(self.contexts, contexts[0][good], contexts[1]),
            _merge(self.arms, arms[0][good], arms[1]),
            rewards[good],
            None if propensities is None else propensities[good],
        )

    def _good(
        self,
        chunk: Chunk,
        contexts: tuple[Codes, list[str]] | None,
        arms: tuple[Codes, list[str]],
        rewards: Array,
        propensities: Array | None,
    ) -> NDArray[np.bool_]:
        # NaN fails every comparison.
        good = (np.abs(rewards) <= LARGEST_REWARD) & (arms[0] >= 0)
        if propensities is not None:
            good &= (propensities >= SMALLEST_PROPENSITY) & (propensities <= 1)
        if contexts is not None:
            good &= contexts[0] >= 0
        if self.given is not None and arms[1]:
            good &= np.array([name in self.arms for name in arms[1]])[arms[0]]
        if chunk.malformed is not None:
            good &= ~chunk.malformed
        return good

    def _bad_rows(self, chunk: Chunk, rows: NDArray[np.intp]) -> None:
        for row in rows.tolist():
            column, reason, expected, found = self._reason(chunk, row)
            if self.on_bad == "error":
                where = f"row {chunk.before + row + 1}"
                if column is not None:
                    where += f", column {column!r}"
                raise ValueError(f"{self.file}: {where}: expected {expected}, got {found}")
            self.bad[reason if column is None else f"{column}: {reason}"] += 1

    def _reason(self, chunk: Chunk, row: int) -> tuple[str | None, str, str, str]:
        """The first thing wrong with a row: column, reason, what was expected, what came."""
        if chunk.malformed is not None and chunk.malformed[row]:
            assert isinstance(chunk, TextChunk)
            found = str(chunk.found[row])
            return None, "wrong number of fields", f"{chunk.width} fields", found
        expected = {
            self.columns.context: "a context",
            self.columns.arm: "an arm" if self.given is None else "one of the given arms",
            self.columns.reward: f"a finite number, at most {LARGEST_REWARD:g} in size",
            self.columns.propensity: f"a probability in (0, 1], at least {SMALLEST_PROPENSITY:g}",
        }
        for column in self.columns.names:
            text = chunk.text(column, row)
            wrong = self._wrong(column, text)
            if wrong is not None:
                found = repr(short(text, MOST_SHOWN)) if text.strip() else "nothing"
                return column, wrong, expected[column], found
        raise AssertionError(f"row {row} was found bad for no reason")

    def _wrong(self, column: str, text: str) -> str | None:
        if not text.strip():
            return "missing"
        if column == self.columns.arm and self.given is not None and text not in self.arms:
            return "unknown arm"
        if column not in (self.columns.reward, self.columns.propensity):
            return None
        number = float(text_numbers([text])[0])
        if not np.isfinite(number):
            return "not a number"
        if column == self.columns.reward and abs(number) > LARGEST_REWARD:
            return "too large"
        if column == self.columns.propensity and not SMALLEST_PROPENSITY <= number <= 1:
            return "not in (0, 1]"
        return None

    def finish(self) -> tuple[tuple[Codes, Labels], tuple[Codes, Labels]]:
        """Order and labels of contexts and of arms; warns of what was dropped."""
        lost = self.bad.total()
        if self.read == lost:
            raise ValueError(
                f"{self.file}: expected rows, got "
                + (f"{lost}, all of them bad ({self._lost()})" if lost else "none")
            )
        if lost:
            message = f"{self.file}: dropped {lost} of {self.read} rows ({self._lost()})"
            warnings.warn(message, BadRowsWarning, stacklevel=4)
        none: tuple[Codes, Labels] = (np.zeros(1, dtype=np.int64), (None,))
        contexts = none if self.columns.context is None else _sorted(list(self.contexts))
        if self.given is not None:
            return contexts, (np.arange(len(self.given)), self.given)
        return contexts, _sorted(list(self.arms))

    def _lost(self) -> str:
        return ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())


def as_log(parser: Parser, chunks: Chunks) -> Log:
    """All rows of all chunks."""
    with closing(chunks):  # at once, also when a row is bad
        parts = [parser(chunk) for chunk in chunks]
    (contexts, context_labels), (arms, arm_labels) = parser.finish()
    has_propensities = parser.columns.propensity is not None
    return Log(
        np.argsort(contexts)[np.concatenate([part.contexts for part in parts])],
        np.argsort(arms)[np.concatenate([part.arms for part in parts])],
        np.concatenate([part.rewards for part in parts]),
        np.concatenate([part.propensities for part in parts]) if has_propensities else None,
        context_labels=context_labels,
        arm_labels=arm_labels,
        dropped=parser.dropped,
    )


def _merge(coder: _Coder, codes: Codes, names: list[str]) -> Codes:
    """Codes of one chunk as those of the whole file; labels of bad rows alone are not kept."""
    used = np.unique(codes)
    table = np.zeros(len(names), dtype=np.int64)
    table[used] = [coder[names[code]] for code in used.tolist()]
    return table[codes]


def _sorted(names: list[str]) -> tuple[Codes, Labels]:
    """Order and labels: as numbers if all are whole numbers written plainly, else as text."""
    if all(_is_plain_integer(name) for name in names):
        order = sorted(range(len(names)), key=lambda code: int(names[code]))
        return np.array(order, dtype=np.int64), tuple(int(names[code]) for code in order)
    order = sorted(range(len(names)), key=names.__getitem__)
    return np.array(order, dtype=np.int64), tuple(names[code] for code in order)


def _is_plain_integer(name: str) -> bool:
    digits = name.removeprefix("-")
    plain = digits.isascii() and digits.isdigit() and len(digits) <= 18
    return plain and str(int(name)) == name


def short(text: str, most: int) -> str:
    """A text cut to ``most`` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"
