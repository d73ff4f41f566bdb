"""The explorer in words: a verdict, a table of numbers, and what its picture shows."""

from __future__ import annotations

import html
import math
import re

import numpy as np

from bandit.cases import reads_preferences
from bandit.explorer.state import STEPS, View
from bandit.solutions._determined import COUNTED
from bandit.tables import number, probabilities


def verdict(view: View) -> str:
    """Where the method comes to rest, in a sentence or two; why not, if it does not."""
    label, found = view.method.label, view.solution
    if found is None:
        return f"{label}: looking for where it comes to rest …"
    if not found.converged:
        return f"{label}: no single solution. {_why(view)}"
    if found.kl_to_optimal < 1e-9:
        verdict = f"{label} comes to rest at the optimal policy π*."
    else:
        verdict = (
            f"{label} comes to rest away from π*: KL(solution‖π*) = {found.kl_to_optimal:.3g} "
            f"nats, a regret of {found.regret:.3g}."
        )
    if found.slowest_eigenvalue > 0:
        return f"{verdict} That place is unstable: descent leaves it."
    if view.choice.learning_rate > view.stable_rate:
        return (
            f"{verdict} The learning rate is too high to settle there: it must be below "
            f"{view.stable_rate:.3g}."
        )
    return verdict


def _why(view: View) -> str:
    found = view.solution
    assert found is not None
    parts: tuple[tuple[int, ...], ...] = found.components  # type: ignore[assignment]
    if len(parts) > 1 and "components" in found.message:
        named = ["{" + ", ".join(f"arm {arm + 1}" for arm in part) + "}" for part in parts]
        return (
            f"The data never compare {' with '.join(named)}, so only ratios of probabilities "
            "within each of these groups are determined."
        )
    message = _from_one(found.message[0].upper() + found.message[1:])
    never = [f"arm {arm + 1}" for arm in np.flatnonzero(view.behavior == 0)]
    if never and "never drawn" not in message:
        message += f": the behavior never draws {', '.join(never)}"
    return f"{message}."


def _from_one(message: str) -> str:
    """Arms counted from 1, as the sliders and the picture have them."""
    message = message.replace(f" {COUNTED}", "")
    return re.sub(
        r"(?<=\barm )\d+|(?<=[{ ])\d+(?=[,}])", lambda match: str(int(match[0]) + 1), message
    )


def rows(view: View) -> dict[str, str]:
    """The numbers of the table, by name."""
    found = view.settled
    known = {
        "reference π_ref": probabilities(view.problem.reference),
        "behavior μ": probabilities(view.behavior),
        "optimal π*": probabilities(view.problem.optimal_policy()),
    }
    wanting = "looking …" if view.solution is None else "none"
    last = view.regret[-1]
    return known | {
        "solution": probabilities(found.policy) if found else wanting,
        "KL(solution‖π*), nats": number(found.kl_to_optimal) if found else "–",
        "regret of the solution": number(found.regret) if found else "–",
        "slowest eigenvalue": number(found.slowest_eigenvalue) if found else "–",
        "steps to halve the error": _halving(view),
        "settles for learning rates below": number(view.stable_rate),
        "regret of π_ref": number(view.regret[0]),
        f"regret after {STEPS} steps": number(last) if np.isfinite(last) else "diverged",
    }


def _halving(view: View) -> str:
    """Steps in which the slowest error halves: from |1 + ηλ|, with λ the slowest eigenvalues."""
    if not view.choice.learning_rate < view.stable_rate:
        return "–"
    assert view.settled is not None
    factors = np.abs(1 + view.choice.learning_rate * np.asarray(view.settled.eigenvalues)[1:])
    worst = float(factors.max())
    return number(math.log(0.5) / math.log(worst)) if worst > 0 else "less than 1"


def note(view: View) -> str:
    """What data the method reads, and what it therefore does not look at."""
    if reads_preferences(view.method):
        return "reads preferences, no rewards"
    return "reads rewards, no preferences"


def described(view: View) -> str:
    """What the picture shows, for those who don't see it."""
    path = probabilities(view.paths[-1, 0]) if np.isfinite(view.paths[-1, 0]).all() else "infinity"
    return (
        f"Left: the triangle of all policies of three arms, with arrows where {view.method.label} "
        f"pushes them; descent from the reference ends at {path}. Right: its regret on a "
        f"logarithmic axis, from {number(view.regret[0])} to {number(view.regret[-1])} in "
        f"{STEPS} steps. {verdict(view)}"
    )


def announced(text: str) -> str:
    """A sentence as HTML that a screen reader announces when it changes."""
    return f'<p role="status" style="margin:0;font-size:1.1em"><b>{html.escape(text)}</b></p>'


def table(view: View) -> str:
    """:func:`rows` as HTML, in two columns where there is room."""
    cells = [
        f'<tr><th scope="row" style="text-align:left;font-weight:normal;padding-right:1.5em">'
        f"{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
        for name, text in rows(view).items()
    ]
    half = (len(cells) + 1) // 2
    tables = "".join(
        f'<table style="line-height:1.6">{"".join(part)}</table>'
        for part in (cells[:half], cells[half:])
    )
    beside = "display:flex;flex-wrap:wrap;align-items:flex-start;gap:0 3em;margin-left:1em"
    return f'<div style="{beside}">{tables}</div>'
