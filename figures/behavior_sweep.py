"""How far each method's exact solution is from π* as the data move away from the optimal policy.

Our three-armed bandit. The behavior slides from π* (left: the data of a learner that has arrived,
so that every on-policy method is at home) towards the worst arm: μ = ε π* + (1 − ε) e_worst, down
to ε = 1e-6 (right), in independent pairs. Preferences are Bradley–Terry, or deterministic where it
says so. Above: methods whose solution is another than π*. Below: methods whose solution is π*
whatever the behavior, with the rounding that is left of it. A line stops where no solution was
found. Exact: nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from _exact import solution
from _save import options, save
from matplotlib.figure import Figure

import bandit
from bandit import plots, preferences, presets

UNBIASED = (
    "copg",
    "policy_gradient_behavior",
    "policy_gradient_value",
    "importance_sampling",
    "dpo",
)
BIASED = ("policy_gradient", "reward_weighted", "grpo", "ipo")
# The least drawn: below it a divergence is the rounding of float64 many times over.
FLOOR = 1e-33


def sweep(points: int) -> pd.DataFrame:
    """KL(solution ‖ π*) of every method at every behavior, a row each."""
    problem = presets.three_armed_bandit()
    optimum = problem.optimal_policy()
    worst = np.eye(3)[problem.reward.argmin()]
    strict = preferences.deterministic(problem.reward)
    rows = []
    for share in np.geomspace(1, 1e-6, points):
        behavior = share * optimum + (1 - share) * worst
        pairs = bandit.pairs.independent(behavior)
        cases = [(name, "bradley-terry", None) for name in UNBIASED + BIASED]
        for name, kind, preference in [*cases, ("ipo", "deterministic", strict)]:
            goal = solution(problem, name, pairs, preference)
            rows.append(
                {
                    "method": name,
                    "preferences": kind if name in ("ipo", "dpo") else "",
                    "share_of_optimum": share,
                    "min_mu": behavior.min(),
                    "kl_to_optimal": goal.kl_to_optimal,
                    "converged": goal.converged,
                }
            )
    return pd.DataFrame(rows)


def draw(numbers: pd.DataFrame) -> Figure:
    """Two panels on one horizontal axis."""
    figure = Figure(figsize=(6.8, 5.2))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1.7, 1])
    for (name, kind), part in numbers.groupby(["method", "preferences"], sort=False):
        own = plots.look(name)
        strict = kind == "deterministic"
        label = presets.method(name).label + (", deterministic preferences" if strict else "")
        (below if name in UNBIASED else above).plot(
            part.share_of_optimum,
            part.kl_to_optimal.clip(lower=FLOOR),
            color=own.color,
            linestyle=":" if strict else own.linestyle,
            marker=own.marker,
            markevery=max(1, len(part) // 10),
            label=label,
        )
    above.set(title="Methods that end elsewhere", ylabel=LABEL, ylim=(-0.1, None))
    below.set(title=r"Methods that end at $\pi^*$, whatever the behavior", ylabel=LABEL)
    below.set(
        yscale="log", xscale="log", ylim=(FLOOR / 10, 1), yticks=[1e-32, 1e-24, 1e-16, 1e-8, 1]
    )
    below.axhspan(FLOOR / 10, 1e-15, color="#F2F2F2", zorder=0)
    below.text(0.99, 1e-14, "below: rounding", transform=below.get_yaxis_transform(), **NOTE)
    below.set_xlabel(
        r"share $\epsilon$ of $\pi^*$ in the behavior "
        r"$\mu = \epsilon\,\pi^* + (1-\epsilon)\,e_\mathrm{worst}$"
    )
    below.set_xlim(1.15, 0.87e-6)
    for ax in (above, below):
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    ends = ENDS | {"transform": above.transAxes}
    above.text(0.02, 0.93, "data from the optimum", **ends)
    above.text(0.99, 0.5, "data almost only\nfrom the worst arm", ha="right", **ends)
    return figure


LABEL = r"KL(solution‖$\pi^*$)  [nats]"
NOTE = {"ha": "right", "va": "bottom", "fontsize": "small", "color": "#555555"}
ENDS = {"va": "top", "fontsize": "small", "color": "#555555", "style": "italic"}


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    numbers = sweep(4 if how.quick else 25)
    with plots.style():
        figure = draw(numbers)
    save(figure, numbers, how, title="Exact solutions as the behavior leaves π*", seed=None)


if __name__ == "__main__":
    main()
