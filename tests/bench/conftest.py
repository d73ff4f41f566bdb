"""Collects the timings of a benchmark run into one table of ratios."""

from __future__ import annotations

from collections.abc import Callable

import pytest

TABLE = pytest.StashKey[list[tuple[str, float]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = []


@pytest.fixture
def per_step(benchmark, request) -> Callable[..., float]:
    """Times ``function()``, which makes ``steps`` steps, and keeps the best round for the table."""

    def measure(name: str, function: Callable[[], object], steps: int, rounds: int = 5) -> float:
        benchmark.pedantic(function, rounds=rounds, warmup_rounds=1)
        seconds = benchmark.stats.stats.min / steps
        request.config.stash[TABLE].append((name, seconds))
        return seconds

    return measure


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    rows = config.stash[TABLE]
    if not rows:
        return
    terminalreporter.section("microseconds per step, and ratio to the first row")
    base = rows[0][1]
    for name, seconds in rows:
        terminalreporter.write_line(f"{name:58s} {seconds * 1e6:10.1f} {seconds / base:8.1f}")
