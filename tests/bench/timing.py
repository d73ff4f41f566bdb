"""Times that can be compared on a machine that does other things too: contenders take turns.

A round runs every contender once, in an order that turns from round to round. A ratio is the median
over the rounds of the time of one over the time of the first *of the same round*, so that a machine
that is slow for a while is slow for all.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LEAST_ROUNDS, MOST_ROUNDS = 3, 40


class Row(NamedTuple):
    """One line of the table."""

    part: str
    case: str
    ratio: float  # of the time per step to that of the part's first row
    low: float  # quartiles of that ratio over the rounds
    high: float
    seconds: float  # per step, median
    mebibytes: float | None  # at most held on top of what was there before
    rounds: int


class Contender(NamedTuple):
    """What is timed: a call, and how many steps it makes."""

    call: Callable[[], object]
    steps: float = 1


def in_turns(contenders: Mapping[str, Contender], budget: float) -> dict[str, np.ndarray]:
    """Seconds per step of each contender and round, for about ``budget`` seconds.

    A round before the first is not counted: compilers and caches are warm then.
    """
    once = sum(_seconds(contender) for contender in contenders.values())
    rounds = int(np.clip(budget / max(once, 1e-9), LEAST_ROUNDS, MOST_ROUNDS))
    names = list(contenders)
    found: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            found[name].append(_seconds(contenders[name]) / contenders[name].steps)
    return {name: np.array(times) for name, times in found.items()}


def _seconds(contender: Contender) -> float:
    began = time.perf_counter()
    contender.call()
    return time.perf_counter() - began


def rows_of(
    part: str, times: Mapping[str, np.ndarray], mebibytes: Mapping[str, float] | None = None
) -> list[Row]:
    """Ratios to the first contender, round by round."""
    first = next(iter(times.values()))
    rows = []
    for name, own in times.items():
        low, ratio, high = (float(q) for q in np.quantile(own / first, [0.25, 0.5, 0.75]))
        memory = (mebibytes or {}).get(name)
        rows.append(Row(part, name, ratio, low, high, float(np.median(own)), memory, len(own)))
    return rows


def allocated(call: Callable[[], object]) -> float:
    """MiB that numpy and Python hold at most during a call, on top of what was there before."""
    call()  # what is made once and kept is no growth
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------------- processes of their own


def memory(kind: str) -> float:
    """MiB of this process, VmRSS or VmHWM (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(kind)).split()[1]) / 1024


def forget_peak() -> None:
    """Forget the highest mark so far (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def alone(module: str, function: str, *arguments: Any) -> Any:
    """What ``function(*arguments)`` of a file beside this one prints as JSON, in a new process."""
    call = f"from {module} import {function}; {function}(*{arguments!r})"
    done = subprocess.run(
        [sys.executable, "-c", call], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
