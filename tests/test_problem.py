"""The bandit and its closed form, against optimizers, exact arithmetic and plain loops."""

from __future__ import annotations

import decimal
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import cases, make_case, seeds, simplex

import bandit
from bandit.problem import kl_divergence, log_softmax

# ------------------------------------------------------------------------------ plain definitions


def plain_objective(problem, policy):
    """J(π) by loops over contexts and arms."""
    rewards, refs = np.atleast_2d(problem.reward), np.atleast_2d(problem.reference)
    rho = [1.0] if problem.n_contexts is None else problem.context_weights
    total = 0.0
    for weight, r, ref, pi in zip(rho, rewards, refs, np.atleast_2d(policy), strict=True):
        for y in range(len(r)):
            total += weight * pi[y] * (r[y] - problem.beta * math.log(pi[y] / ref[y]))
    return total


def softmax_of(problem, free):
    logits = free.reshape(np.atleast_2d(problem.reward).shape)
    policy = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (policy / policy.sum(axis=-1, keepdims=True)).reshape(problem.shape)


# ----------------------------------------------------------------------------------- closed form


@given(cases())
def test_closed_form_is_the_formula(case):
    problem = case.problem
    tilted = problem.reference * np.exp(problem.reward / problem.beta)
    partition = tilted.sum(axis=-1)
    np.testing.assert_allclose(problem.log_partition(), np.log(partition), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(problem.optimal_policy(), tilted / partition[..., None], rtol=1e-12)
    np.testing.assert_allclose(
        problem.log_optimal_policy(), np.log(tilted / partition[..., None]), rtol=1e-11, atol=1e-12
    )
    expected = problem.beta * np.log(partition)
    if problem.n_contexts is not None:
        expected = sum(w * v for w, v in zip(problem.context_weights, expected, strict=True))
    assert problem.optimal_value() == pytest.approx(float(expected), rel=1e-12)
    assert isinstance(problem.optimal_value(), float)


@settings(max_examples=15)
@given(cases(max_arms=4, max_contexts=2))
def test_no_policy_found_by_an_optimizer_does_better(case):
    problem = case.problem
    found = scipy.optimize.minimize(
        lambda free: -plain_objective(problem, softmax_of(problem, free)) / problem.beta,
        np.zeros(problem.reward.size),
        method="Nelder-Mead" if problem.reward.size < 3 else "BFGS",
        options={"gtol": 1e-9} if problem.reward.size >= 3 else {"xatol": 1e-9, "fatol": 1e-13},
    )
    assert -found.fun * problem.beta == pytest.approx(
        problem.optimal_value(), abs=1e-8 * problem.beta
    )
    np.testing.assert_allclose(softmax_of(problem, found.x), problem.optimal_policy(), atol=2e-4)


@given(cases())
def test_value_of_a_policy(case):
    problem, policy = case.problem, np.exp(log_softmax(case.logits))
    assert problem.objective(policy) == pytest.approx(
        plain_objective(problem, policy), rel=1e-11, abs=1e-11 * problem.beta
    )
    rho = np.array([1.0]) if problem.n_contexts is None else problem.context_weights
    rewards = np.atleast_2d((policy * problem.reward).sum(axis=-1, keepdims=True))[..., 0]
    assert problem.expected_reward(policy) == pytest.approx(float(rho @ rewards.ravel()), rel=1e-12)


@given(cases())
def test_regret_is_beta_times_the_divergence_from_the_optimum(case):
    problem, policy = case.problem, np.exp(log_softmax(case.logits))
    gap = problem.optimal_value() - plain_objective(problem, policy)
    assert problem.regret(policy) == pytest.approx(gap, rel=1e-9, abs=1e-10 * problem.beta)
    assert problem.regret(policy) == pytest.approx(
        problem.beta * problem.kl(policy, problem.optimal_policy()), rel=1e-12
    )
    assert problem.kl_to_optimal(policy) == pytest.approx(
        problem.kl(policy, problem.optimal_policy()), rel=1e-12
    )
    assert problem.regret(problem.optimal_policy()) == pytest.approx(0, abs=1e-28 * problem.beta)


@given(cases())
def test_divergence_between_policies(case):
    problem = case.problem
    one, two = np.exp(log_softmax(case.logits)), simplex(case.rng, problem.shape)
    rho = [1.0] if problem.n_contexts is None else problem.context_weights
    expected = 0.0
    for weight, p, q in zip(rho, np.atleast_2d(one), np.atleast_2d(two), strict=True):
        expected += weight * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert problem.kl(one, two) == pytest.approx(expected, rel=1e-11)
    assert problem.kl(one) == pytest.approx(problem.kl(one, problem.reference), rel=1e-12)
    assert problem.kl(two, one) != pytest.approx(float(problem.kl(one, two)), rel=1e-6)
    assert problem.kl(one, one) == 0


def test_three_armed_bandit_reference_values():
    problem = bandit.presets.three_armed_bandit()
    np.testing.assert_array_equal(problem.reward, [2.5, 2.0, 1.0])
    assert problem.beta == 0.5
    np.testing.assert_array_equal(bandit.presets.three_armed_behavior(), [0.1, 0.2, 0.7])
    np.testing.assert_allclose(
        problem.optimal_policy(), [0.70538451, 0.25949646, 0.03511903], atol=5e-9
    )
    assert problem.optimal_value() == pytest.approx(2.12519996405, abs=5e-12)
    for policy, regret in (
        ([0.21567462, 0.32054355, 0.46378183], 0.504511421247),
        ([0.42635583, 0.35096146, 0.22268271], 0.151303088591),
        ([0.48971298, 0.36278830, 0.14749872], 0.077262954012),
    ):
        assert problem.regret(np.array(policy) / sum(policy)) == pytest.approx(regret, abs=2e-8)


# ---------------------------------------------------------------------------------- small and large


def exact_divergence(p, q):
    """KL of floats in 60 digits."""
    with decimal.localcontext() as context:
        context.prec = 60
        p, q = [decimal.Decimal(x) for x in p], [decimal.Decimal(x) for x in q]
        return float(sum(a * (a / b).ln() - a + b for a, b in zip(p, q, strict=True)))


@pytest.mark.parametrize("apart", [1e-1, 1e-4, 1e-7, 1e-10, 1e-12])
@given(seed=seeds)
@settings(max_examples=10)
def test_small_divergences_keep_their_digits(apart, seed):
    rng = np.random.default_rng(seed)
    log_q = np.log(simplex(rng, (5,)))
    log_p = log_q + apart * rng.uniform(-1, 1, size=5)
    with decimal.localcontext() as context:
        context.prec = 60
        p, q = ([decimal.Decimal(x).exp() for x in logs] for logs in (log_p, log_q))
        pairs = zip(p, q, log_p, log_q, strict=True)
        exact = sum(a * (decimal.Decimal(x) - decimal.Decimal(y)) - a + b for a, b, x, y in pairs)
    found = float(kl_divergence(log_p, log_q))
    assert found == pytest.approx(float(exact), rel=1e-9)
    assert found > 0


@pytest.mark.parametrize("apart", [1e-3, 1e-8, 1e-13])
def test_divergence_of_nearly_equal_policies(apart):
    """Policies known to 1e-16 only: right to what that leaves, and not negative."""
    p = np.array([0.2, 0.3, 0.5])
    q = p + apart * np.array([0.7, -0.2, -0.5])
    problem = bandit.Bandit([1.0, 2.0, 4.0], 0.5, q / q.sum())
    found = float(problem.kl(p))
    lost = 1e-15 / apart
    assert found == pytest.approx(exact_divergence(p, problem.reference), rel=20 * lost, abs=0)
    assert found > 0


@given(seed=seeds)
def test_divergence_is_never_negative(seed):
    rng = np.random.default_rng(seed)
    log_p = log_softmax(rng.normal(scale=rng.choice([0.1, 1.0, 30.0, 500.0]), size=(200, 4)))
    log_q = log_p + rng.normal(scale=rng.choice([1e-16, 1e-9, 1.0, 40.0]), size=(200, 4))
    assert (kl_divergence(log_p, log_softmax(log_q)) >= 0).all()


@pytest.mark.parametrize("distance", [0.99999, 1.0, 1.00001, -0.99999, -1.0, -1.00001, 40.0, 745.0])
def test_divergence_far_from_and_near_the_change_of_formula(distance):
    log_p, log_q = np.array([-1.0]), np.array([-1.0 - distance])
    with decimal.localcontext() as context:
        context.prec = 50
        p, q = (decimal.Decimal(float(x[0])).exp() for x in (log_p, log_q))
        exact = float(p * (decimal.Decimal(-1) - decimal.Decimal(float(log_q[0]))) - p + q)
    assert float(kl_divergence(log_p, log_q)) == pytest.approx(exact, rel=1e-14)


def test_policies_with_zeros():
    problem = bandit.Bandit([1.0, 2.0, 4.0], 0.5, [0.2, 0.3, 0.5])
    assert problem.kl([0.0, 0.4, 0.6]) == pytest.approx(
        0.4 * math.log(0.4 / 0.3) + 0.6 * math.log(0.6 / 0.5), rel=1e-13
    )
    assert problem.kl([0.5, 0.5, 0.0], [0.5, 0.5, 0.0]) == 0
    assert problem.kl([0.5, 0.5, 0.0], [0.5, 0.0, 0.5]) == math.inf
    assert problem.regret([0.0, 0.0, 1.0]) == pytest.approx(
        -0.5 * math.log(problem.optimal_policy()[2]), rel=1e-12
    )


def test_tiny_beta_and_huge_rewards():
    problem = bandit.Bandit([1e8, 1e8 - 3, -1e8], 1e-8, [0.2, 0.3, 0.5])
    np.testing.assert_array_equal(problem.optimal_policy(), [1.0, 0.0, 0.0])
    assert problem.optimal_value() == pytest.approx(1e8, rel=1e-15)
    assert float(problem.log_partition()) == pytest.approx(1e16, rel=1e-15)
    assert problem.regret([1.0, 0.0, 0.0]) == 0
    assert problem.regret([0.0, 1.0, 0.0]) == pytest.approx(3.0, rel=1e-7)
    assert problem.regret([0.0, 0.0, 1.0]) == pytest.approx(2e8, rel=1e-12)
    assert np.isfinite(problem.log_optimal_policy()).all()
    assert problem.objective([0.0, 0.0, 1.0]) == pytest.approx(-1e8, rel=1e-15)


def test_tiny_reference_entries():
    reference = np.array([1e-300, 0.4, 0.6])
    problem = bandit.Bandit([690.0, 1.0, 0.0], 1.0, reference)
    # ln 1e-300 + 690 = −0.7755…: the nearly impossible arm is worth its reward.
    with decimal.localcontext() as context:
        context.prec = 50
        terms = [
            decimal.Decimal(float(ref)) * decimal.Decimal(r).exp()
            for ref, r in zip(reference, (690, 1, 0), strict=True)
        ]
        expected = [float(term / sum(terms)) for term in terms]
    np.testing.assert_allclose(problem.optimal_policy(), expected, rtol=1e-12)
    assert problem.regret(problem.optimal_policy()) == pytest.approx(0, abs=1e-25)


def test_a_million_arms():
    rng = np.random.default_rng(0)
    problem = bandit.Bandit(rng.normal(size=1_000_000), 0.3, simplex(rng, (1_000_000,)))
    policy = problem.optimal_policy()
    assert math.fsum(policy) == pytest.approx(1, abs=1e-12)
    expected = 0.3 * math.log(math.fsum(problem.reference * np.exp(problem.reward / 0.3)))
    assert problem.optimal_value() == pytest.approx(expected, rel=1e-12)
    assert problem.objective(policy) == pytest.approx(expected, rel=1e-11)
    assert 0 <= problem.regret(policy) < 1e-25


@given(seed=seeds, scale=st.sampled_from([1e-9, 1.0, 700.0, 1e12]))
def test_log_softmax(seed, scale):
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(3, 4))
    with decimal.localcontext() as context:
        context.prec = 60
        for row, found in zip(logits, log_softmax(logits), strict=True):
            row = [decimal.Decimal(float(x)) for x in row]
            total = sum((x - max(row)).exp() for x in row).ln() + max(row)
            np.testing.assert_allclose(
                found, [float(x - total) for x in row], rtol=1e-14, atol=1e-15
            )
    np.testing.assert_allclose(
        log_softmax(logits + 3.0), log_softmax(logits), rtol=1e-12, atol=1e-14 + 1e-15 * scale
    )


