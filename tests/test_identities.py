"""The theory: what each method converges to, as exact statements about random problems."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import oracles
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import cases, make_case, seeds, simplex

import bandit
from bandit import analysis, losses
from bandit.analysis import NotIdentifiedWarning

independent = bandit.pairs.independent


def log_ratio(problem, policy):
    return np.log(policy) - problem.log_reference


def softmax(x):
    return np.exp(oracles.log_softmax(x))


def tree_of_pairs(rng, arms, smallest=1e-9):
    """ν on a random spanning tree only, in random directions, with very unequal probabilities."""
    nu = np.zeros((arms, arms))
    for y in range(1, arms):
        ends = [y, int(rng.integers(y))]
        rng.shuffle(ends)
        nu[tuple(ends)] = smallest ** rng.uniform()
    return nu / nu.sum()


# ---------------------------------------------------------- contrastive policy gradient finds π*


@given(case=cases())
def test_copg_finds_the_optimum_from_any_pairs(case):
    solution = analysis.solve(case.problem, losses.copg, case.nu)
    assert solution.converged
    np.testing.assert_allclose(solution.policy, case.problem.optimal_policy(), rtol=1e-9)
    assert solution.regret == pytest.approx(0, abs=1e-18 * case.problem.beta)
    assert solution.value == pytest.approx(0, abs=1e-18 * case.problem.beta)


@given(case=cases(contexts=False))
def test_copg_finds_the_optimum_from_a_tree_of_rare_comparisons(case):
    nu = tree_of_pairs(case.rng, case.problem.n_arms)
    solution = analysis.solve(case.problem, losses.copg, nu)
    assert solution.converged
    np.testing.assert_allclose(solution.policy, case.problem.optimal_policy(), rtol=1e-8)


@given(case=cases())
def test_copgs_loss_is_a_squared_distance_from_the_optimum(case):
    """Its value is E_ν (Δ(π) − Δ(π*))² β/2: zero at π*, above zero anywhere else."""
    problem = case.problem
    policy = softmax(case.logits)
    value = analysis.population(problem, losses.copg, case.logits, case.nu)[0]
    away = np.log(policy) - np.log(problem.optimal_policy())
    gap = (away[..., :, None] - away[..., None, :]) ** 2
    per_context = problem.beta / 2 * (case.nu * gap).sum(axis=(-2, -1))
    rho = problem.context_weights
    expected = per_context if rho is None else rho @ per_context
    assert float(value) == pytest.approx(float(expected), rel=1e-9)
    value, gradient = analysis.population(
        problem, losses.copg, problem.log_optimal_policy(), case.nu
    )
    assert abs(value) < 1e-24 * max(1.0, problem.beta)
    assert np.abs(gradient).max() < 1e-13 * max(1.0, problem.beta)


@given(seed=seeds, arms=st.integers(3, 6))
def test_copg_on_separate_components_fixes_only_the_ratios_inside(seed, arms):
    case = make_case(np.random.default_rng(seed), (arms,))
    problem = case.problem
    label = case.rng.integers(2, size=arms)
    assume(0 < label.sum() < arms)
    nu = case.nu * (label[:, None] == label)
    nu /= nu.sum()
    with pytest.warns(NotIdentifiedWarning, match="components") as caught:
        solution = analysis.solve(problem, losses.copg, nu)
    assert not solution.converged
    assert solution.components == tuple(oracles.components(nu > 0))
    assert np.isnan(solution.regret)
    assert np.isnan(solution.kl_to_optimal)
    for part in solution.components:
        assert str(part[0]) in solution.message
        inside = list(part)
        ratio = solution.policy[inside] / problem.optimal_policy()[inside]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)
        assert solution.policy[inside].sum() == pytest.approx(problem.reference[inside].sum())
    assert "\n" not in str(caught[0].message)
    # Any other division of mass between the components is as good.
    moved = solution.logits + np.where(label == 1, 1.7, 0.0)
    value, gradient = analysis.population(problem, losses.copg, moved, nu)
    assert float(value) == pytest.approx(0, abs=1e-20)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)


# ------------------------------------------------------------------ on-policy: the policy gradient


def objective_gradient(problem, logits):
    """∇J by the logits, by central differences of the objective."""
    return (
        oracles.central_differences(
            lambda z: problem.objective(softmax(z)) / problem.beta, logits, step=1e-3
        )
        * problem.beta
    )


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize(
    "loss",
    [
        losses.copg,
        losses.rloo,
        losses.policy_gradient,
        functools.partial(losses.policy_gradient, baseline="leave_one_out"),
        losses.importance_sampling,
    ],
    ids=["copg", "rloo", "pg", "pg-loo", "is"],
)
@settings(max_examples=8)
@given(case=cases(max_arms=4, max_contexts=2))
def test_on_policy_the_descent_is_the_policy_gradient_times_the_group_size(loss, size, case):
    pairs = independent(softmax(case.logits))
    gradient = analysis.population(case.problem, loss, case.logits, pairs, group_size=size)[1]
    expected = size * objective_gradient(case.problem, case.logits)
    np.testing.assert_allclose(-gradient, expected, rtol=1e-7, atol=1e-9 * case.problem.beta)


@settings(max_examples=15)
@given(case=cases(max_arms=4), baseline=st.sampled_from(["value", "behavior", 0.7]))
def test_on_policy_a_baseline_changes_the_variance_and_not_the_gradient(case, baseline):
    problem = case.problem
    pairs = independent(softmax(case.logits))
    plain = analysis.population(problem, losses.policy_gradient, case.logits, pairs)[1]
    moved = analysis.population(
        problem, losses.policy_gradient, case.logits, pairs, baseline=baseline
    )[1]
    np.testing.assert_allclose(moved, plain, rtol=1e-9, atol=1e-11 * problem.beta)


@settings(max_examples=15)
@given(case=cases(max_arms=4))
def test_importance_weights_make_any_behavior_on_policy(case):
    pairs = independent(case.mu, simplex(case.rng, case.problem.shape))
    gradient = analysis.population(case.problem, losses.importance_sampling, case.logits, pairs)[1]
    expected = 2 * objective_gradient(case.problem, case.logits)
    np.testing.assert_allclose(-gradient, expected, rtol=1e-7, atol=1e-9 * case.problem.beta)


# ------------------------------------------------------- off-policy: the contrast is the baseline


@given(case=cases())
def test_the_contrast_supplies_the_behavior_baseline(case):
    """E_μ[(R − E_μ R) ∇ln π] is half of CoPG's expected ascent direction."""
    pairs = independent(case.mu)
    single = analysis.population(
        case.problem,
        losses.policy_gradient,
        case.logits,
        pairs,
        baseline="behavior",
        group_size=1,
    )[1]
    contrast = analysis.population(case.problem, losses.copg, case.logits, pairs)[1]
    np.testing.assert_allclose(single, contrast / 2, rtol=1e-9, atol=1e-12 * case.problem.beta)


