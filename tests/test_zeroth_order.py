"""Zeroth-order gradients from judges against enumeration, calculus and games.

Statistical tests have fixed seeds; each statement would fail for a correct program with a
probability below 1e-6.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracles
import pytest
from scipy.special import expit, logit
from strategies import make_case

import bandit
from bandit import descent
from bandit.related import _zeroth_order_mean, zeroth_order
from bandit.related.zeroth_order import (
    limit_policy,
    link_inverse_mean,
    mean_gradient,
    optimize,
    variance,
    zeroth_order_gradient,
)

PAGES = Path(__file__).parents[1] / "notebooks" / "site" / "pages" / "related"
PROBLEM = bandit.Bandit([2.5, 2.0, 0.2], beta=0.5, reference=[0.5, 0.2, 0.3])
LOGITS = np.array([0.3, -0.6, 0.1])
CONTEXTS = bandit.Bandit(
    [[1.0, -0.5], [0.2, 1.4]],
    beta=0.7,
    reference=[[0.3, 0.7], [0.6, 0.4]],
    context_weights=[0.35, 0.65],
)
CONTEXT_LOGITS = np.array([[0.4, -0.2], [-0.5, 0.3]])
BOTH = {"plain": (PROBLEM, LOGITS), "contexts": (CONTEXTS, CONTEXT_LOGITS)}
ASK = {"judges": 3, "smoothing": 0.4, "trim": 0.05}
SMALL = {"directions": 4, "pairs": 8, **ASK}


def value(problem, logits):
    return float(problem.objective(np.exp(oracles.log_softmax(logits))))


def gradient(problem, logits):
    return oracles.central_differences(lambda at: value(problem, at), logits)


# -------------------------------------------------------------------------- the exact expectation


@pytest.mark.parametrize("case", BOTH)
@pytest.mark.parametrize("block", [False, 1, 2])
def test_mean_tends_to_the_gradient_with_the_square_of_the_smoothing(case, block):
    problem, logits = BOTH[case]
    true = gradient(problem, logits)
    error = {}
    for smoothing in (0.2, 0.1, 0.05):
        mean = mean_gradient(
            problem, logits, judges=None, smoothing=smoothing, trim=1e-3, block=block
        )
        error[smoothing] = mean - true
    assert np.abs(error[0.05]).max() < 2e-3
    for coarse, fine in ((0.2, 0.1), (0.1, 0.05)):
        np.testing.assert_allclose(error[coarse], 4 * error[fine], rtol=0.1, atol=1e-7)
    at_zero = mean_gradient(problem, logits, judges=None, smoothing=0, trim=1e-3, block=block)
    np.testing.assert_allclose(at_zero, true, atol=1e-10)


def test_mean_over_the_sphere_is_the_gradient_of_the_average_over_the_ball():
    """Stokes' theorem, with a rule for the disc of its own."""
    problem = bandit.Bandit([1.0, -0.4], beta=0.6, reference=[0.3, 0.7])
    logits, smoothing = np.array([0.5, -0.3]), 0.9
    radius, weight = np.polynomial.legendre.leggauss(24)
    radius, weight = (radius + 1) / 2, weight / 2 * (radius + 1)  # density 2r on [0, 1]
    angle = 2 * np.pi * np.arange(40) / 40
    disc = radius[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)

    def averaged(at):
        policy = np.exp(oracles.log_softmax(at + smoothing * disc))
        return weight @ problem.objective(policy / policy.sum(axis=-1, keepdims=True)).mean(axis=1)

    expected = oracles.central_differences(averaged, logits)
    mean = mean_gradient(problem, logits, judges=None, smoothing=smoothing, trim=1e-3, nodes=24)
    np.testing.assert_allclose(mean, expected, rtol=1e-9)


