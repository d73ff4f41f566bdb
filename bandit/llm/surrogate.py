"""From a batch of completions to the groups a loss takes, and what is measured of them.

Letters: ``N`` completions of a batch, ``B`` its groups, ``G`` completions of one group.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from bandit import losses
from bandit.groups import name_of
from bandit.llm.completions import Completions
from bandit.losses import Group, Loss, Score

METRICS = ("value", "reward", "log_ratio", "kl", "margin")


def check(loss: Loss, data: Completions, *, baseline: float | None = None) -> None:
    """Raise unless the data have what the loss reads; ln π_ref can be computed later."""
    check_loss(loss)
    if not isinstance(data, Completions):
        raise TypeError(f"data: expected Completions, got {type(data).__name__}")
    own, fields = losses.traits(loss), {*data.fields(), "ref_log_prob"}
    if baseline is not None:
        fields.add("baseline")
    if not len(data):
        raise ValueError("data: expected at least one row, got none")
    missing = sorted(own.requires - fields)
    if missing:
        raise ValueError(
            f"data: expected {', '.join(missing)} for {name_of(loss)}, got rows with "
            f"{', '.join(data.fields()) or 'none of the optional columns'}"
        )
    least, most = own.sizes
    for row in data:
        size = len(row.completion_ids)
        if size < least or (most is not None and size > most):
            expected = f"{least}" if most == least else f"at least {least}"
            raise ValueError(
                f"data: expected {expected} completions a row for {name_of(loss)}, "
                f"got {size} in row {row.row_id}"
            )


def check_loss(loss: Any) -> None:
    """Raise unless it is a function that needs nothing but the group."""
    if not callable(loss):
        raise TypeError(f"loss: expected a function of bandit.losses, got {loss!r}")
    parameters = inspect.signature(loss).parameters.values()
    free = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY and p.default is p.empty]
    if free:
        raise TypeError(
            f"loss: expected {', '.join(free)} bound to it (functools.partial), "
            f"got {name_of(loss)} without"
        )


def groups_of(
    batch: Mapping[str, Tensor],
    log_prob: Tensor,
    *,
    reduction: str = "sum",
    baseline: float | None = None,
) -> Iterator[Group]:
    """The groups of a batch, those of equal size together: fields (B', G).

    Parameters
    ----------
    batch : mapping
        As ``Completions.collate`` makes it, with ``ref_log_prob``.
    log_prob : Tensor (N,)
        ln π of each completion, summed over its tokens.
    reduction : {"sum", "mean"}
        ``"mean"`` divides all log-probabilities, the reference's too, by the completion's tokens.
    baseline : float, optional
        The groups' ``baseline``, in units of reward.
    """
    if "ref_log_prob" not in batch:
        raise ValueError("batch: expected ref_log_prob (Completions.with_reference), got none")
    tokens = 1 if reduction == "sum" else batch["completion_mask"].sum(dim=1)
    members = {
        "log_prob": log_prob / tokens,
        "ref_log_prob": batch["ref_log_prob"].to(log_prob) / tokens,
    }
    if "behavior_log_prob" in batch:
        members["behavior_log_prob"] = batch["behavior_log_prob"].to(log_prob) / tokens
    if "reward" in batch:
        members["reward"] = batch["reward"].to(log_prob)
    sizes = batch["group_sizes"]
    first = sizes.cumsum(0) - sizes
    for size in sizes.unique().tolist():
        these = (sizes == size).nonzero()[:, 0]
        member = first[these, None] + torch.arange(size, device=sizes.device)  # (B', G)
        fields = {name: values[member] for name, values in members.items()}
        if "preference" in batch:
            fields["preference"] = batch["preference"][these].to(log_prob)
        yield Group(**fields, baseline=baseline)


def measured(group: Group, score: Score) -> Tensor:
    """Sum and count of each of ``METRICS`` over groups, (5, 2), from the tensors the loss has seen.

    ``value`` is the loss of a group; ``reward`` and ``log_ratio`` = ln π − ln π_ref are of one
    completion. ``kl`` estimates KL(π‖π_ref), in nats, from a completion drawn with probability μ
    (``behavior_log_prob``; where it is not known, μ = π_ref is supposed) as
    (π/μ)(π_ref/π − 1 + ln π/π_ref): never below 0, and without bias. ``margin`` is how much the
    log-ratio of the better completion of a group (preferred, or of highest reward) exceeds that of
    the worst; ties do not count.
    """
    log_prob, reference = group.log_prob.detach(), group.ref_log_prob
    log_ratio = log_prob - reference
    behavior = reference if group.behavior_log_prob is None else group.behavior_log_prob
    kl = (reference - behavior).exp() + (log_prob - behavior).exp() * (log_ratio - 1)
    margin, decided = _margin(group, log_ratio)
    reward = log_ratio.new_empty(0) if group.reward is None else group.reward
    known = (score.value.detach(), reward, log_ratio, kl, margin[decided])
    return torch.stack(
        [torch.stack([values.sum(), values.new_tensor(values.numel())]) for values in known]
    )


def _margin(group: Group, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
    """The margin (B,) of each group, and where there is one."""
    if group.preference is not None:
        sign = (2 * group.preference - 1).sign()
        return sign * (log_ratio[:, 0] - log_ratio[:, 1]), sign != 0
    if group.reward is None:
        return log_ratio[:, 0], torch.zeros_like(log_ratio[:, 0], dtype=torch.bool)
    best, worst = group.reward.argmax(dim=1), group.reward.argmin(dim=1)
    row = torch.arange(len(log_ratio), device=log_ratio.device)
    decided = group.reward[row, best] > group.reward[row, worst]
    return log_ratio[row, best] - log_ratio[row, worst], decided


def means(totals: Tensor) -> dict[str, float]:
    """Name → mean, of what ``measured`` has summed; what never occurred is left out."""
    found = zip(METRICS, totals.double().cpu().tolist(), strict=True)
    return {name: total / count for name, (total, count) in found if count}
