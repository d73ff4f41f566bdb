"""Counts of Parquet logs of up to ten million rows: time and memory, streamed and in memory.

240 cells, propensities that drift from row to row, written in chunks. Each way of reading runs in a
process of its own, whose peak memory is compared with what it held before it began (Linux). Ours
streams: memory must not grow with the file. Both ways of ours have to agree to the last bit.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from timing import alone, memory, rows_of

from bandit import data
from bandit.data.counts import SUMS

pa = pytest.importorskip("pyarrow")

CHUNK = 10**6
COLUMNS = {"context": "position", "arm": "item_id", "reward": "click", "propensity": "p"}


def written(path: Path, rows: int) -> Path:
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, CHUNK):
        n = min(CHUNK, rows - start)
        columns = {
            "position": rng.integers(1, 4, n),
            "item_id": rng.choice(80, n, p=np.arange(1, 81) / 3240),
            "click": (rng.random(n) < 0.005).astype(np.int8),
            "p": rng.uniform(0.001, 0.1, n),
        }
        table = pa.table(columns)
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    writer.close()
    return path


def measure(how: str, path: str) -> None:
    """Print seconds, MiB on top of what was there, and rows counted."""
    # Libraries are loaded before the clock starts.
    import pandas as pd
    import pyarrow.parquet  # noqa: F401

    import bandit.data.parquet

    before, begun = memory("VmRSS"), time.perf_counter()
    if how == "pandas":
        frame = pd.read_parquet(path)
        n = len(frame.assign(w=1 / frame.p).groupby(["position", "item_id"]).w.sum()) and len(frame)
    elif how == "streamed":
        n = len(bandit.data.count_parquet(path, **COLUMNS))
    else:
        n = len(bandit.data.read_parquet(path, **COLUMNS).counts())
    print(json.dumps([time.perf_counter() - begun, memory("VmHWM") - before, n]))


def in_turns(asked: dict[str, tuple[str, Path, int]], rounds: int):
    """Seconds, and the greatest memory, of each way of reading."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
    for _ in range(rounds):
        for name, (how, path, rows) in asked.items():
            seconds, held, n = alone("test_data_speed", "measure", how, str(path))
            assert n == rows
            found[name].append((seconds, held))
    times = {name: np.array(pairs)[:, 0] for name, pairs in found.items()}
    return times, {name: float(np.array(pairs)[:, 1].max()) for name, pairs in found.items()}


@pytest.fixture(scope="module")
def logs(tmp_path_factory, request) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("logs")
    sizes = [10**4, 10**5] if request.config.getoption("--quick") else [10**5, 10**6, 10**7]
    return {rows: written(folder / f"{rows}.parquet", rows) for rows in sizes}


def test_growth_with_rows(logs, record, quick):
    asked = {f"{rows:,} rows": ("streamed", path, rows) for rows, path in logs.items()}
    times, held = in_turns(asked, 1 if quick else 3)
    record(rows_of("Counting a Parquet log by rows, streamed", times, held))
    *_, less, most = held.values()
    assert most < 2 * less + 50


def test_ways_to_read(logs, record, quick):
    rows, path = list(logs.items())[-1]
    ways = {
        "count_parquet": "streamed",
        "read_parquet(…).counts()": "whole",
        "pandas.read_parquet and one group-by sum": "pandas",
    }
    asked = {name: (how, path, rows) for name, how in ways.items()}
    record(rows_of(f"Reading {rows:,} rows of Parquet", *in_turns(asked, 1 if quick else 3)))


def test_both_ways_agree(logs):
    path = list(logs.values())[-2]
    streamed = data.count_parquet(path, **COLUMNS)
    whole = data.read_parquet(path, **COLUMNS).counts()
    for name in SUMS:
        np.testing.assert_array_equal(getattr(streamed, name), getattr(whole, name))
