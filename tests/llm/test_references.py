"""ln π_ref, computed once: on the right rows, of the right model, without a trace."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from bandit import losses
from bandit.llm import (
    Completions,
    TinyTransformer,
    reference_log_probs,
    sequence_log_prob,
    train_tiny,
)
from bandit.llm import references as module

V = 23


def make_data(rng, rows=7):
    groups = [[rng.integers(3, V, size=rng.integers(1, 9)).tolist() for _ in range(2 + i % 3)]
              for i in range(rows)]  # fmt: skip
    prompts = [rng.integers(3, V, size=rng.integers(1, 6)).tolist() for _ in range(rows)]
    return Completions.from_lists(prompts, groups)


@pytest.fixture
def data(rng):
    return make_data(rng)


@pytest.fixture
def scored(monkeypatch):
    """How many completions are really scored."""
    counted = []
    real = module.sequence_log_prob

    def counting(model, ids, *masks, **options):
        counted.append(len(ids))
        return real(model, ids, *masks, **options)

    monkeypatch.setattr(module, "sequence_log_prob", counting)
    return counted


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_every_row_has_its_own_values(model, data, batch_size):
    found = reference_log_probs(model, data, batch_size=batch_size)
    for row, values in zip(data, found, strict=True):
        batch = Completions.collate([row])
        keys = ("input_ids", "attention_mask", "completion_mask")
        expected = sequence_log_prob(model, *(batch[k] for k in keys)).detach().numpy()
        np.testing.assert_allclose(values, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("kind", "config", "positions"),
    [
        ("gpt2", {"n_positions": 8}, 8),
        ("llama", {"max_position_embeddings": 8}, 8),
        ("tiny", {}, 40),
    ],
)
def test_rows_the_model_cannot_read_are_named(make_model, kind, config, positions):
    model = make_model(kind, **config)
    good = [[3], [4]]
    rewards = [[0.0, 1.0]] * 2
    unknown = Completions.from_lists([[3], [4]], [good, [[5], [6, V]]], rewards)
    long = Completions.from_lists([[3], [4]], [good, [[5], [6] * positions]], rewards)
    order = torch.Generator().manual_seed(0)
    train = {"steps": 1, "batch_size": 1, "rng": order}
    for data, said in (
        (unknown, f"^data: expected tokens from 0 to {V - 1}, got {V} in row 1$"),
        (long, f"^data: expected at most {positions} tokens, .* got {positions + 1} in row 1$"),
    ):
        with pytest.raises(ValueError, match=said):
            reference_log_probs(model, data)
        # Also where ln π_ref is known already.
        known = data.with_reference([[-1.0, -2.0]] * 2)
        with pytest.raises(ValueError, match=said):
            train_tiny(model, partial(losses.copg, beta=0.3), known, **train)
    longest = Completions.from_lists([[3]], [[[6] * (positions - 1)]])
    assert np.isfinite(reference_log_probs(model, longest)[0]).all()


def test_rows_in_another_order_keep_their_values(make_model, data, tmp_path):
    model = make_model("tiny")
    first = reference_log_probs(model, data, cache_dir=tmp_path)
    turned = reference_log_probs(model, data[::-1], cache_dir=tmp_path)
    for one, other in zip(first, turned[::-1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_random_number_is_consumed_and_dropout_is_off(make_model, data):
    model = make_model("gpt2").train()  # a tenth of dropout by default
    before, modes = torch.get_rng_state(), [m.training for m in model.modules()]
    first = reference_log_probs(model, data)
    assert torch.equal(torch.get_rng_state(), before)
    assert [m.training for m in model.modules()] == modes
    for one, other in zip(first, reference_log_probs(model.eval(), data), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_cache_is_used_for_known_rows_only(make_model, data, rng, tmp_path, scored):
    model = make_model("tiny")
    first = reference_log_probs(model, data, cache_dir=tmp_path)
    once = sum(scored)
    assert once == sum(len(row.completion_ids) for row in data)
    again = reference_log_probs(model, data, cache_dir=tmp_path)
    assert sum(scored) == once
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    more = make_data(rng, rows=2)
    both = Completions(data.rows + more.rows)
    longer = reference_log_probs(model, both, cache_dir=tmp_path)
    assert sum(scored) == once + sum(len(row.completion_ids) for row in more)
    np.testing.assert_array_equal(longer[3], first[3])
    assert len(list(tmp_path.iterdir())) == 1


def test_anything_else_is_computed_anew(make_model, data, tmp_path, scored):
    model = make_model("llama")
    reference_log_probs(model, data, cache_dir=tmp_path)

    def is_new(model, data):
        before = sum(scored)
        found = reference_log_probs(model, data, cache_dir=tmp_path)
        fresh = reference_log_probs(model, data)
        for one, other in zip(found, fresh, strict=True):
            np.testing.assert_array_equal(one, other)
        return sum(scored) - before > sum(len(row.completion_ids) for row in data)

    assert not is_new(model, data)
    other = Completions(data.rows, tokenizer_fingerprint="of another tokenizer")
    assert is_new(model, other)
    model.config.rms_norm_eps = 0.5
    for layer in model.modules():
        if hasattr(layer, "variance_epsilon"):
            layer.variance_epsilon = 0.5
    assert is_new(model, data)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight[0, 0] += 0.25
    assert is_new(model, data)
    assert is_new(model.to(torch.bfloat16), data)
    with torch.autocast("cpu", torch.bfloat16):
        assert is_new(make_model("llama"), data)


def test_models_of_the_same_weights_with_other_heads_differ(data, tmp_path):
    values = []
    for heads in (1, 4):
        model = TinyTransformer(V, 20, prompt_length=20, width=32, heads=heads)
        values.append(reference_log_probs(model, data, cache_dir=tmp_path)[0])
    assert np.abs(values[0] - values[1]).max() > 1e-6


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_of_an_adapted_model_the_reference_is_the_model_without(make_model, data, tmp_path, scored):
    import peft

    plain = reference_log_probs(make_model("llama"), data)
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = peft.LoraConfig(
            r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
        )
        model = peft.get_peft_model(make_model("llama"), config)
        before = sum(scored)
        found = reference_log_probs(model, data, cache_dir=tmp_path)
        for one, other in zip(found, plain, strict=True):
            np.testing.assert_array_equal(one, other)
        # The adapter's own weights have no part in the reference: the second one is a hit.
        assert (sum(scored) > before) == (seed == 0)
    with torch.no_grad():
        model.get_base_model().model.norm.weight.mul_(1.1)
    before = sum(scored)
    reference_log_probs(model, data, cache_dir=tmp_path)
    assert sum(scored) > before


def test_a_write_that_fails_leaves_the_old_cache(make_model, data, tmp_path, monkeypatch, rng):
    model = make_model("tiny")
    first = reference_log_probs(model, data, cache_dir=tmp_path)

    def broken(*args, **arrays):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(OSError, match="disk full"):
        reference_log_probs(model, make_data(rng), cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    again = reference_log_probs(model, data, cache_dir=tmp_path)
    np.testing.assert_array_equal(again[0], first[0])
