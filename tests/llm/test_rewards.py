"""Rewards by functions, and rewards learned from preferences."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.special import expit

from bandit.llm import rewards
from bandit.llm.completions import Completions
from bandit.llm.reward_model import (
    RewardModel,
    TinyScorer,
    evaluate_reward_model,
    report,
    shuffled,
    train_reward_model,
)

GOOD, BAD = "What a wonderful, happy day!", "This is a horrible, sad failure."


# ------------------------------------------------------------------------------------- functions


def test_sentiment_knows_good_from_bad():
    value = rewards.rewarded(rewards.sentiment(), ["", "", ""], [GOOD, BAD, "a table"])
    assert value[0] > 0.5
    assert value[1] < -0.5
    assert value[2] == 0


def test_sentiment_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(ImportError, match="sentiment: expected the package vaderSentiment"):
        rewards.sentiment()


def test_checks_count_what_passes():
    reward = rewards.checks(
        [r"def \w+", re.compile("RETURN", re.I), lambda prompt, text: prompt.strip() in text]
    )
    got = rewards.rewarded(reward, ["f", "g", "h"], ["def f(): return 1", "def f(): pass", "h"])
    np.testing.assert_allclose(got, [1, 1 / 3, 1 / 3])


@pytest.mark.parametrize(
    ("required", "error", "said"),
    [
        ([], ValueError, "required: expected a list of at least one check"),
        ("a", ValueError, "required: expected a list"),
        (["("], ValueError, r"required\[0\]: expected a regular expression, got '\('"),
        (["a", 3], TypeError, r"required\[1\]: expected a regular expression or a predicate"),
    ],
)
def test_bad_checks(required, error, said):
    with pytest.raises(error, match=said):
        rewards.checks(required)


def test_a_predicate_must_answer_yes_or_no():
    reward = rewards.checks([lambda prompt, text: 0.5])
    with pytest.raises(TypeError, match=r"required\[0\]: expected True or False, got float"):
        reward(["p"], ["y"])


def test_length():
    texts = ["", "one two", "one two three four", "1 2 3 4 5 6"]
    got = rewards.rewarded(rewards.length(4), [""] * 4, texts)
    np.testing.assert_allclose(got, [-1, -0.5, 0, -0.5])
    np.testing.assert_allclose(rewards.length(10, "characters")([""], ["abcde"]), [-0.5])
    with pytest.raises(ValueError, match="unit: expected one of words, characters"):
        rewards.length(4, "lines")


def test_by_name():
    assert rewards.by_name("length:2")([""], ["a b"]) == [0]
    assert rewards.by_name("matches:^a.c:")([""], ["abc:"]) == [1]
    assert rewards.by_name("sentiment")([""], [GOOD])[0] > 0
    for name in ("length", "length:x", "matches:", "happy", "sentiment:1"):
        with pytest.raises(ValueError, match="reward: expected sentiment, length:WORDS or"):
            rewards.by_name(name)


@pytest.mark.parametrize(
    ("reward", "texts", "error", "said"),
    [
        (lambda p, c: [1.0], ["a", "b"], ValueError, "returns 2 numbers, got shape"),
        (lambda p, c: [1.0, np.nan], ["a", "b"], ValueError, r"reward: expected finite .* index 1"),
        (lambda p, c: ["x", "y"], ["a", "b"], TypeError, "reward: expected an array of numbers"),
        (lambda p, c: [0.0, 0.0], ["a", None], TypeError, r"completions\[1\]: expected a string"),
        (lambda p, c: [0.0], ["a"], ValueError, "completions: expected 2 texts like prompts"),
    ],
)
def test_what_a_function_returns_is_looked_at(reward, texts, error, said):
    with pytest.raises(error, match=said):
        rewards.rewarded(reward, ["p", "q"], texts)


def test_functions_need_neither_transformers_nor_vader_until_used():
    code = (
        "import sys, bandit.llm.rewards as r; r.length(3);"
        "assert not {'transformers', 'vaderSentiment'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------------------------- reward models

WORTH = np.array([0.0, 1.5, -1.0, 0.5, -2.0, 0.8])
"""What a token is worth; a completion is worth the sum."""


def pairs(count, seed, prompts=True):
    rng = np.random.default_rng(seed)
    texts = [
        [rng.integers(1, 6, size=rng.integers(1, 4)).tolist() for _ in "ab"] for _ in range(count)
    ]
    margin = np.array([WORTH[a].sum() - WORTH[b].sum() for a, b in texts])
    label = (rng.random(count) < expit(margin)).astype(float)
    before = [rng.integers(0, 6, size=rng.integers(1, 3)).tolist() for _ in texts]
    return Completions.from_lists(before, texts, preferences=label.tolist()), margin, label


@pytest.fixture(scope="module")
def trained():
    model = RewardModel(TinyScorer(6, 6, seed=1))
    return train_reward_model(model, pairs(1500, 0)[0], steps=250, batch_size=64, rng=0)


def test_a_reward_model_finds_the_reward_behind_the_choices(trained):
    held_out, margin, label = pairs(1000, 1)
    found = evaluate_reward_model(trained, held_out)
    best = report(margin, label)  # what the true reward itself would score
    assert found.pairs == 1000
    assert found.accuracy > best.accuracy - 0.03
    assert found.log_loss < best.log_loss + 0.06
    # An error of 0.05 would be seen: with 1,000 pairs its standard error is about 0.015.
    assert found.calibration_error < 0.07
    # Differences after the same prompt are what preferences determine.
    prompts = [row.prompt_ids for row in held_out]
    first, second = (
        trained.rewards(prompts, [r.completion_ids[i] for r in held_out]) for i in (0, 1)
    )
    assert np.corrcoef(first - second, margin)[0, 1] > 0.93


def test_a_model_that_says_nothing_knows_nothing():
    model = RewardModel(TinyScorer(6, 6))
    torch.nn.init.zeros_(model.model.score.weight)
    found = evaluate_reward_model(model, pairs(50, 2)[0])
    assert found.log_loss == pytest.approx(np.log(2))
    assert found.accuracy == 0.5
    assert found.calibration_error == 0


def test_the_same_seed_trains_the_same_model():
    data = pairs(100, 0)[0]

    def weights(seed):
        model = train_reward_model(
            RewardModel(TinyScorer(6, 6)), data, steps=5, rng=seed, batch_size=8
        )
        return torch.cat([p.detach().ravel() for p in model.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_a_step_goes_down_the_bradley_terry_likelihood():
    """The update's gradient against automatic differentiation of −ln σ(r − r')."""
    data, _, label = pairs(16, 3)
    model = RewardModel(TinyScorer(6, 6, seed=2))
    texts = [[*row.prompt_ids, *ids] for row in data for ids in row.completion_ids]
    scores = torch.stack(
        [model(torch.tensor([t]), torch.ones(1, len(t), dtype=torch.long))[0] for t in texts]
    ).reshape(-1, 2)
    sign = torch.tensor(2 * label - 1, dtype=torch.float32)
    cost = -torch.nn.functional.logsigmoid(sign * (scores[:, 0] - scores[:, 1])).mean()
    expected = torch.autograd.grad(cost, list(model.parameters()))
    seen = []
    hooks = [
        p.register_post_accumulate_grad_hook(lambda p: seen.append((p, p.grad.clone())))
        for p in model.parameters()
    ]
    train_reward_model(model, data, steps=1, batch_size=16, rng=0)
    for hook in hooks:
        hook.remove()
    found = {id(p): grad for p, grad in seen}
    for p, grad in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(found[id(p)], grad, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
def test_transformers_classifiers(kind):
    """One number a text, whatever is padding and whoever is beside it; pad may be the end token."""
    import transformers

    small = {"vocab_size": 9, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    configs = {
        "llama": transformers.LlamaConfig(
            **small, intermediate_size=24, bos_token_id=1, eos_token_id=2, pad_token_id=2
        ),
        "gpt2": transformers.GPT2Config(
            vocab_size=9, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2
        ),
        "bert": transformers.BertConfig(**small, intermediate_size=24),
    }
    configs[kind].num_labels = 1
    make = transformers.AutoModelForSequenceClassification.from_config
    model = RewardModel(make(configs[kind])).eval()
    prompts, completions = [[3], [4, 5, 6]], [[7, 2], [8, 8, 2, 2]]
    together = model.rewards(prompts, completions)
    alone = [model.rewards([p], [c])[0] for p, c in zip(prompts, completions, strict=True)]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert together[0] != together[1]
    # The last token is read, though it is the padding token.
    assert abs(model.rewards([[3]], [[7]])[0] - together[0]) > 1e-6
    configs[kind].num_labels = 3
    with pytest.raises(ValueError, match="model: expected a model with num_labels=1, got 3"):
        RewardModel(make(configs[kind]))


def test_report_by_hand():
    found = report([2.0, -1.0, 0.0, -3.0], [1.0, 1.0, 1.0, 0.25], bins=2)
    s = expit([2.0, 1.0, 0.0, 3.0])
    assert found.accuracy == pytest.approx((1 + 0 + 0.5 + 0.75) / 4)
    low, high = (s[1] + s[2]) / 2, (s[0] + s[3]) / 2
    np.testing.assert_allclose(found.reliability.predicted, [low, high])
    np.testing.assert_allclose(found.reliability.observed, [0.25, 0.875])
    assert found.reliability.pairs.tolist() == [2, 2]
    assert found.calibration_error == pytest.approx((abs(low - 0.25) + abs(high - 0.875)) / 2)
    costs = [
        -np.log(s[0]),
        -np.log(1 - s[1]),
        np.log(2),
        -0.25 * np.log(1 - s[3]) - 0.75 * np.log(s[3]),
    ]
    assert found.log_loss == pytest.approx(np.mean(costs))


def test_a_true_model_is_calibrated_and_an_overconfident_one_is_not():
    """Fixed seed; each bin's frequency has a standard error below 0.02."""
    rng = np.random.default_rng(0)
    margin = rng.normal(0, 2, size=20_000)
    label = (rng.random(20_000) < expit(margin)).astype(float)
    assert report(margin, label).calibration_error < 0.015
    assert report(3 * margin, label).calibration_error > 0.08
    assert report(margin, label).accuracy == report(3 * margin, label).accuracy


def test_shuffled_uses_everything_before_anything_again():
    batches = list(shuffled(10, 5, 4, np.random.default_rng(0)))
    assert (
        sorted(np.concatenate(batches[:2]))
        == sorted(np.concatenate(batches[2:]))
        == list(range(10))
    )
    assert not np.array_equal(batches[0], batches[2])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            Completions.from_lists([[1]], [[[1], [2]]], rewards=[[0, 1]]),
            "and a preference, got 2 and None",
        ),
        (Completions.from_lists([], []), "completions: expected at least one pair"),
    ],
)
def test_bad_pairs(rows, said):
    with pytest.raises(ValueError, match=said):
        train_reward_model(RewardModel(TinyScorer(6, 6)), rows, steps=1, rng=0)
