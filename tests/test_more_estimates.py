"""Self-normalized and shaped doubly robust estimates, exact intervals, and weights that are wrong.

Small problems are gone through log by log, so that means and variances are exact.
"""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
from scipy import stats

from bandit import data, ope
from bandit._estimators import mean_weight

POLICY = np.array([[0.5, 0.3, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4]])
MODEL = np.array([[1.0, -2.0, 0.5, 3.0], [0.0, 1.0, -1.0, 2.0]])


def a_log(n: int = 200, seed: int = 0) -> data.Log:
    """Unequal contexts, a logger that changes from row to row, rewards that are not 0 and 1."""
    rng = np.random.default_rng(seed)
    contexts = (rng.random(n) < 0.7).astype(int)
    contexts[:2] = 0, 1
    behavior = 0.05 + 0.8 * rng.dirichlet([4.0, 3.0, 3.0, 2.0], size=n)
    arms = (behavior.cumsum(axis=1) <= rng.random((n, 1))).sum(axis=1)
    rewards = rng.normal(1.0 + contexts - 0.5 * arms, 0.7)
    return data.Log(contexts, arms, rewards, behavior[np.arange(n), arms], arm_labels=range(4))


def rows_of(log: data.Log, policy=POLICY):
    """x, y, r, w of one row after the other."""
    rows = zip(log.contexts, log.arms, log.rewards, log.propensities, strict=True)
    return [(x, y, float(r), float(policy[x, y] / p)) for x, y, r, p in rows]


def mean_and_error(values) -> tuple[float, float]:
    n, mean = len(values), math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n * (n - 1)))


# ------------------------------------------------------------------------- self-normalized


def test_self_normalized_doubly_robust_is_a_ratio_of_sums():
    log = a_log()
    direct = math.fsum(float(POLICY[x] @ MODEL[x]) for x in log.contexts) / len(log)
    rows = rows_of(log)
    correction = math.fsum(w * (r - MODEL[x, y]) for x, y, r, w in rows)
    correction /= math.fsum(w for *_, w in rows)
    for given in (log, log.counts()):
        found = ope.self_normalized_doubly_robust(given, POLICY, model=MODEL)
        assert found.value == pytest.approx(direct + correction, rel=1e-12)
    assert abs(correction) > 0.1
    fitted = ope.self_normalized_doubly_robust(log, POLICY, shrinkage=2.5)
    again = ope.self_normalized_doubly_robust(log, POLICY, model=ope.cell_means(log, 2.5))
    assert (fitted.value, fitted.standard_error) == (again.value, again.standard_error)


def test_its_error_is_the_delta_method():
    """The influence of each row by differences: it counts a bit more, or a bit less."""
    log, h = a_log(), 1e-5

    def value(often) -> float:
        counts = log.counts(often)
        return ope.self_normalized_doubly_robust(counts, POLICY, model=MODEL).value

    moves = h * np.eye(len(log))
    influence = np.array([(value(1 + m) - value(1 - m)) / (2 * h) for m in moves])
    found = ope.self_normalized_doubly_robust(log, POLICY, model=MODEL).standard_error
    assert found == pytest.approx(math.sqrt((influence**2).sum()), rel=1e-6)


def test_without_a_model_it_is_self_normalized_weighting():
    log = a_log()
    found = ope.self_normalized_doubly_robust(log, POLICY, model=np.zeros(4))
    plain = ope.self_normalized_ipw(log, POLICY)
    assert (found.value, found.standard_error) == pytest.approx((plain.value, plain.standard_error))


def test_a_model_that_is_off_by_a_constant_is_put_right_whatever_the_weights():
    """Where doubly robust is not: it moves with the mean weight."""
    log = a_log(20)
    flat = data.Log(log.contexts, log.arms, np.full(20, 3.0), log.propensities, arm_labels=range(4))
    found = ope.self_normalized_doubly_robust(flat, POLICY, model=np.full(4, 50.0))
    assert (found.value, found.standard_error) == pytest.approx((3.0, 0.0), abs=1e-7)
    assert abs(ope.doubly_robust(flat, POLICY, model=np.full(4, 50.0)).value - 3.0) > 1.0


