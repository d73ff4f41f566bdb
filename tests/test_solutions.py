"""Solving: reference values, independent solvers, and never a confident wrong answer."""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from fractions import Fraction

import numpy as np
import oracles
import pytest
import scipy.integrate
import scipy.optimize
import scipy.sparse
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from strategies import cases, make_case, preference_matrix, seeds, simplex

import bandit
from bandit import _stiff_flow, analysis, groups, losses, presets, solvers
from bandit.analysis import NotIdentifiedWarning
from bandit.solutions import _searches

independent = bandit.pairs.independent


def three():
    return presets.three_armed_bandit(), independent(presets.three_armed_behavior())


def solve_quietly(*arguments, **data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotIdentifiedWarning)
        return analysis.solve(*arguments, **data)


# ----------------------------------------------------------------------------- reference values

OPTIMUM = [0.70538451, 0.25949646, 0.03511903]
BRADLEY_TERRY = bandit.preferences.bradley_terry([2.5, 2.0, 1.0])
DETERMINISTIC = bandit.preferences.deterministic([2.5, 2.0, 1.0])
# E_μ[r] without the KL part.
MEAN_REWARD = 0.1 * 2.5 + 0.2 * 2.0 + 0.7 * 1.0


@pytest.mark.parametrize(
    ("loss", "data", "policy"),
    [
        (losses.copg, {}, OPTIMUM),
        (losses.rloo, {}, OPTIMUM),
        (losses.log_variance, {}, OPTIMUM),
        (losses.rebel, {}, OPTIMUM),
        (losses.policy_gradient, {}, [0.21567462, 0.32054355, 0.46378183]),
        (losses.policy_gradient, {"baseline": "value"}, OPTIMUM),
        (losses.policy_gradient, {"baseline": "behavior"}, OPTIMUM),
        (losses.policy_gradient, {"baseline": MEAN_REWARD}, [0.42209250, 0.42875692, 0.14915058]),
        (losses.importance_sampling, {}, OPTIMUM),
        (losses.importance_sampling, {"baseline": "value"}, OPTIMUM),
        (losses.ipo, {"preference": BRADLEY_TERRY}, [0.42635583, 0.35096146, 0.22268271]),
        (losses.ipo, {"preference": DETERMINISTIC}, [0.48971298, 0.36278830, 0.14749872]),
        (losses.dpo, {"preference": BRADLEY_TERRY}, OPTIMUM),
    ],
)
def test_three_armed_solutions(loss, data, policy):
    problem, pairs = three()
    solution = analysis.solve(problem, loss, pairs, **data)
    np.testing.assert_allclose(solution.policy, policy, atol=5.1e-9)
    np.testing.assert_allclose(np.exp(solution.logits), solution.policy, rtol=1e-14)
    assert solution.converged
    assert solution.message == "converged"
    assert solution.residual < 1e-10
    assert solution.components == ((0, 1, 2),)
    assert solution.theta is None


@pytest.mark.parametrize(
    ("loss", "data", "regret"),
    [
        (losses.policy_gradient, {}, 0.504511421247),
        (losses.ipo, {"preference": BRADLEY_TERRY}, 0.151303088591),
        (losses.ipo, {"preference": DETERMINISTIC}, 0.077262954012),
        (losses.copg, {}, 0.0),
    ],
)
def test_three_armed_regrets(loss, data, regret):
    problem, pairs = three()
    solution = analysis.solve(problem, loss, pairs, **data)
    assert solution.regret == pytest.approx(regret, abs=5e-13)
    assert solution.kl_to_optimal == pytest.approx(regret / 0.5, abs=1e-12)
    assert float(problem.regret(solution.policy)) == pytest.approx(solution.regret, rel=1e-12)


def test_three_armed_eigenvalues():
    """Of −2β (diag μ − μμᵀ), whose nonzero eigenvalues add up to −0.46 and multiply to 0.042."""
    problem, pairs = three()
    solution = analysis.solve(problem, losses.copg, pairs)
    assert solution.eigenvalues.shape == (3,)
    np.testing.assert_allclose(
        solution.eigenvalues, [0, -0.125596934911, -0.334403065089], atol=5e-13
    )
    assert solution.eigenvalues.sum() == pytest.approx(-0.46, rel=1e-12)
    assert solution.slowest_eigenvalue == solution.eigenvalues[1]


# ------------------------------------------------- never a confident wrong answer: all methods

METHODS = {
    **{name: (method.loss, method.baseline) for name, method in presets.METHODS.items()},
    "policy_gradient-number": (losses.policy_gradient, 0.5),
    "importance_sampling-value": (losses.importance_sampling, "value"),
    "importance_sampling-clip": (functools.partial(losses.importance_sampling, clip=1.5), "value"),
    "reward_weighted-normalize": (functools.partial(losses.reward_weighted, normalize=True), None),
    "ppo_clip-none": (losses.ppo_clip, None),
}
KINKED = {"slic"}


def difficult(rng):
    """Problems and pairs of many kinds: dense, sparse, with probabilities from 1 down to 1e-12."""
    arms = int(rng.integers(2, 9))
    beta = 10 ** rng.uniform(-1, 1)
    case = make_case(rng, (arms,), beta, spread=rng.choice([1.0, 5.0, 12.0]))
    kind = rng.choice(["dense", "sparse", "rare", "independent", "unequal"])
    nu = rng.dirichlet(np.ones(arms * arms)).reshape(arms, arms)
    if kind == "sparse":
        nu = nu * (rng.random((arms, arms)) < 0.5)
        nu[0, 1] += 1e-3
    if kind == "rare":
        nu = nu ** rng.choice([3, 6])
    pairs = nu / nu.sum()
    if kind in ("independent", "unequal"):
        mu = rng.dirichlet(np.full(arms, 0.5)) ** rng.choice([1, 2]) + 1e-12
        pairs = independent(mu / mu.sum(), simplex(rng, (arms,)) if kind == "unequal" else None)
    return case, pairs


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=10)
@given(seed=seeds)
def test_what_is_called_converged_is_a_resting_place_alone(name, seed):
    case, pairs = difficult(np.random.default_rng(seed))
    loss, baseline = METHODS[name]
    needs = "preference" in losses.traits(loss).requires
    data = {"preference": case.preference if needs else None, "baseline": baseline}
    solution = solve_quietly(case.problem, loss, pairs, **data)
    assert solution.policy.sum() == pytest.approx(1, abs=1e-12)
    if not solution.converged:
        assert solution.message != "converged"
        assert math.isnan(solution.regret)
        return
    assert solution.message == "converged"
    bound = groups.bind(loss, case.problem, baseline)
    nu = np.asarray(pairs)

    def field(logits):
        return oracles.population(case.problem, bound, logits, nu, **data)[1]

    start = np.abs(field(case.problem.log_reference)).max()
    if name in KINKED:
        return
    assert np.abs(field(solution.logits)).max() < 2e-10 * max(1.0, start)
    # Nothing near by is a resting place too: in the arms' own scales the linearized field is not
    # flat in any direction but the common shift of all logits.
    step = 1e-5
    slope = np.stack(
        [
            (field(solution.logits + step * e) - field(solution.logits - step * e)) / (2 * step)
            for e in np.eye(case.problem.n_arms)
        ],
        axis=-1,
    )
    scale = np.abs(slope).max(axis=1, keepdims=True)
    assert (scale > 0).all()
    rows = slope / scale
    rows /= np.abs(rows).max(axis=0)
    singular = np.linalg.svd(rows, compute_uv=False)
    assert singular[-2] > 1e-9 * singular[0]


