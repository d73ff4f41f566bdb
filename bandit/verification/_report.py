"""What an examination found, as a table for a terminal, a DataFrame, JSON, and a Markdown card."""

from __future__ import annotations

import dataclasses
import json
import sys
import textwrap
from typing import TYPE_CHECKING, Any, TextIO

import bandit
from bandit import tables

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "copg-bandit verify 1"
PASSED, FAULT, PROPERTY, SKIPPED = "passed", "fault", "property", "skipped"
WIDTH = 100
_HEADS = ("check", "verdict", "finding")


@dataclasses.dataclass(frozen=True)
class Example:
    """A case that shows a finding, as small as it could be found.

    Attributes
    ----------
    inputs : dict
        Its numbers, as JSON has them.
    code : str
        Python that makes it happen again, given ``import bandit, numpy as np`` and the ``loss``.
    seen : str
        What comes out.
    """

    inputs: dict[str, Any]
    code: str
    seen: str


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    check : str
    kind : {"passed", "fault", "property", "skipped"}
        The contract kept; the contract broken; a fact about the method, good or bad; not judged.
    text : str
        One line.
    numbers : dict
        The same for programs: finite numbers, texts, booleans, None.
    example : Example or None
    """

    check: str
    kind: str
    text: str
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)
    example: Example | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """The findings about one loss; printed, it is a table.

    Attributes
    ----------
    name : str
    findings : tuple of Finding
    level : {"full", "quick"}
    seed : int or None
        None where a generator was given.
    baseline : str or None
        What ``group.baseline`` was, by name; None: groups had none.
    """

    name: str
    findings: tuple[Finding, ...]
    level: str
    seed: int | None
    baseline: str | None = None

    @property
    def faults(self) -> tuple[Finding, ...]:
        """Where the contract is broken."""
        return tuple(f for f in self.findings if f.kind == FAULT)

    @property
    def ok(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    def __getitem__(self, check: str) -> Finding:
        for finding in self.findings:
            if finding.check == check:
                return finding
        known = ", ".join(f.check for f in self.findings)
        raise KeyError(f"check: expected one of {known}; got {check!r}")

    @property
    def table(self) -> pd.DataFrame:
        """A row a check: ``verdict``, ``finding`` and the ``example`` that shows it, or ""."""
        import pandas as pd

        rows = [
            (f.check, f.kind, f.text, "" if f.example is None else f.example.code)
            for f in self.findings
        ]
        return pd.DataFrame(rows, columns=[*_HEADS, "example"]).set_index("check")

    @property
    def summary(self) -> str:
        """One line: how many findings of each kind."""
        counted = {
            kind: sum(f.kind == kind for f in self.findings)
            for kind in (FAULT, PROPERTY, SKIPPED, PASSED)
        }
        names = {
            FAULT: "fault" if counted[FAULT] == 1 else "faults",
            PROPERTY: "property" if counted[PROPERTY] == 1 else "properties",
        }
        parts = [f"{n} {names.get(kind, kind)}" for kind, n in counted.items()]
        drawn = "" if self.seed is None else f", seed {self.seed}"
        drawn += "" if self.baseline is None else f", baseline {self.baseline}"
        return f"{self.name}: {', '.join(parts)} ({self.level}{drawn})"

    def text(self, stream: TextIO | None = None) -> str:
        """The table for a terminal (of the width of a page), the examples of faults below it."""
        rows = [_HEADS, *((f.check, f.kind, f.text) for f in self.findings)]
        widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
        start = sum(widths) + 4
        lines = [self.summary, ""]
        for check, verdict, finding in rows:
            first = f"{check.ljust(widths[0])}  {verdict.ljust(widths[1])}  "
            lines += textwrap.wrap(
                first + finding,
                WIDTH,
                subsequent_indent=" " * start,
                break_long_words=False,
                break_on_hyphens=False,
                drop_whitespace=True,
            )
        for finding_ in self.faults:
            if finding_.example is not None:
                lines += ["", f"{finding_.check}, to reproduce:", *_indented(finding_.example)]
        return tables.printable("\n".join(lines), sys.stdout if stream is None else stream)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "loss": self.name,
            "ok": self.ok,
            "level": self.level,
            "seed": self.seed,
            "baseline": self.baseline,
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
        }

    def to_json(self) -> str:
        """The document that ``python -m bandit verify --json`` prints."""
        return as_json([self])

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        import html

        import pandas as pd

        with pd.option_context("display.max_colwidth", None):
            return f"<p>{html.escape(self.summary)}</p>{self.table.to_html()}"


def _indented(example: Example) -> list[str]:
    return ["    " + line for line in (*example.code.splitlines(), f"# {example.seen}")]


def as_json(reports: list[Report]) -> str:
    """Several reports as one JSON document."""
    document = {
        "schema": SCHEMA,
        "version": bandit.__version__,
        "ok": all(report.ok for report in reports),
        "losses": [report.to_dict() for report in reports],
    }
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False)
