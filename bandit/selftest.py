"""A check of an installation: ``python -m bandit selftest``.

Needs nothing but the package and its core dependencies: known values to the last digits, each
answer against another way to it, seeds that mean something, and the shipped tables. It takes a few
seconds and is no substitute for the test suite, which comes with the sources.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import scipy
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

import bandit
from bandit import analysis, losses, pairs, preferences, presets
from bandit.groups import bind
from bandit.losses import Group
from bandit.problem import Bandit


class Outcome(NamedTuple):
    """What came of one check: how far off it was, and how far it may be."""

    name: str
    error: float
    tolerance: float
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is a number within the tolerance."""
        return not self.problem and self.error <= self.tolerance


def _example() -> tuple[Bandit, pairs.Pairs]:
    """Contexts, a reference and a behavior that are not uniform, rewards that are not symmetric."""
    rng = np.random.default_rng(20240619)
    reference, behavior = rng.dirichlet(np.ones(4), size=(2, 3))
    problem = Bandit(rng.gumbel(size=(3, 4)), 0.4, reference, rng.dirichlet(np.ones(3)))
    return problem, pairs.independent(behavior)


def known_values() -> float:
    """Digits of our three-armed bandit: π*, J(π*) and the exact regret of two methods."""
    problem = presets.three_armed_bandit()
    data = pairs.independent(presets.three_armed_behavior())
    preference = preferences.bradley_terry(problem.reward)
    table = analysis.compare(problem, data, ["policy_gradient", "ipo"], preference)
    found = [*problem.optimal_policy(), problem.optimal_value(), *table["regret"]]
    known = [0.70538451, 0.25949646, 0.03511903, 2.12519996405, 0.504511421247, 0.151303088591]
    return float(np.abs(np.subtract(found, known)).max())


def closed_form() -> float:
    """The optimal value against a general-purpose maximizer of the objective."""
    problem, _ = _example()
    shape = problem.shape
    found = minimize(
        lambda x: -problem.objective(softmax(x.reshape(shape), axis=-1)),
        np.zeros(np.prod(shape)),
        method="BFGS",
        options={"gtol": 1e-9},
    )
    return abs(float(problem.optimal_value()) + float(found.fun))


def weights() -> float:
    """Weights against central differences of the value, for every loss that has a gradient."""
    rng = np.random.default_rng(7)
    log_prob, reference, behavior = log_softmax(rng.normal(size=(3, 2)), axis=-1)
    worst, step = 0.0, 1e-6
    for loss in losses.REGISTRY.values():
        if losses.traits(loss).semi_gradient or losses.traits(loss).sizes[0] > 2:
            continue
        bound = bind(loss, presets.three_armed_bandit())
        group = Group(log_prob, reference, np.array([1.3, -0.4]), np.array(0.7), behavior)
        if "baseline" in losses.traits(loss).requires:
            group = group._replace(baseline=np.array(0.2))

        def value(at: np.ndarray, bound: Callable = bound, group: Group = group) -> float:
            return float(bound(group._replace(log_prob=at)).value)

        for i, move in enumerate(np.eye(2) * step):
            slope = (value(log_prob + move) - value(log_prob - move)) / (2 * step)
            worst = max(worst, abs(slope - float(bound(group).weight[i])))
    return worst


def off_policy_solution() -> float:
    """KL from CoPG's solution, on data from another policy, to the optimal policy."""
    problem, data = _example()
    return float(problem.kl_to_optimal(analysis.solve(problem, losses.copg, data).policy))


def seeds() -> float:
    """The same seed gives the same numbers, for one run whatever the number of runs."""

    def logits(runs: int, seed: int) -> np.ndarray:
        problem, data = _example()
        return bandit.train(
            problem,
            losses.copg,
            pairs=data,
            batch_size=8,
            steps=20,
            optimizer=bandit.Adam(0.05),
            runs=runs,
            rng=seed,
        ).logits[:, 0]

    if np.array_equal(logits(1, 0), logits(1, 1)):
        return float("inf")
    return float(np.abs(logits(1, 0) - logits(3, 0)).max())


def shipped_tables() -> float:
    """Rows of a shipped log, and the value of the uniform policy on it, in units of reward."""
    log = bandit.data.open_bandit("men", "bts")
    found = bandit.ope.ipw(log, np.full(log.n_arms, 1 / log.n_arms))
    return max(abs(found.n - 10_000), abs(found.value - 3.01e-3))


CHECKS: Mapping[str, tuple[Callable[[], float], float]] = {
    "known values": (known_values, 1e-8),
    "closed form": (closed_form, 1e-9),
    "weights": (weights, 1e-7),
    "off-policy solution": (off_policy_solution, 1e-12),
    "seeds": (seeds, 0.0),
    "shipped tables": (shipped_tables, 5e-6),
}
"""Name → what returns its error, and how large that may be."""


def run() -> list[Outcome]:
    """Every check of :data:`CHECKS`; one that breaks is an outcome too.

    Returns
    -------
    list of Outcome
        In the order of :data:`CHECKS`.
    """
    outcomes = []
    for name, (check, tolerance) in CHECKS.items():
        try:
            outcomes.append(Outcome(name, check(), tolerance))
        except Exception as error:  # whatever is wrong with an installation is to be told
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            outcomes.append(Outcome(name, float("nan"), tolerance, text))
    return outcomes


def report(outcomes: list[Outcome]) -> str:
    """A line for each outcome, and on top what they were found with.

    Parameters
    ----------
    outcomes : list of Outcome

    Returns
    -------
    str
    """
    lines = [
        f"copg-bandit {bandit.__version__}, Python {platform.python_version()}, "
        f"numpy {np.__version__}, scipy {scipy.__version__}"
    ]
    for one in outcomes:
        verdict = "ok" if one.passed else "FAILED"
        said = one.problem or f"error {one.error:.1e}, at most {one.tolerance:.0e}"
        lines.append(f"{verdict:6}  {one.name:20} {said}")
    return "\n".join(lines)
