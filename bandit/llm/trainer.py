"""Any objective on a language model, inside ``transformers.Trainer``.

Checkpoints, resuming, mixed precision, gradient accumulation and training on several devices are
Trainer's and accelerate's; the loss is one of :mod:`bandit.losses`, applied here.

On one machine with eight devices, and on two such machines (the second with ``--node-rank 1``)::

    torchrun --nproc-per-node 8 train.py
    torchrun --nproc-per-node 8 --nnodes 2 --node-rank 0 \
        --rdzv-backend c10d --rdzv-endpoint first-machine:29500 train.py

With the weights sharded over the devices (FSDP; not over processors, where accelerate would quietly
give every process the whole model, so that it is refused here)::

    accelerate launch --use_fsdp --num_processes 8 --fsdp_version 2 \
        --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP train.py

A model that needs sharding does not fit where ln π_ref is computed before training: compute it once
with :func:`bandit.llm.reference_log_probs` on a model loaded with a ``device_map``, and hand it
over as ``reference``.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import ArrayLike
from torch import Tensor

from bandit import _checks
from bandit.llm.completions import Completions
from bandit.llm.references import check_fit, reference_log_probs
from bandit.llm.scoring import sequence_log_prob
from bandit.llm.surrogate import METRICS, check, groups_of, means, measured
from bandit.losses import Loss

REFERENCE_FILE = "reference.json"
TRAINER_STATE = "trainer_state.json"


class SequenceTrainer(transformers.Trainer):
    """Train a causal language model on completions with any objective.

    Parameters
    ----------
    model : causal language model
        A ``transformers`` or PEFT model, or a :class:`bandit.llm.TinyTransformer`. Its dropout is
        switched off.
    args : transformers.TrainingArguments
        A batch is a number of rows, that is of groups; the gradient is of the mean over the groups
        of the whole batch, however it is split into micro-batches and over processes.
    train_dataset : Completions
    loss : function of :mod:`bandit.losses`
        With its hyper-parameters bound: ``functools.partial(losses.copg, beta=0.1)``.
    eval_dataset : Completions or dict of name → Completions, optional
    reference : model or list of arrays (G,), optional
        π_ref, or ln π_ref of the training rows. Default: ``train_dataset``'s own, or else the model
        as it comes in, a PEFT model with its adapter switched off.
    reference_cache : path, optional
        Where ln π_ref is kept, see :func:`bandit.llm.reference_log_probs`.
    reduction : {"sum", "mean"}
        ``"mean"`` divides every log-probability by the completion's tokens: another optimum.
    baseline : float, optional
        The groups' ``baseline``, for a loss with ``baseline="given"`` bound.
    chunk_tokens : int, optional
        As in :func:`bandit.llm.sequence_log_prob`.
    **trainer_options
        ``transformers.Trainer``'s (``callbacks``, ``optimizers``, ``processing_class`` …).

    Raises
    ------
    ValueError, TypeError
        For data without what the loss reads or that the model cannot read, a loss with free
        hyper-parameters, and arguments that would change nothing (``label_smoothing_factor``) or
        something else than they say (``max_steps=0``, ``fp16`` on a processor).

    Notes
    -----
    Logged, beside Trainer's ``loss`` (the mean value) and ``grad_norm`` (before clipping): the
    means since the last record of what :func:`bandit.llm.surrogate.measured` describes, summed over
    all processes; with prefix ``eval_`` on ``eval_dataset``.

    With several processes accelerate fills up the last, incomplete batch of an epoch with rows from
    its start; ``dataloader_drop_last=True`` leaves it out instead, of training: evaluation is over
    all rows.
    """

    # compute_loss itself divides by the groups of the whole accumulated batch.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Any,
        args: transformers.TrainingArguments,
        train_dataset: Completions,
        loss: Loss,
        *,
        eval_dataset: Completions | dict[str, Completions] | None = None,
        reference: Any = None,
        reference_cache: str | os.PathLike[str] | None = None,
        reduction: str = "sum",
        baseline: float | None = None,
        chunk_tokens: int | None = None,
        **trainer_options: Any,
    ) -> None:
        self.loss = loss
        self.reduction = _checks.one_of("reduction", reduction, ("sum", "mean"))
        self.baseline, self.chunk_tokens = baseline, chunk_tokens
        evaluated: dict[str, Any] = (
            eval_dataset if isinstance(eval_dataset, dict) else {"": eval_dataset}
        )
        for data in (train_dataset, *evaluated.values()):
            if data is not train_dataset and data is None:
                continue
            check(loss, data, baseline=baseline)
            check_fit(model, data)
        check_arguments(args, trainer_options)
        super().__init__(
            model=model,
            args=args,
            data_collator=Completions.collate,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            **trainer_options,
        )
        check_devices(self.args, self.accelerator, len(train_dataset))
        # How Trainer is told the same in versions before it had that attribute.
        self.model_accepts_loss_kwargs = True
        self._training_sums = self._evaluation_sums = self._no_sums()
        given: Any = reference if isinstance(reference, (Sequence, np.ndarray)) else None
        scorer = model if reference is None or given is not None else reference
        first = self.args.main_process_first if reference_cache else contextlib.nullcontext
        with first(), self.accelerator.autocast():
            options: dict[str, Any] = {"cache_dir": reference_cache, "chunk_tokens": chunk_tokens}
            self.train_dataset = referenced(train_dataset, scorer, given, **options)
            evaluated = {
                name: data if data is None else referenced(data, scorer, **options)
                for name, data in evaluated.items()
            }
        self.eval_dataset = evaluated if isinstance(eval_dataset, dict) else evaluated[""]

    # -------------------------------------------------------------------------------- the loss

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The micro-batches of one update, and the number of groups in them, in all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        groups = torch.tensor(float(sum(len(b["group_sizes"]) for b in batches)), device=device)
        return batches, self.accelerator.reduce(groups, "sum")

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The micro-batch's part of the loss; its gradient is Σ weight ∇ ln π over all groups."""
        switch_dropout_off(model)
        surrogate, sums = self._score(model, inputs)
        self._training_sums = self._training_sums + sums
        value = sums[METRICS.index("value"), 0]
        # What is reported is the value, what is differentiated the surrogate.
        loss = surrogate + (value - surrogate).detach()
        if num_items_in_batch is None:
            loss = loss / len(inputs["group_sizes"])
        else:  # gradients are averaged over processes, so each one's part counts that often
            loss = loss / num_items_in_batch * self.accelerator.num_processes
        return (loss, {}) if return_outputs else loss

    def _score(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Σ weight · ln π of a micro-batch, and the sums and counts of what is measured."""
        with self.accelerator.autocast():
            log_prob = sequence_log_prob(
                model,
                *(inputs[k] for k in ("input_ids", "attention_mask", "completion_mask")),
                chunk_tokens=self.chunk_tokens,
            )
        surrogate, sums = torch.zeros((), device=log_prob.device), self._no_sums()
        for group in groups_of(inputs, log_prob, reduction=self.reduction, baseline=self.baseline):
            score = self.loss(group)
            surrogate = surrogate + (score.weight.detach() * group.log_prob).sum()
            sums = sums + measured(group, score)
        return surrogate, sums

    # ------------------------------------------------------------------------ what is measured

    def _no_sums(self) -> Tensor:
        return torch.zeros(len(METRICS), 2, device=self.args.device)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the means since the last record beside Trainer's own numbers."""
        if "loss" in logs:
            logs |= means(self.accelerator.reduce(self._training_sums, "sum"))
            self._training_sums = self._no_sums()
        super().log(logs, start_time)

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, None, None]:
        """The loss of a batch that is not learned from."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            sums = self._score(model, inputs)[1]
        self._evaluation_sums = self._evaluation_sums + sums
        total, count = sums[METRICS.index("value")]
        return total / count, None, None

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Trainer's, with all rows: what is left out of training is not left out here."""
        asked, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.dataloader_drop_last = asked

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """Trainer's, with the means over all groups and completions of the data set."""
        self._evaluation_sums = self._no_sums()
        output = super().evaluation_loop(
            dataloader, description, True, ignore_keys, metric_key_prefix
        )
        found = means(self.accelerator.reduce(self._evaluation_sums, "sum"))
        found["loss"] = found["value"]
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        return output._replace(metrics={**(output.metrics or {}), **metrics})

    # ---------------------------------------------------------------------- stopping, going on

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, and beside it what tells its reference from another."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            path = Path(str(output_dir or self.args.output_dir)) / REFERENCE_FILE
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"mean_ref_log_prob": mean_reference(self.train_dataset)}))

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **options: Any
    ) -> Any:
        """Train, or go on from a checkpoint of the same run.

        ``True`` goes on from the last checkpoint in ``output_dir`` that was written to its end.

        Raises
        ------
        ValueError
            If the checkpoint was trained against another reference: a resumed run is given the
            model it started from, and loads the trained weights itself.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_checkpoint(self.args.output_dir)
            if resume_from_checkpoint is None:
                raise ValueError(
                    f"resume_from_checkpoint: expected a checkpoint in {self.args.output_dir}, "
                    "got none"
                )
        if resume_from_checkpoint:
            path = Path(str(resume_from_checkpoint)) / REFERENCE_FILE
            then = json.loads(path.read_text())["mean_ref_log_prob"]
            now = mean_reference(self.train_dataset)
            if not math.isclose(then, now, rel_tol=1e-4):
                raise ValueError(
                    f"resume_from_checkpoint: expected the data and the reference it was trained "
                    f"with (mean ln π_ref {then:.6g}), got {now:.6g}"
                )
        return super().train(resume_from_checkpoint, *args, **options)


# What would change nothing here, and would be taken for something that does.
_WITHOUT_EFFECT = ("label_smoothing_factor", "neftune_noise_alpha")
_MEASURED_OTHERWISE = ("compute_metrics", "compute_loss_func", "preprocess_logits_for_metrics")


def check_arguments(args: transformers.TrainingArguments, options: Mapping[str, Any]) -> None:
    """Raise for arguments that would do nothing, or something else than they say."""
    if args.max_steps == 0:  # Trainer would take it for a limit of epochs
        raise ValueError("args: expected max_steps above 0, or -1 to count epochs, got 0")
    for name in _WITHOUT_EFFECT:
        if value := getattr(args, name, None):
            raise ValueError(
                f"args: expected no {name}, which no objective here knows, got {value}"
            )
    for name in _MEASURED_OTHERWISE:
        if options.get(name) is not None:
            raise TypeError(f"{name}: expected none, as loss and metrics come from the objective")


def check_devices(args: transformers.TrainingArguments, accelerator: Any, rows: int) -> None:
    """Raise if the devices there are would not do what the arguments ask for."""
    if args.n_gpu > 1:
        raise ValueError(
            f"args: expected one device a process (launch with torchrun), got {args.n_gpu}"
        )
    check_sharding(args, accelerator.distributed_type)
    if args.fp16 and accelerator.device.type == "cpu":  # accelerate leaves it out silently
        raise ValueError("args: expected bf16 instead of fp16 on a processor, got fp16")
    together = args.per_device_train_batch_size * accelerator.num_processes
    if args.dataloader_drop_last and rows < together:
        raise ValueError(
            f"args: expected at least {together} rows, a batch, with dataloader_drop_last, "
            f"got {rows}"
        )


def check_sharding(args: transformers.TrainingArguments, distributed: Any) -> None:
    """Raise if FSDP was asked for and isn't there: accelerate says nothing of it."""
    asked = bool(args.fsdp) or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if asked and distributed.value != "FSDP":
        raise ValueError(
            "args: expected processes with accelerators of their own for FSDP, got "
            f"{distributed.value}, where every process would hold the whole model"
        )


