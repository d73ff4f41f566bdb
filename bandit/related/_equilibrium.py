r"""The policy that is its own best answer, π ∝ π_ref exp(Aπ/τ) with A antisymmetric.

Newton's method on the log-probabilities. It starts from large τ, where π_ref is nearly the
solution, and follows the equilibrium down to the τ asked for in steps that shrink where it bends.
The Jacobian's eigenvalues are 1 + iω, so the path has no folds.

Letters: ``X`` contexts, ``K`` arms.
"""

from __future__ import annotations

import numpy as np

from bandit._checks import Array
from bandit.problem import log_softmax

MOST_NEWTON_STEPS = 12
LEAST_PACE = 1e-6


def against(advantage: Array, policy: Array) -> Array:
    """Aπ, what each arm gains over π; (..., K) from (..., K, K) and (..., K)."""
    return (advantage @ policy[..., None])[..., 0]


def least_residual(greatest: float, tau: float) -> float:
    """How near to its best answer a policy can be asked to be, in probability.

    Advantages up to ``greatest`` are rounded to some 1e-16 of it, which is worth as much over τ in
    nats. Beyond 1e-6 nothing is left to ask for.
    """
    return min(1e-6, max(1e-12, 1e-15 * greatest / tau))


def follow(advantage: Array, log_reference: Array, tau: float, name: str) -> Array:
    """ln π of the equilibrium of one context (K,), followed from large τ down.

    Raises
    ------
    RuntimeError
        One line that begins with ``name``, if float64 loses the path.
    """
    # From here on the map to the best answer is a contraction.
    now = max(tau, 2 * float(np.abs(advantage).max()))
    start = _newton(advantage, log_reference, now, log_reference)
    if start is None:
        raise RuntimeError(f"{name}: expected one that float64 can solve for, got {now:g}")
    found, pace = start, 0.5
    while now > tau:
        following = max(tau, now * (1 - pace))
        attempt = _newton(advantage, log_reference, following, found)
        if attempt is None:
            pace /= 2
            if pace < LEAST_PACE:
                raise RuntimeError(
                    f"{name}: expected one that float64 can solve for, got {tau:g} (the path was "
                    f"lost at {now:.3g})"
                )
            continue
        found, now, pace = attempt, following, min(0.9, 1.5 * pace)
    return found


def _newton(advantage: Array, log_reference: Array, tau: float, start: Array) -> Array | None:
    """Newton's method for ln π = ln π_ref + Aπ/τ up to a constant; None if it gets lost."""
    log_policy, last, identity = start, np.inf, np.eye(len(start))
    for _ in range(MOST_NEWTON_STEPS):
        policy = np.exp(log_policy)
        with np.errstate(over="ignore", invalid="ignore"):
            residual = log_policy - log_softmax(log_reference + advantage @ policy / tau)
            # π moves by π (u − E_π[u]) where ln π moves by u.
            jacobian = identity - (advantage * policy) @ (identity - policy) / tau
            try:
                log_policy = log_softmax(log_policy - np.linalg.solve(jacobian, residual))
            except np.linalg.LinAlgError:  # what stands beside 1/τ is lost in rounding
                return None
        # Arms all but extinct move by many nats and nowhere.
        size = float(np.abs(np.exp(log_policy) - policy).max())
        if not np.isfinite(size):
            return None
        if size < 1e-15 or (size < 1e-9 and size >= last / 2):
            return log_policy
        last = size
    return None
