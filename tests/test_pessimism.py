"""Lower bounds, shrinkage and pessimistic policies, against definitions written out."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
from scipy import integrate, optimize, stats

import bandit
from bandit import data, pessimism
from bandit.data import Log, from_counts


def noisy_log(n=60, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.choice(2, size=n), (rng.random(n) ** 2 * 3).astype(int)
    x[:3], y[:3] = 0, [0, 0, 1]
    return Log(x, y, rng.normal(y - x, 0.5), context_labels="xyz", arm_labels="abcd")


SIMPLEX = {"method": "Nelder-Mead", "options": {"xatol": 1e-10, "fatol": 1e-12}}


# ------------------------------------------------------------------------------- lower bounds


def test_normal_bounds_are_means_less_z_pooled_standard_errors():
    log = noisy_log()
    bound = pessimism.lower_confidence_bound(log, level=0.9)
    cells = {
        (x, y): log.rewards[(log.contexts == x) & (log.arms == y)]
        for x in range(2)
        for y in range(3)
    }
    free = sum(len(rows) - 1 for rows in cells.values())
    pooled = sum(((rows - rows.mean()) ** 2).sum() for rows in cells.values()) / free
    for cell, rows in cells.items():
        reach = stats.norm.ppf(0.9) * np.sqrt(pooled / len(rows))
        assert bound[cell] == pytest.approx(rows.mean() - reach)
    lowest = min(bound[cell] for cell in cells)
    assert (bound[2] == lowest).all()
    assert (bound[:, 3] == lowest).all()
    assert np.isfinite(bound).all()


@pytest.mark.parametrize(("n", "ones"), [(1, 0), (7, 3), (400, 400), (1000, 4)])
def test_wilson_bound_solves_its_quadratic(n, ones):
    counts = from_counts([n, 5, 0], [ones, 2, 0])
    bound = pessimism.lower_confidence_bound(counts, level=0.975, kind="wilson")[0]
    interval = stats.binomtest(ones, n).proportion_ci(0.95, method="wilson")
    assert bound[0] == pytest.approx(interval.low, abs=1e-12)
    assert bound[2] == 0.0


def test_bernstein_bound_as_written():
    log = noisy_log()
    low, high = log.rewards.min() - 1, log.rewards.max() + 1
    bound = pessimism.lower_confidence_bound(log, kind="bernstein", level=0.9, bounds=(low, high))
    for x, y in itertools.product(range(2), range(3)):
        rows = log.rewards[(log.contexts == x) & (log.arms == y)]
        term = np.log(2 / 0.1)
        expected = rows.mean() - np.sqrt(2 * rows.var(ddof=1) * term / len(rows))
        expected -= 7 * (high - low) * term / (3 * (len(rows) - 1))
        assert bound[x, y] == pytest.approx(max(expected, low))
    assert (bound[2] == low).all()
    alone = Log(None, [0, 0, 1], [1.0, 0.5, 1.0])
    assert pessimism.lower_confidence_bound(alone, kind="bernstein", bounds=(0, 2))[0, 1] == 0


def test_bounds_cover_as_often_as_they_say():
    """Ten thousand cells: bound above the truth in 5 % of them, give or take four standard errors;
    Bernstein's, which holds for every n, in no more than that."""
    rng, n, truth = np.random.default_rng(5), 50, 0.3
    ones = rng.binomial(n, truth, size=10_000)
    counts = from_counts(np.full(10_000, n), ones)
    missed = {
        kind: (pessimism.lower_confidence_bound(counts, kind=kind) > truth).mean()
        for kind in pessimism.KINDS
    }
    assert missed["normal"] == pytest.approx(0.05, abs=0.025)  # discrete: steps of 2 %
    assert missed["wilson"] == pytest.approx(0.05, abs=0.025)
    assert missed["bernstein"] < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "exact"}, "kind: expected one of normal, wilson, bernstein"),
        ({"level": 1.0}, r"level: expected a number in \(0, 1\), got 1"),
        ({"kind": "wilson"}, "kind: expected 'wilson' only where rewards are 0 or 1"),
        ({"kind": "bernstein"}, "bounds: expected .lowest, highest. reward"),
        ({"bounds": (1.0, 0.0)}, "bounds: expected two rising numbers"),
        ({"bounds": (0.0, 0.1)}, "bounds: expected all rewards in"),
        ({"data": 3}, "data: expected a Log or Counts, got int"),
        ({"data": Log(None, [0, 1], [0.2, 0.4])}, "data: expected a cell with two rows"),
    ],
)
def test_wrong_arguments_of_bounds(change, message):
    given = {"data": noisy_log()} | change
    with pytest.raises((ValueError, TypeError), match=message):
        pessimism.lower_confidence_bound(given.pop("data"), **given)