# ------------------------------------------------------------------------------------------- shapes


def test_leading_axes_of_policies_broadcast():
    for shape in ((4,), (3, 4)):
        case = make_case(np.random.default_rng(1), shape)
        policies = simplex(case.rng, (5, 2, *shape))
        others = simplex(case.rng, (2, *shape))
        problem = case.problem
        for method in (
            problem.objective,
            problem.regret,
            problem.expected_reward,
            problem.kl,
            problem.kl_to_optimal,
        ):
            every = method(policies)
            assert every.shape == (5, 2)
            for i in range(5):
                for j in range(2):
                    np.testing.assert_allclose(every[i, j], method(policies[i, j]), rtol=1e-12)
        np.testing.assert_allclose(
            problem.kl(policies, others)[3, 1], problem.kl(policies[3, 1], others[1]), rtol=1e-12
        )


def test_reward_or_reference_shared_by_all_contexts():
    rng = np.random.default_rng(3)
    reward, references = rng.normal(size=3), simplex(rng, (2, 3))
    shared = bandit.Bandit(reward, 0.5, references)
    assert shared.shape == (2, 3)
    assert shared.n_contexts == 2
    full = bandit.Bandit(np.tile(reward, (2, 1)), 0.5, references)
    np.testing.assert_array_equal(shared.optimal_policy(), full.optimal_policy())
    other = bandit.Bandit(full.reward, 0.5, references[0])
    np.testing.assert_array_equal(other.reference, np.tile(references[0], (2, 1)))


