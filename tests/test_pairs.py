"""Who is compared with whom, against products, tables and a union-find of the tests' own."""

from __future__ import annotations

import math

import numpy as np
import oracles
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds, simplex

import bandit
from bandit import pairs


def test_independent_pairs():
    mu, other = np.array([0.1, 0.2, 0.7]), np.array([0.5, 0.0, 0.5])
    same, different = pairs.independent(mu), pairs.independent(mu, other)
    np.testing.assert_array_equal(same.dense(), np.outer(mu, mu))
    np.testing.assert_array_equal(different.dense(), np.outer(mu, other))
    np.testing.assert_array_equal(np.asarray(different), np.outer(mu, other))
    assert np.asarray(different, dtype=np.float32).dtype == np.float32
    np.testing.assert_array_equal(different.exposure, mu + other)
    np.testing.assert_array_equal(different.probability([0, 2], [2, 1]), [0.05, 0.0])
    assert (same.shape, same.n_arms) == ((3, 3), 3)
    assert same.is_independent
    assert different.is_independent
    assert same.is_symmetric_product
    assert not different.is_symmetric_product
    assert repr(same) == "Pairs(independent, 3 arms)"


def test_independent_pairs_with_contexts():
    rng = np.random.default_rng(0)
    mu, other = simplex(rng, (2, 3)), simplex(rng, (2, 3))
    found = pairs.independent(mu, other)
    for x in range(2):
        np.testing.assert_allclose(found.dense()[x], np.outer(mu[x], other[x]), rtol=1e-15)
    assert found.shape == (2, 3, 3)
    assert found.n_arms == 3
    assert repr(found) == "Pairs(independent, 2 contexts, 3 arms)"


def test_a_million_arms_stay_two_vectors():
    found = pairs.independent(np.full(1_000_000, 1e-6))
    assert found.shape == (1_000_000, 1_000_000)
    assert len(pairs.components(found)) == 1


@pytest.mark.parametrize("make", [np.array, scipy.sparse.csr_array, scipy.sparse.coo_matrix])
def test_counts_become_proportions(make):
    counts = np.array([[1.0, 3, 0], [2, 0, 0], [0, 10, 4]])
    found = pairs.from_counts(make(counts))
    np.testing.assert_allclose(found.dense(), counts / 20, rtol=1e-15)
    np.testing.assert_allclose(found.first, [0.2, 0.1, 0.7], rtol=1e-15)
    np.testing.assert_allclose(found.second, [0.15, 0.65, 0.2], rtol=1e-15)
    np.testing.assert_allclose(found.exposure, [0.35, 0.75, 0.9], rtol=1e-15)
    np.testing.assert_allclose(found.probability([0, 2], [1, 2]), [0.15, 0.2], rtol=1e-15)
    assert not found.is_independent
    assert not found.is_symmetric_product
    assert repr(found) == "Pairs(joint, 3 arms)"
    assert scipy.sparse.issparse(found.joint) == (make is not np.array)


def test_counts_with_contexts_are_proportions_in_each():
    counts = np.array([[[0.0, 1], [3, 0]], [[5, 0], [5, 10]]])
    found = pairs.from_counts(counts)
    np.testing.assert_allclose(found.dense()[0], counts[0] / 4, rtol=1e-15)
    np.testing.assert_allclose(found.dense()[1], counts[1] / 20, rtol=1e-15)
    np.testing.assert_allclose(found.second[1], [0.5, 0.5], rtol=1e-15)


def test_dense_arrays_cannot_be_written_through():
    found = pairs.from_counts([[1.0, 3], [2, 4]])
    found.dense()[0, 0] = 9
    assert found.dense()[0, 0] == pytest.approx(0.1)
    mu = np.array([0.25, 0.75])
    product = pairs.independent(mu)
    mu[:] = 0
    np.testing.assert_array_equal(product.first, [0.25, 0.75])
    with pytest.raises(ValueError, match="read-only"):
        product.first[0] = 1


def test_as_pairs_of_arrays():
    nu = np.array([[0.1, 0.2], [0.3, 0.4]])
    for given_nu in (nu, nu.tolist(), scipy.sparse.csr_array(nu)):
        found = pairs.as_pairs(given_nu, (2,))
        np.testing.assert_allclose(found.first, [0.3, 0.7], rtol=1e-15)
        np.testing.assert_allclose(found.second, [0.4, 0.6], rtol=1e-15)
        np.testing.assert_allclose(found.dense(), nu, rtol=1e-15)
    same = pairs.independent([0.5, 0.5])
    assert pairs.as_pairs(same, (2,)) is same
    assert pairs.as_pairs(same, (7, 2)) is same
    assert pairs.as_pairs(np.stack([nu, nu.T]), (2, 2)).shape == (2, 2, 2)


