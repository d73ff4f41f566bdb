"""Learning from logs: against minimizers written out over rows, and what is never seen."""

from __future__ import annotations

import functools
import itertools
import json

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special

import bandit
from bandit import data, losses, pairs, presets
from bandit.data import Log, from_counts

BETA = 0.7
REFERENCE = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.15, 0.25, 0.2]])


def noisy_log(n=40, seed=0, contexts=2, arms=4):
    """Unequal counts, noisy rewards and propensities that drift."""
    rng = np.random.default_rng(seed)
    x = rng.choice(contexts, size=n, p=[0.7, 0.3] if contexts == 2 else None)
    y = (rng.random(n) ** 2 * arms).astype(int)
    y[: contexts * arms], x[: contexts * arms] = (
        np.tile(np.arange(arms), contexts),
        np.repeat(np.arange(contexts), arms),
    )
    reward = rng.normal(0.3 * y - 0.5 * x, 0.8)
    # They drift, and their inverses have the mean that they should.
    propensities = np.diff(np.sqrt(np.arange(arms + 1) / arms))[y] / rng.uniform(0.5, 1.5, n)
    return Log(x, y, reward, propensities, arm_labels="abcd"[:arms])


def loss_over_rows(log, reference, beta, score, together=None):
    """Mean over contexts' pairs of rows of a loss of two log-ratios, as a function of logits."""

    chosen = []
    for x in range(len(reference)):
        rows = np.flatnonzero(log.contexts == x)
        mine = itertools.permutations(rows, 2) if together is None else together(rows)
        chosen += [(i, j, 1 / len(rows)) for i, j in mine]
    i, j = np.array([(i, j) for i, j, _ in chosen]).T
    weight = np.array([w for _, _, w in chosen])

    def value(theta):
        ratio = special.log_softmax(theta.reshape(reference.shape), axis=-1) - np.log(reference)
        of_row = ratio[log.contexts, log.arms]
        return weight @ score(of_row[i], of_row[j], log.rewards[i], log.rewards[j])

    return value


def copg_of_two(beta):
    return lambda a, b, r, s: ((r - beta * a) - (s - beta * b)) ** 2 / (2 * beta)


def minimizer(value, start):
    found = optimize.minimize(value, start.ravel(), method="BFGS", options={"gtol": 1e-9})
    return special.softmax(found.x.reshape(start.shape), axis=-1)


# ------------------------------------------------------------------------------- the closed form


def test_copg_is_the_minimizer_of_the_loss_written_out_over_rows():
    log = noisy_log(24)
    fit = bandit.fit(log, "copg", beta=BETA, reference=REFERENCE)
    expected = minimizer(loss_over_rows(log, REFERENCE, BETA, copg_of_two(BETA)), np.log(REFERENCE))
    assert fit.policy == pytest.approx(expected, abs=1e-6)
    assert fit.diagnostics.converged


@pytest.mark.parametrize("method", ["copg", "rloo", "log_variance", "rebel"])
def test_contrastive_methods_have_the_closed_form_in_mean_rewards(method):
    log = noisy_log()
    counts = log.counts()
    tilted = REFERENCE * np.exp(counts.reward / counts.n / BETA)
    fit = bandit.fit(log, method, beta=BETA, reference=REFERENCE)
    assert fit.policy == pytest.approx(tilted / tilted.sum(axis=-1, keepdims=True), rel=1e-12)
    again = bandit.fit(counts, method, beta=BETA, reference=REFERENCE)
    assert again.policy == pytest.approx(fit.policy, rel=1e-12)


@pytest.mark.parametrize("method", ["copg", "policy_gradient_value", "policy_gradient_behavior"])
def test_closed_forms_are_where_the_general_solver_ends(method):
    log = noisy_log()
    fit = bandit.fit(log, method, beta=BETA, reference=REFERENCE)
    known, counts = presets.method(method), log.counts()
    mu = counts.n / counts.n.sum(axis=-1, keepdims=True)
    solution = bandit.analysis.solve(
        fit.problem, known.loss, pairs.independent(mu), baseline=known.baseline
    )
    assert solution.converged
    assert fit.policy == pytest.approx(solution.policy, rel=1e-9)


