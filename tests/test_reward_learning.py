"""Reward models against generic fits, synthetic comparisons against enumeration, and whom they
help or hurt."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import multinomial
from strategies import seeds

import bandit
from bandit import analysis, losses
from bandit.related import reward_learning as learning
from bandit.related.reward_learning import RewardModel

DRAWING = {"samples": 16, "sets": 20, "distance": 3.0, "confidence": 0.5}
FITTING = DRAWING | {"share": 0.5, "ridge": 1e-3}


def comparisons(seed, shape=(3, 5), features=2):
    rng = np.random.default_rng(seed)
    wins = rng.gamma(0.6, size=(*shape, shape[-1]))
    return rng.normal(size=(*shape, features)), wins


# -------------------------------------------------------------------------------- the reward model


@pytest.mark.parametrize("shape", [(5,), (3, 5)])
@pytest.mark.parametrize("ridge", [1e-3, 0.5])
def test_fit_is_what_a_generic_minimizer_of_the_likelihood_finds(shape, ridge):
    features, wins = comparisons(1, shape)

    def cost(w):
        total = 0.0
        for at in np.ndindex(wins.shape):
            first, second = features[at[:-1]], features[(*at[:-2], at[-1])]
            total += wins[at] * np.logaddexp(0, -(first - second) @ w)
        return total / wins.sum() + ridge / 2 * w @ w

    found = RewardModel.fit(features, wins, ridge=ridge)
    expected = minimize(cost, np.zeros(2), method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose(found.weights, expected.x, atol=1e-6)
    np.testing.assert_allclose(found.reward, features @ found.weights, rtol=1e-14)


@settings(max_examples=15)
@given(seeds, st.sampled_from([1e-6, 1e-2, 10.0]))
def test_gradient_of_the_likelihood_vanishes_at_the_fit(seed, ridge):
    features, wins = comparisons(seed)
    w = RewardModel.fit(features, wins, ridge=ridge).weights
    reward = features @ w
    slope = wins / (1 + np.exp(reward[:, :, None] - reward[:, None, :]))
    by_arm = slope.sum(axis=2) - slope.sum(axis=1)
    gradient = -np.einsum("xk,xkd->d", by_arm, features) / wins.sum() + ridge * w
    assert np.abs(gradient).max() < 1e-9


def test_without_ridge_it_is_dpo_of_a_log_linear_policy():
    features, wins = comparisons(4, (5,))
    dpo = analysis.solve(
        bandit.Bandit(np.zeros(5), 1.0),
        losses.dpo,
        bandit.pairs.from_counts(wins),
        preference=bandit.preferences.from_counts(wins),
        policy=bandit.LogLinear(features),
    )
    found = RewardModel.fit(features, wins, ridge=1e-12)
    np.testing.assert_allclose(found.weights, dpo.theta, atol=1e-8)


def test_true_rewards_are_found_where_the_features_can_say_them():
    rng = np.random.default_rng(2)
    features, truth = rng.normal(size=(4, 6, 3)), np.array([1.0, -0.5, 0.2])
    wins = rng.uniform(size=(4, 6, 6))
    wins = (wins + np.swapaxes(wins, 1, 2)) * bandit.preferences.bradley_terry(features @ truth)
    np.testing.assert_allclose(
        RewardModel.fit(features, wins, ridge=1e-10).weights, truth, atol=1e-8
    )


def test_contexts_without_comparisons_say_nothing_and_separable_ones_stay_finite():
    features, wins = comparisons(3)
    wins[1] = 0
    whole = RewardModel.fit(features, wins, ridge=0.1).weights
    part = RewardModel.fit(features[[0, 2]], wins[[0, 2]], ridge=0.1).weights
    np.testing.assert_allclose(whole, part, rtol=1e-9)
    always = RewardModel.fit(np.eye(3), [[0, 1, 1], [0, 0, 1], [0, 0, 0]], ridge=1e-4)
    assert 3 < np.ptp(always.reward) < 40
    assert (np.diff(always.reward) < 0).all()


def test_features_shared_by_contexts():
    features, wins = comparisons(5, (3, 5))
    shared = RewardModel.fit(features[0], wins, ridge=0.1)
    repeated = RewardModel.fit(np.stack([features[0]] * 3), wins, ridge=0.1)
    pooled = RewardModel.fit(features[0], wins.sum(axis=0), ridge=0.1)
    np.testing.assert_allclose(shared.weights, repeated.weights, rtol=1e-10)
    np.testing.assert_allclose(shared.weights, pooled.weights, rtol=1e-9)


@pytest.mark.parametrize("unit", [5e-324 * 2**40, 1e-200, 3.0, 1e300])
def test_units_of_wins_do_not_matter(unit):
    features, _ = comparisons(6, (4,))
    wins = np.array([[0, 3, 1, 2], [2, 0, 4, 1], [1, 1, 0, 5], [7, 2, 1, 0]])
    one = RewardModel.fit(features, wins, ridge=1e-3)
    other = RewardModel.fit(features, unit * wins, ridge=1e-3)
    np.testing.assert_allclose(other.weights, one.weights, rtol=1e-10)
    assert other.log_loss(unit * wins) == pytest.approx(one.log_loss(wins), rel=1e-12)


@pytest.mark.parametrize("shape", [(5,), (3, 5)])
def test_log_loss_is_the_mean_over_comparisons_written_out(shape):
    features, wins = comparisons(9, shape)
    model = RewardModel.fit(features, wins, ridge=0.05)
    total = 0.0
    for at in np.ndindex(wins.shape):
        gap = model.reward[at[:-1]] - model.reward[(*at[:-2], at[-1])]
        total -= wins[at] * math.log(1 / (1 + math.exp(-gap)))
    assert model.log_loss(wins) == pytest.approx(total / wins.sum(), rel=1e-12)
    flat = RewardModel(features, np.zeros(2))
    assert flat.log_loss(wins) == pytest.approx(math.log(2), rel=1e-12)
    assert model.log_loss(wins) < math.log(2)
    # A ridge costs a little of it; nothing beats the fit without.
    best = RewardModel.fit(features, wins, ridge=1e-9)
    assert best.log_loss(wins) < model.log_loss(wins)
    shared = RewardModel(np.arange(10.0).reshape(5, 2), np.array([0.1, 0.2]))
    assert shared.log_loss(wins) > 0
    with pytest.raises(ValueError, match=r"^wins: expected shape \(.*5, 5\), got \(4, 4\)"):
        model.log_loss(np.ones((4, 4)))


@pytest.mark.parametrize("seed", range(3))
def test_the_refit_helps_and_is_no_better_than_a_coin_on_the_given_comparisons(seed):
    found = course(0.55, 2.5, 1.0, seed)
    wins = learning.example(beta=1.0, right=0.55, length=2.5, rng=0).wins
    before, after = (model.log_loss(wins) for model in found.models)
    assert before < 0.66 < 0.69 < after < 0.7


@pytest.mark.parametrize(("scale", "ridge"), [(1.0, 1e-300), (1e-9, 1e-300), (1e200, 1e-3)])
def test_a_fit_that_float64_does_not_resolve_raises(scale, ridge):
    with pytest.raises(RuntimeError, match=r"^RewardModel.fit: no minimum .* another ridge"):
        RewardModel.fit(scale * np.eye(3), [[0, 1, 1], [0, 0, 1], [0, 0, 0]], ridge=ridge)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_units_of_features_do_not_matter(scale):
    features, wins = comparisons(6)
    one = RewardModel.fit(features, wins, ridge=1e-3)
    other = RewardModel.fit(scale * features, wins, ridge=1e-3 * scale**2)
    np.testing.assert_allclose(other.reward, one.reward, atol=1e-6)


# ----------------------------------------------------------------------------- over-optimization


def test_values_are_those_of_the_optimal_policy_under_the_model():
    given_ = learning.example(beta=0.7, right=0.5, length=2.0, contexts=3, rng=4)
    model = RewardModel.fit(given_.features, given_.wins, ridge=1e-3)
    betas = [3.0, 0.5]
    found = learning.over_optimization(given_.problem, model, betas)
    reference, truth = given_.problem.reference, given_.problem.reward
    for n, beta in enumerate(betas):
        policy = reference * np.exp(model.reward / beta)
        policy /= policy.sum(axis=1, keepdims=True)
        kl = (policy * np.log(policy / reference)).sum(axis=1).mean()
        assert found.kl[n] == pytest.approx(kl, rel=1e-9)
        assert found.true_value[n] == pytest.approx((policy * truth).sum(axis=1).mean(), rel=1e-9)
        gain = ((policy - reference) * model.reward).sum(axis=1).mean()
        at_reference = (reference * truth).sum(axis=1).mean()
        assert found.learned_value[n] == pytest.approx(at_reference + gain, rel=1e-9)


@given(seeds, st.floats(0.05, 5))
def test_regret_is_at_most_the_span_of_the_errors(seed, beta):
    """J(π*) − J(π̂) ≤ mean over contexts of max(r − r̂) − min(r − r̂), exactly."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(3, 4, 2))
    model = RewardModel(features, rng.normal(size=2))
    problem = bandit.Bandit(rng.normal(size=(3, 4)), beta, rng.dirichlet(np.ones(4), size=3))
    regret = problem.regret(model.applied_to(problem).optimal_policy())
    span = np.ptp(problem.reward - model.reward, axis=1).mean()
    assert regret <= span + 1e-12


