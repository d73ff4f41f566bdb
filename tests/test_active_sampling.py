"""Active importance sampling: closed forms against enumeration and generic solvers, the loop
measured.

Statistical tests have fixed seeds; each statement would fail for a correct program with a
probability below 1e-6.
"""

from __future__ import annotations

import io
import math
import operator
import sys
from fractions import Fraction

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from strategies import make_case, seeds, simplex

import bandit
from bandit import analysis, descent, losses, presets
from bandit.related.active_sampling import (
    advantage,
    defensive,
    estimate_behavior,
    optimal_behavior,
    optimize,
    variance,
)

PROBLEM = bandit.Bandit([1.5, -0.4, 0.6, 0.1], beta=0.4, reference=[0.4, 0.3, 0.1, 0.2])
POLICY = np.array([0.15, 0.3, 0.35, 0.2])
BEHAVIOR = np.array([0.3, 0.05, 0.25, 0.4])


def enumerated(behavior, policy, gain):
    """Mean and trace of the covariance of (π/b) A (e_y − π), arm by arm."""
    mean, square = np.zeros(len(policy)), 0.0
    for y, b in enumerate(behavior):
        g = policy[y] / b * gain[y] * (np.eye(len(policy))[y] - policy)
        mean += b * g
        square += b * g @ g
    return mean, square - mean @ mean


def moment(behavior, policy, gain):
    """Second moment of the gradient."""
    mean = policy * gain - policy * (policy @ gain)
    return variance(behavior, policy, gain) + mean @ mean


def random_case(seed, arms):
    rng = np.random.default_rng(seed)
    return simplex(rng, (arms,)), rng.normal(size=arms), simplex(rng, (arms,))


# -------------------------------------------------------------------------------- exact formulas


def test_advantage_by_its_definition():
    gain = advantage(PROBLEM, POLICY)
    r = PROBLEM.reward - 0.4 * np.log(POLICY / PROBLEM.reference)
    np.testing.assert_allclose(gain, r - sum(POLICY * r), rtol=1e-13)
    # π A is the gradient of J.
    slope = oracles.central_differences(
        lambda at: PROBLEM.objective(np.exp(oracles.log_softmax(at))), np.log(POLICY)
    )
    np.testing.assert_allclose(POLICY * gain, slope, atol=1e-10)
    assert np.abs(advantage(PROBLEM, PROBLEM.optimal_policy())).max() < 1e-14


def test_variance_by_enumeration():
    gain = advantage(PROBLEM, POLICY)
    mean, spread = enumerated(BEHAVIOR, POLICY, gain)
    assert variance(BEHAVIOR, POLICY, gain) == pytest.approx(spread, rel=1e-12)
    np.testing.assert_allclose(mean, POLICY * gain, atol=1e-14)


def test_variance_is_that_of_the_importance_sampling_loss():
    case = make_case(np.random.default_rng(0), (3, 5))
    policy = np.exp(oracles.log_softmax(case.logits))
    gain = advantage(case.problem, policy)
    exact = variance(case.mu, policy, gain) @ case.problem.context_weights
    expected = analysis.gradient_variance(
        case.problem,
        losses.importance_sampling,
        case.logits,
        bandit.pairs.independent(case.mu),
        baseline="value",
        group_size=1,
    )
    assert exact == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.filterwarnings("ignore:Values in x were outside bounds")  # scipy below 1.14