def referenced(
    data: Completions, model: Any, given: Sequence[ArrayLike] | None = None, **options: Any
) -> Completions:
    """``data`` with ln π_ref: as given, as it has them, or of ``model``."""
    if given is not None:
        return data.with_reference(given)
    if "ref_log_prob" in data.fields():
        return data
    return data.with_reference(reference_log_probs(model, data, **options))


def last_checkpoint(folder: str | os.PathLike[str] | None) -> str | None:
    """The last checkpoint in a folder that is whole, if there is one.

    A run that was killed while it wrote leaves half of one: Trainer writes its own state last.
    """
    numbered = {
        int(number): path
        for path in Path(str(folder)).glob("checkpoint-*")
        if (number := path.name.removeprefix("checkpoint-")).isdecimal()
    }
    for _, path in sorted(numbered.items(), reverse=True):
        with contextlib.suppress(OSError, ValueError):
            json.loads((path / TRAINER_STATE).read_text(encoding="utf-8"))
            return str(path)
    return None


def mean_reference(data: Any) -> float:
    """The mean ln π_ref of all completions: a number that tells one reference from another."""
    return float(np.concatenate([row.ref_log_prob for row in data]).mean())


def switch_dropout_off(model: Any) -> None:
    """Evaluation mode, except for modules that recompute activations in training mode only.

    Those keep the mode, and the dropout probabilities they hold become 0.
    """
    model.eval()
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True
            for name, value in vars(module).items():
                if "drop" in name and isinstance(value, float):
                    setattr(module, name, 0.0)