@pytest.mark.parametrize("case", BOTH)
@pytest.mark.parametrize("block", [1, 2])
def test_mean_by_enumeration_of_everything_that_can_happen(case, block):
    problem, logits = BOTH[case]
    judges, smoothing, trim = ASK.values()
    size, shape = logits.size, problem.shape
    total = np.zeros(size)
    chosen = list(itertools.combinations(range(size), block))
    for places in chosen:
        for signs in itertools.product((-1, 1), repeat=block):
            v = np.zeros(size)
            v[list(places)] = np.array(signs) / math.sqrt(block)
            chance = 1 / (len(chosen) * 2**block)
            total += chance * expected_answer(problem, logits, v, judges, smoothing, trim) * v
    expected = (size / smoothing * total).reshape(shape)
    np.testing.assert_allclose(
        mean_gradient(problem, logits, block=block, **ASK), expected, rtol=1e-10
    )


def expected_answer(problem, logits, v, judges, smoothing, trim):
    """Mean estimate of a difference of values along v: contexts, arms and each judge's answer."""
    logits = oracles.with_contexts(logits, problem, 1)
    there = oracles.log_softmax(logits + smoothing * v.reshape(logits.shape))
    here = oracles.log_softmax(logits)
    total = 0.0
    for x, rho, r, ref in oracles.contexts_of(problem):
        for y, z in itertools.product(range(len(r)), repeat=2):
            chance = rho * np.exp(there[x, y] + here[x, z])
            wins = expit(r[y] - r[z])
            for answers in itertools.product((0, 1), repeat=judges):
                likely = math.prod(wins if a else 1 - wins for a in answers)
                frequency = min(max(sum(answers) / judges, trim), 1 - trim)
                estimate = math.log(frequency / (1 - frequency))
                estimate -= problem.beta * (
                    there[x, y] - np.log(ref[y]) - here[x, z] + np.log(ref[z])
                )
                total += chance * likely * estimate
    return total


@pytest.mark.parametrize("case", BOTH)
@pytest.mark.parametrize("judges", [3, None])
def test_as_the_smoothing_vanishes_the_mean_keeps_its_digits(case, judges):
    problem, logits = BOTH[case]
    ask = {"judges": judges, "trim": 0.01}
    limit = mean_gradient(problem, logits, smoothing=0, **ask)
    for smoothing in (1e-7, 1e-12, 1e-100, 1e-300):
        mean = mean_gradient(problem, logits, smoothing=smoothing, **ask)
        np.testing.assert_allclose(mean, limit, rtol=1e-12, atol=1e-13)


def test_moves_of_more_than_a_nat_are_those_of_less():
    """Two ways to compute them, on either side of where one takes over."""
    for size in (0.999, 1.001):
        step = np.array([[size, -size / 2, 0.2]])
        way = _zeroth_order_mean._way(PROBLEM, LOGITS, step)
        here, there = oracles.log_softmax(LOGITS), oracles.log_softmax(LOGITS + step[0])
        np.testing.assert_allclose(way.shift[0], there - here, rtol=1e-13)
        np.testing.assert_allclose(way.change[0], np.exp(there) - np.exp(here), rtol=1e-12)


def test_quadrature_converges():
    coarse, fine = (mean_gradient(PROBLEM, LOGITS, nodes=n, **ASK) for n in (12, 24))
    np.testing.assert_allclose(coarse, fine, rtol=1e-10)


@pytest.mark.parametrize("case", BOTH)
@pytest.mark.parametrize("block", [False, True, 2])
def test_estimates_have_that_mean(case, block):
    problem, logits = BOTH[case]
    rng, ask = np.random.default_rng(1), {**ASK, "directions": 24, "pairs": 32, "block": block}
    draws = np.array(
        [zeroth_order_gradient(problem, logits, rng, **ask).ravel() for _ in range(1000)]
    )
    error = draws.std(axis=0, ddof=1) / math.sqrt(len(draws))
    exact = mean_gradient(problem, logits, block=block, **ASK).ravel()
    assert (np.abs(draws.mean(axis=0) - exact) < 5.5 * error).all()
    # Enough to see a flipped sign.
    assert (np.abs(exact) > 8 * error).any()


