"""Velocity and path of a method without sampling noise, against oracles computed another way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm

import bandit
from bandit import flow, losses

PROBLEM = bandit.Bandit([2.5, 2.0, 1.0], beta=0.5, reference=[0.2, 0.5, 0.3])
PAIRS = bandit.pairs.independent([0.1, 0.2, 0.7])


def test_simplex_grid_is_inside_and_centered():
    grid = flow.simplex_grid(9)
    assert grid.shape == (45, 3)
    assert grid.min() > 0
    np.testing.assert_allclose(grid.sum(axis=-1), 1)
    np.testing.assert_allclose(grid.mean(axis=0), 1 / 3)


def test_velocity_is_the_derivative_of_one_small_step():
    policy, step = np.array([0.2, 0.5, 0.3]), 1e-6
    _, gradient = bandit.analysis.population(PROBLEM, losses.copg, np.log(policy), PAIRS)
    moved = [np.exp(np.log(policy) - s * gradient) for s in (step, -step)]
    moved = [p / p.sum() for p in moved]
    numeric = (moved[0] - moved[1]) / (2 * step)
    exact = flow.policy_velocity(PROBLEM, losses.copg, policy, PAIRS)
    np.testing.assert_allclose(exact, numeric, rtol=1e-8)


def test_flow_of_a_quadratic_loss_is_a_matrix_exponential():
    # CoPG's expected value is Var_μ(R)/β: linear dynamics of the logits, 2β Cov_μ.
    mu, start, times = PAIRS.first, np.array([0.6, 0.1, 0.3]), [0.0, 0.7, 4.0, 30.0]
    matrix = 2 * PROBLEM.beta * (np.diag(mu) - np.outer(mu, mu))
    goal = PROBLEM.reward / PROBLEM.beta + PROBLEM.log_reference
    theta = [goal + expm(-matrix * t) @ (np.log(start) - goal) for t in times]
    expected = np.exp(theta) / np.exp(theta).sum(axis=-1, keepdims=True)
    path = flow.gradient_flow(PROBLEM, losses.copg, start, PAIRS, times)
    np.testing.assert_allclose(path, expected, rtol=1e-8)


def test_flow_with_contexts():
    problem = bandit.Bandit([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]], 1.0, context_weights=[0.3, 0.7])
    start = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    path = flow.gradient_flow(problem, losses.copg, start, PAIRS, [0, 300.0])
    assert path.shape == (2, 2, 3)
    np.testing.assert_allclose(path[0], start, rtol=1e-12)
    np.testing.assert_allclose(path[-1], problem.optimal_policy(), rtol=1e-3)
    velocity = flow.policy_velocity(problem, losses.copg, start, PAIRS)
    np.testing.assert_allclose(velocity.sum(axis=-1), 0, atol=1e-15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flow.simplex_grid(0), "resolution: expected a positive integer"),
        (
            lambda: flow.policy_velocity(PROBLEM, losses.copg, [1.0, 0.0, 0.0], PAIRS),
            "policy: expected probabilities above 0",
        ),
        (
            lambda: flow.gradient_flow(PROBLEM, losses.copg, [0.2, 0.5, 0.3], PAIRS, [1.0, 2.0]),
            "times: expected at least two numbers ascending from 0",
        ),
    ],
)
def test_wrong_input_gives_one_line(call, message):
    with pytest.raises((ValueError, TypeError), match=f"^{message}") as error:
        call()
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------- descent


def test_descent_on_a_quadratic_loss_is_a_matrix_power():
    mu, start, rate = PAIRS.first, np.array([[0.6, 0.1, 0.3], [0.1, 0.8, 0.1]]), 0.7
    step = np.eye(3) - rate * 2 * PROBLEM.beta * (np.diag(mu) - np.outer(mu, mu))
    goal = PROBLEM.reward / PROBLEM.beta + PROBLEM.log_reference
    path = flow.gradient_descent(PROBLEM, losses.copg, start, PAIRS, learning_rate=rate, steps=12)
    assert path.shape == (13, 2, 3)
    for t in (0, 1, 5, 12):
        theta = goal + (np.log(start) - goal) @ np.linalg.matrix_power(step, t).T
        expected = np.exp(theta) / np.exp(theta).sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(path[t], expected, rtol=1e-11)


def test_descent_takes_the_steps_of_the_population_gradient():
    problem = bandit.Bandit(
        [[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]], 0.7, [0.2, 0.5, 0.3], context_weights=[0.3, 0.7]
    )
    start = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    for loss, data in (
        (losses.policy_gradient, {"baseline": "behavior", "group_size": 1}),
        (losses.grpo, {"group_size": 3}),
        (losses.dpo, {"preference": bandit.preferences.deterministic(problem.reward)}),
    ):
        path = flow.gradient_descent(
            problem, loss, start, PAIRS, learning_rate=0.4, steps=3, **data
        )
        theta = np.log(start)
        for place in path[1:]:
            theta = theta - 0.4 * bandit.analysis.population(problem, loss, theta, PAIRS, **data)[1]
            expected = np.exp(theta) / np.exp(theta).sum(axis=-1, keepdims=True)
            np.testing.assert_allclose(place, expected, rtol=1e-11)


def test_descent_with_small_steps_is_the_flow():
    start = [0.6, 0.1, 0.3]
    at_two = flow.gradient_flow(PROBLEM, losses.policy_gradient, start, PAIRS, [0, 2.0])[-1]
    error = [
        np.abs(
            flow.gradient_descent(
                PROBLEM, losses.policy_gradient, start, PAIRS, learning_rate=2 / n, steps=n
            )[-1]
            - at_two
        ).max()
        for n in (200, 400)
    ]
    assert error[0] < 2e-3
    assert error[0] / error[1] == pytest.approx(2, rel=0.05)


def test_a_descent_that_leaves_float64_is_nan_and_leaves_others_alone():
    # Without a baseline and with rewards below zero, huge steps run away from the arms seen.
    loss, pairs = losses.copg, bandit.pairs.independent([0.3, 0.3, 0.4])
    problem = bandit.Bandit([2.5, 2.0, 1.0], beta=0.5)
    start = np.stack([problem.optimal_policy(), [0.6, 0.1, 0.3]])
    path = flow.gradient_descent(problem, loss, start, pairs, learning_rate=1e3, steps=200)
    assert np.isnan(path[-1, 1]).all()
    assert np.isfinite(path[:5]).all()
