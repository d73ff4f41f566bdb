"""Listing groups, gathering their fields and scattering their weights."""

from __future__ import annotations

import collections
import functools
import itertools
import math

import numpy as np
import oracles
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from strategies import cases, make_case, seeds, simplex

import bandit
from bandit import _kept_groups, expectations, flow, groups, losses
from bandit.losses import Score


def any_order(group, *, beta=1.0):
    """A loss of our own that promises nothing, so that its groups are listed in every order."""
    return Score(group.log_prob[..., 0] * group.reward[..., -1], 0 * group.log_prob)


def setting_of(case, pairs, loss, **data):
    return groups.setting(case.problem, loss, pairs, **data)


def listed(where, loss, size=2):
    """Probability of each sorted or ordered group, per context, added up over all blocks."""
    found = [collections.Counter() for _ in range(len(where.reward))]
    for listing in groups.listings(where, loss, size):
        probability = np.broadcast_to(listing.probability, (len(found), len(listing.members)))
        for n, members in enumerate(listing.members.tolist()):
            for x, counter in enumerate(found):
                counter[tuple(members)] += probability[x, n]
    return found


def expected_groups(nu, mu, size, ordered):
    counter = collections.Counter()
    for members in itertools.product(range(len(mu)), repeat=size):
        mass = nu[members] if size == 2 else math.prod(mu[y] for y in members)
        counter[members if ordered else tuple(sorted(members))] += mass
    return counter


def assert_same_groups(found, expected):
    assert {g for g, p in expected.items() if p > 0} <= set(found)
    for group, probability in found.items():
        assert probability == pytest.approx(expected[group], rel=1e-12, abs=1e-16)


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
@given(case=cases(max_arms=4, max_contexts=2))
def test_pairs_are_listed_with_their_probabilities(block, case):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "BLOCK", block)
        for ordered, loss in ((False, losses.copg), (True, any_order)):
            for pairs in (case.nu, bandit.pairs.independent(case.mu)):
                found = listed(setting_of(case, pairs, loss), loss)
                nu = np.asarray(pairs if isinstance(pairs, np.ndarray) else pairs.dense())
                nu, mu = nu.reshape(-1, *nu.shape[-2:]), np.atleast_2d(case.mu)
                for x in range(len(nu)):
                    assert_same_groups(found[x], expected_groups(nu[x], mu[x], 2, ordered))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@given(case=cases(max_arms=4, max_contexts=2))
def test_larger_groups_are_listed_with_their_probabilities(size, case):
    for ordered, loss in ((False, losses.policy_gradient), (True, any_order)):
        where = setting_of(case, bandit.pairs.independent(case.mu), loss)
        found = listed(where, loss, size)
        for x, mu in enumerate(np.atleast_2d(case.mu)):
            assert_same_groups(found[x], expected_groups(np.outer(mu, mu), mu, size, ordered))


def test_unequal_arms_of_a_pair_keep_their_places_where_the_behavior_matters():
    case = make_case(np.random.default_rng(2), (3,))
    other = simplex(case.rng, (3,))
    pairs = bandit.pairs.independent(case.mu, other)
    where = setting_of(case, pairs, losses.importance_sampling)
    found = listed(where, losses.importance_sampling)
    assert_same_groups(found[0], expected_groups(np.outer(case.mu, other), case.mu, 2, True))
    assert len(found[0]) == 9
    assert len(listed(setting_of(case, pairs, losses.copg), losses.copg)[0]) == 6
    group = groups.gather(where, np.log(case.mu)[None], np.array([[0, 1], [1, 0]]))
    np.testing.assert_allclose(
        group.behavior_log_prob[0],
        np.log([[case.mu[0], other[1]], [case.mu[1], other[0]]]),
        rtol=1e-15,
    )


def test_sparse_pairs_list_only_what_was_compared():
    case = make_case(np.random.default_rng(2), (4,))
    nu = np.zeros((4, 4))
    nu[0, 1], nu[3, 2], nu[2, 3] = 0.5, 0.2, 0.3
    where = setting_of(case, scipy.sparse.csr_array(nu), losses.copg)
    (listing,) = groups.listings(where, losses.copg)
    assert sorted(map(tuple, listing.members.tolist())) == [(0, 1), (2, 3), (3, 2)]
    assert listing.probability.sum() == pytest.approx(1)


@given(case=cases(max_arms=5, max_contexts=3))
def test_gathered_fields_belong_to_the_listed_arms(case):
    where = setting_of(
        case, case.nu, losses.copg, preference=case.preference if case.problem.n_contexts else None
    )
    contexts, arms = where.reward.shape
    members = case.rng.integers(arms, size=(7, 2))
    log_policy = np.log(simplex(case.rng, (2, contexts, arms)))
    group = groups.gather(where, log_policy, members)
    for n, (i, j) in enumerate(members):
        for x in range(contexts):
            nu = case.nu.reshape(-1, arms, arms)[x]
            np.testing.assert_array_equal(group.log_prob[:, x, n], log_policy[:, x, [i, j]])
            np.testing.assert_array_equal(
                group.reward[x, n], np.atleast_2d(case.problem.reward)[x, [i, j]]
            )
            np.testing.assert_array_equal(
                group.ref_log_prob[x, n], np.atleast_2d(case.problem.log_reference)[x, [i, j]]
            )
            np.testing.assert_allclose(
                group.behavior_log_prob[x, n], np.log([nu.sum(1)[i], nu.sum(0)[j]]), rtol=1e-14
            )
            if group.preference is not None:
                assert group.preference[x, n] == case.preference[x, i, j]


