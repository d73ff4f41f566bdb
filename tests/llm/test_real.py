"""The experiment on a real model, with a random one of eight words in its place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from scipy.special import expit

from bandit.llm import real, rewards
from bandit.llm.trainer import SequenceTrainer

WORDS = ["<end>", "good", "bad", "table", "happy", "sad", "day", "the"]
SIZE = real.Size(
    prompts=3, validation=2, held_out=3, samples=4, tokens=5, steps=4, batch_size=2, seeds=2
)
PROMPTS = ["the day", "the table", "bad day", "sad", "the sad table", "happy", "good", "day"]


class Tokenizer:
    """Splits at spaces."""

    def __call__(self, text, add_special_tokens=True):
        assert not add_special_tokens
        return {"input_ids": [WORDS.index(word) for word in text.split()]}

    def batch_decode(self, rows, skip_special_tokens=False):
        assert skip_special_tokens
        return [" ".join(WORDS[i] for i in row if i) for row in rows]


def worth(prompts, completions):
    """Good words less bad ones, which the random model knows nothing of."""
    good, bad = {"good", "happy"}, {"bad", "sad"}
    return [float(sum((w in good) - (w in bad) for w in text.split())) for text in completions]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture
def stub(base, monkeypatch):
    """What would be downloaded or installed, in eight words."""
    monkeypatch.setattr(real, "model_folder", lambda: base)
    monkeypatch.setattr(real.folders, "load_tokenizer", lambda path: Tokenizer())
    monkeypatch.setattr(real, "sentences", lambda: PROMPTS)
    monkeypatch.setattr(real.rewards, "sentiment", lambda: worth)
    monkeypatch.setattr(real, "SIZES", {"smoke": SIZE})


def run(folder, *words):
    return real.main(["--size", "smoke", "--out", str(folder), *words])


def files(folder):
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.json")}


def test_the_whole_experiment(stub, tmp_path, capsys, monkeypatch):
    rates = ("0.001", "0.03")
    assert run(tmp_path, "--learning-rates", *rates) == 0
    folder = tmp_path / "sentiment-smoke"
    printed = capsys.readouterr()
    assert "transformers" in printed.out
    for table in ("tuning", "results", "summary"):
        assert f"\n{table}\n" in printed.out
    assert "{'loss'" not in printed.out  # Trainer's records go where progress goes
    assert "[12/12, " in printed.err
    tuning, results, summary = (
        pd.read_csv(folder / f"{name}.csv") for name in ("tuning", "results", "summary")
    )
    assert len(tuning) == 3 * 2
    np.testing.assert_allclose(
        tuning.objective, tuning.reward - real.BETA * tuning.kl, rtol=1e-4, atol=1e-6
    )
    # The rate of highest objective, for each method by itself; nothing else is trained further.
    best = tuning.loc[tuning.groupby("method").objective.idxmax()].set_index("method")
    trained = results[results.method != "reference"]
    assert (trained.learning_rate == best.learning_rate[trained.method].to_numpy()).all()
    assert trained.groupby("method").seed.agg(list).to_dict() == {
        method: [0, 1] for method in real.METHODS
    }
    reference = results[results.method == "reference"]
    np.testing.assert_allclose(reference.kl, 0, atol=1e-5)
    assert reference.learning_rate.isna().all()
    assert (trained.kl.abs() > 1e-4).all()
    assert trained.kl.nunique() == len(trained)
    for row in summary.itertuples():
        of = results[results.method == row.method]
        assert row.reward == pytest.approx(of.reward.mean(), abs=1e-5)
        assert row.kl_se == pytest.approx(of.kl.std() / np.sqrt(2), rel=1e-3, abs=1e-5)
    # Everything is in files now: again, nothing is trained, and the tables are the same.
    monkeypatch.setattr(real, "SequenceTrainer", None)
    before = {path: (folder / path).read_bytes() for path in files(folder)}
    assert run(tmp_path, "--learning-rates", *rates) == 0
    assert {path: (folder / path).read_bytes() for path in files(folder)} == before
    assert capsys.readouterr().out == printed.out
    assert not any(folder.rglob("checkpoint-*"))


def test_a_run_killed_between_steps_does_nothing_twice(stub, tmp_path, monkeypatch):
    words = ("--methods", "copg", "--learning-rates", "0.01")
    through, stopped = tmp_path / "through", tmp_path / "stopped"
    taken = []

    class Watched(SequenceTrainer):
        dies_at = None

        def training_step(self, *args, **options):
            place = (Path(self.args.output_dir).name, self.state.global_step)
            if place == self.dies_at:
                raise KeyboardInterrupt
            taken.append(place)
            return super().training_step(*args, **options)

    monkeypatch.setattr(real, "SequenceTrainer", Watched)
    run(through, *words)
    expected = [(f"copg-0.01-{seed}", step) for seed in (100, 0, 1) for step in range(4)]
    assert taken == expected
    taken.clear()
    for at in (("copg-0.01-100", 2), ("copg-0.01-0", 0), ("copg-0.01-1", 3)):
        Watched.dies_at = at
        with pytest.raises(KeyboardInterrupt):
            run(stopped, *words)
    Watched.dies_at = None
    run(stopped, *words)
    assert taken == expected
    for name in ("tuning/copg-0.01-100", "runs/copg-0.01-0", "runs/copg-0.01-1"):
        first, second = (
            json.loads((folder / "sentiment-smoke" / f"{name}.json").read_text())
            for folder in (through, stopped)
        )
        for key in ("reward", "kl", "samples"):
            assert first[key] == second[key], name


def test_half_a_checkpoint_is_passed_over(stub, tmp_path):
    """One written by a killed process, without Trainer's state: the run begins anew."""
    folder = tmp_path / "sentiment-smoke"
    half = folder / "tuning" / "copg-0.01-100" / "checkpoint-2"
    half.mkdir(parents=True)
    (half / "adapter_config.json").write_text("{")
    assert run(tmp_path, "--methods", "copg", "--learning-rates", "0.01") == 0
    assert (folder / "tuning" / "copg-0.01-100.json").exists()