def test_defaults_and_attributes():
    problem = bandit.Bandit([[1, 2, 3], [3, 5, 9]], 2)
    assert (problem.n_arms, problem.n_contexts, problem.shape) == (3, 2, (2, 3))
    np.testing.assert_array_equal(problem.reference, np.full((2, 3), 1 / 3))
    np.testing.assert_array_equal(problem.context_weights, [0.5, 0.5])
    np.testing.assert_allclose(problem.log_reference, np.log(np.full((2, 3), 1 / 3)))
    assert isinstance(problem.beta, float)
    flat = bandit.Bandit([1, 2], 1)
    assert (flat.n_contexts, flat.context_weights) == (None, None)
    assert flat.average(np.arange(6.0)).tolist() == list(range(6))
    assert problem.average([1.0, 3.0]) == 2.0


def test_context_weights_count():
    reward = [[1.0, 2.0], [5.0, -3.0]]
    skewed = bandit.Bandit(reward, 1.0, context_weights=[0.9, 0.1])
    each = [bandit.Bandit(r, 1.0).optimal_value() for r in reward]
    assert skewed.optimal_value() == pytest.approx(0.9 * each[0] + 0.1 * each[1], rel=1e-13)
    assert bandit.Bandit(reward, 1.0, context_weights=[1.0, 0.0]).optimal_value() == pytest.approx(
        each[0], rel=1e-13
    )


