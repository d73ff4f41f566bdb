"""The loop that every sampled training here shares: steps, records, progress and interrupts.

A :class:`Learner` says where a batch pulls the parameters; :func:`follow` draws the batches, takes
the steps and keeps the records. Parameters are kept as (P, R): ``P`` parameters, ``R`` runs side by
side; records are (T, R, P) with ``T`` records.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bandit import _checks
from bandit._checks import Array, type_of
from bandit.batches import Streams
from bandit.history import History, seed_of
from bandit.optimizers import Optimizer
from bandit.policies import LogLinear
from bandit.problem import Bandit

Progress = Callable[[int, int], object]

# Random numbers drawn in one go, and steps they are at most for.
CHUNK_NUMBERS = 1 << 16
CHUNK_STEPS = 256
DEFAULT_RECORDS = 200


class Learner(Protocol):
    """Draws batches, and says where each one pulls the parameters."""

    numbers: int
    """Random numbers per step and run."""
    block: int
    """The number of runs is to be a multiple of this."""

    def draw(self, streams: tuple[Streams, Streams], steps: int) -> Iterator[Any]:
        """Batches for ``steps`` steps, from every run's two streams."""
        ...

    def gradient(self, theta: Array, batch: Any) -> Array:
        """Gradient of the batch's mean loss by the parameters, (P, R)."""
        ...


class Course(NamedTuple):
    """What :func:`follow` leaves behind.

    Attributes
    ----------
    steps : ndarray of int (T,)
        Updates made before each record; the first record is the start, 0.
    theta : ndarray (T, R, P)
    interrupted : bool
        True if stopped from the keyboard; the records are those made until then.
    """

    steps: np.ndarray
    theta: Array
    interrupted: bool


