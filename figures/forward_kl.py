"""The forward KL penalty beside the usual one, and its data term beside plain DPO.

Left: the best policy of our three-armed bandit under the penalty β KL(π‖π_ref) (solid) and under
β KL(π_ref‖π) (dashed), over β: an arm with gap g loses its share like exp(−g/β) or like β/g.
Middle: deterministic preferences, pairs drawn from the behavior (0.1, 0.2, 0.7) (dotted). DPO with
the data term α has a solution on all arms; as α → 0 it goes where DPO alone is driven, to the best
arm only. Right: one preferred and one other arm were compared, and a third was not; the policy has
one feature, 1 and 0 for those and 2 for the third. DPO alone moves all mass to the arm nobody
compared, with labels that are always right (its infimum, 0) or right nine times in ten (line); the
data term keeps it on the data. Exact: nothing is sampled.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from _save import options, save
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bandit import Bandit, LogLinear, analysis, losses, pairs, plots, preferences, presets
from bandit.related import forward_kl

ARMS = ("#0072B2", "#D55E00", "#009E73")
OUTSIDE = {"label": 0.9, "features": [[1.0], [0.0], [2.0]], "beta": 0.5}


def optima(points: int) -> pd.DataFrame:
    """Probabilities of the three arms at both optima, a row for each β and penalty."""
    base, rows = presets.three_armed_bandit(), []
    for beta in np.geomspace(0.02, 20, points):
        problem = Bandit(base.reward, float(beta))
        for kind, policy in (
            ("reverse", problem.optimal_policy()),
            ("forward", forward_kl.optimal_policy(problem)),
        ):
            rows.append({"panel": "optima", "kind": kind, "x": beta, **_arms(policy)})
    return pd.DataFrame(rows)


def data_term(points: int) -> pd.DataFrame:
    """Solutions with the data term over α: three tabular arms, and one feature for three arms."""
    problem, rows = presets.three_armed_bandit(), []
    compared = pairs.independent(presets.three_armed_behavior())
    strict = preferences.deterministic(problem.reward)
    for alpha in np.geomspace(1e-3, 10, points):
        loss = functools.partial(losses.dpo_with_data_term, alpha=float(alpha))
        found = analysis.solve(problem, loss, compared, preference=strict)
        rows.append({"panel": "tabular", "kind": "1.0", "x": alpha, **_arms(found.policy)})
        for label in (1.0, OUTSIDE["label"]):
            found = _one_feature(loss, label)
            rows.append({"panel": "feature", "kind": str(label), "x": alpha, **_arms(found.policy)})
    plain = _one_feature(losses.dpo, OUTSIDE["label"])
    rows.append({"panel": "feature", "kind": "plain DPO", "x": 0.0, **_arms(plain.policy)})
    return pd.DataFrame(rows)


def _one_feature(loss: losses.Loss, label: float) -> analysis.Solution:
    """Where one comparison, arm 1 against arm 2, leads a policy with one feature."""
    problem = Bandit(np.zeros(3), OUTSIDE["beta"], reference=[0.45, 0.45, 0.1])
    compared = pairs.from_counts([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    judge = np.full((3, 3), 0.5)
    judge[0, 1], judge[1, 0] = label, 1 - label
    return analysis.solve(
        problem, loss, compared, preference=judge, policy=LogLinear(OUTSIDE["features"])
    )


def _arms(policy: np.ndarray) -> dict[str, float]:
    return {f"arm_{k + 1}": p for k, p in enumerate(policy)}


def draw(numbers: pd.DataFrame) -> Figure:
    """Three panels."""
    figure = Figure(figsize=(10.2, 3.7))
    left, middle, right = figure.subplots(1, 3)
    for kind, dash in (("reverse", "-"), ("forward", (0, (4, 1.5)))):
        part = numbers[(numbers.panel == "optima") & (numbers.kind == kind)]
        for k, shade in enumerate(ARMS):
            left.plot(part.x, part[f"arm_{k + 1}"], color=shade, ls=dash)
    left.set(xscale="log", yscale="log", ylim=(1e-5, 2), title="Forward KL keeps every arm")
    left.set(xlabel=r"$\beta$  [reward]", ylabel=r"probability $\pi$")
    handles = [Line2D([], [], color=c, label=f"arm {k + 1}") for k, c in enumerate(ARMS)]
    handles += [
        Line2D([], [], color="#444444", label=r"KL($\pi$‖$\pi_\mathrm{ref}$)"),
        Line2D([], [], color="#444444", ls=(0, (4, 1.5)), label=r"KL($\pi_\mathrm{ref}$‖$\pi$)"),
    ]
    left.legend(handles=handles, loc="lower right")
    part = numbers[numbers.panel == "tabular"]
    for k, (shade, share) in enumerate(zip(ARMS, presets.three_armed_behavior(), strict=True)):
        middle.plot(part.x, part[f"arm_{k + 1}"], color=shade, label=f"arm {k + 1}")
        middle.axhline(share, color=shade, ls=":", lw=1.1)
    middle.set(xscale="log", ylim=(0, 1), title="A solution, where DPO has none")
    middle.set(xlabel=r"weight $\alpha$ of the data term", ylabel=r"probability $\pi$")
    middle.annotate(r"dotted: $\mu$", (3, 0.71), fontsize="small", ha="center", va="bottom")
    for kind, shade in (("1.0", "#0072B2"), (str(OUTSIDE["label"]), "#CC79A7")):
        part = numbers[(numbers.panel == "feature") & (numbers.kind == kind)]
        words = "always" if kind == "1.0" else "9 times in 10"
        right.plot(part.x, part.arm_1 + part.arm_2, color=shade, label=f"arm 1 preferred {words}")
    plain = numbers[numbers.kind == "plain DPO"]
    right.axhline(
        (plain.arm_1 + plain.arm_2).item(),
        color="#CC79A7",
        ls="--",
        lw=1.1,
        label="DPO alone, 9 times in 10",
    )
    right.axhline(0, color="#0072B2", ls="--", lw=1.1, label="DPO alone, always (limit)")
    right.set(xscale="log", ylim=(-0.03, 1), title="Mass stays on the data")
    right.set(xlabel=r"weight $\alpha$ of the data term", ylabel="mass on the two compared arms")
    right.legend(loc="upper left")
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    points = 3 if how.quick else 25
    numbers = pd.concat([optima(2 * points), data_term(points)])
    with plots.style():
        figure = draw(numbers)
    save(figure, numbers, how, title="Forward KL and the data term", seed=None)


if __name__ == "__main__":
    main()
