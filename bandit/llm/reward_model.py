"""Rewards learned from preferences: the Bradley–Terry model P(y ≻ y') = σ(r(x, y) − r(x, y')).

Letters: ``B`` rows, ``T`` tokens, ``N`` pairs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from torch import Tensor, nn

from bandit import _checks, losses
from bandit.llm.records import bos_before
from bandit.llm.scoring import model_inputs, unwrapped
from bandit.llm.tiny import Decoder


class TinyScorer(nn.Module):
    """The tiny transformer with one number for its output instead of a token."""

    def __init__(
        self,
        vocabulary: int,
        longest: int,
        *,
        width: int = 32,
        layers: int = 2,
        heads: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.decoder = Decoder(vocabulary, longest, width, layers, heads)
            self.score = nn.Linear(width, 1, bias=False)

    @property
    def base_model(self) -> nn.Module:
        """Everything below the output."""
        return self.decoder


class RewardModel(nn.Module):
    """r(x, y), read off at the last token of the completion.

    Parameters
    ----------
    model : TinyScorer or transformers model
        One made by ``AutoModelForSequenceClassification`` with ``num_labels=1``, whichever way it
        finds the end of a text: with a causal decoder the last token is found from lengths here,
        never from the padding token.

    Notes
    -----
    Preferences determine differences of reward after one prompt only: a constant may be added for
    each prompt. Methods that feel such a shift (policy gradient without a baseline) feel it here.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        labels = getattr(getattr(model, "config", None), "num_labels", 1)
        if labels != 1:
            raise ValueError(f"model: expected a model with num_labels=1, got {labels}")
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Rewards (B,) of rows (B, T) padded on the right."""
        inside = unwrapped(self.model)
        if not hasattr(inside, "score"):
            # An encoder: it reads the whole text from its first token, and counts its own way.
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits[:, 0]
        below = inside.base_model
        hidden = below(**model_inputs(below, input_ids, attention_mask))[0]  # (B, T, d)
        last = attention_mask.long().sum(dim=1) - 1
        return inside.score(hidden[torch.arange(len(last), device=last.device), last])[:, 0].float()

    @torch.no_grad()
    def rewards(
        self, prompts: Any, completions: Any, *, batch_size: int = 256
    ) -> NDArray[np.float64]:
        """r of each row of token ids, prompt and completion, as (N,)."""
        was, device = self.training, next(self.parameters()).device
        self.eval()
        texts = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
        parts = [
            self(*(field.to(device) for field in _right_padded(texts[i : i + batch_size])))
            for i in range(0, len(texts), batch_size)
        ]
        self.train(was)
        return torch.cat(parts).double().cpu().numpy()


def train_reward_model(
    model: RewardModel,
    completions: Any,
    *,
    steps: int,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.0,
    rng: int | np.random.Generator,
    progress: bool = False,
) -> RewardModel:
    """Fit a reward model to preferences by maximum likelihood (AdamW, step size falling to 0).

    Parameters
    ----------
    model : RewardModel
        Trained in place, and returned.
    completions : Completions
        Pairs with a preference: a label 0 or 1, or a probability.
    steps, batch_size : int
        Pairs are drawn without replacement until all were used, then anew.
    learning_rate, weight_decay : float
    rng : seed or numpy.random.Generator
    progress : bool
        A progress bar.
    """
    steps = _checks.positive_integer("steps", steps)
    pairs, preference = _pairs_of(completions)
    generator = np.random.default_rng(rng)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    device = parameters[0].device
    model.train()
    for rows in _shown(shuffled(len(pairs), batch_size, steps, generator), steps, progress):
        texts = [text for row in rows for text in pairs[row]]
        score = model(*(field.to(device) for field in _right_padded(texts))).unflatten(0, (-1, 2))
        p = torch.as_tensor(preference[rows], dtype=score.dtype, device=device)
        # Bradley–Terry likelihood is DPO's with rewards in the place of log-ratios.
        group = losses.Group(score, torch.zeros_like(score), preference=p)
        weight = losses.dpo(group, beta=1.0).weight.detach()
        optimizer.zero_grad()
        ((weight * score).sum() / len(rows)).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


class RewardReport(NamedTuple):
    """How a reward model does on pairs it has not seen."""

    accuracy: float
    """Share of pairs in which the completion with the higher reward is the preferred one."""
    calibration_error: float
    """Mean distance of predicted from observed frequency (ECE), over bins weighted by pairs."""
    log_loss: float
    """Negative log-likelihood a pair, in nats; ln 2 = 0.693 for a model that knows nothing."""
    reliability: pd.DataFrame
    """A row a bin of predicted probability: ``predicted``, ``observed``, ``pairs``."""
    pairs: int


def evaluate_reward_model(model: RewardModel, completions: Any, *, bins: int = 10) -> RewardReport:
    """Accuracy and calibration of P̂ = σ(r − r') on pairs with a preference."""
    pairs, preference = _pairs_of(completions)
    texts = [text for pair in pairs for text in pair]
    rewards = model.rewards([[] for _ in texts], texts).reshape(-1, 2)
    return report(rewards[:, 0] - rewards[:, 1], preference, bins=bins)


def report(margin: ArrayLike, preference: ArrayLike, *, bins: int = 10) -> RewardReport:
    """The report from margins r − r' (N,) and preferences (N,) for the first of each pair.

    Every pair is looked at from the side of the completion the model prefers, so that the table
    does not depend on who stands first: predictions are from ½ to 1, in ``bins`` bins of equal
    width. A preference that is a probability counts for both sides in its proportion; equal rewards
    are half right.
    """
    margin = _checks.finite_array("margin", margin)
    preference = _checks.finite_array("preference", preference)
    if margin.ndim != 1 or margin.shape != preference.shape or margin.size == 0:
        raise ValueError(
            f"preference: expected shape {margin.shape} like margin, (N,) and not empty, "
            f"got {preference.shape}"
        )
    bins = _checks.positive_integer("bins", bins)
    predicted = expit(np.abs(margin))
    right = np.where(margin >= 0, preference, 1 - preference)
    right = np.where(margin == 0, 0.5, right)
    which = np.minimum(((predicted - 0.5) * 2 * bins).astype(int), bins - 1)
    table = pd.DataFrame({"bin": which, "predicted": predicted, "observed": right, "pairs": 1})
    table = table.groupby("bin").agg({"predicted": "mean", "observed": "mean", "pairs": "sum"})
    error = float(
        (table.pairs * (table.predicted - table.observed).abs()).sum() / table.pairs.sum()
    )
    cost = preference * np.logaddexp(0, -margin) + (1 - preference) * np.logaddexp(0, margin)
    return RewardReport(float(right.mean()), error, float(cost.mean()), table, len(margin))


def learned(model: RewardModel, tokenizer: Any) -> Any:
    """A reward model as a reward of texts, ``(prompts, completions) -> rewards``.

    Prompt and completion are tokenized apart, the beginning of a sequence goes before the prompt
    where the tokenizer puts one, and the tokenizer's end-of-sequence token is added to the
    completion, as in training data.
    """
    begin = bos_before(tokenizer)
    start = [] if begin is None else [begin]
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]

    def reward(prompts: list[str], completions: list[str]) -> list[float]:
        ids = [
            tokenizer(texts, add_special_tokens=False)["input_ids"]
            for texts in (list(prompts), list(completions))
        ]
        return model.rewards([[*start, *p] for p in ids[0]], [[*c, *end] for c in ids[1]]).tolist()

    return reward


