"""Deterministic policies from stochastic gradients: closed forms, quadrature and Monte Carlo.

Statistical tests have fixed seeds; each statement would fail for a correct program with a
probability below 1e-6.
"""

from __future__ import annotations

import io
import math
import sys

import numpy as np
import oracles
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import norm

import bandit
from bandit import descent
from bandit.related.deterministic import (
    ActionProblem,
    GaussianActionPolicy,
    ParameterNoisePolicy,
    optimize,
    quadratic,
    skewed_peak,
)

RNG = np.random.default_rng(0)
FEATURES = np.column_stack([np.ones(5), RNG.normal(size=(5, 2))])
WEIGHTS = np.array([0.1, 0.3, 0.25, 0.15, 0.2])
TARGET = np.array([0.5, -1.0, 0.8])
THETA = TARGET + np.array([0.3, -0.2, 0.5])
SQUARE = ActionProblem(FEATURES, TARGET, quadratic, WEIGHTS)
PEAK = ActionProblem(FEATURES, TARGET, skewed_peak, WEIGHTS)
PROBLEMS = {"square": SQUARE, "peak": PEAK}
WAYS = {"action": GaussianActionPolicy, "parameter": ParameterNoisePolicy}
NORMS = np.linalg.norm(FEATURES, axis=1)


def errors(theta):
    return np.array([(theta - TARGET) @ phi for phi in FEATURES])


# ----------------------------------------------------------------------------- values, exactly


def test_value_and_gap_by_their_definition():
    expected = -sum(w * e**2 for w, e in zip(WEIGHTS, errors(THETA), strict=True))
    assert SQUARE.value(THETA) == pytest.approx(expected, rel=1e-13)
    assert SQUARE.gap(THETA) == pytest.approx(-expected, rel=1e-13)
    assert PEAK.value(TARGET) == pytest.approx(1)
    assert SQUARE.value(np.stack([THETA, TARGET])).shape == (2,)


def test_closed_forms_of_the_linear_quadratic_problem():
    for sigma in (0.1, 0.7, 2.0):
        loss = sigma**2
        by_action = GaussianActionPolicy(SQUARE, sigma).value(THETA)
        by_parameter = ParameterNoisePolicy(SQUARE, sigma).value(THETA)
        assert by_action == pytest.approx(SQUARE.value(THETA) - loss, rel=1e-12)
        expected = SQUARE.value(THETA) - loss * (WEIGHTS @ NORMS**2)
        assert by_parameter == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("way", WAYS)
def test_values_by_monte_carlo(kind, way):
    """2·10⁵ episodes as the policy would play them, ±5.5 standard errors."""
    problem, sigma, rng = PROBLEMS[kind], 0.6, np.random.default_rng(1)
    phi = FEATURES[rng.choice(5, size=200_000, p=WEIGHTS)]
    if way == "action":
        action = phi @ THETA + sigma * rng.normal(size=len(phi))
    else:
        action = ((THETA + sigma * rng.normal(size=phi.shape)) * phi).sum(axis=1)
    reward = problem.reward(action - phi @ TARGET)
    exact = WAYS[way](problem, sigma).value(THETA)
    assert abs(reward.mean() - exact) < 5.5 * reward.std() / math.sqrt(len(phi))
    assert abs(problem.value(THETA) - exact) > 20 * reward.std() / math.sqrt(len(phi))


@pytest.mark.parametrize("way", WAYS)
def test_the_skewed_peak_by_adaptive_quadrature(way):
    sigma = 0.8
    spread = {"action": np.full(5, sigma), "parameter": sigma * NORMS}[way]
    value, square = 0.0, 0.0
    for w, e, s, length in zip(WEIGHTS, errors(THETA), spread, NORMS, strict=True):
        value += w * quad(lambda z: skewed_peak(e + s * z) * norm.pdf(z), -12, 12, epsabs=1e-13)[0]
        for_phi = quad(
            lambda z: (skewed_peak(e + s * z) * z) ** 2 * norm.pdf(z), -12, 12, epsabs=1e-13
        )[0]
        others = quad(lambda z: skewed_peak(e + s * z) ** 2 * norm.pdf(z), -12, 12, epsabs=1e-13)[0]
        square += w * (
            for_phi * length**2 / sigma**2 if way == "action" else (for_phi + 2 * others) / sigma**2
        )
    exploring = WAYS[way](PEAK, sigma)
    assert exploring.value(THETA) == pytest.approx(value, rel=1e-10)
    slope = exploring.gradient(THETA)
    assert exploring.variance(THETA) == pytest.approx(square - slope @ slope, rel=1e-9)