def test_the_more_it_is_optimized_the_better_it_looks_and_the_worse_it_is():
    given_ = learning.example(beta=1.0, right=0.55, length=2.5, rng=0)
    model = RewardModel.fit(given_.features, given_.wins, ridge=1e-3)
    found = learning.over_optimization(given_.problem, model, np.geomspace(20, 0.2, 12))
    assert (np.diff(found.kl) > 0).all()
    assert (np.diff(found.learned_value) > 0).all()
    assert (np.diff(found.true_value[2:]) < 0).all()
    assert found.true_value[-1] < -0.9
    assert found.learned_value[-1] > 3
    # With no arm to overrate, the same model serves its purpose.
    fair = learning.example(beta=1.0, right=0.55, length=0.5, rng=0)
    model = RewardModel.fit(fair.features, fair.wins, ridge=1e-3)
    found = learning.over_optimization(fair.problem, model, np.geomspace(20, 0.2, 12))
    assert (np.diff(found.true_value) > 0).all()


# ------------------------------------------------------------------------- synthetic comparisons

# Two groups of two arms and one alone; nothing in between.
PLACES = np.array([[0.0, 0.0], [0.4, 0.0], [5.0, 0.0], [5.0, 0.3], [0.0, 9.0]])
KIND = np.array([0, 0, 1, 1, 2])
POLICY = np.array([0.3, 0.1, 0.25, 0.15, 0.2])


