"""What a value is, for as long as a results directory lives.

A *description* is made of what JSON can hold and says all there is to say of a value: equal
descriptions, equal values. A function is its code and all that it uses: a user's loss is known by
its source, what it closes over, its defaults, and the values and functions of its own module that
it refers to, theirs included. Of what it calls elsewhere only the name counts.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from bandit import groups, losses
from bandit.pairs import Pairs
from bandit.presets import Method
from bandit.problem import Bandit

# Arrays up to this size are written out in descriptions, and their hash always.
MOST_WRITTEN = 1000

Within = tuple[CodeType, ...]
"""The functions in whose description one is met, so that those which call each other end."""


def described(name: str, value: Any, within: Within = ()) -> Any:
    """``value`` in what JSON can hold; a TypeError for what cannot be told from its like.

    ``name`` is whose value it is, for the message.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, Pairs):
        joint = None if value.joint is None else np.asarray(value)
        return described(name, {"first": value.first, "second": value.second, "joint": joint})
    if isinstance(value, Bandit):
        return described(name, {part: getattr(value, part) for part in _PARTS})
    if isinstance(value, Method):
        return {"loss": _function(name, value.loss)} | {"baseline": value.baseline}
    if isinstance(value, Mapping):
        return {str(key): described(f"{name}.{key}", one, within) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(name, one, within) for one in value]
    if isinstance(value, (set, frozenset)):
        return sorted((described(name, one, within) for one in value), key=digest)
    if callable(value):
        return _function(name, value, within)
    raise TypeError(
        f"{name}: expected numbers, strings, arrays or functions, got {type(value).__name__}"
    )


_PARTS = ("reward", "beta", "reference", "context_weights")


def _array(array: np.ndarray) -> dict[str, Any]:
    plain = np.ascontiguousarray(array, dtype=np.float64).astype("<f8")
    about = {"shape": list(array.shape), "sha256": hashlib.sha256(plain.tobytes()).hexdigest()}
    return about | ({"values": plain.tolist()} if plain.size <= MOST_WRITTEN else {})


def digest(description: Any) -> str:
    """SHA-256 of a description, in hexadecimal."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# ----------------------------------------------------------------------------------- functions


def _function(name: str, function: Any, within: Within = ()) -> dict[str, Any]:
    """``function`` in what JSON can hold; a TypeError for what is none, or holds what cannot be
    told from its like."""
    if isinstance(function, functools.partial):
        bound = {"arguments": list(function.args), "hyper": dict(function.keywords)}
        inner = _function(name, function.func, within)
        return inner | {"bound": [*inner.get("bound", []), described(name, bound, within)]}
    called = groups.name_of(function)
    if called in losses.__all__ and getattr(losses, called) is function:
        return {"name": called}
    if not isinstance(function, FunctionType):
        raise TypeError(f"{name}: expected a function, got {type(function).__name__}")
    known = {"name": f"{function.__module__}.{function.__qualname__}"}
    if any(function.__code__ is code for code in within):
        return known
    within = (*within, function.__code__)
    held = [*_closed_over(function), function.__defaults__, function.__kwdefaults__]
    return known | {
        "sha256": hashlib.sha256(_source(function).encode()).hexdigest(),
        "holds": described(name, held, within),
        "uses": dict(_uses(name, function, within)),
    }


def _closed_over(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue


def _uses(name: str, function: FunctionType, within: Within) -> Iterator[tuple[str, Any]]:
    """The global names that a function reads, and what stands there."""
    for used in sorted(_global_names(function.__code__)):
        if used not in function.__globals__:
            continue  # Python's own
        value = function.__globals__[used]
        if isinstance(value, (ModuleType, type)):
            continue
        if isinstance(value, FunctionType) and value.__globals__ is not function.__globals__:
            yield used, f"{value.__module__}.{value.__qualname__}"
            continue
        try:
            yield used, described(name, value, within)
        except (TypeError, ValueError, RecursionError):
            continue  # a lock, a logger, a table: nothing that can be written down


def _global_names(code: CodeType) -> set[str]:
    names = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    return names.union(*map(_global_names, inner))


def _source(function: FunctionType) -> str:
    """The source of a function, or what it was compiled to where there is no source. Several
    lambdas may stand on one line: there it takes both."""
    code = function.__code__
    try:
        # Of the code: of a function it would be that of what the function wraps.
        source = inspect.getsource(code)
    except (OSError, TypeError):
        return _compiled(code)
    return source + _compiled(code) if function.__name__ == "<lambda>" else source


def _compiled(code: CodeType) -> str:
    constants = [_constant(one) for one in code.co_consts]
    return repr((code.co_code.hex(), code.co_names, code.co_varnames, constants))


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return _compiled(value)
    # Sets of strings have another order in every process.
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)
