"""What a sweep may vary: the settings, their values, and what the table calls them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from bandit import _checks, preferences
from bandit import pairs as pairing
from bandit.pairs import Pairs
from bandit.problem import Bandit

BEHAVIORS = ("policy", "reference", "uniform")
PREFERENCES = ("bradley-terry", "deterministic")
OPTIMIZERS = ("adam", "sgd")
# A list of more numbers is called by a name of its own.
MOST_LABELED = 6


class Value(NamedTuple):
    """One value of a setting, with what the table calls it."""

    label: Any
    value: Any


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
        "reward_noise": Setting(_checks.not_negative, 0.0),
        "steps": Setting(_checks.positive_integer, 2000),
        "record_every": Setting(_checks.positive_integer, None),
    }
)
"""Name → setting, in the order of columns and of the sweep's loops."""


def axes(grids: Mapping[str, Any] | None, trained: bool) -> dict[str, list[Value]]:
    """The values of each setting given, in the order of :data:`SETTINGS`."""
    grids = {} if grids is None else grids
    if not isinstance(grids, Mapping):
        raise TypeError(
            f"grids: expected a mapping from setting to values, got {type(grids).__name__}"
        )
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