def test_its_bootstrap_spread_is_its_standard_error():
    """Of 1,000 replicates: the half-width is known to about 4 %; 15 % is nearly four of those."""
    log, method = a_log(2000, seed=8), "self_normalized_doubly_robust"
    found = ope.bootstrap(log, POLICY, method, rng=3, replicates=1000, model=MODEL)
    low, high = ope.self_normalized_doubly_robust(log, POLICY, model=MODEL).interval()
    assert (found.high - found.low) == pytest.approx(high - low, rel=0.15)


# ----------------------------------------------------------------------- weights cut or shrunk

SHAPED = {
    "clipped_ipw": ({"largest": 1.2}, lambda w: min(w, 1.2)),
    "switch_doubly_robust": ({"threshold": 1.2}, lambda w: w * (w <= 1.2)),
    "optimistic_doubly_robust": ({"strength": 2.0}, lambda w: 2.0 * w / (w * w + 2.0)),
}


def modeled(method: str) -> dict:
    return {} if method == "clipped_ipw" else {"model": MODEL}


@pytest.mark.parametrize("method", SHAPED)
def test_shaped_estimates_are_means_over_rows(method):
    log = a_log()
    options, shape = SHAPED[method]
    q = np.zeros((2, 4)) if method == "clipped_ipw" else MODEL
    rows = rows_of(log)
    assert len({shape(w) < w for *_, w in rows}) == 2
    terms = [float(POLICY[x] @ q[x]) + shape(w) * (r - q[x, y]) for x, y, r, w in rows]
    found = getattr(ope, method)(log, POLICY, **options, **modeled(method))
    assert (found.value, found.standard_error) == pytest.approx(mean_and_error(terms), rel=1e-11)
    assert found.method == method
    plain = ope.ipw(log, POLICY)
    assert found.effective_sample_size == plain.effective_sample_size
    assert found.max_weight == plain.max_weight


@pytest.mark.parametrize("method", SHAPED)
def test_mean_and_variance_over_all_logs_of_two_rows(method):
    """Of the estimates, against sums over contexts, arms and rewards; E[SE²] is the variance."""
    share, behavior = np.array([0.3, 0.7]), np.array([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]])
    policy = np.array([[0.2, 0.2, 0.6], [0.5, 0.4, 0.1]])
    chance = np.array([[0.9, 0.3, 0.5], [0.2, 0.6, 0.4]])
    q = np.array([[0.4, 0.9, 0.1], [0.8, 0.3, 0.6]])
    options, shape = SHAPED[method]
    if method == "clipped_ipw":
        more, q = {}, np.zeros((2, 3))
    else:
        more = {"model": q}
    outcomes = [
        (x, y, float(r), share[x] * behavior[x, y] * abs(1 - r - chance[x, y]))
        for x, y, r in itertools.product(range(2), range(3), (0, 1))
    ]
    terms = [
        policy[x] @ q[x] + shape(policy[x, y] / behavior[x, y]) * (r - q[x, y])
        for x, y, r, _ in outcomes
    ]
    odds = np.array([p for *_, p in outcomes])
    mean = float(odds @ terms)
    variance = float(odds @ (np.array(terms) - mean) ** 2)
    truth = float(share @ (policy * chance).sum(axis=1))
    assert abs(mean - truth) > 0.005  # what is paid for the smaller variance
    first = second = squared_error = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ope.LowOverlapWarning)
        for one, two in itertools.product(outcomes, repeat=2):
            x, y = np.array([one[0], two[0]]), np.array([one[1], two[1]])
            log = data.Log(
                x, y, [one[2], two[2]], behavior[x, y], context_labels=range(2), arm_labels=range(3)
            )
            found = getattr(ope, method)(log, policy, **options, **more)
            probability = one[3] * two[3]
            first += probability * found.value
            second += probability * found.value**2
            squared_error += probability * found.standard_error**2
    assert first == pytest.approx(mean, rel=1e-12)
    assert second - first**2 == pytest.approx(variance / 2, rel=1e-10)
    assert squared_error == pytest.approx(variance / 2, rel=1e-10)


