"""Sampled training against exact enumeration.

One step of ``SGD(1)`` moves the logits by minus the gradient of one batch; thousands of runs are
thousands of such gradients, whose mean and covariance the oracles know. Seeds are fixed; where a
test is statistical, its limit is a z-score of 5 per number looked at: with a fresh seed a sound
program fails one such comparison in 1.7 million, and there are a few thousand.
"""

from __future__ import annotations

import functools
import io
import sys

import numpy as np
import oracles
import pytest

import bandit
from bandit import batches, descent, gradients, groups, losses, presets
from bandit.losses import Group, Score

RUNS = 2000
Z = 5.0


def contextual() -> bandit.Bandit:
    rng = np.random.default_rng(11)
    return bandit.Bandit(
        rng.normal(size=(2, 4)) * [[1.0], [2.0]],
        0.7,
        rng.dirichlet(np.full(4, 3.0), size=2),
        [0.3, 0.7],
    )


PROBLEM = contextual()
MU = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.35, 0.05, 0.2]])
PREFERENCE = bandit.preferences.bradley_terry(PROBLEM.reward, scale=1.3)
LOGITS = PROBLEM.log_reference + np.random.default_rng(3).normal(size=(2, 4)) * 0.5
NU = np.random.default_rng(4).dirichlet(np.full(16, 1.0), size=2).reshape(2, 4, 4)
BASELINE = np.array([0.5, -1.0])


def product(mu: np.ndarray) -> np.ndarray:
    return mu[..., :, None] * mu[..., None, :]


def one_batch(loss, **options) -> np.ndarray:
    """The gradient of one batch, for every run, (RUNS, X·K)."""
    settings = {
        "pairs": bandit.pairs.independent(MU),
        "batch_size": 6,
        "rng": 1,
        "preference": PREFERENCE,
        "start": LOGITS,
        "runs": RUNS,
    } | options
    history = bandit.train(PROBLEM, loss, steps=1, optimizer=bandit.SGD(1.0), **settings)
    return (history.logits[0] - history.logits[1]).reshape(settings["runs"], -1)


def moments(loss, nu=None, mu=None, baseline=None, group_size=2, preference=PREFERENCE):
    """Mean (X·K,) and covariance (X·K, X·K) of the gradient of one group, context drawn too."""
    found = oracles.group_gradients(
        PROBLEM,
        groups.bind(loss, PROBLEM, baseline),
        LOGITS,
        nu,
        preference if group_size == 2 else None,
        baseline,
        mu=mu,
        group_size=group_size,
    )
    mean, square = np.zeros(8), np.zeros((8, 8))
    for x, rho, probability, _, slope in found:
        g = np.zeros((2, 4))
        g[x] = slope
        mean += rho * probability * g.ravel()
        square += rho * probability * np.outer(g, g)
    return mean, square - np.outer(mean, mean)


def assert_mean(samples: np.ndarray, mean: np.ndarray, covariance: np.ndarray | None = None):
    variance = samples.var(axis=0, ddof=1) if covariance is None else np.diag(covariance)
    error = np.sqrt(variance / len(samples)) + 1e-12
    assert (np.abs(samples.mean(axis=0) - mean) < Z * error).all()


def assert_covariance(samples: np.ndarray, covariance: np.ndarray):
    centered = samples - samples.mean(axis=0)
    products = centered[:, :, None] * centered[:, None, :]
    error = products.std(axis=0, ddof=1) / np.sqrt(len(samples)) + 1e-12
    assert (np.abs(np.cov(samples.T) - covariance) < Z * error).all()


@pytest.fixture(params=["tables", "multinomial", "one by one"])
def way(request, monkeypatch):
    """Each way to draw the same batches."""
    if request.param == "one by one":
        monkeypatch.setattr(batches, "MOST_CELLS", 0)
    if request.param == "multinomial":
        monkeypatch.setattr(batches, "MOST_TABLE_ENTRIES", 0)
    return request.param


# --------------------------------------------------------- the gradient of a batch, in distribution


@pytest.mark.parametrize("name", presets.METHODS)
def test_batches_have_the_mean_and_covariance_of_groups(name, way):
    method = presets.METHODS[name]
    samples = one_batch(method.loss, baseline=method.baseline, preference_labels="probability")
    mean, covariance = moments(method.loss, nu=product(MU), baseline=method.baseline)
    assert_mean(samples, mean, covariance / 6)
    assert_covariance(samples, covariance / 6)


