"""Logs from DataFrames of pandas, with the checks of files."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bandit._checks import Array
from bandit.data.counts import Codes
from bandit.data.log import Log
from bandit.data.parsing import Chunks, Columns, Parser, as_log, text_numbers

if TYPE_CHECKING:
    import pandas as pd


def from_dataframe(
    frame: pd.DataFrame,
    *,
    arm: str,
    reward: str,
    context: str | Sequence[str] | None = None,
    propensity: str | None = None,
    arms: Iterable[Hashable] | None = None,
    on_bad: str = "error",
) -> Log:
    """A log from a DataFrame of pandas: one decision a row, whatever its index.

    Parameters
    ----------
    frame : DataFrame
    arm, reward, context, propensity, arms, on_bad
        As in :func:`bandit.data.read_csv`. What pandas takes for missing is missing here.

    Returns
    -------
    Log

    Raises
    ------
    ValueError, TypeError
        One line with row (from 1) and column, and what was expected and came.

    Warns
    -----
    BadRowsWarning
        If rows were dropped.

    See Also
    --------
    bandit.data.count : for frames that come in chunks.
    """
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"frame: expected a DataFrame of pandas, got {type(frame).__name__}")
    columns = Columns.of(context, arm, reward, propensity)
    columns.check("frame", list(frame.columns))
    parser = Parser("frame", columns, arms=arms, on_bad=on_bad)
    return as_log(parser, _whole(frame))


def _whole(frame: pd.DataFrame) -> Chunks:
    yield FrameChunk(frame)


class FrameChunk:
    """A DataFrame as the parser wants it; see :class:`bandit.data.parsing.Chunk`.

    Parameters
    ----------
    frame : DataFrame
    """

    malformed = None

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame, self.before, self.size = frame, 0, len(frame)

    def text(self, column: str, row: int) -> str:
        """What stands there, for messages; empty if nothing does."""
        values = self.frame[column].iloc[[row]]
        return "" if values.isna().iloc[0] else str(values.iloc[0])

    def labels(self, column: str) -> tuple[Codes, list[str]]:
        """Codes (n,) and what they stand for; −1 where nothing stands."""
        import pandas as pd

        try:
            codes, values = pd.factorize(self.frame[column], use_na_sentinel=True)
        except TypeError as error:  # lists, dictionaries and the like
            raise ValueError(
                f"frame: expected numbers, text or days in column {column!r}, got {error}"
            ) from error
        names = [str(value) for value in values]
        empty = np.array([not name.strip() for name in names], dtype=bool)
        if empty.any():
            codes = np.where((codes >= 0) & empty[codes], -1, codes)
        return codes.astype(np.int64), names

    def numbers(self, column: str) -> Array:
        """Numbers (n,), NaN where there is none."""
        from pandas.api import types

        values = self.frame[column]
        if types.is_numeric_dtype(values) and not types.is_complex_dtype(values):  # or bool
            return values.to_numpy(dtype=np.float64, na_value=np.nan)
        missing = values.isna()
        return text_numbers(
            ["" if gone else str(value) for gone, value in zip(missing, values, strict=True)]
        )
