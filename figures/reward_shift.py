"""The same data, all rewards moved by the same amount: who notices?

The transformer with 216 listed outputs of ``llm_exact``, data from the reference, β = 0.5; the
rewards have mean 0 under the reference, then 2 is added to all of them, or taken away. A constant
changes neither the optimal policy nor which outputs are better. CoPG contrasts completions, so that
the constant cancels and its three curves are one. Policy gradient without a baseline takes the
constant for praise or blame of whatever is in the data, and ends elsewhere each time; its good
result at 0 is luck in the choice of zero. With the mean regularized reward of the data for a
baseline it is CoPG again, up to the length of the gradient.

Exact full-batch Adam steps (learning rate 0.004). Needs torch (extra ``llm``).
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from _save import options, save
from _tiny import SEED, Run, draw_curve, trained
from matplotlib.figure import Figure

from bandit import plots, presets

METHODS = ("copg", "policy_gradient_behavior", "policy_gradient")
SHIFTS = {2.0: (0, (5, 2)), 0.0: "-", -2.0: (0, (1, 1.4))}


def draw(numbers: pd.DataFrame) -> Figure:
    """A panel for each method, a line for each shift."""
    figure = Figure(figsize=(8.2, 3.4))
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    for ax, name in zip(panels, METHODS, strict=True):
        for width, (shift, dash) in zip((4.2, 2.6, 1.4), SHIFTS.items(), strict=True):
            part = numbers[(numbers["shift"] == shift) & (numbers.method == name)]
            alone = name == "policy_gradient"
            # Where the three lines are one, each is seen through the next.
            look = {"lw": 1.8} if alone else {"lw": width, "alpha": (0.3, 0.6, 1)[len(ax.lines)]}
            draw_curve(ax, part, name, linestyle=dash if alone else "-", **look)
            if alone:
                end = part.iloc[-1]
                ax.annotate(
                    {2.0: "+2", 0.0: "0", -2.0: "−2"}[shift],
                    (end.step, end.kl),
                    (-3, 4),
                    textcoords="offset points",
                    ha="right",
                    fontsize="small",
                )
        if name != "policy_gradient":
            ax.text(0.96, 0.9, "+2, 0, −2: one curve", transform=ax.transAxes, ha="right")
        ax.set(yscale="log", xlabel="gradient step", title=presets.method(name).label)
        ax.margins(x=0)
    panels[0].set(ylabel=r"KL($\pi$‖$\pi^*$)  [nats]")
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    steps, every = (20, 5) if how.quick else (300, 10)
    numbers = trained([Run(n, "reference", s) for n in METHODS for s in SHIFTS], steps, every)
    with plots.style():
        figure = draw(numbers)
    save(figure, numbers, how, title="Rewards shifted by a constant", seed=SEED)


if __name__ == "__main__":
    main()