@pytest.mark.parametrize("loss", [losses.dpo, losses.ipo, losses.slic])
def test_sampled_labels_add_their_variance(loss, way):
    samples = one_batch(loss)
    mean, of_probability = moments(loss, nu=product(MU))
    # A label is a preference that is always certain: mix the two kinds of pair.
    sure, square = np.zeros(8), np.zeros((8, 8))
    for label in (0.0, 1.0):
        found = oracles.group_gradients(
            PROBLEM,
            labeled(groups.bind(loss, PROBLEM), label),
            LOGITS,
            product(MU),
            PREFERENCE,
        )
        for x, rho, probability, value, slope in found:
            p = value if label else 1 - value
            g = np.zeros((2, 4))
            g[x] = slope
            sure += rho * probability * p * g.ravel()
            square += rho * probability * p * np.outer(g, g)
    np.testing.assert_allclose(sure, mean, atol=1e-12)
    covariance = square - np.outer(sure, sure)
    assert np.trace(covariance) > 1.05 * np.trace(of_probability)
    assert_mean(samples, mean, covariance / 6)
    assert_covariance(samples, covariance / 6)


def labeled(loss, label):
    """The loss at a certain label, handing the probability of the preference on as its value."""

    def wrapped(group: Group) -> Score:
        score = loss(group._replace(preference=np.asarray(label)))
        return Score(group.preference, score.weight)

    return wrapped


@pytest.mark.parametrize("nu", ["dense", "shared", "sparse", "unequal"])
def test_pairs_of_every_kind(nu, way):
    from scipy import sparse

    shared = NU[0]
    pairs, dense = {
        "dense": (NU, NU),
        "shared": (bandit.pairs.from_counts(shared * 7), np.stack([shared, shared])),
        "sparse": (sparse.csr_array(np.triu(shared) / np.triu(shared).sum()), None),
        "unequal": (bandit.pairs.independent(MU, MU[::-1]), MU[..., None] * MU[::-1][:, None, :]),
    }[nu]
    if dense is None:
        dense = np.stack([np.triu(shared) / np.triu(shared).sum()] * 2)
    for loss in (losses.copg, losses.importance_sampling):
        samples = one_batch(loss, pairs=pairs)
        mean, covariance = moments(loss, nu=dense)
        assert_mean(samples, mean, covariance / 6)
        assert_covariance(samples, covariance / 6)


@pytest.mark.parametrize(
    ("loss", "size"), [(losses.copg, 3), (losses.policy_gradient, 1), (losses.grpo, 4)]
)
def test_larger_and_smaller_groups(loss, size, way):
    samples = one_batch(loss, group_size=size, batch_size=8)
    mean, covariance = moments(loss, mu=MU, group_size=size)
    assert_mean(samples, mean, covariance / 8)
    assert_covariance(samples, covariance / 8)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("copg", 2),
        ("copg", 3),
        ("policy_gradient_value", 1),
        ("importance_sampling", 2),
        ("dpo", 2),
        ("policy_gradient_behavior", 2),
        ("pmd_mean", 2),
        ("optimal_advantage", 1),
    ],
)
def test_on_policy_batches_are_drawn_from_the_policy(name, size, way):
    method = presets.METHODS[name]
    policy = np.exp(oracles.log_softmax(LOGITS))
    samples = one_batch(
        method.loss,
        pairs=None,
        on_policy=True,
        group_size=size,
        baseline=method.baseline,
        preference_labels="probability",
    )
    mean, covariance = moments(
        method.loss,
        nu=product(policy) if size == 2 else None,
        mu=None if size == 2 else policy,
        baseline=method.baseline,
        group_size=size,
    )
    assert_mean(samples, mean, covariance / 6)
    assert_covariance(samples, covariance / 6)


def test_on_policy_copg_ascends_the_objective():
    policy = np.exp(oracles.log_softmax(LOGITS))
    gradient = oracles.central_differences(
        lambda x: float(PROBLEM.objective(np.exp(oracles.log_softmax(x)))), LOGITS
    )
    samples = one_batch(losses.copg, pairs=None, on_policy=True, batch_size=50)
    assert policy.shape == gradient.shape
    assert_mean(samples, -2 * np.ravel(gradient))


@pytest.mark.parametrize("baseline", [0.8, BASELINE])
def test_given_baselines(baseline, way):
    samples = one_batch(losses.policy_gradient, baseline=baseline)
    mean, covariance = moments(losses.policy_gradient, nu=product(MU), baseline=baseline)
    assert_mean(samples, mean, covariance / 6)
    assert_covariance(samples, covariance / 6)


