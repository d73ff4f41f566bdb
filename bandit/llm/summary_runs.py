"""The experiment on summaries: every method on the same offline pairs, tuned alike.

What is trained on, and judged by, is made in :mod:`bandit.llm.summaries`: a :class:`World` of
documents, a reference and a learned reward, and pairs of summaries the reference wrote.
:func:`training` trains many runs side by side, :func:`compare` all methods, β and seeds. Letters as
there; ``M`` runs, ``B`` pairs of a batch, ``T`` tokens of document and summary.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bandit import losses, presets
from bandit.llm.copies import Copies, completion_log_prob
from bandit.llm.reward_model import shuffled
from bandit.llm.summaries import (
    JUDGED_BY,
    SUMMARY,
    Array,
    Data,
    World,
    batch,
    draw_data,
)
from bandit.llm.tiny import TinyTransformer

METHODS = ("copg", "policy_gradient_behavior", "policy_gradient", "dpo", "ipo")
"""As in :data:`bandit.presets.METHODS`; the baseline is the mean over the batch."""

LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
SEEDS, TUNED_WITH, STEPS = 5, 2, 100


class Job(NamedTuple):
    """One run: the pairs it learns from, and their order, are the seed's."""

    method: str
    beta: float
    learning_rate: float
    seed: int


def training(
    world: World,
    data: Mapping[int, Data],
    jobs: Sequence[Job],
    *,
    steps: int,
    batch_size: int = 16,
    record_every: int,
) -> Iterator[tuple[int, Copies]]:
    """Train each job's copy of the reference with Adam; yields (step, copies) at the records.

    Only the loss and the step size differ between methods: pairs and order are the seed's. Steps
    are recorded from 0 on, the last one among them.

    Parameters
    ----------
    data : mapping
        Seed → the pairs, equally many for all.
    jobs : sequence of M Job
        In ascending order of learning rates.
    """
    copies = Copies(world.reference, [job.learning_rate for job in jobs])
    falling = torch.optim.lr_scheduler.LinearLR(copies.optimizer, 1.0, 0.0, total_iters=steps)
    streams = {
        seed: _batches(world, data[seed], batch_size, steps, seed)
        for seed in dict.fromkeys(job.seed for job in jobs)
    }
    rows = list(streams)
    place = torch.tensor([rows.index(job.seed) for job in jobs])
    alike = _alike(jobs)
    for step in range(steps):
        if step % record_every == 0:
            yield step, copies
        drawn = [next(stream) for stream in streams.values()]
        ids, spoken, *fields = (torch.stack(parts)[place] for parts in zip(*drawn, strict=True))
        log_prob = copies(_log_prob, own=(ids, spoken)).unflatten(1, (-1, 2))  # (M, B, 2)
        weight = torch.empty_like(log_prob)
        everyone = losses.Group(log_prob.detach(), *fields)
        for (method, beta), members in alike.items():
            group = losses.Group(*(x if x is None else x[members] for x in everyone))
            weight[members] = _loss(method, beta)(group).weight
        copies.optimizer.zero_grad()
        ((weight * log_prob).sum() / log_prob.shape[1]).backward()
        copies.optimizer.step()
        falling.step()
    yield steps, copies


def _alike(jobs: Sequence[Job]) -> dict[tuple[str, float], list[int]]:
    """The places of the jobs with the same method and β."""
    places: dict[tuple[str, float], list[int]] = {}
    for i, job in enumerate(jobs):
        places.setdefault((job.method, job.beta), []).append(i)
    return places


def _batches(
    world: World, data: Data, batch_size: int, steps: int, seed: int
) -> Iterator[tuple[Tensor, ...]]:
    """ids (2B, T) and where they speak, then as in Group ln π_ref, rewards and labels."""
    ref_log_prob = np.log(world.policy[data.document[:, None], data.members])
    for rows in shuffled(len(data.label), batch_size, steps, np.random.default_rng(seed)):
        documents = np.repeat(world.documents[data.document[rows]], 2, axis=0)
        ids, _, completion = batch(documents, data.members[rows].ravel())
        fields = (ref_log_prob[rows], data.reward[rows], data.label[rows])
        yield ids, completion[:, -SUMMARY:], *(torch.from_numpy(x).float() for x in fields)


