r"""Sampled training: many runs of stochastic gradient descent at once, every batch drawn afresh.

Letters: ``X`` contexts (optional), ``K`` arms, ``d`` parameters of a log-linear policy, ``T``
records; inside also those of :mod:`bandit.batches`. Parameters are kept as (X·K or d, R).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bandit import _checks, groups, losses
from bandit import pairs as pairing
from bandit._checks import Array
from bandit.batches import Streams
from bandit.gradients import Learner, Task, learner
from bandit.groups import Setting
from bandit.history import History, hyper_of, seed_of
from bandit.losses import Loss
from bandit.optimizers import Optimizer
from bandit.policies import LogLinear
from bandit.problem import Bandit

Progress = Callable[[int, int], object]

# Random numbers drawn in one go, and steps they are at most for.
CHUNK_NUMBERS = 1 << 16
CHUNK_STEPS = 256
DEFAULT_RECORDS = 200


def train(
    problem: Bandit,
    loss: Loss,
    *,
    pairs: Any = None,
    on_policy: bool = False,
    preference: ArrayLike | None = None,
    preference_labels: str = "sampled",
    baseline: str | ArrayLike | None = None,
    group_size: int = 2,
    batch_size: int,
    steps: int,
    optimizer: Optimizer,
    runs: int = 1,
    rng: int | np.random.SeedSequence | np.random.Generator,
    record_every: int | None = None,
    reward_noise: float = 0.0,
    policy: LogLinear | None = None,
    start: ArrayLike | None = None,
    progress: bool | Progress | None = None,
) -> History:
    """Train softmax policies by stochastic gradient descent on a loss.

    Parameters
    ----------
    problem : Bandit
    loss : function of :mod:`bandit.losses`, or one with the same contract, or its name
        ``beta`` (and ``eta`` = 1/β) are the problem's unless bound with ``functools.partial``.
    pairs : Pairs or array_like ([X,] K, K)
        Who is compared with whom; groups larger than 2 are independent draws from the one μ of
        ``bandit.pairs.independent(mu)``. Needed unless ``on_policy``.
    on_policy : bool
        Draw every group from the policy being learned, independent draws; then without ``pairs``.
    preference : array_like ([X,] K, K), optional
        P(y ≻ y'), for losses on preferences.
    preference_labels : {"sampled", "probability"}
        Whether a loss sees a label 0 or 1 drawn for each pair, or P itself.
    baseline : {"value", "behavior"} or array_like ([X]), optional
        E_π[R], E_μ[R] (exact, at every step's policy; on-policy the same) or given numbers.
    group_size : int
        Completions per group.
    batch_size : int
        Groups per step, drawn with replacement; contexts are drawn too, by their weights.
    steps : int
        Number of updates.
    optimizer : Optimizer
        ``bandit.Adam(lr)`` or ``bandit.SGD(lr)``.
    runs : int
        Independent trainings, each with random streams of its own.
    rng : int, SeedSequence or Generator
        The same seed gives the same numbers for run i whatever ``runs``, ``record_every`` and
        ``progress`` are. A generator or seed sequence is spawned from, and so moves on.
    record_every : int, optional
        Steps between records; the start and the last step are always recorded. Default: as many as
        give about 200 records.
    reward_noise : float
        Standard deviation of the Gaussian noise on every completion's reward, in units of reward.
    policy : LogLinear, optional
    start : array_like ([X,] K) or (runs, [X,] K), optional
        Logits to start from, default the reference; with ``policy`` its parameters (d,) or
        (runs, d), default 0.
    progress : bool or callable, optional
        True: a bar on standard error. A callable is told ``(step, steps)`` now and then, and at the
        end.

    Returns
    -------
    History
        Stopped from the keyboard, the part done until then (with a warning).

    Raises
    ------
    ValueError, TypeError
        One line with the argument's name, what was expected and what came.

    Warns
    -----
    RuntimeWarning
        If runs diverged (their records are not finite from some step on), or on an interrupt.

    Notes
    -----
    A step costs the same for a hundred and for a million groups as long as the groups are of few
    kinds: then a batch is drawn as the count of each kind.

    Examples
    --------
    >>> import bandit
    >>> history = bandit.train(
    ...     bandit.Bandit([2.5, 2.0, 1.0], beta=0.5),
    ...     bandit.losses.copg,
    ...     pairs=bandit.pairs.independent([0.1, 0.2, 0.7]),
    ...     batch_size=128,
    ...     steps=2000,
    ...     optimizer=bandit.Adam(0.02),
    ...     runs=100,
    ...     rng=0,
    ... )
    >>> history
    History(copg, 100 runs, 201 records to step 2000)
    >>> bool((history.regret()[-1] < 1e-3).all())
    True
    """
    loss = groups.bind(loss, problem, baseline)
    for name, number in (("batch_size", batch_size), ("steps", steps), ("runs", runs)):
        _checks.positive_integer(name, number)
    every = max(1, steps // DEFAULT_RECORDS) if record_every is None else record_every
    _checks.positive_integer("record_every", every)
    _checks.one_of("preference_labels", preference_labels, ("sampled", "probability"))
    _check_helpers(optimizer, policy, progress)
    where = _setting(problem, loss, pairs, on_policy, preference, baseline)
    policy = None if policy is None else policy.for_problem(problem.shape)
    task = Task(
        where=where,
        loss=loss,
        context_weights=np.ones(1) if problem.context_weights is None else problem.context_weights,
        group_size=groups.check_group_size(where, loss, group_size),
        batch_size=batch_size,
        on_policy=on_policy,
        labels=preference_labels == "sampled" and _reads_preference(where, loss, group_size),
        noise=_not_negative("reward_noise", reward_noise),
        features=None if policy is None else policy.features.reshape(-1, policy.n_parameters),
    )
    data = "on-policy" if on_policy else repr(pairing.as_pairs(pairs, problem.shape))
    settings = _settings(
        task, data, baseline, preference_labels, optimizer, runs, rng, steps, every
    )
    with np.errstate(all="ignore"):
        learn = learner(task)
    # Runs too many, for the sake of the learner's blocks, are thrown away.
    lanes = -(-runs // learn.block) * learn.block
    theta, streams = _start(problem, start, policy, runs, lanes), _streams(rng, lanes)
    records = _Records(steps, every, theta, runs)
    with _reporter(progress, steps) as report:
        interrupted = _descend(theta, learn, optimizer, streams, records, report)
    logits, parameters = records.logits(problem, policy)
    history = History(
        problem=problem,
        method=groups.name_of(loss),
        settings=settings,
        steps=records.steps[: records.made],
        logits=logits,
        theta=parameters,
        interrupted=interrupted,
    )
    _warn_of_trouble(history, steps)
    return history


# ------------------------------------------------------------------------------------ arguments


def _check_helpers(optimizer: Any, policy: Any, progress: Any) -> None:
    if isinstance(optimizer, type) or not hasattr(optimizer, "start"):
        raise TypeError(
            f"optimizer: expected bandit.Adam(lr) or bandit.SGD(lr), got {_type_of(optimizer)}"
        )
    if policy is not None and not isinstance(policy, LogLinear):
        raise TypeError(f"policy: expected bandit.LogLinear or None, got {_type_of(policy)}")
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise TypeError(
            f"progress: expected True, False or a function (step, steps), got {_type_of(progress)}"
        )


def _type_of(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _setting(
    problem: Bandit, loss: Loss, pairs: Any, on_policy: bool, preference: Any, baseline: Any
) -> Setting:
    if on_policy and pairs is not None:
        raise ValueError("pairs: expected None with on_policy=True, got pairs")
    if not on_policy and pairs is None:
        raise ValueError("pairs: expected bandit.pairs.independent(mu) or an array, got None")
    if on_policy:
        # Only a list of the groups is wanted, with the number of ways to draw each.
        pairs = pairing.independent(np.full(problem.shape, 1 / problem.n_arms))
        if isinstance(baseline, str) and baseline == "behavior":
            baseline = "value"
    return groups.setting(problem, loss, pairs, preference, baseline)


def _reads_preference(where: Setting, loss: Loss, group_size: int) -> bool:
    if where.preference is None or group_size != 2:
        return False
    known = groups.name_of(loss) in losses.REGISTRY
    return not known or "preference" in losses.traits(loss).requires


def _not_negative(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name}: expected a number of at least 0, got {type(value).__name__}")
    if not (np.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: expected a finite number of at least 0, got {value}")
    return float(value)


def _start(problem: Bandit, start: Any, policy: LogLinear | None, runs: int, lanes: int) -> Array:
    """Parameters (X·K or d, R) of all lanes."""
    shape = problem.shape if policy is None else (policy.n_parameters,)
    if start is None:
        start = problem.log_reference if policy is None else np.zeros(shape)
    theta = _checks.finite_array("start", start)
    if theta.shape not in (shape, (runs, *shape)):
        raise ValueError(f"start: expected shape {shape} or {(runs, *shape)}, got {theta.shape}")
    theta = np.broadcast_to(theta, (runs, *shape)).reshape(runs, -1).T
    return np.pad(theta, ((0, 0), (0, lanes - runs)), mode="edge").copy()


def _streams(rng: Any, runs: int) -> tuple[Streams, Streams]:
    """For every run, a stream of its own for draws and one for noise."""
    seeds = (int, np.integer, np.random.SeedSequence, np.random.Generator)
    if isinstance(rng, bool) or not isinstance(rng, seeds):
        raise TypeError(
            f"rng: expected a seed, SeedSequence or Generator of numpy, got {type(rng).__name__}"
        )
    if isinstance(rng, (int, np.integer)) and rng < 0:
        raise ValueError(f"rng: expected a seed of at least 0, got {rng}")
    both = [run.spawn(2) for run in np.random.default_rng(rng).spawn(runs)]
    return [one for one, _ in both], [two for _, two in both]


@contextlib.contextmanager
def _reporter(progress: Any, steps: int) -> Iterator[Progress]:
    """Whom to tell how far the training is."""
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda step, steps: None
    else:
        from tqdm import tqdm

        with tqdm(total=steps, unit="step") as bar:
            yield lambda step, steps: bar.update(step - bar.n)


def _settings(
    task: Task,
    data: str,
    baseline: Any,
    preference_labels: str,
    optimizer: Optimizer,
    runs: int,
    rng: Any,
    steps: int,
    every: int,
) -> dict[str, Any]:
    """How a history came to be, in what JSON can hold."""
    if not (baseline is None or isinstance(baseline, str)):
        baseline = np.asarray(baseline).tolist()
    return {
        "hyper": hyper_of(task.loss),
        "baseline": baseline,
        "pairs": data,
        "preference_labels": preference_labels if task.where.preference is not None else None,
        "group_size": task.group_size,
        "batch_size": int(task.batch_size),
        "reward_noise": task.noise,
        "steps": int(steps),
        "optimizer": repr(optimizer),
        "runs": int(runs),
        "seed": seed_of(rng),
        "record_every": int(every),
    }


# ---------------------------------------------------------------------------------- the descent


class _Records:
    """The parameters at the recorded steps."""

    def __init__(self, steps: int, every: int, theta: Array, runs: int) -> None:
        self.steps = np.append(np.arange(0, steps, every), steps)
        self.theta = np.empty((len(self.steps), runs, len(theta)))  # (T, R, P or d)
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

    def logits(self, problem: Bandit, policy: LogLinear | None) -> tuple[Array, Array | None]:
        """Logits (T, runs, [X,] K), and θ (T, runs, d) of a log-linear policy."""
        theta = self.theta[: self.made]
        if policy is None:
            return theta.reshape(*theta.shape[:2], *problem.shape), None
        with np.errstate(invalid="ignore", over="ignore"):
            return policy.logits(theta), theta


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


def _warn_of_trouble(history: History, steps: int) -> None:
    arms = tuple(range(2, history.logits.ndim))
    lost: NDArray[np.bool_] = np.logical_not(np.isfinite(history.logits).all(axis=arms))
    if lost.any():
        record = int(lost.any(axis=1).argmax())
        runs = np.flatnonzero(lost.any(axis=0))
        named = ", ".join(map(str, runs[:8])) + (", …" if len(runs) > 8 else "")
        warnings.warn(
            f"train: {len(runs)} of {history.n_runs} runs diverged ({named}): logits not finite "
            f"from the record at step {history.steps[record]} on; try a smaller step size",
            RuntimeWarning,
            stacklevel=3,
        )
    if history.interrupted:
        warnings.warn(
            f"train: interrupted; records until step {history.steps[-1]} of {steps} are returned",
            RuntimeWarning,
            stacklevel=3,
        )
