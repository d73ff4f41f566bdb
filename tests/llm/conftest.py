"""Models for the language-model tests: random, tiny, of both kinds of positions."""

from __future__ import annotations

import os

# Nothing is ever looked for on the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from bandit.llm import TinyTransformer

VOCABULARY, EOS = 23, 2


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _global_generators_untouched_between_tests():
    torch.manual_seed(0)


def build(kind: str, seed: int = 0, **config: Any) -> Any:
    """A random model with logits far from uniform, in evaluation mode."""
    if kind == "tiny":
        model = TinyTransformer(VOCABULARY, 20, eos=EOS, prompt_length=20, width=32, seed=seed)
        with torch.no_grad():
            model.head.weight.mul_(4)
        return model.eval()
    import transformers

    transformers.logging.set_verbosity_error()
    wide = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    llama_like = {**wide, "intermediate_size": 48, "num_key_value_heads": 1}
    kinds = {
        "gpt2": (transformers.GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 2}),
        "llama": (transformers.LlamaConfig, llama_like),
        # Dropout by functions in the layers themselves, not by modules inside them.
        "opt": (
            transformers.OPTConfig,
            {**wide, "ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.3, "layerdrop": 0.3},
        ),
        "gemma2": (
            transformers.Gemma2Config,
            {**llama_like, "head_dim": 16, "final_logit_softcapping": 0.7},
        ),
        "cohere": (transformers.CohereConfig, {**llama_like, "logit_scale": 0.25}),
        "granite": (transformers.GraniteConfig, {**llama_like, "logits_scaling": 3.0}),
    }
    make, shape = kinds[kind]
    common = {
        "vocab_size": VOCABULARY,
        "initializer_range" if kind != "opt" else "init_std": 0.3,
        "bos_token_id": 1,
        "eos_token_id": EOS,
        "pad_token_id": EOS,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transformers.AutoModelForCausalLM.from_config(
            make(**{**common, **shape, **config})
        ).eval()


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Any]:
    return build


@pytest.fixture(params=["gpt2", "llama", "tiny"])
def kind(request: pytest.FixtureRequest) -> str:
    """Absolute positions, rotary positions, and the package's own model."""
    return request.param


@pytest.fixture
def model(kind: str) -> Any:
    return build(kind)


@pytest.fixture
def one_process(tmp_path):
    """A process group with this process alone."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


WORDS = ["<end>", "good", "bad", "table", "happy", "sad", "day", "the"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A random model of eight words, with a tokenizer that splits at spaces."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    path = tmp_path_factory.mktemp("model")
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<end>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.decoder = decoders.WordPiece(prefix="@@")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<end>", pad_token="<end>"
    ).save_pretrained(path)
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS),
        max_position_embeddings=256,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path