def _log_prob(model: TinyTransformer, ids: Tensor, spoken: Tensor) -> Tensor:
    return completion_log_prob(model, ids, spoken, SUMMARY)


def _loss(method: str, beta: float) -> Any:
    """Group → Score; the behavior baseline is a batch's mean of r − β ln(π/π_ref)."""
    known = presets.method(method)
    if known.baseline is None:
        return functools.partial(known.loss, beta=beta)

    def with_batch_mean(group: losses.Group) -> losses.Score:
        regularized = group.reward - beta * (group.log_prob - group.ref_log_prob)  # (M, B, 2)
        mean = regularized.mean(dim=(1, 2))[:, None].expand(group.log_prob.shape[:2])
        return known.loss(group._replace(baseline=mean), beta=beta, baseline="given")

    return with_batch_mean


# -------------------------------------------------------------------------------- all together


def compare(
    world: World,
    betas: Sequence[float],
    *,
    methods: Sequence[str] = METHODS,
    learning_rates: Sequence[float] = LEARNING_RATES,
    seeds: int = SEEDS,
    tuning_seeds: int = TUNED_WITH,
    pairs_per_document: int = 5,
    steps: int = STEPS,
    record_every: int = 20,
    curves_at: Sequence[float] | None = None,
) -> pd.DataFrame:
    """Every method at every β, over seeds, at its best learning rate.

    The learning rate of each method and β is the one of ``learning_rates``, the same for all, with
    the greatest E[r] − β KL on training documents after ``steps`` steps, in the mean over the first
    ``tuning_seeds`` seeds; held-out documents play no part in it. A seed draws new data from the
    reference and a new order. Reward and KL(π‖π_ref) are exact means over held-out documents,
    recorded at the end, and for the β ``curves_at`` (default: all) at every ``record_every`` steps.

    Returns
    -------
    DataFrame
        Columns method, beta, learning_rate, seed, step, reward, kl: a row for each recorded step.
    """
    data = {
        seed: draw_data(world, pairs_per_document, np.random.default_rng([seed, 1]))
        for seed in range(max(seeds, tuning_seeds))
    }
    cells = [(method, beta) for method in methods for beta in betas]
    tries = [
        Job(*cell, rate, seed)
        for rate in sorted(learning_rates)
        for cell in cells
        for seed in range(tuning_seeds)
    ]
    *_, (_, tried) = training(world, data, tries, steps=steps, record_every=steps)
    reached = pd.DataFrame(tries).assign(objective=objective(world, tried, tries))
    mean = reached.groupby(["method", "beta", "learning_rate"]).objective.mean()
    best = {cell: float(mean[cell].idxmax()) for cell in cells}
    jobs = [Job(*cell, best[cell], seed) for cell in cells for seed in range(seeds)]
    ordered = sorted(jobs, key=lambda job: job.learning_rate)
    tables = []
    for step, copies in training(world, data, ordered, steps=steps, record_every=record_every):
        members = [
            i for i, job in enumerate(ordered) if step == steps or job.beta in (curves_at or betas)
        ]
        problem, policies = world.problem(1.0), copies.policies(world.held_out, members)
        measured = {"reward": problem.expected_reward(policies), "kl": problem.kl(policies)}
        tables.append(pd.DataFrame([ordered[i] for i in members]).assign(step=step, **measured))
    table = pd.concat(tables).set_index(list(Job._fields)).loc[jobs].reset_index()
    return table.astype({"seed": int})


def objective(world: World, copies: Copies, jobs: Sequence[Job]) -> Array:
    """E[r] − β KL (M,) on *training* documents, by which learning rates are chosen."""
    problem = world.training_problem(1.0)
    policies = copies.policies(world.documents[:JUDGED_BY])
    betas = np.array([job.beta for job in jobs])
    return problem.expected_reward(policies) - betas * problem.kl(policies)


def optimal_front(world: World, betas: Sequence[float]) -> pd.DataFrame:
    """KL and reward of π* over β on held-out documents: no policy of this KL has more reward."""
    rows = []
    for beta in betas:
        problem = world.problem(beta)
        best = problem.optimal_policy()
        rows.append((beta, float(problem.kl(best)), float(problem.expected_reward(best))))
    return pd.DataFrame(rows, columns=["beta", "kl", "reward"])