def test_ends_of_their_ranges_are_plain_estimates():
    log, inf = a_log(), float("inf")
    plain, robust = ope.ipw(log, POLICY), ope.doubly_robust(log, POLICY, model=MODEL)
    direct = ope.direct_method(log, POLICY, model=MODEL)
    q = {"model": MODEL}
    for found, expected in (
        (ope.clipped_ipw(log, POLICY, largest=inf), plain),
        (ope.switch_doubly_robust(log, POLICY, threshold=inf, **q), robust),
        (ope.optimistic_doubly_robust(log, POLICY, strength=inf, **q), robust),
        (ope.switch_doubly_robust(log, POLICY, threshold=0, **q), direct),
        (ope.optimistic_doubly_robust(log, POLICY, strength=0, **q), direct),
    ):
        assert found.value == pytest.approx(expected.value, rel=1e-12)
        assert found.standard_error == pytest.approx(expected.standard_error, rel=1e-10)
    assert ope.clipped_ipw(log, POLICY, largest=0).value == 0


@pytest.mark.parametrize("method", SHAPED)
def test_counts_of_a_logger_that_did_not_change_are_rows(method):
    rng, behavior = np.random.default_rng(1), np.array([0.1, 0.2, 0.3, 0.4])
    arms = rng.choice(4, size=80, p=behavior)
    rewards = rng.normal(size=80)
    log = data.Log(None, arms, rewards, behavior[arms], arm_labels=range(4))
    options, _ = SHAPED[method]
    by_rows, by_sums = (
        getattr(ope, method)(given, POLICY[1], **options) for given in (log, log.counts())
    )
    assert by_sums.value == pytest.approx(by_rows.value, rel=1e-12)
    assert by_sums.standard_error == pytest.approx(by_rows.standard_error, rel=1e-11)
    with pytest.raises(ValueError, match="data: expected a Log, or counts whose propensities"):
        getattr(ope, method)(a_log().counts(), POLICY, **options)


def test_a_switch_says_less_than_one_row_of_a_million():
    """One weight of a thousand among ninety-nine of one."""
    rewards = [1.0, *[0.0] * 99]
    log = data.Log(None, [0, *[1] * 99], rewards, [0.0005, *[0.5] * 99])
    with pytest.warns(ope.LowOverlapWarning):
        heavy = ope.doubly_robust(log, [0.5, 0.5], model=[0.1, 0.1])
    with pytest.warns(ope.LowOverlapWarning) as caught:
        light = ope.switch_doubly_robust(log, [0.5, 0.5], threshold=10, model=[0.1, 0.1])
    assert caught[0].filename == __file__
    assert heavy.value > 9 > 0.1 > light.value > 0


# ------------------------------------------------------------------------------------- choosing


def an_estimate(value: float, error: float) -> ope.Estimate:
    return ope.Estimate("ipw", value, error, 10, 10.0, 1.0, 0.0)


def test_slope_is_the_last_that_all_before_agree_with():
    """On a line intervals have a number in common if any two of them have."""
    rng = np.random.default_rng(0)
    places = []
    for _ in range(200):
        many = int(rng.integers(1, 7))
        errors = np.sort(rng.uniform(0.1, 2.0, many))[::-1]
        values = rng.normal(0, 3, many)
        found = ope.slope([an_estimate(v, e) for v, e in zip(values, errors, strict=True)])
        reach = 2 * 1.959963984540054 * errors
        agree = [
            all(
                abs(values[i] - values[j]) <= reach[i] + reach[j]
                for i, j in itertools.combinations(range(m + 1), 2)
            )
            for m in range(many)
        ]
        last = agree.index(False) - 1 if False in agree else many - 1
        places.append(many - 1 - last)
        assert found.value == values[last]
    assert min(places) == 0 < max(places)


