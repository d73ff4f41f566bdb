"""What learning from distant data costs: the rate of convergence, or the variance.

Our three-armed bandit, with a behavior under which the best arm becomes rare: μ = (ε, (1−ε)/2,
(1−ε)/2), in independent pairs, Bradley–Terry preferences for DPO. All methods shown have π* as
their exact solution for every ε > 0.

Left: |λ| of the slowest eigenvalue of the Jacobian of the update at π*: how fast the last of the
error goes, per unit of step size. Middle: the same without units, as gradient steps to halve that
error with the step size 1/|λ_fastest|: ln 2 · λ_fastest/λ_slowest. Right: the variance of the
gradient of one pair at π_ref (trace of its covariance; DPO sees preference probabilities here,
sampled labels would add their own).

Contrasts keep the variance and pay with steps; importance weights keep the steps and pay with
variance, also at π*, where the variance of the others is exactly 0. The value baseline seems to pay
nothing, but it has to be told E_π[R], which data from μ alone do not give.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from _exact import data, solution
from _save import options, save
from matplotlib.figure import Figure

import bandit
from bandit import analysis, plots, presets

METHODS = (
    "copg",
    "policy_gradient_behavior",
    "policy_gradient_value",
    "dpo",
    "importance_sampling",
)


def sweep(points: int) -> pd.DataFrame:
    """Rates, steps and variances of every method at every ε, a row each."""
    problem = presets.three_armed_bandit()
    rows = []
    for share in np.geomspace(1 / 3, 1e-6, points):
        rest = (1 - share) / 2
        pairs = bandit.pairs.independent([share, rest, rest])
        for name in METHODS:
            loss, own = presets.method(name).loss, data(problem, name)
            goal = solution(problem, name, pairs)
            rates = np.abs(goal.eigenvalues[1:])
            variance = [
                float(analysis.gradient_variance(problem, loss, logits, pairs, **own))
                for logits in (problem.log_reference, goal.logits)
            ]
            rows.append(
                {
                    "method": name,
                    "min_mu": share,
                    "slowest_rate": rates.min(),
                    "fastest_rate": rates.max(),
                    "steps_to_halve": np.log(2) * rates.max() / rates.min(),
                    "variance_at_reference": variance[0],
                    "variance_at_solution": variance[1],
                    "kl_to_optimal": goal.kl_to_optimal,
                }
            )
    return pd.DataFrame(rows)


def draw(numbers: pd.DataFrame) -> Figure:
    """Rate, steps, variance, side by side."""
    figure = Figure(figsize=(8.6, 3.5))
    panels = figure.subplots(1, 3)
    columns = ["slowest_rate", "steps_to_halve", "variance_at_reference"]
    for ax, column in zip(panels, columns, strict=True):
        for name, part in numbers.groupby("method", sort=False):
            own = plots.look(name)
            ax.plot(
                part.min_mu,
                part[column],
                color=own.color,
                linestyle=own.linestyle,
                marker=own.marker,
                markevery=max(1, len(part) // 6),
                label=presets.method(name).label,
            )
        ax.set(xscale="log", yscale="log", xlabel=r"$\mu$(best arm) = min $\mu$")
        ax.set_xlim(0.5, 0.6e-6)
        ax.set_xticks([1e-1, 1e-3, 1e-5])
    weights = numbers[numbers.method == "importance_sampling"]
    own = plots.look("importance_sampling")
    panels[2].plot(weights.min_mu, weights.variance_at_solution, color=own.color, lw=0.9, ls=":")
    panels[2].text(2.5e-1, 3e4, "thin dots: at $\\pi^*$,\nwhere the others\nhave exactly 0", **NOTE)
    told = "exact baseline $E_\\pi[R]$ given:\nnot known from $\\mu$'s data"
    panels[1].text(1e-6, 9, told, ha="right", **NOTE)
    panels[0].set(title="Slowest rate", ylabel=r"$|\lambda_\mathrm{slowest}|$  [1/step size]")
    panels[1].set(title="Steps to halve the error")
    panels[1].set_ylabel(r"steps of $1/|\lambda_\mathrm{fastest}|$")
    panels[2].set(title="Variance of one pair", ylabel=r"at $\pi_\mathrm{ref}$  [reward²]")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    return figure


NOTE = {"fontsize": "small", "color": "#444444", "linespacing": 1.3}


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    numbers = sweep(4 if how.quick else 25)
    with plots.style():
        figure = draw(numbers)
    save(figure, numbers, how, title="What distant data cost: rate or variance", seed=None)


if __name__ == "__main__":
    main()