@pytest.mark.parametrize("seed", range(3))
def test_optimal_behavior_is_what_a_constrained_minimizer_finds(seed):
    policy, gain, start = random_case(seed, 5)
    found = minimize(
        lambda b: enumerated(b, policy, gain)[1],
        start,
        method="SLSQP",
        bounds=[(1e-4, 1)] * 5,
        constraints={"type": "eq", "fun": lambda b: b.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    best = optimal_behavior(policy, gain)
    np.testing.assert_allclose(best, found.x, atol=2e-4)
    assert variance(best, policy, gain) == pytest.approx(found.fun, rel=1e-6)
    assert variance(best, policy, gain) <= found.fun + 1e-12


@given(seeds, st.integers(2, 8))
def test_no_behavior_does_better(seed, arms):
    policy, gain, other = random_case(seed, arms)
    best = optimal_behavior(policy, gain)
    least = variance(best, policy, gain)
    slack = 1e-9 * moment(policy, policy, gain)
    assert least <= variance(policy, policy, gain) + slack
    assert least <= variance(other, policy, gain) + slack
    # By Cauchy–Schwarz, from the lengths of the arms' gradients.
    length = [
        np.linalg.norm(p * a * (e - policy))
        for p, a, e in zip(policy, gain, np.eye(arms), strict=True)
    ]
    assert moment(best, policy, gain) == pytest.approx(sum(length) ** 2, rel=1e-9)


@given(seeds, st.integers(2, 8), st.floats(0.01, 1.0))
def test_the_defensive_mixture_bounds_weights_and_moments(seed, arms, share):
    policy, gain, other = random_case(seed, arms)
    mixed = defensive(other, policy, share)
    assert mixed.sum() == pytest.approx(1)
    assert (policy / mixed <= (1 + 1e-12) / share).all()
    second = moment(mixed, policy, gain)
    assert second <= moment(policy, policy, gain) / share * (1 + 1e-9)
    if share < 0.999:
        assert second <= moment(other, policy, gain) / (1 - share) * (1 + 1e-9)


def test_the_bound_of_the_weights_is_reached():
    """By an arm that the behavior never draws."""
    mixed = defensive([0.0, 0.5, 0.5], [0.2, 0.3, 0.5], 0.25)
    assert 0.2 / mixed[0] == pytest.approx(4)


def test_order_of_variances_of_our_bandit():
    problem, bad = presets.three_armed_bandit(), presets.three_armed_behavior()
    policy = problem.reference
    gain = advantage(problem, policy)
    best = optimal_behavior(policy, gain)
    spread = [float(variance(b, policy, gain)) for b in (best, policy, bad)]
    assert spread == sorted(spread)
    # By hand: A = (2/3, 1/6, −5/6) and ‖e − π‖² = 2/3.
    np.testing.assert_allclose(best, [0.4, 0.1, 0.5], rtol=1e-12)
    mean = np.array([2 / 9, 1 / 18, -5 / 18])
    np.testing.assert_allclose(spread[0], 2 / 3 * (5 / 9) ** 2 - mean @ mean, rtol=1e-12)
    np.testing.assert_allclose(spread[1], 2 / 3 * (4 + 0.25 + 6.25) / 27 - mean @ mean, rtol=1e-12)
    # Near the optimum the same bad behavior beats on-policy sampling.
    late = 0.1 * policy + 0.9 * problem.optimal_policy()
    gain = advantage(problem, late)
    assert variance(bad, late, gain) < 0.6 * variance(late, late, gain)


def test_arms_without_advantage_need_not_be_drawn():
    policy, gain = np.array([0.3, 0.3, 0.4]), np.array([1.0, 0.0, -0.5])
    best = optimal_behavior(policy, gain)
    assert best[1] == 0
    assert np.isfinite(variance(best, policy, gain))
    assert variance([0.0, 0.5, 0.5], policy, gain) == np.inf
    np.testing.assert_array_equal(optimal_behavior(policy, np.zeros(3)), policy)
    assert variance([0.0, 0.5, 0.5], policy, np.zeros(3)) == 0


@pytest.mark.parametrize("exponent", [-1050, -600, 500, 1020])
def test_units_of_reward_do_not_matter_however_large(exponent):
    """Powers of two leave every digit of a share, and of a variance as far as float64 goes."""
    gain, counts = np.array([0.9, -0.3, 0.4, -0.7]), np.array([3.0, 0, 2.0, 1.0])
    huge = np.ldexp(gain, exponent)
    best = optimal_behavior(POLICY, gain)
    spread = float(variance(BEHAVIOR, POLICY, gain))
    # Below 2^-1022 numbers have fewer digits.
    near = 1e-6 if exponent < -1000 else 1e-15
    np.testing.assert_allclose(optimal_behavior(POLICY, huge), best, rtol=near)
    np.testing.assert_allclose(
        estimate_behavior(counts, BEHAVIOR, POLICY, huge),
        estimate_behavior(counts, BEHAVIOR, POLICY, gain),
        rtol=near,
    )
    with np.errstate(over="ignore"):
        expected = np.ldexp(spread, 2 * exponent)  # infinite, or 0, where float64 has no more
    assert variance(BEHAVIOR, POLICY, huge) == pytest.approx(expected, rel=1e-14)
    rows = variance(BEHAVIOR, POLICY, np.stack([huge, gain]))
    assert rows[1] == spread


@pytest.mark.parametrize("rare", [1e-3, 1e-9, 1e-30, 1e-150])
def test_policies_that_are_nearly_sure(rare):
    """Against fractions, which do not round: ‖e_y − π‖ of the sure arm is as small as the rest."""
    policy = [1 - 5 * Fraction(rare), 2 * Fraction(rare), 3 * Fraction(rare)]
    gain = [Fraction(1), Fraction(-2), Fraction(1, 2)]
    squares = []
    for y in range(3):
        away = sum(((y == k) - policy[k]) ** 2 for k in range(3))
        squares.append((policy[y] * gain[y]) ** 2 * away)
    scale = max(squares)
    length = [math.sqrt(s / scale) for s in squares]
    given_ = [float(p) for p in policy]
    best = optimal_behavior(given_, [float(a) for a in gain])
    np.testing.assert_allclose(best, np.array(length) / sum(length), rtol=1e-14)
    slope = [policy[y] * (gain[y] - sum(map(operator.mul, policy, gain))) for y in range(3)]
    behavior = [Fraction(1, 4), Fraction(1, 4), Fraction(1, 2)]
    exact = sum(map(operator.truediv, squares, behavior)) - sum(s**2 for s in slope)
    found = variance([0.25, 0.25, 0.5], given_, [float(a) for a in gain])
    assert found == pytest.approx(float(exact), rel=1e-12, abs=0)


def test_rare_arms_seen_often_do_not_overflow_the_estimate():
    counts, drawn_from = np.array([1e308, 1e308, 1.0]), np.array([1e-310, 0.5, 0.5])
    fitted = estimate_behavior(counts, drawn_from, [0.2, 0.3, 0.5], [1.0, 1.0, 1.0])
    np.testing.assert_array_equal(fitted, [1.0, 0.0, 0.0])
    # What was not drawn is not looked at, however large.
    drawn = [4, 2, 0], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]
    unseen = estimate_behavior(*drawn, [1e-200, -2e-200, 1e200])
    plain = estimate_behavior(*drawn, [1.0, -2.0, 0.0])
    np.testing.assert_allclose(unseen, plain, rtol=1e-14)


def test_formulas_take_many_policies_at_once():
    rng = np.random.default_rng(1)
    policy, gain, behavior = (
        simplex(rng, (2, 3, 4)),
        rng.normal(size=(2, 3, 4)),
        simplex(rng, (2, 3, 4)),
    )
    best, spread = optimal_behavior(policy, gain), variance(behavior, policy, gain)
    for at in np.ndindex(2, 3):
        np.testing.assert_allclose(best[at], optimal_behavior(policy[at], gain[at]), rtol=1e-13)
        np.testing.assert_allclose(spread[at], enumerated(behavior[at], policy[at], gain[at])[1])


# ---------------------------------------------------------------------------- the estimated one


def test_estimate_is_the_cross_entropy_fit():
    counts, gain = np.array([7.0, 2.0, 4.0, 1.0]), advantage(PROBLEM, POLICY)
    fitted = estimate_behavior(counts, BEHAVIOR, POLICY, gain)
    length = np.linalg.norm(np.eye(4) - POLICY, axis=1)
    weight = counts * POLICY / BEHAVIOR * np.abs(gain) * length
    found = minimize(
        lambda z: -weight @ oracles.log_softmax(z) / weight.sum(), np.zeros(4), tol=1e-12
    )
    np.testing.assert_allclose(fitted, np.exp(oracles.log_softmax(found.x)), atol=1e-6)
    exact = estimate_behavior(1e6 * BEHAVIOR, BEHAVIOR, POLICY, gain)
    np.testing.assert_allclose(exact, optimal_behavior(POLICY, gain), rtol=1e-12)
    unseen = estimate_behavior([0, 5, 2, 0], BEHAVIOR, POLICY, gain)
    assert unseen[0] == unseen[3] == 0
    np.testing.assert_array_equal(estimate_behavior(np.zeros(4), BEHAVIOR, POLICY, gain), POLICY)


def test_the_loop_beats_on_policy_sampling_in_variance_per_sample():
    """Exact variances at the loop's own policies and behaviors, from the second batch on."""
    problem = presets.three_armed_bandit()
    history, behavior = optimize(
        problem, batch_size=32, steps=60, optimizer=bandit.SGD(0.2), runs=40, rng=2
    )
    policy, behavior = history.policy()[1:-1], behavior[1:]
    gain = advantage(problem, policy)
    ratio = variance(behavior, policy, gain) / variance(policy, policy, gain)
    per_run = ratio.mean(axis=0)
    assert per_run.mean() + 6 * per_run.std(ddof=1) / math.sqrt(40) < 0.35
    # Never above what the defensive mixture allows.
    highest = moment_ratio(behavior, policy, gain)
    assert highest.max() <= 1 / 0.2 + 1e-9
    assert (policy / behavior <= 5 + 1e-9).all()


def moment_ratio(behavior, policy, gain):
    square = (policy * gain) ** 2 * ((np.eye(policy.shape[-1]) - policy[..., None, :]) ** 2).sum(
        axis=-1
    )
    return (square / behavior).sum(axis=-1) / (square / policy).sum(axis=-1)


def test_a_batch_that_misses_arms_does_worse_than_the_policy():
    rng = np.random.default_rng(3)
    problem = bandit.Bandit(rng.normal(size=20), 0.5, reference=rng.dirichlet(np.full(20, 3.0)))
    mean = {}
    for batch_size in (8, 256):
        history, behavior = optimize(
            problem, batch_size=batch_size, steps=20, optimizer=bandit.SGD(0.1), runs=20, rng=4
        )
        policy, behavior = history.policy()[1:-1], behavior[1:]
        gain = advantage(problem, policy)
        ratio = variance(behavior, policy, gain) / variance(policy, policy, gain)
        mean[batch_size] = ratio.mean(axis=0)
    assert mean[8].min() > 1.5
    assert mean[256].max() < 0.8


def test_a_step_with_a_fitted_behavior_is_unbiased_and_as_noisy_as_stated():
    """The second step of 8000 runs whose first one stood still: b̂ differs from run to run."""
    runs, batch = 8000, 12
    history, behavior = optimize(
        PROBLEM,
        batch_size=batch,
        steps=2,
        optimizer=bandit.SGD(1e-9),
        runs=runs,
        rng=5,
        start=np.log(POLICY),
        record_every=1,
    )
    gain = advantage(PROBLEM, POLICY)
    assert behavior[1].std(axis=0).min() > 0.01
    step = (history.logits[2] - history.logits[1]) / 1e-9
    error = step.std(axis=0, ddof=1) / math.sqrt(runs)
    assert (np.abs(step.mean(axis=0) - POLICY * gain) < 5.5 * error + 1e-6).all()
    assert (np.abs(POLICY * gain) > 9 * error).any()
    expected = variance(behavior[1], POLICY, gain).mean() / batch
    assert step.var(axis=0, ddof=1).sum() == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize("sampling", ["active", "oracle", "policy"])
@pytest.mark.parametrize("baseline", ["value", "none"])
def test_a_step_has_the_mean_and_the_variance_of_the_formulas(sampling, baseline):
    """Measured over 8000 runs of one step: unbiased whoever draws, and as noisy as stated.

    The first step of the loop is on-policy.
    """
    problem, runs, batch = PROBLEM, 8000, 12
    history, behavior = optimize(
        problem,
        batch_size=batch,
        steps=1,
        optimizer=bandit.SGD(1.0),
        sampling=sampling,
        baseline=baseline,
        runs=runs,
        rng=5,
        start=np.log(POLICY),
    )
    start, gain = POLICY, advantage(problem, POLICY)
    shown = gain + (baseline == "none") * (
        start @ (problem.reward - problem.beta * np.log(start / problem.reference))
    )
    own = optimal_behavior(start, shown)
    own = {"oracle": defensive(own, start, 0.2)}.get(sampling, start)
    np.testing.assert_allclose(behavior[0, 0], own, rtol=1e-10)
    step = history.logits[1] - history.logits[0]
    spread = float(variance(own, start, shown)) / batch
    error = step.std(axis=0, ddof=1) / math.sqrt(runs)
    assert (np.abs(step.mean(axis=0) - start * gain) < 5.5 * error).all()
    # The trace's relative error is some 2/√runs; 12 % are more than five of them.
    assert step.var(axis=0, ddof=1).sum() == pytest.approx(spread, rel=0.12)


def test_training_arrives_at_the_optimum_with_contexts_too():
    case = make_case(np.random.default_rng(6), (3, 4), beta=0.6, spread=3.0)
    for sampling in ("active", "oracle", "policy"):
        history, behavior = optimize(
            case.problem,
            batch_size=256,
            steps=300,
            optimizer=bandit.Adam(0.05),
            sampling=sampling,
            runs=4,
            rng=7,
        )
        assert behavior.shape == (len(history.steps) - 1, 4, 3, 4)
        assert (history.regret()[-1] < 0.02 * history.regret()[0]).all()


def test_without_a_baseline_the_floor_is_lower():
    """Mean regret of the last third of 100 runs; the difference is over six standard errors."""
    tail = {}
    for sampling in ("oracle", "policy"):
        history, _ = optimize(
            presets.three_armed_bandit(),
            batch_size=64,
            steps=150,
            optimizer=bandit.SGD(1.0),
            sampling=sampling,
            baseline="none",
            runs=200,
            rng=8,
        )
        tail[sampling] = history.regret()[75:].mean(axis=0)
    gap = tail["policy"].mean() - tail["oracle"].mean()
    error = math.hypot(*(t.std(ddof=1) / math.sqrt(200) for t in tail.values()))
    assert gap > 6 * error


# ------------------------------------------------------------------------------- running it


def trained(**changed):
    ask = {"batch_size": 6, "steps": 30, "optimizer": bandit.SGD(0.1), "runs": 3, "rng": 8}
    return optimize(PROBLEM, **(ask | {"record_every": 5} | changed))


def test_a_run_is_the_same_whatever_is_beside_it():
    whole, alone = trained(), trained(runs=1)
    assert np.array_equal(whole.history.logits[:, :1], alone.history.logits)
    assert np.array_equal(whole.behavior[:, :1], alone.behavior)
    assert not np.array_equal(whole.history.logits, trained(rng=9).history.logits)
    dense = trained(record_every=1)
    assert np.array_equal(whole.history.logits, dense.history.logits[::5])
    assert np.array_equal(whole.behavior, dense.behavior[::5])


def test_the_seed_on_record_repeats_the_run():
    rng = np.random.default_rng(8)
    rng.spawn(2)  # whoever had it before
    history = trained(rng=rng).history
    seed = eval(history.settings["seed"], {"SeedSequence": np.random.SeedSequence})
    assert np.array_equal(trained(rng=seed).history.logits, history.logits)


def test_an_interrupt_returns_what_was_recorded(monkeypatch):
    monkeypatch.setattr(descent, "CHUNK_STEPS", 12)

    def stop(step, steps):
        if step == 24:
            raise KeyboardInterrupt

    with pytest.warns(RuntimeWarning, match="interrupted; records until step 20 of 30") as caught:
        part = trained(progress=stop)
    assert caught[0].filename == __file__
    whole = trained()
    assert part.history.interrupted
    assert part.history.steps.tolist() == [0, 5, 10, 15, 20]
    assert np.array_equal(part.history.logits, whole.history.logits[:5])
    assert np.array_equal(part.behavior, whole.behavior[:4])


def test_a_progress_bar_is_shown_if_asked_for(monkeypatch):
    for progress, shown in ((True, True), (None, False)):
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        trained(progress=progress)
        assert ("30/30" in stream.getvalue()) is shown


def test_divergence_is_told():
    with pytest.warns(RuntimeWarning, match="3 of 3 runs diverged"):
        history = optimize(
            bandit.Bandit([1e4, -1e4, 0.0], beta=1.0),
            batch_size=6,
            steps=5,
            optimizer=bandit.SGD(1e308),
            runs=3,
            rng=1,
        ).history
    assert np.isnan(history.regret()[-1]).all()


def test_bad_arguments_get_one_clear_line():
    for changed, message in (
        ({"batch_size": 0}, "batch_size: expected a positive integer, got 0"),
        ({"runs": 1.5}, "runs: expected a positive integer, got 1.5"),
        ({"steps": -1}, "steps: expected a positive integer, got -1"),
        ({"share": 0.0}, "share: expected a finite number above 0, got 0"),
        ({"share": 1.5}, r"share: expected a number in \(0, 1\], got 1.5"),
        ({"sampling": "best"}, "sampling: expected one of active, oracle, policy; got 'best'"),
        ({"baseline": None}, "baseline: expected one of value, none; got None"),
        ({"optimizer": bandit.SGD}, "optimizer: expected"),
        ({"start": [0.0, 1.0]}, r"start: expected shape \(4,\)"),
        ({"rng": None}, "rng: expected a seed"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            trained(**changed)
    for call, message in (
        (lambda: advantage([1.0], POLICY), "problem: expected a bandit.Bandit, got list"),
        (lambda: advantage(PROBLEM, [0, 0.5, 0.5, 0]), "policy: expected probabilities above 0"),
        (lambda: advantage(PROBLEM, [0.5, 0.5]), r"policy: expected shape \(..., K\) = \(4,\)"),
        (lambda: optimal_behavior(POLICY, [1.0]), r"advantage: expected shape .* got \(1,\)"),
        (lambda: optimal_behavior([0.3, 0.3], [1, 1]), "policy: expected probabilities that sum"),
        (lambda: variance([1.0], POLICY, POLICY), r"behavior: expected shape .* got \(1,\)"),
        (lambda: variance(POLICY, POLICY, [1, np.nan, 0, 0]), "advantage: expected finite"),
        (lambda: defensive(POLICY, POLICY, 2), r"share: expected a number in \(0, 1\], got 2"),
        (
            lambda: estimate_behavior([1, -1, 0, 0], POLICY, POLICY, POLICY),
            "counts: expected numbers of at least 0, got -1",
        ),
        (
            lambda: estimate_behavior([1, 1, 0, 0], [0, 0.5, 0.5, 0], POLICY, POLICY),
            "drawn_from: expected above 0 for every arm that was drawn",
        ),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            call()
