"""``python -m bandit fit`` and ``evaluate``: what they print and write, and what they refuse."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

import bandit
from bandit import data, ope
from bandit.cli import main

COLUMNS = "--context position --arm item --reward click --propensity p".split()
HEADER = "position,item,click,p"


def outcome(capsys, *words: object) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def output(capsys, *words: object) -> str:
    status, out, _ = outcome(capsys, *words)
    assert status == 0
    return out


def refused(capsys, *words: object) -> str:
    """The one line on stderr of a command that ends with status 2."""
    status, out, err = outcome(capsys, *words)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("python -m bandit")
    return line


def a_log(n: int = 400) -> data.Log:
    rng = np.random.default_rng(0)
    behavior = 0.1 + 0.6 * rng.dirichlet([4.0, 3.0, 2.0, 1.0], size=n)
    arms = (behavior.cumsum(axis=1) <= rng.random((n, 1))).sum(axis=1)
    contexts = rng.choice(2, size=n, p=[0.7, 0.3])
    return data.Log(
        contexts,
        arms,
        rng.normal(0.5 * arms * contexts, 0.5),
        behavior[np.arange(n), arms],
        context_labels=["left", "right"],
        arm_labels=[3, 5, 8, 13],
    )


def csv_of(log: data.Log) -> str:
    frame = log.to_dataframe().set_axis(HEADER.split(","), axis=1)
    return frame.to_csv(index=False, float_format="%.17g")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(csv_of(a_log()), encoding="utf-8")
    return path


# -------------------------------------------------------------------------------- evaluate


def table_of(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), index_col="method")


def test_evaluate_is_ope_with_rows_left_out(capsys, file):
    shown = table_of(output(capsys, "evaluate", file, *COLUMNS, "--format", "csv"))
    expected = ope.evaluate(a_log(), np.full(4, 0.25), folds="rows")
    pd.testing.assert_frame_equal(shown, expected, rtol=1e-12, check_exact=False)
    in_sample = ope.evaluate(a_log(), np.full(4, 0.25))
    assert shown.value["doubly_robust"] != pytest.approx(in_sample.value["doubly_robust"], rel=1e-4)


def test_evaluate_prints_estimates_and_how_far_to_trust_them(capsys, file):
    text = output(capsys, "evaluate", file, *COLUMNS, "--level", "0.8")
    expected = ope.evaluate(a_log(), np.full(4, 0.25), folds="rows", level=0.8)
    lines = text.splitlines()
    assert lines[0].startswith("log.csv: 400 rows, 2 contexts, 4 arms, mean reward")
    rows = {line.split()[0]: line.split()[1:] for line in lines if line}
    for name in expected.index:
        wanted = expected.loc[name, ["value", "standard_error", "low", "high"]]
        assert rows[name] == [f"{x:.4g}" for x in wanted]
    assert "80% from" in text
    size, most = expected.iloc[0][["effective_sample_size", "max_weight"]]
    assert f"effective sample size {size:.5g} of 400 rows; largest weight {most:.5g}" in text


def test_evaluate_on_the_example_says_that_its_largest_weight_is_a_bound(capsys):
    words = ["evaluate", "--example", "open-bandit", "--campaign", "women"]
    status, out, err = outcome(capsys, *words)
    assert status == 0
    assert "effective sample size 2.0778 of 10000 rows; largest weight at most 21739" in out
    assert err.count("warning: effective sample size 2.08 of 10000 rows (0.02%)") == 1
    document = json.loads(output(capsys, *words, "--format", "json"))
    assert document["log"]["max_weight_is_a_bound"]
    assert len(document["warnings"]) == 1
    first = document["estimates"][0]
    assert (first["method"], round(1e3 * first["value"], 4)) == ("ipw", 7.4376)
    random = output(capsys, *words, "--logger", "random")
    assert "mean reward 0.0046" in random
    # All propensities are one number, so that the bound is reached.
    assert "effective sample size 10000 of 10000 rows; largest weight 1\n" in random


def test_a_log_without_contexts_and_propensities(capsys, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("item\tclick\na\t1\na\t0\nb\t1\n", encoding="utf-8")
    words = [path, "--arm", "item", "--reward", "click", "--delimiter", "tab"]
    text = output(capsys, "evaluate", *words)
    assert "3 rows, no contexts, 2 arms" in text
    assert "no propensities, so only a model of the reward can tell" in text
    (row,) = [line for line in text.splitlines() if line.startswith("direct_method")]
    assert row.split()[1] == "0.75"
    document = json.loads(output(capsys, "evaluate", *words, "--format", "json"))
    assert document["estimates"][0]["effective_sample_size"] is None
    assert document["log"]["propensities"] is False


def test_parquet_is_csv(capsys, file):
    pytest.importorskip("pyarrow")
    frame = a_log().to_dataframe().set_axis(HEADER.split(","), axis=1)
    frame.to_parquet(file.with_suffix(".parquet"))
    words = [*COLUMNS, "--format", "csv"]
    parquet = output(capsys, "evaluate", file.with_suffix(".parquet"), *words)
    assert parquet == output(capsys, "evaluate", file, *words)


def test_bad_rows_are_dropped_and_counted_everywhere(capsys, file):
    file.write_text(csv_of(a_log()) + "left,3,x,0.5\nleft,3,1,\nleft,3,1,2\n", encoding="utf-8")
    assert "log.csv: row 401, column 'click'" in refused(capsys, "evaluate", file, *COLUMNS)
    words = ["evaluate", file, *COLUMNS, "--on-bad", "drop"]
    status, out, err = outcome(capsys, *words)
    reasons = "1 click: not a number, 1 p: missing, 1 p: not in (0, 1]"
    assert status == 0
    assert f"warning: log.csv: dropped 3 of 403 rows ({reasons})" in err
    assert f"dropped 3 bad rows: {reasons}" in out
    document = json.loads(output(capsys, *words, "--format", "json"))
    assert sum(document["log"]["dropped"].values()) == 3
    assert document["log"]["rows"] == 400


# ------------------------------------------------------------------------------------- fit


def learned(**options) -> bandit.offline.Fit:
    return bandit.fit(a_log().counts(), **{"method": "copg", "beta": 0.3, **options})


def test_fit_prints_the_likeliest_arms_of_each_context(capsys, file):
    text = output(capsys, "fit", file, *COLUMNS, "--beta", "0.3", "--top", "2")
    fit = learned()
    assert "copg, β = 0.3, π_ref uniform, rewards mean; KL(π‖π_ref) = " in text
    lines = text.splitlines()
    at = next(place for place, line in enumerate(lines) if line.startswith("context"))
    for line, row in zip(lines[at + 1 :], fit.top(2).itertuples(), strict=False):
        numbers = [f"{x:.4g}" for x in (row.probability, row.reference, row.reward)]
        assert line.split() == [row.context, str(row.arm), *numbers, str(row.rows)]
    assert lines[at + 5] == ""
    value = ope.evaluate(a_log(), fit.policy, folds="rows").value["self_normalized_ipw"]
    (row,) = [line for line in lines if line.startswith("self_normalized_ipw")]
    assert row.split()[1] == f"{value:.4g}"
    assert lines[-1] == "the log that chose the policy also judges it here: expect less"


def test_every_row_of_a_table_is_one_line(capsys, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text('arm,r\n"one\ntwo",1\n"a, ""b""",0\nü🙂\x1b[2J,1\n', encoding="utf-8")
    text = output(capsys, "fit", path, "--arm", "arm", "--reward", "r", "--beta", "1")
    shown = [line.split("  ")[0] for line in text.splitlines()[4:7]]
    assert sorted(shown) == sorted([r"one\ntwo", 'a, "b"', r"ü🙂\x1b[2J"])


def test_fit_options_reach_the_fit(capsys, file, tmp_path, monkeypatch):
    seen = {}

    def fit(log, method, **options):
        seen.update(options, log=log, method=method)
        return real(log, method, **{**options, "rewards": "mean"})

    real = bandit.fit
    monkeypatch.setattr(bandit, "fit", fit)
    words = "--beta 0.7 --method ipo --rewards empirical_bayes --reference logging".split()
    output(capsys, "fit", file, *COLUMNS, *words)
    assert (seen["method"], seen["beta"]) == ("ipo", 0.7)
    assert (seen["rewards"], seen["reference"]) == ("empirical_bayes", "logging")
    # Who beats whom is told by rows; the rest by sums, of files of any size.
    assert isinstance(seen["log"], data.Log)
    np.testing.assert_array_equal(seen["log"].rewards, a_log().rewards)
    reference = tmp_path / "reference.csv"
    reference.write_text("arm,probability\n8,0.3\n3,0.2\n13,0.1\n5,0.4\n", encoding="utf-8")
    output(capsys, "fit", file, *COLUMNS, "--beta", "1", "--reference", reference)
    assert isinstance(seen["log"], data.Counts)
    np.testing.assert_array_equal(seen["log"].reward, a_log().counts().reward)
    np.testing.assert_array_equal(seen["reference"], np.tile([0.2, 0.4, 0.3, 0.1], (2, 1)))


@pytest.mark.parametrize("rewards", ["mean", "lower_confidence_bound", "empirical_bayes"])
def test_what_arms_are_taken_to_be_worth(capsys, rewards):
    words = "--example open-bandit --campaign men --logger random --beta 0.01 --top 1".split()
    text = output(capsys, "fit", *words, "--rewards", rewards)
    fit = bandit.fit(data.open_bandit("men", "random"), beta=0.01, rewards=rewards)
    assert f"rewards {rewards}; KL(π‖π_ref) = {fit.diagnostics.kl:.4g} nats" in text
    for row in fit.top(1).itertuples():
        assert f"{row.probability:.4g}    0.02941" in text
        assert f"{row.reward:.4g}" in text


def test_what_has_no_answer_is_said_once(capsys, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("arm,win\na,1\na,1\nb,0\nb,0\n", encoding="utf-8")
    words = [path, "--arm", "arm", "--reward", "win", "--beta", "1", "--method", "dpo"]
    status, _, err = outcome(capsys, "fit", *words)
    assert status == 0
    assert err.count("no finite solution") == 1


def test_likelihoods_see_the_rows_of_a_file(capsys, tmp_path):
    """The mean of exp(r/β) is not told by sums of r."""
    rng, path, out = np.random.default_rng(2), tmp_path / "log.csv", tmp_path / "out"
    arms, rewards = rng.integers(0, 3, 90), rng.normal(0.3, 1.2, 90)
    rows = [f"{arm},{reward:.17g}" for arm, reward in zip(arms, rewards, strict=True)]
    path.write_text("\n".join(["arm,gain", *rows]), encoding="utf-8")
    words = [path, "--arm", "arm", "--reward", "gain", "--method", "reward_weighted"]
    output(capsys, "fit", *words, "--beta", "0.5", "--out", out)
    share = np.array([np.exp(rewards[arms == arm] / 0.5).sum() for arm in range(3)])
    table = pd.read_csv(out / "policy.csv", index_col="arm")
    expected = share / share.sum()
    np.testing.assert_allclose(table["probability"].sort_index(), expected, rtol=1e-12)


@pytest.mark.parametrize("method", ["copg", "ipo"])
def test_arms_that_only_the_reference_knows_are_learned_about(capsys, file, tmp_path, method):
    reference = tmp_path / "reference.csv"
    reference.write_text(
        "arm,probability\n8,0.3\n3,0.2\n13,0.1\n5,0.3\nnew,0.1\n", encoding="utf-8"
    )
    words = ["--beta", "1", "--method", method, "--reference", reference, "--top", "5"]
    text = output(capsys, "fit", file, *COLUMNS, *words)
    new = [line.split() for line in text.splitlines() if " new " in line]
    assert [(row[0], row[2], row[3], row[5]) for row in new] == [
        ("left", "0.1", "0.1", "0"),
        ("right", "0.1", "0.1", "0"),
    ]


def test_rows_held_out_judge_what_the_others_taught(capsys, file, tmp_path):
    out, log = tmp_path / "learned", a_log()
    words = ["--beta", "0.02", "--holdout", "0.3", "--seed", "5"]
    text = output(capsys, "fit", file, *COLUMNS, *words, "--out", out)
    assert "log.csv: 120 rows" in text
    assert text.splitlines()[-1] == "learned from 280 other rows"
    held = np.random.default_rng(5).permutation(400)[:120]
    chosen = np.isin(np.arange(400), held)
    fit = bandit.fit(log.counts(~chosen), beta=0.02)
    expected = ope.evaluate(log.counts(chosen), fit.policy, folds="rows")
    table = pd.read_csv(out / "evaluation.csv", index_col="method")
    pd.testing.assert_frame_equal(table, expected, rtol=1e-12, check_exact=False)
    other = output(capsys, "fit", file, *COLUMNS, *words[:-1], "6")
    assert other != text


def test_the_example_is_divided_where_its_rows_can_be_told(capsys):
    """Its sums are those of rows of 0 and 1 with steady propensities."""
    words = "fit --example open-bandit --campaign men --logger random --beta 0.01 --holdout 0.4"
    text = output(capsys, *words.split(), "--top", 1, "--seed", 3)
    log = data.open_bandit("men", "random")
    rest, held = data.split(log, 0.4, rng=3)
    fit = bandit.fit(rest, beta=0.01)
    table = ope.evaluate(held, fit.policy, folds="rows")
    assert "4000 rows, 3 contexts, 34 arms" in text
    assert "learned from 6000 other rows" in text
    for name, value in table["value"].items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        assert line.split()[1] == f"{value:.4g}"


def test_batches_of_rows_from_a_terminal(capsys, file, tmp_path):
    words = [*"--beta 0.3 --solver minibatch --steps 7 --batch-size 5 --learning-rate 0.1".split()]
    for seed, out in ((2, "two"), (2, "again"), (3, "three")):
        output(capsys, "fit", file, *COLUMNS, *words, "--seed", seed, "--out", tmp_path / out)
    two, again, three = (bandit.Fit.load(tmp_path / out) for out in ("two", "again", "three"))
    expected = bandit.fit(
        data.read_csv(file, context="position", arm="item", reward="click", propensity="p"),
        beta=0.3,
        solver="minibatch",
        steps=7,
        batch_size=5,
        optimizer=bandit.Adam(0.1),
        rng=np.random.SeedSequence(2, spawn_key=(1,)),
    )
    np.testing.assert_array_equal(two.policy, expected.policy)
    np.testing.assert_array_equal(again.policy, two.policy)
    assert (three.policy != two.policy).any()
    assert two.diagnostics.message == "trained for 7 steps"
    about = json.loads((tmp_path / "three" / "evaluation.json").read_text(encoding="utf-8"))
    assert (about["solver"], about["seed"]) == ("minibatch", 3)


def test_several_columns_for_a_context(capsys, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("a;b;item;click;p\n1;x;3;0,5;0,5\n1;y;3;true;0,25\n1;x;4;1,5;0,5\n")
    words = [path, "--context", "b", "--context", "a", "--arm", "item", "--reward", "click"]
    words += ["--propensity", "p", "--delimiter", ";", "--decimal", ","]
    text = output(capsys, "fit", *words, "--beta", 1, "--out", tmp_path / "out")
    assert "3 rows, 2 contexts, 2 arms, mean reward 1" in text
    assert "b=x, a=1  4" in text
    assert bandit.Fit.load(tmp_path / "out").context_labels == ("b=x, a=1", "b=y, a=1")
    # The policy finds its contexts again.
    again = output(capsys, "evaluate", *words, "--policy", tmp_path / "out" / "policy.csv")
    rows = [line.split() for line in text.splitlines() if line.startswith("ipw")]
    assert rows == [line.split() for line in again.splitlines() if line.startswith("ipw")]


def test_a_thousand_contexts_do_not_fill_the_screen(capsys, tmp_path):
    path = tmp_path / "log.csv"
    rows = "".join(f"{x},{y},{y},0.5\n" for x in range(1000) for y in (0, 1))
    path.write_text(f"{HEADER}\n{rows}")
    text = output(capsys, "fit", path, *COLUMNS, "--beta", 1, "--top", 2)
    shown = [line for line in text.splitlines() if re.match(r"\d+ +[01] ", line)]
    assert len(shown) == 100
    assert shown[-1].startswith("49 ")
    assert "and 950 more contexts" in text


def test_propensities_that_are_wrong_are_told_once(capsys, tmp_path):
    log = a_log()
    off = data.Log(
        log.contexts,
        log.arms,
        log.rewards,
        log.propensities * 0.6,
        context_labels=log.context_labels,
        arm_labels=log.arm_labels,
    )
    path = tmp_path / "log.csv"
    path.write_text(csv_of(off), encoding="utf-8")
    for words in (["evaluate", path], ["fit", path, "--beta", 1]):
        status, _, err = outcome(capsys, *words, *COLUMNS)
        assert status == 0
        assert err.count("warning: the weights of the policy average 1.") == 1
    with pytest.warns(ope.PropensityWarning):
        bandit.fit(off, beta=1.0).evaluate()
    (note,) = bandit.fit(off, beta=1.0).diagnostics.warnings
    assert "the propensities are not those that the arms were drawn with" in note
    bare = ["--context", "position", "--arm", "item", "--reward", "click"]
    assert outcome(capsys, "evaluate", path, *bare)[2] == ""


def test_one_arm_alone_teaches_nothing_and_says_so(capsys, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(f"{HEADER}\n1,3,0,1\n1,3,1,1\n2,3,1,1\n")
    status, out, err = outcome(capsys, "fit", path, *COLUMNS, "--beta", 1)
    assert status == 0
    assert "3 rows, 2 contexts, 1 arm, mean" in out
    assert err.count("no context has two arms to compare: there is nothing to learn") == 1


def test_out_has_policy_and_report_to_the_last_digit(capsys, file, tmp_path):
    out = tmp_path / "learned"
    file.write_text(csv_of(a_log()) + "left,3,x,0.5\n", encoding="utf-8")
    words = ["--beta", "0.02", "--on-bad", "drop", "--out", out]
    output(capsys, "fit", file, *COLUMNS, *words)
    files = ["evaluation.csv", "evaluation.json", "policy.csv", "report.json"]
    assert sorted(path.name for path in out.iterdir()) == files
    assert sorted(tmp_path.iterdir()) == [out, file]
    fit = learned(beta=0.02)
    with (out / "policy.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["probability"]) for row in rows] == fit.policy.ravel().tolist()
    assert [row["context"] for row in rows] == ["left"] * 4 + ["right"] * 4
    expected = ope.evaluate(a_log(), fit.policy, folds="rows")
    table = pd.read_csv(out / "evaluation.csv", index_col="method")
    pd.testing.assert_frame_equal(table, expected, rtol=1e-12, check_exact=False)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    text = (out / "evaluation.json").read_text(encoding="utf-8")
    document = json.loads(text, parse_constant=refuse)
    assert document["command"].startswith("python -m bandit fit ")
    assert document["log"]["dropped"] == {"click: not a number": 1}
    assert any("dropped 1 of 401 rows" in note for note in document["warnings"])
    assert document["estimates"][0]["value"] == pytest.approx(expected.value["ipw"], rel=1e-12)
    # What was written is a policy that evaluate takes.
    words = ["--on-bad", "drop", "--policy", out / "policy.csv", "--format", "csv"]
    again = table_of(output(capsys, "evaluate", file, *COLUMNS, *words))
    pd.testing.assert_frame_equal(again, expected, rtol=1e-12, check_exact=False)


def test_an_empty_folder_is_filled(capsys, file, tmp_path):
    out = tmp_path / "learned"
    out.mkdir()
    output(capsys, "fit", file, *COLUMNS, "--beta", "1", "--out", out)
    assert sorted(path.suffix for path in out.iterdir()) == [".csv", ".csv", ".json", ".json"]


@pytest.mark.parametrize("new", [True, False])
def test_nothing_is_left_of_what_was_not_written(capsys, file, tmp_path, monkeypatch, new):
    out = tmp_path / "learned"
    if not new:
        out.mkdir()

    def save(self, folder):
        (folder / "policy.csv").write_text("half of it", encoding="utf-8")
        raise OSError(28, "No space left on device", "policy.csv")

    monkeypatch.setattr(bandit.offline.Fit, "save", save)
    line = refused(capsys, "fit", file, *COLUMNS, "--beta", "1", "--out", out)
    assert "policy.csv: No space left on device" in line
    assert out.exists() != new
    assert new or not list(out.iterdir())
    assert sorted(tmp_path.iterdir()) == sorted([file] if new else [file, out])


def test_folders_that_cannot_be_written_are_refused_before_anything_is_read(capsys, tmp_path):
    missing = tmp_path / "no.csv"
    full, plain = tmp_path / "full", tmp_path / "plain"
    full.mkdir()
    (full / "something").touch()
    plain.touch()
    for out, message in (
        (full, "--out: expected a new or an empty folder, got"),
        (plain, "--out: expected a folder, got the file"),
        (plain / "below", "--out: expected a folder that can be written, got"),
        (tmp_path / "no" / "below", "--out: expected a folder that can be written, got"),
    ):
        words = ["--arm", "a", "--reward", "r", "--beta", "1", "--out", out]
        assert message in refused(capsys, "fit", missing, *words)
    assert sorted(tmp_path.iterdir()) == [full, plain]


# -------------------------------------------------------------------------------- policies


def evaluated(capsys, file, path, text: str) -> tuple[int, str, str]:
    path.write_text(text, encoding="utf-8")
    words = ["--policy", path, "--format", "csv"]
    return outcome(capsys, "evaluate", file, *COLUMNS, *words)


def test_policies_may_play_more_than_the_log_shows(capsys, file, tmp_path):
    """An arm that nobody logged is part of what no row shows; a context nobody met is left out."""
    text = "context,arm,probability\nleft,3,0.5\nleft,new,0.5\nright,13,1\nmiddle,3,1\n"
    status, out, err = evaluated(capsys, file, tmp_path / "policy.csv", text)
    assert status == 0
    assert "policy.csv: contexts that the log has not are left out: middle" in err
    shown = table_of(out)
    share = (a_log().contexts == 0).mean()
    assert shown.unseen["ipw"] == pytest.approx(0.5 * share)
    log = a_log()
    wide = data.Log(
        log.contexts,
        log.arms,
        log.rewards,
        log.propensities,
        context_labels=log.context_labels,
        arm_labels=[*log.arm_labels, "new"],
    )
    policy = [[0.5, 0, 0, 0, 0.5], [0, 0, 0, 1, 0]]
    expected = ope.evaluate(wide, policy, folds="rows")
    pd.testing.assert_frame_equal(shown, expected, rtol=1e-12, check_exact=False)


BAD_POLICIES = {
    "": "policy.csv: expected a header and rows, got an empty file",
    "context,arm,probability\n": "policy.csv: expected rows, got none",
    "arm,p\n3,1\n": "expected a column of policy.csv ('arm', 'p'), got 'probability'",
    "item,probability\n3,1\n": "expected a column of policy.csv ('item', 'probability'), got 'arm'",
    "arm,probability\n3,0.5\n": "expected probabilities that sum to 1, got a sum of 0.5",
    "arm,probability\n3,1.5\n5,-0.5\n": "expected probabilities of at least 0, got -0.5",
    "arm,probability\n3,all\n": "policy.csv: row 1, column 'probability': expected a finite number",
    "arm,probability\n3,0.5\n3,0.5\n": "policy.csv: expected arm 3 once, got it 2 times",
    "context,arm,probability\nleft,3,1\n": "expected context 'right' of the log in policy.csv",
    "context,arm,probability\nleft,3,1\nleft,3,1\nright,3,1\n": "expected arm 3 of context 'left'",
    "context,arm,probability\n,3,1\n": "policy.csv: row 1, column 'context': expected a context",
    "context,arm\nleft,3\n\x00": "expected a column of policy.csv",
}


@pytest.mark.parametrize("text", BAD_POLICIES)
def test_wrong_policies_are_one_clear_line(capsys, file, tmp_path, text):
    path = tmp_path / "policy.csv"
    path.write_text(text, encoding="utf-8")
    line = refused(capsys, "evaluate", file, *COLUMNS, "--policy", path)
    assert line.startswith("python -m bandit: --policy: ")
    assert BAD_POLICIES[text] in line
    line = refused(capsys, "fit", file, *COLUMNS, "--beta", "1", "--reference", path)
    assert line.startswith("python -m bandit: --reference: ")
    assert BAD_POLICIES[text] in line


def test_references_without_some_arm_are_refused(capsys, file, tmp_path):
    path = tmp_path / "policy.csv"
    path.write_text("arm,probability\n3,1\n", encoding="utf-8")
    line = refused(capsys, "fit", file, *COLUMNS, "--beta", "1", "--reference", path)
    assert "--reference: expected probabilities above 0, got 0" in line


# ---------------------------------------------------------------------------------- errors

NAMED = "--arm item --reward click".split()
WRONG = {
    "evaluate": "expected a LOG, a CSV or Parquet file, or --example; got neither",
    "evaluate LOG": "--arm: expected the name of a column of LOG, got none",
    "evaluate LOG --arm item": "--reward: expected the name of a column of LOG, got none",
    "evaluate LOG --arm it --reward click": "--arm: expected a column of LOG",
    "evaluate LOG --arm item --reward click --context c": "--context: expected a column of LOG",
    "evaluate LOG --example open-bandit": "--log: expected none beside --example, got LOG",
    "evaluate --example open-bandit --arm item": "--arm: expected none beside --example, got item",
    "evaluate --example open-bandit --on-bad drop": "--on-bad: expected none beside --example",
    "evaluate --example shut-bandit": "argument --example: invalid choice: 'shut-bandit'",
    "evaluate LOG --arm item --reward click --campaign men": "--campaign: expected none beside a",
    "evaluate LOG --arm item --reward click --delimiter ;;": "--delimiter: expected one character",
    "evaluate LOG --arm item --reward click --level 1.5": "--level: expected a number in (0, 1)",
    "evaluate LOG --arm item --reward click --policy no.csv": "no.csv: No such file or directory",
    "evaluate LOG.parquet --arm item --reward click --delimiter ;": "--delimiter: expected none",
    "evaluate no.csv --arm item --reward click": "no.csv: No such file or directory",
    "evaluate no.parquet --arm item --reward click": "no.parquet: No such file or directory",
    "evaluate FOLDER --arm item --reward click": "FOLDER: Is a directory",
    "fit LOG --arm item --reward click": "the following arguments are required: --beta",
    "fit LOG --arm item --reward click --beta 0": "--beta: expected a finite number above 0, got 0",
    "fit LOG --arm item --reward click --beta x": "argument --beta: expected a number, got 'x'",
    "fit LOG --arm item --reward click --beta 1 --top 0": "--top: expected a positive integer",
    "fit LOG --arm item --reward click --beta 1 --level 0": "--level: expected a finite number",
    "fit LOG --arm item --reward click --beta 1 --seed 1": "--seed: expected none without",
    "fit LOG --arm item --reward click --beta 1 --holdout 1": "--holdout: expected a share that",
    "fit LOG --arm item --reward click --beta 1 --holdout 0.5 --seed -1": "--seed: expected a seed",
    "fit --example open-bandit --beta 1 --holdout 0.5": "drift; --logger random has what can be",
    "fit LOG --arm item --reward click --beta 1 --steps 9": "--steps: expected none without --so",
    "fit LOG --arm item --reward click --beta 1 --solver minibatch --steps 0": "--steps: expected",
    "fit LOG --arm item --reward click --beta 1 --solver minibatch --batch-size 0": "--batch-size",
    "fit LOG --arm item --reward click --beta 1 --solver minibatch --learning-rate 0": "--learning",
    "fit --example open-bandit --beta 1 --solver minibatch": "expected a Log with solver='mini",
    "evaluate LOG --arm item --reward click --decimal x": "argument --decimal: invalid choice: 'x'",
    "evaluate LOG.parquet --arm item --reward click --decimal ,": "--decimal: expected none for a",
    "evaluate LOG --arm item --reward click --context item --context item": "--context: expected",
    "evaluate --example open-bandit --context a --context b": "--context: expected none beside --e",
    "fit LOG --arm item --reward click --beta 1 --method magic": "argument --method: invalid",
    "fit LOG --arm item --reward click --beta 1 --reference no.csv": "no.csv: No such file",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_options_are_one_clear_line(capsys, file, monkeypatch, words):
    monkeypatch.chdir(file.parent)
    (file.parent / "FOLDER").mkdir()
    file.rename("LOG")
    line = refused(capsys, *words.split())
    assert WRONG[words] in line


GOOD = "1,3,0,0.5"
BROKEN = {
    "empty": (b"", "expected a header and rows, got an empty file"),
    "header": (HEADER.encode(), "expected rows, got none"),
    "truncated": (f"{HEADER}\n{GOOD}\n1,3".encode(), "row 2: expected 4 fields, got 2"),
    "ragged": (f"{HEADER}\n{GOOD}\n{GOOD},7\n".encode(), "row 2: expected 4 fields, got 5"),
    "types": (f"{HEADER}\n1,3,yes,0.5\n".encode(), "row 1, column 'click': expected a finite"),
    "number": (f"{HEADER}\n1,3,1e400,0.5\n".encode(), "row 1, column 'click': expected a finite"),
    "field": (f"{HEADER}\n1,{'3' * 200_000},0,1\n".encode(), "expected CSV, got at line 2: field"),
    "twice": (f"{HEADER},p\n{GOOD},1\n".encode(), "expected one column 'p' in the header, got 2"),
    "latin": (f"{HEADER}\n{GOOD}\n1,\xe9,0,1".encode("latin-1"), "expected UTF-8 text, got byte"),
    "utf-16": (f"{HEADER}\n{GOOD}\n".encode("utf-16"), "expected UTF-8 text, got byte 0xff"),
    "nul": (b"\x00" * 50, "--context: expected a column of"),
    "gzip": (gzip.compress(HEADER.encode()), "expected rows, got none"),
    "quote": (f'{HEADER}\n1,"3,0,1\n'.encode(), "expected CSV, got at line 2"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_broken_files_are_one_clear_line(capsys, tmp_path, kind, ending):
    content, message = BROKEN[kind]
    path = tmp_path / f"log.{ending}"
    path.write_bytes(content)
    if ending == "parquet":
        pytest.importorskip("pyarrow")
        message = "log.parquet: expected a Parquet file, got: "
    for command in (["evaluate"], ["fit", "--beta", "1"]):
        assert message in refused(capsys, *command, path, *COLUMNS)


def test_a_byte_order_mark_is_no_part_of_the_header(capsys, file):
    expected = output(capsys, "evaluate", file, *COLUMNS)
    file.write_text("\ufeff" + csv_of(a_log()), encoding="utf-8")
    assert output(capsys, "evaluate", file, *COLUMNS) == expected


def ends_well(words: list[str]) -> None:
    """Status 0, or status 2 after one line that is no warning."""
    with pytest.MonkeyPatch.context() as patch:
        out, err = io.StringIO(), io.StringIO()
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        status = main(words)
    lines = err.getvalue().splitlines()
    assert all(line.startswith("python -m bandit: ") for line in lines)
    complaints = [line for line in lines if not line.startswith("python -m bandit: warning: ")]
    assert (status, len(complaints)) in ((0, 0), (2, 1)), (status, lines)


FIELD = st.one_of(
    st.sampled_from(
        ["1", "3", "0.5", "", "nan", "-1", "x", '"', "\n", "é", "\x00", "1e308", "1e50"]
    ),
    st.text(max_size=3),
)
ROWS = st.lists(st.lists(FIELD, min_size=3, max_size=5).map(",".join), max_size=5)
VALID = st.tuples(
    st.sampled_from("12"),
    st.sampled_from("abc"),
    st.floats(-1e50, 1e50).map(repr),
    st.floats(1e-50, 1.0).map(repr),
).map(",".join)
CONTENT = st.one_of(
    st.binary(max_size=60),
    ROWS.map(lambda rows: "\n".join([HEADER, *rows]).encode("utf-8", "surrogatepass")),
    st.lists(VALID, min_size=1, max_size=6).map(lambda rows: "\n".join([HEADER, *rows]).encode()),
)


@settings(max_examples=60, deadline=None)
@given(content=CONTENT, drop=st.booleans(), command=st.sampled_from(["evaluate", "fit"]))
def test_any_bytes_end_well(tmp_path_factory, content, drop, command):
    path = tmp_path_factory.mktemp("fuzz") / "log.csv"
    path.write_bytes(content)
    words = [command, str(path), *COLUMNS, "--on-bad", "drop" if drop else "error"]
    ends_well(words + (["--beta", "0.5"] if command == "fit" else []))


POLICY_ROWS = st.lists(
    st.lists(
        st.one_of(st.sampled_from(["left", "right", "3", "5", "1", "0.5"]), FIELD), max_size=4
    ),
    max_size=5,
)


@settings(max_examples=40, deadline=None)
@given(
    header=st.sampled_from(["context,arm,probability", "arm,probability", "arm", ""]),
    rows=POLICY_ROWS,
)
def test_any_policy_ends_well(tmp_path_factory, header, rows):
    folder = tmp_path_factory.mktemp("fuzz")
    log, policy = folder / "log.csv", folder / "policy.csv"
    log.write_text(f"{HEADER}\nleft,3,1,0.5\nright,5,0,0.25\n", encoding="utf-8")
    lines = "\n".join([header, *(",".join(row) for row in rows)])
    policy.write_bytes(lines.encode("utf-8", "surrogatepass"))
    ends_well(["evaluate", str(log), *COLUMNS, "--policy", str(policy)])


def test_damaged_parquet_ends_well(file):
    pytest.importorskip("pyarrow")
    path = file.with_suffix(".parquet")
    pd.read_csv(file).head(5).to_parquet(path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 53):
        for content in (whole[:at], whole[:at] + b"\xff" + whole[at + 1 :]):
            path.write_bytes(content)
            ends_well(["evaluate", str(path), *COLUMNS])


def test_as_a_process_without_a_traceback(tmp_path):
    run = [sys.executable, "-m", "bandit", "evaluate", str(tmp_path), *NAMED]
    done = subprocess.run(run, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"python -m bandit: {tmp_path}: Is a directory\n"
