"""From the description of a sweep to its cells, and from a cell to its rows.

A cell is one problem, one method and one point of the grid. Its random numbers are told by the
sweep's seed and by what the cell is, never by where it stands: a cell added elsewhere changes
nothing here, and neither does who computes it, or when.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

import bandit
from bandit import analysis, cases, losses
from bandit.losses import Loss
from bandit.optimizers import SGD, Adam
from bandit.presets import Method
from bandit.problem import Bandit
from bandit.sweeps import descriptions, grids
from bandit.training import train

Columns = dict[str, Any]
"""Name → array or list, all of one length: rows of a table."""

EXACT = {
    "exact_regret": np.float64,
    "exact_kl_to_optimal": np.float64,
    "slowest_eigenvalue": np.float64,
    "variance_at_reference": np.float64,
    "variance_at_solution": np.float64,
    "converged": np.bool_,
    "message": str,
}
SAMPLED = ("run", "step", "regret", "kl_to_optimal", "kl", "expected_reward")
RESULTS = frozenset([*EXACT, *SAMPLED])
"""Columns that hold what came out; all others say what went in."""

KEY_LENGTH = 16
# What a training looks at before it draws its first number; a longer one begins like a shorter.
_AFTERWARDS = ("steps", "record_every")


class Cell(NamedTuple):
    """What one call of :func:`run` needs to know."""

    key: str
    labels: dict[str, Any]  # the columns that say what it is
    problem: Bandit
    method: Method
    point: dict[str, Any]  # every setting but β, which is the problem's
    stream: tuple[int, tuple[int, ...]]  # entropy and spawn key of its random numbers
    runs: int
    exact: bool


class Plan(NamedTuple):
    """A sweep, told in full."""

    cells: list[Cell]
    description: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Equal for equal sweeps, and for no others."""
        return descriptions.digest(self.description)


def plan(
    problems: Bandit | Mapping[str, Bandit],
    methods: Iterable[str] | Mapping[str, Method | Loss],
    grid: Mapping[str, Any] | None,
    runs: int,
    seed: int,
    exact: bool,
) -> Plan:
    """All cells in the order of the table: problems, methods, then the settings, the last fastest.

    Parameters
    ----------
    problems, methods, runs, seed, exact
        As :func:`bandit.sweep` takes them.
    grid
        Its ``grids``.
    """
    named = _named_problems(problems)
    known = _by_name("methods", analysis.chosen(methods, True))
    if not known:
        raise ValueError("methods: expected at least one method, got none")
    runs, seed = _whole("runs", runs), _whole("seed", seed)
    if not isinstance(exact, bool):
        raise TypeError(f"exact: expected True or False, got {type(exact).__name__}")
    if not (runs or exact):
        raise ValueError("exact: expected True with runs=0, as nothing is left to compute")
    axes = grids.axes(grid, trained=runs > 0)
    cells = [
        _cell(problem, method, dict(zip(axes, point, strict=True)), (runs, seed, exact))
        for problem in named.items()
        for method in known.items()
        for point in itertools.product(*axes.values())
    ]
    for cell in cells:
        _check(cell)
    description = {
        "problems": descriptions.described("problems", named),
        "methods": descriptions.described("methods", known),
        "grids": {
            name: [[v.label, descriptions.described(name, v.value)] for v in values]
            for name, values in axes.items()
        },
        "runs": runs,
        "seed": seed,
        "exact": exact,
        "version": bandit.__version__,
    }
    return Plan(cells, description)


def _named_problems(problems: Any) -> dict[str, Bandit]:
    named = {"problem": problems} if isinstance(problems, Bandit) else problems
    if not isinstance(named, Mapping) or not named:
        raise TypeError(
            "problems: expected a bandit.Bandit or a mapping from name to one, got "
            f"{'an empty one' if named == {} else type(named).__name__}"
        )
    for name, problem in named.items():
        if not isinstance(problem, Bandit):
            raise TypeError(
                f"problems[{name!r}]: expected a bandit.Bandit, got {type(problem).__name__}"
            )
    return _by_name("problems", named)


def _by_name(argument: str, named: Mapping[Any, Any]) -> dict[str, Any]:
    """The same with strings for names; none of them twice."""
    found = {str(name): one for name, one in named.items()}
    if len(found) < len(named):
        twice = next(n for n in found if sum(str(name) == n for name in named) > 1)
        raise ValueError(f"{argument}: expected different names, got {twice!r} twice")
    return found


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected a whole number, got {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name}: expected a whole number of at least 0, got {value}")
    return int(value)


def _cell(
    problem: tuple[str, Bandit],
    method: tuple[str, Method],
    given: dict[str, grids.Value],
    how: tuple[int, int, bool],
) -> Cell:
    runs, seed, exact = how
    own = problem[1]
    point = {name: setting.default for name, setting in grids.SETTINGS.items()}
    point |= {name: value.value for name, value in given.items()}
    beta = point.pop("beta")
    if beta is not None:
        own = Bandit(own.reward, beta, own.reference, own.context_weights)
    labels = {"problem": problem[0], "method": method[0]}
    labels |= {name: value.label for name, value in given.items()}
    content = {
        "problem": descriptions.described("problems", own),
        "method": descriptions.described(f"methods[{method[0]!r}]", method[1]),
        "point": descriptions.described("grids", point),
    }
    whole = content | {"labels": labels, "runs": runs, "seed": seed, "exact": exact}
    drawn = {k: v for k, v in content["point"].items() if k not in _AFTERWARDS}
    words = np.frombuffer(
        bytes.fromhex(descriptions.digest(content | {"point": drawn})), dtype="<u4"
    )
    return Cell(
        key=descriptions.digest(whole)[:KEY_LENGTH],
        labels=labels,
        problem=own,
        method=method[1],
        point=point,
        stream=(seed, tuple(words.tolist())),
        runs=runs,
        exact=exact,
    )


