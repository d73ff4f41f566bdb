"""The explorer: sliders for a problem of three arms, and what a method does on it, at once.

In a notebook, with the extra ``apps``: ``bandit.explorer.app()``. Without a browser: what the
sliders say is a :class:`Choice`, :func:`explore` computes what there is to show, and :func:`draw`
draws it. Only :func:`app` knows of widgets.
"""

from __future__ import annotations

import importlib
from typing import Any

from bandit.explorer.state import Choice, View, explore

__all__ = ["Choice", "View", "app", "draw", "explore"]

# Loaded when asked for: numbers need neither pictures nor widgets.
_MEMBERS = {"app": "bandit.explorer.widgets", "draw": "bandit.explorer.picture"}


def __getattr__(name: str) -> Any:
    if name in _MEMBERS:
        return getattr(importlib.import_module(_MEMBERS[name]), name)
    raise AttributeError(f"module 'bandit.explorer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