@pytest.mark.parametrize("name", ["copg", "ipo", "dpo", "grpo", "reward_weighted"])
@settings(max_examples=15)
@given(case=cases(max_arms=4, contexts=False, spread=4.0))
def test_minimizers_against_an_optimizer(name, case):
    loss, data, bound = with_data(name, case)

    def value(free):
        full = np.append(free, 0.0)
        value, gradient = oracles.population(case.problem, bound, full, case.nu, **data)
        return value, gradient[:-1]

    start = case.rng.normal(size=case.problem.n_arms - 1)
    found = scipy.optimize.minimize(value, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    solution = solve_quietly(case.problem, loss, case.nu, **data)
    assert solution.converged
    expected = np.exp(oracles.log_softmax(np.append(found.x, 0.0)))
    assert solution.value <= found.fun + 1e-12 * abs(found.fun) + 1e-25
    np.testing.assert_allclose(solution.policy, expected, atol=2e-5)
    here = oracles.population(case.problem, bound, solution.logits, case.nu, **data)[0]
    assert solution.value == pytest.approx(here, rel=1e-10, abs=1e-13 * max(1, case.problem.beta))


def with_data(name, case):
    loss, baseline = METHODS[name]
    needs = "preference" in losses.traits(loss).requires
    data = {"preference": case.preference if needs else None, "baseline": baseline}
    return loss, data, groups.bind(loss, case.problem, baseline)


FLOWING = [
    "policy_gradient",
    "policy_gradient_value",
    "policy_gradient_behavior",
    "policy_gradient-number",
    "importance_sampling",
    "importance_sampling-value",
    "rloo",
    "grpo",
]


@pytest.mark.parametrize("name", FLOWING)
@settings(max_examples=8)
@given(case=cases(max_arms=3, contexts=False, spread=4.0))
def test_stationary_points_are_where_descent_from_the_reference_goes(name, case):
    loss, data, bound = with_data(name, case)
    solution = solve_quietly(case.problem, loss, case.nu, **data)
    if not solution.converged:
        return
    slowest = solution.slowest_eigenvalue
    assert slowest < 0

    def descent(t, logits):
        return -oracles.population(case.problem, bound, logits, case.nu, **data)[1]

    path = scipy.integrate.solve_ivp(
        descent,
        (0, 25 / -slowest),
        case.problem.log_reference,
        method="BDF",
        rtol=1e-7,
        atol=1e-9,
    )
    end = np.exp(oracles.log_softmax(path.y[:, -1]))
    np.testing.assert_allclose(solution.policy, end, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in METHODS if n not in KINKED])
@settings(max_examples=8)
@given(case=cases(max_arms=4, contexts=False, spread=3.0))
def test_eigenvalues_are_those_of_the_differentiated_field(name, case):
    loss, data, bound = with_data(name, case)
    solution = solve_quietly(case.problem, loss, case.nu, **data)
    if not solution.converged:
        return

    def field(logits):
        return oracles.population(case.problem, bound, logits, case.nu, **data)[1]

    slope = oracles.central_differences(field, solution.logits, step=1e-4).T
    expected = np.linalg.eigvals(-slope)
    # The shift of all logits is the eigenvector of eigenvalue 0.
    expected = np.delete(expected, np.argmin(np.abs(expected)))
    expected = expected[np.argsort(-expected.real)]
    scale = np.abs(expected).max()
    assert solution.eigenvalues[0] == 0
    np.testing.assert_allclose(solution.eigenvalues[1:], expected, rtol=1e-5, atol=1e-7 * scale)


# ----------------------------------------------------------------------------- rare comparisons


def exact_scores(weights, targets):
    """Least-squares scores of pair differences in rational arithmetic, the last one zero."""
    arms = len(weights)
    matrix = [[Fraction(0)] * (arms + 1) for _ in range(arms)]
    for i, j in itertools.product(range(arms), repeat=2):
        w, t = Fraction(float(weights[i][j])), Fraction(float(targets[i][j]))
        matrix[i][i] += w
        matrix[i][j] -= w
        matrix[j][j] += w
        matrix[j][i] -= w
        matrix[i][arms] += w * t
        matrix[j][arms] -= w * t
    rows = [row[: arms - 1] + row[arms:] for row in matrix[: arms - 1]]
    for k in range(arms - 1):
        pivot = next(r for r in range(k, arms - 1) if rows[r][k] != 0)
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [x / rows[k][k] for x in rows[k]]
        for r in range(arms - 1):
            if r != k and rows[r][k] != 0:
                rows[r] = [a - rows[r][k] * b for a, b in zip(rows[r], rows[k], strict=True)]
    return np.array([float(row[-1]) for row in rows] + [0.0])


