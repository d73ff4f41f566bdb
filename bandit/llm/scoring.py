r"""ln π(y|x) of whole completions under a causal language model.

.. math:: \ln\pi(y|x) = \sum_t \ln\pi(y_t \mid x, y_{<t}) ,

summed over the completion's own tokens, its end-of-sequence token included. Letters: ``B`` rows,
``T`` tokens of a row (prompt, completion and padding), ``N`` completion tokens in all, ``V``
vocabulary, ``d`` width of the model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bandit import _checks

# Logits held at once: 2^24 floats are 64 MiB. Up to a quarter of it they are kept for the backward
# pass instead of being computed again.
CHUNK_LOGITS = 1 << 24
KEPT_LOGITS = 1 << 22


def sequence_log_prob(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    completion_mask: Tensor,
    *,
    reduction: str = "sum",
    chunk_tokens: int | None = None,
) -> Tensor:
    """ln π(completion | prompt) of each row, in nats, differentiable.

    Parameters
    ----------
    model : causal language model
        Anything ``transformers.AutoModelForCausalLM`` loads (a PEFT model too), or
        :class:`bandit.llm.TinyTransformer`. Dropout makes the result random: switch it off.
    input_ids : LongTensor (B, T)
        Prompt and completion tokens, padded on either side or both.
    attention_mask : Tensor (B, T)
        1 on tokens, 0 on padding. From lengths, never from ``input_ids != pad``.
    completion_mask : Tensor (B, T)
        1 on the tokens of the completion, end-of-sequence included.
    reduction : {"sum", "mean"}
        ``"mean"`` divides by the number of completion tokens; it is another quantity, and with it
        the objectives have other minimizers.
    chunk_tokens : int, optional
        Completion tokens whose V logits are held at once; they are computed again in the backward
        pass. Default: as many as fit 64 MiB in float32.

    Returns
    -------
    Tensor (B,), float32 (float64 for a float64 model)

    Raises
    ------
    ValueError
        For an empty completion, one that begins at the first token (nothing predicts it) or lies
        outside the attention mask, for shapes that differ, and for chunks of no tokens.
    """
    _checks.one_of("reduction", reduction, ("sum", "mean"))
    if chunk_tokens is not None:
        chunk_tokens = _checks.positive_integer("chunk_tokens", chunk_tokens)
    attention, completion = attention_mask.bool(), completion_mask.bool()
    _check_masks(input_ids, attention, completion)
    hidden, head = _hidden_states(model, input_ids, attention)
    predicted = completion[:, 1:]
    targets = input_ids[:, 1:][predicted]  # (N,)
    vocabulary = vocabulary_of(model)
    tokens = _token_log_probs(
        head, hidden[:, :-1][predicted], targets, chunk_tokens, vocabulary
    )  # (N,)
    row = predicted.nonzero()[:, 0]
    total = torch.zeros(len(input_ids), dtype=tokens.dtype, device=tokens.device)
    total = total.index_add(0, row, tokens)
    return total if reduction == "sum" else total / completion.sum(dim=1)


def _check_masks(input_ids: Tensor, attention: Tensor, completion: Tensor) -> None:
    if input_ids.ndim != 2:
        raise ValueError(f"input_ids: expected shape (B, T), got {tuple(input_ids.shape)}")
    for name, mask in (("attention_mask", attention), ("completion_mask", completion)):
        if mask.shape != input_ids.shape:
            raise ValueError(
                f"{name}: expected shape {tuple(input_ids.shape)} like input_ids, "
                f"got {tuple(mask.shape)}"
            )
    before = torch.zeros_like(attention)
    before[:, 1:] = attention[:, :-1]
    for trouble, rows in (
        ("an empty completion", ~completion.any(dim=1)),
        ("completion tokens outside the attention mask", (completion & ~attention).any(dim=1)),
        ("a completion token with nothing before it", (completion & ~before).any(dim=1)),
    ):
        if rows.any():
            raise ValueError(
                f"completion_mask: expected completions of at least one token after a prompt, "
                f"got {trouble} in row {int(rows.nonzero()[0])}"
            )


def _hidden_states(
    model: Any, input_ids: Tensor, attention: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """What goes into the model's output layer, (B, T, d), and that layer: hidden → logits.

    The model runs with its output layer at the last position only, and the decoder's output is
    caught on the way. Where the output layer is not all that makes the logits (some models cap or
    scale them, some shard it), the model's own full logits are taken, and the "layer" passes them
    on.
    """
    bare = unwrapped(model)
    inputs = model_inputs(bare, input_ids, attention)
    if not _is_sharded(model) and _HEAD_MAKES_LOGITS.get(bare, True):
        caught: list[Tensor] = []
        hook = bare.get_decoder().register_forward_hook(
            lambda module, args, output: caught.append(output[0])
        )
        try:
            last = model(**inputs, logits_to_keep=1).logits
        finally:
            hook.remove()
        head = bare.get_output_embeddings()
        if bare not in _HEAD_MAKES_LOGITS:
            with torch.no_grad():
                same = torch.equal(head(caught[0][:, -1:]), last)
            # Zeros tell nothing: a cap or a scale leaves them as they are.
            if last.any():
                _HEAD_MAKES_LOGITS[bare] = same
        if _HEAD_MAKES_LOGITS.get(bare, False):
            return _per_token(caught[0], input_ids), head
    return _per_token(model(**inputs).logits, input_ids), lambda logits: logits


def _per_token(states: Tensor, input_ids: Tensor) -> Tensor:
    if states.shape[:2] != input_ids.shape:
        raise ValueError(
            f"model: expected an output for each of {tuple(input_ids.shape)} tokens, "
            f"got {tuple(states.shape[:2])} (does an adapter add virtual tokens?)"
        )
    return states


# Whether a model's logits are what its output layer returns: found out once for each model.
_HEAD_MAKES_LOGITS: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def unwrapped(model: Any) -> Any:
    """The model inside the wrappers of data-parallel training and of adapters."""
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.nn.parallel import DistributedDataParallel

    while isinstance(model, (DistributedDataParallel, FullyShardedDataParallel)):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def vocabulary_of(model: Any) -> int:
    """V, the tokens a model knows."""
    return _text_config(model).vocab_size


def positions_of(model: Any) -> int | None:
    """Most tokens of a row, prompt included, or None where the model does not say."""
    positions = getattr(_text_config(model), "max_position_embeddings", None)
    return positions if positions is not None and positions > 0 else None


def _text_config(model: Any) -> Any:
    # Models of several modalities keep what is said of words in a part of their configuration.
    config = unwrapped(model).config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def model_inputs(model: Any, input_ids: Tensor, attention: Tensor) -> dict[str, Any]:
    """Arguments of a forward pass that doesn't depend on padding: positions are counted."""
    inputs = {
        "input_ids": input_ids,
        "attention_mask": attention.long(),
        "position_ids": (attention.long().cumsum(dim=1) - 1).clamp(min=0),
        "use_cache": False,
    }
    taken = inspect.signature(model.forward).parameters
    return {name: value for name, value in inputs.items() if name in taken}


def _is_sharded(model: Any) -> bool:
    """Whether the output layer is spread over processes, to be used inside forward only."""
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.tensor import DTensor

    return isinstance(model, FullyShardedDataParallel) or any(
        isinstance(p, DTensor) for p in unwrapped(model).get_output_embeddings().parameters()
    )


def _token_log_probs(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    targets: Tensor,
    chunk_tokens: int | None,
    vocabulary: int,
) -> Tensor:
    """ln π of each target token (N,) from its hidden state (N, d), a chunk of tokens at a time."""
    if chunk_tokens is None:
        if len(targets) * vocabulary <= KEPT_LOGITS:
            return _log_prob_of(head, hidden, targets)
        chunk_tokens = max(1, CHUNK_LOGITS // vocabulary)
    parts = [
        checkpoint(_log_prob_of, head, h, t, use_reentrant=False)
        for h, t in zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
    ]
    return torch.cat(parts)


def _log_prob_of(head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor) -> Tensor:
    logits = head(hidden)  # (N, V)
    # In half precision a sum near −400 nats would move in steps of 2: go on in single.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(dim=1)
