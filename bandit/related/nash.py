r"""Nash learning from preferences: the policy that no other is preferred to, and how to reach it.

For a preference matrix P and a reference, two players face each other in

.. math:: P(\pi \succ \pi') - \tau\,\mathrm{KL}(\pi\|\pi_\text{ref})
          + \tau\,\mathrm{KL}(\pi'\|\pi_\text{ref}),
          \qquad P(\pi \succ \pi') = \sum_{y,y'} \pi(y) P(y, y') \pi'(y') .

The game has one equilibrium, the same policy for both, with :math:`\pi \propto \pi_\text{ref}
\exp(P\pi/\tau)`: the optimal policy of the bandit whose reward is how often each arm beats π. No
reward is assumed behind P, which may have cycles.

Letters: ``X`` contexts (optional), ``K`` arms, ``T`` records. Contexts are games of their own.
After arXiv:2312.00886.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bandit import _checks, preferences
from bandit._checks import Array
from bandit.descent import Progress, check_progress, record_interval, record_steps, reporter
from bandit.problem import kl_divergence, log_softmax
from bandit.related._equilibrium import against, follow, least_residual

__all__ = ["Equilibrium", "NashHistory", "equilibrium", "exploitability", "nash_md", "win_rate"]


class _Game(NamedTuple):
    """A game with the context axis; ``advantage`` is P − ½, which is antisymmetric."""

    advantage: Array  # (X, K, K)
    log_reference: Array  # (X, K)
    tau: float
    shape: tuple[int, ...]  # ([X,] K)


def _game(preference: ArrayLike, reference: ArrayLike, tau: float) -> _Game:
    reference = _checks.distribution("reference", reference, strictly_positive=True)
    matrix = _checks.finite_array("preference", preference)
    if reference.ndim == 1 and matrix.ndim == 3:
        reference = np.broadcast_to(reference, (len(matrix), reference.size))
    if reference.ndim > 2:
        raise ValueError(f"reference: expected shape (K,) or (X, K), got {reference.shape}")
    matrix = preferences.check(matrix, reference.shape)
    rows = np.atleast_2d(reference)
    return _Game(
        np.broadcast_to(matrix - 0.5, (*rows.shape, rows.shape[-1])),
        np.log(rows),
        _checks.positive_number("tau", tau),
        reference.shape,
    )


# ------------------------------------------------------------------------------ the equilibrium


@dataclasses.dataclass(frozen=True, eq=False)
class Equilibrium:
    """The equilibrium of the regularized game.

    Attributes
    ----------
    policy, log_policy : ndarray ([X,] K)
    residual : float
        Greatest difference in any probability between the policy and the best answer to it,
        π_ref exp(Pπ/τ) / Z.
    """

    policy: Array
    log_policy: Array
    residual: float


def equilibrium(preference: ArrayLike, reference: ArrayLike, tau: float) -> Equilibrium:
    r"""The policy with π ∝ π_ref exp(Pπ/τ), which is its own best answer.

    Parameters
    ----------
    preference : array_like (K, K) or (X, K, K)
        P(y ≻ y'), P + Pᵀ = 1.
    reference : array_like (K,) or (X, K)
        π_ref, all entries above 0.
    tau : float
        Regularization strength, a probability per nat.

    Returns
    -------
    Equilibrium

    Raises
    ------
    RuntimeError
        If float64 does not resolve the equilibrium to a residual of max(1e-12, 1e-15/τ), or of
        1e-6 where that is more.

    Notes
    -----
    Newton's method on the log-probabilities. It starts from large τ, where π_ref is nearly the
    solution, and follows the equilibrium down to the τ asked for in steps that shrink where it
    bends. With P − ½ antisymmetric the Jacobian's eigenvalues are 1 + iω, so the path has no folds.
    """
    game = _game(preference, reference, tau)
    games = zip(game.advantage, game.log_reference, strict=True)
    log_policy = np.stack([follow(*one, game.tau, "equilibrium: tau") for one in games])
    policy = np.exp(log_policy)
    answer = log_softmax(game.log_reference + against(game.advantage, policy) / game.tau)
    residual = float(np.abs(policy - np.exp(answer)).max())
    allowed = least_residual(1.0, game.tau)
    if not residual <= allowed:
        raise RuntimeError(
            f"equilibrium: expected a residual of at most {allowed:.1g}, got {residual:.2g} at "
            f"tau = {game.tau:g}; try a larger tau"
        )
    return Equilibrium(policy.reshape(game.shape), log_policy.reshape(game.shape), residual)


# ------------------------------------------------------------------- policies against each other


def win_rate(policy: ArrayLike, other: ArrayLike, preference: ArrayLike) -> Array:
    r"""How often what one policy says is preferred to what another says, P(π ≻ π').

    Parameters
    ----------
    policy, other : array_like (..., [X,] K)
        Leading axes are broadcast: ``win_rate(p[:, None], p, preference)`` is a table of all pairs.
    preference : array_like (K, K) or (X, K, K)
        P(y ≻ y').

    Returns
    -------
    ndarray (..., [X])
        In each context; with that of the policies exchanged it adds up to 1.
    """
    policy, other = (
        _checks.distribution(name, rows) for name, rows in (("policy", policy), ("other", other))
    )
    matrix = _matrix(preference)
    for name, rows in (("policy", policy), ("other", other)):
        _checks.trailing_shape(name, rows, matrix.shape[:-1], "([X,] K)")
    try:
        return 0.5 + (policy * against(matrix - 0.5, other)).sum(axis=-1)
    except ValueError as error:
        raise ValueError(
            f"other: expected leading axes that go with those of policy, {policy.shape}, got "
            f"{other.shape}"
        ) from error


def _matrix(preference: ArrayLike) -> Array:
    matrix = _checks.finite_array("preference", preference)
    if matrix.ndim not in (2, 3):
        raise ValueError(f"preference: expected shape (K, K) or (X, K, K), got {matrix.shape}")
    return preferences.check(matrix, matrix.shape[:-1])


def exploitability(
    policy: ArrayLike,
    preference: ArrayLike,
    *,
    reference: ArrayLike | None = None,
    tau: float | None = None,
) -> Array:
    r"""How much the best answer to a policy gains over playing the policy itself.

    Parameters
    ----------
    policy : array_like (..., [X,] K)
    preference : array_like (K, K) or (X, K, K)
        P(y ≻ y').
    reference : array_like (K,) or (X, K), optional
        π_ref, with ``tau``. Default: the game without regularization.
    tau : float, optional

    Returns
    -------
    ndarray (..., [X])
        In each context, max_π' P(π' ≻ π) − ½; with regularization τ KL(π‖π') where π' is the best
        answer, ∝ π_ref exp(Pπ/τ). At least 0, and 0 just at an equilibrium.

    Notes
    -----
    The best answer to π is the optimal policy of a :class:`bandit.Bandit` with reward Pπ and β = τ,
    and this is the regret of π in it.
    """
    policy = _checks.distribution("policy", policy)
    if (reference is None) != (tau is None):
        missing, other = ("reference", "tau") if reference is None else ("tau", "reference")
        raise ValueError(f"{missing}: expected a value with {other}, got None")
    if tau is None or reference is None:
        matrix = _matrix(preference)
        _checks.trailing_shape("policy", policy, matrix.shape[:-1], "([X,] K)")
        return np.maximum(against(matrix - 0.5, policy).max(axis=-1), 0.0)
    game = _game(preference, reference, tau)
    _checks.trailing_shape("policy", policy, game.shape, "([X,] K)")
    rows = policy if len(game.shape) == 2 else policy[..., None, :]
    answer = log_softmax(game.log_reference + against(game.advantage, rows) / game.tau)
    with np.errstate(divide="ignore"):
        gain = game.tau * kl_divergence(np.log(rows), answer)
    return gain if len(game.shape) == 2 else gain[..., 0]


# --------------------------------------------------------------------------------------- Nash-MD


@dataclasses.dataclass(frozen=True, eq=False)
class NashHistory:
    """The course of :func:`nash_md`; ``T`` records.

    Attributes
    ----------
    steps : ndarray of int (T,)
        Updates made before each record; the first record is the start, 0.
    log_policies : ndarray (T, [X,] K)
    tau : float
    interrupted : bool
        True if stopped from the keyboard; the records are those made until then.
    """

    steps: np.ndarray
    log_policies: Array
    tau: float
    interrupted: bool = False

    @property
    def policies(self) -> Array:
        """Probabilities (T, [X,] K)."""
        return np.exp(self.log_policies)

    def kl_from(self, target: Equilibrium) -> Array:
        """KL(π* ‖ π_t) from the equilibrium, in nats, (T, [X])."""
        shape = self.log_policies.shape[1:]
        if target.log_policy.shape != shape:
            raise ValueError(
                f"target: expected an equilibrium of shape {shape}, got {target.log_policy.shape}"
            )
        return kl_divergence(target.log_policy, self.log_policies)

    def bound(self) -> Array:
        """8 / (τ² (t + 1)), which KL(π*‖π_t) does not exceed at any step t; (T,)."""
        with np.errstate(divide="ignore", over="ignore"):
            return 8 / (np.square(self.tau) * (self.steps + 1))


def nash_md(
    preference: ArrayLike,
    reference: ArrayLike,
    tau: float,
    *,
    steps: int,
    record_every: int | None = None,
    progress: bool | Progress | None = None,
) -> NashHistory:
    r"""Nash-MD: mirror ascent against a mixture of the policy with the reference.

    .. math:: \pi^m_t \propto \pi_t^{1-\eta_t\tau} \pi_\text{ref}^{\eta_t\tau}, \qquad
              \pi_{t+1} \propto \pi^m_t \exp(\eta_t P \pi^m_t), \qquad
              \eta_t = \frac{2}{\tau (t+2)}

    Parameters
    ----------
    preference : array_like (K, K) or (X, K, K)
    reference : array_like (K,) or (X, K)
    tau : float
    steps : int
        Number of updates, the first from the reference (another start would be forgotten at once:
        the first mixture is the reference alone).
    record_every : int, optional
        Steps between records; the start and the last step are always recorded. Default: as many as
        give about 200 records.
    progress : bool or callable, optional
        As in :func:`bandit.train`.

    Returns
    -------
    NashHistory
        Stopped from the keyboard, the part done until then (with a warning).

    Warns
    -----
    RuntimeWarning
        On an interrupt.

    References
    ----------
    Munos et al. 2023, arXiv:2312.00886, section 6 and theorem 1; exact, nothing is sampled.
    """
    game = _game(preference, reference, tau)
    check_progress(progress)
    recorded = record_steps(steps, record_interval(record_every, steps))
    log_policy = game.log_reference
    records, interrupted = [log_policy], False
    with reporter(progress, steps) as report:
        try:
            for t in range(steps):
                log_policy = _improved(game, log_policy, 2 / (t + 2))
                if t + 1 == recorded[len(records)]:
                    records.append(log_policy)
                    report(t + 1, steps)
        except KeyboardInterrupt:
            interrupted = True
            warnings.warn(
                f"nash_md: interrupted; records until step {recorded[len(records) - 1]} of {steps} "
                "are returned",
                RuntimeWarning,
                stacklevel=2,
            )
    course = np.stack(records).reshape(-1, *game.shape)
    return NashHistory(recorded[: len(records)], course, game.tau, interrupted)


def _improved(game: _Game, log_policy: Array, share: float) -> Array:
    """One step; ``share`` is ητ, the share of the reference in the mixture."""
    mixture = log_softmax((1 - share) * log_policy + share * game.log_reference)
    gain = against(game.advantage, np.exp(mixture))
    return log_softmax(mixture + share / game.tau * gain)
