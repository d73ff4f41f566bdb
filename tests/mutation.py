"""Do the tests bite? Break the core in small ways, one at a time, and see whether a test fails.

    python tests/mutation.py [--sample N] [--files losses/_blocks problem …] [--seed S] [--jobs N]

Each mutant is one change to one file, made on its syntax tree in a temporary copy of the package:
a sign or an operator flipped, a comparison turned or made (un)strict, a term dropped, a constant
doubled or moved, a result negated, a stop-gradient removed, two arguments or indices swapped, a
condition inverted, a statement deleted. A mutant is killed if any test fails (or hangs).

Left alone, because no numbers depend on them: docstrings and other strings, messages of errors,
annotations, imports and ``__all__``, representations, ``np.errstate`` and default tolerances named
in capital letters at the top of a module.
"""

from __future__ import annotations

import argparse
import ast
import collections
import copy
import difflib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ |= {"HYPOTHESIS_PROFILE": "quick", "PYTHONDONTWRITEBYTECODE": "1"}

# Imported once and inherited by the process of every mutant.
import array_api_compat.torch  # noqa: E402, F401
import array_api_strict  # noqa: E402, F401
import hypothesis.strategies  # noqa: E402, F401
import numpy as np  # noqa: E402, F401
import pytest  # noqa: E402
import scipy.integrate  # noqa: E402
import scipy.optimize  # noqa: E402
import scipy.sparse.csgraph  # noqa: E402
import scipy.special  # noqa: E402, F401
import torch  # noqa: E402, F401

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "bandit"

# The tests that look at a file, the quickest to notice first. A mutant that survives these might be
# killed by the rest of the suite: the share of the killed is a lower bound.
TESTS = {
    "losses/_blocks": ["test_losses", "test_identities"],
    "losses/_contrastive": ["test_losses", "test_identities"],
    "losses/_policy_gradients": ["test_losses", "test_identities"],
    "losses/_preferences": ["test_losses", "test_identities"],
    "losses/_regression": ["test_losses", "test_family"],
    "contract": ["test_losses", "test_groups"],
    "problem": ["test_problem"],
    "groups": ["test_groups", "test_analysis"],
    "expectations": ["test_identities", "test_analysis", "test_solutions"],
    "analysis": ["test_analysis"],
    "solutions/__init__": ["test_identities", "test_solutions"],
    "solutions/_determined": ["test_identities", "test_solutions"],
    "solutions/_searches": ["test_identities", "test_solutions"],
    "solvers": ["test_identities", "test_solutions"],
}
FILES = [name for name in TESTS if (PACKAGE / f"{name}.py").exists()]

OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
COMPARISONS = {
    ast.Lt: [ast.LtE, ast.Gt],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.Lt],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
}
SKIPPED_FUNCTIONS = {"__repr__", "_repr_html_"}
NOT_WORTH = {"errstate", "warn", "TypeVar", "cast"}


class Mutant(NamedTuple):
    """One changed source, and the difference it makes."""

    file: str
    line: int
    what: str
    source: str
    diff: str


# --------------------------------------------------------------------------------- making mutants


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST | None]]:
    """What may stand in place of ``node``; None removes a statement."""
    if isinstance(node, ast.BinOp):
        if type(node.op) in OPERATORS:
            other = copy.deepcopy(node)
            other.op = OPERATORS[type(node.op)]()
            yield "operator", other
        if isinstance(node.op, ast.Add | ast.Sub):
            yield "drop the second term", node.left
            yield "drop the first term", node.right
    elif isinstance(node, ast.UnaryOp):
        if isinstance(node.op, ast.USub | ast.Not | ast.Invert):
            yield "drop a sign", node.operand
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        for operator in COMPARISONS.get(type(node.ops[0]), []):
            other = copy.deepcopy(node)
            other.ops = [operator()]
            yield "comparison", other
    elif isinstance(node, ast.BoolOp):
        other = copy.deepcopy(node)
        other.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and/or", other
    elif isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.Call):
        yield from _calls(node)
    elif isinstance(node, ast.IfExp):
        yield "take the first branch", node.body
        yield "take the second branch", node.orelse
    elif isinstance(node, ast.If):
        other = copy.deepcopy(node)
        other.test = ast.UnaryOp(ast.Not(), other.test)
        yield "invert a condition", other
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.BinOp | ast.Call | ast.Name):
        yield "negate the result", ast.Return(ast.UnaryOp(ast.USub(), copy.deepcopy(node.value)))
    elif isinstance(node, ast.AugAssign):
        if type(node.op) in OPERATORS:
            other = copy.deepcopy(node)
            other.op = OPERATORS[type(node.op)]()
            yield "operator", other
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "delete a statement", None


