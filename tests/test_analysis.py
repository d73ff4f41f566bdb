"""Expectations over groups against enumeration by loops and central differences."""

from __future__ import annotations

import functools
import tracemalloc

import numpy as np
import oracles
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import cases, make_case, seeds, simplex

import bandit
from bandit import analysis, expectations, groups, losses, presets
from bandit.losses import Score

# Every loss as it is used in the analysis: name → (loss, baseline of the analysis).
METHODS = {
    **{name: (method.loss, method.baseline) for name, method in presets.METHODS.items()},
    "importance_sampling-clip": (functools.partial(losses.importance_sampling, clip=1.5), None),
    "importance_sampling-value": (losses.importance_sampling, "value"),
    "importance_sampling-behavior": (losses.importance_sampling, "behavior"),
    "policy_gradient-number": (losses.policy_gradient, 0.8),
    "policy_gradient-loo": (
        functools.partial(losses.policy_gradient, baseline="leave_one_out"),
        None,
    ),
    "reward_weighted-number": (losses.reward_weighted, -0.4),
    "reward_weighted-normalize": (functools.partial(losses.reward_weighted, normalize=True), None),
    "ppo_clip-none": (losses.ppo_clip, None),
    "clipped_objective-none": (losses.clipped_objective, None),
    "copg-beta": (functools.partial(losses.copg, beta=1.9), None),
}
every_method = pytest.mark.parametrize("name", METHODS)
TRUE_GRADIENTS = [
    name
    for name, (loss, baseline) in METHODS.items()
    if not losses.traits(loss).semi_gradient and baseline is None
]


def data_of(name, case):
    """Keyword arguments of the analysis for a method, and the loss bound as the oracle needs it."""
    loss, baseline = METHODS[name]
    needs = "preference" in losses.traits(loss).requires
    data = {"preference": case.preference if needs else None, "baseline": baseline}
    return loss, data, groups.bind(loss, case.problem, baseline)


def close(found, expected, rtol=1e-10):
    expected = np.asarray(expected)
    np.testing.assert_allclose(
        found, expected, rtol=rtol, atol=1e-12 * max(1.0, float(np.abs(expected).max()))
    )


# -------------------------------------------------------------------------------- population


@every_method
@settings(max_examples=12)
@given(case=cases(max_arms=4, max_contexts=3))
def test_population_over_any_pairs(name, case):
    loss, data, bound = data_of(name, case)
    value, gradient = oracles.population(case.problem, bound, case.logits, case.nu, **data)
    found = analysis.population(case.problem, loss, case.logits, case.nu, **data)
    close(found[0], value)
    close(found[1], gradient)


@every_method
@settings(max_examples=12)
@given(case=cases(max_arms=4, max_contexts=3), same=st.booleans())
def test_population_over_independent_pairs(name, case, same):
    """The O(K) path where the loss allows it, against the same pairs one by one."""
    loss, data, bound = data_of(name, case)
    other = None if same else simplex(case.rng, case.problem.shape)
    pairs = bandit.pairs.independent(case.mu, other)
    value, gradient = oracles.population(case.problem, bound, case.logits, pairs.dense(), **data)
    found = analysis.population(case.problem, loss, case.logits, pairs, **data)
    close(found[0], value)
    close(found[1], gradient)


@pytest.mark.parametrize("size", [1, 3, 4])
@every_method
@settings(max_examples=5)
@given(case=cases(max_arms=3, max_contexts=2))
def test_population_over_larger_groups(name, size, case):
    loss, data, bound = data_of(name, case)
    least, most = losses.traits(loss).sizes
    pairs = bandit.pairs.independent(case.mu)
    call = functools.partial(
        analysis.population, case.problem, loss, case.logits, pairs, group_size=size, **data
    )
    if size < least or (most is not None and size > most):
        with pytest.raises(ValueError, match=r"^group_size: expected"):
            call()
        return
    if name.endswith("loo") and size == 1:
        with pytest.raises(ValueError, match="leave_one_out"):
            call()
        return
    value, gradient = oracles.population(
        case.problem, bound, case.logits, None, mu=case.mu, group_size=size, **data
    )
    found = call()
    close(found[0], value)
    close(found[1], gradient)


