"""Learning the reward again on policy: it amplifies what most outputs say, right or wrong.

Questions with right, wrong and absurd answers (bandit.related.reward_learning.example). Left: the
model likes length, and absurd answers are long. Expected reward of the optimal policy under the
learned reward, as the model sees it (dashed) and in truth (solid), against KL(π‖π_ref) as β goes
from 20 to 0.1: the more it is optimized, the worse. Blue: after one refit on outputs drawn at
β = 1. Middle and right: true expected reward before and after one refit, by the β at which outputs
were drawn (lines: medians, bands: least and greatest of the seeds). Middle: the same problem; at
small β the absurd answers are the majority, and are confirmed. Right: no answer is too long, but
four in five outputs of the reference are wrong, and the refit learns that from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from _save import options, save
from matplotlib.figure import Figure

from bandit import plots
from bandit.related import reward_learning as learning

CASES = {
    "popular": ({"right": 0.55, "length": 2.5}, "Helps, until absurd answers lead"),
    "unpopular": ({"right": 0.2, "length": 0.5}, "Hurts, where most are wrong"),
}
DRAWING = {
    "samples": 16,
    "sets": 20,
    "distance": 3.0,
    "confidence": 0.5,
    "share": 0.5,
    "ridge": 1e-3,
}
SEED, DRAWN_AT = 0, 1.0


def case(name: str, beta: float) -> learning.Example:
    return learning.example(beta=beta, rng=SEED, **CASES[name][0])


def curves(points: int) -> pd.DataFrame:
    """Over-optimization before and after one refit."""
    given = case("popular", DRAWN_AT)
    models = learning.relearn_on_policy(*given, **DRAWING, rng=SEED).models
    rows = []
    for when, model in zip(("before", "after"), models, strict=True):
        found = learning.over_optimization(given.problem, model, np.geomspace(20, 0.1, points))
        rows.append(pd.DataFrame(found._asdict()).assign(kind="curve", when=when))
    return pd.concat(rows).rename(columns={"betas": "beta"})


def before_and_after(betas: np.ndarray, seeds: int) -> pd.DataFrame:
    """True values of each case at each β, over draws of the synthetic comparisons."""
    rows = []
    for name in CASES:
        for beta in betas:
            given = case(name, float(beta))
            best = given.problem.expected_reward(given.problem.optimal_policy())
            for seed in range(seeds):
                course = learning.relearn_on_policy(*given, **DRAWING, rng=seed)
                rows.append(
                    {
                        "kind": name,
                        "beta": beta,
                        "seed": seed,
                        "before": course.true_value[0],
                        "after": course.true_value[1],
                        "best": best,
                        "kept": course.synthetic[0].kept / course.synthetic[0].asked,
                    }
                )
    return pd.DataFrame(rows)


def draw(numbers: pd.DataFrame) -> Figure:
    """Three panels."""
    figure = Figure(figsize=(10.8, 3.7))
    left, *others = figure.subplots(1, 3)
    for when, shade in SHADES.items():
        part = numbers[(numbers.kind == "curve") & (numbers.when == when)]
        left.plot(part.kl, part.true_value, color=shade, label=f"{when}, true")
        left.plot(part.kl, part.learned_value, color=shade, ls="--", label=f"{when}, learned")
    left.set(title="Optimized too far", ylim=(-1.15, 4.2))
    left.set(xlabel=r"KL($\pi$‖$\pi_\mathrm{ref}$)  [nats]", ylabel="expected reward")
    left.legend(loc="upper left")
    for ax, (name, (_, title)) in zip(others, CASES.items(), strict=True):
        by_beta = numbers[numbers.kind == name].groupby("beta")
        low, middle, high = (by_beta.after.quantile(q) for q in (0, 0.5, 1))
        ax.plot(middle.index, by_beta.best.first(), color="#888888", ls=":", label="true optimum")
        ax.plot(middle.index, by_beta.before.first(), color=SHADES["before"], label="before")
        ax.fill_between(middle.index, low, high, color=SHADES["after"], alpha=0.22, lw=0)
        ax.plot(middle.index, middle, color=SHADES["after"], label="after one refit")
        ax.set_xscale("log", base=2)
        ax.set_xticks([0.25, 0.5, 1, 2, 4], ["¼", "½", "1", "2", "4"])
        ax.set(title=title, xlabel=r"$\beta$  [reward]", ylabel="true expected reward")
        ax.legend(loc="lower right" if name == "popular" else "upper right")
    return figure


SHADES = {"before": "#D55E00", "after": "#0072B2"}


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    if how.quick:
        numbers = pd.concat([curves(8), before_and_after(np.array([0.25, 1.0]), 1)])
    else:
        betas = 2.0 ** np.arange(-2, 2.1, 0.5)
        numbers = pd.concat([curves(40), before_and_after(betas, 3)])
    with plots.style():
        figure = draw(numbers)
    save(figure, numbers, how, title="Reward learning on policy", seed=SEED)


if __name__ == "__main__":
    main()
