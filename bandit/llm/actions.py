"""What the commands of ``python -m bandit.llm`` do, with their options parsed."""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from bandit import _checks, losses
from bandit._command_line import complain
from bandit.llm.command_files import (
    PROGRAM,
    check_file,
    check_folder,
    check_seed,
    completions,
    output,
    say,
    write,
)
from bandit.llm.folders import load_model, load_scorer, load_tokenizer, with_adapters


def bound_loss(
    name: str, beta: float | None, settings: Sequence[str], baseline: float | None = None
) -> losses.Loss:
    """A loss of the registry with its hyper-parameters, ``beta`` and ``NAME=VALUE``, bound."""
    loss = losses.get(name)
    taken = {k for k, p in inspect.signature(loss).parameters.items() if p.kind == p.KEYWORD_ONLY}
    given: dict[str, Any] = {} if beta is None else {"beta": beta}
    if baseline is not None:
        if "baseline" not in taken:
            raise ValueError(f"baseline: expected none for {name}, got {baseline:g}")
        given["baseline"] = "given"
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"option: expected NAME=VALUE, got {setting!r}")
        if key in given:
            raise ValueError(f"option: expected {key} once, got it again as {setting}")
        try:
            given[key] = json.loads(value)
        except json.JSONDecodeError:
            given[key] = value
    if unknown := sorted(given.keys() - taken):
        raise ValueError(
            f"option: expected one of {', '.join(sorted(taken))} for {name}, got {unknown[0]}"
        )
    for key in ("beta", "eta"):
        if key in taken:
            if key not in given:
                raise ValueError(f"{key}: expected a number above 0 for {name}, got None")
            _checks.positive_number(key, given[key])
    if given.get("baseline") == "given" and baseline is None:
        raise ValueError("option: expected --baseline X for baseline=given, got none")
    return functools.partial(loss, **given)


# ------------------------------------------------------------------------------------- train


def train(options: argparse.Namespace) -> None:
    """Train a model on offline completions, and say where it was saved."""
    loss = bound_loss(options.loss, options.beta, options.option, options.baseline)
    _check_numbers(options, ("steps", "batch_size", "micro_batch", "lora", "save_every"))
    if options.batch_size % (options.micro_batch or options.batch_size):
        raise ValueError(
            f"micro_batch: expected a divisor of --batch-size {options.batch_size}, "
            f"got {options.micro_batch}"
        )
    if not options.resume:
        check_folder(options.out, ", or --resume")
        check_file("log", options.log, overwrite=False)
    tokenizer = load_tokenizer(options.model)
    data = completions(options, options.data, "data", tokenizer)
    held_out = None
    if options.eval_data is not None:
        held_out = completions(options, options.eval_data, "eval_data", tokenizer)
    from bandit.llm.surrogate import check
    from bandit.llm.trainer import SequenceTrainer

    check(loss, data, baseline=options.baseline)
    model = load_model(options.model)
    if options.lora:
        model = with_adapters(model, options.lora, options.seed)
    trainer = SequenceTrainer(
        model,
        _arguments(options, held_out is not None),
        data,
        loss,
        eval_dataset=held_out,
        reduction=options.reduction,
        baseline=options.baseline,
    )
    with contextlib.redirect_stdout(sys.stderr):  # Trainer prints its records
        trainer.train(resume_from_checkpoint=options.resume)
    if options.log is not None:
        import pandas as pd

        pd.DataFrame(trainer.state.log_history).to_csv(options.log, index=False)
    if not all(p.isfinite().all() for p in model.parameters()):
        raise ValueError(
            f"learning_rate: expected one at which weights stay finite, got {options.learning_rate}"
        )
    trainer.save_model(str(options.out))
    # What Trainer adds to a model is a pickle of its own settings.
    (options.out / "training_args.bin").unlink(missing_ok=True)
    if tokenizer is not None:
        tokenizer.save_pretrained(options.out)
    say({"saved": str(options.out), "steps": trainer.state.global_step})


def _check_numbers(options: argparse.Namespace, integers: Sequence[str]) -> None:
    for name in integers:
        if getattr(options, name) is not None:
            _checks.positive_integer(name, getattr(options, name))
    _checks.positive_number("learning_rate", options.learning_rate)
    check_seed(options.seed)


