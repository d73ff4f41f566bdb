"""Where a loss comes to rest off-policy: is there such a place, is it π*, does it depend on who
drew the arms, does gradient descent get there. The searching is :func:`bandit.analysis.solve`'s."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bandit import analysis, losses, pairs, preferences
from bandit._checks import Array
from bandit.solutions import NotIdentifiedWarning, Solution
from bandit.tables import number, probabilities, vector
from bandit.verification._examples import ProblemCase, problem_example, shrink_problem
from bandit.verification._population import OUR, rounded
from bandit.verification._report import PROPERTY, SKIPPED, Example, Finding
from bandit.verification._subject import Subject

DATA = ("mu", "other", "joint")
# A solution is known to about 1e-10; another place is further away than this.
SAME_POLICY = 1e-6
# So many searches without a solution (each context's counts), and no further one is made: they take
# the longest. The simplest problems come first.
PATIENCE = 3
SEARCHES_TO_SHRINK = 24


class Solved(NamedTuple):
    """A problem, the data it was solved with, and the outcome."""

    case: ProblemCase
    data: str
    solution: Solution


def solve(subject: Subject, case: ProblemCase, data: str, preference: Any = None) -> Solution:
    """The loss's solution, without a warning where there is none."""
    given = case.preference if preference is None else preference
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotIdentifiedWarning)
        return analysis.solve(case.problem, subject.loss, case.pairs(data), **subject.data(given))


def solve_all(subject: Subject, cases: Sequence[ProblemCase]) -> list[Solved]:
    """Every problem with every kind of data, until too many have no solution."""
    found: list[Solved] = []
    lost = 0
    for case in cases:
        for data in DATA:
            found.append(Solved(case, data, solve(subject, case, data)))
            if not found[-1].solution.converged:
                lost += case.problem.n_contexts or 1
            if lost >= PATIENCE:
                return found
    return found


def check_solutions(subject: Subject, cases: Sequence[ProblemCase]) -> Iterator[Finding]:
    """Existence, π*, dependence on μ, and stability, from one set of solutions."""
    names = ("existence", "optimality", "behavior", "stability")
    if 2 not in subject.sizes:
        for name in names:
            yield Finding(name, SKIPPED, "it takes no pairs, which the exact analysis lists")
        return
    found = solve_all(subject, cases)
    yield _existence(subject, found)
    known = [f for f in found if f.solution.converged]
    if not known:
        for name in names[1:]:
            yield Finding(name, SKIPPED, "no solution was found")
        return
    yield _optimality(subject, known)
    yield _behavior(subject, known)
    yield _stability(subject, known)


# ---------------------------------------------------------------------------------- existence


def _existence(subject: Subject, found: list[Solved]) -> Finding:
    lost = [f for f in found if not f.solution.converged]
    facts: dict[str, Any] = {"solved": len(found) - len(lost), "of": len(found)}
    judged = _judges(subject)
    certain = ""
    if judged and len(lost) < len(found):
        case = found[0].case
        solution = solve(subject, case, "mu", preferences.deterministic(case.reward))
        facts["deterministic_preferences"] = solution.converged
        if not solution.converged:
            certain = f"; none where preferences are deterministic ({reason(solution)})"
    if not lost:
        text = f"found in {_all(found)}{certain}"
        example = None
        if certain:
            example = problem_example(
                found[0].case, ["mu"], reason(solution), preference="deterministic"
            )
        return Finding("existence", PROPERTY, text, facts, example)
    first = lost[0]
    why = reason(first.solution)
    facts["reason"] = why
    tried = f"all {len(found)}" if len(lost) == len(found) else f"{len(lost)} of {len(found)}"
    example = _example(subject, first.case, [first.data], why)
    text = f"none in {tried} searches: {why}{certain}"
    if "piecewise_linear" in subject.seen and not subject.declared:
        text += "; one on a kink is looked for only where piecewise_linear is declared"
    return Finding("existence", PROPERTY, text, facts, example)


def _all(searches: Sequence[Solved]) -> str:
    return f"all {len(searches)} searches" if len(searches) > 1 else "the one search"


def reason(solution: Solution) -> str:
    """Why there is none, without the numbers, which are rounding."""
    text = re.split(r"[:(;]", solution.message)[0].strip()
    return re.sub(r"\s*\bto [-\d.e+]+$", " roughly", text)


def _judges(subject: Subject) -> bool:
    """Whether it learns from preferences."""
    return "preference" in subject.reads


def _example(subject: Subject, case: ProblemCase, data: Sequence[str], seen: str) -> Example:
    return problem_example(case, data, seen, *subject.data_names)


# --------------------------------------------------------------------------------- optimality


def _distance(case: ProblemCase, solution: Solution) -> float:
    """How far a solution is from π*, in probability."""
    return float(np.abs(solution.policy - case.problem.optimal_policy()).max())