def name_of(cell: Cell) -> str:
    """A cell in words, for messages."""
    return ", ".join(f"{name} {label}" for name, label in cell.labels.items())


def _check(cell: Cell) -> None:
    """What can be said before hours of work rather than in the midst of them."""
    try:
        pairs = grids.data_of(cell.problem, cell.point["behavior"])
        grids.preference_of(cell.problem, cell.point["preference"])
        least, most = losses.traits(cell.method.loss).sizes
        size = cell.point["group_size"]
        if size < least or (most is not None and size > most):
            raise ValueError(f"group_size: expected {least} to {most or 'any'}, got {size}")
        if pairs is None and not cell.runs:
            raise ValueError("behavior: expected other data than 'policy' with runs=0")
        if pairs is not None and size != 2 and not pairs.is_symmetric_product:
            raise ValueError(f"group_size: expected 2 for pairs that are not alike, got {size}")
    except (ValueError, TypeError) as error:
        raise _in_cell(cell, error) from error


def _in_cell(cell: Cell, error: Exception) -> Exception:
    where = f"(in the cell {name_of(cell)})"
    if type(error) in (ValueError, TypeError):
        return type(error)(f"{error} {where}")
    # Others may be made of more than a text, and belong to a user's loss.
    error.add_note(where)
    return error


# -------------------------------------------------------------------------------- computing one


def run(cell: Cell) -> Columns:
    """The rows of one cell, without what says which cell it is.

    On one thread of linear algebra, so that nothing depends on how many there are.
    """
    from threadpoolctl import threadpool_limits

    reads = "preference" in losses.traits(cell.method.loss).requires
    preference = grids.preference_of(cell.problem, cell.point["preference"]) if reads else None
    pairs = grids.data_of(cell.problem, cell.point["behavior"])
    columns: Columns = {}
    with threadpool_limits(1), warnings.catch_warnings():
        # The rows say themselves what diverged; an interrupt is raised below.
        warnings.filterwarnings("ignore", "train: ", RuntimeWarning)
        try:
            if cell.runs:
                columns = _trained(cell, pairs, preference)
            if cell.exact:
                rows = len(columns["run"]) if columns else 1
                columns |= _exact(cell, pairs, preference, rows)
        except Exception as error:
            told = _in_cell(cell, error)
            if told is error:
                raise
            raise told from error
    return columns


def _trained(cell: Cell, pairs: Any, preference: Any) -> Columns:
    point = cell.point
    optimizer = {"adam": Adam, "sgd": SGD}[point["optimizer"]](point["learning_rate"])
    entropy, spawn_key = cell.stream
    history = train(
        cell.problem,
        cell.method.loss,
        pairs=pairs,
        on_policy=pairs is None,
        preference=preference,
        baseline=cell.method.baseline,
        group_size=point["group_size"],
        batch_size=point["batch_size"],
        steps=point["steps"],
        optimizer=optimizer,
        runs=cell.runs,
        rng=np.random.SeedSequence(entropy, spawn_key=spawn_key),
        record_every=point["record_every"] or point["steps"],
        reward_noise=point["reward_noise"],
    )
    if history.interrupted:
        raise KeyboardInterrupt
    return {
        "run": np.tile(np.arange(cell.runs), len(history.steps)),
        "step": np.repeat(history.steps, cell.runs),
        "regret": history.regret().ravel(),
        "kl_to_optimal": history.kl_to_optimal().ravel(),
        "kl": history.kl().ravel(),
        "expected_reward": history.expected_reward().ravel(),
    }


def _exact(cell: Cell, pairs: Any, preference: Any, rows: int) -> Columns:
    """The exact solution's columns, the same in every row."""
    why = cases.no_exact_solution(cell.method, cell.point["group_size"], cell.point["reward_noise"])
    if pairs is None:
        why = "it learns on its own data"
    if why:
        found = {name: _NOTHING[kind] for name, kind in EXACT.items()} | {"message": why}
    else:
        found = analysis.summary(cell.problem, cell.method, pairs, preference)
        found |= {f"exact_{name}": found[name] for name in ("regret", "kl_to_optimal")}
    return {
        name: [found[name]] * rows if kind is str else np.full(rows, found[name], dtype=kind)
        for name, kind in EXACT.items()
    }


_NOTHING: dict[type, Any] = {np.float64: np.nan, np.bool_: False, str: ""}


def with_labels(cell: Cell, columns: Columns) -> Columns:
    """The rows of a cell with the columns that say which it is in front."""
    rows = len(next(iter(columns.values())))
    return {name: _repeated(label, rows) for name, label in cell.labels.items()} | columns


def _repeated(label: Any, rows: int) -> Any:
    return [label] * rows if isinstance(label, str) else np.full(rows, label)
