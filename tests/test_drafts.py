"""The first drafts show what the walkthrough says of them."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import bandit
from bandit import analysis, losses, pairs, presets
from bandit.losses import Group
from bandit.verification import drafts

quick = functools.partial(bandit.verify, level="quick")


@pytest.fixture
def groups() -> Group:
    rng = np.random.default_rng(0)
    log_prob, ref_log_prob = np.log(rng.dirichlet(np.ones(5), size=(2, 40))[..., :2])
    return Group(log_prob, ref_log_prob, reward=3 * rng.gumbel(size=(40, 2)))


def test_the_wrong_sign_has_the_right_stationary_point_and_leaves_it(groups):
    report = quick(drafts.wrong_sign)
    assert [finding.check for finding in report.faults] == ["gradient"]
    assert report["optimality"].text.startswith("the solution is π*")
    assert "leaves the solution" in report["stability"].text
    # With the minus it is CoPG, of which a pair's deviation from its mean is half.
    np.testing.assert_allclose(
        -2 * drafts.wrong_sign(groups, beta=0.7).weight, losses.copg(groups, beta=0.7).weight
    )


def test_the_forgotten_axis_is_seen_in_batches_only():
    pytest.importorskip("torch")
    report = bandit.verify(drafts.forgotten_axis, libraries=["torch"])
    assert [finding.check for finding in report.faults] == ["batch"]
    assert report["gradient"].kind == "passed"


def test_the_forgotten_axis_does_no_harm_until_prompts_differ():
    regret = {}
    for name, reward in {"one": [1.0, 2.0, 0.5], "two": [[1.0, 2.0, 0.5], [5.0, 4.0, 3.5]]}.items():
        history = bandit.train(
            bandit.Bandit(reward, 0.5),
            drafts.forgotten_axis,
            pairs=pairs.independent([0.2, 0.3, 0.5]),
            batch_size=32,
            steps=1000,
            optimizer=bandit.SGD(0.1),
            runs=5,
            rng=0,
        )
        regret[name] = np.median(history.regret()[-1])
    assert regret["one"] < 1e-10
    assert regret["two"] > 0.05


def test_the_mean_reward_has_no_fault_and_doubles_the_penalty_for_pairs():
    pytest.importorskip("torch")
    report = bandit.verify(drafts.mean_reward_baseline, libraries=["torch"])
    assert report.ok
    assert report["behavior"].numbers["depends"]
    assert report["optimality"].text.startswith("the solution is not π*")
    problem, policy = presets.three_armed_bandit(), np.array([0.5, 0.2, 0.3])
    expected = analysis.population(
        problem, drafts.mean_reward_baseline, np.log(policy), pairs.independent(policy)
    )[1]
    advantage = problem.reward - 2 * problem.beta * np.log(policy / problem.reference)
    np.testing.assert_allclose(-expected, policy * (advantage - policy @ advantage), atol=1e-12)


def test_the_bounded_contrast_is_right_where_rewards_are_exact():
    report = quick(drafts.bounded_contrast)
    assert report.ok
    assert report["optimality"].text.startswith("the solution is π*")
    assert not report["behavior"].numbers["depends"]


def test_the_bounded_contrast_is_bounded_and_copg_in_the_limit(groups):
    contrast = losses.copg(groups, beta=0.7)
    bounded = drafts.bounded_contrast(groups, beta=0.7, scale=0.5)
    assert 0.45 < np.abs(bounded.weight).max() < 0.5 < np.abs(contrast.weight).max()
    wide = drafts.bounded_contrast(groups, beta=0.7, scale=1e4)
    np.testing.assert_allclose(wide.weight, contrast.weight, rtol=1e-5)
    np.testing.assert_allclose(wide.value, contrast.value, rtol=1e-5)


def test_noise_of_a_lopsided_shape_moves_the_bounded_contrast():
    """A reward of 0 or 9 is right on average, and counts for little when it is 9."""
    arms, rewards = (
        np.repeat([0, 1, 1], [900, 800, 100]),
        np.repeat([0.8, 0.0, 9.0], [900, 800, 100]),
    )
    log = bandit.data.Log(None, arms, rewards)
    learn = functools.partial(
        bandit.fit, log, beta=1.0, solver="minibatch", optimizer=bandit.Adam(0.01), rng=0
    )
    contrast, bounded = learn(losses.copg).policy[0], learn(drafts.bounded_contrast).policy[0]
    assert contrast[1] > 0.5  # the second arm's mean is 1
    assert bounded[1] < 0.4
