"""The command line of language models: ``python -m bandit.llm train``, ``score`` and ``generate``.

Models and tokenizers are folders on this machine, with weights as safetensors; nothing is looked
for on the network, and no code that comes with a model is run. Files hold one JSON object a line.
What ``generate`` writes, ``score`` reads and adds to, and ``train`` learns from. A wrong value
gives one line on stderr and exit status 2.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import bandit
from bandit import _checks, losses
from bandit._command_line import Parser, add_command, answered, complain
from bandit.llm.folders import load_model, load_tokenizer, with_adapters

PROGRAM = "python -m bandit.llm"

# What the package calls an argument, where the option is called otherwise.
_OPTION_OF = {"rng": "seed", "required": "reward", "resume_from_checkpoint": "resume"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, 2 for a wrong value."""
    # Before the libraries that read it are loaded.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return answered(PROGRAM, functools.partial(_run, argv), _OPTION_OF)


def _run(argv: Sequence[str] | None, options: argparse.Namespace) -> int:
    _parser().parse_args(argv, namespace=options)
    options.command(options)
    return 0


# --------------------------------------------------------------------------------- options


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Learning objectives on language models, from offline completions.",
        epilog=f"{PROGRAM} COMMAND --help tells more, with an example.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"copg-bandit {bandit.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(commands)
    _add_score(commands)
    _add_generate(commands)
    return parser


def _add(commands: Any, name: str, summary: str, details: str, example: str) -> Parser:
    parser = add_command(PROGRAM, commands, name, summary, details, example)
    parser.add_argument(
        "--model", required=True, metavar="PATH", help="folder of a causal model, or of adapters"
    )
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help=".jsonl, .parquet")
    parser.add_argument("--max-length", type=int, metavar="N", help="most tokens of a row")
    parser.add_argument(
        "--on-bad", choices=("raise", "drop"), default="raise", help="unusable rows (raise)"
    )


def _add_train(commands: Any) -> None:
    parser = _add(
        commands,
        "train",
        "train a model on offline completions",
        "Trains a model on completions with rewards or preferences. Rows have `prompt` and\n"
        "`completions` (text or token ids) with `rewards` or `preference`, or `prompt`, `chosen`\n"
        "and `rejected`. The reference is the model as it comes in.",
        "--data pairs.jsonl --model ./model --loss copg --beta 0.1 --out ./trained",
    )
    _add_data(parser)
    group = parser.add_argument_group("objective")
    group.add_argument(
        "--loss", default="copg", metavar="NAME", help=f"of {', '.join(losses.REGISTRY)} (copg)"
    )
    group.add_argument("--beta", type=float, metavar="X", help="strength of the KL penalty")
    group.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another hyper-parameter of the loss, such as epsilon=0.1",
    )
    group.add_argument(
        "--reduction", choices=("sum", "mean"), default="sum", help="over tokens (sum)"
    )
    group = parser.add_argument_group("training")
    group.add_argument("--steps", type=int, default=100, metavar="N", help="(100)")
    group.add_argument("--batch-size", type=int, default=8, metavar="N", help="rows a step (8)")
    group.add_argument(
        "--micro-batch", type=int, metavar="N", help="rows held at once (all of a step)"
    )
    group.add_argument("--learning-rate", type=float, default=1e-5, metavar="X", help="(1e-5)")
    group.add_argument("--lora", type=int, metavar="RANK", help="train adapters of this rank alone")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="(0)")
    group.add_argument("--save-every", type=int, metavar="N", help="steps between checkpoints")
    group.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FOLDER", help="for the trained model"
    )
    parser.set_defaults(command=_train)


def _add_score(commands: Any) -> None:
    parser = _add(
        commands,
        "score",
        "log-probabilities and rewards of completions",
        "Adds `log_prob` to each row, ln π of its completions in nats; with --reward, `rewards`\n"
        "(of a chosen and a rejected one, `chosen_score` and `rejected_score`).",
        "--data samples.jsonl --model ./model --reward sentiment --out scored.jsonl",
    )
    _add_data(parser)
    parser.add_argument(
        "--reward", metavar="NAME", help="sentiment, length:WORDS or matches:REGEX, of the texts"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="(standard output)")
    parser.set_defaults(command=_score)