@pytest.mark.parametrize("name", ["copg", "dpo", "importance_sampling", "ppo_clip", "grpo", "rloo"])
@given(seed=seeds)
@settings(max_examples=10)
def test_arms_that_are_never_drawn(name, seed):
    """ln μ = −∞ there, and it must not leak."""
    case = make_case(np.random.default_rng(seed), (2, 4))
    loss, data, bound = data_of(name, case)
    mu = case.mu * (np.arange(4) != seed % 4)
    mu /= mu.sum(axis=-1, keepdims=True)
    for other in (None, case.mu):
        pairs = bandit.pairs.independent(mu, other)
        for form in (pairs, pairs.dense()):
            value, gradient = oracles.population(
                case.problem, bound, case.logits, pairs.dense(), **data
            )
            found = analysis.population(case.problem, loss, case.logits, form, **data)
            close(found[0], value)
            close(found[1], gradient)


@pytest.mark.parametrize("name", TRUE_GRADIENTS)
@settings(max_examples=10)
@given(case=cases(max_arms=4, max_contexts=3))
def test_gradient_is_the_derivative_of_the_value(name, case):
    loss, data, _ = data_of(name, case)

    def value(logits):
        return analysis.population(case.problem, loss, logits, case.nu, **data)[0]

    slopes = oracles.central_differences(value, case.logits, step=1e-3)
    found = analysis.population(case.problem, loss, case.logits, case.nu, **data)[1]
    np.testing.assert_allclose(
        found, slopes, rtol=1e-6, atol=1e-7 * max(1e-3, float(np.abs(found).max()))
    ) if name != "slic" else kinked(found, slopes, value, case.logits)


def kinked(found, slopes, value, logits):
    """A piecewise linear value: away from kinks its one-sided differences agree."""
    small = oracles.central_differences(value, logits, step=1e-7)
    np.testing.assert_allclose(found, small, atol=1e-6 * max(1.0, float(np.abs(found).max())))


@every_method
def test_leading_axes_are_a_batch_of_policies(name):
    case = make_case(np.random.default_rng(6), (2, 3))
    loss, data, _ = data_of(name, case)
    logits = case.rng.normal(size=(5, 4, 2, 3))
    for pairs in (case.nu, bandit.pairs.independent(case.mu)):
        value, gradient = analysis.population(case.problem, loss, logits, pairs, **data)
        assert (value.shape, gradient.shape) == ((5, 4), (5, 4, 2, 3))
        one = analysis.population(case.problem, loss, logits[3, 1], pairs, **data)
        close(value[3, 1], one[0], rtol=1e-12)
        close(gradient[3, 1], one[1], rtol=1e-12)


@every_method
def test_contexts_are_problems_of_their_own(name):
    case = make_case(np.random.default_rng(7), (3, 4))
    loss, data, _ = data_of(name, case)
    value, gradient = analysis.population(case.problem, loss, case.logits, case.nu, **data)
    total = 0.0
    for x, rho in enumerate(case.problem.context_weights):
        alone = bandit.Bandit(case.problem.reward[x], case.problem.beta, case.problem.reference[x])
        here = {**data, "preference": None if data["preference"] is None else case.preference[x]}
        one = analysis.population(alone, loss, case.logits[x], case.nu[x], **here)
        total += rho * one[0]
        close(gradient[x], rho * one[1], rtol=1e-12)
    close(value, total, rtol=1e-12)


def test_baselines_given_per_context():
    case = make_case(np.random.default_rng(8), (3, 4))
    numbers = np.array([0.3, -1.0, 2.0])
    bound = groups.bind(losses.policy_gradient, case.problem, numbers)
    expected = oracles.population(case.problem, bound, case.logits, case.nu, baseline=numbers)
    found = analysis.population(
        case.problem, losses.policy_gradient, case.logits, case.nu, baseline=numbers
    )
    close(found[0], expected[0])
    close(found[1], expected[1])


@every_method
@pytest.mark.parametrize("block", [1, 5, 11])
def test_block_boundaries_do_not_show(name, block, monkeypatch):
    case = make_case(np.random.default_rng(9), (2, 5))
    loss, data, _ = data_of(name, case)
    forms = [case.nu, bandit.pairs.independent(case.mu, simplex(case.rng, (2, 5)))]
    whole = [analysis.population(case.problem, loss, case.logits, f, **data) for f in forms]
    variance = analysis.gradient_variance(case.problem, loss, case.logits, case.nu, **data)
    monkeypatch.setattr(groups, "BLOCK", block)
    for form, expected in zip(forms, whole, strict=True):
        found = analysis.population(case.problem, loss, case.logits, form, **data)
        close(found[0], expected[0])
        close(found[1], expected[1])
    close(analysis.gradient_variance(case.problem, loss, case.logits, case.nu, **data), variance)


