"""The examples of the pages on related systems say what comes out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[1] / "notebooks" / "site" / "pages" / "related"


@pytest.mark.parametrize("name", ["forward_kl", "nash", "reward_learning"])
def test_example_gives_what_its_last_line_says(name):
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    *lines, last = code.splitlines()
    expression, _, expected = last.partition("  # ")
    names: dict[str, object] = {}
    exec(compile("\n".join(lines), name, "exec"), names)
    assert eval(expression, names) == ast.literal_eval(expected)