@pytest.mark.parametrize("sigma", [2.0, 9.0, 3000.0])
@pytest.mark.parametrize("way", WAYS)
def test_exploration_much_wider_than_the_peak(way, sigma):
    """Integrated over the action, where the peak is as wide as ever and the noise is flat."""
    spread = {"action": np.full(5, sigma), "parameter": sigma * NORMS}[way]

    def mean(e, s, power):
        def integrand(a):
            z = (a - e) / s
            return skewed_peak(a) * z**power * norm.pdf(z) / s

        return sum(
            quad(integrand, low, low + 4, epsabs=1e-16, epsrel=1e-12)[0] for low in range(-4, 44, 4)
        )

    exploring, value, slope = WAYS[way](PEAK, sigma), 0.0, np.zeros(3)
    for w, e, s, phi in zip(WEIGHTS, errors(THETA), spread, FEATURES, strict=True):
        value += w * mean(e, s, 0)
        slope += w * mean(e, s, 1) * phi / s
    assert exploring.value(THETA) == pytest.approx(value, rel=1e-11)
    np.testing.assert_allclose(exploring.gradient(THETA), slope, rtol=1e-7)


@pytest.mark.parametrize("sigma", [1e-50, 1e-12, 1e-7, 1e-3])
@pytest.mark.parametrize("way", WAYS.values())
@pytest.mark.parametrize("problem", [SQUARE, PEAK])
def test_as_the_noise_vanishes_the_gradient_is_that_of_the_deployed_policy(problem, way, sigma):
    expected = oracles.central_differences(problem.value, THETA)
    tolerance = 1e-8 + 20 * sigma**2
    np.testing.assert_allclose(way(problem, sigma).gradient(THETA), expected, atol=tolerance)
    assert way(problem, sigma).value(THETA) == pytest.approx(
        float(problem.value(THETA)), abs=tolerance
    )
    # A square of the reward over σ², here to first order, is what is left of the variance.
    square = problem.reward(errors(THETA)) ** 2
    weight = NORMS**2 if way is GaussianActionPolicy else np.full(5, 3.0)
    assert way(problem, sigma).variance(THETA) * sigma**2 == pytest.approx(
        WEIGHTS @ (square * weight), rel=1e-4
    )


def test_far_from_the_target_variances_are_infinite_and_gradients_keep_their_digits():
    far = TARGET + np.array([1e5, 0.0, 0.0])
    for way in WAYS.values():
        expected = -2 * (WEIGHTS * ((far - TARGET) @ FEATURES.T)) @ FEATURES
        for sigma in (1e-9, 0.5):
            np.testing.assert_allclose(way(SQUARE, sigma).gradient(far), expected, rtol=1e-7)
        assert way(SQUARE, 0.5).variance(1e100 * far) == np.inf


@pytest.mark.parametrize("way", WAYS.values())
def test_optimum_is_where_the_exploring_policy_earns_most(way):
    """Against a search that uses values alone; for a quadratic it is the target, whatever σ."""
    for sigma in (0.05, 0.7, 2.0):
        exploring = way(PEAK, sigma)
        found = exploring.optimum()
        best = minimize(
            lambda t, e=exploring: -e.value(t),
            TARGET + 0.1,
            method="Nelder-Mead",
            options={"xatol": 1e-7, "fatol": 1e-14, "maxiter": 4000},
        )
        np.testing.assert_allclose(found, best.x, atol=2e-5 * max(1, sigma))
        np.testing.assert_allclose(way(SQUARE, sigma).optimum(THETA), TARGET, atol=1e-8)
    # The wider the noise, the more it costs when deployed.
    price = [float(PEAK.gap(way(PEAK, s).optimum())) for s in (0.05, 0.2, 0.7, 2.0, 20.0)]
    assert (np.diff(price) > 0).all()
    assert price[0] < 1e-5 < 0.05 < price[3]
    # Where two features are one there is no only optimum, but none is better.
    twice = ActionProblem([[1.0, 1.0]], [0.5, 0.2], skewed_peak)
    alone = ActionProblem([[1.0]], [0.7], skewed_peak)
    assert way(twice, 0.1).optimum().sum() == pytest.approx(
        GaussianActionPolicy(alone, 0.1 * (1 if way is GaussianActionPolicy else 2**0.5)).optimum()[
            0
        ],
        abs=1e-6,
    )


