"""A Parquet file as the parser wants it, batch by batch; the only module that touches pyarrow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from pyarrow import parquet, types

from bandit._checks import Array
from bandit.data.counts import Codes
from bandit.data.parsing import Chunks, Columns, text_numbers

# Of what a broken file may say that its description holds; files of a million columns have less.
MOST_BYTES, MOST_ITEMS = 100_000_000, 1_000_000


def chunks_of(stream: BinaryIO, name: str, columns: Columns, size: int) -> Chunks:
    """Chunks of at most ``size`` rows with the columns asked for; ``name`` is for messages."""
    done = 0
    with _one_kind_of_error(name):
        file = parquet.ParquetFile(
            stream, thrift_string_size_limit=MOST_BYTES, thrift_container_size_limit=MOST_ITEMS
        )
    schema = file.schema_arrow
    columns.check(name, schema.names)
    wanted = list(dict.fromkeys(columns.names))
    labels = {*columns.context, columns.arm} - {columns.reward, columns.propensity}
    for column in wanted:
        _check_type(name, column, schema.field(column).type, label=column in labels)
    batches = file.iter_batches(batch_size=size, columns=wanted)
    while True:
        with _one_kind_of_error(name):
            batch = next(batches, None)
        if batch is None:
            return
        yield ArrowChunk(batch, name, done)
        done += batch.num_rows


def _check_type(name: str, column: str, kind: Any, *, label: bool) -> None:
    plain = kind.value_type if types.is_dictionary(kind) else kind
    if label and types.is_date(plain):
        return
    if not (
        types.is_boolean(plain)
        or types.is_integer(plain)
        or types.is_floating(plain)
        or types.is_decimal(plain)
        or types.is_string(plain)
        or types.is_large_string(plain)
        or types.is_string_view(plain)
        or types.is_null(plain)
    ):
        expected = "numbers, text or days" if label else "numbers or text"
        raise ValueError(f"{name}: expected {expected} in column {column!r}, got {kind}")


@contextlib.contextmanager
def _one_kind_of_error(name: str) -> Iterator[None]:
    """Broken files make the library raise many kinds of errors: here, ValueError."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name}: expected a Parquet file, got: {reason}") from error


class ArrowChunk:
    """Rows of a record batch; see :class:`bandit.data.parsing.Chunk`.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
    name : str
        Of the file, for messages.
    before : int
        How many rows came before.
    """

    malformed = None

    def __init__(self, batch: Any, name: str, before: int) -> None:
        self.batch, self.name = batch, name
        self.before, self.size = before, batch.num_rows

    def text(self, column: str, row: int) -> str:
        """What stands there, for messages; empty if nothing does."""
        with _one_kind_of_error(self.name):
            value = self.batch.column(column)[row].as_py()
        return "" if value is None else str(value)

    def labels(self, column: str) -> tuple[Codes, list[str]]:
        """Codes (n,) and what they stand for; −1 where nothing stands."""
        with _one_kind_of_error(self.name):
            values = self.batch.column(column)
            if types.is_string_view(values.type):
                values = values.cast(pa.large_string())
            if not types.is_dictionary(values.type):
                values = values.dictionary_encode()
            codes = values.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
            names = ["" if v is None else str(v) for v in values.dictionary.to_pylist()]
        empty = np.array([not name.strip() for name in names], dtype=bool)
        if empty.any():
            codes = np.where((codes >= 0) & empty[codes], -1, codes)
        return codes, names

    def numbers(self, column: str) -> Array:
        """Numbers (n,), NaN where there is none."""
        with _one_kind_of_error(self.name):
            values = self.batch.column(column)
            if types.is_dictionary(values.type):
                values = values.dictionary_decode()
            if types.is_boolean(values.type):
                values = values.cast(pa.int8())
            if types.is_integer(values.type) or types.is_floating(values.type):
                return values.to_numpy(zero_copy_only=False).astype(np.float64)
            texts = ["" if v is None else str(v) for v in values.to_pylist()]
        return text_numbers(texts)
