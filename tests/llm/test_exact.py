"""On a transformer with 216 outputs the losses go where theory says."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from bandit import losses, pairs
from bandit.llm import TinyTransformer, as_bandit, policy_of, train_exact
from bandit.llm.copies import Copies
from bandit.llm.exact import Exact, train_exact_together

V, L, BETA = 6, 3, 0.5
PROMPTS = [[0]]
UNIFORM = pairs.independent(np.full(V**L, V**-L))


def reward():
    """Not symmetric, not centered, and not a sum over tokens."""
    rng = np.random.default_rng(5)
    first, pair = rng.normal(size=V), rng.normal(size=(V, V))
    y = np.stack(np.unravel_index(np.arange(V**L), (V,) * L), -1)
    return (first[y[:, 0]] + pair[y[:, 1], y[:, 2]] * 0.7 + 0.4 * (y[:, 0] == y[:, 2]))[None]


def trained(loss, steps, shift=0.0, learning_rate=3e-3, **options):
    model = TinyTransformer(V, L, width=32)
    problem = as_bandit(model, reward(), BETA, PROMPTS)
    moved = as_bandit(model, reward() + shift, BETA, PROMPTS)
    history = train_exact(
        model,
        loss,
        moved,
        PROMPTS,
        UNIFORM,
        steps=steps,
        learning_rate=learning_rate,
        record_every=100,
        **options,
    )
    return problem, history, model


@pytest.mark.slow
def test_contrastive_policy_gradient_lands_on_the_optimum():
    problem, history, model = trained(losses.copg, 600)
    distance = dict(zip(history.steps.tolist(), history.kl_to_optimal()[:, 0], strict=True))
    assert distance[0] > 1
    assert distance[200] < 0.01
    assert distance[600] < 0.001
    assert problem.kl_to_optimal(policy_of(model, PROMPTS)) < 0.001
    assert problem.regret(policy_of(model, PROMPTS)) == pytest.approx(
        BETA * problem.kl_to_optimal(policy_of(model, PROMPTS)), rel=1e-6
    )


@pytest.mark.slow
def test_a_shift_of_all_rewards_moves_policy_gradient_and_not_copg():
    final = {}
    for shift in (0.0, 2.0, -2.0):
        for name in ("copg", "policy_gradient"):
            problem, _, model = trained(losses.get(name), 40, shift)
            final[name, shift] = policy_of(model, PROMPTS)
            if name == "policy_gradient" and shift:
                plain = problem.kl_to_optimal(final[name, 0.0])
                assert problem.kl_to_optimal(final[name, shift]) > plain + 0.2
    for shift in (2.0, -2.0):
        np.testing.assert_allclose(final["copg", shift], final["copg", 0.0], rtol=0, atol=1e-4)
        moved = np.abs(final["policy_gradient", shift] - final["policy_gradient", 0.0]).max()
        assert moved > 0.01


def test_the_first_step_descends_along_the_population_weights():
    """One step of plain gradient against the sum over all ordered pairs, written out."""
    import torch

    from bandit.llm import enumerate_policy

    model = TinyTransformer(V, 1, width=16, heads=2)
    r = np.random.default_rng(1).normal(size=(1, V))
    mu = np.arange(1, V + 1) / np.arange(1, V + 1).sum()
    problem = as_bandit(model, r, BETA, [[2]])
    log_prob = enumerate_policy(model, [[2]])[0]
    log_ratio = (log_prob.detach().double().numpy() - problem.log_reference[0]).round(9)
    surrogate = sum(
        mu[i]
        * mu[j]
        * -((r[0, i] - BETA * log_ratio[i]) - (r[0, j] - BETA * log_ratio[j]))
        * (log_prob[i] - log_prob[j])
        for i in range(V)
        for j in range(V)
    )
    surrogate.backward()
    before = [p.detach().clone() for p in model.parameters()]
    slopes = [p.grad.clone() for p in model.parameters()]
    train_exact(
        model, losses.copg, problem, [[2]], pairs.independent(mu), steps=1, learning_rate=1e-3
    )
    for parameter, old, slope in zip(model.parameters(), before, slopes, strict=True):
        clear = slope.abs() > 1e-4  # Adam's first step is the sign of the slope
        np.testing.assert_allclose(
            (parameter - old).detach()[clear], -1e-3 * torch.sign(slope)[clear], rtol=1e-2
        )


def test_preferences_with_dpo_move_to_the_same_optimum():
    from bandit import preferences

    likes = preferences.bradley_terry(reward())
    problem, history, _ = trained(losses.dpo, 60, preference=likes, learning_rate=1e-2)
    distance = history.kl_to_optimal()[:, 0]
    assert distance[-1] < 0.15 * distance[0]
    assert history.problem is not problem


def test_hyper_parameters_may_be_bound_and_others_are_refused():
    model = TinyTransformer(V, 1)
    problem = as_bandit(model, np.arange(V)[None], BETA, PROMPTS)
    mu = pairs.independent(np.full(V, 1 / V))
    run = partial(train_exact, model, problem=problem, prompts=PROMPTS, pairs=mu, steps=1)
    history = run(partial(losses.copg, beta=0.1))
    assert history.method == "copg"
    with pytest.raises(ValueError, match=r"^preference: "):
        run(losses.dpo)
    with pytest.raises(ValueError, match=r"^steps: expected a positive integer, got 0"):
        train_exact(model, losses.copg, problem, PROMPTS, mu, steps=0)


def test_side_by_side_is_as_one_at_a_time():
    """Runs with other losses, data, rewards and contexts of other weight; the model stays."""
    prompts, rng = np.array([[0], [2]]), np.random.default_rng(3)
    model = TinyTransformer(V, 2, width=16)
    r = rng.normal(size=(2, V**2))
    mu = rng.dirichlet(np.ones(V**2))
    preference = 1 / (1 + np.exp(r[:, None, :] - r[:, :, None]))
    problem = as_bandit(model, r, BETA, prompts, context_weights=[0.8, 0.2])
    shifted = as_bandit(model, r - 2, 2 * BETA, prompts)
    uniform = pairs.independent(np.full(V**2, V**-2.0))
    runs = [
        Exact(losses.copg, problem, uniform),
        Exact(losses.policy_gradient, shifted, pairs.independent(mu)),
        Exact(losses.policy_gradient, problem, pairs.independent(mu), baseline="behavior"),
        Exact(losses.dpo, problem, pairs.independent(mu), preference),
    ]
    before = [p.clone() for p in model.parameters()]
    options = {"steps": 5, "learning_rate": 2e-3, "record_every": 2}
    together = train_exact_together(model, runs, prompts, **options)
    assert all((a == b).all() for a, b in zip(before, model.parameters(), strict=True))
    for run, found in zip(runs, together, strict=True):
        alone = train_exact(
            TinyTransformer(V, 2, width=16),
            run.loss,
            run.problem,
            prompts,
            run.pairs,
            preference=run.preference,
            baseline=run.baseline,
            **options,
        )
        np.testing.assert_array_equal(found.steps, [0, 2, 4, 5])
        np.testing.assert_allclose(found.logits, alone.logits, rtol=0, atol=2e-4)
        assert found.method == alone.method
        assert found.settings == alone.settings
        assert np.abs(found.logits[-1] - found.logits[0]).max() > 0.01
    last = np.stack([history.logits[-1, 0] for history in together])
    apart = np.abs(last[:, None] - last[None]).max(axis=(2, 3))
    assert apart[~np.eye(4, dtype=bool)].min() > 2e-3


@pytest.mark.parametrize("rates", [[], [1e-2, 1e-3]])
def test_copies_come_in_the_order_of_their_learning_rates(rates):
    with pytest.raises(ValueError, match="learning_rates: expected at least one, in ascending"):
        Copies(TinyTransformer(V, 2, width=16), rates)