def test_slope_takes_errors_that_do_not_fall_as_the_smallest_so_far():
    estimates = [an_estimate(0.0, 1.0), an_estimate(5.0, 100.0)]
    assert ope.slope(estimates).value == 5.0
    assert ope.slope([*estimates, an_estimate(9.0, 0.1)]).value == 5.0
    assert ope.slope([an_estimate(0.0, 1.0), an_estimate(8.0, 100.0)]).value == 0.0
    assert ope.slope([an_estimate(0.0, 1.0), an_estimate(8.0, 100.0)], level=0.999).value == 8.0


def test_slope_picks_among_thresholds():
    log = a_log(2000)
    falling = [float("inf"), 2.0, 1.0, 0.5, 0.0]
    q = np.full(4, -20.0)  # so wrong a model that no row may go
    estimates = [ope.switch_doubly_robust(log, POLICY, threshold=t, model=q) for t in falling]
    assert ope.slope(estimates) is estimates[0]
    right = np.array([1.0 + x - 0.5 * np.arange(4) for x in (0, 1)])
    estimates = [ope.switch_doubly_robust(log, POLICY, threshold=t, model=right) for t in falling]
    assert ope.slope(estimates) is estimates[-1]


# ------------------------------------------------------------------------------------ intervals


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-3.0, 4.5), (1.0, 2.0)])
def test_empirical_bernstein_as_written(bounds):
    rng = np.random.default_rng(4)
    log = a_log(50)
    rewards = rng.uniform(*bounds, 50)
    log = data.Log(log.contexts, log.arms, rewards, log.propensities, arm_labels=range(4))
    terms = [w * r for _, _, r, w in rows_of(log)]
    logarithm = math.log(2 / (0.1 / 2))  # half of what may be missed on each side
    # Terms are between the products of the ends.
    ends = [w * r for w in (0.0, 9.0) for r in bounds]
    reach = math.sqrt(2 * np.var(terms, ddof=1) * logarithm / 50)
    reach += 7 * (max(ends) - min(ends)) * logarithm / (3 * 49)
    for given in (log, log.counts()):
        found = ope.empirical_bernstein(given, POLICY, bounds=bounds, largest_weight=9.0, level=0.9)
        middle = np.mean(terms)
        assert found == pytest.approx((middle - reach, middle + reach), rel=1e-10)


def test_clopper_pearson_is_where_the_tails_are_as_small_as_asked():
    log = data.Log([0, 0, 1, 1, 1, 0], [0, 1, 2, 2, 0, 0], [1, 1, 0, 1, 1, 0], [0.25] * 6,
                   arm_labels=range(4))  # fmt: skip
    policy = np.array([[1.0, 0, 0, 0], [0, 0, 1.0, 0]])  # plays rows 0, 2, 3 and 5, two were ones
    for given in (log, log.counts()):
        low, high = ope.clopper_pearson(given, policy, level=0.9)
        assert stats.binom.sf(1, 4, low) == pytest.approx(0.05, rel=1e-9)
        assert stats.binom.cdf(2, 4, high) == pytest.approx(0.05, rel=1e-9)
        expected = stats.binomtest(2, 4).proportion_ci(0.9, method="exact")
        assert (low, high) == pytest.approx((expected.low, expected.high))
    assert ope.self_normalized_ipw(log, policy).value == 0.5


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_clopper_pearson_covers_over_all_logs(level):
    """Every log of three rows of a uniform logger, by how often each arm and reward came."""
    policy, share = np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]), [0.4, 0.6]
    for chance in ([[0.9, 0.2, 0.7], [0.1, 0.5, 0.8]], [[1.0, 1.0, 0.0], [0.3, 1.0, 1.0]]):
        rows = list(itertools.product(range(2), range(3), (0, 1)))
        odds = [share[x] / 3 * abs(1 - r - chance[x][y]) for x, y, r in rows]
        truth = sum(share[x] * float(policy[x] @ chance[x]) for x in range(2))
        covered = shown = 0.0
        for often in itertools.combinations_with_replacement(range(len(rows)), 3):
            times = np.bincount(often, minlength=len(rows))
            probability = math.factorial(3) * math.prod(
                p**t / math.factorial(t) for p, t in zip(odds, times, strict=True)
            )
            x, y, r = np.array([rows[i] for i in often]).T
            if probability == 0 or not policy[x, y].any():
                continue
            log = data.Log(x, y, r, np.full(3, 1 / 3), context_labels=range(2), arm_labels=range(3))
            low, high = ope.clopper_pearson(log, policy, level=level)
            shown += probability
            covered += probability * (low <= truth <= high)
        assert shown > 0.8
        assert covered >= level * shown - 1e-12


