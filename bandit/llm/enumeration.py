"""A language model as a bandit: every completion is an arm, every prompt a context.

With vocabulary ``V`` and at most ``L`` completion tokens small enough, all ``K`` completions are
listed, and the exact analysis of tabular policies works on a transformer. Letters: ``X`` prompts,
``P`` prompt tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from bandit.llm.scoring import model_inputs, unwrapped
from bandit.problem import Bandit

MOST_COMPLETIONS = 1 << 20


class Outputs(NamedTuple):
    """All K completions: ``tokens`` (K, L), zeros after the end, and ``lengths`` (K,)."""

    tokens: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths)


def all_completions(vocabulary: int, length: int, eos: int | None = None) -> Outputs:
    """Every completion of at most ``length`` tokens, in lexicographic order.

    Without ``eos`` these are the V^L sequences of full length. With it a completion ends at its
    first ``eos`` (which belongs to it) or at the full length.

    Raises
    ------
    ValueError
        If they are more than about a million.
    """
    if vocabulary**length > MOST_COMPLETIONS:
        raise ValueError(
            f"length: expected at most {MOST_COMPLETIONS} completions to list, "
            f"got {vocabulary}^{length}"
        )
    tokens = np.stack(np.unravel_index(np.arange(vocabulary**length), (vocabulary,) * length), -1)
    lengths = np.full(len(tokens), length)
    if eos is not None:
        ended = tokens == eos
        lengths = np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, length)
        after = np.arange(length) >= lengths[:, None]
        # Of all sequences that agree up to their end, keep the one that goes on with zeros.
        first = (tokens * after).sum(axis=1) == 0
        tokens, lengths = tokens[first], lengths[first]
    return Outputs(tokens.astype(np.int64), lengths.astype(np.int64))


def outputs_of(model: Any, length: int | None = None, eos: int | None = None) -> Outputs:
    """All completions of a model; ``length`` and ``eos`` default to a tiny model's own."""
    bare = unwrapped(model)
    length = getattr(bare, "completion_length", None) if length is None else length
    if length is None:
        raise TypeError("length: expected the number of completion tokens, got None")
    eos = getattr(bare, "eos", None) if eos is None else eos
    return all_completions(bare.config.vocab_size, length, eos)


def enumerate_policy(
    model: Any,
    prompts: ArrayLike | Tensor,
    *,
    length: int | None = None,
    eos: int | None = None,
) -> Tensor:
    """ln π of every completion after every prompt, differentiable.

    Parameters
    ----------
    model : causal language model
    prompts : integer array (X, P)
        Prompts of equal length.
    length, eos : int, optional
        Completion tokens, and the token that ends one early; default: a tiny model's own.

    Returns
    -------
    Tensor (X, K), float32 or the model's wider type
        In the order of :func:`all_completions`; exp of a row sums to 1.

    Notes
    -----
    The model runs once over the V^(L−1) prefixes of each prompt, not over the V^L completions.
    """
    outputs = outputs_of(model, length, eos)
    device = next(model.parameters()).device
    prompts = torch.as_tensor(np.asarray(prompts), dtype=torch.long, device=device)
    if prompts.ndim != 2 or prompts.shape[1] == 0:
        raise ValueError(f"prompts: expected shape (X, P), got {tuple(prompts.shape)}")
    tokens = torch.as_tensor(outputs.tokens, device=device)  # (K, L)
    if tokens.shape[1] == 1:  # torch.unique refuses rows of no tokens
        prefixes, prefix_of = tokens[:1, :0], torch.zeros_like(tokens[:, 0])
    else:
        prefixes, prefix_of = torch.unique(tokens[:, :-1], dim=0, return_inverse=True)
    count, start = len(prompts), prompts.shape[1] - 1
    rows = torch.cat(
        [prompts.repeat_interleave(len(prefixes), dim=0), prefixes.repeat(count, 1)], dim=1
    )
    logits = model(**model_inputs(unwrapped(model), rows, torch.ones_like(rows))).logits
    logits = logits[:, start:].to(torch.promote_types(logits.dtype, torch.float32))
    log_probs = logits.log_softmax(dim=-1).unflatten(0, (count, len(prefixes)))  # (X, ·, L, V)
    chosen = log_probs[:, prefix_of].gather(3, tokens.expand(count, -1, -1)[..., None])[..., 0]
    lengths = torch.as_tensor(outputs.lengths, device=device)
    spoken = torch.arange(tokens.shape[1], device=device) < lengths[:, None]
    return torch.where(spoken, chosen, chosen.new_zeros(())).sum(dim=-1)  # (X, K)


Reward = Callable[[NDArray[np.int64], list[NDArray[np.int64]]], ArrayLike]


def as_bandit(
    reference_model: Any,
    reward: ArrayLike | Reward,
    beta: float,
    prompts: ArrayLike,
    *,
    length: int | None = None,
    eos: int | None = None,
    context_weights: ArrayLike | None = None,
) -> Bandit:
    """The bandit a language model plays: prompts are contexts, completions arms.

    Parameters
    ----------
    reference_model : causal language model
        π_ref.
    reward : array_like (X, K), or callable
        r(x, y) in the order of :func:`all_completions`; a callable is given one prompt (P,) and the
        list of all completions (their tokens without padding) and returns K rewards.
    beta : float
        β, in units of reward.
    prompts : integer array (X, P)

    Returns
    -------
    Bandit
        In float64, its reference rows rescaled to sum to 1 exactly. ``regret``, ``kl``,
        ``optimal_policy`` and all of :mod:`bandit.analysis` then speak of the language model.
    """
    prompts = np.asarray(prompts)
    if callable(reward):
        outputs = outputs_of(reference_model, length, eos)
        spoken = [y[:n] for y, n in zip(outputs.tokens, outputs.lengths, strict=True)]
        reward = np.array([np.asarray(reward(prompt, spoken), dtype=float) for prompt in prompts])
    reference = policy_of(reference_model, prompts, length=length, eos=eos)
    return Bandit(reward, beta, reference, context_weights)


def policy_of(
    model: Any, prompts: ArrayLike, *, length: int | None = None, eos: int | None = None
) -> NDArray[np.float64]:
    """π (X, K) of all completions, float64 rows summing to 1: what a ``Bandit`` takes."""
    with torch.no_grad():
        log_probs = enumerate_policy(model, prompts, length=length, eos=eos)
    policy = np.exp(log_probs.double().cpu().numpy())
    return policy / policy.sum(axis=-1, keepdims=True)