def shuffled(
    count: int, batch_size: int, steps: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """``steps`` batches of indices: every index once before any comes again."""
    waiting = np.zeros(0, dtype=np.int64)
    size = min(_checks.positive_integer("batch_size", batch_size), count)
    for _ in range(steps):
        if len(waiting) < size:
            waiting = np.concatenate([waiting, rng.permutation(count)])
        yield waiting[:size]
        waiting = waiting[size:]


def _pairs_of(completions: Any) -> tuple[list[tuple[list[int], list[int]]], NDArray[np.float64]]:
    """Both texts of every pair, prompt included, and the preferences."""
    pairs, preferences = [], []
    for i in range(len(completions)):
        row = completions[i]
        if len(row.completion_ids) != 2 or row.preference is None:
            raise ValueError(
                f"completions[{i}]: expected two completions and a preference, got "
                f"{len(row.completion_ids)} and {row.preference}"
            )
        first, second = ([*row.prompt_ids, *ids] for ids in row.completion_ids)
        pairs.append((first, second))
        preferences.append(float(row.preference))
    if not pairs:
        raise ValueError("completions: expected at least one pair, got none")
    return pairs, np.array(preferences)


def _right_padded(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(text) for text in texts])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.zeros(mask.shape, dtype=torch.long)
    ids[mask] = torch.tensor(list(itertools.chain.from_iterable(texts)))
    return ids, mask.long()


def _shown(batches: Any, total: int, progress: bool) -> Any:
    if not progress:
        return batches
    from tqdm import tqdm

    return tqdm(batches, total=total, desc="reward model", unit="step")
