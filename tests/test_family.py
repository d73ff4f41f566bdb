"""The family of contrastive policy gradient: scales, exact solutions, rounds, stale data."""

from __future__ import annotations

import functools
import itertools
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import oracles
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import cases, make_case, seeds

import bandit
from bandit import Bandit, analysis, losses, presets
from bandit.losses import Group
from bandit.related import family

independent = bandit.pairs.independent
every_case = given(case=cases(max_arms=5, max_contexts=3, spread=4.0))


def softmax(logits):
    return np.exp(oracles.log_softmax(np.asarray(logits)))


def random_group(seed, size=3, lead=(5,)):
    rng = np.random.default_rng(seed)
    return Group(*(rng.normal(scale=s, size=(*lead, size)) for s in (1.0, 0.7, 1.3)))


def regularized(problem, policy):
    return problem.reward - problem.beta * np.log(policy / problem.reference)


# --------------------------------------------------------------------- CoPG on another scale


@pytest.mark.parametrize("name", family.SCALES)
@settings(max_examples=12)
@every_case
def test_scales_against_copg(name, case):
    problem, pairs, method = case.problem, independent(case.mu), presets.METHODS[name]
    value, gradient = analysis.population(problem, losses.copg, case.logits, pairs)
    found = analysis.population(problem, method.loss, case.logits, pairs, baseline=method.baseline)
    scale = family.SCALES[name](problem.beta)
    np.testing.assert_allclose(
        found[1], scale * gradient, rtol=1e-9, atol=1e-12 * scale * problem.beta
    )
    if not losses.traits(method.loss).semi_gradient:
        np.testing.assert_allclose(found[0], scale * value, rtol=1e-9)


