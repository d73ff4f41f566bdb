"""Training a language model with any objective, in a loop to be read aloud."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from bandit import _checks
from bandit.llm.completions import Completions
from bandit.llm.references import check_fit, reference_log_probs
from bandit.llm.scoring import sequence_log_prob
from bandit.llm.surrogate import check, groups_of, means, measured
from bandit.losses import Loss


def train_tiny(
    model: Any,
    loss: Loss,
    data: Completions,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float = 1e-3,
    baseline: float | None = None,
    record_every: int = 10,
    evaluate: Callable[[Any], Mapping[str, float]] | None = None,
    rng: torch.Generator,
) -> list[dict[str, float]]:
    """Train on offline completions with Adam, one batch of rows drawn with replacement a step.

    Parameters
    ----------
    model : causal language model
        Trained in place, dropout off.
    loss : function of :mod:`bandit.losses`
        With its hyper-parameters bound: ``functools.partial(losses.copg, beta=0.1)``.
    data : Completions
        Where they have no ln π_ref, the model as it comes in is the reference.
    steps, batch_size : int
        Updates, and rows in each.
    learning_rate : float
        Of Adam.
    baseline : float, optional
        The groups' ``baseline``, for a loss with ``baseline="given"`` bound.
    record_every : int
    evaluate : callable, optional
        Asked at every record: what else to note of the model.
    rng : torch.Generator
        For the order of the batches.

    Returns
    -------
    list of dict
        A record every ``record_every`` steps and at the end: ``step``, means over that step's
        batch (:func:`bandit.llm.surrogate.measured`), ``grad_norm``, and what ``evaluate`` says.
    """
    steps, batch_size = (
        _checks.positive_integer(name, value)
        for name, value in (("steps", steps), ("batch_size", batch_size))
    )
    every = _checks.positive_integer("record_every", record_every)
    check(loss, data, baseline=baseline)
    check_fit(model, data)
    if "ref_log_prob" not in data.fields():
        data = data.with_reference(reference_log_probs(model, data))
    model.eval()
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    history: list[dict[str, float]] = []
    for step in range(steps + 1):
        chosen = torch.randint(len(data), (batch_size,), generator=rng).tolist()
        surrogate, totals = _surrogate(model, loss, data, chosen, baseline)
        optimizer.zero_grad()
        surrogate.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
        if step % every == 0 or step == steps:
            history.append({"step": step, **means(totals), "grad_norm": float(norm)})
            history[-1].update({} if evaluate is None else evaluate(model))
        if step < steps:
            optimizer.step()
    return history


def _surrogate(
    model: Any, loss: Loss, data: Completions, rows: list[int], baseline: float | None
) -> tuple[Tensor, Tensor]:
    """What has the gradient of the mean loss over ``rows``, and what was measured there, summed."""
    device = next(model.parameters()).device
    batch = {k: v.to(device) for k, v in data.collate([data[i] for i in rows]).items()}
    log_prob = sequence_log_prob(
        model, batch["input_ids"], batch["attention_mask"], batch["completion_mask"]
    )
    surrogate, totals = torch.zeros((), device=device), torch.zeros((), device=device)
    for group in groups_of(batch, log_prob, baseline=baseline):
        score = loss(group)
        surrogate = surrogate + (score.weight.detach() * group.log_prob).sum() / len(rows)
        totals = totals + measured(group, score)
    return surrogate, totals