@settings(max_examples=20)
@given(case=cases(max_arms=4, max_contexts=2))
def test_off_policy_the_right_baselines_rest_at_the_optimum(case):
    problem = case.problem
    for baseline in ("value", "behavior"):
        gradient = analysis.population(
            problem,
            losses.policy_gradient,
            problem.log_optimal_policy(),
            independent(case.mu),
            baseline=baseline,
        )[1]
        np.testing.assert_allclose(gradient, 0, atol=1e-12 * max(1, problem.beta))
    solution = analysis.solve(
        problem, losses.policy_gradient, independent(case.mu), baseline="behavior"
    )
    np.testing.assert_allclose(solution.policy, problem.optimal_policy(), rtol=1e-7)


@given(case=cases(contexts=False))
def test_off_policy_no_baseline_is_pulled_off_the_optimum(case):
    """There R is the constant β ln Z, and the gradient is 2 β ln Z (π* − μ): not zero."""
    problem = case.problem
    gradient = analysis.population(
        problem, losses.policy_gradient, problem.log_optimal_policy(), independent(case.mu)
    )[1]
    expected = 2 * problem.optimal_value() * (problem.optimal_policy() - case.mu)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12 * problem.beta)


# ------------------------------------------------------------------------------- preferences


@settings(max_examples=25)
@given(case=cases())
def test_ipo_rests_where_expected_preferences_say(case):
    problem = case.problem
    solution = analysis.solve(problem, losses.ipo, independent(case.mu), preference=case.preference)
    wins = np.einsum("...ij,...j->...i", case.preference, case.mu)
    expected = softmax(problem.log_reference + wins / problem.beta)
    assert solution.converged
    np.testing.assert_allclose(solution.policy, expected, rtol=1e-8)


