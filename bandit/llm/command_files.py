"""What the commands of ``python -m bandit.llm`` read and write."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from bandit._command_line import complain

PROGRAM = "python -m bandit.llm"

# Seeds that torch, numpy and transformers all take.
LARGEST_SEED = 2**32 - 1


def completions(options: argparse.Namespace, path: Path, name: str, tokenizer: Any) -> Any:
    """The rows of a file, with a warning of those that were dropped."""
    from bandit.llm.completions import Completions
    from bandit.llm.records import records_of

    records = records_of(path, name)
    data = Completions.from_records(
        records,
        tokenizer=tokenizer,
        max_length=options.max_length,
        on_bad=options.on_bad,
        source=f"{path}, record",
    )
    if data.dropped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in data.dropped.items())
        complain(PROGRAM, f"warning: rows dropped from {path}: {reasons}")
    if not len(data):
        raise ValueError(f"{name}: expected at least one row, got none in {path}")
    return data


def check_seed(seed: int) -> None:
    """Raise unless all that take a seed take this one."""
    if not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"seed: expected a whole number from 0 to {LARGEST_SEED}, got {seed}")


def check_folder(folder: Path, otherwise: str = "") -> None:
    """Before anything is computed: nothing that is there gets lost, and nothing is in the way."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out: expected a folder, got the file {folder}")
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"out: expected a new or empty folder{otherwise}, got {folder}")


def check_file(name: str, path: Path | None, *, overwrite: bool) -> None:
    """Before anything is computed: the file can be written, and nothing that is there gets lost."""
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{name}: expected a file in a folder that exists, got {path}")
    if path.is_file() and not overwrite:
        otherwise = ", or --overwrite" if name == "out" else ""
        raise ValueError(f"{name}: expected a new file{otherwise}, got {path}")


@contextlib.contextmanager
def output(path: Path | None) -> Iterator[TextIO]:
    """A file to write to, or standard output."""
    if path is None:
        yield sys.stdout
    else:
        with path.open("w", encoding="utf-8") as file:
            yield file


def write(out: TextIO, record: dict[str, Any]) -> None:
    """A record as a line."""
    print(json.dumps(record, ensure_ascii=False), file=out)


def say(found: dict[str, Any]) -> None:
    """The one line on standard output that says what was done."""
    print(json.dumps(found, ensure_ascii=False))
