"""The pictures show what was passed, in one look, and leave the user's settings alone."""

from __future__ import annotations

import itertools
import subprocess
import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import bandit
from bandit import flow, looks, losses, plots, presets

PROBLEM = bandit.Bandit([2.5, 2.0, 1.0], beta=0.5, reference=[0.2, 0.5, 0.3])
PAIRS = bandit.pairs.independent([0.1, 0.2, 0.7])
GRID = flow.simplex_grid(5)
VELOCITY = flow.policy_velocity(PROBLEM, losses.copg, GRID, PAIRS)


@pytest.fixture(autouse=True)
def _headless():
    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before, "a picture changed the user's rcParams"


@pytest.fixture
def ax():
    return Figure().add_subplot()


@pytest.fixture(scope="module")
def history():
    return bandit.train(
        PROBLEM,
        losses.copg,
        pairs=PAIRS,
        batch_size=16,
        steps=40,
        optimizer=bandit.SGD(0.3),
        runs=7,
        rng=1,
        record_every=10,
    )


# ------------------------------------------------------------------------------------- one look


def test_every_method_has_a_look_of_its_own():
    assert set(looks.LOOKS) == set(presets.METHODS)
    seen = list(looks.LOOKS.values())
    assert len({look.color for look in seen}) == len(seen)
    without_color = {(str(look.linestyle), look.marker) for look in seen}
    assert len(without_color) == len(seen)


# Machado, Oliveira and Fernandes (2009), full severity, in linear RGB.
BLINDNESS = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
}  # fmt: skip