def _arguments(options: argparse.Namespace, evaluated: bool) -> Any:
    import torch
    from transformers import TrainingArguments

    micro, every = options.micro_batch or options.batch_size, max(1, options.steps // 20)
    return TrainingArguments(
        str(options.out),
        max_steps=options.steps,
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        gradient_accumulation_steps=options.batch_size // micro,
        learning_rate=options.learning_rate,
        seed=options.seed,
        save_strategy="steps" if options.save_every else "no",
        save_steps=options.save_every or options.steps,
        logging_steps=every,
        eval_strategy="steps" if evaluated else "no",
        eval_steps=every,
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=not sys.stderr.isatty(),
    )


# ------------------------------------------------------------------------------------- reward


def reward(options: argparse.Namespace) -> None:
    """Train a reward model on pairs, and say how it does on pairs held out."""
    _check_numbers(options, ("steps", "batch_size"))
    if not 0 <= options.held_out < 1:
        raise ValueError(f"held_out: expected a share from 0 to below 1, got {options.held_out}")
    check_folder(options.out)
    tokenizer = load_tokenizer(options.model)
    data = completions(options, options.data, "data", tokenizer)
    from bandit.llm.completions import Completions
    from bandit.llm.references import check_fit
    from bandit.llm.reward_model import RewardModel, evaluate_reward_model, train_reward_model

    order = np.random.default_rng(options.seed).permutation(len(data))
    judged = round(options.held_out * len(data))
    if judged == len(data) or (options.held_out and not judged):
        raise ValueError(
            f"held_out: expected at least one pair on either side, got {judged} of {len(data)}"
        )
    held_out, learned_from = (
        Completions([data[i] for i in part]) for part in np.split(order, [judged])
    )
    scorer = load_scorer(options.model, seed=options.seed)
    model = RewardModel(scorer)
    check_fit(scorer, data)
    train_reward_model(
        model,
        learned_from,
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        rng=options.seed,
        progress=sys.stderr.isatty(),
    )
    found: dict[str, Any] = {"saved": str(options.out), "pairs": len(learned_from)}
    if judged:
        report = evaluate_reward_model(model, held_out)
        found |= {
            "held_out": report.pairs,
            "accuracy": report.accuracy,
            "calibration_error": report.calibration_error,
            "log_loss": report.log_loss,
        }
    scorer.save_pretrained(options.out)
    if tokenizer is not None:
        tokenizer.save_pretrained(options.out)
    say(found)


# -------------------------------------------------------------------------------------- score


def score(options: argparse.Namespace) -> None:
    """Add log-probabilities, and rewards if asked for, to the rows of a file."""
    from bandit.llm.records import records_of
    from bandit.llm.references import reference_log_probs

    values = _values(options.reward)
    check_file("out", options.out, overwrite=options.overwrite)
    tokenizer = load_tokenizer(options.model)
    data = completions(options, options.data, "data", tokenizer)
    records = list(records_of(options.data))
    log_probs = reference_log_probs(load_model(options.model), data)
    means, ties = [], 0
    with output(options.out) as out:
        for row, log_prob in zip(data, log_probs, strict=True):
            record = dict(records[row.row_id]) | {"log_prob": log_prob.tolist()}
            if values is not None:
                rewards = values(record, row, data.tokenizer_fingerprint)
                means.append(np.mean(rewards))
                if "chosen" in record:
                    record["chosen_score"], record["rejected_score"] = rewards
                else:
                    record["rewards"] = rewards
            found = best_and_worst(record, row.row_id) if options.pairs else record
            if found is None:
                ties += 1
            else:
                write(out, found)
    if ties:
        complain(PROGRAM, f"warning: rows left out, as their rewards are all equal: {ties}")
    if options.out is not None:
        said: dict[str, Any] = {"saved": str(options.out), "rows": len(data) - ties}
        if means:
            said["reward"] = float(np.mean(means))
        if len(means) > 1:
            said["reward_se"] = float(np.std(means, ddof=1) / np.sqrt(len(means)))
        say(said)


# Columns with an entry for each completion.
_OF_EACH = ("texts", "log_prob", "behavior_log_prob", "truncated")


def best_and_worst(record: dict[str, Any], row: int) -> dict[str, Any] | None:
    """The pair of a group's completions of highest and lowest reward, or None if all are equal."""
    rewards = record.get("rewards")
    if rewards is None or "chosen" in record:
        raise ValueError(
            f"pairs: expected groups with rewards (or --reward), got none in row {row}"
        )
    best, worst = int(np.argmax(rewards)), int(np.argmin(rewards))
    if rewards[best] == rewards[worst]:
        return None
    pair = {name: value for name, value in record.items() if name not in ("completions", "rewards")}
    pair |= {name: [pair[name][best], pair[name][worst]] for name in _OF_EACH if name in pair}
    for name, i in (("chosen", best), ("rejected", worst)):
        pair[name], pair[f"{name}_score"] = record["completions"][i], rewards[i]
    return pair


def _values(name: str | None) -> Any:
    """A function of a record, its row and what tokenized it: the rewards of its completions."""
    from bandit.llm.rewards import by_name, rewarded

    if name is None:
        return None
    kind, _, folder = name.partition(":")
    if kind == "model" and folder:
        return _judge(folder)
    asked = by_name(name)

    def values(record: dict[str, Any], row: Any, fingerprint: str) -> list[float]:
        prompt, texts = _texts(record, row.row_id)
        return rewarded(asked, [prompt] * len(texts), texts).tolist()

    return values


def _judge(folder: str) -> Any:
    """Rewards of a model: of the row's token ids, if they are those of its own tokenizer."""
    from bandit.llm import fingerprints
    from bandit.llm.reward_model import RewardModel, learned
    from bandit.llm.rewards import rewarded

    try:
        tokenizer, model = load_tokenizer(folder), RewardModel(load_scorer(folder)).eval()
    except ValueError as error:  # of another option
        raise ValueError(str(error).replace("model:", "reward:", 1)) from None
    own = "" if tokenizer is None else fingerprints.of_tokenizer(tokenizer)

    def values(record: dict[str, Any], row: Any, fingerprint: str) -> list[float]:
        if fingerprint == own:
            prompts = [row.prompt_ids] * len(row.completion_ids)
            return model.rewards(prompts, row.completion_ids).tolist()
        if tokenizer is None:
            raise ValueError(f"reward: expected a tokenizer in {folder}, as in --model, got none")
        prompt, texts = _texts(record, row.row_id)
        return rewarded(learned(model, tokenizer), [prompt] * len(texts), texts).tolist()

    return values


def _texts(record: dict[str, Any], row: int) -> tuple[str, list[str]]:
    """Prompt and completions of a record as text."""
    from bandit.llm.messages import text_of

    pair = [record.get("chosen"), record.get("rejected")]
    prompt = text_of(record.get("prompt_text", record.get("prompt")))
    texts = [text_of(y) for y in record.get("texts", record.get("completions", pair))]
    if not isinstance(prompt, str) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"reward: expected texts (or prompt_text and texts) in row {row}, got ids")
    return prompt, texts