def expected_wins(samples, confidence):
    """Mean and variance of one set's wins, over all sets there are, with their probabilities."""
    mean, square, kept = np.zeros((5, 5)), np.zeros((5, 5)), 0.0
    for counts in itertools.product(range(samples + 1), repeat=5):
        if sum(counts) != samples:
            continue
        probability = multinomial.pmf(counts, samples, POLICY)
        size = [sum(c for c, k in zip(counts, KIND, strict=True) if k == g) for g in range(3)]
        top = max(size)
        if size.count(top) > 1 or top < confidence * samples or top == samples:
            continue
        kept += probability
        winner = size.index(top)
        for i, j in itertools.product(range(5), repeat=2):
            if KIND[i] == winner and KIND[j] != winner:
                share = counts[i] / top * counts[j] / (samples - top)
                mean[i, j] += probability * share
                square[i, j] += probability * share**2
    return mean, square - mean**2, kept


@pytest.mark.parametrize("confidence", [0.1, 0.5, 0.8])
def test_wins_have_the_mean_that_enumeration_gives(confidence):
    mean, variance, kept = expected_wins(5, confidence)
    sets = 20_000
    found = learning.synthetic_wins(
        POLICY, PLACES, samples=5, sets=sets, distance=1.0, confidence=confidence, rng=3
    )
    assert found.asked == sets
    # 4.5 standard errors: wrong once in 147,000 cells.
    assert abs(found.kept / sets - kept) < 4.5 * math.sqrt(kept * (1 - kept) / sets)
    assert (np.abs(found.wins / sets - mean) <= 4.5 * np.sqrt(variance / sets) + 1e-15).all()
    assert found.wins.sum() == pytest.approx(found.kept, rel=1e-12)
    assert found.kept > 0


