"""A results directory: the one place where sweeps touch files.

``manifest.json`` tells the whole sweep; ``cells/`` has one Parquet file for each finished cell,
called ``<cell>.<hash>.parquet`` after the SHA-256 of its bytes. A file is written beside its place,
forced to the disk and then renamed: under its name there is a whole file or none.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from bandit.sweeps.cells import KEY_LENGTH, Cell, Columns, Plan, with_labels
from bandit.sweeps.descriptions import digest

FORMAT = 1
MANIFEST, CELLS, LOCK, PARTIAL = "manifest.json", "cells", ".lock", ".partial"


class Folder:
    """The results directory of one sweep, locked against other processes while it is open.

    Attributes
    ----------
    path : Path
    damaged : list of str
        Names of files whose bytes are not those that were written.
    """

    def __init__(self, path: str | os.PathLike[str], plan: Plan) -> None:
        self.path, self.plan = path_of(path), plan
        self.damaged: list[str] = []
        self._found: dict[str, str] = {}  # cell → name of its file
        self._lock = -1

    def __enter__(self) -> Folder:
        with _told(self):
            self._leave_others_alone()
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.path)
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        _released(self._lock)

    def _open(self) -> None:
        manifest = self.path / MANIFEST
        if manifest.exists():
            _same_or_raise(self.path, read_manifest(self.path)["description"], self.plan)
        else:
            self._leave_others_alone()
            about = {
                "format": FORMAT,
                "fingerprint": self.plan.fingerprint,
                "description": self.plan.description,
                "cells": [cell.key for cell in self.plan.cells],
            }
            with _told(self):
                _write(manifest, (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode())
        with _told(self):
            (self.path / CELLS).mkdir(exist_ok=True)
        self._look()

    def _leave_others_alone(self) -> None:
        """A ValueError for a directory with something in it, but no results."""
        if not self.path.is_dir() or (self.path / MANIFEST).exists():
            return
        others = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
        if others:
            raise ValueError(
                f"folder: expected a new directory or one of this sweep, {self.path} has no "
                f"{MANIFEST} but holds {others[0]}"
            )

    def _look(self) -> None:
        """Find the cells that are there, and tell of files that are not what was written."""
        known = {cell.key for cell in self.plan.cells}
        for file in cell_files(self.path):
            key = file.name[:KEY_LENGTH]
            if key not in known:
                continue
            if _is_whole(file):
                self._found[key] = file.name
            else:
                self.damaged.append(file.name)
                warnings.warn(
                    f"sweep: {file} is damaged, and its cell is computed again",
                    RuntimeWarning,
                    stacklevel=5,
                )

    def missing(self) -> list[Cell]:
        """The cells that are not there."""
        return [cell for cell in self.plan.cells if cell.key not in self._found]

    def add(self, cell: Cell, columns: Columns) -> None:
        """Keep a finished cell: when this returns, it survives whatever happens next."""
        content = _to_parquet(with_labels(cell, columns))
        name = f"{cell.key}.{_hash(content)}.parquet"
        with _told(self):
            _write(self.path / CELLS / name, content)
            for other in self.damaged:
                if other.startswith(cell.key) and other != name:
                    (self.path / CELLS / other).unlink()
        self._found[cell.key] = name

    def rows(self) -> list[Columns]:
        """The columns of every cell, in the plan's order."""
        folder = self.path / CELLS
        return [_read(folder / self._found[cell.key]) for cell in self.plan.cells]

    def standing(self) -> str:
        """How much is there, for messages."""
        kept = len(self._found)
        if self._lock < 0:  # not looked into yet
            with contextlib.suppress(OSError):
                kept = len({file.name[:KEY_LENGTH] for file in cell_files(self.path)})
        if not kept:
            return "no cell was finished"
        return (
            f"{kept} of {len(self.plan.cells)} cells are kept in {self.path}, and "
            "running again goes on from there"
        )


class Memory:
    """The same for a sweep that leaves no files."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._found: dict[str, Columns] = {}

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def missing(self) -> list[Cell]:
        """The cells that are not there."""
        return [cell for cell in self.plan.cells if cell.key not in self._found]

    def add(self, cell: Cell, columns: Columns) -> None:
        """Keep a finished cell."""
        self._found[cell.key] = with_labels(cell, columns)

    def rows(self) -> list[Columns]:
        """The columns of every cell, in the plan's order."""
        return [self._found[cell.key] for cell in self.plan.cells]

    def standing(self) -> str:
        """How much is there, for messages."""
        return "nothing is kept without a folder"


# ----------------------------------------------------------------------------- reading a directory


