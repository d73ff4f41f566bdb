"""From what the sliders say to every number that the explorer shows; nothing is sampled.

Letters: ``N`` policies of the grid, ``T`` = :data:`STEPS` + 1 policies along a descent, ``S``
policies to start from.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from bandit import flow, presets
from bandit._checks import Array
from bandit.analysis import NotIdentifiedWarning, Solution, solve
from bandit.cases import reads_preferences
from bandit.pairs import Pairs, independent
from bandit.preferences import bradley_terry, deterministic
from bandit.presets import Method
from bandit.problem import Bandit

STEPS = 300
RESOLUTION = 11
# Where descents begin besides π_ref: close to the corners and in the middle of the sides.
STARTS = np.array(
    [
        [0.94, 0.03, 0.03],
        [0.03, 0.94, 0.03],
        [0.03, 0.03, 0.94],
        [0.03, 0.485, 0.485],
        [0.485, 0.03, 0.485],
        [0.485, 0.485, 0.03],
    ]
)
# Arm 1 beats arm 2, which beats arm 3, which beats arm 1, four times out of five each.
CYCLE = np.array([[0.5, 0.8, 0.2], [0.2, 0.5, 0.8], [0.8, 0.2, 0.5]])
PREFERENCES: Mapping[str, str] = MappingProxyType(
    {
        "bradley-terry": "Bradley–Terry",
        "deterministic": "the better always wins",
        "cycle": "a cycle, 1 ≻ 2 ≻ 3 ≻ 1",
    }
)
"""Kind of preferences → how it is called."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the sliders say.

    Parameters
    ----------
    reward : three floats
    beta : float
        Above 0, in units of reward.
    reference, behavior : three floats
        Shares of the arms in π_ref and μ, to be divided by their sum: above 0 for π_ref, at least 0
        for μ.
    method : str
        A name of ``bandit.presets.METHODS``.
    preferences : {"bradley-terry", "deterministic", "cycle"}
        Read by methods that learn from preferences.
    learning_rate : float
        Of gradient descent, above 0.
    """

    reward: tuple[float, ...] = (2.5, 2.0, 1.0)
    beta: float = 0.5
    reference: tuple[float, ...] = (1.0, 1.0, 1.0)
    behavior: tuple[float, ...] = (1.0, 2.0, 7.0)
    method: str = "copg"
    preferences: str = "bradley-terry"
    learning_rate: float = 0.3


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """What there is to show of a choice.

    Attributes
    ----------
    choice : Choice
    problem : Bandit
    behavior : ndarray (3,)
        μ.
    grid, velocity : ndarray (N, 3)
        Policies, and how fast each probability changes there under gradient flow.
    paths : ndarray (T, S, 3)
        Gradient descent on the expected loss, from π_ref first; NaN where it left float64.
    regret : ndarray (T,)
        Of the descent from π_ref, in units of reward.
    solution : Solution or None
        Where the method comes to rest; None as long as it was not looked for.
    """

    choice: Choice
    problem: Bandit
    behavior: Array
    grid: Array
    velocity: Array
    paths: Array
    regret: Array
    solution: Solution | None

    @property
    def method(self) -> Method:
        """The method's entry in ``bandit.presets.METHODS``."""
        return presets.method(self.choice.method)

    @property
    def pairs(self) -> Pairs:
        """Both arms of a pair drawn from μ."""
        return independent(self.behavior)

    @property
    def data(self) -> dict[str, Any]:
        """What the method needs besides: its baseline, or preferences."""
        if not reads_preferences(self.method):
            return {"baseline": self.method.baseline}
        return {"preference": preference_of(self.choice)}

    @property
    def settled(self) -> Solution | None:
        """The solution, if there is one and the data determine it."""
        return self.solution if self.solution is not None and self.solution.converged else None

    @property
    def stable_rate(self) -> float:
        """The learning rate below which descent settles close to the solution; NaN if unknown."""
        if self.settled is None:
            return float("nan")
        values = np.asarray(self.settled.eigenvalues)[1:]
        if not np.isfinite(values).all() or (values.real >= 0).any():
            return float("nan")
        # |1 + ηλ| < 1, also for a pair of complex λ.
        return float((-2 * values.real / np.abs(values) ** 2).min())

    def searched(self) -> View:
        """The same with its solution looked for."""
        if self.solution is not None:
            return self
        with warnings.catch_warnings():
            # What the warning would say is on the page.
            warnings.simplefilter("ignore", NotIdentifiedWarning)
            found = solve(self.problem, self.method.loss, self.pairs, **self.data)
        return dataclasses.replace(self, solution=found)


def preference_of(choice: Choice) -> Array:
    """P(y ≻ y') of the chosen kind, (3, 3); a ValueError for other kinds."""
    if choice.preferences not in PREFERENCES:
        kinds = ", ".join(PREFERENCES)
        raise ValueError(f"preferences: expected one of {kinds}; got {choice.preferences!r}")
    if choice.preferences == "cycle":
        return CYCLE
    kind = bradley_terry if choice.preferences == "bradley-terry" else deterministic
    return kind(np.array(choice.reward))


def explore(choice: Choice, *, search: bool = True) -> View:
    """Compute what there is to show.

    Parameters
    ----------
    choice : Choice
    search : bool
        Whether to look for the solution, too.

    Returns
    -------
    View

    Raises
    ------
    ValueError
        One line, for sliders that make no problem: shares that are all 0, an unknown method.
    """
    behavior = shares("behavior", choice.behavior)
    problem = Bandit(choice.reward, choice.beta, shares("reference", choice.reference))
    empty = np.empty(0)
    grid = flow.simplex_grid(RESOLUTION)
    view = View(choice, problem, behavior, grid, empty, empty, empty, None)
    loss, pairs = view.method.loss, view.pairs
    start = np.concatenate([problem.reference[None], STARTS])
    paths = flow.gradient_descent(
        problem,
        loss,
        start,
        pairs,
        learning_rate=choice.learning_rate,
        steps=STEPS,
        **view.data,
    )
    view = dataclasses.replace(
        view,
        velocity=flow.policy_velocity(problem, loss, grid, pairs, **view.data),
        paths=paths,
        regret=regret_of(problem, paths[:, 0]),
    )
    return view.searched() if search else view


def shares(name: str, given: tuple[float, ...]) -> Array:
    """Probabilities from shares that need not sum to 1."""
    weights = np.array(given, dtype=float)
    if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.sum() > 0):
        raise ValueError(f"{name}: expected shares of at least 0, and one above 0, got {given}")
    return weights / weights.sum()


def regret_of(problem: Bandit, policies: Array) -> Array:
    """J(π*) − J(π) of policies (T, 3); NaN stays NaN."""
    known = np.isfinite(policies).all(axis=-1)
    regret = np.full(len(policies), np.nan)
    regret[known] = problem.regret(policies[known])
    return regret
