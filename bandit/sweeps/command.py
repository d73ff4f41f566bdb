"""``python -m bandit sweep``: from options, or a TOML file, to a sweep and its summary."""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bandit import _checks, cases, presets, sweeps, tables
from bandit.problem import Bandit
from bandit.sweeps import grids

if TYPE_CHECKING:
    import pandas as pd

DESCRIPTION = (
    "Solves, and with --runs trains, every method at every point of a grid, on many processes.\n"
    "Each cell is kept in the directory --out as soon as it is finished: a sweep that was stopped\n"
    "goes on when the same command is given again. Several problems, behaviors with names and\n"
    "everything else that bandit.sweep takes can be written in a TOML file."
)
EXAMPLES = (
    "--out results --methods copg ipo --beta 0.1 0.2 0.5 1",
    "--out results --runs 20 --steps 500 --learning-rate 0.01 0.1 --workers 2",
    "settings.toml --out results --plot regret.png --x beta --y exact_regret",
)
MOST_LINES = 40
_IN_FILE = ("problems", "methods", "grids", "runs", "seed", "exact")
_OF_PROBLEM = ("reward", "beta", "reference", "context_weights")
_OPTIONS = {
    "beta": "strength of the KL penalty (0.5)",
    "behavior": "what draws the arms: probabilities, or of policy, reference and uniform "
    "(0.1 0.2 0.7; reference unless there are three arms)",
    "preference": "of bradley-terry and deterministic (bradley-terry)",
    "learning_rate": "(0.01)",
    "optimizer": "of adam and sgd (adam)",
    "batch_size": "groups (128)",
    "group_size": "arms each (2)",
    "reward_noise": "standard deviation of normal noise on every observed reward (0)",
    "steps": "(2000)",
    "record_every": "steps between records (only the start and the end)",
}
_COUNTED = ("batch_size", "group_size", "steps", "record_every")
_NAMED = ("preference", "optimizer")


