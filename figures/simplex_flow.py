"""Where each method pushes the policy: its exact update field on the simplex of three arms.

Our three-armed bandit, with pairs drawn independently from the behavior (0.1, 0.2, 0.7), which
favors the worst arm, and Bradley–Terry preferences. Arrows: dπ/dt of the population gradient flow
(the faster, the darker). Lines: trajectories of that flow from seven policies. Gray levels: the
regret, the same in all panels. Nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from _exact import data, solution
from _save import options, save
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

import bandit
from bandit import Bandit, analysis, flow, plots, presets

METHODS = (
    "copg",
    "policy_gradient_behavior",
    "policy_gradient_value",
    "dpo",
    "importance_sampling",
    "policy_gradient",
    "ipo",
    "grpo",
)
STARTS = np.array(
    [
        [0.04, 0.92, 0.04],
        [0.04, 0.62, 0.34],
        [0.04, 0.34, 0.62],
        [0.04, 0.04, 0.92],
        [0.42, 0.02, 0.56],
        [0.92, 0.02, 0.06],
        [1 / 3, 1 / 3, 1 / 3],
    ]
)
# Halvings of the slowest error that the trajectories are followed for.
HALVINGS = 12


def trajectories(
    problem: Bandit, name: str, pairs: Any, slowest: float, points: int
) -> tuple[np.ndarray, np.ndarray]:
    """Times (T,) that resolve the fast beginning and reach the end, and paths (T, starts, 3)."""
    end = HALVINGS * np.log(2) / abs(slowest)
    times = np.concatenate([[0.0], np.geomspace(end * 1e-5, end, points)])
    loss = presets.method(name).loss
    return times, flow.gradient_flow(problem, loss, STARTS, pairs, times, **data(problem, name))


def rows(name: str, kind: str, policies: np.ndarray, **columns: Any) -> pd.DataFrame:
    """A table of policies (N, 3) with what they are."""
    table = pd.DataFrame(policies.reshape(-1, 3), columns=["arm_1", "arm_2", "arm_3"])
    return table.assign(method=name, kind=kind, **columns)


def panel(ax: Axes, problem: Bandit, name: str, grid: np.ndarray, points: int) -> pd.DataFrame:
    """Draw one method, and return its numbers."""
    pairs = bandit.pairs.independent(presets.three_armed_behavior())
    goal = solution(problem, name, pairs)
    loss, own = presets.method(name).loss, data(problem, name)
    velocity = flow.policy_velocity(problem, loss, grid, pairs, **own)
    times, paths = trajectories(problem, name, pairs, goal.slowest_eigenvalue, points)
    plots.simplex_flow(
        grid,
        velocity,
        paths=paths,
        problem=problem,
        solution=goal,
        method=name,
        arms=("arm 1, r = 2.5", "arm 2, r = 2", "arm 3, r = 1"),
        ax=ax,
    )
    verdict(ax, goal)
    field = rows(name, "field", grid, regret=problem.regret(grid))
    return pd.concat(
        [
            rows(name, "solution", goal.policy),
            field.join(pd.DataFrame(velocity, columns=["dot_1", "dot_2", "dot_3"])),
            *(rows(name, "path", paths[:, s], start=s, time=times) for s in range(len(STARTS))),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    problem = presets.three_armed_bandit()
    grid, fine = (flow.simplex_grid(n) for n in ((6, 12) if how.quick else (13, 60)))
    tables = [
        rows("", "reference", problem.reference),
        rows("", "optimum", problem.optimal_policy()),
    ]
    with plots.style():
        figure = Figure(figsize=(8.6, 5.3))
        for ax, name in zip(figure.subplots(2, 4).flat, METHODS, strict=True):
            shade(ax, fine, problem.regret(fine))
            tables.append(panel(ax, problem, name, grid, 15 if how.quick else 60))
        figure.legend(handles=key(), loc="outside lower center", ncols=6)
    order = ["method", "kind", "start", "time", "arm_1", "arm_2", "arm_3"]
    numbers = pd.concat(tables, ignore_index=True)
    numbers = numbers[order + [c for c in numbers if c not in order]]
    save(figure, numbers, how, title="Update fields on the simplex of three arms", seed=None)


def shade(ax: Axes, policies: np.ndarray, regret: np.ndarray) -> None:
    """Levels of the regret, evenly spaced in its square root, as grays."""
    levels = np.linspace(0, np.sqrt(regret.max()), 12) ** 2
    ax.tricontourf(*plots.simplex_xy(policies).T, regret, levels, cmap="Greys", alpha=0.5)


def verdict(ax: Axes, goal: analysis.Solution) -> None:
    """Under the title: does the method's solution coincide with π*?"""
    right = goal.kl_to_optimal < 1e-9
    distance = rf"KL(solution‖$\pi^*$) = {goal.kl_to_optimal:.2f} nats"
    text = r"solution = $\pi^*$" if right else distance
    ax.text(0, 1.0, text, transform=ax.transAxes, fontsize="small", va="bottom")
    ax.set_title(ax.get_title(loc="left"), pad=14)


def key() -> list[Artist]:
    """One legend for all panels."""
    dot = {"ls": "", "markeredgecolor": "black"}
    return [
        Line2D([], [], marker="o", color="white", label=plots.REFERENCE, **dot),
        Line2D([], [], marker="*", ms=11, color="white", label=plots.OPTIMUM, **dot),
        Line2D([], [], marker="s", ls="", color="#777777", label="the method's solution"),
        Line2D([], [], color="#777777", label="population gradient flow"),
        Line2D(
            [], [], marker=r"$\rightarrow$", ms=9, ls="", color="#444", label=r"update d$\pi$/dt"
        ),
        Patch(color="#BBBBBB", label="regret (darker: more)"),
    ]


if __name__ == "__main__":
    main()