def _optimality(subject: Subject, known: list[Solved]) -> Finding:
    elsewhere = [f for f in known if _distance(f.case, f.solution) > SAME_POLICY]
    facts: dict[str, Any] = {"optimal": len(known) - len(elsewhere), "of": len(known)}
    regrets = [f.solution.regret / f.case.beta for f in known]
    facts["greatest_regret"] = rounded(max(regrets)) if elsewhere else 0.0
    judged = " with Bradley–Terry preferences" if _judges(subject) else ""
    if not elsewhere:
        text = f"the solution is π*{judged}, in {_all(known)}"
        return Finding("optimality", PROPERTY, text, facts)
    first = elsewhere[0]

    def fails(candidate: ProblemCase) -> bool:
        solution = solve(subject, candidate, first.data)
        return solution.converged and _distance(candidate, solution) > 0.005

    case = first.case
    if _distance(case, first.solution) > 0.005:
        case = shrink_problem(case, fails, SEARCHES_TO_SHRINK)
    solution = solve(subject, case, first.data)
    seen = f"{_flat(solution.policy)}, π* is {_flat(case.problem.optimal_policy())}"
    count = "all" if len(elsewhere) == len(known) else f"{len(elsewhere)} of {len(known)}"
    where = f"in {count} searches" if len(known) > 1 else "in the one search"
    text = f"the solution is not π*{judged} {where}, such as {seen}"
    return Finding("optimality", PROPERTY, text, facts, _example(subject, case, [first.data], seen))


def _flat(policy: Array) -> str:
    """A policy in a line of text; with contexts, a parenthesis for each."""
    return " ".join(probabilities(row + 0.0) for row in np.atleast_2d(policy))


# ----------------------------------------------------------------------------------- behavior


def _moved(one: Solution, two: Solution) -> float:
    return float(np.abs(one.policy - two.policy).max())


def _behavior(subject: Subject, known: list[Solved]) -> Finding:
    by_case: dict[int, list[Solved]] = {}
    for f in known:
        by_case.setdefault(id(f.case), []).append(f)
    several = [fs for fs in by_case.values() if len(fs) > 1]
    if not several:
        text = "no problem was solved with more than one behavior"
        return Finding("behavior", SKIPPED, text)
    moved = [
        fs for fs in several if max(_moved(fs[0].solution, f.solution) for f in fs) > SAME_POLICY
    ]
    facts = {"depends": bool(moved), "problems": len(several), "moved": len(moved)}
    if not moved and len(several) == 1:
        text = "only one problem was solved with more than one behavior"
        return Finding("behavior", SKIPPED, text)
    if not moved:
        text = f"the solution is the same whatever drew the arms, on {len(several)} problems"
        return Finding("behavior", PROPERTY, text, facts)
    by_mu = [fs for fs in moved if {"mu", "other"} <= {f.data for f in fs}]
    case, data = moved[0][0].case, (moved[0][0].data, moved[0][-1].data)

    def gap(candidate: ProblemCase, kinds: tuple[str, str]) -> float:
        one, two = (solve(subject, candidate, kind) for kind in kinds)
        return _moved(one, two) if one.converged and two.converged else 0.0

    for fs in by_mu:
        if gap(fs[0].case, ("mu", "other")) > 0.005:
            case, data = fs[0].case, ("mu", "other")
            case = shrink_problem(case, lambda c: gap(c, ("mu", "other")) > 0.005, 16)
            break
    one, two = (solve(subject, case, kind) for kind in data)
    seen = f"{_flat(one.policy)} from {_drawn(case, data[0])}, {_flat(two.policy)} from " + _drawn(
        case, data[1]
    )
    text = f"the solution depends on what drew the arms: {seen}"
    return Finding("behavior", PROPERTY, text, facts, _example(subject, case, data, seen))


def _drawn(case: ProblemCase, data: str) -> str:
    return (
        "dependent pairs"
        if data == "joint"
        else "μ = " + " ".join(map(vector, np.atleast_2d(getattr(case, data))))
    )


# ---------------------------------------------------------------------------------- stability


def rates(solution: Solution) -> Array:
    """Real parts of the eigenvalues, the slowest first, without the shift of all logits."""
    return np.sort(np.real(solution.eigenvalues[..., 1:]).ravel())[::-1]


def _stability(subject: Subject, known: list[Solved]) -> Finding:
    judged = [f for f in known if np.isfinite(rates(f.solution)).all()]
    if not judged:
        text = "the solution sits on kinks, where the gradient has no Jacobian"
        return Finding("stability", SKIPPED, text)
    unstable = [f for f in judged if rates(f.solution)[0] > 0]
    facts: dict[str, Any] = {"stable": len(judged) - len(unstable), "of": len(judged)}
    if unstable:
        first = unstable[0]
        seen = f"greatest eigenvalue {number(rates(first.solution)[0])}"
        text = (
            f"gradient descent leaves the solution in {len(unstable)} of {len(judged)} searches: "
            f"{seen}"
        )
        example = _example(subject, first.case, [first.data], seen)
        return Finding("stability", PROPERTY, text, facts, example)
    text = f"stable in {_all(judged)}"
    ours = solve(subject, OUR, "mu")
    if ours.converged and np.isfinite(rates(ours)).all():
        mine = rates(ours)
        copg = rates(analysis.solve(OUR.problem, losses.copg, pairs.independent(OUR.mu)))
        facts |= {"slowest": rounded(mine[0]), "condition": rounded(mine[-1] / mine[0])}
        text += (
            f"; on our three-armed bandit the eigenvalues are {_spread(mine)}, "
            f"CoPG's {_spread(copg)}"
        )
    return Finding("stability", PROPERTY, text, facts)


def _spread(values: Array) -> str:
    return f"{number(values[0])} to {number(values[-1])} (ratio {values[-1] / values[0]:.3g})"