def _add_generate(commands: Any) -> None:
    parser = _add(
        commands,
        "generate",
        "sample completions",
        "Writes a row a prompt: token ids of prompt and completions, their texts, which were\n"
        "cut short, `behavior_log_prob`, ln μ at the temperature they were drawn at, and that.",
        "--model ./model --prompts prompts.jsonl --samples 4 --out samples.jsonl",
    )
    parser.add_argument("--prompts", type=Path, metavar="FILE", help=".jsonl with `prompt`")
    parser.add_argument("--prompt", metavar="TEXT", help="one prompt, instead of a file")
    parser.add_argument("--chat", action="store_true", help="put prompts in the chat template")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="each (1)")
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="(64)")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="X", help="(1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(0)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="(standard output)")
    parser.set_defaults(command=_generate)


# ---------------------------------------------------------------------------------- commands


def bound_loss(name: str, beta: float | None, settings: Sequence[str]) -> losses.Loss:
    """A loss of the registry with its hyper-parameters, ``beta`` and ``NAME=VALUE``, bound."""
    loss = losses.get(name)
    taken = {k for k, p in inspect.signature(loss).parameters.items() if p.kind == p.KEYWORD_ONLY}
    given: dict[str, Any] = {} if beta is None else {"beta": beta}
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
    return functools.partial(loss, **given)


def _completions(options: argparse.Namespace, tokenizer: Any) -> Any:
    from bandit.llm.completions import Completions

    readers = {".jsonl": Completions.from_jsonl, ".parquet": Completions.from_parquet}
    if options.data.suffix not in readers:
        raise ValueError(f"data: expected a .jsonl or .parquet file, got {options.data}")
    data = readers[options.data.suffix](
        options.data, tokenizer=tokenizer, max_length=options.max_length, on_bad=options.on_bad
    )
    if data.dropped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in data.dropped.items())
        complain(PROGRAM, f"warning: rows dropped from {options.data}: {reasons}")
    if not len(data):
        raise ValueError(f"data: expected at least one row, got none in {options.data}")
    return data


def _train(options: argparse.Namespace) -> None:
    loss = bound_loss(options.loss, options.beta, options.option)
    for name in ("steps", "batch_size", "micro_batch", "lora", "save_every"):
        if getattr(options, name) is not None:
            _checks.positive_integer(name, getattr(options, name))
    _checks.positive_number("learning_rate", options.learning_rate)
    micro = options.micro_batch or options.batch_size
    if options.batch_size % micro:
        raise ValueError(
            f"micro_batch: expected a divisor of --batch-size {options.batch_size}, got {micro}"
        )
    if not options.resume and options.out.is_dir() and any(options.out.iterdir()):
        raise ValueError(f"out: expected a new or empty folder, or --resume, got {options.out}")
    tokenizer = load_tokenizer(options.model)
    data = _completions(options, tokenizer)
    import torch
    from transformers import TrainingArguments

    from bandit.llm.surrogate import check
    from bandit.llm.trainer import SequenceTrainer

    check(loss, data)
    model = load_model(options.model)
    if options.lora:
        model = with_adapters(model, options.lora, options.seed)
    args = TrainingArguments(
        str(options.out),
        max_steps=options.steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=options.batch_size // micro,
        learning_rate=options.learning_rate,
        seed=options.seed,
        save_strategy="steps" if options.save_every else "no",
        save_steps=options.save_every or options.steps,
        logging_steps=max(1, options.steps // 20),
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=not sys.stderr.isatty(),
    )
    trainer = SequenceTrainer(model, args, data, loss, reduction=options.reduction)
    with contextlib.redirect_stdout(sys.stderr):  # Trainer prints its records
        trainer.train(resume_from_checkpoint=options.resume)
    trainer.save_model(str(options.out))
    # What Trainer adds to a model is a pickle of its own settings.
    (options.out / "training_args.bin").unlink(missing_ok=True)
    if tokenizer is not None:
        tokenizer.save_pretrained(options.out)
    print(json.dumps({"saved": str(options.out), "steps": trainer.state.global_step}))


def _score(options: argparse.Namespace) -> None:
    from bandit.llm.records import json_lines
    from bandit.llm.references import reference_log_probs
    from bandit.llm.rewards import by_name, rewarded

    reward = by_name(options.reward) if options.reward else None
    if options.data.suffix != ".jsonl":
        raise ValueError(f"data: expected a .jsonl file, got {options.data}")
    data = _completions(options, load_tokenizer(options.model))
    records = list(json_lines(options.data))
    log_probs = reference_log_probs(load_model(options.model), data)
    with _output(options.out) as out:
        for row, log_prob in zip(data, log_probs, strict=True):
            record = dict(records[row.row_id]) | {"log_prob": log_prob.tolist()}
            if reward is not None:
                prompt, texts = _texts(record, row.row_id)
                values = rewarded(reward, [prompt] * len(texts), texts).tolist()
                if "chosen" in record:
                    record["chosen_score"], record["rejected_score"] = values
                else:
                    record["rewards"] = values
            _write(out, record)


def _texts(record: dict[str, Any], row: int) -> tuple[str, list[str]]:
    """Prompt and completions of a record as text."""
    pair = [record.get("chosen"), record.get("rejected")]
    prompt = record.get("prompt_text", record.get("prompt"))
    texts = record.get("texts", record.get("completions", pair))
    if not isinstance(prompt, str) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"reward: expected texts (or prompt_text and texts) in row {row}, got ids")
    return prompt, texts