# ---------------------------------------------------------------------------- empirical Bayes


def test_beta_prior_maximizes_the_marginal_likelihood():
    rng = np.random.default_rng(1)
    n = np.round(np.geomspace(2, 2000, 24)).reshape(2, 12)
    ones = rng.binomial(n.astype(int), rng.beta(2, 5, size=n.shape)).astype(float)
    n[0, 0], ones[0, 0] = 0, 0
    counts = from_counts(n, ones)

    def misfit(at):
        a, b = np.exp(at)
        return -stats.betabinom.logpmf(ones, n, a, b).sum()

    found = optimize.minimize(misfit, [0.0, 0.0], **SIMPLEX)
    a, b = np.exp(found.x)
    prior = pessimism.fit_prior(counts)
    assert isinstance(prior, pessimism.BetaPrior)
    assert prior.rows == pytest.approx(a + b, rel=1e-4)
    assert prior.mean == pytest.approx(a / (a + b), rel=1e-5)
    shrunk = pessimism.empirical_bayes(counts)
    assert shrunk == pytest.approx((a + ones) / (a + b + n), rel=1e-4)
    assert shrunk[0, 0] == pytest.approx(a / (a + b), rel=1e-4)
    # One posterior mean by quadrature.
    k, m = ones[0, 1], n[0, 1]
    weight = lambda t: t**k * (1 - t) ** (m - k) * stats.beta.pdf(t, a, b)  # noqa: E731
    mean = integrate.quad(lambda t: t * weight(t), 0, 1)[0] / integrate.quad(weight, 0, 1)[0]
    assert shrunk[0, 1] == pytest.approx(mean, rel=1e-4)


def test_normal_prior_maximizes_the_marginal_likelihood():
    rng = np.random.default_rng(2)
    y = rng.integers(0, 15, size=300)
    log = Log(None, y, rng.normal(rng.normal(1, 0.6, size=15)[y], 1.5), arm_labels=range(16))
    counts = log.counts()
    n = counts.n[0, :15]
    means = counts.reward[0, :15] / n
    within = sum(((log.rewards[y == k] - means[k]) ** 2).sum() for k in range(15)) / (300 - 15)

    def misfit(at):
        return -stats.norm.logpdf(means, at[0], np.sqrt(within / n + np.exp(at[1]))).sum()

    found = optimize.minimize(misfit, [0.0, 0.0], **SIMPLEX)
    center, rows = found.x[0], within / np.exp(found.x[1])
    prior = pessimism.fit_prior(log)
    assert prior.mean == pytest.approx(center, rel=1e-5)
    assert prior.rows == pytest.approx(rows, rel=1e-4)
    expected = (n * means + rows * center) / (n + rows)
    shrunk = pessimism.empirical_bayes(log)[0]
    assert shrunk[:15] == pytest.approx(expected, rel=1e-4)
    assert shrunk[15] == pytest.approx(center, rel=1e-4)
    assert pessimism.empirical_bayes(counts)[0] == pytest.approx(shrunk)


def test_cells_that_do_not_differ_all_get_the_same_reward():
    same = from_counts(np.full(20, 50), np.full(20, 7))
    assert np.isinf(pessimism.fit_prior(same).rows)
    assert pessimism.empirical_bayes(same) == pytest.approx(np.full((1, 20), 0.14))
    none = from_counts([30, 20], [0, 0])
    assert (pessimism.empirical_bayes(none) == 0).all()
    flat = Log(None, [0, 0, 1, 1], [1.0, 2.0, 2.0, 1.0])
    assert np.isinf(pessimism.fit_prior(flat).rows)
    assert pessimism.empirical_bayes(flat) == pytest.approx(np.full((1, 2), 1.5))
    exact = Log(None, [0, 0, 1, 1], [3.0, 3.0, 2.0, 2.0])
    assert pessimism.empirical_bayes(exact) == pytest.approx(np.array([[3.0, 2.0]]))
    with pytest.raises(ValueError, match="data: expected a cell with two rows"):
        pessimism.fit_prior(Log(None, [0, 1], [0.0, 1.0]))


