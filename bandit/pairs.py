"""Who is compared with whom: the joint distribution ν(y, y') of the two arms of a pair.

Letters: ``X`` contexts (optional), ``K`` arms, ``n`` rows of a log. A :class:`Pairs` is accepted
wherever a dense array ν of shape ([X,] K, K) is, and is made dense only on demand, so that
independent pairs of a million arms cost two vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
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
    behavior : ndarray ([X,] K) or None
        What losses with importance weights are told of the probability of each arm, where that is
        not the marginal distribution: the propensities of a log.
    """

    def __init__(
        self, first: Array, second: Array, joint: Any = None, behavior: Array | None = None
    ) -> None:
        self.first, self.second, self.joint, self.behavior = first, second, joint, behavior

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
    def told(self) -> tuple[Array, Array]:
        """The probability of either arm as importance weights see it, each ([X,] K)."""
        if self.behavior is not None:
            return self.behavior, self.behavior
        return self.first, self.second

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


def independent(
    mu: ArrayLike, other: ArrayLike | None = None, *, behavior: ArrayLike | None = None
) -> Pairs:
    """Pairs of two independent arms: y ~ ``mu`` and y' ~ ``other`` (default: the same).

    Parameters
    ----------
    mu, other : array_like (K,) or (X, K)
        Non-negative, rows summing to 1 (within 1e-8; float32 numbers within 2e-4, and are divided
        by their sum).
    behavior : array_like like mu, optional
        What losses with importance weights are told of the probability of each arm; above 0, and
        need not sum to 1. Default: the truth, ``mu`` and ``other``.
    """
    first = _checks.read_only(_checks.distribution("mu", mu))
    if first.ndim > 2:
        raise ValueError(f"mu: expected shape (K,) or (X, K), got {first.shape}")
    told = None if behavior is None else _told("behavior", behavior, first.shape)
    if other is None:
        return Pairs(first, first, None, told)
    second = _checks.read_only(_checks.distribution("other", other))
    if second.shape != first.shape:
        raise ValueError(f"other: expected shape {first.shape} like mu, got {second.shape}")
    return Pairs(first, second, None, told)


def _told(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Array:
    told = _checks.read_only(_checks.finite_array(name, values))
    if told.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {told.shape}")
    if not (told > 0).all():
        raise ValueError(f"{name}: expected numbers above 0, got {told.min():g}")
    return told


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


class LoggedPairs(Pairs):
    """Pairs of rows of a log, each with its own reward; make them with :func:`from_rows`.

    As a distribution ν it is that of the arms of a pair. :func:`bandit.train` draws the rows
    themselves.

    Attributes
    ----------
    places : ndarray (n,)
        x·K + y of every row; rows of a context stand together, or both of a pair.
    rewards : ndarray (n,)
    log_propensities : ndarray (n,) or None
    starts, sizes : ndarray (X,), or None for consecutive rows
        Where the rows of a context begin, and how many there are.
    """

    def __init__(
        self,
        nu: Pairs,
        places: NDArray[np.int64],
        rewards: Array,
        log_propensities: Array | None,
        blocks: tuple[NDArray[np.int64], NDArray[np.int64]] | None,
    ) -> None:
        super().__init__(nu.first, nu.second, nu.joint, nu.behavior)
        self.places, self.rewards, self.log_propensities = places, rewards, log_propensities
        self.starts = None if blocks is None else blocks[0]
        self.sizes = None if blocks is None else blocks[1]

    def __repr__(self) -> str:
        contexts, arms = self.first.shape
        return f"LoggedPairs({self.places.size} rows, {contexts} contexts, {arms} arms)"


def from_rows(
    contexts: ArrayLike,
    arms: ArrayLike,
    rewards: ArrayLike,
    shape: tuple[int, int],
    *,
    propensities: ArrayLike | None = None,
    consecutive: bool = False,
) -> LoggedPairs:
    """Pairs of rows of a log within a context, for training on its own noisy rewards.

    Parameters
    ----------
    contexts, arms : array_like (n,) of integers
        Codes from 0.
    rewards : array_like (n,)
        In units of reward.
    shape : (int, int)
        (X, K).
    propensities : array_like (n,), optional
        Above 0; what losses with importance weights are told. Default: the shares of the arms.
    consecutive : bool
        Rows 2i and 2i + 1, of the same context, are the pairs. Else any two rows of a context are,
        drawn independently (and so sometimes a row with itself, of which nothing is learned).

    Raises
    ------
    ValueError
        If lengths or codes do not fit, or consecutive rows are not of one context.

    Notes
    -----
    A preference label drawn for a pair is 1 if its first row has the higher reward, ½ on a tie.
    ``consecutive`` keeps a table of X·K² numbers.
    """
    x, y = np.asarray(contexts, dtype=np.int64), np.asarray(arms, dtype=np.int64)
    reward, (n_contexts, n_arms) = _checks.finite_array("rewards", rewards), shape
    for name, codes, most in (("contexts", x, n_contexts), ("arms", y, n_arms)):
        if codes.shape != reward.shape or reward.ndim != 1 or not reward.size:
            raise ValueError(f"{name}: expected shape (n,) like rewards, got {codes.shape}")
        strange = (codes < 0) | (codes >= most)
        _checks.refuse(name, codes, strange, f"codes from 0 to {most - 1}")
    log_p = None
    if propensities is not None:
        log_p = np.log(_told("propensities", propensities, reward.shape))
    places = x * n_arms + y
    counts = np.bincount(places, minlength=n_contexts * n_arms).reshape(shape).astype(np.float64)
    if consecutive:
        if len(x) % 2 or (x[::2] != x[1::2]).any():
            raise ValueError("contexts: expected consecutive rows in pairs of one context")
        code = places[::2] * n_arms + y[1::2]
        table = np.bincount(code, minlength=counts.size * n_arms).astype(np.float64)
        # Contexts without pairs are never drawn; there any distribution serves.
        nu = from_counts(_or_ones(table.reshape(*shape, n_arms), axes=2))
        return LoggedPairs(nu, places, reward, log_p, None)
    order = np.argsort(x, kind="stable")
    sizes = np.bincount(x, minlength=n_contexts)
    blocks = (np.cumsum(sizes) - sizes, sizes)
    rows = _or_ones(counts, axes=1)
    mu = _checks.read_only(rows / rows.sum(axis=-1, keepdims=True))
    log_p = None if log_p is None else log_p[order]
    return LoggedPairs(Pairs(mu, mu), places[order], reward[order], log_p, blocks)


def _or_ones(counts: Array, axes: int) -> Array:
    none = counts.sum(axis=tuple(range(-axes, 0)), keepdims=True) == 0
    return np.where(none, 1.0, counts)


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
            pairs = _joint(_checks.distribution("pairs", pairs, axes=2))
        else:
            if abs(pairs.sum(dtype=np.float64) - 1) > _checks.sum_tolerance(pairs):
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