@every_method
def test_sparse_pairs(name):
    case = make_case(np.random.default_rng(10), (5,))
    loss, data, _ = data_of(name, case)
    nu = case.nu * (case.rng.random((5, 5)) < 0.5)
    nu /= nu.sum()
    dense = analysis.population(case.problem, loss, case.logits, nu, **data)
    found = analysis.population(case.problem, loss, case.logits, scipy.sparse.csr_array(nu), **data)
    close(found[0], dense[0])
    close(found[1], dense[1])
    counts = bandit.pairs.from_counts(scipy.sparse.csr_array(nu * 50))
    close(analysis.population(case.problem, loss, case.logits, counts, **data)[1], dense[1])


def test_sparse_pairs_shared_by_contexts():
    case = make_case(np.random.default_rng(11), (2, 4))
    nu = case.nu[0]
    for name in ("copg", "dpo", "policy_gradient_behavior"):
        loss, data, bound = data_of(name, case)
        expected = oracles.population(case.problem, bound, case.logits, nu, **data)
        found = analysis.population(
            case.problem, loss, case.logits, scipy.sparse.csr_array(nu), **data
        )
        close(found[0], expected[0])
        close(found[1], expected[1])


# ------------------------------------------------------------------------------- log-linear


@every_method
@settings(max_examples=8)
@given(case=cases(max_arms=4, max_contexts=3), shared=st.booleans())
def test_log_linear_gradient_is_the_chain_rule(name, case, shared):
    loss, data, bound = data_of(name, case)
    shape = case.problem.shape[-1:] if shared else case.problem.shape
    features = case.rng.normal(size=(*shape, 2))
    theta = case.rng.normal(size=2)
    full = np.broadcast_to(features, (*case.problem.shape, 2))
    value, by_logits = oracles.population(case.problem, bound, full @ theta, case.nu, **data)
    expected = np.zeros(2)
    for index in np.ndindex(case.problem.shape):
        expected += by_logits[index] * full[index]
    found = analysis.population(
        case.problem, loss, theta, case.nu, policy=bandit.LogLinear(features), **data
    )
    close(found[0], value)
    np.testing.assert_allclose(
        found[1], expected, rtol=1e-9, atol=1e-11 * max(1, np.abs(by_logits).max())
    )


def test_log_linear_shapes_and_bad_input():
    case = make_case(np.random.default_rng(12), (2, 3))
    policy = bandit.LogLinear(case.rng.normal(size=(2, 3, 4)))
    theta = case.rng.normal(size=(5, 4))
    value, gradient = analysis.population(case.problem, losses.copg, theta, case.nu, policy=policy)
    assert (value.shape, gradient.shape) == ((5,), (5, 4))
    assert policy.n_parameters == 4
    assert repr(policy) == "LogLinear(4 features, 3 arms)"
    with pytest.raises(
        ValueError, match=r"^theta: expected shape \(\.\.\., d\) = \(4,\), got \(3,\)"
    ):
        analysis.population(case.problem, losses.copg, np.zeros(3), case.nu, policy=policy)
    with pytest.raises(ValueError, match=r"^theta: expected finite"):
        analysis.population(case.problem, losses.copg, np.full(4, np.nan), case.nu, policy=policy)
    for shape in ((3,), (0, 2), (2, 2, 2, 2)):
        with pytest.raises(ValueError, match=r"^features: expected shape"):
            bandit.LogLinear(np.ones(shape))
    with pytest.raises(ValueError, match=r"^features: expected finite"):
        bandit.LogLinear([[1.0, np.inf]])
    with pytest.raises(ValueError, match=r"^features: expected shape \(2, 3, 1\), got \(2, 1\)"):
        bandit.LogLinear(np.ones((2, 1))).for_problem((2, 3))
    with pytest.raises(ValueError, match="read-only"):
        policy.features[0] = 0


# ------------------------------------------------------------------------------------ spread