def test_distance_says_what_is_one_cluster():
    options = {"samples": 6, "sets": 300, "confidence": 0.01, "rng": 0}
    apart = learning.synthetic_wins(POLICY, PLACES, distance=0.35, **options)
    assert apart.wins[0, 1] > 0  # 0.4 apart: two clusters
    assert apart.wins[2, 3] == 0  # 0.3 apart: one
    together = learning.synthetic_wins(POLICY, PLACES, distance=1.0, **options)
    assert together.wins[0, 1] == together.wins[1, 0] == together.wins[2, 3] == 0
    everything = learning.synthetic_wins(POLICY, PLACES, distance=100.0, **options)
    assert everything.kept == 0
    assert everything.wins.sum() == 0


def test_a_chain_is_not_one_cluster():
    """Steps of 0.6 and 0.7, ends 1.3 apart: complete linkage, where no two may be farther."""
    chain = np.array([[0.0], [0.6], [1.3]])
    found = learning.synthetic_wins(
        [0.4, 0.4, 0.2], chain, samples=9, sets=50, distance=1.0, confidence=0.5, rng=0
    )
    assert found.kept > 40
    assert found.wins[0, 2] > 0
    assert found.wins[0, 1] == 0


def test_confidence_is_a_share_of_the_set_and_one_sample_says_nothing():
    options = {"samples": 4, "sets": 500, "distance": 1.0, "rng": 0}
    kept = [
        learning.synthetic_wins(POLICY, PLACES, confidence=c, **options).kept
        for c in (0.25, 0.5, 0.75, 1.0)
    ]
    # Two of four with the others apart is 0.5; below that there is no majority without a tie.
    assert kept[0] == kept[1] > kept[2] > kept[3] == 0
    one = learning.synthetic_wins(POLICY, PLACES, **(options | {"samples": 1}), confidence=0.1)
    assert one.kept == 0


@pytest.mark.parametrize(("confidence", "samples"), [(0.28, 25), (0.14, 50), (0.55, 100)])
def test_a_share_equal_to_the_confidence_is_enough(confidence, samples):
    """Also where confidence · samples is rounded up, as 0.28 · 25 to 7.000000000000001."""
    assert confidence * samples > round(confidence * samples)
    often = round(confidence * samples)
    arms = 1 + samples - often  # all but the first alone, and once in the set
    places = np.column_stack([10.0 * np.arange(arms), np.zeros(arms)])

    class Drawn(np.random.Generator):
        """Draws the set in question."""

        def spawn(self, n):
            return [self] * n

        def multinomial(self, n, pvals, size=None):
            return np.array([[often] + [1] * (samples - often)])

    made = learning.synthetic_wins(
        np.full(arms, 1 / arms), places, samples=samples, sets=1, distance=1.0,
        confidence=confidence, rng=Drawn(np.random.PCG64(0)),
    )  # fmt: skip
    assert made.kept == 1
    assert made.wins[0, 1:].sum() == pytest.approx(1)


def test_points_that_look_like_a_table_of_distances():
    """Square, symmetric and 0 on the diagonal: scipy would warn, and warnings are errors here."""
    places = [[0.0, 4.0, 5.0], [4.0, 0.0, 6.0], [5.0, 6.0, 0.0]]
    made = learning.synthetic_wins(
        [0.6, 0.2, 0.2], places, samples=9, sets=20, distance=1.0, confidence=0.4, rng=0
    )
    assert made.kept > 10


