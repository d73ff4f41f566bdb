r"""The KL-regularized bandit and its closed form.

Letters: ``X`` contexts (an optional axis), ``K`` arms (always last), ``...`` any leading axes.
Rewards are in units of reward, as is the regularization strength β; KL divergences are in nats.

.. math::
    J(\pi) = \mathbb{E}_x\Bigl[\sum_y \pi(y) r(y) - \beta\,\mathrm{KL}(\pi\|\pi_\text{ref})\Bigr],
    \qquad \pi^* = \frac{\pi_\text{ref}\, e^{r/\beta}}{Z}, \qquad
    J(\pi^*) - J(\pi) = \beta\,\mathrm{KL}(\pi\|\pi^*) .
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from bandit import _checks, arrays
from bandit._checks import Array


def log_softmax(logits: Any) -> Any:
    """ln of the softmax over the last axis, exact for differences of any size."""
    xp = arrays.namespace(logits)
    if xp is np:
        logits = np.asarray(logits, dtype=np.float64)
    shifted = logits - xp.max(logits, axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))


def kl_divergence(log_p: Any, log_q: Any) -> Any:
    r"""KL(p‖q) over the last axis, in nats, from log-probabilities; 0 ln 0 = 0.

    Summed as Σ p ln(p/q) − p + q, whose terms are all non-negative, so that divergences far below
    the rounding of ln p keep their digits and none comes out negative.
    """
    xp = arrays.namespace(log_p)
    p, q = xp.exp(log_p), xp.exp(log_q)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = log_p - log_q
        near = p * (distance + xp.expm1(-distance))
        far = xp.where(p > 0, p * distance, 0.0) - p + q
    return xp.sum(xp.where(xp.abs(distance) < 1, near, far), axis=-1)


def check_problem(problem: Any) -> None:
    """Raise unless it is a :class:`Bandit`."""
    if not isinstance(problem, Bandit):
        raise TypeError(f"problem: expected a bandit.Bandit, got {type(problem).__name__}")


class Bandit:
    r"""A tabular bandit with a KL penalty towards a reference policy.

    Parameters
    ----------
    reward : array_like (K,) or (X, K)
        r(x, y): any finite numbers.
    beta : float
        β > 0, the regularization strength, in units of reward; r/β has to fit into float64.
    reference : array_like (K,) or (X, K), optional
        π_ref, all entries above 0, rows summing to 1 (within 1e-8; float32 numbers within 2e-4, and
        are divided by their sum). Default: uniform.
    context_weights : array_like (X,), optional
        ρ(x), summing to 1. Default: uniform. Only for a problem with contexts.

    Attributes
    ----------
    reward, reference : ndarray (K,) or (X, K)
        As given, float64 and read-only; a reference or reward shared by all contexts is repeated.
    beta : float
    context_weights : ndarray (X,) or None
    n_arms : int
    n_contexts : int or None
        None for a problem without a context axis.

    Raises
    ------
    ValueError, TypeError
        One line with the argument's name, what was expected and what came.

    Examples
    --------
    >>> problem = Bandit([2.5, 2.0, 1.0], beta=0.5)
    >>> problem.optimal_policy().round(4).tolist()
    [0.7054, 0.2595, 0.0351]
    >>> round(float(problem.regret(problem.reference)), 4)
    0.2919
    """

    def __init__(
        self,
        reward: ArrayLike,
        beta: float,
        reference: ArrayLike | None = None,
        context_weights: ArrayLike | None = None,
    ) -> None:
        reward = _checks.finite_array("reward", reward)
        if reward.ndim not in (1, 2) or reward.size == 0:
            raise ValueError(f"reward: expected shape (K,) or (X, K), got {reward.shape}")
        arms = reward.shape[-1]
        if reference is None:
            reference = np.full(reward.shape, 1.0 / arms)
        reference = _checks.distribution("reference", reference, strictly_positive=True)
        shape = reward.shape if reward.ndim >= reference.ndim else reference.shape
        for name, array in (("reward", reward), ("reference", reference)):
            if array.ndim not in (1, 2) or array.shape != shape[-array.ndim :]:
                allowed = " or ".join(str(s) for s in dict.fromkeys((shape, shape[-1:])))
                raise ValueError(
                    f"{name}: expected shape {allowed} like the reward, got {array.shape}"
                )
        self.reward = _checks.read_only(np.broadcast_to(reward, shape))
        self.reference = _checks.read_only(np.broadcast_to(reference, shape))
        self.beta = _checks.positive_number("beta", beta)
        largest = float(np.abs(self.reward).max())
        if not np.isfinite(2 * largest / self.beta):
            raise ValueError(
                "beta: expected differences of rewards over beta to fit into float64, got "
                f"beta = {self.beta:g} and a reward of size {largest:g}"
            )
        self.n_arms: int = arms
        self.n_contexts: int | None = shape[0] if len(shape) == 2 else None
        self.context_weights = self._weights(context_weights)
        self.log_reference = _checks.read_only(np.log(self.reference))

    def _weights(self, given: ArrayLike | None) -> Array | None:
        if self.n_contexts is None:
            if given is not None:
                raise ValueError(
                    "context_weights: expected None for a reward without contexts, got an array"
                )
            return None
        if given is None:
            return _checks.read_only(np.full(self.n_contexts, 1.0 / self.n_contexts))
        weights = _checks.distribution("context_weights", given)
        if weights.shape != (self.n_contexts,):
            raise ValueError(
                f"context_weights: expected shape (X,) = ({self.n_contexts},), got {weights.shape}"
            )
        return _checks.read_only(weights)

    # ------------------------------------------------------------------------------ shapes

    @property
    def shape(self) -> tuple[int, ...]:
        """(K,), or (X, K) with contexts: what every policy's last axes must be."""
        return self.reward.shape

    @property
    def letters(self) -> str:
        """The shape in letters, for messages."""
        return "(..., K)" if self.n_contexts is None else "(..., X, K)"

    def check_policy(self, policy: Any, name: str = "policy") -> Any:
        """``policy`` as probabilities (..., [X,] K) of this problem, or a one-line error.

        An array of torch or JAX stays one, and only its shape is checked.
        """
        if arrays.is_foreign(policy):
            policy = _checks.foreign_numbers(name, policy)
        else:
            policy = _checks.distribution(name, policy)
        _checks.trailing_shape(name, policy, self.shape, self.letters)
        return policy

    def average(self, per_context: Any) -> Any:
        """Mean over contexts with weights ρ of an array (..., X); without contexts, as it is."""
        if not arrays.is_foreign(per_context):
            per_context = np.asarray(per_context, dtype=np.float64)
        if self.context_weights is None:
            return per_context
        weights = arrays.constant(per_context, self.context_weights)
        # What never comes up does not count, be it infinite.
        return arrays.namespace(per_context).where(weights > 0, per_context, 0.0) @ weights

    # ------------------------------------------------------------------------ closed form

    def _tilted(self) -> Array:
        return self.log_reference + self.reward / self.beta

    def log_partition(self) -> Array:
        """ln Z(x) = ln Σ_y π_ref(y) exp(r(y)/β), a number or (X,)."""
        return np.asarray(logsumexp(self._tilted(), axis=-1))

    def log_optimal_policy(self) -> Array:
        """ln π*, (K,) or (X, K): finite also where π* underflows."""
        return log_softmax(self._tilted())

    def optimal_policy(self) -> Array:
        """π* ∝ π_ref exp(r/β), (K,) or (X, K)."""
        return np.exp(self.log_optimal_policy())

    def optimal_value(self) -> float:
        """J(π*) = β E_x[ln Z(x)], in units of reward."""
        return float(self.average(self.beta * self.log_partition()))

    # -------------------------------------------------------------------- value of a policy

    # Of policies in torch or JAX what follows is computed there, and can be differentiated.

    def expected_reward(self, policy: Any) -> Any:
        """E_x E_π[r], of policies (..., [X,] K); returns (...)."""
        policy = self.check_policy(policy)
        reward = arrays.constant(policy, self.reward)
        return self.average(arrays.namespace(policy).sum(policy * reward, axis=-1))

    def kl(self, policy: Any, other: Any = None) -> Any:
        """E_x KL(policy ‖ other), in nats; ``other`` defaults to the reference.

        The one with fewer leading axes is shared along the missing ones; no axis is stretched.
        Infinite where ``policy`` uses an arm to which ``other`` gives probability 0.
        """
        policy = self.check_policy(policy)
        xp, log_other = arrays.namespace(policy), self.log_reference
        with np.errstate(divide="ignore"):
            if other is not None:
                if not arrays.is_foreign(policy):
                    other = arrays.to_numpy(other)
                other = self.check_policy(other, "other")
                shared = min(policy.ndim, other.ndim)
                if policy.shape[policy.ndim - shared :] != other.shape[other.ndim - shared :]:
                    raise ValueError(
                        f"other: expected shape {tuple(policy.shape)} like the policy "
                        f"(fewer leading axes are shared), got {tuple(other.shape)}"
                    )
                log_other = arrays.namespace(other).log(other)
            log_other = arrays.constant(policy, log_other)
            return self.average(kl_divergence(xp.log(policy), log_other))

    def kl_to_optimal(self, policy: Any) -> Any:
        """E_x KL(policy ‖ π*), in nats, finite also where π* underflows."""
        policy = self.check_policy(policy)
        with np.errstate(divide="ignore"):
            log_policy = arrays.namespace(policy).log(policy)
        log_optimal = arrays.constant(policy, self.log_optimal_policy())
        return self.average(kl_divergence(log_policy, log_optimal))

    def objective(self, policy: Any) -> Any:
        """J(policy) = E_x[E_π r − β KL(π‖π_ref)], in units of reward; returns (...)."""
        return self.expected_reward(policy) - self.beta * self.kl(policy)

    def regret(self, policy: Any) -> Any:
        """J(π*) − J(policy) = β E_x KL(policy ‖ π*) ≥ 0, in units of reward; returns (...)."""
        return self.beta * self.kl_to_optimal(policy)

    # ----------------------------------------------------------------------------- display

    def __repr__(self) -> str:
        plural = "" if self.n_contexts == 1 else "s"
        contexts = "" if self.n_contexts is None else f"{self.n_contexts} context{plural}, "
        return f"Bandit({contexts}{self.n_arms} arms, beta={self.beta:g})"

    def _repr_html_(self) -> str:
        import pandas as pd

        shown = min(self.n_arms, 12)
        first = (slice(None),) if self.n_contexts is None else (0,)
        table = pd.DataFrame(
            {
                "reward r": self.reward[first][:shown],
                "reference π_ref": self.reference[first][:shown],
                "optimal π*": self.optimal_policy()[first][:shown],
            },
            # As pictures and texts count them.
            index=pd.RangeIndex(1, shown + 1, name="arm"),
        )
        note = f"{self!r}, J(π*) = {self.optimal_value():.6g}"
        if self.n_contexts is not None:
            note += "; the first context shown"
        if shown < self.n_arms:
            note += f"; first {shown} arms shown"
        return f"<p>{note}</p>{table.to_html(float_format='{:.4g}'.format)}"
