"""Over-optimization: what a policy learned from logged clicks is worth, and what it promises.

Eighty items with production click rates, logged by a Thompson policy that is also the reference,
β = 0.0005; CoPG learns from the mean click rate of each item, from a lower confidence bound of it
(Wilson, 99 %) or from its empirical Bayes estimate. Solid: the true click rate of the learned
policy. Dashed: the click rate that the estimates it was learned from promise. Left: the exact
solution, against the number of rows logged. Right: gradient descent on 100,000 rows, one step after
the other, from the reference (step size 1/(2β max μ)). Averages over simulated logs, bands of two
standard errors. The rows of a log are drawn as counts, which is the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from _save import options, save
from matplotlib.figure import Figure

import bandit
from bandit import Bandit, analysis, data, losses, pairs, pessimism, plots

SEED = 0
BETA = 0.0005
ROWS = 100_000
REWARDS: dict[str, str | Callable] = {
    "mean": "mean",
    "lower_bound": functools.partial(pessimism.lower_confidence_bound, kind="wilson", level=0.99),
    "empirical_bayes": "empirical_bayes",
}
COLORS = {"mean": "#D55E00", "lower_bound": "#0072B2", "empirical_bayes": "#009E73"}
LABELS = {
    "mean": "mean",
    "lower_bound": "lower confidence bound",
    "empirical_bayes": "empirical Bayes",
}


def logs(n: int, how_many: int, rng: np.random.Generator) -> list[data.Counts]:
    """Simulated logs of ``n`` rows, as counts."""
    known = world()
    shown = rng.multinomial(n, known.behavior, size=how_many)
    return [data.from_counts(row, rng.binomial(row, known.reward)) for row in shown]


@functools.cache
def world() -> data.Simulation:
    """The true click rates and the policy that logs."""
    return data.semi_synthetic("all", 1, rng=0)


def learn(log: data.Counts, rewards: str | Callable) -> bandit.Fit:
    return bandit.fit(log, "copg", beta=BETA, reference=world().behavior, rewards=rewards)


def against_rows(sizes: np.ndarray, seeds: int) -> pd.DataFrame:
    """True and promised click rate of the exact solution, a row per log."""
    rows = []
    streams = np.random.default_rng([SEED, 0]).spawn(len(sizes))
    for n, rng in zip(sizes, streams, strict=True):
        for seed, log in enumerate(logs(int(n), seeds, rng)):
            for name, rewards in REWARDS.items():
                fit = learn(log, rewards)
                true = float(fit.policy[0] @ world().reward)
                rows.append(("rows", name, n, seed, true, fit.diagnostics.value))
    return pd.DataFrame(rows, columns=COLUMNS)


COLUMNS = ["panel", "rewards", "x", "log", "true", "promised"]


def against_steps(steps: np.ndarray, seeds: int) -> pd.DataFrame:
    """The same along gradient descent: every log is a context of one problem."""
    many = logs(ROWS, seeds, np.random.default_rng([SEED, 1]))
    mu = np.concatenate([log.n for log in many]) / ROWS
    step_size = 1 / (2 * BETA * mu.max(axis=-1, keepdims=True))
    parts = []
    for name, rewards in REWARDS.items():
        estimated = np.concatenate([learn(log, rewards).problem.reward for log in many])
        problem = Bandit(estimated, BETA, world().behavior)
        logits = problem.log_reference.copy()
        for step in range(steps[-1] + 1):
            if step in steps:
                policy = np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
                parts.append(
                    pd.DataFrame(
                        {
                            "panel": "steps",
                            "rewards": name,
                            "x": step,
                            "log": np.arange(seeds),
                            "true": policy @ world().reward,
                            "promised": (policy * estimated).sum(axis=-1),
                        }
                    )
                )
            gradient = analysis.population(problem, losses.copg, logits, pairs.independent(mu))[1]
            logits -= step_size * seeds * gradient  # each log has a weight of one in `seeds`
    return pd.concat(parts)


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard error over logs, in clicks per thousand."""
    grouped = runs.groupby(["panel", "rewards", "x"], sort=False)[["true", "promised"]]
    mean, error = 1e3 * grouped.mean(), 1e3 * grouped.sem().add_suffix("_error")
    table = mean.join(error).reset_index()
    truth = world()
    table["logger"] = 1e3 * truth.behavior @ truth.reward
    return table


def draw(table: pd.DataFrame) -> Figure:
    """True (solid) and promised (dashed) click rates against rows and against steps."""
    figure = Figure(figsize=(9.2, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for ax, panel in ((left, "rows"), (right, "steps")):
        part = table[table.panel == panel]
        for name, line in part.groupby("rewards", sort=False):
            color = COLORS[name]
            ax.plot(line.x, line.true, color=color, label=LABELS[name], linewidth=2)
            ax.plot(line.x, line.promised, color=color, linestyle="--", linewidth=1.2)
            low, high = line.true - 2 * line.true_error, line.true + 2 * line.true_error
            ax.fill_between(line.x, low, high, color=color, alpha=0.2, linewidth=0)
        ax.axhline(part.logger.iloc[0], color="0.3", linewidth=1, linestyle=":")
    left.set_xscale("log")
    right.set_xscale("symlog", linthresh=1, linscale=0.4)
    right.set_xlim(0, table[table.panel == "steps"].x.max())
    left.set_ylim(0, 10)
    left.set(xlabel="rows logged", ylabel="clicks per thousand")
    left.set_title("Exact: more data first makes it worse")
    right.set(xlabel="gradient steps on 100,000 rows")
    right.set_title("Stopping early is pessimism too")
    handles = [
        *left.get_legend_handles_labels()[0],
        left.plot([], [], color="black", label="true", linewidth=2)[0],
        left.plot([], [], color="black", label="promised", linestyle="--", linewidth=1.2)[0],
        left.plot([], [], color="0.3", label="logging policy", linestyle=":", linewidth=1)[0],
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    seeds = 4 if how.quick else 20
    sizes = 10 ** np.linspace(3, 6, 4 if how.quick else 7)
    steps = np.unique(np.round(np.geomspace(1, 30 if how.quick else 1000, 40))).astype(int)
    runs = pd.concat(
        [against_rows(np.round(sizes), seeds), against_steps(np.append(0, steps), seeds)]
    )
    table = summary(runs)
    with plots.style():
        figure = draw(table)
    save(figure, table, how, title="Over-optimization of logged clicks", seed=SEED)


if __name__ == "__main__":
    main()
