"""The examiner: mutants of shipped losses are each caught by the check that is there for them."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from oracles import central_differences

import bandit
from bandit import losses, verification
from bandit.cli import main
from bandit.losses import Group, Score, Traits
from bandit.verification import _cards, _draws, _examples, _extremes, _gradient, _promises
from bandit.verification._subject import Subject
from bandit.verification._target import shipped

ROOT = Path(__file__).parents[1]
CARDS = ROOT / "notebooks" / "site" / "cards"
COPG = losses.copg.traits
quick = functools.partial(bandit.verify, level="quick")

# ------------------------------------------------------------------- losses to be examined


def regularized(group, beta):
    return group.reward - beta * (group.log_prob - group.ref_log_prob)


def contrast(group, *, beta):
    """CoPG, written once more, without a word about itself."""
    rewards = regularized(group, beta)
    size = rewards.shape[-1]
    deviation = rewards - rewards.mean(axis=-1, keepdims=True)
    value = (deviation**2).sum(axis=-1) * (size / (2 * beta * (size - 1)))
    return Score(value, -deviation * (size / (size - 1)))


def mutant(change, traits=None):
    """CoPG with its score changed, which says of itself what ``traits`` says."""

    def loss(group, *, beta):
        return change(contrast(group, beta=beta), group, beta)

    if traits is not None:
        loss.traits = traits
    return loss


def flipped(score, group, beta):
    return score._replace(weight=-score.weight)


def scaled(score, group, beta):
    return score._replace(weight=2 * score.weight)


def term_dropped(score, group, beta):
    size = group.reward.shape[-1]
    deviation = group.reward - group.reward.mean(axis=-1, keepdims=True)
    return score._replace(weight=-deviation * (size / (size - 1)))


def detached(score, group, beta):
    value = score.value
    return score._replace(value=value.detach() if hasattr(value, "detach") else value)


def with_torch() -> list[str]:
    """What to compare with, where it is installed."""
    pytest.importorskip("torch")
    return ["torch"]


def reproduced(report, check, loss):
    """The score that an example's code makes, and its group and hyper-parameters."""
    example = report[check].example
    names = {"bandit": bandit, "np": np, "loss": loss}
    with np.errstate(all="ignore"):
        exec(example.code, names)
    return names["score"], names["group"], example


def on_pairs(check, loss, *more):
    """One finding without all the others, of a loss that takes pairs."""
    subject = Subject(loss)
    subject.sizes = (2,)
    (found,) = check(subject, np.random.default_rng(0), *more)
    return found


# ------------------------------------------------------------------------------ the gradient


@pytest.mark.parametrize("level", ["quick", "full"])
@pytest.mark.parametrize("change", [flipped, scaled, term_dropped])
def test_a_weight_that_is_not_the_gradient_is_a_fault(change, level):
    loss = mutant(change)
    report = bandit.verify(loss, level=level, libraries=with_torch() if level == "full" else None)
    assert report["gradient"].kind == "fault"
    assert not report.ok
    score, group, example = reproduced(report, "gradient", loss)
    beta = example.inputs["beta"]

    def value(log_prob):
        return loss(group._replace(log_prob=log_prob), beta=beta).value

    slope = central_differences(value, group.log_prob)
    assert np.abs(slope - score.weight).max() > 0.01 * np.abs(score.weight).max()
    unchanged = contrast(group, beta=beta)
    np.testing.assert_allclose(unchanged.weight, slope, atol=1e-9)


@pytest.mark.parametrize(("change", "said"), [(flipped, "(-1 times it)"), (scaled, "(2 times it)")])
def test_a_plain_multiple_is_called_one(change, said):
    assert said in quick(mutant(change))["gradient"].text


def test_examples_are_small():
    report = quick(mutant(flipped))
    group = report["gradient"].example.inputs["group"]
    assert set(group) == {"log_prob", "ref_log_prob", "reward"}
    assert all(len(values) == 2 for values in group.values())
    assert all(float(x).is_integer() for values in group.values() for x in values)
    assert report["gradient"].example.inputs["beta"] == 1.0


def test_a_detached_value_is_seen_by_torch_alone():
    loss = mutant(detached)
    assert quick(loss)["gradient"].kind == "passed"
    found = bandit.verify(loss, libraries=with_torch())["gradient"]
    assert found.kind == "fault"
    assert "value does not depend on log_prob" in found.text


def held(x):
    return x.detach() if hasattr(x, "detach") else x


def reinforce(group, *, beta):
    advantage = held(regularized(group, beta))
    return Score(-(advantage * group.log_prob).sum(axis=-1), -advantage)


def test_what_is_held_constant_is_told_from_a_mistake():
    found = quick(reinforce)["gradient"]
    assert found.kind == "fault"
    assert "semi_gradient=True" in found.text
    found = bandit.verify(reinforce, libraries=with_torch())["gradient"]
    assert found.kind == "property"
    assert found.numbers["holds_constant"]

    def declared(group, *, beta):
        return reinforce(group, beta=beta)

    declared.traits = Traits(semi_gradient=True, requires=frozenset({"reward"}))
    assert quick(declared)["gradient"].kind == "skipped"
    assert bandit.verify(declared, libraries=with_torch())["gradient"].kind == "passed"
    declared.traits = Traits(requires=frozenset({"reward"}))
    assert bandit.verify(declared, libraries=with_torch())["gradient"].kind == "fault"


