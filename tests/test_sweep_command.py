"""``python -m bandit sweep`` and the pictures of its tables."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import bandit
from bandit import plots, presets, sweeps
from bandit.cli import main

OURS = ["--methods", "copg", "ipo", "--beta", "0.5", "1"]
TRAIN = "--runs 3 --steps 20 --batch-size 8 16 --learning-rate 0.1".split()
TOML = """
runs = 2
seed = 4
methods = ["copg", "dpo"]
[problems.ours]
reward = [2.5, 2.0, 1.0]
beta = 0.5
[problems.contexts]
reward = [[1.0, 0.0], [0.2, 0.9]]
beta = 0.3
reference = [0.6, 0.4]
context_weights = [0.7, 0.3]
[grids]
behavior = ["uniform", "policy"]
steps = 10
batch_size = 4
[grids.preference]
noisy = "bradley-terry"
sure = "deterministic"
"""


def said(capsys, *words, status=0) -> tuple[str, str]:
    assert main(["sweep", *map(str, words)]) == status
    printed = capsys.readouterr()
    return printed.out, printed.err


def test_options_make_the_sweep_they_say(capsys, tmp_path):
    out, _ = said(capsys, *OURS, *TRAIN, "--out", tmp_path / "a", "--csv", tmp_path / "a.csv")
    table = bandit.sweep(
        presets.three_armed_bandit(),
        ["copg", "ipo"],
        {"beta": [0.5, 1.0], "behavior": presets.three_armed_behavior(), "steps": 20,
         "batch_size": [8, 16], "learning_rate": 0.1},
        runs=3,
    )  # fmt: skip
    pd.testing.assert_frame_equal(sweeps.load(tmp_path / "a"), table, check_exact=True)
    written = pd.read_csv(tmp_path / "a.csv")
    pd.testing.assert_frame_equal(written, table, rtol=1e-12)
    lines = out.splitlines()
    assert lines[-1] == f"8 cells are kept in {tmp_path / 'a'}"
    last = table[(table.step == 20) & (table.method == "ipo") & (table.beta == 0.5)]
    median = last[last.batch_size == 8].regret.median()
    row = next(line for line in lines if line.split()[:3] == ["problem", "ipo", "0.5"])
    assert row.split()[-2:] == [f"{median:.4g}", "0.1513"]


def test_a_file_says_it_all(capsys, tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text(TOML, encoding="utf-8")
    out, _ = said(capsys, file, "--out", tmp_path / "b", "--workers", "1")
    table = sweeps.load(tmp_path / "b")
    assert out.splitlines()[-1].startswith("16 cells are kept")
    assert set(table.problem) == {"ours", "contexts"}
    assert set(table.preference) == {"noisy", "sure"}
    problems = {
        "ours": presets.three_armed_bandit(),
        "contexts": bandit.Bandit([[1.0, 0.0], [0.2, 0.9]], 0.3, [0.6, 0.4], [0.7, 0.3]),
    }
    grid = {"behavior": ["uniform", "policy"], "steps": 10, "batch_size": 4,
            "preference": {"noisy": "bradley-terry", "sure": "deterministic"}}  # fmt: skip
    expected = bandit.sweep(problems, ["copg", "dpo"], grid, runs=2, seed=4)
    pd.testing.assert_frame_equal(table, expected, check_exact=True)


def test_many_cells_are_only_counted(capsys, tmp_path):
    betas = np.linspace(0.1, 2, 41).tolist()
    words = [
        "--methods",
        "copg",
        "--beta",
        *betas,
        "--behavior",
        "uniform",
        "--out",
        tmp_path / "c",
    ]
    assert said(capsys, *words)[0] == f"41 cells are kept in {tmp_path / 'c'}\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--beta", "a"], "--beta: expected numbers, got 'a'"),
        (["--beta", "0"], "--beta: expected a finite number above 0, got 0"),
        (["--runs", "1.5"], "--runs: expected a whole number, got '1.5'"),
        (["--steps", "5"], "--steps: expected none with runs=0, as exact solutions have none"),
        (["--batch-size", "x", "--runs", "1"], "--batch-size: expected a whole number, got 'x'"),
        (["--methods", "lion"], "--methods: expected one of copg"),
        (["--behavior", "nobody"], "--behavior: expected numbers, got 'nobody'"),
        (["--behavior", ","], "--behavior: expected at least one value, got none"),
        (["--plot", "p.png"], "--plot: expected --plot, --x and --y together"),
        (["nowhere.toml"], "nowhere.toml: No such file or directory"),
    ],
)
def test_wrong_words_are_one_line(capsys, tmp_path, words, line):
    out, err = said(capsys, *words, "--out", tmp_path / "d", status=2)
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"python -m bandit: {line}")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("content", "words", "line"),
    [
        (b"runs = ", [], ": expected TOML, got: Invalid value"),
        (b"\xff", [], ": expected TOML"),
        (b"rounds = 1", [], ": expected one of problems, methods"),
        (b"problems = 3", [], "problems: expected tables such as"),
        (b"[problems.a]\nreward = [1.0]\n", [], "problems.a: expected beta, got none"),
        (b"[problems.a]\nprize = 1\n", [], "problems.a: expected one of reward"),
        (b"runs = 'x'", [], "--runs: expected a whole number, got str"),
        (b"grids = 1", [], "grids: expected a mapping"),
        (b"runs = 1", ["--beta", "1"], "--beta: expected none beside"),
    ],
)
def test_wrong_files_are_one_line(capsys, tmp_path, content, words, line):
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    _, err = said(capsys, file, *words, "--out", tmp_path / "d", status=2)
    assert err.count("\n") == 1
    assert line in err


def test_another_sweeps_directory_is_named_by_its_option(capsys, tmp_path):
    said(capsys, *OURS, "--out", tmp_path / "e")
    _, err = said(capsys, "--methods", "copg", "--out", tmp_path / "e", status=2)
    assert err.startswith("python -m bandit: --out: expected the results of this sweep")


def test_interrupted_it_says_what_is_kept(capsys, tmp_path, monkeypatch):
    def interrupted(cell):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeps.cells, "run", interrupted)
    _, err = said(capsys, *OURS, "--out", tmp_path / "f", status=130)
    assert err == f"interrupted; finished cells are kept in {tmp_path / 'f'}\n"


# ------------------------------------------------------------------------------------ pictures


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    grid = {"beta": [0.1, 1.0, 5.0], "steps": 20, "record_every": 10, "batch_size": 8}
    return bandit.sweep(presets.three_armed_bandit(), ["ipo", "copg"], grid, runs=5)


@pytest.fixture
def ax():
    return Figure().add_subplot()


def test_curves_are_medians_of_the_last_records_and_bands_quartiles(table, ax):
    plots.sweep(table, x="beta", y="regret", ax=ax)
    assert [line.get_label() for line in ax.lines] == ["IPO", "CoPG"]
    for line, band, method in zip(ax.lines, ax.collections, ["ipo", "copg"], strict=True):
        last = table[(table.step == 20) & (table.method == method)]
        quartiles = last.groupby("beta").regret.quantile([0.25, 0.5, 0.75]).unstack()
        assert line.get_xdata().tolist() == [0.1, 1.0, 5.0]
        np.testing.assert_allclose(line.get_ydata(), quartiles[0.5])
        height = np.ptp(band.get_paths()[0].vertices[:, 1])
        np.testing.assert_allclose(height, quartiles[0.75].max() - quartiles[0.25].min())
        assert line.get_color() == plots.look(method).color
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == r"$\beta$  [reward]"


def test_training_curves_and_other_hues(table, ax):
    own = table[table.method == "copg"]
    plots.sweep(own, x="step", y="kl", hue="beta", ax=ax)
    assert [line.get_label() for line in ax.lines] == ["0.1", "1.0", "5.0"]
    assert ax.lines[0].get_xdata().tolist() == [0, 10, 20]
    assert len({line.get_color() for line in ax.lines}) == 3
    assert ax.get_legend().get_title().get_text() == r"$\beta$  [reward]"
    assert ax.get_yscale() == "linear"


def test_labels_have_places_of_their_own_and_nan_is_left_out(ax):
    grid = {"behavior": {"worst": [0.1, 0.2, 0.7], "even": "uniform"}}
    solved = bandit.sweep(presets.three_armed_bandit(), ["ipo", "ppo_clip"], grid)
    plots.sweep(solved, x="behavior", y="exact_regret", ax=ax)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["worst", "even"]
    (line,) = ax.lines
    known = solved[solved.method == "ipo"].exact_regret
    assert line.get_ydata().tolist() == known.tolist()


def test_pictures_refuse_what_a_band_would_mix(table, ax):
    with pytest.raises(ValueError, match=r"^table: expected one value of beta, or 'beta' for x or"):
        plots.sweep(table, x="step", y="regret", ax=ax)
    with pytest.raises(ValueError, match=r"^x: expected one of problem, method"):
        plots.sweep(table, x="betta", y="regret", ax=ax)
    with pytest.raises(ValueError, match=r"^y: expected a column of numbers, got 'message'"):
        plots.sweep(table, x="beta", y="message", ax=ax)
    with pytest.raises(ValueError, match=r"^table: expected finite numbers in 'regret', got none"):
        plots.sweep(table.assign(regret=np.nan), x="beta", y="regret", ax=ax)
    assert not ax.lines


def test_a_picture_from_the_command_line(capsys, tmp_path):
    picture = tmp_path / "p.png"
    words = ["--plot", picture, "--x", "beta", "--y", "exact_regret", "--hue", "method"]
    said(capsys, *OURS, "--out", tmp_path / "g", *words)
    assert picture.read_bytes().startswith(b"\x89PNG")
    plt.close("all")


# ------------------------------------------------------------------------------- documentation


def test_what_the_page_shows_runs(tmp_path, monkeypatch, capsys):
    page = Path(__file__).parents[1] / "notebooks" / "site" / "pages" / "sweeps.md"
    text = page.read_text(encoding="utf-8")
    grid, tensors = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(grid.replace("workers=2", "workers=1"), "sweeps.md", "exec"), {})
    assert len(sweeps.load("results")) == 18 * 10 * 2
    pytest.importorskip("torch")
    exec(compile(tensors, "sweeps.md", "exec"), {})
    assert capsys.readouterr().out == "True\n"
    (settings,) = re.findall(r"^```toml\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    Path("settings.toml").write_text(settings.replace("500", "5"), encoding="utf-8")
    said(capsys, "settings.toml", "--out", "mine")
    assert len(sweeps.load("mine")) == 8 * 20 * 2
    for name in sweeps.grids.SETTINGS:
        assert f"`{name}`" in text
    plt.close("all")
