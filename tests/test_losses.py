"""Every objective against formulas of the tests' own: value, weight, and what is held constant.

A value says little about a surrogate loss, so its derivative is what is checked: each method is
written out below as a plain function of the completions' log-probabilities *and* of the held copy
of them that the method treats as constant. Differentiating by the first alone must give the weight.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import math
import statistics
from typing import NamedTuple

import array_api_strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from bandit import losses
from bandit.losses import Group, Score

# ------------------------------------------------------------------ the methods, written out


class Plain(NamedTuple):
    """One group as lists of floats."""

    ref: list[float]
    reward: list[float]
    preference: float
    behavior: list[float]
    baseline: float


def log_ratios(lp, g):
    return [a - b for a, b in zip(lp, g.ref, strict=True)]


def regularized(lp, g, beta):
    return [r - beta * a for r, a in zip(g.reward, log_ratios(lp, g), strict=True)]


def copg(lp, held, g, beta):
    rewards = regularized(lp, g, beta)
    square = sum((a - b) ** 2 for a, b in itertools.combinations(rewards, 2))
    return square / (2 * beta * (len(lp) - 1))


def log_variance(lp, held, g, beta):
    return statistics.variance([r / beta for r in regularized(lp, g, beta)]) / 2


def rebel(lp, held, g, eta):
    one, two = log_ratios(lp, g)
    return ((one - two) / eta - (g.reward[0] - g.reward[1])) ** 2 / 2


def ipo(lp, held, g, beta):
    one, two = log_ratios(lp, g)
    p, gap, half = g.preference, one - two, 1 / (2 * beta)
    return p * (gap - half) ** 2 + (1 - p) * (gap + half) ** 2


def dpo(lp, held, g, beta):
    one, two = log_ratios(lp, g)
    p, z = g.preference, beta * (one - two)
    return p * math.log(1 + math.exp(-z)) + (1 - p) * math.log(1 + math.exp(z))


def dpo_with_data_term(lp, held, g, beta, alpha=0.1):
    return dpo(lp, held, g, beta) - alpha * sum(lp) / 2


def slic(lp, held, g, beta):
    one, two = log_ratios(lp, g)
    p, z = g.preference, beta * (one - two)
    return p * max(0.0, 1 - z) + (1 - p) * max(0.0, 1 + z)


def advantages(held, g, beta, baseline):
    rewards = regularized(held, g, beta)
    if baseline == "given":
        return [r - g.baseline for r in rewards]
    if baseline == "leave_one_out":
        others = [rewards[:i] + rewards[i + 1 :] for i in range(len(rewards))]
        return [r - statistics.fmean(o) for r, o in zip(rewards, others, strict=True)]
    return rewards


def policy_gradient(lp, held, g, beta, baseline="none"):
    return -sum(
        a * log_prob for a, log_prob in zip(advantages(held, g, beta, baseline), lp, strict=True)
    )


def rloo(lp, held, g, beta):
    return policy_gradient(lp, held, g, beta, "leave_one_out")


def importance_sampling(lp, held, g, beta, clip=None, baseline="none"):
    total = 0.0
    for i, a in enumerate(advantages(held, g, beta, baseline)):
        ratio = math.exp(held[i]) / math.exp(g.behavior[i])
        total -= (ratio if clip is None else min(ratio, clip)) * a * lp[i]
    return total


def ppo_clip(lp, held, g, beta, epsilon=0.2, baseline="none"):
    total = 0.0
    for i, a in enumerate(advantages(held, g, beta, baseline)):
        ratio = math.exp(lp[i]) / math.exp(g.behavior[i])
        total -= min(ratio * a, min(max(ratio, 1 - epsilon), 1 + epsilon) * a)
    return total


def clipped_objective(lp, held, g, beta, epsilon=0.2, baseline="none"):
    total = 0.0
    for i, a in enumerate(advantages(held, g, beta, baseline)):
        pi, mu = math.exp(lp[i]), math.exp(g.behavior[i])
        clipped = min(max(pi, (1 - epsilon) * mu), (1 + epsilon) * mu)
        total -= min(math.log(pi) * a, math.log(clipped) * a)
    return total


def grpo(lp, held, g, beta):
    mean, spread = statistics.fmean(g.reward), statistics.pstdev(g.reward)
    total = 0.0
    for r, log_prob, ratio in zip(g.reward, lp, log_ratios(lp, g), strict=True):
        total += -(r - mean) / spread * log_prob + beta * (math.exp(-ratio) - 1 + ratio)
    return total


def value_regression(lp, held, g, beta):
    return sum((r - g.baseline) ** 2 for r in regularized(lp, g, beta)) / 2


def trajectory_balance(lp, held, g, beta):
    log_z, density = (
        g.baseline / beta,
        [math.exp(r / beta + q) for r, q in zip(g.reward, g.ref, strict=True)],
    )
    return sum((log_z + a - math.log(d)) ** 2 for a, d in zip(lp, density, strict=True)) / 2


def pmd_mean(lp, held, g, beta, given=False):
    mean = g.baseline if given else statistics.fmean(g.reward)
    pulls = zip(g.reward, log_ratios(lp, g), strict=True)
    return sum((r - mean - beta * a) ** 2 for r, a in pulls) / (2 * beta)


def asymmetric_reinforce(lp, held, g, beta, shift=-0.1):
    bar = g.baseline + shift
    rewards = regularized(held, g, beta)
    return sum((bar - r) * log_prob for r, log_prob in zip(rewards, lp, strict=True))


def reward_weighted(lp, held, g, beta, normalize=False, baselined=True):
    weights = [math.exp((r - (g.baseline if baselined else 0.0)) / beta) for r in g.reward]
    if normalize:
        weights = [w / sum(weights) for w in weights]
    return -sum(w * log_prob for w, log_prob in zip(weights, lp, strict=True))


class Variant(NamedTuple):
    """A loss with keywords, its plain formula, and whether the group carries a baseline."""

    loss: object
    plain: object
    with_baseline: bool = False

    @property
    def traits(self):
        return losses.traits(self.loss)


def variant(name, /, *, with_baseline=False, plain_only=None, **hyper):
    plain = functools.partial(globals()[name], **hyper, **(plain_only or {}))
    return Variant(functools.partial(losses.REGISTRY[name], **hyper), plain, with_baseline)


BASELINES = {
    "none": {},
    "given": {"baseline": "given", "with_baseline": True},
    "loo": {"baseline": "leave_one_out"},
}

VARIANTS = {
    "copg": variant("copg", beta=0.7),
    "log_variance": variant("log_variance", beta=0.7),
    "rebel": variant("rebel", eta=1.6),
    "ipo": variant("ipo", beta=0.7),
    "dpo": variant("dpo", beta=0.7),
    "dpo_with_data_term": variant("dpo_with_data_term", beta=0.7),
    "dpo_with_data_term-strong": variant("dpo_with_data_term", beta=0.7, alpha=2.3),
    "slic": variant("slic", beta=0.7),
    "rloo": variant("rloo", beta=0.7),
    "grpo": variant("grpo", beta=0.7),
    "value_regression": variant("value_regression", beta=0.7, with_baseline=True),
    "trajectory_balance": variant("trajectory_balance", beta=0.7, with_baseline=True),
    "pmd_mean": variant("pmd_mean", beta=0.7),
    "pmd_mean-given": variant("pmd_mean", beta=0.7, with_baseline=True, plain_only={"given": True}),
    "asymmetric_reinforce": variant("asymmetric_reinforce", beta=0.7, with_baseline=True),
    "asymmetric_reinforce-above": variant(
        "asymmetric_reinforce", beta=0.7, with_baseline=True, shift=0.4
    ),
    "reward_weighted": variant("reward_weighted", beta=0.7, plain_only={"baselined": False}),
    "reward_weighted-given": variant("reward_weighted", beta=0.7, with_baseline=True),
    "reward_weighted-normalize": variant(
        "reward_weighted", beta=0.7, normalize=True, plain_only={"baselined": False}
    ),
    "reward_weighted-normalize-given": variant(
        "reward_weighted", beta=0.7, normalize=True, with_baseline=True
    ),
}
for option, keywords in BASELINES.items():
    VARIANTS |= {
        f"policy_gradient-{option}": variant("policy_gradient", beta=0.7, **keywords),
        f"importance_sampling-{option}": variant("importance_sampling", beta=0.7, **keywords),
        f"importance_sampling-clip-{option}": variant(
            "importance_sampling", beta=0.7, clip=1.3, **keywords
        ),
        f"ppo_clip-{option}": variant("ppo_clip", beta=0.7, **keywords),
        f"ppo_clip-wide-{option}": variant("ppo_clip", beta=0.7, epsilon=0.6, **keywords),
        f"clipped_objective-{option}": variant("clipped_objective", beta=0.7, **keywords),
        f"clipped_objective-wide-{option}": variant(
            "clipped_objective", beta=0.7, epsilon=0.6, **keywords
        ),
    }

every_variant = pytest.mark.parametrize("name", VARIANTS)


def test_every_registered_loss_is_under_test():
    assert {name.split("-")[0] for name in VARIANTS} == set(losses.REGISTRY)


def sizes_of(own, among=(1, 2, 3, 5)):
    least, most = own.sizes
    return [size for size in among if size >= least and (most is None or size <= most)]


def groups_of(name, size, lead=(4,), seed=0):
    """Random float64 groups that carry every field the variant reads."""
    rng = np.random.default_rng([seed, size, *name.encode()])
    shape = (*lead, size)
    ref = np.log(rng.uniform(0.02, 0.9, size=shape))
    return Group(
        log_prob=ref + rng.normal(scale=0.8, size=shape),
        ref_log_prob=ref,
        reward=rng.normal(loc=0.4, scale=1.3, size=shape),
        preference=rng.uniform(0.1, 0.9, size=lead) if size == 2 else None,
        behavior_log_prob=ref + rng.normal(scale=0.6, size=shape),
        baseline=rng.normal(size=lead) if VARIANTS[name].with_baseline else None,
    )


def plain_groups(group):
    """Each group of a (B, G) batch as (log_prob, Plain)."""
    for b in range(group.log_prob.shape[0]):
        yield (
            group.log_prob[b].tolist(),
            Plain(
                group.ref_log_prob[b].tolist(),
                group.reward[b].tolist(),
                math.nan if group.preference is None else float(group.preference[b]),
                group.behavior_log_prob[b].tolist(),
                math.nan if group.baseline is None else float(group.baseline[b]),
            ),
        )


def for_sizes(names=VARIANTS):
    cases = [(n, size) for n in names for size in sizes_of(VARIANTS[n].traits)]
    # Leaving one out of one leaves none.
    return [(n, size) for n, size in cases if not (n.endswith("loo") and size == 1)]


# ---------------------------------------------------------------------------- value and weight


@pytest.mark.parametrize(("name", "size"), for_sizes())
def test_value_is_the_formula(name, size):
    case, group = VARIANTS[name], groups_of(name, size, lead=(40,))
    expected = [case.plain(lp, lp, g) for lp, g in plain_groups(group)]
    np.testing.assert_allclose(case.loss(group).value, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("name", "size"), for_sizes())
def test_weight_is_the_derivative_of_the_formula(name, size):
    case, group = VARIANTS[name], groups_of(name, size, lead=(40,))
    step, slopes = 1e-4, []
    for lp, g in plain_groups(group):
        for i in range(size):
            moved = {
                k: case.plain([*lp[:i], lp[i] + k * step, *lp[i + 1 :]], lp, g)
                for k in (-2, -1, 1, 2)
            }
            slopes.append((8 * (moved[1] - moved[-1]) - moved[2] + moved[-2]) / (12 * step))
    expected = np.reshape(slopes, group.log_prob.shape)
    np.testing.assert_allclose(case.loss(group).weight, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("name", "size"), for_sizes())
def test_weight_is_what_torch_differentiates(name, size):
    torch = pytest.importorskip("torch")
    group = Group(
        *(None if x is None else torch.tensor(x) for x in groups_of(name, size, lead=(3, 7)))
    )
    group.log_prob.requires_grad_()
    score = VARIANTS[name].loss(group)
    assert score.value.dtype == score.weight.dtype == torch.float64
    (slope,) = torch.autograd.grad(score.value.sum(), group.log_prob)
    torch.testing.assert_close(slope, score.weight.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["dpo", "ppo_clip-none", "clipped_objective-none"])
def test_torch_differentiates_extreme_groups_without_nan(name):
    torch = pytest.importorskip("torch")
    log_prob = torch.tensor([[-1.0, -800.0], [-700.0, -0.1]], dtype=torch.float64)
    group = Group(
        log_prob.requires_grad_(),
        torch.full((2, 2), -0.7, dtype=torch.float64),
        torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64),
        torch.tensor([1.0, 0.0], dtype=torch.float64) if name == "dpo" else None,
        torch.full((2, 2), -0.9, dtype=torch.float64),
    )
    score = VARIANTS[name].loss(group)
    (slope,) = torch.autograd.grad(score.value.sum(), group.log_prob)
    assert torch.isfinite(slope).all()
    torch.testing.assert_close(slope, score.weight.detach(), rtol=1e-12, atol=1e-12)


# ----------------------------------------------------------------------------- array libraries


def fields_in(xp, group, dtype):
    return Group(*(None if x is None else xp.asarray(x, dtype=dtype) for x in group))


@pytest.mark.parametrize(("name", "size"), for_sizes())
def test_strict_arrays_give_the_same_numbers(name, size):
    group, loss = groups_of(name, size), VARIANTS[name].loss
    strict = loss(fields_in(array_api_strict, group, array_api_strict.float64))
    for found, expected in zip(strict, loss(group), strict=True):
        assert isinstance(found, type(array_api_strict.asarray(0.0)))
        np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("name", "size"), [(n, s) for n, s in for_sizes() if s <= 2])
def test_jax_gives_the_same_numbers_and_derivatives(name, size):
    jax = pytest.importorskip("jax")
    group, loss = groups_of(name, size, lead=(3,)), VARIANTS[name].loss
    with jax.enable_x64(True):
        fields = fields_in(importlib.import_module("jax.numpy"), group, "float64")
        score = loss(fields)
        slope = jax.grad(lambda lp: loss(fields._replace(log_prob=lp)).value.sum())(fields.log_prob)
        for found, expected in zip(score, loss(group), strict=True):
            assert isinstance(found, jax.Array)
            np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(slope, score.weight, rtol=1e-12, atol=1e-12)


@every_variant
def test_single_precision_stays_single(name):
    torch = pytest.importorskip("torch")
    group = groups_of(name, 2)
    exact = VARIANTS[name].loss(group)
    for xp, dtype in ((np, np.float32), (torch, torch.float32), (array_api_strict, None)):
        dtype = array_api_strict.float32 if dtype is None else dtype
        score = VARIANTS[name].loss(fields_in(xp, group, dtype))
        assert score.value.dtype == score.weight.dtype == dtype
        np.testing.assert_allclose(np.asarray(score.weight), exact.weight, rtol=1e-4, atol=1e-4)


def test_a_numpy_number_for_beta_keeps_single_precision():
    single = fields_in(np, groups_of("copg", 2), np.float32)
    assert losses.copg(single, beta=np.float64(0.5)).weight.dtype == np.float32


@every_variant
def test_arguments_are_not_written_to(name):
    group = groups_of(name, 2)
    for field in group:
        if field is not None:
            field.setflags(write=False)
    VARIANTS[name].loss(group)


# -------------------------------------------------------------------------------- the contract


@every_variant
def test_shapes_of_score_and_leading_axes(name):
    size = sizes_of(VARIANTS[name].traits, among=(2, 3))[-1]
    group = groups_of(name, size, lead=(2, 3))
    score = VARIANTS[name].loss(group)
    assert isinstance(score, Score)
    assert score.value.shape == (2, 3)
    assert score.weight.shape == (2, 3, size)
    one = VARIANTS[name].loss(Group(*(None if x is None else x[1, 2] for x in group)))
    assert one.value.shape == ()
    np.testing.assert_allclose(one.value, score.value[1, 2], rtol=1e-14)
    np.testing.assert_allclose(one.weight, score.weight[1, 2], rtol=1e-14)


@every_variant
def test_fields_with_fewer_leading_axes_are_shared(name):
    group = groups_of(name, 2, lead=(3,))
    rng = np.random.default_rng(5)
    log_prob = group.log_prob + rng.normal(size=(4, 1, 1))
    shared = VARIANTS[name].loss(group._replace(log_prob=log_prob))
    assert shared.value.shape == (4, 3)
    for k in range(4):
        one = VARIANTS[name].loss(group._replace(log_prob=log_prob[k]))
        np.testing.assert_allclose(shared.weight[k], one.weight, rtol=1e-13)


# Size, and shapes of ref_log_prob, reward, behavior, preference, baseline that must not be accepted
# beside a log_prob of shape (3, 2).
WRONG = {
    "ref_log_prob": [(3, 1), (1, 2), (3,), (2, 3), (4, 3, 2), ()],
    "reward": [(3, 1), (1, 2), (3,), (1,), (2, 3), (4, 3, 2)],
    "behavior_log_prob": [(3, 1), (1, 2), (3,), (2, 3), (5, 2)],
    "preference": [(3, 1), (1,), (3, 2), (2,), (1, 3)],
    "baseline": [(3, 1), (1,), (3, 2), (2,), (1, 3)],
}


@pytest.mark.parametrize(
    ("field", "shape"), [(field, shape) for field, shapes in WRONG.items() for shape in shapes]
)
@pytest.mark.parametrize("name", ["copg", "ipo", "ppo_clip-given", "reward_weighted-given"])
def test_shapes_that_would_broadcast_by_accident_raise(name, field, shape):
    group = groups_of(name, 2, lead=(3,))._replace(**{field: np.full(shape, 0.5)})
    with pytest.raises(ValueError, match=rf"group\.{field} of shape \(3,") as caught:
        VARIANTS[name].loss(group)
    message = str(caught.value)
    assert "\n" not in message
    assert str(shape) in message
    assert message.startswith(name.split("-")[0])


REQUIRED = [
    (name, field)
    for name in VARIANTS
    for field in sorted({"ref_log_prob"} | VARIANTS[name].traits.requires)
]


@pytest.mark.parametrize(("name", "field"), REQUIRED)
def test_missing_fields_are_named(name, field):
    group = groups_of(name, 2)._replace(**{field: None})
    with pytest.raises(ValueError, match=rf"^{name.split('-')[0]}: expected group\.{field}"):
        VARIANTS[name].loss(group)


@every_variant
def test_only_required_fields_are_read(name):
    case, group = VARIANTS[name], groups_of(name, 2, lead=(60,))
    unread = {"reward", "preference", "behavior_log_prob"} - case.traits.requires
    bare = case.loss(group._replace(**dict.fromkeys(unread)))
    np.testing.assert_array_equal(bare.weight, case.loss(group).weight)
    for field in case.traits.requires:
        moved = getattr(group, field) * np.random.default_rng(1).uniform(0.3, 0.9, size=2)[0]
        moved[..., 0] *= 0.7
        changed = case.loss(group._replace(**{field: moved}))
        assert not np.array_equal(changed.weight, bare.weight), field


@pytest.mark.parametrize("name", sorted(losses.REGISTRY))
@pytest.mark.parametrize("size", [1, 3])
def test_group_sizes_outside_the_range_raise(name, size):
    loss = VARIANTS.get(name, VARIANTS.get(f"{name}-none")).loss
    least, most = losses.traits(loss).sizes
    group = groups_of(name if name in VARIANTS else f"{name}-none", size)
    if size < least or (most is not None and size > most):
        with pytest.raises(ValueError, match=rf"^{name}: expected groups of") as caught:
            loss(group._replace(preference=np.full(4, 0.5)))
        assert f"(4, {size})" in str(caught.value)
        assert "\n" not in str(caught.value)
    else:
        assert loss(group).weight.shape == (4, size)


@pytest.mark.parametrize(
    ("name", "sizes"),
    {
        "copg": (2, None),
        "log_variance": (2, None),
        "rebel": (2, 2),
        "ipo": (2, 2),
        "dpo": (2, 2),
        "dpo_with_data_term": (2, 2),
        "slic": (2, 2),
        "rloo": (2, None),
        "grpo": (2, None),
        "policy_gradient": (1, None),
        "importance_sampling": (1, None),
        "ppo_clip": (1, None),
        "clipped_objective": (1, None),
        "reward_weighted": (1, None),
        "value_regression": (1, None),
        "trajectory_balance": (1, None),
        "pmd_mean": (2, None),
        "asymmetric_reinforce": (1, None),
    }.items(),
)
def test_group_sizes_of_each_method(name, sizes):
    assert losses.traits(losses.get(name)).sizes == sizes


def test_a_number_in_place_of_log_prob_raises():
    with pytest.raises(ValueError, match="copg: expected groups"):
        losses.copg(Group(np.array(0.3), np.array(0.3), np.array(0.3)), beta=1.0)


# ----------------------------------------------------------------------------- hyper-parameters

OPEN = {
    "alpha": "dpo_with_data_term",
    "clip": "importance_sampling",
    "epsilon": "ppo_clip",
    "eta": "rebel",
    "beta": "copg",
}


@pytest.mark.parametrize("key", OPEN)
@pytest.mark.parametrize(
    "bad",
    [0, 0.0, -1.0, math.nan, math.inf, -math.inf, np.float32(-1), np.int64(0), np.array(-1.0)],
    ids=repr,
)
def test_bad_hyper_parameters(key, bad):
    name = OPEN[key]
    beta = {} if key in ("beta", "eta") else {"beta": 1.0}
    group = groups_of(f"{name}-none" if f"{name}-none" in VARIANTS else name, 2)
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected {key} .*got") as caught:
        losses.get(name)(group, **beta, **{key: bad})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", OPEN)
@pytest.mark.parametrize("bad", ["1", True, [1.0], {}], ids=repr)
def test_hyper_parameters_that_are_not_numbers(key, bad):
    name = OPEN[key]
    beta = {} if key in ("beta", "eta") else {"beta": 1.0}
    group = groups_of(f"{name}-none" if f"{name}-none" in VARIANTS else name, 2)
    with pytest.raises((TypeError, ValueError), match=rf"{name}: expected {key}"):
        losses.get(name)(group, **beta, **{key: bad})


@pytest.mark.parametrize("epsilon", [1.0, 1, 3.5])
@pytest.mark.parametrize("name", ["ppo_clip", "clipped_objective"])
def test_epsilon_stays_below_one(name, epsilon):
    with pytest.raises(ValueError, match=f"^{name}: expected epsilon below 1"):
        losses.get(name)(groups_of(f"{name}-none", 2), beta=1.0, epsilon=epsilon)


@pytest.mark.parametrize("bad", ["1", True, [1.0], math.nan, math.inf], ids=repr)
def test_a_shift_is_any_finite_number(bad):
    group = groups_of("asymmetric_reinforce", 2)
    with pytest.raises(
        (TypeError, ValueError), match=r"^asymmetric_reinforce: expected shift to be"
    ):
        losses.asymmetric_reinforce(group, beta=1.0, shift=bad)
    for fine in (0, -3, np.float32(0.5)):
        score = losses.asymmetric_reinforce(group, beta=1.0, shift=fine)
        assert score.weight.dtype == np.float64


def test_wide_clips_are_legal_and_count():
    group = groups_of("importance_sampling-none", 2)
    loss = functools.partial(losses.importance_sampling, beta=1.0)
    np.testing.assert_array_equal(loss(group, clip=1e9).weight, loss(group).weight)
    assert not np.array_equal(loss(group, clip=1.0).weight, loss(group).weight)


@pytest.mark.parametrize("name", sorted(losses.REGISTRY))
def test_hyper_parameters_are_keywords_and_unknown_ones_raise(name):
    group = groups_of(name if name in VARIANTS else f"{name}-none", 2)
    with pytest.raises(TypeError):
        losses.get(name)(group, 0.5)
    with pytest.raises(TypeError):
        losses.get(name)(group)
    known = {"eta": 0.5} if name == "rebel" else {"beta": 0.5}
    with pytest.raises(TypeError, match="temperature"):
        losses.get(name)(group, **known, temperature=1.0)


def test_baseline_options():
    group = groups_of("policy_gradient-given", 3)
    for loss in (losses.policy_gradient, losses.ppo_clip, losses.clipped_objective):
        with pytest.raises(ValueError, match="baseline: expected none, given or leave_one_out"):
            loss(group, beta=1.0, baseline="mean")
        with pytest.raises(ValueError, match=r"baseline: expected group\.baseline"):
            loss(group._replace(baseline=None), beta=1.0, baseline="given")
        with pytest.raises(ValueError, match="baseline: expected 'given'"):
            loss(group, beta=1.0)
    with pytest.raises(ValueError, match="at least 2 for 'leave_one_out'"):
        losses.policy_gradient(
            groups_of("policy_gradient-none", 1), beta=1.0, baseline="leave_one_out"
        )


def test_a_number_serves_as_baseline_of_all_groups():
    group = groups_of("policy_gradient-given", 3)
    loss = functools.partial(losses.policy_gradient, beta=0.7, baseline="given")
    one = loss(group._replace(baseline=0.25))
    every = loss(group._replace(baseline=np.full(4, 0.25)))
    np.testing.assert_allclose(one.weight, every.weight, rtol=1e-15)


def test_default_epsilon_and_baseline():
    group = groups_of("ppo_clip-none", 3)
    for loss in (losses.ppo_clip, losses.clipped_objective):
        explicit = loss(group, beta=0.7, epsilon=0.2, baseline="none")
        np.testing.assert_array_equal(loss(group, beta=0.7).weight, explicit.weight)


# -------------------------------------------------------------------------------------- names


def test_registry_holds_every_objective_under_its_name():
    for name, loss in losses.REGISTRY.items():
        assert loss is getattr(losses, name)
        assert loss.__name__ == name
        assert loss is losses.get(name)
        assert "References" in loss.__doc__, name
    with pytest.raises(TypeError):
        losses.REGISTRY["mine"] = losses.copg


def test_unknown_names_raise_with_the_list():
    with pytest.raises(ValueError, match=r"^method: expected one of copg, .*got 'cpg'$") as caught:
        losses.get("cpg")
    assert "\n" not in str(caught.value)


def test_traits_are_seen_through_partials_and_default_to_nothing():
    bound = functools.partial(functools.partial(losses.dpo, beta=2.0))
    assert losses.traits(bound) is losses.dpo.traits
    assert losses.traits(lambda group: None) == losses.Traits()
    assert losses.Traits().sizes == (1, None)
    assert not any(losses.Traits()[2:])


# ------------------------------------------------------------------------- what the traits say


def with_trait(trait):
    return pytest.mark.parametrize(
        "name", [n for n in VARIANTS if getattr(VARIANTS[n].traits, trait)]
    )


def without_trait(trait):
    return pytest.mark.parametrize(
        "name", [n for n in VARIANTS if not getattr(VARIANTS[n].traits, trait)]
    )


def biggest(name):
    return sizes_of(VARIANTS[name].traits, among=(2, 5))[-1]


@with_trait("contrastive")
@given(seed=seeds, shift=st.floats(-5, 5))
def test_contrastive_weights_sum_to_zero_and_ignore_shifts(name, seed, shift):
    group, loss = groups_of(name, biggest(name), seed=seed), VARIANTS[name].loss
    score = loss(group)
    scale = np.abs(score.weight).max()
    np.testing.assert_allclose(score.weight.sum(axis=-1), 0, atol=1e-14 * max(1, scale))
    for field in ("log_prob", "ref_log_prob", "reward"):
        moved = loss(group._replace(**{field: getattr(group, field) + shift}))
        np.testing.assert_allclose(moved.weight, score.weight, atol=1e-12 * max(1, scale))


@without_trait("contrastive")
def test_other_weights_do_not_sum_to_zero(name):
    if name.endswith("loo") and name.startswith("policy_gradient"):
        return  # This option of a loss that is not contrastive in general happens to be.
    weight = VARIANTS[name].loss(groups_of(name, 2)).weight
    assert np.abs(weight.sum(axis=-1)).max() > 1e-3


@with_trait("exchangeable")
@given(seed=seeds)
def test_order_within_a_group_does_not_matter(name, seed):
    size = biggest(name)
    group, loss = groups_of(name, size, seed=seed), VARIANTS[name].loss
    order = np.random.default_rng(seed).permutation(size)
    if size == 2:
        order = np.array([1, 0])
    turned = Group(*(None if x is None else x[..., order] if x.ndim == 2 else x for x in group))
    if group.preference is not None:
        turned = turned._replace(preference=1 - group.preference)
    before, after = loss(group), loss(turned)
    np.testing.assert_allclose(after.value, before.value, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(after.weight, before.weight[..., order], rtol=1e-12, atol=1e-13)


def affinely_bent(loss, group, field, rng):
    """How far the weight is from affine along a line through a field."""
    along = rng.normal(size=getattr(group, field).shape)
    at = [
        loss(group._replace(**{field: getattr(group, field) + t * along})).weight
        for t in (-1.0, 0.0, 1.0)
    ]
    return np.abs(at[0] - 2 * at[1] + at[2]).max() / np.abs(at[1]).max()


@with_trait("quadratic")
def test_quadratic_weights_are_affine_in_log_prob(name):
    group = groups_of(name, biggest(name))
    assert affinely_bent(VARIANTS[name].loss, group, "log_prob", np.random.default_rng(3)) < 1e-12


@with_trait("affine_in_reward")
def test_weights_said_to_be_affine_in_reward(name):
    group = groups_of(name, biggest(name))
    assert affinely_bent(VARIANTS[name].loss, group, "reward", np.random.default_rng(3)) < 1e-12


@pytest.mark.parametrize(
    "name", ["ppo_clip-none", "clipped_objective-none", "grpo", "reward_weighted"]
)
def test_weights_not_affine_in_reward(name):
    assert not VARIANTS[name].traits.affine_in_reward
    group = groups_of(name, 3, lead=(200,))
    assert affinely_bent(VARIANTS[name].loss, group, "reward", np.random.default_rng(3)) > 1e-2


@pytest.mark.parametrize(
    "name",
    ["dpo", "dpo_with_data_term", "slic", "importance_sampling-none", "ppo_clip-none", "grpo"],
)
def test_weights_not_affine_in_log_prob(name):
    assert not VARIANTS[name].traits.quadratic
    group = groups_of(name, 2, lead=(200,))
    assert affinely_bent(VARIANTS[name].loss, group, "log_prob", np.random.default_rng(3)) > 1e-2


@with_trait("separable")
def test_separable_weights_average_over_the_other_completion(name):
    """E over y' of weight(y, y') is weight(y, average y'), which the O(K) path relies on."""
    loss, rng = VARIANTS[name].loss, np.random.default_rng(11)
    ours, theirs = groups_of(name, 2, lead=(1,)), groups_of(name, 2, lead=(6,), seed=1)
    mass = rng.dirichlet(np.ones(6))

    def pair(field, other):
        mine = getattr(ours, field)
        if mine is None or field in ("preference", "baseline"):
            return None if mine is None else np.repeat(mine, len(other), axis=0)
        return np.stack([np.repeat(mine[:, 0], len(other)), other], axis=-1)

    each = {
        f: None if x is None else x if x.ndim == 1 else x[:, 1] for f, x in theirs._asdict().items()
    }
    every = loss(Group(**{f: None if x is None else pair(f, x) for f, x in each.items()}))
    average = {f: None if x is None else np.array([mass @ x]) for f, x in each.items()}
    single = loss(Group(**{f: None if x is None else pair(f, x) for f, x in average.items()}))
    np.testing.assert_allclose(mass @ every.weight[:, 0], single.weight[0, 0], rtol=1e-12)


@with_trait("piecewise_linear")
def test_piecewise_linear_weights_are_flat_between_kinks(name):
    group = groups_of(name, 2, lead=(300,))
    near = VARIANTS[name].loss(group._replace(log_prob=group.log_prob + np.array([1e-9, 0.0])))
    np.testing.assert_array_equal(near.weight, VARIANTS[name].loss(group).weight)


def test_semi_gradients_are_told_apart():
    """Held constants show as a weight that is not the derivative of the value as a whole."""
    for name, case in VARIANTS.items():
        group = groups_of(name, 3 if case.traits.sizes[1] is None else 2, lead=(40,))
        whole = []
        for lp, g in plain_groups(group):
            moved = [lp[0] + 1e-5, *lp[1:]], [lp[0] - 1e-5, *lp[1:]]
            whole.append(
                (case.plain(moved[0], moved[0], g) - case.plain(moved[1], moved[1], g)) / 2e-5
            )
        differs = np.abs(case.loss(group).weight[:, 0] - whole).max() > 1e-4
        if name == "grpo":
            # Its advantage holds rewards constant, which do not depend on the policy.
            assert not differs
        else:
            assert differs == case.traits.semi_gradient, name


# ------------------------------------------------------------------------------ known identities


@pytest.mark.parametrize("size", [2, 3, 5, 17])
@given(seed=seeds, beta=st.floats(0.03, 30))
def test_copg_weight_is_the_leave_one_out_weight(size, seed, beta):
    group = groups_of("copg", size, seed=seed)
    np.testing.assert_allclose(
        losses.copg(group, beta=beta).weight,
        losses.rloo(group, beta=beta).weight,
        rtol=1e-12,
        atol=1e-12 * beta,
    )


@given(seed=seeds, tau=st.floats(0.03, 30), label=st.sampled_from([0.0, 1.0]))
def test_ipo_is_copg_on_a_reward_gap_of_one_half(seed, tau, label):
    group = groups_of("ipo", 2, seed=seed)
    quarter = 0.25 if label else -0.25
    reward = np.tile([quarter, -quarter], (4, 1))
    ipo_score = losses.ipo(group._replace(preference=np.full(4, label)), beta=tau)
    copg_score = losses.copg(group._replace(reward=reward), beta=tau)
    np.testing.assert_allclose(ipo_score.value, 2 / tau * copg_score.value, rtol=1e-11)
    np.testing.assert_allclose(
        ipo_score.weight, 2 / tau * copg_score.weight, rtol=1e-11, atol=1e-12
    )


@pytest.mark.parametrize("size", [2, 3, 7])
def test_log_variance_is_copg_scaled(size):
    group = groups_of("copg", size)
    ours, theirs = losses.copg(group, beta=0.3), losses.log_variance(group, beta=0.3)
    np.testing.assert_allclose(ours.value, size * 0.3 * theirs.value, rtol=1e-12)
    np.testing.assert_allclose(ours.weight, size * 0.3 * theirs.weight, rtol=1e-12)


def test_rebel_is_copg_scaled():
    group = groups_of("copg", 2)
    ours, theirs = losses.copg(group, beta=0.3), losses.rebel(group, eta=1 / 0.3)
    np.testing.assert_allclose(theirs.weight, 0.3 * ours.weight, rtol=1e-12)
    np.testing.assert_allclose(theirs.value, 0.3 * ours.value, rtol=1e-12)


@given(seed=seeds)
def test_group_of_g_is_the_mean_of_its_pairs(seed):
    """O(G) sums: a group's CoPG is G/2 times the mean of CoPG over its pairs."""
    group = groups_of("copg", 5, seed=seed)
    pairs = [
        losses.copg(Group(*(None if x is None else x[:, [i, j]] for x in group)), beta=0.4).value
        for i, j in itertools.combinations(range(5), 2)
    ]
    np.testing.assert_allclose(
        losses.copg(group, beta=0.4).value, 5 / 2 * np.mean(pairs, axis=0), rtol=1e-12
    )


def test_ppo_weight_is_the_clipped_objectives_times_the_ratio():
    group = groups_of("ppo_clip-none", 4, lead=(100,))
    ppo = losses.ppo_clip(group, beta=0.7)
    cut = losses.clipped_objective(group, beta=0.7)
    ratio = np.exp(group.log_prob - group.behavior_log_prob)
    np.testing.assert_allclose(ppo.weight, ratio * cut.weight, rtol=1e-12)
    off = (ppo.weight == 0).mean()
    assert 0.2 < off < 0.8  # both branches are exercised


# -------------------------------------------------------------------------------- hard numbers


def test_weight_of_a_million_completions_needs_no_pairs():
    rng = np.random.default_rng(0)
    ref = np.log(rng.uniform(size=1_000_000))
    group = Group(ref + 0.1 * rng.normal(size=ref.shape), ref, rng.normal(size=ref.shape))
    rewards = group.reward - 0.5 * (group.log_prob - ref)
    others = (math.fsum(rewards.tolist()) - rewards) / (rewards.size - 1)
    np.testing.assert_allclose(
        losses.copg(group, beta=0.5).weight, -(rewards - others), rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("gap", [40.0, 800.0, 1e6])
def test_dpo_saturates_without_overflow_and_keeps_digits(gap):
    group = Group(np.array([[gap, 0.0], [0.0, gap]]), np.zeros((2, 2)), preference=np.ones(2))
    score = losses.dpo(group, beta=1.0)
    tail = math.exp(-gap)
    np.testing.assert_allclose(score.value, [math.log1p(tail), gap], rtol=1e-14)
    np.testing.assert_allclose(score.weight[0], [-tail, tail], rtol=1e-14, atol=0)
    np.testing.assert_allclose(score.weight[1], [-1, 1], rtol=1e-14)


def test_normalized_weights_do_not_overflow():
    group = Group(np.log([[0.2, 0.3]]), np.log([[0.5, 0.5]]), np.array([[3e5, 3e5 - 1.0]]))
    weight = losses.reward_weighted(group, beta=1.0, normalize=True).weight
    np.testing.assert_allclose(weight, [[-1 / (1 + math.exp(-1)), -1 / (1 + math.e)]], rtol=1e-12)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
@pytest.mark.parametrize("name", ["importance_sampling", "ppo_clip"])
def test_no_advantage_is_no_weight_whatever_the_ratio(name):
    """ρ·0 is 0 for every ratio, and stays so where the ratio is beyond the largest number."""
    log_prob = np.array([[-1.0, -2.0]])
    behavior = np.array([[-1001.0, -2.5]])
    for reward in ([1.0, 0.3], [1.0, 2.0]):  # both R − b are 0 to the last bit for the first arm
        group = Group(
            log_prob,
            log_prob,
            np.array([reward]),
            behavior_log_prob=behavior,
            baseline=np.array([1.0]),
        )
        score = losses.REGISTRY[name](group, beta=0.5, baseline="given")
        near = group._replace(behavior_log_prob=log_prob - [[0.0, 0.5]])
        expected = losses.REGISTRY[name](near, beta=0.5, baseline="given")
        assert score.weight[0, 0] == 0
        np.testing.assert_array_equal(score.weight, expected.weight)
        np.testing.assert_array_equal(score.value, expected.value)


@pytest.mark.parametrize("size", [2, 3, 5, 7])
@pytest.mark.parametrize("reward", [0.0, 0.1, -1.3, 1e8 / 3])
def test_grpo_ignores_equal_rewards(size, reward):
    log_prob = np.log(np.arange(1, size + 1) / size**2)
    group = Group(log_prob, log_prob, np.full(size, reward))
    np.testing.assert_allclose(losses.grpo(group, beta=0.5).weight, 0, atol=1e-12)


def test_grpo_of_a_pair_sees_only_the_order():
    group = groups_of("grpo", 2)
    at_reference = group._replace(log_prob=group.ref_log_prob)
    expected = -np.sign(group.reward - group.reward[:, ::-1])
    np.testing.assert_allclose(losses.grpo(at_reference, beta=0.5).weight, expected, rtol=1e-12)


def test_slic_by_hand():
    """β = ½, Δ = 3: βΔ = 1.5, beyond the margin on one side and 2.5 short on the other."""
    group = Group(np.array([1.0, -2.0]), np.zeros(2), preference=np.array(0.25))
    score = losses.slic(group, beta=0.5)
    assert score.value == pytest.approx(0.25 * 0 + 0.75 * 2.5, rel=1e-15)
    np.testing.assert_allclose(score.weight, [0.5 * 0.75, -0.5 * 0.75], rtol=1e-15)


@pytest.mark.parametrize("field", losses.Group._fields)
def test_lists_are_not_taken_for_numbers(field):
    two = np.array([[-0.2, -1.7], [-0.4, -1.1]])
    fields = {"log_prob": two, "ref_log_prob": two, "reward": two, field: [1.0, 2.0]}
    with pytest.raises(TypeError, match=rf"expected group.{field} to be an array, got list$"):
        losses.policy_gradient(losses.Group(**fields), beta=0.5, baseline="given")


def test_something_else_than_a_group_is_refused():
    with pytest.raises(TypeError, match=r"^copg: expected a bandit.losses.Group, got tuple$"):
        losses.copg((np.zeros(2), np.zeros(2), np.zeros(2)), beta=0.5)


def test_a_given_baseline_is_not_lost_beside_leave_one_out():
    two = np.array([-0.2, -1.7])
    group = losses.Group(two, two, two, baseline=1.0)
    with pytest.raises(ValueError, match=r"baseline: expected 'given'.*got 'leave_one_out'"):
        losses.policy_gradient(group, beta=0.5, baseline="leave_one_out")
    assert np.array_equal(losses.rloo(group, beta=0.5).weight, losses.copg(group, beta=0.5).weight)
