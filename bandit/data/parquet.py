"""A batch of a Parquet file as the parser wants it; the only module that touches pyarrow."""

from __future__ import annotations

from typing import Any

import numpy as np

from bandit._checks import Array
from bandit.data.counts import Codes
from bandit.data.parsing import text_numbers


class ArrowChunk:
    """Rows of a record batch; see :class:`bandit.data.parsing.Chunk`.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
    before : int
        How many rows came before.
    """

    malformed = None

    def __init__(self, batch: Any, before: int) -> None:
        self.batch, self.before, self.size = batch, before, batch.num_rows

    def text(self, column: str, row: int) -> str:
        """What stands there, for messages; empty if nothing does."""
        value = self.batch.column(column)[row].as_py()
        return "" if value is None else str(value)

    def labels(self, column: str) -> tuple[Codes, list[str]]:
        """Codes (n,) and what they stand for; −1 where nothing stands."""
        import pyarrow as pa

        values = self.batch.column(column)
        if not pa.types.is_dictionary(values.type):
            values = values.dictionary_encode()
        codes = values.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        names = ["" if v is None else str(v) for v in values.dictionary.to_pylist()]
        empty = np.array([not name.strip() for name in names], dtype=bool)
        if empty.any():
            codes = np.where((codes >= 0) & empty[codes], -1, codes)
        return codes, names

    def numbers(self, column: str) -> Array:
        """Numbers (n,), NaN where there is none."""
        import pyarrow as pa

        values = self.batch.column(column)
        if pa.types.is_boolean(values.type):
            values = values.cast(pa.int8())
        if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
            numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
            return numbers
        return text_numbers(["" if v is None else str(v) for v in values.to_pylist()])