@pytest.mark.parametrize("by", [1e-4, 1e-6 * 3])
@pytest.mark.parametrize("level", ["quick", "full"])
def test_a_small_mistake_can_be_read(level, by):
    change = mutant(lambda s, g, b: s._replace(weight=(1 + by) * s.weight))
    report = bandit.verify(change, level=level, libraries=with_torch() if level == "full" else None)
    text = report["gradient"].text
    assert report["gradient"].kind == "fault"
    assert f"({1 + by:.8g} times it)" in text
    weight, slope = re.search(r"weight \((\S+), .*value \((\S+), ", text).groups()
    assert float(weight) / float(slope) == pytest.approx(1 + by, abs=by / 10)


def with_traits(loss, offset):
    """The same loss, and the same promises, with a constant in its value."""

    def shifted(group, *, beta):
        score = loss(group, beta=beta)
        return score._replace(value=score.value + offset)

    shifted.traits = losses.traits(loss)
    return shifted


@pytest.mark.parametrize("offset", [1e6, 1e9])
@pytest.mark.parametrize("level", ["quick", "full"])
def test_a_constant_in_the_value_breaks_nothing(level, offset):
    """Differences of large values lose digits: that is no fault of the loss."""
    shifted = mutant(lambda s, g, b: s._replace(value=s.value + offset))
    report = bandit.verify(
        shifted, level=level, libraries=with_torch() if level == "full" else None
    )
    assert report.ok
    assert report["gradient"].kind == "passed"

    def plain(group, *, beta):
        return shifted(group, beta=beta)

    assert "piecewise_linear" not in quick(plain)["traits"].numbers["true"]
    found = on_pairs(_promises.check_traits, with_traits(losses.slic, offset))
    assert found.kind == "passed"
    wrong = mutant(lambda s, g, b: Score(s.value + offset, 2 * s.weight))
    assert quick(wrong)["gradient"].kind == "fault"


def test_a_library_is_asked_for_the_gradient_of_its_own_weight():
    """numpy and torch mean different things by a standard deviation; both differentiate."""

    def standardized(group, *, beta):
        held = group.reward + 0 * group.log_prob
        held = held.detach() if hasattr(held, "detach") else held
        deviation = held - held.mean(axis=-1, keepdims=True)
        advantage = deviation / held.std(axis=-1, keepdims=True)
        return Score(-(advantage * group.log_prob).sum(axis=-1), -advantage)

    report = bandit.verify(standardized, libraries=with_torch())
    assert report["gradient"].kind == "passed"
    assert report["arrays"].kind == "fault"
    assert "weight (1, -1) and (0.7071, -0.7071)" in report["arrays"].text


def test_an_example_of_a_wrong_number_is_of_numbers():
    """Smaller groups may give NaN: that is another trouble."""

    def standardized(group, *, beta):
        score = contrast(group, beta=beta)
        deviation = group.reward - group.reward.mean(axis=-1, keepdims=True)
        scale = ((deviation**2).mean(axis=-1) ** 0.5)[..., None]
        return Score(score.value / scale[..., 0], 2 * score.weight / scale)

    report = bandit.verify(standardized, level="quick", libraries=with_torch())
    score, _, _ = reproduced(report, "gradient", standardized)
    assert np.isfinite(score.weight).all()
    assert "nan" not in report["gradient"].text


def test_differences_find_their_way_around_kinks():
    def hinge(group, *, beta):
        gap = beta * (group.log_prob - group.ref_log_prob)
        delta = gap[..., 0] - gap[..., 1]
        slope = -beta * (delta < 1.0) * group.preference
        value = group.preference * np.maximum(0.0, 1 - delta)
        return Score(value, np.stack([slope, -slope], axis=-1))

    def wrong(group, *, beta):
        return hinge(group, beta=beta)._replace(weight=1.01 * hinge(group, beta=beta).weight)

    assert on_pairs(_gradient.check_gradient, hinge, []).kind == "passed"
    assert on_pairs(_gradient.check_gradient, wrong, []).kind == "fault"


# ---------------------------------------------------------------------- facts about the method


@pytest.mark.parametrize(
    ("loss", "factor"),
    [
        (contrast, "G"),
        (losses.log_variance, "1/β"),
        (losses.rebel, "2β"),
        (mutant(lambda s, g, b: Score(-s.value, -s.weight)), "−G"),
        (mutant(lambda s, g, b: Score(*(x / g.reward.shape[-1] for x in s))), "1"),  # a mean
        (
            mutant(
                # The mean of all completions for baseline, the one it is for included.
                lambda s, g, b: Score(
                    *(x * (1 - 1 / g.reward.shape[-1]) for x in s),
                )
            ),
            "(G−1)",
        ),
        (mutant(lambda s, g, b: Score(0 * s.value, 0 * s.weight)), "0"),
    ],
)
def test_the_factor_of_the_policy_gradient(loss, factor):
    found = quick(loss)["on_policy"]
    assert found.numbers["proportional"]
    assert found.numbers["factor"] == factor


def test_a_policy_gradient_without_its_penalty_is_told():
    def bare(group, *, beta):
        weight = -group.reward + 0 * group.log_prob
        return Score((weight * group.log_prob).sum(axis=-1), weight)

    report = quick(bare)
    assert report.ok
    assert not report["on_policy"].numbers["proportional"]
    assert "ref_log_prob" not in report["reads"].numbers["reads"]
    # The example's problem and policy, by the sum over arms.
    names = {"bandit": bandit, "np": np, "loss": bare}
    exec(report["on_policy"].example.code, names)
    problem, policy, gradient = (names[k] for k in ("problem", "policy", "gradient"))
    rewards = problem.reward - problem.beta * np.log(policy / problem.reference)
    ascent = policy * (rewards - policy @ rewards)
    cosine = -(gradient @ ascent) / np.linalg.norm(gradient) / np.linalg.norm(ascent)
    assert abs(np.degrees(np.arccos(cosine)) - report["on_policy"].numbers["degrees"]) < 1e-3
    assert cosine < 0.999


