"""A training step of ours against TRL's DPO step, and how ours grows.

Same random Llama of two layers (d = 256), same 8 pairs of 16 prompt and 48 completion tokens,
ln π_ref computed before, one thread. A step is the trainer's ``training_step``: forward, loss, its
metrics, backward. The two take turns; what counts is the median of the ratios. Memory is the peak
of a process of its own, less what it held before the first step. TRL is only needed here (extra
``bench``).
"""

from __future__ import annotations

import functools
import gc
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bandit import losses
from bandit.llm import Completions, sequence_log_prob

transformers = pytest.importorskip("transformers")
pytest.importorskip("trl")

PROMPT, LENGTH, PAIRS, BETA = 16, 48, 8, 0.1


def model_of(vocabulary: int):
    """The model of the comparison."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    return transformers.LlamaForCausalLM(config)


def rows_of(
    vocabulary: int,
    pairs: int = PAIRS,
    group: int = 2,
    length: int = LENGTH,
    *,
    unequal: bool = False,
):
    """Random completions with ln π_ref and preferences; the first of a pair is the chosen one.

    ``unequal``: of 1 to ``length`` tokens instead of all of them.
    """
    rng = np.random.default_rng(0)
    prompts = rng.integers(3, vocabulary, size=(pairs, PROMPT)).tolist()
    completions = rng.integers(3, vocabulary, size=(pairs, group, length)).tolist()
    if unequal:
        completions = [[y[: rng.integers(1, length + 1)] for y in ys] for ys in completions]
    given = (
        {"preferences": [1.0] * pairs}
        if group == 2
        else {"rewards": rng.normal(size=(pairs, group))}
    )
    data = Completions.from_lists(prompts, completions, **given)
    return data.with_reference(rng.normal(-length * np.log(vocabulary), 1, size=(pairs, group)))


def our_trainer(model, data, loss, folder, **options):
    from bandit.llm import SequenceTrainer

    args = transformers.TrainingArguments(
        str(folder), report_to="none", use_cpu=True, max_steps=1, dataloader_pin_memory=False
    )
    return SequenceTrainer(model, args, data, loss, **options)


def our_step(vocabulary: int, folder, loss=None, reduction="sum", **shape):
    """A function that makes one step, and the model it moves."""
    loss = functools.partial(losses.dpo, beta=BETA) if loss is None else loss
    data = rows_of(vocabulary, **shape)
    trainer = our_trainer(model_of(vocabulary), data, loss, folder, reduction=reduction)
    batch = data.collate(data.rows)
    groups = torch.tensor(float(len(data)))

    def step():
        trainer.model.zero_grad()
        return trainer.training_step(trainer.model, dict(batch), groups)

    return step, trainer.model


def trl_step(vocabulary: int, folder, loss_type: str = "sigmoid", **shape):
    """The same of TRL's trainer."""
    import datasets
    from tokenizers import Tokenizer, models, pre_tokenizers
    from trl import DPOConfig, DPOTrainer

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="w2", pad_token="w2"
    )
    text = {"prompt": ["w3"] * 2, "chosen": [" w4"] * 2, "rejected": [" w5"] * 2}
    config = DPOConfig(
        str(folder),
        beta=BETA,
        loss_type=loss_type,
        precompute_ref_log_probs=True,
        gradient_checkpointing=False,
        bf16=False,
        report_to="none",
        use_cpu=True,
        max_steps=1,
        dataloader_pin_memory=False,
    )
    trainer = DPOTrainer(
        model_of(vocabulary),
        args=config,
        train_dataset=datasets.Dataset.from_dict(text),
        processing_class=tokenizer,
    )
    # What Trainer's own loop sets.
    trainer.current_gradient_accumulation_steps = 1
    data = rows_of(vocabulary, **shape)
    batch = data.collate(data.rows)
    # TRL wants all chosen, then all rejected.
    order = torch.arange(2 * len(data)).reshape(-1, 2).T.ravel()
    reference = torch.tensor(np.array([row.ref_log_prob for row in data]), dtype=torch.float32)
    inputs = {k: batch[k][order] for k in ("input_ids", "attention_mask", "completion_mask")}
    inputs |= {"ref_chosen_logps": reference[:, 0], "ref_rejected_logps": reference[:, 1]}

    def step():
        trainer.model.zero_grad()
        return trainer.training_step(trainer.model, dict(inputs))

    return step, trainer.model


STEPS = {"ours": our_step, "trl": trl_step}