@pytest.mark.parametrize("loss", [losses.copg, losses.policy_gradient, losses.importance_sampling])
def test_reward_noise_adds_variance_only(loss, way):
    scale, size = 1.5, 6
    samples = one_batch(loss, reward_noise=scale, batch_size=size)
    mean, covariance = moments(loss, nu=product(MU))
    # The gradient of a group moves by its slope in each reward, times the noise.
    extra = np.zeros((8, 8))
    for member in (0, 1):
        up = moments_by_reward(loss, member)
        extra += scale**2 * up
    assert_mean(samples, mean, (covariance + extra) / size)
    assert_covariance(samples, (covariance + extra) / size)


def moments_by_reward(loss, member: int) -> np.ndarray:
    """E of the outer square of d gradient / d reward of one member of a pair."""
    bound = groups.bind(loss, PROBLEM)

    def slope(group: Group) -> Score:
        unit = np.zeros(2)
        unit[member] = 1.0
        more = bound(group._replace(reward=group.reward + unit))
        return Score(more.value, more.weight - bound(group).weight)

    square = np.zeros((8, 8))
    for x, rho, probability, _, g in oracles.group_gradients(PROBLEM, slope, LOGITS, product(MU)):
        full = np.zeros((2, 4))
        full[x] = g
        square += rho * probability * np.outer(full, full)
    return square


def test_noise_goes_through_a_loss_that_is_not_affine_in_it():
    samples = one_batch(losses.reward_weighted, reward_noise=0.4, batch_size=20)
    assert isinstance(
        gradients.learner(task_of(losses.reward_weighted)._replace(noise=0.4)), gradients.Drawn
    )
    mean, _ = moments(losses.reward_weighted, nu=product(MU))
    # E exp(noise / β) of a Gaussian.
    assert_mean(samples, mean * np.exp((0.4 / PROBLEM.beta) ** 2 / 2))


def test_noise_has_a_stream_of_its_own():
    quiet = one_batch(losses.copg, runs=5)
    noisy = one_batch(losses.copg, runs=5, reward_noise=1e-9)
    assert 0 < np.abs(quiet - noisy).max() < 1e-7


def test_log_linear_policies_pull_the_gradient_back():
    features = np.random.default_rng(8).normal(size=(2, 4, 3))
    policy = bandit.LogLinear(features)
    theta = np.array([0.3, -0.2, 0.5])
    for loss in (losses.copg, losses.dpo, losses.policy_gradient):
        history = bandit.train(
            PROBLEM,
            loss,
            pairs=NU,
            preference=PREFERENCE,
            preference_labels="probability",
            batch_size=64,
            steps=1,
            optimizer=bandit.SGD(1.0),
            runs=RUNS,
            rng=5,
            policy=policy,
            start=theta,
        )
        samples = history.theta[0] - history.theta[1]
        _, by_logits = oracles.population(
            PROBLEM, groups.bind(loss, PROBLEM), features @ theta, NU, PREFERENCE
        )
        assert_mean(samples, np.einsum("xkd,xk->d", features, by_logits))
        np.testing.assert_allclose(
            history.logits, np.einsum("xkd,trd->trxk", features, history.theta), atol=1e-12
        )


# ------------------------------------------------------------ the gradient of a batch, exactly


def task_of(loss, baseline=None, labels=False, policy=None) -> gradients.Task:
    loss = groups.bind(loss, PROBLEM, baseline)
    return gradients.Task(
        where=groups.setting(PROBLEM, loss, NU, PREFERENCE, baseline),
        loss=loss,
        context_weights=PROBLEM.context_weights,
        group_size=2,
        batch_size=10,
        on_policy=False,
        labels=labels,
        noise=0.0,
        features=None if policy is None else policy.features.reshape(8, -1),
    )


