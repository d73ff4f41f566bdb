"""A laboratory for KL-regularized policy optimization on tabular softmax bandits.

See ``help(bandit.losses)`` for the objectives, ``help(bandit.analysis)`` for exact solutions and
``help(bandit.train)`` for sampled training.
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
    "History",
    "LogLinear",
    "analysis",
    "data",
    "losses",
    "ope",
    "pairs",
    "plots",
    "preferences",
    "presets",
    "related",
    "train",
]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: importing bandit imports neither matplotlib nor the data.
    if name in ("plots", "data", "ope", "related"):
        return importlib.import_module(f"bandit.{name}")
    raise AttributeError(f"module 'bandit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
