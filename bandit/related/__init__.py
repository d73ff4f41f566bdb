"""Neighbors of contrastive policy gradient in the literature, each as an exact miniature.

Loaded when asked for: ``bandit.related.family`` and so on.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

__all__ = sorted(i.name for i in pkgutil.iter_modules(__path__) if not i.name.startswith("_"))


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"bandit.related.{name}")
    raise AttributeError(f"module 'bandit.related' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
