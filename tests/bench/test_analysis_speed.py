"""Time and memory of the exact analysis: arms that separate cost O(K), pairwise sigmoids O(K²)."""

from __future__ import annotations

import functools

import numpy as np
from test_training_speed import large

import bandit
from bandit import analysis, losses


def asked(contexts: int | None, arms: int) -> tuple[bandit.Bandit, bandit.pairs.Pairs]:
    drawn = large(contexts, arms)
    return drawn["problem"], bandit.pairs.independent(drawn["mu"])


def gradient(contexts: int | None, arms: int):
    problem, pairs = asked(contexts, arms)
    logits = problem.log_reference
    return functools.partial(analysis.population, problem, losses.copg, logits, pairs)


def test_gradient_by_arms(grow, quick):
    sizes = [10**3, 10**4] if quick else [10**3, 10**4, 10**5, 10**6]
    calls = {f"{n:,} arms": gradient(None, n) for n in sizes}
    grow("Exact gradient of CoPG by arms K", calls)
    assert all(np.isfinite(call()[1]).all() for call in calls.values())


def test_gradient_by_contexts(grow, quick):
    sizes = [10, 100] if quick else [10, 100, 1000, 10**4, 10**5]
    calls = {f"{n:,} contexts": gradient(n, 5) for n in sizes}
    grow("Exact gradient of CoPG by contexts X of 5 arms", calls)


def test_solution_by_arms(grow, quick):
    sizes = [10**3, 10**4] if quick else [10**3, 10**4, 10**5, 10**6]
    calls = {}
    for n in sizes:
        problem, pairs = asked(None, n)
        calls[f"{n:,} arms"] = functools.partial(analysis.solve, problem, losses.copg, pairs)
    grow("Exact solution of CoPG by arms K", calls)
    assert all(call().kl_to_optimal < 1e-12 for call in calls.values())


def test_pairwise_gradient_by_arms(grow, quick):
    calls = {}
    for n in [125, 250] if quick else [125, 250, 500, 1000, 2000]:
        problem, pairs = asked(None, n)
        preference = bandit.preferences.bradley_terry(problem.reward)
        calls[f"{n:,} arms"] = functools.partial(
            analysis.population,
            *(problem, losses.dpo, problem.log_reference, pairs),
            preference=preference,
        )
    grow("Exact gradient of DPO by arms K: every pair counts", calls)
