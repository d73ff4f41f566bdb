"""The contract between an objective and everything that calls one: what it sees, what it returns,
what may be relied on, and how it is registered and checked. The objectives are in
:mod:`bandit.losses`, which also explains the notation."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from numbers import Real
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from bandit._checks import shown

Loss = Callable[..., "Score"]


class Group(NamedTuple):
    """``G`` completions of one prompt, the group axis last.

    Fields given with fewer leading axes are shared along the missing ones; an axis is never
    stretched from length one, so that ``(B,)`` cannot meet ``(B, 1)`` by accident.

    Parameters
    ----------
    log_prob : array (..., G)
        ln π(y_i): of the policy being learned, summed over the tokens of a completion.
    ref_log_prob : array (..., G)
        ln π_ref(y_i).
    reward : array (..., G), optional
        r(y_i), any real number.
    preference : array (...), optional
        P(y_1 ≻ y_2) in [0, 1], or a sampled label 0 or 1; for pairs.
    behavior_log_prob : array (..., G), optional
        ln μ(y_i): of the policy that drew the completions.
    baseline : array (...) or float, optional
        What is subtracted from the regularized reward, in units of reward; held constant.
    """

    log_prob: Any
    ref_log_prob: Any
    reward: Any = None
    preference: Any = None
    behavior_log_prob: Any = None
    baseline: Any = None


class Score(NamedTuple):
    """What an objective returns.

    ``value`` (...) is to be minimized; ``weight`` (..., G) is its derivative with respect to
    ``log_prob`` with the method's constants held constant.
    """

    value: Any
    weight: Any


class Traits(NamedTuple):
    """What the exact analysis and the trainer may rely on; the defaults promise nothing.

    Attributes
    ----------
    requires : frozenset of str
        The optional fields of :class:`Group` the loss reads.
    sizes : (int, int or None)
        Least and greatest group size.
    exchangeable : bool
        Reordering the completions (and turning the preference round) leaves the value unchanged.
    separable : bool
        The weight of one completion of a pair is affine in the fields of the other; then its
        expectation over the other is the weight against an average completion, O(K) for K arms.
        True for every value of the loss's keywords.
    contrastive : bool
        Only differences within a group matter: the weights of a group sum to zero.
    quadratic : bool
        The weights are affine in ``log_prob``.
    piecewise_linear : bool
        The value is convex and piecewise linear in ``log_prob``: its minimizer sits on kinks.
    semi_gradient : bool
        Something that depends on ``log_prob`` is held constant, so the weights are not the
        gradient of one fixed function.
    affine_in_reward : bool
        The weights are affine in ``reward``: the mean of noisy rewards says all.
    reads_baseline : bool
        ``baseline`` changes the loss, if it is there.
    """

    requires: frozenset[str] = frozenset()
    sizes: tuple[int, int | None] = (1, None)
    exchangeable: bool = False
    separable: bool = False
    contrastive: bool = False
    quadratic: bool = False
    piecewise_linear: bool = False
    semi_gradient: bool = False
    affine_in_reward: bool = False
    reads_baseline: bool = False


_FOUND: dict[str, Loss] = {}
REGISTRY: Mapping[str, Loss] = MappingProxyType(_FOUND)
"""Name → function, every objective of this module."""


def traits(loss: Loss) -> Traits:
    """The traits of ``loss``, also when ``functools.partial`` binds its hyper-parameters."""
    while isinstance(loss, functools.partial):
        loss = loss.func
    return getattr(loss, "traits", Traits())


def get(name: str) -> Loss:
    """The objective called ``name``; a ValueError that lists the names if there is none."""
    if name not in REGISTRY:
        raise ValueError(f"method: expected one of {', '.join(REGISTRY)}; got {shown(name)}")
    return REGISTRY[name]


def objective(requires: str, kinds: str, sizes: tuple[int, int | None] = (2, None)):
    """Register a loss, and check its group and hyper-parameters before its formula runs."""
    own = Traits(frozenset(requires.split()), sizes, **dict.fromkeys(kinds.split(), True))

    def register(formula: Loss) -> Loss:
        name = formula.__name__

        @functools.wraps(formula)
        def loss(group: Group, **hyper: Any) -> Score:
            _check(name, own, group)
            for key in _NUMBERS.intersection(hyper):
                hyper[key] = _hyper(name, key, hyper[key])
            return formula(group, **hyper)

        # The rooms the formulas are written in are no addresses: tracebacks, help and pickles say
        # bandit.losses.
        loss.__module__ = "bandit.losses"
        loss.traits = own  # type: ignore[attr-defined]
        _FOUND[name] = loss
        return loss

    return register


def _check(name: str, own: Traits, group: Group) -> None:
    _check_types(name, group)
    shape = tuple(group.log_prob.shape)
    least, most = own.sizes
    size = shape[-1] if shape else 0
    if size < least or (most is not None and size > most):
        expected = f"exactly {most}" if least == most else f"at least {least}"
        raise ValueError(
            f"{name}: expected groups of {expected} completions on the last axis, "
            f"got log_prob of shape {shape}"
        )
    for field, array in zip(Group._fields[1:], group[1:], strict=True):
        if array is None:
            if field in own.requires or field == "ref_log_prob":
                raise ValueError(f"{name}: expected group.{field}, got None")
            continue
        per_group = field in ("preference", "baseline")
        expected_shape = shape[:-1] if per_group else shape
        found = tuple(getattr(array, "shape", ()))
        shared = len(expected_shape) - len(found)
        if shared < 0 or found != expected_shape[shared:] or not (found or per_group):
            raise ValueError(
                f"{name}: expected group.{field} of shape {expected_shape} "
                f"(fewer leading axes are shared), got {found}"
            )


def _check_types(name: str, group: Any) -> None:
    """A list has no shape: it would pass for a number, and meet the wrong axis."""
    if not isinstance(group, Group):
        raise TypeError(f"{name}: expected a bandit.losses.Group, got {type(group).__name__}")
    for field, array in zip(Group._fields, group, strict=True):
        per_group = field in ("preference", "baseline") and isinstance(array, Real)
        if not (hasattr(array, "shape") or per_group or (array is None and field != "log_prob")):
            raise TypeError(
                f"{name}: expected group.{field} to be an array, got {type(array).__name__}"
            )


_NUMBERS = frozenset({"alpha", "beta", "eta", "epsilon", "clip"})


def _hyper(name: str, key: str, value: Any) -> Any:
    """A positive hyper-parameter as a plain float, which leaves the dtype of arrays alone."""
    if value is None and key == "clip":
        return None
    if getattr(value, "shape", None) == () and not isinstance(value, Real | np.ndarray):
        return value  # a number of another array library, perhaps traced or learned
    number_like = isinstance(value, Real) or (isinstance(value, np.ndarray) and value.ndim == 0)
    if isinstance(value, bool) or not number_like:
        raise TypeError(f"{name}: expected {key} to be a number, got {shown(value)}")
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name}: expected {key} to be finite and above 0, got {number:g}")
    if key == "epsilon" and number >= 1:
        raise ValueError(f"{name}: expected epsilon below 1, got {number:g}")
    return number