def _constants(node: ast.Constant) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node.value, bool):
        yield "true/false", ast.Constant(not node.value)
    elif isinstance(node.value, int | float):
        # Index 0 becomes 1 and 1 becomes 2 → "first" and "second" are swapped and missed.
        if isinstance(node.value, int) and node.value in (0, 1):
            yield "constant", ast.Constant(1 - node.value)
        else:
            yield "constant doubled", ast.Constant(2 * node.value)


def _calls(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in ("_hold", "abs", "sqrt", "log", "exp", "expm1", "log1p") and len(node.args) == 1:
        yield f"without {name}", node.args[0]
    if name in ("minimum", "maximum"):
        other = copy.deepcopy(node)
        for part in ast.walk(other.func):
            if isinstance(part, ast.Attribute) and part.attr == name:
                part.attr = {"minimum": "maximum", "maximum": "minimum"}[name]
        yield "minimum/maximum", other
    if (
        name not in ("minimum", "maximum")
        and len(node.args) >= 2
        and not any(isinstance(a, ast.Starred) for a in node.args)
    ):
        other = copy.deepcopy(node)
        i = 1 if name == "where" else 0
        if i + 1 < len(other.args):
            other.args[i], other.args[i + 1] = other.args[i + 1], other.args[i]
            yield "swap arguments", other


def mutants_of(file: str) -> list[Mutant]:
    """Every mutant of one file that differs from it."""
    source = (PACKAGE / f"{file}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    plain = ast.unparse(tree)
    found, seen = [], {plain}
    for place, node in enumerate(_worth_changing(tree)):
        for kind, (what, _) in enumerate(changes(node)):
            changed = copy.deepcopy(tree)
            target = list(_worth_changing(changed))[place]
            _replace(changed, target, list(changes(target))[kind][1])
            text = ast.unparse(ast.fix_missing_locations(changed))
            if text in seen:
                continue
            seen.add(text)
            diff = "\n".join(
                line
                for line in difflib.unified_diff(
                    plain.splitlines(), text.splitlines(), lineterm="", n=0
                )
                if not line.startswith(("---", "+++", "@@"))
            )
            found.append(Mutant(file, getattr(node, "lineno", 0), what, text, diff))
    return found


def _worth_changing(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes numbers depend on, in a fixed order."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _left_alone(node, child):
                continue
            yield child
            yield from _worth_changing(child)


def _left_alone(parent: ast.AST, child: ast.AST) -> bool:
    if isinstance(child, ast.Raise | ast.Import | ast.ImportFrom | ast.JoinedStr):
        return True
    if isinstance(child, ast.FunctionDef) and child.name in SKIPPED_FUNCTIONS:
        return True
    if isinstance(child, ast.Constant) and isinstance(child.value, str | type(None)):
        return True
    if isinstance(child, ast.Call):
        function = child.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        return name in NOT_WORTH
    if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
        return True
    if isinstance(parent, ast.Module) and isinstance(child, ast.Assign | ast.AnnAssign):
        targets = child.targets if isinstance(child, ast.Assign) else [child.target]
        return all(isinstance(t, ast.Name) and t.id.strip("_").isupper() for t in targets)
    # ``keepdims``, ``strict`` and the like are about shapes and checked by any failure to run.
    return isinstance(child, ast.keyword) and child.arg in ("strict", "copy", "stacklevel", "dtype")


def _replace(tree: ast.AST, target: ast.AST, new: ast.AST | None) -> None:
    for node in ast.walk(tree):
        for field, value in ast.iter_fields(node):
            if value is target:
                setattr(node, field, new)
                return
            if isinstance(value, list) and any(item is target for item in value):
                at = next(i for i, item in enumerate(value) if item is target)
                value[at] = ast.Pass() if new is None else new
                return


# -------------------------------------------------------------------------------- running the tests


def start(mutant: Mutant, folder: str) -> int:
    """Begin the tests of a mutant in a copy of the package; the process that runs them."""
    ignore = shutil.ignore_patterns("__pycache__", "llm", "bench")
    for name in ("bandit", "tests"):
        shutil.copytree(ROOT / name, Path(folder) / name, ignore=ignore)
    (Path(folder) / "bandit" / f"{mutant.file}.py").write_text(mutant.source, encoding="utf-8")
    shutil.copy(ROOT / "pyproject.toml", folder)
    process = os.fork()
    if process:
        return process
    # In the child: what is slow to import has been, and the package itself has not.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.chdir(folder)
    sys.path[:0] = [folder, str(Path(folder) / "tests")]
    options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    code = 1
    try:
        code = int(pytest.main([*options, *(f"tests/{t}.py" for t in TESTS[mutant.file])]))
    finally:
        os._exit(code)


def outcomes(
    mutants: list[Mutant], jobs: int, timeout: float
) -> Iterator[tuple[Mutant, Literal["killed", "survived", "hung"]]]:
    """Every mutant with what became of it, ``jobs`` at a time."""
    waiting, running = list(reversed(mutants)), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            folder = tempfile.TemporaryDirectory()
            mutant = waiting.pop()
            running[start(mutant, folder.name)] = mutant, folder, time.monotonic()
        for process, (mutant, folder, since) in list(running.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            late = time.monotonic() - since > timeout
            if not ended and late:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
            if ended or late:
                del running[process]
                folder.cleanup()
                fate = "hung" if not ended else "survived" if status == 0 else "killed"
                yield mutant, fate
        time.sleep(0.05)


def run(mutants: list[Mutant], jobs: int, timeout: float) -> None:
    """Print each survivor as it is found, and the count for each file at the end."""
    count: collections.Counter[tuple[str, str]] = collections.Counter()
    for mutant, fate in outcomes(mutants, jobs, timeout):
        count[mutant.file, fate] += 1
        if fate != "killed":
            print(
                f"{fate}: {mutant.file}.py:{mutant.line} ({mutant.what})\n{mutant.diff}\n",
                flush=True,
            )
    for file in sorted({mutant.file for mutant in mutants}):
        dead, hung, alive = (count[file, fate] for fate in ("killed", "hung", "survived"))
        print(
            f"{file:14s} {dead:4d} killed, {hung} hung, {alive} survived of {dead + hung + alive}"
        )
    dead = sum(number for (_, fate), number in count.items() if fate != "survived")
    print(f"{'all':14s} {dead} of {count.total()}: {100 * dead / max(1, count.total()):.1f} %")


def main() -> None:
    """Parse the options, check that the tests pass unbroken, and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, help="this many mutants, drawn at random")
    parser.add_argument("--files", nargs="+", choices=FILES, default=FILES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one mutant")
    parser.add_argument("--list", action="store_true", help="only count the mutants")
    options = parser.parse_args()
    mutants = [mutant for file in options.files for mutant in mutants_of(file)]
    if options.sample is not None and options.sample < len(mutants):
        mutants = random.Random(options.seed).sample(mutants, options.sample)
        mutants.sort(key=lambda mutant: (FILES.index(mutant.file), mutant.line))
    if options.list:
        print(collections.Counter(mutant.file for mutant in mutants))
        return
    whole = [
        Mutant(file, 0, "none", (PACKAGE / f"{file}.py").read_text(encoding="utf-8"), "")
        for file in options.files
    ]
    for mutant, fate in outcomes(whole, options.jobs, options.timeout):
        if fate != "survived":
            sys.exit(f"the tests of {mutant.file}.py fail, or are too slow, on the code as it is")
    run(mutants, options.jobs, options.timeout)


if __name__ == "__main__":
    main()
