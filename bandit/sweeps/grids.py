"""What a sweep may vary: the settings, their values, and how a value is named and described.

A *description* is made of what JSON can hold and says all there is to say of a value: equal
descriptions, equal values. Labels are what stands in the table.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from bandit import _checks, preferences
from bandit import pairs as pairing
from bandit.pairs import Pairs
from bandit.presets import Method
from bandit.problem import Bandit
from bandit.sweeps import functions
from bandit.sweeps.functions import Within

BEHAVIORS = ("policy", "reference", "uniform")
PREFERENCES = ("bradley-terry", "deterministic")
OPTIMIZERS = ("adam", "sgd")
# Arrays up to this size are written out in descriptions, and their hash always.
MOST_WRITTEN, MOST_LABELED = 1000, 6


class Value(NamedTuple):
    """One value of a setting, with what the table calls it."""

    label: Any
    value: Any


def _not_negative(name: str, value: Any) -> float:
    number = _number(name, value)
    if number < 0:
        raise ValueError(f"{name}: expected a number of at least 0, got {number:g}")
    return number


def _number(name: str, value: Any) -> float:
    array = _checks.finite_array(name, value)
    if array.ndim or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    return float(array)


def _named_or_array(names: tuple[str, ...], name: str, value: Any) -> Any:
    """One of ``names``, pairs as they are, or an array."""
    if isinstance(value, str):
        return _checks.one_of(name, value, names)
    if isinstance(value, Pairs):
        return value
    array = _checks.finite_array(name, value)
    if array.size == 0:
        raise ValueError(f"{name}: expected at least one value, got none")
    return array


class Setting(NamedTuple):
    """A setting: how a value is checked, what it is if nobody says, and who looks at it."""

    check: Callable[[str, Any], Any]
    default: Any
    trained: bool = True  # only training looks at it
    array: bool = False  # a list of numbers is one value


SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {
        "beta": Setting(_checks.positive_number, None, trained=False),
        "behavior": Setting(
            functools.partial(_named_or_array, BEHAVIORS), "reference", trained=False, array=True
        ),
        "preference": Setting(
            functools.partial(_named_or_array, PREFERENCES),
            "bradley-terry",
            trained=False,
            array=True,
        ),
        "learning_rate": Setting(_checks.positive_number, 0.01),
        "optimizer": Setting(lambda name, value: _checks.one_of(name, value, OPTIMIZERS), "adam"),
        "batch_size": Setting(_checks.positive_integer, 128),
        "group_size": Setting(_checks.positive_integer, 2),
        "reward_noise": Setting(_not_negative, 0.0),
        "steps": Setting(_checks.positive_integer, 2000),
        "record_every": Setting(_checks.positive_integer, None),
    }
)
"""Name → setting, in the order of columns and of the sweep's loops."""


def axes(grids: Mapping[str, Any] | None, trained: bool) -> dict[str, list[Value]]:
    """The values of each setting given, in the order of :data:`SETTINGS`."""
    grids = {} if grids is None else grids
    if not isinstance(grids, Mapping):
        raise TypeError(f"grids: expected a mapping from setting to values, got {_kind(grids)}")
    for name in grids:
        _checks.one_of("grids", name, SETTINGS)
        if not trained and SETTINGS[name].trained:
            raise ValueError(f"{name}: expected none with runs=0, as exact solutions have none")
    return {name: _axis(name, grids[name]) for name in SETTINGS if name in grids}


def _axis(name: str, given: Any) -> list[Value]:
    own = SETTINGS[name]
    if isinstance(given, Mapping):
        values = [Value(str(label), own.check(name, value)) for label, value in given.items()]
    else:
        values = [_labeled(name, own.check(name, value)) for value in _listed(own, given)]
    if not values:
        raise ValueError(f"{name}: expected at least one value, got none")
    labels = [value.label for value in values]
    twice = [label for i, label in enumerate(labels) if label in labels[:i]]
    if twice:
        raise ValueError(f"{name}: expected values with different labels, got {twice[0]!r} twice")
    return values


def _listed(own: Setting, given: Any) -> list[Any]:
    """The values of an axis: one value alone is an axis of one."""
    if isinstance(given, (str, Pairs)) or not isinstance(given, Iterable):
        return [given]
    if isinstance(given, np.ndarray) and given.ndim == 0:
        return [given.item()]
    values = list(given)
    if own.array and not any(isinstance(v, (str, Pairs, Mapping)) or np.ndim(v) for v in values):
        return [given]
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def _labeled(name: str, value: Any) -> Value:
    if isinstance(value, (np.ndarray, Pairs)):
        if isinstance(value, Pairs) or value.ndim != 1 or value.size > MOST_LABELED:
            raise ValueError(
                f"{name}: expected a mapping from labels to values, as only up to {MOST_LABELED} "
                "numbers can stand in a table, got an array"
            )
        return Value("(" + ", ".join(f"{number:.6g}" for number in value) + ")", value)
    return Value(value, value)


def data_of(problem: Bandit, behavior: Any) -> Pairs | None:
    """Who is compared with whom under a value of ``behavior``; None where the policy draws."""
    if isinstance(behavior, str):
        if behavior == "policy":
            return None
        uniform = np.full(problem.shape, 1 / problem.n_arms)
        return pairing.independent(problem.reference if behavior == "reference" else uniform)
    if not isinstance(behavior, Pairs):
        behavior = pairing.independent(behavior)
    return pairing.as_pairs(behavior, problem.shape)


def preference_of(problem: Bandit, preference: Any) -> Any:
    """The matrix ([X,] K, K) under a value of ``preference``."""
    if isinstance(preference, str):
        judge = getattr(preferences, preference.replace("-", "_"))
        return judge(problem.reward)
    return preferences.check(preference, problem.shape)


# -------------------------------------------------------------------------------- descriptions


def described(name: str, value: Any, within: Within = ()) -> Any:
    """``value`` in what JSON can hold; TypeError for what cannot be told from its like."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return _described_array(value)
    if isinstance(value, Pairs):
        joint = None if value.joint is None else np.asarray(value)
        return described(name, {"first": value.first, "second": value.second, "joint": joint})
    if isinstance(value, Bandit):
        return described(name, {part: getattr(value, part) for part in _PARTS})
    if isinstance(value, Method):
        return {"loss": functions.described(name, value.loss)} | {"baseline": value.baseline}
    if isinstance(value, Mapping):
        return {str(key): described(f"{name}.{key}", one, within) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(name, one, within) for one in value]
    if isinstance(value, (set, frozenset)):
        return sorted((described(name, one, within) for one in value), key=digest)
    if callable(value):
        return functions.described(name, value, within)
    raise TypeError(f"{name}: expected numbers, strings, arrays or functions, got {_kind(value)}")


_PARTS = ("reward", "beta", "reference", "context_weights")


def _described_array(array: np.ndarray) -> dict[str, Any]:
    plain = np.ascontiguousarray(array, dtype=np.float64).astype("<f8")
    about = {"shape": list(array.shape), "sha256": hashlib.sha256(plain.tobytes()).hexdigest()}
    return about | ({"values": plain.tolist()} if plain.size <= MOST_WRITTEN else {})


def _kind(value: Any) -> str:
    return type(value).__name__


def digest(description: Any) -> str:
    """SHA-256 of a description, in hexadecimal."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