def test_hyper_parameters_that_are_bound_count():
    log = noisy_log()
    bound = bandit.fit(log, functools.partial(losses.copg, beta=0.3), beta=BETA)
    assert bound.policy == pytest.approx(bandit.fit(log, "copg", beta=0.3).policy, rel=1e-12)
    bound = bandit.fit(log, functools.partial(losses.rebel, eta=1 / 0.3), beta=BETA)
    assert bound.policy == pytest.approx(bandit.fit(log, "copg", beta=0.3).policy, rel=1e-12)
    bound = bandit.fit(log, functools.partial(losses.reward_weighted, beta=0.3), beta=BETA)
    plain = bandit.fit(log, "reward_weighted", beta=0.3)
    assert bound.policy == pytest.approx(plain.policy, rel=1e-12)


def consecutive_log():
    """Context 0: chain a–b–c with noise, and d apart; context 1: components {a, b} and {c, d}."""
    rng = np.random.default_rng(4)
    duels = [(0, 0, 1), (0, 1, 2), (0, 0, 2), (0, 1, 0), (0, 2, 2), (1, 0, 1), (1, 2, 3), (1, 3, 2)]
    x = np.repeat([x for x, _, _ in duels], 2)
    y = np.ravel([[a, b] for _, a, b in duels])
    return Log(x, y, rng.normal(size=len(y)), arm_labels="abcd")


def together(rows):
    return zip(rows[::2], rows[1::2], strict=True)


def test_consecutive_pairs_give_least_squares_scores_component_by_component():
    log = consecutive_log()
    fit = bandit.fit(log, "copg", beta=BETA, reference=REFERENCE, pairing="consecutive")
    # BFGS leaves the masses of components where it started, at the reference's, to its tolerance.
    value = loss_over_rows(log, REFERENCE, BETA, copg_of_two(BETA), together)
    expected = minimizer(value, np.log(REFERENCE))
    for x, parts in ((0, [[0, 1, 2]]), (1, [[0, 1], [2, 3]])):
        for part in parts:
            ratios = fit.policy[x, part] / fit.policy[x, part].sum()
            assert ratios == pytest.approx(expected[x, part] / expected[x, part].sum(), abs=1e-6)
            assert fit.policy[x, part].sum() == pytest.approx(REFERENCE[x, part].sum(), rel=1e-12)
    assert fit.policy[0, 3] == pytest.approx(REFERENCE[0, 3], rel=1e-12)
    assert fit.diagnostics.components == (
        (("a", "b", "c"), ("d",)),
        (("a", "b"), ("c", "d")),
    )
    assert any("3 components in 2 contexts" in text for text in fit.diagnostics.warnings)
    means = bandit.fit(log, "copg", beta=BETA, reference=REFERENCE)
    assert np.abs(means.policy - fit.policy).max() > 0.01


def test_scores_keep_the_level_of_their_rows():
    log = consecutive_log()
    fit = bandit.fit(log, "copg", beta=BETA, pairing="consecutive")
    counts = log.counts()
    for x, part in ((0, [0, 1, 2]), (1, [0, 1]), (1, [2, 3])):
        level = counts.n[x, part] @ fit.problem.reward[x, part]
        assert level == pytest.approx(counts.reward[x, part].sum(), rel=1e-9)


# --------------------------------------------------------------------------------- the others


def stationary(log, reference, weights, arms=4):
    """Softmax policy at which the mean over rows of weight(row) ∇ ln π vanishes."""

    def field(theta):
        policy = special.softmax(theta.reshape(reference.shape), axis=-1)
        gradient = np.zeros(reference.shape)
        for i, (x, y) in enumerate(zip(log.contexts, log.arms, strict=True)):
            w = weights(i, x, y, policy)
            gradient[x, y] += w
            gradient[x] -= w * policy[x]
        return gradient.ravel() + 1e-3 * theta.reshape(reference.shape).sum(axis=-1).repeat(arms)

    start = np.log(reference) - np.log(reference).mean(axis=-1, keepdims=True)
    found = optimize.root(field, start.ravel(), tol=1e-13)
    assert np.abs(found.fun).max() < 1e-9
    return special.softmax(found.x.reshape(reference.shape), axis=-1)


