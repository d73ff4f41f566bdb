"""What is typed, as a loss: a name, ``package.module:function`` or ``path/to/file.py:function``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from bandit import losses, presets
from bandit.losses import Loss
from bandit.verification._subject import FILLED_IN, Subject, said

FORMS = "a shipped loss, package.module:function or path/to/file.py:function"


def find(target: str) -> Loss:
    """The loss that ``target`` names; a ValueError of one line if there is none."""
    if target in losses.REGISTRY:
        return losses.REGISTRY[target]
    where, colon, name = target.rpartition(":")
    if not colon or not where or not name:
        known = ", ".join(losses.REGISTRY)
        raise ValueError(f"target: expected {FORMS}, got {target!r}; shipped are {known}")
    module = _from_file(Path(where)) if where.endswith(".py") else _module(where)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise ValueError(f"target: expected a function of {where}, which has no {name!r}")
    if not callable(found):
        raise ValueError(
            f"target: expected a function, got {target} of type {type(found).__name__}"
        )
    return found


def _module(name: str) -> ModuleType:
    # As Python does with -m, whatever way this was started: what lies here can be imported.
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    return _run(name, lambda: importlib.import_module(name))


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"target: expected a file, got {path}, which is not there")
    name = f"_bandit_verify_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"target: expected a Python file, got {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))  # it may import its neighbors
    try:
        _run(str(path), lambda: spec.loader.exec_module(module))
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _run(what: str, load: Any) -> Any:
    """Run code that is not ours; whatever it raises is one line."""
    try:
        return load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        name = what if what.isprintable() else repr(what)
        why = said(error).removeprefix("raises ")
        raise ValueError(f"target: expected {name} to be importable, got {why}") from error


def shipped(name: str) -> Loss:
    """A loss of the registry, ready to be called: with the hyper-parameters of its preset where it
    has keywords without a default."""
    loss = losses.REGISTRY[name]
    try:
        Subject(loss)
    except TypeError:
        for method in presets.METHODS.values():
            if getattr(method.loss, "func", None) is loss:
                return method.loss
        raise ValueError(
            f"{name}: expected a preset that binds what is not {' or '.join(FILLED_IN)}"
        ) from None
    return loss