def test_a_loss_that_weighs_by_the_behavior_depends_on_it():
    def loss(group, *, beta):
        """Its solution weighs every arm by how often it is drawn, once too often."""
        drawn = np.exp(group.behavior_log_prob)
        advantage = drawn * regularized(group, beta)
        return Score(-(advantage * group.log_prob).sum(axis=-1), -advantage)

    report = quick(loss)
    assert report["behavior"].numbers["depends"]
    assert report["optimality"].numbers["optimal"] == 0
    names = {"bandit": bandit, "np": np, "loss": loss}
    exec(report["behavior"].example.code, names)
    one, two = names["solution"], names["solution2"]
    assert one.converged
    assert two.converged
    assert np.abs(one.policy - two.policy).max() > 0.005
    assert not quick(contrast)["behavior"].numbers["depends"]


def test_the_wrong_way_is_unstable():
    report = quick(mutant(lambda s, g, b: Score(-s.value, -s.weight)))
    assert report.ok  # its weight is the gradient of its value
    assert report["optimality"].numbers["optimal"] == report["optimality"].numbers["of"]
    assert report["stability"].numbers["stable"] == 0
    assert "leaves the solution" in report["stability"].text


@pytest.mark.parametrize(
    ("check", "loss", "kept"),
    [
        ("reward_shift", "copg", True),
        ("reward_shift", "policy_gradient", False),
        ("log_ratio_shift", "copg", True),
        ("log_ratio_shift", "policy_gradient", False),
        ("log_ratio_shift", "reward_weighted", True),
    ],
)
def test_shifts(check, loss, kept):
    found = quick(loss)[check]
    assert found.numbers["invariant"] == kept
    assert (found.example is None) == kept


def test_no_solution_is_said():
    found = quick("ppo_clip")
    assert found["existence"].numbers["solved"] == 0
    assert found["optimality"].kind == "skipped"
    assert quick("dpo")["existence"].numbers["deterministic_preferences"] is False


def test_variance_is_next_to_copgs():
    facts = quick(losses.importance_sampling)["variance"].numbers
    assert facts["greatest_ratio"] > 5
    # Scale is no difference.
    facts = quick(losses.log_variance)["variance"].numbers
    assert facts["least_ratio"] == facts["greatest_ratio"] == 1


# ------------------------------------------------------------------------- what it promises


FALSE = {
    "exchangeable": lambda s, g, b: Score(s.value + g.log_prob[..., 0], s.weight),
    "separable": lambda s, g, b: Score(s.value, s.weight**3),
    "contrastive": lambda s, g, b: Score(s.value, s.weight + 1),
    "quadratic": lambda s, g, b: Score(s.value, s.weight**3),
    "piecewise_linear": lambda s, g, b: s,
    "affine_in_reward": lambda s, g, b: Score(s.value, s.weight * g.reward**2),
}


@pytest.mark.parametrize("trait", FALSE)
def test_a_trait_that_is_not_true_is_a_fault(trait):
    alone = Traits(requires=frozenset({"reward"}), sizes=(2, 2), **{trait: True})
    found = on_pairs(_promises.check_traits, mutant(FALSE[trait], alone))
    assert found.kind == "fault"
    assert found.numbers == {"trait": trait}
    assert found.example is not None
    if trait != "piecewise_linear":
        kept = on_pairs(_promises.check_traits, mutant(lambda s, g, b: s, alone))
        assert kept.kind == "passed"
        assert kept.numbers["true"] == [trait]


def test_the_exact_analysis_does_not_rely_on_a_trait_that_is_not_true():
    def plain(group, *, beta):
        rewards = regularized(group, beta)
        return Score((rewards**2).sum(axis=-1) / (2 * beta), -rewards)

    def boasting(group, *, beta):
        return plain(group, beta=beta)

    boasting.traits = Traits(
        requires=frozenset({"reward"}), contrastive=True, piecewise_linear=True, exchangeable=True
    )
    report, honest = quick(boasting), quick(plain)
    assert [finding.check for finding in report.faults] == ["traits"]
    assert "contrastive is declared and not true" in report["traits"].text
    assert "neither is piecewise_linear" in report["traits"].text
    assert "not to rely" in report["traits"].text
    for check in ("on_policy", "existence", "optimality", "behavior", "stability", "variance"):
        assert report[check].text == honest[check].text
    # The weights themselves need not show it, but before and after they do.
    assert "(0), and (-0.7) when every log_prob is 0.7 less" in report["traits"].example.seen


def test_a_minimum_on_a_kink_is_not_said_to_be_none_without_a_word():
    def plain(group, *, beta):
        return losses.slic(group, beta=beta)

    assert "only where piecewise_linear is declared" in quick(plain)["existence"].text
    assert quick(losses.slic)["existence"].text.startswith("found in all")


def test_a_plain_function_is_told_what_it_could_declare():
    found = quick(contrast)["traits"]
    assert found.kind == "property"
    declared = {name for name in FALSE if getattr(COPG, name)}
    assert set(found.numbers["true"]) == declared


def test_reading_more_than_is_declared_is_a_fault():
    def change(score, group, beta):
        return score._replace(weight=score.weight * np.exp(group.behavior_log_prob))

    found = quick(mutant(change, COPG))["reads"]
    assert found.kind == "fault"
    assert "behavior_log_prob is not in traits.requires" in found.text


