"""Whatever is passed in: an answer, or one clear line; never an error from inside a library.

The public functions get arguments of every kind, and the command line gets words of every kind. One
argument of a call that is right is replaced at a time, so that the checks of all of them are met.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

import bandit
from bandit import analysis, cli, losses, pairs, pessimism, preferences, related
from bandit.losses import Group
from bandit.sweeps.grids import SETTINGS

# What the profile leaves aside has to be named again.
ASIDE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
few = settings(max_examples=60, suppress_health_check=ASIDE)

numbers = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-3, 5),
    st.sampled_from([1e308, -1e308, 5e-324, 10**400, True, 1j, np.float32(0.5), np.int8(2)]),
)
words = st.sampled_from(["", "value", "copg", "0.5", "π", "a\nb", "\x00"])
odd = st.recursive(
    st.one_of(numbers, words, st.none(), st.just(object()), st.just({"a": 1}), st.just(len)),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)
arrays = st.sampled_from(
    [
        np.zeros(0),
        np.ones((2, 0)),
        np.array(0.3),
        np.array([0.2, 0.3, 0.5]),
        np.array([[0.2, 0.3, 0.5]] * 2),
        np.array([1, 0, 0]),
        np.array([0.2, np.nan, 0.8]),
        np.array([0.2, 0.3, 0.5], dtype=np.float16),
        np.array(["a", "b", "c"]),
        np.array([1 + 1j, 0, 0]),
        np.array([None, 1, 2], dtype=object),
        np.full((3, 3), 1 / 9),
        np.full((2, 3, 3), 0.5),
        np.ma.masked_array([0.2, 0.3, 0.5], mask=[0, 1, 0]),
        np.array([2, 1], dtype="datetime64[D]"),
    ]
)
anything = st.one_of(odd, arrays)

PROBLEM = bandit.Bandit([1.0, -0.5, 0.2], 0.5, [0.5, 0.2, 0.3])
DATA = pairs.independent([0.2, 0.3, 0.5])
LIKED = preferences.bradley_terry(PROBLEM.reward)
LOG_PROB = np.log([[0.5, 0.5], [0.2, 0.8]])
COUNTS = bandit.data.from_counts([[5, 3], [2, 4]], [[1, 2], [0, 3]], [[0.6, 0.4], [0.3, 0.7]])
FRAME = pd.DataFrame({"c": [1, 2, 2], "a": ["x", "y", "x"], "r": [0, 1, 1], "p": [0.5, 0.4, 1.0]})


def nothing(group, *, beta):
    """A loss of which little is left to examine."""
    raise ValueError("nothing")


def grid(**grids):
    """A sweep of one cell, with every setting given."""
    return bandit.sweep(PROBLEM, ["copg"], grids, 1)


CALLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Bandit": (
        bandit.Bandit,
        {
            "reward": [[1.0, 0.0, 0.5], [0.0, 2.0, 1.0]],
            "beta": 0.5,
            "reference": [0.5, 0.2, 0.3],
            "context_weights": [0.3, 0.7],
        },
    ),
    "regret": (PROBLEM.regret, {"policy": [0.2, 0.3, 0.5]}),
    "kl": (PROBLEM.kl, {"policy": [0.2, 0.3, 0.5], "other": [0.3, 0.3, 0.4]}),
    "independent": (pairs.independent, {"mu": [0.2, 0.8], "other": [0.5, 0.5]}),
    "pairs.from_counts": (pairs.from_counts, {"counts": [[1, 2], [3, 4]]}),
    "components": (pairs.components, {"pairs": [[0.5, 0.0], [0.0, 0.5]]}),
    "bradley_terry": (preferences.bradley_terry, {"reward": [1.0, 0.0], "scale": 2.0}),
    "deterministic": (preferences.deterministic, {"reward": [1.0, 0.0]}),
    "preferences.from_counts": (preferences.from_counts, {"wins": [[0, 2], [3, 0]]}),
    "population": (
        analysis.population,
        {
            "problem": PROBLEM,
            "loss": losses.policy_gradient,
            "logits": [0.1, 0.2, 0.3],
            "pairs": DATA,
            "baseline": "value",
            "group_size": 2,
        },
    ),
    "solve": (
        analysis.solve,
        {"problem": PROBLEM, "loss": losses.ipo, "pairs": DATA, "preference": LIKED},
    ),
    "compare": (
        analysis.compare,
        {"problem": PROBLEM, "pairs": DATA, "methods": ["copg", "ipo"], "preference": LIKED},
    ),
    "train": (
        bandit.train,
        {
            "problem": PROBLEM,
            "loss": losses.copg,
            "pairs": DATA,
            "group_size": 2,
            "batch_size": 4,
            "steps": 2,
            "optimizer": bandit.SGD(0.1),
            "runs": 2,
            "rng": 0,
            "record_every": 1,
            "reward_noise": 0.1,
            "start": [0.0, 0.1, 0.2],
        },
    ),
    "SGD": (bandit.SGD, {"lr": 0.1}),
    "Adam": (bandit.Adam, {"lr": 0.1}),
    "copg": (
        losses.copg,
        {"group": Group(LOG_PROB, LOG_PROB - 0.1, np.ones((2, 2))), "beta": 0.5},
    ),
    "Log": (
        bandit.data.Log,
        {
            "contexts": [0, 1, 0],
            "arms": [1, 0, 0],
            "rewards": [0.0, 1.0, 1.0],
            "propensities": [0.5, 0.5, 0.2],
        },
    ),
    "data.from_counts": (
        bandit.data.from_counts,
        {"n": [[5, 3]], "reward": [[1, 2]], "propensity": [[0.6, 0.4]]},
    ),
    "ipw": (bandit.ope.ipw, {"data": COUNTS, "policy": [0.5, 0.5]}),
    "doubly_robust": (bandit.ope.doubly_robust, {"data": COUNTS, "policy": [0.5, 0.5]}),
    "clipped_ipw": (
        bandit.ope.clipped_ipw,
        {"data": COUNTS, "policy": [0.5, 0.5], "largest": 2.0},
    ),
    "switch_doubly_robust": (
        bandit.ope.switch_doubly_robust,
        {"data": COUNTS, "policy": [0.5, 0.5], "threshold": 2.0, "shrinkage": 0.0, "model": None},
    ),
    "empirical_bernstein": (
        bandit.ope.empirical_bernstein,
        {
            "data": COUNTS,
            "policy": [0.5, 0.5],
            "bounds": (0, 1),
            "largest_weight": 5.0,
            "level": 0.9,
        },
    ),
    "clopper_pearson": (
        bandit.ope.clopper_pearson,
        {
            "data": bandit.data.from_counts([5, 3], [1, 2], [0.5, 0.5]),
            "policy": [0.0, 1.0],
            "level": 0.9,
        },
    ),
    "slope": (
        bandit.ope.slope,
        {"estimates": [bandit.ope.direct_method(COUNTS, [0.5, 0.5])], "level": 0.9},
    ),
    "data.count": (bandit.data.count, {"parts": [COUNTS, COUNTS]}),
    "data.split": (bandit.data.split, {"data": COUNTS, "share": 0.5, "rng": 0}),
    "data.from_dataframe": (
        bandit.data.from_dataframe,
        {
            "frame": FRAME,
            "arm": "a",
            "reward": "r",
            "context": ["c", "a"],
            "propensity": "p",
            "arms": None,
            "on_bad": "error",
        },
    ),
    "fit": (
        bandit.fit,
        {
            "data": COUNTS,
            "method": "copg",
            "beta": 0.1,
            "reference": "uniform",
            "rewards": "mean",
            "solver": "exact",
        },
    ),
    "verify": (
        bandit.verify,
        {"loss": nothing, "level": "quick", "rng": 0, "baseline": "value", "libraries": []},
    ),
    # Not its folder and its workers, which would be made.
    "sweep": (
        bandit.sweep,
        {
            "problems": PROBLEM,
            "methods": ["copg"],
            "grids": {"beta": [0.5], "steps": 2},
            "runs": 1,
            "seed": 0,
            "exact": True,
        },
    ),
    "sweep, its grids": (
        grid,
        {name: setting.default for name, setting in SETTINGS.items()}
        | {"beta": 0.5, "steps": 2, "record_every": 1, "batch_size": 4},
    ),
    "lower_confidence_bound": (
        pessimism.lower_confidence_bound,
        {"data": COUNTS, "level": 0.9, "kind": "bernstein", "bounds": (0.0, 1.0)},
    ),
    "empirical_bayes": (pessimism.empirical_bayes, {"data": COUNTS}),
    "forward_kl.objective": (
        related.forward_kl.objective,
        {"problem": PROBLEM, "policy": [0.2, 0.3, 0.5]},
    ),
    "nash.equilibrium": (
        related.nash.equilibrium,
        {"preference": LIKED, "reference": [0.2, 0.3, 0.5], "tau": 0.5},
    ),
    "nash_md": (
        related.nash.nash_md,
        {
            "preference": LIKED,
            "reference": [0.2, 0.3, 0.5],
            "tau": 0.5,
            "steps": 3,
            "record_every": 1,
        },
    ),
    "exploitability": (
        related.nash.exploitability,
        {
            "policy": [0.2, 0.3, 0.5],
            "preference": LIKED,
            "reference": [0.5, 0.2, 0.3],
            "tau": 0.5,
        },
    ),
    "win_rate": (
        related.nash.win_rate,
        {"policy": [0.2, 0.3, 0.5], "other": [0.5, 0.2, 0.3], "preference": LIKED},
    ),
    "active_sampling.variance": (
        related.active_sampling.variance,
        {
            "behavior": [0.2, 0.3, 0.5],
            "policy": [0.5, 0.2, 0.3],
            "advantage": [1.0, 0.0, -1.0],
        },
    ),
    "zeroth_order.variance": (
        related.zeroth_order.variance,
        {
            "problem": PROBLEM,
            "logits": [0.1, 0.2, 0.3],
            "directions": 2,
            "pairs": 3,
            "judges": 2,
            "smoothing": 0.1,
            "trim": 0.1,
            "block": 2,
            "nodes": 3,
        },
    ),
    "optimal_behavior": (
        related.active_sampling.optimal_behavior,
        {"policy": [0.2, 0.3, 0.5], "advantage": [1.0, 0.0, -1.0]},
    ),
    "defensive": (
        related.active_sampling.defensive,
        {"behavior": [0.2, 0.3, 0.5], "policy": [0.5, 0.2, 0.3], "share": 0.2},
    ),
    "estimate_behavior": (
        related.active_sampling.estimate_behavior,
        {
            "counts": [3, 1, 2],
            "drawn_from": [0.2, 0.3, 0.5],
            "policy": [0.5, 0.2, 0.3],
            "advantage": [1.0, 0.0, -1.0],
        },
    ),
    "active_sampling.optimize": (
        related.active_sampling.optimize,
        {
            "problem": PROBLEM,
            "batch_size": 4,
            "steps": 2,
            "optimizer": bandit.SGD(0.1),
            "rng": 0,
            "share": 0.2,
            "sampling": "active",
            "baseline": "value",
            "runs": 1,
            "record_every": 1,
            "start": [0.0, 0.1, 0.2],
        },
    ),
    "mirror_descent": (
        related.family.mirror_descent,
        {"problem": PROBLEM, "loss": losses.copg, "eta": 0.5, "rounds": 2, "pairs": DATA},
    ),
    "value_estimates": (related.family.value_estimates, {"problem": PROBLEM, "samples": 2}),
    "zeroth_order_gradient": (
        related.zeroth_order.zeroth_order_gradient,
        {
            "problem": PROBLEM,
            "logits": [0.1, 0.2, 0.3],
            "rng": 0,
            "directions": 2,
            "pairs": 3,
            "judges": 2,
            "smoothing": 0.1,
            "trim": 0.1,
            "block": False,
        },
    ),
    "RewardModel.fit": (
        related.reward_learning.RewardModel.fit,
        {"features": np.eye(3), "wins": [[0, 2, 1], [1, 0, 3], [2, 1, 0]], "ridge": 0.1},
    ),
}


WARNED = (bandit.ope.LowOverlapWarning, bandit.ope.PropensityWarning, bandit.data.BadRowsWarning)
# What float64 cannot search for is a RuntimeError, as documented.
GIVES_UP = ("nash.equilibrium",)


def said(error: Exception) -> None:
    text = str(error)
    assert text, "an error without a word"
    assert "\n" not in text, text


@few
@pytest.mark.parametrize("name", CALLS)
@given(data=st.data())
def test_public_functions_answer_or_say_why_not(name, data):
    function, right = CALLS[name]
    argument = data.draw(st.sampled_from(sorted(right)))
    given_ = right | {argument: data.draw(anything)}
    with warnings.catch_warnings():
        # A solution that is not there, a diverged run and too little overlap are told by warnings.
        for kind in (analysis.NotIdentifiedWarning, *WARNED):
            warnings.simplefilter("ignore", kind)
        warnings.filterwarnings("ignore", "train: ", RuntimeWarning)
        warnings.filterwarnings("ignore", "fit: ")
        try:
            function(**given_)
        except (ValueError, TypeError) as error:
            said(error)
        except RuntimeError as error:
            if name not in GIVES_UP:
                raise
            said(error)


@pytest.mark.parametrize("huge", [[1e308, 1e308], [[1e308, 1e308]] * 2])
def test_probabilities_too_large_to_be_summed_are_refused(huge):
    with pytest.raises(ValueError, match=r"^mu: expected probabilities that sum to 1, got .* inf"):
        pairs.independent(huge)


def test_rewards_at_the_ends_of_float64_are_certain():
    certain = [[0.5, 0.0], [1.0, 0.5]]
    np.testing.assert_array_equal(preferences.bradley_terry([-1e308, 1e308], scale=2.0), certain)
    np.testing.assert_array_equal(preferences.deterministic([-1e308, 1e308]), certain)


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_are_right_to_begin_with(name):
    function, right = CALLS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bandit.ope.LowOverlapWarning)
        function(**right)


@pytest.mark.parametrize("name", [name for name in CALLS if CALLS[name][0] is not grid])
def test_unknown_names_are_refused(name):
    function, right = CALLS[name]
    with pytest.raises(TypeError, match="typo"):
        function(**right, typo=1)


# -------------------------------------------------------------------------- the command line

LOG = "position,item,click,p\n1,a,0,0.5\n1,b,1,0.5\n2,a,1,0.25\n2,b,0,0.75\n"
WORDS = (
    "compare train fit evaluate verify sweep selftest log.csv no.csv --reward --beta --behavior "
    "--reference --methods --preferences --out --format --steps --runs --context --arm "
    "--propensity --on-bad --seed --version --json --top --level --example --grid --plot --policy"
).split()
VALUES = [""]
VALUES += (
    "copg ipo json csv drop position item click p open-bandit . 1,2,3 0.5 -1 1e999 nan".split()
)
VALUES += "0 π a:b 1,,2 2 -- x.png".split()


def status(arguments: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(arguments)
    return code, out.getvalue(), err.getvalue()


@settings(max_examples=120, suppress_health_check=ASIDE)
@given(
    arguments=st.lists(
        st.one_of(st.sampled_from(WORDS), st.sampled_from(VALUES), st.text(max_size=4)), max_size=7
    ),
    first=st.sampled_from(WORDS[:6]),
)
@example(arguments=["log.csv", "--arm", "item", "--reward", "click", "--beta", "0.1"], first="fit")
@example(arguments=["--reward", "1,2", "--format", "json"], first="compare")
def test_no_words_end_in_a_traceback(arguments, first, tmp_path, monkeypatch):
    # These take longer than a test may, and are tested elsewhere with less to do.
    slow = {"train": "--steps", "sweep": "--grid", "verify": "--all"}
    assume(first not in slow or slow[first] not in arguments)
    arguments = [first, *arguments]
    if first == "train":
        arguments += ["--steps", "2", "--runs", "1", "--no-progress"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text(LOG, encoding="utf-8")
    code, out, err = status(arguments)
    assert code in (0, 1, 2), (arguments, err)
    assert "Traceback" not in err
    if code == 2:
        lines = [line for line in err.splitlines() if "warning:" not in line]
        assert len(lines) == 1, (arguments, err)
    elif "--format" in arguments and "json" in arguments and first == "compare" and code == 0:
        json.loads(out)


@settings(max_examples=60, suppress_health_check=ASIDE)
@given(content=st.binary(max_size=60), cut=st.integers(0, len(LOG)))
def test_no_file_ends_in_a_traceback(content, cut, tmp_path):
    path = Path(tmp_path) / "log.csv"
    path.write_bytes(LOG.encode()[:cut] + content)
    arguments = ["fit", str(path), "--context", "position", "--arm", "item", "--reward", "click"]
    code, _, err = status([*arguments, "--propensity", "p", "--beta", "0.1"])
    assert code in (0, 2)
    assert "Traceback" not in err
    if code == 2:
        assert len([line for line in err.splitlines() if "warning:" not in line]) == 1, err


# --------------------------------------------------------------------------- no clock decides


def hypothesis_settings():
    """Of every test with examples in this folder, by its name, and of the profiles."""
    for name in ("repeatable", "explore", "quick"):
        yield name, settings.get_profile(name)
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        names = re.findall(r"^@given.*?^def (\w+)", path.read_text("utf-8"), re.S | re.M)
        module = sys.modules.get(path.stem)
        for name in names if module else ():
            yield name, getattr(module, name)._hypothesis_internal_use_settings


def test_no_example_is_too_slow():
    """A busy machine draws examples slowly: by default hypothesis calls that a failure."""
    found = dict(hypothesis_settings())
    assert {"test_no_words_end_in_a_traceback", "test_no_file_ends_in_a_traceback"} <= set(found)
    for name, own in found.items():
        assert own.deadline is None, name
        assert HealthCheck.too_slow in own.suppress_health_check, name
