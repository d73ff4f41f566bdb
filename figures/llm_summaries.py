"""Learning to summarize in miniature: reward on new documents, and what it costs in divergence.

Documents of six words out of five; summaries of at most three tokens, 156 in all, so that every
policy is measured exactly. A reference is trained by likelihood on fair summaries (a transformer of
one layer, width 32), a reward model on preferences between its summaries; the reward model is then
the truth (held-out accuracy and calibration are in the picture's table of numbers). Each of 512
documents has five pairs of summaries written by the reference. Methods on rewards see two numbers a
pair; DPO and IPO see one noisy bit, drawn from the same rewards by Bradley–Terry: the comparison is
of methods as they are used, not of equal information. The reward has mean 0 under the reference,
the choice of zero kindest to policy gradient without a baseline.

All methods: the same pairs in the same order, 16 pairs a step, 100 Adam steps, step size falling
linearly to 0 from 0.0003, 0.001, 0.003 or 0.01, whichever gives the method, at that β, the greatest
E[r] − β KL on 64 of the *training* documents, in the mean of two seeds. Left: mean reward on 32
held-out documents at β = 0.2. Right: reward against KL(π‖π_ref) there, at β = 0.4, 0.2 and 0.1,
beside the exact optimal front. Lines are means of five seeds (data and order; the reference
and the reward model stay), bands and bars go from the lowest to the highest seed. IPO's β is per
unit of preference, not of reward. A baseline that is the batch's mean leaves in what documents
differ by; with a larger step size this method runs away from the reference.

Needs torch (extra ``llm``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from _save import options, save
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bandit import plots, presets
from bandit.llm import summaries, summary_runs

SEED = 0
BETAS, SHOWN = (0.1, 0.2, 0.4), 0.2
FRONT = 2.0 ** np.arange(4, -5.1, -0.5)
LABELS = {"policy_gradient_behavior": "PG, batch-mean baseline"}


def label(name: str) -> str:
    """The method's name, with the baseline as it is here."""
    return LABELS.get(name, presets.method(name).label)


def draw_curves(ax: Axes, numbers: pd.DataFrame, best: float) -> None:
    """Reward against step at one β, a band from the lowest to the highest seed."""
    here = numbers[(numbers.beta == SHOWN) & (numbers.kind == "trained")]
    for name, part in here.groupby("method", sort=False):
        own, over = plots.look(name), part.groupby("step").reward
        ax.fill_between(
            over.mean().index, over.min(), over.max(), color=own.color, alpha=0.18, lw=0
        )
        ax.plot(over.mean(), color=own.color, linestyle=own.linestyle, label=label(name))
    ax.axhline(best, color="#888888", ls=(0, (2, 2)), lw=1.1)
    ax.annotate(r"$\pi^*$", (0, best), (4, 3), textcoords="offset points", color="#555555")
    ax.set(
        xlabel="gradient step",
        ylabel="reward on held-out documents",
        title=rf"Learning, $\beta$ = {SHOWN:g}",
    )
    ax.margins(x=0)


def draw_front(ax: Axes, numbers: pd.DataFrame) -> None:
    """Where each method ends at each β, with the range over seeds."""
    front = numbers[numbers.kind == "front"]
    last = numbers[(numbers.kind == "trained") & (numbers.step == numbers.step.max())]
    means = last.groupby(["method", "beta"], sort=False)[["kl", "reward"]].agg(
        ["mean", "min", "max"]
    )
    landings = {name: means.loc[name].sort_index(ascending=False) for name in last.method.unique()}
    plots.reward_kl_front(
        (front.kl.to_numpy(), front.reward.to_numpy()),
        {
            n: (part.kl["mean"].to_numpy(), part.reward["mean"].to_numpy())
            for n, part in landings.items()
        },
        ax=ax,
    )
    for name, part in landings.items():
        (x, x0, x1), (y, y0, y1) = (part[c].to_numpy().T for c in ("kl", "reward"))
        bars = {"xerr": [x - x0, x1 - x], "yerr": [y - y0, y1 - y]}
        ax.errorbar(x, y, **bars, fmt="none", ecolor=plots.color(name), elinewidth=0.8, alpha=0.6)
    ax.set(ylabel="", title="Reward against divergence", xlim=(0, None))
    ax.legend(handles=[ax.get_legend().legend_handles[0]], loc="lower right")


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    torch.set_num_threads(1)
    if how.quick:
        world = summaries.make_world(SEED, documents=32, held_out=4, steps=10)
        numbers = summary_runs.compare(
            world,
            (SHOWN,),
            learning_rates=(1e-3,),
            seeds=2,
            tuning_seeds=1,
            steps=4,
            record_every=2,
        )
    else:
        world = summaries.make_world(SEED)
        numbers = summary_runs.compare(world, BETAS, curves_at=(SHOWN,))
    front = summary_runs.optimal_front(world, FRONT).assign(method="optimum", kind="front")
    best = world.problem(SHOWN)
    model = pd.DataFrame(
        [world.report._asdict()], columns=["accuracy", "calibration_error", "log_loss", "pairs"]
    ).assign(kind="reward model")
    numbers = pd.concat([numbers.assign(kind="trained"), front, model])
    with plots.style():
        figure = Figure(figsize=(8.4, 4.1))
        left, right = figure.subplots(1, 2, sharey=True)
        draw_curves(left, numbers, float(best.expected_reward(best.optimal_policy())))
        draw_front(right, numbers)
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5)
    save(figure, numbers, how, title="Summaries in miniature", seed=SEED)


if __name__ == "__main__":
    main()