def test_a_problem_does_not_change():
    reward, reference = np.array([1.0, 2.0, 4.0]), np.array([0.2, 0.3, 0.5])
    problem = bandit.Bandit(reward, 0.5, reference)
    before = problem.optimal_policy()
    reward[:] = reference[:] = 0
    np.testing.assert_array_equal(problem.optimal_policy(), before)
    for array in (problem.reward, problem.reference, problem.log_reference):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    weights = np.array([0.3, 0.7])
    contexts = bandit.Bandit([[1.0, 2.0]] * 2, 1.0, context_weights=weights)
    weights[:] = 0
    np.testing.assert_array_equal(contexts.context_weights, [0.3, 0.7])
    with pytest.raises(ValueError, match="read-only"):
        contexts.context_weights[0] = 1


def test_display():
    assert repr(bandit.Bandit([1, 2, 3], 0.5)) == "Bandit(3 arms, beta=0.5)"
    assert repr(bandit.Bandit([[1, 2, 3]] * 2, 0.5)) == "Bandit(2 contexts, 3 arms, beta=0.5)"
    html = bandit.Bandit(np.arange(20.0), 0.5)._repr_html_()
    assert "<table" in html
    assert "first 12 arms" in html
    assert [f"<th>{arm}</th>" in html for arm in (0, 1, 12, 13)] == [False, True, True, False]
    assert "the first context shown" in bandit.Bandit([[1, 2, 3]] * 2, 0.5)._repr_html_()


# ---------------------------------------------------------------------------------------- bad input

