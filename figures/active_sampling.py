"""Who should draw the data: the variance of a policy gradient, exactly, and with b* estimated.

Left: the trace of the covariance of the gradient from one draw, over that of on-policy sampling,
for policies on the way from π_ref to π* (ln π mixed linearly) of our three-armed bandit, exactly:
the optimal behavior b* ∝ π |A| ‖e_y − π‖, its defensive mixture with a fifth of π, uniform draws,
and μ = (0.1, 0.2, 0.7), which favors the worst arm. Middle: the same ratio in training, where b* is
fitted to the batch before: its mean over runs and the first 100 steps against the batch size, on
our bandit and on one with 20 arms (bars: ±2 standard errors, mostly hidden by the marks). Dashed:
told b* itself. A batch that misses arms does worse than the policy. Right: mean regret of 300 runs
on our bandit without a baseline, in batches of 64 with steps so large that they end on a floor of
noise; with the value baseline the noise vanishes at π* by itself, and who draws hardly matters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from _save import options, save
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

import bandit
from bandit import plots, presets
from bandit.problem import log_softmax
from bandit.related import active_sampling as active

SEED = 23
SHARE = 0.2
BATCH = 64
BEHAVIORS = {
    "optimal": ("optimal b*", "#0072B2", "-"),
    "defensive": ("0.8 b* + 0.2 π", "#56B4E9", (0, (5, 2))),
    "uniform": ("uniform", "#999999", (0, (1, 1.4))),
    "worst arm": ("favors the worst arm", "#D55E00", (0, (5, 1.5, 1, 1.5))),
    "on-policy": ("on-policy", "#000000", "-"),
}
SIZES = {3: ("#0072B2", "o"), 20: ("#CC79A7", "s")}
SAMPLING = {
    "policy": ("on-policy", "#000000", "-"),
    "active": ("b* estimated", "#0072B2", "-"),
    "oracle": ("b* told", "#56B4E9", (0, (5, 2))),
}


def many_armed() -> bandit.Bandit:
    """Twenty arms with normal rewards and an uneven reference."""
    rng = np.random.default_rng(SEED)
    return bandit.Bandit(rng.normal(size=20), 0.5, reference=rng.dirichlet(np.full(20, 3.0)))


def exact(points: int) -> pd.DataFrame:
    """Variances on the way from π_ref to π*; at π* itself all are 0."""
    problem = presets.three_armed_bandit()
    rows = []
    for way in np.linspace(0, 0.98, points):
        mixed = (1 - way) * problem.log_reference + way * problem.log_optimal_policy()
        policy = np.exp(log_softmax(mixed))
        gain = active.advantage(problem, policy)
        best = active.optimal_behavior(policy, gain)
        behaviors = {
            "optimal": best,
            "defensive": active.defensive(best, policy, SHARE),
            "uniform": np.full(3, 1 / 3),
            "worst arm": presets.three_armed_behavior(),
            "on-policy": policy,
        }
        for name, behavior in behaviors.items():
            spread = float(active.variance(behavior, policy, gain))
            rows.append({"name": name, "way": way, "variance": spread})
    table = pd.DataFrame(rows)
    own = table[table.name == "on-policy"].set_index("way").variance
    return table.assign(kind="exact", ratio=table.variance / table.way.map(own))


def loops(runs: int, steps: int, sizes: Sequence[int]) -> pd.DataFrame:
    """Mean ratio of variances in training, with its standard error over runs."""
    rows = []
    for problem in (presets.three_armed_bandit(), many_armed()):
        for sampling in ("active", "oracle"):
            for batch_size in sizes:
                history, behavior = active.optimize(
                    problem,
                    batch_size=batch_size,
                    steps=steps,
                    sampling=sampling,
                    share=SHARE,
                    runs=runs,
                    rng=SEED,
                    optimizer=bandit.SGD(0.1),
                    record_every=5,
                )
                # The first batch is on-policy, as there is none before it.
                policy, behavior = history.policy()[1:-1], behavior[1:]
                gain = active.advantage(problem, policy)
                ratio = active.variance(behavior, policy, gain)
                ratio = (ratio / active.variance(policy, policy, gain)).mean(axis=0)
                rows.append(
                    {
                        "name": sampling,
                        "arms": problem.n_arms,
                        "batch_size": batch_size,
                        "ratio": ratio.mean(),
                        "standard_error": ratio.std(ddof=1) / np.sqrt(runs),
                    }
                )
    return pd.DataFrame(rows).assign(kind="loop")


def courses(runs: int, steps: int) -> pd.DataFrame:
    """Mean regret over draws, without a baseline."""
    rows = []
    problem = presets.three_armed_bandit()
    for sampling in SAMPLING:
        history = active.optimize(
            problem,
            batch_size=BATCH,
            steps=steps,
            sampling=sampling,
            baseline="none",
            share=SHARE,
            runs=runs,
            rng=SEED,
            optimizer=bandit.SGD(1.0),
        ).history
        regret = history.regret()
        error = regret.std(axis=1, ddof=1) / np.sqrt(runs)
        for step, one, about in zip(history.steps, regret.mean(axis=1), error, strict=True):
            row = {"name": sampling, "draws": BATCH * step, "regret": one, "standard_error": about}
            rows.append(row)
    return pd.DataFrame(rows).assign(kind="course")


def draw(numbers: pd.DataFrame) -> Figure:
    """Exact ratios, ratios in training, and regret, side by side."""
    figure = Figure(figsize=(9.6, 3.9))
    left, middle, right = figure.subplots(1, 3)
    kinds = dict(iter(numbers.groupby("kind")))
    for name, (label, color, line) in BEHAVIORS.items():
        part = kinds["exact"][kinds["exact"].name == name]
        left.plot(part.way, part.ratio, color=color, ls=line, label=label)
    for (arms, name), part in kinds["loop"].groupby(["arms", "name"]):
        color, mark = SIZES[int(arms)]
        if name == "active":
            bars = 2 * part.standard_error
            label = f"{arms:.0f} arms"
            middle.errorbar(
                part.batch_size, part.ratio, bars, color=color, marker=mark, label=label
            )
        else:
            middle.plot(part.batch_size, part.ratio, color=color, ls=(0, (5, 2)), lw=1)
    middle.axhline(1, color="#000000", lw=1)
    for name, (label, color, line) in SAMPLING.items():
        part = kinds["course"][kinds["course"].name == name]
        right.plot(part.draws, part.regret, color=color, ls=line, label=label)
    left.set(
        title="Who draws matters", yscale="log", xlabel=r"way from $\pi_\mathrm{ref}$ to $\pi^*$"
    )
    left.set_ylabel("variance / on-policy variance")
    middle.set(title="Estimating b* takes a batch", xscale="log", yscale="log")
    middle.set(xlabel="batch size  [draws]", ylabel="variance / on-policy variance")
    right.set(title="Without a baseline, a lower floor", yscale="log", xlabel="draws")
    right.set_ylabel("mean regret  [reward]")
    for ax in (left, middle):
        ax.set_yticks([0.1, 0.2, 0.5, 1, 2, 5], ["0.1", "0.2", "0.5", "1", "2", "5"])
    left.set_ylim(0.1, 2.6)
    middle.set_ylim(0.13, 6)
    for ax in (left, middle, right):
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=1 + (ax is left))
    for axis in (axis for ax in (left, middle, right) for axis in (ax.xaxis, ax.yaxis)):
        axis.set_minor_formatter(NullFormatter())
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    sizes = (4, 64) if how.quick else (2, 4, 8, 16, 32, 64, 128, 256, 512)
    numbers = pd.concat(
        [
            exact(5 if how.quick else 50),
            loops(10 if how.quick else 50, 20 if how.quick else 100, sizes),
            courses(10 if how.quick else 300, 30 if how.quick else 150),
        ]
    )["kind name way variance ratio arms batch_size standard_error draws regret".split()]
    with plots.style():
        figure = draw(numbers)
    save(figure, numbers, how, title="Choosing who draws the data", seed=SEED)


if __name__ == "__main__":
    main()
