"""Samples come from the model's distribution, with the probabilities they were drawn with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from bandit.llm import TinyTransformer, all_completions, enumerate_policy, sequence_log_prob
from bandit.llm.completions import Completions
from bandit.llm.generation import generate

EOS = 2
PROMPTS = [[5, 1, 7], [3], [9, 9, 4, 11, 0, 6, 8]]
LISTED = [[1, 2], [3], [4, 1, 2, 2]]


class CooledHead(torch.nn.Module):
    def __init__(self, head, temperature):
        super().__init__()
        self.head, self.temperature = head, temperature

    def forward(self, hidden):
        return self.head(hidden) / self.temperature


class Cooled(torch.nn.Module):
    """A model with its logits divided by a temperature."""

    def __init__(self, model, temperature):
        super().__init__()
        self.model, self.config, self.temperature = model, model.config, temperature
        self.cooled_head = CooledHead(model.get_output_embeddings(), temperature)

    def get_decoder(self):
        return self.model.get_decoder()

    def get_output_embeddings(self):
        return self.cooled_head

    def forward(self, input_ids, attention_mask, position_ids, logits_to_keep=0):
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        output = self.model(**given, position_ids=position_ids, logits_to_keep=logits_to_keep)
        return type(output)(logits=output.logits / self.temperature)


@pytest.fixture(scope="module")
def listed():
    """A model whose 85 completions are far from equally likely."""
    model = TinyTransformer(5, 3, eos=0, prompt_length=4, seed=1)
    with torch.no_grad():
        model.head.weight.mul_(6)
    return model


def frequencies(completions):
    outputs = all_completions(5, 3, 0)
    number = {
        tuple(y[:n]): k
        for k, (y, n) in enumerate(zip(outputs.tokens.tolist(), outputs.lengths, strict=True))
    }
    return np.bincount([number[tuple(y)] for y in completions], minlength=len(outputs))


def probability_of_worse(counts, policy):
    """p-value of the chi-square test, rare completions pooled."""
    order = np.argsort(policy)
    expected, observed = (policy * counts.sum())[order], counts[order]
    rare = (expected < 20).sum()
    rare += expected[:rare].sum() < 5  # then with the next, of at least 20
    expected, observed = (np.append(v[:rare].sum(), v[rare:]) for v in (expected, observed))
    assert expected.min() > 5
    statistic = ((observed - expected) ** 2 / expected).sum()
    return chi2.sf(statistic, len(expected) - 1)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_frequencies_are_the_listed_probabilities(listed, temperature):
    """Six chi-square tests with fixed seeds; a correct sampler fails any with probability 0.6 %."""
    drawn, _ = generate(
        listed,
        LISTED,
        samples=3000,
        max_new_tokens=3,
        temperature=temperature,
        rng=5,
        batch_size=1024,
    )
    for prompt, completions in zip(LISTED, drawn, strict=True):
        with torch.no_grad():
            policy = enumerate_policy(Cooled(listed, temperature), [prompt], length=3, eos=0)
        policy = policy.double().exp().numpy()[0]
        assert probability_of_worse(frequencies(completions), policy) > 0.001
        # The test can tell: against the distribution after another prompt it fails.
        other = LISTED[(LISTED.index(prompt) + 1) % 3]
        with torch.no_grad():
            wrong = enumerate_policy(listed, [other]).double().exp().numpy()[0]
        assert probability_of_worse(frequencies(completions), wrong) < 1e-6


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.6])
def test_behavior_log_prob_is_the_score_at_that_temperature(model, temperature):
    drawn, log_prob = generate(
        model, PROMPTS, samples=4, max_new_tokens=6, temperature=temperature, rng=0, batch_size=5
    )
    assert log_prob.shape == (3, 4)
    batch = Completions.collate(Completions.from_lists(PROMPTS, drawn).rows)
    masks = (batch[k] for k in ("input_ids", "attention_mask", "completion_mask"))
    with torch.no_grad():
        scored = sequence_log_prob(Cooled(model, temperature), *masks)
    np.testing.assert_allclose(log_prob.ravel(), scored.numpy(), rtol=1e-5, atol=1e-5)


def test_prompts_of_unequal_length_do_not_disturb_each_other(model):
    """Together, one row at a time, and each prompt alone."""
    options = {"samples": 5, "max_new_tokens": 6}
    together = generate(model, PROMPTS, **options, rng=1)
    apart = generate(model, PROMPTS, **options, rng=1, batch_size=1)
    assert together.completions == apart.completions
    np.testing.assert_allclose(together.behavior_log_prob, apart.behavior_log_prob, atol=1e-5)
    alone = generate(model, PROMPTS[:1], **options, rng=1)
    assert alone.completions == together.completions[:1]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_prompt_is_computed_once_for_all_its_samples(make_model, kind):
    model, shapes = make_model(kind), []
    model.get_input_embeddings().register_forward_pre_hook(
        lambda module, args: shapes.append(tuple(args[0].shape))
    )
    options = {"samples": 5, "max_new_tokens": 3, "eos": (), "rng": 1}
    generate(model, PROMPTS, **options)
    assert shapes == [(3, 7), (15, 1), (15, 1)]
    shapes.clear()
    generate(model, PROMPTS, **options, batch_size=4)  # some prompts are cut in two
    assert shapes[::3] == [(1, 3), (2, 3), (2, 7), (1, 7)]


def test_ends_belong_to_completions(model):
    drawn, _ = generate(model, PROMPTS, samples=40, max_new_tokens=4, rng=5)
    texts = [y for group in drawn for y in group]
    assert all(1 <= len(y) <= 4 for y in texts)
    assert all(EOS not in y[:-1] for y in texts)
    assert all(len(y) == 4 or y[-1] == EOS for y in texts)
    assert any(len(y) < 4 for y in texts)
    endless, _ = generate(model, PROMPTS, samples=40, max_new_tokens=4, rng=5, eos=())
    assert {len(y) for group in endless for y in group} == {4}
    assert any(EOS in y[:-1] for group in endless for y in group)
    two, _ = generate(model, PROMPTS, samples=40, max_new_tokens=4, rng=5, eos=[EOS, 7])
    assert {y[-1] for group in two for y in group if len(y) < 4} == {EOS, 7}


def test_seeds_and_the_global_generator(model):
    options = {"samples": 6, "max_new_tokens": 5}
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = generate(model, PROMPTS, **options, rng=0)
    assert generate(model, PROMPTS, **options, rng=0).completions == first.completions
    assert generate(model, PROMPTS, **options, rng=1).completions != first.completions
    for make in (np.random.default_rng, lambda seed: torch.Generator().manual_seed(seed)):
        rng = make(0)
        one, two = (generate(model, PROMPTS, **options, rng=rng).completions for _ in range(2))
        assert one != two
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_dropout_is_off_while_sampling_and_modes_come_back(make_model):
    model = make_model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5).train()
    model.transformer.h[0].eval()
    modes = [module.training for module in model.modules()]
    first = generate(model, PROMPTS, samples=3, max_new_tokens=5, rng=0)
    second = generate(model, PROMPTS, samples=3, max_new_tokens=5, rng=0)
    np.testing.assert_array_equal(first.behavior_log_prob, second.behavior_log_prob)
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompts": []}, "prompts: expected at least one prompt"),
        ({"prompts": [[1], []]}, r"prompts\[1\]: expected a list of at least one token id"),
        ({"prompts": [[23]]}, r"prompts\[0\]: expected tokens from 0 to 22, got 23"),
        ({"temperature": 0.0}, "temperature: expected a finite number above 0"),
        ({"samples": 0}, "samples: expected a positive integer"),
        ({"max_new_tokens": -1}, "max_new_tokens: expected a positive integer"),
    ],
)
def test_bad_input(make_model, change, said):
    given = {"prompts": PROMPTS, "samples": 1, "max_new_tokens": 2, "rng": 0} | change
    with pytest.raises(ValueError, match=said):
        generate(make_model("tiny"), given.pop("prompts"), **given)
