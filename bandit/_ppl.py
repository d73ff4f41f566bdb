"""Pessimistic policy learning over a class of deterministic policies; see :mod:`bandit.pessimism`.

Letters: ``X`` contexts, ``K`` arms, T rows, ``M`` policies.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bandit import _checks, ope
from bandit._checks import Array
from bandit.data.counts import Counts
from bandit.data.log import Data, counts_of

MOST_POLICIES = 1_000_000
BLOCK = 65_536


@dataclass(frozen=True, eq=False)
class Pessimistic:
    """The policy of a class with the highest Q̂ − c V.

    Attributes
    ----------
    policy : ndarray (X, K)
        Deterministic: zeros and ones.
    arms : ndarray of int (X,)
        The arm chosen in each context.
    value : float
        Q̂, the AIPW estimate, in units of reward.
    penalty : float
        V, the largest of ``terms``.
    terms : tuple of float
        V_s, V_p and V_h.
    objective : float
        Q̂ − c V.
    n_policies : int
        How many were compared: all of the class.
    """

    policy: Array
    arms: NDArray[np.int64]
    value: float
    penalty: float
    terms: tuple[float, float, float]
    objective: float
    n_policies: int


class _Candidate(NamedTuple):
    """A policy of the class, with its Q̂, the three terms and Q̂ − c V."""

    arms: NDArray[np.int64]
    value: float
    terms: Array
    objective: float


def pessimistic_policy(
    data: Data,
    policies: ArrayLike | None = None,
    *,
    c: float,
    behavior: ArrayLike | None = None,
    shrinkage: float | str = "auto",
    model: ArrayLike | None = None,
) -> Pessimistic:
    r"""Pessimistic policy learning: the deterministic policy with the greatest Q̂(π) − c V(π).

    Q̂ is the AIPW estimate and V = max(V_s, V_p, V_h) the generalized empirical Bernstein terms

    .. math::
        V_s = \frac1T \Bigl(\sum_t \frac{1\{A_t = \pi(X_t)\}}{e_t^2}\Bigr)^{1/2}, \quad
        V_p = \frac1T \Bigl(\sum_t \frac{1}{e(\pi(X_t)|X_t)}\Bigr)^{1/2}, \quad
        V_h = \frac1T \Bigl(\sum_t \frac{1}{e(\pi(X_t)|X_t)^3}\Bigr)^{1/4}

    with e_t the propensity of row t. How good the policy found is depends on how well the *best*
    policy of the class is covered by the log, not on the worst covered one.

    Parameters
    ----------
    data : Log or Counts
        With propensities.
    policies : array_like of int (M, X), optional
        The class: an arm's code for each context. Default: every deterministic policy, listed if
        the arms with rows allow at most a million of them.
    c : float
        At least 0; 0 is greedy. The weight of V, in units of reward.
    behavior : array_like (K,) or (X, K), optional
        e(y|x) of all cells. Default: the harmonic mean of a cell's propensities, and of cells
        without rows nothing: policies that use them are left out.
    shrinkage, model
        Of q in Q̂, as for :func:`bandit.ope.doubly_robust`. ``model=np.zeros(K)`` makes Q̂ the IPW
        estimate.

    Returns
    -------
    Pessimistic
        Of policies that tie, the first in the class (or in lexicographic order).

    Raises
    ------
    ValueError, TypeError
        If the log has no propensities, the class does not fit it, or every policy is left out.

    Notes
    -----
    V is a root of a sum over contexts, so contexts cannot be decided one by one: the class is
    enumerated. Only with one context is it a choice among arms.

    References
    ----------
    Jin, Ren, Yang and Wang, "Policy learning 'without' overlap", arXiv:2212.09900.
    """
    counts = counts_of(data)
    if counts.inverse is None:
        raise ValueError("data: expected propensities, got a log without")
    c = _checks.not_negative("c", c)
    known, propensity = _propensities(counts, behavior)
    q, terms = _cell_terms(counts, propensity, shrinkage, model)
    chosen: _Candidate | None = None
    compared = 0
    for arms in _listed(policies, counts, known):
        arms = arms[known[np.arange(counts.n_contexts), arms].all(axis=-1)]
        if not len(arms):
            continue
        compared += len(arms)
        value, roots = _value_and_terms(q, terms, arms)
        penalties = roots / len(counts)
        objective = value - c * penalties.max(axis=-1)
        at = int(np.argmax(objective))
        if chosen is None or objective[at] > chosen.objective:
            chosen = _Candidate(arms[at], float(value[at]), penalties[at], float(objective[at]))
    if chosen is None:
        raise ValueError("policies: expected one whose propensities are known, got none")
    v_s, v_p, v_h = chosen.terms.tolist()
    return Pessimistic(
        policy=np.eye(counts.n_arms)[chosen.arms],
        arms=chosen.arms,
        value=chosen.value,
        penalty=max(v_s, v_p, v_h),
        terms=(v_s, v_p, v_h),
        objective=chosen.objective,
        n_policies=compared,
    )


def _propensities(counts: Counts, behavior: Any) -> tuple[NDArray[np.bool_], Array]:
    """Which cells' propensities are known (contexts never met need none), and what they are."""
    assert counts.inverse is not None
    met = counts.n.sum(axis=1, keepdims=True) > 0
    if behavior is not None:
        table = _checks.finite_array("behavior", behavior)
        table = _checks.per_cell("behavior", table, counts.shape)
        _checks.refuse("behavior", table, (table < 0) | (table > 1), "probabilities")
        known = table > 0
        logged = counts.n > 0
        _checks.refuse("behavior", table, ~known & logged, "above 0 for every arm that was logged")
    else:
        known = counts.n > 0
        table = counts.n / np.where(known, counts.inverse, 1.0)
    return known | ~met, np.where(known, table, 1.0)


