"""The notebooks run without a warning, and show what they showed when they were committed."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import matplotlib.image
import nbformat
import numpy as np
import pytest
from run_notebooks import execute, text_of

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
WALKTHROUGHS = [path for path in NOTEBOOKS if path.stem[:2].isdigit()]
# An app has its pictures in widgets, which live in a kernel: tests/test_explorer.py looks at them.
APPS = {"explorer"}
# On a scale of 0 to 1. Nothing but rounding moves a pixel here: the fonts are pinned with the rest.
TOLERANCE = 0.02


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def pixels(encoded: str) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(encoded)), format="png")


def difference(committed: nbformat.NotebookNode, fresh: nbformat.NotebookNode) -> str:
    """What two lists of outputs disagree in, or an empty string."""
    if len(committed) != len(fresh):
        return f"{len(committed)} outputs became {len(fresh)}"
    for old, new in zip(committed, fresh, strict=True):
        if old.output_type != new.output_type:
            return f"{old.output_type} became {new.output_type}"
        if old.get("text") != new.get("text"):
            return f"{old.text!r} became {new.text!r}"
        before, after = old.get("data", {}), new.get("data", {})
        if sorted(before) != sorted(after):
            return f"{sorted(before)} became {sorted(after)}"
        for kind in before:
            if kind != "image/png" and before[kind] != after[kind]:
                return f"{before[kind]!r} became {after[kind]!r}"
        if "image/png" in before:
            one, two = pixels(before["image/png"]), pixels(after["image/png"])
            if one.shape != two.shape:
                return f"a picture of {one.shape} became one of {two.shape}"
            distance = float(np.sqrt(np.mean((one - two) ** 2)))
            if distance > TOLERANCE:
                return f"a picture changed by {distance:.3f}"
    return ""


def test_there_is_a_notebook():
    assert "quickstart.ipynb" in [path.name for path in NOTEBOOKS]
    assert [path.stem[:2] for path in WALKTHROUGHS] == [f"{n:02d}" for n in range(1, 10)]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_what_a_new_run_gives(path):
    committed = read(path)
    fresh = execute(committed, path.parent)
    for old, new in zip(committed.cells, fresh.cells, strict=True):
        if old.cell_type == "code":
            assert difference(old.outputs, new.outputs) == "", old.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_file_is_as_the_runner_writes_it(path):
    committed = read(path)
    assert path.read_text(encoding="utf-8") == text_of(committed)
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert [cell.id for cell in committed.cells] == [
        f"cell-{place:02d}" for place in range(len(committed.cells))
    ]
    pictures = ["image/png" in output.get("data", {}) for cell in code for output in cell.outputs]
    assert any(pictures) != (path.stem in APPS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_picture_is_described_in_words(path):
    for cell in read(path).cells:
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            words = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(words.split()) >= 5, cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_cell_defines_a_function(path):
    code = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code")
    assert "def " not in code
    assert "lambda" not in code


@pytest.mark.parametrize("path", WALKTHROUGHS, ids=lambda path: path.stem)
def test_a_walkthrough_asks_before_it_answers_and_ends_with_three_exercises(path):
    text = "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    head, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    assert head.startswith("# ")
    *numbered, summary, exercises = sections
    assert [section.partition(".")[0] for section in numbered] == [
        str(n) for n in range(1, len(numbered) + 1)
    ]
    for section in numbered:
        question = section.find("**Question.**")
        assert question > 0, section
        assert len(section) > question + 200, section
    assert summary.startswith("Summary\n")
    assert exercises.startswith("To think about\n")
    assert re.findall(r"^(\d)\. ", exercises, flags=re.MULTILINE) == ["1", "2", "3"]


# --------------------------------------------------------------------- the checks themselves bite


def one_cell(source: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import warnings; warnings.warn('careful')", "UserWarning"),
        ("import sys; print('oops', file=sys.stderr)", "wrote to stderr"),
    ],
)
def test_warnings_and_stderr_fail_a_run(source, complaint, tmp_path):
    with pytest.raises(Exception, match=complaint):
        execute(one_cell(source), tmp_path)


@pytest.mark.slow
def test_run_twice_gives_the_same_file(tmp_path):
    source = "import matplotlib.pyplot as plt\nprint(1)\nplt.plot([0, 1])\n2"
    once = execute(one_cell(source), tmp_path)
    assert text_of(execute(once, tmp_path)) == text_of(once)
    assert "image/png" in text_of(once)


@pytest.mark.slow
def test_text_is_one_output_in_however_many_pieces_it_comes(tmp_path):
    source = "import sys\nfor i in range(3):\n    print(i)\n    sys.stdout.flush()"
    (output,) = execute(one_cell(source), tmp_path).cells[0].outputs
    assert output.text == "0\n1\n2\n"


@pytest.mark.slow
def test_widgets_are_not_kept(tmp_path):
    source = "import ipywidgets\nipywidgets.Label('one')"
    fresh = execute(one_cell(source), tmp_path)
    assert fresh.cells[0].outputs == []
    assert "widgets" not in fresh.metadata


def test_difference_sees_text_and_pictures():
    def outputs(text: str, gray: float) -> list[nbformat.NotebookNode]:
        file = io.BytesIO()
        matplotlib.image.imsave(file, np.full((4, 4), gray), vmin=0, vmax=1, cmap="gray")
        data = {"text/plain": text, "image/png": base64.b64encode(file.getvalue()).decode()}
        return [nbformat.v4.new_output("display_data", data)]

    assert difference(outputs("a", 0.5), outputs("a", 0.5)) == ""
    assert difference(outputs("a", 0.5), outputs("a", 0.51)) == ""
    assert "became" in difference(outputs("a", 0.5), outputs("b", 0.5))
    assert "picture changed" in difference(outputs("a", 0.5), outputs("a", 0.6))
    assert "outputs became" in difference(outputs("a", 0.5), [])
