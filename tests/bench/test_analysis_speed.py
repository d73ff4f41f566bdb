"""Time and growth of the exact analysis: arms that separate cost O(K), pairwise sigmoids O(K²)."""

from __future__ import annotations

import numpy as np
import pytest

import bandit
from bandit import analysis, losses


def large_problem(arms: int) -> tuple[bandit.Bandit, bandit.pairs.Pairs]:
    rng = np.random.default_rng(0)
    reference, mu = rng.dirichlet(np.ones(arms), size=2) * 0.9 + 0.1 / arms
    problem = bandit.Bandit(rng.gamma(2.0, size=arms), 0.4, reference)
    return problem, bandit.pairs.independent(mu)


@pytest.mark.parametrize("arms", [10**4, 10**5, 10**6])
def test_copg_population(per_step, arms):
    problem, pairs = large_problem(arms)

    def look():
        return analysis.population(problem, losses.copg, problem.log_reference, pairs)

    per_step(f"CoPG, expected gradient, {arms} arms", look, 1)
    assert np.isfinite(look()[1]).all()


@pytest.mark.parametrize("arms", [10**4, 10**5, 10**6])
def test_copg_solution(per_step, arms):
    problem, pairs = large_problem(arms)
    per_step(
        f"CoPG, solution, {arms} arms", lambda: analysis.solve(problem, losses.copg, pairs), 1, 3
    )
    assert analysis.solve(problem, losses.copg, pairs).kl_to_optimal < 1e-12


@pytest.mark.parametrize("arms", [500, 1000, 2000])
def test_dpo_population(per_step, arms):
    problem, pairs = large_problem(arms)
    preference = bandit.preferences.bradley_terry(problem.reward)

    def look():
        return analysis.population(
            problem, losses.dpo, problem.log_reference, pairs, preference=preference
        )

    per_step(f"DPO, expected gradient, {arms} arms", look, 1, 3)
    assert np.isfinite(look()[1]).all()
