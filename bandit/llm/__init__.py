"""The same objectives on language models: exact where every completion can be listed.

Needs the extra ``llm`` (``pip install "copg-bandit[llm]"``); importing :mod:`bandit` does not.
"""

from __future__ import annotations

import importlib
from typing import Any

from bandit.llm.completions import Completions
from bandit.llm.enumeration import all_completions, as_bandit, enumerate_policy, policy_of
from bandit.llm.exact import train_exact
from bandit.llm.loop import train_tiny
from bandit.llm.references import reference_log_probs
from bandit.llm.scoring import sequence_log_prob
from bandit.llm.tiny import TinyTransformer

__all__ = [
    "Completions",
    "RewardModel",
    "SequenceTrainer",
    "TinyTransformer",
    "all_completions",
    "as_bandit",
    "enumerate_policy",
    "evaluate_reward_model",
    "generate",
    "policy_of",
    "reference_log_probs",
    "sequence_log_prob",
    "train_exact",
    "train_reward_model",
    "train_rounds",
    "train_tiny",
]

_LOADED_ON_USE = {
    "RewardModel": "bandit.llm.reward_model",
    "SequenceTrainer": "bandit.llm.trainer",
    "evaluate_reward_model": "bandit.llm.reward_model",
    "generate": "bandit.llm.generation",
    "train_reward_model": "bandit.llm.reward_model",
    "train_rounds": "bandit.llm.rounds",
}


def __getattr__(name: str) -> Any:
    # What needs transformers is loaded when asked for: importing takes seconds.
    if name in _LOADED_ON_USE:
        return getattr(importlib.import_module(_LOADED_ON_USE[name]), name)
    raise AttributeError(f"module 'bandit.llm' has no attribute {name!r}")
