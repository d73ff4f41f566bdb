"""Exact solutions by method name, as the figure scripts use them."""

from __future__ import annotations

import warnings
from typing import Any

from bandit import Bandit, analysis, losses, preferences, presets


def data(problem: Bandit, name: str, preference: Any = None) -> dict[str, Any]:
    """The keywords a method needs: its baseline, and preferences (Bradley–Terry by default)."""
    method = presets.method(name)
    if "preference" not in losses.traits(method.loss).requires:
        return {"baseline": method.baseline}
    if preference is None:
        preference = preferences.bradley_terry(problem.reward)
    return {"preference": preference}


def solution(problem: Bandit, name: str, pairs: Any, preference: Any = None) -> analysis.Solution:
    """The method's exact solution; ``converged`` is False where there is none."""
    with warnings.catch_warnings():
        # The table says what the warning would.
        warnings.simplefilter("ignore", analysis.NotIdentifiedWarning)
        return analysis.solve(
            problem, presets.method(name).loss, pairs, **data(problem, name, preference)
        )
