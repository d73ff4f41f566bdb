"""``python -m bandit verify``: the examiner from a terminal."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from bandit import groups, losses
from bandit.tables import printable

FAULTY = 1

EXAMPLES = """examples:
  python -m bandit verify copg
  python -m bandit verify my_package.losses:my_loss --json > report.json
  python -m bandit verify experiments/losses.py:my_loss --quick
  python -m bandit verify --all --cards notebooks/site/cards

exit status: 0 without faults, 1 if a loss has one, 2 for wrong arguments"""


def add_to(commands: Any) -> None:
    """Add the command to a program's."""
    parser = commands.add_parser(
        "verify",
        help="examine an objective: is it what it says, and what does it do",
        description="Examines objectives on random groups and problems: is the weight the\n"
        "gradient of the value, is the declaration true, which shifts leave it alone,\n"
        "where does it converge off-policy, what happens at extreme values. Faults come\n"
        "with the smallest counterexample found. It runs the code it is given.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="LOSS",
        help="a shipped loss, package.module:function or path/to/file.py:function",
    )
    parser.add_argument("--all", action="store_true", help="every shipped loss")
    parser.add_argument("--quick", action="store_true", help="fewer problems, numpy alone")
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="(0)")
    parser.add_argument(
        "--baseline",
        choices=groups.BASELINES,
        help="of losses that take one (of a shipped loss: its preset's)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--cards", type=Path, metavar="FOLDER", help="with --all: write a page for each loss there"
    )
    parser.set_defaults(command=run)


def _seed(text: str) -> int:
    if not text.strip().isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Examine what is asked for and print it; the exit status."""
    from bandit import verification
    from bandit.verification import _cards, _report, _target

    if bool(options.targets) == options.all:
        raise ValueError("verify: expected names of losses, or --all, and not both")
    if options.cards is not None:
        if not options.all or options.quick or options.baseline:
            raise ValueError(
                "cards: expected --all without --quick and --baseline, as they are published"
            )
        _cards.check_libraries()
    level = "quick" if options.quick else "full"
    # What the code under examination prints is not part of the report.
    with contextlib.redirect_stdout(sys.stderr):
        if options.all:
            found = {name: _target.shipped(name) for name in losses.REGISTRY}
        else:
            found = {text: _target.find(text) for text in options.targets}
        reports = [
            verification.verify(loss, level=level, rng=options.seed, baseline=options.baseline)
            for loss in found.values()
        ]
    if options.cards is not None:
        _cards.write(reports, options.cards)
    if options.json:
        print(printable(_report.as_json(reports), sys.stdout))
    elif options.all:
        print(printable("\n".join(r.summary for r in reports), sys.stdout))
    else:
        print("\n\n".join(r.text(sys.stdout) for r in reports))
    return 0 if all(r.ok for r in reports) else FAULTY
