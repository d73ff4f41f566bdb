"""Pictures pixel by pixel, without text, which differs between versions of fonts.

Numbers are tested first, elsewhere; here what no number sees: what hides what, sizes, colors, where
arrows point. New baselines are drawn with ``python -m pytest tests/test_baselines.py
--mpl-generate-path=tests/baseline``, and looked at before they are committed.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import bandit
from bandit import flow, losses, plots

pytest.importorskip("pytest_mpl")

PROBLEM = bandit.Bandit([2.5, 2.0, 1.0], beta=0.5, reference=[0.2, 0.5, 0.3])
PAIRS = bandit.pairs.independent([0.1, 0.2, 0.7])
PREFERENCE = bandit.preferences.bradley_terry(PROBLEM.reward)

compared = functools.partial(
    pytest.mark.mpl_image_compare,
    baseline_dir="baseline",
    tolerance=2,
    remove_text=True,
    style={},
    savefig_kwargs={"dpi": 60, "metadata": {"Software": None}},
    deterministic=True,
)


def canvas() -> Figure:
    """A small figure in the package's style; nothing in it moves to make room."""
    with plots.style():
        figure = Figure(figsize=(4, 3))
        figure.set_layout_engine("none")
        FigureCanvasAgg(figure)
        figure.add_subplot()
    return figure


def without_words(figure: Figure) -> Figure:
    for axes in figure.axes:
        axes.set(xlabel="", ylabel="")
        if axes.get_legend():
            axes.get_legend().remove()
        for text in list(axes.texts):
            text.remove()
    return figure


@compared()
def test_simplex_flow():
    grid, figure = flow.simplex_grid(7), canvas()
    # Lines that marks have to hide: from π* and π_ref to the solution, and on.
    goal = bandit.analysis.solve(PROBLEM, losses.ipo, PAIRS, preference=PREFERENCE)
    ends = np.array([PROBLEM.optimal_policy(), PROBLEM.reference, [0.05, 0.05, 0.9]])
    path = np.linspace(ends, goal.policy + 0.1 * (goal.policy - ends), 40)
    plots.simplex_flow(
        grid,
        flow.policy_velocity(PROBLEM, losses.ipo, grid, PAIRS, preference=PREFERENCE),
        paths=path,
        landscape=PROBLEM.regret(grid),
        problem=PROBLEM,
        solution=goal,
        method="ipo",
        ax=figure.axes[0],
    )
    return without_words(figure)


@compared()
def test_regret_curves():
    steps, figure = np.arange(0, 200, 4), canvas()
    runs = np.geomspace(0.5, 1.5, 5)
    plots.regret_curves(
        {
            "copg": (steps, 0.3 * np.exp(-steps / 30)[:, None] * runs),
            "ipo": (steps, 0.15 + 0.15 * np.exp(-steps / 15)[:, None] * runs),
        },
        exact={"ipo": 0.15},
        ax=figure.axes[0],
    )
    return without_words(figure)


@compared()
def test_policy_bars():
    figure = canvas()
    policies = {"copg": [0.5, 0.4, 0.1], "ipo": [0.3, 0.5, 0.2], "grpo": [0.2, 0.2, 0.6]}
    plots.policy_bars(policies, problem=PROBLEM, ax=figure.axes[0])
    return without_words(figure)


@compared()
def test_reward_kl_front():
    figure, kl = canvas(), np.linspace(0, 1, 30)
    plots.reward_kl_front(
        (kl, 2 + np.sqrt(kl)),
        {
            "ipo": (kl[::6], 2 + 0.7 * np.sqrt(kl[::6])),
            "dpo": (kl[::5], 2 + 0.9 * np.sqrt(kl[::5])),
        },
        ax=figure.axes[0],
    )
    return without_words(figure)


def test_pictures_are_really_compared(pytestconfig):
    assert pytestconfig.getoption("--mpl")
