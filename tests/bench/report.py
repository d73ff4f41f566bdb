"""The table of a run: in a terminal, as CSV with the machine beside it, and as Markdown."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from timing import Row

RESULTS, MACHINE, TABLES = "results.csv", "machine.json", "tables.txt"
LIBRARIES = "numpy scipy torch jax transformers trl pyarrow pandas".split()
HEADS = ("", "ratio", "middle half", "time", "memory")
DIGITS = 4


def write(folder: Path, rows: Iterable[Row], quick: bool) -> list[Path]:
    """The three files of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / RESULTS).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(Row._fields)
        table.writerows([_short(value) for value in row] for row in rows)
    about = json.dumps(machine() | {"quick": quick}, indent=1, ensure_ascii=False) + "\n"
    (folder / MACHINE).write_text(about, encoding="utf-8", newline="\n")
    (folder / TABLES).write_text(markdown(folder), encoding="utf-8", newline="\n")
    return [folder / name for name in (RESULTS, MACHINE, TABLES)]


def _short(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else value


def read(folder: Path) -> tuple[list[Row], dict[str, Any]]:
    """The rows of a run, and its machine."""
    with (folder / RESULTS).open(encoding="utf-8", newline="") as file:
        rows = [
            Row(
                r["part"],
                r["case"],
                *(float(r[name]) for name in ("ratio", "low", "high", "seconds")),
                float(r["mebibytes"]) if r["mebibytes"] else None,
                int(r["rounds"]),
            )
            for r in csv.DictReader(file)
        ]
    return rows, json.loads((folder / MACHINE).read_text(encoding="utf-8"))


def machine() -> dict[str, Any]:
    """Where a run took place: processor, memory, versions."""
    model, cpuinfo = platform.processor(), Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [s for s in cpuinfo.read_text(encoding="utf-8").splitlines() if "model name" in s]
        model = named[0].partition(":")[2].strip() if named else model
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gibibytes": round(pages / 2**30, 1),
        "system": f"{platform.system()} on {platform.machine()}",
        "load_average": round(os.getloadavg()[2], 1),
        "python": platform.python_version(),
        "versions": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


# ------------------------------------------------------------------------------------ as text


def parts(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by part, in the order they were measured."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.part, []).append(row)
    return found


def _cells(row: Row) -> tuple[str, ...]:
    first = row.low == row.high == row.ratio == 1
    spread = "" if first else f"{_number(row.low)} – {_number(row.high)}"
    held = "" if row.mebibytes is None else f"{_number(row.mebibytes)} MiB"
    return row.case, _number(row.ratio), spread, _time(row.seconds), held


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{_number(seconds / size)} {unit}"
    return f"{_number(seconds * 1e6)} µs"


def terminal(rows: Iterable[Row]) -> list[str]:
    """Lines of text."""
    lines = []
    for part, own in parts(rows).items():
        table = [HEADS, *map(_cells, own)]
        widths = [max(len(line[i]) for line in table) for i in range(len(HEADS))]
        lines += ["", part]
        lines += [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in table
        ]
    return lines


def markdown(folder: Path) -> str:
    """The tables of a run and the machine's, for the documentation."""
    rows, about = read(folder)
    lines = ["<!-- Written by `make bench`. -->"]
    for part, own in parts(rows).items():
        lines += ["", f"## {part}", "", "| " + " | ".join(HEADS) + " |", "|:--|--:|--:|--:|--:|"]
        lines += ["| " + " | ".join(_cells(row)) + " |" for row in own]
    versions = ", ".join(f"{name} {v}" for name, v in about["versions"].items())
    lines += ["", "## The machine", ""]
    lines += [
        f"{about['processor']}, {about['cores']} cores, {about['memory_gibibytes']} GiB; "
        f"{about['system']}; Python {about['python']}; {versions}. Load over the last quarter of "
        f"an hour: {about['load_average']}, of which 1 or 2 its own."
    ]
    if about["quick"]:
        lines += ["", "A quick run: small sizes, few rounds."]
    return "\n".join(lines) + "\n"