# ---------------------------------------------------------------------------- form and numbers


def no_score(group, *, beta):
    return tuple(contrast(group, beta=beta))


def summed(group, *, beta):
    return Score(contrast(group, beta=beta).value.sum(), contrast(group, beta=beta).weight)


def narrow(group, *, beta):
    return contrast(group, beta=beta)._replace(weight=group.log_prob[..., :1])


def raising(group, *, beta):
    raise KeyError("what\nis this")


def leaving(group, *, beta):
    sys.exit(3)


def masked(group, *, beta):
    score = contrast(group, beta=beta)
    return score._replace(weight=np.ma.masked_greater(score.weight, 0))


def truths(group, *, beta):
    score = contrast(group, beta=beta)
    return Score(score.value > 0, score.weight > 0)


def half_precision(group, *, beta):
    return Score(*(np.asarray(part, dtype=np.float32) for part in contrast(group, beta=beta)))


class Unreadable:
    """As a tensor that is still being differentiated: it has a shape, and numpy cannot read it."""

    def __init__(self, shape):
        self.shape = shape

    def __array__(self, *arguments, **options):
        raise RuntimeError("detach it first")


def unreadable(group, *, beta):
    return contrast(group, beta=beta)._replace(value=Unreadable(group.log_prob.shape[:-1]))


def sometimes_nan(group, *, beta):
    score = contrast(group, beta=beta)
    return score._replace(weight=np.where(group.reward > 1.0, np.nan, score.weight))


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (no_score, "returns tuple, not a bandit.losses.Score"),
        (summed, "value has shape () for log_prob of shape (2, 2), not (2,)"),
        (narrow, "weight has shape (1,) for log_prob of shape (2,), not (2,)"),
        (raising, "raises KeyError"),
        (sometimes_nan, "weight is (nan"),
        (leaving, "raises SystemExit: 3"),
        (masked, "weight is MaskedArray, not a plain array"),
        (truths, "dtype bool, not real numbers"),
        (half_precision, "is float32 for arrays of float64, which loses digits"),
        (unreadable, "Unreadable for numpy arrays; it raises RuntimeError: detach it first"),
    ],
)
def test_what_does_not_return_what_it_should_is_a_fault_of_one_line(loss, said):
    report = quick(loss)
    found = report["returns"]
    assert found.kind == "fault"
    assert said in found.text
    assert "\n" not in found.text
    assert {f.kind for f in report.findings[1:]} == {"skipped"}
    assert [f.check for f in report.findings] == verification.CHECKS


class _Mute(Exception):  # noqa: N818
    def __str__(self):
        raise ValueError("nothing to say")


@pytest.mark.parametrize(
    ("raised", "said"),
    [(_Mute, "no message"), (GeneratorExit, "GeneratorExit"), (BaseException("odd"), "odd")],
)
def test_whatever_a_loss_raises_is_its_own_fault(raised, said):
    def raising(group, *, beta):
        raise raised

    report = quick(raising)
    assert not report.ok
    assert said in report["returns"].text


def test_an_examiner_that_fails_at_once_passes_nothing(monkeypatch):
    def broken(*_):
        raise ValueError("a mistake of the examiner's")

    monkeypatch.setattr(verification._forms, "check_returns", broken)
    report = quick(contrast)
    assert not report.ok
    assert report["returns"].text == "it could not be examined: a mistake of the examiner's"


def test_an_interrupt_is_not_a_losss():
    def interrupted(group, *, beta):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(interrupted)


def test_a_loss_of_one_library_alone_is_told_how_to_serve_all():
    def of_torch(group, *, beta):
        rewards = regularized(group, beta)
        return contrast(group, beta=beta)._replace(
            value=((rewards - torch.mean(rewards, dim=-1, keepdim=True)) ** 2).sum(-1) / 2 / beta
        )

    def of_none(group, *, beta):
        return group.rewards

    torch = pytest.importorskip("torch")
    text = bandit.verify(of_torch, libraries=with_torch())["returns"].text
    assert text.startswith("raises TypeError: ")
    assert "it takes arrays of torch alone" in text
    assert "alone" not in bandit.verify(of_none, libraries=with_torch())["returns"].text


def test_float32_of_jax_is_told_how_to_keep_digits():
    jax = pytest.importorskip("jax")

    def of_jax(group, *, beta):
        return Score(*map(jax.numpy.asarray, contrast(group, beta=beta)))

    def of_numpy(group, *, beta):
        return Score(*(part.astype(np.float32) for part in contrast(group, beta=beta)))

    assert "jax_enable_x64" in quick(of_jax)["returns"].text
    text = quick(of_numpy)["returns"].text
    assert text == "value is float32 for arrays of float64, which loses digits"
    with jax.enable_x64(True):
        assert quick(of_jax)["returns"].kind == "passed"


def test_what_fails_on_some_rewards_is_not_taken_to_want_a_baseline():
    """Asked again with a baseline, it is asked of the same groups."""

    def modest(group, *, beta):
        if (group.reward < -1).any():
            raise RuntimeError("too bad a reward")
        return contrast(group, beta=beta)

    for seed in range(5):
        report = bandit.verify(modest, level="quick", rng=seed)
        assert report.baseline is None
        assert report["returns"].kind == "fault"