def test_importance_weights_are_the_propensities_of_the_rows():
    log = noisy_log()

    def weight(i, x, y, policy):
        regularized = log.rewards[i] - BETA * np.log(policy[x, y] / REFERENCE[x, y])
        return -policy[x, y] / log.propensities[i] * regularized

    fit = bandit.fit(log, "importance_sampling", beta=BETA, reference=REFERENCE)
    assert fit.policy == pytest.approx(stationary(log, REFERENCE, weight), abs=1e-8)
    bare = Log(log.contexts, log.arms, log.rewards)
    other = bandit.fit(bare, "importance_sampling", beta=BETA, reference=REFERENCE)
    assert np.abs(other.policy - fit.policy).max() > 0.01
    assert any("no propensities" in text for text in other.diagnostics.warnings)


def test_policy_gradient_without_weights_is_that_of_the_rows():
    log = noisy_log()

    def weight(i, x, y, policy):
        return -(log.rewards[i] - BETA * np.log(policy[x, y] / REFERENCE[x, y]))

    fit = bandit.fit(log, "policy_gradient", beta=BETA, reference=REFERENCE)
    assert fit.policy == pytest.approx(stationary(log, REFERENCE, weight), abs=1e-8)


def test_reward_weighted_likelihood_weighs_each_row():
    log = noisy_log()
    expected = np.zeros((2, 4))
    np.add.at(expected, (log.contexts, log.arms), np.exp(log.rewards / BETA))
    fit = bandit.fit(log, "reward_weighted", beta=BETA, reference=REFERENCE)
    assert fit.policy == pytest.approx(expected / expected.sum(axis=-1, keepdims=True), rel=1e-12)
    # In plain exponentials this would be exp(2000).
    clicks = from_counts([3, 4, 5], [1, 0, 2])
    steep = bandit.fit(clicks, "reward_weighted", beta=0.0005)
    assert steep.policy[0, [0, 2]] == pytest.approx([1 / 3, 2 / 3])


def ipo_of_two(a, b, p):
    margin = 1 / (2 * BETA)
    return p * (a - b - margin) ** 2 + (1 - p) * (a - b + margin) ** 2


def dpo_of_two(a, b, p):
    return p * np.logaddexp(0, -BETA * (a - b)) + (1 - p) * np.logaddexp(0, BETA * (a - b))


@pytest.mark.parametrize(
    ("method", "score"),
    [
        ("ipo", ipo_of_two),
        ("dpo", dpo_of_two),
    ],
)
def test_preferences_come_from_rows_ties_as_half(method, score):
    rng = np.random.default_rng(2)
    log = noisy_log(48)
    log = Log(log.contexts, log.arms, rng.choice([0.0, 0.5, 2.0], size=48), arm_labels="abcd")
    value = loss_over_rows(
        log, REFERENCE, BETA, lambda a, b, r, s: score(a, b, 0.5 + 0.5 * np.sign(r - s))
    )
    fit = bandit.fit(log, method, beta=BETA, reference=REFERENCE)
    assert fit.policy == pytest.approx(minimizer(value, np.log(REFERENCE)), abs=1e-5)


def test_preferences_of_pairs_logged_together():
    log = Log(
        np.zeros(12, int),
        [0, 1, 1, 0, 0, 1, 1, 2, 2, 1, 0, 2],
        [1, 0, 1, 0, 3, 3, 2, 1, 1, 0, 1, 1],
    )
    fit = bandit.fit(log, "dpo", beta=1.0, pairing="consecutive", reference=REFERENCE[0, :3] / 0.6)
    # Wins: 0 beat 1 one and a half times of three, 1 beat 2 once of two, 0 and 2 tied.
    table = np.array([[0, 1.5, 0.5], [1.5, 0, 1.0], [0.5, 1.0, 0]])
    expected = bandit.analysis.solve(
        bandit.Bandit(np.zeros(3), 1.0, REFERENCE[0, :3] / 0.6),
        losses.dpo,
        pairs.from_counts(table),
        preference=bandit.preferences.from_counts(table),
    )
    assert fit.policy[0] == pytest.approx(expected.policy, rel=1e-9)


