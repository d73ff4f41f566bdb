"""From batches to groups: the loss sees each group as it is, and the gradient is its own."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch

from bandit import losses
from bandit.llm import Completions, TinyTransformer, sequence_log_prob, train_tiny
from bandit.llm.surrogate import check, groups_of, means, measured
from bandit.losses import Group

V = 8


def make_data(rng, sizes=(2, 3, 2, 4), **columns):
    prompts = [rng.integers(V, size=rng.integers(1, 4)).tolist() for _ in sizes]
    spoken = [[rng.integers(V, size=rng.integers(1, 5)).tolist() for _ in range(g)] for g in sizes]
    given = {
        "rewards": [rng.normal(size=g) for g in sizes],
        "behavior_log_probs": [-rng.exponential(5, size=g) for g in sizes],
    }
    data = Completions.from_lists(prompts, spoken, **(given | columns))
    return data.with_reference([-rng.exponential(5, size=g) for g in sizes])


def scored(model, batch):
    keys = ("input_ids", "attention_mask", "completion_mask")
    return sequence_log_prob(model, *(batch[k] for k in keys))


def test_groups_are_the_rows(rng):
    data = make_data(rng)
    log_prob = torch.arange(11.0, requires_grad=True)
    found = list(groups_of(Completions.collate(list(data)), log_prob))
    assert [tuple(g.log_prob.shape) for g in found] == [(2, 2), (1, 3), (1, 4)]
    rows = {2: [0, 2], 3: [1], 4: [3]}
    starts = [0, 2, 5, 7]
    for group in found:
        size = group.log_prob.shape[1]
        for i, r in enumerate(rows[size]):
            assert group.log_prob[i].tolist() == list(range(starts[r], starts[r] + size))
            np.testing.assert_allclose(group.reward[i], data[r].rewards, rtol=1e-6)
            np.testing.assert_allclose(group.ref_log_prob[i], data[r].ref_log_prob, rtol=1e-6)
            np.testing.assert_allclose(
                group.behavior_log_prob[i], data[r].behavior_log_prob, rtol=1e-6
            )
        assert group.log_prob.requires_grad
        assert group.baseline is None


def test_means_divide_all_log_probabilities(rng):
    data = make_data(rng, sizes=(3,))
    batch = Completions.collate(list(data))
    length = torch.tensor([float(len(y)) for y in data[0].completion_ids])
    log_prob = torch.tensor([-3.0, -4.0, -7.0])
    (plain,) = groups_of(batch, log_prob)
    (group,) = groups_of(batch, log_prob, reduction="mean", baseline=0.5)
    for name in ("log_prob", "ref_log_prob", "behavior_log_prob"):
        torch.testing.assert_close(getattr(group, name)[0], getattr(plain, name)[0] / length)
    assert torch.equal(group.reward, plain.reward)
    assert group.baseline == 0.5


BOUND = [
    functools.partial(losses.copg, beta=0.3),
    functools.partial(losses.log_variance, beta=0.3),
    functools.partial(losses.rloo, beta=0.3),
    functools.partial(losses.grpo, beta=0.3),
    functools.partial(losses.policy_gradient, beta=0.3, baseline="given"),
    functools.partial(losses.reward_weighted, beta=1.3),
    functools.partial(losses.importance_sampling, beta=0.3, clip=5.0),
    functools.partial(losses.ppo_clip, beta=0.3),
    functools.partial(losses.clipped_objective, beta=0.3),
    functools.partial(losses.rebel, eta=2.0),
    functools.partial(losses.ipo, beta=0.3),
    functools.partial(losses.dpo, beta=0.3),
    functools.partial(losses.slic, beta=0.3),
]


@pytest.mark.parametrize("loss", BOUND, ids=lambda loss: loss.func.__name__)
def test_weights_are_the_gradient_of_the_value(loss, rng):
    """(weight · ln π) through a transformer = automatic differentiation of the value itself."""
    name = loss.func.__name__
    sizes = (2, 2, 2) if losses.traits(loss).sizes[1] == 2 else (2, 3)
    more = {"preferences": [1.0, 0.0, 0.3]} if name in ("ipo", "dpo", "slic") else {}
    data = make_data(rng, sizes, **more)
    model = TinyTransformer(V, 5, prompt_length=4, width=16, heads=2)
    batch = Completions.collate(list(data))
    parameters = list(model.parameters())
    baseline = 0.2 if name == "policy_gradient" else None
    check(loss, data, baseline=baseline)
    totals = []
    for as_surrogate in (True, False):
        total = torch.zeros(())
        for group in groups_of(batch, scored(model, batch), baseline=baseline):
            score = loss(group)
            part = (score.weight.detach() * group.log_prob) if as_surrogate else score.value
            total = total + part.sum()
        totals.append(torch.autograd.grad(total, parameters))
    size = max(g.abs().max() for g in totals[0])
    assert size > 1e-3
    for one, other in zip(*totals, strict=True):
        assert (one - other).abs().max() < 1e-5 * size


def test_the_backends_call_the_same_function():
    from bandit import presets
    from bandit.llm import loop, trainer

    assert losses.REGISTRY["copg"] is losses.copg is presets.METHODS["copg"].loss
    for module in (loop, trainer):
        assert not any(hasattr(module, name) for name in losses.REGISTRY)


def test_dpo_against_its_formula_written_out(rng):
    """Rafailov et al.: −ln σ(β (ln π/π_ref of the chosen − of the rejected))."""
    ln, ref = rng.normal(-20, 2, (4, 2)), rng.normal(-20, 2, (4, 2))
    group = Group(torch.tensor(ln), torch.tensor(ref), preference=torch.ones(4).double())
    score = losses.dpo(group, beta=0.25)
    for i in range(4):
        z = 0.25 * ((ln[i, 0] - ref[i, 0]) - (ln[i, 1] - ref[i, 1]))
        assert float(score.value[i]) == pytest.approx(math.log(1 + math.exp(-z)), rel=1e-9)
        slope = 0.25 / (1 + math.exp(z))
        np.testing.assert_allclose(score.weight[i], [-slope, slope], rtol=1e-9)


# ------------------------------------------------------------------------------ what is measured


def test_metrics_are_sums_and_counts_of_what_the_loss_saw(rng):
    data = make_data(rng, (3, 3))
    log_prob = torch.tensor(-rng.exponential(4, size=6), dtype=torch.float32)
    (group,) = groups_of(Completions.collate(list(data)), log_prob)
    score = losses.copg(group, beta=0.3)
    found = measured(group, score).double().numpy()
    reward = np.concatenate([row.rewards for row in data])
    ref = np.concatenate([row.ref_log_prob for row in data])
    mu = np.concatenate([row.behavior_log_prob for row in data])
    ell = log_prob.numpy() - ref
    kl = np.exp(log_prob.numpy() - mu) * (np.exp(-ell) - 1 + ell)
    margin = [ell[3 * i + np.argmax(r)] - ell[3 * i + np.argmin(r)]
              for i, r in enumerate(reward.reshape(2, 3))]  # fmt: skip
    expected = [score.value.sum(), reward.sum(), ell.sum(), kl.sum(), sum(margin)]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)
    assert found[:, 1].tolist() == [2, 6, 6, 6, 2]
    assert means(torch.tensor(found))["reward"] == pytest.approx(reward.mean())


@pytest.mark.parametrize("recorded", [True, False])
def test_the_kl_estimate_is_without_bias(recorded, rng):
    """Its exact expectation over what draws the completions is KL(π ‖ π_ref)."""
    pi, ref, mu = (torch.tensor(rng.dirichlet(np.ones(6))).log() for _ in range(3))
    nothing = losses.Score(torch.zeros(1), torch.zeros(1, 1))

    def estimate(i):
        behavior = mu[i].reshape(1, 1) if recorded else None
        group = Group(pi[i].reshape(1, 1), ref[i].reshape(1, 1), behavior_log_prob=behavior)
        return float(measured(group, nothing)[3, 0])

    drawn = (mu if recorded else ref).exp().tolist()
    kl = float((pi.exp() * (pi - ref)).sum())
    assert sum(p * estimate(i) for i, p in enumerate(drawn)) == pytest.approx(kl, rel=1e-9)
    assert min(estimate(i) for i in range(6)) >= 0


def test_margins_of_preferences_and_ties():
    ln = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]) - 5
    ref = torch.full((3, 2), -5.0)
    preference = torch.tensor([1.0, 0.2, 0.5])
    group = Group(ln, ref, preference=preference)
    found = measured(group, losses.dpo(group, beta=1.0))
    assert found[4].tolist() == [0.0, 2.0]  # +1 and −1; the tie does not count
    assert found[1].tolist() == [0.0, 0.0]
    assert "reward" not in means(found)
    tied = Group(ln, ref, reward=torch.ones(3, 2))
    assert "margin" not in means(measured(tied, losses.copg(tied, beta=1.0)))


def test_far_from_the_reference_the_kl_estimate_stays_finite():
    group = Group(torch.tensor([[-400.0, -1.0]]), torch.tensor([[-1.0, -400.0]]))
    zero = torch.zeros(1)
    kl = measured(group, losses.Score(zero, zero))[3, 0]
    assert not kl.isnan()


# ------------------------------------------------------------------------ data and losses that fit


def test_data_that_lack_what_the_loss_reads(rng):
    beta = {"beta": 0.1}
    data = make_data(rng, (3, 2))
    with pytest.raises(ValueError, match=r"^data: expected exactly 2|^data: expected preference"):
        check(functools.partial(losses.dpo, **beta), data)
    with pytest.raises(ValueError, match=r"^data: expected 2 completions a row for rebel, got 3"):
        check(functools.partial(losses.rebel, eta=1.0), data)
    bare = make_data(rng, (2, 2), rewards=None, behavior_log_probs=None)
    with pytest.raises(ValueError, match=r"^data: expected reward for copg, got rows with ref"):
        check(functools.partial(losses.copg, **beta), bare)
    with pytest.raises(ValueError, match=r"^data: expected behavior_log_prob, reward for ppo"):
        check(functools.partial(losses.ppo_clip, **beta), bare)
    with pytest.raises(ValueError, match=r"^data: expected at least one row, got none"):
        check(functools.partial(losses.copg, **beta), Completions([]))
    single = make_data(rng, (1, 1))
    with pytest.raises(ValueError, match=r"^data: expected at least 2 completions .* in row 0"):
        check(functools.partial(losses.copg, **beta), single)


def test_a_batch_without_reference(rng):
    data = make_data(rng)
    batch = Completions.collate(list(data))
    del batch["ref_log_prob"]
    with pytest.raises(ValueError, match=r"^batch: expected ref_log_prob"):
        next(groups_of(batch, torch.zeros(11)))


# -------------------------------------------------------------------------------------- the loop


def test_the_first_step_is_the_mean_over_groups(rng):
    """One Adam step moves along the sign of a gradient computed group by group."""
    data = make_data(rng, (2, 3, 2))
    model = TinyTransformer(V, 5, prompt_length=4, width=16, heads=2)
    loss, chosen = functools.partial(losses.copg, beta=0.3), torch.Generator().manual_seed(3)
    rows = torch.randint(3, (4,), generator=torch.Generator().manual_seed(3)).tolist()
    total = torch.zeros(())
    for i in rows:
        log_prob = scored(model, Completions.collate([data[i]]))
        reference = torch.tensor(data[i].ref_log_prob, dtype=torch.float32)
        regularized = torch.tensor(data[i].rewards).float() - 0.3 * (log_prob - reference)
        size = len(regularized)
        for a in range(size):
            for b in range(a):
                total = total + (regularized[a] - regularized[b]) ** 2 / (0.6 * (size - 1) * 4)
    slopes = torch.autograd.grad(total, list(model.parameters()))
    before = [p.detach().clone() for p in model.parameters()]
    history = train_tiny(
        model, loss, data, steps=1, batch_size=4, learning_rate=1e-3, record_every=1, rng=chosen
    )
    assert history[0]["value"] == pytest.approx(float(total.detach()), rel=1e-5)
    norm = math.sqrt(sum(float((g**2).sum()) for g in slopes))
    assert history[0]["grad_norm"] == pytest.approx(norm, rel=1e-4)
    for parameter, old, slope in zip(model.parameters(), before, slopes, strict=True):
        clear = slope.abs() > 1e-3 * norm
        torch.testing.assert_close(
            (parameter.detach() - old)[clear], -1e-3 * slope.sign()[clear], rtol=1e-2, atol=1e-6
        )


def test_seeds_order_the_batches_and_nothing_else_does(rng):
    data, loss = make_data(rng), functools.partial(losses.copg, beta=0.3)

    def final(seed, global_seed):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        model = TinyTransformer(V, 5, prompt_length=4, width=16, heads=2)
        order = torch.Generator().manual_seed(seed)
        train_tiny(model, loss, data, steps=5, batch_size=2, rng=order)
        assert torch.equal(torch.get_rng_state(), before)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(final(0, 0), final(0, 1))
    assert not torch.equal(final(0, 0), final(1, 0))


def test_records(rng):
    data = Completions(make_data(rng).rows)
    model = TinyTransformer(V, 5, prompt_length=4, width=16, heads=2)
    seen = []
    history = train_tiny(
        model,
        functools.partial(losses.copg, beta=0.3),
        data,
        steps=7,
        batch_size=3,
        record_every=3,
        evaluate=lambda m: seen.append(m) or {"extra": len(seen)},
        rng=torch.Generator().manual_seed(0),
    )
    assert [r["step"] for r in history] == [0, 3, 6, 7]
    assert [r["extra"] for r in history] == [1, 2, 3, 4]
    names = {"step", "value", "reward", "log_ratio", "kl", "margin", "grad_norm", "extra"}
    assert all(set(record) == names for record in history)
    for name in ("steps", "batch_size", "record_every"):
        with pytest.raises(ValueError, match=f"^{name}: expected a positive integer, got 0"):
            train_tiny(
                model,
                functools.partial(losses.copg, beta=0.3),
                data,
                **{"steps": 1, "batch_size": 1, name: 0},
                rng=torch.Generator(),
            )
