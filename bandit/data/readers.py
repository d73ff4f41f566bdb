"""Logs from files: CSV and Parquet, whole or in chunks, with every bad row named or counted.

Rows are numbered from 1, the first after the header. Blank lines are not rows.
"""

from __future__ import annotations

import csv
from collections.abc import Generator, Hashable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

from bandit import _checks
from bandit.data.counts import Counts, Tally
from bandit.data.log import Log
from bandit.data.parsing import Chunk, Columns, Parser, TextChunk, as_log

AnyPath = str | PathLike[str]
CHUNK = 1 << 18


def read_csv(
    path: AnyPath,
    *,
    arm: str,
    reward: str,
    context: str | None = None,
    propensity: str | None = None,
    arms: Iterable[Hashable] | None = None,
    on_bad: str = "error",
    delimiter: str = ",",
) -> Log:
    """A log from a CSV file (UTF-8, with a header).

    Parameters
    ----------
    path : path
    arm, reward : str
        Names of the columns. Arms and contexts may be any text; if all of them are whole numbers
        they become ints. Rewards are finite numbers.
    context, propensity : str, optional
        Names of the columns, if there are such. Propensities are in (0, 1].
    arms : iterable, optional
        All arms there are, in the order wanted; any other in the file is a bad row. Default: those
        in the file, sorted.
    on_bad : {"error", "drop"}
        What to do with a row that misses a field, has a reward that is not a number or the like:
        raise at the first one, or leave all out, with a warning that counts them by reason.
    delimiter : str
        One character.

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
    columns = Columns(context, arm, reward, propensity)
    parser = Parser(Path(path).name, columns, arms=arms, on_bad=on_bad)
    with closing(_csv_chunks(Path(path), columns, CHUNK, delimiter)) as chunks:
        return as_log(parser, map(parser, chunks))


def count_csv(
    path: AnyPath,
    *,
    arm: str,
    reward: str,
    context: str | None = None,
    propensity: str | None = None,
    arms: Iterable[Hashable] | None = None,
    on_bad: str = "error",
    delimiter: str = ",",
    chunksize: int = CHUNK,
) -> Counts:
    """Counts of a CSV log, for a file of any size: only ``chunksize`` rows are held at a time.

    The result is that of ``read_csv(...).counts()`` to the last bit, for every chunk size.

    Parameters
    ----------
    path, arm, reward, context, propensity, arms, on_bad, delimiter
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
    columns = Columns(context, arm, reward, propensity)
    parser = Parser(Path(path).name, columns, arms=arms, on_bad=on_bad)
    size = _checks.positive_integer("chunksize", chunksize)
    return _count(parser, _csv_chunks(Path(path), columns, size, delimiter))


def read_parquet(
    path: AnyPath,
    *,
    arm: str,
    reward: str,
    context: str | None = None,
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
    columns = Columns(context, arm, reward, propensity)
    parser = Parser(Path(path).name, columns, arms=arms, on_bad=on_bad)
    with closing(_parquet_chunks(Path(path), columns, CHUNK)) as chunks:
        return as_log(parser, map(parser, chunks))


def count_parquet(
    path: AnyPath,
    *,
    arm: str,
    reward: str,
    context: str | None = None,
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
    columns = Columns(context, arm, reward, propensity)
    parser = Parser(Path(path).name, columns, arms=arms, on_bad=on_bad)
    size = _checks.positive_integer("chunksize", chunksize)
    return _count(parser, _parquet_chunks(Path(path), columns, size))


def _count(parser: Parser, chunks: Generator[Chunk, None, None]) -> Counts:
    tally = Tally(has_propensities=parser.columns.propensity is not None)
    with closing(chunks):  # at once, also when a row is bad
        for rows in map(parser, chunks):
            tally.grow(parser.shape)
            tally.add(rows.contexts, rows.arms, rows.rewards, rows.propensities)
    (contexts, context_labels), (arms, arm_labels) = parser.finish()
    return tally.counts(context_labels, arm_labels, (contexts, arms), parser.dropped)


# ----------------------------------------------------------------------------------------- CSV


def _csv_chunks(
    path: Path, columns: Columns, size: int, delimiter: str
) -> Generator[Chunk, None, None]:
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise ValueError(f"delimiter: expected one character, got {delimiter!r}")
    done = 0
    # Python's csv module wants the line ends as they are.
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        lines = _lines(path.name, reader)
        header = next(lines, None)
        if header is None:
            raise ValueError(f"{path.name}: expected a header and rows, got an empty file")
        columns.check(path.name, header)
        while rows := list(islice(lines, size)):
            yield TextChunk(rows, header, done)
            done += len(rows)


def _lines(name: str, reader: Any) -> Iterator[list[str]]:
    """The lines that are not blank; what is not CSV is one clear line."""
    row = 0
    try:
        for line in reader:
            if line:
                yield line
                row += 1
    except UnicodeDecodeError as error:
        found = f"byte 0x{error.object[error.start]:02x}"
        raise ValueError(f"{name}: expected UTF-8 text, got {found} after row {row}") from error
    except csv.Error as error:
        raise ValueError(f"{name}: expected CSV, got at line {reader.line_num}: {error}") from error


# ------------------------------------------------------------------------------------- Parquet


def _parquet_chunks(path: Path, columns: Columns, size: int) -> Generator[Chunk, None, None]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'read_parquet: expected pyarrow; pip install "copg-bandit[data]"'
        ) from error
    from bandit.data.parquet import ArrowChunk

    done = 0
    with path.open("rb") as stream:
        try:
            file = parquet.ParquetFile(stream)
            columns.check(path.name, file.schema_arrow.names)
            wanted = list(dict.fromkeys(columns.names))
            for batch in file.iter_batches(batch_size=size, columns=wanted):
                yield ArrowChunk(batch, done)
                done += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{path.name}: expected a Parquet file, got: {reason}") from error
