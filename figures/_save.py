"""What the figure scripts share: their command line, and saving a picture with its numbers.

Each picture is a PNG (200 dots per inch), a PDF and a CSV of the numbers drawn, all three with the
seed, the command and the version that made them, and byte-identical when made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

import bandit

HERE = Path(__file__).resolve().parent


class Options(NamedTuple):
    """How a script was called."""

    name: str
    quick: bool
    out: Path

    @property
    def command(self) -> str:
        """What to type to get the same files."""
        return f"python figures/{self.name}.py" + (" --quick" if self.quick else "")


def options(script: str, doc: str | None, arguments: Sequence[str] | None) -> Options:
    """Parse the command line of ``script`` (its ``__file__``), described by its docstring."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a coarse version, in seconds")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    given = parser.parse_args(arguments)
    return Options(Path(script).stem, given.quick, given.out)


def save(
    figure: Figure, numbers: pd.DataFrame, how: Options, *, title: str, seed: int | None
) -> None:
    """Write ``<out>/<name>.png``, ``.pdf`` and ``.csv``; ``seed`` is None if nothing is random."""
    how.out.mkdir(parents=True, exist_ok=True)
    made = f"{how.command}; seed {'none, exact' if seed is None else seed}"
    software = f"copg-bandit {bandit.__version__}"
    path = how.out / how.name
    with bandit.plots.style():
        figure.savefig(
            path.with_suffix(".png"),
            metadata={"Title": title, "Description": made, "Software": software},
        )
        figure.savefig(
            path.with_suffix(".pdf"),
            # Without a date the file depends on what is drawn alone.
            metadata={
                "Title": title,
                "Subject": made,
                "Creator": software,
                "Producer": "matplotlib",
                "CreationDate": None,
            },
        )
    head = "".join(f"# {line}\n" for line in (title, made, software))
    # Twelve digits: more than a reader needs, fewer than the last bits that differ by machine.
    table = numbers.to_csv(index=False, float_format="%.12g", lineterminator="\n")
    path.with_suffix(".csv").write_text(head + table, encoding="utf-8")