# ----------------------------------------------------------------------------------- components


@given(seed=seeds, arms=st.integers(1, 9), density=st.floats(0.02, 0.4))
def test_components_of_tables(seed, arms, density):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 9, size=(arms, arms)) * (rng.random((arms, arms)) < density)
    counts[rng.integers(arms), rng.integers(arms)] += 1
    expected = tuple(oracles.components(counts > 0))
    dense = pairs.from_counts(counts)
    assert pairs.components(dense) == expected
    assert pairs.components(pairs.from_counts(scipy.sparse.csr_array(counts))) == expected
    assert pairs.components(counts / counts.sum()) == expected
    assert all(isinstance(arm, int) for part in expected for arm in part)


@given(seed=seeds, arms=st.integers(1, 9), zeros=st.floats(0, 0.9))
def test_components_of_independent_pairs(seed, arms, zeros):
    rng = np.random.default_rng(seed)

    def behavior():
        mass = rng.uniform(0.1, 1, size=arms) * (rng.random(arms) > zeros)
        mass[rng.integers(arms)] += 0.5
        return mass / mass.sum()

    mu, other = behavior(), behavior()
    for second in (None, other):
        nu = np.outer(mu, mu if second is None else second)
        expected = tuple(oracles.components(nu > 0))
        assert pairs.components(pairs.independent(mu, second)) == expected
        assert pairs.components(nu) == expected


def test_components_of_each_context():
    mu = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    expected = (((0, 1), (2,)), ((0, 1, 2),))
    assert pairs.components(pairs.independent(mu)) == expected
    assert pairs.components(pairs.independent(mu).dense()) == expected
    assert pairs.components(pairs.from_counts(pairs.independent(mu).dense())) == expected


def test_components_come_in_order_and_tiny_probabilities_count():
    counts = np.zeros((5, 5))
    counts[4, 1] = 1e-300
    counts[0, 3] = counts[2, 2] = 1.0
    assert pairs.components(pairs.from_counts(counts)) == ((0, 3), (1, 4), (2,))


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (pairs.independent, ([0.5, 0.6],), "^mu: expected .*sum of 1.1"),
        (pairs.independent, ([1.5, -0.5],), "^mu: expected .*got -0.5"),
        (pairs.independent, ([0.5, math.nan],), "^mu: expected finite numbers, got nan"),
        (pairs.independent, ([],), "^mu: expected"),
        (pairs.independent, (1.0,), "^mu: expected"),
        (pairs.independent, ("mu",), "^mu: expected an array of numbers, got str"),
        (pairs.independent, (np.full((2, 2, 2), 0.5),), r"^mu: expected shape .*\(2, 2, 2\)"),
        (pairs.independent, ([0.5, 0.5], [0.5, 0.6]), "^other: expected .*1.1"),
        (pairs.independent, ([0.5, 0.5], [1.0]), r"^other: expected shape \(2,\).*got \(1,\)"),
        (pairs.independent, ([0.5, 0.5], [[0.5, 0.5]]), r"^other: expected shape .*\(1, 2\)"),
        (pairs.from_counts, ([1, 2],), r"^counts: expected shape .*got \(2,\)"),
        (pairs.from_counts, (np.ones((2, 3)),), r"^counts: expected shape .*got \(2, 3\)"),
        (pairs.from_counts, ([[1, -1], [0, 2]],), "^counts: expected counts .*got -1"),
        (pairs.from_counts, ([[1, math.nan], [0, 2]],), "^counts: expected finite .*nan"),
        (pairs.from_counts, (np.zeros((2, 2)),), "^counts: expected at least one .*got none"),
        (pairs.from_counts, (np.array([np.eye(2), 0 * np.eye(2)]),), "^counts: .*got none"),
        (pairs.from_counts, (scipy.sparse.csr_array((2, 3)),), r"^counts: .*got \(2, 3\)"),
        (pairs.from_counts, (scipy.sparse.csr_array((2, 2)),), "^counts: .*got none"),
        (pairs.from_counts, (scipy.sparse.csr_array([[1, -1.0]] * 2),), "^counts: .*got -1"),
        (pairs.from_counts, (scipy.sparse.csr_array([[1, math.inf]] * 2),), "^counts: .*inf"),
        (pairs.from_counts, (scipy.sparse.csr_array([[1, math.nan]] * 2),), "^counts: .*nan"),
        (pairs.as_pairs, ([0.5, 0.5], (2,)), r"^pairs: expected .*\(2,\)"),
        (pairs.as_pairs, (np.full((2, 3), 1 / 6), (2,)), r"^pairs: expected .*\(2, 3\)"),
        (pairs.as_pairs, (np.full((2, 2), 0.3), (2,)), "^pairs: expected .*1.2"),
        (pairs.as_pairs, ([[1.5, -0.5], [0, 0]], (2,)), "^pairs: expected .*-0.5"),
        (pairs.as_pairs, (np.full((2, 2), 0.25), (3,)), r"^pairs: expected .*\(2, 2\)"),
        (pairs.as_pairs, (np.full((2, 2, 2), 0.25), (2,)), r"^pairs: .*\(2, 2, 2\)"),
        (pairs.as_pairs, (np.full((1, 2, 2), 0.25), (3, 2)), r"^pairs: .*\(3, 2, 2\).*\(1, 2, 2\)"),
        (pairs.as_pairs, (scipy.sparse.csr_array(np.full((2, 2), 0.3)), (2,)), "^pairs: .*1.2"),
        (pairs.as_pairs, (scipy.sparse.csr_array([[1.5, -0.5], [0, 0]]), (2,)), "-0.5"),
        (pairs.as_pairs, (None, (2,)), "^pairs: expected"),
        (pairs.as_pairs, ("all", (2,)), "^pairs: expected"),
        (pairs.components, ([[0.5, 0.6], [0, 0]],), "^pairs: expected .*1.1"),
        (pairs.components, ([0.5, 0.5],), "^pairs: expected"),
        (pairs.components, (np.full((2, 3), 1 / 6),), r"^pairs: expected .*\(2, 3\)"),
    ],
)
def test_bad_pairs_raise_one_clear_line(function, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)