def test_given_and_bradley_terry_preferences():
    log = noisy_log()
    counts = log.counts()
    theory = bandit.fit(log, "dpo", beta=BETA, reference=REFERENCE, preference="bradley_terry")
    copg = bandit.fit(log, "copg", beta=BETA, reference=REFERENCE)
    assert theory.policy == pytest.approx(copg.policy, rel=1e-8)
    matrix = bandit.preferences.bradley_terry(counts.reward / counts.n)
    given = bandit.fit(log, "dpo", beta=BETA, reference=REFERENCE, preference=matrix)
    assert given.policy == pytest.approx(copg.policy, rel=1e-8)


def test_preferences_of_binary_counts_are_those_of_their_rows():
    x, y = [0, 0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 1, 2, 2, 1, 0, 1, 1]
    log = Log(x, y, [1, 0, 1, 0, 1, 0, 1, 1, 0], arm_labels="abc")
    for method in ("ipo", "dpo", "reward_weighted"):
        one = bandit.fit(log, method, beta=BETA).policy
        assert bandit.fit(log.counts(), method, beta=BETA).policy == pytest.approx(one, rel=1e-9)
    with pytest.raises(ValueError, match="data: expected a Log, or Counts of rewards 0 and 1"):
        bandit.fit(noisy_log().counts(), "ipo", beta=BETA)


# -------------------------------------------------------------------------------- never seen


@pytest.mark.parametrize("method", ["ipo", "dpo", "grpo", "slic"])
def test_more_arms_than_can_be_solved_are_refused_at_once(method):
    """Copg has a closed form for any number."""
    log = Log(None, np.arange(2001), np.arange(2001.0) / 2000, np.full(2001, 1 / 2001))
    with pytest.raises(ValueError, match=r"solver: expected 'minibatch' for \w+ .* got 2001$"):
        bandit.fit(log, method, beta=1.0)
    assert bandit.fit(log, "copg", beta=1.0).diagnostics.converged


@pytest.mark.parametrize(
    "method", ["copg", "ipo", "policy_gradient", "importance_sampling", "reward_weighted"]
)
@pytest.mark.parametrize("solver", ["exact", "minibatch"])
def test_what_was_never_seen_keeps_its_reference_probability(method, solver):
    log = Log(
        [0, 0, 0, 0, 1], [0, 1, 1, 3, 2], [1, 0, 1, 0, 1], [0.3, 0.4, 0.4, 0.2, 0.5],
        context_labels="xyz", arm_labels="abcd",
    )  # fmt: skip
    reference = np.concatenate([REFERENCE, REFERENCE[:1]])
    extra = {"rng": 0, "steps": 20, "batch_size": 16} if solver == "minibatch" else {}
    fit = bandit.fit(log, method, beta=BETA, reference=reference, solver=solver, **extra)
    assert fit.policy[0, 2] == pytest.approx(reference[0, 2], rel=1e-12)
    assert fit.policy[0].sum() == pytest.approx(1)
    assert fit.policy[1:] == pytest.approx(reference[1:], rel=1e-12)
    assert np.abs(fit.policy[0] - reference[0]).max() > 1e-3
    assert fit.diagnostics.unseen == (("c",), ("a", "b", "d"), ("a", "b", "c", "d"))
    assert fit.diagnostics.components[0] == (("a", "b", "d"), ("c",))
    assert any("each keeps its reference" in text for text in fit.diagnostics.warnings)


def test_a_model_of_the_rewards_speaks_of_arms_never_seen():
    log = Log([0, 0, 0], [0, 1, 1], [1.0, 0.0, 1.0], arm_labels="abc", context_labels="xy")
    model = np.array([[1.0, 0.5, 2.0], [0.1, 0.2, 0.3]])
    fit = bandit.fit(
        log, "copg", beta=BETA, reference=REFERENCE[:, :3] / [[0.6], [0.8]], rewards=model
    )
    tilted = REFERENCE[:, :3] * np.exp(model / BETA)
    assert fit.policy == pytest.approx(tilted / tilted.sum(axis=-1, keepdims=True), rel=1e-12)
    assert any("counts as one row" in text for text in fit.diagnostics.warnings)
    same = bandit.fit(
        log, "copg", beta=BETA, reference=fit.problem.reference, rewards=lambda _: model
    )
    assert same.policy == pytest.approx(fit.policy)


# ------------------------------------------------------------------------------- from batches


