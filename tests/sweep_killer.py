"""Starts a sweep and kills it, workers included, again and again, until it is through.

Run by test_sweeps.py in a process of its own: ``python sweep_killer.py FOLDER KILLS SEED``. Prints
how many cells were there after each kill. What a sweep imports is imported once, here, and each
sweep is a fork; its workers are processes that joblib starts as always.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import joblib  # noqa: F401
import pandas as pd  # noqa: F401
import pyarrow.parquet  # noqa: F401
import threadpoolctl  # noqa: F401

import bandit
from bandit import sweeps

PROBLEMS = {
    "three": bandit.Bandit([2.5, 2.0, 1.0], 0.5, [0.5, 0.2, 0.3]),
    "contexts": bandit.Bandit([[1.0, 0.0], [0.2, 0.9]], 0.3, [0.6, 0.4], [0.7, 0.3]),
}
METHODS = ["copg", "ipo", "grpo"]
TOLD_NEVER = signal.SIGUSR1
GRID = {
    "beta": [0.2, 0.5, 1.0, 2.0],
    "behavior": ["policy", "uniform", "reference"],
    "learning_rate": [0.01, 0.1],
    "batch_size": 8,
    "steps": 60,
    "record_every": 20,
}


def whole_sweep(folder=None, workers=None, progress=None):
    """The sweep of these tests: 144 cells of three runs."""
    return sweeps.sweep(
        PROBLEMS, METHODS, GRID, runs=3, seed=5, folder=folder, workers=workers, progress=progress
    )


def landed(folder: Path) -> int:
    """Finished cells."""
    return len(sweeps.folder.cell_files(folder))


def start(folder: Path, most: int) -> int:
    """A sweep in a process group of its own, which waits for its end after ``most`` more cells: on
    a busy machine it would be through before it is killed."""
    before, child = landed(folder), os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            whole_sweep(
                folder, 2, lambda done, cells: done < before + most or signal.sigwait({TOLD_NEVER})
            )
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    os.setpgid(child, child)  # here too: it may be killed before it has come to it
    return child


def kill_once(folder: Path, wait_for: int, then: float) -> bool:
    """Kill a sweep ``then`` seconds after ``wait_for`` more cells are there, and before there are
    three further ones; False if it ended by itself."""
    before, child = landed(folder), start(folder, wait_for + 3)
    while landed(folder) < before + wait_for:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    time.sleep(then)
    os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def main(folder: Path, kills: int, seed: int) -> None:
    """Kill so many times."""
    chance = random.Random(seed)
    for _ in range(kills):
        # Now and then before anything has landed: among imports and the making of the directory.
        early = chance.random() < 0.2
        wait_for = 0 if early else chance.randint(1, 6)
        assert kill_once(folder, wait_for, chance.random() * (0.3 if early else 0.02))
        print(landed(folder), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
