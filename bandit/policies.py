"""How parameters become logits. A tabular policy's parameters *are* its logits; a log-linear
policy restricts them to ``features · θ``."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from bandit import _checks
from bandit._checks import Array


class Policy(Protocol):
    """What the analysis and the trainer ask of a parameterization."""

    def logits(self, theta: Array) -> Array:
        """Logits (..., [X,] K) of parameters (..., d)."""
        ...

    def pull_back(self, gradient: Array) -> Array:
        """Gradient by θ (..., d) from a gradient by logits (..., [X,] K)."""
        ...


class LogLinear:
    """Log-linear policies, logits(x, y) = features(x, y) · θ, with one θ for all contexts.

    Parameters
    ----------
    features : array_like (K, d) or (X, K, d)
        Finite. Columns that differ by a constant over the arms of each context are not told apart
        by any policy.
    """

    def __init__(self, features: ArrayLike) -> None:
        features = _checks.finite_array("features", features)
        if features.ndim not in (2, 3) or features.size == 0:
            raise ValueError(f"features: expected shape (K, d) or (X, K, d), got {features.shape}")
        self.features = _checks.read_only(features)

    @property
    def n_parameters(self) -> int:
        """d."""
        return self.features.shape[-1]

    def for_problem(self, shape: tuple[int, ...]) -> LogLinear:
        """These features for arms of ``shape`` ([X,] K); features (K, d) serve every context."""
        if self.features.shape[:-1] == shape:
            return self
        if self.features.shape[:-1] != shape[-1:]:
            expected = (*shape, self.n_parameters)
            raise ValueError(f"features: expected shape {expected}, got {self.features.shape}")
        return LogLinear(np.broadcast_to(self.features, (*shape, self.n_parameters)))

    def logits(self, theta: Array) -> Array:
        """Logits (..., [X,] K) of θ (..., d)."""
        return np.einsum(
            "xkd,...d->...xk" if self.features.ndim == 3 else "kd,...d->...k", self.features, theta
        )

    def pull_back(self, gradient: Array) -> Array:
        """Gradient by θ (..., d) from a gradient by logits (..., [X,] K)."""
        return np.einsum(
            "xkd,...xk->...d" if self.features.ndim == 3 else "kd,...k->...d",
            self.features,
            gradient,
        )

    @staticmethod
    def checked(policy: LogLinear | None, shape: tuple[int, ...]) -> LogLinear | None:
        """``policy`` for arms of ``shape``, None as it is, or one line about anything else."""
        if policy is None:
            return None
        if not isinstance(policy, LogLinear):
            raise TypeError(
                f"policy: expected bandit.LogLinear or None, got {_checks.type_of(policy)}"
            )
        return policy.for_problem(shape)

    def __repr__(self) -> str:
        return f"LogLinear({self.n_parameters} features, {self.features.shape[-2]} arms)"
