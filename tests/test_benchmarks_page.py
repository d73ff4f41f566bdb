"""The page of benchmarks shows what a run wrote, and says of it what the numbers say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SITE = ROOT / "notebooks" / "site"
WRITTEN = SITE / "benchmarks"
PAGE = (SITE / "pages" / "benchmarks.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def report():
    sys.path.insert(0, str(ROOT / "tests" / "bench"))
    try:
        import report
    finally:
        sys.path.pop(0)
    return report


@pytest.fixture(scope="module")
def parts(report):
    rows, _ = report.read(WRITTEN)
    return report.parts(rows)


def ratios(parts, title: str) -> dict[str, float]:
    (found,) = [rows for name, rows in parts.items() if name.startswith(title)]
    return {row.case: row.ratio for row in found}


def test_tables_are_made_from_the_numbers(report):
    assert (WRITTEN / report.TABLES).read_text(encoding="utf-8") == report.markdown(WRITTEN)
    assert "```{include} ../benchmarks/tables.txt" in PAGE
    _, machine = report.read(WRITTEN)
    assert not machine["quick"]
    assert {"torch", "jax", "trl"} <= set(machine["versions"])


def test_every_part_starts_with_what_it_is_measured_by(parts):
    for rows in parts.values():
        assert len(rows) > 1
        first, *others = rows
        assert (first.ratio, first.low, first.high) == (1, 1, 1)
        for row in others:
            assert 0 < row.low <= row.ratio <= row.high
        assert len({row.rounds for row in rows}) == 1
        assert min(row.rounds for row in rows) >= 3


def test_everything_that_is_asked_for_is_there(parts):
    titles = " ".join(parts)
    growth = "arms K;contexts X;by runs;by batch;group size;log by rows;completion length"
    for what in growth.split(";"):
        assert what in titles, what
    for runs in ("1 run:", "100 runs:"):
        rivals = ratios(parts, f"A step of training, {runs}")
        for rival in ("torch autograd", "JAX, all steps in one jitted scan", "pair after pair"):
            assert any(name.startswith(rival) for name in rivals), rival
    for growing in ("by runs", "by arms", "by contexts", "by batch", "log by rows"):
        rows = next(rows for title, rows in parts.items() if growing in title)
        assert all(row.mebibytes is not None for row in rows)


def test_what_the_page_says_is_so(parts):
    hundred = ratios(parts, "A step of training, 100 runs:")
    assert min(ratio for name, ratio in hundred.items() if name != "bandit.train") > 5
    one = ratios(parts, "A step of training, 1 run:")
    assert one["JAX, all steps in one jitted scan"] < 3
    by_batch = ratios(parts, "A step by batch, 100 runs")
    assert by_batch["1,000,000 pairs"] < 2
    (large,) = [rows for title, rows in parts.items() if "vocabulary 49,152" in title]
    ours, theirs = large
    assert theirs.ratio > 1
    assert theirs.mebibytes > 2 * ours.mebibytes


def test_numbers_are_readable(report):
    row = report.Row("a", "b", 0.5, 0.41, 123456.0, 3e-5, 1234.5, 4)
    assert report._cells(row) == ("b", "0.5", "0.41 – 123,456", "30 µs", "1,234 MiB")
