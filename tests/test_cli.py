"""The command line: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

import bandit
from bandit import analysis, pairs, preferences, presets, tables
from bandit.cli import main

RUN = [sys.executable, "-m", "bandit"]
PROBLEM = "--reward 1 0 -0.5 --reference 0.5,0.3,0.2 --beta 0.4 --behavior 0.2 0.2 0.6".split()
SHORT = "--steps 30 --runs 3 --batch-size 16 --no-progress".split()


def problem_and_pairs():
    problem = bandit.Bandit([1, 0, -0.5], 0.4, [0.5, 0.3, 0.2])
    return problem, pairs.independent([0.2, 0.2, 0.6])


def output(capsys, *words: str) -> str:
    """What a command prints; it must succeed and say nothing on stderr."""
    status = main(list(words))
    printed = capsys.readouterr()
    assert printed.err == ""
    assert status == 0
    return printed.out


# --------------------------------------------------------------------------------- compare


def test_compare_prints_a_row_for_every_method(capsys):
    lines = output(capsys, "compare").splitlines()
    assert lines[0].startswith("reward r = (2.5, 2, 1), β = 0.5")
    assert "μ = (0.1000, 0.2000, 0.7000), preferences bradley-terry" in lines[1]
    assert "π* = (0.7054, 0.2595, 0.0351), J(π*) = 2.1252" in lines[2]
    header = lines.index(next(line for line in lines if line.startswith("method")))
    names = [line.split()[0] for line in lines[header + 1 :][: len(presets.METHODS)]]
    assert names == list(presets.METHODS)
    row = next(line for line in lines if line.startswith("policy_gradient "))
    assert row.split()[1:] == "(0.2157, 0.3205, 0.4638) 1.009 0.5045 -0.7583 2.623 2.984".split()


def test_compare_lines_up(capsys):
    lines = output(capsys, "compare", "--methods", "copg", "dpo", "policy_gradient").splitlines()
    table = lines[4:]
    assert len({len(line) for line in table}) == 1
    places = {line.index("(") for line in table[1:]}
    assert places == {table[0].index("solution")}


def test_methods_that_do_not_converge_have_a_footnote_and_no_numbers(capsys):
    words = ["--preferences", "deterministic", "--methods", "dpo", "copg"]
    lines = output(capsys, "compare", *words).splitlines()
    row = next(line for line in lines if line.startswith("dpo"))
    assert row.split()[1:5] == ["none*", "–", "–", "–"]
    assert lines[-1].startswith("* dpo: no finite solution")
    assert not any(line.startswith("* copg") for line in lines)


def expected_table() -> pd.DataFrame:
    problem, nu = problem_and_pairs()
    judge = preferences.bradley_terry(problem.reward)
    return analysis.compare(problem, nu, ["copg", "ipo", "ppo_clip"], judge)


def test_compare_csv_has_the_full_numbers(capsys):
    text = output(capsys, "compare", *PROBLEM, "--methods=copg,ipo,ppo_clip", "--format", "csv")
    table, expected = pd.read_csv(io.StringIO(text), index_col="method"), expected_table()
    assert list(table.index) == list(expected.index)
    policy = table[["pi_0", "pi_1", "pi_2"]].to_numpy()
    np.testing.assert_allclose(policy, np.stack(expected.policy), rtol=1e-12)
    for column in expected.columns.drop(["policy", "message"]):
        np.testing.assert_allclose(
            table[column].astype(float), expected[column].astype(float), rtol=1e-9, atol=1e-18
        )
    assert list(table.message) == list(expected.message)
    assert {len(row) for row in csv.reader(io.StringIO(text))} == {len(table.columns) + 1}


def test_compare_json_is_json(capsys):
    text = output(
        capsys, "compare", *PROBLEM, "--methods", "copg ipo", "ppo_clip", "--format", "json"
    )

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    document, expected = json.loads(text, parse_constant=refuse), expected_table()
    assert document["reward"] == [1.0, 0.0, -0.5]
    assert document["reference"] == [0.5, 0.3, 0.2]
    assert document["behavior"] == [0.2, 0.2, 0.6]
    assert document["beta"] == 0.4
    assert document["preferences"] == "bradley-terry"
    problem, _ = problem_and_pairs()
    np.testing.assert_allclose(document["optimal_policy"], problem.optimal_policy(), rtol=1e-12)
    rows = {row["method"]: row for row in document["methods"]}
    np.testing.assert_allclose(rows["ipo"]["policy"], expected.policy["ipo"], rtol=1e-12)
    assert rows["ipo"]["converged"] is True
    assert rows["ppo_clip"]["converged"] is False
    assert rows["ppo_clip"]["regret"] is None


def test_preferences_from_a_file(capsys, tmp_path):
    wins = np.array([[0.5, 0.9, 0.6], [0.1, 0.5, 0.8], [0.4, 0.2, 0.5]])
    np.savetxt(tmp_path / "wins.csv", wins, delimiter=",")
    file = str(tmp_path / "wins.csv")
    words = ["compare", "--methods", "ipo", "--format", "json", "--preferences", file]
    document = json.loads(output(capsys, *words))
    expected = analysis.solve(
        presets.three_armed_bandit(),
        presets.method("ipo").loss,
        pairs.independent(presets.three_armed_behavior()),
        preference=wins,
    )
    np.testing.assert_allclose(document["methods"][0]["policy"], expected.policy, rtol=1e-12)
    assert document["preferences"] == file


@pytest.mark.parametrize("words", [["1,0,-2"], ["1", "0", "-2"], ["1, 0", "-2"], ["-2e0,0", "1"]])
def test_lists_with_commas_spaces_and_minus_signs(capsys, words):
    text = output(capsys, "compare", "--methods", "copg", "--format", "json", "--reward", *words)
    assert sorted(json.loads(text)["reward"]) == [-2.0, 0.0, 1.0]


def test_a_list_may_begin_with_a_minus_sign(capsys):
    for words in (["-1,2"], ["-1", "2"], ["-.1e1", "2"]):
        text = output(
            capsys, "compare", "--methods", "copg", "--format", "json", "--reward", *words
        )
        assert json.loads(text)["reward"] == [-1.0, 2.0]


def test_behavior_defaults_to_the_reference_unless_there_are_three_arms(capsys):
    words = ["compare", "--methods", "copg", "--format", "json", "--reward", "1", "2"]
    document = json.loads(output(capsys, *words, "--reference", "0.3", "0.7"))
    assert document["behavior"] == document["reference"] == [0.3, 0.7]


# ----------------------------------------------------------------------------------- train


def test_train_prints_median_regret_beside_the_exact_one(capsys):
    text = output(capsys, "train", *PROBLEM, *SHORT, "--methods", "copg", "ipo", "--seed", "4")
    problem, nu = problem_and_pairs()
    judge = preferences.bradley_terry(problem.reward)
    exact = analysis.compare(problem, nu, ["copg", "ipo"], judge).regret
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    for name in ("copg", "ipo"):
        history = bandit.train(
            problem,
            presets.method(name).loss,
            pairs=nu,
            preference=judge if name == "ipo" else None,
            batch_size=16,
            steps=30,
            optimizer=bandit.Adam(0.01),
            runs=3,
            rng=4,
        )
        median = np.median(history.regret(), axis=1)
        assert rows[name][0] == f"{median[0]:.4g}"
        assert rows[name][7 - 1] == f"{median[-1]:.4g}"
    assert rows["ipo"][-1] == f"{exact['ipo']:.4g}"
    assert "3 runs; Adam, learning rate 0.01, batches of 16, groups of 2, seed 4" in text


def test_train_options_reach_the_training(capsys, monkeypatch):
    seen = {}

    def train(problem, loss, **options):
        seen.update(options, loss=loss)
        return real(problem, loss, **options)

    real = bandit.train
    monkeypatch.setattr(bandit, "train", train)
    words = "--methods rloo --on-policy --group-size 3 --batch-size 7 --steps 11 --runs 2"
    output(
        capsys, "train", *words.split(), *"--learning-rate 0.5 --seed 9 --reward-noise 1".split()
    )
    assert seen["loss"] is presets.method("rloo").loss
    assert seen["pairs"] is None
    assert seen["preference"] is None
    expected = {
        "on_policy": True,
        "group_size": 3,
        "batch_size": 7,
        "steps": 11,
        "runs": 2,
        "reward_noise": 1.0,
        "rng": 9,
        "optimizer": bandit.Adam(0.5),
    }
    assert {key: seen[key] for key in expected} == expected


def test_on_policy_has_no_exact_column(capsys):
    text = output(capsys, "train", "--methods", "copg", "--on-policy", *SHORT)
    assert "exact" not in text
    assert "on-policy" in text


@pytest.mark.parametrize(
    ("words", "name", "note"),
    [
        ("--methods grpo copg --group-size 4", "grpo", "groups of two"),
        ("--methods copg reward_weighted --reward-noise 0.1", "reward_weighted", "without noise"),
        ("--methods copg dpo --preferences deterministic", "dpo", "no finite solution"),
    ],
)
def test_no_exact_solution_where_it_is_not_that_of_the_training(capsys, words, name, note):
    lines = output(capsys, "train", *words.split(), *SHORT).splitlines()
    row = next(line for line in lines if line.startswith(name))
    assert row.endswith("–*")
    assert lines[-1].startswith(f"* {name}: ")
    assert note in lines[-1]
    assert not next(line for line in lines if line.startswith("copg")).endswith("*")


def test_train_writes_all_records(capsys, tmp_path):
    out = tmp_path / "curves.csv"
    output(capsys, "train", "--methods", "copg", "dpo", *SHORT, "--out", str(out))
    table = pd.read_csv(out)
    assert list(table.columns) == ["method", "step", "run", "regret", "kl", "expected_reward"]
    assert table.groupby("method").size().to_dict() == {"copg": 31 * 3, "dpo": 31 * 3}
    start = table[table.step == 0]
    problem = presets.three_armed_bandit()
    np.testing.assert_allclose(start.regret, problem.regret(problem.reference), rtol=1e-12)


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_train_draws_the_same_picture_again(capsys, tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    words = ["train", "--methods", "copg", "ipo", *SHORT, "--plot", f"curves{suffix}"]
    output(capsys, *words)
    first = Path(f"curves{suffix}").read_bytes()
    output(capsys, *words)
    assert Path(f"curves{suffix}").read_bytes() == first
    assert b"python -m bandit train" in first
    if suffix == ".png":
        image = matplotlib.image.imread(f"curves{suffix}")
        assert image[..., :3].std() > 0.01


@pytest.mark.filterwarnings("default")
def test_progress_only_on_a_terminal(capsys, monkeypatch):
    words = ["train", "--methods", "copg", *SHORT[:-1]]
    output(capsys, *words)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(words) == 0
    assert "30/30" in capsys.readouterr().err
    output(capsys, *words, "--no-progress")


# ------------------------------------------------------------------------------ wrong values

BAD = {
    "": "COMMAND",
    "comparison": "invalid choice: 'comparison'",
    "compare extra": "unrecognized arguments: extra",
    "compare --meth copg": "unrecognized arguments: --meth",
    "compare --beta": "--beta: expected one argument",
    "compare --beta x": "--beta: expected a number, got 'x'",
    "compare --beta -1": "--beta: expected a finite number above 0, got -1",
    "compare --beta inf": "--beta: expected a finite number above 0, got inf",
    "compare --reward": "--reward: expected at least one argument",
    "compare --reward 1 two": "--reward: expected numbers, got 'two'",
    "compare --reward 1 nan": "--reward: expected finite numbers, got nan",
    "compare --reward ,": "--reward: expected shape (K,)",
    "compare --reference 0.5 0.5": "--reference: expected shape (3,)",
    "compare --reference 0 0.5 0.5": "--reference: expected probabilities above 0, got 0",
    "compare --behavior 0.5 0.5": "--behavior: expected 3 probabilities, got 2",
    "compare --behavior 0.5 0.4 0.2": "--behavior: expected probabilities that sum to 1",
    "compare --behavior -1,1,1": "--behavior: expected probabilities of at least 0, got -1",
    "compare --methods sarsa": "--methods: expected one of copg, ",
    "compare --methods copg,copg": "--methods: expected names, each once, got copg copg",
    "compare --methods copg --preferences deterministic": "--preferences: expected none",
    "compare --preferences nowhere.csv": "got 'nowhere.csv' (No such file or directory)",
    "compare --preferences .": "--preferences: expected bradley-terry, deterministic or a readable",
    "compare --preferences binary.csv": "--preferences: expected a CSV file",
    "compare --preferences words.csv": "--preferences: expected a CSV matrix of numbers",
    "compare --preferences ragged.csv": "--preferences: expected a CSV matrix of numbers",
    "compare --preferences empty.csv": "--preferences: expected shape (3, 3)",
    "compare --preferences small.csv": "--preferences: expected shape (3, 3), got (2, 2)",
    "compare --preferences lopsided.csv": "--preferences: expected P + Pᵀ = 1",
    "compare --format xml": "--format: invalid choice: 'xml'",
    "train --steps 0": "--steps: expected a positive integer, got 0",
    "train --steps 1.5": "--steps: expected a whole number, got '1.5'",
    "train --batch-size 0": "--batch-size: expected a positive integer, got 0",
    "train --runs -3": "--runs: expected a positive integer, got -3",
    "train --seed -1": "--seed: expected a seed of at least 0, got -1",
    "train --learning-rate 0": "--learning-rate: expected a finite number above 0, got 0",
    "train --learning-rate nan": "--learning-rate: expected a finite number above 0, got nan",
    "train --group-size 1 --methods copg": "--group-size: expected at least 2 for copg, got 1",
    "train --group-size 3 --methods ipo": "--group-size: expected 2 for ipo, got 3",
    "train --reward-noise -1": "--reward-noise: expected a finite number of at least 0, got -1",
    "train --on-policy --behavior 0.2 0.2 0.6": "--behavior: expected none with --on-policy",
    "train --out nowhere/x.csv": "--out: expected a file that can be written",
    "train --out .": "--out: expected a file that can be written",
    "train --plot x.gif": "--plot: expected a name in .png or .pdf, got x.gif",
    "train --plot nowhere/x.png": "--plot: expected a file that can be written",
    "train --out x.png --plot x.png": "--plot: expected another file than --out",
    "train --runs 1000000000000000 --methods copg": "allocate",
}


@pytest.fixture
def _in_a_folder_of_bad_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    Path("words.csv").write_text("a,b,c\n")
    Path("ragged.csv").write_text("0.5,0.5\n0.5\n")
    Path("empty.csv").write_text("")
    Path("small.csv").write_text("0.5,0.4\n0.6,0.5\n")
    Path("lopsided.csv").write_text("0.5,0.4,0.4\n0.4,0.5,0.4\n0.4,0.4,0.5\n")


@pytest.mark.usefixtures("_in_a_folder_of_bad_files")
@pytest.mark.parametrize(("words", "complaint"), BAD.items())
def test_a_wrong_value_gives_one_line_and_status_2(words, complaint, capsys):
    before = sorted(Path().iterdir())
    status = main(words.split())
    printed = capsys.readouterr()
    assert status == 2
    assert printed.out == ""
    assert printed.err.startswith("python -m bandit")
    assert printed.err.count("\n") == 1
    assert printed.err.endswith("\n")
    assert complaint in printed.err
    assert sorted(Path().iterdir()) == before


def test_an_existing_file_survives_a_wrong_value(tmp_path, capsys):
    out = tmp_path / "precious.csv"
    out.write_text("kept")
    assert main(["train", "--out", str(out), "--steps", "0"]) == 2
    capsys.readouterr()
    assert out.read_text() == "kept"


def test_warnings_are_one_line_too(capsys):
    words = "--methods copg --learning-rate 1e308 --steps 5 --runs 2".split()
    assert main(["train", *words]) == 0
    complaints = capsys.readouterr().err.splitlines()
    assert all(line.startswith("python -m bandit: warning: ") for line in complaints)
    assert any("train: 2 of 2 runs diverged" in line for line in complaints)


# --------------------------------------------------------------------------- help and the end


@pytest.mark.parametrize("words", [["--help"], ["compare", "--help"], ["train", "--help"]])
def test_help_names_what_there_is(words, capsys):
    text = output(capsys, *words)
    assert text.startswith("usage: python -m bandit")
    if len(words) == 1:
        assert "compare" in text
        assert "train" in text
    else:
        assert f"examples:\n  python -m bandit {words[0]}" in text
        assert all(name in text for name in presets.METHODS)


@pytest.mark.parametrize("command", ["compare", "train"])
def test_examples_in_the_help_are_accepted(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = output(capsys, command, "--help").partition("examples:\n")[2].splitlines()
    assert len(examples) >= 3
    for example in examples:
        words = example.partition(" > ")[0].split()[3:]
        short = ["--steps", "10", "--runs", "2"] if command == "train" else []
        output(capsys, *words, *short)


def test_version(capsys):
    assert output(capsys, "--version") == f"copg-bandit {bandit.__version__}\n"


def test_interrupt_keeps_what_was_done(capsys, tmp_path, monkeypatch):
    def train(problem, loss, **options):
        if loss is presets.method("ipo").loss:
            raise KeyboardInterrupt
        return real(problem, loss, **options)

    real = bandit.train
    monkeypatch.setattr(bandit, "train", train)
    out = tmp_path / "curves.csv"
    words = ["train", "--methods", "copg", "ipo", "dpo", *SHORT, "--out", str(out)]
    assert main(words) == 130
    printed = capsys.readouterr()
    assert "copg" in printed.out
    assert "ipo" not in printed.out
    assert printed.err == (
        "python -m bandit: interrupted at step 30 of copg; what was done is kept\n"
    )
    assert set(pd.read_csv(out).method) == {"copg"}


def test_interrupt_before_anything_is_done(capsys, monkeypatch):
    def train(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(bandit, "train", train)
    assert main(["train", *SHORT]) == 130
    assert capsys.readouterr().out == ""


# ----------------------------------------------------------------------- as a process of its own


def test_runs_as_a_module():
    done = subprocess.run([*RUN, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"copg-bandit {bandit.__version__}\n"
    assert done.stderr == ""


def test_wrong_value_as_a_process():
    done = subprocess.run([*RUN, "compare", "--beta", "0"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "python -m bandit: --beta: expected a finite number above 0, got 0\n"


def test_a_reader_that_leaves_gets_no_traceback():
    read, write = os.pipe()
    os.close(read)
    words = ["compare", "--methods", "copg"]
    done = subprocess.run([*RUN, *words], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="closes outputs as a shell does")
@pytest.mark.parametrize(
    ("words", "closed", "status", "out"),
    [
        (["compare", "--methods", "copg"], ">&-", 0, ""),
        (["compare", "--beta", "0"], "2>&-", 2, ""),  # an error is no table
        (["compare", "--beta", "0"], ">&- 2>&-", 2, ""),
        (["--version"], "<&- 2>&-", 0, f"copg-bandit {bandit.__version__}\n"),
    ],
)
def test_closed_outputs_are_no_errors(words, closed, status, out):
    numpy = f"{shlex.quote(sys.executable)} -c 'import numpy.f2py' {closed}"
    if subprocess.run(["/bin/sh", "-c", numpy], capture_output=True).returncode:
        pytest.skip("numpy 2.0 cannot be imported without an output for errors")
    line = f"{shlex.join([*RUN, *words])} {closed}"
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (status, out, "")


def test_greek_is_spelled_out_where_it_cannot_be_shown():
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    words = ["compare", "--methods", "copg", "dpo", "--preferences", "deterministic"]
    done = subprocess.run([*RUN, *words], capture_output=True, text=True, env=ascii_only)
    assert done.returncode == 0
    assert done.stderr == ""
    table = done.stdout.splitlines()[4:7]
    assert "KL(pi||pi*)" in table[0]
    assert table[0].index("solution") == table[1].index("(")
    done = subprocess.run([*RUN, "train", "--help"], capture_output=True, text=True, env=ascii_only)
    assert done.returncode == 0
    assert "policy pi_ref" in done.stdout


INTERRUPTED = """
import signal, sys
import bandit
from bandit.cli import main

