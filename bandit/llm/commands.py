"""The command line of language models: ``python -m bandit.llm generate``, ``score``, ``train`` …

Models and tokenizers are folders on this machine, with weights as safetensors; nothing is looked
for on the network, and no code that comes with a model is run. Files hold one JSON object a line.
What ``generate`` writes, ``score`` reads and adds to, and ``train`` learns from; ``reward`` trains
a model that ``score`` can ask. A wrong value gives one line on stderr and exit status 2.
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bandit
from bandit import losses
from bandit._command_line import Parser, add_command, answered
from bandit.llm import actions
from bandit.llm.command_files import PROGRAM

# What the package calls an argument, where the option is called otherwise.
_OPTION_OF = {
    "rng": "seed",
    "method": "loss",
    "required": "reward",
    "completions": "data",
    "resume_from_checkpoint": "resume",
}


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
    _add_generate(commands)
    _add_score(commands)
    _add_train(commands)
    _add_reward(commands)
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


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="FILE", help="(standard output)")
    parser.add_argument("--overwrite", action="store_true", help="--out may exist")


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
        "--baseline", type=float, metavar="X", help="a number subtracted from all rewards"
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
    group.add_argument("--eval-data", type=Path, metavar="FILE", help="measured, not learned from")
    group.add_argument("--log", type=Path, metavar="FILE", help="what is measured on the way, CSV")
    group.add_argument("--save-every", type=int, metavar="N", help="steps between checkpoints")
    group.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FOLDER", help="for the trained model"
    )
    parser.set_defaults(command=actions.train)


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
        "--reward",
        metavar="NAME",
        help="sentiment, length:WORDS or matches:REGEX, of the texts; model:FOLDER, as `reward` "
        "has trained one",
    )
    parser.add_argument(
        "--pairs",
        action="store_true",
        help="write best and worst of each row as chosen and rejected, without those that tie",
    )
    _add_out(parser)
    parser.set_defaults(command=actions.score)


def _add_generate(commands: Any) -> None:
    parser = _add(
        commands,
        "generate",
        "sample completions",
        "Writes a row a prompt: token ids of prompt and completions, their texts, which were\n"
        "cut short, `behavior_log_prob`, ln μ at the temperature they were drawn at, and that.\n"
        "Rows of --prompts have `prompt`: text, token ids, or messages of a chat.",
        "--model ./model --prompts prompts.jsonl --samples 4 --out samples.jsonl",
    )
    parser.add_argument("--prompts", type=Path, metavar="FILE", help=".jsonl, .parquet")
    parser.add_argument("--prompt", metavar="TEXT", help="one prompt, instead of a file")
    parser.add_argument("--chat", action="store_true", help="texts are what a user says in a chat")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="each (1)")
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="(64)")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="X", help="(1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(0)")
    _add_out(parser)
    parser.set_defaults(command=actions.generate)


def _add_reward(commands: Any) -> None:
    parser = _add(
        commands,
        "reward",
        "train a reward model from preferences",
        "Fits the Bradley-Terry model P(y > y') = sigma(r - r') to pairs with a preference, and\n"
        "says how accurate and how well calibrated it is on pairs held out. It begins with the\n"
        "layers of a causal model, and a new output of one number.",
        "--data pairs.jsonl --model ./model --out ./judge",
    )
    _add_data(parser)
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="(100)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="pairs a step (16)")
    parser.add_argument("--learning-rate", type=float, default=1e-5, metavar="X", help="(1e-5)")
    parser.add_argument("--weight-decay", type=float, default=0.0, metavar="X", help="(0)")
    parser.add_argument(
        "--held-out", type=float, default=0.2, metavar="X", help="share of pairs to judge by (0.2)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(0)")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FOLDER", help="for the reward model"
    )
    parser.set_defaults(command=actions.reward)
