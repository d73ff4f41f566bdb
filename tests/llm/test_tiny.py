"""The tiny transformer is a causal language model, and short."""

from __future__ import annotations

import inspect

import pytest
import torch

from bandit.llm import TinyTransformer, sequence_log_prob, tiny


def test_it_fits_in_150_lines():
    assert len(inspect.getsource(tiny).splitlines()) < 150


def test_a_position_sees_the_past_only():
    model = TinyTransformer(7, 4, prompt_length=3)
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    changed = torch.tensor([[1, 2, 3, 6, 0]])
    first, second = model(ids).logits, model(changed).logits
    assert torch.equal(first[:, :3], second[:, :3])
    assert (first[:, 3] - second[:, 3]).abs().max() > 1e-3
    moved = model(torch.tensor([[2, 1, 3, 4, 5]])).logits
    assert (first[:, 2:] - moved[:, 2:]).abs().max() > 1e-3  # the order of the past counts


def test_logits_to_keep_are_the_last_ones():
    model, ids = TinyTransformer(7, 4, prompt_length=3), torch.tensor([[1, 2, 3, 4]])
    assert model(ids).logits.shape == (1, 4, 7)
    torch.testing.assert_close(model(ids, logits_to_keep=2).logits, model(ids).logits[:, -2:])


def test_seeds_make_the_weights_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    models = [TinyTransformer(7, 4, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    one, same, other = (torch.cat([p.flatten() for p in m.parameters()]) for m in models)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_every_parameter_learns():
    model = TinyTransformer(7, 3, prompt_length=2)
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    completion = torch.tensor([[0, 0, 1, 1, 1]])
    sequence_log_prob(model, ids, torch.ones_like(ids), completion).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_there_is_no_dropout():
    model, ids = TinyTransformer(7, 4), torch.tensor([[1, 2, 3]])
    assert torch.equal(model.train()(ids).logits, model.eval()(ids).logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 30, "heads": 4}, "^width: expected a multiple of heads = 4, got 30$"),
        ({"eos": 7}, "^eos: expected a token from 0 to 6, got 7$"),
        ({"eos": -1}, "^eos: expected a token from 0 to 6, got -1$"),
    ],
)
def test_what_cannot_be_built(options, message):
    with pytest.raises(ValueError, match=message):
        TinyTransformer(7, 4, **options)
