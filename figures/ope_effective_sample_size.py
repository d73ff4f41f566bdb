"""Off-policy estimates with 95 % intervals, against the effective sample size that carries them.

The shipped Open Bandit logs: three campaigns, each logged for a week by a random policy and by
Thompson sampling (bts), 10,000 rows a log. Two policies are evaluated on both logs of a campaign:
*bts*, whose choice at a position is drawn from the shares of the items in the bts log, and the
*uniform* policy. Four estimators: inverse propensity weighting (IPW), self-normalized (SNIPW), the
means of each position and item (DM), and doubly robust, each row corrected by the means of the
others (DR). Circles: from the random log. Triangles: from the bts log. Dashed, for bts: the click
rates of the full data as published (arXiv:2008.07146), which is what the estimates should find.
Dotted, for uniform: the mean of the random log, where uniform is the policy that logged.

Overlap decides, not rows: all logs have 10,000. From the random logs the value of bts is found, to
within what 40 clicks can say. In the women's bts log one row of propensity 10⁻⁶ carries 69 % of
all weight, and what the estimators make of uniform reaches from 2.4 to 8.5. Nothing is sampled.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from _save import options, save
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bandit import data, ope, plots

CAMPAIGNS = ("all", "men", "women")
LOGGERS = {"random": "o", "bts": "^"}
TARGETS = {"bts": "bts policy", "uniform": "uniform policy"}
# Published for the full data, as .0050, .0067 and .0064.
PUBLISHED = {"all": 0.0050, "men": 0.0067, "women": 0.0064}
ESTIMATORS = {
    "ipw": ("IPW", "#000000"),
    "self_normalized_ipw": ("SNIPW", "#56B4E9"),
    "direct_method": ("DM", "#E69F00"),
    "doubly_robust": ("DR", "#CC79A7"),
}
PER_THOUSAND = 1000


def estimates() -> pd.DataFrame:
    """All estimators on every log of every policy, and what they should find."""
    rows = []
    for campaign in CAMPAIGNS:
        logs = {logger: data.open_bandit(campaign, logger) for logger in LOGGERS}
        shown = logs["bts"].n
        policies = {
            "bts": shown / shown.sum(axis=1, keepdims=True),
            "uniform": np.full(shown.shape, 1 / shown.shape[1]),
        }
        random = logs["random"]
        expected = {"bts": PUBLISHED[campaign], "uniform": random.reward.sum() / random.n.sum()}
        for target, policy in policies.items():
            for logger, log in logs.items():
                with warnings.catch_warnings():
                    # Here they are the subject.
                    warnings.simplefilter("ignore", ope.LowOverlapWarning)
                    table = ope.evaluate(log, policy, folds="rows")
                table = table.reset_index().rename(columns={"method": "estimator"})
                table.insert(0, "campaign", campaign)
                table.insert(1, "target", target)
                table.insert(2, "logger", logger)
                rows.append(table.assign(expected=expected[target]))
    return pd.concat(rows, ignore_index=True)


def draw(numbers: pd.DataFrame) -> Figure:
    """A row of panels for each policy, a panel for each campaign."""
    figure = Figure(figsize=(8.4, 5.4))
    axes = figure.subplots(2, 3, sharex=True, sharey=True)
    for row, (target, name) in zip(axes, TARGETS.items(), strict=True):
        for ax, campaign in zip(row, CAMPAIGNS, strict=True):
            here = numbers[(numbers.target == target) & (numbers.campaign == campaign)]
            _panel(ax, here, dashed=target == "bts")
            if target == "bts":
                ax.set_title(campaign)
            else:
                ax.set_xlabel("effective sample size (rows)")
        row[0].set_ylabel(f"{name}:\nclicks per 1,000")
    axes[0, 0].set_xscale("log")
    axes[0, 0].set_xlim(1, 20_000)
    axes[0, 0].set_ylim(-2.5, 17.5)
    axes[0, 0].set_yticks(range(0, 20, 5))
    axes[0, 0].set_xticks([1, 10, 100, 1000, 10_000], ["1", "10", "100", "1,000", "10,000"])
    figure.suptitle(
        "All logs have 10,000 rows; how many of them count is decided by overlap",
        fontsize=10,
        fontweight="bold",
    )
    handles = [
        Line2D([], [], color=color, marker="s", linestyle="", label=label)
        for label, color in ESTIMATORS.values()
    ]
    handles += [
        Line2D([], [], color="#555555", marker=marker, linestyle="", label=f"{logger} log")
        for logger, marker in LOGGERS.items()
    ]
    handles.append(Line2D([], [], color="#555555", linestyle="--", label="published rate"))
    handles.append(Line2D([], [], color="#555555", linestyle=":", label="random log's mean"))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=4,
        title="the four estimators of a log share its effective sample size and stand side by side",
        title_fontsize=7,
    )
    return figure


def _panel(ax, here: pd.DataFrame, *, dashed: bool) -> None:
    ax.axhline(
        PER_THOUSAND * here.expected.iloc[0],
        color="#555555",
        linestyle="--" if dashed else ":",
        linewidth=1.2,
        zorder=1,
    )
    ax.axhline(0, color="#cccccc", linewidth=0.8, zorder=0)
    for place, (name, (_, color)) in enumerate(ESTIMATORS.items()):
        for logger, marker in LOGGERS.items():
            (one,) = here[(here.estimator == name) & (here.logger == logger)].itertuples()
            ax.errorbar(
                # Side by side, in the order of the legend, around the size they share.
                one.effective_sample_size * 1.16 ** (place - 1.5),
                PER_THOUSAND * one.value,
                yerr=PER_THOUSAND * np.array([[one.value - one.low], [one.high - one.value]]),
                color=color,
                marker=marker,
                markersize=4.5,
                capsize=0,
                linewidth=1.4,
            )


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    numbers = estimates()
    with plots.style():
        figure = draw(numbers)
    title = "Off-policy estimates against effective sample size"
    save(figure, numbers, how, title=title, seed=None)


if __name__ == "__main__":
    main()
