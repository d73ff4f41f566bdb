"""``python -m bandit.llm``: from samples to a trained model, and one line for bad values."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers

from bandit import losses
from bandit.llm import actions, commands
from bandit.llm.folders import load_model


def run(*words):
    return commands.main([str(word) for word in words])


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def scored(folder, tmp_path_factory):
    """Samples with rewards, made by two commands."""
    here = tmp_path_factory.mktemp("data")
    prompts = here / "prompts.jsonl"
    prompts.write_text('{"prompt": "the day"}\n{"prompt": "bad table"}\n')
    options = "--samples 4 --max-new-tokens 5 --temperature 1 --seed 3".split()
    generated = here / "samples.jsonl"
    assert (
        run("generate", "--model", folder, "--prompts", prompts, *options, "--out", generated) == 0
    )
    out = here / "scored.jsonl"
    reward = ["--reward", "matches:good|happy"]
    assert run("score", "--model", folder, "--data", generated, *reward, "--out", out) == 0
    return out


def test_generate_then_score(scored):
    found = rows(scored)
    assert [row["prompt"] for row in found] == [[7, 6], [2, 3]]
    for row in found:
        assert len(row["completions"]) == len(row["texts"]) == 4
        # Scoring again finds the probabilities the samples were drawn with.
        np.testing.assert_allclose(row["log_prob"], row["behavior_log_prob"], atol=1e-5)
        ended = [y[-1] == 0 for y in row["completions"]]
        assert row["temperature"] == 1
        assert row["truncated"] == [not e for e in ended]
        says = [float("good" in text or "happy" in text) for text in row["texts"]]
        assert row["rewards"] == says


@pytest.mark.parametrize("lora", [[], ["--lora", "2"]])
def test_train(folder, scored, tmp_path, lora, capsys):
    options = "--loss copg --beta 0.1 --steps 3 --batch-size 2 --micro-batch 1".split()
    where = ["--data", scored, "--model", folder, "--out", tmp_path / "new"]
    assert run("train", *where, *options, "--learning-rate", "0.01", *lora) == 0
    printed = capsys.readouterr()
    # What Trainer prints along the way is progress.
    assert json.loads(printed.out) == {"saved": str(tmp_path / "new"), "steps": 3}
    assert "'loss'" in printed.err
    saved = {path.name for path in (tmp_path / "new").iterdir()}
    assert ("adapter_model.safetensors" if lora else "model.safetensors") in saved
    assert not {name for name in saved if name.endswith((".bin", ".pkl", ".pt"))}
    if not lora:
        before, after = (
            load_model(str(p)).state_dict()["lm_head.weight"] for p in (folder, tmp_path / "new")
        )
        assert not torch.equal(before, after)
        # The trained folder is a model again.
        assert run("generate", "--model", tmp_path / "new", "--prompt", "sad day") == 0
        assert json.loads(capsys.readouterr().out)["prompt_text"] == "sad day"
    else:
        # Adapters are a model again too, merged into the one they were trained on.
        out = tmp_path / "scored.jsonl"
        assert run("score", "--model", tmp_path / "new", "--data", scored, "--out", out) == 0
        changes = np.array([row["log_prob"] for row in rows(out)])
        changes -= [row["log_prob"] for row in rows(scored)]
        assert 1e-4 < np.abs(changes).max() < 1
    assert run("train", *where, *options) == 2
    assert "--out: expected a new or empty folder, or --resume" in capsys.readouterr().err


def test_pairs_with_scores_train_what_needs_rewards(folder, tmp_path):
    pairs, out = tmp_path / "pairs.jsonl", tmp_path / "scored.jsonl"
    pairs.write_text('{"prompt": "the", "chosen": "good day", "rejected": "bad day"}')
    reward = ["--reward", "matches:good"]
    assert run("score", "--model", folder, "--data", pairs, *reward, "--out", out) == 0
    (row,) = rows(out)
    assert (row["chosen_score"], row["rejected_score"]) == (1, 0)
    assert len(row["log_prob"]) == 2
    where = ["--data", out, "--model", folder, "--out", tmp_path / "new"]
    assert run("train", *where, "--loss", "copg", "--beta", "1", "--steps", "1") == 0


def test_seeds(folder, capsys):
    said = []
    for seed in (0, 0, 1):
        assert (
            run("generate", "--model", folder, "--prompt", "the", "--samples", 8, "--seed", seed)
            == 0
        )
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train --loss nonsense --beta 1", "--loss: expected one of copg, "),
        ("train --loss copg", "--beta: expected a number above 0 for copg, got None"),
        ("train --beta -1", "--beta: expected a finite number above 0, got -1"),
        ("train --loss rebel --option eta=x", "eta: expected a positive number, got str"),
        ("train --beta 1 --option gamma=1", "--option: expected one of beta for copg, got gamma"),
        ("train --beta 1 --option gamma", "--option: expected NAME=VALUE, got 'gamma'"),
        ("train --beta 1 --option beta=2", "--option: expected beta once, got it again as beta=2"),
        ("train --beta 1 --batch-size 0", "--batch-size: expected a positive integer, got 0"),
        ("train --beta 1 --batch-size 4 --micro-batch 3", "--micro-batch: expected a divisor"),
        ("train --beta 1 --model hub/name", "--model: expected a folder with a config.json"),
        ("train --beta 1 --loss dpo", "--data: expected preference for dpo, got rows with"),
        ("train --beta 1 --data x.txt", "--data: expected a .jsonl or .parquet file, got x.txt"),
        ("train --beta 1 --data no.jsonl", "no.jsonl: No such file or directory"),
        ("train --beta 1 --steps many", "argument --steps: invalid int value: 'many'"),
        ("score --reward joy", "--reward: expected sentiment, length:WORDS or matches:REGEX"),
        ("score --reward matches:(", "expected a regular expression, got '('"),
        ("generate", "--prompts: expected either --prompts FILE or --prompt TEXT"),
        ("generate --prompt the --temperature 0", "--temperature: expected a finite number above"),
        ("generate --prompt the --max-new-tokens 300", "--max-new-tokens: expected at most 255"),
        ("generate --prompt the --chat", "--chat: expected a tokenizer with a chat template"),
        ("generate --prompt the --seed -1", "--seed: expected a whole number from 0 to 4294967295"),
        ("train --beta 1 --seed 9999999999", "--seed: expected a whole number from 0 to 429496"),
        ("train --beta 1 --baseline 1", "--baseline: expected none for copg, got 1"),
        ("train --loss policy_gradient --beta 1 --option baseline=given", "--option: expected --b"),
        ("train --beta 1 --log nowhere/x.csv", "--log: expected a file in a folder that exists"),
        ("train --beta 1 --learning-rate 1e38 --steps 3", "--learning-rate: expected one at which"),
        ("reward --held-out 0", "completions[0]: expected two completions and a preference, got 4"),
        ("reward --held-out 1", "--held-out: expected a share from 0 to below 1, got 1.0"),
        ("reward --held-out 0.1", "--held-out: expected at least one pair on either side, got 0"),
        ("score --reward model:nowhere", "--reward: expected a folder with a config.json on this"),
        ("score --out nowhere/x.jsonl", "--out: expected a file in a folder that exists"),
        ("generate --prompts no.txt", "--prompts: expected a .jsonl or .parquet file, got no.txt"),
        ("nothing", "argument COMMAND: invalid choice: 'nothing'"),
    ],
)
def test_a_wrong_value_is_one_line(folder, scored, tmp_path, capsys, words, said):
    command, *given = words.split()
    needed = ["--out", tmp_path / "new"] if command in ("train", "reward") else []
    if command != "nothing" and "--model" not in given:
        needed += ["--model", folder]
    if command in ("train", "score", "reward") and "--data" not in given:
        needed += ["--data", scored]
    assert run(command, *needed, *given) == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if x and not x.startswith("{'")]
    assert len(lines) == 1
    assert said in lines[0]
    assert lines[0].startswith("python -m bandit.llm")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_weights_that_are_not_safetensors_are_refused(folder, tmp_path, capsys):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    assert run("generate", "--model", tmp_path, "--prompt", "the") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "safetensors" in line


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.safetensors", b"xx", "header too small"),
        ("config.json", b"{", "not a valid JSON file"),
        ("config.json", b'{"model_type": "llama", "hidden_size": "x"}', "hidden_size"),
        ("tokenizer.json", b"{", "got: "),
    ],
)
def test_broken_folders_are_one_line(folder, tmp_path, capsys, name, content, said):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / name).write_bytes(content)
    assert run("generate", "--model", broken, "--prompt", "the") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--model: expected intact files in {broken}, got: " in line
    assert said in line


def test_weights_that_are_missing_are_refused(folder, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    tensors = load_file(broken / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    assert run("generate", "--model", broken, "--prompt", "the") == 2
    assert "--model: expected all weights in" in capsys.readouterr().err.splitlines()[-1]


def test_code_beside_a_model_is_never_run(folder, tmp_path, capsys):
    strange = tmp_path / "strange"
    shutil.copytree(folder, strange)
    config = json.loads((strange / "config.json").read_text())
    own = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (strange / "config.json").write_text(
        json.dumps(config | {"model_type": "strange", "auto_map": own})
    )
    (strange / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    assert run("generate", "--model", strange, "--prompt", "the") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "contains custom code" in line
    assert not (tmp_path / "ran").exists()


def test_a_beginning_goes_before_a_prompt_where_the_tokenizer_puts_one(folder, tmp_path, capsys):
    """As ``train`` and ``score`` read the same text."""
    from tokenizers import processors

    begun = tmp_path / "begun"
    shutil.copytree(folder, begun)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.bos_token = "good"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="good $A", special_tokens=[("good", 1)]
    )
    tokenizer.save_pretrained(begun)
    assert run("generate", "--model", begun, "--prompt", "the day") == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == [1, 7, 6]
    assert run("generate", "--model", begun, "--prompt", "good day") == 2
    assert "--prompts: row 0, prompt: expected one beginning" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["score", "train"])
def test_tokens_the_model_does_not_know_are_one_line(folder, tmp_path, capsys, command):
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": [1], "completions": [[2], [99]], "rewards": [0, 1]}')
    more = ["--beta", "1", "--out", tmp_path / "new"] if command == "train" else []
    assert run(command, "--model", folder, "--data", path, *more) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--data: expected tokens from 0 to 7, got 99 in row 0" in line


def test_a_bad_row_is_named_or_dropped(folder, tmp_path, capsys):
    path = tmp_path / "pairs.jsonl"
    good = {"prompt": "the", "chosen": "good", "rejected": "bad", "more": 1}
    path.write_text("\n".join(json.dumps(r) for r in (good, good | {"chosen": ""}, good)))
    options = ["--model", folder, "--data", path, "--loss", "dpo", "--beta", "1", "--steps", "1"]
    assert run("train", *options, "--out", tmp_path / "a") == 2
    assert "record 1, completions" in capsys.readouterr().err
    assert run("train", *options, "--on-bad", "drop", "--out", tmp_path / "b") == 0
    assert "warning: rows dropped" in capsys.readouterr().err


def test_hyper_parameters_reach_the_loss():
    loss = actions.bound_loss("importance_sampling", 0.5, ["clip=2.5", "baseline=leave_one_out"])
    assert loss.func is losses.importance_sampling
    assert loss.keywords == {"beta": 0.5, "clip": 2.5, "baseline": "leave_one_out"}
    loss = actions.bound_loss("importance_sampling", 0.5, [], baseline=1.0)
    assert loss.keywords == {"beta": 0.5, "baseline": "given"}


def test_it_runs_as_a_module():
    code = (
        "import sys, runpy; sys.argv = ['x', 'train', '--help']\n"
        "try: runpy.run_module('bandit.llm', run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code == 0, stop.code"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    for option in ("--data", "--model", "--loss", "--beta", "--lora", "--resume"):
        assert option in done.stdout