def test_tuning_sees_no_held_out_prompt(stub, tmp_path, monkeypatch):
    asked = []
    original = real.Experiment.measure

    def measure(self, model, prompts, seed):
        asked.append((seed, tuple(prompts)))
        return original(self, model, prompts, seed)

    monkeypatch.setattr(real.Experiment, "measure", measure)
    run(tmp_path, "--methods", "copg", "--learning-rates", "0.01")
    validation, held_out = tuple(PROMPTS[3:5]), tuple(PROMPTS[5:])
    assert asked == [
        (0, held_out), (1, held_out), (real.TUNED_WITH, validation), (0, held_out), (1, held_out)
    ]  # fmt: skip
    data = json.loads((tmp_path / "sentiment-smoke" / "data.json").read_text())
    assert [row["prompt_text"] for row in data] == PROMPTS[:3]


def test_other_settings_do_not_mix_with_old_results(stub, tmp_path, monkeypatch):
    (tmp_path / "sentiment-smoke").mkdir()
    (tmp_path / "sentiment-smoke" / "settings.json").write_text('{"steps": 5}')
    with pytest.raises(ValueError, match=r"out: expected a folder without results of {'steps': 5}"):
        run(tmp_path)


def test_too_few_prompts_are_refused(stub, tmp_path, monkeypatch):
    monkeypatch.setattr(real, "sentences", lambda: PROMPTS[:7])
    with pytest.raises(ValueError, match="size: expected at most 7 prompts, got 8"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("objective", "best"),
    [
        ({1e-4: 0.1, 1e-3: 0.3, 1e-2: 0.2}, 1e-3),
        ({1e-2: 0.3, 1e-4: 0.1, 1e-3: 0.3}, 1e-3),  # of equals the smaller
        ({1e-4: -2.0, 1e-3: float("nan"), 1e-2: float("-inf")}, 1e-4),
    ],
)
def test_the_best_rate(objective, best):
    assert real.best_rate(objective) == best


