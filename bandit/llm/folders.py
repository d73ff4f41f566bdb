"""Models and tokenizers from folders on this machine.

Weights come as safetensors alone, nothing is looked for on the network, and no code that lies
beside a model is run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def load_model(path: str) -> Any:
    """The causal model in a folder, in single precision, on the GPU if there is one."""
    import torch
    import transformers

    folder = _folder(path)
    with _quiet():
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
        )
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def load_tokenizer(path: str) -> Any:
    """The tokenizer in a folder, or None if there is none."""
    import transformers

    folder = _folder(path)
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json")):
        return None
    return transformers.AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )


def _folder(path: str) -> Path:
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise ValueError(f"model: expected a folder with a config.json on this machine, got {path}")
    return folder


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def with_adapters(model: Any, rank: int, seed: int = 0) -> Any:
    """The model with LoRA adapters on all its linear layers but the output; the rest is frozen."""
    import peft
    import torch

    config = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return peft.get_peft_model(model, config)
