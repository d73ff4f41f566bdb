"""Models and tokenizers from folders on this machine.

Weights come as safetensors alone, nothing is looked for on the network, and no code that lies
beside a model is run.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def load_model(path: str) -> Any:
    """The causal model in a folder, in single precision, on the GPU if there is one.

    Of a folder with adapters: the model they were trained on, from its own folder, with the
    adapters merged into it.
    """
    import torch

    folder = _folder(path)
    with _quiet(), _one_kind_of_error(path):
        model = _adapted(folder) if (folder / ADAPTER_CONFIG).is_file() else _plain(folder)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _plain(folder: Path) -> Any:
    import torch
    import transformers

    loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    model, report = loaded
    if report["missing_keys"]:  # they would be random
        name = min(report["missing_keys"])
        raise ValueError(f"model: expected all weights in {folder}, got none for {name}")
    return model


def _adapted(folder: Path) -> Any:
    import peft

    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ValueError(f"model: expected adapters as {ADAPTER_WEIGHTS} in {folder}, got none")
    about = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    base = _plain(_folder(str(about["base_model_name_or_path"]), "config.json"))
    adapted: Any = peft.PeftModel.from_pretrained(base, str(folder), local_files_only=True)
    return adapted.merge_and_unload()


def load_scorer(path: str, *, seed: int | None = None) -> Any:
    """The model in a folder with one number for its output, on the GPU if there is one.

    With a ``seed`` the output may be new, and is drawn from it: the folder of a causal model will
    do. Without, all weights must be there, as they are of a trained reward model.
    """
    import torch
    import transformers

    folder = _folder(path, "config.json")
    with _quiet(), _one_kind_of_error(path), torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        loaded: Any = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder,
            num_labels=1,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    model, report = loaded
    inside = f"{model.base_model_prefix}."
    lost = [name for name in report["missing_keys"] if seed is None or name.startswith(inside)]
    if lost:
        raise ValueError(f"model: expected all weights in {folder}, got none for {min(lost)}")
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def load_tokenizer(path: str) -> Any:
    """The tokenizer in a folder, or None if there is none."""
    import transformers

    folder = _folder(path)
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json")):
        return None
    with _one_kind_of_error(path):
        return transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )


def _folder(path: str, *signs: str) -> Path:
    folder = Path(path)
    if not any((folder / name).is_file() for name in signs or ("config.json", ADAPTER_CONFIG)):
        raise ValueError(f"model: expected a folder with a config.json on this machine, got {path}")
    return folder


@contextlib.contextmanager
def _one_kind_of_error(path: str) -> Iterator[None]:
    """Files that are broken make the libraries raise many kinds of errors: here, ValueError."""
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        said = (str(error) or type(error).__name__).strip().splitlines()[0]
        if said.startswith("model: "):
            raise
        raise ValueError(f"model: expected intact files in {path}, got: {said}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # peft asks transformers for something by its old name.
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
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
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed)
        return peft.get_peft_model(model, config)
