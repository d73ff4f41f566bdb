"""The experiment on summaries: every method on the same offline pairs, tuned alike.

What is trained on, and judged by, is made in :mod:`bandit.llm.summaries`: a :class:`World` of
documents, a reference and a learned reward, and pairs of summaries the reference wrote.
:func:`train` is one run, :func:`compare` all methods, β and seeds. Letters as there; ``T`` records.
"""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from bandit import losses, presets
from bandit.llm.enumeration import policy_of
from bandit.llm.reward_model import shuffled
from bandit.llm.scoring import sequence_log_prob
from bandit.llm.summaries import (
    JUDGED_BY,
    Array,
    Data,
    Integers,
    World,
    batch,
    draw_data,
    new_model,
)
from bandit.llm.tiny import TinyTransformer
from bandit.problem import Bandit

METHODS = ("copg", "policy_gradient_behavior", "policy_gradient", "dpo", "ipo")
"""As in :data:`bandit.presets.METHODS`; the baseline is the mean over the batch."""

LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
SEEDS = 5


class Curve(NamedTuple):
    """Recorded steps (T,), and there reward and KL(π‖π_ref) on held-out documents, exactly."""

    steps: Integers
    reward: Array
    kl: Array
    objective: float
    """E[r] − β KL on *training* documents at the end: what learning rates are chosen by."""


def train(
    world: World,
    data: Data,
    method: str,
    beta: float,
    *,
    learning_rate: float,
    steps: int = 200,
    batch_size: int = 16,
    record_every: int = 25,
    seed: int,
) -> Curve:
    """One method on the offline pairs, from a copy of the reference, with Adam.

    Only the loss differs between methods: the pairs, their order and the optimizer are the same.
    """
    model = new_model()
    model.load_state_dict(world.reference.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    ref_log_prob = np.log(world.policy[data.document[:, None], data.members])
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    problem, recorded = world.problem(beta), []
    order = shuffled(len(data.label), batch_size, steps, np.random.default_rng(seed))
    for step, rows in enumerate(order):
        if step % record_every == 0:
            recorded.append((step, *_measured(model, world.held_out, problem)))
        documents = np.repeat(world.documents[data.document[rows]], 2, axis=0)
        log_prob = sequence_log_prob(model, *batch(documents, data.members[rows].ravel()))
        log_prob = log_prob.unflatten(0, (-1, 2))  # (B, 2)
        group = losses.Group(
            log_prob=log_prob,
            ref_log_prob=torch.from_numpy(ref_log_prob[rows]).to(log_prob),
            reward=torch.from_numpy(data.reward[rows]).to(log_prob),
            preference=torch.from_numpy(data.label[rows]).to(log_prob),
        )
        weight = _loss(method, beta)(group).weight.detach()
        optimizer.zero_grad()
        ((weight * log_prob).sum() / len(rows)).backward()
        optimizer.step()
        falling.step()
    recorded.append((steps, *_measured(model, world.held_out, problem)))
    seen = policy_of(model, world.documents[:JUDGED_BY])
    objective = float(world.training_problem(beta).objective(seen))
    recorded_steps, reward, kl = (np.array(column) for column in zip(*recorded, strict=True))
    return Curve(recorded_steps, reward, kl, objective)


def _loss(method: str, beta: float) -> Any:
    """Group → Score; the behavior baseline is the batch's mean of r − β ln(π/π_ref)."""
    known = presets.method(method)
    if known.baseline is None:
        return functools.partial(known.loss, beta=beta)

    def with_batch_mean(group: losses.Group) -> losses.Score:
        log_ratio = (group.log_prob - group.ref_log_prob).detach()
        mean = (group.reward - beta * log_ratio).mean().expand(len(group.log_prob))
        return known.loss(group._replace(baseline=mean), beta=beta, baseline="given")

    return with_batch_mean


def _measured(model: TinyTransformer, documents: Integers, problem: Bandit) -> tuple[float, float]:
    policy = policy_of(model, documents)
    return float(problem.expected_reward(policy)), float(problem.kl(policy))


# -------------------------------------------------------------------------------- all together


def compare(
    world: World,
    betas: Sequence[float],
    *,
    methods: Sequence[str] = METHODS,
    learning_rates: Sequence[float] = LEARNING_RATES,
    seeds: int = SEEDS,
    pairs_per_document: int = 4,
    steps: int = 200,
    record_every: int = 25,
    workers: int = 1,
) -> pd.DataFrame:
    """Every method at every β, over seeds, at its best learning rate.

    The learning rate of each method and β is the one of ``learning_rates``, the same for all, with
    the greatest E[r] − β KL on training documents after ``steps`` steps with seed 0; held-out
    documents play no part in it. A seed draws new data from the reference and a new order.

    Returns
    -------
    DataFrame
        Columns method, beta, learning_rate, seed, step, reward, kl: a row for each recorded step.
    """
    run = functools.partial(_job, world, pairs_per_document, (steps, record_every))
    cells = [(method, beta) for method in methods for beta in betas]
    tries = [(*cell, rate, 0) for cell in cells for rate in learning_rates]
    with _Pool(workers) as each:
        tried = dict(zip(tries, each(run, tries), strict=True))
        best = {
            cell: max((tried[*cell, rate, 0].objective, rate) for rate in learning_rates)[1]
            for cell in cells
        }
        others = [(*cell, best[cell], s) for cell in cells for s in range(1, seeds)]
        curves = tried | dict(zip(others, each(run, others), strict=True))
    return _table(curves, best, seeds)


def _job(
    world: World, per_document: int, clock: tuple[int, int], cell: tuple[str, float, float, int]
) -> Curve:
    torch.set_num_threads(1)
    method, beta, learning_rate, seed = cell
    data = draw_data(world, per_document, np.random.default_rng([seed, 1]))
    return train(
        world,
        data,
        method,
        beta,
        learning_rate=learning_rate,
        steps=clock[0],
        record_every=clock[1],
        seed=seed,
    )


def _table(
    curves: Mapping[tuple[str, float, float, int], Curve],
    best: Mapping[tuple[str, float], float],
    seeds: int,
) -> pd.DataFrame:
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "method": method,
                    "beta": beta,
                    "learning_rate": rate,
                    "seed": seed,
                    "step": curve.steps,
                    "reward": curve.reward,
                    "kl": curve.kl,
                }
            )
            for (method, beta), rate in best.items()
            for seed in range(seeds)
            for curve in [curves[method, beta, rate, seed]]
        ],
        ignore_index=True,
    )


class _Pool:
    """``each(function, items)``, in this process or in several."""

    def __init__(self, workers: int) -> None:
        self.pool = None
        if workers > 1:
            self.pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))

    def __enter__(self) -> Any:
        return lambda f, items: list((map if self.pool is None else self.pool.map)(f, items))

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)


def optimal_front(world: World, betas: Sequence[float]) -> pd.DataFrame:
    """KL and reward of π* over β on held-out documents: no policy of this KL has more reward."""
    rows = []
    for beta in betas:
        problem = world.problem(beta)
        best = problem.optimal_policy()
        rows.append((beta, float(problem.kl(best)), float(problem.expected_reward(best))))
    return pd.DataFrame(rows, columns=["beta", "kl", "reward"])