def follow(
    learn: Learner,
    start: Array,
    optimizer: Optimizer,
    *,
    steps: int,
    record_every: int,
    rng: Any,
    progress: bool | Progress | None,
) -> Course:
    """Descend from parameters ``start`` (R, P) for ``steps`` updates, R runs side by side.

    Run i is the same whatever the number of runs, the records and the progress shown are.
    """
    runs = len(start)
    # Runs too many, for the sake of the learner's blocks, are thrown away.
    lanes = -(-runs // learn.block) * learn.block
    theta = np.pad(start.T, ((0, 0), (0, lanes - runs)), mode="edge").copy()
    streams = streams_of(rng, lanes)
    records = _Records(steps, record_every, theta, runs)
    with reporter(progress, steps) as report:
        interrupted = _descend(theta, learn, optimizer, streams, records, report)
    return Course(records.steps[: records.made], records.theta[: records.made], interrupted)


# ------------------------------------------------------------------------------------ arguments


def check_helpers(optimizer: Any, progress: Any) -> None:
    """Raise unless these are what :func:`follow` can use."""
    if isinstance(optimizer, type) or not hasattr(optimizer, "start"):
        raise TypeError(
            f"optimizer: expected bandit.Adam(lr) or bandit.SGD(lr), got {type_of(optimizer)}"
        )
    check_progress(progress)


def check_progress(progress: Any) -> None:
    """Raise unless this is what :func:`reporter` takes."""
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise TypeError(
            f"progress: expected True, False or a function (step, steps), got {type_of(progress)}"
        )


def record_interval(record_every: Any, steps: Any) -> int:
    """Steps between records: as asked, or as many as give about 200 records."""
    steps = _checks.positive_integer("steps", steps)
    if record_every is None:
        return max(1, steps // DEFAULT_RECORDS)
    return _checks.positive_integer("record_every", record_every)


def start_of(start: Any, default: Array, runs: int) -> Array:
    """Parameters (runs, P) to start from; given for all runs at once, or for each."""
    theta = _checks.finite_array("start", default if start is None else start)
    shape = default.shape
    if theta.shape not in (shape, (runs, *shape)):
        raise ValueError(f"start: expected shape {shape} or {(runs, *shape)}, got {theta.shape}")
    return np.broadcast_to(theta, (runs, *shape)).reshape(runs, -1)


def streams_of(rng: Any, runs: int) -> tuple[Streams, Streams]:
    """For every run, two streams of its own: one for draws and one for noise."""
    generator = _checks.generator_of(rng)
    both = [run.spawn(2) for run in generator.spawn(runs)]
    return [one for one, _ in both], [two for _, two in both]


@contextlib.contextmanager
def reporter(progress: Any, steps: int) -> Iterator[Progress]:
    """Whom to tell how far a long loop is: nobody, a callable, or a bar on standard error."""
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda step, steps: None
    else:
        from tqdm import tqdm

        with tqdm(total=steps, unit="step") as bar:
            yield lambda step, steps: bar.update(step - bar.n)


# ---------------------------------------------------------------------------------- the descent


class _Records:
    """The parameters at the recorded steps."""

    def __init__(self, steps: int, every: int, theta: Array, runs: int) -> None:
        self.steps = record_steps(steps, every)
        self.theta = np.empty((len(self.steps), runs, len(theta)))  # (T, R, P)
        self.made = 0
        self.add(theta)

    @property
    def next(self) -> int:
        """The step to record next; −1 when all is done."""
        return int(self.steps[self.made]) if self.made < len(self.steps) else -1

    @property
    def last(self) -> int:
        """The last step of all."""
        return int(self.steps[-1])

    def add(self, theta: Array) -> None:
        self.theta[self.made] = theta.T[: self.theta.shape[1]]
        self.made += 1


def record_steps(steps: int, every: int) -> np.ndarray:
    """The steps with a record: the start, every ``every``-th, and the last."""
    return np.append(np.arange(0, steps, every), steps)


def _descend(
    theta: Array,
    learner: Learner,
    optimizer: Optimizer,
    streams: tuple[Streams, Streams],
    records: _Records,
    report: Progress,
) -> bool:
    """Train in place; True if stopped from the keyboard."""
    update, gradient = optimizer.start(theta.shape), learner.gradient
    step, at, steps = 0, records.next, records.last
    chunk = CHUNK_NUMBERS // max(1, learner.numbers * len(streams[0]))
    chunk = max(1, min(CHUNK_STEPS, chunk))
    # A run that diverges goes on as NaN beside the others: the history shows where.
    with np.errstate(all="ignore"):
        try:
            while step < steps:
                for batch in learner.draw(streams, min(chunk, steps - step)):
                    update(theta, gradient(theta, batch))
                    step += 1
                    if step == at:
                        records.add(theta)
                        at = records.next
                report(step, steps)
        except KeyboardInterrupt:
            return True
    return False


# ------------------------------------------------------------------------------ what is left of it


def settings_of(
    steps: int, optimizer: Optimizer, runs: int, rng: Any, record_every: int
) -> dict[str, Any]:
    """The settings that every training has, for its history: what JSON can hold.

    To be asked for before :func:`follow`, which moves ``rng`` on.
    """
    return {
        "steps": int(steps),
        "optimizer": repr(optimizer),
        "runs": int(runs),
        "seed": seed_of(rng),
        "record_every": int(record_every),
    }


def history_of(
    problem: Bandit,
    course: Course,
    method: str,
    settings: dict[str, Any],
    policy: LogLinear | None = None,
) -> History:
    """The history of a course whose parameters are the logits, or those of ``policy``."""
    logits = course.theta
    if policy is not None:
        with np.errstate(invalid="ignore", over="ignore"):
            logits = policy.logits(course.theta)
    return History(
        problem=problem,
        method=method,
        settings=settings,
        steps=course.steps,
        logits=logits.reshape(*logits.shape[:2], *problem.shape),
        theta=None if policy is None else course.theta,
        interrupted=course.interrupted,
    )


def warn_of_trouble(name: str, course: Course, steps: int) -> None:
    """Warn the caller of the function ``name`` if runs diverged or were interrupted."""
    lost: NDArray[np.bool_] = np.logical_not(np.isfinite(course.theta).all(axis=-1))
    if lost.any():
        record = int(lost.any(axis=1).argmax())
        runs = np.flatnonzero(lost.any(axis=0))
        named = ", ".join(map(str, runs[:8])) + (", …" if len(runs) > 8 else "")
        lost_of_all = f"{len(runs)} of {course.theta.shape[1]}"
        warnings.warn(
            f"{name}: {lost_of_all} runs diverged ({named}): parameters not finite "
            f"from the record at step {course.steps[record]} on; try a smaller step size",
            RuntimeWarning,
            stacklevel=3,
        )
    if course.interrupted:
        warnings.warn(
            f"{name}: interrupted; records until step {course.steps[-1]} of {steps} are returned",
            RuntimeWarning,
            stacklevel=3,
        )
