"""Who is compared with whom: the joint distribution ν(y, y') of the two arms of a pair.

Letters: ``X`` contexts (optional), ``K`` arms. A :class:`Pairs` is accepted wherever a dense array
ν of shape ([X,] K, K) is, and is made dense only on demand, so that independent pairs of a million
arms cost two vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from bandit import _checks
from bandit._checks import Array

Components = tuple[tuple[int, ...], ...]


class Pairs:
    """A distribution over ordered pairs of arms; make one with :func:`independent` or
    :func:`from_counts`.

    Attributes
    ----------
    first, second : ndarray ([X,] K)
        Marginal distribution of each arm of the pair.
    joint : ndarray ([X,] K, K), sparse (K, K) or None
        ν itself; None when the arms are independent, ν = first secondᵀ.
    """

    def __init__(self, first: Array, second: Array, joint: Any = None) -> None:
        self.first, self.second, self.joint = first, second, joint

    @property
    def shape(self) -> tuple[int, ...]:
        """([X,] K, K), the shape of the dense array."""
        return (*self.first.shape, self.first.shape[-1])

    @property
    def n_arms(self) -> int:
        """K."""
        return self.first.shape[-1]

    @property
    def is_independent(self) -> bool:
        """True if ν is the product of its marginals by construction."""
        return self.joint is None

    @property
    def is_symmetric_product(self) -> bool:
        """True if both arms are drawn independently from the same distribution."""
        return self.joint is None and self.first is self.second

    @property
    def exposure(self) -> Array:
        """Expected number of times each arm appears in a pair, ([X,] K)."""
        return self.first + self.second

    def dense(self) -> Array:
        """ν as an array ([X,] K, K): K² numbers, made anew at each call."""
        if self.joint is None:
            return self.first[..., :, None] * self.second[..., None, :]
        return self.joint.toarray() if sparse.issparse(self.joint) else self.joint.copy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.dense() if dtype is None else self.dense().astype(dtype)

    def probability(self, i: Any, j: Any) -> Array:
        """ν(i, j) for index arrays of arms, (..., N)."""
        if self.joint is None:
            return self.first[..., i] * self.second[..., j]
        if sparse.issparse(self.joint):
            return np.asarray(self.joint[i, j]).ravel()
        return self.joint[..., i, j]

    def __repr__(self) -> str:
        kind = "independent" if self.is_independent else "joint"
        contexts = "" if self.first.ndim == 1 else f"{self.first.shape[0]} contexts, "
        return f"Pairs({kind}, {contexts}{self.n_arms} arms)"


def independent(mu: ArrayLike, other: ArrayLike | None = None) -> Pairs:
    """Pairs of two independent arms: y ~ ``mu`` and y' ~ ``other`` (default: the same).

    Parameters
    ----------
    mu, other : array_like (K,) or (X, K)
        Non-negative, rows summing to 1.
    """
    first = _checks.read_only(_checks.distribution("mu", mu))
    if first.ndim > 2:
        raise ValueError(f"mu: expected shape (K,) or (X, K), got {first.shape}")
    if other is None:
        return Pairs(first, first)
    second = _checks.read_only(_checks.distribution("other", other))
    if second.shape != first.shape:
        raise ValueError(f"other: expected shape {first.shape} like mu, got {second.shape}")
    return Pairs(first, second)


def from_counts(counts: Any) -> Pairs:
    """Pairs in the proportions of ``counts[y, y']``, how often y stood first against y'.

    Parameters
    ----------
    counts : array_like ([X,] K, K), or a scipy sparse matrix (K, K)
        Non-negative, with at least one comparison (in every context). A sparse matrix stays sparse.
    """
    if sparse.issparse(counts):
        table = sparse.csr_array(counts).astype(np.float64)
        table.eliminate_zeros()
        values = table.data
        if table.shape[0] != table.shape[1]:
            raise ValueError(f"counts: expected shape (K, K), got {table.shape}")
    else:
        table = values = _checks.finite_array("counts", counts)
        if table.ndim not in (2, 3) or table.shape[-1] != table.shape[-2]:
            raise ValueError(f"counts: expected shape (K, K) or (X, K, K), got {table.shape}")
    if values.size and not values.min() >= 0:
        raise ValueError(f"counts: expected counts of at least 0, got {values.min():g}")
    if sparse.issparse(table):
        _checks.finite_array("counts", values)
        total = values.sum()
        if not total > 0:
            raise ValueError("counts: expected at least one comparison, got none")
        return _joint(table * (1 / total))
    total = table.sum(axis=(-2, -1), keepdims=True)
    if not (total > 0).all():
        raise ValueError("counts: expected at least one comparison, got none")
    return _joint(table / total)


def _joint(nu: Any) -> Pairs:
    first, second = np.asarray(nu.sum(axis=-1)), np.asarray(nu.sum(axis=-2))
    return Pairs(first, second, nu)


def as_pairs(pairs: Any, shape: tuple[int, ...]) -> Pairs:
    """``pairs``, or a dense ν, as :class:`Pairs` for arms of ``shape`` ([X,] K)."""
    if not isinstance(pairs, Pairs):
        if not sparse.issparse(pairs):
            nu = _checks.real_array("pairs", pairs)
            if nu.ndim < 2 or nu.shape[-1] != nu.shape[-2]:
                raise ValueError(
                    "pairs: expected bandit.pairs.independent(mu) or an array (..., K, K), "
                    f"got shape {nu.shape}"
                )
            pairs = _joint(_checks.distribution("pairs", nu, axes=2))
        else:
            if abs(pairs.sum() - 1) > _checks.SUM_TOLERANCE:
                raise ValueError(
                    f"pairs: expected probabilities that sum to 1, got {pairs.sum():.10g}"
                )
            pairs = from_counts(pairs)
    if pairs.first.shape not in (shape, shape[-1:]):
        allowed = " or ".join(str((*s, s[-1])) for s in {shape[-1:]: 0, shape: 0})
        raise ValueError(f"pairs: expected shape {allowed}, got {pairs.shape}")
    return pairs


def components(pairs: Any) -> Components | tuple[Components, ...]:
    """Connected components of the comparison graph, where y—y' are joined if they can be compared.

    Parameters
    ----------
    pairs : Pairs, array_like ([X,] K, K) or scipy sparse matrix (K, K)

    Returns
    -------
    tuple of tuples of arms
        Arms in ascending order, components by their first arm; an arm that is never compared with
        another stands alone. With contexts: one such tuple per context.
    """
    if not isinstance(pairs, Pairs):
        nu = pairs if sparse.issparse(pairs) else _checks.real_array("pairs", pairs)
        if nu.ndim not in (2, 3):
            raise ValueError(f"pairs: expected shape (K, K) or (X, K, K), got {nu.shape}")
        pairs = as_pairs(nu, nu.shape[:-1])
    if pairs.first.ndim == 1:
        return _components_of(pairs.joint, pairs.first, pairs.second)
    return tuple(
        _components_of(None if pairs.joint is None else pairs.joint[x], first, second)
        for x, (first, second) in enumerate(zip(pairs.first, pairs.second, strict=True))
    )


def _components_of(joint: Any, first: Array, second: Array) -> Components:
    if joint is None:
        # Every arm of one support meets every arm of the other: one component, and loners.
        together = (first > 0) | (second > 0)
        labels = np.where(together, 0, np.arange(1, first.size + 1))
    else:
        from scipy.sparse.csgraph import connected_components  # slow to import

        labels = connected_components(sparse.csr_array(joint > 0), directed=False)[1]
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    parts = [tuple(part.tolist()) for part in np.split(order, cuts)]
    return tuple(sorted(parts))
