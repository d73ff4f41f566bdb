"""One place for the checks of user input, so that every error is one clear line.

A message names the argument, says what was expected and what came. Indices, and with them arms and
contexts without labels, are counted from 0 as in the arrays.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bandit import arrays

Array = NDArray[np.float64]

# Probabilities are accepted when they sum to one this closely; they are used as given. Those of
# single precision, which a softmax of a million arms has to some 1e-4, are divided by their sum.
SUM_TOLERANCE = 1e-8
SINGLE_SUM_TOLERANCE = 2e-4
# What numpy counts with.
LARGEST = 2**63 - 1


def real_array(name: str, values: ArrayLike) -> Array:
    """``values`` as a float64 array, or one line saying why it is not one."""
    values = arrays.to_numpy(values)
    if isinstance(values, (np.ndarray, np.generic)) and values.dtype.kind == "c":
        raise TypeError(f"{name}: expected real numbers, got complex ones")
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(
            f"{name}: expected an array of numbers, got {type(values).__name__}"
        ) from error
    return array


def finite_array(name: str, values: ArrayLike) -> Array:
    """A real array without NaN or infinity."""
    array = real_array(name, values)
    refuse(name, array, ~np.isfinite(array), "finite numbers")
    return array


def refuse(name: str, array: NDArray[Any], bad: Any, expected: str) -> None:
    """Raise if anything of ``array`` is ``bad``: a line with the first such entry and its index."""
    if np.any(bad):
        at = np.argwhere(bad)[0].tolist()
        place = f" at index {at[0] if len(at) == 1 else at}" if at else ""
        raise ValueError(f"{name}: expected {expected}, got {array[tuple(at)]:.10g}{place}")


def positive_number(name: str, value: Any) -> float:
    """A finite number above zero."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name}: expected a positive number, got {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if not (np.isfinite(number) and number > 0):
        raise ValueError(f"{name}: expected a finite number above 0, got {number:g}")
    return number


def not_negative(name: str, value: Any) -> float:
    """A finite number of at least zero."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name}: expected a number of at least 0, got {type(value).__name__}")
    if not (np.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: expected a finite number of at least 0, got {value}")
    return float(value)


def level_between_0_and_1(level: Any) -> float:
    """``level`` if it is that of an interval."""
    level = positive_number("level", level)
    if level >= 1:
        raise ValueError(f"level: expected a number in (0, 1), got {level:g}")
    return level


def positive_integer(name: str, value: Any) -> int:
    """An integer above zero."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected a positive integer, got {shown(value)}")
    if not 1 <= value <= LARGEST:
        expected = "a positive integer" if value < 1 else f"an integer of at most {LARGEST}"
        raise ValueError(f"{name}: expected {expected}, got {shown(value)}")
    return int(value)


def distribution(
    name: str, values: ArrayLike, *, axes: int = 1, strictly_positive: bool = False
) -> Array:
    """Probabilities over the last ``axes`` axes: non-negative (or positive), summing to one.

    Sums may be off by 1e-8. Those of float32 numbers may be off by 2e-4, and are made 1.
    """
    array, single = finite_array(name, values), arrays.is_single(values)
    if array.ndim < axes or array.size == 0:
        raise ValueError(
            f"{name}: expected at least {axes} non-empty axes, got shape {array.shape}"
        )
    low = array.min()
    if low < 0 or (strictly_positive and low == 0):
        expected = "probabilities above 0" if strictly_positive else "probabilities of at least 0"
        raise ValueError(f"{name}: expected {expected}, got {low:g}")
    with np.errstate(over="ignore"):
        total = array.sum(axis=tuple(range(-axes, 0)))
    worst = np.abs(total - 1).max()
    if worst > sum_tolerance(values):
        found = np.ravel(total)[np.argmax(np.abs(np.ravel(total) - 1))]
        raise ValueError(f"{name}: expected probabilities that sum to 1, got a sum of {found:.10g}")
    return array / total[(..., *(None,) * axes)] if single else array


def sum_tolerance(values: Any) -> float:
    """How far from 1 the sum of probabilities of this precision may be."""
    return SINGLE_SUM_TOLERANCE if arrays.is_single(values) else SUM_TOLERANCE


def foreign_numbers(name: str, array: Any) -> Any:
    """``array`` of torch or JAX if it is one of real numbers with a floating dtype.

    Its numbers are not looked at: that would wait for a device, and stop a tracing of JAX.
    """
    if not arrays.namespace(array).isdtype(array.dtype, "real floating"):
        raise TypeError(f"{name}: expected floating-point numbers, got dtype {array.dtype}")
    return array


def trailing_shape(name: str, array: Any, expected: tuple[int, ...], letters: str) -> None:
    """Raise unless the last axes of ``array`` are exactly ``expected`` (nothing is stretched)."""
    found = tuple(array.shape)
    if len(found) < len(expected) or found[len(found) - len(expected) :] != expected:
        raise ValueError(f"{name}: expected shape {letters} = {expected}, got {found}")


def per_cell(name: str, array: Array, shape: tuple[int, int]) -> Array:
    """``array`` (K,) or (X, K) as one number for each cell, (X, K); read-only if repeated."""
    if array.shape not in (shape, shape[1:]):
        raise ValueError(
            f"{name}: expected shape (K,) = {shape[1:]} or (X, K) = {shape}, got {array.shape}"
        )
    return np.broadcast_to(array, shape)


def one_of(name: str, value: Any, allowed: Iterable[str]) -> str:
    """``value`` if it is one of ``allowed``, else a line that lists them."""
    allowed = tuple(allowed)
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}; got {shown(value)}")
    return value


def type_of(value: Any) -> str:
    """The type of a value for a message; of a class that came for one of its kind, the class."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def shown(value: Any) -> str:
    """A value as one short line of a message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def generator_of(rng: Any) -> np.random.Generator:
    """A generator from a seed, a seed sequence or a generator, which is used as it is."""
    seeds = (int, np.integer, np.random.SeedSequence, np.random.Generator)
    if isinstance(rng, bool) or not isinstance(rng, seeds):
        raise TypeError(
            f"rng: expected a seed, SeedSequence or Generator of numpy, got {type(rng).__name__}"
        )
    if isinstance(rng, (int, np.integer)) and rng < 0:
        raise ValueError(f"rng: expected a seed of at least 0, got {rng}")
    return np.random.default_rng(rng)


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A copy that cannot be written to: a problem does not change after it was checked."""
    array = np.array(array, copy=True)
    array.setflags(write=False)
    return array
