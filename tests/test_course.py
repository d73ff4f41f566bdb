"""The exercises as a teacher uses them: nbgrader makes the students' version and grades it."""

from __future__ import annotations

import ast
import contextlib
import csv
import functools
import importlib
import io
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import nbformat
import numpy as np
import pytest
from wrong_answers import MORE, WRONG

import bandit

ROOT = Path(__file__).parents[1]
EXERCISES = ROOT / "notebooks" / "exercises"
NAMES = sorted(path.stem for path in EXERCISES.glob("ps*.py"))

pytest.importorskip("nbgrader", reason="needs the extra grading")
pytest.importorskip("jupytext", reason="needs the extra grading")
sys.path.insert(0, str(EXERCISES))
checks = importlib.import_module("checks")
make_course = importlib.import_module("make_course")

# nbgrader's own, at the first grading of a student.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")


# Seconds: a busy machine is no wrong answer.
PATIENT = {"timeout": 3600, "startup_timeout": 3600, "iopub_timeout": 3600}


@functools.cache
def notebook(name: str) -> nbformat.NotebookNode:
    return make_course.notebook_of(EXERCISES / f"{name}.py")


def cells(name: str, kind: str) -> dict[str, nbformat.NotebookNode]:
    """By grade_id, the cells whose metadata say ``kind``: "grade", "solution" or "locked"."""
    found = [cell for cell in notebook(name).cells if cell.metadata.get("nbgrader", {}).get(kind)]
    return {cell.metadata.nbgrader.grade_id: cell for cell in found}


def between(text: str, mark: str) -> list[str]:
    """What the regions called ``mark`` contain."""
    return re.findall(rf"### BEGIN {mark}\n(.*?)### END {mark}", text, flags=re.DOTALL)


# --------------------------------------------------------------------------------- the sources


def test_texts_are_the_only_source():
    assert len(NAMES) == 10
    assert [name[:4] for name in NAMES] == [f"ps{n:02d}" for n in range(1, 11)]
    assert not list(EXERCISES.rglob("*.ipynb"))


def test_there_are_at_least_forty_graded_cells():
    counts = {name: len(cells(name, "grade")) for name in NAMES}
    assert all(4 <= count <= 6 for count in counts.values()), counts
    assert sum(counts.values()) >= 40


@pytest.mark.parametrize("name", NAMES)
def test_every_answer_is_checked_for_points(name):
    graded = cells(name, "grade")
    assert set(graded) == {f"check-{task}" for task in cells(name, "solution")}
    points = [cell.metadata.nbgrader.points for cell in graded.values()]
    assert min(points) > 0
    assert sum(points) == 10
    for cell in graded.values():
        assert len(between(cell.source, "HIDDEN TESTS")) == 1
    for cell in cells(name, "solution").values():
        assert len(between(cell.source, "SOLUTION")) == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_test_has_a_message(name):
    examiner = make_course.examiner_of(EXERCISES / f"{name}.py")
    functions = {
        node.name: ast.unparse(node)
        for node in ast.parse(examiner).body
        if isinstance(node, ast.FunctionDef)
    }
    for grade_id, cell in cells(name, "grade").items():
        task = grade_id.removeprefix("check-")
        assert f"examine_{task}({task}, " in ast.unparse(ast.parse(cell.source))
        tree = list(ast.walk(ast.parse(cell.source + "\n" + functions[f"examine_{task}"])))
        compared = [
            node
            for node in tree
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("checks.")
        ]
        asserted = [node for node in tree if isinstance(node, ast.Assert)]
        assert compared or asserted
        assert all(node.msg is not None for node in asserted)
        for explanations in (node for node in tree if isinstance(node, ast.Dict)):
            for key in explanations.keys:
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    assert key.value.strip()


def run(source: str, namespace: dict) -> None:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        exec(compile(source, "cell", "exec"), namespace)