def _cell_terms(
    counts: Counts, propensity: Array, shrinkage: float | str, model: Any
) -> tuple[Array, Array]:
    """Each cell's share of Q̂, (X, K), and of the sums in the three terms, (3, X, K)."""
    assert counts.inverse is not None
    assert counts.inverse_reward is not None
    assert counts.inverse2 is not None
    if model is None:
        q = ope.cell_means(counts, shrinkage)
    else:
        q = _checks.per_cell("model", _checks.finite_array("model", model), counts.shape)
    rows, met = len(counts), counts.n.sum(axis=1, keepdims=True)
    share = (met * q + counts.inverse_reward - q * counts.inverse) / rows
    return share, np.stack([counts.inverse2, met / propensity, met / propensity**3])


def _value_and_terms(q: Array, terms: Array, arms: Any) -> tuple[Array, Array]:
    """Q̂ (M,), and T times V_s, V_p, V_h (M, 3), of policies (M, X)."""
    contexts = np.arange(q.shape[0])
    sums = terms[:, contexts, arms].sum(axis=-1)  # (3, M)
    roots = [np.sqrt(sums[0]), np.sqrt(sums[1]), sums[2] ** 0.25]
    return q[contexts, arms].sum(axis=-1), np.stack(roots, axis=-1)


def _listed(policies: Any, counts: Counts, known: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """The class in blocks of arms (M, X)."""
    contexts, n_arms = counts.shape
    if policies is not None:
        arms = np.asarray(policies)
        if arms.dtype.kind not in "iu":
            raise TypeError(f"policies: expected integer codes of arms, got {arms.dtype}")
        if arms.ndim != 2 or arms.shape[1] != contexts or not len(arms):
            raise ValueError(f"policies: expected shape (M, X) = (M, {contexts}), got {arms.shape}")
        strange = (arms < 0) | (arms >= n_arms)
        _checks.refuse("policies", arms, strange, f"codes from 0 to {n_arms - 1}")
        yield arms.astype(np.int64)
        return
    met = counts.n.sum(axis=1) > 0
    # Where no row ever was, one arm is as good as another.
    choices = [
        np.flatnonzero(row) if m else np.zeros(1, int) for row, m in zip(known, met, strict=True)
    ]
    how_many = float(np.prod([float(len(choice)) for choice in choices]))
    if how_many > MOST_POLICIES:
        raise ValueError(
            f"policies: expected a class (M, X), as there are {how_many:.3g} deterministic "
            f"policies and at most {MOST_POLICIES} are listed"
        )
    listing = itertools.product(*(choice.tolist() for choice in choices))
    while block := list(itertools.islice(listing, BLOCK)):
        yield np.array(block, dtype=np.int64)
