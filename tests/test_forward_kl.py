"""The forward KL optimum against generic solvers, and the data term against what it promises."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.optimize import minimize
from strategies import cases, make_case

import bandit
from bandit import analysis, losses, presets
from bandit.related import forward_kl

THREE, MU = presets.three_armed_bandit(), presets.three_armed_behavior()


def best_by_slsqp(reward, reference, beta):
    """argmax Σ π r − β Σ π_ref ln(π_ref/π) over the simplex, by a solver that knows no formula."""
    found = minimize(
        lambda p: -(p @ reward) + beta * reference @ np.log(reference / p),
        reference,
        jac=lambda p: -reward - beta * reference / p,
        bounds=[(1e-9, 1)] * len(reward),
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    return found.x


def test_our_bandit():
    np.testing.assert_allclose(
        forward_kl.optimal_policy(THREE), [0.68071834, 0.22376188, 0.09551978], atol=5e-9
    )


@pytest.mark.filterwarnings("ignore:Values in x were outside bounds")  # scipy below 1.14
@pytest.mark.parametrize("seed", range(6))
def test_closed_form_is_what_a_generic_solver_finds(seed):
    problem = make_case(np.random.default_rng(seed), (3, 5), beta=0.7).problem
    found = forward_kl.optimal_policy(problem)
    for x in range(3):
        expected = best_by_slsqp(problem.reward[x], problem.reference[x], problem.beta)
        np.testing.assert_allclose(found[x], expected, atol=1e-6)


@given(cases())
def test_optimum_is_a_policy_with_one_multiplier_and_nothing_better_near(case):
    problem, policy = case.problem, forward_kl.optimal_policy(case.problem)
    assert policy.shape == problem.shape
    np.testing.assert_allclose(policy.sum(axis=-1), 1, rtol=1e-13)
    # The derivative of the Lagrangian: r + β π_ref/π is one number in each context.
    multiplier = problem.reward + problem.beta * problem.reference / policy
    scale = np.abs(multiplier).max() + problem.beta
    assert np.ptp(multiplier, axis=-1).max() < 1e-12 * scale
    best = forward_kl.objective(problem, policy)
    other = np.exp(case.logits) / np.exp(case.logits).sum(axis=-1, keepdims=True)
    for share in (1e-4, 0.1, 1.0):
        assert forward_kl.objective(problem, (1 - share) * policy + share * other) < best


def test_objective_is_the_sum_over_contexts_written_out():
    case = make_case(np.random.default_rng(3), (3, 4))
    problem, policy = case.problem, np.exp(case.logits)
    policy /= policy.sum(axis=-1, keepdims=True)
    total = 0.0
    for rho, r, ref, p in zip(
        problem.context_weights, problem.reward, problem.reference, policy, strict=True
    ):
        total += rho * sum(p * r) - rho * problem.beta * sum(ref * np.log(ref / p))
    assert forward_kl.objective(problem, policy) == pytest.approx(total, rel=1e-12)
    several = forward_kl.objective(problem, np.stack([policy, problem.reference]))
    assert several[0] == pytest.approx(total, rel=1e-12)
    assert several[1] == pytest.approx(problem.expected_reward(problem.reference), rel=1e-12)
    with_hole = np.array([0.0, 0.5, 0.5])
    assert forward_kl.objective(THREE, with_hole) == -np.inf


def test_contexts_that_never_come_up_do_not_count_however_bad_they_are():
    two = bandit.Bandit([[1.0, 0.0], [0.0, 1.0]], 1.0, context_weights=[1.0, 0.0])
    alone = bandit.Bandit([1.0, 0.0], 1.0)
    policy = np.array([[0.3, 0.7], [0.0, 1.0]])
    found = forward_kl.objective(two, policy)
    assert found == pytest.approx(float(forward_kl.objective(alone, policy[0])), rel=1e-15)
    assert two.kl([[0.3, 0.7], [0.5, 0.5]], [[0.5, 0.5], [0.0, 1.0]]) == pytest.approx(
        float(alone.kl([0.3, 0.7])), rel=1e-15
    )
    often = bandit.Bandit(two.reward, 1.0, context_weights=[0.9, 0.1])
    assert forward_kl.objective(often, policy) == -np.inf


@pytest.mark.parametrize("beta", [1e-9, 1e-3, 1.0, 1e3, 1e9])
def test_extremes_of_beta_and_of_the_reference(beta):
    problem = bandit.Bandit([1.0, 0.3, -2.0, 1.0], beta, [1e-12, 0.4, 0.6 - 1e-12 - 1e-6, 1e-6])
    policy = forward_kl.optimal_policy(problem)
    assert policy.sum() == pytest.approx(1, rel=1e-14)
    multiplier = (problem.reward - 1) / beta + problem.reference / policy
    assert np.ptp(multiplier) < 1e-13 * np.abs(problem.reward - 1).max() / beta + 1e-12
    assert policy[0] / policy[3] == pytest.approx(1e-6, rel=1e-12)
    if beta == 1e9:
        np.testing.assert_allclose(policy, problem.reference, rtol=1e-8)


def test_equal_rewards_and_one_arm_leave_the_reference():
    reference = [0.2, 0.3, 0.5]
    np.testing.assert_allclose(
        forward_kl.optimal_policy(bandit.Bandit([2.0, 2.0, 2.0], 0.1, reference)),
        reference,
        rtol=1e-15,
    )
    assert forward_kl.optimal_policy(bandit.Bandit([2.0], 0.1)) == 1


@given(cases())
def test_every_arm_keeps_a_share_that_falls_like_beta_over_the_gap(case):
    problem = case.problem
    gap = problem.reward.max(axis=-1, keepdims=True) - problem.reward
    kept = forward_kl.optimal_policy(problem) / problem.reference
    assert (kept >= problem.beta / (problem.beta + gap) * (1 - 1e-12)).all()
    # The usual optimum of the same problem keeps at most exp(−gap/β) of what the best arms kept.
    usual = problem.optimal_policy() / problem.reference
    np.testing.assert_allclose(
        usual, usual.max(axis=-1, keepdims=True) * np.exp(-gap / problem.beta), rtol=1e-9
    )


def test_something_else_than_a_bandit():
    for call in (forward_kl.optimal_policy, lambda p: forward_kl.objective(p, [1.0])):
        with pytest.raises(TypeError, match=r"^problem: expected a bandit.Bandit, got list$"):
            call([1.0, 2.0])
    with pytest.raises(ValueError, match=r"^policy: expected shape"):
        forward_kl.objective(THREE, [0.5, 0.5])


# -------------------------------------------------------------------------------- the data term


def with_term(alpha):
    return functools.partial(losses.dpo_with_data_term, alpha=alpha)


def test_the_module_has_no_loss_of_its_own():
    assert forward_kl.loss is losses.dpo_with_data_term is losses.get("dpo_with_data_term")


@pytest.mark.parametrize("alpha", [0.02, 0.3, 4.0])
@pytest.mark.parametrize("seed", range(3))
def test_solution_is_what_a_generic_minimizer_finds(seed, alpha):
    case = make_case(np.random.default_rng(seed), (4,), beta=0.6)
    sharp = 0.5 + 0.5 * np.sign(case.preference - 0.5)  # with cycles as they come
    first, nu = case.nu.sum(axis=1), case.nu

    def cost(logits):
        log_p = logits - np.logaddexp.reduce(logits)
        ratio = log_p - np.log(case.problem.reference)
        gap = 0.6 * (ratio[:, None] - ratio[None, :])
        contrast = sharp * np.logaddexp(0, -gap) + (1 - sharp) * np.logaddexp(0, gap)
        return (nu * contrast).sum() - alpha * (first + nu.sum(axis=0)) @ log_p / 2

    found = analysis.solve(case.problem, with_term(alpha), nu, preference=sharp)
    assert found.converged
    expected = minimize(cost, np.zeros(4), method="BFGS", options={"gtol": 1e-9})
    policy = np.exp(expected.x - np.logaddexp.reduce(expected.x))
    np.testing.assert_allclose(found.policy, policy, atol=2e-6)
    assert found.value == pytest.approx(expected.fun, abs=1e-10)


@settings(max_examples=15)
@given(cases(contexts=False))
def test_bounds_of_the_solution(case):
    """KL(μ‖π̂) ≤ KL(μ‖π_ref) + ln 2/α, and π̂/μ within 1 ± 2β/α, whatever the preferences."""
    problem, sharp = case.problem, 0.5 + 0.5 * np.sign(case.preference - 0.5)
    pairs = bandit.pairs.independent(case.mu)
    for alpha in (0.1 * problem.beta, 3 * problem.beta):
        found = analysis.solve(problem, with_term(alpha), pairs, preference=sharp)
        assert found.converged
        allowed = case.mu @ np.log(case.mu / problem.reference) + np.log(2) / alpha
        assert case.mu @ np.log(case.mu / found.policy) <= allowed + 1e-9
        assert np.abs(found.policy / case.mu - 1).max() <= 2 * problem.beta / alpha + 1e-9


def test_keeps_the_losers_where_dpo_drives_them_out():
    sharp = bandit.preferences.deterministic(THREE.reward)
    pairs = bandit.pairs.independent(MU)
    with pytest.warns(analysis.NotIdentifiedWarning, match="no finite solution"):
        plain = analysis.solve(THREE, losses.dpo, pairs, preference=sharp)
    assert not plain.converged
    # DPO's own loss falls for ever along the way that gives all to the first arm.
    away = np.array([2.0, 1.0, 0.0])[None] * np.geomspace(1, 100, 6)[:, None]
    value, _ = analysis.population(THREE, losses.dpo, away, pairs, preference=sharp)
    assert (np.diff(value) < 0).all()
    # What is left is the pairs of an arm with itself, at ln 2 each.
    assert value[-1] == pytest.approx(np.log(2) * (MU @ MU), abs=1e-12)
    shares = [
        analysis.solve(THREE, with_term(alpha), pairs, preference=sharp).policy
        for alpha in (0.001, 0.01, 0.1, 1.0, 10.0)
    ]
    assert (np.diff(np.array(shares)[:, 2]) > 0).all()
    assert shares[0][1:].sum() < 0.003
    np.testing.assert_allclose(shares[-1], MU, rtol=0.1)


def test_keeps_the_mass_on_the_data_where_dpo_moves_it_to_an_arm_nobody_compared():
    """Features 1, 0 | 2: to prefer the first to the second is to prefer the third to both."""
    problem = bandit.Bandit(np.zeros(3), 0.5, [0.45, 0.45, 0.1])
    policy = bandit.LogLinear([[1.0], [0.0], [2.0]])
    pairs = bandit.pairs.from_counts([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    often = np.array([[0.5, 0.9, 0.5], [0.1, 0.5, 0.5], [0.5, 0.5, 0.5]])
    plain = analysis.solve(problem, losses.dpo, pairs, preference=often, policy=policy)
    # By hand: 0.5 θ = logit 0.9 + 0.5 ln(π_ref ratio), and equal references drop out.
    assert plain.theta[0] == pytest.approx(2 * np.log(9), rel=1e-9)
    assert plain.policy[:2].sum() < 0.02
    for alpha, least in ((0.1, 0.2), (1.0, 0.75), (10.0, 0.85)):
        kept = analysis.solve(problem, with_term(alpha), pairs, preference=often, policy=policy)
        assert kept.converged
        assert kept.policy[:2].sum() > least


def test_an_arm_outside_the_data_is_given_up():
    pairs = bandit.pairs.independent([0.4, 0.6, 0.0])
    half = np.full((3, 3), 0.5)
    logits = np.array([0.1, 0.3, 0.0]) - np.outer(np.arange(8.0), [0, 0, 1])
    value, _ = analysis.population(THREE, with_term(0.3), logits, pairs, preference=half)
    assert (np.diff(value) < 0).all()


def test_training_reaches_the_exact_solution():
    sharp = bandit.preferences.deterministic(THREE.reward)
    pairs = bandit.pairs.independent(MU)
    goal = analysis.solve(THREE, with_term(0.3), pairs, preference=sharp).policy
    history = bandit.train(
        THREE,
        with_term(0.3),
        pairs=pairs,
        preference=sharp,
        batch_size=256,
        steps=1500,
        optimizer=bandit.Adam(0.01),
        runs=8,
        rng=1,
    )
    # Means of 8 runs x 100 records of a stationary iterate; their spread measured there: 0.004.
    np.testing.assert_allclose(history.policy()[-20:].mean(axis=(0, 1)), goal, atol=0.01)


def test_the_forward_penalty_on_samples_of_the_reference_is_the_data_term():
    """d/dα of the population loss is the cross entropy of μ, which is KL(μ‖π) and a constant."""
    logits, pairs = np.array([0.3, -0.4, 1.1]), bandit.pairs.independent(MU)
    half = np.full((3, 3), 0.5)

    def value(alpha):
        return analysis.population(THREE, with_term(alpha), logits, pairs, preference=half)[0]

    log_policy = logits - np.logaddexp.reduce(logits)
    assert (value(0.7) - value(0.2)) / 0.5 == pytest.approx(-MU @ log_policy, rel=1e-12)
