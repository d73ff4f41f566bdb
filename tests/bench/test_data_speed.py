"""Counts of a Parquet log of ten million rows: time and memory, streamed and in memory.

240 cells, propensities that drift from row to row, written in chunks. Each way of reading runs in a
process of its own, whose peak memory is compared with what it held before it began (Linux). Ours
streams: memory must not grow with the file. Of the log a tenth the size both have to agree to the
last bit.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bandit import data
from bandit.data.counts import SUMS

pa = pytest.importorskip("pyarrow")

ROWS, CHUNK = 10**7, 10**6
COLUMNS = {"context": "position", "arm": "item_id", "reward": "click", "propensity": "p"}


def written(path: Path, rows: int) -> Path:
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    writer = None
    for _ in range(rows // CHUNK):
        columns = {
            "position": rng.integers(1, 4, CHUNK),
            "item_id": rng.choice(80, CHUNK, p=np.arange(1, 81) / 3240),
            "click": (rng.random(CHUNK) < 0.005).astype(np.int8),
            "p": rng.uniform(0.001, 0.1, CHUNK),
        }
        table = pa.table(columns)
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    writer.close()
    return path


def measure(how: str, path: str) -> None:
    """Print seconds, those of the processor, MiB on top of what was there, and rows counted."""

    def memory(kind: str) -> float:
        with open("/proc/self/status", encoding="utf-8") as status:
            (line,) = [line for line in status if line.startswith(kind)]
        return int(line.split()[1]) / 1024

    if how == "pandas":
        import pandas as pd
        import pyarrow.parquet  # noqa: F401

        # Libraries are loaded before, as for the others.
        before, busy, begun = memory("VmRSS"), time.process_time(), time.perf_counter()
        frame = pd.read_parquet(path)
        n = len(frame.assign(w=1 / frame.p).groupby(["position", "item_id"]).w.sum()) and len(frame)
    else:
        import bandit.data.parquet

        before, busy, begun = memory("VmRSS"), time.process_time(), time.perf_counter()
        if how == "streamed":
            n = len(bandit.data.count_parquet(path, **COLUMNS))
        else:
            n = len(bandit.data.read_parquet(path, **COLUMNS).counts())
    seconds = time.perf_counter() - begun
    print(json.dumps([seconds, time.process_time() - busy, memory("VmHWM") - before, n]))


def measured(how: str, path: Path) -> tuple[float, float, float]:
    code = f"from test_data_speed import measure; measure({how!r}, {str(path)!r})"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seconds, busy, memory, n = json.loads(done.stdout)
    assert n in (ROWS, ROWS // 10)
    return seconds, busy, memory


def test_ten_million_rows(tmp_path, capsys):
    path, small = written(tmp_path / "log.parquet", ROWS), written(tmp_path / "s.parquet", CHUNK)
    size = path.stat().st_size / 2**20
    with capsys.disabled():
        print(f"\nParquet log of {ROWS:,} rows, {size:.0f} MiB")
        for how, what in (
            ("streamed", "count_parquet"),
            ("whole", "read_parquet(…).counts()"),
            ("pandas", "pandas.read_parquet and one group-by sum"),
        ):
            seconds, busy, memory = measured(how, path)
            print(f"{what:42s} {seconds:6.2f} s, {busy:6.2f} s of CPU, {memory:6.0f} MiB")
            if how == "streamed":
                streamed = memory
    *_, for_a_tenth = measured("streamed", small)
    assert streamed < 2 * for_a_tenth + 50


def test_both_ways_agree(tmp_path):
    path = written(tmp_path / "log.parquet", CHUNK)
    streamed = data.count_parquet(path, **COLUMNS)
    whole = data.read_parquet(path, **COLUMNS).counts()
    for name in SUMS:
        np.testing.assert_array_equal(getattr(streamed, name), getattr(whole, name))