def peak(name: str, vocabulary: int, folder: str) -> None:
    """Print the memory, in MiB, that steps need on top of what was there before (Linux)."""

    def memory(kind: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024

    torch.set_num_threads(1)
    step, _ = STEPS[name](vocabulary, folder)
    gc.collect()
    # Forgets the highest mark so far, which loading has left.
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    for _ in range(3):
        step()
    print(json.dumps(memory("VmHWM") - before))


def in_turns(first, second, rounds: int) -> tuple[float, float, float]:
    """Median seconds of each, and the median ratio of the first to the second."""
    times = []
    for _ in range(rounds + 1):
        pair = []
        for step in (first, second):
            began = time.perf_counter()
            step()
            pair.append(time.perf_counter() - began)
        times.append(pair)
    seconds = np.array(times[1:])
    return *np.median(seconds, axis=0), float(np.median(seconds[:, 0] / seconds[:, 1]))


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("vocabulary", [512, 49_152])
def test_step_against_trl(vocabulary, tmp_path, capsys):
    ours, our_model = our_step(vocabulary, tmp_path)
    theirs, their_model = trl_step(vocabulary, tmp_path)
    our_loss, their_loss = ours(), theirs()
    torch.testing.assert_close(our_loss, their_loss, rtol=1e-5, atol=1e-6)
    for p, q in zip(our_model.parameters(), their_model.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-6)
    a, b, ratio = in_turns(ours, theirs, 20 if vocabulary < 10_000 else 6)
    with capsys.disabled():
        print(f"\nvocabulary {vocabulary}: ours {a:.3f} s, TRL {b:.3f} s, ratio {ratio:.2f}")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("loss", "loss_type", "reduction"),
    [(losses.dpo, "sigmoid", "sum"), (losses.ipo, "ipo", "mean")],
)
def test_losses_are_those_of_trl(loss, loss_type, reduction, tmp_path):
    """On completions of unequal lengths; TRL's IPO divides each log-ratio by its tokens."""
    ours, our_model = our_step(
        512, tmp_path, functools.partial(loss, beta=BETA), reduction, unequal=True
    )
    theirs, their_model = trl_step(512, tmp_path, loss_type, unequal=True)
    torch.testing.assert_close(ours(), theirs(), rtol=1e-5, atol=1e-6)
    for p, q in zip(our_model.parameters(), their_model.parameters(), strict=True):
        scale = float(q.grad.abs().max())
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.parametrize("vocabulary", [512, 49_152])
def test_memory_against_trl(vocabulary, tmp_path, capsys):
    found = {}
    for name in STEPS:
        code = (
            f"import sys; sys.path.insert(0, {str(__file__.rsplit('/', 1)[0])!r}); "
            f"from test_llm_speed import peak; peak({name!r}, {vocabulary}, {str(tmp_path)!r})"
        )
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    with capsys.disabled():
        ratio = found["ours"] / found["trl"]
        print(
            f"\nvocabulary {vocabulary}: ours {found['ours']:.0f} MiB, TRL {found['trl']:.0f} MiB, "
            f"ratio {ratio:.2f}"
        )


@pytest.mark.filterwarnings("ignore")
def test_growth(tmp_path, capsys):
    """Completion tokens, and completions of a group: both should cost what they add."""
    loss = functools.partial(losses.copg, beta=BETA)
    base, _ = our_step(512, tmp_path)
    lines = []
    for shape in ({"length": 96}, {"length": 192}, {"group": 4}, {"group": 8}):
        step, _ = our_step(512, tmp_path, loss if "group" in shape else None, **shape)
        lines.append((shape, in_turns(step, base, 8)[2]))
    with capsys.disabled():
        print("\ngrowth over 8 pairs of 16 + 48 tokens: ", end="")
        print("; ".join(f"{shape} {ratio:.2f}" for shape, ratio in lines))


def test_score_agrees_with_the_model(tmp_path):
    data = rows_of(512)
    batch = data.collate(data.rows)
    masks = [batch[k] for k in ("input_ids", "attention_mask", "completion_mask")]
    model = model_of(512).eval()
    with torch.no_grad():
        logits = model(masks[0], attention_mask=masks[1]).logits[:, :-1].log_softmax(dim=-1)
        chosen = logits.gather(2, masks[0][:, 1:, None])[..., 0] * masks[2][:, 1:]
        torch.testing.assert_close(
            sequence_log_prob(model, *masks), chosen.sum(1), rtol=1e-5, atol=1e-4
        )