@given(seed=seeds, beta=st.floats(0.1, 3), size=st.integers(2, 5))
def test_members_as_one_another_group_by_group(seed, beta, size):
    group = random_group(seed, size)
    mean = (group.reward - beta * (group.log_prob - group.ref_log_prob)).mean(axis=-1)
    contrast, fitted = losses.copg(group, beta=beta), group._replace(baseline=mean)
    dro = losses.value_regression(fitted, beta=beta)
    # With V fitted to every group apart: β(G − 1)/G of CoPG.
    for mine, copg in zip(dro, contrast, strict=True):
        np.testing.assert_allclose(mine, beta * (size - 1) / size * copg, rtol=1e-9, atol=1e-12)
    own = losses.log_variance(group, beta=beta)
    for mine, copg in zip(own, contrast, strict=True):
        np.testing.assert_allclose(mine, copg / (size * beta), rtol=1e-9, atol=1e-12)
    given_v = group._replace(baseline=np.random.default_rng(seed).normal(size=5))
    dro, tb = (f(given_v, beta=beta) for f in (losses.value_regression, losses.trajectory_balance))
    for a, b in zip(dro, tb, strict=True):
        np.testing.assert_allclose(a, beta**2 * b, rtol=1e-9, atol=1e-12)
    gradient = losses.policy_gradient(given_v, beta=beta, baseline="given").weight
    np.testing.assert_allclose(dro.weight, beta * gradient, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(
        losses.pmd_mean(given_v, beta=beta).weight, gradient, rtol=1e-12, atol=1e-13
    )
    shifted = losses.asymmetric_reinforce(given_v, beta=beta, shift=0.3).weight
    np.testing.assert_allclose(shifted, gradient + 0.3, rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------- a value beside the policy


def joint_by_least_squares(problem, share):
    """min over θ and V of Σ share (r − β ln(π/π_ref) − V)², by a generic solver."""
    r, ref, beta = problem.reward, problem.reference, problem.beta

    def residuals(unknown):
        policy = softmax(np.append(unknown[:-1], 0.0))
        return np.sqrt(share) * (r / beta - np.log(policy / ref) - unknown[-1])

    start = np.zeros(len(r))
    found = scipy.optimize.least_squares(residuals, start, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    return softmax(np.append(found.x[:-1], 0.0)), beta * found.x[-1]


@pytest.mark.parametrize("loss", [losses.value_regression, losses.trajectory_balance])
@settings(max_examples=10)
@given(case=cases(max_arms=5, contexts=False, spread=4.0))
def test_a_learned_value_against_a_joint_solver(loss, case):
    problem = case.problem
    joint = family.joint_solution(problem, loss, case.nu)
    share = (case.nu.sum(axis=0) + case.nu.sum(axis=1)) / 2
    policy, value = joint_by_least_squares(problem, share)
    np.testing.assert_allclose(joint.solution.policy, policy, atol=1e-7)
    assert joint.value == pytest.approx(value, abs=1e-6 * max(1, problem.beta))
    np.testing.assert_allclose(joint.solution.policy, problem.optimal_policy(), rtol=1e-8)
    best = problem.beta * float(problem.log_partition())
    assert joint.value == pytest.approx(best, abs=1e-8 * max(1, problem.beta))


def test_a_learned_value_of_every_context():
    case = make_case(np.random.default_rng(3), (4, 3))
    joint = family.joint_solution(case.problem, losses.value_regression, case.nu)
    assert joint.value.shape == (4,)
    np.testing.assert_allclose(
        joint.value, case.problem.beta * case.problem.log_partition(), rtol=1e-9
    )
    with pytest.raises(ValueError, match=r"^loss: expected value_regression or .* got copg$"):
        family.joint_solution(case.problem, losses.copg, case.nu)


def test_the_profiled_value_is_half_the_variance_in_value_and_gradient():
    case = make_case(np.random.default_rng(5), (4,))
    problem, mu = case.problem, case.mu

    def half_variance(logits):
        r = regularized(problem, softmax(logits))
        return mu @ (r - mu @ r) ** 2 / 2

    value, gradient = analysis.population(
        problem, losses.value_regression, case.logits, independent(mu), baseline="behavior"
    )
    # Two completions to a group.
    assert value == pytest.approx(2 * half_variance(case.logits), rel=1e-11)
    slope = oracles.central_differences(half_variance, case.logits)
    np.testing.assert_allclose(gradient, 2 * slope, atol=1e-9)


# -------------------------------------------------------------- a value that is not the right one


def fixed_point(problem, mu, value):
    """The policy with μ (R − V) = c π, for V ≤ V*: Lambert's W for every arm, a root for c ≥ 0."""
    exponent = np.log(problem.reference) + (problem.reward - value) / problem.beta

    def policy(c):
        if c == 0:
            return np.exp(exponent)
        k = c / (problem.beta * mu)
        return np.real(scipy.special.lambertw(k * np.exp(exponent))) / k

    if abs(policy(0).sum() - 1) < 1e-13:
        return policy(0), 0.0
    c = scipy.optimize.brentq(lambda c: policy(c).sum() - 1, 0, 1e4, xtol=1e-15, rtol=1e-14)
    return policy(c), c


@settings(max_examples=25)
@given(case=cases(max_arms=5, contexts=False, spread=4.0), low=st.floats(0.01, 2))
def test_too_low_a_value_is_solved_by_lamberts_function(case, low):
    problem, pairs = case.problem, independent(case.mu)
    value = problem.beta * (float(problem.log_partition()) - low)
    policy, c = fixed_point(problem, case.mu, value)
    found = analysis.solve(problem, losses.value_regression, pairs, baseline=value)
    assert found.converged
    np.testing.assert_allclose(found.policy, policy, rtol=1e-7, atol=1e-10)
    assert c > 0
    assert found.kl_to_optimal > 0


@settings(max_examples=15)
@given(case=cases(max_arms=5, spread=4.0, max_contexts=3))
def test_the_right_value_leads_to_the_optimum(case):
    problem, pairs = case.problem, independent(case.mu)
    found = analysis.solve(problem, losses.value_regression, pairs, baseline="optimal")
    np.testing.assert_allclose(found.policy, problem.optimal_policy(), rtol=1e-8)
    best = problem.beta * problem.log_partition()
    by_hand = analysis.population(
        problem, losses.value_regression, case.logits, pairs, baseline=best
    )
    named = analysis.population(
        problem, losses.value_regression, case.logits, pairs, baseline="optimal"
    )
    np.testing.assert_allclose(named[1], by_hand[1], rtol=1e-13)


@given(case=cases(max_arms=5, contexts=False, spread=4.0), off=st.floats(-2, 2))
def test_data_from_the_optimum_forgive_any_value(case, off):
    problem = case.problem
    value = problem.beta * (float(problem.log_partition()) + off)
    gradient = analysis.population(
        problem,
        losses.value_regression,
        problem.log_optimal_policy(),
        independent(problem.optimal_policy()),
        baseline=value,
    )[1]
    assert np.abs(gradient).max() < 1e-10 * problem.beta**2 * (1 + abs(off))


@settings(max_examples=20)
@given(case=cases(max_arms=5, contexts=False, spread=4.0))
def test_the_mean_reward_for_a_baseline_is_a_biased_fixed_point(case):
    """With V = E_μ[r]: on either side of V*, but always where μ (R − V) ∝ π."""
    problem, mu = case.problem, case.mu
    value = float(mu @ problem.reward)
    found = analysis.solve(problem, losses.pmd_mean, independent(mu), baseline="reward")
    if value < problem.beta * float(problem.log_partition()):
        np.testing.assert_allclose(found.policy, fixed_point(problem, mu, value)[0], rtol=1e-6)
    pull = mu * (regularized(problem, found.policy) - value)
    np.testing.assert_allclose(pull, pull.sum() * found.policy, atol=1e-9 * max(1, problem.beta))


def test_the_mean_reward_on_our_bandit():
    problem = presets.three_armed_bandit()
    pairs = independent(presets.three_armed_behavior())
    found = analysis.solve(problem, losses.pmd_mean, pairs, baseline="reward")
    np.testing.assert_allclose(found.policy, [0.42209250, 0.42875692, 0.14915058], atol=5.1e-9)
    same = analysis.solve(problem, losses.policy_gradient, pairs, baseline="reward")
    np.testing.assert_allclose(same.policy, found.policy, rtol=1e-9)


@settings(max_examples=10)
@given(case=cases(max_arms=4, contexts=False, spread=4.0), size=st.integers(2, 4))
def test_the_mean_of_a_group_shrinks_rewards(case, size):
    problem, pairs = case.problem, independent(case.mu)
    shrunk = Bandit(problem.reward * (size - 1) / size, problem.beta, problem.reference)
    goal = analysis.solve(shrunk, losses.pmd_mean, pairs, baseline="reward")
    gradient = analysis.population(problem, losses.pmd_mean, goal.logits, pairs, group_size=size)[1]
    assert np.abs(gradient).max() < 1e-8 * max(1, problem.beta)
    if size == 2:
        found = analysis.solve(problem, losses.pmd_mean, pairs)
        np.testing.assert_allclose(found.policy, goal.policy, rtol=1e-7)


# ------------------------------------------------------------------------- asymmetric baselines


@settings(max_examples=15)
@given(case=cases(max_arms=4, contexts=False, spread=4.0), share=st.floats(0.05, 3))
def test_a_baseline_below_the_mean_imitates_the_data(case, share):
    """Half of CoPG's loss, and |shift| KL(μ‖π): minimized by a generic optimizer."""
    problem, mu, shift = case.problem, case.mu, -share * case.problem.beta
    loss = functools.partial(losses.asymmetric_reinforce, shift=shift)
    found = analysis.solve(problem, loss, independent(mu), baseline="behavior")

    def value(free):
        log_policy = oracles.log_softmax(np.append(free, 0.0))
        r = regularized(problem, np.exp(log_policy))
        return mu @ (r - mu @ r) ** 2 / (2 * problem.beta) + shift * mu @ log_policy

    least = scipy.optimize.minimize(
        value, np.zeros(problem.n_arms - 1), method="BFGS", options={"gtol": 1e-9 * problem.beta}
    )
    assert found.converged
    np.testing.assert_allclose(found.policy, softmax(np.append(least.x, 0.0)), atol=1e-5)
    # The gradient says the same: what is added is that of the likelihood.
    plain, moved = (
        analysis.population(problem, f, case.logits, independent(mu), baseline="behavior")[1]
        for f in (losses.policy_gradient, loss)
    )
    likelihood = 2 * (softmax(case.logits) - mu)
    np.testing.assert_allclose(
        moved - plain, -shift * likelihood, atol=1e-11 * max(1, problem.beta)
    )


def test_far_below_the_mean_only_the_data_count():
    case = make_case(np.random.default_rng(8), (4,))
    far = [
        analysis.solve(
            case.problem,
            functools.partial(losses.asymmetric_reinforce, shift=shift),
            independent(case.mu),
            baseline="behavior",
        ).policy
        for shift in (-1.0, -100.0, -10000.0)
    ]
    distance = [np.abs(policy - case.mu).max() for policy in far]
    assert distance[0] > 10 * distance[1] > 100 * distance[2] > 0


@given(case=cases(max_arms=5, contexts=False))
def test_above_the_mean_the_loss_is_convex_up_to_twice_beta_times_the_rarest_share(case):
    mu, beta = case.mu, case.problem.beta
    shift, policy = 2 * beta * mu.min(), softmax(3 * case.logits)
    curvature = beta * (np.diag(mu) - np.outer(mu, mu))
    curvature -= shift * (np.diag(policy) - np.outer(policy, policy))
    assert np.linalg.eigvalsh(curvature).min() > -1e-12 * beta


@pytest.mark.parametrize(("factor", "resting"), [(0.98, 1), (1.02, 3)])
def test_the_bound_on_the_shift_is_reached_by_two_even_arms(factor, resting):
    problem, mu = Bandit([0.0, 0.0], 0.7), np.full(2, 0.5)
    loss = functools.partial(losses.asymmetric_reinforce, shift=factor * 2 * 0.7 * 0.5)
    line = np.linspace(-3, 3, 4000)
    field = analysis.population(
        problem, loss, np.stack([line, 0 * line], axis=-1), independent(mu), baseline="behavior"
    )[1][:, 0]
    assert (np.diff(np.sign(field)) != 0).sum() == resting


# --------------------------------------------------------------------- rounds of mirror descent


@settings(max_examples=10)
@given(case=cases(max_arms=5, max_contexts=2, spread=3.0), factor=st.floats(0.1, 2.5))
def test_rounds_of_rebel_in_closed_form(case, factor):
    problem, eta = case.problem, factor / case.problem.beta
    plain = family.mirror_descent(problem, losses.rebel, eta=eta, rounds=3)
    tied = family.mirror_descent(
        problem, losses.rebel, eta=eta, rounds=3, pairs=case.nu, regularized=True
    )
    start, goal = problem.log_reference, problem.log_optimal_policy()
    assert plain.shape == tied.shape == (4, *problem.shape)
    for t in range(4):
        expected = oracles.log_softmax(start + t * eta * problem.reward)
        np.testing.assert_allclose(plain[t], expected, rtol=1e-8, atol=1e-8)
        left = oracles.log_softmax(goal + (1 - factor) ** t * (start - goal))
        np.testing.assert_allclose(tied[t], left, rtol=1e-8, atol=1e-8)


def test_where_the_rounds_lead():
    problem = Bandit([1.0, 0.4, 1.0, -0.5], 0.5, [0.1, 0.5, 0.2, 0.2])
    rounds = functools.partial(family.mirror_descent, problem, losses.rebel)
    far = rounds(eta=4.0, rounds=20, pairs=np.full((4, 4), 1 / 16))
    np.testing.assert_allclose(np.exp(far[-1]), family.greedy_policy(problem), atol=1e-12)
    np.testing.assert_allclose(family.greedy_policy(problem), [1 / 3, 0, 2 / 3, 0], rtol=1e-15)
    # Without a penalty π* is passed after tη = 1/β, and left behind.
    through = np.exp(rounds(eta=0.5, rounds=8))
    distance = problem.kl_to_optimal(through)
    assert distance.argmin() == 4
    assert distance[4] < 1e-20
    assert distance[8] > 0.01
    once = np.exp(rounds(eta=2.0, rounds=1, regularized=True))
    np.testing.assert_allclose(once[1], problem.optimal_policy(), rtol=1e-12)
    many = np.exp(rounds(eta=1.0, rounds=40, regularized=True))
    assert problem.kl_to_optimal(many[-1]) < 1e-20
    away = rounds(eta=4.2, rounds=6, regularized=True) - problem.log_optimal_policy()
    # Beyond ηβ = 2 every round overshoots, by more each time.
    assert (np.diff(np.ptp(away, axis=-1)) > 0).all()


def test_rounds_with_the_mean_reward_lead_to_the_optimum_if_data_are_fresh():
    """Biased in one round, but its only fixed point has R constant."""
    case = make_case(np.random.default_rng(2), (4,))
    problem = case.problem
    path = family.mirror_descent(
        problem, losses.pmd_mean, eta=0.8 / problem.beta, rounds=25, baseline="reward",
        regularized=True,
    )  # fmt: skip
    distance = problem.kl_to_optimal(np.exp(path))
    assert distance[1] > 1e-4
    assert distance[-1] < 1e-15


def test_rounds_that_cannot_be():
    problem = Bandit([1.0, 0.0, 0.5], 0.5)
    rounds = functools.partial(family.mirror_descent, problem, losses.rebel, eta=400.0, rounds=5)
    with pytest.raises(ValueError, match=r"^rounds: expected at most 1, .* own .*, got 5$"):
        rounds()
    with pytest.raises(ValueError, match=r"^rounds: expected at most 2, .* 0, got 5$"):
        rounds(pairs=np.full((3, 3), 1 / 9))
    apart = np.diag([0.2, 0.3, 0.5])
    with pytest.raises(ValueError, match=r"^pairs: expected data that determine round 1: the comp"):
        family.mirror_descent(problem, losses.rebel, eta=1.0, rounds=2, pairs=apart)
    for what in (
        lambda: family.mirror_descent(None, losses.rebel, eta=1.0, rounds=1),  # type: ignore
        lambda: family.greedy_policy(None),  # type: ignore
        lambda: family.value_estimates(None, 2),  # type: ignore
    ):
        with pytest.raises(TypeError, match=r"^problem: expected a bandit.Bandit, got NoneType$"):
            what()
    for name, options in {
        "eta": {"eta": 0.0, "rounds": 1},
        "eta: expected from 1e-150 to": {"eta": 1e-160, "rounds": 1},
        "eta: expected from 1e-150 to 1e.150": {"eta": 1e200, "rounds": 1},
        "rounds": {"eta": 1.0, "rounds": 0},
        "progress": {"eta": 1.0, "rounds": 1, "progress": "yes"},
    }.items():
        with pytest.raises((ValueError, TypeError), match=f"^{name}"):
            family.mirror_descent(problem, losses.rebel, **options)


def test_steps_as_large_as_allowed_are_greedy():
    """Beyond 1e150 the gradient's squares would be lost, and the start taken for the solution."""
    path = family.mirror_descent(
        Bandit([1.0, 0.0, 0.5], 0.5),
        losses.rebel,
        eta=1e150,
        rounds=1,
        pairs=np.full((3, 3), 1 / 9),
    )
    np.testing.assert_array_equal(np.exp(path[1]), [1, 0, 0])


def test_rounds_show_progress_and_an_interrupt_keeps_what_was_done():
    told = []

    def stop(step, steps):
        told.append((step, steps))
        if step == 3:
            raise KeyboardInterrupt

    rounds = functools.partial(
        family.mirror_descent, Bandit([1.0, 0.0, 0.5], 0.5), losses.rebel, eta=0.3, rounds=5
    )
    with pytest.warns(RuntimeWarning, match=r"^mirror_descent: interrupted; 3 of 5 rounds") as seen:
        part = rounds(progress=stop)
    assert seen[0].filename == __file__
    assert told == [(1, 5), (2, 5), (3, 5)]
    np.testing.assert_array_equal(part, rounds()[:4])


# ----------------------------------------------------------------------- V* from samples


@settings(max_examples=10)
@given(case=cases(max_arms=4, max_contexts=2), samples=st.integers(1, 4))
def test_estimates_of_the_optimal_value_by_enumeration(case, samples):
    problem = case.problem
    found = family.value_estimates(problem, samples)
    rewards, references = np.atleast_2d(problem.reward), np.atleast_2d(problem.reference)
    values, shares = (np.atleast_2d(x) for x in found)
    best = np.atleast_1d(problem.beta * problem.log_partition())
    for x, (r, ref) in enumerate(zip(rewards, references, strict=True)):
        mean, first = 0.0, 0.0
        for drawn in itertools.product(range(len(r)), repeat=samples):
            probability = math.prod(ref[y] for y in drawn)
            tilted = math.fsum(math.exp(r[y] / problem.beta) for y in drawn) / samples
            mean += probability * problem.beta * math.log(tilted)
            first += probability * tilted
        assert shares[x].sum() == pytest.approx(1, abs=1e-12)
        assert shares[x] @ values[x] == pytest.approx(mean, rel=1e-9, abs=1e-12 * problem.beta)
        assert shares[x] @ np.exp(values[x] / problem.beta) == pytest.approx(first, rel=1e-10)
        assert first == pytest.approx(np.exp(best[x] / problem.beta), rel=1e-9)
        assert mean <= best[x] + 1e-12 * problem.beta


def test_a_thousand_samples_against_binomial_probabilities():
    """Two arms: how often the first is drawn, in fractions. Three: what holds of all together."""
    problem = Bandit([1.0, -0.2], 0.4, [0.3, 0.7])
    value, share = family.value_estimates(problem, 1000)
    often = np.arange(1000, -1, -1)
    first, second = map(Fraction, problem.reference)
    for k in range(0, 1001, 50):
        exact = math.comb(1000, k) * first**k * second ** (1000 - k)
        assert share[1000 - k] == pytest.approx(float(exact), rel=1e-11)
    tilted = (often * math.exp(2.5) + (1000 - often) * math.exp(-0.5)) / 1000
    np.testing.assert_allclose(value, 0.4 * np.log(tilted), rtol=1e-12, atol=1e-14)
    # Half a million sets; to first order the bias is β Var(exp(r/β)) / (2 M Z²).
    three = presets.three_armed_bandit()
    value, share = family.value_estimates(three, 1000)
    assert len(value) == math.comb(1002, 2)
    assert share.sum() == pytest.approx(1, abs=1e-13)
    best = three.beta * float(three.log_partition())
    tilted = np.exp(three.reward / three.beta)
    z = three.reference @ tilted
    bias = three.beta * (three.reference @ (tilted - z) ** 2) / (2000 * z**2)
    assert best - share @ value == pytest.approx(bias, rel=0.01)


def test_sets_come_in_the_order_of_sorted_draws():
    problem = Bandit([1.0, -0.2, 0.4], 0.4, [0.2, 0.5, 0.3])
    value, share = family.value_estimates(problem, 4)
    drawn = list(itertools.combinations_with_replacement(range(3), 4))
    by_hand = [0.4 * np.log(np.exp(problem.reward[list(d)] / 0.4).mean()) for d in drawn]
    np.testing.assert_allclose(value, by_hand, rtol=1e-13)
    ways = [len(set(itertools.permutations(d))) for d in drawn]
    by_hand = [w * math.prod(problem.reference[list(d)]) for w, d in zip(ways, drawn, strict=True)]
    np.testing.assert_allclose(share, by_hand, rtol=1e-13)


def test_sets_too_many_to_list():
    with pytest.raises(ValueError, match=r"^samples: expected at most 4194304 .* got 282775273463"):
        family.value_estimates(Bandit(np.zeros(30), 1.0), 20)
    alone = family.value_estimates(Bandit([2.0], 1.0), 10**9)
    assert (float(alone.value[0]), float(alone.probability[0])) == pytest.approx((2.0, 1.0))
    with pytest.raises(TypeError, match=r"^samples: expected a positive integer, got 2.5$"):
        family.value_estimates(Bandit(np.zeros(3), 1.0), 2.5)  # type: ignore


def test_more_samples_estimate_better():
    problem = Bandit([1.0, -0.2, 0.4], 0.4, [0.2, 0.5, 0.3])
    best, gaps = problem.beta * float(problem.log_partition()), []
    for samples in (1, 2, 4, 8, 16, 32):
        value, share = family.value_estimates(problem, samples)
        gaps.append(best - share @ value)
    assert (np.diff(gaps) < 0).all()
    # To first order the bias is β Var(exp(r/β)) / (2 M Z²).
    tilted = np.exp(problem.reward / problem.beta)
    z = problem.reference @ tilted
    variance = problem.reference @ (tilted - z) ** 2
    assert gaps[-1] == pytest.approx(problem.beta * variance / (2 * 32 * z**2), rel=0.1)


# ------------------------------------------------------------------ PPO and the clipped objective


def scored(loss, ratio, advantage, epsilon=0.2, mu=0.3):
    log_prob = np.log(mu * np.asarray(ratio))[..., None]
    reward = np.broadcast_to(np.asarray(advantage)[..., None], log_prob.shape)
    behavior = np.full_like(log_prob, np.log(mu))
    group = Group(log_prob, log_prob, reward, behavior_log_prob=behavior)
    score = loss(group, beta=1.0, epsilon=epsilon)
    return score.value, -score.weight[..., 0]


@given(
    ratio=st.floats(0.05, 4), advantage=st.floats(-3, 3).filter(bool), epsilon=st.floats(0.05, 0.9)
)
def test_the_pessimism_is_in_the_update(ratio, advantage, epsilon):
    values, pushes = zip(
        *(
            scored(f, ratio, advantage, epsilon)
            for f in (losses.ppo_clip, losses.clipped_objective)
        ),
        strict=True,
    )
    ppo, clipped = map(float, pushes)
    assert ppo == pytest.approx(ratio * clipped, rel=1e-12)
    # The quotient of two exponentials is not quite the ratio.
    if abs(abs(ratio - 1) - epsilon) < 1e-12 or abs(ratio - 1) < 1e-12:
        return
    off = (advantage > 0 and ratio > 1 + epsilon) or (advantage < 0 and ratio < 1 - epsilon)
    assert clipped == (0 if off else advantage)
    if not off:
        assert (clipped < ppo) == (advantage * (ratio - 1) > 0)
    # The objectives, each less its value at ρ = 1, are ordered by the sign of A alone.
    both = zip(values, (losses.ppo_clip, losses.clipped_objective), strict=True)
    gain = [float(scored(f, 1.0, advantage, epsilon)[0]) - float(v) for v, f in both]
    if abs(ratio - 1) > 1e-6:
        assert (gain[1] < gain[0]) == (advantage > 0)


@given(case=cases(max_arms=5, contexts=False))
def test_on_average_the_weights_differ_by_what_the_policy_has_gained(case):
    """E_μ[ρA] − E_μ[A] = E_π[R] − E_μ[R]: without clipping PPO's advantages average to zero."""
    problem, mu, policy = case.problem, case.mu, softmax(case.logits)
    rewards = regularized(problem, policy)
    advantage = rewards - policy @ rewards
    gained = policy @ rewards - mu @ rewards
    difference = mu @ (policy / mu * advantage) - mu @ advantage
    assert difference == pytest.approx(gained, abs=1e-11 * max(1, problem.beta))
    (ppo, clipped) = (
        analysis.population(
            problem, loss, case.logits, independent(mu), baseline="value", group_size=1
        )[1]
        for loss in (losses.importance_sampling, losses.policy_gradient)
    )
    expected = -(policy - mu) * advantage - policy * (mu @ advantage)
    np.testing.assert_allclose(ppo - clipped, expected, atol=1e-10 * max(1, problem.beta))


# --------------------------------------------------------------------------------- stale data


def by_hand(problem, loss, refresh, steps, lr):
    """The same descent from the tests' own expectations, one context at a time."""
    path = [np.array(problem.log_reference)]
    for step in range(steps):
        if step % refresh == 0:
            mu = softmax(path[-1])
        gradient = oracles.population(
            problem, loss, path[-1], None, None, "value", mu, group_size=1
        )[1]
        rho = np.ones(1) if problem.n_contexts is None else problem.context_weights[:, None]
        path.append(path[-1] - lr * gradient / rho)
    return np.array(path)


@pytest.mark.parametrize("name", ["policy_gradient", "ppo_clip", "clipped_objective"])
@pytest.mark.parametrize("shape", [(4,), (3, 4)])
def test_descent_on_stale_data_against_loops(name, shape):
    problem = make_case(np.random.default_rng(4), shape).problem
    loss = losses.get(name)
    bound = functools.partial(loss, beta=problem.beta, baseline="given")
    history = family.descend_on_stale_data(
        problem, loss, refresh=3, steps=7, optimizer=bandit.SGD(0.6), baseline="value"
    )
    expected = by_hand(problem, bound, 3, 7, 0.6)
    np.testing.assert_allclose(history.logits[:, 0], expected, rtol=1e-10, atol=1e-11)
    assert history.method == name
    assert history.steps.tolist() == list(range(8))
    assert history.settings["refresh"] == 3


def test_fresh_data_give_the_policy_gradient():
    problem = make_case(np.random.default_rng(6), (4,)).problem
    history = family.descend_on_stale_data(
        problem, losses.policy_gradient, refresh=1, steps=1, optimizer=bandit.SGD(1.0)
    )

    def objective(logits):
        return float(problem.objective(softmax(logits)))

    slope = oracles.central_differences(objective, problem.log_reference)
    np.testing.assert_allclose(np.diff(history.logits[:, 0], axis=0)[0], slope, atol=1e-9)


def test_an_interrupt_keeps_what_was_done():
    def stop(step, steps):
        if step >= 200:
            raise KeyboardInterrupt

    with pytest.warns(RuntimeWarning, match=r"^descend_on_stale_data: interrupted; records until"):
        history = family.descend_on_stale_data(
            presets.three_armed_bandit(), losses.policy_gradient, refresh=2, steps=600,
            optimizer=bandit.SGD(0.1), progress=stop,
        )  # fmt: skip
    assert history.interrupted
    assert 200 <= history.steps[-1] < 600


def test_divergence_on_stale_data_is_told():
    with pytest.warns(RuntimeWarning, match=r"^descend_on_stale_data: 1 of 1 runs diverged"):
        history = family.descend_on_stale_data(
            Bandit([2.5, 2.0, 0.2], 0.5), losses.policy_gradient, refresh=2, steps=30,
            optimizer=bandit.SGD(1e308),
        )  # fmt: skip
    assert np.isnan(history.regret()[-1]).all()
    assert np.isfinite(history.regret()[0]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refresh": 0}, "^refresh: expected a positive integer, got 0"),
        ({"steps": 1.5}, "^steps: expected a positive integer, got 1.5"),
        ({"optimizer": bandit.SGD}, "^optimizer: expected"),
        ({"start": np.zeros(4)}, r"^start: expected shape \(3,\)"),
        ({"baseline": "mean"}, "^baseline: expected one of value, behavior, reward, optimal"),
    ],
)
def test_bad_input_of_stale_data(options, message):
    known = {"refresh": 1, "steps": 2, "optimizer": bandit.SGD(0.1)}
    with pytest.raises((ValueError, TypeError), match=message):
        family.descend_on_stale_data(
            presets.three_armed_bandit(), losses.policy_gradient, **(known | options)
        )


# -------------------------------------------------------------------------------- the comparison


def test_the_comparison_lists_the_family():
    table = analysis.compare(
        presets.three_armed_bandit(), independent(presets.three_armed_behavior())
    )
    for name in ("value_regression", "trajectory_balance", "optimal_advantage", *family.SCALES):
        assert table.kl_to_optimal[name] < 1e-12
    assert table.kl_to_optimal[["pmd_mean", "asymmetric_reinforce"]].min() > 0.05
    assert table.converged.drop(["ppo_clip", "clipped_objective"]).all()


# ------------------------------------------------------------------------------------- the pages

PAGES = Path(__file__).parents[1] / "notebooks/site/pages/related"


def test_the_example_prints_what_is_written_below_it(capsys):
    text = (PAGES / "family.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", text, flags=re.M | re.S)
    assert len(shown) == 1
    for code, expected in shown:
        exec(compile(code, "family.md", "exec"), {})
        assert capsys.readouterr().out == expected


@pytest.mark.parametrize("page", ["family.md", "clipped-objective.md"])
def test_what_a_page_points_to_exists(page):
    text = (PAGES / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (PAGES / target).is_file(), target
    for name in re.findall(r"^\| `(\w+)`", text, flags=re.MULTILINE):
        assert name in presets.METHODS
    for name in re.findall(r"`(?:bandit\.related\.)?family\.(\w+)`", text):
        assert hasattr(family, name)


SCALE = {"1": lambda b: 1.0, r"$\beta$": lambda b: b, r"$1/\beta$": lambda b: 1 / b}
SCALE[r"$1/2\beta$"] = lambda b: 1 / (2 * b)


def test_the_table_has_the_scales():
    text = (PAGES / "family.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    scales = {row[0].split("`")[1]: row[2].strip() for row in rows}
    assert {name for name, shown in scales.items() if shown != "–"} == set(family.SCALES)
    for name, scale in family.SCALES.items():
        assert SCALE[scales[name]](0.3) == pytest.approx(scale(0.3))


def test_methods_without_a_scale_are_no_multiples_of_copg():
    case = make_case(np.random.default_rng(12), (4,))
    pairs = independent(case.mu)
    copg = analysis.population(case.problem, losses.copg, case.logits, pairs)[1]
    for name in ("optimal_advantage", "pmd_mean", "asymmetric_reinforce"):
        loss, baseline = presets.METHODS[name].loss, presets.METHODS[name].baseline
        other = analysis.population(case.problem, loss, case.logits, pairs, baseline=baseline)[1]
        assert np.ptp(other / copg) > 0.01, name