def test_no_rate_is_best_where_all_diverge():
    with pytest.raises(ValueError, match="learning_rates: expected one that does not diverge"):
        real.best_rate({1e-3: float("nan"), 1e-2: float("inf")})


def test_tuning_counts_the_divergence_not_the_reward_alone():
    found = {1e-4: (0.2, 0.1), 1e-3: (0.5, 2.0), 1e-2: (0.55, 9.0)}

    def done(run):
        assert run.tuning
        assert run.seed == real.TUNED_WITH
        reward, kl = found[run.learning_rate]
        return {"reward": reward, "kl": kl, "objective": reward - real.BETA * kl}

    table, chosen = real.tuned(done, ["dpo", "ipo"], list(found))
    assert chosen == {"dpo": 1e-3, "ipo": 1e-3}
    assert list(table.learning_rate) == [*found, *found]


def test_pairs_hold_every_completion_once_with_labels_from_rewards():
    """Fixed seed; the frequency is within four standard errors of its probability."""
    records = [
        {
            "prompt": [7, i % 6],
            "completions": [[1], [2], [3], [4], [5]],
            "rewards": [0, 0.3, 1, 0, 0],
        }
        for i in range(4000)
    ]
    pairs = real.as_pairs(records, seed=3)
    assert len(pairs) == 2 * len(records)  # one of five is left over
    agrees, expected = [], []
    for row in pairs:
        first, second = (records[0]["rewards"][ids[0] - 1] for ids in row.completion_ids)
        np.testing.assert_array_equal(row.rewards, [first, second])
        agrees.append(row.preference)
        expected.append(expit(real.LABEL_SCALE * (first - second)))
    assert set(agrees) == {0.0, 1.0}
    far = np.array(expected) > 0.9
    p = np.array(expected)[far].mean()
    error = np.sqrt(p * (1 - p) / far.sum())
    assert np.array(agrees)[far].mean() == pytest.approx(p, abs=4 * error)
    both = [
        sorted(i[0] for r in pairs[2 * k : 2 * k + 2] for i in r.completion_ids) for k in range(9)
    ]
    assert all(len(set(four)) == 4 for four in both)
    other = real.as_pairs(records, seed=4)
    assert [r.completion_ids for r in pairs] != [r.completion_ids for r in other]


def test_kl_and_reward_are_means_of_the_samples(base, tmp_path):
    """Against the KL of the listed completions, by Monte Carlo with a fixed seed."""
    from bandit.llm import policy_of
    from bandit.llm.enumeration import all_completions

    size = SIZE._replace(samples=3000, tokens=2)
    experiment = real.Experiment(tmp_path, size, base, Tokenizer(), worth, [], [], [])
    model = real.folders.with_adapters(real.folders.load_model(str(base)), 2, 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(
                    0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
                )
    found = experiment.measure(model, ["the day", "good table"], 5)
    policy = policy_of(model, [[7, 6], [1, 3]], length=2, eos=0)
    with model.disable_adapter():
        reference = policy_of(model, [[7, 6], [1, 3]], length=2, eos=0)
    outputs = all_completions(8, 2, 0)
    texts = Tokenizer().batch_decode([y[:n] for y, n in zip(*outputs, strict=True)], True)
    log_ratio, reward = np.log(policy / reference), np.array(worth(texts, texts))
    for name, values in (("kl", log_ratio), ("reward", reward)):
        mean = (policy * values).sum(axis=1)
        spread = np.sqrt((policy * (values - mean[:, None]) ** 2).sum(axis=1).mean() / (2 * 3000))
        assert found[name] == pytest.approx(mean.mean(), abs=4 * spread), name
    assert found["kl"] > 0.1
    assert found["objective"] == pytest.approx(found["reward"] - real.BETA * found["kl"])
    assert len(found["samples"]) == 2
    assert rewards.rewarded(worth, texts, texts).shape == (len(texts),)