def test_estimates_of_judges_without_end_have_their_mean():
    rng = np.random.default_rng(2)
    ask = {"judges": None, "smoothing": 0.4, "trim": 0.05}
    draws = np.array(
        [
            zeroth_order_gradient(PROBLEM, LOGITS, rng, directions=4, pairs=8, **ask)
            for _ in range(3000)
        ]
    )
    error = draws.std(axis=0, ddof=1) / math.sqrt(len(draws))
    exact = mean_gradient(PROBLEM, LOGITS, **ask)
    assert (np.abs(draws.mean(axis=0) - exact) < 5.5 * error).all()


# ----------------------------------------------------------------------------- the exact noise


@pytest.mark.parametrize("case", BOTH)
@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("pairs", [1, 2])
def test_noise_by_enumeration_of_everything_that_can_happen(case, block, pairs):
    """All directions, contexts, arms and judges' answers, for both pairs where there are two."""
    problem, logits = BOTH[case]
    judges, smoothing, trim = 2, 0.4, 0.05
    size, square, mean = logits.size, 0.0, np.zeros(logits.size)
    chosen = list(itertools.combinations(range(size), block))
    for places in chosen:
        for signs in itertools.product((-1, 1), repeat=block):
            v = np.zeros(size)
            v[list(places)] = np.array(signs) / math.sqrt(block)
            chance = 1 / (len(chosen) * 2**block)
            answers = list(possible_answers(problem, logits, v, judges, smoothing, trim))
            for said in itertools.product(answers, repeat=pairs):
                likely = chance * math.prod(p for p, _ in said)
                slope = size / smoothing * sum(a for _, a in said) / pairs
                square += likely * slope**2  # v has length 1
                mean += likely * slope * v
    ask = {"judges": judges, "smoothing": smoothing, "trim": trim, "block": block}
    found = variance(problem, logits, directions=1, pairs=pairs, **ask)
    assert found == pytest.approx(square - mean @ mean, rel=1e-10)
    many = variance(problem, logits, directions=7, pairs=pairs, **ask)
    assert many == pytest.approx(found / 7, rel=1e-14)


def possible_answers(problem, logits, v, judges, smoothing, trim):
    """Probabilities and estimates along v of everything one pair can say."""
    logits = oracles.with_contexts(logits, problem, 1)
    there = oracles.log_softmax(logits + smoothing * v.reshape(logits.shape))
    here = oracles.log_softmax(logits)
    for x, rho, r, ref in oracles.contexts_of(problem):
        for y, z in itertools.product(range(len(r)), repeat=2):
            wins = expit(r[y] - r[z])
            for k in range(judges + 1):
                votes = math.comb(judges, k) * wins**k * (1 - wins) ** (judges - k)
                frequency = min(max(k / judges, trim), 1 - trim)
                estimate = math.log(frequency / (1 - frequency))
                estimate -= problem.beta * (
                    there[x, y] - np.log(ref[y]) - here[x, z] + np.log(ref[z])
                )
                yield rho * np.exp(there[x, y] + here[x, z]) * votes, estimate


@pytest.mark.parametrize("judges", [4, None])
def test_estimates_are_as_noisy_as_stated(judges):
    ask = {"judges": judges, "smoothing": 0.4, "trim": 0.05, "directions": 5, "pairs": 2}
    rng = np.random.default_rng(11)
    draws = np.array(
        [zeroth_order_gradient(CONTEXTS, CONTEXT_LOGITS, rng, **ask).ravel() for _ in range(1500)]
    )
    far = ((draws - mean_gradient_of(ask).ravel()) ** 2).sum(axis=1)
    exact = variance(CONTEXTS, CONTEXT_LOGITS, **ask)
    assert abs(far.mean() - exact) < 5.5 * far.std(ddof=1) / math.sqrt(1500)


def mean_gradient_of(ask):
    own = {k: v for k, v in ask.items() if k not in ("directions", "pairs")}
    return mean_gradient(CONTEXTS, CONTEXT_LOGITS, **own)


