"""The commands for logged data: ``python -m bandit fit`` and ``python -m bandit evaluate``.

What is typed becomes data in :mod:`bandit.log_cases`, what came out becomes text in
:mod:`bandit.log_tables`, and everything between is :func:`bandit.fit` and :mod:`bandit.ope`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import bandit
from bandit import analysis, cases, presets
from bandit.tables import printable

if TYPE_CHECKING:
    import pandas as pd

    from bandit.log_cases import Logged
    from bandit.offline import Fit

REWARDS = ("mean", "lower_confidence_bound", "empirical_bayes")
REFERENCES = ("uniform", "logging")
EVALUATION = "evaluation"

# --------------------------------------------------------------------------------- options


def add_commands(commands: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add both to a parser's commands.

    Parameters
    ----------
    commands : action of argparse
        The subparsers.
    add : callable
        (commands, name, summary, details, *examples) → parser of one command.
    """
    _add_fit(commands, add)
    _add_evaluate(commands, add)


def _add_fit(commands: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    parser = add(
        commands,
        "fit",
        "learn a policy from logged data",
        "Learns a policy from a log, prints its likeliest arms in each context and what it would\n"
        "have earned, with intervals. The log that chose the policy also judges it: expect less.",
        "LOG.csv --context position --arm item_id --reward click --propensity p --beta 0.002",
        "--example open-bandit --campaign men --beta 0.002 --rewards lower_confidence_bound",
        "LOG.parquet --arm item --reward sales --beta 0.1 --method ipo --holdout 0.5 --out learned",
    )
    _add_log(parser)
    _add_learning(parser)
    group = _add_output(parser)
    group.add_argument(
        "--top", type=cases.whole, default=5, metavar="N", help="arms shown for each context (5)"
    )
    group.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="write policy and report to a new or empty folder: policy.csv and report.json, which "
        "bandit.Fit.load reads, evaluation.csv and evaluation.json",
    )
    parser.set_defaults(command=_fit)