BAD = [
    # arguments of Bandit, then the name in the message, then a word of what came
    ({"reward": [1, math.nan], "beta": 1}, "reward", "nan"),
    ({"reward": [1e10, 0], "beta": 1e-300}, "beta", r"1e-300 and a reward of size 1e\+10"),
    ({"reward": [1e308, -1e308], "beta": 1}, "beta", r"1 and a reward of size 1e\+308"),
    ({"reward": [1, math.inf], "beta": 1}, "reward", "inf"),
    ({"reward": [1, -math.inf], "beta": 1}, "reward", "inf"),
    ({"reward": "abc", "beta": 1}, "reward", "str"),
    ({"reward": [[1, 2], [3]], "beta": 1}, "reward", "list"),
    ({"reward": None, "beta": 1}, "reward", ""),
    ({"reward": 3.0, "beta": 1}, "reward", r"\(\)"),
    ({"reward": [], "beta": 1}, "reward", r"\(0,\)"),
    ({"reward": np.zeros((2, 0)), "beta": 1}, "reward", r"\(2, 0\)"),
    ({"reward": np.zeros((2, 2, 2)), "beta": 1}, "reward", r"\(2, 2, 2\)"),
    ({"reward": [1j, 2], "beta": 1}, "reward", ""),
    ({"reward": [1, 2], "beta": 0}, "beta", "0"),
    ({"reward": [1, 2], "beta": -0.5}, "beta", "-0.5"),
    ({"reward": [1, 2], "beta": math.nan}, "beta", "nan"),
    ({"reward": [1, 2], "beta": math.inf}, "beta", "inf"),
    ({"reward": [1, 2], "beta": "1"}, "beta", "str"),
    ({"reward": [1, 2], "beta": None}, "beta", "NoneType"),
    ({"reward": [1, 2], "beta": True}, "beta", "bool"),
    ({"reward": [1, 2], "beta": [0.5]}, "beta", "list"),
    ({"reward": [1, 2], "beta": 1, "reference": [0.0, 1.0]}, "reference", "0"),
    ({"reward": [1, 2], "beta": 1, "reference": [-0.5, 1.5]}, "reference", "-0.5"),
    ({"reward": [1, 2], "beta": 1, "reference": [0.5, 0.6]}, "reference", "1.1"),
    ({"reward": [1, 2], "beta": 1, "reference": [0.5, math.nan]}, "reference", "nan"),
    ({"reward": [1, 2], "beta": 1, "reference": [1.0]}, "reference", r"\(1,\)"),
    ({"reward": [1, 2], "beta": 1, "reference": 1.0}, "reference", r"\(\)"),
    ({"reward": [1, 2], "beta": 1, "reference": [0.2, 0.3, 0.5]}, "re", r"\(3,\)"),
    ({"reward": [[1, 2], [3, 4]], "beta": 1, "reference": [[0.5, 0.5]]}, "reference", r"\(1, 2\)"),
    ({"reward": [[1, 2]], "beta": 1, "reference": [[0.5, 0.5]] * 2}, "re", r"\(2, 2\)"),
    ({"reward": [[1], [2]], "beta": 1, "reference": [0.5, 0.5]}, "reference", r"\(2,\)"),
    ({"reward": [1, 2], "beta": 1, "context_weights": [1.0]}, "context_weights", ""),
    ({"reward": [[1, 2]] * 2, "beta": 1, "context_weights": [0.5, 0.6]}, "context_weights", "1.1"),
    (
        {"reward": [[1, 2]] * 2, "beta": 1, "context_weights": [1.5, -0.5]},
        "context_weights",
        "-0.5",
    ),
    ({"reward": [[1, 2]] * 2, "beta": 1, "context_weights": [1.0]}, "context_weights", r"\(1,\)"),
    (
        {"reward": [[1, 2]] * 2, "beta": 1, "context_weights": [[0.5, 0.5]]},
        "context_weights",
        r"\(1, 2\)",
    ),
]


@pytest.mark.parametrize(("arguments", "name", "came"), BAD)
def test_bad_problems_raise_one_clear_line(arguments, name, came):
    with pytest.raises(
        (ValueError, TypeError), match=rf"^{name}.*: expected .*got.*{came}"
    ) as caught:
        bandit.Bandit(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("policy", "came"),
    [
        ([0.5, 0.5], r"\(2,\)"),
        ([[0.2], [0.3], [0.5]], "sum"),
        ([0.5, 0.5, 0.5], "1.5"),
        ([1.5, -0.5, 0.0], "-0.5"),
        ([math.nan, 0.5, 0.5], "nan"),
        (1.0, r"\(\)"),
        ("uniform", "str"),
    ],
)
@pytest.mark.parametrize(
    "method", ["objective", "regret", "expected_reward", "kl", "kl_to_optimal"]
)
def test_bad_policies_raise_one_clear_line(method, policy, came):
    problem = bandit.Bandit([1.0, 2.0, 4.0], 0.5)
    with pytest.raises((ValueError, TypeError), match=rf"^policy: expected .*{came}") as caught:
        getattr(problem, method)(policy)
    assert "\n" not in str(caught.value)