def test_shared_pairs_and_preferences_serve_every_context():
    case = make_case(np.random.default_rng(4), (3, 4))
    where = setting_of(case, case.nu[0], losses.dpo, preference=case.preference[1])
    members = np.array([[0, 1], [2, 3]])
    group = groups.gather(where, case.problem.log_reference, members)
    assert group.preference.shape == (3, 2)
    assert group.behavior_log_prob.shape == (3, 2, 2)
    np.testing.assert_array_equal(group.preference[2], case.preference[1][[0, 2], [1, 3]])


@given(seed=seeds, arms=st.integers(2, 5), size=st.integers(1, 4))
def test_scatter_adds_up_each_arms_weights(seed, arms, size):
    rng = np.random.default_rng(seed)
    members = rng.integers(arms, size=(6, size))
    weight = rng.normal(size=(2, 3, 6, size))
    expected = np.zeros((2, 3, arms))
    for n in range(6):
        for i in range(size):
            expected[..., members[n, i]] += weight[..., n, i]
    found = groups.scatter(groups.incidence(members, arms), weight)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_too_many_groups_raise():
    problem = bandit.Bandit(np.arange(200.0), 1.0)
    uniform = bandit.pairs.independent(np.full(200, 1 / 200))
    for loss in (losses.copg, any_order):
        with pytest.raises(
            ValueError, match=r"^group_size: expected at most .*groups of 7"
        ) as caught:
            bandit.analysis.population(problem, loss, np.zeros(200), uniform, group_size=7)
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- filling in hyper-parameters


def test_binding_fills_in_only_what_is_open():
    problem = bandit.Bandit([1.0, 2.0], 0.25)
    bind = groups.bind
    assert bind(losses.copg, problem).keywords == {"beta": 0.25}
    assert bind("copg", problem).func is losses.copg
    assert bind(losses.rebel, problem).keywords == {"eta": 4.0}
    given_beta = functools.partial(losses.copg, beta=3.0)
    assert bind(given_beta, problem) is given_beta
    assert bind(losses.policy_gradient, problem, "value").keywords == {
        "beta": 0.25,
        "baseline": "given",
    }
    chosen = functools.partial(losses.policy_gradient, baseline="leave_one_out")
    assert bind(chosen, problem, "value").keywords["baseline"] == "leave_one_out"
    assert bind(losses.copg, problem, "value").keywords == {"beta": 0.25}
    with pytest.raises(ValueError, match=r"^method: expected one of"):
        bind("cpg", problem)
    with pytest.raises(TypeError, match=r"^loss: expected a function .*got int"):
        bind(3, problem)


def test_names_of_losses():
    assert groups.name_of(losses.dpo) == "dpo"
    assert groups.name_of(functools.partial(losses.dpo, beta=1.0)) == "dpo"
    assert groups.name_of("slic") == "slic"
    assert groups.name_of(any_order) == "any_order"


# ------------------------------------------------------------------------------- parts of a setting


@pytest.mark.parametrize("shared", [False, True])
def test_one_context_alone(shared):
    case = make_case(np.random.default_rng(21), (3, 4))
    nu = case.nu[0] if shared else case.nu
    preference = case.preference[0] if shared else case.preference
    numbers = np.array([0.3, -1.0, 2.0])
    where = setting_of(case, nu, losses.dpo, preference=preference)
    plain = setting_of(
        case, bandit.pairs.independent(case.mu), losses.policy_gradient, baseline=numbers
    )
    for x in range(3):
        alone, single = groups.one_context(where, x), groups.one_context(plain, x)
        np.testing.assert_array_equal(alone.reward, case.problem.reward[[x]])
        np.testing.assert_array_equal(alone.log_reference, case.problem.log_reference[[x]])
        np.testing.assert_array_equal(alone.pairs.dense()[0], nu if shared else nu[x])
        np.testing.assert_array_equal(alone.preference[0], preference if shared else preference[x])
        np.testing.assert_array_equal(single.pairs.first, case.mu[[x]])
        assert single.pairs.is_symmetric_product
        np.testing.assert_array_equal(single.baseline, numbers[[x]])


def test_typical_log_ratios():
    problem = bandit.Bandit([1.0, 3.0, 8.0], 0.25)
    uniform = bandit.pairs.independent(np.full(3, 1 / 3))
    half = np.full((3, 3), 0.5)
    on_rewards = groups.setting(problem, losses.copg, uniform)
    on_preferences = groups.setting(problem, losses.ipo, uniform, preference=half)
    assert groups.typical_log_ratio(on_rewards, losses.copg) == 28.0
    assert groups.typical_log_ratio(on_preferences, losses.ipo) == 4.0
    flat = groups.setting(bandit.Bandit([1.0, 1.1, 1.0], 5.0), losses.copg, uniform)
    assert groups.typical_log_ratio(flat, losses.copg) == 1.0


