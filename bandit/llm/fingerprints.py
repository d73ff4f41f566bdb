"""Short names for what a cached number depends on: a model, a tokenizer, the tokens of a row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bandit.llm.scoring import unwrapped

# What a configuration says about where a model came from or how it is run, not about what it says.
_NOT_THE_FUNCTION = frozenset({"_name_or_path", "transformers_version", "use_cache", "dtype"})


def of_model(model: Any, *, adapters: bool = True) -> str:
    """SHA-256 of a model's class, configuration and weights, as hexadecimal digits.

    With ``adapters=False`` the weights of PEFT adapters are left out: the model with its adapter
    switched off.
    """
    digest = hashlib.sha256()
    bare = unwrapped(model)
    config = bare.config.to_dict() if hasattr(bare.config, "to_dict") else vars(bare.config)
    about = {name: value for name, value in config.items() if name not in _NOT_THE_FUNCTION}
    digest.update(type(bare).__name__.encode())
    digest.update(json.dumps(about, sort_keys=True, default=str).encode())
    skipped = frozenset() if adapters else _adapter_names(model)
    for name, tensor in sorted(bare.state_dict().items()):
        if skipped.isdisjoint(name.split(".")):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def _adapter_names(model: Any) -> frozenset[str]:
    names = {"modules_to_save"}
    for module in model.modules():
        names.update(getattr(module, "adapter_layer_names", ()))
    return frozenset(names)


def _bytes(tensor: Tensor) -> Any:
    # numpy has no bfloat16, so every tensor is looked at as bytes.
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()


def of_tokenizer(tokenizer: Any) -> str:
    """SHA-256 of everything a tokenizer does, or of its vocabulary if it cannot be written down."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        text = backend.to_str()
    elif hasattr(tokenizer, "get_vocab"):
        text = json.dumps(sorted(tokenizer.get_vocab().items()))
    else:
        text = type(tokenizer).__qualname__
    special = {name: getattr(tokenizer, name, None) for name in ("bos_token_id", "eos_token_id")}
    return hashlib.sha256(f"{text} {special}".encode()).hexdigest()


def of_tokens(prompt: Iterable[int], completions: Iterable[Iterable[int]]) -> str:
    """SHA-256 of a prompt's and its completions' token ids."""
    digest = hashlib.sha256()
    for ids in (prompt, *completions):
        array = np.asarray(ids, dtype="<i8")
        digest.update(len(array).to_bytes(8, "little"))
        digest.update(array.tobytes())
    return digest.hexdigest()


def of_text(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
