"""Every figure script runs, says where its files come from, and shows what it claims."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

import bandit
from bandit import presets

FIGURES = Path(__file__).resolve().parents[1] / "figures"
SCRIPTS = sorted(path.stem for path in FIGURES.glob("[!_]*.py"))
# Trained transformers: minutes of work, and floating point that differs by machine.
TRAINED = ("llm_exact", "llm_summaries", "reward_shift")
# Trained from samples, where the last digits may differ by machine.
SAMPLED = (
    "active_sampling",
    "deterministic_policies",
    "digits_learning_curve",
    "off_policy_bandit",
    "over_optimization",
    "zeroth_order",
)
EXACT = [name for name in SCRIPTS if name not in ("same_loss", *SAMPLED, *TRAINED)]
ENDINGS = (".png", ".pdf", ".csv")


def load(name, monkeypatch):
    """A script of figures/ as a module."""
    monkeypatch.syspath_prepend(FIGURES)
    spec = importlib.util.spec_from_file_location(f"figure_{name}", FIGURES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbers(name, folder=FIGURES):
    return pd.read_csv(folder / f"{name}.csv", comment="#")


def test_all_are_there():
    assert SCRIPTS == [
        "active_sampling",
        "behavior_sweep",
        "beta_front",
        "clipped_objective",
        "conditioning",
        "deterministic_policies",
        "digits_learning_curve",
        "family_tree",
        "forward_kl",
        "llm_exact",
        "llm_summaries",
        "nash",
        "off_policy_bandit",
        "on_policy_equivalence",
        "ope_effective_sample_size",
        "over_optimization",
        "preference_cycle",
        "reward_learning",
        "reward_shift",
        "same_loss",
        "simplex_flow",
        "zeroth_order",
    ]


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_writes_the_same_bytes_twice_with_their_recipe(name, tmp_path, monkeypatch):
    command = [sys.executable, "-W", "error", FIGURES / f"{name}.py", "--quick", "--out"]
    subprocess.run([*command, tmp_path / "alone"], check=True, cwd=tmp_path)
    load(name, monkeypatch).main(["--quick", "--out", str(tmp_path / "here")])
    for ending in ENDINGS:
        first, second = (tmp_path / folder / (name + ending) for folder in ("alone", "here"))
        assert first.read_bytes() == second.read_bytes(), ending
    made = f"python figures/{name}.py --quick; seed "
    software = f"copg-bandit {bandit.__version__}"
    with Image.open(tmp_path / "here" / f"{name}.png") as image:
        assert image.info["Description"].startswith(made)
        assert image.info["Software"] == software
        assert image.info["Title"]
    pdf = (tmp_path / "here" / f"{name}.pdf").read_bytes()
    assert made.encode() in pdf
    assert software.encode() in pdf
    assert b"CreationDate" not in pdf
    head = (tmp_path / "here" / f"{name}.csv").read_text(encoding="utf-8").splitlines()[:3]
    assert head[1].startswith(f"# {made}")
    assert head[2] == f"# {software}"


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_says_what_the_figure_shows(name, monkeypatch, capsys):
    module = load(name, monkeypatch)
    with pytest.raises(SystemExit, match="0"):
        module.main(["--help"])
    shown = capsys.readouterr().out
    assert module.__doc__.splitlines()[0] in shown
    assert "--quick" in shown


@pytest.mark.parametrize("name", EXACT)
def test_committed_numbers_are_what_the_script_computes(name, tmp_path, monkeypatch):
    load(name, monkeypatch).main(["--out", str(tmp_path)])
    pd.testing.assert_frame_equal(
        numbers(name, tmp_path), numbers(name), check_exact=False, rtol=1e-9, atol=1e-9
    )
    for ending in ENDINGS:
        assert (FIGURES / (name + ending)).stat().st_size > 1000


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_text_lies_on_other_text_or_off_the_page(name, monkeypatch):
    module, caught = load(name, monkeypatch), []
    monkeypatch.setattr(module, "save", lambda figure, *_, **__: caught.append(figure))
    module.main(["--quick"])
    (figure,) = caught
    # 100 dots per inch here: the layout is the same at any resolution.
    with bandit.plots.style():
        figure.draw_without_rendering()
    shown = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    # Tick labels outside the limits of an axis are in the list, but not in the picture.
    hidden = {
        tick_text
        for ax in figure.axes
        for axis in (ax.xaxis, ax.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for tick_text in (tick.label1, tick.label2)
        if not ax.axison or not in_view(axis, tick)
    }
    boxes = {t: t.get_window_extent() for t in shown if t not in hidden}
    page = figure.bbox
    for text, box in boxes.items():
        assert box.x0 >= page.x0 - 1, text
        assert box.x1 <= page.x1 + 1, text
        assert box.y0 >= page.y0 - 1, text
        assert box.y1 <= page.y1 + 1, text
    for (a, first), (b, second) in itertools.combinations(boxes.items(), 2):
        # Boxes have some air around the letters: a touch of two pixels is none to see.
        across = min(first.x1, second.x1) - max(first.x0, second.x0)
        along = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert min(across, along) < 2, (a, b)


def in_view(axis, tick):
    low, high = sorted(axis.get_view_interval())
    return low <= tick.get_loc() <= high


# --------------------------------------------------------------------- what each picture claims


def test_claim_off_policy_bandit():
    table = numbers("off_policy_bandit")
    last = table[table.steps == table.steps.max()].set_index("method")
    assert len(last) == table.method.nunique() == 7
    for name in ("copg", "policy_gradient_behavior", "policy_gradient_value"):
        assert last.upper[name] < 1e-8
    for name in ("importance_sampling", "dpo"):
        assert last.exact_regret[name] < 1e-9
        assert 1e-8 < last["median"][name] < 1e-3
    for name, exact in (("policy_gradient", 0.504511421), ("ipo", 0.151303089)):
        assert last.exact_regret[name] == pytest.approx(exact, abs=1e-8)
        assert last["median"][name] == pytest.approx(exact, rel=0.02)
    assert ((table.lower <= table["median"]) & (table["median"] <= table.upper)).all()


def test_claim_simplex_flow():
    table, arms = numbers("simplex_flow"), ["arm_1", "arm_2", "arm_3"]
    optimum = [0.70538451, 0.25949646, 0.03511903]
    solutions = table[table.kind == "solution"].set_index("method")[arms]
    for name in ("copg", "dpo", "importance_sampling", "policy_gradient_value"):
        np.testing.assert_allclose(solutions.loc[name], optimum, atol=1e-8)
    np.testing.assert_allclose(
        solutions.loc["policy_gradient"], [0.21567462, 0.32054355, 0.46378183], atol=1e-8
    )
    np.testing.assert_allclose(
        solutions.loc["ipo"], [0.42635583, 0.35096146, 0.22268271], atol=1e-8
    )
    fields = table[table.kind == "field"]
    assert fields[["dot_1", "dot_2", "dot_3"]].sum(axis=1).abs().max() < 1e-11
    ends = table[table.kind == "path"].groupby(["method", "start"])[arms].last()
    for (name, _), end in ends.iterrows():
        np.testing.assert_allclose(end, solutions.loc[name], atol=1e-3)


def test_claim_behavior_sweep():
    table = numbers("behavior_sweep")
    assert table.share_of_optimum.max() == 1
    assert table.share_of_optimum.min() == pytest.approx(1e-6)
    kl = dict(iter(table.groupby("method").kl_to_optimal))
    known = table.groupby("method").converged.all()
    baselines = ("policy_gradient_behavior", "policy_gradient_value")
    for name in ("copg", *baselines, "importance_sampling", "dpo"):
        assert known[name]
        assert kl[name].max() < 1e-9
    assert kl["ipo"].min() > 0.1
    on_policy, farthest = kl["policy_gradient"].iloc[[0, -1]]
    assert on_policy < 1e-9
    assert farthest > 3


def test_claim_on_policy_equivalence():
    table = numbers("on_policy_equivalence")
    sample, exact = (table[table.kind == kind] for kind in ("sample", "exact"))
    # CSV files carry twelve digits.
    for name in ("rloo", "policy_gradient_leave_one_out"):
        np.testing.assert_allclose(sample[name], sample.copg, rtol=1e-11, atol=1e-15)
    assert (sample.grpo - sample.copg).abs().max() > 0.1
    # The policy gradient by its definition, at the policy the docstring names.
    base, reference = presets.three_armed_bandit(), np.array([0.5, 0.3, 0.2])
    optimum = reference * np.exp(base.reward / base.beta)
    policy = np.sqrt(reference * optimum / optimum.sum())
    policy /= policy.sum()
    score = base.reward - base.beta * np.log(policy / reference)
    expected = policy * (score - policy @ score)
    ascent = exact.set_index("method")[["ascent_1", "ascent_2", "ascent_3"]]
    for name in ("copg", "rloo", "policy_gradient_value", "policy_gradient"):
        np.testing.assert_allclose(ascent.loc[name], np.tile(expected, (9, 1)), atol=1e-11)
    assert (np.abs(ascent.loc["grpo"] - expected).max(axis=1) > 0.05).all()
    noise = exact.set_index(["method", "group_size"]).completions_for_noise_as_signal
    assert (np.diff(noise["copg"]) < 0).all()
    np.testing.assert_allclose(noise["copg"], noise["rloo"], rtol=1e-9)
    assert (noise["copg"] > noise["policy_gradient_value"]).all()
    assert (noise["policy_gradient"] > 20 * noise["copg"]).all()


def test_claim_conditioning():
    table = numbers("conditioning").set_index("method")
    assert table.kl_to_optimal.max() < 1e-9
    copg, weights = table.loc["copg"], table.loc["importance_sampling"]
    # By hand: 2β Cov_μ has the eigenvalues 3βε(1 − ε) and β(1 − ε) for two equal other arms.
    share, beta = copg.min_mu, presets.three_armed_bandit().beta
    np.testing.assert_allclose(copg.slowest_rate, 3 * beta * share * (1 - share), rtol=1e-6)
    np.testing.assert_allclose(copg.fastest_rate, beta * (1 - share), rtol=1e-6)
    np.testing.assert_allclose(
        copg.steps_to_halve, np.log(2) * copg.fastest_rate / copg.slowest_rate, rtol=1e-9
    )
    assert copg.variance_at_solution.abs().max() < 1e-20
    assert copg.variance_at_reference.max() < 2
    assert np.ptp(weights.slowest_rate) < 1e-6
    scaled = weights.variance_at_solution * weights.min_mu
    assert scaled.iloc[-1] == pytest.approx(scaled.iloc[-2], rel=1e-3)
    assert weights.variance_at_solution.iloc[-1] > 1e5


def test_claim_beta_front():
    table = numbers("beta_front")
    front = table[table.method == "optimum"].set_index("beta")
    for name in ("copg", "dpo"):
        landed = table[table.method == name].set_index("beta")
        np.testing.assert_allclose(landed.reward, front.reward[landed.index], atol=1e-8)
        np.testing.assert_allclose(landed.kl, front.kl[landed.index], atol=1e-8)
    # No policy lies above any tangent of the front: E[r] − β KL ≤ J_β(π*).
    for beta, best in front.iterrows():
        above = table.reward - beta * table.kl - (best.reward - beta * best.kl)
        assert above.max() < 1e-9
    half = table[table.beta == 0.5].set_index("method")
    assert half.regret["copg"] < 1e-9
    assert half.regret["policy_gradient"] > half.regret["ipo"] > 0.1


def test_claim_llm_exact():
    table = numbers("llm_exact")
    assert table.groupby("behavior").kl.first().std() < 1e-9
    for mu in ("uniform", "reference"):
        last = table[(table.behavior == mu) & (table.step == table.step.max())].set_index("method")
        for name in ("copg", "policy_gradient_behavior", "dpo"):
            assert last.kl[name] < 0.001
            assert last.exact[name] < 1e-9
        for name in ("policy_gradient", "ipo"):
            assert last.exact[name] > 0.1
            assert last.kl[name] == pytest.approx(last.exact[name], rel=0.05)
    early = table[(table.method == "copg") & (table.step == 200)]
    assert (early.kl < 0.01).all()


def test_claim_reward_shift():
    table = numbers("reward_shift").pivot_table(
        index="step", columns=["method", "shift"], values="kl"
    )
    for name in ("copg", "policy_gradient_behavior"):
        curves = table[name]
        np.testing.assert_allclose(curves[2.0], curves[0.0], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(curves[-2.0], curves[0.0], rtol=1e-3, atol=1e-6)
        assert curves[0.0].iloc[-1] < 0.01
    last = table["policy_gradient"].iloc[-1]
    assert last[-2.0] > 2 * last[2.0] > 2 * 2 * last[0.0] > 0.2


def test_claim_same_loss():
    table = numbers("same_loss")
    assert list(table.method.unique()) == list(presets.METHODS)
    np.testing.assert_allclose(table.torch, table.numpy, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(table.torch_single, table.numpy, rtol=1e-4, atol=1e-5)
    assert (table.numpy.abs() > 0.01).mean() > 0.8


def test_claim_family_tree():
    table = numbers("family_tree")
    groups = table.groupby("method", sort=False).kl_to_optimal
    counts, furthest, median = groups.size(), groups.max(), groups.median()
    strict = "dpo_deterministic"
    assert (counts.drop(strict) == 50).all()
    assert counts[strict] == table[table.method == strict].kl_to_optimal.isna().sum() == 10
    assert table[table.method != strict].kl_to_optimal.notna().all()
    lands = list(furthest.index[:11])
    assert "copg" in lands
    assert "policy_gradient" not in lands
    assert furthest[lands].max() < 1e-15
    elsewhere = median.drop([*lands, strict])
    assert elsewhere.between(1e-3, 1).all()
    # A poor estimate of V* can happen to be a good one; the others never land by chance.
    assert groups.min()[elsewhere.index.drop("optimal_advantage_8")].min() > 1e-8
    assert elsewhere["optimal_advantage_8"] == elsewhere.min()


def test_claim_clipped_objective():
    table = numbers("clipped_objective")
    update = table[table.kind == "update"].set_index(["method", "advantage", "ratio"])
    ppo, clipped = update.loc["ppo_clip"], update.loc["clipped_objective"]
    for a in (1.0, -1.0):
        rho = ppo.loc[a].index.to_numpy()
        np.testing.assert_allclose(ppo.weight[a], rho * clipped.weight[a], atol=1e-11)
        toward = (a * (rho - 1) > 0) & (clipped.weight[a] != 0)
        assert toward.sum() >= 39
        assert (clipped.weight[a][toward] < ppo.weight[a][toward]).all()
        away = a * (rho - 1) < 0
        assert (clipped.weight[a][away] > ppo.weight[a][away]).all()
        off = np.abs(rho - 1) > 1e-9
        assert (a * (clipped.objective[a] - ppo.objective[a])[off] < 0).all()
    training = table[table.kind == "training"]
    entropy, regret = (
        training.pivot_table(values=c, index="step", columns="method")
        for c in ("entropy", "regret")
    )
    pair = ["ppo_clip", "clipped_objective"]
    assert (entropy[pair[0]] - entropy[pair[1]]).abs().max() < 0.02
    ahead = entropy[pair[0]] - entropy[pair[1]]
    assert ahead.loc[:100].mean() > 0
    assert (ahead.loc[200:] < 0).all()
    assert (entropy.loc[100, pair] > 1).all()
    assert (entropy.loc[100, ["policy_gradient", "policy_gradient_stale"]] < 0.25).all()
    assert (regret.loc[400, pair] < 0.011).all()
    assert regret.loc[400, "policy_gradient_stale"] > 0.1
    assert regret.loc[400, "policy_gradient"] > 0.05


def test_claim_llm_summaries():
    table = numbers("llm_summaries")
    trained, front = table[table.kind == "trained"], table[table.kind == "front"]
    last = trained[trained.step == trained.step.max()]
    assert (last.groupby(["method", "beta"]).seed.nunique() == 5).all()
    assert len(last) == 5 * 3 * 5
    # Nobody is above the front, whose tangent at β has the slope β.
    for beta, kl, reward in front[["beta", "kl", "reward"]].to_numpy():
        assert (last.reward - beta * last.kl - (reward - beta * kl)).max() < 1e-9
    mean = last.groupby(["beta", "method"]).reward.mean()
    for beta in (0.1, 0.2, 0.4):
        assert mean[beta].idxmax() == "copg"
    (report,) = table[table.kind == "reward model"].itertuples()
    assert 0.6 < report.accuracy < 0.8
    assert report.calibration_error < 0.05


def test_claim_zeroth_order(monkeypatch):
    table = numbers("zeroth_order")
    kinds = dict(iter(table.groupby("kind")))
    problem, module = presets.three_armed_bandit(), load("zeroth_order", monkeypatch)
    fresh = module.biases(problem, 25)
    np.testing.assert_allclose(kinds["bias"].bias, fresh.bias, rtol=1e-8, atol=1e-12)
    bias = kinds["bias"].pivot_table(index="smoothing", columns="judges", values="bias")
    endless = bias[np.inf][bias.index < 0.3]
    slope = np.diff(np.log(endless)) / np.diff(np.log(endless.index))
    np.testing.assert_allclose(slope, 2, atol=0.03)
    assert (bias.iloc[0].diff().dropna() < 0).all()
    end = kinds["end"].set_index(["trim", "judges"]).regret
    assert end[0.25].iloc[-1] > 1e-3
    for trim in (0.005, 0.02, 0.08):
        assert end[trim].iloc[-1] < 1e-6
    course = kinds["course"]
    last = course[course.judgments > 0.75 * course.judgments.max()].groupby("judges").regret.mean()
    for judges in (1, 4):
        assert last[judges] == pytest.approx(end[0.01, judges], rel=0.35)
    assert last[64] < last[4] / 10
    early = course[course.judgments.between(5e4, 1.1e5)].groupby("judges").regret.mean()
    assert early[1] < early[64]


def test_claim_active_sampling(monkeypatch):
    table = numbers("active_sampling")
    kinds = dict(iter(table.groupby("kind")))
    fresh = load("active_sampling", monkeypatch).exact(50)
    np.testing.assert_allclose(kinds["exact"].variance, fresh.variance, rtol=1e-8)
    ratio = kinds["exact"].pivot_table(index="way", columns="name", values="ratio")
    assert (ratio.min(axis=1) == ratio["optimal"]).all()
    assert (ratio["optimal"] < ratio["defensive"]).all()
    assert (ratio["defensive"] < 0.65).all()
    assert ratio["optimal"].iloc[0] == pytest.approx(0.587, abs=1e-3)
    assert ratio["optimal"].iloc[-1] == pytest.approx(0.12, abs=5e-3)
    assert ratio["worst arm"].iloc[0] > 2
    assert ratio["worst arm"].iloc[-1] < 0.5
    loop = kinds["loop"].set_index(["name", "arms", "batch_size"])
    active, error = loop.ratio["active"], loop.standard_error["active"]
    for arms, enough, little in ((3, 16, 4), (20, 128, 32)):
        assert (
            (active[arms] + 6 * error[arms])[enough] < 1 < (active[arms] - 6 * error[arms])[little]
        )
        assert active[arms].max() <= 5
        assert active[arms][512] == pytest.approx(loop.ratio["oracle"][arms][512], rel=0.05)
    course = kinds["course"]
    floor = course[course.draws > course.draws.max() / 2].groupby("name").regret.mean()
    assert floor["oracle"] < floor["active"] < 0.9 * floor["policy"]


def test_claim_deterministic_policies(monkeypatch):
    table = numbers("deterministic_policies")
    kinds = dict(iter(table.groupby("kind")))
    module = load("deterministic_policies", monkeypatch)
    np.testing.assert_allclose(
        kinds["dimension"].variance, module.dimensions((1, 2, 4, 8, 16, 32, 64)).variance
    )
    for _, part in kinds["sigma"].groupby("way"):
        assert 0 < part.variance.argmin() < len(part) - 1
        seen = part.dropna(subset="sampled")
        assert len(seen) == 9
        np.testing.assert_allclose(seen.sampled, seen.variance, rtol=0.15)
    spread = kinds["dimension"].pivot_table(index="dimension", columns="way", values="variance")
    np.testing.assert_allclose(spread["action"], spread["action"].iloc[0], rtol=1e-9)
    growth = np.diff(spread["parameter"]) / np.diff(spread.index)
    assert ((growth > 9) & (growth < 11)).all()
    best = {}
    for (way, budget), part in kinds["gap"].groupby(["way", "budget"]):
        part = part.reset_index()
        least = part.gap.idxmin()
        best[way, budget] = part.gap[least]
        for side in (part.iloc[0], part.iloc[-1]):
            apart = np.hypot(side.standard_error, part.standard_error[least])
            assert side.gap - part.gap[least] > 6 * apart
        assert (np.diff(part.floor) > 0).all()
    for way in ("action", "parameter"):
        assert best[way, 4000] < 0.6 * best[way, 500]


def test_claim_over_optimization():
    table = numbers("over_optimization")
    rows, steps = (
        dict(iter(table[table.panel == panel].set_index("x").groupby("rewards")))
        for panel in ("rows", "steps")
    )
    logger = table.logger.iloc[0]
    assert logger == pytest.approx(4.34, abs=0.01)
    # From means: worse than the logger whatever the number of rows, and worst in between.
    mean = rows["mean"]
    assert (mean.true + 2 * mean.true_error < logger).all()
    assert mean.true.idxmin() in (100_000, 316_228)
    assert mean.true.min() + 2 * 0.3 < mean.true.iloc[0]
    assert mean.true[100_000] == pytest.approx(2.54, abs=0.6)
    assert (mean.promised > mean.true + 2 * mean.promised_error).all()
    # The others are above it from 1e5 rows on, and above the logger at 1e6.
    for name in ("lower_bound", "empirical_bayes"):
        late = rows[name].loc[100_000:]
        assert (
            late.true - 2 * late.true_error > (mean.true + 2 * mean.true_error).loc[100_000:]
        ).all()
        assert late.true.iloc[-1] - 2 * late.true_error.iloc[-1] > logger
    # Descent from means passes the logger at first, and loses in the end.
    path = steps["mean"]
    assert path.true[0] == pytest.approx(logger)
    assert (path.true - 2 * path.true_error).loc[1:10].min() > logger
    assert path.true.iloc[-1] + 2 * path.true_error.iloc[-1] < logger


def test_claim_digits_learning_curve():
    table = numbers("digits_learning_curve")
    assert (table.groupby(["method", "pairs"]).log.nunique() == 5).all()
    mean = table.groupby(["method", "pairs"])[["accuracy", "likeliest"]].mean()
    for name in ("copg", "ipo", "dpo", "reward_weighted"):
        assert (mean.loc[name].diff().dropna().to_numpy() > -0.02).all()
        assert mean.likeliest[name, 30] < 0.4
        assert mean.likeliest[name, 10_000] > 0.85
    # How sure a policy gets is set by β: CoPG asks for twice the log-ratio that IPO asks for.
    assert mean.accuracy["copg", 10_000] > mean.accuracy["ipo", 10_000] + 0.2


def test_claim_ope_effective_sample_size():
    keys = ["target", "logger", "campaign", "estimator"]
    table = numbers("ope_effective_sample_size").set_index(keys).sort_index()
    assert len(table) == 2 * 2 * 3 * 4
    published = table.loc["bts"].groupby("campaign").expected.first()
    assert published.to_dict() == {"all": 0.0050, "men": 0.0067, "women": 0.0064}
    # From the random logs every interval holds the published rate, and is about as wide.
    random = table.loc[("bts", "random")]
    assert ((random.low < random.expected) & (random.expected < random.high)).all()
    assert random.effective_sample_size.between(2500, 3500).all()
    assert (random.high - random.low).between(0.004, 0.006).all()
    uniform = table.loc[("uniform", "bts")]
    size = uniform.groupby("campaign").effective_sample_size.first()
    np.testing.assert_allclose(size, [340.378, 655.710, 2.0778], atol=1e-3)
    ipw, normalized = (uniform.xs(e, level=1).value for e in ("ipw", "self_normalized_ipw"))
    np.testing.assert_allclose(ipw * 1e3, [2.35964, 3.00863, 7.43758], atol=1e-3)
    np.testing.assert_allclose(normalized * 1e3, [2.33371, 3.18942, 2.37305], atol=1e-3)
    women = uniform.loc["women"]
    assert (women.value * 1e3).round(1).agg(["min", "max"]).tolist() == [2.4, 8.5]
    # Σ w = n IPW/SNIPW.
    total = 10_000 * ipw["women"] / normalized["women"]
    assert women.max_weight.iloc[0] / total == pytest.approx(0.69, abs=0.005)
    known = table.loc[("uniform", "random")]
    assert known.effective_sample_size.to_numpy() == pytest.approx(10_000)
    ipw = known.xs("ipw", level="estimator")
    np.testing.assert_allclose(ipw.value, ipw.expected, rtol=1e-9)


def test_claim_forward_kl():
    table = numbers("forward_kl")
    shares = table.set_index(["panel", "kind"])[["x", "arm_1", "arm_2", "arm_3"]]
    np.testing.assert_allclose(shares.iloc[:, 1:].sum(axis=1), 1, rtol=1e-11)
    forward, reverse = (
        shares.loc["optima", kind].set_index("x") for kind in ("forward", "reverse")
    )
    gap, beta = np.array([0.0, 0.5, 1.5]), reverse.index.to_numpy()[:, None]
    usual = np.exp(-gap / beta)
    np.testing.assert_allclose(
        reverse, usual / usual.sum(axis=1, keepdims=True), rtol=1e-9, atol=1e-30
    )
    # β π_ref / (λ − r): the reciprocals differ as the rewards do.
    np.testing.assert_allclose(
        beta / 3 * (1 / forward - 1 / forward[["arm_1"]].to_numpy()),
        np.tile(gap, (len(beta), 1)),
        rtol=1e-9,
        atol=1e-9,
    )
    assert forward.arm_3.iloc[0] > 1e-3 > 1e-9 > reverse.arm_3.iloc[0]
    tabular = shares.loc["tabular", "1.0"]
    assert tabular.arm_1.iloc[0] > 0.99
    np.testing.assert_allclose(
        tabular.iloc[-1, 1:], presets.three_armed_behavior(), rtol=0.1, atol=0
    )
    for kind in ("1.0", "0.9"):
        outside = shares.loc["feature", kind].arm_3
        assert (np.diff(outside) < 0).all()
        assert outside.iloc[0] > 0.98
        assert outside.iloc[-1] < 0.15
    assert shares.loc["feature", "plain DPO"].arm_3.item() > 0.98


def test_claim_nash():
    table = numbers("nash")
    kl = table[table.kind == "kl"]
    assert sorted(kl.tau.unique()) == [0.02, 0.1, 0.5]
    assert (kl.kl < kl.bound / 10).all()
    np.testing.assert_allclose(kl.bound, 8 / (kl.tau**2 * (kl.step + 1)), rtol=1e-11)
    assert kl[kl.step == 10_000].kl.max() < 1e-7
    arms = ["arm_1", "arm_2", "arm_3"]
    ends = table[table.kind.isin(["equilibrium", "ipo", "dpo"])].set_index("kind")
    cycle = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
    found = ends.loc["equilibrium", arms].to_numpy(dtype=float)
    answer = np.array([0.2, 0.3, 0.5]) * np.exp(cycle @ found / 0.05)
    np.testing.assert_allclose(found, answer / answer.sum(), atol=1e-9)
    np.testing.assert_allclose(table[table.kind == "path"][arms].iloc[-1], found, atol=1e-2)
    gain = ends.exploitability
    assert gain["equilibrium"] < 0.03
    assert gain["ipo"] > 2 * gain["equilibrium"]
    assert gain["dpo"] > 10 * gain["equilibrium"]


def test_claim_preference_cycle():
    table = numbers("preference_cycle")
    matches = bandit.data.rock_paper_scissors()
    names = list(matches.names)
    picked = table[table.kind == "picked"].set_index("method")
    assert (
        picked.loc[["Bradley–Terry's best", "dpo", "ipo"], names].idxmax(axis=1) == "halbot"
    ).all()
    assert picked.loc["Nash equilibrium", names].astype(float).idxmax() == "mod1bot"
    assert picked.loc["Nash equilibrium", "halbot"] < 0.2
    np.testing.assert_allclose(picked.kl.iloc[1:], picked.kl.iloc[-1], rtol=1e-8)
    wins = 0.5 + picked.exploitability
    assert wins["Bradley–Terry's best"] == pytest.approx((232 + 3 / 2) / 300, abs=1e-9)
    assert wins["Nash equilibrium"] < 0.52
    assert wins[["dpo", "ipo"]].min() > 0.65
    expected = (table[names].to_numpy() @ matches.preference.T).max(axis=1) - 0.5
    np.testing.assert_allclose(table.exploitability, expected, atol=1e-9)
    far = table[(table.kind == "curve") & (table.kl > 0.33)].sort_values("kl").groupby("method")
    for name, part in far:
        falls = np.diff(part.exploitability) < 0
        assert (falls if name == "Nash equilibrium" else ~falls).all()
        assert (np.diff(part.halbot) > 0).all() or name == "Nash equilibrium"
    curves = table[table.kind == "curve"].groupby("method")
    least = curves.exploitability.min()
    assert least["Nash equilibrium"] < 1e-3
    assert least[["dpo", "ipo"]].min() > 0.1


def test_claim_reward_learning():
    table = numbers("reward_learning")
    curve = dict(iter(table[table.kind == "curve"].groupby("when")))
    for part in curve.values():
        assert (np.diff(part.kl) > 0).all()
        assert (np.diff(part.learned_value) > 0).all()
    assert curve["before"].learned_value.iloc[-1] > 3
    assert curve["before"].true_value.iloc[-1] < -0.9
    assert curve["after"].true_value.min() > 0.5
    cases = table[table.kind.isin(["popular", "unpopular"])]
    assert (cases.groupby(["kind", "beta"]).seed.nunique() == 3).all()
    assert (cases[["before", "after"]].max(axis=1) < cases.best).all()
    gain = (cases.after - cases.before).groupby([cases.kind, cases.beta.round(3)])
    low, high = gain.min(), gain.max()
    for beta in (0.707, 1.0, 2.0, 4.0):
        assert low["popular", beta] > 0.04
        assert high["unpopular", beta] < -0.03
    assert high["popular", 0.354] < 0
    assert low["unpopular", 0.25] > 0
