r"""Learning a deterministic policy with stochastic gradients: how much to explore.

One step, continuous actions: a context x with features φ(x) is drawn, the policy acts a = θᵀφ(x),
and earns f(a − wᵀφ(x)) for an unknown w. Learning explores, either in the action or in the
parameters, but what is deployed in the end is the deterministic policy:

.. math::
    J_D(\theta) &= \mathbb{E}_x\, f(e_x), \qquad e_x = (\theta - w)^\top\varphi(x) , \\
    J_A(\theta) &= \mathbb{E}_x \mathbb{E}_z\, f(e_x + \sigma z), \qquad
    J_P(\theta) = \mathbb{E}_x \mathbb{E}_z\, f(e_x + \sigma \|\varphi(x)\| z), \qquad
    z \sim \mathcal N(0, 1) .

For :math:`f(e) = -e^2`: :math:`J_A = J_D - \sigma^2` and
:math:`J_P = J_D - \sigma^2\, \mathbb{E}\|\varphi\|^2`. Both objectives are Gaussian smoothings, so
each of their values, gradients and gradient variances is a sum over contexts of integrals over one
normal variable, whatever the dimension d. Nothing is sampled, except in ``sample`` and
:func:`optimize`.

Letters: ``X`` contexts, ``d`` parameters, ``B`` draws, ``R`` runs, ``T`` records, ``...`` any
leading axes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bandit import _checks, batches, descent
from bandit._checks import Array
from bandit.batches import Streams
from bandit.descent import Progress
from bandit.optimizers import Optimizer
from bandit.related._action_problem import ActionProblem, quadratic, skewed_peak
from bandit.related._exploration import Exploration, GaussianActionPolicy, ParameterNoisePolicy

__all__ = [
    "ActionProblem",
    "Course",
    "GaussianActionPolicy",
    "ParameterNoisePolicy",
    "optimize",
    "quadratic",
    "skewed_peak",
]

# ------------------------------------------------------------------------------------ training


@dataclasses.dataclass(frozen=True, eq=False)
class Course:
    """The course of a training; ``T`` records of R runs.

    Attributes
    ----------
    exploration : GaussianActionPolicy or ParameterNoisePolicy
    steps : ndarray of int (T,)
        Updates made before each record; the first record is the start, 0.
    theta : ndarray (T, R, d)
        A run that diverged has NaN or infinities from there on.
    interrupted : bool
        True if training was stopped from the keyboard; the records are those made until then.
    """

    exploration: Exploration
    steps: np.ndarray
    theta: Array
    interrupted: bool = False

    def gap(self) -> Array:
        """J_D(w) − J_D(θ) of the deployed deterministic policies, (T, R); NaN where diverged."""
        result = np.full(self.theta.shape[:2], np.nan)
        finite = np.isfinite(self.theta).all(axis=-1)
        # On the way to infinity a reward may overflow before the parameters do.
        with np.errstate(over="ignore", invalid="ignore"):
            result[finite] = self.exploration.problem.gap(self.theta[finite])
        return result


def optimize(
    problem: ActionProblem,
    explore: type[Exploration],
    *,
    sigma: float,
    batch_size: int,
    steps: int,
    optimizer: Optimizer,
    rng: int | np.random.SeedSequence | np.random.Generator,
    runs: int = 1,
    record_every: int | None = None,
    start: ArrayLike | None = None,
    progress: bool | Progress | None = None,
) -> Course:
    """Ascend J_A or J_P from samples, exploring with σ; the deterministic policy is what counts.

    Parameters
    ----------
    problem : ActionProblem
    explore : GaussianActionPolicy or ParameterNoisePolicy
        The class: where the noise goes.
    sigma : float
        σ > 0.
    batch_size : int
        Draws per step: ``steps · batch_size`` rewards are seen.
    steps : int
        Number of updates.
    optimizer : Optimizer
    rng : int, SeedSequence or Generator
    runs : int
        Independent trainings, each with random streams of its own.
    record_every : int, optional
        Steps between records. Default: as many as give about 200 records.
    start : array_like (d,) or (runs, d), optional
        Parameters to start from, default 0.
    progress : bool or callable, optional
        As in :func:`bandit.train`.

    Returns
    -------
    Course
        Stopped from the keyboard, the part done until then (with a warning).

    Raises
    ------
    ValueError, TypeError
        One line with the argument's name, what was expected and what came.

    Warns
    -----
    RuntimeWarning
        If runs diverged, or on an interrupt.
    """
    if explore not in (GaussianActionPolicy, ParameterNoisePolicy):
        raise TypeError(
            "explore: expected the class GaussianActionPolicy or ParameterNoisePolicy, got "
            f"{_checks.type_of(explore)}"
        )
    exploration = explore(problem, sigma)
    for name, number in (("batch_size", batch_size), ("runs", runs)):
        _checks.positive_integer(name, number)
    every = descent.record_interval(record_every, steps)
    descent.check_helpers(optimizer, progress)
    course = descent.follow(
        _Explorer(exploration, batch_size),
        descent.start_of(start, np.zeros(problem.n_parameters), runs),
        optimizer,
        steps=steps,
        record_every=every,
        rng=rng,
        progress=progress,
    )
    descent.warn_of_trouble("optimize", course, steps)
    return Course(exploration, *course)


class _Explorer:
    """The learner that acts with noise."""

    block = 1

    def __init__(self, exploration: Exploration, batch_size: int) -> None:
        self.exploration, self.batch_size = exploration, batch_size
        self.numbers = batch_size * (1 + exploration.numbers)

    def draw(self, streams: tuple[Streams, Streams], steps: int) -> Iterator[Any]:
        """Uniform numbers (B, R) for the contexts and normal ones (B, n, R) for the noise."""
        size = self.batch_size
        uniform = batches.uniforms(streams[0], steps, (size,))
        normal = batches.normals(streams[1], steps, (size, self.exploration.numbers))
        yield from zip(uniform, normal, strict=True)

    def gradient(self, theta: Array, batch: Any) -> Array:
        """The mean of the batch (d, R), turned downhill."""
        uniform, normal = batch
        draws = self.exploration.draws(theta.T[:, None], uniform.T, np.moveaxis(normal, -1, 0))
        return -draws.mean(axis=1).T
