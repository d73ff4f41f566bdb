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

import numpy as np
import pytest
import torch
from timing import alone, forget_peak, memory

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


def completions_of(
    vocabulary: int,
    pairs: int = PAIRS,
    group: int = 2,
    length: int = LENGTH,
    *,
    unequal: bool = False,
    rewarded: bool = False,
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
        if not rewarded
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


def our_step(vocabulary: int, folder, loss=None, reduction="sum", *, rewarded=False, **shape):
    """A function that makes one step, and the model it moves."""
    loss = functools.partial(losses.dpo, beta=BETA) if loss is None else loss
    data = completions_of(vocabulary, rewarded=rewarded, **shape)
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
    data = completions_of(vocabulary, **shape)
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


def group_step(vocabulary: int, folder, **shape):
    """A step on groups with rewards."""
    loss = functools.partial(losses.copg, beta=BETA)
    return our_step(vocabulary, folder, loss, rewarded=True, **shape)


STEPS = {"ours": our_step, "trl": trl_step, "groups": group_step}


def peak(name: str, vocabulary: int, folder: str, shape: dict[str, int]) -> None:
    """Print the memory, in MiB, that steps need on top of what was there before (Linux)."""
    torch.set_num_threads(1)
    step, _ = STEPS[name](vocabulary, folder, **shape)
    gc.collect()
    forget_peak()  # which loading has left
    before = memory("VmRSS")
    for _ in range(3):
        step()
    print(json.dumps(memory("VmHWM") - before))


def held_by(name: str, vocabulary: int, folder, **shape: int) -> float:
    return alone("test_llm_speed", "peak", name, vocabulary, str(folder), shape)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("vocabulary", [512, 49_152])
def test_step_against_trl(vocabulary, tmp_path, compare, quick):
    if quick and vocabulary > 10_000:
        pytest.skip("takes half a minute")
    ours, our_model = our_step(vocabulary, tmp_path)
    theirs, their_model = trl_step(vocabulary, tmp_path)
    our_loss, their_loss = ours(), theirs()
    torch.testing.assert_close(our_loss, their_loss, rtol=1e-5, atol=1e-6)
    for p, q in zip(our_model.parameters(), their_model.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-6)
    held = {} if quick else {k: held_by(k, vocabulary, tmp_path) for k in ("ours", "trl")}
    title = f"A DPO step of a small Llama, vocabulary {vocabulary:,}: 8 pairs of 16 + 48 tokens"
    names = {"ours": "bandit.llm.SequenceTrainer", "trl": "TRL's DPOTrainer"}
    compare(
        title,
        {names["ours"]: ours, names["trl"]: theirs},
        {names[k]: mebibytes for k, mebibytes in held.items()},
    )


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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("title", "shapes"),
    [
        (
            "A DPO step by completion length: 8 pairs, prompts of 16 tokens",
            {f"{n} tokens": {"length": n} for n in (24, 48, 96, 192, 384)},
        ),
        (
            "A CoPG step by group size: 8 groups of 16 + 48 tokens",
            {f"{n} completions": {"group": n} for n in (2, 4, 8, 16)},
        ),
        (
            "A DPO step by batch: pairs of 16 + 48 tokens",
            {f"{n} pairs": {"pairs": n} for n in (4, 8, 16, 32)},
        ),
    ],
    ids=["length", "group", "batch"],
)
def test_growth(title, shapes, tmp_path, compare, quick):
    """Each should cost what it adds."""
    if quick:
        shapes = dict(list(shapes.items())[:2])
    steps, held = {}, {}
    for name, shape in shapes.items():
        kind = "groups" if "group" in shape else "ours"
        steps[name], _ = STEPS[kind](512, tmp_path, **shape)
        if not quick:
            held[name] = held_by(kind, 512, tmp_path, **shape)
    compare(title, steps, held)


def test_score_agrees_with_the_model(tmp_path):
    data = completions_of(512)
    batch = data.collate(data.rows)
    masks = [batch[k] for k in ("input_ids", "attention_mask", "completion_mask")]
    model = model_of(512).eval()
    with torch.no_grad():
        logits = model(masks[0], attention_mask=masks[1]).logits[:, :-1].log_softmax(dim=-1)
        chosen = logits.gather(2, masks[0][:, 1:, None])[..., 0] * masks[2][:, 1:]
        torch.testing.assert_close(
            sequence_log_prob(model, *masks), chosen.sum(1), rtol=1e-5, atol=1e-4
        )