@pytest.mark.parametrize(
    ("method", "pairing"),
    [
        ("copg", "all"),
        ("copg", "consecutive"),
        ("ipo", "all"),
        ("importance_sampling", "all"),
        ("reward_weighted", "all"),
        ("policy_gradient_behavior", "all"),
    ],
)
def test_batches_of_rows_lead_to_the_exact_solution(method, pairing):
    log = consecutive_log() if pairing == "consecutive" else noisy_log()
    known = {"beta": BETA, "reference": REFERENCE, "pairing": pairing}
    exact = bandit.fit(log, method, **known).policy
    near, far = (
        bandit.fit(
            log,
            method,
            solver="minibatch",
            steps=steps,
            batch_size=512,
            optimizer=bandit.Adam(0.02, beta2=0.99),
            rng=1,
            **known,
        )
        for steps in (400, 5)
    )
    # The last iterate of Adam jitters: this is some five times what eight seeds showed.
    assert np.abs(near.policy - exact).max() < 0.06
    assert np.abs(far.policy - exact).max() > 2 * np.abs(near.policy - exact).max()
    assert near.history is not None
    assert near.history.policy()[-1, 0] == pytest.approx(near.policy)
    assert near.history.policy()[0, 0] == pytest.approx(REFERENCE)


def test_rows_bring_their_own_noisy_rewards():
    """The gradient of a batch varies with the rewards within cells, not only with who is drawn."""
    rewards = np.array([5.0, -5.0, 1.0, -1.0])
    source = pairs.from_rows([0, 0, 0, 0], [0, 0, 1, 1], rewards, (1, 2))
    problem = bandit.Bandit([[0.0, 0.0]], BETA)
    history = bandit.train(
        problem, losses.copg, pairs=source, batch_size=1, steps=1, optimizer=bandit.SGD(1.0),
        runs=400, rng=0,
    )  # fmt: skip
    moved = np.unique(history.logits[-1, :, 0, 0].round(9))
    # Arm 0 against arm 1, their rewards ±5 and ±1; and pairs of the same arm, that move nothing.
    changes = np.array([0, -6, -4, 4, 6]) + np.log(0.5)
    assert moved == pytest.approx(np.sort(changes))


def test_rows_are_drawn_as_often_as_logged_and_within_their_context():
    x, y = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 1, 0, 2])
    source = pairs.from_rows(x, y, np.zeros(5), (2, 3), propensities=[0.1, 0.2, 0.3, 0.4, 0.5])
    from bandit.batches import RowDraws

    draws = RowDraws(source, 2, 100_000, False)
    drawn = draws.groups(draws.uniforms([np.random.default_rng(0)], 1)[0])
    first, second = drawn.places[..., 0]
    assert (first // 3 == second // 3).all()
    table = np.bincount(first * 6 + second, minlength=36).reshape(6, 6) / 1e5
    n = np.array([1, 2, 0, 1, 0, 1])
    expected = np.zeros((6, 6))
    for part in (slice(0, 3), slice(3, 6)):
        expected[part, part] = np.outer(n[part], n[part]) / n[part].sum() / 5
    assert table == pytest.approx(expected, abs=0.006)  # four standard errors
    told = np.exp(drawn.log_behavior[0, first == 1, 0])
    assert set(told.round(9)) == {0.2, 0.3}
    # Shares of the arms are what the exact analysis sees.
    assert source.first == pytest.approx(np.array([[1 / 3, 2 / 3, 0], [0.5, 0, 0.5]]))


@pytest.mark.parametrize("preference", [None, "bradley_terry"])
def test_batches_see_labels_of_rows_or_known_preferences(preference):
    log = noisy_log(100)
    known = {"beta": 2.0, "reference": REFERENCE, "preference": preference}
    exact = bandit.fit(log, "dpo", **known).policy
    trained = bandit.fit(
        log, "dpo", solver="minibatch", steps=400, batch_size=512, rng=0,
        optimizer=bandit.Adam(0.02, beta2=0.99), **known,
    )  # fmt: skip
    assert np.abs(trained.policy - exact).max() < 0.06


def test_batches_of_rows_moved_to_estimated_rewards():
    log = noisy_log()
    model = np.linspace(-1, 1, 8).reshape(2, 4)[:, ::-1]
    known = {"beta": BETA, "reference": REFERENCE, "rewards": model}
    trained = bandit.fit(
        log, "copg", solver="minibatch", steps=400, batch_size=512, rng=0,
        optimizer=bandit.Adam(0.02, beta2=0.99), **known,
    )  # fmt: skip
    assert np.abs(trained.policy - bandit.fit(log, "copg", **known).policy).max() < 0.06


def test_the_same_seed_trains_the_same_policy():
    log = noisy_log()
    first, again, other = (
        bandit.fit(log, beta=BETA, solver="minibatch", steps=30, rng=seed) for seed in (3, 3, 4)
    )
    assert (first.policy == again.policy).all()
    assert (first.policy != other.policy).any()


# --------------------------------------------------------------------------------- log-linear


def test_features_carry_what_is_learned_to_other_contexts():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, 3, 2))
    theta = np.array([1.5, -0.7])
    x, y = np.repeat([0, 1, 2, 3], 3), np.tile([0, 1, 2], 4)
    # Rewards that the class can reach exactly: β features·θ, and what a context adds.
    reward = BETA * (features @ theta)[x, y] + x
    log = Log(x, y, reward, context_labels=range(5))
    policy = bandit.LogLinear(features)
    fit = bandit.fit(log, "copg", beta=BETA, policy=policy)
    assert fit.theta == pytest.approx(theta, rel=1e-9)
    assert fit.policy == pytest.approx(special.softmax(features @ theta, axis=-1), rel=1e-9)
    trained = bandit.fit(
        log, "copg", beta=BETA, policy=policy, solver="minibatch", steps=300, rng=0,
        optimizer=bandit.Adam(0.05),
    )  # fmt: skip
    assert trained.theta == pytest.approx(theta, abs=0.05)


