"""Reading one row of offline data: text becomes token ids, and what cannot be used says why."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from types import EllipsisType
from typing import Any, NamedTuple

import numpy as np

from bandit._checks import Array
from bandit.llm.messages import ChatError, Messages, is_chat, rendered, reply

Tokens = str | Sequence[int]


class Row(NamedTuple):
    """A prompt and its G completions.

    ``rewards``, ``behavior_log_prob`` and ``ref_log_prob`` are (G,) or None, ``preference`` is the
    probability that the first of two completions is preferred, or None. ``row_id`` is the row's
    place in the source, counted from 0, whatever was dropped before it.
    """

    prompt_ids: list[int]
    completion_ids: list[list[int]]
    rewards: Array | None
    preference: float | None
    behavior_log_prob: Array | None
    row_id: int
    ref_log_prob: Array | None = None


# Fields that all rows have, or none.
CHECKED = ("rewards", "preference", "behavior_log_prob")


# Losses are computed in single precision, where more than this is infinite.
LARGEST = float(np.finfo(np.float32).max)


class BadRowError(ValueError):
    """A row that cannot be used: ``column``, a ``reason`` to count by, and what was expected."""

    def __init__(self, column: str, reason: str, expected: str, got: Any = None) -> None:
        self.reason = reason
        found = reason if got is None else got
        super().__init__(f"{column}: expected {expected}, got {found}")


class Reader(NamedTuple):
    """How rows are read; the options of ``Completions.from_records``."""

    tokenizer: Any
    eos: int | EllipsisType | None
    max_length: int | None
    with_prompt: bool
    bos: int | EllipsisType | None = ...

    def row(self, record: Mapping[str, Any], row_id: int) -> Row:
        """The row of a record; BadRowError if it cannot be used."""
        prompt_column, completions, rewards, preference = _columns(record)
        prompt = self.ids("prompt", prompt_column)
        size = len(completions)
        truncated = record.get("truncated")
        truncated = [False] * size if truncated is None else truncated
        if not _is_list(truncated) or len(truncated) != size:
            raise BadRowError("truncated", "lengths differ", f"{size} values", repr(truncated))
        if not all(isinstance(cut, (bool, np.bool_)) for cut in truncated):
            raise BadRowError("truncated", "not true or false", "true or false", repr(truncated))
        ids = [
            self.completion(text, prompt_column, prompt, bool(cut))
            for text, cut in zip(completions, truncated, strict=True)
        ]
        longest = len(prompt) + max(map(len, ids))
        if self.max_length is not None and longest > self.max_length:
            raise BadRowError(
                "completions", "too long", f"at most {self.max_length} tokens", f"{longest}"
            )
        if preference is not None and size != 2:
            raise BadRowError("preference", "not a pair", "two completions", size)
        if preference is not None and not 0 <= (p := _number("preference", preference)) <= 1:
            raise BadRowError("preference", "not in [0, 1]", "a probability", p)
        return Row(
            prompt,
            ids,
            _numbers("rewards", rewards, size),
            None if preference is None else float(preference),
            _numbers("behavior_log_prob", record.get("behavior_log_prob"), size),
            row_id,
        )

    def ids(self, column: str, tokens: Any) -> list[int]:
        """Token ids of a prompt, or of a completion not yet ended."""
        if is_chat(tokens):
            try:
                tokens = rendered(self.tokenizer, tokens, to_answer=True)
            except ChatError as error:
                raise BadRowError(column, "not a chat", error.expected, error.got) from None
            ids = list(self.tokenizer(tokens, add_special_tokens=False)["input_ids"])
        elif isinstance(tokens, str):
            if self.tokenizer is None:
                raise BadRowError(column, "no tokenizer", "token ids, or a tokenizer", "text")
            ids = list(self.tokenizer(tokens, add_special_tokens=False)["input_ids"])
            bos = bos_before(self.tokenizer)
            if column == "prompt" and bos is not None:
                ids = [bos, *ids]
        else:
            ids = _token_ids(column, tokens)
        if not ids:
            raise BadRowError(column, f"empty {column.rstrip('s')}", "at least one token")
        bos, eos = (getattr(self.tokenizer, f"{x}_token_id", None) for x in ("bos", "eos"))
        bos = bos if isinstance(self.bos, EllipsisType) else self.bos
        if bos is not None:
            ends_too = bos in (eos, self.eos)
            if ids[:2] == [bos, bos] or (column != "prompt" and ids[0] == bos and not ends_too):
                raise BadRowError(column, "doubled BOS", "one beginning-of-sequence token")
        return ids

    def completion(self, tokens: Any, prompt: Any, prompt_ids: list[int], cut: bool) -> list[int]:
        """Token ids of a completion: without its prompt, with its end."""
        column, is_text = "completions", isinstance(tokens, str)
        if self.with_prompt and (is_text or _is_list(tokens)):
            start = prompt if is_text or is_chat(tokens) else prompt_ids
            comparable = isinstance(start, str) or not is_text
            if not comparable or list(tokens[: len(start)]) != list(start):
                raise BadRowError(column, "does not begin with its prompt", "the prompt first")
            tokens = tokens[len(start) :]
        if is_chat(tokens):
            return self.reply(tokens, prompt, cut)
        ids = self.ids(column, tokens)
        eos = self.eos
        if isinstance(eos, EllipsisType):
            eos = self.tokenizer.eos_token_id if is_text else None
        return ids if cut or eos is None or ids[-1] == eos else [*ids, eos]

    def reply(self, messages: Messages, prompt: Any, cut: bool) -> list[int]:
        """Token ids of a completion that is a message of the assistant."""
        column = "completions"
        if not is_chat(prompt):
            raise BadRowError(column, "messages after a text", "text after a text", "messages")
        try:
            ids = self.ids(column, reply(self.tokenizer, prompt, messages))
        except ChatError as error:
            raise BadRowError(column, "not a chat", error.expected, error.got) from None
        eos = self.tokenizer.eos_token_id if isinstance(self.eos, EllipsisType) else self.eos
        if eos in ids:  # after it there is what stands between messages
            ids = ids[: ids.index(eos) + (not cut)]
        if not ids:
            raise BadRowError(column, "empty completion", "at least one token")
        return ids if cut or eos is None or ids[-1] == eos else [*ids, eos]


def _is_list(values: Any) -> bool:
    if isinstance(values, np.ndarray):
        return values.ndim > 0
    return isinstance(values, Sequence) and not isinstance(values, (str, bytes))


def bos_before(tokenizer: Any) -> int | None:
    """The beginning-of-sequence token if the tokenizer puts one before a text."""
    bos = getattr(tokenizer, "bos_token_id", None)
    return bos if bos is not None and list(tokenizer("")["input_ids"])[:1] == [bos] else None


def _columns(record: Mapping[str, Any]) -> tuple[Any, Sequence[Any], Any, Any]:
    """Prompt, completions, rewards and preference of a record of either kind."""
    for column in ("prompt", "chosen" if "chosen" in record else "completions"):
        if record.get(column) is None:
            raise BadRowError(column, "missing column", "a value", "None")
    if "chosen" not in record:
        completions = record["completions"]
        if not _is_list(completions) or not len(completions):
            raise BadRowError("completions", "no completions", "a list of completions")
        return record["prompt"], completions, record.get("rewards"), record.get("preference")
    if record.get("rejected") is None:
        raise BadRowError("rejected", "missing column", "a value", "None")
    for column in ("completions", "rewards", "preference"):  # which of both would be meant?
        if record.get(column) is not None:
            raise BadRowError(column, "two kinds of row", "none beside chosen", "one")
    scores = [record.get("chosen_score"), record.get("rejected_score")]
    given = None if scores == [None, None] else scores
    return record["prompt"], [record["chosen"], record["rejected"]], given, 1.0


def _token_ids(column: str, tokens: Any) -> list[int]:
    if not _is_list(tokens):
        raise BadRowError(column, "not text or ids", "text or token ids", type(tokens).__name__)
    for token in tokens:
        whole = isinstance(token, (int, np.integer)) and not isinstance(token, bool)
        if not whole or token < 0:
            raise BadRowError(column, "not a token id", "whole numbers from 0", repr(token))
    return [int(token) for token in tokens]


def _number(column: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise BadRowError(column, "not a number", "a number", repr(value)) from None


def _numbers(column: str, values: Any, size: int) -> Array | None:
    if values is None:
        return None
    if not _is_list(values) or len(values) != size:
        raise BadRowError(column, "lengths differ", f"{size} numbers", repr(values))
    array = np.array([_number(column, value) for value in values])
    if not (np.abs(array) <= LARGEST).all():
        finite = np.isfinite(array).all()
        expected = f"numbers up to {LARGEST:.2g}" if finite else "finite numbers"
        raise BadRowError(column, "not finite", expected, array.tolist())
    if column == "behavior_log_prob" and array.max() > 1e-4:
        raise BadRowError(column, "above 0", "log-probabilities", array.tolist())
    return array


def json_lines(path: str | os.PathLike[str]) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON Lines file; blank lines are skipped."""
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    # Some editors put a mark of byte order before the first line.
                    record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{path}, line {number}: expected JSON, got {error}") from None
                if not isinstance(record, dict):
                    raise ValueError(
                        f"{path}, line {number}: expected a JSON object, got {record!r}"
                    )
                yield record


def parquet_rows(path: str | os.PathLike[str]) -> Iterator[Mapping[str, Any]]:
    """The rows of a Parquet file (needs ``pyarrow``), a part of it in memory at a time."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        said = str(error).strip().splitlines()[0]
        raise ValueError(f"{path}: expected a Parquet file, got: {said}") from None


def records_of(path: str | os.PathLike[str], name: str = "data") -> Iterator[Mapping[str, Any]]:
    """The records of a ``.jsonl`` or ``.parquet`` file; ``name`` is what a message calls it."""
    readers = {".jsonl": json_lines, ".parquet": parquet_rows}
    suffix = os.path.splitext(path)[1]
    if suffix not in readers:
        raise ValueError(f"{name}: expected a .jsonl or .parquet file, got {path}")
    return readers[suffix](path)