def lightness_and_hue(color, matrix):
    """CIE L*a*b* of a color as a color-blind reader sees it."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(matrix) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.maximum(to_xyz @ linear / [0.9505, 1, 1.089], 0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("matrix", [np.eye(3), *BLINDNESS.values()], ids=["all", *BLINDNESS])
def test_methods_shown_together_stay_apart_for_color_blind_readers(matrix):
    together = [
        "copg",
        "ipo",
        "dpo",
        "policy_gradient",
        "policy_gradient_value",
        "policy_gradient_behavior",
        "importance_sampling",
    ]
    seen = {name: lightness_and_hue(plots.color(name), matrix) for name in together}
    for a, b in itertools.combinations(together, 2):
        # A difference of about 2 can just be noticed side by side.
        assert np.linalg.norm(seen[a] - seen[b]) > 10, (a, b)


@pytest.mark.parametrize("matrix", [np.eye(3), *BLINDNESS.values()], ids=["all", *BLINDNESS])
def test_names_of_ones_own_stay_apart_for_color_blind_readers(matrix):
    own = looks.looks_of([f"laboratory {i}" for i in range(len(looks.SPARE))])
    assert own == list(looks.SPARE)
    assert len(own) >= 6
    seen = [lightness_and_hue(look.color, matrix) for look in own]
    for (i, a), (j, b) in itertools.combinations(enumerate(seen), 2):
        assert np.linalg.norm(a - b) > 15, (own[i], own[j])
    # The grays are near the grays and blacks of methods; the colors are near none.
    for a, (name, other) in itertools.product(seen[2:], looks.LOOKS.items()):
        assert np.linalg.norm(a - lightness_and_hue(other.color, matrix)) > 10, name


def test_color_by_name():
    assert plots.color("copg") == plots.look("copg").color == "#0072B2"
    with pytest.raises(ValueError, match=r"^method: expected one of copg, .*; got 'cpg'$"):
        plots.color("cpg")


def test_style_is_for_the_block_only():
    outside = matplotlib.rcParams["axes.spines.top"]
    with plots.style():
        assert matplotlib.rcParams["axes.spines.top"] is False
    assert matplotlib.rcParams["axes.spines.top"] == outside


def test_matplotlib_is_loaded_on_use_only():
    code = "import sys, bandit; assert 'matplotlib' not in sys.modules; bandit.plots; "
    code += "assert 'matplotlib' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------------------------- each picture


def test_regret_curves_show_the_quartiles_of_a_history(history, ax):
    solution = bandit.analysis.solve(PROBLEM, losses.policy_gradient, PAIRS)
    exact = {"policy_gradient": solution, "copg": 0.0}
    assert plots.regret_curves({"copg": history}, exact=exact, ax=ax) is ax
    line, dashed = ax.lines
    expected = np.quantile(history.regret(), [0.25, 0.5, 0.75], axis=1)
    np.testing.assert_array_equal(line.get_xdata(), history.steps)
    np.testing.assert_allclose(line.get_ydata(), expected[1], rtol=1e-15)
    edge = ax.collections[0].get_paths()[0].vertices
    assert {*expected[0], *expected[2]} <= {*edge[:, 1]}
    assert dashed.get_ydata() == [solution.regret] * 2
    assert line.get_color() == plots.color("copg")
    assert dashed.get_color() == plots.color("policy_gradient")
    assert ax.get_yscale() == "log"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["CoPG"]


def test_regret_curves_of_finished_bands(ax):
    values = np.array([[1.0, 2.0, 4.0, 8.0], [0.1, 0.2, 0.4, 0.8]])
    band = plots.band([0, 5], values)
    np.testing.assert_allclose(band.lower, [1.75, 0.175])
    np.testing.assert_allclose(band.median, [3, 0.3])
    np.testing.assert_allclose(band.upper, [5, 0.5])
    plots.regret_curves({"my own": band, "ipo": band}, ax=ax)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), band.median)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["my own", "IPO"]


def test_simplex_flow_puts_everything_in_its_place(ax):
    solution = bandit.analysis.solve(PROBLEM, losses.copg, PAIRS)
    paths = flow.gradient_flow(PROBLEM, losses.copg, GRID[:2], PAIRS, [0, 1, 5])
    plots.simplex_flow(
        GRID,
        VELOCITY,
        paths=paths,
        landscape=PROBLEM.regret(GRID),
        problem=PROBLEM,
        solution=solution,
        method="copg",
        arms=("a", "b", "c"),
        ax=ax,
    )
    arrows = next(c for c in ax.collections if hasattr(c, "U"))
    np.testing.assert_allclose(arrows.get_offsets(), plots.simplex_xy(GRID), rtol=1e-12)
    shown = np.stack([arrows.U, arrows.V], axis=-1)
    cosine = (shown * plots.simplex_xy(VELOCITY)).sum(axis=-1)
    cosine /= np.linalg.norm(shown, axis=-1) * np.linalg.norm(VELOCITY @ plots.CORNERS, axis=-1)
    np.testing.assert_allclose(cosine, 1, rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(shown, axis=-1), np.hypot(*shown[0]), rtol=1e-9)
    marks = {c.get_label(): c.get_offsets()[0] for c in ax.collections if len(c.get_offsets()) == 1}
    np.testing.assert_allclose(marks[plots.REFERENCE], PROBLEM.reference @ plots.CORNERS)
    np.testing.assert_allclose(marks[plots.OPTIMUM], PROBLEM.optimal_policy() @ plots.CORNERS)
    np.testing.assert_allclose(marks["solution"], solution.policy @ plots.CORNERS)
    for i, line in enumerate(ax.lines[1:]):
        np.testing.assert_allclose(line.get_xydata(), paths[:, i] @ plots.CORNERS)
    assert {text.get_text() for text in ax.texts} == {"a", "b", "c"}
    assert ax.get_title() == "CoPG"


def test_simplex_flow_follows_a_history(history, ax):
    plots.simplex_flow(GRID, VELOCITY, paths=history, ax=ax)
    assert len(ax.lines) == 1 + history.n_runs
    np.testing.assert_allclose(ax.lines[3].get_xydata(), history.policy()[:, 2] @ plots.CORNERS)


def test_policy_bars_have_the_right_heights(ax):
    solution = bandit.analysis.solve(PROBLEM, losses.copg, PAIRS)
    plots.policy_bars({"copg": solution, "ipo": [0.2, 0.3, 0.5]}, problem=PROBLEM, ax=ax)
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(heights, [*solution.policy, 0.2, 0.3, 0.5])
    assert to_rgb(ax.patches[0].get_facecolor()) == to_rgb(plots.color("copg"))
    optimum, reference = (c.get_segments() for c in ax.collections)
    np.testing.assert_allclose([s[0, 1] for s in optimum], PROBLEM.optimal_policy())
    np.testing.assert_allclose([s[0, 1] for s in reference], PROBLEM.reference)


def test_reward_kl_front(ax):
    solution = bandit.analysis.solve(PROBLEM, losses.copg, PAIRS)
    front = ([0.1, 0.2, 0.5], [1.0, 1.5, 1.7])
    landings = {"copg": solution, "ipo": ([0.1, 0.3], [0.9, 1.2])}
    plots.reward_kl_front(front, landings, problem=PROBLEM, ax=ax)
    np.testing.assert_array_equal(ax.lines[0].get_xydata().T, front)
    place = [PROBLEM.kl(solution.policy), PROBLEM.expected_reward(solution.policy)]
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [place])
    np.testing.assert_array_equal(ax.lines[2].get_xydata().T, landings["ipo"])


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.policy_bars({"copg": [0.2, 0.8]}),
        lambda: plots.simplex_flow(GRID, VELOCITY),
        lambda: plots.reward_kl_front(([0, 1], [0, 1])),
        lambda: plots.regret_curves({"copg": plots.band([0, 1], [[1.0], [0.5]])}),
    ],
)
def test_without_axes_a_styled_figure_is_made(draw):
    axes = draw()
    assert plt.gcf() is axes.figure
    assert not axes.spines["top"].get_visible() or not axes.axison


# ---------------------------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.regret_curves({}), "curves: expected a mapping from method names"),
        (lambda: plots.regret_curves([1, 2]), "curves: expected a mapping from method names"),
        (lambda: plots.regret_curves({"ipo": [1, 2]}), r"curves\['ipo'\]: expected a bandit.Hist"),
        (lambda: plots.band([0, 1], [1, 2]), r"values: expected shape \(T, runs\)"),
        (lambda: plots.band([0, 1], np.ones((3, 2))), r"values: expected shape \(T, runs\)"),
        (lambda: plots.simplex_xy([0.5, 0.5]), r"policy: expected shape \(\.\.\., 3\)"),
        (lambda: plots.simplex_flow(GRID, VELOCITY[:-1]), "velocity: expected the shape"),
        (lambda: plots.simplex_flow(GRID * 2, VELOCITY), "policies: expected probabilities"),
        (lambda: plots.simplex_flow(GRID, VELOCITY, arms="ab"), "arms: expected three names"),
        (
            lambda: plots.simplex_flow(GRID, VELOCITY, landscape=[1.0, 2.0]),
            r"landscape: expected shape \(N,\)",
        ),
        (lambda: plots.policy_bars({"ipo": [0.5, 0.6]}), r"policies\['ipo'\]: expected probabili"),
        (
            lambda: plots.policy_bars({"ipo": [0.5, 0.5], "dpo": [1.0]}),
            r"policies\['dpo'\]: expected shape \(2,\)",
        ),
        (
            lambda: plots.policy_bars({"ipo": [0.5, 0.5]}, arms=["one"]),
            "arms: expected 2 names, got 1",
        ),
        (lambda: plots.policy_bars({"ipo": [0.5, 0.5]}, problem=PROBLEM), "problem: expected sh"),
        (lambda: plots.reward_kl_front([1, 2, 3]), "front: expected a pair of arrays"),
        (lambda: plots.reward_kl_front(([1, 2], [3])), r"front: expected two arrays \(N,\)"),
        (
            lambda: plots.reward_kl_front(
                ([1], [1]), {"copg": bandit.analysis.solve(PROBLEM, losses.copg, PAIRS)}
            ),
            "problem: expected a Bandit to place",
        ),
        (lambda: plots.policy_bars({"ipo": [0.5, 0.5]}, ax=3), "ax: expected matplotlib Axes"),
    ],
)
def test_wrong_input_gives_one_line(call, message):
    with pytest.raises((ValueError, TypeError), match=f"^{message}") as error:
        call()
    assert "\n" not in str(error.value)


def test_regret_curves_of_plain_arrays():
    steps, regret = np.arange(3), np.array([[0.3, 0.5, 0.4], [0.2, 0.1, 0.3], [0.1, 0.05, 0.2]])
    line = plots.regret_curves({"copg": (steps, regret)}).lines[0]
    np.testing.assert_array_equal(line.get_ydata(), [0.4, 0.2, 0.1])


def test_policy_bars_want_a_problem_of_one_context():
    problem = bandit.Bandit([[1.0, 2.0], [3.0, 1.0]], 0.5)
    with pytest.raises(ValueError, match=r"^problem: expected shape \(K,\) = \(2,\), got \(2, 2\)"):
        plots.policy_bars({"copg": [0.4, 0.6]}, problem=problem)