def test_sizes_are_found_out():
    def pairs_only(group, *, beta):
        if group.reward.shape[-1] != 2:
            raise ValueError("pairs, please")
        return contrast(group, beta=beta)

    found = quick(pairs_only)["returns"]
    assert found.kind == "passed"
    assert found.numbers["sizes"] == [2]
    assert "raises ValueError: pairs, please" in found.text
    pairs_only.traits = COPG  # which says at least 2
    assert quick(pairs_only)["returns"].kind == "fault"


def test_changing_what_it_was_given_is_a_fault():
    def greedy(group, *, beta):
        score = contrast(group, beta=beta)
        np.negative(group.reward, out=group.reward)
        return score

    report = quick(greedy)
    assert [finding.check for finding in report.faults] == ["returns"]
    assert "changes group.reward" in report["returns"].text
    inputs = report["returns"].example.inputs["group"]
    assert list(inputs) == ["log_prob", "ref_log_prob", "reward"]
    group = Group(**{name: np.array(values) for name, values in inputs.items()})
    greedy(group, beta=1.0)
    assert not np.array_equal(group.reward, inputs["reward"])
    # What is found of it afterwards would be of other groups than those it was asked about.
    assert {f.kind for f in report.findings[1:]} == {"skipped"}


def test_a_changing_answer_is_a_fault():
    rng = np.random.default_rng(1)

    def fickle(group, *, beta):
        score = contrast(group, beta=beta)
        return score._replace(value=score.value + 1e-4 * rng.normal())

    report = quick(fickle)
    assert [finding.check for finding in report.faults] == ["returns"]
    assert "differently at a second call: value" in report["returns"].text
    one, two = re.search(r"value (\S+), then (\S+)$", report["returns"].text).groups()
    assert 0 < abs(float(one) - float(two)) < 1e-2


def test_an_answer_that_changes_later_is_a_fault():
    """Counting calls, or learning something on the way: no check may depend on what came before."""
    calls = [0]

    def tired(group, *, beta):
        calls[0] += 1
        score = contrast(group, beta=beta)
        return score._replace(value=score.value + (calls[0] > 40))

    found = quick(tired)["returns"]
    assert found.kind == "fault"
    assert found.text.startswith("it answers a group differently after other groups: value")
    assert [f.check for f in quick(contrast).findings] == verification.CHECKS
    assert quick(contrast)["returns"].kind == "passed"


@pytest.mark.parametrize(
    ("scale", "ok"), [(1e-300, False), (1e-8, False), (1e-3, True), (0.0, True), (1e6, True)]
)
def test_what_is_too_small_to_be_judged_is_not_passed(scale, ok):
    """A wrong sign would hide below the rounding that checks allow for."""

    def scaled(group, *, beta):
        score = contrast(group, beta=beta)
        return Score(scale * score.value, scale * score.weight)

    assert (quick(scaled)["returns"].kind == "passed") == ok


def test_a_baseline_of_the_whole_batch_is_a_fault():
    def batched(group, *, beta):
        rewards = regularized(group, beta)
        advantage = rewards - rewards.mean()
        return Score((advantage**2).sum(axis=-1) / -2 / beta, advantage)

    report = bandit.verify(batched, libraries=with_torch())
    assert [finding.check for finding in report.faults] == ["batch"]
    _, group, example = reproduced(report, "batch", batched)
    assert group.log_prob.shape == (2, 1)
    assert group.behavior_log_prob is None
    assert example.inputs["beta"] == 1
    alone = batched(Group(*(None if f is None else f[0] for f in group)), beta=1.0)
    together = batched(group, beta=1.0)
    assert alone.value != together.value[0]
    assert f"{alone.value + 0.0:g} alone and {together.value[0]:g} in a batch" in example.seen
    # Over a whole batch derivatives may cancel: that says nothing of what is held constant.
    assert report["gradient"].kind == "passed"
    assert report["optimality"].kind == "skipped"


def test_what_only_a_batch_shows_is_not_taken_for_something_held_constant():
    def by_rank(group, *, beta):
        rewards = regularized(group, beta)
        advantage = rewards - rewards.mean(axis=0, keepdims=True)
        return Score((advantage**2).sum(axis=-1) / (2 * beta), -advantage)

    for libraries in ([], with_torch()):
        report = bandit.verify(by_rank, libraries=libraries)
        assert [finding.check for finding in report.faults] == ["batch"]
        assert report["gradient"].kind == "skipped"


def test_what_is_too_much_to_read_is_no_example():
    """Wrong only from the third group on: no batch of two shows it."""

    def drifting(group, *, beta):
        score = contrast(group, beta=beta)
        if group.log_prob.ndim == 1:
            return score
        rank = np.arange(group.log_prob.shape[-2])
        return score._replace(value=score.value * np.where(rank > 1, 1.5, 1.0))

    found = quick(drifting)["batch"]
    assert found.kind == "fault"
    assert found.example is None


def test_a_weight_without_the_axes_of_the_policies_is_a_fault():
    def unstretched(group, *, beta):
        return Score(-(group.reward * group.log_prob).sum(axis=-1), -group.reward)

    found = quick(unstretched)["batch"]
    assert found.kind == "fault"
    assert "weight has shape (2, 1) for log_prob of shape (2, 2, 1)" in found.text
    assert np.shape(found.example.inputs["group"]["reward"]) == (2, 1)

    def as_advised(group, *, beta):
        score = unstretched(group, beta=beta)
        return score._replace(weight=score.weight + 0 * group.log_prob)

    assert "adding 0 * group.log_prob spreads it" in found.text
    assert quick(as_advised)["batch"].kind == "passed"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s, g, b: Score(*(x * np.float64(1) for x in s)), "value is float64 for numpy"),
        (lambda s, g, b: Score(*(1.5 * x if hasattr(x, "detach") else x for x in s)), "disagree"),
    ],
)
def test_other_arrays_get_other_answers(change, said):
    found = bandit.verify(mutant(change), libraries=with_torch())["arrays"]
    assert found.kind == "fault"
    assert said in found.text


