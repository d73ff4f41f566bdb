"""The package as it is installed: what it loads, what it ships, what it says of itself."""

from __future__ import annotations

import ast
import graphlib
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bandit

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = {"numpy", "scipy", "matplotlib", "pandas", "tqdm", "array-api-compat"}

# ------------------------------------------------------------------------------ what it loads

LOADED = """
import sys
before = set(sys.modules)
{statement}
print(" ".join(sorted({{name.partition(".")[0] for name in set(sys.modules) - before}})))
"""


def loaded_by(statement: str) -> set[str]:
    run = [sys.executable, "-c", LOADED.format(statement=statement)]
    return set(subprocess.run(run, capture_output=True, text=True, check=True).stdout.split())


def test_import_loads_nothing_heavy():
    loaded = loaded_by("import bandit")
    assert {"bandit", "numpy", "scipy"} <= loaded
    assert not loaded & {"matplotlib", "pandas", "torch", "jax", "tqdm", "joblib", "IPython"}


def test_exact_analysis_and_training_load_no_pictures_and_no_tables():
    statement = (
        "import bandit; problem = bandit.Bandit([1.0, 0.0], 0.5);"
        "nu = bandit.pairs.independent([0.3, 0.7]);"
        "bandit.analysis.solve(problem, bandit.losses.copg, nu);"
        "bandit.train(problem, bandit.losses.copg, pairs=nu, batch_size=4, steps=3,"
        " optimizer=bandit.SGD(0.1), rng=0)"
    )
    assert not loaded_by(statement) & {"matplotlib", "pandas", "torch", "jax", "tqdm"}


def test_plots_load_when_used():
    assert "matplotlib" in loaded_by("import bandit; bandit.plots")


# -------------------------------------------------------------------------------- public names

NAMES = {
    "bandit": "Bandit LogLinear Adam SGD History Fit fit train analysis data explorer losses "
    "offline ope pairs pessimism plots preferences presets related sweep sweeps verify",
    "bandit.sweeps": "sweep load RESULTS",
    "bandit.data": "Log Counts read_csv read_parquet count_csv count_parquet from_dataframe "
    "from_counts count split open_bandit rock_paper_scissors digits semi_synthetic",
    "bandit.ope": "Estimate ipw self_normalized_ipw direct_method doubly_robust "
    "self_normalized_doubly_robust switch_doubly_robust optimistic_doubly_robust clipped_ipw slope "
    "bootstrap empirical_bernstein clopper_pearson evaluate table cell_means LowOverlapWarning "
    "PropensityWarning",
    "bandit.explorer": "Choice View explore draw app",
    "bandit.losses": "Group Score REGISTRY get traits copg ipo dpo slic policy_gradient "
    "importance_sampling ppo_clip clipped_objective rloo grpo rebel log_variance reward_weighted "
    "value_regression trajectory_balance pmd_mean asymmetric_reinforce dpo_with_data_term",
    "bandit.pairs": "independent from_counts components Pairs",
    "bandit.related.forward_kl": "optimal_policy objective loss",
    "bandit.related.nash": "equilibrium nash_md exploitability win_rate Equilibrium NashHistory",
    "bandit.related.reward_learning": "RewardModel relearn_on_policy over_optimization "
    "synthetic_wins example",
    "bandit.related.family": "SCALES mirror_descent greedy_policy joint_solution value_estimates "
    "descend_on_stale_data",
    "bandit.preferences": "bradley_terry deterministic from_counts",
    "bandit.analysis": "population covariance gradient_variance solve compare Solution",
    "bandit.presets": "METHODS Method method three_armed_bandit three_armed_behavior",
    "bandit.related": "active_sampling deterministic family forward_kl nash reward_learning "
    "zeroth_order",
    "bandit.related.active_sampling": "ActiveRun advantage defensive estimate_behavior "
    "optimal_behavior optimize variance",
    "bandit.related.deterministic": "ActionProblem Course GaussianActionPolicy "
    "ParameterNoisePolicy optimize quadratic skewed_peak",
    "bandit.related.zeroth_order": "limit_policy link_inverse_mean mean_gradient optimize "
    "variance zeroth_order_gradient",
    "bandit.plots": "simplex_flow regret_curves policy_bars reward_kl_front",
    "bandit.verification": "verify Report Finding Example CHECKS",
    "bandit.verification.drafts": "bounded_contrast forgotten_axis mean_reward_baseline wrong_sign",
}
MODULES = sorted(
    name
    for _, name, _ in pkgutil.iter_modules(bandit.__path__, prefix="bandit.")
    if not name.rpartition(".")[2].startswith("_")
)