def _add_learning(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("learning")
    group.add_argument(
        "--beta", type=cases.real, required=True, metavar="B", help="strength of the KL penalty"
    )
    group.add_argument(
        "--method",
        choices=tuple(presets.METHODS),
        default="copg",
        metavar="NAME",
        help=f"of {', '.join(presets.METHODS)} (copg)",
    )
    group.add_argument(
        "--reference",
        default="uniform",
        metavar="POLICY",
        help="π_ref: uniform, logging (what the log played) or a CSV file as for evaluate --policy "
        "(uniform)",
    )
    group.add_argument(
        "--rewards",
        choices=REWARDS,
        default="mean",
        help="what a context and arm is taken to be worth, from its rows (mean)",
    )
    group = parser.add_argument_group("how")
    group.add_argument(
        "--holdout",
        type=cases.real,
        metavar="SHARE",
        help="learn from the other rows and judge the policy by this share of them, drawn at "
        "random (none: the log that chose the policy also judges it)",
    )
    group.add_argument(
        "--solver",
        choices=("exact", "minibatch"),
        default="exact",
        help="the solution of the expected loss, or gradient descent on batches of rows (exact)",
    )
    for name, kind, what in (
        ("steps", cases.whole, "of gradient descent (2000)"),
        ("batch-size", cases.whole, "pairs of rows in a step (256)"),
        ("learning-rate", cases.real, "of Adam (0.02)"),
    ):
        group.add_argument(f"--{name}", type=kind, metavar="N", help=what)
    group.add_argument(
        "--seed", type=cases.whole, metavar="N", help="of rows held out, and of batches (0)"
    )


def _add_evaluate(commands: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    parser = add(
        commands,
        "evaluate",
        "what a policy would have earned on logged data",
        "Estimates with intervals: inverse propensity weighting, normalized or not, mean\n"
        "rewards of contexts and arms (direct), and both together (doubly robust, each row\n"
        "corrected by the means of the others).",
        "LOG.csv --context position --arm item_id --reward click --propensity p",
        "LOG.csv --context position --arm item_id --reward click --propensity p "
        "--policy learned/policy.csv",
        "--example open-bandit --campaign women --format json",
    )
    _add_log(parser)
    group = parser.add_argument_group("policy")
    group.add_argument(
        "--policy",
        default="uniform",
        metavar="POLICY",
        help="uniform, or a CSV file with columns context, arm and probability (uniform)",
    )
    group = _add_output(parser)
    group.add_argument(
        "--format", choices=("table", "csv", "json"), default="table", help="(default: table)"
    )
    parser.set_defaults(command=_evaluate)


def _add_log(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("log")
    group.add_argument(
        "log",
        nargs="?",
        type=Path,
        metavar="LOG",
        help="CSV file, also packed by gzip, or Parquet (.parquet, .pq)",
    )
    group.add_argument(
        "--context",
        action="append",
        metavar="COLUMN",
        help="what the logger saw; given several times, all of it together (none: one context)",
    )
    for name, what in (
        ("arm", "what it chose"),
        ("reward", "what came of it, a number"),
        ("propensity", "how likely the choice was, in (0, 1] (none: only means are estimated)"),
    ):
        group.add_argument(f"--{name}", metavar="COLUMN", help=what)
    group.add_argument("--delimiter", metavar="C", help="of a CSV file: one character, or tab (,)")
    group.add_argument(
        "--decimal", choices=(".", ","), help="what a CSV file divides decimals by (.)"
    )
    group.add_argument(
        "--on-bad",
        choices=("error", "drop"),
        help="stop at the first bad row, or leave all out and say how many (error)",
    )
    group.add_argument(
        "--example", choices=("open-bandit",), help="a log that comes with the package, as sums"
    )
    group.add_argument("--campaign", choices=("all", "men", "women"), help="of the example (all)")
    group.add_argument("--logger", choices=("random", "bts"), help="of the example (bts)")


def _add_output(parser: argparse.ArgumentParser) -> Any:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--level", type=cases.real, default=0.95, metavar="X", help="of the intervals (0.95)"
    )
    return group


# -------------------------------------------------------------------------------- commands


def _fit(options: argparse.Namespace) -> int:
    from bandit import log_cases, log_tables, ope
    from bandit._checks import level_between_0_and_1, positive_integer

    # Before a long file is read rather than after it.
    positive_integer("top", options.top)
    level_between_0_and_1(options.level)
    with contextlib.ExitStack() as stack:
        notes, folder = stack.enter_context(_heard()), None
        if options.out is not None:
            folder = stack.enter_context(log_cases.new_folder(options.out))
        learned, judge = _learn(options)
        with warnings.catch_warnings():
            if options.holdout is None:  # the diagnostics have it
                warnings.simplefilter("ignore", ope.LowOverlapWarning)
                warnings.simplefilter("ignore", ope.PropensityWarning)
            table = _estimates(judge, learned.policy, options.level)
        for note in learned.diagnostics.warnings:
            warnings.warn(note, UserWarning, stacklevel=1)
        if folder is not None:
            learned.save(folder)
            _write_evaluation(folder, options, judge, table, notes)
    text = [
        *log_tables.log_lines(judge),
        log_tables.fit_line(learned, options),
        "",
        log_tables.top_text(learned, options.top, sys.stdout),
        "",
        log_tables.estimates_text(table, judge, options.level, sys.stdout),
        "the log that chose the policy also judges it here: expect less"
        if options.holdout is None
        else f"learned from {learned.diagnostics.rows} other rows",
    ]
    print(printable("\n".join(text), sys.stdout))
    return 0


def _learn(options: argparse.Namespace) -> tuple[Fit, Logged]:
    """What was learned, and the log that judges it."""
    from bandit import log_cases
    from bandit._learning import reads_rows

    training = _training(options)
    if options.holdout is None and not training and options.seed is not None:
        raise ValueError(
            f"seed: expected none without --holdout or --solver minibatch, got {options.seed}"
        )
    rows = (
        options.holdout is not None
        or options.solver == "minibatch"
        or reads_rows(presets.method(options.method))
    )
    logged = log_cases.from_options(options, rows=rows)
    reference = options.reference
    if reference not in REFERENCES:
        logged, reference = log_cases.read_policy("reference", Path(reference), logged)
    judge = logged
    if options.holdout is not None:
        logged, judge = log_cases.divided(logged, options.holdout, options.seed or 0)
    with warnings.catch_warnings():
        # The diagnostics say so too.
        warnings.simplefilter("ignore", analysis.NotIdentifiedWarning)
        learned = bandit.fit(
            logged.data,
            options.method,
            beta=options.beta,
            reference=reference,
            rewards=options.rewards,
            **training,
        )
    return learned, judge


def _training(options: argparse.Namespace) -> dict[str, Any]:
    """What the solver is told; nothing for the exact one."""
    from bandit._checks import positive_number

    names = ("steps", "batch_size", "learning_rate")
    if options.solver == "exact":
        for name in names:
            given = getattr(options, name)
            if given is not None:
                raise ValueError(f"{name}: expected none without --solver minibatch, got {given}")
        return {}
    rate = 0.02 if options.learning_rate is None else options.learning_rate
    rate = positive_number("learning_rate", rate)
    return {
        "solver": "minibatch",
        "steps": options.steps,
        "batch_size": options.batch_size,
        "optimizer": bandit.Adam(rate),
        # Another stream than the draw of rows held out.
        "rng": np.random.SeedSequence(options.seed or 0, spawn_key=(1,)),
    }


def _evaluate(options: argparse.Namespace) -> int:
    from bandit import log_cases, log_tables

    with _heard() as notes:
        logged = log_cases.from_options(options)
        if options.policy == "uniform":
            policy = np.full(logged.counts.shape, 1 / logged.counts.n_arms)
        else:
            logged, policy = log_cases.read_policy("policy", Path(options.policy), logged)
        table = _estimates(logged, policy, options.level)
    if options.format == "csv":
        text = table.to_csv(lineterminator="\n").rstrip("\n")
    elif options.format == "json":
        about = {"policy": options.policy, "level": options.level}
        text = log_tables.as_json(log_tables.document(logged, table, notes, about))
    else:
        estimates = log_tables.estimates_text(table, logged, options.level, sys.stdout)
        asked = f"policy {options.policy}"
        text = "\n".join([*log_tables.log_lines(logged), asked, "", estimates])
    print(printable(text, sys.stdout))
    return 0


def _estimates(logged: Logged, policy: np.ndarray, level: float) -> pd.DataFrame:
    """All there are, the doubly robust one with each row left out of its own correction."""
    from bandit import ope

    counts = logged.counts
    crossed = counts.inverse is not None and len(counts) > 1
    return ope.evaluate(counts, policy, folds="rows" if crossed else None, level=level)


def _write_evaluation(
    folder: Path,
    options: argparse.Namespace,
    logged: Logged,
    table: pd.DataFrame,
    notes: list[str],
) -> None:
    from bandit import log_tables

    about = {
        "version": bandit.__version__,
        "command": options.typed,
        "method": options.method,
        "beta": options.beta,
        "reference": options.reference,
        "rewards": options.rewards,
        "solver": options.solver,
        "holdout": options.holdout,
        "seed": options.seed,
        "level": options.level,
    }
    table.to_csv(folder / f"{EVALUATION}.csv", lineterminator="\n")
    text = log_tables.as_json(log_tables.document(logged, table, notes, about))
    (folder / f"{EVALUATION}.json").write_text(text + "\n", encoding="utf-8")


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """The texts of the warnings in a block, which are shown as ever."""
    heard: list[str] = []
    show = warnings.showwarning

    def listen(message: Warning | str, *where: Any, **more: Any) -> None:
        heard.append(str(message))
        show(message, *where, **more)

    with warnings.catch_warnings():
        warnings.showwarning = listen
        yield heard