@every_method
@settings(max_examples=8)
@given(case=cases(max_arms=4, max_contexts=2))
def test_covariance_over_any_pairs(name, case):
    loss, data, bound = data_of(name, case)
    expected = oracles.covariance(case.problem, bound, case.logits, case.nu, **data)
    found = analysis.covariance(case.problem, loss, case.logits, case.nu, **data)
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-11 * max(scale, 1e-3))
    traces = np.trace(expected, axis1=-2, axis2=-1)
    rho = case.problem.context_weights
    trace = analysis.gradient_variance(case.problem, loss, case.logits, case.nu, **data)
    assert float(trace) == pytest.approx(
        float(traces if rho is None else rho @ traces), rel=1e-8, abs=1e-11 * scale
    )


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize(
    "name", ["copg", "policy_gradient", "grpo", "importance_sampling", "ppo_clip"]
)
def test_covariance_over_larger_groups(name, size):
    case = make_case(np.random.default_rng(13), (2, 3))
    loss, data, bound = data_of(name, case)
    if size < losses.traits(loss).sizes[0]:
        return
    pairs = bandit.pairs.independent(case.mu)
    expected = oracles.covariance(
        case.problem, bound, case.logits, None, mu=case.mu, group_size=size, **data
    )
    found = analysis.covariance(case.problem, loss, case.logits, pairs, group_size=size, **data)
    close(found, expected, rtol=1e-9)
    trace = analysis.gradient_variance(
        case.problem, loss, case.logits, pairs, group_size=size, **data
    )
    traces = np.trace(expected, axis1=-2, axis2=-1)
    assert float(trace) == pytest.approx(float(case.problem.context_weights @ traces), rel=1e-9)


@pytest.mark.parametrize("contexts", [2, 4])
@pytest.mark.parametrize("name", ["copg", "dpo", "policy_gradient_behavior"])
def test_covariance_with_pairs_shared_by_contexts_and_without(name, contexts):
    case = make_case(np.random.default_rng(23), (contexts, 3))
    loss, data, bound = data_of(name, case)
    for nu in (case.nu, case.nu[0]):
        expected = oracles.covariance(case.problem, bound, case.logits, nu, **data)
        found = analysis.covariance(case.problem, loss, case.logits, nu, **data)
        close(found, expected, rtol=1e-9)
        trace = analysis.gradient_variance(case.problem, loss, case.logits, nu, **data)
        traces = np.trace(expected, axis1=-2, axis2=-1)
        assert float(trace) == pytest.approx(float(case.problem.context_weights @ traces), rel=1e-9)


def test_covariance_of_a_batch_of_policies():
    case = make_case(np.random.default_rng(14), (2, 3))
    logits = case.rng.normal(size=(4, 2, 3))
    every = analysis.covariance(case.problem, losses.copg, logits, case.nu)
    assert every.shape == (4, 2, 3, 3)
    close(every[2], analysis.covariance(case.problem, losses.copg, logits[2], case.nu))
    traces = analysis.gradient_variance(case.problem, losses.copg, logits, case.nu)
    assert traces.shape == (4,)
    close(traces[2], analysis.gradient_variance(case.problem, losses.copg, logits[2], case.nu))


def test_covariance_against_sampled_groups():
    """200 000 sampled pairs: each entry within 5 standard errors (error rate below 1e-5 in all)."""
    case = make_case(np.random.default_rng(15), (4,))
    rng, draws = np.random.default_rng(16), 200_000
    members = np.stack(np.unravel_index(rng.choice(16, size=draws, p=case.nu.ravel()), (4, 4)), -1)
    log_policy = oracles.log_softmax(case.logits)
    problem = case.problem
    weight = losses.copg(
        losses.Group(log_policy[members], problem.log_reference[members], problem.reward[members]),
        beta=problem.beta,
    ).weight
    slopes = (weight[..., None] * (np.eye(4)[members] - np.exp(log_policy))).sum(axis=1)
    centered = slopes - slopes.mean(axis=0)
    products = centered[:, :, None] * centered[:, None, :]
    exact = analysis.covariance(problem, losses.copg, case.logits, case.nu)
    error = products.std(axis=0) / np.sqrt(draws)
    assert (np.abs(products.mean(axis=0) - exact) < 5 * error).all()


# -------------------------------------------------------------------------------- derivatives

SMOOTH = [name for name in METHODS if name.split("-")[0] not in ("slic",)]


