"""From what was typed on the command line to logged data and the policies asked about."""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import os
import shutil
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bandit import _checks, data
from bandit._checks import Array
from bandit._fit_files import aligned
from bandit.data.counts import Counts, Labels
from bandit.data.division import rows_of, steady_propensities
from bandit.data.log import Log

# Files that say by their names that they are Parquet.
PARQUET = (".parquet", ".pq")
OF_FILES = ("context", "arm", "reward", "propensity", "delimiter", "decimal", "on_bad")
OF_EXAMPLES = ("campaign", "logger")


@dataclass(frozen=True, eq=False)
class Logged:
    """A log, and what it is called.

    Attributes
    ----------
    name : str
    data : Log or Counts
    sums_only : bool
        Whether the largest weights are bounds: sums over propensities that drift are all there is.
    """

    name: str
    data: Log | Counts
    sums_only: bool

    @functools.cached_property
    def counts(self) -> Counts:
        """Sums per context and arm."""
        return self.data.counts() if isinstance(self.data, Log) else self.data


# ------------------------------------------------------------------------------------ the log


def from_options(options: argparse.Namespace, *, rows: bool = False) -> Logged:
    """The log that parsed options ask for; a ValueError naming the option where they ask for none.

    Parameters
    ----------
    options : Namespace
    rows : bool
        Whether the rows of a file are needed. Otherwise it is read in chunks, and may be larger
        than memory. The example has sums only.
    """
    if options.example is not None:
        _refuse(options, ("log", *OF_FILES), "beside --example")
        campaign, logger = options.campaign or "all", options.logger or "bts"
        counts = data.open_bandit(campaign, logger)
        # Of equal propensities the bound is what they are.
        drifting = steady_propensities(counts) is None
        return Logged(f"open-bandit, campaign {campaign}, logged by {logger}", counts, drifting)
    if options.log is None:
        raise ValueError("expected a LOG, a CSV or Parquet file, or --example; got neither")
    _refuse(options, OF_EXAMPLES, "beside a LOG")
    for name in ("arm", "reward"):
        if getattr(options, name) is None:
            raise ValueError(f"{name}: expected the name of a column of {options.log}, got none")
    named = {name: getattr(options, name) for name in ("context", "arm", "reward", "propensity")}
    named["on_bad"] = options.on_bad or "error"
    read: Callable[..., Log | Counts]
    if options.log.suffix.lower() in PARQUET:
        _refuse(options, ("delimiter", "decimal"), "for a Parquet file")
        read = data.read_parquet if rows else data.count_parquet
    else:
        named["delimiter"] = "\t" if options.delimiter == "tab" else options.delimiter or ","
        named["decimal"] = options.decimal or "."
        read = data.read_csv if rows else data.count_csv
    return Logged(options.log.name, read(options.log, **named), False)


def _refuse(options: argparse.Namespace, names: Sequence[str], where: str) -> None:
    for name in names:
        given = getattr(options, name)
        if given is not None:
            typed = " ".join(given) if isinstance(given, list) else given
            raise ValueError(f"{name}: expected none {where}, got {typed}")


def divided(logged: Logged, share: float, seed: int) -> tuple[Logged, Logged]:
    """The rows to learn from and those held out, drawn at random; see :func:`bandit.data.split`.

    Parameters
    ----------
    logged : Logged
    share : float
        Of the rows held out, in (0, 1).
    seed : int

    Raises
    ------
    ValueError
        If none would be left on one side, or the rows cannot be told from their sums.
    """
    try:
        parts = data.split(logged.data, share, rng=seed)
    except ValueError as error:
        # What is called share or data there is an option here.
        text = str(error).removeprefix("share: ").removeprefix("data: ")
        if logged.sums_only and "drift" in text:
            text += "; --logger random has what can be divided"
        name = "seed" if text.startswith("rng: ") else "holdout"
        raise ValueError(f"{name}: {text.removeprefix('rng: ')}") from error
    rest, held = (Logged(logged.name, part, False) for part in parts)
    return rest, held


# ------------------------------------------------------------------------------------ policies


class _Table(NamedTuple):
    """A policy as its file has it."""

    contexts: Labels
    arms: Labels
    probabilities: Array  # (X, K)


