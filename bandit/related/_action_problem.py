"""The problem of :mod:`bandit.related.deterministic` and its rewards. Letters as there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bandit import _checks
from bandit._checks import Array


def quadratic(error: ArrayLike) -> Array:
    """f(e) = −e²: the linear-quadratic problem, with its best at 0."""
    return -(np.asarray(error, dtype=np.float64) ** 2)


def skewed_peak(error: ArrayLike) -> Array:
    r"""f(e) = exp(1 − e − exp(−e)): smooth, not concave, steep on the left and slow on the right.

    In (0, 1] with the maximum f(0) = 1. As it is skewed, smoothing moves its maximum to the right:
    what explores best is not what is best deployed.
    """
    error = np.asarray(error, dtype=np.float64)
    with np.errstate(over="ignore"):
        return np.exp(1 - error - np.exp(-error))


@dataclasses.dataclass(frozen=True, eq=False)
class ActionProblem:
    """A one-step problem with linear policies a = θᵀφ(x), rewarded with f(a − wᵀφ(x)).

    Parameters
    ----------
    features : array_like (X, d)
        φ(x).
    target : array_like (d,)
        w, the best parameters.
    reward : function of an array
        f, elementwise, greatest at 0: :func:`quadratic` or :func:`skewed_peak`, or one's own.
        Integrals over it are exact if it is smooth, and changes over a quarter of a unit or more.
    context_weights : array_like (X,), optional
        ρ(x), summing to 1. Default: uniform.

    Raises
    ------
    ValueError, TypeError
        One line with the argument's name, what was expected and what came.
    """

    features: Array
    target: Array
    reward: Callable[[Array], Array] = quadratic
    context_weights: Any = None

    def __post_init__(self) -> None:
        features = _checks.finite_array("features", self.features)
        if features.ndim != 2 or features.size == 0:
            raise ValueError(f"features: expected shape (X, d), got {features.shape}")
        target = _checks.finite_array("target", self.target)
        if target.shape != features.shape[1:]:
            raise ValueError(f"target: expected shape {features.shape[1:]}, got {target.shape}")
        if not callable(self.reward):
            raise TypeError(f"reward: expected a function, got {type(self.reward).__name__}")
        answer = _checks.real_array("reward", self.reward(np.array([0.0, 1.0])))
        if answer.shape != (2,):
            raise ValueError(
                f"reward: expected a function of arrays, a number for each, got {answer.shape} for "
                "an array of shape (2,)"
            )
        weights = self.context_weights
        if weights is None:
            weights = np.full(len(features), 1 / len(features))
        weights = _checks.distribution("context_weights", weights)
        if weights.shape != features.shape[:1]:
            raise ValueError(
                f"context_weights: expected shape {features.shape[:1]}, got {weights.shape}"
            )
        for name, array in (
            ("features", features),
            ("target", target),
            ("context_weights", weights),
        ):
            object.__setattr__(self, name, _checks.read_only(array))

    @property
    def n_parameters(self) -> int:
        """d."""
        return self.features.shape[1]

    @property
    def norms(self) -> Array:
        """‖φ(x)‖, (X,)."""
        return np.linalg.norm(self.features, axis=1)

    def parameters(self, theta: ArrayLike) -> Array:
        """``theta`` as parameters (..., d), or a one-line error."""
        theta = _checks.finite_array("theta", theta)
        _checks.trailing_shape("theta", theta, (self.n_parameters,), "(..., d)")
        return theta

    def error(self, theta: ArrayLike) -> Array:
        """e_x = (θ − w)ᵀφ(x), (..., X)."""
        return (self.parameters(theta) - self.target) @ self.features.T

    def value(self, theta: ArrayLike) -> Array:
        """J_D(θ) = E_x f(e_x) of the deterministic policy, (...)."""
        return self.reward(self.error(theta)) @ self.context_weights

    def gap(self, theta: ArrayLike) -> Array:
        """J_D(w) − J_D(θ) ≥ 0, in units of reward, (...)."""
        return self.value(self.target) - self.value(theta)
