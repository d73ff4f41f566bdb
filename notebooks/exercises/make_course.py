"""The exercises as an nbgrader course: ``python notebooks/exercises/make_course.py [FOLDER [NAME...]]``.

A problem set is one text file of this folder, ``psNN-name.py``, in jupytext's percent format, with
three kinds of marked cells: ``# %% answer="name"``, where a student writes (what stands between
``### BEGIN SOLUTION`` and ``### END SOLUTION`` is the model solution), and
``# %% check="name" points=2``, which grades the answer of that name (what stands between ``### BEGIN
HIDDEN TESTS`` and ``### END HIDDEN TESTS`` students don't see). Cells marked ``# %% examiner=true``
know the right answers and the usual wrong ones: they go to a module beside the notebook,
``psNN_examiner.py``, which the notebook imports. Answers that call the package are refused there,
unless the cell is marked ``# %% examiner=true package=true``. All other cells are for reading.

The notebooks with solutions go to ``FOLDER/source``, the ones for students to ``FOLDER/release``.
Submissions and grades that are there already are left alone.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

import jupytext
import nbformat

HERE = Path(__file__).resolve().parent


def texts() -> list[Path]:
    """The text sources, in the order of the course."""
    return sorted(HERE.glob("ps[0-9][0-9]-*.py"))


def notebook_of(text: Path) -> nbformat.NotebookNode:
    """The notebook of one text source, with solutions and with nbgrader's metadata."""
    notebook = jupytext.read(text)
    notebook.cells = [cell for cell in notebook.cells if "examiner" not in cell.metadata]
    for place, cell in enumerate(notebook.cells):
        cell.metadata = nbformat.from_dict(_metadata(cell, f"read-{place:02d}"))
        cell["id"] = f"cell-{place:02d}"
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return notebook


def examiner_of(text: Path) -> str:
    """The module of one text source that knows the answers.

    A student whose answer fails sees his own code and the message in the traceback, and not these.
    """
    head = '"""What the tests of this problem set call; it knows the answers, so look later."""'
    marked = [cell for cell in jupytext.read(text).cells if "examiner" in cell.metadata]
    sources = [_prepared(cell.source, bool(cell.metadata.get("package"))) for cell in marked]
    return "\n\n\n".join([head, *sources]) + "\n"


def _prepared(source: str, package: bool) -> str:
    """Functions that hide from tracebacks and, unless ``package``, look at an ``answer`` first."""
    lines = source.splitlines()
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    for node in reversed(functions):
        extra = ["    __tracebackhide__ = True"]
        if node.args.args and node.args.args[0].arg == "answer" and not package:
            extra.append("    checks.own(answer)")
        place = node.body[0].lineno - 1
        lines[place:place] = extra
    return "\n".join(lines)


def _metadata(cell: nbformat.NotebookNode, default_id: str) -> dict[str, Any]:
    """What nbgrader wants to know of a cell; cells for reading are restored before grading."""
    given = cell.metadata
    common = {"schema_version": 3, "task": False}
    if cell.cell_type == "markdown":
        return {}
    if "answer" in given:
        own = {"grade_id": given["answer"], "grade": False, "solution": True, "locked": False}
    elif "check" in given:
        own = {"grade_id": f"check-{given['check']}", "grade": True, "points": given["points"]}
        own |= {"solution": False, "locked": True}
    else:
        own = {"grade_id": default_id, "grade": False, "solution": False, "locked": True}
    return {"nbgrader": {**common, **own}}


def write_sources(folder: Path) -> list[str]:
    """The notebooks with solutions, and the settings, into ``folder``; returns the names."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "nbgrader_config.py", folder)
    for text in texts():
        target = folder / "source" / text.stem
        target.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook_of(text), target / f"{text.stem}.ipynb")
        (target / f"{text.stem[:4]}_examiner.py").write_text(examiner_of(text), encoding="utf-8")
        shutil.copy(HERE / "checks.py", target)
    return [text.stem for text in texts()]


def course(folder: Path, **extra: Any) -> Any:
    """nbgrader's programming interface to the course in ``folder``.

    ``extra`` are settings beside those of ``nbgrader_config.py``, as ``Class={"trait": value}``.
    """
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config, PyFileConfigLoader

    _put_tools_on_the_path()
    settings = PyFileConfigLoader("nbgrader_config.py", path=str(folder)).load_config()
    settings.CourseDirectory.root = str(folder)
    settings.merge(Config(extra))
    return NbGraderAPI(config=settings)


def _put_tools_on_the_path() -> None:
    """nbgrader runs `alembic` by its bare name, which an environment not activated doesn't have."""
    tools, known = sysconfig.get_path("scripts"), os.environ.get("PATH", "")
    if tools not in known.split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([tools, known])


def release(api: Any, name: str) -> None:
    """Make the students' version of one problem set, and enter it into the gradebook."""
    done = api.generate_assignment(name, force=True)
    if not done["success"]:
        raise RuntimeError(f"{name}: nbgrader could not make the students' version\n{done['log']}")


def main(arguments: list[str]) -> int:
    """Build the course and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "folder", nargs="?", default="build/course", type=Path, help="default: build/course"
    )
    parser.add_argument("names", nargs="*", metavar="name", help="problem sets; default: all")
    given = parser.parse_args(arguments)
    folder, known = given.folder.resolve(), [text.stem for text in texts()]
    if unknown := set(given.names).difference(known):
        parser.error(f"name: expected some of {', '.join(known)}; got {', '.join(unknown)}")
    write_sources(folder)
    api = course(folder)
    for name in given.names or known:
        release(api, name)
        print(f"made {folder / 'release' / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
