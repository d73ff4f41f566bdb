"""sequence_log_prob against each completion scored alone, without padding, from plain logits."""

from __future__ import annotations

import contextlib
import copy
import subprocess
import sys

import numpy as np
import pytest
import torch

from bandit import losses
from bandit.llm import TinyTransformer, sequence_log_prob
from bandit.losses import Group

V, EOS = 23, 2

# Prompts and completions of all sorts of lengths; several end in EOS, one is nothing but EOS.
ROWS = [
    ([5, 9, 4], [7, 3, 11, EOS]),
    ([8], [EOS]),
    ([6, 6, 12, 20, 1, 3], [9, 9]),
    ([4, 10], [13, 5, EOS]),
]


def alone(model, prompt, completion):
    """The sum over tokens, each from the model run on exactly what stands before it."""
    total = torch.zeros((), dtype=torch.float64)
    for t, token in enumerate(completion):
        before = torch.tensor([prompt + completion[:t]])
        logits = model(input_ids=before).logits[0, -1].double()
        total = total + logits[token] - logits.exp().sum().log()
    return total


def padded(rows, *, left=0, right=0, pad=0, to_the_right=True):
    """ids, attention mask and completion mask, aligned on one side, with extra padding."""
    longest = max(len(x) + len(y) for x, y in rows)
    ids, attention, completion = [], [], []
    for x, y in rows:
        fill = longest - len(x) - len(y)
        before, after = (left, right + fill) if to_the_right else (left + fill, right)
        ids.append([pad] * before + x + y + [pad] * after)
        attention.append([0] * before + [1] * (len(x) + len(y)) + [0] * after)
        completion.append([0] * (before + len(x)) + [1] * len(y) + [0] * after)
    return torch.tensor(ids), torch.tensor(attention), torch.tensor(completion)


def gradients(model, output):
    """d output / d parameters as one vector, for a fixed mix of rows."""
    model.zero_grad()
    (output * torch.linspace(-1, 2, len(output), dtype=output.dtype)).sum().backward()
    return torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])


def naive(model, ids, attention, completion):
    """The log-softmax of all positions at once."""
    positions = (attention.cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=attention, position_ids=positions).logits
    log_probs = logits.log_softmax(-1)[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    return torch.where(completion[:, 1:].bool(), log_probs, 0.0).sum(1)


def test_each_completion_as_if_alone(model):
    found = sequence_log_prob(model, *padded(ROWS))
    expected = torch.stack([alone(model, x, y) for x, y in ROWS])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        gradients(model, found), gradients(model, expected), rtol=1e-4, atol=1e-4
    )


def test_one_token_completions_sum_to_one(model):
    rows = [([5, 9, 4], [token]) for token in range(V)]
    total = sequence_log_prob(model, *padded(rows)).exp().sum()
    assert float(total.detach()) == pytest.approx(1, abs=1e-5)


# ------------------------------------------------------------------------- the end of a sequence


def test_the_end_counts_where_padding_is_the_same_token(model):
    """Masks come from lengths: with pad = EOS the completion's own EOS is still learned."""
    as_zero = sequence_log_prob(model, *padded(ROWS, pad=0))
    as_eos = sequence_log_prob(model, *padded(ROWS, pad=EOS))
    torch.testing.assert_close(as_eos, as_zero, rtol=0, atol=1e-5)
    without = [(x, y[:-1]) if len(y) > 1 and y[-1] == EOS else (x, y) for x, y in ROWS]
    stop = (as_eos - sequence_log_prob(model, *padded(without, pad=EOS))).detach()
    for i, (x, y) in enumerate(ROWS):
        if y[-1] == EOS and len(y) > 1:
            expected = alone(model, x, y) - alone(model, x, y[:-1])
            assert float(stop[i]) == pytest.approx(float(expected.detach()), abs=1e-4)
            assert float(stop[i]) < -1e-3


# ------------------------------------------------------------------------------------- padding


@pytest.mark.parametrize("to_the_right", [True, False])
@pytest.mark.parametrize(("left", "right"), [(0, 0), (3, 0), (0, 4), (5, 2)])
def test_padding_side_and_amount_do_not_matter(kind, make_model, to_the_right, left, right):
    model = make_model(kind)
    plain = sequence_log_prob(model, *padded(ROWS))
    moved = sequence_log_prob(
        model, *padded(ROWS, left=left, right=right, pad=7, to_the_right=to_the_right)
    )
    torch.testing.assert_close(moved, plain, rtol=0, atol=2e-5)
    torch.testing.assert_close(
        gradients(model, moved), gradients(model, plain), rtol=1e-4, atol=1e-4
    )


