"""On-policy rounds: let the model speak, score what it said, train on it, again."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from bandit import _checks
from bandit.llm.completions import Completions
from bandit.llm.generation import Samples, generate
from bandit.llm.references import reference_log_probs
from bandit.llm.trainer import SequenceTrainer
from bandit.losses import Loss

Reward = Callable[[list[Any], list[Any]], Sequence[float]]


def train_rounds(
    model: Any,
    args: transformers.TrainingArguments,
    loss: Loss,
    prompts: Sequence[Sequence[int]],
    reward: Reward,
    *,
    rounds: int,
    samples: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    tokenizer: Any = None,
    reference: Any = None,
    eos: Any = None,
    rng: int | np.random.Generator,
    **trainer_options: Any,
) -> list[dict[str, float]]:
    """Generate, score and train, in turn.

    Parameters
    ----------
    model : causal language model
        Trained in place.
    args : transformers.TrainingArguments
        Of one round's training, a constant learning rate for instance; the optimizer's state goes
        on from round to round, the schedule begins anew. Checkpoints go to ``round-000`` … inside
        ``output_dir``.
    loss : function of :mod:`bandit.losses`
        With its hyper-parameters bound.
    prompts : X lists of token ids
    reward : callable
        Given a prompt and a completion for each sample, in two lists of equal length, it returns
        their rewards: texts (without special tokens) if there is a ``tokenizer``, else token ids.
    rounds : int
    samples, max_new_tokens, temperature, eos
        As in :func:`bandit.llm.generate`. The completions' log-probabilities at that temperature
        are the ``behavior_log_prob`` the loss may ask for.
    tokenizer : optional
        A ``transformers`` tokenizer.
    reference : causal language model, optional
        π_ref. Default: a copy of the model as it comes in; of a PEFT model the adapter is switched
        off instead.
    rng : seed or numpy.random.Generator
        For the sampling.
    **trainer_options
        As :class:`SequenceTrainer` takes them.

    Returns
    -------
    list of dict
        What the trainer logged, each with its ``round`` and the ``temperature`` of its samples.
    """
    rounds = _checks.positive_integer("rounds", rounds)
    rng = np.random.default_rng(rng)
    reference = _as_it_comes_in(model) if reference is None else reference
    history: list[dict[str, float]] = []
    trainer: SequenceTrainer | None = None
    for number in range(rounds):
        spoken = generate(
            model,
            prompts,
            samples=samples,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            eos=eos,
            rng=rng,
        )
        rewards = scored(reward, prompts, spoken.completions, tokenizer)
        data = _to_learn_from(prompts, spoken, rewards, reference)
        place = str(Path(str(args.output_dir)) / f"round-{number:03d}")
        own = dataclasses.replace(args, output_dir=place)
        optimizer = None if trainer is None else trainer.optimizer
        trainer = SequenceTrainer(
            model, own, data, loss, optimizers=(optimizer, None), **trainer_options
        )
        trainer.train()
        drawn_at = {"round": number, "temperature": temperature}
        history += [{**drawn_at, **record} for record in trainer.state.log_history]
    return history


def _as_it_comes_in(model: Any) -> Any:
    """What stays as the model is now: a copy, or the model itself if it can drop its adapter."""
    if hasattr(model, "disable_adapter"):
        return model
    return copy.deepcopy(model).requires_grad_(False)


def _to_learn_from(
    prompts: Sequence[Sequence[int]], spoken: Samples, rewards: list[np.ndarray], reference: Any
) -> Completions:
    """What was said, with its rewards and both log-probabilities."""
    data = Completions.from_lists(
        prompts,
        spoken.completions,
        rewards=rewards,
        behavior_log_probs=list(spoken.behavior_log_prob),
    )
    return data.with_reference(reference_log_probs(reference, data))


def scored(
    reward: Reward,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[Sequence[int]]],
    tokenizer: Any = None,
) -> list[np.ndarray]:
    """Rewards (G,) of each prompt's completions, asked for in one call."""

    def shown(ids: Sequence[int]) -> Any:
        return ids if tokenizer is None else tokenizer.decode(ids, skip_special_tokens=True)

    pairs = [(shown(x), shown(y)) for x, ys in zip(prompts, completions, strict=True) for y in ys]
    values = _checks.finite_array("reward", reward([x for x, _ in pairs], [y for _, y in pairs]))
    if values.shape != (len(pairs),):
        raise ValueError(
            f"reward: expected a number for each of {len(pairs)} completions, "
            f"got an array of shape {values.shape}"
        )
    return np.split(values, np.cumsum([len(ys) for ys in completions])[:-1])
