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
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import ArrayLike

from bandit import _checks, batches, descent
from bandit._checks import Array
from bandit.batches import Streams
from bandit.descent import Progress
from bandit.optimizers import Optimizer
from bandit.related._action_problem import ActionProblem, quadratic, skewed_peak

__all__ = [
    "ActionProblem",
    "Course",
    "GaussianActionPolicy",
    "ParameterNoisePolicy",
    "optimize",
    "quadratic",
    "skewed_peak",
]

# Gauss–Hermite nodes: exact for polynomials of degree 255, and to rounding for the rewards here
# up to σ‖φ‖ of 2 or so.
NODES = 128
# Second moments have σ to the power of ±4 in them, and have to fit into float64.
EXTREME = 1e50


# --------------------------------------------------------------------------------- exploration


@functools.cache
def _normal_rule() -> tuple[Array, Array]:
    """Nodes and weights for the mean over a standard normal variable."""
    z, weight = hermegauss(NODES)
    return z, weight / weight.sum()


@dataclasses.dataclass(frozen=True, eq=False)
class _Exploration:
    """What both ways to explore share: integrals over the noise along φ.

    Parameters
    ----------
    problem : ActionProblem
    sigma : float
        σ > 0.
    """

    problem: ActionProblem
    sigma: float

    def __post_init__(self) -> None:
        if not isinstance(self.problem, ActionProblem):
            raise TypeError(
                f"problem: expected an ActionProblem, got {type(self.problem).__name__}"
            )
        sigma = _checks.positive_number("sigma", self.sigma)
        if not EXTREME**-1 <= sigma <= EXTREME:
            raise ValueError(f"sigma: expected from {1 / EXTREME:g} to {EXTREME:g}, got {sigma:g}")
        object.__setattr__(self, "sigma", sigma)

    @property
    def _spread(self) -> Array:
        """Standard deviation of the action in each context, (X,)."""
        raise NotImplementedError

    def _mean(self, theta: ArrayLike, function: Callable[[Array, Array], Array]) -> Array:
        """E_z of ``function`` (reward, z), (..., X)."""
        z, weight = _normal_rule()
        error = self.problem.error(theta)[..., None] + self._spread[:, None] * z
        return function(self.problem.reward(error), z) @ weight

    def value(self, theta: ArrayLike) -> Array:
        """J of the exploring policy, in units of reward, (...); see the module's formulas."""
        return self._mean(theta, lambda reward, z: reward) @ self.problem.context_weights

    def gradient(self, theta: ArrayLike) -> Array:
        r"""∇J, (..., d): :math:`\mathbb{E}_x \mathbb{E}_z[f(e_x + s_x z) z]\, \varphi(x)/s_x`.

        s_x is the standard deviation of the action: σ, or σ‖φ(x)‖. The same for the mean of the
        sampled estimates.
        """
        slope = self._mean(theta, lambda reward, z: reward * z)
        # Features that are all 0 have no noise along them, and nothing to learn.
        spread = np.where(self._spread > 0, self._spread, 1.0)
        return (slope * self.problem.context_weights / spread) @ self.problem.features

    def variance(self, theta: ArrayLike) -> Array:
        """Trace of the covariance of the gradient from one draw, exactly, (...)."""
        return self._moment(theta) - (self.gradient(theta) ** 2).sum(axis=-1)

    def _moment(self, theta: ArrayLike) -> Array:
        raise NotImplementedError

    def _check(self, theta: ArrayLike, batch_size: Any, rng: Any) -> tuple[Array, Any, Any]:
        theta = self.problem.parameters(theta)
        if theta.ndim != 1:
            raise ValueError(
                f"theta: expected shape ({self.problem.n_parameters},), got {theta.shape}"
            )
        generator = _checks.generator_of(rng)
        size = _checks.positive_integer("batch_size", batch_size)
        return theta, generator.random(size), generator.standard_normal((size, self.numbers))

    @property
    def numbers(self) -> int:
        """Normal numbers per draw."""
        raise NotImplementedError

    def _context(self, uniform: Array) -> Any:
        return batches.climb(batches.ladder(self.problem.context_weights[None]), 1, 0, uniform)

    def sample(
        self,
        theta: ArrayLike,
        rng: int | np.random.SeedSequence | np.random.Generator,
        *,
        batch_size: int,
    ) -> Array:
        """Gradients from single draws, (B, d): independent, each unbiased for ∇J.

        Parameters
        ----------
        theta : array_like (d,)
        rng : int, SeedSequence or Generator
        batch_size : int
            B.
        """
        theta, uniform, normal = self._check(theta, batch_size, rng)
        return self._draws(theta, uniform, normal)

    def _draws(self, theta: Array, uniform: Array, normal: Array) -> Array:
        """Gradients (..., B, d) at θ (..., 1, d) or (d,) from numbers (..., B) and (..., B, n)."""
        raise NotImplementedError


