"""The equilibrium against generic solvers, Nash-MD against its bound, cycles against rewards."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize, root
from strategies import preference_matrix, seeds, simplex

import bandit
from bandit import analysis, losses
from bandit.related import _equilibrium, nash

CYCLE = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
REFERENCE = np.array([0.2, 0.3, 0.5])
TAUS = st.sampled_from([2.0, 0.3, 0.03, 1e-3, 1e-4])


def game(seed, arms=5, contexts=None, extreme=False):
    rng = np.random.default_rng(seed)
    shape = (arms,) if contexts is None else (contexts, arms)
    preference = preference_matrix(rng, shape)
    if extreme:
        preference = 0.5 + 0.5 * np.sign(preference - 0.5)
    return preference, simplex(rng, shape, floor=0.2)


def best_answer(policy, preference, reference, tau):
    """π_ref exp(Pπ/τ) / Z by sums written out."""
    gain = np.array([sum(preference[y] * policy) for y in range(len(policy))])
    weight = reference * np.exp((gain - gain.max()) / tau)
    return weight / weight.sum()


# -------------------------------------------------------------------------------- equilibrium


@given(seeds, st.integers(1, 9), TAUS, st.booleans())
def test_equilibrium_is_its_own_best_answer(seed, arms, tau, extreme):
    preference, reference = game(seed, arms, extreme=extreme)
    found = nash.equilibrium(preference, reference, tau)
    answer = best_answer(found.policy, preference, reference, tau)
    assert np.abs(found.policy - answer).max() < 1e-12
    assert found.residual < 1e-12
    assert found.policy.sum() == pytest.approx(1, rel=1e-14)
    np.testing.assert_allclose(np.exp(found.log_policy), found.policy, rtol=1e-15)


@pytest.mark.parametrize("tau", [1.0, 0.2, 0.05])
@pytest.mark.parametrize("seed", range(4))
def test_equilibrium_is_what_a_generic_root_finder_finds(seed, tau):
    preference, reference = game(seed, 4)

    def field(free):
        logits = np.append(free, 0.0)
        policy = np.exp(logits - np.logaddexp.reduce(logits))
        pull = np.log(policy / reference) - preference @ policy / tau
        return pull[:-1] - pull[-1]

    found = root(field, np.zeros(3), method="hybr", tol=1e-13)
    assert found.success
    logits = np.append(found.x, 0.0)
    expected = np.exp(logits - np.logaddexp.reduce(logits))
    np.testing.assert_allclose(
        nash.equilibrium(preference, reference, tau).policy, expected, atol=1e-9
    )


@pytest.mark.parametrize("seed", range(6))
def test_small_tau_approaches_the_equilibrium_of_the_plain_game(seed):
    """A linear program knows the game without regularization: max v with Pᵀπ ≥ v."""
    preference, reference = game(seed, 6)
    program = linprog(
        [0.0] * 6 + [-1.0],
        A_ub=np.hstack([-preference.T, np.ones((6, 1))]),
        b_ub=np.zeros(6),
        A_eq=[[1.0] * 6 + [0.0]],
        b_eq=[1.0],
        bounds=[(0, 1)] * 6 + [(None, None)],
    )
    assert program.x[-1] == pytest.approx(0.5, abs=1e-9)
    found = nash.equilibrium(preference, reference, 1e-5)
    np.testing.assert_allclose(found.policy, program.x[:-1], atol=2e-3)


def test_transitive_certain_preferences_have_a_winner():
    """Where one arm always wins, small τ gives it all: the ratio to each other is e^(gap/τ)."""
    sharp = bandit.preferences.deterministic([3.0, 1.0, 2.0])
    found = nash.equilibrium(sharp, REFERENCE, 0.02)
    assert found.policy[0] == pytest.approx(1, abs=1e-9)
    expected = np.log(REFERENCE[1] / REFERENCE[0]) - 0.5 / 0.02
    assert found.log_policy[1] - found.log_policy[0] == pytest.approx(expected, rel=1e-9)


def test_no_preferences_leave_the_reference():
    found = nash.equilibrium(np.full((3, 3), 0.5), REFERENCE, 1e-6)
    np.testing.assert_allclose(found.policy, REFERENCE, rtol=1e-12)


@pytest.mark.parametrize("shared", ["nothing", "reference", "preference"])
def test_contexts_are_games_of_their_own(shared):
    preference, reference = game(7, 4, contexts=3)
    reference = reference[0] if shared == "reference" else reference
    preference = preference[0] if shared == "preference" else preference
    found = nash.equilibrium(preference, reference, 0.05)
    course = nash.nash_md(preference, reference, 0.05, steps=7)
    assert found.policy.shape == (3, 4)
    assert course.log_policies.shape == (8, 3, 4)
    gains = nash.exploitability(
        reference if reference.ndim == 2 else np.tile(reference, (3, 1)),
        preference,
        reference=reference,
        tau=0.05,
    )
    for x in range(3):
        own = preference if preference.ndim == 2 else preference[x]
        ref = reference if reference.ndim == 1 else reference[x]
        np.testing.assert_allclose(
            found.policy[x], nash.equilibrium(own, ref, 0.05).policy, atol=1e-13
        )
        alone = nash.nash_md(own, ref, 0.05, steps=7)
        np.testing.assert_allclose(course.policies[:, x], alone.policies, atol=1e-14)
        single = nash.exploitability(ref, own, reference=ref, tau=0.05)
        assert gains[x] == pytest.approx(float(single), rel=1e-12)


def test_two_hundred_arms_and_a_tiny_tau():
    preference, reference = game(1, 200)
    found = nash.equilibrium(preference, reference, 1e-5)
    assert found.residual < 1e-12
    assert nash.exploitability(found.policy, preference) < 1e-5 * np.log(1 / reference.min())


def test_what_float64_cannot_resolve_raises(monkeypatch):
    for tau in (1e-300, 1e-310):
        with pytest.raises(RuntimeError, match=r"^equilibrium: tau: expected one that .* got 1e-3"):
            nash.equilibrium(CYCLE, REFERENCE, tau)
    with pytest.raises(RuntimeError, match=r"at most 1e-06, got .* at tau = 1e-15; try a larger"):
        nash.equilibrium(CYCLE, REFERENCE, 1e-15)
    monkeypatch.setattr(_equilibrium, "_newton", lambda *_: None)
    with pytest.raises(RuntimeError, match=r"^equilibrium: tau: expected one that .* got 0.8$"):
        nash.equilibrium(CYCLE, REFERENCE, 0.1)
    monkeypatch.setattr(_equilibrium, "_newton", lambda a, r, tau, _: r if tau > 0.5 else None)
    with pytest.raises(RuntimeError, match=r"got 0.1 \(the path was lost at 0.5"):
        nash.equilibrium(CYCLE, REFERENCE, 0.1)
    monkeypatch.setattr(_equilibrium, "_newton", lambda a, ref, tau, start: ref)
    with pytest.raises(RuntimeError, match=r"^equilibrium: expected a residual of at most 1e-12"):
        nash.equilibrium(CYCLE, REFERENCE, 0.1)


# ------------------------------------------------------------------------------ exploitability


@pytest.mark.parametrize("seed", range(4))
def test_exploitability_is_the_maximum_that_a_generic_solver_finds(seed):
    preference, reference = game(seed, 4)
    policy, tau = simplex(np.random.default_rng(seed + 50), (4,)), 0.2

    def payoff(other):
        own = tau * (policy @ np.log(policy / reference))
        return other @ preference @ policy - tau * (other @ np.log(other / reference)) + own

    found = minimize(
        lambda other: -payoff(other),
        reference,
        bounds=[(1e-12, 1)] * 4,
        constraints={"type": "eq", "fun": lambda other: other.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    value = nash.exploitability(policy, preference, reference=reference, tau=tau)
    assert value == pytest.approx(payoff(found.x) - payoff(policy), abs=1e-7)
    assert payoff(policy) == pytest.approx(0.5, abs=1e-12)
    plain = linprog(-(preference @ policy), A_eq=[[1.0] * 4], b_eq=[1.0])
    assert nash.exploitability(policy, preference) == pytest.approx(-plain.fun - 0.5, abs=1e-9)


@given(seeds, TAUS)
def test_only_the_equilibrium_cannot_be_exploited(seed, tau):
    preference, reference = game(seed)
    data = {"reference": reference, "tau": tau}
    found = nash.equilibrium(preference, reference, tau)
    assert 0 <= nash.exploitability(found.policy, preference, **data) < 1e-12
    # Nothing is given up to the plain game but what the regularization is worth.
    assert nash.exploitability(found.policy, preference) <= tau * np.log(1 / reference.min())
    other = simplex(np.random.default_rng(seed), (5,))
    gain = nash.exploitability(np.stack([other, found.policy]), preference, **data)
    assert gain.shape == (2,)
    # Strong monotonicity: what a best answer gains bounds the distance to the equilibrium.
    distance = other @ (np.log(other) - found.log_policy)
    assert gain[0] >= tau * distance * (1 - 1e-9) - 1e-12


def test_exploitability_is_a_regret():
    policy = np.array([0.6, 0.1, 0.3])
    seen = bandit.Bandit(CYCLE @ policy, 0.1, REFERENCE)
    assert nash.exploitability(policy, CYCLE, reference=REFERENCE, tau=0.1) == pytest.approx(
        float(seen.regret(policy)), rel=1e-12
    )


# -------------------------------------------------------------------------------------- win rates


def test_win_rates_are_the_sums_over_what_both_say():
    preference, _ = game(3, 4, contexts=2)
    rng = np.random.default_rng(9)
    first, second = simplex(rng, (3, 2, 4)), simplex(rng, (2, 4))
    found = nash.win_rate(first, second, preference)
    assert found.shape == (3, 2)
    for n, x in np.ndindex(3, 2):
        total = 0.0
        for y, z in np.ndindex(4, 4):
            total += first[n, x, y] * second[x, z] * preference[x, y, z]
        assert found[n, x] == pytest.approx(total, rel=1e-13)
    np.testing.assert_allclose(found + nash.win_rate(second, first, preference), 1, rtol=1e-15)
    sure = np.eye(3)
    np.testing.assert_allclose(nash.win_rate(sure[:, None], sure, CYCLE), CYCLE, rtol=1e-15)


def test_the_best_answer_wins_by_the_exploitability():
    policy = np.array([0.6, 0.1, 0.3])
    best = max(float(nash.win_rate(answer, policy, CYCLE)) for answer in np.eye(3))
    assert best - 0.5 == pytest.approx(float(nash.exploitability(policy, CYCLE)), rel=1e-13)


@given(seeds, TAUS)
def test_nobody_wins_much_against_the_equilibrium(seed, tau):
    """P(π ≻ π*) ≤ ½ + τ (KL(π‖π_ref) − KL(π*‖π_ref)), as π* is its own best answer."""
    preference, reference = game(seed)
    found = nash.equilibrium(preference, reference, tau)
    other = simplex(np.random.default_rng(seed + 1), (5,))
    paid = other @ np.log(other / reference)
    saved = found.policy @ (found.log_policy - np.log(reference))
    assert nash.win_rate(other, found.policy, preference) <= 0.5 + tau * (paid - saved) + 1e-12


def test_on_the_cycle_of_programs_the_equilibrium_beats_what_rewards_choose():
    matches = bandit.data.rock_paper_scissors()
    uniform = np.full(6, 1 / 6)
    target = nash.equilibrium(matches.preference, uniform, 0.02).policy
    often = matches.wins + np.swapaxes(matches.wins, 0, 1)
    for policy in picks(matches.preference, uniform, 0.05, often).values():
        # Narrowly, as against an equilibrium all that it mixes are nearly alike.
        assert 0.51 < nash.win_rate(target, policy, matches.preference) < 0.55
        # Others beat the same policy by far.
        assert nash.exploitability(policy, matches.preference) > 0.2


def test_bad_contests():
    with pytest.raises(ValueError, match=r"^other: expected shape .* got \(2,\)"):
        nash.win_rate(REFERENCE, [0.5, 0.5], CYCLE)
    with pytest.raises(ValueError, match=r"^policy: expected probabilities that sum to 1"):
        nash.win_rate([0.5, 0.5, 0.5], REFERENCE, CYCLE)
    with pytest.raises(ValueError, match=r"^other: expected leading axes that go with .* \(2, 3\)"):
        nash.win_rate(np.tile(REFERENCE, (3, 1)), np.tile(REFERENCE, (2, 1)), CYCLE)
    with pytest.raises(ValueError, match=r"^preference: expected shape \(K, K\) or"):
        nash.win_rate(REFERENCE, REFERENCE, REFERENCE)


# ------------------------------------------------------------------------------------- Nash-MD


@settings(max_examples=15)
@given(seeds, st.sampled_from([1.0, 0.2, 0.05, 0.01]), st.booleans())
def test_nash_md_stays_below_its_bound_at_every_step(seed, tau, extreme):
    preference, reference = game(seed, 4, extreme=extreme)
    course = nash.nash_md(preference, reference, tau, steps=400, record_every=1)
    kl = course.kl_from(nash.equilibrium(preference, reference, tau))
    assert (course.steps == np.arange(401)).all()
    np.testing.assert_allclose(course.bound(), 8 / (tau**2 * (course.steps + 1)), rtol=1e-15)
    assert (kl <= course.bound()).all()
    assert kl[-1] < kl[:5].max() + 1e-15


def test_nash_md_step_by_step_as_it_is_written():
    tau, policy = 0.3, REFERENCE.copy()
    course = nash.nash_md(CYCLE, REFERENCE, tau, steps=20, record_every=3)
    kept = {0: policy}
    for t in range(20):
        eta = 2 / (tau * (t + 2))
        mixture = policy ** (1 - eta * tau) * REFERENCE ** (eta * tau)
        mixture /= mixture.sum()
        policy = mixture * np.exp(eta * (CYCLE @ mixture))
        policy /= policy.sum()
        kept[t + 1] = policy
    assert course.steps.tolist() == [0, 3, 6, 9, 12, 15, 18, 20]
    np.testing.assert_allclose(course.policies, [kept[t] for t in course.steps], rtol=1e-12)


def test_nash_md_arrives():
    course = nash.nash_md(CYCLE, REFERENCE, 0.1, steps=3000)
    target = nash.equilibrium(CYCLE, REFERENCE, 0.1)
    kl = course.kl_from(target)
    expected = (target.policy * (target.log_policy - course.log_policies)).sum(axis=-1)
    np.testing.assert_allclose(kl, expected, atol=1e-13)
    assert 0 < kl[-1] < 1e-8
    assert len(course.steps) == 201


def test_an_interrupt_keeps_what_was_done_and_progress_is_told():
    told = []

    def stop(step, steps):
        told.append((step, steps))
        if step == 6:
            raise KeyboardInterrupt

    with pytest.warns(RuntimeWarning, match=r"^nash_md: interrupted; records until step 6 of 100"):
        part = nash.nash_md(CYCLE, REFERENCE, 0.1, steps=100, record_every=2, progress=stop)
    assert told == [(2, 100), (4, 100), (6, 100)]
    assert part.interrupted
    whole = nash.nash_md(CYCLE, REFERENCE, 0.1, steps=100, record_every=2)
    assert not whole.interrupted
    assert part.steps.tolist() == [0, 2, 4, 6]
    np.testing.assert_array_equal(part.log_policies, whole.log_policies[:4])


# ------------------------------------------------------------------- where rewards cannot follow


def picks(preference, reference, beta, counts):
    """Exact solutions of DPO and IPO on comparisons in proportion to ``counts``."""
    problem = bandit.Bandit(np.zeros(len(preference)), beta, reference)
    pairs = bandit.pairs.from_counts(counts)
    return {
        name: analysis.solve(problem, losses.get(name), pairs, preference=preference).policy
        for name in ("dpo", "ipo")
    }


def test_on_a_cycle_rewards_choose_what_was_compared_most_and_can_be_exploited():
    uniform = np.full(3, 1 / 3)
    plain = nash.equilibrium(CYCLE, uniform, 1e-4)
    assert nash.exploitability(plain.policy, CYCLE) < 2e-4
    favorites = set()
    for rare in range(3):
        often = np.ones((3, 3))
        often[rare] = often[:, rare] = 0.2
        for policy in picks(CYCLE, uniform, 0.02, often).values():
            favorites.add(int(policy.argmax()))
            assert nash.exploitability(policy, CYCLE) > 0.1
    # Which arm is best depends on who was compared with whom: each of them can be.
    assert favorites == {0, 1, 2}


def test_bradley_terry_has_an_edge_of_the_tournament_the_wrong_way():
    matches = bandit.data.rock_paper_scissors()
    fit = bandit.Bandit(np.zeros(6), 1.0)
    pairs = bandit.pairs.from_counts(matches.wins)
    policy = analysis.solve(fit, losses.dpo, pairs, preference=matches.preference).policy
    model = bandit.preferences.bradley_terry(np.log(policy))
    a, b = (matches.names.index(name) for name in ("mod1bot", "halbot"))
    assert matches.preference[a, b] > 0.75
    assert model[a, b] < 0.4
    middle = nash.equilibrium(matches.preference, np.full(6, 1 / 6), 1e-3)
    assert nash.exploitability(middle.policy, matches.preference) < 2e-3


def test_a_clone_moves_ipo_and_not_the_equilibrium():
    """Arm 3 twice, the reference shared between the copies: the same game."""
    double = CYCLE[np.ix_([0, 1, 2, 2], [0, 1, 2, 2])]
    split = np.array([0.2, 0.3, 0.25, 0.25])
    one = nash.equilibrium(CYCLE, REFERENCE, 0.05).policy
    two = nash.equilibrium(double, split, 0.05).policy
    np.testing.assert_allclose([*two[:2], two[2:].sum()], one, atol=1e-12)
    before = picks(CYCLE, REFERENCE, 0.05, np.ones((3, 3)))["ipo"]
    after = picks(double, split, 0.05, np.ones((4, 4)))["ipo"]
    assert np.abs([*(after[:2] - before[:2]), after[2:].sum() - before[2]]).max() > 0.1


def test_without_a_cycle_all_agree_on_the_best_arm():
    reward = np.array([0.0, 0.6, 1.1, -0.5])
    preference, uniform = bandit.preferences.bradley_terry(reward), np.full(4, 0.25)
    policies = picks(preference, uniform, 0.02, np.ones((4, 4)))
    policies["nash"] = nash.equilibrium(preference, uniform, 0.02).policy
    for policy in policies.values():
        assert policy[2] > 0.95
        assert nash.exploitability(policy, preference) < 0.01


# -------------------------------------------------------------------------------------- bad input

BAD = {
    "square": (np.full((2, 3), 0.5), REFERENCE, 0.1, r"^preference: expected shape \(3, 3\)"),
    "complement": (np.full((3, 3), 0.4), REFERENCE, 0.1, r"^preference: expected P \+ Pᵀ = 1"),
    "range": (np.full((3, 3), 0.5) + 2 * (np.eye(3) - np.eye(3)[::-1]), REFERENCE, 0.1, r"^pref"),
    "not finite": (np.full((3, 3), np.nan), REFERENCE, 0.1, r"^preference: expected finite"),
    "reference sum": (CYCLE, [0.2, 0.3, 0.6], 0.1, r"^reference: .* sum of 1.1"),
    "reference zero": (CYCLE, [0.0, 0.5, 0.5], 0.1, r"^reference: .* above 0"),
    "reference axes": (CYCLE, np.full((1, 1, 3), 1 / 3), 0.1, r"^reference: expected shape"),
    "tau": (CYCLE, REFERENCE, 0.0, r"^tau: expected a finite number above 0, got 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_games(name):
    preference, reference, tau, message = BAD[name]
    for call in (
        nash.equilibrium,
        lambda *given: nash.nash_md(*given, steps=2),
        lambda p, ref, tau: nash.exploitability(REFERENCE, p, reference=ref, tau=tau),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            call(preference, reference, tau)
        assert "\n" not in str(caught.value)


def test_an_equilibrium_of_another_game_is_refused():
    course = nash.nash_md(CYCLE, REFERENCE, 0.1, steps=2)
    other = nash.equilibrium(np.full((2, 2), 0.5), [0.4, 0.6], 0.1)
    with pytest.raises(ValueError, match=r"^target: expected an equilibrium of shape \(3,\), got"):
        course.kl_from(other)


def test_bad_arguments():
    with pytest.raises(TypeError, match=r"^tau: expected a positive number, got str"):
        nash.equilibrium(CYCLE, REFERENCE, "0.1")
    for name in ("steps", "record_every"):
        with pytest.raises(ValueError, match=rf"^{name}: expected a positive integer, got 0"):
            nash.nash_md(CYCLE, REFERENCE, 0.1, **({"steps": 3} | {name: 0}))
    with pytest.raises(TypeError, match=r"^progress: expected True, False or a function"):
        nash.nash_md(CYCLE, REFERENCE, 0.1, steps=3, progress="yes")
    with pytest.raises(ValueError, match=r"^tau: expected a value with reference, got None"):
        nash.exploitability(REFERENCE, CYCLE, reference=REFERENCE)
    with pytest.raises(ValueError, match=r"^reference: expected a value with tau, got None"):
        nash.exploitability(REFERENCE, CYCLE, tau=0.1)
    for more in ({}, {"reference": REFERENCE, "tau": 0.1}):
        with pytest.raises(ValueError, match=r"^(policy|preference): expected shape"):
            nash.exploitability([0.5, 0.5], CYCLE, **more)
        with pytest.raises(ValueError, match=r"^policy: .* sum of 0.9"):
            nash.exploitability([0.5, 0.4, 0.0], CYCLE, **more)
    with pytest.raises(ValueError, match=r"^preference: expected"):
        nash.exploitability(REFERENCE, [0.5, 0.5, 0.5])


def test_nothing_warns_on_the_way():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nash.equilibrium(0.5 + 0.5 * np.sign(CYCLE - 0.5), REFERENCE, 1e-4)
        nash.nash_md(CYCLE, REFERENCE, 1e-3, steps=50)