@settings(max_examples=15)
@given(case=cases(max_arms=4, contexts=False))
def test_ipo_depends_on_the_behavior_and_copg_does_not(case):
    problem = case.problem
    assume(problem.n_arms > 2)
    other = simplex(case.rng, problem.shape)
    ipo_places, copg_places = (
        [analysis.solve(problem, loss, independent(mu), **data).policy for mu in (case.mu, other)]
        for loss, data in (
            (losses.ipo, {"preference": case.preference}),
            (losses.copg, {}),
        )
    )
    np.testing.assert_allclose(copg_places[0], copg_places[1], rtol=1e-9)
    gap = np.einsum("ij,j->i", case.preference, case.mu - other) / problem.beta
    assume(np.ptp(gap) > 1e-3)
    moved = np.ptp(np.log(ipo_places[0]) - np.log(ipo_places[1]))
    assert moved == pytest.approx(np.ptp(gap), rel=1e-5)


@given(case=cases(max_arms=5, contexts=False))
def test_ipo_is_least_squares_on_any_pairs(case):
    """Its log-ratios are the weighted least-squares scores of the margins (2P − 1)/(2β)."""
    problem, arms = case.problem, case.problem.n_arms
    rows, targets = [], []
    for i in range(arms):
        for j in range(arms):
            row = np.zeros(arms)
            row[i] += 1
            row[j] -= 1
            weight = np.sqrt(case.nu[i, j])
            rows.append(weight * row)
            targets.append(weight * (2 * case.preference[i, j] - 1) / (2 * problem.beta))
    scores = np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)[0]
    solution = analysis.solve(problem, losses.ipo, case.nu, preference=case.preference)
    np.testing.assert_allclose(solution.policy, softmax(problem.log_reference + scores), rtol=1e-8)


@settings(max_examples=20)
@given(case=cases(max_arms=5, max_contexts=2, spread=4.0))
def test_dpo_finds_the_optimum_from_bradley_terry_preferences(case):
    problem = case.problem
    preference = bandit.preferences.bradley_terry(problem.reward)
    for pairs in (case.nu, independent(case.mu)):
        solution = analysis.solve(problem, losses.dpo, pairs, preference=preference)
        assert solution.converged
        np.testing.assert_allclose(solution.policy, problem.optimal_policy(), rtol=1e-6)


@settings(max_examples=10)
@given(case=cases(max_arms=4, max_contexts=2))
def test_dpo_has_no_minimizer_for_deterministic_preferences(case):
    problem = case.problem
    preference = bandit.preferences.deterministic(problem.reward)
    with pytest.warns(NotIdentifiedWarning, match="dpo: .*no finite solution"):
        solution = analysis.solve(problem, losses.dpo, case.nu, preference=preference)
    assert not solution.converged
    # The loss goes on falling from the reference along the order of the rewards.
    rank = np.argsort(np.argsort(problem.reward, axis=-1), axis=-1)
    values = [
        analysis.population(
            problem,
            losses.dpo,
            problem.log_reference + t * rank / problem.beta,
            case.nu,
            preference=preference,
        )[0]
        for t in (0.0, 3.0, 9.0, 27.0)
    ]
    # Arms drawn against themselves cost ln 2 whatever the policy.
    own = np.einsum("...ii->...", case.nu) * np.log(2)
    floor = float(own if problem.n_contexts is None else problem.context_weights @ own)
    assert (np.diff(values) < 0).all()
    assert values[-1] == pytest.approx(floor, rel=1e-4)


# ------------------------------------------------------------------ restricted and finite data


def projection(problem, features, nu):
    """θ by weighted least squares of differences of r/β + ln π_ref on feature differences."""
    rows, targets = [], []
    rewards, refs = np.atleast_2d(problem.reward), np.atleast_2d(problem.log_reference)
    rho = [1.0] if problem.n_contexts is None else problem.context_weights
    nu = oracles.with_contexts(nu, problem, 2)
    for x, weight in enumerate(rho):
        target = rewards[x] / problem.beta + refs[x]
        for i, j in np.ndindex(nu.shape[1:]):
            root = np.sqrt(weight * nu[x, i, j])
            rows.append(root * (features[x, i] - features[x, j]))
            targets.append(root * (target[i] - target[j]))
    return np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)[0]


