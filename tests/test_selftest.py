"""The check of an installation passes here, and fails where something is wrong."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bandit import cli, losses, selftest
from bandit.losses import Score


def test_all_is_well_here():
    outcomes = selftest.run()
    assert [one.name for one in outcomes] == list(selftest.CHECKS)
    assert all(one.passed for one in outcomes), selftest.report(outcomes)


def test_command_reports_every_check(capsys):
    assert cli.main(["selftest"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("copg-bandit ")
    assert [line[:2] for line in lines[1:]] == ["ok"] * len(selftest.CHECKS)


@pytest.mark.parametrize(
    ("mend", "failing"),
    [
        (lambda score: Score(score.value, -score.weight), "weights"),
        (lambda score: Score(score.value, score.weight + 1e-3), "off-policy solution"),
    ],
)
def test_a_wrong_loss_is_noticed(mend, failing, monkeypatch, capsys):
    right = losses.copg

    def wrong(group, *, beta):
        return mend(right(group, beta=beta))

    wrong.traits = losses.traits(right)
    monkeypatch.setattr(losses, "copg", wrong)
    monkeypatch.setattr(losses, "REGISTRY", {"copg": wrong})
    # Solved by descent along a sign that is wrong, there may be no solution at all.
    monkeypatch.setattr(
        selftest, "CHECKS", {name: selftest.CHECKS[name] for name in ("weights", failing)}
    )
    assert cli.main(["selftest"]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED")]
    assert any(failing in line for line in failed)


def test_a_check_that_breaks_is_an_outcome(monkeypatch):
    def broken():
        raise RuntimeError("no table\nand more")

    monkeypatch.setattr(selftest, "CHECKS", {"shipped tables": (broken, 1.0)})
    (outcome,) = selftest.run()
    assert not outcome.passed
    assert outcome.problem == "RuntimeError: no table"
    assert "FAILED" in selftest.report([outcome])


def test_an_error_that_is_no_number_does_not_pass():
    assert not selftest.Outcome("x", float("nan"), 1.0).passed
    assert selftest.Outcome("x", 1.0, 1.0).passed


# ----------------------------------------------------------------------- what nothing here does

SOURCES = sorted(Path(cli.__file__).parent.rglob("*.py"))


MODULES = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "requests", "httpx", "socket"}
MODULES |= {"urllib.request", "http.client", "ftplib"}
SETTINGS = {("trust_remote_code", True), ("allow_pickle", True), ("weights_only", False)}


def forbidden(tree: ast.AST) -> list[str]:
    """Imports, keywords and calls that would pickle, run foreign code or ask for a network."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            found += [str(node.arg)] * ((node.arg, node.value.value) in SETTINGS)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found += [node.func.id] * (node.func.id in ("eval", "exec"))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_is_pickled_and_no_code_is_fetched(path):
    assert not forbidden(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from urllib.request import urlopen",
        "eval('1')",
        "load(x, allow_pickle=True)",
    ],
)
def test_the_search_finds_what_it_looks_for(source):
    assert forbidden(ast.parse(source))


OFFLINE = """
import socket, sys

def refuse(*args, **kwargs):
    raise AssertionError("a network was asked for")

socket.socket.connect = refuse
socket.getaddrinfo = refuse
sys.argv[1:] = {arguments!r}
from bandit.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    "arguments", [["selftest"], ["compare"], ["train", "--steps", "3", "--runs", "2"]]
)
def test_no_network_is_asked_for(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", OFFLINE.format(arguments=arguments)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(SOURCES[0].parents[1])},
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