def test_contexts_have_streams_of_their_own():
    options = {"samples": 5, "sets": 50, "distance": 1.0, "confidence": 0.4}
    two = learning.synthetic_wins(np.stack([POLICY, POLICY]), PLACES, rng=1, **options)
    again = learning.synthetic_wins(np.stack([POLICY, POLICY]), PLACES, rng=1, **options)
    alone = learning.synthetic_wins(POLICY, PLACES, rng=1, **options)
    np.testing.assert_array_equal(two.wins, again.wins)
    np.testing.assert_array_equal(two.wins[0], alone.wins)
    assert not np.array_equal(two.wins[0], two.wins[1])
    other = learning.synthetic_wins(POLICY, PLACES, rng=2, **options)
    assert not np.array_equal(other.wins, alone.wins)
    shifted = np.stack([PLACES, PLACES[::-1]])
    own = learning.synthetic_wins(np.stack([POLICY, POLICY]), shifted, rng=1, **options)
    np.testing.assert_array_equal(own.wins[0], alone.wins)
    assert own.wins[1, 4, 3] == 0  # in the second context arms 3 and 4 say the same


# -------------------------------------------------------------------------------------- relearning


def course(right, length, beta, seed=0, **more):
    given_ = learning.example(beta=beta, right=right, length=length, rng=0)
    return learning.relearn_on_policy(*given_, **(FITTING | more), rng=seed)


@pytest.mark.parametrize("seed", range(3))
def test_helps_while_right_answers_are_the_majority(seed):
    found = course(0.55, 2.5, 1.0, seed)
    assert found.true_value[0] < 0.3
    assert found.true_value[1] > 0.6
    # Length has lost its charm.
    assert found.models[0].weights[1] > 1 > 0 > found.models[1].weights[1]


@pytest.mark.parametrize("seed", range(3))
def test_hurts_where_most_answers_are_wrong(seed):
    found = course(0.2, 0.5, 1.0, seed)
    assert found.true_value[0] > 0.25
    assert found.true_value[1] < 0.16
    assert found.synthetic[0].kept > 0.9 * found.synthetic[0].asked  # confidence does not protect


@pytest.mark.parametrize("seed", range(3))
def test_confirms_what_an_over_optimized_policy_says(seed):
    found = course(0.55, 2.5, 0.35, seed)
    assert found.true_value[0] < -0.9
    assert found.true_value[1] < found.true_value[0]
    assert found.models[1].weights[1] > found.models[0].weights[1]


def test_rounds_start_from_the_fit_before_and_the_given_comparisons():
    given_ = learning.example(beta=1.0, right=0.55, length=2.5, contexts=4, rng=0)
    found = learning.relearn_on_policy(*given_, **FITTING, rounds=2, rng=7)
    streams = np.random.default_rng(7).spawn(2)
    wins = given_.wins / given_.wins.sum()
    model = RewardModel.fit(given_.features, wins, ridge=1e-3)
    for t in range(2):
        policy = model.applied_to(given_.problem).optimal_policy()
        made = learning.synthetic_wins(policy, given_.embedding, **DRAWING, rng=streams[t])
        np.testing.assert_array_equal(found.synthetic[t].wins, made.wins)
        model = RewardModel.fit(given_.features, wins + made.wins / made.wins.sum(), ridge=1e-3)
        np.testing.assert_allclose(found.models[t + 1].weights, model.weights, rtol=1e-7)
    assert len(found.models) == len(found.kl) == 3
    last = model.applied_to(given_.problem).optimal_policy()
    assert found.true_value[2] == pytest.approx(
        float(given_.problem.expected_reward(last)), rel=1e-7
    )
    assert found.kl[2] == pytest.approx(float(given_.problem.kl(last)), rel=1e-7)