class GaussianActionPolicy(_Exploration):
    r"""Noise in the action, a ~ N(θᵀφ(x), σ²), with the REINFORCE (one-step GPOMDP) gradient.

    .. math:: g = f(e_x + \sigma z)\, \frac{z}{\sigma}\, \varphi(x)

    For f = −e²: J_A = J_D − σ², and the second moment of g is
    :math:`\mathbb{E}_x \|\varphi\|^2 (e^4/\sigma^2 + 18 e^2 + 15\sigma^2)`.

    Parameters
    ----------
    problem : ActionProblem
    sigma : float
        σ > 0, in units of the action.

    References
    ----------
    Montenegro et al. 2024, arXiv:2405.02235 (there over many steps).
    """

    @property
    def _spread(self) -> Array:
        return np.full(len(self.problem.features), self.sigma)

    @property
    def numbers(self) -> int:
        """Normal numbers per draw: the noise of one action."""
        return 1

    def _moment(self, theta: ArrayLike) -> Array:
        square = self._mean(theta, lambda reward, z: (reward * z) ** 2)
        per_context = self.problem.context_weights * (self.problem.norms / self.sigma) ** 2
        return square @ per_context

    def _draws(self, theta: Array, uniform: Array, normal: Array) -> Array:
        phi = self.problem.features[self._context(uniform)]
        z = normal[..., 0]
        error = ((theta - self.problem.target) * phi).sum(axis=-1) + self.sigma * z
        return (self.problem.reward(error) * z / self.sigma)[..., None] * phi


class ParameterNoisePolicy(_Exploration):
    r"""Noise in the parameters, θ' ~ N(θ, σ²I), then a = θ'ᵀφ(x), with the PGPE gradient.

    .. math:: g = f(e_x + \sigma \varphi(x)^\top\varepsilon)\, \frac{\varepsilon}{\sigma}, \qquad
              \varepsilon \sim \mathcal N(0, I_d)

    For f = −e² and s = σ‖φ‖: J_P = J_D − σ² E‖φ‖², and the second moment of g is
    :math:`\sigma^{-2}\, \mathbb{E}_x[e^4 + 18 e^2 s^2 + 15 s^4 + (d-1)(e^4 + 6e^2s^2 + 3s^4)]`.

    Parameters
    ----------
    problem : ActionProblem
    sigma : float
        σ > 0, in units of the parameters.

    References
    ----------
    Montenegro et al. 2024, arXiv:2405.02235; Sehnke et al. 2010 (PGPE).
    """

    @property
    def _spread(self) -> Array:
        return self.sigma * self.problem.norms

    @property
    def numbers(self) -> int:
        """Normal numbers per draw: the noise of all parameters."""
        return self.problem.n_parameters

    def gradient(self, theta: ArrayLike) -> Array:
        r"""∇J, (..., d): :math:`\mathbb{E}_x \mathbb{E}_z[f z]\, \varphi(x)/(\sigma\|\varphi\|)`.

        Also the mean of the sampled estimates.
        """
        return super().gradient(theta)

    def _moment(self, theta: ArrayLike) -> Array:
        # Of the noise, one direction (along φ) is seen in the reward, and d − 1 are not.
        others = self.problem.n_parameters - 1
        square = self._mean(theta, lambda reward, z: reward**2 * (z**2 + others))
        return square @ (self.problem.context_weights / self.sigma**2)

    def _draws(self, theta: Array, uniform: Array, normal: Array) -> Array:
        phi = self.problem.features[self._context(uniform)]
        error = ((theta - self.problem.target + self.sigma * normal) * phi).sum(axis=-1)
        return (self.problem.reward(error) / self.sigma)[..., None] * normal


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

    exploration: _Exploration
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
    explore: type[_Exploration],
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

    def __init__(self, exploration: _Exploration, batch_size: int) -> None:
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
        draws = self.exploration._draws(theta.T[:, None], uniform.T, np.moveaxis(normal, -1, 0))
        return -draws.mean(axis=1).T