# ------------------------------------------------------------------- propensities that are wrong


def test_the_mean_weight_and_its_error():
    log = data.Log([0, 0, 1, 1], [0, 1, 1, 1], [0.0] * 4, [0.5, 0.25, 0.8, 0.6])
    policy = np.array([[0.3, 0.7], [0.6, 0.4]])
    w = [0.6, 2.8, 0.5, 0.4 / 0.6]
    mean, error = mean_weight(log.counts(), policy)
    assert mean == pytest.approx(np.mean(w))
    assert error == pytest.approx(np.std(w) / 2)
    # One row of eight expected: its own spread is too small, that of propensities is not.
    rare = data.from_counts([8000, 1], [0, 0], [0.999, 0.001])
    mean, error = mean_weight(rare, np.array([[0.9, 0.1]]))
    expected = 0.9**2 / 0.999 + 0.1**2 / 0.001 - 1
    assert error == pytest.approx(math.sqrt(expected / 8001), rel=1e-12)


def test_honest_propensities_are_not_suspected():
    """A hundred logs of a drifting logger, at five standard errors: one alarm in ten thousand."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ope.PropensityWarning)
        for seed in range(100):
            ope.ipw(a_log(300, seed), POLICY)
        # Rounded to two digits; arms that were never drawn; one heavy row that came, or did not.
        ope.ipw(data.Log(None, [0, 1, 2] * 4000, [0.0] * 12000, [0.33] * 12000), np.full(3, 1 / 3))
        ope.ipw(data.from_counts([500, 500, 0], [0, 0, 0], [0.5, 0.5, 0.0]), [0.2, 0.2, 0.6])
        ope.ipw(data.from_counts([8000, 1], [0, 0], [0.999, 0.001]), [0.9, 0.1])
        ope.ipw(data.from_counts([8000, 20], [0, 0], [0.999, 0.001]), [0.9, 0.1])


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_propensities_that_do_not_sum_to_one_are_found_out(factor):
    log = a_log(1000)
    off = data.Log(log.contexts, log.arms, log.rewards, np.minimum(log.propensities * factor, 1))
    told = r"the weights of the policy average [\d.]+ instead of 1, with a standard error of 0\.0"
    for call in (
        lambda: ope.ipw(off, POLICY),
        lambda: ope.evaluate(off, POLICY),
        lambda: ope.clipped_ipw(off, POLICY, largest=5.0),
        lambda: ope.self_normalized_doubly_robust(off.counts(), POLICY),
    ):
        with pytest.warns(ope.PropensityWarning, match=told) as caught:
            call()
        assert len(caught) == 1
        assert caught[0].filename == __file__
    ope.direct_method(off, POLICY)


def test_a_table_of_any_estimates():
    log = a_log()
    estimates = [
        ope.self_normalized_doubly_robust(log, POLICY),
        ope.switch_doubly_robust(log, POLICY, threshold=2.0),
    ]
    table = ope.table(estimates, level=0.8)
    assert list(table.index) == [one.method for one in estimates]
    assert list(table.columns) == list(ope.evaluate(log, POLICY).columns)
    for one in estimates:
        row = table.loc[one.method]
        assert (row.value, row.low, row.high) == (one.value, *one.interval(0.8))


# ------------------------------------------------------------------------------------- messages

LOG = data.Log([0, 1], [0, 1], [1.0, 2.0], [0.5, 0.5])
BINARY = data.Log([0, 1], [0, 1], [1.0, 0.0], [0.5, 0.4])
EVEN = [0.5, 0.5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ope.clipped_ipw(LOG, EVEN, largest=-1), "largest: expected at least 0, got -1"),
        (lambda: ope.clipped_ipw(LOG, EVEN, largest=True), "largest: expected a number, got True"),
        (
            lambda: ope.switch_doubly_robust(LOG, EVEN, threshold=float("nan")),
            "threshold: expected at least 0, got nan",
        ),
        (
            lambda: ope.optimistic_doubly_robust(LOG, EVEN, strength="auto"),
            "strength: expected a number, got 'auto'",
        ),
        (
            lambda: ope.switch_doubly_robust(LOG, EVEN, threshold=1, model=EVEN, shrinkage=1.0),
            "shrinkage: expected 0 beside a given model",
        ),
        (
            lambda: ope.clipped_ipw(data.Log(None, [0, 1], [1.0, 0.0]), EVEN, largest=1),
            "data: expected propensities",
        ),
        (
            lambda: ope.self_normalized_doubly_robust(
                data.Log(None, [0], [1.0], [0.5], arm_labels="ab"), [0, 1]
            ),
            "policy: expected some arm that the log shows",
        ),
        (lambda: ope.slope([]), "estimates: expected a sequence of Estimates, and some"),
        (lambda: ope.slope([1.0]), "estimates: expected a sequence of Estimates"),
        (
            lambda: ope.slope([an_estimate(0.0, float("nan"))]),
            "estimates: expected a standard error of ipw, got nan",
        ),
        (
            lambda: ope.empirical_bernstein(LOG, EVEN, bounds=(0, 1), largest_weight=2),
            r"bounds: expected all rewards in \(0\.0, 1\.0\), got 2",
        ),
        (
            lambda: ope.empirical_bernstein(LOG.counts(), EVEN, bounds=(1.5, 2), largest_weight=2),
            r"bounds: expected all rewards in \(1\.5, 2\.0\), got 1",
        ),
        (
            lambda: ope.empirical_bernstein(LOG, EVEN, bounds=(2, 1), largest_weight=2),
            "bounds: expected two rising numbers",
        ),
        (
            lambda: ope.empirical_bernstein(LOG, EVEN, bounds=(0, 2), largest_weight=0.9),
            "largest_weight: expected at least the weights that came, got 0.9 and a weight of 1",
        ),
        (
            lambda: ope.empirical_bernstein(
                data.Log(None, [0], [1.0], [1.0]), [1.0], bounds=(0, 1), largest_weight=1
            ),
            "data: expected two rows or more, got one",
        ),
        (lambda: ope.clopper_pearson(LOG, EVEN), "data: expected rewards of 0 and 1"),
        (lambda: ope.clopper_pearson(LOG.counts(), EVEN), "data: expected rewards of 0 and 1"),
        (lambda: ope.clopper_pearson(BINARY, EVEN), "policy: expected the same weight for all"),
        (
            lambda: ope.clopper_pearson(BINARY, [[0.0, 1.0], [1.0, 0.0]]),
            "policy: expected some arm that the log shows",
        ),
        (lambda: ope.clopper_pearson(BINARY, EVEN, level=1.0), "level: expected a number in"),
    ],
)
def test_errors_are_one_clear_line(call, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
