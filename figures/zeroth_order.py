"""Ascent on judges' answers alone: what smoothing and few judges cost.

Our three-armed bandit with Bradley–Terry judges; directions on the unit sphere. The estimator trims
frequencies to [Δ, 1 − Δ] before it inverts the link.

Left: the exact mean of the estimated gradient against the true one at π_ref, ‖E ĝ − ∇J‖/‖∇J‖, over
the smoothing μ, for M judges a pair (Δ = 0.01). With infinitely many the error goes with μ², with
fewer it ends on what the inverted link is wrong by. Middle: the exact regret of the policy where
that mean vanishes as μ → 0, over the number of judges, for several trims. Right: sampled training
(median of the runs; μ = ½, Δ = 0.01, 8 directions, 1024 judgments each whatever M) with the exact
ends as thin dashed lines: few judges and many pairs are as good at first, and worse in the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from _save import options, save
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

import bandit
from bandit import analysis, losses, plots, presets
from bandit.related import zeroth_order

SEED = 17
TRIM = 0.01
JUDGES = {1: "#D55E00", 4: "#E69F00", 16: "#009E73", 64: "#0072B2"}
ENDLESS = "#000000"
TRIMS = {0.005: "#CC79A7", 0.02: "#882255", 0.08: "#332288", 0.25: "#777777"}
MARKS = "osd^"
JUDGMENTS = 1024  # of each direction, at every step


def true_gradient(problem: bandit.Bandit) -> np.ndarray:
    """∇J at π_ref: half of what on-policy pairs pull."""
    pairs = bandit.pairs.independent(problem.reference)
    loss = losses.policy_gradient
    return -analysis.population(problem, loss, problem.log_reference, pairs)[1] / 2


def biases(problem: bandit.Bandit, points: int) -> pd.DataFrame:
    """Relative error of the mean gradient at π_ref."""
    exact = true_gradient(problem)
    rows = []
    for judges in (*JUDGES, None):
        for smoothing in np.geomspace(0.01, 3, points):
            mean = zeroth_order.mean_gradient(
                problem, problem.log_reference, judges=judges, smoothing=smoothing, trim=TRIM
            )
            error = np.linalg.norm(mean - exact) / np.linalg.norm(exact)
            rows.append({"judges": judges or np.inf, "smoothing": smoothing, "bias": error})
    return pd.DataFrame(rows).assign(kind="bias", trim=TRIM)


def ends(problem: bandit.Bandit, points: int) -> pd.DataFrame:
    """Regret of the exact end of ascent as smoothing → 0."""
    counts = np.unique(np.geomspace(1, 1024, points).round().astype(int))
    rows = []
    for trim in (*TRIMS, TRIM):
        for judges in sorted({*counts.tolist(), *JUDGES}) if trim != TRIM else JUDGES:
            policy = zeroth_order.limit_policy(problem, judges=judges, trim=trim)
            rows.append({"trim": trim, "judges": judges, "regret": float(problem.regret(policy))})
    return pd.DataFrame(rows).assign(kind="end")


def courses(problem: bandit.Bandit, runs: int, steps: int) -> pd.DataFrame:
    """Median regret of sampled training over the judgments used."""
    rows = []
    for judges in JUDGES:
        history = zeroth_order.optimize(
            problem,
            directions=8,
            pairs=JUDGMENTS // judges,
            judges=judges,
            smoothing=0.5,
            trim=TRIM,
            steps=steps,
            optimizer=bandit.SGD(0.25),
            runs=runs,
            rng=SEED,
            record_every=max(1, steps // 60),
        )
        used = history.steps * history.settings["judgments_per_step"]
        for count, regret in zip(used, np.median(history.regret(), axis=1), strict=True):
            rows.append({"judges": judges, "judgments": count, "regret": regret})
    return pd.DataFrame(rows).assign(kind="course", trim=TRIM)


def draw(numbers: pd.DataFrame) -> Figure:
    """Bias, end and course, side by side."""
    figure = Figure(figsize=(9.6, 3.7))
    left, middle, right = figure.subplots(1, 3)
    kinds = dict(iter(numbers.groupby("kind")))
    for (judges, part), mark in zip(kinds["bias"].groupby("judges"), [*MARKS, ""], strict=True):
        finite = np.isfinite(judges)
        left.plot(
            part.smoothing,
            part.bias,
            color=JUDGES[int(judges)] if finite else ENDLESS,
            marker=mark,
            markevery=max(1, len(part) // 5),
            label=f"{judges:.0f}" if finite else "∞",
        )
    for (trim, part), mark in zip(
        kinds["end"][kinds["end"].trim != TRIM].groupby("trim"), MARKS, strict=True
    ):
        middle.plot(part.judges, part.regret, color=TRIMS[trim], marker=mark, label=f"{trim:g}")
    exact = kinds["end"].set_index(["trim", "judges"]).regret
    for (judges, part), mark in zip(kinds["course"].groupby("judges"), MARKS, strict=True):
        color = JUDGES[int(judges)]
        seen = part[part.judgments > 0]
        right.plot(seen.judgments, seen.regret, color=color, marker=mark, markevery=0.12)
        right.axhline(exact[TRIM, judges], color=color, lw=0.8, ls=(0, (5, 2)), zorder=1)
    left.set(title="Few judges: a biased gradient", xscale="log", yscale="log")
    left.set(xlabel=r"smoothing $\mu$  [nats]", ylabel=r"$\|E\,\hat g - \nabla J\|/\|\nabla J\|$")
    middle.set(title="Many judges: ascent ends at $\\pi^*$", xscale="log", yscale="log")
    middle.set(xlabel="judges a pair M", ylabel="regret  [reward]")
    right.set(title="Cheap at first, worse in the end", xscale="log", yscale="log")
    right.set(xlabel="judgments used", ylabel="regret  [reward]")
    middle.legend(title="trim Δ", loc="lower left")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        title="judges a pair M (left and right)",
        loc="outside lower center",
        ncols=5,
    )
    for axis in (axis for ax in (left, middle, right) for axis in (ax.xaxis, ax.yaxis)):
        axis.set_minor_formatter(NullFormatter())
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    problem = presets.three_armed_bandit()
    numbers = pd.concat(
        [
            biases(problem, 6 if how.quick else 25),
            ends(problem, 4 if how.quick else 16),
            courses(problem, 3 if how.quick else 8, 40 if how.quick else 210),
        ]
    )[["kind", "judges", "trim", "smoothing", "bias", "judgments", "regret"]]
    with plots.style():
        figure = draw(numbers)
    save(figure, numbers, how, title="Gradients from judges' answers alone", seed=SEED)


if __name__ == "__main__":
    main()
