"""Training on exact expectations, for a model whose every completion can be listed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike

from bandit import _checks, expectations, groups
from bandit._checks import Array
from bandit.history import History
from bandit.llm.copies import Copies
from bandit.llm.enumeration import enumerate_policy
from bandit.losses import Loss
from bandit.problem import Bandit


def train_exact(
    model: Any,
    loss: Loss,
    problem: Bandit,
    prompts: ArrayLike,
    pairs: Any,
    *,
    preference: ArrayLike | None = None,
    baseline: str | ArrayLike | None = None,
    steps: int,
    learning_rate: float = 1e-2,
    record_every: int = 10,
) -> History:
    """Full-batch Adam on the population loss over all groups of completions.

    Every step lists the policy, asks the exact analysis for the expected weight of each completion
    under ``pairs``, and descends along Σ weight(y) ∇ ln π(y): what
    :func:`bandit.analysis.population` does for a table, through a transformer.

    Parameters
    ----------
    model : causal language model
        Trained in place.
    loss : function of :mod:`bandit.losses`
        ``beta`` (and ``eta``) are the problem's unless bound.
    problem : Bandit
        As :func:`bandit.llm.as_bandit` makes it, for the same prompts.
    prompts : integer array (X, P)
    pairs, preference, baseline
        As in :func:`bandit.analysis.population`, over the K completions.
    steps : int
    learning_rate : float
        Of Adam.
    record_every : int

    Returns
    -------
    History
        With the listed log-probabilities as logits, one run.
    """
    steps = _checks.positive_integer("steps", steps)
    every = _checks.positive_integer("record_every", record_every)
    run = Exact(loss, problem, pairs, preference, baseline)
    weigh = _weigher(run)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    records: dict[int, Array] = {}
    for step in range(steps + 1):
        log_probs = enumerate_policy(model, prompts)  # (X, K)
        log_policy = log_probs.detach().double().cpu().numpy()
        if step % every == 0 or step == steps:
            records[step] = log_policy
        if step == steps:
            break
        surrogate = torch.as_tensor(weigh(log_policy)).to(log_probs) * log_probs
        optimizer.zero_grad()
        surrogate.sum().backward()
        optimizer.step()
    return _history(run, learning_rate, records)


class Exact(NamedTuple):
    """One run of :func:`train_exact_together`; the fields are arguments of :func:`train_exact`."""

    loss: Loss
    problem: Bandit
    pairs: Any
    preference: ArrayLike | None = None
    baseline: str | ArrayLike | None = None


def train_exact_together(
    model: Any,
    runs: Sequence[Exact],
    prompts: ArrayLike,
    *,
    steps: int,
    learning_rate: float = 1e-2,
    record_every: int = 10,
) -> list[History]:
    """:func:`train_exact` of a copy of the model for each of M runs, side by side.

    The same numbers up to rounding, several times faster; the model stays as it is.
    """
    steps = _checks.positive_integer("steps", steps)
    every = _checks.positive_integer("record_every", record_every)
    weighers = [_weigher(run) for run in runs]
    copies = Copies(model, [learning_rate] * len(runs))
    prompts = np.asarray(prompts)
    records: dict[int, Array] = {}
    for step in range(steps + 1):
        log_probs = copies(lambda copy: enumerate_policy(copy, prompts))  # (M, X, K)
        log_policy = log_probs.detach().double().cpu().numpy()
        if step % every == 0 or step == steps:
            records[step] = log_policy
        if step == steps:
            break
        weight = np.stack([weigh(x) for weigh, x in zip(weighers, log_policy, strict=True)])
        copies.optimizer.zero_grad()
        (torch.as_tensor(weight).to(log_probs) * log_probs).sum().backward()
        copies.optimizer.step()
    return [
        _history(run, learning_rate, {step: x[i] for step, x in records.items()})
        for i, run in enumerate(runs)
    ]


def _weigher(run: Exact) -> Callable[[Array], Array]:
    """ln π (X, K) → the expected weight of each completion, contexts weighted too."""
    loss = groups.bind(run.loss, run.problem, run.baseline)
    where = groups.setting(run.problem, loss, run.pairs, run.preference, run.baseline)
    context_weights = np.array(run.problem.context_weights)[:, None]
    expectation = expectations.Expectation(where, loss)
    return lambda log_policy: context_weights * expectation.weight(log_policy)


def _history(run: Exact, learning_rate: float, records: dict[int, Array]) -> History:
    steps = np.array(list(records))
    return History(
        problem=run.problem,
        method=groups.name_of(groups.bind(run.loss, run.problem, run.baseline)),
        settings={"steps": int(steps[-1]), "optimizer": "Adam", "learning_rate": learning_rate},
        steps=steps,
        logits=np.array(list(records.values()))[:, None],
    )