def _generate(options: argparse.Namespace) -> None:
    from bandit.llm.generation import ends_of, generate
    from bandit.llm.records import json_lines

    if (options.prompts is None) == (options.prompt is None):
        raise ValueError("prompts: expected either --prompts FILE or --prompt TEXT")
    given = (
        [options.prompt]
        if options.prompts is None
        else [record.get("prompt") for record in json_lines(options.prompts)]
    )
    tokenizer = load_tokenizer(options.model)
    ids = [_prompt_ids(prompt, i, tokenizer, options.chat) for i, prompt in enumerate(given)]
    model = load_model(options.model)
    ends = ends_of(model)
    completions, log_probs = generate(
        model,
        ids,
        samples=options.samples,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        rng=options.seed,
    )
    with _output(options.out) as out:
        for prompt, row, drawn, log_prob in zip(given, ids, completions, log_probs, strict=True):
            record = {
                "prompt": row,
                "completions": drawn,
                "behavior_log_prob": log_prob.tolist(),
                "temperature": options.temperature,
                "truncated": [y[-1] not in ends for y in drawn],
            }
            if tokenizer is not None:
                record["prompt_text"] = prompt if isinstance(prompt, str) else tokenizer.decode(row)
                record["texts"] = tokenizer.batch_decode(drawn, skip_special_tokens=True)
            _write(out, record)


def _prompt_ids(prompt: Any, row: int, tokenizer: Any, chat: bool) -> list[int]:
    from bandit.llm.records import BadRowError, Reader

    if not isinstance(prompt, str):
        return prompt
    if tokenizer is None:
        raise ValueError(f"prompts: expected token ids in row {row}, as the model has no tokenizer")
    if not chat:
        try:
            return Reader(tokenizer, None, None, False).ids("prompt", prompt)
        except BadRowError as bad:
            raise ValueError(f"prompts: row {row}, {bad}") from None
    if tokenizer.chat_template is None:
        raise ValueError("chat: expected a tokenizer with a chat template, got none")
    # The template writes the beginning of the sequence itself, where there is one.
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    return tokenizer(prompt, add_special_tokens=False)["input_ids"]


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
    else:
        with path.open("w", encoding="utf-8") as file:
            yield file


def _write(out: Iterable[str] | TextIO, record: dict[str, Any]) -> None:
    print(json.dumps(record, ensure_ascii=False), file=out)  # type: ignore[arg-type]