def test_an_optimum_that_is_not_there():
    rising = ActionProblem([[1.0]], [0.0], lambda e: np.asarray(e, dtype=float))
    with pytest.raises(RuntimeError, match=r"^optimum: no maximum found: the gradient is still"):
        GaussianActionPolicy(rising, 0.5).optimum()
    with pytest.raises(ValueError, match=r"^start: expected shape \(3,\), got \(1, 3\)"):
        GaussianActionPolicy(PEAK, 0.5).optimum([THETA])
    with pytest.raises(ValueError, match=r"^start: expected shape .* got \(2,\)"):
        GaussianActionPolicy(PEAK, 0.5).optimum([1.0, 2.0])


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("way", WAYS)
def test_gradients_are_those_of_the_values(kind, way):
    exploring = WAYS[way](PROBLEMS[kind], 0.5)
    expected = oracles.central_differences(exploring.value, THETA)
    np.testing.assert_allclose(exploring.gradient(THETA), expected, rtol=1e-7, atol=1e-9)


def test_noise_of_a_quadratic_reward_leaves_its_gradient_alone():
    expected = oracles.central_differences(SQUARE.value, THETA)
    for way in WAYS.values():
        np.testing.assert_allclose(way(SQUARE, 0.9).gradient(THETA), expected, rtol=1e-9)


def test_values_move_by_less_than_smoothness_allows():
    """|J_A − J_D| ≤ min(Lσ, L₂σ²/2), and with σ‖φ‖ for J_P: L, L₂ bound f' and f''."""
    grid = np.linspace(-4, 8, 200_001)
    slope = np.gradient(skewed_peak(grid), grid)
    first, second = np.abs(slope).max(), np.abs(np.gradient(slope, grid)).max()
    rng = np.random.default_rng(2)
    for sigma in (0.05, 0.3, 1.5):
        for theta in TARGET + rng.normal(size=(20, 3)):
            for way, size in (("action", np.ones(5)), ("parameter", NORMS)):
                moved = abs(WAYS[way](PEAK, sigma).value(theta) - PEAK.value(theta))
                assert moved <= WEIGHTS @ (first * sigma * size)
                assert moved <= WEIGHTS @ (second * (sigma * size) ** 2) / 2 * (1 + 1e-6)


# ------------------------------------------------------------------------- gradient variances


@pytest.mark.parametrize("sigma", [0.2, 1.0])
def test_variances_of_the_linear_quadratic_problem_in_closed_form(sigma):
    e, s, d = errors(THETA), sigma * NORMS, 3
    slope = oracles.central_differences(SQUARE.value, THETA)
    action = WEIGHTS @ (NORMS**2 * (e**4 / sigma**2 + 18 * e**2 + 15 * sigma**2))
    seen = e**4 + 18 * e**2 * s**2 + 15 * s**4
    unseen = e**4 + 6 * e**2 * s**2 + 3 * s**4
    parameter = WEIGHTS @ (seen + (d - 1) * unseen) / sigma**2
    for way, second in ((GaussianActionPolicy, action), (ParameterNoisePolicy, parameter)):
        assert way(SQUARE, sigma).variance(THETA) == pytest.approx(second - slope @ slope, rel=1e-9)


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sigma", [0.3, 1.2])
def test_samples_have_that_mean_and_variance(kind, way, sigma):
    exploring = WAYS[way](PROBLEMS[kind], sigma)
    draws = exploring.sample(THETA, 3, batch_size=100_000)
    assert draws.shape == (100_000, 3)
    error = draws.std(axis=0, ddof=1) / math.sqrt(len(draws))
    slope = exploring.gradient(THETA)
    assert (np.abs(draws.mean(axis=0) - slope) < 5.5 * error).all()
    # Enough to see a flipped sign.
    assert (np.abs(slope) > 9 * error).any()
    length = ((draws - slope) ** 2).sum(axis=1)
    off = length.std() / math.sqrt(len(draws))
    assert abs(length.mean() - exploring.variance(THETA)) < 5.5 * off


