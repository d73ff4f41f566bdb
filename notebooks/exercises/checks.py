"""Comparisons that say what is wrong: what the tests of the exercises are written with.

A copy of this file lies beside each notebook. :func:`close` compares a student's answer with the
right one and, if they differ, looks for the reason: the mistakes that a test names, then the usual
ones (sign, factor, an added constant, order, axis). :func:`own` tells an answer that was written
from one that calls the package.
"""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["close", "number", "own", "same"]

# Factors that come from a forgotten ½, a double count or a sum in place of a mean.
SUSPECTS = (2.0, 0.5, 4.0, 0.25)

NOT_FINITE = "something overflowed, or was divided by zero, or ln 0 was taken"

NEARLY = "nearly right: is a small number added somewhere, or a value rounded?"

# Of the package these hold arguments and results, and answer nothing.
CONTAINERS = {"Group", "Score"}


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
        _fail(call, NOT_FINITE, numbers, right)
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
        shown = bool(found) if isinstance(found, np.bool_) else found
        raise AssertionError(f"{call}: {explanation} (expected {expected!r}, got {shown!r})")


def number(call: str, found: Any) -> float:
    """``found`` if it is one finite number, else explain what it is instead."""
    __tracebackhide__ = True
    numbers = _numbers(call, found)
    if numbers.ndim:
        raise AssertionError(f"{call}: expected one number, got shape {numbers.shape}: {found!r}")
    if not np.isfinite(numbers):
        raise AssertionError(f"{call} = {numbers}: {NOT_FINITE}")
    return float(numbers)


def own(answer: Any) -> None:
    """Pass if ``answer`` does not call what the package or the examiner know, else say what it calls.

    An exercise asks for lines that the package has, too, and to call them is not to have written
    them. Functions of the notebook that the answer calls are looked through as well.
    """
    __tracebackhide__ = True
    if called := next(_borrowed(answer, set()), None):
        raise AssertionError(
            f"{_name(answer)} uses {called}, which has the answer already: "
            "write it yourself, with numpy alone"
        )


def _name(thing: Any) -> str:
    return str(getattr(thing, "__name__", type(thing).__name__))


def _borrowed(thing: Any, seen: set[int]) -> Iterator[str]:
    """The names of the package and of the examiner that a function, or what it calls, uses."""
    if isinstance(thing, functools.partial):
        thing = thing.func
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if _is_foreign(thing):
        yield _name(thing)
    elif isinstance(thing, types.FunctionType):
        for operation, name in _loaded(thing.__code__):
            if operation == "IMPORT_NAME":
                if _is_foreign(types.ModuleType(str(name))):
                    yield str(name)
            elif (used := thing.__globals__.get(name)) is not None:
                if _is_foreign(used):
                    yield str(name)
                elif getattr(used, "__globals__", None) is thing.__globals__:
                    yield from _borrowed(used, seen)


def _loaded(code: types.CodeType) -> Iterator[tuple[str, Any]]:
    """What a function and those inside it load by name or import."""
    for one in dis.get_instructions(code):
        if one.opname in ("LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME"):
            yield one.opname, one.argval
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _loaded(inner)


def _is_foreign(thing: Any) -> bool:
    """Whether a value is, or is made by, the package or an examiner."""
    if isinstance(thing, types.ModuleType):
        home = thing.__name__
    else:
        home = getattr(thing, "__module__", None) or type(thing).__module__
        kind = thing if isinstance(thing, type) else type(thing)
        if kind.__name__ in CONTAINERS:
            return False
    first = str(home).partition(".")[0]
    return first in ("bandit", "checks") or first.endswith("_examiner")


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
        return text + ": a sum or mean over too many axes, or only a part of what is asked for"
    if found.ndim > right.ndim:
        return text + ": a sum or mean is missing, or more was returned than is asked for"
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
            if abs(factor - 1) < 1e-2:
                return NEARLY
            return f"{factor:.4g} times what is asked for"
        if right.ndim == 1 and _alike(found, right[::-1], tolerance):
            return "the right numbers in reverse order"
        if right.ndim > 1 and _alike(found, np.swapaxes(right, -1, -2), tolerance):
            return "the right numbers with two axes exchanged"
    for factor in SUSPECTS:
        if _alike(found, factor * right, tolerance):
            return f"{factor:g} times what is asked for"
    if _alike(found, right, 1e-2):
        return NEARLY
    fine = np.isclose(found, right, rtol=0, atol=tolerance * np.abs(right).max(initial=0))
    if fine.any():
        place = np.argwhere(~fine)[0].tolist()
        first = place[0] if len(place) == 1 else tuple(place)
        return f"{fine.sum()} of {fine.size} entries are right; the first that isn't is at {first}"
    return "not the right numbers"


def _fail(call: str, why: str, found: np.ndarray, right: np.ndarray) -> None:
    __tracebackhide__ = True
    raise AssertionError(f"{call}: {why}\n  expected {_shown(right)}\n  got      {_shown(found)}")


def _shown(numbers: np.ndarray) -> str:
    return np.array2string(numbers, precision=6, suppress_small=True, threshold=24, edgeitems=4)
