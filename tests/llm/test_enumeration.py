"""Listing everything a model can say, against scoring each completion by itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from bandit import Bandit
from bandit.llm import (
    TinyTransformer,
    all_completions,
    as_bandit,
    enumerate_policy,
    policy_of,
    sequence_log_prob,
)

V, L = 4, 3
PROMPTS = [[0, 1], [3, 2]]


def said(vocabulary, length, eos):
    """All completions as tuples, by growing them token by token."""
    growing, ended = [()], []
    for _ in range(length):
        growing = [(*y, token) for y in growing for token in range(vocabulary)]
        ended += [y for y in growing if y[-1] == eos]
        growing = [y for y in growing if y[-1] != eos]
    return sorted(ended + growing)


@pytest.mark.parametrize("eos", [None, 0, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_list_is_complete_and_in_order(eos, length):
    outputs = all_completions(V, length, eos)
    found = [tuple(y[:n].tolist()) for y, n in zip(*outputs, strict=True)]
    assert found == said(V, length, eos)
    assert len(outputs) == len(set(found))
    for y, n in zip(*outputs, strict=True):
        assert not y[n:].any()


def models(eos, make_model):
    tiny = TinyTransformer(V, L, eos=eos, prompt_length=2, seed=3)
    with torch.no_grad():
        tiny.head.weight.mul_(5)
    yield tiny
    yield make_model("gpt2", vocab_size=V, bos_token_id=0, eos_token_id=1, pad_token_id=None)
    yield make_model("llama", vocab_size=V, bos_token_id=0, eos_token_id=1, pad_token_id=None)


@pytest.mark.parametrize("eos", [None, 0, 3])
def test_each_output_has_the_probability_of_its_tokens(eos, make_model):
    for model in models(eos, make_model):
        listed = enumerate_policy(model, PROMPTS, length=L, eos=eos)
        total = listed.double().exp().sum(-1)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)
        rows = [[*x, *y] for x, y in itertools.product(PROMPTS, said(V, L, eos))]
        ids = torch.tensor([row + [0] * (L + 2 - len(row)) for row in rows])
        attention = torch.tensor([[1] * len(row) + [0] * (L + 2 - len(row)) for row in rows])
        completion = attention.clone()
        completion[:, :2] = 0
        expected = sequence_log_prob(model, ids, attention, completion).reshape(len(PROMPTS), -1)
        mix = torch.linspace(-1, 2, listed.numel()).reshape(listed.shape)
        parameters = list(model.parameters())
        ours = torch.autograd.grad((mix * listed).sum(), parameters)
        plain = torch.autograd.grad((mix * expected).sum(), parameters)
        for one, other in zip(ours, plain, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_a_model_as_a_bandit(rng):
    model = TinyTransformer(V, L, eos=1, prompt_length=2)
    outputs = said(V, L, 1)
    rewards = rng.normal(size=(2, len(outputs)))
    weights = [0.3, 0.7]
    problem = as_bandit(model, rewards, 0.4, PROMPTS, context_weights=weights)
    assert isinstance(problem, Bandit)
    reference = policy_of(model, PROMPTS)
    np.testing.assert_allclose(problem.reference, reference, rtol=1e-12)
    np.testing.assert_allclose(reference.sum(1), 1, rtol=1e-12)
    tilted = reference * np.exp(rewards / 0.4)
    np.testing.assert_allclose(
        problem.optimal_policy(), tilted / tilted.sum(1, keepdims=True), rtol=1e-9
    )
    assert problem.regret(reference) > 0.1
    assert problem.kl(reference) == pytest.approx(0, abs=1e-12)


def test_rewards_from_a_function_of_prompt_and_completions():
    model = TinyTransformer(V, L, eos=1, prompt_length=2)

    def reward(prompt, completions):
        return [float(prompt[0]) + len(y) / 10 for y in completions]

    problem = as_bandit(model, reward, 0.4, PROMPTS)
    expected = [[x[0] + len(y) / 10 for y in said(V, L, 1)] for x in PROMPTS]
    np.testing.assert_allclose(problem.reward, expected)


def test_length_and_end_of_other_models_must_be_given(make_model):
    model = make_model("gpt2", vocab_size=V, bos_token_id=0, eos_token_id=1, pad_token_id=None)
    with pytest.raises(TypeError, match=r"^length: expected the number of completion tokens"):
        enumerate_policy(model, PROMPTS)
    assert enumerate_policy(model, PROMPTS, length=2).shape == (2, V**2)


@pytest.mark.parametrize("prompts", [[0, 1], [[[0]]], np.zeros((2, 0))])
def test_prompts_must_be_rows_of_tokens(prompts):
    with pytest.raises(ValueError, match=r"^prompts: expected shape \(X, P\)"):
        enumerate_policy(TinyTransformer(V, L), prompts)


def test_too_many_to_list():
    with pytest.raises(ValueError, match=r"^length: .* got 50000\^2$"):
        all_completions(50000, 2)
