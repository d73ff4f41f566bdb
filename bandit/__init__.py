"""A laboratory for KL-regularized policy optimization on tabular softmax bandits.

See ``help(bandit.losses)`` for the objectives, ``help(bandit.analysis)`` for exact solutions and
``help(bandit.train)`` for sampled training; ``help(bandit.verify)`` to examine a loss of your own.
"""

from __future__ import annotations

import importlib
from typing import Any

from bandit import analysis, losses, pairs, preferences, presets
from bandit.history import History
from bandit.optimizers import SGD, Adam
from bandit.policies import LogLinear
from bandit.problem import Bandit
from bandit.training import train

__version__ = "0.1.0"
__all__ = [
    "SGD",
    "Adam",
    "Bandit",
    "Fit",
    "History",
    "LogLinear",
    "analysis",
    "data",
    "explorer",
    "fit",
    "losses",
    "offline",
    "ope",
    "pairs",
    "pessimism",
    "plots",
    "preferences",
    "presets",
    "related",
    "sweep",
    "sweeps",
    "train",
    "verify",
]


# Loaded when asked for: importing bandit imports neither pictures, tables nor data.
_MODULES = {
    "data",
    "explorer",
    "offline",
    "ope",
    "pessimism",
    "plots",
    "related",
    "sweeps",
}
_MEMBERS = {
    "Fit": "bandit.offline",
    "fit": "bandit.offline",
    "sweep": "bandit.sweeps",
    "verify": "bandit.verification",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"bandit.{name}")
    if name in _MEMBERS:
        return getattr(importlib.import_module(_MEMBERS[name]), name)
    raise AttributeError(f"module 'bandit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