@pytest.mark.parametrize("name", SMOOTH)
@settings(max_examples=8)
@given(case=cases(max_arms=4, max_contexts=2))
def test_jacobian_is_the_derivative_of_the_gradient(name, case):
    loss, data, bound = data_of(name, case)
    problem = case.problem
    where = groups.setting(problem, bound, case.nu, **data)
    logits = np.atleast_2d(case.logits)
    own = losses.traits(loss)
    affine = own.quadratic and own.contrastive
    log_policy = oracles.log_softmax(logits)
    if near_a_clip(name, where, log_policy):
        return

    def field(free):
        free = oracles.log_softmax(free)
        return expectations.logit_gradient(
            bound, free, expectations.expected(where, bound, free)[1]
        )

    # (context, logit, context, gradient): contexts do not see each other.
    slopes = oracles.central_differences(field, logits, step=1e-4)
    found = expectations.Expectation(where, bound).jacobian(log_policy, 3.0, affine)
    for x in range(len(logits)):
        expected = slopes[x, :, x, :].T
        scale = max(1e-3, float(np.abs(expected).max()))
        np.testing.assert_allclose(found[x], expected, rtol=1e-6, atol=3e-7 * scale)


def near_a_clip(name, where, log_policy):
    """Whether a ratio or an advantage is so close to a kink that differences would straddle it."""
    if name.split("-")[0] not in ("ppo_clip", "clipped_objective") and "clip" not in name:
        return False
    both = np.stack([np.log(where.pairs.first), np.log(where.pairs.second)])
    ratio = np.exp(log_policy - both)
    value = (np.exp(log_policy) * regularized(where, log_policy)).sum(axis=-1, keepdims=True)
    advantages = [regularized(where, log_policy), regularized(where, log_policy) - value]
    kinks = [np.abs(ratio - k).min() for k in (0.8, 1.2, 1.5)]
    return min(*kinks, *(np.abs(a).min() for a in advantages)) < 2e-2 * max(1.0, where.beta)


def regularized(where, log_policy):
    return where.reward - where.beta * (log_policy - where.log_reference)


# ------------------------------------------------------------------------------- large problems


def test_population_of_a_million_arms():
    rng = np.random.default_rng(17)
    arms = 1_000_000
    problem = bandit.Bandit(rng.normal(size=arms), 0.4, simplex(rng, (arms,)))
    mu, logits = simplex(rng, (arms,)), rng.normal(size=arms)
    rewards = problem.reward - 0.4 * (oracles.log_softmax(logits) - problem.log_reference)
    mean = mu @ rewards
    value, gradient = analysis.population(
        problem, losses.copg, logits, bandit.pairs.independent(mu)
    )
    assert float(value) == pytest.approx(mu @ (rewards - mean) ** 2 / 0.4, rel=1e-9)
    np.testing.assert_allclose(gradient, -2 * mu * (rewards - mean), rtol=1e-7, atol=1e-17)


