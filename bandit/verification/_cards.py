"""A page of Markdown for every shipped loss: what the examiner found, the same on every machine."""

from __future__ import annotations

import os
from pathlib import Path

from bandit.verification import _libraries
from bandit.verification._report import FAULT, PASSED, SKIPPED, Finding, Report
from bandit.verification._subject import Subject
from bandit.verification._target import shipped

COMMAND = "python -m bandit verify --all --cards notebooks/site/cards"
INDEX = "index"
_COLUMNS = ("on_policy", "optimality", "behavior", "existence", "stability")


def check_libraries() -> None:
    """Cards speak of all array libraries; an ImportError-free line if one is missing."""
    missing = [name for name in _libraries.KNOWN if name not in _libraries.installed()]
    if missing:
        raise ValueError(f"cards: expected torch and jax to be installed, got no {missing[0]}")


def card(report: Report) -> str:
    """The card of one shipped loss."""
    said = Subject(shipped(report.name)).documentation or ""
    lines = [
        f"# `{report.name}`",
        "",
        said.partition("\n")[0] + _with_baseline(report),
        "",
        "| check | verdict | finding |",
        "| --- | --- | --- |",
        *(f"| {_words(f.check)} | {f.kind} | {_cell(f.text)} |" for f in report.findings),
    ]
    examples = [f for f in report.findings if f.example is not None]
    if examples:
        lines += ["", f"Smallest examples found, with `loss = bandit.losses.{report.name}`:"]
    for finding in examples:
        lines += ["", f"**{_words(finding.check)}**", "", *_block(finding)]
    lines += ["", _made_by(report)]
    return "\n".join(lines) + "\n"


def _block(finding: Finding) -> list[str]:
    example = finding.example
    assert example is not None
    return ["```py", *example.code.splitlines(), f"# {example.seen}", "```"]


def _with_baseline(report: Report) -> str:
    return "" if report.baseline is None else f" Examined with the baseline `{report.baseline}`."


def _made_by(report: Report) -> str:
    return f"Written by `{COMMAND}`, seed {report.seed}."


def _words(check: str) -> str:
    return check.replace("_", " ")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def index(reports: list[Report]) -> str:
    """All shipped losses in one table, with links to their cards."""
    head = ["loss", "faults", *map(_words, _COLUMNS)]
    rows = [
        [f"[`{r.name}`]({r.name}.md)", str(len(r.faults)), *(_brief(r[c]) for c in _COLUMNS)]
        for r in reports
    ]
    table = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    contents = ["```{toctree}", ":hidden:", "", *(r.name for r in reports), "```"]
    lines = ["# Verified cards", "", *table, "", *contents, "", _made_by(reports[0])]
    return "\n".join(lines) + "\n"


def _brief(finding: Finding) -> str:
    """A few words of a finding, for the table of all losses."""
    if finding.kind in (FAULT, PASSED, SKIPPED):
        return {SKIPPED: "–"}.get(finding.kind, finding.kind)
    facts = finding.numbers
    if finding.check == "on_policy":
        factor = facts.get("factor")
        return f"{factor} ∇J" if factor else ("along ∇J" if facts["proportional"] else "not ∇J")
    if finding.check == "optimality":
        return _share(facts["optimal"], facts["of"], "π*", "not π*")
    if finding.check == "behavior":
        return "depends on μ" if facts["depends"] else "whatever μ"
    if finding.check == "existence":
        return _share(facts["solved"], facts["of"], "found", "none")
    return _share(facts["stable"], facts["of"], "stable", "unstable")


def _share(some: int, of: int, everywhere: str, nowhere: str) -> str:
    if some in (0, of):
        return everywhere if some else nowhere
    return f"{everywhere} in {some} of {of}"


def write(reports: list[Report], folder: Path) -> list[Path]:
    """The index and a card for each report in ``folder``; each file is replaced as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {INDEX: index(reports), **{report.name: card(report) for report in reports}}
    written = []
    for name, text in pages.items():
        path = folder / f"{name}.md"
        unfinished = path.with_suffix(".md.part")
        unfinished.write_text(text, encoding="utf-8", newline="\n")
        os.replace(unfinished, path)
        written.append(path)
    return written
