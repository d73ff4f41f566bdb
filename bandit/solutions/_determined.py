"""What the data determine, and what they cannot.

Letters: ``X`` contexts, ``K`` arms, ``d`` parameters of a log-linear policy. A contrastive loss
sees only ratios inside each component of the comparison graph; no loss sees a shift of all logits.
Messages count arms and contexts from 0, as arrays do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bandit._checks import Array
from bandit.groups import Setting
from bandit.pairs import Components, Pairs, components
from bandit.problem import log_softmax

# Pictures number the arms from 1: messages say what they do.
COUNTED = "(counted from 0)"

# ------------------------------------------------------------------------- the comparison graph


def comparison_graph(where: Setting) -> tuple[Components, ...]:
    """The components of every context, also where all contexts share the pairs."""
    pairs, contexts = where.pairs, len(where.reward)
    if sparse.issparse(pairs.joint):
        pairs = Pairs(pairs.first[0], pairs.second[0], pairs.joint)
    found: Any = components(pairs)
    graph = found if pairs.first.ndim > 1 else (found,)
    return graph if len(graph) == contexts else graph * contexts


def one_component(where: Setting) -> tuple[Components, ...]:
    """The graph of a loss that compares every arm with every other, whatever the pairs are."""
    contexts, arms = where.reward.shape
    return ((tuple(range(arms)),),) * contexts


def disconnected(graph: tuple[Components, ...]) -> str:
    """Whether the pairs leave a comparison graph in pieces, in a sentence."""
    for x, parts in enumerate(graph):
        if len(parts) > 1:
            named = ", ".join(map(listed, parts[:6]))
            more = f" and {len(parts) - 6} more" if len(parts) > 6 else ""
            return (
                f"the comparison graph has {len(parts)} components{in_context(x, len(graph))}, "
                f"arms {named}{more} {COUNTED}: only ratios inside each are determined"
            )
    return ""


def listed(arms: Sequence[int]) -> str:
    """Arms as a set, the first eight of them."""
    return "{" + ", ".join(map(str, arms[:8])) + (", …" if len(arms) > 8 else "") + "}"


def in_context(x: int, contexts: int) -> str:
    """Where, for a message; nothing if there is one context only."""
    return f" in context {x}" if contexts > 1 else ""


# ------------------------------------------------------------------- what nothing determines


def invisible_shifts(graph: tuple[Components, ...], arms: int, contrastive: bool) -> Array:
    """Projectors (X, K, K) on the shifts of logits that change nothing: of all arms together, and
    for a contrastive loss of each component of the comparison graph."""
    if not contrastive:
        return np.full((1, arms, arms), 1.0 / arms)
    projectors = np.zeros((len(graph), arms, arms))
    for x, parts in enumerate(graph):
        for part in parts:
            projectors[x][np.ix_(part, part)] = 1.0 / len(part)
    return projectors


def invisible_parameters(
    features: Array, graph: tuple[Components, ...], rho: Array
) -> tuple[Array, int]:
    """Projector (d, d) on the θ that change no ratio inside any component, and the rank left."""
    rows = []
    for x, parts in enumerate(graph):
        for part in parts:
            if rho[x] > 0:
                mine = features[x][list(part)]
                rows.append(mine - mine.mean(axis=0))
    # What follows needs no left factors, which would be as many numbers as rows squared.
    triangle = np.linalg.qr(np.concatenate(rows), mode="r")
    _, singular, right = np.linalg.svd(triangle, full_matrices=True)
    rank = int((singular > 1e-12 * max(singular.max(), 1e-300)).sum())
    return right[rank:].T @ right[rank:], rank


def balance(graph: tuple[Components, ...], exposure: Array) -> Array:
    """Matrices (X, K, K) that take the gradient of each component's commonest arm from the others'.

    What a contrastive loss pulls up in a component it pulls down there. Beside an arm that is drawn
    nearly always, the entries of rare ones are sound to the last digit, and its own is not.
    """
    contexts, arms = exposure.shape
    result = np.tile(np.eye(arms), (contexts, 1, 1))
    for x, parts in enumerate(graph):
        for part in parts:
            members = np.array(part)
            commonest = members[exposure[x, members].argmax()]
            result[x, commonest, members] = -1.0
            result[x, commonest, commonest] = 0.0
    return result


def anchored(theta: Array, where: Setting, graph: tuple[Components, ...]) -> Array:
    """Logits whose components have the reference's mass: the data say nothing about it."""
    logits = theta.copy()
    for x, parts in enumerate(graph):
        if len(parts) == 1:
            continue
        for part in parts:
            arms = list(part)
            mass = np.exp(where.log_reference[x, arms]).sum()
            logits[x, arms] = log_softmax(theta[x, arms]) + np.log(mass)
    return logits


# ------------------------------------------------------------- how firm a stationary point is


def undetermined(
    jacobian: Array, gauge: Array, unseen: NDArray[np.bool_], least: float = 1e-9
) -> NDArray[np.bool_]:
    """Where the Jacobian (X, K, K) is singular beyond its gauge (to ``least``), or not finite.

    The row and the column of an arm that is never drawn, ``unseen`` (X, K), may be nothing but
    rounding, which must not be blown up.
    """
    finite = np.atleast_1d(np.isfinite(jacobian).all(axis=(-2, -1)))
    jacobian = np.where(finite[:, None, None], jacobian, 0.0)
    # An arm of tiny probability has a small row and a small column: that alone says nothing.
    matrix = _even(jacobian, axis=-2, rounding=unseen[:, None, :])
    matrix = _even(_even(matrix, axis=-1, rounding=unseen[:, :, None]) + gauge, axis=-1)
    singular = np.linalg.svd(matrix, compute_uv=False)
    return ~finite | (singular[..., -1] < least * singular[..., 0])


def _even(matrix: Array, axis: int, rounding: Any = False) -> Array:
    """Rows (axis −1) or columns (axis −2) brought to greatest entry 1; not those of ``rounding``
    that are below 1e-9 times the greatest of all."""
    scale = np.abs(matrix).max(axis=axis, keepdims=True)
    least = 1e-9 * np.abs(matrix).max(axis=(-2, -1), keepdims=True)
    return matrix / np.where((scale > 0) & ~(rounding & (scale < least)), scale, 1.0)


def smooth(field: Callable[[Array], Array], theta: Array, jacobian: Array) -> bool:
    """Whether the Jacobian describes the field close by: beside a clipped region it does not."""
    directions = np.random.default_rng(0).normal(size=(8, *theta.shape))
    directions -= directions.mean(axis=-1, keepdims=True)
    h = 1e-6
    change = (field(theta + h * directions) - field(theta - h * directions)) / (2 * h)
    expected = np.einsum("xij,dxj->dxi", jacobian, directions)
    scale = np.abs(jacobian).max(axis=-1)
    scale = np.where(scale > 0, scale, 1.0)
    noise = 1e-9 * np.abs(jacobian).max() / h * 1e-6
    return bool((np.abs(change - expected) <= 1e-3 * scale + noise).all())
