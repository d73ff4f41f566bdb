"""What contexts and arms are called in files: codes for their names, and the order of names."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np

from bandit.data.counts import Codes, Labels

NUMERAL = re.compile(r"([0-9]{1,18})")


class Coder(dict[str, int]):
    """Codes in order of first appearance."""

    def __missing__(self, key: str) -> int:
        self[key] = len(self)
        return self[key]


def merge(coder: Coder, codes: Codes, names: list[str]) -> Codes:
    """Codes of one chunk as those of the whole file; labels of bad rows alone are not kept."""
    used = np.unique(codes)
    table = np.zeros(len(names), dtype=np.int64)
    table[used] = [coder[names[code]] for code in used.tolist()]
    return table[codes]


def joined(
    columns: Sequence[str], parts: Sequence[tuple[Codes, list[str]]]
) -> tuple[Codes, list[str]]:
    """Several columns as one: codes (n,) of what they say together, −1 where one says nothing.

    A name says all of it, ``device=phone, hour=3``; different values have different names.
    """
    if len(parts) == 1:
        return parts[0]
    together = np.zeros(len(parts[0][0]), dtype=np.int64)
    missing = np.zeros(together.size, dtype=bool)
    for codes, names in parts:
        missing |= codes < 0
        # Numbered anew after each column, so that no product of sizes overflows.
        _, together = np.unique(together * (len(names) + 1) + codes, return_inverse=True)
    _, first, together = np.unique(together, return_index=True, return_inverse=True)
    found = [
        ", ".join(
            f"{_quoted(column)}={_quoted(names[codes[row]] if codes[row] >= 0 else '')}"
            for column, (codes, names) in zip(columns, parts, strict=True)
        )
        for row in first.tolist()
    ]
    return np.where(missing, -1, together.astype(np.int64)), found


def _quoted(text: str) -> str:
    """As it is, unless that could be read as more than one value."""
    return json.dumps(text, ensure_ascii=False) if re.search(r'[,="\n\r]', text) else text


def ordered(names: list[str], *, by_numerals: bool = False) -> tuple[Codes, Labels]:
    """Order and labels: as numbers if all are whole numbers written plainly, else as text.

    A whole number may be written 3.0, as tables do whose other rows lacked it. ``by_numerals``
    compares the numerals in texts as numbers too: ``hour=9`` comes before ``hour=10``.
    """
    whole = [name.removesuffix(".0") for name in names]
    if all(map(_is_plain_integer, whole)) and len(set(whole)) == len(whole):
        order = sorted(range(len(names)), key=lambda code: int(whole[code]))
        return np.array(order, dtype=np.int64), tuple(int(whole[code]) for code in order)
    order = sorted(
        range(len(names)),
        key=lambda code: (_numerals(names[code]) if by_numerals else [], names[code]),
    )
    return np.array(order, dtype=np.int64), tuple(names[code] for code in order)


def _numerals(name: str) -> list[str | int]:
    parts = NUMERAL.split(name)  # text and numerals take turns
    return [int(part) if at % 2 else part for at, part in enumerate(parts)]


def _is_plain_integer(name: str) -> bool:
    digits = name.removeprefix("-")
    plain = digits.isascii() and digits.isdigit() and len(digits) <= 18
    return plain and str(int(name)) == name