def test_share_goes_from_the_given_comparisons_to_the_synthetic_ones():
    little, much = course(0.2, 0.5, 1.0, share=1e-6), course(0.2, 0.5, 1.0, share=1 - 1e-6)
    np.testing.assert_allclose(little.models[1].weights, little.models[0].weights, atol=1e-4)
    alone = RewardModel.fit(
        learning.example(beta=1.0, right=0.2, length=0.5, rng=0).features,
        much.synthetic[0].wins,
        ridge=1e-3,
    )
    np.testing.assert_allclose(much.models[1].weights, alone.weights, atol=1e-3)


def test_where_no_set_is_sure_enough_nothing_changes():
    found = course(0.55, 2.5, 1.0, confidence=1.0)
    assert found.synthetic[0].kept == 0
    np.testing.assert_array_equal(found.models[1].weights, found.models[0].weights)


def test_an_interrupt_keeps_what_was_done_and_progress_is_told():
    given_ = learning.example(beta=1.0, right=0.55, length=2.5, contexts=2, rng=0)
    told = []

    def stop(step, steps):
        told.append((step, steps))
        if step == 2:
            raise KeyboardInterrupt

    with pytest.warns(RuntimeWarning, match=r"^relearn_on_policy: interrupted; 2 of 5 rounds"):
        part = learning.relearn_on_policy(*given_, **FITTING, rounds=5, rng=7, progress=stop)
    whole = learning.relearn_on_policy(*given_, **FITTING, rounds=5, rng=7)
    assert told == [(1, 5), (2, 5)]
    assert part.interrupted
    assert not whole.interrupted
    assert len(part.models) == 3
    assert len(part.synthetic) == 2
    np.testing.assert_array_equal(part.true_value, whole.true_value[:3])


def test_the_example_is_what_it_says():
    given_ = learning.example(beta=0.4, right=0.3, length=2.0, contexts=200, rng=1)
    problem = given_.problem
    assert problem.shape == (200, 12)
    assert problem.beta == 0.4
    np.testing.assert_allclose(problem.reference[:, :5].sum(axis=1), 0.3, rtol=1e-12)
    np.testing.assert_allclose(problem.reference[:, 9:].sum(axis=1), 0.03, rtol=1e-12)
    assert given_.wins[:, 9:].sum() == given_.wins[:, :, 9:].sum() == 0
    lengths = given_.features[..., 1]
    # Means of at least 600 draws with deviation 0.15; 4.5 standard errors are 0.03 at most.
    for arms, mean in ((slice(0, 5), 0.6), (slice(5, 9), 0.4), (slice(9, 12), 2.0)):
        assert lengths[:, arms].mean() == pytest.approx(mean, abs=0.03)
    for arms, mean in ((slice(0, 5), 1), (slice(5, 9), 0), (slice(9, 12), -1)):
        assert problem.reward[:, arms].mean() == pytest.approx(mean, abs=0.02)
    apart = np.linalg.norm(given_.embedding[:, :, None] - given_.embedding[:, None], axis=-1)
    same = np.repeat([0, 1, 2, 3, 4], [5, 4, 1, 1, 1])
    together = same[:, None] == same[None]
    assert apart[:, together].max() < 3 < apart[:, ~together].min()


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("wins", "message"),
    [
        (np.ones((2, 3)), r"^wins: expected shape \(K, K\) or \(X, K, K\), got \(2, 3\)"),
        (np.ones(3), r"^wins: expected shape"),
        (np.zeros((3, 3)), r"^wins: expected at least one comparison, got none"),
        (-np.ones((3, 3)), r"^wins: expected numbers of at least 0, got -1"),
        (np.full((3, 3), np.inf), r"^wins: expected finite numbers"),
    ],
)
def test_bad_wins(wins, message):
    with pytest.raises(ValueError, match=message):
        RewardModel.fit(np.eye(3), wins, ridge=0.1)


