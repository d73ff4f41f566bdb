"""Many copies of one small model, trained side by side.

A step of a tiny model costs mostly the calls, not the arithmetic. Copies that differ in weights,
data, loss or learning rate alone go through the same calls together, on tensors with an axis of
copies in front. Letters: ``M`` copies, ``B`` rows, ``T`` tokens, ``X`` prompts, ``K`` completions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from bandit.llm.enumeration import enumerate_policy


class Copies:
    """M copies of a model, with weights of their own and an Adam optimizer for each.

    Parameters
    ----------
    model : torch.nn.Module
        Where all copies begin; it stays as it is.
    learning_rates : sequence of M floats
        Of each copy, none smaller than the one before it.

    Raises
    ------
    ValueError
        If learning rates fall, or there are none.
    """

    def __init__(self, model: nn.Module, learning_rates: Sequence[float]) -> None:
        self._calling = _Calling(model)
        rates, counts = np.unique(np.asarray(learning_rates, dtype=float), return_counts=True)
        if not len(rates) or list(learning_rates) != sorted(learning_rates):
            raise ValueError(
                f"learning_rates: expected at least one, in ascending order, got {learning_rates}"
            )
        # One leaf for each learning rate, so that one optimizer can hold them all.
        self._leaves = {
            name: [parameter.detach().expand(n, *parameter.shape).clone() for n in counts.tolist()]
            for name, parameter in self._calling.named_parameters()
        }
        groups: list[dict[str, Any]] = [{"params": [], "lr": rate} for rate in rates.tolist()]
        for parts in self._leaves.values():
            for group, part in zip(groups, parts, strict=True):
                group["params"].append(part.requires_grad_())
        self.optimizer = torch.optim.Adam(groups, fused=True)

    def __call__(
        self, function: Callable[..., Tensor], *shared: Tensor, own: Sequence[Tensor] = ()
    ) -> Tensor:
        """``function(model, *shared, *own)`` of every copy, (M, ...).

        All copies are given the same ``shared``, and each its row of the tensors ``own`` (M, ...).
        """
        return self._mapped(function, shared, own)

    def policies(
        self, prompts: NDArray[np.int64], members: Sequence[int] | None = None
    ) -> NDArray[np.float64]:
        """π (M, X, K) of the copies ``members`` (default: all); :func:`bandit.llm.policy_of`."""

        def listed(model: Any) -> Tensor:
            return enumerate_policy(model, prompts)

        with torch.no_grad():  # in parts that fit a processor's cache
            log_probs = self._mapped(listed, (), (), members, chunk_size=2)
        policy = np.exp(log_probs.double().numpy())
        return policy / policy.sum(axis=-1, keepdims=True)

    def _mapped(
        self,
        function: Callable[..., Tensor],
        shared: Sequence[Tensor],
        own: Sequence[Tensor],
        members: Sequence[int] | None = None,
        **options: Any,
    ) -> Tensor:
        weights = {name: torch.cat(parts) for name, parts in self._leaves.items()}
        if members is not None:
            weights = {name: values[list(members)] for name, values in weights.items()}

        def one(weights: dict[str, Tensor], *own: Tensor) -> Tensor:
            return functional_call(self._calling, weights, (function, *shared, *own))

        with _attention_that_maps():
            return vmap(one, **options)(weights, *own)


class _Calling(nn.Module):
    """A module whose forward is any function of the model: what functional_call can call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        return function(self.model, *inputs)


@contextmanager
def _attention_that_maps() -> Iterator[None]:
    """The fused kernel knows no axis of copies and would be called once for each."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def completion_log_prob(model: Any, ids: Tensor, spoken: Tensor, length: int) -> Tensor:
    """ln π (B,) of completions, the last ``length`` tokens of ids (B, T), where ``spoken``.

    Rows have equal prompts' lengths and are padded on the right, ``spoken`` (B, length) being False
    on padding. What :func:`bandit.llm.sequence_log_prob` computes, without shapes that depend on
    the data, which an axis of copies forbids.
    """
    # The last token is predicted, and predicts nothing.
    logits = model(ids[:, :-1], logits_to_keep=length).logits
    tokens = logits.log_softmax(dim=-1).gather(2, ids[:, -length:, None])[..., 0]  # (B, length)
    return torch.where(spoken, tokens, tokens.new_zeros(())).sum(dim=1)