def test_numpy_alone_is_a_property():
    def stubborn(group, *, beta):
        if not isinstance(group.log_prob, np.ndarray):
            raise TypeError("arrays of numpy only")
        return contrast(group, beta=beta)

    report = bandit.verify(stubborn, libraries=with_torch())
    assert report["arrays"].kind == "property"
    assert report["arrays"].numbers["agree"] == ["numpy"]
    assert report["gradient"].kind == "passed"


def test_jax_agrees():
    pytest.importorskip("jax")
    report = quick(mutant(scaled), libraries=["jax"])
    assert report["arrays"].numbers["agree"] == ["numpy", "JAX"]
    assert report["gradient"].kind == "fault"
    assert report["gradient"].numbers["by"] == "JAX"


def test_nan_where_nothing_differs_is_a_fault():
    def standardized(group, *, beta):
        """GRPO's advantages, without a thought for equal rewards."""
        centered = group.reward - group.reward.mean(axis=-1, keepdims=True)
        advantage = centered / group.reward.std(axis=-1, keepdims=True)
        return Score(-(advantage * group.log_prob).sum(axis=-1), -advantage)

    report = quick(standardized)
    found = report["extremes"]
    assert found.kind == "fault"
    assert found.numbers["where"] in ("rewards all 1e300", "equal rewards")
    score, group, _ = reproduced(report, "extremes", standardized)
    assert np.isnan(score.weight).any()
    assert np.ptp(group.reward) == 0


def test_nan_for_labels_far_out_is_a_fault():
    """0 · ln 0: neither a label nor a far policy alone meets it, but every long training does."""

    def naive(group, *, beta):
        log_ratio = beta * (group.log_prob - group.ref_log_prob)
        chance = 1 / (1 + np.exp(log_ratio[..., 1] - log_ratio[..., 0]))
        pull = -beta * (group.preference - chance)
        value = -group.preference * np.log(chance) - (1 - group.preference) * np.log(1 - chance)
        return Score(value, np.stack([pull, -pull], axis=-1))

    report = quick(naive)
    assert [finding.check for finding in report.faults] == ["extremes"]
    assert report["extremes"].numbers["where"] == "preferences of 0 and 1 at log-ratios of ±1e3"
    score, group, _ = reproduced(report, "extremes", naive)
    assert np.isnan(score.value)
    assert group.preference in (0, 1)


def test_a_weight_alone_may_be_the_nan():
    def change(score, group, beta):
        alike = np.ptp(group.reward, axis=-1, keepdims=True) == 0
        return score._replace(weight=np.where(alike, np.nan, score.weight))

    found = quick(mutant(change))["extremes"]
    assert found.kind == "fault"
    assert "weight (nan" in found.text


def test_a_refusal_is_not_a_fault():
    def careful(score, group, beta):
        if np.abs(group.reward).max() > 1e100:
            raise ValueError("reward: expected at most 1e100")
        return score

    found = quick(mutant(careful))["extremes"]
    assert found.kind == "property"
    assert found.numbers["refusal"] == ["rewards of ±1e300", "rewards all 1e300"]
    assert quick("copg")["extremes"].numbers["infinity"] == ["rewards of ±1e300"]


# ---------------------------------------------------------------------------------- arguments


def test_hyper_parameters_may_be_bound():
    report = quick(functools.partial(losses.copg, beta=3.0))
    assert report.ok
    assert report["optimality"].numbers["optimal"] < report["optimality"].numbers["of"]
    report = quick(functools.partial(losses.policy_gradient, baseline="given"))
    assert report.ok
    # With the value baseline, which needs groups that have one, off-policy it is π*.
    optimal = report["optimality"].numbers
    assert optimal["optimal"] == optimal["of"]


def test_a_baseline_may_be_named():
    optimal = {}
    for baseline in ("behavior", "reward", None):
        report = quick("policy_gradient", baseline=baseline)
        assert report.ok
        assert report.baseline == baseline
        optimal[baseline] = report["optimality"].numbers["optimal"]
    assert optimal == {"behavior": 9, "reward": 0, None: 0}
    # Rewards and their mean move together.
    assert quick("policy_gradient", baseline="value")["reward_shift"].numbers["invariant"]
    # A shipped loss has that of its preset, and one that asks for a baseline gets one.
    assert quick("value_regression").baseline == "behavior"
    assert quick("copg").baseline is None

    def asks(group, *, beta):
        advantage = regularized(group, beta) - group.baseline[..., None]
        return Score((advantage**2).sum(axis=-1) / (2 * beta), -advantage)

    report = quick(asks)
    assert report.baseline == "value"
    assert "baseline" in report["reads"].numbers["reads"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"loss": "copg", "baseline": "value"}, "baseline: expected None for copg, which has none"),
        ({"loss": "ppo_clip", "baseline": "v"}, "baseline: expected one of value, behavior"),
        ({"loss": 3}, "loss: expected a function, got int"),
        ({"loss": "capg"}, "method: expected one of copg"),
        ({"loss": mutant(lambda s, g, b: s, "all")}, "loss: expected traits of type bandit.losses"),
        ({"loss": lambda: None}, "loss: expected a function of a group"),
        ({"loss": lambda group, *, gamma: None}, "loss: expected a function of a group whose"),
        ({"loss": "copg", "level": "deep"}, "level: expected one of full, quick"),
        ({"loss": "copg", "rng": "a"}, "rng: expected a Generator or an integer, got str"),
        ({"loss": "copg", "rng": -1}, "rng: expected a seed of at least 0, got -1"),
        ({"loss": "copg", "libraries": ["cupy"]}, "libraries: expected one of torch, jax"),
        ({"loss": "copg", "libraries": "torch"}, "libraries: expected a sequence of names"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments, said):
    with pytest.raises((TypeError, ValueError), match=re.escape(said)) as caught:
        bandit.verify(**arguments)
    assert "\n" not in str(caught.value)


