"""How a gradient becomes a step: immutable recipes, their moving parts made anew by ``start``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from bandit import _checks
from bandit._checks import Array

Update = Callable[[Array, Array], None]
"""(parameters, gradient) -> None: moves the parameters in place, downhill."""


class Optimizer(Protocol):
    """What :func:`bandit.train` asks of an optimizer."""

    def start(self, shape: tuple[int, ...]) -> Update:
        """An update for parameters of ``shape``, with fresh moving averages."""
        ...


@dataclasses.dataclass(frozen=True)
class SGD:
    r"""Stochastic gradient descent, with heavy-ball momentum if wanted.

    .. math:: v \leftarrow \text{momentum}\cdot v + g, \qquad
              \theta \leftarrow \theta - \text{lr}\, v

    Parameters
    ----------
    lr : float
        Step size, above 0.
    momentum : float
        In [0, 1).
    """

    lr: float
    momentum: float = 0.0

    def __post_init__(self) -> None:
        _checks.positive_number("lr", self.lr)
        _check_decay("momentum", self.momentum)

    def start(self, shape: tuple[int, ...]) -> Update:
        """An update for parameters of ``shape``, at rest."""
        velocity = np.zeros(shape)
        step = np.empty(shape)

        def update(theta: Array, gradient: Array) -> None:
            if self.momentum:
                np.multiply(velocity, self.momentum, out=velocity)
                np.add(velocity, gradient, out=velocity)
                gradient = velocity
            np.multiply(gradient, self.lr, out=step)
            np.subtract(theta, step, out=theta)

        return update


@dataclasses.dataclass(frozen=True)
class Adam:
    r"""Adam, with the usual correction of the moving averages for their start at zero.

    .. math:: m \leftarrow \beta_1 m + (1-\beta_1) g, \quad
              v \leftarrow \beta_2 v + (1-\beta_2) g^2, \quad \theta \leftarrow \theta - \text{lr}\,
              \frac{m / (1-\beta_1^t)}{\sqrt{v / (1-\beta_2^t)} + \epsilon}

    Parameters
    ----------
    lr : float
        Step size, above 0.
    beta1, beta2 : float
        Decay of the averages of the gradient and of its square, in [0, 1).
    eps : float
        Added to the denominator, above 0.

    References
    ----------
    Kingma and Ba 2014, arXiv:1412.6980, algorithm 1.
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _checks.positive_number("lr", self.lr)
        _check_decay("beta1", self.beta1)
        _check_decay("beta2", self.beta2)
        _checks.positive_number("eps", self.eps)

    def start(self, shape: tuple[int, ...]) -> Update:
        """An update for parameters of ``shape``, with empty averages."""
        beta1, beta2 = self.beta1, self.beta2
        # Sums instead of averages: m = (1 − β₁) first, v = (1 − β₂) second. The factors go into two
        # numbers per step, which saves passes over the arrays.
        first, second, work = np.zeros(shape), np.zeros(shape), np.empty(shape)
        taken = 0

        def update(theta: Array, gradient: Array) -> None:
            nonlocal taken
            taken += 1
            np.multiply(first, beta1, out=first)
            np.add(first, gradient, out=first)
            np.multiply(second, beta2, out=second)
            np.multiply(gradient, gradient, out=work)
            np.add(second, work, out=second)
            root = math.sqrt((1 - beta2) / (1 - beta2**taken))
            np.sqrt(second, out=work)
            np.add(work, self.eps / root, out=work)
            np.divide(first, work, out=work)
            np.multiply(work, self.lr * (1 - beta1) / (1 - beta1**taken) / root, out=work)
            np.subtract(theta, work, out=theta)

        return update


def _check_decay(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name}: expected a number in [0, 1), got {type(value).__name__}")
    if not 0 <= value < 1:
        raise ValueError(f"{name}: expected a number in [0, 1), got {value}")