@pytest.mark.parametrize("module", NAMES)
def test_promised_names_are_there(module):
    for name in NAMES[module].split():
        assert hasattr(importlib.import_module(module), name), name


def test_all_is_complete_and_true():
    assert sorted(bandit.__all__) == sorted(NAMES["bandit"].split())
    assert set(bandit.__all__) <= set(dir(bandit))
    with pytest.raises(AttributeError, match="no attribute 'plot'"):
        _ = bandit.plot  # type: ignore[attr-defined]


def public_members() -> dict[str, object]:
    """Functions, classes and their methods that are defined in public modules."""
    found: dict[str, object] = {}
    for module in map(importlib.import_module, MODULES):
        for name, member in vars(module).items():
            if name.startswith("_") or getattr(member, "__module__", "") != module.__name__:
                continue
            if inspect.isclass(member):
                for below, method in vars(member).items():
                    function = getattr(method, "__func__", method)
                    if inspect.isfunction(function) and not below.startswith("_"):
                        found[f"{module.__name__}.{name}.{below}"] = function
            if inspect.isclass(member) or inspect.isfunction(member):
                found[f"{module.__name__}.{name}"] = member
    return found


MEMBERS = public_members()
SECTIONS = {
    "Parameters",
    "Returns",
    "Yields",
    "Raises",
    "Warns",
    "Attributes",
    "Notes",
    "References",
    "Examples",
    "See Also",
}


def sections(docstring: str) -> dict[str, str]:
    """A numpydoc docstring by its underlined headings."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", docstring, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented_names(section: str) -> list[str]:
    heads = re.findall(r"^(\S.*?)(?: : .*)?$", section, flags=re.MULTILINE)
    return [name.lstrip("*") for head in heads for name in re.split(r",\s*", head)]


def test_the_members_are_found():
    assert {"bandit.losses.copg", "bandit.problem.Bandit.regret", "bandit.cli.main"} <= set(MEMBERS)
    assert len(MEMBERS) > 60


@pytest.mark.parametrize("name", MEMBERS)
def test_docstring_is_numpydoc(name):
    docstring = inspect.getdoc(MEMBERS[name])
    assert docstring, "no docstring"
    assert re.match(r"\S", docstring)
    found = sections(docstring)
    assert set(found) <= SECTIONS
    if "Parameters" in found:
        parameters = [p for p in inspect.signature(MEMBERS[name]).parameters if p != "self"]
        documented = documented_names(found["Parameters"])
        assert set(documented) <= set(parameters)
        assert [p for p in parameters if p in documented] == documented, "another order"


@pytest.mark.parametrize("module", MODULES)
def test_modules_say_what_they_are(module):
    assert importlib.import_module(module).__doc__


@pytest.mark.parametrize(
    "name",
    [
        *(f"bandit.losses.{name}" for name in bandit.losses.REGISTRY),
        "bandit.problem.Bandit",
        "bandit.training.train",
        "bandit.sweeps.sweep",
        "bandit.analysis.population",
        "bandit.analysis.compare",
        "bandit.pairs.independent",
        "bandit.plots.simplex_flow",
        "bandit.plots.regret_curves",
        "bandit.plots.policy_bars",
        "bandit.plots.reward_kl_front",
        "bandit.verification.verify",
    ],
)
def test_every_parameter_of_what_users_call_is_documented(name):
    documented = documented_names(sections(inspect.getdoc(MEMBERS[name]) or "")["Parameters"])
    parameters = inspect.signature(MEMBERS[name]).parameters
    assert documented == [p for p in parameters if p != "self"]


# ---------------------------------------------------------------------------- how it is built

SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "bandit").rglob("*.py")
}


def imported(module: str) -> set[str]:
    """The modules of the package that one names, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(SOURCES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in SOURCES else str(node.module) for name in inside}
    # The version stands in the package itself.
    return (found & set(SOURCES)) - {"bandit"}