def test_seeds():
    one, same, other = (quick("policy_gradient", rng=seed) for seed in (3, 3, 4))
    assert one.to_json() == same.to_json()
    assert one.to_dict()["findings"] != other.to_dict()["findings"]
    assert quick("ipo", rng=np.random.default_rng(3)).seed is None


def test_nothing_of_it_is_loaded_with_the_package():
    code = "import sys, bandit; print('bandit.verification' in sys.modules, bandit.verify.__name__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "verify"]


# ---------------------------------------------------------------------------------- shrinking


def test_shrinking_ends_at_the_smallest_case_that_fails():
    rng = np.random.default_rng(0)
    case = _draws.groups(rng, 5, 1.7, baseline=None).one((0,))

    def fails(candidate):
        return candidate.group.reward is not None and candidate.group.reward.max() > 1.5

    case = case._replace(group=case.group._replace(reward=case.group.reward + 2))
    small = _examples.shrink_group(case, fails, (2, 3, 5))
    assert small.group.reward.tolist() in ([2.0, 0.0], [0.0, 2.0])
    assert small.group.log_prob.tolist() == [-1.0, -1.0]
    assert small.group.preference is None
    assert small.beta == 1.0
    problem = _draws.random_problem(rng, (3, 5))
    smallest = _examples.shrink_problem(problem, lambda c: True, 100)
    assert smallest.reward.shape == (2,)
    assert smallest.context_weights is None
    assert smallest.problem.beta == 1.0


def test_problems_are_problems_and_can_be_read():
    for seed in range(20):
        for case in _draws.problems(np.random.default_rng(seed), 5):
            assert case.problem.reward.shape == case.mu.shape == case.pairs("joint").shape[:-1]
            for part in (case.reference, case.mu, case.other):
                np.testing.assert_allclose(part.sum(axis=-1), 1, atol=1e-12)
                assert part.min() >= 0.01
                np.testing.assert_array_equal(part, np.round(part, 2))
            joint = case.pairs("joint")
            np.testing.assert_allclose(joint.sum(axis=(-2, -1)), 1, atol=1e-12)
            # Neither independent nor symmetric.
            product = joint.sum(axis=-1)[..., :, None] * joint.sum(axis=-2)[..., None, :]
            assert np.abs(joint - product).max() > 1e-3
            assert np.abs(joint - np.swapaxes(joint, -1, -2)).max() > 1e-3


# ------------------------------------------------------------------------- reports and cards


def test_report_is_a_table_everywhere():
    report = quick(mutant(flipped))
    assert isinstance(report.table, pd.DataFrame)
    assert list(report.table.index) == verification.CHECKS
    assert list(report.table.columns) == ["verdict", "finding", "example"]
    assert report.table.loc["gradient", "verdict"] == "fault"
    assert "score = loss(group, beta=1.0)" in report.table.loc["gradient", "example"]
    html = report._repr_html_()
    assert "<table" in html
    assert "1 fault" in html
    text = str(report)
    assert text == report.text()
    assert max(map(len, text.splitlines())) <= 100
    assert text.splitlines()[0] == report.summary
    assert "gradient, to reproduce:" in text
    with pytest.raises(KeyError, match="check: expected one of returns"):
        report["nothing"]


def check_schema(document):
    assert set(document) == {"schema", "version", "ok", "losses"}
    assert document["schema"] == "copg-bandit verify 1"
    for loss in document["losses"]:
        assert set(loss) == {"loss", "ok", "level", "seed", "baseline", "findings"}
        assert [f["check"] for f in loss["findings"]] == verification.CHECKS
        for finding in loss["findings"]:
            assert set(finding) == {"check", "kind", "text", "numbers", "example"}
            assert finding["kind"] in ("passed", "fault", "property", "skipped")
            assert isinstance(finding["numbers"], dict)
            if finding["example"] is not None:
                assert set(finding["example"]) == {"inputs", "code", "seen"}
        assert loss["ok"] == all(f["kind"] != "fault" for f in loss["findings"])
    assert document["ok"] == all(loss["ok"] for loss in document["losses"])


def test_json_has_a_schema():
    document = json.loads(quick("importance_sampling").to_json())
    check_schema(document)
    assert document["ok"]


@pytest.mark.parametrize("name", losses.REGISTRY)
def test_every_shipped_loss_passes_and_has_its_card(name):
    report = bandit.verify(shipped(name), libraries=with_torch())
    assert report.faults == ()
    written = _cards.card(report).splitlines()
    committed = (CARDS / f"{name}.md").read_text(encoding="utf-8").splitlines()
    # What JAX adds to the row of arrays is tested where JAX is.
    rest = [[line for line in lines if "| arrays |" not in line] for lines in (written, committed)]
    assert rest[0] == rest[1]
    agreed = "| arrays | passed | the same numbers from numpy and torch and JAX; "
    assert any(line.startswith(agreed) for line in committed)
    row = _cards.index([report]).splitlines()[4]
    assert row in (CARDS / "index.md").read_text(encoding="utf-8").splitlines()


