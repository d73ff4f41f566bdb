r"""Sampled training: many runs of stochastic gradient descent at once, every batch drawn afresh.

Letters: ``X`` contexts (optional), ``K`` arms, ``d`` parameters of a log-linear policy, ``T``
records; inside also those of :mod:`bandit.batches`. Parameters are kept as (X·K or d, R).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bandit import _checks, descent, groups, losses
from bandit import pairs as pairing
from bandit.descent import Progress
from bandit.gradients import Task, learner
from bandit.groups import Setting
from bandit.history import History, hyper_of
from bandit.losses import Loss
from bandit.optimizers import Optimizer
from bandit.policies import LogLinear
from bandit.problem import Bandit


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
        ``bandit.pairs.independent(mu)``. Those of ``bandit.pairs.from_rows`` come with the rewards
        of their rows, contexts as often as logged. Needed unless ``on_policy``.
    on_policy : bool
        Draw every group from the policy being learned, independent draws; then without ``pairs``.
    preference : array_like ([X,] K, K), optional
        P(y ≻ y'), for losses on preferences.
    preference_labels : {"sampled", "probability"}
        Whether a loss sees a label 0 or 1 drawn for each pair, or P itself; of rows of a log the
        label says which had the higher reward, ½ on a tie.
    baseline : {"value", "behavior", "reward", "optimal"} or array_like ([X]), optional
        E_π[R], E_μ[R] (exact, at every step's policy; on-policy the same), E_μ[r], β ln Z, or given
        numbers.
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
    every = descent.record_interval(record_every, steps)
    _checks.one_of("preference_labels", preference_labels, ("sampled", "probability"))
    descent.check_helpers(optimizer, progress)
    policy = LogLinear.checked(policy, problem.shape)
    where = _setting(problem, loss, pairs, on_policy, preference, baseline)
    task = Task(
        where=where,
        loss=loss,
        context_weights=np.ones(1) if problem.context_weights is None else problem.context_weights,
        group_size=groups.check_group_size(where, loss, group_size),
        batch_size=batch_size,
        on_policy=on_policy,
        labels=preference_labels == "sampled" and _reads_preference(where, loss, group_size),
        noise=_checks.not_negative("reward_noise", reward_noise),
        features=None if policy is None else policy.features.reshape(-1, policy.n_parameters),
    )
    data = "on-policy" if on_policy else repr(pairing.as_pairs(pairs, problem.shape))
    settings = _settings(task, data, baseline, preference_labels)
    settings |= descent.settings_of(steps, optimizer, runs, rng, every)
    with np.errstate(all="ignore"):
        learn = learner(task)
    default = problem.log_reference if policy is None else np.zeros(policy.n_parameters)
    course = descent.follow(
        learn,
        descent.start_of(start, default, runs),
        optimizer,
        steps=steps,
        record_every=every,
        rng=rng,
        progress=progress,
    )
    history = descent.history_of(problem, course, groups.name_of(loss), settings, policy)
    # Parameters that are finite may have logits that are not.
    seen = course._replace(theta=history.logits.reshape(*history.logits.shape[:2], -1))
    descent.warn_of_trouble("train", seen, steps)
    return history


# ------------------------------------------------------------------------------------ arguments


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
    where = groups.setting(problem, loss, pairs, preference, baseline)
    if on_policy and isinstance(baseline, str):
        # The data are the policy's, and so are their means.
        own = {"behavior": "value", "reward": "policy_reward"}
        where = where._replace(baseline=own.get(baseline, where.baseline))
    return where


def _reads_preference(where: Setting, loss: Loss, group_size: int) -> bool:
    if where.preference is None or group_size != 2:
        return False
    known = groups.name_of(loss) in losses.REGISTRY
    return not known or "preference" in losses.traits(loss).requires


def _settings(task: Task, data: str, baseline: Any, preference_labels: str) -> dict[str, Any]:
    """What was trained on, in what JSON can hold."""
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
    }