def test_of_a_number_of_pairs_each_does_best_with_a_direction_of_its_own():
    for case, judges, smoothing in itertools.product(BOTH, (1, 16, None), (0.1, 1.0)):
        problem, logits = BOTH[case]
        ask = {"judges": judges, "smoothing": smoothing, "trim": 0.02}
        noise = [
            variance(problem, logits, directions=24 // n, pairs=n, **ask) for n in (1, 2, 6, 24)
        ]
        assert (np.diff(noise) > 0).all()


def test_of_a_number_of_judgments_few_judges_leave_less_noise():
    """And a bias: that is the trade. Our bandit, from the reference, 256 judgments."""
    problem = bandit.presets.three_armed_bandit()
    ask = {"smoothing": 0.1, "trim": 0.01, "pairs": 1}
    noise, bias = [], []
    true = gradient(problem, problem.log_reference)
    for judges in (16, 64, 256):
        more = ask | {"judges": judges}
        noise.append(variance(problem, problem.log_reference, directions=256 // judges, **more))
        del more["pairs"]
        bias.append(np.linalg.norm(mean_gradient(problem, problem.log_reference, **more) - true))
    assert (np.diff(noise) > 0).all()
    assert (np.diff(bias) < 0).all()
    # With very few, answers jump from trim to trim: that is noise again.
    few = variance(
        problem, problem.log_reference, directions=256, judges=1, **(ask | {"trim": 1e-4})
    )
    assert few > 2 * noise[0]


def test_noise_of_the_pairs_vanishes_at_the_optimum_with_the_smoothing():
    """Elsewhere it grows as 1/μ², and at the optimum that of the judges alone does."""
    optimum = PROBLEM.log_optimal_policy()
    ask = {"directions": 1, "pairs": 1, "trim": 1e-3}

    def scaled(at, judges, smoothing):
        return variance(PROBLEM, at, judges=judges, smoothing=smoothing, **ask) * smoothing**2

    for smoothing in (1e-2, 1e-4, 1e-6):
        assert scaled(LOGITS, None, smoothing) == pytest.approx(
            scaled(LOGITS, None, 1e-8), rel=0.05
        )
        assert scaled(optimum, 4, smoothing) == pytest.approx(scaled(optimum, 4, 1e-8), rel=0.05)
        # All that is left of what a pair says is −β times how its first arm was moved.
        left = scaled(optimum, None, smoothing) / smoothing**2
        assert 0 < left == pytest.approx(scaled(optimum, None, 1e-3) / 1e-6, rel=0.02)
    # By hand: β² d² E_v[Var_π(v)], less nothing as the gradient vanishes; E v vᵀ = 1/d.
    policy = PROBLEM.optimal_policy()
    assert left == pytest.approx(0.25 * 3 * (1 - policy @ policy), rel=1e-4)


def test_the_noise_vanishes_at_the_optimum_but_for_the_judges():
    """R is the same for all arms there: what pairs and KL add cancels as smoothing → 0."""
    optimum, estimates = PROBLEM.log_optimal_policy(), {}
    for smoothing in (0.1, 0.01):
        ask = {"judges": None, "smoothing": smoothing, "trim": 1e-3}
        few = {"directions": 50, "pairs": 2, **ask}
        estimates[smoothing] = zeroth_order_gradient(PROBLEM, optimum, 3, **few)
    # A policy moved by μ gives every pair R within about βμ: the estimates stay within 2βd.
    for estimate in estimates.values():
        assert np.linalg.norm(estimate) <= 2 * PROBLEM.beta * 3


# ----------------------------------------------------------------- few judges: the inverted link


def test_inverted_link_of_few_judges_by_enumeration():
    for judges, p in itertools.product((1, 2, 5), (0.03, 0.4, 0.5, 0.99)):
        expected = 0.0
        for answers in itertools.product((0, 1), repeat=judges):
            chance = math.prod(p if a else 1 - p for a in answers)
            expected += chance * logit(min(max(sum(answers) / judges, 0.1), 0.9))
        assert link_inverse_mean(p, judges=judges, trim=0.1) == pytest.approx(expected, abs=1e-13)


def test_bias_of_the_inverted_link_to_first_order():
    p = np.array([0.2, 0.35, 0.6, 0.85])
    for judges in (400, 1600):
        bias = link_inverse_mean(p, judges=judges, trim=1e-4) - logit(p)
        np.testing.assert_allclose(bias, (2 * p - 1) / (2 * judges * p * (1 - p)), rtol=0.02)


def test_one_judge_or_two_are_heard_as_preferences():
    p = np.linspace(0, 1, 9)
    expected = (2 * p - 1) * math.log(0.93 / 0.07)
    for judges in (1, 2):
        np.testing.assert_allclose(
            link_inverse_mean(p, judges=judges, trim=0.07), expected, atol=1e-13
        )


def test_trimmed_answers_are_bounded_and_odd():
    p = np.linspace(0, 1, 101)
    for judges in (1, 7, 60, None):
        h = link_inverse_mean(p, judges=judges, trim=0.2)
        assert np.abs(h).max() <= math.log(4) + 1e-12
        np.testing.assert_allclose(h, -h[::-1], atol=1e-12)
    # Where the trim binds, no number of judges helps.
    assert link_inverse_mean(0.95, judges=10**6, trim=0.2) == pytest.approx(math.log(4))


def test_estimates_are_bounded_as_trimming_promises():
    """‖ĝ‖ ≤ (d/μ) max |answer − β(ℓ − ℓ')| over all pairs, for unit directions."""
    rng = np.random.default_rng(4)
    ask = {"directions": 1, "pairs": 1, "judges": 1, "smoothing": 0.3, "trim": 0.01}
    ratio = oracles.log_softmax(LOGITS) - PROBLEM.log_reference
    # Logits moved by μv move ln π by at most 2μ.
    reach = math.log(99) + PROBLEM.beta * (np.ptp(ratio) + 2 * 0.3)
    sizes = [np.linalg.norm(zeroth_order_gradient(PROBLEM, LOGITS, rng, **ask)) for _ in range(300)]
    assert max(sizes) <= 3 / 0.3 * reach
    assert max(sizes) > 0.6 * 3 / 0.3 * reach


def test_smoothing_bias_is_within_half_the_curvature():
    """‖∇J_μ − ∇J‖ ≤ L μ for gradients that are L-Lipschitz on the ball, as averages are."""
    rng = np.random.default_rng(5)
    for smoothing in (0.3, 1.0):
        ball = LOGITS + smoothing * rng.uniform(-1, 1, size=(15, 3))
        hessians = [
            oracles.central_differences(lambda at: gradient(PROBLEM, at), at, 1e-2) for at in ball
        ]
        curvature = max(np.linalg.norm(h, 2) for h in hessians)
        mean = mean_gradient(PROBLEM, LOGITS, judges=None, smoothing=smoothing, trim=1e-3)
        bias = np.linalg.norm(mean - gradient(PROBLEM, LOGITS))
        assert 0 < bias <= curvature * smoothing


# -------------------------------------------------------------------------------- where it ends


@pytest.mark.parametrize("shape", [(3,), (2, 4)])
@pytest.mark.parametrize("judges", [1, 5, None])
def test_limit_is_an_equilibrium_found_another_way(shape, judges):
    problem = make_case(np.random.default_rng(6), shape, beta=0.5).problem
    policy = limit_policy(problem, judges=judges, trim=0.02)
    margin = link_inverse_mean(
        bandit.preferences.bradley_terry(problem.reward), judges=judges, trim=0.02
    )
    # Mirror ascent against itself: π ← π^(1−s) (π_ref exp(Hπ/β))^s, with small s.
    log_policy = np.log(problem.reference)
    for _ in range(6000):
        answer = np.einsum("...yz,...z->...y", margin, np.exp(log_policy)) / problem.beta
        log_policy = oracles.log_softmax(
            0.98 * log_policy + 0.02 * (problem.log_reference + answer)
        )
    np.testing.assert_allclose(policy, np.exp(log_policy), atol=1e-9)
    at_rest = mean_gradient(problem, np.log(policy), judges=judges, smoothing=0, trim=0.02)
    assert np.abs(at_rest).max() < 1e-12 * problem.beta


def test_limit_is_optimal_with_enough_judges_and_no_trimming():
    np.testing.assert_allclose(
        limit_policy(PROBLEM, judges=None, trim=1e-3), PROBLEM.optimal_policy(), atol=1e-12
    )
    regrets = [
        float(PROBLEM.regret(limit_policy(PROBLEM, judges=m, trim=0.005)))
        for m in (2, 8, 32, 128, 512)
    ]
    assert (np.diff(regrets) < 0).all()
    # The bias goes with 1/M, hence the regret with its square.
    assert regrets[-2] / regrets[-1] == pytest.approx(16, rel=0.2)
    assert regrets[0] > 0.01


def test_one_judge_is_played_for_as_in_nash_learning():
    """H = (2P − 1) c, and constants don't matter: the equilibrium of P at τ = β/2c."""
    tau = PROBLEM.beta / (2 * math.log(0.95 / 0.05))
    preference = bandit.preferences.bradley_terry(PROBLEM.reward)
    expected = bandit.related.nash.equilibrium(preference, PROBLEM.reference, tau)
    found = limit_policy(PROBLEM, judges=1, trim=0.05)
    np.testing.assert_allclose(found, expected.policy, atol=1e-12)


def test_limit_survives_rewards_large_against_beta():
    problem = bandit.Bandit([3.0, 2.0, -4.0], beta=0.02, reference=[0.2, 0.3, 0.5])
    policy = limit_policy(problem, judges=2, trim=0.05)
    assert np.isfinite(policy).all()
    assert policy.argmax() == 0
    tiny = bandit.Bandit(problem.reward, 1e-6, problem.reference)
    np.testing.assert_allclose(limit_policy(tiny, judges=2, trim=0.05), [1, 0, 0], atol=1e-12)


def test_a_limit_that_float64_does_not_resolve_raises(monkeypatch):
    monkeypatch.setattr(_zeroth_order_mean, "follow", lambda *_: np.log([0.2, 0.3, 0.5]))
    with pytest.raises(RuntimeError, match=r"^limit_policy: expected a residual of at most 1e-12"):
        limit_policy(PROBLEM, judges=1, trim=0.05)


def test_training_arrives_where_the_mean_gradient_vanishes():
    """Without a reward model: at π* with many judges, elsewhere with one; ±5.5 standard errors."""
    arrived = {}
    for judges, trim in ((1, 0.01), (48, 0.01)):
        history = optimize(
            PROBLEM,
            directions=10,
            pairs=200,
            judges=judges,
            smoothing=0.3,
            trim=trim,
            steps=150,
            optimizer=bandit.SGD(0.6),
            runs=10,
            rng=7,
        )
        last = history.policy()[len(history.steps) // 2 :].mean(axis=0)
        arrived[judges] = last.mean(axis=0)
        error = last.std(axis=0, ddof=1) / math.sqrt(10)
        limit = limit_policy(PROBLEM, judges=judges, trim=trim)
        # Curvature and smoothing shift the mean a little: 0.02 for both.
        assert (np.abs(arrived[judges] - limit) < 5.5 * error + 0.02).all()
    regret = {judges: float(PROBLEM.regret(policy)) for judges, policy in arrived.items()}
    assert regret[48] < 0.01 < float(PROBLEM.regret(PROBLEM.reference)) / 4
    assert regret[1] > 5 * regret[48]


# ------------------------------------------------------------------------------- running it


def trained(**changed):
    ask = {**SMALL, "steps": 30, "optimizer": bandit.SGD(0.1), "runs": 3, "rng": 8}
    return optimize(PROBLEM, **(ask | {"record_every": 5} | changed))


def test_history_says_what_was_spent():
    history = trained()
    assert history.settings["judgments_per_step"] == 4 * 8 * 3
    assert trained(judges=None).settings["judgments_per_step"] is None
    assert history.steps.tolist() == [0, 5, 10, 15, 20, 25, 30]
    np.testing.assert_array_equal(history.logits[0], np.tile(PROBLEM.log_reference, (3, 1)))


def test_history_can_be_saved(tmp_path):
    history = trained()
    history.save(tmp_path / "run")
    back = bandit.History.load(tmp_path / "run")
    np.testing.assert_array_equal(back.logits, history.logits)
    assert dict(back.settings) == dict(history.settings)


def test_a_run_is_the_same_whatever_is_beside_it():
    whole = trained()
    assert np.array_equal(whole.logits, trained(rng=np.random.default_rng(8)).logits)
    assert np.array_equal(whole.logits[:, :1], trained(runs=1).logits)
    assert not np.array_equal(whole.logits, trained(rng=9).logits)
    assert not np.array_equal(whole.logits[-1, 0], whole.logits[-1, 1])


def test_contexts_and_blocks_train_too():
    ask = {**SMALL, "pairs": 64, "judges": 32}
    history = optimize(
        CONTEXTS, **ask, block=2, steps=150, optimizer=bandit.SGD(0.3), runs=4, rng=1
    )
    assert history.logits.shape[1:] == (4, 2, 2)
    assert np.median(history.regret()[-1]) < 0.2 * history.regret()[0, 0]


def test_the_seed_on_record_repeats_the_run():
    rng = np.random.default_rng(8)
    rng.spawn(2)  # whoever had it before
    history = trained(rng=rng)
    seed = eval(history.settings["seed"], {"SeedSequence": np.random.SeedSequence})
    assert np.array_equal(trained(rng=seed).logits, history.logits)


def test_an_interrupt_returns_what_was_recorded(monkeypatch):
    monkeypatch.setattr(descent, "CHUNK_STEPS", 10)

    def stop(step, steps):
        if step == 20:
            raise KeyboardInterrupt

    with pytest.warns(RuntimeWarning, match="interrupted; records until step 20 of 30") as caught:
        part = trained(progress=stop)
    assert caught[0].filename == __file__
    assert part.interrupted
    assert np.array_equal(part.logits, trained().logits[:5])


def test_a_progress_bar_is_shown_if_asked_for(monkeypatch):
    for progress, shown in ((True, True), (False, False), (None, False)):
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        trained(progress=progress)
        assert ("30/30" in stream.getvalue()) is shown


def test_divergence_is_told():
    with pytest.warns(RuntimeWarning, match="3 of 3 runs diverged"):
        history = trained(optimizer=bandit.SGD(1e308), smoothing=1e-3)
    assert np.isnan(history.regret()[-1]).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"judges": 0}, "judges: expected a positive integer, got 0"),
        ({"judges": 2.5}, "judges: expected a positive integer, got 2.5"),
        ({"trim": 0.5}, "trim: expected a number below 1/2, got 0.5"),
        ({"trim": 0}, "trim: expected a finite number above 0, got 0"),
        ({"smoothing": -1}, "smoothing: expected a finite number above 0, got -1"),
        ({"block": 4}, "block: expected a number of logits from 0 to 3, got 4"),
        ({"block": 0.5}, "block: expected a number of logits or False, got 0.5"),
        ({"directions": 0}, "directions: expected a positive integer, got 0"),
        ({"pairs": -2}, "pairs: expected a positive integer, got -2"),
    ],
)
def test_bad_questions_get_one_clear_line(changed, message):
    with pytest.raises((ValueError, TypeError), match=message):
        zeroth_order_gradient(PROBLEM, LOGITS, 0, **(SMALL | changed))
    with pytest.raises((ValueError, TypeError), match=message):
        trained(**changed)


