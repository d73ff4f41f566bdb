"""A process that is killed, and another that goes on where it stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np

SCRIPT = """
import functools, os, signal, sys
import numpy as np, torch, transformers
from bandit import losses
from bandit.llm import Completions, SequenceTrainer

torch.set_num_threads(1)
out, mode = sys.argv[1:]
rng = np.random.default_rng(4)
data = Completions.from_lists(
    [rng.integers(3, 23, size=rng.integers(1, 5)).tolist() for _ in range(10)],
    [[rng.integers(3, 23, size=rng.integers(1, 7)).tolist() for _ in range(3)] for _ in range(10)],
    [rng.normal(size=3) for _ in range(10)],
)
torch.manual_seed(0)
config = transformers.GPT2Config(
    vocab_size=23, n_embd=32, n_layer=2, n_head=2, initializer_range=0.2,
    bos_token_id=1, eos_token_id=2,
)
model = transformers.GPT2LMHeadModel(config)
args = transformers.TrainingArguments(
    out, use_cpu=True, disable_tqdm=True, report_to="none", save_strategy="steps", save_steps=2,
    max_steps=7, learning_rate=0.01, per_device_train_batch_size=2, gradient_accumulation_steps=2,
)


class Trainer(SequenceTrainer):
    def _save_optimizer_and_scheduler(self, folder):
        # The weights of the second checkpoint are written, what belongs to them is not.
        if mode == "killed" and self.state.global_step == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._save_optimizer_and_scheduler(folder)


trainer = Trainer(model, args, data, functools.partial(losses.copg, beta=0.3))
trainer.train(resume_from_checkpoint=mode == "resumed")
assert trainer.state.global_step == 7
np.save(out + "/weights.npy", torch.cat([p.detach().flatten() for p in model.parameters()]).numpy())
"""


def launched(folder, mode):
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, folder, mode],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    expected = -signal.SIGKILL if mode == "killed" else 0
    assert done.returncode == expected, done.stderr[-3000:]


def test_a_killed_process_is_resumed_by_another_to_the_same_weights(tmp_path):
    """Killed while it writes its second checkpoint: the other one goes on from the first."""
    launched(tmp_path / "through", "through")
    launched(tmp_path / "stopped", "killed")
    whole, half = (tmp_path / "stopped" / f"checkpoint-{step}" for step in (2, 4))
    assert (whole / "trainer_state.json").exists()
    assert (half / "model.safetensors").exists()
    assert not (half / "trainer_state.json").exists()
    assert not (tmp_path / "stopped" / "weights.npy").exists()
    launched(tmp_path / "stopped", "resumed")
    expected, found = (np.load(tmp_path / name / "weights.npy") for name in ("through", "stopped"))
    np.testing.assert_array_equal(found, expected)