@settings(max_examples=25)
@given(case=cases(max_arms=6, max_contexts=3))
def test_log_linear_copg_is_weighted_least_squares_and_depends_on_the_pairs(case):
    problem = case.problem
    assume(problem.reward.size >= 4)
    features = case.rng.normal(size=(*problem.shape, 2))
    full = features.reshape(-1, problem.n_arms, 2)
    policy = bandit.LogLinear(features)
    second = simplex(case.rng, (*problem.shape[:-1], problem.n_arms**2)).reshape(case.nu.shape)
    found = []
    for nu in (case.nu, second):
        solution = analysis.solve(problem, losses.copg, nu, policy=policy)
        theta = projection(problem, full, nu)
        assert solution.converged
        np.testing.assert_allclose(solution.theta, theta, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(solution.policy, softmax(features @ theta), rtol=1e-6)
        found.append(solution.theta)
    restricted = problem.n_arms > 3 or (problem.n_contexts or 1) > 1
    if restricted and problem.n_arms > 2:
        assert np.abs(found[0] - found[1]).max() > 1e-7


def test_log_linear_copg_by_example_moves_far_with_the_pairs():
    rng = np.random.default_rng(0)
    case = make_case(rng, (6,))
    policy = bandit.LogLinear(rng.normal(size=(6, 2)))
    first = analysis.solve(case.problem, losses.copg, independent(case.mu), policy=policy)
    second = analysis.solve(case.problem, losses.copg, independent(case.mu[::-1]), policy=policy)
    assert np.abs(first.policy - second.policy).max() > 1e-2
    assert first.regret > 1e-3


def test_log_linear_with_enough_features_is_tabular():
    case = make_case(np.random.default_rng(1), (3, 4))
    features = np.zeros((3, 4, 12))
    features.reshape(12, 12)[:] = np.eye(12)
    solution = analysis.solve(case.problem, losses.copg, case.nu, policy=bandit.LogLinear(features))
    assert solution.converged
    np.testing.assert_allclose(solution.policy, case.problem.optimal_policy(), rtol=1e-9)


@given(seed=seeds, arms=st.integers(2, 7))
def test_finite_data_fix_the_ratios_of_the_arms_seen(seed, arms):
    """CoPG on a table of counts: exact inside every component, whatever the counts."""
    case = make_case(np.random.default_rng(seed), (arms,))
    counts = case.rng.integers(0, 2, size=(arms, arms)) * case.rng.integers(
        1, 50, size=(arms, arms)
    )
    assume(counts.sum() > 0)
    pairs = bandit.pairs.from_counts(counts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotIdentifiedWarning)
        solution = analysis.solve(case.problem, losses.copg, pairs)
    parts = oracles.components(counts > 0)
    assert solution.converged == (len(parts) == 1)
    for part in map(list, parts):
        ratio = solution.policy[part] / case.problem.optimal_policy()[part]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)


# ------------------------------------------------------------- methods that are the same method


@settings(max_examples=15)
@given(case=cases(max_arms=5))
def test_three_names_of_one_solution(case):
    problem = case.problem
    places = [
        analysis.solve(problem, loss, case.nu)
        for loss in (losses.copg, losses.rloo, losses.log_variance, losses.rebel)
    ]
    for place in places:
        np.testing.assert_allclose(place.policy, problem.optimal_policy(), rtol=1e-9)
    beta = problem.beta
    for place, scale in zip(places, (1, 1, 1 / (2 * beta), beta), strict=True):
        np.testing.assert_allclose(
            place.eigenvalues, scale * places[0].eigenvalues, rtol=1e-8, atol=1e-13 * scale * beta
        )


@settings(max_examples=15)
@given(case=cases(max_arms=4))
def test_reward_weighted_likelihood_tilts_the_behavior(case):
    problem = case.problem
    solution = analysis.solve(problem, losses.reward_weighted, independent(case.mu))
    expected = softmax(np.log(case.mu) + problem.reward / problem.beta)
    np.testing.assert_allclose(solution.policy, expected, rtol=1e-6)
    same = analysis.solve(problem, losses.reward_weighted, independent(problem.reference))
    np.testing.assert_allclose(same.policy, problem.optimal_policy(), rtol=1e-6)
