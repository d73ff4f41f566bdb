"""Preference matrices against scalar formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from bandit import preferences


@given(seed=seeds, scale=st.floats(0.1, 5))
def test_bradley_terry(seed, scale):
    reward = np.random.default_rng(seed).normal(scale=2, size=(3, 4))
    matrix = preferences.bradley_terry(reward, scale)
    assert matrix.shape == (3, 4, 4)
    for x in range(3):
        for i in range(4):
            for j in range(4):
                gap = scale * (reward[x, i] - reward[x, j])
                assert matrix[x, i, j] == pytest.approx(1 / (1 + math.exp(-gap)), rel=1e-13)


def test_bradley_terry_default_scale_and_extremes():
    np.testing.assert_array_equal(
        preferences.bradley_terry([1.0, 0.2]), preferences.bradley_terry([1.0, 0.2], scale=1.0)
    )
    matrix = preferences.bradley_terry([1e8, -1e8, 0.0])
    np.testing.assert_array_equal(matrix, [[0.5, 1, 1], [0, 0.5, 0], [0, 1, 0.5]])
    tiny = preferences.bradley_terry([0.0, 600.0])[0, 1]
    assert tiny == pytest.approx(math.exp(-600), rel=1e-12)


def test_deterministic():
    np.testing.assert_array_equal(
        preferences.deterministic([2.0, 1.0, 2.0]), [[0.5, 1, 0.5], [0, 0.5, 0], [0.5, 1, 0.5]]
    )
    both = preferences.deterministic([[2.0, 1.0], [1.0, 1.0 + 1e-15]])
    np.testing.assert_array_equal(both[1], [[0.5, 0.0], [1.0, 0.5]])


def test_from_counts():
    wins = np.array([[3.0, 6, 0], [2, 0, 0], [0, 5, 0]])
    np.testing.assert_allclose(
        preferences.from_counts(wins), [[0.5, 0.75, 0.5], [0.25, 0.5, 0], [0.5, 1, 0.5]], rtol=1e-15
    )
    np.testing.assert_array_equal(
        preferences.from_counts(np.zeros((2, 3, 3))), np.full((2, 3, 3), 0.5)
    )
    tall = preferences.from_counts(np.stack([wins, wins.T]))
    np.testing.assert_allclose(tall[1], preferences.from_counts(wins).T, rtol=1e-15)


@given(seed=seeds)
def test_every_matrix_is_complementary_and_passes_the_check(seed):
    rng = np.random.default_rng(seed)
    reward = rng.normal(size=(2, 5))
    for matrix in (
        preferences.bradley_terry(reward, 3.0),
        preferences.deterministic(np.round(reward)),
        preferences.from_counts(rng.integers(0, 3, size=(2, 5, 5))),
    ):
        np.testing.assert_allclose(matrix + np.swapaxes(matrix, -1, -2), 1, rtol=1e-15)
        np.testing.assert_array_equal(preferences.check(matrix, (2, 5)), matrix)
        np.testing.assert_array_equal(preferences.check(matrix[0], (2, 5)), matrix[0])
        np.testing.assert_array_equal(preferences.check(matrix[0], (5,)), matrix[0])


HALF = np.full((2, 2), 0.5)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (preferences.bradley_terry, (1.0,), r"^reward: expected shape \(\.\.\., K\)"),
        (preferences.bradley_terry, ([1, math.nan],), "^reward: expected finite numbers, got nan"),
        (preferences.bradley_terry, ([1, 2], 0.0), "^scale: expected .*got 0"),
        (preferences.bradley_terry, ([1, 2], -1), "^scale: expected .*got -1"),
        (preferences.bradley_terry, ([1, 2], "2"), "^scale: expected .*got str"),
        (preferences.deterministic, (1.0,), r"^reward: expected shape \(\.\.\., K\)"),
        (preferences.deterministic, ([1, math.inf],), "^reward: expected finite numbers, got inf"),
        (preferences.from_counts, ([1, 2],), r"^wins: expected shape .*got \(2,\)"),
        (preferences.from_counts, (np.ones((2, 3)),), r"^wins: expected shape .*got \(2, 3\)"),
        (preferences.from_counts, ([[0, -1], [2, 0]],), "^wins: expected counts .*got -1"),
        (preferences.from_counts, ([[0, math.nan], [2, 0]],), "^wins: expected finite .*got nan"),
        (preferences.check, (HALF, (3,)), r"^preference: expected shape \(3, 3\), got \(2, 2\)"),
        (preferences.check, (HALF[None], (2,)), r"^preference: expected shape .*got \(1, 2, 2\)"),
        (
            preferences.check,
            (HALF[None], (3, 2)),
            r"^preference: .*or \(3, 2, 2\), got \(1, 2, 2\)",
        ),
        (
            preferences.check,
            (np.ones((2, 2)), (2,)),
            r"^preference: expected P \+ Pᵀ = 1, got .*1$",
        ),
        (
            preferences.check,
            ([[0.5, 1.2], [-0.2, 0.5]], (2,)),
            r"^preference: .*\[0, 1\], got -0.2",
        ),
        (preferences.check, ([[1.5, 0.5], [0.5, 0.5]], (2,)), r"^preference: .*\[0, 1\], got 1.5"),
        (preferences.check, ([[0.5, math.nan]] * 2, (2,)), "^preference: expected finite"),
        (preferences.check, ("no", (2,)), "^preference: expected an array of numbers, got str"),
    ],
)
def test_bad_preferences_raise_one_clear_line(function, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)


def test_complement_is_accepted_to_rounding_and_no_further():
    for error, fine in ((5e-9, True), (1e-7, False)):
        matrix = [[0.5, 0.7 + error], [0.3, 0.5]]
        if fine:
            preferences.check(matrix, (2,))
        else:
            with pytest.raises(ValueError, match="Pᵀ"):
                preferences.check(matrix, (2,))
