"""How much noise to learn a deterministic policy with.

Six contexts with four features, actions a = θᵀφ(x); what is deployed is the policy without noise.
Noise σ goes into the action (REINFORCE, that is one-step GPOMDP) or into the parameters (PGPE).

Left: the trace of the covariance of the gradient from one draw over σ, for the reward −e² (e the
error of the action), exactly; dots: 20,000 draws. Middle: the same over the dimension, at the best
σ of each, with features of one length and errors of one size. Right: a skewed peak as reward, for
which noise also moves the optimum. Mean gap J_D(w) − J_D(θ) of the deployed policy after a budget
of draws, at the best of six step sizes; in gray, exactly, the gap of the best θ of the noisy
objective, to which more draws lead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from _save import options, save
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

import bandit
from bandit import plots
from bandit.related import deterministic

SEED = 29
WAYS = {
    "action": (deterministic.GaussianActionPolicy, "noise in the action", "#0072B2", "o"),
    "parameter": (deterministic.ParameterNoisePolicy, "noise in the parameters", "#D55E00", "s"),
}
START = np.array([1.2, 0.8, 0.6, -0.8])  # from the target
BATCH = 25
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
COLUMNS = "kind way sigma variance sampled dimension budget gap standard_error rate floor"
STYLES = ((0, (5, 2)), "-")


def problem(reward) -> deterministic.ActionProblem:
    """Six contexts, an intercept and three features."""
    rng = np.random.default_rng(SEED)
    features = np.column_stack([np.ones(6), rng.normal(size=(6, 3))])
    target = [0.5, -1.0, 0.8, 0.3]
    return deterministic.ActionProblem(features, target, reward, rng.dirichlet(np.full(6, 3.0)))


def spreads(points: int, draws: int) -> pd.DataFrame:
    """Variance over σ, exact and sampled."""
    where = problem(deterministic.quadratic)
    theta = where.target + START
    rows = []
    for name, (way, *_) in WAYS.items():
        for at, sigma in enumerate(np.geomspace(0.05, 2, points)):
            explore = way(where, sigma)
            rows.append({"way": name, "sigma": sigma, "variance": explore.variance(theta)})
            if at % 3 == 0:
                rng = np.random.default_rng([SEED, at])
                seen = explore.sample(theta, rng, batch_size=draws)
                rows[-1]["sampled"] = seen.var(axis=0, ddof=1).sum()
    return pd.DataFrame(rows).assign(kind="sigma")


def dimensions(sizes: Sequence[int]) -> pd.DataFrame:
    """Least variance over σ with one context, ‖φ‖ = 1 and an error of 1."""
    rows = []
    for size in sizes:
        features = np.full((1, size), size**-0.5)
        where = deterministic.ActionProblem(features, np.zeros(size))
        for name, (way, *_) in WAYS.items():
            spread = [way(where, s).variance(features[0]) for s in np.geomspace(0.1, 3, 200)]
            rows.append({"way": name, "dimension": size, "variance": min(spread)})
    return pd.DataFrame(rows).assign(kind="dimension")


def gaps(points: int, budgets: Sequence[int], runs: int) -> pd.DataFrame:
    """Gap of the deployed policy over σ, learned and of the best θ of the noisy objective."""
    where = problem(deterministic.skewed_peak)
    rows = []
    for name, (way, *_) in WAYS.items():
        for sigma in np.geomspace(0.03, 2, points):
            explore = way(where, sigma)
            floor = {"way": name, "sigma": sigma, "floor": float(where.gap(explore.optimum()))}
            rows += [floor | learned(where, way, sigma, budget, runs) for budget in budgets]
    return pd.DataFrame(rows).assign(kind="gap")


def learned(where, way, sigma: float, budget: int, runs: int) -> dict[str, float]:
    """Mean gap over runs with its standard error, at the best step size."""
    found = []
    for rate in RATES:
        course = deterministic.optimize(
            where,
            way,
            sigma=sigma,
            batch_size=BATCH,
            steps=budget // BATCH,
            optimizer=bandit.SGD(rate),
            start=where.target + START,
            runs=runs,
            rng=SEED,
            record_every=budget,
        )
        last = course.gap()[-1]
        found.append((last.mean(), last.std(ddof=1) / np.sqrt(runs), rate))
    gap, error, rate = min(found)
    return {"budget": budget, "gap": gap, "standard_error": error, "rate": rate}


def draw(numbers: pd.DataFrame) -> Figure:
    """Variance over σ and over the dimension, and the gap, side by side."""
    figure = Figure(figsize=(9.6, 3.9))
    left, middle, right = figure.subplots(1, 3)
    kinds = dict(iter(numbers.groupby("kind")))
    for name, (_, label, color, mark) in WAYS.items():
        part, dims, learn = (
            kinds[kind][kinds[kind].way == name] for kind in ("sigma", "dimension", "gap")
        )
        left.plot(part.sigma, part.variance, color=color, label=label)
        left.plot(part.sigma, part.sampled, color=color, ls="", marker=mark)
        middle.plot(dims.dimension, dims.variance, color=color, marker=mark)
        for (_, one), style in zip(learn.groupby("budget"), STYLES, strict=True):
            right.plot(one.sigma, one.gap, color=color, ls=style, marker=mark)
        one = learn.drop_duplicates("sigma")
        right.plot(one.sigma, one.floor, color="#999999", lw=1.1, marker=mark, ms=2.5)
    left.set(title="A best σ for the variance", xscale="log", yscale="log")
    left.set(xlabel=r"noise $\sigma$", ylabel=r"tr Cov of one draw's gradient")
    middle.set(title="One way pays for parameters", xscale="log", yscale="log")
    middle.set_yticks([20, 50, 100, 200, 500], ["20", "50", "100", "200", "500"])
    middle.set_ylim(15, 800)
    middle.set(xlabel="parameters d", ylabel=r"tr Cov at the best $\sigma$")
    right.set(title="A best σ for a budget", xscale="log", yscale="log", ylim=(2e-3, 0.5))
    right.set(xlabel=r"noise $\sigma$", ylabel=r"gap of the deployed policy")
    handles = [
        Line2D([], [], color="#444444", ls=style, label=f"{budget:.0f} draws")
        for budget, style in zip(sorted(kinds["gap"].budget.unique()), STYLES, strict=True)
    ]
    handles.append(Line2D([], [], color="#999999", lw=1.1, label="no end of draws"))
    ways = left.get_legend_handles_labels()[0]
    figure.legend(handles=ways + handles, loc="outside lower center", ncols=5)
    for axis in (axis for ax in (left, middle, right) for axis in (ax.xaxis, ax.yaxis)):
        axis.set_minor_formatter(NullFormatter())
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    quick = how.quick
    numbers = pd.concat(
        [
            spreads(7 if quick else 25, 1000 if quick else 20_000),
            dimensions((1, 8) if quick else (1, 2, 4, 8, 16, 32, 64)),
            gaps(3 if quick else 9, (250, 500) if quick else (500, 4000), 10 if quick else 40),
        ]
    )[COLUMNS.split()]
    with plots.style():
        figure = draw(numbers)
    save(
        figure, numbers, how, title="How much noise to learn a deterministic policy with", seed=SEED
    )


if __name__ == "__main__":
    main()