@pytest.mark.parametrize("rarest", [1e-3, 1e-6, 1e-12])
@settings(max_examples=12)
@given(seed=seeds, arms=st.integers(2, 5))
def test_ipo_with_rare_pairs_against_rational_arithmetic(rarest, seed, arms):
    rng = np.random.default_rng(seed)
    case = make_case(rng, (arms,))
    nu = rarest ** rng.uniform(size=(arms, arms))
    nu /= nu.sum()
    beta = case.problem.beta
    scores = exact_scores(nu, (2 * case.preference - 1) / (2 * beta))
    solution = analysis.solve(case.problem, losses.ipo, nu, preference=case.preference)
    found = solution.logits - case.problem.log_reference
    np.testing.assert_allclose(found - found[-1], scores, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("rare", [1e-6, 1e-12])
@pytest.mark.parametrize(
    "name",
    [
        "copg",
        "rloo",
        "log_variance",
        "rebel",
        "ipo",
        "dpo",
        "policy_gradient",
        "policy_gradient_behavior",
        "policy_gradient_value",
        "importance_sampling",
    ],
)
def test_a_rarely_drawn_arm(name, rare):
    """Newton-type methods must get there although gradient descent would take 1/μ steps."""
    problem = bandit.Bandit([2.5, 2.0, 1.0, 1.4], 0.5, [0.4, 0.3, 0.2, 0.1])
    mu = np.array([rare, 0.2, 0.5, 0.3 - rare])
    loss, baseline = METHODS[name]
    preference = bandit.preferences.bradley_terry(problem.reward)
    needs = "preference" in losses.traits(loss).requires
    data = {"preference": preference if needs else None, "baseline": baseline}
    solution = solve_quietly(problem, loss, independent(mu), **data)
    drowned = rare < 1e-9 and not losses.traits(loss).contrastive
    if drowned and not solution.converged:
        return  # The weights of the other arms bury the rare one's in rounding: saying so is right.
    assert solution.converged
    expected = problem.optimal_policy()
    if name == "ipo":
        expected = np.exp(
            oracles.log_softmax(problem.log_reference + preference @ mu / problem.beta)
        )
    if name == "policy_gradient":
        # The field μ R − π Σ μ R vanishes: R_y = c π_y / μ_y for one number c.
        share = solution.policy / mu
        regularized = problem.reward - problem.beta * (solution.logits - problem.log_reference)
        np.testing.assert_allclose(regularized / regularized[1], share / share[1], rtol=1e-6)
        return
    np.testing.assert_allclose(solution.policy, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("mu", "reward", "beta", "reference"),
    [
        # Two arms: the flow is one-dimensional and leads from anywhere to π*, the field growing
        # by orders of magnitude on the way.
        ([1 - 4e-5, 4e-5], [1.0, 7.85], 0.9, [0.9, 0.1]),
        ([1 - 1e-8, 1e-8], [1.0, 4.0], 0.5, [0.7, 0.3]),
        ([3e-4, 1 - 3e-4], [5.0, 1.0], 1.1, [0.2, 0.8]),
    ],
)
def test_fields_that_grow_along_the_flow(mu, reward, beta, reference):
    problem = bandit.Bandit(reward, beta, reference)
    solution = analysis.solve(problem, losses.policy_gradient, independent(mu), baseline="value")
    np.testing.assert_allclose(solution.policy, problem.optimal_policy(), rtol=1e-6)


# ------------------------------------------------------------------- what cannot be determined


def test_disconnected_pairs_warn_and_name_the_components():
    problem = bandit.Bandit([2.0, 1.0, 0.5, 3.0], 0.5, [0.1, 0.2, 0.3, 0.4])
    nu = np.zeros((4, 4))
    nu[0, 2] = nu[3, 1] = 0.5
    for loss, data in (
        (losses.copg, {}),
        (losses.ipo, {"preference": bandit.preferences.bradley_terry(problem.reward)}),
        (losses.dpo, {"preference": bandit.preferences.bradley_terry(problem.reward)}),
    ):
        name = loss.__name__
        with pytest.warns(NotIdentifiedWarning, match=rf"^{name}: .*2 components") as caught:
            solution = analysis.solve(problem, loss, nu, **data)
        assert "{0, 2}, {1, 3}" in solution.message
        assert solution.components == ((0, 2), (1, 3))
        assert not solution.converged
        assert math.isnan(solution.regret)
        assert math.isnan(solution.kl_to_optimal)
        assert caught[0].filename == __file__


def test_an_arm_that_is_never_compared_is_named():
    problem = bandit.Bandit([2.0, 1.0, 0.5], 0.5, [0.2, 0.3, 0.5])
    with pytest.warns(NotIdentifiedWarning, match=r"\{0, 2\}, \{1\}"):
        solution = analysis.solve(problem, losses.copg, independent([0.4, 0.0, 0.6]))
    assert solution.components == ((0, 2), (1,))
    assert solution.policy[1] == pytest.approx(0.3, rel=1e-12)
    ratio = problem.optimal_policy()[0] / problem.optimal_policy()[2]
    assert solution.policy[0] / solution.policy[2] == pytest.approx(ratio, rel=1e-10)


def test_components_are_named_by_context():
    problem = bandit.Bandit([[2.0, 1.0, 0.5], [0.0, 3.0, 1.0]], 0.5)
    mu = [[0.2, 0.3, 0.5], [0.5, 0.0, 0.5]]
    with pytest.warns(NotIdentifiedWarning, match="in context 1"):
        solution = analysis.solve(problem, losses.copg, independent(mu))
    assert solution.components == (((0, 1, 2),), ((0, 2), (1,)))
    np.testing.assert_allclose(solution.policy[0], problem.optimal_policy()[0], rtol=1e-10)


def test_many_components_are_shortened():
    problem = bandit.Bandit(np.arange(20.0), 1.0)
    nu = np.eye(20) / 20
    with pytest.warns(NotIdentifiedWarning, match="20 components.*and 14 more") as caught:
        analysis.solve(problem, losses.copg, nu)
    assert len(str(caught[0].message)) < 250


def strongly_connected(beats):
    """Whether every arm can reach every other along ``beats``."""
    arms = len(beats)
    reach = np.eye(arms, dtype=bool) | beats
    for k in range(arms):
        reach |= reach[:, k : k + 1] & reach[k : k + 1, :]
    return bool(reach.all())


@settings(max_examples=20)
@given(seed=seeds, arms=st.integers(2, 5), density=st.floats(0.3, 1.0))
@example(seed=86340, arms=3, density=0.6875)  # one arm always loses
@example(seed=290, arms=4, density=0.51)  # two arms always beat the other two
@example(seed=306, arms=4, density=0.454)
def test_dpo_on_labels_has_a_minimizer_just_when_no_set_of_arms_always_wins(seed, arms, density):
    """A finite minimizer exists if and only if the graph of wins is strongly connected."""
    rng = np.random.default_rng(seed)
    case = make_case(rng, (arms,))
    wins = rng.integers(1, 9, size=(arms, arms)) * (rng.random((arms, arms)) < density)
    np.fill_diagonal(wins, 0)
    assume(wins.sum() > 0)
    solution = solve_quietly(
        case.problem,
        losses.dpo,
        bandit.pairs.from_counts(wins + wins.T),
        preference=bandit.preferences.from_counts(wins),
    )
    assert solution.converged == strongly_connected(wins > 0)
    if not solution.converged:
        assert "no finite solution" in solution.message or "components" in solution.message


@pytest.mark.parametrize(
    ("seed", "arms", "density", "says"),
    [
        # The gradient of the arm that always loses, left to balance the others', is their rounding.
        (196, 3, 0.45, "nothing but rounding"),
        (202, 3, 0.45, "nothing but rounding"),
        (240, 3, 0.6, "nothing but rounding"),
        # One arm runs away from sets that part slowly: their gradient is not small yet.
        (0, 5, 0.45, "of some arm the gradient has all but vanished"),
        (100, 5, 0.45, "of some arm the gradient has all but vanished"),
    ],
)
def test_dpo_on_labels_says_that_there_is_no_finite_solution(seed, arms, density, says):
    rng = np.random.default_rng(seed)
    case = make_case(rng, (arms,))
    wins = rng.integers(1, 9, size=(arms, arms)) * (rng.random((arms, arms)) < density)
    np.fill_diagonal(wins, 0)
    assert not strongly_connected(wins > 0)
    solution = solve_quietly(
        case.problem,
        losses.dpo,
        bandit.pairs.from_counts(wins + wins.T),
        preference=bandit.preferences.from_counts(wins),
    )
    assert not solution.converged
    assert "no finite solution" in solution.message
    assert says in solution.message


def test_dpo_far_out_where_preferences_say_so_is_a_solution():
    """Curvature of 1e-17 of what it was at the start, and a gradient that is zero there."""
    problem = bandit.Bandit([0.0, 40.0, 41.0], 1.0, [0.2, 0.3, 0.5])
    solution = solve_quietly(
        problem,
        losses.dpo,
        independent([0.3, 0.3, 0.4]),
        preference=bandit.preferences.bradley_terry(problem.reward),
    )
    assert solution.converged
    np.testing.assert_allclose(solution.logits, problem.log_optimal_policy(), atol=1e-6)


def test_arms_alike_in_all_but_name_are_no_obstacle():
    problem = bandit.Bandit([1.0, 1.0, 1.0], 0.5, [0.2, 0.3, 0.5])
    for loss in (losses.copg, losses.rloo):
        solution = analysis.solve(problem, loss, independent([0.1, 0.2, 0.7]))
        assert solution.converged
        np.testing.assert_allclose(solution.policy, problem.reference, rtol=1e-12)


def test_completions_clipped_off_leave_a_whole_set_of_resting_places():
    """Far from μ both completions are clipped: the field is zero there, and that is no solution."""
    problem = bandit.Bandit([1.0, 7.85], 0.9, [0.9, 0.1])
    pairs = independent([0.5, 0.5])
    for loss in (losses.ppo_clip, losses.clipped_objective):
        for baseline in (None, "value"):
            solution = solve_quietly(problem, loss, pairs, baseline=baseline)
            if solution.converged:
                near = [
                    analysis.population(problem, loss, moved, pairs, baseline=baseline)[1]
                    for moved in solution.logits + 1e-5 * np.array([[1.0, 0.0], [-1.0, 0.0]])
                ]
                assert all(np.abs(g).max() > 0 for g in near)


def test_importance_weights_cannot_see_an_arm_that_is_never_drawn():
    problem = bandit.Bandit([2.0, 1.0, 0.5], 0.5, [0.2, 0.3, 0.5])
    solution = solve_quietly(problem, losses.importance_sampling, independent([0.4, 0.6, 0.0]))
    assert not (solution.converged and solution.kl_to_optimal > 1e-6)


@pytest.mark.parametrize(
    ("name", "mu"),
    [
        *((name, [0.3, 0.7, 0.0]) for name in presets.METHODS),
        ("pmd_mean", [0.0, 0.4, 0.6]),
        ("value_regression", [0.0, 0.4, 0.6]),
    ],
)
def test_an_arm_that_is_never_drawn_gets_what_equations_leave_it_or_nothing_is_claimed(name, mu):
    """A stationary point has R = b at every arm that is drawn, by hand."""
    problem, method = bandit.Bandit([2.5, 2.0, 1.0], 0.5, [0.2, 0.3, 0.5]), presets.METHODS[name]
    data = {"baseline": method.baseline}
    if "preference" in losses.traits(method.loss).requires:
        data["preference"] = BRADLEY_TERRY
    solution = solve_quietly(problem, method.loss, independent(mu), **data)
    drawn = np.array(mu) > 0
    baseline = {
        "optimal_advantage": problem.optimal_value(),
        "policy_gradient_value": problem.optimal_value(),
        "pmd_mean": np.array(mu) @ problem.reward,
    }
    expected = np.full(3, np.nan)
    if name in baseline:
        tilted = problem.reference * np.exp((problem.reward - baseline[name]) / problem.beta)
        expected = np.where(drawn, tilted, 1 - tilted[drawn].sum())
    assert solution.converged == bool((expected > 0).all()), solution.message
    if solution.converged:
        np.testing.assert_allclose(solution.policy, expected, atol=1e-9)


def test_arms_that_are_never_drawn_are_named():
    problem = bandit.Bandit([[2.5, 2.0, 1.0], [0.0, 1.0, 3.0]], 0.5, [0.2, 0.3, 0.5])
    two, one = [[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]], [[0.2, 0.3, 0.5], [0.6, 0.4, 0.0]]
    solve = functools.partial(solve_quietly, problem, losses.reward_weighted)
    message = (
        "arms {0, 2} (counted from 0) are never drawn in context 1: nothing tells their shares "
        "apart"
    )
    assert solve(independent(two)).message == message
    arm = "no finite solution: arm 2 (counted from 0) is never drawn"
    message = f"{arm} in context 1, and given up"
    assert solve(independent(one)).message == message
    first = bandit.Bandit(problem.reward[1], 0.5, problem.reference[1])
    alone = solve_quietly(first, losses.reward_weighted, independent(one[1]))
    assert alone.message == f"{arm}, and given up"


@pytest.mark.parametrize("share", [3e-6, 1.78e-6, 1e-6, 5e-7])
def test_policy_gradient_with_the_value_of_the_policy_is_found_beside_rare_arms(share):
    problem = bandit.Bandit([2.5, 2.0, 1.0], 0.5)
    behavior = share * problem.optimal_policy() + (1 - share) * np.array([0.0, 0.0, 1.0])
    solution = analysis.solve(
        problem, losses.policy_gradient, independent(behavior), baseline="value"
    )
    assert solution.converged
    assert solution.kl_to_optimal < 1e-20


@pytest.mark.parametrize("loss", [losses.copg, losses.rloo, losses.log_variance, losses.rebel])
def test_arms_as_rare_as_can_be_are_solved_to_the_last_digits(loss):
    """Beside an arm drawn nearly always its own gradient is rounding, and theirs is not."""
    rng = np.random.default_rng(7)
    for _ in range(20):
        mu = 10 ** rng.uniform(-24, 0, size=4)
        mu[rng.integers(4)] = 1
        reference = simplex(rng, (4,), floor=0.2)
        problem = bandit.Bandit(rng.normal(size=4), rng.uniform(0.05, 2), reference)
        solution = analysis.solve(problem, loss, independent(mu / mu.sum()))
        expected = problem.log_optimal_policy()
        size = 1 + np.ptp(problem.reward) / problem.beta
        np.testing.assert_allclose(solution.logits, expected, rtol=0, atol=2e-14 * size)


# --------------------------------------------------------------------------------- hinge losses


def hinge_program(problem, nu, preference):
    """Least value of the SLiC loss, and the range of each log-ratio at it, by linear programs."""
    arms, beta = problem.n_arms, problem.beta
    terms = []
    for i, j in itertools.product(range(arms), repeat=2):
        if i != j and nu[i, j] > 0:
            terms.append((i, j, nu[i, j] * preference[i, j]))
            terms.append((j, i, nu[i, j] * (1 - preference[i, j])))
    n = len(terms)
    cost = np.concatenate([np.zeros(arms), [w for _, _, w in terms]])
    # slack ≥ 1 − β(ℓ_i − ℓ_j), slack ≥ 0
    rows = np.zeros((n, arms + n))
    for k, (i, j, _) in enumerate(terms):
        rows[k, [i, j]] = -beta, beta
        rows[k, arms + k] = -1
    bounds = [(0, 0), *[(-50 / beta, 50 / beta)] * (arms - 1), *[(0, None)] * n]
    least = scipy.optimize.linprog(cost, A_ub=rows, b_ub=-np.ones(n), bounds=bounds)
    ranges = []
    for k in range(1, arms):
        ends = []
        for sign in (1, -1):
            aim = np.zeros(arms + n)
            aim[k] = sign
            ends.append(
                scipy.optimize.linprog(
                    aim,
                    A_ub=np.vstack([rows, cost]),
                    b_ub=np.append(-np.ones(n), least.fun + 1e-10),
                    bounds=bounds,
                ).x[k]
            )
        ranges.append(ends)
    own = sum(nu[i, i] for i in range(arms))
    return least.fun + own, np.array(ranges)


@settings(max_examples=20)
@given(seed=seeds, arms=st.integers(2, 4), kind=st.sampled_from(["any", "bt", "labels"]))
def test_slic_against_linear_programs(seed, arms, kind):
    rng = np.random.default_rng(seed)
    case = make_case(rng, (arms,))
    problem = case.problem
    preference = {
        "any": preference_matrix(rng, (arms,)),
        "bt": bandit.preferences.bradley_terry(problem.reward),
        "labels": bandit.preferences.deterministic(problem.reward),
    }[kind]
    nu = case.nu
    value, ranges = hinge_program(problem, nu, preference)
    solution = solve_quietly(problem, losses.slic, nu, preference=preference)
    assert solution.value == pytest.approx(value, rel=1e-8)
    alone = np.abs(ranges[:, 0] - ranges[:, 1]).max() * problem.beta
    if solution.converged:
        assert alone < 1e-4
        found = solution.logits - problem.log_reference
        np.testing.assert_allclose(found[1:] - found[0], ranges[:, 0], atol=1e-4 / problem.beta)
    else:
        assert "not unique" in solution.message or "only known" in solution.message
        assert alone > 1e-7


def test_slic_with_labels_is_a_whole_set():
    problem, pairs = three()
    with pytest.warns(NotIdentifiedWarning, match=r"^slic: .*not unique"):
        solution = analysis.solve(problem, losses.slic, pairs, preference=DETERMINISTIC)
    assert not solution.converged
    # Only arms drawn against themselves cost anything: one each, 0.1² + 0.2² + 0.7² in all.
    assert solution.value == pytest.approx(0.54, rel=1e-9)


def test_slic_in_contexts():
    case = make_case(np.random.default_rng(4), (2, 3))
    solution = solve_quietly(case.problem, losses.slic, case.nu, preference=case.preference)
    total = 0.0
    for x, rho in enumerate(case.problem.context_weights):
        alone = bandit.Bandit(case.problem.reward[x], case.problem.beta, case.problem.reference[x])
        total += rho * hinge_program(alone, case.nu[x], case.preference[x])[0]
    assert solution.value == pytest.approx(total, rel=1e-8)


# -------------------------------------------------------------------------------- log-linear


@pytest.mark.parametrize("name", ["ipo", "dpo", "policy_gradient_value", "policy_gradient"])
@settings(max_examples=10)
@given(case=cases(max_arms=5, max_contexts=2, spread=3.0))
def test_log_linear_solutions_are_stationary(name, case):
    loss, data, bound = with_data(name, case)
    features = case.rng.normal(size=(*case.problem.shape, 2))
    solution = solve_quietly(case.problem, loss, case.nu, policy=bandit.LogLinear(features), **data)
    if not solution.converged:
        return

    def field(theta):
        by_logits = oracles.population(case.problem, bound, features @ theta, case.nu, **data)[1]
        return by_logits.ravel() @ features.reshape(-1, 2)

    scale = max(1.0, float(np.abs(field(np.zeros(2))).max()))
    assert np.abs(field(solution.theta)).max() < 1e-9 * scale
    np.testing.assert_allclose(
        solution.policy, np.exp(oracles.log_softmax(features @ solution.theta)), rtol=1e-9
    )
    if not losses.traits(loss).semi_gradient:
        slope = oracles.central_differences(field, solution.theta, step=1e-4).T
        expected = np.sort(np.linalg.eigvals(-slope).real)[::-1]
        top = np.abs(expected).max()
        np.testing.assert_allclose(solution.eigenvalues, expected, rtol=1e-5, atol=1e-7 * top)
        assert solution.slowest_eigenvalue == pytest.approx(expected[0], rel=1e-4, abs=1e-7 * top)


def test_features_the_pairs_do_not_tell_apart():
    problem = bandit.Bandit([2.0, 1.0, 0.5, 3.0], 0.5)
    nu = np.zeros((4, 4))
    nu[0, 1] = nu[2, 3] = 0.5
    features = np.array([[1.0, 1.0], [0.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    with pytest.warns(NotIdentifiedWarning, match="do not determine all parameters"):
        solution = analysis.solve(problem, losses.copg, nu, policy=bandit.LogLinear(features))
    assert not solution.converged
    assert math.isnan(solution.regret)
    # With the first feature alone the two components share a parameter, and that is enough.
    enough = analysis.solve(problem, losses.copg, nu, policy=bandit.LogLinear(features[:, :1]))
    assert enough.converged
    # min ½(θ − 2)² + ½(2θ + 5)²: θ = −8/5.
    assert enough.theta == pytest.approx([-1.6], rel=1e-9)


def test_a_feature_no_policy_can_use_is_left_alone():
    problem = bandit.Bandit([2.0, 1.0, 0.5], 0.5)
    features = np.array([[1.0, 7.0], [0.0, 7.0], [2.0, 7.0]])
    pairs = independent([0.2, 0.3, 0.5])
    with_constant = analysis.solve(problem, losses.copg, pairs, policy=bandit.LogLinear(features))
    without = analysis.solve(problem, losses.copg, pairs, policy=bandit.LogLinear(features[:, :1]))
    np.testing.assert_allclose(with_constant.policy, without.policy, rtol=1e-10)
    assert with_constant.theta[1] == pytest.approx(0, abs=1e-12)


def test_contexts_without_weight_do_not_determine_features():
    problem = bandit.Bandit([[2.0, 1.0], [0.0, 3.0]], 0.5, context_weights=[1.0, 0.0])
    features = np.zeros((2, 2, 2))
    features[0, 0, 0] = features[1, 0, 1] = 1.0
    pairs = independent([0.4, 0.6])
    solution = solve_quietly(problem, losses.copg, pairs, policy=bandit.LogLinear(features))
    np.testing.assert_allclose(solution.theta, [2.0, 0.0], rtol=1e-9, atol=1e-12)
    weighted = bandit.Bandit([[2.0, 1.0], [0.0, 3.0]], 0.5, context_weights=[0.5, 0.5])
    nu = np.array([[[0.0, 1.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]])
    with pytest.warns(NotIdentifiedWarning, match="do not determine all parameters"):
        analysis.solve(weighted, losses.copg, nu, policy=bandit.LogLinear(features))


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_the_unit_of_the_features_does_not_matter(unit):
    case = make_case(np.random.default_rng(22), (5,))
    features = case.rng.normal(size=(5, 2))
    one = analysis.solve(case.problem, losses.copg, case.nu, policy=bandit.LogLinear(features))
    other = analysis.solve(
        case.problem, losses.copg, case.nu, policy=bandit.LogLinear(unit * features)
    )
    assert other.converged
    np.testing.assert_allclose(other.policy, one.policy, rtol=1e-7)
    np.testing.assert_allclose(other.theta * unit, one.theta, rtol=1e-6)


def test_kinked_losses_take_no_features():
    problem, pairs = three()
    with pytest.raises(ValueError, match=r"^policy: expected None for slic"):
        analysis.solve(
            problem,
            losses.slic,
            pairs,
            preference=BRADLEY_TERRY,
            policy=bandit.LogLinear(np.eye(3)),
        )


# ------------------------------------------------------------------------------- large problems


@pytest.mark.parametrize("name", ["copg", "ipo", "dpo", "rloo", "log_variance", "rebel"])
@pytest.mark.parametrize("shape", [(5,), (2, 4)])
def test_the_way_without_matrices_gives_the_same_solutions(name, shape, monkeypatch):
    case = make_case(np.random.default_rng(5), shape)
    loss, data, _ = with_data(name, case)
    for pairs in (case.nu, independent(case.mu)):
        dense = analysis.solve(case.problem, loss, pairs, **data)
        with monkeypatch.context() as patch:
            patch.setattr(_searches, "DENSE_LIMIT", 1)
            found = analysis.solve(case.problem, loss, pairs, **data)
        assert found.converged
        np.testing.assert_allclose(found.policy, dense.policy, rtol=1e-6)
        assert np.isnan(found.eigenvalues).all()
        assert found.eigenvalues.shape == shape


def test_copg_at_a_million_arms():
    rng = np.random.default_rng(6)
    arms = 1_000_000
    problem = bandit.Bandit(rng.normal(size=arms), 0.4, simplex(rng, (arms,)))
    solution = analysis.solve(problem, losses.copg, independent(simplex(rng, (arms,))))
    assert solution.converged
    np.testing.assert_allclose(solution.policy, problem.optimal_policy(), rtol=1e-8)


@pytest.mark.slow
def test_dpo_at_seven_hundred_arms():
    rng = np.random.default_rng(7)
    arms = 700
    problem = bandit.Bandit(rng.normal(size=arms), 0.5, simplex(rng, (arms,), floor=0.2))
    preference = bandit.preferences.bradley_terry(problem.reward)
    pairs = independent(simplex(rng, (arms,), floor=0.2))
    solution = analysis.solve(problem, losses.dpo, pairs, preference=preference)
    assert solution.converged
    np.testing.assert_allclose(solution.policy, problem.optimal_policy(), rtol=1e-5)


def test_sparse_comparisons_of_many_arms():
    """A ring of 3000 arms with chords, as a sparse table."""
    rng = np.random.default_rng(8)
    arms = 3000
    problem = bandit.Bandit(rng.normal(size=arms), 0.4, simplex(rng, (arms,), floor=0.3))
    ends = np.concatenate(
        [
            np.stack([np.arange(arms), np.roll(np.arange(arms), 1)], axis=-1),
            rng.integers(arms, size=(5 * arms, 2)),
        ]
    )
    counts = scipy.sparse.coo_array((np.ones(len(ends)), ends.T), shape=(arms, arms))
    solution = solve_quietly(problem, losses.copg, bandit.pairs.from_counts(counts))
    assert solution.converged
    np.testing.assert_allclose(solution.policy, problem.optimal_policy(), rtol=1e-6)


@pytest.mark.parametrize("beta", [1e-8, 1e-3, 1e3, 1e8])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_extreme_scales(beta, scale):
    problem = bandit.Bandit(scale * np.array([2.5, -2.0, 1.0]), beta, [0.2, 0.3, 0.5])
    solution = analysis.solve(problem, losses.copg, independent([0.1, 0.2, 0.7]))
    assert solution.converged
    expected = problem.log_optimal_policy()
    np.testing.assert_allclose(
        solution.logits, expected, rtol=1e-9, atol=1e-9 * max(1, np.abs(expected).max())
    )
    assert np.isfinite(solution.regret)


def test_reference_of_1e_minus_300():
    problem = bandit.Bandit([690.0, 1.0, 0.0], 1.0, [1e-300, 0.4, 0.6])
    solution = analysis.solve(problem, losses.copg, independent([0.1, 0.2, 0.7]))
    np.testing.assert_allclose(solution.policy, problem.optimal_policy(), rtol=1e-9)
    rare = analysis.solve(problem, losses.copg, independent([1e-300, 0.4, 0.6]))
    assert not (rare.converged and rare.kl_to_optimal > 1e-9)


# -------------------------------------------------------------------------------------- the rest


def test_contexts_are_solved_as_problems_of_their_own():
    case = make_case(np.random.default_rng(9), (3, 4))
    for name in ("copg", "ipo", "dpo", "policy_gradient_value", "grpo"):
        loss, data, _ = with_data(name, case)
        together = analysis.solve(case.problem, loss, case.nu, **data)
        assert together.eigenvalues.shape == (3, 4)
        total = 0.0
        for x, rho in enumerate(case.problem.context_weights):
            problem = bandit.Bandit(
                case.problem.reward[x], case.problem.beta, case.problem.reference[x]
            )
            mine = {
                **data,
                "preference": None if data["preference"] is None else case.preference[x],
            }
            alone = analysis.solve(problem, loss, case.nu[x], **mine)
            np.testing.assert_allclose(together.policy[x], alone.policy, rtol=1e-7)
            np.testing.assert_allclose(
                together.eigenvalues[x], alone.eigenvalues, rtol=1e-5, atol=1e-9
            )
            total += rho * alone.value
        assert together.value == pytest.approx(total, rel=1e-9, abs=1e-12)
        slowest = together.eigenvalues[:, 1:].real.max()
        assert together.slowest_eigenvalue == slowest


def test_complex_eigenvalues_are_kept():
    """A field that turns: pairs in a circle, with a weight on the first arm alone."""

    def turning(group, *, beta):
        rewards = group.reward - beta * (group.log_prob - group.ref_log_prob)
        slope = rewards[..., 1] - rewards[..., 0]
        return losses.Score(slope, np.stack([slope, 0 * slope], axis=-1))

    problem = bandit.Bandit([1.0, 1.0, 1.0], 1.0)
    nu = np.zeros((3, 3))
    nu[0, 1] = nu[1, 2] = nu[2, 0] = 1 / 3
    solution = analysis.solve(problem, turning, nu)
    assert np.iscomplexobj(solution.eigenvalues)
    np.testing.assert_allclose(
        solution.eigenvalues[1:], [-0.5 + 0.288675134595j, -0.5 - 0.288675134595j], atol=1e-9
    )
    assert solution.slowest_eigenvalue == pytest.approx(-0.5, rel=1e-9)


def test_solutions_are_displayed():
    problem, pairs = three()
    html = analysis.solve(problem, losses.copg, pairs)._repr_html_()
    assert "<table" in html
    assert "0.705385" in html
    assert "converged" in html


@pytest.mark.parametrize(
    ("arguments", "data", "message"),
    [
        ((losses.ipo,), {}, "^preference: expected .*ipo, got None"),
        ((losses.copg,), {"baseline": "value"}, "^baseline: expected None for copg"),
        (("cpg",), {}, "^method: expected one of"),
        (
            (losses.copg,),
            {"policy": bandit.LogLinear(np.eye(4))},
            r"^features: expected shape \(3, 4\), got \(4, 4\)",
        ),
    ],
)
def test_bad_input_raises_one_clear_line(arguments, data, message):
    problem, pairs = three()
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        analysis.solve(problem, *arguments, pairs, **data)
    assert "\n" not in str(caught.value)


def test_names_serve_as_losses():
    problem, pairs = three()
    np.testing.assert_array_equal(
        analysis.solve(problem, "copg", pairs).policy,
        analysis.solve(problem, losses.copg, pairs).policy,
    )


# ------------------------------------------------------------------------------ the plain solvers


def newton(jacobian):
    return lambda theta, now: solvers.Dense(jacobian(theta), np.zeros((1, 1, 1)))


def test_roots_of_a_plain_field():
    """θ − cos θ and θ³ − 2 at once, each a system of one unknown."""

    def field(theta):
        return np.stack([theta[0] - np.cos(theta[0]), theta[1] ** 3 - 2])

    def jacobian(theta):
        return np.stack([1 + np.sin(theta[0]), 3 * theta[1] ** 2])[..., None]

    start = np.array([[0.3], [4.0]])
    root = solvers.find_root(field, newton(jacobian), start)
    assert root.converged.all()
    np.testing.assert_allclose(root.theta[:, 0], [0.739085133215161, 2 ** (1 / 3)], rtol=1e-12)
    assert (root.residual < 1e-9).all()


def test_a_step_that_is_refused_costs_no_new_jacobian():
    """Around a kink nearly all steps are refused; the place, and so its Jacobian, stay the same."""
    asked = []

    def field(theta):
        return np.where(theta > 0.3, 1.0 + theta, theta - 2.0)

    def jacobian(theta, now):
        asked.append(theta)
        return solvers.Dense(np.ones((1, 1, 1)), np.zeros((1, 1, 1)))

    root = solvers.find_root(field, jacobian, np.array([[0.0]]))
    assert not root.converged.any()
    places = [float(theta[0, 0]) for theta in asked]
    assert len(places) == len(set(places))
    assert len(places) < 60


def test_a_place_that_cannot_be_left_is_left_alone():
    seen = []

    def field(theta):
        seen.append(theta)
        return -np.exp(-theta)

    def jacobian(theta):
        return np.exp(-theta)[..., None]

    start = np.array([[0.0]])
    solvers.find_root(field, newton(jacobian), start)
    patient = len(seen)
    seen.clear()
    root = solvers.find_root(
        field, newton(jacobian), start, gone=lambda theta: (theta > 2).any(axis=-1)
    )
    assert not root.converged.any()
    assert solvers.LEAVE < len(seen) < patient / 2


@pytest.mark.parametrize(
    ("lengths", "arrived"),
    [
        ([9e-3, 2e-3, 4e-4], True),
        ([9e-3, 1e-9], True),
        # Steps that are noise contract once by chance.
        ([9e-3, 2e-3, 1.5e-3], False),
        ([9e-3, 8e-3], False),
        ([0.2], False),
    ],
)
def test_a_flow_has_arrived_where_steps_of_newton_contract_and_go_on_to(lengths, arrived):
    steps = iter(lengths)

    class Stub:
        def step(self, field, time_step):
            return np.array([[next(steps)]])

    found = _stiff_flow._newton_contracts(np.ones_like, lambda *_: Stub(), np.zeros(1))
    assert found == arrived


@pytest.mark.parametrize("decay", [1, 3])
def test_the_flow_takes_few_steps_where_it_decays_like_a_power_of_time(decay):
    """θ' = e^{−kθ}: θ = ln(1 + k t)/k, for ever; to the end of time in a few dozen looks."""
    looks = []

    def field(theta):
        looks.append(1)
        return -np.exp(-decay * theta)

    def jacobian(theta):
        return decay * np.exp(-decay * theta)[..., None]

    end = _stiff_flow.follow_flow(
        field,
        jacobian,
        lambda theta, now: newton(lambda t: jacobian(t[0])[None])(theta, now),
        np.array([0.0]),
        gone=lambda theta: bool(theta[0] > 40 / decay),
    )
    assert 40 / decay < end[0] < 80 / decay
    assert len(looks) < 250


def test_a_flow_that_bursts_after_a_long_rest_is_followed():
    """θ' = θ² from 1e-9 is at rest until t = 1e9, and then gone at once: θ − θ³ settles it at 1."""
    end = _stiff_flow.follow_flow(
        lambda theta: -(theta**2) * (1 - theta),
        lambda theta: -(2 * theta - 3 * theta**2)[..., None],
        lambda theta, now: solvers.Dense(
            -(2 * theta - 3 * theta**2)[..., None], np.zeros((1, 1, 1))
        ),
        np.array([0.011]),
        gone=lambda theta: False,
    )
    np.testing.assert_allclose(end, 1, atol=0.02)


def test_fields_without_a_root_are_not_solved():
    def field(theta):
        return np.exp(-theta)

    def jacobian(theta):
        return -np.exp(-theta)[..., None]

    root = solvers.find_root(field, newton(jacobian), np.array([[0.0]]))
    assert not root.converged.any()


def test_piecewise_linear_minimum():
    """|x − 1| + |x + y| + ½|y − 3|: by hand 2 at (1, −1), and there alone."""

    def function(z):
        x, y = z
        value = abs(x - 1) + abs(x + y) + abs(y - 3) / 2
        slope = [np.sign(x - 1) + np.sign(x + y), np.sign(x + y) + np.sign(y - 3) / 2]
        return value, np.array(slope)

    free = np.zeros(2, dtype=bool)
    least = solvers.minimize_piecewise_linear(function, np.array([0.3, 0.2]), free, 10.0)
    assert least.converged
    assert least.unique
    assert least.value == pytest.approx(2.0, abs=1e-9)
    np.testing.assert_allclose(least.theta, [1, -1], atol=1e-8)
    held = solvers.minimize_piecewise_linear(
        function, np.array([0.3, 0.2]), np.array([True, False]), 10.0
    )
    assert held.theta[0] == 0.3
    np.testing.assert_allclose(held.theta[1], -0.3, atol=1e-8)


def test_piecewise_linear_minimum_on_a_whole_set():
    def function(z):
        value = max(0.0, abs(z[0]) - 1)
        return value, np.array([np.sign(z[0]) if value > 0 else 0.0])

    least = solvers.minimize_piecewise_linear(
        function, np.array([5.0]), np.zeros(1, dtype=bool), 20.0
    )
    assert least.value == pytest.approx(0, abs=1e-10)
    assert least.converged
    assert not least.unique


@pytest.mark.parametrize("beta", [1e-10, 1e-8, 1e-3, 1e5])
@pytest.mark.parametrize("bound", [False, True])
def test_slic_is_found_at_any_scale(beta, bound):
    # In units of 1/β the loss does not change: nor do its least value and its kinks.
    mu, preference = [0.1, 0.2, 0.7], bandit.preferences.bradley_terry([2.5, 2.0, 1.0])
    problem = bandit.Bandit([2.5, 2.0, 1.0], 0.5 if bound else beta)
    loss = functools.partial(losses.slic, beta=beta)
    solution = analysis.solve(problem, loss, bandit.pairs.independent(mu), preference=preference)
    assert solution.converged
    np.testing.assert_allclose(
        beta * (solution.logits - solution.logits[0]), [0, 0, -1], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    ("reward", "beta", "loss"),
    [
        # The flow's linear systems become singular; it meets numbers beyond float64.
        ([1e8, 0.0, -1e8], 1e-8, losses.ppo_clip),
        ([2.5, 2.0, 1.0], 1e200, losses.policy_gradient),
    ],
)
def test_a_flow_that_gets_lost_gives_no_foreign_warning_or_error(reward, beta, loss):
    problem = bandit.Bandit(reward, beta)
    with pytest.warns(NotIdentifiedWarning) as caught:
        solution = analysis.solve(problem, loss, bandit.pairs.independent([0.1, 0.2, 0.7]))
    assert not solution.converged
    assert {w.category for w in caught} == {NotIdentifiedWarning}


@pytest.mark.parametrize(
    ("name", "baseline"), [("slic", None), ("policy_gradient", "value"), ("grpo", None)]
)
def test_contexts_are_solved_each_by_itself(name, baseline):
    rng = np.random.default_rng(5)
    reward = rng.gamma(2.0, size=(3, 3))
    reference, mu = rng.dirichlet([2.0, 1.0, 3.0], size=(2, 3))
    # Data that hardly know two of the arms of a context: the first search gets lost there.
    if name != "slic":
        mu[1] = 1e-4 * mu[1] + (1 - 1e-4) * np.eye(3)[reward[1].argmin()]
    preference = bandit.preferences.bradley_terry(reward)
    data = {"preference": preference} if name == "slic" else {"baseline": baseline}
    together = analysis.solve(
        bandit.Bandit(reward, 0.5, reference), losses.get(name), independent(mu), **data
    )
    assert together.converged
    for x in range(3):
        alone = analysis.solve(
            bandit.Bandit(reward[x], 0.5, reference[x]),
            losses.get(name),
            independent(mu[x]),
            **(data if name != "slic" else {"preference": preference[x]}),
        )
        np.testing.assert_allclose(together.policy[x], alone.policy, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", [12, 68, 165, 241, 334, 350])
def test_dpo_without_noise_in_the_labels_never_converges(seed):
    """Far out the curvature is as small as the rounding of pairs of one arm with itself."""
    rng = np.random.default_rng(seed)
    arms = rng.integers(2, 5)
    nu = rng.dirichlet(np.ones(arms * arms)).reshape(arms, arms)
    reward = rng.normal(size=arms)
    reference = rng.dirichlet(np.ones(arms)) * 0.98 + 0.02 / arms
    problem = bandit.Bandit(reward, 10 ** rng.uniform(-1.5, 1.5), reference)
    judge = bandit.preferences.deterministic(reward)
    with pytest.warns(NotIdentifiedWarning, match="no finite solution"):
        assert not analysis.solve(problem, losses.dpo, nu, preference=judge).converged
