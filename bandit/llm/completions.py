"""Offline data: prompts, a group of completions of each, and what is known about them.

Token ids are what counts. Text is tokenized once, prompt and completion apart, and the pieces are
concatenated; masks come from lengths. Letters: ``B`` rows, ``G`` completions of one row (rows may
differ), ``N`` completions of a batch, ``T`` tokens of the longest.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from bandit import _checks
from bandit.llm import fingerprints
from bandit.llm.records import CHECKED, BadRowError, Reader, Row, Tokens, json_lines, parquet_rows

if TYPE_CHECKING:
    import datasets


@dataclasses.dataclass(frozen=True, eq=False)
class Completions(Sequence[Row]):
    """Rows of prompts and completions, checked; what ``train_tiny`` and ``SequenceTrainer`` take.

    Made by :meth:`from_lists`, :meth:`from_records`, :meth:`from_jsonl`, :meth:`from_parquet` and
    :meth:`from_dataset`, which all take the options of :meth:`from_records`.

    Attributes
    ----------
    rows : list of Row
    dropped : Counter
        How many rows were left out, by reason.
    tokenizer_fingerprint : str
        Of the tokenizer that made the ids; empty if they came as ids.
    """

    rows: list[Row]
    dropped: Counter[str] = dataclasses.field(default_factory=Counter)
    tokenizer_fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: Any) -> Any:
        return (
            dataclasses.replace(self, rows=self.rows[i]) if isinstance(i, slice) else self.rows[i]
        )

    def __repr__(self) -> str:
        sizes = sorted({len(row.completion_ids) for row in self.rows})
        lost = f", {sum(self.dropped.values())} dropped" if self.dropped else ""
        return f"Completions({len(self)} rows in groups of {sizes}, {self.fields()}{lost})"

    def fields(self) -> list[str]:
        """Which fields of a :class:`bandit.losses.Group` every row can fill."""
        known = {"reward": "rewards", "preference": "preference"} | {
            name: name for name in ("behavior_log_prob", "ref_log_prob")
        }
        return [
            field
            for field, name in known.items()
            if self.rows and all(getattr(row, name) is not None for row in self.rows)
        ]

    def with_reference(self, ref_log_probs: Sequence[ArrayLike]) -> Completions:
        """The same rows with ln π_ref of their completions, one array (G,) a row."""
        if len(ref_log_probs) != len(self):
            raise ValueError(
                f"ref_log_probs: expected one array for each of {len(self)} rows, "
                f"got {len(ref_log_probs)}"
            )
        rows = []
        for row, values in zip(self.rows, ref_log_probs, strict=True):
            array = _checks.finite_array("ref_log_probs", values)
            if array.shape != (len(row.completion_ids),):
                raise ValueError(
                    f"ref_log_probs: expected shape {(len(row.completion_ids),)} for row "
                    f"{row.row_id}, got {array.shape}"
                )
            rows.append(row._replace(ref_log_prob=array))
        return dataclasses.replace(self, rows=rows)

    # ---------------------------------------------------------------------------- from outside

    @classmethod
    def from_lists(
        cls,
        prompts: Sequence[Tokens],
        completions: Sequence[Sequence[Tokens]],
        rewards: Sequence[ArrayLike] | None = None,
        preferences: Sequence[float] | None = None,
        behavior_log_probs: Sequence[ArrayLike] | None = None,
        *,
        truncated: Sequence[Sequence[bool]] | None = None,
        **options: Any,
    ) -> Completions:
        """From parallel lists with an entry per prompt; ``options`` as in :meth:`from_records`."""
        columns = {
            "prompt": prompts,
            "completions": completions,
            "rewards": rewards,
            "preference": preferences,
            "behavior_log_prob": behavior_log_probs,
            "truncated": truncated,
        }
        given = {name: column for name, column in columns.items() if column is not None}
        for name, column in given.items():
            if len(column) != len(prompts):
                raise ValueError(
                    f"{name}: expected an entry for each of {len(prompts)} prompts, "
                    f"got {len(column)}"
                )
        rows = (
            dict(zip(given, values, strict=True)) for values in zip(*given.values(), strict=True)
        )
        return cls.from_records(rows, **options)

    @classmethod
    def from_records(
        cls,
        records: Iterable[Mapping[str, Any]],
        *,
        tokenizer: Any = None,
        eos: int | EllipsisType | None = ...,
        bos: int | EllipsisType | None = ...,
        max_length: int | None = None,
        with_prompt: bool = False,
        on_bad: str = "raise",
        source: str = "row",
    ) -> Completions:
        """From mappings, one for each prompt.

        Parameters
        ----------
        records : iterable of mapping
            ``prompt`` and ``completions`` (text or token ids), with any of ``rewards`` (G,),
            ``preference`` in [0, 1] (pairs), ``behavior_log_prob`` (G,), ``truncated`` (G,) bool;
            or ``prompt``, ``chosen`` and ``rejected``, perhaps with ``chosen_score`` and
            ``rejected_score``, which is a pair with preference 1. Other columns are ignored. A
            prompt may be a list of messages (``role``, ``content``), which the tokenizer's chat
            template renders; its completions are then texts, or each a list of one message of the
            assistant.
        tokenizer : optional
            A ``transformers`` tokenizer, for text.
        eos : int or None, optional
            Token to end completions with, unless they already end so or are ``truncated``; it is
            part of the completion. Default: the tokenizer's for text; ids are taken as they are.
            None: nothing is appended.
        bos : int or None, optional
            Token that begins a sequence: a prompt that has it twice, or a completion that begins
            with it, is refused. Default: the tokenizer's; of rows that come as ids, without a
            tokenizer, nobody knows it, and nothing is refused. It is never put into ids.
        max_length : int, optional
            Most tokens of prompt and completion together. Nothing is ever cut.
        with_prompt : bool
            The completions repeat the prompt: it is checked and taken off.
        on_bad : {"raise", "drop"}
            What to do with a row that cannot be used; ``dropped`` counts them by reason.
        source : str
            What a row is called in messages.

        Raises
        ------
        ValueError
            Naming row and column: an empty prompt or completion, None, a doubled BOS (see ``bos``),
            a row that is too long, a completion that does not begin with its prompt, numbers that
            do not fit.
        """
        _checks.one_of("on_bad", on_bad, ("raise", "drop"))
        if max_length is not None:
            max_length = _checks.positive_integer("max_length", max_length)
        reader = Reader(tokenizer, eos, max_length, with_prompt, bos)
        rows: list[Row] = []
        dropped, columns = Counter[str](), None
        for i, record in enumerate(records):
            try:
                row = reader.row(record, i)
                found = [name for name in CHECKED if getattr(row, name) is not None]
                columns = found if columns is None else columns
                if found != columns:
                    expected = f"{columns} as in the rows before"
                    raise BadRowError("columns", "columns differ", expected, found)
                rows.append(row)
            except BadRowError as bad:
                if on_bad == "raise":
                    raise ValueError(f"{source} {i}, {bad}") from None
                dropped[bad.reason] += 1
        name = "" if tokenizer is None else fingerprints.of_tokenizer(tokenizer)
        return cls(rows, dropped, name)

    @classmethod
    def from_jsonl(cls, path: str | os.PathLike[str], **options: Any) -> Completions:
        """From a file with a JSON object on each line; options as in :meth:`from_records`."""
        return cls.from_records(json_lines(path), **{"source": f"{path}, record", **options})

    @classmethod
    def from_parquet(cls, path: str | os.PathLike[str], **options: Any) -> Completions:
        """From a Parquet file (needs ``pyarrow``); options as in :meth:`from_records`."""
        return cls.from_records(parquet_rows(path), **{"source": f"{path}, row", **options})

    @classmethod
    def from_dataset(cls, dataset: datasets.Dataset, **options: Any) -> Completions:
        """From a ``datasets.Dataset``; options as in :meth:`from_records`."""
        return cls.from_records(iter(dataset), **options)

    # -------------------------------------------------------------------------------- to tensors

    @staticmethod
    def collate(rows: Sequence[Row], pad_token_id: int = 0) -> dict[str, Tensor]:
        """A batch: the N completions of some rows, padded on the right.

        Parameters
        ----------
        rows : sequence of Row
            Groups may differ in size.
        pad_token_id : int
            Any token of the vocabulary: masks come from lengths, so it is never looked at.

        Returns
        -------
        dict of Tensor
            ``input_ids``, ``attention_mask``, ``completion_mask`` (N, T); ``group_sizes`` and
            ``row_id`` (B,); and where all rows have them ``reward``, ``behavior_log_prob`` and
            ``ref_log_prob`` (N,), row after row, and ``preference`` (B,).
        """
        pairs = [(row.prompt_ids, ids) for row in rows for ids in row.completion_ids]
        starts = torch.tensor([len(prompt) for prompt, _ in pairs])
        ends = torch.tensor([len(prompt) + len(ids) for prompt, ids in pairs])
        place = torch.arange(int(ends.max()))
        input_ids = torch.full((len(pairs), len(place)), pad_token_id)
        for tokens, (prompt, ids), end in zip(input_ids, pairs, ends, strict=True):
            tokens[:end] = torch.tensor([*prompt, *ids])
        spoken = place < ends[:, None]
        batch = {
            "input_ids": input_ids,
            "attention_mask": spoken.long(),
            "completion_mask": (spoken & (place >= starts[:, None])).long(),
            "group_sizes": torch.tensor([len(row.completion_ids) for row in rows]),
            "row_id": torch.tensor([row.row_id for row in rows]),
        }
        for name in ("rewards", "behavior_log_prob", "ref_log_prob"):
            if all(getattr(row, name) is not None for row in rows):
                values = np.concatenate([getattr(row, name) for row in rows])
                key = "reward" if name == "rewards" else name
                batch[key] = torch.tensor(values, dtype=torch.float32)
        if all(row.preference is not None for row in rows):
            batch["preference"] = torch.tensor([row.preference for row in rows])
        return batch