def test_imports_go_one_way():
    order = graphlib.TopologicalSorter({name: imported(name) for name in SOURCES})
    assert "bandit.problem" in imported("bandit.pessimism") | imported("bandit.solutions")
    order.prepare()  # raises a CycleError that names the circle


def test_a_module_is_one_sitting():
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in SOURCES.items()}
    assert {name for name, count in lines.items() if count > 400} == set()


# -------------------------------------------------------------------------- what it says of itself


def test_the_version_has_one_source():
    assert importlib.metadata.version("copg-bandit") == bandit.__version__
    assert "version" in PROJECT["dynamic"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, flags=re.MULTILINE) == [bandit.__version__]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(bandit.__version__)}\]", changes, flags=re.MULTILINE)


def test_license_is_apache():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.lstrip().startswith("Apache License")
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["license"] == "Apache-2.0"


def test_there_is_no_command():
    assert list(importlib.metadata.distribution("copg-bandit").entry_points) == []
    assert not {"scripts", "gui-scripts", "entry-points"} & set(PROJECT)


def test_core_dependencies_are_few():
    assert {Requirement(text).name for text in PROJECT["dependencies"]} == CORE


def test_ruff_before_a_commit_is_the_pinned_one():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (version,) = re.findall(r"rev: v(\S+)", hooks)
    assert f"\nruff=={version}\n" in pinned


def test_every_requirement_is_pinned_once_within_its_bounds():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    versions = {canonicalize_name(name): version for name, version in (p.split("==") for p in pins)}
    assert len(versions) == len(pins)
    extras = [text for extra in PROJECT["optional-dependencies"].values() for text in extra]
    for requirement in map(Requirement, [*PROJECT["dependencies"], *extras]):
        if requirement.name != "copg-bandit":
            assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The package built from a copy of its sources, without asking anything of a network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(
        ROOT / "bandit", source / "bandit", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*pip, "--wheel-dir", str(folder), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


@pytest.mark.slow
def test_wheel_ships_every_file_of_the_package(wheel):
    names = set(wheel.namelist())
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "bandit").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"bandit/py.typed", "bandit/bandit.mplstyle", "bandit/losses/__init__.py"} <= sources
    shipped = {name for name in names if ".dist-info/" not in name}
    assert shipped == sources
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.endswith("entry_points.txt") for name in names)


@pytest.mark.slow
def test_source_archive_builds_installs_and_passes_its_selftest(tmp_path):
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "results")
    shutil.copytree(ROOT, source, ignore=ignored)
    build = "import sys, setuptools.build_meta as b; b.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, tmp_path], cwd=source, check=True)
    (archive,) = tmp_path.glob("copg_bandit-*.tar.gz")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation"]
    pip += ["--no-index", "--quiet", "--target", str(tmp_path / "installed"), str(archive)]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = [sys.executable, "-W", "error", "-m", "bandit", "selftest"]
    # The folder that it is run from comes first on Python's path.
    done = subprocess.run(run, cwd=tmp_path / "installed", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_wheel_is_called_copg_bandit(wheel):
    metadata = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    text = wheel.read(metadata).decode()
    assert "\nName: copg-bandit\n" in text
    assert f"\nVersion: {bandit.__version__}\n" in text
    assert "\nLicense-Expression: Apache-2.0\n" in text
    assert "\nRequires-Python: >=3.11\n" in text


# --------------------------------------------------------------------------- the tests' settings


def test_warnings_are_errors_here():
    with pytest.raises(UserWarning, match="careful"):
        warnings.warn("careful", stacklevel=1)


def test_settings_of_the_project_are_the_ones_in_force(pytestconfig):
    assert pytestconfig.inipath == ROOT / "pyproject.toml"
    assert pytestconfig.getini("filterwarnings") == ["error"]
    assert pytestconfig.option.strict_markers
    assert pytestconfig.option.strict_config
    assert "tests/bench" in pytestconfig.option.ignore