def path_of(folder: Any) -> Path:
    """A results directory as a path; one line if it cannot be one."""
    if not isinstance(folder, (str, os.PathLike)) or not isinstance(os.fspath(folder), str):
        raise TypeError(f"folder: expected a path, got {type(folder).__name__}")
    if not os.fspath(folder):
        raise ValueError("folder: expected a path, got an empty string")
    if "\0" in os.fspath(folder):
        raise ValueError("folder: expected a path, got one with a zero byte")
    return Path(folder)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a results directory; a ValueError in one line if it has none."""
    try:
        about = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        version = about["format"]
        complete = about["fingerprint"] and about["description"] and about["cells"]
    except OSError as error:
        raise ValueError(
            f"folder: expected the results of a sweep, got {path} ({error.strerror}: {MANIFEST})"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"folder: expected the results of a sweep, {path / MANIFEST} is "
            "damaged or something else"
        ) from error
    if version != FORMAT or not complete:
        raise ValueError(f"folder: expected format {FORMAT} in {path / MANIFEST}, got {version}")
    return about


def cell_files(path: Path) -> list[Path]:
    """The files of finished cells, sorted."""
    return sorted((path / CELLS).glob("[0-9a-f]*.*.parquet"))


def read_cells(path: Path) -> tuple[list[Columns], int]:
    """Columns of every finished cell in the table's order, and how many cells are missing."""
    order = {key: i for i, key in enumerate(read_manifest(path)["cells"])}
    files = {file.name[:KEY_LENGTH]: file for file in cell_files(path)}
    found = sorted((key for key in files if key in order), key=order.__getitem__)
    return [_read(files[key]) for key in found], len(order) - len(found)


def _same_or_raise(path: Path, there: Any, plan: Plan) -> None:
    if digest(there) == plan.fingerprint:  # as text, in which NaN is equal to itself
        return
    here = json.loads(json.dumps(plan.description))
    where, theirs, ours = _difference("", there, here)
    raise ValueError(
        f"folder: expected the results of this sweep, {path} has another one's: {where} is "
        f"{theirs} there, {ours} here"
    )


def _difference(name: str, there: Any, here: Any) -> tuple[str, str, str]:
    """The first place where two descriptions differ, and what stands there."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        if list(there) != list(here):
            return name or "the sweep", _short(list(there)), _short(list(here))
        for key in there:
            if there[key] != here[key]:
                return _difference(f"{name}.{key}".lstrip("."), there[key], here[key])
    return name, _short(there), _short(here)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


# ------------------------------------------------------------------------------------------- files


def _to_parquet(columns: Columns) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: pa.array(column) for name, column in columns.items()}), sink)
    return sink.getvalue().to_pybytes()


def _read(file: Path) -> Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = file.read_bytes()
    if _hash(content) != _promised(file):
        raise ValueError(f"folder: {file} is damaged; run its sweep again to replace it")
    table = pq.read_table(pa.BufferReader(content))
    return {
        name: column.to_pylist() if pa.types.is_string(column.type) else column.to_numpy()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:KEY_LENGTH]


def _promised(file: Path) -> str:
    return file.name.split(".")[1]


def _is_whole(file: Path) -> bool:
    try:
        return _hash(file.read_bytes()) == _promised(file)
    except OSError:
        return False


def _write(path: Path, content: bytes) -> None:
    """Put a whole file in its place, durably, or leave the place as it was."""
    partial = path.with_name(f".{path.name}{PARTIAL}")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Force a directory's names to the disk, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


_OURS: dict[int, tuple[int, int]] = {}
"""Locks of this process, and the files they lock: it would be granted a second one."""


def _locked(path: Path) -> int:
    """An open file that no other process has; the lock goes with the process, however it ends."""
    with contextlib.suppress(FileNotFoundError):
        # Not even opened: closing it again would end the lock that is there.
        if _identity(os.stat(path / LOCK)) in _OURS.values():
            raise ValueError(f"folder: expected one sweep at a time, {path} is in use")
    handle = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        import fcntl

        # Of this process alone: workers that outlive it do not hold it.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass  # a system without such locks: two sweeps there would write the same files twice
    except OSError as error:
        os.close(handle)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise ValueError(f"folder: expected one sweep at a time, {path} is in use") from error
        raise
    _OURS[handle] = _identity(os.fstat(handle))
    return handle


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _released(handle: int) -> None:
    _OURS.pop(handle, None)
    os.close(handle)


@contextlib.contextmanager
def _told(folder: Folder) -> Iterator[None]:
    """Say of a file that cannot be written what that means for the sweep."""
    try:
        yield
    except OSError as error:
        _raise_told(folder, error)


def _raise_told(folder: Folder, error: OSError) -> NoReturn:
    reason = error.strerror or str(error)
    told = f"{reason}; {folder.standing()}"
    raise OSError(error.errno or errno.EIO, told, str(error.filename or folder.path)) from error


def concatenated(rows: list[Columns]) -> Columns:
    """Rows of all cells as one table's columns; numbers stay exactly what they are."""
    return {
        name: [item for part in rows for item in part[name]]
        if isinstance(first, list)
        else np.concatenate([part[name] for part in rows])
        for name, first in rows[0].items()
    }