def test_trims_too_small_for_the_other_side_of_one():
    """1 − 1e-20 is 1 in float64, whose logit is infinite; judges of one mind are read as ±46."""
    most = math.log(1e20)
    for judges in (1, 3, None):
        found = link_inverse_mean([0.0, 1.0], judges=judges, trim=1e-20)
        np.testing.assert_allclose(found, [-most, most], rtol=1e-14)
    ask = {"directions": 3, "pairs": 20, "judges": 1, "smoothing": 0.3, "trim": 1e-20}
    assert np.isfinite(zeroth_order_gradient(PROBLEM, LOGITS, 0, **ask)).all()
    assert np.isfinite(limit_policy(PROBLEM, judges=1, trim=1e-300)).all()


def test_what_is_asked_may_be_told_by_place():
    by_name = zeroth_order_gradient(PROBLEM, LOGITS, 5, **SMALL, block=2)
    by_place = zeroth_order_gradient(PROBLEM, LOGITS, 5, 4, 8, 3, 0.4, 0.05, 2)
    np.testing.assert_array_equal(by_name, by_place)


def test_bad_arguments_get_one_clear_line():
    for judges in (2**62, 10**7):
        with pytest.raises(
            ValueError, match=r"^judges: expected fewer than 1864135 to sum over for 9"
        ):
            mean_gradient(PROBLEM, LOGITS, **(ASK | {"judges": judges}))
    for call in (mean_gradient, lambda *a, **k: zeroth_order_gradient(*a, 0, 1, 1, **k)):
        with pytest.raises(ValueError, match=r"^smoothing: expected one whose inverse fits"):
            call(PROBLEM, LOGITS, **(ASK | {"smoothing": 1e-320}))
    for name in ("directions", "pairs", "nodes"):
        with pytest.raises(ValueError, match=rf"^{name}: expected a positive integer, got 0"):
            variance(PROBLEM, LOGITS, **(SMALL | {name: 0}))
    with pytest.raises(ValueError, match=r"^smoothing: expected a finite number above 0, got 0"):
        variance(PROBLEM, LOGITS, **(SMALL | {"smoothing": 0}))
    with pytest.raises(ValueError, match=r"logits: expected shape \(3,\), got \(2,\)"):
        zeroth_order_gradient(PROBLEM, [0.0, 1.0], 0, **SMALL)
    with pytest.raises(TypeError, match=r"problem: expected a bandit.Bandit, got list"):
        mean_gradient([1.0], LOGITS, **ASK)
    with pytest.raises(TypeError, match="rng: expected a seed"):
        zeroth_order_gradient(PROBLEM, LOGITS, None, **SMALL)
    nine = bandit.Bandit(np.arange(9.0), beta=1.0)
    with pytest.raises(ValueError, match="directions, got 9 logits, which take"):
        mean_gradient(nine, np.zeros(9), **ASK)
    with pytest.raises(ValueError, match=r"preference: expected probabilities in \[0, 1\]"):
        link_inverse_mean([0.2, 1.2], judges=3, trim=0.1)
    with pytest.raises(ValueError, match="trim: expected a number below 1/2"):
        link_inverse_mean(0.3, judges=3, trim=0.7)
    for changed, message in (
        ({"steps": 0}, "steps: expected"),
        ({"runs": 0}, "runs: expected"),
        ({"optimizer": bandit.SGD}, "optimizer: expected"),
        ({"progress": "yes"}, "progress: expected"),
        ({"start": [0.0]}, "start: expected shape"),
        ({"rng": -1}, "rng: expected a seed of at least 0"),
        ({"rng": True}, "rng: expected a seed"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            trained(**changed)


def test_neighbors_load_when_asked_for():
    code = (
        "import sys, bandit; assert 'bandit.related' not in sys.modules;"
        "bandit.related.zeroth_order; assert 'bandit.related.zeroth_order' in sys.modules;"
        "assert 'bandit.related.deterministic' not in sys.modules;"
        "assert not {'matplotlib', 'pandas', 'torch', 'tqdm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nobody'"):
        _ = bandit.related.nobody
    assert "zeroth_order" in dir(bandit.related)
    assert zeroth_order.__doc__


@pytest.mark.parametrize("name", ["active_sampling", "deterministic", "zeroth_order"])
def test_the_pages_examples_run(name, capsys):
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    exec(compile(code, f"{name}.md", "exec"), {})
    printed = capsys.readouterr().out
    for shown in re.findall(r"print\(.*\)  # (\d+)", code):
        assert printed == f"{shown}\n"
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page):
        assert (PAGES / target).is_file(), target
