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
MODULES |= {"urllib.request", "http.client", "ftplib", "urllib3", "aiohttp", "fsspec"}
MODULES |= {"huggingface_hub", "dbm", "asyncio"}
SETTINGS = {("trust_remote_code", True), ("allow_pickle", True), ("weights_only", False)}
# Of other libraries, what pickles or unpickles under another name.
CALLS = {"read_pickle", "to_pickle", "urlopen", "urlretrieve", "snapshot_download"}
CALLS |= {"torch.load", "torch.save", "joblib.load", "joblib.dump", "yaml.load"}


def forbidden(tree: ast.AST) -> list[str]:
    """Imports, keywords and calls that would pickle, run foreign code or ask for a network."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            found += sorted(MODULES.intersection(names))
        elif isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            found += [str(node.arg)] * ((node.arg, node.value.value) in SETTINGS)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found += [node.func.id] * (node.func.id in ("eval", "exec", "__import__", *CALLS))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func)
            found += [called] * (called in CALLS or node.func.attr in CALLS)
            if node.func.attr == "import_module" and isinstance(node.args[0], ast.Constant):
                found += [node.args[0].value] * (node.args[0].value in MODULES)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_is_pickled_and_no_code_is_fetched(path):
    assert not forbidden(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import numpy, pickle as p",
        "from urllib.request import urlopen",
        "from urllib import request",
        "from http import client",
        "eval('1')",
        "__import__('pickle')",
        "importlib.import_module('pickle')",
        "load(x, allow_pickle=True)",
        "torch.load(path)",
        "frame.to_pickle(path)",
        "from pandas import read_pickle\nread_pickle(path)",
    ],
)
def test_the_search_finds_what_it_looks_for(source):
    assert forbidden(ast.parse(source))


@pytest.mark.parametrize(
    "source",
    ["import json", "from urllib.parse import quote", "np.load(path, allow_pickle=False)", "f(1)"],
)
def test_the_search_finds_nothing_else(source):
    assert not forbidden(ast.parse(source))


OFFLINE = """
import socket, sys

def refuse(*args, **kwargs):
    raise AssertionError("a network was asked for")

for name in ("connect", "connect_ex", "sendto", "bind"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.gethostbyname = refuse
sys.argv[1:] = {arguments!r}
from bandit.cli import main
sys.exit(main())
"""


def offline(code: str, folder: Path) -> subprocess.CompletedProcess:
    """A new Python, warnings errors, in which whoever asks for a network ends."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(SOURCES[0].parents[1])},
    )


@pytest.mark.parametrize(
    "arguments",
    [
        "selftest",
        "compare",
        "train --steps 3 --runs 2",
        "verify copg --quick",
        "sweep --out results --methods copg --beta 0.5 1",
        "fit --example open-bandit --campaign men --logger random --beta 0.01",
    ],
)
def test_no_network_is_asked_for(arguments, tmp_path):
    done = offline(OFFLINE.format(arguments=arguments.split()), tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


@pytest.mark.parametrize(
    "asking",
    [
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')",
        "socket.create_connection(('127.0.0.1', 9))",
        "socket.socket().connect_ex(('127.0.0.1', 9))",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('127.0.0.1', 9))",
    ],
)
def test_whoever_asks_for_a_network_is_caught(asking, tmp_path):
    code = OFFLINE.partition("sys.argv")[0] + asking
    done = offline(code, tmp_path)
    assert done.returncode
    assert "a network was asked for" in done.stderr
