"""The loop at the command line: a judge from preferences, samples, their scores, training."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import transformers

from bandit.llm import Completions
from bandit.llm.commands import main
from bandit.llm.folders import load_scorer, load_tokenizer
from bandit.llm.reward_model import RewardModel, evaluate_reward_model, learned

GOOD, BAD = ["good", "happy", "happy day"], ["bad", "sad", "bad table"]


def run(*words):
    return main([str(word) for word in words])


def said(capsys):
    return json.loads(capsys.readouterr().out)


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Sixty preferences for good words, a tenth of them the wrong way round."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(60):
        texts = [str(rng.choice(GOOD)), str(rng.choice(BAD))][:: -1 if i % 10 == 0 else 1]
        prompt = str(rng.choice(["the day", "the table", "the"]))
        records.append({"prompt": prompt, "chosen": texts[0], "rejected": texts[1]})
    return write(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", records)


@pytest.fixture(scope="module")
def judge(folder, pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("judge") / "judge"
    where = ["--data", pairs, "--model", folder, "--out", out]
    options = "--steps 60 --learning-rate 0.02 --held-out 0.25 --seed 1".split()
    assert run("reward", *where, *options) == 0
    return out


def test_a_judge_is_trained_and_judged_on_other_pairs(folder, pairs, judge, tmp_path, capsys):
    options = "--steps 60 --learning-rate 0.02 --held-out 0.25 --seed 1".split()
    where = ["--data", pairs, "--model", folder]
    assert run("reward", *where, "--out", tmp_path / "again", *options) == 0
    found = said(capsys)
    assert (found["pairs"], found["held_out"]) == (45, 15)
    assert found["accuracy"] > 0.75
    assert 0 < found["log_loss"] < 0.69
    assert not list((tmp_path / "again").glob("*.bin"))
    # The same seed, the same judge; its report is of pairs it has not seen.
    one, two = (load_scorer(str(p)).state_dict() for p in (judge, tmp_path / "again"))
    assert all((one[name] == two[name]).all() for name in one)
    order = np.random.default_rng(1).permutation(60)
    data = Completions.from_jsonl(pairs, tokenizer=load_tokenizer(str(folder)))
    held_out = Completions([data[i] for i in order[:15]])
    report = evaluate_reward_model(RewardModel(load_scorer(str(judge))), held_out)
    assert found["accuracy"] == pytest.approx(report.accuracy)
    assert found["calibration_error"] == pytest.approx(report.calibration_error)
    assert run("reward", *where, "--out", tmp_path / "again", *options) == 2
    assert "--out: expected a new or empty folder, got" in capsys.readouterr().err
    assert run("reward", *where, "--out", tmp_path / "c", "--steps", 1, "--held-out", 0) == 0
    assert said(capsys) == {"saved": str(tmp_path / "c"), "pairs": 60}


def test_generate_score_train_and_what_is_said_next_is_better(folder, judge, tmp_path, capsys):
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": "the day"}, {"prompt": "the table"}])
    sampling = ["--prompts", prompts, "--samples", 32, "--max-new-tokens", 3]
    where, rewards = tmp_path / "trained", []
    for model, name in ((folder, "before"), (where, "after")):
        samples, scored = (tmp_path / f"{name}-{x}.jsonl" for x in ("samples", "scored"))
        assert run("generate", "--model", model, *sampling, "--out", samples) == 0
        assert said(capsys) == {"saved": str(samples), "rows": 2, "samples": 32}
        asking = ["--data", samples, "--reward", f"model:{judge}", "--out", scored]
        assert run("score", "--model", model, *asking) == 0
        found = said(capsys)
        means = [np.mean(row["rewards"]) for row in rows(scored)]
        assert found["reward"] == pytest.approx(np.mean(means))
        assert found["reward_se"] == pytest.approx(abs(means[0] - means[1]) / 2)
        rewards.append(np.array([row["rewards"] for row in rows(scored)]))
        if name == "before":
            training = (
                "--loss copg --beta 0.3 --steps 20 --batch-size 2 --learning-rate 0.01".split()
            )
            log = tmp_path / "log.csv"
            measured = ["--eval-data", scored, "--log", log]
            place = ["--data", scored, "--out", where]
            assert run("train", "--model", model, *place, *training, *measured) == 0
            assert said(capsys) == {"saved": str(where), "steps": 20}
    error = np.sqrt(sum(r.var() / r.size for r in rewards))
    assert rewards[1].mean() - rewards[0].mean() > 4 * error
    table = pd.read_csv(log)
    assert list(table.step[table.value.notna()]) == list(range(1, 21))
    assert table.eval_value.notna().sum() == 20
    values = table.eval_value.dropna().to_numpy()
    assert values[-1] < values[0]


def test_a_judge_reads_ids_of_its_own_tokenizer_and_texts_of_others(
    folder, judge, tmp_path, capsys
):
    data = write(
        tmp_path / "data.jsonl", [{"prompt": "the day", "completions": ["good", "bad table"]}]
    )
    found = []
    other = tmp_path / "other"
    shutil.copytree(judge, other)
    tokenizer = transformers.AutoTokenizer.from_pretrained(judge)
    tokenizer.backend_tokenizer.normalizer = None
    tokenizer.add_tokens(["more"])  # another tokenizer, the same on these texts
    tokenizer.save_pretrained(other)
    for reward in (judge, other):
        asking = ["--data", data, "--reward", f"model:{reward}"]
        assert run("score", "--model", folder, *asking) == 0
        found.append(said(capsys)["rewards"])
    assert found[0] == pytest.approx(found[1])
    model, tokenizer = RewardModel(load_scorer(str(judge))).eval(), load_tokenizer(str(judge))
    asked = learned(model, tokenizer)(["the day"] * 2, ["good", "bad table"])
    assert found[0] == pytest.approx(asked)
    assert found[0][0] > found[0][1]
    # A causal model is no judge: its output would be random.
    assert run("score", "--model", folder, "--data", data, "--reward", f"model:{folder}") == 2
    assert "--reward: expected all weights in" in capsys.readouterr().err


def test_a_judge_is_asked_as_it_was_taught(judge, folder):
    """With the beginning of a sequence before the prompt, where the tokenizer puts one."""
    from tokenizers import processors

    tokenizer = load_tokenizer(str(folder))
    tokenizer.bos_token = "sad"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="sad $A", special_tokens=[("sad", 5)]
    )
    model = RewardModel(load_scorer(str(judge))).eval()
    row = Completions.from_lists(["the day"], [["good", "table"]], tokenizer=tokenizer)[0]
    assert row.prompt_ids[0] == 5
    expected = model.rewards([row.prompt_ids] * 2, row.completion_ids)
    asked = learned(model, tokenizer)(["the day"] * 2, ["good", "table"])
    np.testing.assert_allclose(asked, expected, rtol=1e-6)


def test_nothing_that_is_there_is_written_over(folder, tmp_path, capsys):
    data = write(tmp_path / "data.jsonl", [{"prompt": "the", "completions": ["good", "bad"]}])
    before = data.read_bytes()
    for words in (["score", "--data", data], ["generate", "--prompt", "the"]):
        assert run(*words, "--model", folder, "--out", data) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"--out: expected a new file, or --overwrite, got {data}" in line
        assert data.read_bytes() == before
    scoring = ["score", "--data", data, "--model", folder, "--out", data, "--overwrite"]
    assert run(*scoring) == 0
    (row,) = rows(data)
    assert (row["completions"], len(row["log_prob"])) == (["good", "bad"], 2)


def test_parquet_goes_in_everywhere(folder, tmp_path, capsys):
    record = {"prompt": "the", "completions": ["good", "bad"], "rewards": [1.0, 0.0]}
    data = tmp_path / "data.parquet"
    pd.DataFrame([record]).to_parquet(data)
    assert run("score", "--model", folder, "--data", data) == 0
    row = said(capsys)
    assert {name: row[name] for name in record} == record
    assert run("generate", "--model", folder, "--prompts", data) == 0
    assert said(capsys)["prompt_text"] == "the"


def test_chats_are_sampled_scored_and_learned_from(folder, tmp_path, capsys):
    chatting = tmp_path / "chatting"
    shutil.copytree(folder, chatting)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ 'the ' if m.role == 'user' else 'table ' }}{{ m.content }}"
        " <end> {% endfor %}{% if add_generation_prompt %}table {% endif %}"
    )
    tokenizer.save_pretrained(chatting)
    asked = [{"role": "user", "content": "sad day"}]
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": asked}])
    assert run("generate", "--model", chatting, "--prompts", prompts, "--samples", 3) == 0
    row = said(capsys)
    assert (row["prompt"], row["prompt_text"]) == ([7, 5, 6, 0, 3], "sad day")
    assert run("generate", "--model", chatting, "--prompt", "sad day", "--chat") == 0
    assert said(capsys)["prompt"] == row["prompt"]
    answers = [[{"role": "assistant", "content": text}] for text in ("good", "bad day")]
    data = write(tmp_path / "data.jsonl", [{"prompt": asked, "completions": answers}])
    scored = tmp_path / "scored.jsonl"
    asking = ["--data", data, "--reward", "matches:good", "--out", scored]
    assert run("score", "--model", chatting, *asking) == 0
    assert rows(scored)[0]["rewards"] == [1, 0]
    place = ["--data", scored, "--out", tmp_path / "new"]
    assert run("train", "--model", chatting, *place, "--beta", "1", "--steps", "1") == 0


def test_a_baseline_reaches_the_loss(folder, tmp_path, capsys):
    record = {"prompt": "the", "completions": ["good", "bad"], "rewards": [3.0, 2.0]}
    data, values = write(tmp_path / "data.jsonl", [record]), []
    for baseline in ("0", "2.5"):
        out, log = (tmp_path / f"{x}{baseline}" for x in ("out", "log.csv"))
        options = ["--loss", "policy_gradient", "--beta", "1", "--baseline", baseline]
        where = ["--model", folder, "--data", data, "--out", out, "--log", log]
        assert run("train", *options, *where, "--steps", "1") == 0
        values.append(pd.read_csv(log).grad_norm[0])
    assert values[1] < 0.5 * values[0]


def test_going_on_keeps_the_log_of_what_went_before(folder, tmp_path, capsys):
    record = {"prompt": "the", "completions": ["good", "bad"], "rewards": [1.0, 0.0]}
    data, log = write(tmp_path / "data.jsonl", [record]), tmp_path / "log.csv"
    where = ["--model", folder, "--data", data, "--out", tmp_path / "new", "--log", log]
    training = ["train", *where, "--beta", "1", "--save-every", "1"]
    assert run(*training, "--steps", "2") == 0
    assert run(*training, "--steps", "4") == 2  # nothing is written over by chance
    assert run(*training, "--steps", "4", "--resume") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] == 4
    table = pd.read_csv(log)
    assert list(table.step[table.value.notna()]) == [1, 2, 3, 4]


def test_groups_become_pairs_of_the_best_and_the_worst(folder, tmp_path, capsys):
    samples, pairs = tmp_path / "samples.jsonl", tmp_path / "pairs.jsonl"
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": "the day"}] * 3 + [{"prompt": "sad"}])
    sampling = ["--prompts", prompts, "--samples", 6, "--max-new-tokens", 4]
    assert run("generate", "--model", folder, *sampling, "--out", samples) == 0
    tie = rows(samples)[-1] | {"texts": ["day"] * 6}
    write(samples, [*rows(samples)[:-1], tie])
    asking = ["--data", samples, "--reward", "length:2", "--pairs", "--out", pairs]
    capsys.readouterr()
    assert run("score", "--model", folder, *asking) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["rows"] == 3
    assert "warning: rows left out, as their rewards are all equal: 1" in printed.err
    for group, pair in zip(rows(samples), rows(pairs), strict=False):
        rewards = [-abs(len(text.split()) - 2) / 2 for text in group["texts"]]
        best, worst = np.argmax(rewards), np.argmin(rewards)
        for name, i in (("chosen", best), ("rejected", worst)):
            assert pair[name] == group["completions"][i]
            assert pair[f"{name}_score"] == rewards[i]
        of_both = [group["behavior_log_prob"][i] for i in (best, worst)]
        assert pair["behavior_log_prob"] == of_both
        np.testing.assert_allclose(pair["log_prob"], of_both, atol=1e-5)
        assert pair["texts"] == [group["texts"][i] for i in (best, worst)]
    # Which is what methods that learn from preferences take.
    place = ["--data", pairs, "--out", tmp_path / "new", "--loss", "dpo", "--beta", "1"]
    assert run("train", "--model", folder, *place, "--steps", "1") == 0
    assert run("score", "--model", folder, "--data", pairs, "--pairs") == 2
    assert "--pairs: expected groups with rewards" in capsys.readouterr().err
