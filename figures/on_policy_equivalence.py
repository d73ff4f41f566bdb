"""On-policy, the contrast is a policy gradient with a leave-one-out baseline, and what that saves.

Our three-armed bandit with reference (0.5, 0.3, 0.2), groups drawn from the policy itself: the one
halfway, in log-probabilities, between the reference and π*.

Left: the weight every method gives to every completion of 60 groups of four, against the weight of
CoPG: RLOO, and policy gradient with the leave-one-out baseline, agree sample by sample, on- and
off-policy alike. GRPO's weights, scaled by the group's spread, do not. Middle: the expected ascent
direction per completion: the gradient of E[r] − β KL(π‖π_ref) for all but GRPO. Right: completions
needed for as much noise as signal, (tr cov / G) / ‖mean / G‖² of one group's gradient; it has no
units, so that methods of different scale and groups of different size compare fairly. The
sample is random (seed 0); middle and right are exact.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from _save import options, save
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bandit import Bandit, analysis, losses, pairs, plots, presets

SEED = 0
NOTE = {"fontsize": "small", "color": "#444444"}
GROUP = 4
leave_one_out = functools.partial(losses.policy_gradient, baseline="leave_one_out")
WEIGHED = {"rloo": losses.rloo, "policy_gradient_leave_one_out": leave_one_out, "grpo": losses.grpo}
COMPARED = ("copg", "rloo", "policy_gradient_value", "policy_gradient", "grpo")


def problem_and_policy() -> tuple[Bandit, np.ndarray]:
    """The bandit, and the policy halfway between its reference and its optimum."""
    base = presets.three_armed_bandit()
    problem = Bandit(base.reward, base.beta, reference=[0.5, 0.3, 0.2])
    policy = np.sqrt(problem.reference * problem.optimal_policy())
    return problem, policy / policy.sum()


def sampled_weights(problem: Bandit, policy: np.ndarray, groups: int) -> pd.DataFrame:
    """Weight of every completion of some groups drawn from the policy, a row each."""
    arms = np.random.default_rng(SEED).choice(3, size=(groups, GROUP), p=policy)
    group = losses.Group(np.log(policy)[arms], problem.log_reference[arms], problem.reward[arms])
    table = {
        "copg": losses.copg(group, beta=problem.beta).weight.ravel(),
        **{n: f(group, beta=problem.beta).weight.ravel() for n, f in WEIGHED.items()},
    }
    where = {
        "group": np.repeat(np.arange(groups), GROUP),
        "arm": arms.ravel() + 1,
    }
    return pd.DataFrame(where | table)


def exact(problem: Bandit, policy: np.ndarray, sizes: Sequence[int]) -> pd.DataFrame:
    """Direction and noise of every method at every group size, a row each."""
    on_policy, logits, rows = pairs.independent(policy), np.log(policy), []
    for name in COMPARED:
        method = presets.method(name)
        for size in sizes:
            how = {"baseline": method.baseline, "group_size": size}
            mean = analysis.population(problem, method.loss, logits, on_policy, **how)[1]
            variance = analysis.gradient_variance(problem, method.loss, logits, on_policy, **how)
            signal = (mean / size) @ (mean / size)
            rows.append(
                {
                    "method": name,
                    "group_size": size,
                    **{f"ascent_{k + 1}": -mean[k] / size for k in range(3)},
                    "variance_per_completion": variance / size,
                    "completions_for_noise_as_signal": variance / size / signal,
                }
            )
    return pd.DataFrame(rows)


def draw_weights(ax: Axes, sample: pd.DataFrame) -> None:
    """Scatter of the weights against CoPG's."""
    reach = np.array([sample.copg.min(), sample.copg.max()]) * 1.1
    ax.plot(reach, reach, color="#BBBBBB", lw=4, zorder=1, solid_capstyle="round")
    marks = {
        "grpo": {"color": plots.color("grpo"), "marker": "P", "s": 22, "label": "GRPO"},
        "rloo": {"facecolors": "none", "edgecolors": plots.color("rloo"), "marker": "s", "s": 44},
        "policy_gradient_leave_one_out": {"color": plots.color("copg"), "marker": ".", "s": 26},
    }
    labels = {"rloo": "RLOO", "policy_gradient_leave_one_out": "PG, leave one out"}
    for name, mark in marks.items():
        ax.scatter(sample.copg, sample[name], **{"zorder": 3, "label": labels.get(name), **mark})
    largest = np.abs(sample[list(labels)].sub(sample.copg, axis=0)).to_numpy().max()
    ax.text(
        0.97,
        0.04,
        f"largest difference\nof RLOO and PG\nfrom CoPG: {largest:.1g}",
        transform=ax.transAxes,
        ha="right",
        fontsize="small",
    )
    ax.set(title="Weights, sample by sample", xlabel="weight by CoPG  [reward]", ylabel="weight")
    ax.legend(loc="upper left", handletextpad=0.2, borderaxespad=0)


def draw_directions(ax: Axes, table: pd.DataFrame) -> None:
    """Bars of the expected direction, groups of ``GROUP``."""
    part = table[table.group_size == GROUP]
    width = 0.8 / len(part)
    for i, row in enumerate(part.itertuples()):
        heights = [row.ascent_1, row.ascent_2, row.ascent_3]
        places = np.arange(3) - 0.4 + (i + 0.5) * width
        ax.bar(places, heights, 0.9 * width, color=plots.color(row.method))
    ax.axhline(0, color="#555555", lw=0.8)
    ax.set_xticks(range(3), ["arm 1", "arm 2", "arm 3"])
    ax.grid(visible=False, axis="x")
    ax.set(title="Expected direction", ylabel="ascent of the logits  [reward]")


def draw_noise(ax: Axes, table: pd.DataFrame) -> None:
    """Curves over the group size."""
    for name, part in table.groupby("method", sort=False):
        own = plots.look(name)
        ax.plot(
            part.group_size,
            part.completions_for_noise_as_signal,
            color=own.color,
            linestyle=own.linestyle,
            marker=own.marker,
            label=presets.method(name).label,
            # RLOO lies on CoPG: show both.
            **({"markerfacecolor": "none", "markersize": 8} if name == "rloo" else {}),
        )
    ax.set(
        title="Noise against group size",
        xlabel="group size G",
        ylabel="completions for noise = signal",
        yscale="log",
    )
    ax.text(4.2, 12, "GRPO: against the signal\nof its own objective", **NOTE)
    ax.set_xscale("log", base=2)
    ax.set_xticks([2, 4, 8, 16], ["2", "4", "8", "16"])


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    problem, policy = problem_and_policy()
    sample = sampled_weights(problem, policy, 12 if how.quick else 60)
    table = exact(problem, policy, (2, 4) if how.quick else (2, 3, 4, 5, 6, 8, 10, 12, 16))
    with plots.style():
        figure = Figure(figsize=(8.6, 3.5))
        left, middle, right = figure.subplots(1, 3)
        draw_weights(left, sample)
        draw_directions(middle, table)
        draw_noise(right, table)
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5)
    numbers = pd.concat([sample.assign(kind="sample"), table.assign(kind="exact")])
    save(figure, numbers, how, title="CoPG, RLOO and policy gradient on-policy", seed=SEED)


if __name__ == "__main__":
    main()
