"""One table for a whole run: printed at its end, and written as CSV, JSON and Markdown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import report
import timing
from timing import Contender, Row

ROWS = pytest.StashKey[list[Row]]()
SECONDS, SECONDS_QUICK = 3.0, 0.3


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benchmarks")
    group.addoption("--quick", action="store_true", help="small sizes, few rounds")
    group.addoption("--out", type=Path, default=Path("build/bench"), help="where to write")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


FIRST = ["test_training_speed", "test_llm_speed", "test_analysis_speed", "test_data_speed"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Comparisons stand before growth, and the questions asked most often first."""

    def place(item: pytest.Item) -> tuple[bool, int]:
        stem = item.path.stem
        return "against" not in item.name, FIRST.index(stem) if stem in FIRST else len(FIRST)

    items.sort(key=place)


@pytest.fixture
def quick(request) -> bool:
    """Whether to keep to small sizes."""
    return request.config.getoption("--quick")


@pytest.fixture
def record(request) -> Callable[[list[Row]], None]:
    """Adds rows to the run's table."""
    return request.config.stash[ROWS].extend


@pytest.fixture
def compare(record, quick) -> Callable[..., list[Row]]:
    """Times contenders in turns, as rows of one part of the table."""

    def measure(
        part: str, contenders: Mapping[str, Any], mebibytes: Mapping[str, float] | None = None
    ) -> list[Row]:
        ready = {k: c if isinstance(c, Contender) else Contender(c) for k, c in contenders.items()}
        times = timing.in_turns(ready, SECONDS_QUICK if quick else SECONDS)
        rows = timing.rows_of(part, times, mebibytes)
        record(rows)
        return rows

    return measure


@pytest.fixture
def grow(compare) -> Callable[..., list[Row]]:
    """The same with sizes for contenders, and the memory of a call each."""

    def measure(part: str, contenders: Mapping[str, Any]) -> list[Row]:
        calls = {k: c.call if isinstance(c, Contender) else c for k, c in contenders.items()}
        return compare(part, contenders, {k: timing.allocated(c) for k, c in calls.items()})

    return measure


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    rows = config.stash[ROWS]
    if not rows:
        return
    terminalreporter.section("ratios to the first row of each part, medians over paired rounds")
    for line in report.terminal(rows):
        terminalreporter.write_line(line)
    written = report.write(config.getoption("--out"), rows, config.getoption("--quick"))
    terminalreporter.write_line(f"\nwritten: {', '.join(map(str, written))}")
