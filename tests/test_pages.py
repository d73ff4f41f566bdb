"""What the pages of the site show is what comes out, and what they claim is so."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from bandit import data, ope
from bandit.cli import main

PAGES = Path(__file__).parents[1] / "notebooks" / "site" / "pages"
LOGGED = (PAGES / "logged-data.md").read_text(encoding="utf-8")


def fences(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", LOGGED, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["logged-data.md", "explorer.md", "../index.md"])
def test_python_examples_print_what_is_written_below_them(page):
    text = (PAGES / page).read_text(encoding="utf-8")
    pattern = r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$"
    shown = re.findall(pattern, text, flags=re.MULTILINE | re.DOTALL)
    assert len(shown) == text.count("```python\n") >= 1
    for code, expected in shown:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page, "exec"), {})
        assert printed.getvalue() == expected


def test_console_examples_print_what_is_written_below_them(capsys):
    (block,) = fences("console")
    command, _, expected = block.removeprefix("$ python -m bandit ").partition("\n")
    assert main(shlex.split(command)) == 0
    assert capsys.readouterr().out == expected


def test_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = [f"{x},{y},{r},0.25" for x, y, r in rng.integers(0, [2, 4, 2], (200, 3)).tolist()]
    Path("LOG.csv").write_text("\n".join(["position,item_id,click,p", *rows]), encoding="utf-8")
    commands = "".join(fences("sh")).replace("\\\n", "").splitlines()
    assert len(commands) == 2
    for command in commands:
        assert main(shlex.split(command.removeprefix("python -m bandit "))) == 0
    assert "effective sample size" in capsys.readouterr().out
    assert {f"`{path.name}`" for path in Path("learned").iterdir()} <= set(
        re.findall(r"`[\w.]+`", LOGGED)
    )


def test_functions_named_there_exist():
    for name in re.findall(r"`ope\.(\w+)`", LOGGED):
        assert hasattr(ope, name), name
    for name in re.findall(r"^\| `(\w+)\(", LOGGED, flags=re.MULTILINE):
        assert hasattr(data, name), name


@pytest.mark.parametrize(("campaign", "p"), [("all", 0.27), ("men", 0.41), ("women", 0.68)])
def test_clicks_do_not_tell_items_apart(campaign, p):
    """10,000 permutations: p is known to 0.005, and 0.025 is five of those."""
    counts = data.open_bandit(campaign, "random")
    rows, clicks = counts.n.sum(axis=0), counts.reward.sum(axis=0)
    expected = clicks.sum() * rows / rows.sum()
    drawn = np.random.default_rng(0).multivariate_hypergeometric(
        rows.astype(int), int(clicks.sum()), size=10_000, method="marginals"
    )
    found = ((clicks - expected) ** 2 / expected).sum()
    chance = (((drawn - expected) ** 2 / expected).sum(axis=1) >= found - 1e-9).mean()
    assert chance == pytest.approx(p, abs=0.025)


@pytest.mark.parametrize(("campaign", "size"), [("all", 1368), ("men", 1459), ("women", 18)])
def test_even_their_own_choices_are_far_from_the_adapting_logs(campaign, size, recwarn):
    counts = data.open_bandit(campaign, "bts")
    own = counts.n / counts.n.sum(axis=1, keepdims=True)
    assert round(ope.ipw(counts, own).effective_sample_size) == size
    assert all(issubclass(warning.category, ope.LowOverlapWarning) for warning in recwarn)