def test_shrinkage_is_closer_to_the_truth_than_means():
    """Simulated cells with scatter: squared error lower in each of 12 logs (a sign test: 2e-4)."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        truth = rng.beta(4, 36, size=80)
        counts = from_counts(np.full(80, 30), rng.binomial(30, truth))
        error = ((pessimism.empirical_bayes(counts)[0] - truth) ** 2).sum()
        assert error < ((counts.reward[0] / 30 - truth) ** 2).sum()


@pytest.mark.parametrize("method", ["copg", "dpo", "policy_gradient", "reward_weighted"])
@pytest.mark.parametrize("name", ["lower_confidence_bound", "empirical_bayes"])
def test_every_objective_takes_transformed_rewards(method, name):
    counts = from_counts([[30, 5, 12, 0], [4, 9, 9, 3]], [[9, 4, 1, 0], [3, 1, 0, 2]])
    transform = getattr(pessimism, name)
    fit = bandit.fit(counts, method, beta=0.2, rewards=name)
    assert fit.problem.reward == pytest.approx(transform(counts))
    assert np.isfinite(fit.policy).all()
    plain = bandit.fit(counts, method, beta=0.2)
    assert np.abs(fit.policy - plain.policy).max() > 1e-3
    same = bandit.fit(counts, method, beta=0.2, rewards=functools.partial(transform))
    assert same.policy == pytest.approx(fit.policy, rel=1e-12)
    if method == "copg":
        tilted = np.exp(transform(counts) / 0.2)
        assert fit.policy == pytest.approx(tilted / tilted.sum(axis=-1, keepdims=True), rel=1e-12)


def test_the_semi_synthetic_logs_over_optimize():
    """At 1e5 rows what is learned from means earns less than the logger, and bounds or shrinkage
    keep more of it: on average over ten logs, by gaps of over three standard errors."""
    wilson = functools.partial(pessimism.lower_confidence_bound, level=0.99, kind="wilson")
    transforms = {"mean": "mean", "bound": wilson, "shrunk": "empirical_bayes"}
    earned = {name: np.zeros(10) for name in transforms}
    for seed in range(10):
        simulation = data.semi_synthetic("all", 100_000, seed)
        counts, logger = simulation.log.counts(), simulation.behavior
        for name, rewards in transforms.items():
            fit = bandit.fit(counts, beta=0.0005, reference=logger, rewards=rewards)
            earned[name][seed] = fit.policy[0] @ simulation.reward

    def surely_more(more, less):
        gap = more - less
        return gap.mean() > 3 * gap.std(ddof=1) / np.sqrt(10)

    assert surely_more(float(logger @ simulation.reward), earned["mean"])
    assert surely_more(earned["bound"], earned["mean"])
    assert surely_more(earned["shrunk"], earned["mean"])


# -------------------------------------------------------------------------- pessimistic policies


def logged(n, behavior, reward, rng):
    """Contexts uniform, arms from ``behavior`` (X, K), rewards 0 or 1 with means ``reward``."""
    rng = np.random.default_rng(rng)
    x = rng.integers(len(behavior), size=n)
    y = (behavior[x].cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    r = (rng.random(n) < reward[x, y]).astype(float)
    return Log(
        x, y, r, behavior[x, y],
        context_labels=range(len(behavior)), arm_labels=range(behavior.shape[1]),
    )  # fmt: skip


def written_out(log, behavior, arms, model):
    """Q̂, V_s, V_p and V_h of one deterministic policy, row by row."""
    n, value, s, p, h = len(log), 0.0, 0.0, 0.0, 0.0
    for x, y, r, e in zip(log.contexts, log.arms, log.rewards, log.propensities, strict=True):
        chosen = arms[x]
        value += model[x, chosen]
        if y == chosen:
            value += (r - model[x, chosen]) / e
            s += 1 / e**2
        p += 1 / behavior[x, chosen]
        h += 1 / behavior[x, chosen] ** 3
    return value / n, np.sqrt(s) / n, np.sqrt(p) / n, h**0.25 / n


BEHAVIOR = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
RATES = np.array([[0.5, 0.4, 0.9], [0.3, 0.6, 0.55]])


@pytest.mark.parametrize("c", [0.0, 0.4, 3.0])
@pytest.mark.parametrize("given", [True, False])
def test_pessimistic_policy_is_the_best_of_all_written_out(c, given):
    log = logged(80, BEHAVIOR, RATES, 3)
    model = np.array([[0.4, 0.5, 0.6], [0.2, 0.1, 0.7]])
    found = pessimism.pessimistic_policy(
        log, c=c, behavior=BEHAVIOR if given else None, model=model
    )
    scores = {}
    for arms in itertools.product(range(3), repeat=2):
        value, *terms = written_out(log, BEHAVIOR, arms, model)
        scores[arms] = value - c * max(terms), value, terms
    best = max(scores, key=lambda arms: scores[arms][0])
    assert tuple(found.arms) == best
    assert found.objective == pytest.approx(scores[best][0], rel=1e-9)
    assert found.value == pytest.approx(scores[best][1], rel=1e-9)
    assert found.terms == pytest.approx(scores[best][2], rel=1e-9)
    assert found.penalty == max(found.terms)
    assert found.n_policies == 9
    assert (found.policy == np.eye(3)[list(best)]).all()
    estimate = bandit.ope.doubly_robust(log, found.policy, model=model)
    assert found.value == pytest.approx(estimate.value)


def test_each_of_the_three_terms_can_be_the_largest():
    """V_h where a propensity is tiny and rows are few; V_s where a rare arm was drawn too often;
    V_p elsewhere."""
    largest = set()
    for n, e, hits in ((4, 0.01, 0), (50, 0.2, 30), (400, 0.2, 40)):
        rest = n - hits
        log = Log(None, [0] * hits + [1] * rest, [0.0] * n, [e] * hits + [1 - e] * rest)
        policy = pessimism.pessimistic_policy(
            log, [[0]], c=1.0, behavior=[e, 1 - e], model=np.zeros(2)
        )
        expected = written_out(log, np.array([[e, 1 - e]]), [0], np.zeros((1, 2)))[1:]
        assert policy.terms == pytest.approx(expected)
        largest.add(int(np.argmax(policy.terms)))
    assert largest == {0, 1, 2}


def test_pessimism_needs_only_the_best_policy_covered_where_greedy_weights_fail():
    """Twenty arms: the best (0.6) is logged with probability 0.9, the others (0.5) hardly ever. Of
    200 logs greedy IPW goes astray in more than 80 % and pessimism in less than 5 %."""
    behavior = np.array([[0.9, *np.full(19, 0.1 / 19)]])
    rates = np.array([[0.6, *np.full(19, 0.5)]])
    zero = np.zeros(20)
    wrong = {0.0: 0, 2.0: 0}
    for seed in range(200):
        log = logged(500, behavior, rates, seed)
        for c in wrong:
            found = pessimism.pessimistic_policy(log, c=c, behavior=behavior, model=zero)
            wrong[c] += int(found.arms[0] != 0)
    assert wrong[0.0] > 160
    assert wrong[2.0] < 10


def test_a_given_class_and_cells_never_seen():
    log = Log([0, 0, 1, 1], [0, 1, 0, 0], [0.0, 1.0, 1.0, 0.0], [0.5, 0.5, 0.8, 0.8],
              context_labels="xyz", arm_labels="ab")  # fmt: skip
    every = pessimism.pessimistic_policy(log, c=0.0)
    # Context y never showed b, and z nothing at all: there only a is listed.
    assert every.n_policies == 2
    assert every.arms.tolist() == [1, 0, 0]
    only = pessimism.pessimistic_policy(log, [[0, 0, 1], [1, 1, 0]], c=0.0)
    assert only.arms.tolist() == [0, 0, 1]
    assert only.n_policies == 1
    with pytest.raises(ValueError, match="policies: expected one whose propensities are known"):
        pessimism.pessimistic_policy(log, [[1, 1, 0]], c=0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"c": -1.0}, "c: expected a finite number of at least 0, got -1.0"),
        ({"c": True}, "c: expected a number of at least 0, got bool"),
        ({"c": np.inf}, "c: expected a finite number of at least 0, got inf"),
        ({"policies": [[0.0, 1.0]]}, "policies: expected integer codes"),
        ({"policies": [[0, 1, 2]]}, r"policies: expected shape \(M, X\) = \(M, 2\)"),
        ({"policies": [[0, 3]]}, r"policies: expected codes from 0 to 2, got 3 at index \[0, 1\]"),
        ({"behavior": [0.5, 0.5]}, r"behavior: expected shape \(K,\)"),
        ({"behavior": [0.5, 0.5, 2.0]}, "behavior: expected probabilities, got 2"),
        ({"behavior": [0.5, 0.5, 0.0]}, r"behavior: expected above 0 .*, got 0 at index \[0, 2\]"),
        ({"model": [0.5]}, r"model: expected shape \(K,\)"),
        ({"data": noisy_log()}, "data: expected propensities"),
        (
            {"data": from_counts(np.ones((10, 5)), np.ones((10, 5)), np.full(5, 0.2))},
            "policies: expected a class .M, X., as there are 9.77e",
        ),
    ],
)
def test_wrong_arguments_of_pessimistic_policy(change, message):
    given = {"data": logged(60, BEHAVIOR, RATES, 0), "c": 1.0} | change
    with pytest.raises((ValueError, TypeError), match=message):
        pessimism.pessimistic_policy(given.pop("data"), **given)