def test_batch_mates_do_not_matter(model):
    together = sequence_log_prob(model, *padded(ROWS)).detach()
    for i, row in enumerate(ROWS):
        single = sequence_log_prob(model, *padded([row])).detach()
        torch.testing.assert_close(single[0], together[i], rtol=0, atol=2e-5)


# ------------------------------------------------------------------------------------- dropout


@pytest.mark.parametrize(
    ("kind", "config"), [("gpt2", {}), ("llama", {"attention_dropout": 0.3}), ("opt", {})]
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_dropout_can_be_switched_off_for_good(make_model, kind, config, checkpointing):
    from bandit.llm.trainer import switch_dropout_off

    reference, policy = make_model(kind, **config), make_model(kind, **config)
    if checkpointing:
        policy.activation_checkpointing_enable()
    batch = padded(ROWS)
    before = sequence_log_prob(reference, *batch)
    policy.train()
    dropped = sequence_log_prob(policy, *batch)
    assert (dropped - before).abs().max() > 1e-3  # the trap
    policy.train()
    switch_dropout_off(policy)
    calls = []
    blocks = policy.get_decoder().h if kind == "gpt2" else policy.get_decoder().layers
    attention = blocks[0].attn if kind == "gpt2" else blocks[0].self_attn
    attention.register_forward_hook(lambda *args: calls.append(1))
    after = sequence_log_prob(policy, *batch)
    assert torch.equal(after, before)
    # Activations may be recomputed only now, in the backward pass.
    torch.testing.assert_close(
        gradients(policy, after), gradients(reference, before), rtol=1e-6, atol=1e-6
    )
    assert len(calls) == (2 if checkpointing else 1)


# ----------------------------------------------------------------------------------- precision


def test_half_precision_logits_are_summed_in_single(kind, make_model):
    model = make_model(kind).to(torch.bfloat16)
    rows = [([4, 3], [(7 * t) % V for t in range(18)])] * 2
    batch = padded(rows)
    found = sequence_log_prob(model, *batch)
    assert found.dtype == torch.float32
    with torch.no_grad():
        logits = model(input_ids=batch[0]).logits
    assert logits.dtype == torch.bfloat16
    exact = logits.double().log_softmax(-1)[:, :-1].gather(2, batch[0][:, 1:, None])[..., 0]
    exact = (exact * batch[2][:, 1:]).sum(1)
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-4)
    coarse = logits.log_softmax(-1)[:, :-1].gather(2, batch[0][:, 1:, None])[..., 0]
    coarse = (coarse * batch[2][:, 1:]).sum(1)
    assert (coarse.double() - exact).abs().max() > 0.01  # what half precision would give
    found.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_double_precision_stays(make_model):
    assert sequence_log_prob(make_model("llama").double(), *padded(ROWS)).dtype == torch.float64


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_under_autocast_the_output_layer_runs_in_it_too(make_model, kind):
    model, batch, kinds = make_model(kind), padded(ROWS), set()
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda module, args, output: kinds.add(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        found = sequence_log_prob(model, *batch, chunk_tokens=2)
        expected = naive(model, *batch)
    assert (found.dtype, kinds) == (torch.float32, {torch.bfloat16})
    # Logits near 10 have steps of 0.06 in half precision.
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=0.2)
    assert (found - sequence_log_prob(model, *batch)).abs().max() > 1e-4


# -------------------------------------------------------------------------------------- chunks


@pytest.mark.parametrize("chunk_tokens", [None, 1, 3, 1000])
@pytest.mark.parametrize("double", [True, False])
def test_chunks_change_neither_values_nor_gradients(kind, make_model, chunk_tokens, double):
    model = make_model(kind)
    model = model.double() if double else model
    tight = {"rtol": 1e-12, "atol": 1e-12} if double else {"rtol": 1e-6, "atol": 1e-5}
    batch = padded(ROWS, left=2)
    expected, found = (
        naive(model, *batch),
        sequence_log_prob(model, *batch, chunk_tokens=chunk_tokens),
    )
    torch.testing.assert_close(found, expected, **tight)
    size = gradients(model, expected).abs().max()
    difference = (gradients(model, found) - gradients(model, naive(model, *batch))).abs().max()
    assert difference <= (1e-12 if double else 1e-6) * size