def add(commands: Any, add_command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command to the parser's ``commands`` with the command line's own ``add_command``."""
    parser = add_command(
        commands, "sweep", "a grid of problems and settings, on many processes", DESCRIPTION,
        *EXAMPLES,
    )  # fmt: skip
    parser.add_argument("settings", nargs="?", type=Path, metavar="FILE", help="settings in TOML")
    group = parser.add_argument_group("problem", "Lists are written 1,2,3 or 1 2 3.")
    group.add_argument("--reward", nargs="+", metavar="R", help="of each arm (2.5 2 1)")
    group.add_argument("--reference", nargs="+", metavar="P", help="policy π_ref (uniform)")
    names = ", ".join(presets.METHODS)
    group.add_argument("--methods", nargs="+", metavar="NAME", help=f"of {names} (all)")
    group = parser.add_argument_group("grid", "Of a list every value is tried.")
    for name, text in _OPTIONS.items():
        group.add_argument(f"--{name.replace('_', '-')}", nargs="+", metavar="X", help=text)
    group = parser.add_argument_group("sampling")
    group.add_argument("--runs", metavar="N", help="trainings of each cell (0: exact solutions)")
    group.add_argument("--seed", metavar="N", help="(0)")
    group = parser.add_argument_group("output")
    group.add_argument("--out", type=Path, required=True, metavar="DIR", help="results directory")
    group.add_argument("--workers", metavar="N", help="processes (1; -1: one a processor)")
    group.add_argument("--csv", type=Path, metavar="FILE", help="write the whole table as CSV")
    group.add_argument("--plot", type=Path, metavar="FILE", help="draw --y against --x")
    group.add_argument("--x", metavar="COLUMN")
    group.add_argument("--y", metavar="COLUMN")
    group.add_argument("--hue", metavar="COLUMN", help="what the curves differ in (method)")
    group.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    asked = _from_options(options) if options.settings is None else _from_file(options)
    if (options.plot is None) != (options.x is None) or (options.x is None) != (options.y is None):
        raise ValueError("plot: expected --plot, --x and --y together")
    workers = None if options.workers is None else _whole("workers", options.workers)
    bar = sys.stderr.isatty() and not options.no_progress
    try:
        table = sweeps.sweep(**asked, folder=options.out, workers=workers, progress=bar)
    except KeyboardInterrupt:
        print(f"interrupted; finished cells are kept in {options.out}", file=sys.stderr)
        raise
    if options.csv is not None:
        table.to_csv(options.csv, index=False, lineterminator="\n")
    if options.plot is not None:
        _draw(options, table)
    print(tables.printable(summary(table, options.out), sys.stdout))
    return 0


def summary(table: pd.DataFrame, folder: Path) -> str:
    """A line for each cell: medians over the runs at their end, and the exact regret."""
    inputs = [name for name in table.columns if name not in sweeps.RESULTS]
    if "step" in table:
        table = table[table["step"] == table.groupby(inputs, sort=False)["step"].transform("max")]
    shown = [name for name in ("regret", "exact_regret") if name in table]
    cells = table.groupby(inputs, sort=False)[shown].median().reset_index()
    kept = f"{len(cells)} cells are kept in {folder}"
    if len(cells) > MOST_LINES:
        return kept
    columns = {
        name: tables.numbers(cells[name]) if name in shown else [str(v) for v in cells[name]]
        for name in cells.columns
    }
    return f"{tables.aligned(columns, sys.stdout)}\n\n{kept}"


def _draw(options: argparse.Namespace, table: pd.DataFrame) -> None:
    import bandit

    hue = {} if options.hue is None else {"hue": options.hue}
    with bandit.plots.style():
        axes = bandit.plots.sweep(table, x=options.x, y=options.y, **hue)
        axes.figure.savefig(options.plot)


# ------------------------------------------------------------------------------------ settings


def _from_options(options: argparse.Namespace) -> dict[str, Any]:
    ours = presets.three_armed_bandit()
    reward = ours.reward if options.reward is None else _numbers("reward", options.reward)
    reference = None if options.reference is None else _numbers("reference", options.reference)
    problem = Bandit(reward, ours.beta, reference)
    methods = list(presets.METHODS) if options.methods is None else cases.words(options.methods)
    grid = {name: _values(name, getattr(options, name)) for name in _OPTIONS}
    if grid["behavior"] is None and problem.n_arms == 3:
        grid["behavior"] = presets.three_armed_behavior()
    return {
        "problems": problem,
        "methods": methods,
        "grids": {name: values for name, values in grid.items() if values is not None},
        "runs": _whole("runs", options.runs or "0"),
        "seed": _whole("seed", options.seed or "0"),
    }


def _values(name: str, given: list[str] | None) -> Any:
    if given is None:
        return None
    words = cases.words(given)
    if name in _NAMED or (name == "behavior" and set(words) <= set(grids.BEHAVIORS)):
        return words
    if name in _COUNTED:
        return [_whole(name, word) for word in words]
    return _numbers(name, given)


def _numbers(name: str, given: list[str]) -> Any:
    numbers = cases.numbers(name, given)
    return np.array([]) if numbers is None else numbers


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name}: expected a whole number, got {text.strip()!r}") from None


def _from_file(options: argparse.Namespace) -> dict[str, Any]:
    given = ["reward", "reference", "methods", "runs", "seed", *_OPTIONS]
    for name in given:
        if getattr(options, name) is not None:
            raise ValueError(f"{name}: expected none beside {options.settings}, which says it all")
    with options.settings.open("rb") as file:
        try:
            settings = tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{options.settings}: expected TOML, got: {error}") from error
    for name in settings:
        _checks.one_of(str(options.settings), name, _IN_FILE)
    if "problems" not in settings:
        settings["problems"] = presets.three_armed_bandit()
    else:
        settings["problems"] = _problems(settings["problems"])
    return {"methods": list(presets.METHODS)} | settings


def _problems(given: Any) -> dict[str, Bandit]:
    if not isinstance(given, Mapping) or not all(isinstance(v, Mapping) for v in given.values()):
        raise ValueError("problems: expected tables such as [problems.name]")
    for name, parts in given.items():
        for part in parts:
            _checks.one_of(f"problems.{name}", part, _OF_PROBLEM)
        for part in ("reward", "beta"):
            if part not in parts:
                raise ValueError(f"problems.{name}: expected {part}, got none")
    return {name: Bandit(**parts) for name, parts in given.items()}