def test_dimension_matters_to_noise_in_the_parameters_only():
    """One context, ‖φ‖ = 1 and e = 1; σ = 1: by the formulas 34 and 34 + 10 (d − 1), less ‖∇‖²."""
    for size in (1, 2, 9, 50):
        features = np.full((1, size), size**-0.5)
        problem = ActionProblem(features, np.zeros(size))
        action, parameter = (way(problem, 1.0).variance(features[0]) for way in WAYS.values())
        assert action == pytest.approx(34 - 4, rel=1e-10)
        assert parameter == pytest.approx(34 + 10 * (size - 1) - 4, rel=1e-10)


def test_bounded_rewards_bound_the_variance():
    """With |f| ≤ 1: E‖φ‖²/σ² for noise in the action, d/σ² in the parameters."""
    rng = np.random.default_rng(4)
    for sigma in (0.1, 1.0):
        for theta in TARGET + rng.normal(size=(20, 3)):
            assert (
                GaussianActionPolicy(PEAK, sigma).variance(theta) <= WEIGHTS @ NORMS**2 / sigma**2
            )
            assert ParameterNoisePolicy(PEAK, sigma).variance(theta) <= 3 / sigma**2


# ------------------------------------------------------------------------------ what is deployed


def course_of(way, sigma, **changed):
    ask = {"batch_size": 10, "steps": 30, "optimizer": bandit.SGD(0.02), "runs": 3, "rng": 5}
    ask |= {"record_every": 5}
    return optimize(PEAK, way, sigma=sigma, **(ask | changed))


@pytest.mark.parametrize("way", WAYS.values())
def test_a_moderate_sigma_deploys_best_from_a_budget(way):
    """1500 draws, each σ at its best of four step sizes; differences over five standard errors."""
    found = {}
    for sigma in (0.05, 0.5, 3.0):
        gaps = [
            course_of(
                way,
                sigma,
                batch_size=25,
                steps=60,
                runs=60,
                optimizer=bandit.SGD(rate),
                start=TARGET + np.array([1.2, 0.8, -0.6]),
            ).gap()[-1]
            for rate in (0.01, 0.05, 0.25, 1.0)
        ]
        best = min(gaps, key=np.mean)
        found[sigma] = best.mean(), best.std(ddof=1) / math.sqrt(60)
    for sigma in (0.05, 3.0):
        error = math.hypot(found[sigma][1], found[0.5][1])
        assert found[sigma][0] - found[0.5][0] > 5 * error