@pytest.fixture(scope="module")
def examiners(tmp_path_factory):
    """A folder on the path with what the notebooks import."""
    folder = tmp_path_factory.mktemp("examiners")
    make_course.write_sources(folder)
    for path in folder.glob("source/*/*.py"):
        shutil.copy(path, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


def prepared(name: str, task: str) -> tuple[dict, str]:
    """What a notebook has defined where ``task`` is checked, if only this task is answered, and the
    test."""
    namespace: dict = {}
    for cell in notebook(name).cells:
        given = cell.metadata.get("nbgrader", {})
        if given.get("grade_id") == f"check-{task}":
            return namespace, cell.source
        if given and (not given.solution or given.grade_id == task):
            with contextlib.suppress(NameError):  # of other tasks' answers
                run(cell.source, namespace)
    raise LookupError(task)


def key_of(argument: object) -> object:
    """What a student who looks answers up could know an argument by."""
    if isinstance(argument, bandit.losses.Group):
        return tuple(map(key_of, argument))
    if isinstance(argument, bandit.Bandit):
        return key_of(argument.reward), key_of(argument.reference), argument.beta
    if isinstance(argument, np.ndarray):
        return argument.shape, argument.tobytes()
    return getattr(argument, "__qualname__", repr(argument))


TASKS = [(name, task) for name in NAMES for task in cells(name, "solution")]


@pytest.mark.parametrize(("name", "task"), TASKS, ids=[f"{n[:4]}-{t}" for n, t in TASKS])
def test_a_task_stands_alone_and_copying_the_shown_example_earns_nothing(name, task, examiners):
    namespace, test = prepared(name, task)
    answer, seen = namespace[task], {}

    class WriteDown:
        def __call__(self, *given, **named):
            seen[tuple(map(key_of, [*given, *named.values()]))] = answer(*given, **named)
            return answer(*given, **named)

    class LookUp:
        def __call__(self, *given, **named):
            return seen[tuple(map(key_of, [*given, *named.values()]))]

    (hidden,) = between(test, "HIDDEN TESTS")
    namespace[task] = WriteDown()
    run(test.replace(hidden, ""), namespace)
    assert seen
    namespace[task] = LookUp()
    run(test.replace(hidden, ""), namespace)
    with pytest.raises(KeyError):
        run(test, namespace)
    namespace[task] = answer
    run(test, namespace)


# Two tasks of the last set are about what the package finds.
CALLS_THE_PACKAGE = {"finds_optimum", "depends_on_behavior"}


@pytest.mark.parametrize(("name", "task"), TASKS, ids=[f"{n[:4]}-{t}" for n, t in TASKS])
def test_an_answer_that_calls_the_package_is_refused(name, task, examiners):
    namespace, test = prepared(name, task)
    run(f"def {task}(*given, **named):\n    return bandit.presets.METHODS", namespace)
    with pytest.raises(AssertionError) as told:
        run(test, namespace)
    refused = f"{task} uses bandit, which has the answer already: write it yourself, with numpy"
    assert (refused in str(told.value)) == (task not in CALLS_THE_PACKAGE)


@pytest.mark.parametrize("more", MORE, ids=lambda more: f"{more.set}-{more.task}")
def test_more_wrong_answers_are_told_what_is_wrong(more, examiners):
    (name,) = [name for name in NAMES if name.startswith(more.set)]
    namespace, test = prepared(name, more.task)
    run(more.wrong, namespace)
    (hidden,) = between(test, "HIDDEN TESTS")
    with pytest.raises(AssertionError, match=re.escape(more.told)):
        run(test.replace(hidden, ""), namespace)


def test_a_small_number_added_to_the_spread_costs_nothing(examiners):
    namespace, test = prepared("ps07-group-baselines", "grpo_advantage")
    run(
        "def grpo_advantage(reward):\n"
        "    centered = reward - reward.mean(axis=-1, keepdims=True)\n"
        "    return centered / (reward.std(axis=-1, keepdims=True) + 1e-8)",
        namespace,
    )
    run(test, namespace)


def test_the_same_text_gives_the_same_file():
    for name in NAMES:
        again = make_course.notebook_of(EXERCISES / f"{name}.py")
        assert nbformat.writes(notebook(name)) == nbformat.writes(again)


# -------------------------------------------------------------------------------------- grading


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A course with all sources; one for each worker."""
    folder = tmp_path_factory.mktemp("course")
    assert make_course.write_sources(folder) == NAMES
    return folder


def graded(folder: Path, name: str, student: str, wrong=()) -> dict[str, tuple[float, float, str]]:
    """task → (points got, points to be had, what the student reads), by nbgrader.

    The blank student hands in what was released, others the model solution; each of ``wrong``
    is put in its place.
    """
    api = make_course.course(folder, Execute=PATIENT)
    path = folder / "submitted" / student / name / f"{name}.ipynb"
    shutil.copytree(folder / ("release" if student == "blank" else "source") / name, path.parent)
    handed_in = nbformat.read(path, as_version=4)
    for one in wrong:
        cell = next(
            c for c in handed_in.cells if c.metadata.get("nbgrader", {}).get("grade_id") == one.task
        )
        assert cell.source.count(one.right) == 1, one
        cell.source = cell.source.replace(one.right, one.wrong)
    nbformat.write(handed_in, path)
    done = api.autograde(name, student)
    assert done["success"], done["log"]
    outputs = {
        cell.metadata.nbgrader.grade_id: "\n".join(
            output.evalue for output in cell.outputs if output.output_type == "error"
        )
        for cell in nbformat.read(folder / "autograded" / student / name / path.name, 4).cells
        if cell.metadata.get("nbgrader", {}).get("grade")
    }
    with api.gradebook as gradebook:
        grades = gradebook.find_submission_notebook(name, name, student).grades
        return {
            grade.name.removeprefix("check-"): (grade.score, grade.max_score, outputs[grade.name])
            for grade in grades
        }


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_blank_gets_nothing_model_gets_all_wrong_answers_lose_their_points(name, folder):
    make_course.release(make_course.course(folder), name)

    blank = graded(folder, name, "blank")
    assert {got for got, _, _ in blank.values()} == {0}
    assert sum(best for _, best, _ in blank.values()) == 10

    model = graded(folder, name, "model")
    assert {task: told for task, (_, _, told) in model.items() if told} == {}
    assert all(got == best for got, best, _ in model.values())

    wrong = {one.task: one for one in WRONG[name]}
    assert len(wrong) == 3
    for task, (got, best, told) in graded(folder, name, "hasty", wrong.values()).items():
        if task in wrong:
            assert got == 0
            assert wrong[task].told in told
        else:
            assert (got, told) == (best, "")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_students_see_no_solution(name, folder):
    make_course.release(make_course.course(folder), name)
    released = (folder / "release" / name / f"{name}.ipynb").read_text(encoding="utf-8")
    shown = "\n".join(cell.source for cell in nbformat.reads(released, 4).cells)
    for mark in ("SOLUTION", "HIDDEN", "###"):
        assert mark not in shown
    assert shown.count("raise NotImplementedError()") == len(cells(name, "solution")) + 1
    whole = "\n".join(cell.source for cell in notebook(name).cells)
    for region in between(whole, "SOLUTION") + between(whole, "HIDDEN TESTS"):
        for line in map(str.strip, region.splitlines()):
            # Loops and the beginnings of calls that the tests which are shown have, too.
            assert len(line) < 20 or line.endswith(("(", ":", ",")) or line not in shown
    assert (folder / "release" / name / "checks.py").read_text() == Path(
        checks.__file__
    ).read_text()


@pytest.mark.slow
def test_the_command_makes_a_course_and_leaves_submissions_alone(tmp_path):
    work = tmp_path / "course" / "submitted" / "ada" / NAMES[0]
    work.mkdir(parents=True)
    (work / "notes.txt").write_text("hers")
    command = [
        sys.executable,
        str(EXERCISES / "make_course.py"),
        str(tmp_path / "course"),
        NAMES[0],
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    made = sorted(path.name for path in (tmp_path / "course" / "release").iterdir())
    assert made == [NAMES[0]]
    assert (work / "notes.txt").read_text() == "hers"
    again = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert again.returncode == 0, again.stderr


# ------------------------------------------------------------------------- the page for teachers

PAGE = (ROOT / "notebooks" / "site" / "pages" / "teaching.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def weeks(text: str) -> list[list[str]]:
    """The rows of the table, without the links of the notebooks and problem sets."""
    return [
        [re.sub(r"\[(`.*?`)\]\(.*?\)", r"\1", cell.strip()) for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if re.match(r"\| \d+ \| \[?`", line)
    ]


def test_table_of_weeks_has_every_notebook_and_every_problem_set():
    table = weeks(PAGE)
    assert table == weeks(README)
    for name in NAMES:
        assert f"[`{name}`](notebooks/exercises/{name}.py)" in README
    assert [row[0] for row in table] == [str(n) for n in range(1, 11)]
    assert [row[2].strip("`") for row in table] == NAMES
    taught = {name for row in table for name in re.findall(r"`([\w-]+)`", row[1])}
    there = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} - {"explorer"}
    for name in there:
        assert f"[`{name}`](notebooks/{name}.ipynb)" in README
        assert f"[`{name}`](../../{name}.ipynb)" in PAGE
    assert there <= taught
    for row in table:
        minutes = int(row[3].rpartition("+")[2])
        said = notebook(row[2].strip("`")).cells[0].source
        said = " ".join(said.split())
        assert f"about {minutes} minutes" in said or (minutes == 60 and "about an hour" in said)


def test_page_tells_the_number_of_tasks_and_the_danger():
    assert f"{len(TASKS)} graded tasks" in PAGE
    assert "without a sandbox" in PAGE


@pytest.mark.slow
def test_commands_of_the_page_grade_and_export(tmp_path):
    name = NAMES[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    (collect,) = [block for block in blocks if "zip_collect" in block]
    (grade,) = [block for block in blocks if "autograde" in block]
    make_course.main([str(tmp_path), name])
    # The notebook alone, in an archive, as the page says.
    archive = tmp_path / "downloaded" / name / "archive"
    handed_in = tmp_path / "handed in" / "ada_4711_assignsubmission_file_"
    handed_in.mkdir(parents=True)
    shutil.copy(tmp_path / "source" / name / f"{name}.ipynb", handed_in)
    archive.mkdir(parents=True)
    shutil.make_archive(str(archive / "all"), "zip", handed_in.parent)
    with open(tmp_path / "nbgrader_config.py", "a", encoding="utf-8") as settings:
        settings.writelines(f"c.Execute.{key} = {value}\n" for key, value in PATIENT.items())
    for command in (collect + grade).splitlines():
        assert name in command or command == "nbgrader export"
        done = subprocess.run(
            [sys.executable, "-m", *command.split()], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "feedback" / "ada" / name / f"{name}.html").is_file()
    with open(tmp_path / "grades.csv", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["student_id"], float(row["score"]), float(row["max_score"])) == ("ada", 10, 10)


@pytest.mark.parametrize(
    ("path", "student"),
    [
        ("extracted/all/dora_ps01-closed-form.ipynb", "dora"),
        ("extracted/all/lovelaceada_LATE_12_345_ps01-closed-form-2.ipynb", "lovelaceada"),
        (
            "extracted/all/Ada Lovelace_4711_assignsubmission_file_ps01-closed-form.ipynb",
            "Ada Lovelace",
        ),
        (
            "extracted/all/Ada Lovelace_4711_assignsubmission_file_/ps01-closed-form.ipynb",
            "Ada Lovelace",
        ),
        ("extracted/ada/ps01-closed-form.ipynb", "ada"),
        ("extracted\\all\\ada_ps01-closed-form.ipynb", "ada"),
        ("extracted/all/__MACOSX/._ada_ps01-closed-form.ipynb", None),
        ("extracted/all/ada_notes.ipynb", None),
    ],
)
def test_names_of_files_tell_who_handed_in(path, student, tmp_path):
    api = make_course.course(EXERCISES)
    pattern = api.config.FileNameCollectorPlugin.named_regexp
    found = re.match(pattern, "/home/my_courses/bandits/downloaded/ps01-closed-form/" + path)
    assert (found and found["student_id"]) == student
    assert found is None or found["file_id"] == "ps01-closed-form"


# ------------------------------------------------------------------------------ what is told


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([-1.0, -2.0, 0.5], "opposite sign"),
        ([2.0, 4.0, -1.0], "2 times what is asked for"),
        ([1.5, 2.5, 0.0], "off by the same number, 0.5"),
        ([-0.5, 2.0, 1.0], "reverse order"),
        ([[1.0, 2.0, -0.5]], "a sum or mean is missing|right number of entries"),
        ([1.0, 7.0, 8.0], "1 of 3 entries are right; the first that isn't is at 1"),
        ([1.001, 2.0, -0.5], "nearly right: is a small number added"),
        ([1.001, 2.002, -0.5005], "nearly right: is a small number added"),
        (2.5, "over too many axes"),
        ([1.0, 2.0], "over the wrong axis"),
        ([1.0, np.nan, -0.5], "overflowed"),
        ([1.0, 2.0, 0.0], "you forgot the last"),
        ([3.0, 1.0, 3.0], "not the right numbers"),
        (None, "is there a `return`"),
        ("one", "expected numbers"),
    ],
)
def test_a_comparison_says_what_is_wrong(found, told):
    with pytest.raises(AssertionError, match=told):
        checks.close("f(x)", found, [1.0, 2.0, -0.5], {"you forgot the last": [1.0, 2.0, 0.0]})


def test_a_comparison_passes_what_is_right_up_to_rounding():
    checks.close("f(x)", [1.0, 2.0 + 1e-7, -0.5], [1.0, 2.0, -0.5], {"nothing": [1.0, 2.0, -0.5]})
    checks.close("f(x)", 1e-12, 0.0)
    checks.close("f(x)", [np.inf, 1.0], [np.inf, 1.0])
    checks.same("f(x)", np.True_, True, "no")
    for found, told in ((None, "return"), (1, "True or False"), (False, "because")):
        with pytest.raises(AssertionError, match=told):
            checks.same("f(x)", found, True, "because")
    with pytest.raises(AssertionError, match="2 times"):
        checks.close("f(x)", 3.0, 1.5)
    with pytest.raises(AssertionError, match="two axes exchanged"):
        checks.close("f(x)", [[1.0, 2.0], [3.0, 4.0]], [[1.0, 3.0], [2.0, 4.0]])
    with pytest.raises(AssertionError, match=r"3 of 4 entries are right; .* is at \(1, 0\)"):
        checks.close("f(x)", [[1.0, 2.0], [9.0, 4.0]], [[1.0, 2.0], [3.0, 4.0]])


def test_a_number_is_one_finite_number():
    assert checks.number("f(x)", np.float64(1.5)) == 1.5
    for found, told in (
        (None, "return"),
        ("half", "expected numbers, got 'half'"),
        ([1.0], "expected one number, got shape"),
        (np.nan, "divided by zero"),
    ):
        with pytest.raises(AssertionError, match=told):
            checks.number("f(x)", found)


@pytest.mark.parametrize(
    ("lines", "used"),
    [
        ("def f(x): return bandit.losses.copg(x, beta=1)", "bandit"),
        ("def f(x): return losses.copg(x, beta=1)", "losses"),
        ("def helper(x): return losses.copg(x, beta=1)\ndef f(x): return helper(x)", "losses"),
        ("def f(x): return [losses.copg(one, beta=1) for one in x]", "losses"),
        ("def f(x): return (lambda y: losses.copg(y, beta=1))(x)", "losses"),
        (
            "def f(x):\n    from bandit.losses import copg\n    return copg(x, beta=1)",
            "bandit.losses",
        ),
        ("def f(x):\n    import bandit as b\n    return b.losses.copg(x, beta=1)", "bandit"),
        ("f = losses.copg", "copg"),
        ("f = functools.partial(losses.copg, beta=1)", "copg"),
        ("def f(x): return problem.optimal_policy()", "problem"),
        ("def f(x): return checks.close('', x, 1)", "checks"),
        ("def f(x): return examine_f(x)", "examine_f"),
        ("def f(x): return np.exp(x) + helper(x)\ndef helper(x): return helper(x - f(x))", ""),
        ("def f(x): return Score(x.problem.losses(x), Group(x, x))", ""),
        ("def f(x):\n    bandit = np.exp(x)\n    return bandit", ""),
        ("f = np.exp", ""),
    ],
)
def test_what_an_answer_borrows_is_named(lines, used):
    losses = bandit.losses
    namespace = {"bandit": bandit, "losses": losses, "np": np, "functools": functools}
    namespace |= {"Group": losses.Group, "Score": losses.Score, "checks": checks}
    namespace |= {"problem": bandit.presets.three_armed_bandit()}
    run("def examine_f(answer): ...", examiner := {"__name__": "ps99_examiner"})
    namespace |= {"examine_f": examiner["examine_f"]}
    run(lines, namespace)
    if not used:
        checks.own(namespace["f"])
        return
    with pytest.raises(AssertionError, match=f" uses {re.escape(used)}, which has the answer"):
        checks.own(namespace["f"])