# ----------------------------------------------------------------------------------- generate


def generate(options: argparse.Namespace) -> None:
    """Sample completions of prompts."""
    from bandit.llm import generation
    from bandit.llm.messages import text_of
    from bandit.llm.records import records_of

    if (options.prompts is None) == (options.prompt is None):
        raise ValueError("prompts: expected either --prompts FILE or --prompt TEXT")
    check_seed(options.seed)
    check_file("out", options.out, overwrite=options.overwrite)
    given = (
        [options.prompt]
        if options.prompts is None
        else [record.get("prompt") for record in records_of(options.prompts, "prompts")]
    )
    tokenizer = load_tokenizer(options.model)
    if options.chat and getattr(tokenizer, "chat_template", None) is None:
        raise ValueError("chat: expected a tokenizer with a chat template, got none")
    ids = [_prompt_ids(prompt, i, tokenizer, options.chat) for i, prompt in enumerate(given)]
    model = load_model(options.model)
    ends = generation.ends_of(model)
    spoken, log_probs = generation.generate(
        model,
        ids,
        samples=options.samples,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        rng=options.seed,
    )
    with output(options.out) as out:
        for prompt, row, drawn, log_prob in zip(given, ids, spoken, log_probs, strict=True):
            record = {
                "prompt": row,
                "completions": drawn,
                "behavior_log_prob": log_prob.tolist(),
                "temperature": options.temperature,
                "truncated": [y[-1] not in ends for y in drawn],
            }
            if tokenizer is not None:
                text = text_of(prompt)
                record["prompt_text"] = text if isinstance(text, str) else tokenizer.decode(row)
                record["texts"] = tokenizer.batch_decode(drawn, skip_special_tokens=True)
            write(out, record)
    if options.out is not None:
        say({"saved": str(options.out), "rows": len(ids), "samples": options.samples})


def _prompt_ids(prompt: Any, row: int, tokenizer: Any, chat: bool) -> list[int]:
    from bandit.llm.records import BadRowError, Reader

    if chat and isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    try:
        return Reader(tokenizer, None, None, False).ids("prompt", prompt)
    except BadRowError as bad:
        raise ValueError(f"prompts: row {row}, {bad}") from None
