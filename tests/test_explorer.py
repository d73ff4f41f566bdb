"""The explorer: from sliders to numbers without a browser, then as a page in a real one."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import math
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.figure
import matplotlib.image
import numpy as np
import pytest

import bandit
from bandit import expectations, groups, presets
from bandit.explorer import Choice, explore, picture, state, words

ROOT = Path(__file__).parents[1]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
FLAGS += " --disable-background-networking --disable-component-update"
HAS_APPS = all(importlib.util.find_spec(name) for name in ("ipywidgets", "voila"))

# Nothing uniform, nothing symmetric.
CHOICE = Choice(
    reward=(1.0, 2.2, -0.4), beta=0.8, reference=(1.0, 2.0, 5.0), behavior=(3.0, 1.0, 2.0)
)


def but(**changes) -> Choice:
    return dataclasses.replace(CHOICE, **changes)


# ------------------------------------------------------------------------------------ numbers


def test_the_problem_is_what_the_sliders_say():
    view = explore(CHOICE)
    np.testing.assert_allclose(view.problem.reward, [1.0, 2.2, -0.4])
    np.testing.assert_allclose(view.problem.reference, [0.125, 0.25, 0.625])
    np.testing.assert_allclose(view.behavior, [0.5, 1 / 6, 1 / 3])
    assert view.problem.beta == 0.8


def test_copg_is_said_to_find_the_optimum_and_ipo_its_own_fixed_point():
    weights = np.array([1, 2, 5]) * np.exp(np.array([1.0, 2.2, -0.4]) / 0.8)
    optimum = weights / weights.sum()
    view = explore(CHOICE)
    np.testing.assert_allclose(view.settled.policy, optimum, rtol=1e-9)
    assert words.verdict(view) == "CoPG comes to rest at the optimal policy π*."
    won = 1 / (1 + np.exp(np.array([1.0, 2.2, -0.4]) - np.array([[1.0], [2.2], [-0.4]])))
    weights = np.array([1, 2, 5]) * np.exp(won @ [0.5, 1 / 6, 1 / 3] / 0.8)
    view = explore(but(method="ipo"))
    np.testing.assert_allclose(view.settled.policy, weights / weights.sum(), rtol=1e-9)
    distance = (view.settled.policy * np.log(view.settled.policy / optimum)).sum()
    assert f"KL(solution‖π*) = {distance:.3g} nats" in words.verdict(view)
    assert words.rows(view)["regret of the solution"] == f"{0.8 * distance:.4g}"


@pytest.mark.parametrize("method", ["copg", "policy_gradient_behavior", "importance_sampling"])
def test_the_rate_is_that_of_the_curve(method):
    view = explore(but(method=method, learning_rate=0.5))
    # The regret is quadratic in the error: it halves twice as often.
    tail = view.regret[(view.regret > 1e-10) & (view.regret < 1e-6)]
    per_step = math.log(tail[-1] / tail[0]) / (len(tail) - 1) / 2
    shown = float(words.rows(view)["steps to halve the error"])
    assert shown == pytest.approx(math.log(0.5) / per_step, rel=0.02)


def test_descent_settles_below_the_stable_rate_and_not_above_it():
    limit = explore(CHOICE).stable_rate
    below, above = (explore(but(learning_rate=limit * f)) for f in (0.95, 1.05))
    assert below.regret[-1] < 1e-6 < above.regret[-1]
    assert "too high" in words.verdict(above)
    assert "too high" not in words.verdict(below)
    assert words.rows(above)["steps to halve the error"] == "–"


def test_the_first_descent_begins_at_the_reference():
    view = explore(CHOICE)
    np.testing.assert_allclose(view.paths[0, 0], view.problem.reference)
    np.testing.assert_allclose(view.regret[0], view.problem.regret(view.problem.reference))
    assert view.regret.shape == (state.STEPS + 1,)
    assert (np.diff(view.regret) < 0).all()


def test_the_field_points_along_the_first_step_of_a_descent():
    view = explore(but(method="grpo", learning_rate=1e-6))
    loss = presets.method("grpo").loss
    velocity = bandit.flow.policy_velocity(view.problem, loss, view.paths[0], view.pairs)
    np.testing.assert_allclose(
        (view.paths[1] - view.paths[0]) / 1e-6, velocity, rtol=1e-4, atol=1e-8
    )


# --------------------------------------------------------------------- where there is no solution


def test_arms_that_are_never_compared_are_named_as_in_the_picture():
    view = explore(but(behavior=(0.0, 1.0, 2.0)))
    assert view.settled is None
    assert "never compare {arm 1} with {arm 2, arm 3}" in words.verdict(view)
    assert words.rows(view)["solution"] == "none"


@pytest.mark.parametrize(
    ("behavior", "says"),
    [
        ((0.0, 1.0, 2.0), "arm 1 is never drawn, and given up."),
        ((0.0, 1.0, 0.0), "Arms {1, 3} are never drawn: nothing tells their shares apart."),
    ],
)
def test_arms_that_are_never_drawn_are_counted_from_one(behavior, says):
    view = explore(but(behavior=behavior, method="policy_gradient"))
    assert words.verdict(view).endswith(says)


def test_the_rest_can_be_shown_without_looking_for_the_solution():
    view = explore(but(behavior=(0.0, 1.0, 2.0), method="optimal_advantage"), search=False)
    assert view.solution is None
    assert "looking for" in words.verdict(view)
    assert words.rows(view)["solution"] == "looking …"
    found = view.searched()
    assert found.settled is not None
    assert found.searched() is found
    assert "looking" not in words.verdict(found) + "".join(words.rows(found).values())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": "dpo", "preferences": "deterministic"}, "No finite solution"),
        ({"method": "slic", "preferences": "deterministic"}, "not unique"),
        ({"method": "ppo_clip"}, "not isolated"),
    ],
)
def test_no_solution_is_said_in_words(changes, says):
    view = explore(but(**changes))
    assert says in words.verdict(view)
    assert words.rows(view)["slowest eigenvalue"] == "–"
    assert picture.png(view)


def test_sliders_without_a_problem_are_refused_in_one_line():
    for changes, says in (
        ({"behavior": (0.0, 0.0, 0.0)}, "behavior: expected shares of at least 0"),
        ({"reference": (0.0, 1.0, 1.0)}, "reference: expected probabilities above 0"),
        ({"preferences": "none"}, "preferences: expected one of bradley-terry, "),
        ({"method": "sarsa"}, "method: expected one of copg"),
    ):
        with pytest.raises(ValueError, match=f"^{says}") as error:
            explore(but(method=changes.pop("method", "ipo"), **changes))
        assert "\n" not in str(error.value)


# Where methods take longest: behaviors that miss an arm, strong tilts, weak and strong penalties.
HARD = [
    {"reward": (1.8, 3.2, -0.1), "beta": 0.16, "behavior": (10.0, 0.5, 0.0)},
    {"reward": (4.0, -1.0, -1.0), "beta": 0.14, "behavior": (5.0, 6.0, 1.0)},
    {"reward": (1.6, 0.2, 3.5), "beta": 5.0, "behavior": (0.0, 10.0, 0.5)},
]


@pytest.mark.parametrize("method", presets.METHODS)
def test_every_reaction_is_a_bounded_amount_of_work(method, monkeypatch):
    """A thousand looks at three arms take a tenth of a second; a picture takes another."""
    looks, draws, lists = [], [], []

    def counted(cls, name, calls):
        own = getattr(cls, name)
        monkeypatch.setattr(cls, name, lambda *a, **k: (calls.append(name), own(*a, **k))[1])

    counted(expectations.Expectation, "weight", looks)
    counted(expectations.Expectation, "jacobian", looks)
    counted(matplotlib.figure.Figure, "draw", draws)
    counted(groups, "listings", lists)
    for changes in HARD:
        looks.clear()
        lists.clear()
        view = explore(but(method=method, reference=(10.0, 0.5, 10.0), **changes))
        assert view.solution is not None
        assert len(looks) < state.STEPS + 1700
        assert len(lists) < 10
    picture.png(view, dpi=50)
    assert len(draws) == 1


@pytest.mark.parametrize("method", presets.METHODS)
def test_every_method_has_numbers_words_and_a_picture(method):
    for changes in (
        {},
        {"preferences": "cycle", "behavior": (1.0, 1.0, 0.0)},
        {"beta": 0.05, "learning_rate": 30.0},
    ):
        view = explore(but(method=method, **changes))
        assert np.isfinite(view.velocity).all()
        assert presets.method(method).label in words.verdict(view)
        assert "nan" not in words.described(view) + words.table(view)
    pixels = matplotlib.image.imread(io.BytesIO(picture.png(view, dpi=50)), format="png")
    assert pixels.shape == (210, 470, 4)


# ------------------------------------------------------------------------------------ picture


def test_the_picture_draws_the_numbers():
    view = explore(but(method="ipo"))
    simplex, regret = picture.draw(view).axes
    np.testing.assert_allclose(regret.lines[0].get_ydata(), view.regret)
    np.testing.assert_allclose(regret.lines[1].get_ydata(), view.settled.regret)
    tracks = [line for line in simplex.lines if len(line.get_xdata()) == len(picture.DRAWN)]
    ends = [line.get_xydata()[-1] for line in tracks]
    np.testing.assert_allclose(ends, bandit.plots.simplex_xy(view.paths[-1]))
    marks = np.concatenate(
        [c.get_offsets() for c in simplex.collections if len(c.get_offsets()) == 1]
    )
    for policy in (view.problem.reference, view.problem.optimal_policy(), view.behavior):
        assert np.isclose(marks, bandit.plots.simplex_xy(policy)).all(axis=1).any()
    limits = regret.get_ylim()
    assert limits[0] < view.regret.min()
    assert limits[1] > view.regret.max()


def test_a_descent_that_leaves_float64_is_left_out():
    view = explore(but(learning_rate=1e5, behavior=(1.0, 1.0, 1.0)))
    assert np.isnan(view.paths[-1]).any()
    assert words.rows(view)[f"regret after {state.STEPS} steps"] == "diverged"
    assert "infinity" in words.described(view)
    assert picture.png(view)


# ------------------------------------------------------------------------------------ widgets


@pytest.fixture
def app():
    pytest.importorskip("ipywidgets")
    from bandit.explorer import widgets

    return widgets._Explorer(CHOICE)


def test_the_sliders_stand_where_the_choice_is(app):
    assert app.choice() == CHOICE


def test_moving_a_control_changes_what_is_shown(app):
    for name, value in (
        ("reward 2", 0.3),
        ("behavior 1", 0.5),
        ("reference 3", 2.0),
        ("beta", 2.0),
    ):
        before = app.picture.value, app.numbers.value
        app.controls[name].value = value
        assert app.picture.value != before[0]
        assert app.numbers.value != before[1]
    assert app.controls["preferences"].disabled
    app.controls["method"].value = "dpo"
    assert not app.controls["preferences"].disabled
    assert "DPO comes to rest at the optimal policy" in app.verdict.value
    assert "reads preferences" in app.note.value
    app.controls["preferences"].value = "deterministic"
    assert "no single solution" in app.verdict.value
    app.controls["method"].value = "policy_gradient_value"
    app.controls["behavior 3"].value = 0.0
    assert "looking" not in app.verdict.value


def test_no_data_at_all_is_answered_in_words_and_forgiven(app):
    for arm in (1, 2, 3):
        app.controls[f"behavior {arm}"].value = 0.0
    assert "behavior: expected shares" in app.verdict.value
    assert app.picture.value == app.numbers.value == ""
    app.controls["behavior 1"].value = 1.0
    assert "<img" in app.picture.value
    assert "behavior: expected" not in app.verdict.value


def test_every_control_has_a_label_and_the_picture_a_description(app):
    labels = [control.description for control in app.controls.values()]
    assert all(labels)
    assert len(set(labels)) == len(labels)
    (alt,) = re.findall(r'alt="([^"]+)"', app.picture.value)
    assert "CoPG comes to rest" in alt


def test_without_widgets_it_says_what_to_install():
    code = "import sys; sys.modules['ipywidgets'] = None; import bandit; bandit.explorer.app()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith("the explorer needs ipywidgets: pip install 'copg-bandit[apps]'")


# ------------------------------------------------------------------------------------ a browser


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The explorer, served by the command of `make explorer`."""
    log = tmp_path_factory.mktemp("voila") / "log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # What make would run, were its environment made already.
    said = ["make", "--dry-run", "--silent", "--old-file=.venv/stamp-apps", f"PORT={port}"]
    outside = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    told = subprocess.run(
        [*said, "explorer"], cwd=ROOT, capture_output=True, text=True, check=True, env=outside
    )
    line = told.stdout.replace("\\\n", " ")
    run = shlex.split(line[line.index(".venv/bin/python -m voila") :])
    run[0] = sys.executable
    with log.open("w") as stream:
        server = subprocess.Popen(run, cwd=ROOT, stderr=stream, env={**os.environ})
    try:
        # It takes as long as it takes: what is waited for is that it says so, or ends.
        while not (found := re.search(r"running at:?\s+(http://\S+)", log.read_text())):
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
        yield found[1]
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.skipif(not HAS_APPS, reason="needs the extra apps")
def test_in_a_browser_keys_move_sliders_and_sliders_the_picture(address):
    from playwright.sync_api import expect, sync_playwright

    hangs = 600_000  # milliseconds
    shown = "document.querySelector('img.explorer-picture')"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER, args=FLAGS.split(), timeout=hangs
        )
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        asked: list[str] = []
        page.on("requestfinished", lambda request: asked.append(request.url))
        page.on("requestfailed", lambda request: asked.append(f"{request.url} {request.failure}"))
        page.set_default_timeout(hangs)
        page.goto(address)
        image = page.locator("img.explorer-picture")
        image.wait_for()
        page.wait_for_function(f"{shown}.naturalWidth > 600")
        page.get_by_text("CoPG comes to rest at the optimal policy π*.").first.wait_for()

        # With the Tab key from the method to the first slider of a reward, then an arrow key.
        page.get_by_label("Method").focus()
        slider = page.get_by_role("slider", name="Reward, arm 1")
        for _ in range(6):
            if slider.evaluate("element => element === document.activeElement"):
                break
            page.keyboard.press("Tab")
        before, value = image.get_attribute("src"), slider.get_attribute("aria-valuetext")
        assert value == "2.5"
        page.keyboard.press("ArrowRight")
        page.wait_for_function(f"before => {shown}.src !== before", arg=before)
        page.wait_for_function(
            "e => e.getAttribute('aria-valuetext') === '2.6'",
            arg=slider.element_handle(),
        )

        page.get_by_label("Method").select_option("IPO")
        # Each widget has its own messages, and they may come in any order.
        page.get_by_text("IPO comes to rest away from π*").wait_for()
        page.wait_for_function(f"{shown}.alt.includes('IPO')")
        expect(page.get_by_label("Preferences")).to_be_enabled(timeout=hangs)

        # Everything that can be moved has a name.
        for role in ("slider", "combobox"):
            for one in page.get_by_role(role).all():
                assert one.evaluate(
                    "e => e.ariaLabel || [...(e.labels || [])].map(l => l.innerText).join()"
                )
        assert page.get_by_role("slider").count() == 11
        assert not page.get_by_text("Traceback").count()
        # What voila's template wants from elsewhere is refused before anybody is asked.
        elsewhere = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
        assert [url for url in elsewhere if not url.endswith(" csp")] == []
        browser.close()
