"""What the README shows is what comes out."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from bandit import analysis, losses, pairs, preferences, presets
from bandit.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in README.splitlines()
    if re.match(r"\| `\w+` \|", line)
]


def fences(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_python_examples_print_what_is_written_below_them():
    shown = re.findall(
        r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL
    )
    assert len(shown) == len(fences("python")) >= 1
    for code, expected in shown:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "README.md", "exec"), {})
        assert printed.getvalue() == expected


def test_names_of_examples_that_need_a_model_exist():
    blocks = fences("py")
    assert blocks
    for block in blocks:
        imports = [line for line in block.splitlines() if line.startswith(("import", "from"))]
        assert len(imports) >= 3
        exec(compile("\n".join(imports), "README.md", "exec"), {})
        compile(block, "README.md", "exec")


def test_console_examples_print_what_is_written_below_them(capsys):
    shown = fences("console")
    assert shown
    for block in shown:
        command, _, expected = block.removeprefix("$ python -m bandit ").partition("\n")
        assert main(shlex.split(command)) == 0
        assert capsys.readouterr().out == expected


def anchor(heading: str) -> str:
    """As code hosts make it: lower case, without punctuation, with hyphens."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_links_lead_somewhere():
    text = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    headings = {anchor(line) for line in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)}
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(links) > 40
    for link in links:
        if link.startswith("#"):
            assert link[1:] in headings, link
        elif not link.startswith("https://"):
            assert (ROOT / link).is_file(), link


def test_table_has_every_objective_once():
    assert sorted(row[0].strip("`") for row in ROWS) == sorted(losses.REGISTRY)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip("`"))
def test_table_has_the_regret_of_our_bandit(row, capsys):
    name, regret, command = row[0].strip("`"), row[3], row[4].strip("`")
    problem = presets.three_armed_bandit()
    method = presets.method(name)
    table = analysis.compare(
        problem,
        pairs.independent(presets.three_armed_behavior()),
        {name: method},
        preferences.bradley_terry(problem.reward),
    ).loc[name]
    if regret == "–":
        assert not table.converged
    else:
        digits = len(regret.partition(".")[2])
        half = 0.5 * 10.0**-digits if digits else 1e-12
        assert abs(table.regret - float(regret)) <= half
    assert main(shlex.split(command.removeprefix("python -m bandit "))) == 0
    assert re.search(rf"^{name} ", capsys.readouterr().out, flags=re.MULTILINE)


def test_every_file_it_points_to_exists():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target
    for script in re.findall(r"`python (figures/\w+\.py)`", README):
        assert (ROOT / script).is_file(), script


def test_gallery_has_every_figure():
    scripts = {path.stem for path in (ROOT / "figures").glob("[!_]*.py")}
    shown = set(re.findall(r"^\| !\[.*?\]\(figures/(\w+)\.png\)", README, flags=re.MULTILINE))
    assert shown == scripts


def test_warns_of_the_other_package_called_bandit():
    assert re.search(r"security\s+linter", README)
