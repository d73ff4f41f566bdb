"""Off-policy evaluation against plain loops over rows, enumeration and published tables."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
from scipy import stats

from bandit import data, ope

POLICY = np.array([[0.5, 0.3, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4]])
METHODS = ["ipw", "self_normalized_ipw", "direct_method", "doubly_robust"]


def a_log(n: int = 200, seed: int = 0) -> data.Log:
    """Unequal contexts, drifting propensities, rewards that are not 0 and 1."""
    rng = np.random.default_rng(seed)
    contexts = (rng.random(n) < 0.7).astype(int)
    contexts[:2] = 0, 1
    propensities = rng.uniform(0.1, 0.6, n)
    arms = rng.choice(4, size=n, p=[0.4, 0.3, 0.2, 0.1])
    rewards = rng.normal(1.0 + contexts - 0.5 * arms, 0.7)
    return data.Log(contexts, arms, rewards, propensities, arm_labels=range(4))


def a_log_of_a_drifting_logger(n: int) -> data.Log:
    """Propensities are those that the arms were drawn with, and change from row to row."""
    rng = np.random.default_rng(8)
    contexts = (rng.random(n) < 0.7).astype(int)
    behavior = rng.dirichlet([4.0, 3.0, 3.0, 2.0], size=n) * 0.8 + 0.05
    arms = (behavior.cumsum(axis=1) <= rng.random((n, 1))).sum(axis=1)
    rewards = rng.normal(1.0 + contexts - 0.5 * arms, 0.7)
    return data.Log(contexts, arms, rewards, behavior[np.arange(n), arms], arm_labels=range(4))


def weights(log: data.Log, policy) -> list[float]:
    policy = np.broadcast_to(policy, log.shape)
    rows = zip(log.contexts, log.arms, log.propensities, strict=True)
    return [float(policy[x, y]) / float(p) for x, y, p in rows]


def loop_means(log: data.Log, kappa: float = 0.0) -> np.ndarray:
    q = np.zeros(log.shape)
    overall = sum(log.rewards) / len(log)
    for x, y in itertools.product(*map(range, log.shape)):
        here = [
            r
            for c, a, r in zip(log.contexts, log.arms, log.rewards, strict=True)
            if (c, a) == (x, y)
        ]
        below = len(here) + kappa
        q[x, y] = (sum(here) + kappa * overall) / below if below else overall
    return q


def terms(log: data.Log, policy, q) -> list[float]:
    """The terms whose mean is the doubly robust estimate."""
    policy = np.broadcast_to(policy, log.shape)
    return [
        sum(policy[x] * q[x]) + w * (r - q[x, y])
        for x, y, r, w in zip(
            log.contexts, log.arms, log.rewards, weights(log, policy), strict=True
        )
    ]


def mean_and_error(values) -> tuple[float, float]:
    n, mean = len(values), math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n * (n - 1)))


# --------------------------------------------------------------------------------- formulas


@pytest.mark.filterwarnings("ignore::bandit.ope.PropensityWarning")
@pytest.mark.parametrize("policy", [POLICY, POLICY[1]], ids=["(X, K)", "(K,)"])
def test_ipw_is_the_mean_of_weighted_rewards(policy):
    log = a_log()
    value, error = mean_and_error(
        [w * r for w, r in zip(weights(log, policy), log.rewards, strict=True)]
    )
    found = ope.ipw(log, policy)
    assert found.value == pytest.approx(value, rel=1e-12)
    assert found.standard_error == pytest.approx(error, rel=1e-12)


def test_self_normalized_is_a_ratio_with_its_delta_method_error():
    log = a_log()
    w = np.array(weights(log, POLICY))
    value = math.fsum(w * log.rewards) / math.fsum(w)
    error = math.sqrt(math.fsum((w * (log.rewards - value)) ** 2)) / math.fsum(w)
    found = ope.self_normalized_ipw(log, POLICY)
    assert found.value == pytest.approx(value, rel=1e-12)
    assert found.standard_error == pytest.approx(error, rel=1e-12)


@pytest.mark.parametrize("kappa", [0.0, 2.5])
def test_doubly_robust_is_the_mean_of_corrected_rows(kappa):
    log = a_log()
    value, error = mean_and_error(terms(log, POLICY, loop_means(log, kappa)))
    found = ope.doubly_robust(log, POLICY, shrinkage=kappa)
    assert found.value == pytest.approx(value, rel=1e-12)
    assert found.standard_error == pytest.approx(error, rel=1e-11)


@pytest.mark.parametrize("kappa", [0.0, 2.5])
def test_direct_method_averages_the_model_over_logged_contexts(kappa):
    log = a_log()
    q = loop_means(log, kappa)
    value = math.fsum(float(POLICY[x] @ q[x]) for x in log.contexts) / len(log)
    assert ope.direct_method(log, POLICY, shrinkage=kappa).value == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(ope.cell_means(log, kappa), q, rtol=1e-12)


@pytest.mark.parametrize("kappa", [0.0, 30.0])
def test_direct_method_error_is_the_delta_method(kappa):
    """The influence of each row by differences: it counts a bit more, or a bit less."""
    log, h = a_log(), 1e-5

    def value(often) -> float:
        return ope.direct_method(log.counts(often), POLICY, shrinkage=kappa).value

    moves = h * np.eye(len(log))
    influence = np.array([(value(1 + m) - value(1 - m)) / (2 * h) for m in moves])
    variance = 0.0
    for x, y in itertools.product(range(2), range(4)):
        here = influence[(log.contexts == x) & (log.arms == y)]
        assert here.size > 1
        far = here.mean() - influence.mean()
        variance += here.size * (far**2 * len(log) / (len(log) - 1) + here.var(ddof=1))
    found = ope.direct_method(log, POLICY, shrinkage=kappa).standard_error
    assert found == pytest.approx(math.sqrt(variance), rel=1e-6)


def test_a_cell_of_one_row_takes_the_pooled_variance():
    log = data.Log(None, [0, 0, 0, 1], [1.0, 2.0, 6.0, 4.0])
    found = ope.direct_method(log, [0.0, 1.0])
    assert (found.value, found.standard_error) == pytest.approx((4.0, math.sqrt(7.0)))


def test_models_that_are_given_are_used():
    log, q = a_log(), np.array([[1.0, -2.0, 0.5, 3.0], [0.0, 1.0, -1.0, 2.0]])
    value, error = mean_and_error(terms(log, POLICY, q))
    robust = ope.doubly_robust(log, POLICY, model=q)
    assert (robust.value, robust.standard_error) == pytest.approx((value, error), rel=1e-12)
    value, error = mean_and_error([float(POLICY[x] @ q[x]) for x in log.contexts])
    direct = ope.direct_method(log, POLICY, model=q)
    assert (direct.value, direct.standard_error) == pytest.approx((value, error), rel=1e-12)


def test_effective_sample_size_largest_weight_and_unseen_share():
    log = data.Log([0, 0, 1], [0, 1, 1], [1.0, 2.0, 3.0], [0.5, 0.25, 0.1], arm_labels=range(3))
    policy = np.array([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])
    found = ope.ipw(log, policy)
    w = [0.4, 2.0, 3.0]
    assert found.effective_sample_size == pytest.approx(sum(w) ** 2 / sum(v * v for v in w))
    assert found.max_weight == pytest.approx(3.0)
    assert found.unseen == pytest.approx(2 / 3 * 0.3 + 1 / 3 * 0.7)
    assert found.n == 3


def test_automatic_shrinkage_is_the_moment_estimate():
    log = a_log(60)
    counts = log.counts()
    groups = [
        log.rewards[(log.contexts == x) & (log.arms == y)]
        for x, y in itertools.product(range(2), range(4))
    ]
    groups = [g for g in groups if g.size]
    n, cells = len(log), len(groups)
    within = sum(((g - g.mean()) ** 2).sum() for g in groups) / (n - cells)
    between = sum(g.size * (g.mean() - log.rewards.mean()) ** 2 for g in groups) / (cells - 1)
    usual = (n - sum(g.size**2 for g in groups) / n) / (cells - 1)
    kappa = within / ((between - within) / usual)
    np.testing.assert_allclose(ope.cell_means(counts, "auto"), loop_means(log, kappa), rtol=1e-10)
    same = data.from_counts([50, 50, 50], [25, 25, 25])
    np.testing.assert_allclose(ope.cell_means(same, "auto"), np.full((1, 3), 0.5))


def test_doubly_robust_is_direct_where_the_logger_did_not_change():
    counts = data.from_counts([40, 30, 30], [4, 9, 1], [0.4, 0.3, 0.3])
    policy = [0.1, 0.7, 0.2]
    direct, robust = ope.direct_method(counts, policy), ope.doubly_robust(counts, policy)
    assert robust.value == pytest.approx(direct.value, rel=1e-13)


# --------------------------------------------------------------------------- cross-fitting


def subset(log: data.Log, rows) -> data.Log:
    return data.Log(
        log.contexts[rows],
        log.arms[rows],
        log.rewards[rows],
        log.propensities[rows],
        context_labels=log.context_labels,
        arm_labels=log.arm_labels,
    )


def a_sparse_log() -> data.Log:
    """With a cell of one row, and cells of none."""
    log = a_log(30)
    keep = (log.arms != 2) | (log.contexts == 1)
    one = np.flatnonzero((log.contexts == 1) & (log.arms == 2))[0]
    keep &= (log.contexts != 1) | (log.arms != 2) | (np.arange(30) == one)
    return subset(log, keep)


def crossed_terms(log: data.Log, policy, fold, kappa: float) -> list[float]:
    """The terms in order of folds, each with the means of the rows of other folds."""
    found = []
    for f in sorted(set(fold)):
        q = loop_means(subset(log, fold != f), kappa)
        found += terms(subset(log, fold == f), policy, q)
    return found


@pytest.mark.parametrize("kappa", [0.0, 2.5, 1e9])
def test_leaving_each_row_out_is_what_a_loop_says(kappa):
    log = a_sparse_log()
    assert {0, 1} <= set(log.counts().n.ravel())
    value, error = mean_and_error(crossed_terms(log, POLICY, np.arange(len(log)), kappa))
    by_sums = ope.doubly_robust(log.counts(), POLICY, shrinkage=kappa, folds="rows")
    assert (by_sums.value, by_sums.standard_error) == pytest.approx((value, error), rel=1e-10)
    by_rows = ope.doubly_robust(log, POLICY, shrinkage=kappa, folds=len(log), rng=0)
    assert (by_rows.value, by_rows.standard_error) == pytest.approx((value, error), rel=1e-10)
    assert by_sums.value != pytest.approx(
        ope.doubly_robust(log, POLICY, shrinkage=kappa).value, rel=1e-4
    )


@pytest.mark.parametrize("shrinkage", [0.0, 2.5, "auto"])
def test_folds_are_corrected_by_the_others(shrinkage):
    log = a_log(50)
    fold = np.random.default_rng(4).permutation(50) % 3
    assert sorted(np.bincount(fold)) == [16, 17, 17]
    found = []
    for f in range(3):
        q = ope.cell_means(subset(log, fold != f), shrinkage)
        found += terms(subset(log, fold == f), POLICY, q)
    value, error = mean_and_error(found)
    crossed = ope.doubly_robust(log, POLICY, shrinkage=shrinkage, folds=3, rng=4)
    assert (crossed.value, crossed.standard_error) == pytest.approx((value, error), rel=1e-11)
    other = ope.doubly_robust(log, POLICY, shrinkage=shrinkage, folds=3, rng=5)
    assert other.value != crossed.value
    table = ope.evaluate(log, POLICY, shrinkage=shrinkage, folds=3, rng=4)
    assert table.loc["doubly_robust", "value"] == crossed.value


def test_leaving_out_with_all_weight_on_the_mean_of_the_others():
    log = a_log(40)
    found = ope.doubly_robust(log, POLICY, shrinkage=float("inf"), folds="rows")
    value, error = mean_and_error(crossed_terms(log, POLICY, np.arange(40), 1e15))
    assert (found.value, found.standard_error) == pytest.approx((value, error), rel=1e-9)


# ------------------------------------------------------------------- rows are counts

EVEN4 = np.full(4, 0.25)


@pytest.mark.parametrize("method", METHODS)
def test_rows_and_counts_agree(method):
    """Also with counts made from the rows in another order, so that only rounding differs."""
    log = a_log()
    order = np.random.default_rng(5).permutation(len(log))
    other = data.Log(
        log.contexts[order],
        log.arms[order],
        log.rewards[order],
        log.propensities[order],
        arm_labels=log.arm_labels,
    ).counts()
    rows, counts = (getattr(ope, method)(given, POLICY) for given in (log, other))
    for name in ("value", "standard_error", "effective_sample_size", "max_weight", "unseen"):
        assert getattr(rows, name) == pytest.approx(getattr(counts, name), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    ("method", "more"), [*((name, {}) for name in METHODS), ("doubly_robust", {"folds": "rows"})]
)
def test_spread_is_held_down_to_a_millionth_of_the_rewards_size(method, more):
    """An even policy on an even log is worth its mean, and errors stay as they are."""
    rng = np.random.default_rng(11)
    arms, rewards = rng.integers(0, 4, 2000), rng.normal(size=2000)
    near, far = (
        getattr(ope, method)(data.Log(None, arms, rewards + r, np.full(2000, 0.25)), EVEN4, **more)
        for r in (0.0, 1e6)
    )
    assert type(far.value) is float
    assert far.standard_error == pytest.approx(near.standard_error, rel=0.01)
    assert far.value - 1e6 == pytest.approx(near.value, abs=1e-8 * 1e6)


def test_evaluate_is_the_four_estimates():
    log = a_log()
    table = ope.evaluate(log, POLICY, shrinkage=1.5, level=0.9)
    assert list(table.index) == METHODS
    for method in METHODS:
        extra = {"shrinkage": 1.5} if method in METHODS[2:] else {}
        found = getattr(ope, method)(log, POLICY, **extra)
        assert table.loc[method, "value"] == found.value
        assert (table.loc[method, "low"], table.loc[method, "high"]) == found.interval(0.9)
    bare = data.Log(log.contexts, log.arms, log.rewards, arm_labels=range(4))
    assert list(ope.evaluate(bare, POLICY).index) == ["direct_method"]


# ------------------------------------------------------------------------- unbiasedness


@pytest.mark.parametrize(
    ("method", "options", "exact"),
    [
        ("ipw", {}, True),
        ("self_normalized_ipw", {}, False),
        # A model that is wrong, and fixed in advance.
        ("doubly_robust", {"model": [[2.0, -1.0, 0.3], [0.1, 0.7, 5.0]]}, True),
        ("doubly_robust", {}, False),
        ("doubly_robust", {"shrinkage": 0.5}, False),
        ("doubly_robust", {"folds": "rows"}, True),
        ("doubly_robust", {"folds": "rows", "shrinkage": 0.5}, True),
        ("doubly_robust", {"folds": 2, "rng": 0}, True),
    ],
)
def test_expectation_over_all_logs_of_two_rows(method, options, exact):
    """Every log of two rows, with its probability: no sampling."""
    share, behavior = [0.3, 0.7], np.array([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]])
    policy = np.array([[0.2, 0.2, 0.6], [0.5, 0.4, 0.1]])
    chance = np.array([[0.9, 0.3, 0.5], [0.2, 0.6, 0.4]])
    truth = float(np.array(share) @ (policy * chance).sum(axis=1))
    rows = list(itertools.product(range(2), range(3), (0.0, 1.0)))
    expected = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ope.LowOverlapWarning)
        for pair in itertools.product(rows, repeat=2):
            x, y, r = (np.array(part) for part in zip(*pair, strict=True))
            p = behavior[x, y]
            log = data.Log(x, y, r, p, context_labels=range(2), arm_labels=range(3))
            hit = np.where(r == 1, chance[x, y], 1 - chance[x, y])
            probability = float(np.prod(np.array(share)[x] * p * hit))
            expected += probability * getattr(ope, method)(log, policy, **options).value
    assert (abs(expected - truth) < 1e-12) == exact


def test_squared_standard_errors_are_unbiased():
    """For means of independent terms E[SE²] is the variance, exactly: all logs of two rows."""
    behavior, policy, chance = (
        np.array([0.2, 0.5, 0.3]),
        np.array([0.5, 0.1, 0.4]),
        [0.3, 0.9, 0.6],
    )
    rows = list(itertools.product(range(3), (0.0, 1.0)))
    first = second = squared_error = 0.0
    for pair in itertools.product(rows, repeat=2):
        y, r = (np.array(part) for part in zip(*pair, strict=True))
        hit = np.where(r == 1, np.array(chance)[y], 1 - np.array(chance)[y])
        probability = float(np.prod(behavior[y] * hit))
        found = ope.ipw(data.Log(None, y, r, behavior[y], arm_labels=range(3)), policy)
        first += probability * found.value
        second += probability * found.value**2
        squared_error += probability * found.standard_error**2
    assert squared_error == pytest.approx(second - first**2, rel=1e-12)


# ---------------------------------------------------------------------------- intervals


def covered(seeds: int, interval) -> int:
    """How many of the intervals hold the truth: three arms, 300 rows each."""
    behavior, policy = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    rate = np.array([0.3, 0.5, 0.7])
    hits = 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        arms = rng.choice(3, size=300, p=behavior)
        log = data.Log(None, arms, rng.random(300) < rate[arms], behavior[arms])
        low, high = interval(log, policy)
        hits += low <= policy @ rate <= high
    return hits


@pytest.mark.parametrize("method", METHODS)
def test_normal_intervals_cover(method):
    """At 90 %, 400 logs: fewer than 335 hits or more than 384 have probability under 1e-4."""
    hits = covered(400, lambda log, policy: getattr(ope, method)(log, policy).interval(0.9))
    assert 335 <= hits <= 384


@pytest.mark.parametrize("method", ["self_normalized_ipw", "direct_method"])
def test_bootstrap_intervals_cover(method):
    """At 90 %, 100 logs: outside 77 to 99 hits has probability under 1e-4 at the nominal rate."""
    hits = covered(
        100,
        lambda log, policy: ope.bootstrap(log, policy, method, replicates=100, rng=1, level=0.9)[
            :2
        ],
    )
    assert 77 <= hits <= 99


@pytest.mark.parametrize(
    ("method", "extra"),
    [*((method, {}) for method in METHODS), ("direct_method", {"shrinkage": 400.0})],
)
def test_bootstrap_spread_is_the_standard_error(method, extra):
    """Of 1,000 replicates: the half-width is known to about 4 %; 15 % is nearly four of those."""
    log = a_log_of_a_drifting_logger(2000)
    found = ope.bootstrap(log, POLICY, method, rng=3, replicates=1000, **extra)
    low, high = getattr(ope, method)(log, POLICY, **extra).interval()
    assert (found.high - found.low) == pytest.approx(high - low, rel=0.15)


def test_bootstrap_intervals_are_quantiles_of_the_replicates():
    """Of a mean of 400 rows of 0 and 1: k/400 with k binomial, whose quantiles are known.

    Of 2,000 replicates the quantiles are known to 0.05 standard deviations; four of those.
    """
    log = data.Log(None, np.zeros(400, int), np.arange(400) < 120, np.ones(400))
    for level, seed in ((0.5, 0), (0.9, 1)):
        found = ope.bootstrap(log, [1.0], "ipw", rng=seed, replicates=2000, level=level)
        ends = stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
        spread = math.sqrt(0.3 * 0.7 / 400)
        np.testing.assert_allclose((np.array(found[:2]) - 0.3) / spread, ends, atol=0.2)


def test_bootstrap_is_seeded():
    log = a_log()
    first, again, other = (ope.bootstrap(log, POLICY, rng=s, replicates=50) for s in (1, 1, 2))
    assert first == again
    assert first != other
    assert first.undefined == 0


def test_bootstrap_counts_replicates_without_a_row_to_use():
    log = data.Log(None, [0, 1, 1, 1], [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5])
    found = ope.bootstrap(log, [1.0, 0.0], rng=0, replicates=500)
    # (3/4)⁴ = 0.316 of the replicates miss the one row; five standard errors.
    assert abs(found.undefined / 500 - 0.75**4) < 5 * math.sqrt(0.316 * 0.684 / 500)


# --------------------------------------------------------------------------- real data

PUBLISHED = {  # ×10⁻³: IPW, self-normalized; effective sample size
    "all": (2.3596395169, 2.3337138932, 340.378),
    "men": (3.0086263272, 3.1894231622, 655.710),
    "women": (7.4375775425, 2.3730461430, 2.0778),
}


@pytest.mark.parametrize("campaign", PUBLISHED)
def test_uniform_policy_from_the_thompson_logs(campaign):
    counts = data.open_bandit(campaign, "bts")
    uniform = np.full(counts.n_arms, 1 / counts.n_arms)
    with pytest.warns(ope.LowOverlapWarning) if campaign != "men" else warnings.catch_warnings():
        found, normalized = ope.ipw(counts, uniform), ope.self_normalized_ipw(counts, uniform)
    ipw, snipw, size = PUBLISHED[campaign]
    assert found.value == pytest.approx(ipw * 1e-3, abs=1e-6)
    assert normalized.value == pytest.approx(snipw * 1e-3, abs=1e-6)
    assert found.effective_sample_size == pytest.approx(size, abs=1e-3)


def test_one_row_can_carry_everything():
    counts = data.open_bandit("women", "bts")
    with pytest.warns(ope.LowOverlapWarning, match=r"2.08 of 10000 rows \(0.02%\)"):
        found = ope.ipw(counts, np.full(46, 1 / 46))
    assert found.max_weight == pytest.approx(1e6 / 46, rel=1e-4)


@pytest.mark.parametrize("campaign", PUBLISHED)
@pytest.mark.parametrize("logger", ["random", "bts"])
def test_all_estimates_of_all_logs_are_numbers(campaign, logger):
    """Also where cells have no rows, as in the bts log of the campaign with 80 items."""
    counts = data.open_bandit(campaign, logger)
    assert (counts.n == 0).any() == ((campaign, logger) == ("all", "bts"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ope.LowOverlapWarning)
        for shrinkage in (0.0, 300.0, float("inf")):
            table = ope.evaluate(
                counts, np.full(counts.n_arms, 1 / counts.n_arms), shrinkage=shrinkage, folds="rows"
            )
            assert np.isfinite(table.to_numpy(dtype=float)).all()


@pytest.mark.parametrize("campaign", PUBLISHED)
def test_random_logs_give_uniform_its_own_mean(campaign):
    counts = data.open_bandit(campaign, "random")
    found = ope.ipw(counts, np.full(counts.n_arms, 1 / counts.n_arms))
    assert found.value == pytest.approx(counts.reward.sum() / 10_000, rel=1e-12)
    assert found.effective_sample_size == pytest.approx(10_000)


# ----------------------------------------------------------------------------- messages


def test_low_overlap_is_said_once_and_only_below_five_percent():
    log = data.Log(None, [0] * 99 + [1], np.ones(100), [0.99] * 99 + [0.01])
    with pytest.warns(ope.LowOverlapWarning, match="do not trust") as caught:
        ope.evaluate(log, [0.0, 1.0])
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(ope.LowOverlapWarning) as caught:
        ope.doubly_robust(log, [0.0, 1.0])
    assert caught[0].filename == __file__
    ope.direct_method(log, [0.0, 1.0])
    ope.ipw(log, [0.9, 0.1])


LOG = data.Log([0, 1], [0, 1], [1.0, 2.0], [0.5, 0.5])
BARE = data.Log([0, 1], [0, 1], [1.0, 2.0])
EVEN = [0.5, 0.5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ope.ipw(BARE, EVEN), "data: expected propensities"),
        (lambda: ope.ipw(LOG, [0.5, 0.2, 0.3]), r"policy: expected shape \(K,\) = \(2,\)"),
        (lambda: ope.ipw(LOG, [0.5, 0.2]), "policy: expected probabilities that sum to 1"),
        (lambda: ope.ipw([1, 2], EVEN), "data: expected a Log or Counts, got list"),
        (lambda: ope.evaluate(None, EVEN), "data: expected a Log or Counts, got NoneType"),
        (lambda: ope.direct_method(LOG, EVEN, shrinkage=-1.0), "shrinkage: expected at least 0"),
        (lambda: ope.direct_method(LOG, EVEN, shrinkage="some"), "shrinkage: expected a number or"),
        (lambda: ope.direct_method(LOG, EVEN, model=[1.0]), "model: expected shape"),
        (lambda: ope.doubly_robust(LOG, EVEN, model=EVEN, shrinkage=1.0), "shrinkage: expected 0"),
        (lambda: ope.ipw(LOG, EVEN).interval(1.5), "level: expected a number in"),
        (lambda: ope.doubly_robust(LOG, EVEN, rng=0), "rng: expected none without folds"),
        (lambda: ope.doubly_robust(LOG, EVEN, folds=2), "rng: expected a Generator or a seed"),
        (lambda: ope.doubly_robust(LOG, EVEN, folds=3, rng=0), "folds: expected from 2 to n = 2"),
        (lambda: ope.doubly_robust(LOG, EVEN, folds=1, rng=0), "folds: expected from 2 to n = 2"),
        (lambda: ope.doubly_robust(LOG, EVEN, folds="row"), 'folds: expected a number or "rows"'),
        (lambda: ope.doubly_robust(LOG, EVEN, folds="rows", rng=0), "rng: expected none with"),
        (lambda: ope.doubly_robust(LOG, EVEN, folds="rows", model=EVEN), "folds: expected None"),
        (
            lambda: ope.doubly_robust(LOG, EVEN, folds="rows", shrinkage="auto"),
            'shrinkage: expected a number with folds "rows"',
        ),
        (
            lambda: ope.doubly_robust(LOG.counts(), EVEN, folds=2, rng=0),
            'data: expected a Log to divide into folds, got Counts; .* folds="rows"',
        ),
        (
            lambda: ope.doubly_robust(data.Log(None, [0], [1.0], [0.5]), [1.0], folds="rows"),
            "data: expected two rows or more",
        ),
        (lambda: ope.evaluate(BARE, EVEN, folds="rows"), "folds: expected None for a log without"),
        (lambda: ope.bootstrap(LOG.counts(), EVEN, rng=0), "log: expected a Log, got Counts"),
        (lambda: ope.bootstrap(LOG, EVEN, "best", rng=0), "method: expected one of"),
        (lambda: ope.bootstrap(LOG, EVEN, "ipw", rng=0, model=EVEN), "method: expected one with"),
        (lambda: ope.bootstrap(LOG, EVEN, rng=0, replicates=0), "replicates: expected a positive"),
        (lambda: ope.bootstrap(LOG, EVEN, rng=None), "rng: expected a seed, SeedSequence or"),
        (lambda: ope.bootstrap(LOG, EVEN, rng=-1), "rng: expected a seed of at least 0, got -1"),
        (lambda: ope.doubly_robust(LOG, EVEN, folds=2, rng="a"), "rng: expected a seed, Seed"),
        (
            lambda: ope.self_normalized_ipw(
                data.Log(None, [0], [1.0], [0.5], arm_labels="ab"), [0, 1]
            ),
            "policy: expected some arm that the log shows",
        ),
    ],
)
def test_errors_are_one_clear_line(call, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
