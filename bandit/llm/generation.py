"""Sampling completions, with the probabilities they were sampled with.

Letters: ``X`` prompts, ``B`` rows sampled together, ``V`` vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bandit import _checks
from bandit.llm.scoring import model_inputs, positions_of, unwrapped


class Samples(NamedTuple):
    """``completions[x][s]``, token ids of sample ``s`` after prompt ``x``, and what drew them.

    ``behavior_log_prob`` (X, samples): ln μ of each, μ being the model at the sampling temperature.
    """

    completions: list[list[list[int]]]
    behavior_log_prob: NDArray[np.float64]


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    samples: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    eos: int | Sequence[int] | None = None,
    rng: int | np.random.Generator | torch.Generator,
    batch_size: int = 64,
) -> Samples:
    """Draw completions from a model, without truncating or reshaping its distribution.

    Parameters
    ----------
    model : causal language model
        A :class:`~bandit.llm.TinyTransformer` or anything ``AutoModelForCausalLM`` loads. Dropout
        is off while it samples.
    prompts : X lists of token ids
        Of any lengths, none empty.
    samples : int
        Completions of each prompt, drawn independently.
    max_new_tokens : int
        Longest completion. One ends earlier at its first end-of-sequence token, its last.
    temperature : float
        Logits are divided by it. 1: the model's own distribution.
    eos : int or several, optional
        Tokens that end a completion; default: those of the model's configuration. ``()``: none.
    rng : seed, numpy.random.Generator or torch.Generator
        The global generators are left alone. The same seed draws the same completions whatever
        ``batch_size`` is (as long as rounding does not decide).
    batch_size : int
        Rows sampled together.

    Returns
    -------
    Samples
        A pair (completions, behavior_log_prob).

    Raises
    ------
    ValueError
        For an empty prompt, tokens outside the vocabulary, more tokens than the model has
        positions, numbers that are not above 0.
    """
    samples = _checks.positive_integer("samples", samples)
    longest = _checks.positive_integer("max_new_tokens", max_new_tokens)
    temperature = _checks.positive_number("temperature", temperature)
    batch_size = _checks.positive_integer("batch_size", batch_size)
    rows = [row for row in _checked(prompts, model) for _ in range(samples)]
    _check_room(model, rows, longest)
    ends = ends_of(model, eos)
    device = next(model.parameters()).device
    # One uniform number for each token that may be drawn: what a row draws does not depend on the
    # rows beside it.
    uniform = torch.rand(len(rows), longest, generator=_generator(rng), dtype=torch.float64)
    drawn: list[list[int]] = []
    log_prob: list[float] = []
    with torch.no_grad(), _evaluating(model):
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            ids, mask = _left_padded(rows[part], device)
            tokens, total = _sample(model, ids, mask, uniform[part].to(device), temperature, ends)
            drawn += [_spoken(row, ends) for row in tokens.tolist()]
            log_prob += total.tolist()
    return Samples(
        [drawn[i : i + samples] for i in range(0, len(drawn), samples)],
        np.array(log_prob).reshape(len(prompts), samples),
    )


def _sample(
    model: Any, ids: Tensor, mask: Tensor, uniform: Tensor, temperature: float, ends: list[int]
) -> tuple[Tensor, Tensor]:
    """Tokens (B, ≤ longest), anything after the end of a row, and ln μ of each row, (B,)."""
    running = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
    total = uniform.new_zeros(len(ids))
    stops = torch.tensor(ends, dtype=torch.long, device=ids.device)
    drawn: list[Tensor] = []
    next_logits = _next_logits(model, ids, mask)
    logits = next(next_logits)
    for step in range(uniform.shape[1]):
        log_probs = (logits.double() / temperature).log_softmax(dim=-1)  # (B, V)
        # Inverse of the distribution function; a token of probability 0 is never drawn.
        cumulative = log_probs.exp().cumsum(dim=-1)
        at = uniform[:, step : step + 1] * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, at, right=True).clamp(max=logits.shape[-1] - 1)
        total += torch.where(running, log_probs.gather(1, token)[:, 0], 0.0)
        drawn.append(token)
        running &= ~torch.isin(token[:, 0], stops)
        if step + 1 == uniform.shape[1] or not running.any():
            break
        logits = next_logits.send(token)
    return torch.cat(drawn, dim=1), total


def _next_logits(model: Any, ids: Tensor, mask: Tensor) -> Any:
    """A coroutine: yields the logits (B, V) after the rows so far, is sent a token (B, 1) for each.

    What the model computed for earlier tokens is kept, if it can keep it; a prompt that several
    rows begin with is then computed once.
    """
    taken = inspect.signature(unwrapped(model).forward).parameters
    keeps = "past_key_values" in taken
    last = {"logits_to_keep": 1} if "logits_to_keep" in taken else {}
    rows = None
    if keeps:
        distinct = torch.stack([ids, mask], dim=1)  # (B, 2, T)
        distinct, rows = torch.unique(distinct, dim=0, return_inverse=True)
        ids, mask = distinct.unbind(dim=1)
    fresh, cache = ids, None
    while True:
        inputs = model_inputs(unwrapped(model), ids, mask)
        if keeps:
            inputs |= {"input_ids": fresh, "past_key_values": cache, "use_cache": True}
            if "position_ids" in inputs:
                inputs["position_ids"] = inputs["position_ids"][:, -fresh.shape[1] :]
        output = model(**inputs, **last)
        cache, logits = output.past_key_values if keeps else None, output.logits[:, -1]
        keeps = cache is not None
        if rows is not None:  # from now on they differ
            if cache is not None:
                cache.reorder_cache(rows)
            logits, ids, mask, rows = logits[rows], ids[rows], mask[rows], None
        fresh = yield logits
        ids = torch.cat([ids, fresh], dim=1)
        mask = torch.cat([mask, torch.ones_like(fresh)], dim=1)


def _spoken(row: list[int], ends: list[int]) -> list[int]:
    """``row`` up to its first ending token, which belongs to it."""
    length = next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
    return row[:length]


def _left_padded(rows: Sequence[Sequence[int]], device: Any) -> tuple[Tensor, Tensor]:
    """Rows as (B, longest), ending together, and where they are not padding."""
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :] = torch.as_tensor(row)
        mask[i, longest - len(row) :] = 1
    return ids.to(device), mask.to(device)


def _checked(prompts: Any, model: Any) -> list[list[int]]:
    vocabulary = unwrapped(model).config.vocab_size
    rows = []
    for i, prompt in enumerate(prompts):
        row = np.asarray(prompt)
        if row.ndim != 1 or row.size == 0 or not np.issubdtype(row.dtype, np.integer):
            raise ValueError(
                f"prompts[{i}]: expected a list of at least one token id, got {prompt}"
            )
        if row.min() < 0 or row.max() >= vocabulary:
            found = row.min() if row.min() < 0 else row.max()
            raise ValueError(
                f"prompts[{i}]: expected tokens from 0 to {vocabulary - 1}, got {found}"
            )
        rows.append([int(token) for token in row])
    if not rows:
        raise ValueError("prompts: expected at least one prompt, got none")
    return rows


def _check_room(model: Any, rows: Sequence[Sequence[int]], longest: int) -> None:
    positions, prompt = positions_of(model), max(map(len, rows))
    if positions is not None and prompt + longest > positions:
        raise ValueError(
            f"max_new_tokens: expected at most {positions - prompt}, what the model's {positions} "
            f"positions leave after a prompt of {prompt} tokens, got {longest}"
        )


def ends_of(model: Any, eos: int | Sequence[int] | None = None) -> list[int]:
    """The tokens that end a completion: ``eos``, or those of the model's configuration."""
    if eos is None:
        eos = unwrapped(model).config.eos_token_id
    if eos is None:
        return []
    return [int(token) for token in np.atleast_1d(np.asarray(eos, dtype=int))]


def _generator(rng: Any) -> torch.Generator:
    if isinstance(rng, torch.Generator):
        return rng
    seed = np.random.default_rng(rng).integers(2**63 - 1)
    return torch.Generator().manual_seed(int(seed))


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Dropout off, and afterwards every part of the model in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