def test_a_quadratic_reward_is_learned_without_bias():
    """Though it explores with σ = 0.7 and loses σ² while it does."""
    for way in WAYS.values():
        course = optimize(
            SQUARE,
            way,
            sigma=0.7,
            batch_size=100,
            steps=300,
            optimizer=bandit.Adam(0.02),
            runs=20,
            rng=6,
        )
        last = course.theta[len(course.steps) // 2 :].mean(axis=0)
        error = last.std(axis=0, ddof=1) / math.sqrt(20)
        # Student's t with 19 degrees of freedom: 9 standard errors are about 1e-8.
        assert (np.abs(last.mean(axis=0) - TARGET) < 9 * error + 0.005).all()
        assert np.median(course.gap()[-1]) < 0.02


# ------------------------------------------------------------------------------- running it


@pytest.mark.parametrize("way", WAYS.values())
def test_a_step_follows_the_sampled_gradients(way):
    """The mean over many runs of one step is the learning rate times the exact gradient."""
    course = course_of(way, 0.6, steps=1, runs=4000, optimizer=bandit.SGD(0.1), start=THETA)
    step = (course.theta[1] - course.theta[0]) / 0.1
    exploring = way(PEAK, 0.6)
    error = step.std(axis=0, ddof=1) / math.sqrt(4000)
    assert (np.abs(step.mean(axis=0) - exploring.gradient(THETA)) < 5.5 * error).all()
    assert step.var(axis=0, ddof=1).sum() == pytest.approx(exploring.variance(THETA) / 10, rel=0.15)


@pytest.mark.parametrize("way", WAYS.values())
def test_a_run_is_the_same_whatever_is_beside_it(way):
    whole = course_of(way, 0.5)
    assert np.array_equal(whole.theta[:, :1], course_of(way, 0.5, runs=1).theta)
    assert np.array_equal(whole.theta, course_of(way, 0.5, record_every=1).theta[::5])
    assert not np.array_equal(whole.theta, course_of(way, 0.5, rng=6).theta)
    assert whole.theta.shape == (7, 3, 3)
    assert whole.gap().shape == (7, 3)


def test_an_interrupt_returns_what_was_recorded(monkeypatch):
    monkeypatch.setattr(descent, "CHUNK_STEPS", 10)

    def stop(step, steps):
        if step == 20:
            raise KeyboardInterrupt

    with pytest.warns(RuntimeWarning, match="interrupted; records until step 20 of 30") as caught:
        part = course_of(GaussianActionPolicy, 0.5, progress=stop)
    assert caught[0].filename == __file__
    assert part.interrupted
    assert np.array_equal(part.theta, course_of(GaussianActionPolicy, 0.5).theta[:5])


def test_a_progress_bar_is_shown_if_asked_for(monkeypatch):
    for progress, shown in ((True, True), (None, False)):
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        course_of(ParameterNoisePolicy, 0.5, progress=progress)
        assert ("30/30" in stream.getvalue()) is shown


def test_divergence_is_told():
    with pytest.warns(RuntimeWarning, match="2 of 2 runs diverged"):
        course = optimize(
            SQUARE,
            ParameterNoisePolicy,
            sigma=1.0,
            batch_size=4,
            steps=300,
            optimizer=bandit.SGD(50.0),
            runs=2,
            rng=7,
        )
    assert np.isnan(course.gap()[-1]).all()
    assert np.isfinite(course.gap()[0]).all()


def test_contexts_without_features_teach_nothing():
    problem = ActionProblem([[0.0, 0.0], [1.0, 2.0]], [0.5, 1.0])
    for way in WAYS.values():
        exploring = way(problem, 0.5)
        expected = oracles.central_differences(exploring.value, np.ones(2))
        np.testing.assert_allclose(exploring.gradient(np.ones(2)), expected, atol=1e-8)


def test_bad_arguments_get_one_clear_line():
    for call, message in (
        (
            lambda: ActionProblem([1.0, 2.0], TARGET),
            r"features: expected shape \(X, d\), got \(2,\)",
        ),
        (lambda: ActionProblem(FEATURES, [1.0]), r"target: expected shape \(3,\), got \(1,\)"),
        (lambda: ActionProblem(FEATURES, TARGET, -1.0), "reward: expected a function, got float"),
        (
            lambda: ActionProblem(FEATURES, TARGET, quadratic, [0.5, 0.5]),
            r"context_weights: expected shape \(5,\), got \(2,\)",
        ),
        (lambda: ActionProblem(FEATURES, [1, 2, np.nan]), "target: expected finite numbers"),
        (
            lambda: ActionProblem(FEATURES, TARGET, lambda e: e[0]),
            r"reward: expected a function of arrays, .* got \(\) for an array",
        ),
        (lambda: GaussianActionPolicy(SQUARE, 0.0), "sigma: expected a finite number above 0"),
        (
            lambda: GaussianActionPolicy(SQUARE, 2e4).value(THETA),
            "sigma: expected actions to spread by at most 10000 for exact integrals, got 20000",
        ),
        (lambda: GaussianActionPolicy(SQUARE, 1e-51), r"sigma: expected from 1e-50 to 1e\+50, got"),
        (lambda: ParameterNoisePolicy(SQUARE, 1e51), r"sigma: expected from 1e-50 to 1e\+50, got"),
        (
            lambda: GaussianActionPolicy(None, 1.0),
            "problem: expected an ActionProblem, got NoneType",
        ),
        (lambda: SQUARE.value([1.0]), r"theta: expected shape \(..., d\) = \(3,\), got \(1,\)"),
        (
            lambda: GaussianActionPolicy(SQUARE, 1.0).sample([THETA], 0, batch_size=2),
            r"theta: expected shape \(3,\), got \(1, 3\)",
        ),
        (
            lambda: GaussianActionPolicy(SQUARE, 1.0).sample(THETA, 0, batch_size=0),
            "batch_size: expected a positive integer, got 0",
        ),
        (lambda: course_of("action", 0.5), "explore: expected the class GaussianActionPolicy"),
        (lambda: course_of(GaussianActionPolicy, -1), "sigma: expected a finite number above 0"),
        (lambda: course_of(GaussianActionPolicy, 1, runs=0), "runs: expected a positive integer"),
        (lambda: course_of(GaussianActionPolicy, 1, start=[0.0]), r"start: expected shape \(3,\)"),
        (lambda: course_of(GaussianActionPolicy, 1, rng="a"), "rng: expected a seed"),
        (lambda: course_of(GaussianActionPolicy, 1, optimizer=0.1), "optimizer: expected"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            call()
