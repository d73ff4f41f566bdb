"""The tests with every supported Python, and with the newest and the lowest dependencies.

``make test-matrix``, or ``python tests/matrix.py --pythons 3.11 3.13 --dependencies lowest``. Every
environment is made anew under ``build/matrix``; a Python that is not there is said to be missing,
and that is a failure. The newest dependencies are the pins of ``constraints.txt``. The lowest are
the lower bounds of ``pyproject.toml``, with the pins for whatever has no bound there.

Without ``--torch``, what needs torch is left out: builds of it are large, and not every index has
one for every Python. With it the pinned version is installed, also among the lowest dependencies.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
DEPENDENCIES = ("newest", "lowest")
# What is tested without torch: all but language models, and what shows them to readers.
NEEDS_TORCH = tuple(
    f"tests/{name}"
    for name in (
        "llm",
        "test_arrays.py",
        "test_figures.py",
        "test_notebooks.py",
        "test_package.py",
        "test_readme.py",
        "test_site.py",
    )
)
# Pictures and tables are compared as the pinned versions render them.
NEEDS_PINS = ("tests/test_notebooks.py", "tests/test_figures.py", "tests/test_baselines.py")
TOOLS = ("array-api-strict", "hypothesis", "ipykernel", "nbclient", "nbformat", "pytest")
TOOLS += ("pytest-mpl", "pytest-xdist", "setuptools")
# What the lowest dependencies need of an age with them: matplotlib used names of pyparsing that the
# newest releases warn of, and warnings are errors here.
OF_THEIR_AGE = {"pyparsing": "3.1.2"}


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    """Distribution → version, from constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonical(name): version for name, version in found}


def lower_bounds() -> dict[str, str]:
    """Distribution → least version, of the dependencies of the package and of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["data"], *extras["sweep"]]
    asked += extras["llm"]
    found = (re.fullmatch(r"([\w.-]+)>=([\w.]+).*", text) for text in asked)
    return {canonical(match[1]): match[2] for match in found if match and match[1] != "torch"}


def constraints(dependencies: str) -> str:
    """The text of a constraints file."""
    versions = pins()
    if dependencies == "lowest":
        versions |= lower_bounds() | OF_THEIR_AGE
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))


def install(python: str, dependencies: str, torch: bool) -> Path:
    """A new environment with the package from these sources; its interpreter."""
    folder = ROOT / "build" / "matrix" / f"{python}-{dependencies}"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([f"python{python}", "-m", "venv", folder], check=True)
    (folder / "constraints.txt").write_text(constraints(dependencies), encoding="utf-8")
    interpreter = folder / "bin" / "python"
    pip = [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["-c", folder / "constraints.txt"]
    if torch:
        subprocess.run([*pip, f"torch=={pins()['torch']}"], check=True)
        subprocess.run([*pip, f"{ROOT}[test]"], check=True)
    else:
        subprocess.run([*pip, f"{ROOT}[data,sweep]", *TOOLS], check=True)
    return interpreter


def run(python: str, dependencies: str, torch: bool, options: list[str]) -> bool:
    """Whether the tests pass."""
    if shutil.which(f"python{python}") is None:
        print(f"python{python}: not found")
        return False
    interpreter = install(python, dependencies, torch)
    # From elsewhere, so that it is the installed package that is checked and not the sources.
    check = [interpreter, "-W", "error", "-m", "bandit", "selftest"]
    if subprocess.run(check, cwd=interpreter.parent).returncode:
        return False
    left_out = [f"--ignore={path}" for path in NEEDS_TORCH if not torch]
    left_out += [f"--ignore={path}" for path in NEEDS_PINS if dependencies == "lowest"]
    tests = [interpreter, "-m", "pytest", "-q", *left_out, *options]
    return subprocess.run(tests, cwd=ROOT).returncode == 0


def main() -> int:
    """Run what was asked for, and say at the end what passed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pythons", nargs="+", default=PYTHONS, metavar="VERSION")
    parser.add_argument("--dependencies", nargs="+", choices=DEPENDENCIES, default=DEPENDENCIES)
    parser.add_argument("--torch", action="store_true", help="with torch and language models")
    options, tests = parser.parse_known_args()
    passed = {
        (python, which): run(python, which, options.torch, tests)
        for python in options.pythons
        for which in options.dependencies
        # The lowest dependencies have builds for the lowest Python only.
        if which == "newest" or python == min(options.pythons)
    }
    for (python, which), well in passed.items():
        print(f"Python {python}, {which} dependencies: {'passed' if well else 'FAILED'}")
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