def test_components_of_sparse_arrays_and_of_too_many_axes():
    table = np.array([[0.0, 0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.5]])
    assert pairs.components(scipy.sparse.csr_array(table)) == ((0, 1), (2,))
    with pytest.raises(ValueError, match=r"^pairs: expected shape \(K, K\) or \(X, K, K\), got"):
        pairs.components(np.full((5, 2, 2, 2), 0.25))


# ------------------------------------------------------------------- what importance weights see


def test_behavior_is_told_to_importance_weights_alone():
    problem = bandit.Bandit([[1.0, 0.2, -0.5], [0.0, 0.4, 1.5]], 0.5, [0.5, 0.3, 0.2])
    mu = np.array([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3]])
    told = np.array([[0.4, 0.1, 0.9], [0.3, 0.3, 0.2]])
    logits = np.array([[0.1, 0.5, -0.4], [0.0, -1.0, 0.3]])
    source = pairs.independent(mu, behavior=told)
    gradient = bandit.analysis.population(
        problem, bandit.losses.importance_sampling, logits, source
    )[1]
    policy = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    regularized = problem.reward - 0.5 * np.log(policy / problem.reference)
    weight = -2 * mu * policy / told * regularized  # of the two arms of a pair
    expected = (weight - policy * weight.sum(axis=-1, keepdims=True)) / 2
    np.testing.assert_allclose(gradient, expected, rtol=1e-12)
    # The same from the listing of all pairs, and nothing for losses without such weights.
    listed = pairs.from_counts(mu[..., :, None] * mu[..., None, :])
    listed.behavior = told
    again = bandit.analysis.population(problem, bandit.losses.importance_sampling, logits, listed)[
        1
    ]
    np.testing.assert_allclose(again, expected, rtol=1e-12)
    plain = bandit.analysis.population(problem, bandit.losses.copg, logits, pairs.independent(mu))
    value, slope = bandit.analysis.population(problem, bandit.losses.copg, logits, source)
    assert value == plain[0]
    assert (slope == plain[1]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pairs.independent([0.5, 0.5], behavior=[0.5]), "behavior: expected shape"),
        (lambda: pairs.independent([0.5, 0.5], behavior=[1, 0]), "behavior: expected num"),
        (lambda: pairs.from_rows([0], [0, 1], [1.0], (1, 2)), "arms: expected shape"),
        (
            lambda: pairs.from_rows([0], [2], [1.0], (1, 2)),
            "arms: expected codes from 0 to 1, got 2 at index 0",
        ),
        (
            lambda: pairs.from_rows([0, 1], [0, 0], [1, 2], (2, 2), consecutive=True),
            "contexts: expected consecutive rows in pairs",
        ),
        (
            lambda: pairs.from_rows([0], [0], [1.0], (1, 2), propensities=[0.0]),
            "propensities: expected numbers above 0",
        ),
    ],
)
def test_rows_and_behavior_that_do_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call()
