"""Logs from files: CSV and Parquet, whole or in chunks, with every bad row named or counted.

Rows are numbered from 1, the first after the header. Blank lines are not rows.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

from bandit import _checks
from bandit._checks import shown
from bandit.data.counts import Counts, Tally
from bandit.data.log import Log
from bandit.data.parsing import Chunks, Columns, Parser, TextChunk, as_log

AnyPath = str | PathLike[str]
CHUNK = 1 << 18


def read_csv(
    path: AnyPath,
    *,
    arm: str,
    reward: str,
    context: str | Sequence[str] | None = None,
    propensity: str | None = None,
    arms: Iterable[Hashable] | None = None,
    on_bad: str = "error",
    delimiter: str = ",",
    decimal: str = ".",
) -> Log:
    """A log from a CSV file (UTF-8, with a header), which may be packed by gzip.

    Parameters
    ----------
    path : path
    arm, reward : str
        Names of the columns. Arms and contexts may be any text; if all of them are whole numbers
        they become ints. Rewards are finite numbers; true and false are 1 and 0.
    context : str or sequence of str, optional
        The column, if there is one. Several make a context of each combination of their values
        that is there, with a label such as ``"device=phone, hour=3"``.
    propensity : str, optional
        The column, if there is one. Propensities are in (0, 1].
    arms : iterable, optional
        All arms there are, in the order wanted; any other in the file is a bad row. Default: those
        in the file, sorted.
    on_bad : {"error", "drop"}
        What to do with a row that misses a field, has a reward that is not a number or the like:
        raise at the first one, or leave all out, with a warning that counts them by reason.
    delimiter : str
        One character.
    decimal : {".", ","}
        What divides a number from its decimals.

    Returns
    -------
    Log
        Its ``dropped`` counts the rows left out, by reason.

    Raises
    ------
    ValueError
        One line with file, row and column, and what was expected and came.
    OSError
        If the file cannot be opened.

    Warns
    -----
    BadRowsWarning
        If rows were dropped.

    Notes
    -----
    The reader is Python's own, which says exactly which row is broken; a million rows take a
    second or two.
    """
    columns = Columns.of(context, arm, reward, propensity)
    return as_log(*_csv(path, columns, arms, on_bad, (delimiter, decimal), CHUNK))


def count_csv(
    path: AnyPath,
    *,
    arm: str,
    reward: str,
    context: str | Sequence[str] | None = None,
    propensity: str | None = None,
    arms: Iterable[Hashable] | None = None,
    on_bad: str = "error",
    delimiter: str = ",",
    decimal: str = ".",
    chunksize: int = CHUNK,
) -> Counts:
    """Counts of a CSV log, for a file of any size: only ``chunksize`` rows are held at a time.

    The result is that of ``read_csv(...).counts()`` to the last bit, for every chunk size.

    Parameters
    ----------
    path, arm, reward, context, propensity, arms, on_bad, delimiter, decimal
        As in :func:`read_csv`.
    chunksize : int
        Rows read at a time.

    Returns
    -------
    Counts

    Raises
    ------
    ValueError
        As :func:`read_csv`.

    Warns
    -----
    BadRowsWarning
        If rows were dropped.
    """
    columns = Columns.of(context, arm, reward, propensity)
    return _count(*_csv(path, columns, arms, on_bad, (delimiter, decimal), chunksize))


def read_parquet(
    path: AnyPath,
    *,
    arm: str,
    reward: str,
    context: str | Sequence[str] | None = None,
    propensity: str | None = None,
    arms: Iterable[Hashable] | None = None,
    on_bad: str = "error",
) -> Log:
    """A log from a Parquet file; needs pyarrow (``pip install "copg-bandit[data]"``).

    Parameters
    ----------
    path, arm, reward, context, propensity, arms, on_bad
        As in :func:`read_csv`.

    Returns
    -------
    Log

    Raises
    ------
    ValueError
        As :func:`read_csv`.
    ModuleNotFoundError
        Without pyarrow.

    Warns
    -----
    BadRowsWarning
        If rows were dropped.
    """
    columns = Columns.of(context, arm, reward, propensity)
    return as_log(*_parquet(path, columns, arms, on_bad, CHUNK))


def count_parquet(
    path: AnyPath,
    *,
    arm: str,
    reward: str,
    context: str | Sequence[str] | None = None,
    propensity: str | None = None,
    arms: Iterable[Hashable] | None = None,
    on_bad: str = "error",
    chunksize: int = CHUNK,
) -> Counts:
    """Counts of a Parquet log of any size, equal to ``read_parquet(...).counts()`` to the last bit.

    Parameters
    ----------
    path, arm, reward, context, propensity, arms, on_bad
        As in :func:`read_csv`.
    chunksize : int
        The most rows held at a time.

    Returns
    -------
    Counts

    Raises
    ------
    ValueError, ModuleNotFoundError
        As :func:`read_parquet`.

    Warns
    -----
    BadRowsWarning
        If rows were dropped.
    """
    columns = Columns.of(context, arm, reward, propensity)
    return _count(*_parquet(path, columns, arms, on_bad, chunksize))


def _count(parser: Parser, chunks: Chunks) -> Counts:
    tally = Tally(has_propensities=parser.columns.propensity is not None)
    with closing(chunks):  # at once, also when a row is bad
        for rows in map(parser, chunks):
            tally.grow(parser.shape)
            tally.add(rows.contexts, rows.arms, rows.rewards, rows.propensities)
    (contexts, context_labels), (arms, arm_labels) = parser.finish()
    return tally.counts(context_labels, arm_labels, (contexts, arms), parser.dropped)


# ----------------------------------------------------------------------------------------- CSV

GZIP = b"\x1f\x8b"
# What files that are not CSV begin with.
MAGIC = {
    b"PK\x03\x04": "a zip file or a spreadsheet",
    b"PAR1": "a Parquet file",
}


def _csv(
    path: AnyPath,
    columns: Columns,
    arms: Iterable[Hashable] | None,
    on_bad: str,
    marks: tuple[str, str],
    size: int,
) -> tuple[Parser, Chunks]:
    delimiter, decimal = marks
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise ValueError(f"delimiter: expected one character, got {shown(delimiter)}")
    _checks.one_of("decimal", decimal, (".", ","))
    size = _checks.positive_integer("chunksize", size)
    parser = Parser(Path(path).name, columns, arms=arms, on_bad=on_bad)
    return parser, _csv_chunks(Path(path), columns, size, delimiter, decimal)


def _csv_chunks(path: Path, columns: Columns, size: int, delimiter: str, decimal: str) -> Chunks:
    done = 0
    with path.open("rb") as file:
        start = file.peek(4)[:4]
        content = gzip.GzipFile(fileobj=file) if start.startswith(GZIP) else file
        # Python's csv module wants the line ends as they are.
        with io.TextIOWrapper(content, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            lines = _lines(path.name, reader, start)
            header = next(lines, None)
            if header is None:
                raise ValueError(f"{path.name}: expected a header and rows, got an empty file")
            columns.check(path.name, header)
            while rows := list(islice(lines, size)):
                yield TextChunk(rows, header, done, decimal)
                done += len(rows)


def _lines(name: str, reader: Any, start: bytes) -> Iterator[list[str]]:
    """The lines that are not blank; what is not CSV is one clear line."""
    row = 0
    try:
        for line in reader:
            if line:
                yield line
                row += 1
    except UnicodeDecodeError as error:
        found = f"byte 0x{error.object[error.start]:02x} after row {row}"
        if row == 0:
            found = next((what for magic, what in MAGIC.items() if start.startswith(magic)), found)
        raise ValueError(f"{name}: expected UTF-8 text, got {found}") from error
    except csv.Error as error:
        said = f"at line {reader.line_num}: {error}"
        raise ValueError(f"{name}: expected CSV, got {said}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{name}: expected a whole gzip file, got: {error}") from error


# ------------------------------------------------------------------------------------- Parquet


def _parquet(
    path: AnyPath, columns: Columns, arms: Iterable[Hashable] | None, on_bad: str, size: int
) -> tuple[Parser, Chunks]:
    size = _checks.positive_integer("chunksize", size)
    parser = Parser(Path(path).name, columns, arms=arms, on_bad=on_bad)
    return parser, _parquet_chunks(Path(path), columns, size)


def _parquet_chunks(path: Path, columns: Columns, size: int) -> Chunks:
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'read_parquet: expected pyarrow; pip install "copg-bandit[data]"'
        ) from error
    from bandit.data.parquet import chunks_of

    with path.open("rb") as stream:
        yield from chunks_of(stream, path.name, columns, size)
