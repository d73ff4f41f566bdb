"""Sweeps: many problems, methods and settings, on many processes, into one tidy table.

:func:`sweep` computes, :func:`load` reads a results directory, :func:`bandit.plots.sweep` draws.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bandit.losses import Loss
from bandit.presets import Method
from bandit.problem import Bandit
from bandit.sweeps import cells, transport
from bandit.sweeps import folder as folders
from bandit.sweeps.cells import RESULTS, Cell, Columns
from bandit.sweeps.folder import Folder, Memory

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RESULTS", "load", "sweep"]

Progress = Callable[[int, int], object]


def sweep(
    problems: Bandit | Mapping[str, Bandit],
    methods: Iterable[str] | Mapping[str, Method | Loss],
    grids: Mapping[str, Any] | None = None,
    runs: int = 0,
    *,
    seed: int = 0,
    exact: bool = True,
    folder: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool | Progress | None = None,
) -> pd.DataFrame:
    """Solve, and train, every method on every problem at every point of a grid.

    Parameters
    ----------
    problems : Bandit or mapping, name → Bandit
    methods : names of ``bandit.presets.METHODS``, or a mapping name → loss or ``presets.Method``
    grids : mapping, setting → values, optional
        A value, a list of values, or a mapping from labels to values; every combination is a point.
        ``beta`` (default: the problem's); ``behavior``: μ (K,), pairs, ``"reference"`` (default),
        ``"uniform"``, or ``"policy"`` for training on-policy; ``preference``: P (K, K),
        ``"bradley-terry"`` (default) or ``"deterministic"``. With ``runs`` also ``learning_rate``
        (0.01), ``optimizer`` (``"adam"`` or ``"sgd"``), ``batch_size`` (128), ``group_size`` (2),
        ``reward_noise`` (0), ``steps`` (2000) and ``record_every`` (only start and end are
        recorded).
    runs : int
        Independent trainings of every cell; 0: only exact solutions.
    seed : int
        The random numbers of a cell come from the seed and from what the cell is: they depend
        neither on the other cells nor on who computes it, and those of run i not on ``runs``.
    exact : bool
        Whether to compute the columns about exact solutions.
    folder : path, optional
        Results directory: each cell is kept there as it is finished, and a sweep that was stopped
        goes on from there. Without it nothing is kept.
    workers : int, optional
        Processes. Default: those of an enclosing ``joblib.parallel_config``, which also chooses the
        backend (``"dask"`` for a cluster), else one. -1: one for each processor.
    progress : bool or callable, optional
        True: a bar on standard error, with the time left. A callable is told ``(done, cells)``.

    Returns
    -------
    DataFrame
        ``problem``, ``method`` and a column for each entry of ``grids``. With ``runs`` a row for
        each run and record: ``run``, ``step``, ``regret`` (units of reward), ``kl_to_optimal``
        (KL(π‖π*), nats), ``kl`` (KL(π‖π_ref), nats), ``expected_reward``; NaN where a run has
        diverged. With ``exact`` the columns of :func:`bandit.analysis.compare`, regret and KL
        called ``exact_regret`` and ``exact_kl_to_optimal``; NaN where ``converged`` is False, and
        ``message`` says why. Without ``runs`` a row for each cell. Equal to the last bit for any
        number of workers, in any order, interrupted or not, on machines of one kind with the same
        versions of numpy and scipy.

    Raises
    ------
    ValueError, TypeError
        One line, also for a directory that holds the results of another sweep, and for a loss that
        cannot be sent to other processes.
    RuntimeError
        For what a loss raises in another process, if it is of a type that cannot come from there.
    OSError
        If results cannot be written, or a worker has died. What was there is kept.

    Warns
    -----
    RuntimeWarning
        Of every file in ``folder`` whose content has changed; its cell is computed again.
    """
    _check_workers(workers)
    plan = cells.plan(problems, methods, grids, runs, seed, exact)
    store = Memory(plan) if folder is None else Folder(folder, plan)
    with store:
        missing = store.missing()
        done, total = len(plan.cells) - len(missing), len(plan.cells)
        # Closed at once, whatever ends the loop: workers are not to go on until Python tidies up.
        computed = contextlib.closing(_computed(missing, workers, store))
        with _reporter(progress, done, total) as report, computed as results:
            for place, columns in results:
                store.add(missing[place], columns)
                done += 1
                report(done, total)
        return _table(store.rows())


def load(folder: str | os.PathLike[str]) -> pd.DataFrame:
    """The table of a results directory, as :func:`sweep` returned it.

    Parameters
    ----------
    folder : path

    Warns
    -----
    RuntimeWarning
        If cells are missing, because the sweep was stopped or is still running.

    Raises
    ------
    ValueError
        If ``folder`` is no results directory, has no cells yet, or a file in it is damaged.
    """
    rows, missing = folders.read_cells(folders.path_of(folder))
    if not rows:
        raise ValueError(f"folder: expected finished cells, {os.fspath(folder)} has none yet")
    if missing:
        warnings.warn(
            f"load: {missing} of {missing + len(rows)} cells are missing in {os.fspath(folder)}",
            RuntimeWarning,
            stacklevel=2,
        )
    return _table(rows)


def _check_workers(workers: Any) -> None:
    if workers is None:
        return
    if isinstance(workers, bool) or not isinstance(workers, (int, np.integer)):
        raise TypeError(f"workers: expected a whole number, got {type(workers).__name__}")
    if workers == 0:
        raise ValueError("workers: expected at least 1, or -1 for one a processor, got 0")


def _table(rows: list[Columns]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(folders.concatenated(rows))


def _computed(
    missing: list[Cell], workers: int | None, store: Folder | Memory
) -> Generator[tuple[int, Columns], None, None]:
    """Place in ``missing`` and rows of each cell, as they are finished."""
    if not missing:
        return
    joblib = _joblib()
    transport.check(joblib, missing, workers)
    parallel = joblib.Parallel(
        n_jobs=workers,
        return_as="generator_unordered",
        # No two cells share large arrays: there is nothing to gain from memory maps of them.
        max_nbytes=None,
        # What is to be kept comes home by itself, not when others are finished, too.
        batch_size=1 if isinstance(store, Folder) else "auto",
    )
    here = os.getpid()
    tasks = (joblib.delayed(transport.run)(place, cell, here) for place, cell in enumerate(missing))
    try:
        with transport.closing(parallel(tasks)) as results:
            for result in results:  # noqa: UP028  (it would close them by itself)
                yield result
    except Exception as error:
        if not _is_loss_of_worker(error):
            raise
        raise ChildProcessError(
            f"sweep: a worker was killed, perhaps for want of memory; {store.standing()}"
        ) from error


def _is_loss_of_worker(error: Exception) -> bool:
    """Whether loky (TerminatedWorkerError) or Dask (KilledWorker) lost a process."""
    return type(error).__name__ in ("TerminatedWorkerError", "KilledWorker", "BrokenProcessPool")


def _joblib() -> Any:
    try:
        import joblib
        import threadpoolctl  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"bandit.sweep needs {error.name}: pip install 'copg-bandit[sweep]'"
        ) from error
    return joblib


@contextlib.contextmanager
def _reporter(progress: Any, done: int, total: int) -> Iterator[Progress]:
    """Whom to tell how far the sweep is."""
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise TypeError(
            "progress: expected True, False or a function (done, cells), "
            f"got {type(progress).__name__}"
        )
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda done, total: None
    else:
        from tqdm import tqdm

        # Cells differ in length: the time left is told from the mean of all so far.
        with tqdm(total=total, initial=done, unit="cell", smoothing=0) as bar:
            yield lambda done, total: bar.update(done - bar.n)
