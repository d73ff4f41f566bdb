"""A transformer that finds the optimal policy: KL(π‖π*) against steps, with nothing sampled.

A transformer of two layers (width 32, 28,000 parameters) writes three tokens out of six; its 216
outputs are the arms of a bandit with normal rewards, β = 0.5. Every method starts from the
reference and takes full-batch Adam steps (rate 0.004) on the expectation over *all* pairs of
outputs, written by nobody in particular (left) or by the reference (right). Methods on preferences
are given exact Bradley–Terry probabilities of the same rewards. Dotted: KL(π‖π*) of the method's
exact solution over all policies, where that is not π*. The bumps far below are Adam's, whose steps
lose their direction where gradients all but vanish; training happens in single precision.

Needs torch (extra ``llm``).
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from _exact import solution
from _save import options, save
from _tiny import SEED, Run, behaviors, draw_curve, problem, reference, trained
from matplotlib.figure import Figure

from bandit import pairs, plots, presets

METHODS = ("copg", "policy_gradient_behavior", "dpo", "policy_gradient", "ipo")
TITLES = {"uniform": r"data: uniform $\mu$", "reference": r"data: $\mu = \pi_\mathrm{ref}$"}


def limits() -> pd.DataFrame:
    """KL(π‖π*) of every method's exact solution, a row for each method and behavior."""
    base = problem(reference())
    rows = [
        (name, mu, float(solution(base, name, pairs.independent(behaviors(base)[mu])).regret))
        for name in METHODS
        for mu in TITLES
    ]
    table = pd.DataFrame(rows, columns=["method", "behavior", "exact"])
    return table.assign(exact=table.exact / base.beta)


def draw(numbers: pd.DataFrame) -> Figure:
    """A panel for each behavior."""
    figure = Figure(figsize=(7.8, 3.7))
    for ax, (mu, title) in zip(
        figure.subplots(1, 2, sharex=True, sharey=True), TITLES.items(), strict=True
    ):
        for name in METHODS:
            part = numbers[(numbers.behavior == mu) & (numbers.method == name)]
            draw_curve(ax, part, name)
            if part.exact.iloc[0] > 1e-9:
                ax.axhline(part.exact.iloc[0], color=plots.color(name), ls=(0, (1, 1.5)), lw=1)
        ax.set(yscale="log", xlabel="gradient step", title=title)
        ax.margins(x=0)
    figure.axes[0].set(ylabel=r"KL($\pi$‖$\pi^*$)  [nats]")
    handles = {line.get_label(): line for line in figure.axes[0].lines}
    labels = [presets.method(name).label for name in METHODS]
    figure.legend([handles[n] for n in labels], labels, loc="outside lower center", ncols=5)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    steps, every = (20, 5) if how.quick else (300, 10)
    numbers = trained([Run(name, mu) for mu in TITLES for name in METHODS], steps, every)
    numbers = numbers.merge(limits(), on=["method", "behavior"])
    with plots.style():
        figure = draw(numbers)
    save(figure, numbers, how, title="KL to the optimum of a transformer", seed=SEED)


if __name__ == "__main__":
    main()
