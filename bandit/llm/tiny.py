"""A transformer small enough to list everything it can say, and short enough to read aloud.

Letters: ``B`` rows, ``T`` tokens, ``V`` vocabulary, ``d`` width, ``H`` heads.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Logits(NamedTuple):
    """What the model returns: ``logits`` (B, T, V)."""

    logits: Tensor


class Block(nn.Module):
    """Attention and a two-layer network, each beside a residual path."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.network = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """Add to x (B, T, d) what each position sees where ``visible`` (B, 1, T, T)."""
        split = self.queries_keys_values(self.before_attention(x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in split)
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=visible)  # (B, H, T, d/H)
        x = x + self.mix(seen.transpose(1, 2).flatten(2))  # (B, T, d)
        return x + self.network(x)


class Decoder(nn.Module):
    """Everything up to the output layer: tokens (B, T) → hidden states (B, T, d)."""

    def __init__(self, vocabulary: int, longest: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(longest, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor
    ) -> tuple[Tensor]:
        """Hidden states, in a tuple as other models return them."""
        x = self.tokens(input_ids) + self.positions(position_ids)  # (B, T, d)
        length = input_ids.shape[1]
        past = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        itself = torch.eye(length, dtype=torch.bool, device=x.device)
        # Padding sees itself, so that no row of the attention is empty.
        visible = (past & attention_mask.bool()[:, None, None, :]) | itself  # (B, 1, T, T)
        for block in self.blocks:
            x = block(x, visible)
        return (self.norm(x),)


class TinyTransformer(nn.Module):
    """A decoder-only transformer with learned positions and no dropout.

    Parameters
    ----------
    vocabulary : int
        V, tokens 0 … V−1; they serve prompts and completions.
    completion_length : int
        Tokens of a completion, at most if there is an ``eos`` token.
    eos : int, optional
        The token that ends a completion; without one all completions have the full length.
    prompt_length : int
        Longest prompt.
    width, layers, heads : int
    seed : int
        Of the initial weights; the global generator is left alone.
    """

    def __init__(
        self,
        vocabulary: int,
        completion_length: int,
        *,
        eos: int | None = None,
        prompt_length: int = 1,
        width: int = 32,
        layers: int = 2,
        heads: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width: expected a multiple of heads = {heads}, got {width}")
        if eos is not None and not 0 <= eos < vocabulary:
            raise ValueError(f"eos: expected a token from 0 to {vocabulary - 1}, got {eos}")
        longest = prompt_length + completion_length
        self.config = SimpleNamespace(
            vocab_size=vocabulary, eos_token_id=eos, heads=heads, max_position_embeddings=longest
        )
        self.completion_length, self.eos = completion_length, eos
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.decoder = Decoder(vocabulary, longest, width, layers, heads)
            self.head = nn.Linear(width, vocabulary, bias=False)

    def get_decoder(self) -> nn.Module:
        """The part below the output layer."""
        return self.decoder

    def get_output_embeddings(self) -> nn.Module:
        """The output layer."""
        return self.head

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        logits_to_keep: int = 0,
    ) -> Logits:
        """Logits of the next token at the last ``logits_to_keep`` positions (0: at all)."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if position_ids is None:
            position_ids = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
        hidden = self.decoder(input_ids, attention_mask, position_ids)[0]
        return Logits(self.head(hidden[:, -logits_to_keep:]))  # (B, T, V)