def read_policy(option: str, path: Path, logged: Logged) -> tuple[Logged, Array]:
    """A policy from a CSV file with columns context, arm and probability, and a log that fits it.

    Parameters
    ----------
    option : str
        Names the policy in messages.
    path : Path
        Pairs that it lacks have probability 0. Without a column context, or for a log without
        contexts, it has one row per arm.
    logged : Logged
        Contexts and arms are matched by their labels.

    Returns
    -------
    logged : Logged
        With the arms that only the policy knows behind the others.
    policy : ndarray (X, K)

    Raises
    ------
    ValueError
        One line that begins with the option.
    OSError
        If the file cannot be opened.

    Warns
    -----
    UserWarning
        If it has contexts that the log has not: nothing is said of them.
    """
    mine = logged.data
    try:
        table = _table(path, has_contexts=mine.context_labels != (None,))
    except ValueError as error:
        # The columns have these names here, not roles.
        text = str(error)
        for role in ("context: ", "arm: ", "reward: "):
            text = text.removeprefix(role)
        raise ValueError(f"{option}: {text}") from error
    arms = _union(mine.arm_labels, table.arms)
    place = {str(label): at for at, label in enumerate(arms)}
    columns = [place[str(label)] for label in table.arms]
    policy = np.zeros((mine.n_contexts, len(arms)))
    if table.contexts == (None,):
        policy[:, columns] = table.probabilities
    else:
        rows = {str(label): at for at, label in enumerate(table.contexts)}
        for at, label in enumerate(mine.context_labels):
            if str(label) not in rows:
                raise ValueError(f"{option}: expected context {label!r} of the log in {path.name}")
            policy[at, columns] = table.probabilities[rows[str(label)]]
        _warn_of_others(path.name, table.contexts, mine.context_labels)
    return replace(logged, data=_widened(mine, arms)), _checks.distribution(option, policy)


def _table(path: Path, *, has_contexts: bool) -> _Table:
    with path.open(encoding="utf-8-sig", newline="", errors="replace") as stream:
        header = next(csv.reader([stream.readline(1 << 16)]), [])
    context = "context" if has_contexts and "context" in header else None
    rows = data.read_csv(path, context=context, arm="arm", reward="probability")
    often = np.zeros(rows.shape, dtype=np.int64)
    np.add.at(often, (rows.contexts, rows.arms), 1)
    if often.max() > 1:
        x, y = np.argwhere(often > 1)[0].tolist()
        where = f"arm {rows.arm_labels[y]!r}"
        if context is not None:
            where += f" of context {rows.context_labels[x]!r}"
        raise ValueError(f"{path.name}: expected {where} once, got it {often[x, y]} times")
    probabilities = np.zeros(rows.shape)
    probabilities[rows.contexts, rows.arms] = rows.rewards
    return _Table(rows.context_labels, rows.arm_labels, probabilities)


def _union(mine: Sequence[Hashable], others: Sequence[Hashable]) -> Labels:
    known = {str(label) for label in mine}
    return (*mine, *(label for label in others if str(label) not in known))


def _warn_of_others(name: str, theirs: Labels, mine: Labels) -> None:
    known = {str(label) for label in mine}
    left = [str(label) for label in theirs if str(label) not in known]
    if left:
        warnings.warn(
            f"{name}: contexts that the log has not are left out: {', '.join(left[:5])}"
            + (f" and {len(left) - 5} more" if len(left) > 5 else ""),
            UserWarning,
            stacklevel=3,
        )


def _widened(mine: Log | Counts, arms: Labels) -> Log | Counts:
    """With arms at the end that nobody logged."""
    if isinstance(mine, Log):
        return rows_of(mine, np.arange(len(mine)), arms)
    return aligned(mine, mine.context_labels, arms)


# -------------------------------------------------------------------------------------- output


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write to, which becomes ``out`` when all is written, and vanishes if it is not.

    Parameters
    ----------
    out : Path
        New, or an empty folder.

    Raises
    ------
    ValueError
        If it is neither, or cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"out: expected a folder, got the file {out}")
    new = not out.exists()
    draft = (out.parent if new else out) / f".{out.name}.{os.getpid()}"
    try:
        if not new and any(out.iterdir()):
            raise ValueError(f"out: expected a new or an empty folder, got {out} with files in it")
        draft.mkdir()
    except OSError as error:
        raise ValueError(
            f"out: expected a folder that can be written, got {out} ({error.strerror})"
        ) from error
    try:
        yield draft
        if new:
            draft.rename(out)
        else:
            for file in sorted(draft.iterdir()):
                file.replace(out / file.name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