def test_bad_fits():
    with pytest.raises(ValueError, match=r"^ridge: expected a finite number above 0, got 0"):
        RewardModel.fit(np.eye(3), np.ones((3, 3)), ridge=0.0)
    with pytest.raises(ValueError, match=r"^features: expected shape \(3, 2\), got \(4, 2\)"):
        RewardModel.fit(np.ones((4, 2)), np.ones((3, 3)), ridge=0.1)
    model = RewardModel(np.eye(3), np.zeros(3))
    problem = bandit.Bandit(np.zeros(3), 1.0)
    for betas, message in (
        ([1.0, 0.0], "numbers above 0, got 0$"),
        (1.0, r"shape \(N,\), got \(\)$"),
        ([[1.0]], r"shape \(N,\), got \(1, 1\)$"),
    ):
        with pytest.raises(ValueError, match=r"^betas: expected " + message):
            learning.over_optimization(problem, model, betas)
    with pytest.raises(TypeError, match=r"^model: expected a RewardModel, got list$"):
        learning.over_optimization(problem, [1.0], [1.0])  # type: ignore
    with pytest.raises(ValueError, match=r"^features: expected shape \(3, 'd'\), got \(2, 2\)$"):
        RewardModel(np.eye(2), np.zeros(2)).applied_to(problem)
    with pytest.raises(ValueError, match=r"^weights: expected shape \(3,\), got \(2,\)$"):
        RewardModel(np.eye(3), np.zeros(2))
    with pytest.raises(ValueError, match=r"^features: expected shape \(K, d\) or .* got \(3,\)$"):
        RewardModel(np.ones(3), np.zeros(3))


BAD = {
    "samples": (0, r"^samples: expected a positive integer, got 0"),
    "sets": (2.5, r"^sets: expected a positive integer, got 2.5"),
    "distance": (0.0, r"^distance: expected a finite number above 0"),
    "confidence": (1.5, r"^confidence: expected a share of at most 1, got 1.5"),
    "rng": ("seed", r"^rng: expected a seed"),
    "policy": (np.full((1, 1, 5), 0.2), r"^policy: expected shape \(K,\) or \(X, K\)"),
    "embedding": (np.zeros((4, 2)), r"^embedding: expected shape \(5, 'e'\), got \(4, 2\)"),
    "far embedding": (1e200 * np.eye(5), r"^embedding: expected distances whose squares fit"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_drawing(name):
    value, message = BAD[name]
    good = {"policy": POLICY, "embedding": PLACES, "samples": 3, "sets": 2, "rng": 0}
    good |= {"distance": 1.0, "confidence": 0.5}
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        learning.synthetic_wins(**(good | {name.split()[-1]: value}))
    assert "\n" not in str(caught.value)


def test_bad_relearning():
    given_ = learning.example(beta=1.0, right=0.55, length=2.5, contexts=2, rng=0)
    with pytest.raises(TypeError, match=r"^progress: expected True, False or a function"):
        learning.relearn_on_policy(*given_, **FITTING, rng=0, progress=1)
    for share in (1.0, 1.5):
        with pytest.raises(ValueError, match=r"^share: expected a number between 0 and 1, got 1"):
            learning.relearn_on_policy(*given_, **(FITTING | {"share": share}), rng=0)
    with pytest.raises(ValueError, match=r"^rounds: expected a positive integer, got 0"):
        learning.relearn_on_policy(*given_, **FITTING, rounds=0, rng=0)
    with pytest.raises(ValueError, match=r"^wins: expected shape \(2, 12, 12\), got \(12, 12\)"):
        learning.relearn_on_policy(*given_._replace(wins=given_.wins[0]), **FITTING, rng=0)
    with pytest.raises(TypeError, match=r"^problem: expected a bandit.Bandit, got list"):
        learning.relearn_on_policy(*given_._replace(problem=[1.0]), **FITTING, rng=0)
    for right in (0.0, 0.97, 1.2):
        with pytest.raises(ValueError, match=r"^right: expected"):
            learning.example(beta=1.0, right=right, length=1.0, rng=0)
    with pytest.raises(ValueError, match=r"^length: expected a finite number above 0"):
        learning.example(beta=1.0, right=0.5, length=0.0, rng=0)