@pytest.mark.parametrize(
    ("name", "labels"),
    [(name, False) for name in presets.METHODS] + [(name, True) for name in ("ipo", "dpo", "slic")],
)
def test_expected_counts_give_the_population_gradient(name, labels):
    method = presets.METHODS[name]
    learner = gradients.Listed(task_of(method.loss, method.baseline, labels))
    counts = 10 * learner.cells.probability[:, None]
    found = learner.gradient(LOGITS.reshape(8, 1), (counts, None))
    _, expected = oracles.population(
        PROBLEM,
        groups.bind(method.loss, PROBLEM, method.baseline),
        LOGITS,
        NU,
        PREFERENCE,
        method.baseline,
    )
    np.testing.assert_allclose(found.ravel(), expected.ravel(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", [losses.copg, losses.ipo, losses.rebel, losses.log_variance])
@pytest.mark.parametrize("log_linear", [False, True])
def test_affine_losses_keep_their_gradient(loss, log_linear):
    policy = None
    theta = np.random.default_rng(2).normal(size=(8, 16))
    if log_linear:
        policy = bandit.LogLinear(np.random.default_rng(9).normal(size=(2, 4, 3)))
        theta = theta[:3]
    task = task_of(loss, policy=policy)
    quick, plain = gradients.learner(task), gradients.Listed(task)
    assert isinstance(quick, gradients.Affine)
    counts = np.random.default_rng(0).poisson(3.0, size=(len(plain.cells.members), 16)) * 1.0
    np.testing.assert_allclose(
        quick.gradient(theta, counts), plain.gradient(theta, (counts, None)), atol=1e-12
    )


def test_affine_weights_keep_their_digits_at_extreme_scales():
    problem = bandit.Bandit([3e8, -1e8, 2e8], 1e-8)
    loss = groups.bind(losses.copg, problem)
    task = gradients.Task(
        groups.setting(problem, loss, bandit.pairs.independent([0.2, 0.3, 0.5])),
        loss,
        np.ones(1),
        2,
        10,
        False,
        False,
        0.0,
        None,
    )
    learner = gradients.learner(task)
    at_solution = (problem.log_reference + problem.reward / problem.beta)[:, None]
    counts = np.full((3, 1), 5.0)
    start = np.abs(learner.gradient(problem.log_reference[:, None], counts)).max()
    assert np.abs(learner.gradient(at_solution, counts)).max() < 1e-15 * 1e1 * start


@pytest.mark.parametrize("loss", ["copg", "dpo", "policy_gradient"])
def test_extreme_rewards_train_without_a_warning(loss):
    problem = bandit.Bandit([1e160, -1e160, 0.0], 1e160, [0.2, 0.3, 0.5])
    history = bandit.train(
        problem,
        loss,
        pairs=bandit.pairs.independent([1e-300, 0.5, 0.5]),
        preference=bandit.preferences.deterministic(problem.reward),
        batch_size=16,
        steps=20,
        # Adam would square gradients of 1e160.
        optimizer=bandit.SGD(1e-161),
        rng=0,
    )
    assert np.isfinite(history.logits).all()
    assert (history.logits[-1] != history.logits[0]).any()


def test_the_draw_of_counts_is_multinomial():
    p = np.array([0.05, 0.25, 0.0625])
    cells = batches.Cells(np.zeros((3, 2), int), p, Group(None, None), complete=False)
    counts = batches.Counts(cells, 9)
    assert counts.tables is not None
    table = counts.draw(np.random.default_rng(7).spawn(20), 5000)  # (S, C, R)
    from scipy.stats import binom

    for j in range(3):
        seen = np.bincount(table[:, j].astype(int).ravel(), minlength=10) / 100_000
        expected = binom.pmf(np.arange(10), 9, p[j])
        assert (np.abs(seen - expected) < Z * np.sqrt(expected / 100_000) + 1e-4).all()
    flat = table.transpose(0, 2, 1).reshape(-1, 3)
    assert_covariance(flat, 9 * (np.diag(p) - np.outer(p, p)))
    assert (flat.sum(axis=1) <= 9).all()


# --------------------------------------------------------------------- where training arrives


@pytest.mark.parametrize("name", ["copg", "rloo", "policy_gradient", "policy_gradient_value"])
def test_runs_end_around_the_exact_solution(name):
    problem, mu = presets.three_armed_bandit(), presets.three_armed_behavior()
    method, pairs = presets.METHODS[name], bandit.pairs.independent(mu)
    solution = bandit.analysis.solve(problem, method.loss, pairs, baseline=method.baseline)
    history = bandit.train(
        problem,
        method.loss,
        pairs=pairs,
        baseline=method.baseline,
        batch_size=1000,
        steps=3000,
        optimizer=bandit.SGD(0.1),
        runs=20,
        rng=0,
    )
    assert np.abs(history.policy()[-1].mean(axis=0) - solution.policy).max() < 5e-3
    assert np.abs(history.policy()[0] - problem.reference).max() < 1e-12


@pytest.mark.parametrize("name", ["ipo", "dpo"])
def test_preference_methods_end_around_their_solutions(name):
    problem, mu = presets.three_armed_bandit(), presets.three_armed_behavior()
    method, pairs = presets.METHODS[name], bandit.pairs.independent(mu)
    preference = bandit.preferences.bradley_terry(problem.reward)
    solution = bandit.analysis.solve(problem, method.loss, pairs, preference=preference)
    history = bandit.train(
        problem,
        method.loss,
        pairs=pairs,
        preference=preference,
        batch_size=4000,
        steps=4000,
        optimizer=bandit.Adam(0.003),
        runs=20,
        rng=0,
    )
    assert np.abs(history.policy()[-1].mean(axis=0) - solution.policy).max() < 5e-3


def test_copg_without_noise_converges_to_the_optimum_off_policy():
    """At π* every pair's CoPG weight is 0, so the sampled gradient vanishes too."""
    problem = contextual()
    history = bandit.train(
        problem,
        losses.copg,
        pairs=bandit.pairs.independent(MU),
        batch_size=16,
        steps=6000,
        optimizer=bandit.SGD(0.5),
        runs=3,
        rng=0,
    )
    assert history.regret()[-1].max() < 1e-12
    assert history.regret()[0].min() > 0.1


def test_many_arms_are_drawn_one_by_one():
    rng = np.random.default_rng(0)
    problem = bandit.Bandit(rng.normal(size=3000), 1.0, rng.dirichlet(np.full(3000, 2.0)))
    mu = rng.dirichlet(np.full(3000, 1.0))
    history = bandit.train(
        problem,
        "copg",
        pairs=bandit.pairs.independent(mu),
        batch_size=64,
        steps=1,
        optimizer=bandit.SGD(1.0),
        runs=RUNS,
        rng=0,
    )
    # Population gradient of CoPG for independent pairs, written out in O(K); seen from 20 sides, as
    # a single arm is drawn too rarely for its mean to be normal.
    expected = -2 * mu * (problem.reward - mu @ problem.reward)
    sides = rng.normal(size=(3000, 20))
    assert_mean((history.logits[0] - history.logits[1]) @ sides, expected @ sides)
    assert np.linalg.norm(expected @ sides) > 0.1


# ------------------------------------------------------------------------------------- seeds


def trained(**options) -> bandit.History:
    settings = {
        "pairs": bandit.pairs.independent(MU),
        "preference": PREFERENCE,
        "batch_size": 6,
        "steps": 40,
        "optimizer": bandit.Adam(0.02),
        "runs": 3,
        "rng": 1,
        "record_every": 10,
    } | options
    problem, loss = settings.pop("problem", PROBLEM), settings.pop("loss", losses.copg)
    return bandit.train(problem, loss, **settings)


MANY_ARMS = bandit.Bandit(np.random.default_rng(6).normal(size=(2, 50)), 0.5)
AMONG_MANY = {
    "problem": MANY_ARMS,
    "pairs": bandit.pairs.independent(np.random.default_rng(7).dirichlet(np.ones(50))),
    "preference": bandit.preferences.bradley_terry(MANY_ARMS.reward),
}
KINDS = {
    "affine": {},
    "multinomial": {"batch_size": 5000},
    "listed": {"loss": losses.dpo},
    "baseline": {"loss": losses.policy_gradient, "baseline": "value"},
    "noise": {"reward_noise": 1.0},
    "one by one": {"loss": losses.reward_weighted, "reward_noise": 0.1},
    "on-policy": {"pairs": None, "on_policy": True},
    "sparse": {**AMONG_MANY, "batch_size": 3000},
    "sparse, listed": {**AMONG_MANY, "loss": losses.importance_sampling, "batch_size": 3000},
    "one by one, many arms": {**AMONG_MANY, "loss": losses.dpo},
    "one by one, summed": {**AMONG_MANY, "loss": losses.policy_gradient, "baseline": "value"},
    "log-linear": {"policy": bandit.LogLinear(np.random.default_rng(1).normal(size=(2, 4, 3)))},
    "log-linear, listed": {
        "loss": losses.dpo,
        "policy": bandit.LogLinear(np.random.default_rng(1).normal(size=(2, 4, 3))),
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_numbers_for_any_number_of_runs(kind):
    many = trained(runs=33, **KINDS[kind])
    for runs in (1, 2, 3, 8, 17):
        few = trained(runs=runs, **KINDS[kind])
        assert np.array_equal(few.logits, many.logits[:, :runs])
    assert not np.array_equal(many.logits[-1, 0], many.logits[-1, 1])
    other = trained(runs=3, **KINDS[kind] | {"rng": 2})
    assert not np.array_equal(other.logits[-1], many.logits[-1, :3])


def test_a_single_run_among_many_arms_has_the_same_numbers():
    rng = np.random.default_rng(0)
    problem = bandit.Bandit(rng.normal(size=5000), 1.0)
    pairs = bandit.pairs.independent(rng.dirichlet(np.ones(5000)))

    def logits(runs):
        return bandit.train(
            problem,
            "importance_sampling",
            pairs=pairs,
            batch_size=40,
            steps=10,
            optimizer=bandit.Adam(0.1),
            runs=runs,
            rng=4,
        ).logits

    assert np.array_equal(logits(1), logits(5)[:, :1])


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_do_not_depend_on_records_chunks_or_progress(kind, monkeypatch):
    plain = trained(**KINDS[kind])
    dense = trained(record_every=1, progress=lambda step, steps: None, **KINDS[kind])
    assert np.array_equal(plain.logits, dense.logits[::10])
    monkeypatch.setattr(descent, "CHUNK_STEPS", 7)
    assert np.array_equal(plain.logits, trained(**KINDS[kind]).logits)


def test_generators_and_seed_sequences():
    of_seed = trained(rng=9).logits
    assert np.array_equal(of_seed, trained(rng=np.random.default_rng(9)).logits)
    assert np.array_equal(of_seed, trained(rng=np.random.SeedSequence(9)).logits)
    generator = np.random.default_rng(9)
    assert np.array_equal(of_seed, trained(rng=generator).logits)
    assert not np.array_equal(of_seed, trained(rng=generator).logits)


def test_the_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    trained()
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


# ------------------------------------------------------------------ options, progress, trouble


def test_records_are_at_the_start_every_so_often_and_at_the_end():
    assert trained(steps=25).steps.tolist() == [0, 10, 20, 25]
    assert trained(steps=30).steps.tolist() == [0, 10, 20, 30]
    assert trained(steps=3).steps.tolist() == [0, 3]
    assert len(trained(steps=1000, record_every=None).steps) == 201
    assert np.array_equal(trained(steps=25).logits[2], trained(steps=20).logits[2])


def test_starts():
    start = np.random.default_rng(0).normal(size=(3, 2, 4))
    assert np.array_equal(trained(start=start).logits[0], start)
    assert np.array_equal(trained(start=start[0]).logits[0], np.stack([start[0]] * 3))
    assert np.array_equal(trained().logits[0, 0], PROBLEM.log_reference)


def test_losses_by_name_with_hyper_parameters_and_of_ones_own():
    assert np.array_equal(trained(loss="copg").logits, trained().logits)
    twice = trained(loss=functools.partial(losses.copg, beta=1.4))
    assert not np.array_equal(twice.logits, trained().logits)
    assert twice.settings["hyper"] == {"beta": 1.4}

    def own(group: Group) -> Score:
        return losses.dpo(group, beta=PROBLEM.beta)

    assert trained(loss=own).method == "own"
    step = one_batch(own, preference_labels="probability", batch_size=40)
    assert_mean(step, moments(losses.dpo, nu=product(MU))[0])


def test_impossible_pairs_count_for_nothing():
    mu = np.array([0.5, 0.5, 0.0, 0.0])
    for options in ({}, {"loss": losses.reward_weighted, "reward_noise": 0.1}):
        settings = {"loss": losses.importance_sampling} | options
        history = trained(pairs=bandit.pairs.independent(mu), steps=200, **settings)
        assert np.isfinite(history.logits).all()
    drawn = trained(pairs=bandit.pairs.independent(mu), loss=losses.copg)
    assert np.array_equal(
        drawn.logits[-1, :, :, 2:], np.broadcast_to(PROBLEM.log_reference[:, 2:], (3, 2, 2))
    )


def test_an_infinite_weight_that_is_never_drawn_counts_for_nothing(way):
    mu, start = np.array([1e-30, 0.3, 0.4, 0.3]), PROBLEM.log_reference.copy()
    start[:, 0] -= 800.0
    for options in ({}, {"on_policy": True, "pairs": None}):
        settings = {"pairs": bandit.pairs.independent(mu), "loss": losses.grpo, "start": start}
        history = trained(**settings | options)
        assert np.isfinite(history.logits).all()
        assert np.abs(history.logits[-1] - start).max() > 0.01


@pytest.mark.parametrize("options", [{}, {"reward_noise": 1.0}, {"loss": losses.dpo}])
def test_arms_compared_with_themselves_teach_nothing(options, way):
    history = trained(pairs=np.eye(4) / 4, optimizer=bandit.SGD(0.1), **options)
    assert np.abs(history.logits - PROBLEM.log_reference).max() < 1e-13


@pytest.mark.parametrize("name", presets.METHODS)
@pytest.mark.parametrize("on_policy", [False, True])
def test_a_single_arm_keeps_its_probability(name, on_policy):
    history = bandit.train(
        bandit.Bandit([2.0], 1.0),
        presets.METHODS[name].loss,
        pairs=None if on_policy else bandit.pairs.independent([1.0]),
        on_policy=on_policy,
        preference=[[0.5]],
        baseline=presets.METHODS[name].baseline,
        batch_size=4,
        steps=3,
        optimizer=bandit.Adam(0.1),
        rng=0,
    )
    assert (history.policy() == 1.0).all()


def test_the_highest_uniform_number_falls_on_the_last_possible_arm():
    rungs = batches.ladder(np.array([[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]]))
    top = np.nextafter(1.0, 0.0)
    assert [batches.climb(rungs, 2, row, np.array(top)) for row in (0, 1)] == [1, 1]
    assert [batches.climb(rungs, 2, row, np.array(0.0)) for row in (0, 1)] == [0, 0]


def test_progress_tells_the_last_step():
    seen = []
    trained(steps=700, progress=lambda step, steps: seen.append((step, steps)))
    assert seen[-1] == (700, 700)
    assert [step for step, _ in seen] == sorted({step for step, _ in seen})


def test_a_bar_only_where_it_is_asked_for(monkeypatch):
    for progress, shown in ((True, True), (False, False), (None, False)):
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        trained(progress=progress)
        assert ("40/40" in stream.getvalue()) is shown


@pytest.mark.parametrize("kind", ["affine", "on-policy", "one by one"])
def test_an_interrupt_returns_what_was_recorded(kind, monkeypatch):
    monkeypatch.setattr(descent, "CHUNK_STEPS", 10)

    def stop(step, steps):
        if step == 20:
            raise KeyboardInterrupt

    with pytest.warns(RuntimeWarning, match=r"interrupted; records until step 20 of 40") as caught:
        part = trained(progress=stop, **KINDS[kind])
    assert caught[0].filename == __file__.replace(".pyc", ".py")
    whole = trained(**KINDS[kind])
    assert part.interrupted
    assert not whole.interrupted
    assert part.steps.tolist() == [0, 10, 20]
    assert np.array_equal(part.logits, whole.logits[:3])


DIVERGING = {
    "affine": {"optimizer": bandit.SGD(1e5)},
    "listed": {"optimizer": bandit.SGD(1e5), "loss": losses.policy_gradient},
    "one by one": {"optimizer": bandit.SGD(1e5), "loss": losses.grpo, "reward_noise": 1.0},
    "on-policy": {
        "optimizer": bandit.SGD(1e308),
        "loss": functools.partial(losses.copg, beta=1e3),
        "on_policy": True,
        "pairs": None,
    },
}


@pytest.mark.parametrize("kind", DIVERGING)
def test_divergence_is_told_and_the_records_are_kept(kind):
    with pytest.warns(RuntimeWarning, match=r"3 of 3 runs diverged \(0, 1, 2\)") as caught:
        history = trained(steps=800, start=LOGITS, **DIVERGING[kind])
    lost = ~np.isfinite(history.logits).all(axis=(2, 3))
    first = history.steps[lost.any(axis=1)][0]
    assert f"from the record at step {first} on" in str(caught[0].message)
    assert history.steps[-1] == 800
    assert np.isfinite(history.regret()[0]).all()
    assert np.isnan(history.regret()[-1]).all()


def test_one_diverging_run_leaves_the_others_alone():
    start = np.stack([PROBLEM.log_reference] * 3)
    plain = trained(loss=losses.grpo, start=start)
    start[1, :, 0] = -800.0
    with pytest.warns(RuntimeWarning, match=r"1 of 3 runs diverged \(1\)"):
        history = trained(loss=losses.grpo, start=start)
    assert np.array_equal(history.logits[:, [0, 2]], plain.logits[:, [0, 2]])
    assert np.isnan(history.kl()[-1]).tolist() == [False, True, False]


def test_cost_does_not_grow_with_the_batch():
    """By what is drawn and held, not by the clock."""
    small, large = (
        gradients.Listed(task_of(losses.dpo)._replace(batch_size=n)).numbers for n in (10**2, 10**6)
    )
    assert small == large
    assert batches.worth_listing(task_of(losses.dpo).where, losses.dpo, 2, 10**6)


BAD = {
    "batch_size": ({"batch_size": 0}, ValueError, "batch_size: expected a positive integer, got 0"),
    "batch_size float": ({"batch_size": 2.5}, TypeError, "batch_size: expected a positive int"),
    "steps": ({"steps": -1}, ValueError, "steps: expected a positive integer, got -1"),
    "runs": ({"runs": 0}, ValueError, "runs: expected a positive integer, got 0"),
    "record_every": ({"record_every": 0}, ValueError, "record_every: expected a positive integer"),
    "no pairs": ({"pairs": None}, ValueError, "pairs: expected bandit.pairs.independent"),
    "both": ({"on_policy": True}, ValueError, "pairs: expected None with on_policy=True"),
    "pairs": ({"pairs": np.ones((3, 3)) / 9}, ValueError, "pairs: expected shape"),
    "preference": ({"loss": losses.dpo, "preference": None}, ValueError, "preference: expected"),
    "labels": ({"preference_labels": "both"}, ValueError, "preference_labels: expected one of"),
    "group": ({"group_size": 1}, ValueError, "group_size: expected at least 2 for copg, got 1"),
    "pairs only": ({"loss": "dpo", "group_size": 3}, ValueError, "group_size: expected 2 for dpo"),
    "dependent": ({"pairs": NU, "group_size": 3}, ValueError, "group_size: expected 2 unless"),
    "optimizer": ({"optimizer": 0.1}, TypeError, "optimizer: expected bandit.Adam"),
    "class": ({"optimizer": bandit.Adam}, TypeError, "got the class Adam"),
    "rng": ({"rng": None}, TypeError, "rng: expected a seed, SeedSequence or Generator"),
    "legacy": ({"rng": np.random.RandomState(0)}, TypeError, "rng: expected"),
    "seed": ({"rng": -1}, ValueError, "rng: expected a seed of at least 0, got -1"),
    "noise": ({"reward_noise": -0.1}, ValueError, "reward_noise: expected a finite number of at"),
    "noise type": ({"reward_noise": "1"}, TypeError, "reward_noise: expected a number of at least"),
    "policy": ({"policy": np.ones((4, 2))}, TypeError, "policy: expected bandit.LogLinear or None"),
    "features": ({"policy": bandit.LogLinear(np.ones((3, 2)))}, ValueError, "features: expected"),
    "start": ({"start": np.zeros(4)}, ValueError, "start: expected shape"),
    "start nan": ({"start": np.full((2, 4), np.nan)}, ValueError, "start: expected finite"),
    "progress": ({"progress": "yes"}, TypeError, "progress: expected True, False or a function"),
    "baseline": ({"baseline": "value"}, ValueError, "baseline: expected None for copg"),
    "method": ({"loss": "copgg"}, ValueError, "method: expected one of"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line(case):
    options, kind, message = BAD[case]
    with pytest.raises(kind) as caught:
        trained(**options)
    assert str(caught.value).startswith(message) or message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_names_raise():
    with pytest.raises(TypeError, match="unexpected keyword"):
        trained(batchsize=3)


# ---------------------------------------------------------------------------------- optimizers


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (bandit.SGD(0.1), ("SGD", {"lr": 0.1})),
        (bandit.SGD(0.03, momentum=0.9), ("SGD", {"lr": 0.03, "momentum": 0.9})),
        (bandit.Adam(0.02), ("Adam", {"lr": 0.02})),
        (
            bandit.Adam(0.1, beta1=0.7, beta2=0.9, eps=1e-3),
            ("Adam", {"lr": 0.1, "betas": (0.7, 0.9), "eps": 1e-3}),
        ),
        (bandit.Adam(0.1, beta1=0.0), ("Adam", {"lr": 0.1, "betas": (0.0, 0.999)})),
    ],
)
def test_optimizers_are_those_of_torch(ours, theirs):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(3, 5))
    mirror = torch.tensor(theta.copy(), requires_grad=True)
    name, options = theirs
    optimizer = getattr(torch.optim, name)([mirror], **options)
    update = ours.start(theta.shape)
    for _ in range(50):
        gradient = rng.normal(size=theta.shape) * rng.choice([1e-4, 1.0, 1e3])
        kept = gradient.copy()
        update(theta, gradient)
        assert np.array_equal(gradient, kept)
        mirror.grad = torch.tensor(gradient)
        optimizer.step()
    np.testing.assert_allclose(theta, mirror.detach().numpy(), rtol=1e-12, atol=1e-12)


def test_an_optimizer_starts_afresh_every_time():
    adam = bandit.Adam(0.1)
    first, again = np.zeros(3), np.zeros(3)
    adam.start((3,))(first, np.array([1.0, -2.0, 3.0]))
    adam.start((3,))(again, np.array([1.0, -2.0, 3.0]))
    assert np.array_equal(first, again)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: bandit.SGD(0.0), ValueError, "lr: expected a finite number above 0"),
        (lambda: bandit.SGD("1"), TypeError, "lr: expected a positive number"),
        (lambda: bandit.SGD(0.1, momentum=1.0), ValueError, r"momentum: expected a number in \[0"),
        (lambda: bandit.Adam(float("nan")), ValueError, "lr: expected a finite number above 0"),
        (lambda: bandit.Adam(0.1, beta1=-0.1), ValueError, "beta1: expected a number in"),
        (lambda: bandit.Adam(0.1, beta2="x"), TypeError, "beta2: expected a number in"),
        (lambda: bandit.Adam(0.1, eps=0.0), ValueError, "eps: expected a finite number above 0"),
    ],
)
def test_optimizers_check_their_numbers(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
