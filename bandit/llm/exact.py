"""Training on exact expectations, for a model whose every completion can be listed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from bandit import _checks, expectations, groups
from bandit.history import History
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
    loss = groups.bind(loss, problem, baseline)
    where = groups.setting(problem, loss, pairs, preference, baseline)
    context_weights = torch.tensor(np.array(problem.context_weights))
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    recorded, logits = [], []
    for step in range(steps + 1):
        log_probs = enumerate_policy(model, prompts)  # (X, K)
        log_policy = log_probs.detach().double().cpu().numpy()
        if step % every == 0 or step == steps:
            recorded.append(step)
            logits.append(log_policy)
        if step == steps:
            break
        weight = torch.as_tensor(expectations.expected(where, loss, log_policy)[1])
        surrogate = (context_weights[:, None] * weight).to(log_probs) * log_probs
        optimizer.zero_grad()
        surrogate.sum().backward()
        optimizer.step()
    return History(
        problem=problem,
        method=groups.name_of(loss),
        settings={"steps": steps, "optimizer": "Adam", "learning_rate": learning_rate},
        steps=np.array(recorded),
        logits=np.array(logits)[:, None],
    )
