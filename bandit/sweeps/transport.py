"""Cells on their way to other processes, and what comes back from there.

How they are sent is joblib's affair; here it is said in one line where that cannot be done, before
it is tried: some of its backends wait for ever for what they could not send.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import Any

from bandit.sweeps import cells
from bandit.sweeps.cells import Cell, Columns

PLAIN = (str, bytes, int, float, bool, type(None))


def check(joblib: Any, missing: list[Cell], workers: int | None) -> None:
    """A TypeError that names the first method whose loss no other process can be given."""
    backend, _ = joblib.parallel.get_active_backend()
    alone = joblib.effective_n_jobs(workers) == 1 and "Dask" not in type(backend).__name__
    if alone or getattr(backend, "supports_sharedmem", False):
        return
    for name, method in {cell.labels["method"]: cell.method for cell in missing}.items():
        try:
            joblib.wrap_non_picklable_objects(method).__reduce__()
        except Exception as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TypeError(
                f"methods[{name!r}]: expected a loss that can be sent to other processes, got one "
                f"that cannot ({why}); with workers=1 it need not be sent"
            ) from error


def run(place: int, cell: Cell, home: int) -> tuple[int, Columns]:
    """A cell's place and rows; ``home`` is the process that waits for them."""
    try:
        return place, cells.run(cell)
    except Exception as error:
        if os.getpid() == home or can_be_sent(error):
            raise
        words = [f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]
    # Out here, as nothing of the other one may go along.
    raise RuntimeError(" ".join(words))


def can_be_sent(error: BaseException) -> bool:
    """Whether an exception can be made again from what is sent of it: its type and arguments."""
    if not all(isinstance(one, PLAIN) for one in error.args):
        return False
    try:
        return type(type(error)(*error.args)) is type(error)
    except Exception:
        return False


@contextlib.contextmanager
def closing(results: Any) -> Iterator[Any]:
    """The results of a parallel call; those in flight are given up without a word at its end."""
    try:
        yield results
    finally:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"\d+ tasks have been successfully executed")
            warnings.filterwarnings("ignore", r"\d+ tasks which were still being processed")
            results.close()