def test_a_restricted_class_weighs_contexts_by_their_rows():
    log = noisy_log(30)
    features = np.random.default_rng(1).normal(size=(2, 4, 2))
    value = loss_over_rows(log, np.full((2, 4), 0.25), BETA, copg_of_two(BETA))
    found = optimize.minimize(lambda t: value(features @ t), np.zeros(2), options={"gtol": 1e-9})
    fit = bandit.fit(log, "copg", beta=BETA, policy=bandit.LogLinear(features))
    assert fit.theta == pytest.approx(found.x, abs=1e-5)


# ---------------------------------------------------------------------- diagnostics, files, errors


def test_references():
    log = Log(None, [0, 1, 1, 3], [1.0, 0.0, 1.0, 0.0], arm_labels="abcd")
    assert bandit.fit(log, beta=1.0).problem.reference == pytest.approx(np.full((1, 4), 0.25))
    expected = np.array([[1.5, 2.5, 0.5, 1.5]]) / 6
    fit = bandit.fit(log, beta=1.0, reference="logging")
    assert fit.problem.reference == pytest.approx(expected)
    assert bandit.offline.logging_policy(log.counts()) == pytest.approx(expected)


def test_diagnostics_say_what_the_policy_is_worth_and_how_sure_that_is():
    log = noisy_log(200)
    fit = bandit.fit(log, beta=BETA, reference=REFERENCE)
    counts = log.counts()
    share = counts.n.sum(axis=1) / 200
    value = share @ (fit.policy * counts.reward / counts.n).sum(axis=1)
    kl = share @ (fit.policy * np.log(fit.policy / REFERENCE)).sum(axis=1)
    weights = fit.policy[log.contexts, log.arms] / log.propensities
    found = fit.diagnostics
    assert found.rows == 200
    assert found.value == pytest.approx(value)
    assert found.kl == pytest.approx(kl)
    assert found.effective_sample_size == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert found.max_weight == pytest.approx(weights.max())
    assert found.warnings == ()
    assert found.value > found.reference_value


def test_trouble_is_told():
    ob = data.open_bandit("women", "bts")
    fit = bandit.fit(ob, beta=0.001)
    assert any("effective sample size" in text for text in fit.diagnostics.warnings)
    log = Log(None, [0, 1], [1.0, 0.0])
    with pytest.warns(bandit.analysis.NotIdentifiedWarning, match="no finite solution"):
        lost = bandit.fit(log, "dpo", beta=1.0)
    assert not lost.diagnostics.converged
    assert "no finite solution" in lost.diagnostics.warnings[0]
    grpo = bandit.fit(noisy_log(), "grpo", beta=1.0)
    assert any("not affine in the reward" in text for text in grpo.diagnostics.warnings)


