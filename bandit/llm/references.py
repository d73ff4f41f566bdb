"""ln π_ref of every completion, computed once before training and kept on disk if wanted."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bandit import _checks
from bandit._checks import Array
from bandit.llm import fingerprints
from bandit.llm.completions import Completions
from bandit.llm.records import Row
from bandit.llm.scoring import positions_of, sequence_log_prob, vocabulary_of


def reference_log_probs(
    model: Any,
    completions: Completions,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
    chunk_tokens: int | None = None,
) -> list[Array]:
    """ln π_ref of each completion, summed over its tokens, with dropout off.

    Parameters
    ----------
    model : causal language model
        π_ref. Of a PEFT model the adapter is switched off.
    completions : Completions
    cache_dir : path, optional
        Values are looked up there, row by row, under a fingerprint of model, tokenizer and
        precision, and written there when they were not found.
    batch_size : int
        Completions scored together. It does not change the values (but for rounding).
    chunk_tokens : int, optional
        As in :func:`bandit.llm.sequence_log_prob`.

    Returns
    -------
    list of ndarray (G,)
        One a row, in order; for ``Completions.with_reference``.

    Raises
    ------
    ValueError
        Naming the row, for a token the model does not know or more tokens than it has positions.

    Notes
    -----
    No random number is consumed, so a run that finds the cache and one that doesn't are the same.
    """
    batch_size = _checks.positive_integer("batch_size", batch_size)
    check_fit(model, completions)
    names = [fingerprints.of_tokens(row.prompt_ids, row.completion_ids) for row in completions]
    path = None
    known: dict[str, Array] = {}
    if cache_dir is not None:
        path = Path(cache_dir) / f"{_cache_name(model, completions)}.npz"
        known = _load(path)
    missing = {name: row for name, row in zip(names, completions, strict=True) if name not in known}
    if missing:
        known |= dict(
            zip(
                missing,
                _scored(model, list(missing.values()), batch_size, chunk_tokens),
                strict=True,
            )
        )
        if path is not None:
            _save(path, known)
    return [known[name] for name in names]


def check_fit(model: Any, data: Completions) -> None:
    """Raise unless the model knows every token, and has a position for it."""
    vocabulary, positions = vocabulary_of(model), positions_of(model)
    for row in data:
        largest = max(max(ids) for ids in (row.prompt_ids, *row.completion_ids))
        if largest >= vocabulary:
            raise ValueError(
                f"data: expected tokens from 0 to {vocabulary - 1}, got {largest} in row "
                f"{row.row_id}"
            )
        length = len(row.prompt_ids) + max(map(len, row.completion_ids))
        if positions is not None and length > positions:
            raise ValueError(
                f"data: expected at most {positions} tokens, the model's positions, got {length} "
                f"in row {row.row_id}"
            )


def _scored(
    model: Any, rows: list[Row], batch_size: int, chunk_tokens: int | None
) -> Iterator[Array]:
    """ln π_ref of the rows' completions; of similar length together, so that little is padding."""
    single = [
        row._replace(completion_ids=[ids], rewards=None, behavior_log_prob=None, ref_log_prob=None)
        for row in rows
        for ids in row.completion_ids
    ]
    order = sorted(
        range(len(single)),
        key=lambda i: len(single[i].prompt_ids) + len(single[i].completion_ids[0]),
    )
    values = np.empty(len(single))
    device = next(model.parameters()).device
    with torch.no_grad(), _as_reference(model):
        for start in range(0, len(order), batch_size):
            these = order[start : start + batch_size]
            batch = Completions.collate([single[i] for i in these])
            log_prob = sequence_log_prob(
                model,
                *(batch[k].to(device) for k in ("input_ids", "attention_mask", "completion_mask")),
                chunk_tokens=chunk_tokens,
            )
            values[these] = log_prob.double().cpu().numpy()
    return iter(np.split(values, np.cumsum([len(row.completion_ids) for row in rows])[:-1]))


@contextmanager
def _as_reference(model: Any) -> Iterator[None]:
    """The model without dropout and, if it is a PEFT model, without its adapter."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        if hasattr(model, "disable_adapter"):
            with model.disable_adapter():
                yield
        else:
            yield
    finally:
        for module, mode in training.items():
            module.training = mode


# ------------------------------------------------------------------------------------------ files


def _cache_name(model: Any, completions: Completions) -> str:
    kind = next(model.parameters()).device.type
    precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else "as stored"
    parts = (
        fingerprints.of_model(model, adapters=False),
        completions.tokenizer_fingerprint,
        str(precision),
    )
    return fingerprints.of_text(" ".join(parts))


def _load(path: Path) -> dict[str, Array]:
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as archive:
        parts = np.split(archive["values"], np.cumsum(archive["sizes"])[:-1])
        return dict(zip(archive["rows"].tolist(), parts, strict=True))


def _save(path: Path, known: dict[str, Array]) -> None:
    """Written beside and moved into place, so that no reader ever sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(
                file,
                rows=np.array(list(known)),
                sizes=np.array([len(values) for values in known.values()]),
                values=np.concatenate(list(known.values())),
            )
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
