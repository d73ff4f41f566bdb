"""Comparisons that say what is wrong: what the tests of the exercises are written with.

A copy of this file lies beside each notebook. :func:`close` compares a student's answer with the
right one and, if they differ, looks for the reason: the mistakes that a test names, then the usual
ones (sign, factor, an added constant, order, axis).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["close", "same"]

# Factors that come from a forgotten ½, a double count or a sum in place of a mean.
SUSPECTS = (2.0, 0.5, 4.0, 0.25)


def close(
    call: str,
    found: Any,
    expected: ArrayLike,
    mistakes: Mapping[str, ArrayLike] | None = None,
    *,
    tolerance: float = 1e-6,
) -> None:
    """Pass if ``found`` is ``expected``, else raise an AssertionError that says what is wrong.

    Parameters
    ----------
    call : str
        What was asked, as a student would write it: the first words of the message.
    found : object
        The student's answer, whatever it is.
    expected : array_like
    mistakes : mapping, optional
        Explanation → the answer somebody gets who makes this mistake.
    tolerance : float
        Relative to the largest entry of ``expected`` (and at least 1e-9 of a unit).
    """
    __tracebackhide__ = True
    right = np.asarray(expected, dtype=np.float64)
    numbers = _numbers(call, found)
    for explanation, wrong in (mistakes or {}).items():
        if _alike(numbers, wrong, tolerance) and not _alike(numbers, right, tolerance):
            _fail(call, explanation, numbers, right)
    if numbers.shape != right.shape:
        _fail(call, _about_shape(numbers, right), numbers, right)
    if not np.isfinite(numbers).all() and np.isfinite(right).all():
        _fail(
            call, "something overflowed, or was divided by zero, or ln 0 was taken", numbers, right
        )
    if not _alike(numbers, right, tolerance):
        _fail(call, _about_numbers(numbers, right, tolerance), numbers, right)


def same(call: str, found: Any, expected: Any, explanation: str) -> None:
    """Pass if ``found`` equals ``expected`` (a truth value, a name), else explain."""
    __tracebackhide__ = True
    if found is None:
        raise AssertionError(f"{call} is None: is there a `return`?")
    if isinstance(expected, bool) and not isinstance(found, (bool, np.bool_)):
        raise AssertionError(f"{call}: expected True or False, got {found!r}")
    if found != expected:
        raise AssertionError(f"{call}: {explanation} (expected {expected!r}, got {found!r})")


def _numbers(call: str, found: Any) -> np.ndarray:
    __tracebackhide__ = True
    if found is None:
        raise AssertionError(f"{call} is None: is there a `return`?")
    try:
        return np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError):
        raise AssertionError(f"{call}: expected numbers, got {found!r}") from None


def _alike(one: ArrayLike, other: ArrayLike, tolerance: float) -> bool:
    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if one.shape != other.shape:
        return False
    finite = np.abs(other[np.isfinite(other)])
    scale = max(float(finite.max()) if finite.size else 0.0, 1e-9 / tolerance)
    return bool(np.allclose(one, other, rtol=0, atol=tolerance * scale))


def _about_shape(found: np.ndarray, right: np.ndarray) -> str:
    text = f"expected shape {right.shape}, got {found.shape}"
    if found.size == right.size:
        return text + ": the right number of entries on the wrong axes"
    if found.ndim < right.ndim:
        return text + ": a sum or mean over too many axes"
    if found.ndim > right.ndim:
        return text + ": a sum or mean is missing"
    return text + ": a sum or mean over the wrong axis, or too many or too few entries"


def _about_numbers(found: np.ndarray, right: np.ndarray, tolerance: float) -> str:
    if _alike(found, -right, tolerance):
        return "the opposite sign of what is asked for"
    if right.size > 1:
        difference = found - right
        if _alike(difference, np.full(right.shape, difference.flat[0]), tolerance):
            return f"every entry is off by the same number, {difference.flat[0]:.4g}"
        factor = float((found * right).sum() / (right * right).sum()) if right.any() else 0.0
        if factor and _alike(found, factor * right, tolerance):
            return f"{factor:.4g} times what is asked for"
        if right.ndim == 1 and _alike(found, right[::-1], tolerance):
            return "the right numbers in reverse order"
        if right.ndim > 1 and _alike(found, np.swapaxes(right, -1, -2), tolerance):
            return "the right numbers with two axes exchanged"
    for factor in SUSPECTS:
        if _alike(found, factor * right, tolerance):
            return f"{factor:g} times what is asked for"
    return "not the right numbers"


def _fail(call: str, why: str, found: np.ndarray, right: np.ndarray) -> None:
    __tracebackhide__ = True
    raise AssertionError(f"{call}: {why}\n  expected {_shown(right)}\n  got      {_shown(found)}")


def _shown(numbers: np.ndarray) -> str:
    return np.array2string(numbers, precision=6, suppress_small=True, threshold=24, edgeitems=4)