def test_dpo_memory_stays_bounded(monkeypatch):
    """25 million pairs in blocks: far less memory than one array over all of them (200 MB)."""
    monkeypatch.setattr(groups, "BLOCK", 1 << 16)
    rng, arms = np.random.default_rng(18), 1500
    problem = bandit.Bandit(rng.normal(size=arms), 0.4, simplex(rng, (arms,)))
    preference = bandit.preferences.bradley_terry(problem.reward)
    pairs = bandit.pairs.independent(simplex(rng, (arms,)))
    tracemalloc.start()
    analysis.population(
        problem, losses.dpo, problem.log_optimal_policy(), pairs, preference=preference
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # One float for each pair is 18 MB; the check of P makes a few such arrays.
    assert peak < 6 * arms**2 * 8


@pytest.mark.slow
def test_dpo_at_five_thousand_arms():
    rng, arms = np.random.default_rng(19), 5000
    problem = bandit.Bandit(rng.normal(size=arms), 0.4, simplex(rng, (arms,)))
    preference = bandit.preferences.bradley_terry(problem.reward)
    pairs = bandit.pairs.independent(simplex(rng, (arms,)))
    tracemalloc.start()
    gradient = analysis.population(
        problem, losses.dpo, problem.log_optimal_policy(), pairs, preference=preference
    )[1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.abs(gradient).max() < 1e-15
    assert peak < 1.5e9


# ------------------------------------------------------------------------------------ bad input


def three():
    return bandit.Bandit([1.0, 2.0, 4.0], 0.5, [0.2, 0.3, 0.5])


UNIFORM = np.full((3, 3), 1 / 9)


@pytest.mark.parametrize(
    "function", [analysis.population, analysis.covariance, analysis.gradient_variance]
)
@pytest.mark.parametrize(
    ("arguments", "data", "message"),
    [
        ((losses.copg, np.zeros(2), UNIFORM), {}, r"^logits: expected shape .*\(3,\), got \(2,\)"),
        ((losses.copg, np.zeros((3, 1)), UNIFORM), {}, r"^logits: expected shape .*got \(3, 1\)"),
        ((losses.copg, [0, 0, np.inf], UNIFORM), {}, "^logits: expected finite numbers, got inf"),
        ((losses.copg, "zero", UNIFORM), {}, "^logits: expected an array of numbers, got str"),
        ((losses.copg, np.zeros(3), np.full((2, 2), 0.25)), {}, r"^pairs: .*\(2, 2\)"),
        ((losses.copg, np.zeros(3), UNIFORM * 2), {}, "^pairs: expected .*got a sum of 2"),
        ((losses.copg, np.zeros(3), UNIFORM), {"baseline": "value"}, "^baseline: .*copg.*none"),
        ((losses.dpo, np.zeros(3), UNIFORM), {}, "^preference: expected .*dpo, got None"),
        (
            (losses.dpo, np.zeros(3), UNIFORM),
            {"preference": np.full((3, 3), 0.6)},
            r"^preference: expected P \+ Pᵀ = 1",
        ),
        (
            (losses.policy_gradient, np.zeros(3), UNIFORM),
            {"baseline": "mean"},
            "^baseline: expected one of value, behavior, reward, optimal; got 'mean'",
        ),
        (
            (losses.policy_gradient, np.zeros(3), UNIFORM),
            {"baseline": [1.0, 2.0]},
            r"^baseline: expected .*got \(2,\)",
        ),
        (
            (losses.policy_gradient, np.zeros(3), UNIFORM),
            {"baseline": np.nan},
            "^baseline: expected finite",
        ),
        (("cpg", np.zeros(3), UNIFORM), {}, "^method: expected one of .*got 'cpg'"),
        ((None, np.zeros(3), UNIFORM), {}, "^loss: expected a function .*got NoneType"),
        ((losses.copg, np.zeros(3), UNIFORM), {"group_size": 3}, "^group_size: expected 2 unless"),
        (
            (losses.copg, np.zeros(3), UNIFORM),
            {"group_size": 1},
            "^group_size: expected at least 2",
        ),
        (
            (losses.ipo, np.zeros(3), UNIFORM),
            {"group_size": 3, "preference": 1 / 2 + 0 * UNIFORM},
            "^group_size: expected 2 for ipo, got 3",
        ),
        (
            (losses.copg, np.zeros(3), UNIFORM),
            {"group_size": 2.0},
            "^group_size: expected a positive integer",
        ),
        (
            (losses.copg, np.zeros(3), UNIFORM),
            {"group_size": 0},
            "^group_size: expected a positive integer",
        ),
        (
            (losses.copg, np.zeros(3), UNIFORM),
            {"group_size": True},
            "^group_size: expected a positive integer",
        ),
    ],
)
def test_bad_input_raises_one_clear_line(function, arguments, data, message):
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        function(three(), *arguments, **data)
    assert "\n" not in str(caught.value)


def test_losses_of_ones_own():
    """Any function with the same contract can be analyzed, promising nothing."""

    def squared(group, *, beta):
        """(R_1 − 2 R_2)² / 2: neither exchangeable nor contrastive."""
        rewards = group.reward - beta * (group.log_prob - group.ref_log_prob)
        error = rewards[..., 0] - 2 * rewards[..., 1]
        return Score(error**2 / 2, np.stack([-beta * error, 2 * beta * error], axis=-1))

    case = make_case(np.random.default_rng(20), (2, 3))
    bound = functools.partial(squared, beta=case.problem.beta)
    for pairs in (bandit.pairs.independent(case.mu), bandit.pairs.from_counts(case.nu)):
        expected = oracles.population(case.problem, bound, case.logits, pairs.dense())
        found = analysis.population(case.problem, squared, case.logits, pairs)
        close(found[0], expected[0])
        close(found[1], expected[1])


# ----------------------------------------------------------------------------------- comparison


def test_comparison_table():
    problem, mu = presets.three_armed_bandit(), presets.three_armed_behavior()
    pairs = bandit.pairs.independent(mu)
    preference = bandit.preferences.bradley_terry(problem.reward)
    table = analysis.compare(problem, pairs, ["copg", "ipo", "policy_gradient"], preference)
    assert table.index.name == "method"
    assert list(table.index) == ["copg", "ipo", "policy_gradient"]
    assert list(table.columns) == [
        "policy",
        "kl_to_optimal",
        "regret",
        "slowest_eigenvalue",
        "variance_at_reference",
        "variance_at_solution",
        "converged",
        "message",
    ]
    np.testing.assert_allclose(
        table.loc["ipo", "policy"], [0.42635583, 0.35096146, 0.22268271], atol=5e-9
    )
    assert table.loc["ipo", "regret"] == pytest.approx(0.151303088591, abs=5e-13)
    assert table.loc["copg", "slowest_eigenvalue"] == pytest.approx(-0.125596934911, abs=5e-13)
    assert table.converged.all()
    for name, loss, data in (
        ("copg", losses.copg, {}),
        ("ipo", losses.ipo, {"preference": preference}),
    ):
        for column, at in (
            ("variance_at_reference", problem.reference),
            ("variance_at_solution", table.loc[name, "policy"]),
        ):
            bound = functools.partial(loss, beta=0.5)
            exact = oracles.covariance(problem, bound, np.log(at), pairs.dense(), **data)
            assert table.loc[name, column] == pytest.approx(np.trace(exact), rel=1e-9, abs=1e-15)


def test_comparison_takes_every_method_whose_data_is_there():
    problem = presets.three_armed_bandit()
    pairs = bandit.pairs.independent(presets.three_armed_behavior())
    without = analysis.compare(problem, pairs)
    assert set(presets.METHODS) - set(without.index) == {"ipo", "dpo", "dpo_with_data_term", "slic"}
    preference = bandit.preferences.deterministic(problem.reward)
    table = analysis.compare(problem, pairs, preference=preference)
    assert list(table.index) == list(presets.METHODS)
    assert not table.loc["dpo", "converged"]
    assert "no finite solution" in table.loc["dpo", "message"]
    numbers = ["kl_to_optimal", "regret", "slowest_eigenvalue", "variance_at_solution"]
    assert table.loc["dpo", numbers].isna().all()
    assert np.isfinite(table.loc["dpo", "variance_at_reference"])


def test_comparison_of_ones_own_methods():
    problem = presets.three_armed_bandit()
    pairs = bandit.pairs.independent(presets.three_armed_behavior())
    mapping = {
        "half": functools.partial(losses.copg, beta=0.25),
        "with value": presets.Method("PG", losses.policy_gradient, "value"),
    }
    table = analysis.compare(problem, pairs, mapping)
    assert list(table.index) == ["half", "with value"]
    half = bandit.Bandit(problem.reward, 0.25).optimal_policy()
    np.testing.assert_allclose(table.loc["half", "policy"], half, atol=1e-12)
    np.testing.assert_allclose(
        table.loc["with value", "policy"], problem.optimal_policy(), atol=1e-9
    )
    assert list(analysis.compare(problem, pairs, "copg").index) == ["copg"]
    with pytest.raises(ValueError, match=r"^method: expected one of .*got 'cpg'"):
        analysis.compare(problem, pairs, ["cpg"])


def test_catalog_of_methods():
    assert presets.method("rloo").loss is losses.rloo
    assert presets.METHODS["policy_gradient_value"].baseline == "value"
    assert presets.METHODS["policy_gradient_behavior"].baseline == "behavior"
    with pytest.raises(ValueError, match=r"^method: expected one of .*got 'nope'") as caught:
        presets.method("nope")
    assert "\n" not in str(caught.value)
    for method in presets.METHODS.values():
        assert method.loss in losses.REGISTRY.values()


def test_arguments_in_the_wrong_place_are_named():
    problem, pairs = bandit.Bandit([2.5, 2.0, 1.0], 0.5), np.eye(3) / 3
    with pytest.raises(TypeError, match=r"^problem: expected a bandit.Bandit, got function$"):
        analysis.solve(losses.copg, problem, pairs)
    for call in (
        lambda: analysis.solve(problem, losses.copg, pairs, policy=np.eye(3)),
        lambda: analysis.population(problem, losses.copg, np.zeros(3), pairs, policy=np.eye(3)),
    ):
        with pytest.raises(TypeError, match=r"^policy: expected bandit.LogLinear or None, got nd"):
            call()
    with pytest.raises(TypeError, match=r"^methods: expected names or a mapping .* got function$"):
        analysis.compare(problem, pairs, methods=losses.copg)
