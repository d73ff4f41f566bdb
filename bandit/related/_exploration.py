"""How :mod:`bandit.related.deterministic` explores: by noise in the action or in the parameters.
Letters as there; but for ``sample`` nothing is sampled."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from bandit import _checks, batches
from bandit._checks import Array
from bandit.related._action_problem import ActionProblem

# Nodes a unit, both of z and of the action: to rounding for the rewards here.
FINENESS = 4
# Normal variables are integrated over up to this many standard deviations.
REACH = 12
# Wider exploration would take too many nodes.
WIDEST = 1e4
# Second moments have σ to the power of ±4 in them, and have to fit into float64.
EXTREME = 1e50
# Differences of rewards over less than this lose digits to rounding: about the cube root of 1e-16,
# and more far from the target.
LEAST_SPREAD, LEAST_SHARE = 1e-5, 1e-8


@functools.lru_cache(maxsize=8)
def _normal_rule(spread: int) -> tuple[Array, Array]:
    """Nodes and weights for the mean over a normal variable, to be spread ``spread`` wide at most.

    The trapezoidal rule, which converges faster than any power for smooth functions on the whole
    line; as many nodes a unit of z as of the action, or more.
    """
    many = REACH * FINENESS * spread
    z = (np.arange(-many, many) + 0.5) / (FINENESS * spread)
    weight = np.exp(-(z**2) / 2)
    return z, weight / weight.sum()


@dataclasses.dataclass(frozen=True, eq=False)
class Exploration:
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

    def _mean(
        self, theta: ArrayLike, function: Callable[[Array, Array], Array], *, differs: bool = False
    ) -> tuple[Array, Array]:
        """E_z of ``function`` (reward, z) in each context, (..., X), and how wide z was spread.

        That is as wide as the policy does, unless ``function`` looks at how rewards differ and
        rounding would leave too little of it.
        """
        error = self.problem.error(theta)
        least = LEAST_SPREAD + LEAST_SHARE * np.abs(error) if differs else 0.0
        spread = np.maximum(self._spread, least)
        widest = float(self._spread.max())
        if widest > WIDEST:
            raise ValueError(
                f"sigma: expected actions to spread by at most {WIDEST:g} for exact integrals, got "
                f"{widest:g}"
            )
        z, weight = _normal_rule(max(1, math.ceil(widest)))
        # Far from the target rewards may overflow: they are infinite then.
        with np.errstate(over="ignore", invalid="ignore"):
            reward = self.problem.reward(error[..., None] + spread[..., None] * z)
            return function(reward, z) @ weight, spread

    def value(self, theta: ArrayLike) -> Array:
        """J of the exploring policy, in units of reward, (...); see the module's formulas."""
        return self._mean(theta, lambda reward, z: reward)[0] @ self.problem.context_weights

    def gradient(self, theta: ArrayLike) -> Array:
        r"""∇J, (..., d): :math:`\mathbb{E}_x \mathbb{E}_z[f(e_x + s_x z) z]\, \varphi(x)/s_x`.

        s_x is the standard deviation of the action: σ, or σ‖φ(x)‖. The same for the mean of the
        sampled estimates. It changes with σ², so that as σ → 0 a small one stands for all smaller.
        """
        slope, spread = self._mean(theta, lambda reward, z: reward * z, differs=True)
        return (slope * self.problem.context_weights / spread) @ self.problem.features

    def variance(self, theta: ArrayLike) -> Array:
        """Trace of the covariance of the gradient from one draw, exactly, (...).

        Infinite where it is too large for float64.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            moment = self._moment(theta)
            spread = moment - (self.gradient(theta) ** 2).sum(axis=-1)
        return np.where(np.isinf(moment), np.inf, spread)[()]

    def optimum(self, start: ArrayLike | None = None) -> Array:
        """Parameters that maximize the exploring policy's J, (d,): where endless learning leads.

        What they lack when they are deployed, ``problem.gap(optimum())``, is the price of σ that no
        number of draws makes good. Found by ascent along the exact gradient.

        Parameters
        ----------
        start : array_like (d,), optional
            Where to begin; of several maxima the search finds one. Default: the target w.

        Raises
        ------
        RuntimeError
            If the search does not end where the gradient vanishes.
        """
        begin = _checks.finite_array("start", self.problem.target if start is None else start)
        if begin.shape != self.problem.target.shape:
            raise ValueError(
                f"start: expected shape {self.problem.target.shape}, got {begin.shape}"
            )
        # Wide exploration makes J flat: in units of its curvature, steps have a sensible length.
        h = 1e-3 * max(1.0, self.sigma) * np.eye(begin.size)
        bend = float(np.abs(self.gradient(begin + h) - self.gradient(begin - h)).max()) / (
            2 * h[0, 0]
        )
        unit = bend if np.isfinite(bend) and bend > 0 else 1.0
        found = minimize(
            lambda t: -self.value(t) / unit,
            begin,
            jac=lambda t: -self.gradient(t) / unit,
            tol=1e-10,
        ).x
        left = float(np.abs(self.gradient(found)).max()) / unit
        if not left < 1e-6:
            raise RuntimeError(
                f"optimum: no maximum found: the gradient is still {left:.2g} times the curvature"
            )
        return found

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
        return self.draws(theta, uniform, normal)

    def draws(self, theta: Array, uniform: Array, normal: Array) -> Array:
        """Gradients (..., B, d) at θ (..., 1, d) or (d,) from numbers (..., B) and (..., B, n)."""
        raise NotImplementedError


class GaussianActionPolicy(Exploration):
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
        square, _ = self._mean(theta, lambda reward, z: (reward * z) ** 2)
        per_context = self.problem.context_weights * (self.problem.norms / self.sigma) ** 2
        return square @ per_context

    def draws(self, theta: Array, uniform: Array, normal: Array) -> Array:
        phi = self.problem.features[self._context(uniform)]
        z = normal[..., 0]
        error = ((theta - self.problem.target) * phi).sum(axis=-1) + self.sigma * z
        return (self.problem.reward(error) * z / self.sigma)[..., None] * phi


class ParameterNoisePolicy(Exploration):
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

        Also the mean of the sampled estimates; as σ → 0 as of ``GaussianActionPolicy``.
        """
        return super().gradient(theta)

    def _moment(self, theta: ArrayLike) -> Array:
        # Of the noise, one direction (along φ) is seen in the reward, and d − 1 are not.
        others = self.problem.n_parameters - 1
        square, _ = self._mean(theta, lambda reward, z: reward**2 * (z**2 + others))
        return square @ (self.problem.context_weights / self.sigma**2)

    def draws(self, theta: Array, uniform: Array, normal: Array) -> Array:
        phi = self.problem.features[self._context(uniform)]
        error = ((theta - self.problem.target + self.sigma * normal) * phi).sum(axis=-1)
        return (self.problem.reward(error) / self.sigma)[..., None] * normal
