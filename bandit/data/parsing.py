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
from bandit.data.counts import (
    LARGEST_PROPENSITY,
    LARGEST_REWARD,
    SMALLEST_PROPENSITY,
    Codes,
    Labels,
)
from bandit.data.labels import Coder, joined, merge, ordered
from bandit.data.log import BadRowsWarning, Log

MOST_SHOWN = 40


class Columns(NamedTuple):
    """Names of the columns: several, one or none for the context, None for no propensities."""

    context: tuple[str, ...]
    arm: str
    reward: str
    propensity: str | None

    @classmethod
    def of(
        cls, context: str | Sequence[str] | None, arm: str, reward: str, propensity: str | None
    ) -> Columns:
        """As they were asked for: the context by one name or several."""
        if context is None or isinstance(context, str):
            return cls(() if context is None else (context,), arm, reward, propensity)
        if not isinstance(context, Sequence) or not context or len(set(context)) < len(context):
            raise TypeError(
                "context: expected the name of a column, or different names of several, "
                f"got {shown(context)}"
            )
        return cls(tuple(context), arm, reward, propensity)

    @property
    def names(self) -> list[str]:
        """Those there are."""
        told = [] if self.propensity is None else [self.propensity]
        return [*self.context, self.arm, self.reward, *told]

    def check(self, file: str, header: Sequence[str]) -> None:
        """Raise unless every column is there, once."""
        roles = ["context"] * len(self.context) + ["arm", "reward", "propensity"]
        for role, name in zip(roles, self.names, strict=False):
            if not isinstance(name, str):
                raise TypeError(f"{role}: expected the name of a column, got {shown(name)}")
            found = header.count(name)
            if found == 0:
                there = short(", ".join(map(repr, header)), 200)
                message = f"{role}: expected a column of {file} ({there}), got {shown(name)}"
                other = next((c for c in ";\t|," if len(header) == 1 and c in header[0]), None)
                hint = "" if other is None else f"; are its columns divided by {other!r}?"
                raise ValueError(message + hint)
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


class TextChunk:
    """Rows of a CSV file; see :class:`Chunk`.

    Parameters
    ----------
    rows : list of lists of str
    header : list of str
    before : int
        How many rows came before.
    decimal : {".", ","}
        What divides a number from its decimals.
    """

    def __init__(
        self, rows: list[list[str]], header: list[str], before: int, decimal: str = "."
    ) -> None:
        self.before, self.size, self.width = before, len(rows), len(header)
        self.decimal = decimal
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
        at, coder = self.at[column], Coder()
        codes = np.array([coder[row[at]] for row in self.rows], dtype=np.int64)
        for name, code in coder.items():
            if not name.strip():
                codes[codes == code] = -1
        return codes, list(coder)

    def numbers(self, column: str) -> Array:
        """Numbers (n,), NaN where there is none."""
        at = self.at[column]
        texts = [row[at] for row in self.rows]
        if self.decimal == ",":
            texts = [text.translate(DECIMAL_COMMA) for text in texts]
        return text_numbers(texts)


TRUTH = {"true": 1.0, "false": 0.0}
DECIMAL_COMMA = str.maketrans({",": ".", ".": "x"})


def text_numbers(texts: list[str]) -> Array:
    """Texts as numbers, true and false as 1 and 0, NaN where one is neither."""
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
        return TRUTH.get(text.strip().lower(), float("nan"))


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
        self.contexts, self.arms = Coder(), Coder()
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
        return len(self.contexts) if self.columns.context else 1, len(self.arms)

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
        contexts = None
        if columns.context:
            parts = [chunk.labels(column) for column in columns.context]
            contexts = joined(columns.context, parts)
        arms = chunk.labels(columns.arm)
        good = self._good(chunk, contexts, arms, rewards, propensities)
        if not good.all():
            self._bad_rows(chunk, np.flatnonzero(~good), rewards, propensities)
        return Rows(
            np.zeros(int(good.sum()), dtype=np.int64)
            if contexts is None
            else merge(self.contexts, contexts[0][good], contexts[1]),
            merge(self.arms, arms[0][good], arms[1]),
            rewards[good],
            None if propensities is None else np.minimum(propensities[good], 1.0),
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
            good &= (propensities >= SMALLEST_PROPENSITY) & (propensities <= LARGEST_PROPENSITY)
        if contexts is not None:
            good &= contexts[0] >= 0
        if self.given is not None and arms[1]:
            good &= np.array([name in self.arms for name in arms[1]])[arms[0]]
        if chunk.malformed is not None:
            good &= ~chunk.malformed
        return good

    def _bad_rows(
        self, chunk: Chunk, rows: NDArray[np.intp], rewards: Array, propensities: Array | None
    ) -> None:
        numbers = {self.columns.reward: rewards}
        if self.columns.propensity is not None and propensities is not None:
            numbers[self.columns.propensity] = propensities
        for row in rows.tolist():
            read = {column: float(values[row]) for column, values in numbers.items()}
            column, reason, expected, found = self._reason(chunk, row, read)
            if self.on_bad == "error":
                where = f"row {chunk.before + row + 1}"
                if column is not None:
                    where += f", column {column!r}"
                raise ValueError(f"{self.file}: {where}: expected {expected}, got {found}")
            self.bad[reason if column is None else f"{column}: {reason}"] += 1

    def _reason(
        self, chunk: Chunk, row: int, read: dict[str, float]
    ) -> tuple[str | None, str, str, str]:
        """The first thing wrong with a row: column, reason, what was expected, what came."""
        if chunk.malformed is not None and chunk.malformed[row]:
            assert isinstance(chunk, TextChunk)
            found = str(chunk.found[row])
            return None, "wrong number of fields", f"{chunk.width} fields", found
        expected = dict.fromkeys(self.columns.context, "a context") | {
            self.columns.arm: "an arm" if self.given is None else "one of the given arms",
            self.columns.reward: f"a finite number, at most {LARGEST_REWARD:g} in size",
            self.columns.propensity: f"a probability in (0, 1], at least {SMALLEST_PROPENSITY:g}",
        }
        for column in self.columns.names:
            text = chunk.text(column, row)
            wrong = self._wrong(column, text, read)
            if wrong is not None:
                found = repr(short(text, MOST_SHOWN)) if text.strip() else "nothing"
                return column, wrong, expected[column], found
        raise AssertionError(f"row {row} was found bad for no reason")

    def _wrong(self, column: str, text: str, read: dict[str, float]) -> str | None:
        if not text.strip():
            return "missing"
        if column == self.columns.arm and self.given is not None and text not in self.arms:
            return "unknown arm"
        if column not in read:
            return None
        number = read[column]
        if not np.isfinite(number):
            return "not a number"
        if column == self.columns.reward and abs(number) > LARGEST_REWARD:
            return "too large"
        if (
            column == self.columns.propensity
            and not SMALLEST_PROPENSITY <= number <= LARGEST_PROPENSITY
        ):
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
        contexts = none
        if self.columns.context:
            several = len(self.columns.context) > 1
            contexts = ordered(list(self.contexts), by_numerals=several)
        if self.given is not None:
            return contexts, (np.arange(len(self.given)), self.given)
        return contexts, ordered(list(self.arms))

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


def short(text: str, most: int) -> str:
    """A text cut to ``most`` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"