# A process started in the background may be told to ignore the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
real = bandit.train

def train(problem, loss, **options):
    if loss is bandit.losses.ipo:
        options["progress"] = lambda step, steps: step and signal.raise_signal(signal.SIGINT)
    return real(problem, loss, **options)

bandit.train = train
sys.exit(main())
"""


def test_control_c_ends_long_training_with_its_records(tmp_path):
    out = tmp_path / "curves.csv"
    words = ["train", "--methods", "copg", "ipo", "dpo", "--steps", "20000", "--out", str(out)]
    run = [sys.executable, "-c", INTERRUPTED, *words]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.count("\n") == 1
    assert "python -m bandit: interrupted at step " in done.stderr
    assert "of ipo; what was done is kept" in done.stderr
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line}
    assert "–" not in rows["copg"]
    assert rows["ipo"][1] != "–"
    assert rows["ipo"][-2] == "–"
    assert "dpo" not in rows
    last = pd.read_csv(out).groupby("method").step.max().to_dict()
    assert last["copg"] == 20000
    assert last["ipo"] < 20000


# --------------------------------------------------------------------------------- small parts


def test_numbers_as_text():
    assert tables.number(float("nan")) == "–"
    assert tables.number(1.23456e-5) == "1.235e-05"
    assert tables.number(3e-31) == "< 1e-12"
    assert tables.number(-3e-31) == "< 1e-12"
    assert tables.number(0.0) == "0"
    assert tables.probabilities([0.25, 0.7499999, 1e-7]) == "(0.2500, 0.7500, 1.0e-07)"
    assert tables.vector(range(9)) == "(0, 1, 2, 3, 4, 5, …)"


def test_few_steps_begin_and_end_with_the_record():
    for steps in (np.array([0]), np.array([0, 5]), np.arange(0, 2001, 10), np.arange(4)):
        places = tables._few(steps)
        assert places[0] == 0
        assert places[-1] == len(steps) - 1
        assert places == sorted(set(places))
        assert len(places) <= 7


def test_an_empty_kind_of_preferences_is_refused(capsys):
    assert main(["compare", "--preferences", "", "--methods", "ipo"]) == 2
    assert capsys.readouterr().err.startswith("python -m bandit: --preferences: expected")