def test_there_is_a_card_for_every_shipped_loss_and_for_no_other():
    assert {path.stem for path in CARDS.iterdir()} == {*losses.REGISTRY, _cards.INDEX}
    listed = re.findall(r"^\| \[`(\w+)`\]\(\1\.md\)", (CARDS / "index.md").read_text(), re.M)
    assert listed == list(losses.REGISTRY)


# --------------------------------------------------------------------------- the command line


USER_FILE = """
import helper_of_mine
from bandit.losses import Score

print("hello from the module")

def mine(group, *, beta):
    print("hello from the loss")
    return Score(*helper_of_mine.contrast(group, beta))

def wrong(group, *, beta):
    score = mine(group, beta=beta)
    return Score(score.value, -score.weight)

def needs_gamma(group, *, gamma):
    return mine(group, beta=gamma)

number = 3
"""

HELPER = """
import numpy as np

def contrast(group, beta):
    rewards = group.reward - beta * (group.log_prob - group.ref_log_prob)
    gap = rewards[..., :1] - rewards[..., 1:]
    return (gap**2).sum(axis=-1) / (2 * beta), np.concatenate([-gap, gap], axis=-1)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "my_losses.py").write_text(USER_FILE)
    (tmp_path / "helper_of_mine.py").write_text(HELPER)
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "quits.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "odd.py").write_text("raise BaseException('odd')\n")
    (tmp_path / "unfinished.py").write_text("def loss(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.mark.parametrize("where", ["my_losses", "my_losses.py", "./my_losses.py"])
def test_a_users_own_loss(here, capsys, where):
    assert main(["verify", f"{where}:mine", "--quick"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("mine: 0 faults, ")
    assert "hello" not in printed.out
    assert "hello from the loss" in printed.err
    assert main(["verify", f"{where}:wrong", "--quick"]) == 1
    assert "weight is not the gradient of value" in capsys.readouterr().out


def test_json_from_the_command_line(here, capsys):
    assert main(["verify", "my_losses.py:wrong", "copg", "--quick", "--json", "--seed", "5"]) == 1
    document = json.loads(capsys.readouterr().out)
    check_schema(document)
    assert [(loss["loss"], loss["ok"]) for loss in document["losses"]] == [
        ("wrong", False),
        ("copg", True),
    ]
    assert document["losses"][0]["seed"] == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["capg"], "target: expected a shipped loss, package.module:function or path"),
        (["nothing.here:loss"], "expected nothing.here to be importable, got ModuleNotFoundError"),
        (["nothing.py:loss"], "target: expected a file, got nothing.py, which is not there"),
        (["broken.py:loss"], "expected broken.py to be importable, got ModuleNotFoundError"),
        (["broken:loss"], "expected broken to be importable, got ModuleNotFoundError"),
        (["quits.py:loss"], "expected quits.py to be importable, got SystemExit"),
        (["odd.py:loss"], "expected odd.py to be importable, got BaseException: odd"),
        (["a\nb:loss"], r"expected 'a\nb' to be importable, got ModuleNotFoundError"),
        (["unfinished.py:loss"], "expected unfinished.py to be importable, got SyntaxError"),
        (["my_losses.py:other"], "which has no 'other'"),
        (["my_losses.py:number"], "expected a function, got my_losses.py:number of type int"),
        (["my_losses.py:needs_gamma"], "got needs_gamma(group, *, gamma)"),
        ([], "verify: expected names of losses, or --all, and not both"),
        (["copg", "--all"], "verify: expected names of losses, or --all, and not both"),
        (["copg", "--cards", "cards"], "cards: expected --all without --quick and --baseline"),
        (["copg", "--seed", "-1"], "--seed"),
    ],
)
def test_wrong_words_are_one_line_and_exit_status_2(here, capsys, words, said):
    assert main(["verify", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if not line.startswith("hello")]
    assert len(lines) == 1
    assert said in lines[0]


def test_cards_are_written_whole(tmp_path, monkeypatch, capsys):
    if importlib.util.find_spec("jax") is None:
        assert main(["verify", "--all", "--cards", str(tmp_path)]) == 2
        assert "expected torch and jax" in capsys.readouterr().err
        return
    folder = tmp_path / "new" / "cards"
    monkeypatch.setattr(losses, "REGISTRY", {"slic": losses.slic})
    assert main(["verify", "--all", "--cards", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("slic: 0 faults, ")
    assert {path.name for path in folder.iterdir()} == {"slic.md", "index.md"}
    assert (folder / "slic.md").read_bytes() == (CARDS / "slic.md").read_bytes()


def test_every_extreme_is_reached():
    """A group that meets all of them at once shows that each check has its field."""
    case = _draws.groups(np.random.default_rng(0), 2, 1.0, baseline=None)
    for extreme in _extremes.EXTREMES:
        changed = extreme.change(case.group)
        assert changed
        assert set(changed) <= set(Group._fields)
        for field, values in changed.items():
            assert values.shape == getattr(case.group, field).shape
            assert not np.array_equal(values, getattr(case.group, field))


PAGE = (ROOT / "notebooks" / "site" / "pages" / "verify.md").read_text(encoding="utf-8")


def test_the_page_shows_what_comes_out(capsys):
    ((code, expected),) = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "verify.md", "exec"), {})
    assert capsys.readouterr().out == expected


def test_the_page_explains_every_check_and_every_trait():
    for name in (*verification.CHECKS, *FALSE):
        assert f"`{name}`" in PAGE, name
