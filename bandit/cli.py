"""The command line: ``python -m bandit compare``, ``train``, ``sweep``, ``fit``, ``evaluate``,
``verify`` and ``selftest``.

Commands for logged data are in :mod:`bandit.log_commands`. What is computed comes from
:mod:`bandit.analysis` and :func:`bandit.train`; what is typed becomes a problem in
:mod:`bandit.cases`, and what came out becomes text in :mod:`bandit.tables`. A wrong value gives one
line on stderr and exit status 2.
"""

from __future__ import annotations

import argparse
import functools
import re
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bandit
from bandit import analysis, cases, log_commands, presets, tables
from bandit._command_line import FAILED, INTERRUPTED, Parser, add_command, answered, complain
from bandit.cases import Case
from bandit.sweeps import command as sweep_command
from bandit.tables import printable
from bandit.verification import _command as verify

if TYPE_CHECKING:
    from bandit.history import History

PROGRAM = "python -m bandit"

TRAINED = (
    "copg",
    "ipo",
    "dpo",
    "policy_gradient",
    "policy_gradient_behavior",
    "importance_sampling",
)
PICTURES = (".png", ".pdf")

# What the package calls an argument, where the option is called otherwise.
_OPTION_OF = {
    "mu": "behavior",
    "preference": "preferences",
    "method": "methods",
    "lr": "learning_rate",
    "rng": "seed",
    "folder": "out",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Default: the arguments of this process.

    Returns
    -------
    int
        Exit status: 0, 1 for a fault that was found, 2 for a wrong value, 130 when interrupted, 141
        when nobody reads the output.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return answered(PROGRAM, functools.partial(_run, words), _OPTION_OF)


def _run(argv: list[str], options: argparse.Namespace) -> int:
    # A list such as -1,0,2 would be taken for an option if it began with the minus sign.
    words = [re.sub(r"^(?=-\.?\d)", " ", word) for word in argv]
    _parser().parse_args(words, namespace=options)
    options.typed = f"{PROGRAM} {shlex.join(argv)}"
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        # Said here with the method's name.
        warnings.filterwarnings("ignore", "train: interrupted")
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        return options.command(options)


def _show_warning(message: Warning | str, *_: Any) -> None:
    _complain(f"warning: {str(message).splitlines()[0]}")


def _complain(line: str) -> None:
    complain(PROGRAM, line)


# --------------------------------------------------------------------------------- options


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Where learning objectives for KL-regularized bandits converge, exactly and in "
        "samples.",
        epilog=f"{PROGRAM} COMMAND --help tells more, with examples.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"copg-bandit {bandit.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_compare(commands)
    _add_train(commands)
    sweep_command.add(commands, _add)
    log_commands.add_commands(commands, _add)
    _add_selftest(commands)
    verify.add_to(commands)
    return parser


_add = functools.partial(add_command, PROGRAM)


def _add_compare(commands: Any) -> None:
    parser = _add(
        commands,
        "compare",
        "exact solutions of the methods, as a table",
        "Where each method comes to rest, exactly: its solution, how far that is from the optimal\n"
        "policy π* (KL in nats, regret in units of reward), how fast gradient descent gets there\n"
        "(slowest eigenvalue, per unit of step size), and the variance of a one-pair gradient.",
        "",
        "--behavior 0.98,0.01,0.01 --methods copg ipo dpo",
        "--reward 1 0 -1 2 --beta 0.2 --preferences deterministic",
        "--format csv > table.csv",
    )
    _add_problem(parser, presets.METHODS)
    parser.add_argument(
        "--format", choices=("table", "csv", "json"), default="table", help="(default: table)"
    )
    parser.set_defaults(command=_compare)


def _add_train(commands: Any) -> None:
    parser = _add(
        commands,
        "train",
        "sampled training, as a table and a picture",
        "Trains each method on sampled pairs and prints the regret (units of reward, median over\n"
        "runs) at a few steps, beside the regret of the method's exact solution.",
        "",
        "--methods copg policy_gradient --runs 100 --plot curves.png --out curves.csv",
        "--on-policy --methods rloo grpo --group-size 8 --reward-noise 0.5",
    )
    _add_problem(parser, TRAINED)
    group = parser.add_argument_group("training")
    group.add_argument("--steps", type=cases.whole, default=2000, metavar="N", help="(2000)")
    group.add_argument(
        "--batch-size", type=cases.whole, default=128, metavar="N", help="groups (128)"
    )
    group.add_argument(
        "--group-size", type=cases.whole, default=2, metavar="N", help="arms each (2)"
    )
    group.add_argument(
        "--learning-rate", type=cases.real, default=0.01, metavar="X", help="of Adam (0.01)"
    )
    group.add_argument("--runs", type=cases.whole, default=20, metavar="N", help="(20)")
    group.add_argument("--seed", type=cases.whole, default=0, metavar="N", help="(0)")
    group.add_argument(
        "--on-policy", action="store_true", help="draw the arms from the policy being learned"
    )
    group.add_argument(
        "--reward-noise",
        type=cases.real,
        default=0.0,
        metavar="X",
        help="standard deviation of normal noise on every observed reward (0)",
    )
    group = parser.add_argument_group("output")
    group.add_argument("--out", type=Path, metavar="FILE", help="write all records as CSV")
    group.add_argument(
        "--plot", type=Path, metavar="FILE", help=f"draw the curves ({' or '.join(PICTURES)})"
    )
    group.add_argument(
        "--no-progress", action="store_true", help="no progress bar (there is none in a pipe)"
    )
    parser.set_defaults(command=_train)


def _add_selftest(commands: Any) -> None:
    parser = _add(
        commands,
        "selftest",
        "check this installation",
        "Known values, each answer against another way to it, seeds and shipped tables: a few\n"
        "seconds. Exit status 1 if a check fails.",
        "",
    )
    parser.set_defaults(command=_selftest)


def _add_problem(parser: argparse.ArgumentParser, methods: Sequence[str] | Any) -> None:
    group = parser.add_argument_group(
        "problem", "Lists are written 1,2,3 or 1 2 3; in parentheses: our three-armed bandit."
    )
    group.add_argument("--reward", nargs="+", metavar="R", help="of each arm (2.5 2 1)")
    group.add_argument("--reference", nargs="+", metavar="P", help="policy π_ref (uniform)")
    group.add_argument(
        "--beta", type=cases.real, metavar="B", help="strength of the KL penalty (0.5)"
    )
    group.add_argument(
        "--behavior",
        nargs="+",
        metavar="P",
        help="policy μ that draws the arms (0.1 0.2 0.7; π_ref unless there are three arms)",
    )
    group.add_argument(
        "--preferences",
        metavar="KIND",
        help="bradley-terry, deterministic, or a CSV file with the matrix P(y ≻ y') "
        "(bradley-terry)",
    )
    which = "all" if methods is presets.METHODS else ", ".join(methods)
    group.add_argument(
        "--methods",
        "--method",
        nargs="+",
        metavar="NAME",
        help=f"of {', '.join(presets.METHODS)} ({which})",
    )
    parser.set_defaults(default_methods=tuple(methods))


# -------------------------------------------------------------------------------- commands


def _compare(options: argparse.Namespace) -> int:
    case = cases.from_options(options)
    table = analysis.compare(case.problem, case.pairs, case.methods, case.preference)
    if options.format == "csv":
        text = tables.comparison_csv(case, table)
    elif options.format == "json":
        text = tables.comparison_json(case, table)
    else:
        text = tables.comparison_text(case, table, sys.stdout)
    print(printable(text, sys.stdout))
    return 0


def _train(options: argparse.Namespace) -> int:
    case = cases.from_options(options, on_policy=options.on_policy)
    if options.plot is not None and options.plot.suffix.lower() not in PICTURES:
        raise ValueError(f"plot: expected a name in {' or '.join(PICTURES)}, got {options.plot}")
    if options.plot is not None and options.plot == options.out:
        raise ValueError(f"plot: expected another file than --out, got {options.plot}")
    for name in ("out", "plot"):
        _check_writable(name, getattr(options, name))
    exact, notes = _exact_regret(case, options)
    histories = _train_each(case, options)
    if not histories:
        return INTERRUPTED
    _report(case, options, histories, exact, notes)
    if len(histories) == len(case.methods) and not any(h.interrupted for h in histories.values()):
        return 0
    name, last = list(histories.items())[-1]
    _complain(f"interrupted at step {last.steps[-1]} of {name}; what was done is kept")
    return INTERRUPTED


def _selftest(options: argparse.Namespace) -> int:
    from bandit import selftest

    outcomes = selftest.run()
    print(printable(selftest.report(outcomes), sys.stdout))
    return 0 if all(one.passed for one in outcomes) else FAILED


def _train_each(case: Case, options: argparse.Namespace) -> dict[str, History]:
    """A history for each method; fewer, the last one cut short, after Ctrl-C."""
    histories: dict[str, History] = {}
    for name, method in case.methods.items():
        try:
            histories[name] = bandit.train(
                case.problem,
                method.loss,
                pairs=case.pairs,
                on_policy=options.on_policy,
                preference=case.preference if cases.reads_preferences(method) else None,
                baseline=method.baseline,
                group_size=options.group_size,
                batch_size=options.batch_size,
                steps=options.steps,
                optimizer=bandit.Adam(options.learning_rate),
                runs=options.runs,
                reward_noise=options.reward_noise,
                rng=options.seed,
                progress=sys.stderr.isatty() and not options.no_progress,
            )
        except KeyboardInterrupt:
            break
        if histories[name].interrupted:
            break
    return histories


def _exact_regret(
    case: Case, options: argparse.Namespace
) -> tuple[dict[str, float], dict[str, str]]:
    """Regret of each method's exact solution, and for some why there is none to compare with."""
    if case.behavior is None:
        return {}, {}
    table = analysis.compare(case.problem, case.pairs, case.methods, case.preference)
    exact, notes = table["regret"].to_dict(), table["message"][~table["converged"]].to_dict()
    for name, method in case.methods.items():
        why = cases.no_exact_solution(method, options.group_size, options.reward_noise)
        notes |= {name: why} if why else {}
    return {name: float("nan") if name in notes else exact[name] for name in exact}, notes


def _report(
    case: Case,
    options: argparse.Namespace,
    histories: dict[str, History],
    exact: dict[str, float],
    notes: dict[str, str],
) -> None:
    # Files first: a reader of the table who leaves early does not lose them.
    if options.out is not None:
        import pandas as pd

        records = pd.concat({n: h.to_dataframe() for n, h in histories.items()}, names=["method"])
        records.droplevel(1).to_csv(options.out, lineterminator="\n")
    if options.plot is not None:
        _draw(options, histories, exact)
    steps = max((h.steps for h in histories.values()), key=len)
    regret = {name: history.regret() for name, history in histories.items()}
    settings = (
        f"median regret of {options.runs} runs; Adam, learning rate {options.learning_rate:g}, "
        f"batches of {options.batch_size}, groups of {options.group_size}, seed {options.seed}"
    )
    text = tables.curves_text(steps, regret, exact, notes, sys.stdout)
    heading = "\n".join([*tables.heading(case), settings])
    print(printable(f"{heading}\n\n{text}", sys.stdout))


def _draw(
    options: argparse.Namespace, histories: dict[str, History], exact: dict[str, float]
) -> None:
    from matplotlib.figure import Figure

    made_by = f"copg-bandit {bandit.__version__}"
    about: dict[str, Any] = {"Description": options.typed, "Software": made_by}
    if options.plot.suffix.lower() == ".pdf":
        about = {"Subject": options.typed, "Creator": made_by, "CreationDate": None}
    with bandit.plots.style():
        figure = Figure()
        known = {name: exact[name] for name in histories if exact.get(name, -1) >= 0}
        bandit.plots.regret_curves(histories, exact=known or None, ax=figure.subplots())
        figure.savefig(options.plot, metadata=about)


def _check_writable(option: str, path: Path | None) -> None:
    """Before hours of work rather than after them."""
    if path is None:
        return
    new = not path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise ValueError(
            f"{option}: expected a file that can be written, got {path} ({error.strerror})"
        ) from error
    if new:
        path.unlink()