@pytest.mark.parametrize("size", [170, 171, 1100, 2000])
def test_groups_of_thousands_have_their_probabilities(size):
    """Their numbers of orders are beyond float64, and the chance of each one below it."""
    problem = bandit.Bandit([1.0, 0.0, 3.0], 0.5, [0.3, 0.3, 0.4])
    pairs, logits = bandit.pairs.independent([0.3, 0.7, 0.0]), np.array([0.0, 0.3, 0.0])
    two = bandit.Bandit([1.0, 0.0], 0.5)
    own = bandit.pairs.independent([0.3, 0.7])
    where = groups.setting(two, losses.rloo, own)
    (listing,) = groups.listings(where, losses.rloo, size)
    often = (listing.members == 0).sum(axis=-1)
    assert listing.probability.sum() == pytest.approx(1, rel=1e-10)
    assert listing.probability[0] @ often == pytest.approx(0.3 * size, rel=1e-10)
    assert listing.probability[0] @ (often - 0.3 * size) ** 2 == pytest.approx(
        0.21 * size, rel=1e-8
    )
    if size < 200:  # three arms make too many of the larger ones
        whole, pair = (
            bandit.analysis.population(problem, losses.rloo, logits, pairs, group_size=g)[1]
            for g in (size, 2)
        )
        np.testing.assert_allclose(whole, size / 2 * pair, rtol=1e-9, atol=1e-10)


# ------------------------------------------------------------------------- groups that are kept


@pytest.mark.parametrize("name", ["ipo", "dpo", "copg", "policy_gradient", "grpo", "ppo_clip"])
@pytest.mark.parametrize("most", [0, 1 << 18])
def test_groups_are_listed_once_and_give_the_same_numbers(name, most, monkeypatch):
    case = make_case(np.random.default_rng(3), (2, 4))
    loss = groups.bind(losses.get(name), case.problem)
    needs = "preference" in losses.traits(loss).requires
    where = groups.setting(case.problem, loss, case.nu, case.preference if needs else None)
    lists, own = [], groups.listings
    monkeypatch.setattr(groups, "listings", lambda *a: (lists.append(a), own(*a))[1])
    monkeypatch.setattr(_kept_groups, "MOST_KEPT", most)
    expectation = expectations.Expectation(where, loss)
    policies = np.log(case.rng.dirichlet(np.ones(4), size=(5, 2)))
    found = [expectation(policy) for policy in policies]
    together = expectation(policies)
    slopes = [expectation.jacobian(policy, 1.0, affine=False) for policy in policies]
    assert len(lists) == (1 if most else 11)
    for i, policy in enumerate(policies):
        value, weight = expectations.expected(where, loss, policy)
        np.testing.assert_array_equal(found[i][0], value)
        np.testing.assert_array_equal(found[i][1], weight)
        np.testing.assert_array_equal(expectation.weight(policy), weight)
        np.testing.assert_array_equal(together[1][i], weight)
        alone = expectations.Expectation(where, loss).jacobian(policy, 1.0, affine=False)
        np.testing.assert_array_equal(slopes[i], alone)


@pytest.mark.parametrize("block", [1, 40, 1 << 20])
def test_jacobians_do_not_depend_on_how_many_groups_are_looked_at_together(block, monkeypatch):
    case = make_case(np.random.default_rng(4), (2, 5))
    loss = groups.bind(losses.ppo_clip, case.problem, "value")
    where = groups.setting(case.problem, loss, case.nu, None, "value")
    policy = np.log(case.rng.dirichlet(np.ones(5), size=2))
    whole = expectations.Expectation(where, loss).jacobian(policy, 1.0, affine=False)
    monkeypatch.setattr(groups, "BLOCK", block)
    pieces = expectations.Expectation(where, loss).jacobian(policy, 1.0, affine=False)
    np.testing.assert_allclose(pieces, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["ipo", "dpo"])
def test_descent_lists_its_groups_once(name, monkeypatch):
    case = make_case(np.random.default_rng(5), (3,))
    lists, own = [], groups.listings
    monkeypatch.setattr(groups, "listings", lambda *a: (lists.append(a), own(*a))[1])
    path = flow.gradient_descent(
        case.problem,
        losses.get(name),
        case.problem.reference,
        case.nu,
        learning_rate=0.1,
        steps=50,
        preference=case.preference,
    )
    assert len(lists) == 1
    # By hand, with a list made anew for every step.
    theta = case.problem.log_reference
    for _ in range(50):
        gradient = bandit.analysis.population(
            case.problem, losses.get(name), theta, case.nu, preference=case.preference
        )[1]
        theta = theta - 0.1 * gradient
    np.testing.assert_allclose(path[-1], np.exp(oracles.log_softmax(theta)), rtol=1e-12)