def test_top_arms():
    log = noisy_log()
    fit = bandit.fit(log, beta=BETA, reference=REFERENCE)
    table = fit.top(2)
    assert list(table.columns) == ["context", "arm", "probability", "reference", "reward", "rows"]
    assert table.context.tolist() == [0, 0, 1, 1]
    for x, part in table.groupby("context"):
        best = np.argsort(-fit.policy[x])[:2]
        assert part.arm.tolist() == ["abcd"[k] for k in best]
        assert part.probability.tolist() == fit.policy[x, best].tolist()
        assert part.rows.tolist() == log.counts().n[x, best].tolist()
    assert len(fit.top(99)) == 8


def test_evaluation_matches_labels():
    log = noisy_log(100)
    fit = bandit.fit(log, beta=BETA, reference=REFERENCE)
    own = fit.evaluate()
    pd.testing.assert_frame_equal(own, bandit.ope.evaluate(log, fit.policy))
    held = noisy_log(60, seed=9)
    arms = [3, 1, 0, 2]
    place = np.argsort(arms)
    turned = Log(
        held.contexts, place[held.arms], held.rewards, held.propensities,
        arm_labels=["abcd"[k] for k in arms],
    )  # fmt: skip
    expected = bandit.ope.evaluate(held, fit.policy)
    pd.testing.assert_frame_equal(fit.evaluate(turned), expected)
    only = held.contexts == 1
    part = Log(
        np.zeros(only.sum(), int), held.arms[only], held.rewards[only], held.propensities[only],
        context_labels=[1], arm_labels="abcd",
    )  # fmt: skip
    alone = bandit.ope.evaluate(part, fit.policy[1])
    assert fit.evaluate(part).value.to_numpy() == pytest.approx(alone.value.to_numpy())
    with pytest.raises(ValueError, match="data: expected contexts that the policy knows, got cont"):
        fit.evaluate(
            Log(held.contexts, held.arms, held.rewards, context_labels="xy", arm_labels="abcd")
        )


def test_arms_that_a_policy_does_not_know_are_never_played():
    log, held = noisy_log(100), noisy_log(60, seed=9)
    fit = bandit.fit(log, beta=BETA, reference=REFERENCE)
    new = Log(held.contexts, held.arms, held.rewards, held.propensities, arm_labels="abce")
    rows = int((held.arms == 3).sum())
    model = np.arange(8.0).reshape(2, 4)
    for q in (None, model):
        with pytest.warns(UserWarning, match=rf"1 of 4 arms .* 'e'; .* {rows} of 60 rows") as told:
            found = fit.evaluate(new, model=q)
        assert told[0].filename == __file__
        # "d" has no rows, "e" is never played.
        wide = Log(held.contexts, np.where(held.arms == 3, 4, held.arms), held.rewards,
                   held.propensities, arm_labels="abcde")  # fmt: skip
        policy = np.column_stack([fit.policy, [0.0, 0.0]])
        wide_model = None if q is None else np.column_stack([q, [50.0, 50.0]])
        expected = bandit.ope.evaluate(wide, policy, model=wide_model)
        pd.testing.assert_frame_equal(found, expected)
    assert found.unseen.iloc[0] > 0.01


@pytest.mark.parametrize("features", [False, True])
def test_files_give_back_the_fit_to_the_last_bit(tmp_path, features):
    log = noisy_log()
    policy = bandit.LogLinear(np.random.default_rng(0).normal(size=(2, 4, 3))) if features else None
    fit = bandit.fit(log, "copg", beta=BETA, reference=REFERENCE, policy=policy)
    fit.save(tmp_path / "out")
    fit.save(tmp_path / "out")  # over an older one
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["policy.csv", "report.json"]
    again = bandit.Fit.load(tmp_path / "out")
    assert (again.policy == fit.policy).all()
    assert (again.problem.reward == fit.problem.reward).all()
    assert (again.problem.reference == fit.problem.reference).all()
    assert (again.problem.context_weights == fit.problem.context_weights).all()
    assert again.problem.beta == fit.problem.beta
    assert again.diagnostics == fit.diagnostics
    assert (again.method, again.arm_labels) == ("copg", tuple("abcd"))
    assert (again.theta is None) == (not features)
    pd.testing.assert_frame_equal(again.evaluate(log), fit.evaluate())
    with pytest.raises(ValueError, match="data: expected a Log or Counts, as a fit read"):
        again.evaluate()
    again.save(tmp_path / "twice")
    assert bandit.Fit.load(tmp_path / "twice").diagnostics == fit.diagnostics