def test_policies_of_another_shape_raise():
    problem = bandit.Bandit([[1.0, 2.0], [4.0, 3.0], [0.0, 1.0]], 0.5)
    for shape in ((2,), (1, 2), (2, 2), (3, 1, 2)):
        with pytest.raises(
            ValueError, match=r"^policy: expected shape \(\.\.\., X, K\) = \(3, 2\)"
        ):
            problem.regret(np.full(shape, 0.5))
    with pytest.raises(ValueError, match=r"^policy: expected shape \(\.\.\., K\) = \(2,\), got"):
        bandit.Bandit([1.0, 2.0], 0.5).regret(np.full((3, 1), 1.0))
    with pytest.raises(ValueError, match=r"^other: expected"):
        problem.kl(np.full((3, 2), 0.5), np.full((2,), 0.5))


def test_probabilities_are_accepted_to_rounding_and_no_further():
    for error, fine in ((1e-9, True), (-9e-9, True), (1e-7, False), (-1e-7, False)):
        reference = [0.5, 0.5 + error]
        if fine:
            bandit.Bandit([1, 2], 1, reference)
        else:
            with pytest.raises(ValueError, match="sum to 1"):
                bandit.Bandit([1, 2], 1, reference)


SINGLE = np.float32([0.3, 0.5, 0.2]) * np.float32(1 + 1e-6)


@pytest.mark.parametrize("kind", ["array", "list", "tensor"])
def test_probabilities_of_single_precision_are_accepted_as_such_and_made_to_sum_to_one(kind):
    given = list(SINGLE) if kind == "list" else SINGLE
    if kind == "tensor":
        given = pytest.importorskip("torch").as_tensor(SINGLE)
    exact = SINGLE.astype(np.float64) / SINGLE.astype(np.float64).sum()
    assert abs(SINGLE.astype(np.float64).sum() - 1) > 1e-7
    problem = bandit.Bandit([1.0, 2.0, 3.0], 0.5, given)
    assert problem.reference.dtype == np.float64
    np.testing.assert_allclose(problem.reference, exact, rtol=1e-15)
    pairs = bandit.pairs.independent(given)
    np.testing.assert_allclose(pairs.first, exact, rtol=1e-15)
    assert abs(pairs.first.sum() - 1) < 1e-15
    assert problem.kl(SINGLE) == pytest.approx(0, abs=1e-15)
    # Twice the precision is held to twice the digits.
    with pytest.raises(ValueError, match=r"^reference: expected probabilities that sum to 1"):
        bandit.Bandit([1.0, 2.0, 3.0], 0.5, SINGLE.astype(np.float64))


def test_joint_probabilities_of_single_precision():
    nu = np.outer(SINGLE, SINGLE[::-1])
    for table in (nu, scipy.sparse.csr_array(nu)):
        pairs = bandit.pairs.as_pairs(table, (3,))
        assert abs(pairs.dense().sum() - 1) < 1e-14
        np.testing.assert_allclose(pairs.dense(), nu / nu.astype(np.float64).sum(), rtol=1e-6)


@pytest.mark.parametrize("error", [1e-3, -1e-3])
def test_probabilities_of_single_precision_that_do_not_sum_to_one_are_refused(error):
    reference = np.float32([0.5, 0.5 + error])
    with pytest.raises(ValueError, match=r"^reference: expected probabilities that sum to 1"):
        bandit.Bandit([1.0, 2.0], 0.5, reference)
    with pytest.raises(ValueError, match=r"^pairs: expected probabilities that sum to 1"):
        bandit.pairs.as_pairs(scipy.sparse.csr_array(np.diag(reference)), (2,))


def test_numbers_that_would_lose_a_part_are_refused():
    with pytest.raises(TypeError, match=r"^reward: expected real numbers, got complex ones$"):
        bandit.Bandit(np.array([1 + 1j, 2.0]), 0.5)
    with pytest.raises(ValueError, match=r"^beta: expected a finite number above 0, got inf$"):
        bandit.Bandit([1.0, 2.0], 10**400)


def test_kl_stretches_no_axis():
    problem = bandit.Bandit([2.5, 2.0, 1.0], 0.5)
    four = np.full((4, 3), 1 / 3)
    assert problem.kl(four, [0.2, 0.3, 0.5]).shape == (4,)
    assert problem.kl([0.2, 0.3, 0.5], four).shape == (4,)
    for other in (four[:, None], four[:1], np.full((5, 3), 1 / 3)):
        with pytest.raises(ValueError, match=r"^other: expected shape \(4, 3\) like the policy"):
            problem.kl(four, other)
