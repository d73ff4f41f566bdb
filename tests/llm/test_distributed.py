"""Two processes on one machine do what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import functools, json, sys
import numpy as np, torch, transformers
from bandit import losses
from bandit.llm import Completions, SequenceTrainer

torch.set_num_threads(1)
out, batch, pieces = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(4)
sizes = rng.integers(2, 6, size=16)
data = Completions.from_lists(
    [rng.integers(3, 23, size=rng.integers(1, 5)).tolist() for _ in sizes],
    [[rng.integers(3, 23, size=rng.integers(1, 7)).tolist() for _ in range(g)] for g in sizes],
    [rng.normal(size=g) for g in sizes],
)
torch.manual_seed(0)
config = transformers.GPT2Config(
    vocab_size=23, n_embd=32, n_layer=2, n_head=2, initializer_range=0.2,
    bos_token_id=1, eos_token_id=2,
)
model = transformers.GPT2LMHeadModel(config)
args = transformers.TrainingArguments(
    out, use_cpu=True, disable_tqdm=True, report_to="none", save_strategy="no", max_steps=6,
    logging_steps=2, optim="sgd", learning_rate=0.02, per_device_train_batch_size=batch,
    gradient_accumulation_steps=pieces, eval_strategy="steps", eval_steps=6,
    per_device_eval_batch_size=2,
)
trainer = SequenceTrainer(
    model, args, data, functools.partial(losses.copg, beta=0.3), eval_dataset=data[:8],
    reference_cache=out + "/references",
)
trainer.train()
if trainer.is_world_process_zero():
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    np.savez(out + "/result.npz", weights=weights.numpy())
    with open(out + "/history.json", "w") as file:
        json.dump(trainer.state.log_history, file)
"""


def launched(folder, processes, batch, pieces):
    folder.mkdir()
    script = folder / "train.py"
    script.write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run(
        [
            sys.executable,
            *(launcher if processes > 1 else []),
            script,
            folder,
            str(batch),
            str(pieces),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(folder / "result.npz") as archive:
        return archive["weights"], json.loads((folder / "history.json").read_text())


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    """Eight rows a step: at once, or two processes with two micro-batches of two each."""
    one, history = launched(tmp_path / "one", 1, 8, 1)
    two, other = launched(tmp_path / "two", 2, 2, 2)
    assert np.abs(one - two).max() < 1e-6
    assert len(history) == len(other) == 5
    names = ("loss", "value", "reward", "log_ratio", "kl", "margin", "grad_norm")
    for first, second in zip(history, other, strict=True):
        for name in (*names, *(f"eval_{name}" for name in names)):
            assert (name in first) == (name in second)
            if name in first:
                assert first[name] == pytest.approx(second[name], rel=1e-3, abs=1e-4), name
    assert any("eval_value" in record for record in history)


SHARDED = """
import sys, torch, transformers
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from bandit.llm import sequence_log_prob

dist.init_process_group("gloo")
config = transformers.LlamaConfig(
    vocab_size=23, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=2, initializer_range=0.3, bos_token_id=1, eos_token_id=2,
)
torch.manual_seed(0)
model = transformers.LlamaForCausalLM(config).eval()
ids = torch.arange(24).reshape(3, 8) % 23
attention, completion = torch.ones_like(ids), torch.ones_like(ids)
completion[:, :3] = 0
plain = sequence_log_prob(model, ids, attention, completion)
plain.sum().backward()
slope = model.lm_head.weight.grad.clone()
model.zero_grad()
if sys.argv[1] == "1":
    sharded = FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=True)
else:
    mesh = init_device_mesh("cpu", (2,))
    sharded = fully_shard(model, mesh=mesh, reshard_after_forward=True)
found = sequence_log_prob(sharded, ids, attention, completion, chunk_tokens=4)
torch.testing.assert_close(found, plain)
found.sum().backward()
if sys.argv[1] == "2":
    torch.testing.assert_close(sharded.lm_head.weight.grad.full_tensor(), slope)
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1", "2"])
def test_weights_spread_over_two_processes(tmp_path, version):
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, script, version],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