def test_files_that_are_something_else_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"folder: expected policy\.csv and report"):
        bandit.Fit.load(tmp_path)
    bandit.fit(noisy_log(), beta=BETA).save(tmp_path)
    text = (tmp_path / "policy.csv").read_text()
    (tmp_path / "policy.csv").write_text(text.replace("a", "b", 1))
    with pytest.raises(ValueError, match="not of the same fit"):
        bandit.Fit.load(tmp_path)
    (tmp_path / "policy.csv").write_text(text)
    report = json.loads((tmp_path / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps({**report, "format": 99}))
    with pytest.raises(ValueError, match="expected format 1 or lower, got 99"):
        bandit.Fit.load(tmp_path)
    strange = Log(None, [0, 1], [1.0, 0.5], arm_labels=[("a", 1), ("b", 2)])
    with pytest.raises(TypeError, match="arm_labels: expected strings, numbers"):
        bandit.fit(strange, beta=1.0).save(tmp_path / "never")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": [1, 2]}, "data: expected a Log or Counts, got list"),
        ({"method": "cpog"}, "method: expected one of copg,"),
        ({"method": 3}, "method: expected a name, a bandit.presets.Method or a loss, got int"),
        ({"beta": 0.0}, "beta: expected a finite number above 0"),
        ({"reference": "uniformly"}, "reference: expected one of uniform, logging"),
        ({"reference": [0.5, 0.5]}, r"reference: expected shape \(K,\)"),
        ({"preference": "rows"}, "preference: expected None for copg"),
        ({"method": "ipo", "preference": "who"}, "preference: expected one of rows, bradley_terry"),
        (
            {"method": "ipo", "preference": "rows", "rewards": np.zeros(4)},
            "preference: expected 'bradley_terry' or an array with rewards other than",
        ),
        ({"rewards": "best"}, "rewards: expected one of mean, lower_confidence_bound"),
        ({"rewards": [1.0, 2.0]}, r"rewards: expected shape \(K,\)"),
        (
            {"rewards": np.zeros(4), "pairing": "consecutive", "data": consecutive_log()},
            "rewards: expected 'mean' with",
        ),
        ({"pairing": "some"}, "pairing: expected one of all, consecutive"),
        ({"solver": "fast"}, "solver: expected one of exact, minibatch"),
        ({"steps": 3}, "steps: expected None with solver='exact', got 3"),
        ({"rng": 3}, "rng: expected None with solver='exact', got 3"),
        ({"solver": "minibatch"}, "rng: expected a seed"),
        ({"solver": "minibatch", "rng": 0, "steps": 0}, "steps: expected a positive integer"),
        (
            {"method": "slic", "data": data.open_bandit("women", "random")},
            "solver: expected 'minibatch' for slic with more than 40 arms .* got 46",
        ),
        ({"policy": 3}, "policy: expected bandit.LogLinear or None, got int"),
        ({"data": noisy_log().counts(), "solver": "minibatch", "rng": 0}, "data: expected a Log"),
        ({"data": noisy_log().counts(), "pairing": "consecutive"}, "pairing: expected 'all'"),
        ({"data": noisy_log(31), "pairing": "consecutive"}, "pairing: expected an even number"),
        (
            {"data": noisy_log(32), "pairing": "consecutive"},
            "to have the same context, got",
        ),
    ],
)
def test_wrong_arguments_are_one_clear_line(change, message):
    given = {"data": noisy_log(), "method": "copg", "beta": BETA} | change
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        bandit.fit(given.pop("data"), given.pop("method"), **given)
    assert "\n" not in str(caught.value)