PEAK = """
import resource, sys, torch
from bandit.llm import TinyTransformer, sequence_log_prob
torch.set_num_threads(1)
model = TinyTransformer(49152, 100, prompt_length=28, width=16, layers=1, heads=1)
ids = torch.arange(12 * 128).reshape(12, 128) % 49152
attention, completion = torch.ones_like(ids), torch.ones_like(ids)
completion[:, :28] = 0
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for parameter in model.parameters():
    parameter.grad = torch.zeros_like(parameter)
def ours():
    sequence_log_prob(model, ids, attention, completion).sum().backward()
def naive():
    log_probs = model(ids).logits.log_softmax(-1)[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    (log_probs * completion[:, 1:]).sum().backward()
sequence_log_prob(model, ids[:1, :30], attention[:1, :30], completion[:1, :30]).sum().backward()
start = peak(); ours(); middle = peak(); naive(); end = peak()
print(middle - start, end - start)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of resident memory")
def test_peak_memory_at_a_large_vocabulary_is_at_most_half():
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    ours, plain = map(int, done.stdout.split())
    assert ours <= plain / 2, f"{ours} KiB, naive {plain} KiB"


def test_all_logits_are_never_held(make_model):
    """Nothing as large as the logits of all completion tokens is saved for the backward pass."""
    model, batch, saved = make_model("tiny"), padded(ROWS), []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t)
    with hooks:
        sequence_log_prob(model, *batch, chunk_tokens=2)
    weights = {p.data_ptr() for p in model.parameters()}
    logits = [t for t in saved if t.shape[-1:] == (V,) and t.data_ptr() not in weights]
    assert max([t.numel() for t in logits], default=0) <= 2 * V


# ----------------------------------------------------------------------------------- reduction


def test_sum_is_the_default_and_mean_divides_by_completion_tokens(model):
    batch = padded(ROWS)
    total, mean = (sequence_log_prob(model, *batch, reduction=r) for r in ("sum", "mean"))
    assert torch.equal(sequence_log_prob(model, *batch), total)
    torch.testing.assert_close(mean * torch.tensor([len(y) for _, y in ROWS]), total)


def test_mean_has_another_optimum(make_model):
    """Where the policy is π* for sums, CoPG has nothing to correct; with means it does."""
    policy, reference = make_model("llama", seed=1).double(), make_model("llama").double()
    batch, beta = padded([([5, 9], y) for _, y in ROWS]), 0.3
    weights = {}
    with torch.no_grad():
        sums = [sequence_log_prob(m, *batch) for m in (policy, reference)]
        reward = beta * (sums[0] - sums[1]) + 1.5  # policy = π_ref exp(r/β) / Z
        for reduction in ("sum", "mean"):
            ln = [sequence_log_prob(m, *batch, reduction=reduction) for m in (policy, reference)]
            weights[reduction] = losses.copg(Group(*ln, reward=reward), beta=beta).weight
    assert weights["sum"].abs().max() < 1e-12
    assert weights["mean"].abs().max() > 0.1


# ----------------------------------------------------- heads, adapters, wrappers


@pytest.mark.parametrize("kind", ["gemma2", "cohere", "granite"])
@pytest.mark.parametrize("chunk_tokens", [None, 2])
def test_logits_that_are_capped_or_scaled(make_model, kind, chunk_tokens):
    model = make_model(kind)
    for _ in range(2):  # found out in the first call, known in the second
        found = sequence_log_prob(model, *padded(ROWS, left=1), chunk_tokens=chunk_tokens)
        expected = torch.stack([alone(model, x, y) for x, y in ROWS])
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        gradients(model, found), gradients(model, expected), rtol=1e-4, atol=1e-4
    )


def test_a_cap_is_noticed_although_all_logits_were_zero_at_first(make_model):
    model = make_model("gemma2", tie_word_embeddings=False)
    weights = model.lm_head.weight.detach().clone()
    model.lm_head.weight.data.zero_()
    uniform = sequence_log_prob(model, *padded(ROWS))
    expected = torch.tensor([-len(y) * np.log(V) for _, y in ROWS])
    torch.testing.assert_close(uniform.double(), expected, rtol=1e-6, atol=1e-6)
    model.lm_head.weight.data = 5 * weights
    expected = torch.stack([alone(model, x, y) for x, y in ROWS])
    torch.testing.assert_close(
        sequence_log_prob(model, *padded(ROWS)).double(), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_adapters(make_model, kind):
    import peft

    base = make_model(kind)
    plain = sequence_log_prob(base, *padded(ROWS)).detach()
    targets = {"gpt2": ["c_attn"], "llama": ["q_proj", "v_proj", "lm_head"]}[kind]
    config = peft.LoraConfig(
        r=2,
        target_modules=targets,
        fan_in_fan_out=kind == "gpt2",
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(copy.deepcopy(base), config).eval()
    found = sequence_log_prob(model, *padded(ROWS, left=2))
    merged = copy.deepcopy(model).merge_and_unload()
    expected = torch.stack([alone(merged, x, y) for x, y in ROWS])
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    assert (found - plain).abs().max() > 0.1
    with model.disable_adapter():
        torch.testing.assert_close(sequence_log_prob(model, *padded(ROWS)), plain)
    found.sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == ("lora_" in name), name


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.filterwarnings("ignore:Position ids are not supported")
def test_virtual_tokens_are_refused(make_model):
    import peft

    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = peft.get_peft_model(make_model("gpt2"), config).eval()
    with pytest.raises(ValueError, match=r"^model: .* got \(4, 11\) .*virtual tokens"):
        sequence_log_prob(model, *padded(ROWS))


@pytest.mark.usefixtures("one_process")
def test_wrapped_for_data_parallel_training(model):
    plain = sequence_log_prob(model, *padded(ROWS), chunk_tokens=3)
    expected = gradients(model, plain)
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    found = sequence_log_prob(wrapped, *padded(ROWS), chunk_tokens=3)
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(gradients(model, found), expected)


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_sharded_weights(make_model, kind):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = make_model(kind)
    plain = sequence_log_prob(model, *padded(ROWS)).detach()
    mesh = init_device_mesh("cpu", (1,))
    for block in model.get_decoder().h if kind == "gpt2" else model.get_decoder().layers:
        fully_shard(block, mesh=mesh)
    if kind == "llama":  # an output layer by itself has its weights in forward only
        fully_shard(model.lm_head, mesh=mesh)
    fully_shard(model, mesh=mesh)
    found = sequence_log_prob(model, *padded(ROWS), chunk_tokens=3)
    torch.testing.assert_close(found, plain)
    found.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.usefixtures("one_process")
@pytest.mark.filterwarnings("ignore")
def test_sharded_weights_of_the_first_kind(make_model):
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = make_model("llama")
    plain = sequence_log_prob(model, *padded(ROWS)).detach()
    sharded = FullyShardedDataParallel(model, device_id=torch.device("cpu"))
    torch.testing.assert_close(sequence_log_prob(sharded, *padded(ROWS)), plain)


# -------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, a, c: (i, a, c * 0), "an empty completion in row 0"),
        (lambda i, a, c: (i, a, a), "nothing before it in row 0"),
        (lambda i, a, c: (i, a, c * 0 + 1), "outside the attention mask in row 0"),
        (lambda i, a, c: (i, a[:, 1:], c), r"attention_mask: expected shape \(4, 8\)"),
        (lambda i, a, c: (i, a, c[:2]), r"completion_mask: expected shape \(4, 8\)"),
        (lambda i, a, c: (i[0], a[0], c[0]), r"input_ids: expected shape \(B, T\)"),
    ],
)
def test_masks_that_cannot_be(make_model, change, message):
    with pytest.raises(ValueError, match=message):
        sequence_log_prob(make_model("tiny"), *change(*padded(ROWS)))


def test_a_completion_behind_padding_alone_is_refused(make_model):
    ids = torch.tensor([[0, 0, 5, 6]])
    attention, completion = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 0, 1, 1]])
    with pytest.raises(ValueError, match="nothing before it"):
        sequence_log_prob(make_model("tiny"), ids, attention, completion)


def test_unknown_reduction(make_model):
    with pytest.raises(ValueError, match=r"^reduction: expected one of sum, mean; got 'max'$"):
        sequence_log_prob(make_model("tiny"), *padded(ROWS), reduction="max")


def test_the_model_is_left_as_it_was(make_model):
    model, batch = make_model("llama"), padded(ROWS)
    for broken in (False, True):
        ids = batch[0] + V * broken  # tokens outside the vocabulary
        with contextlib.suppress(IndexError):
            sequence_log_prob(model, ids, *batch[1:])
        assert not model.get_decoder()._forward_hooks


def test_masks_of_any_kind_of_number(make_model):
    model, (ids, attention, completion) = make_model("llama"), padded(ROWS, left=1)
    expected = sequence_log_prob(model, ids, attention, completion)
    for kind in (torch.bool, torch.float32, torch.int32):
        found = sequence_log_prob(model, ids, attention.to(kind), completion.to(kind))
        assert torch.equal(found, expected)


def test_the_vocabulary_of_a_model_of_several_modalities(make_model):
    class Configuration:
        def get_text_config(self):
            return self.text

        text = make_model("tiny").config

    model = TinyTransformer(V, 20, prompt_length=20)
    plain = sequence_log_prob(model, *padded(ROWS))
    model.config = Configuration()
    assert torch.equal(sequence_log_prob(model, *padded(ROWS)), plain)


@pytest.mark.parametrize("chunk_tokens", [0, -1])
def test_chunks_of_no_tokens(make_model, chunk_tokens):
    with pytest.raises(ValueError, match=r"^chunk_tokens: expected a positive integer, got"):
        sequence_log_prob(make_model("tiny"), *padded(ROWS), chunk_tokens=chunk_tokens)
