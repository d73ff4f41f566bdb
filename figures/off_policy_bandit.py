"""Learning from data that favor the worst arm: which methods still find π*.

Our three-armed bandit; pairs drawn independently from the behavior (0.1, 0.2, 0.7), a fresh batch
of 128 at every step; labels for IPO and DPO are drawn by Bradley–Terry preferences. 100 runs a
method: median and middle half of the regret. Dashed: the regret of the exact solution, where that
is not π*.

All methods are trained alike, with Adam at step size 0.003 from the reference: the length of Adam's
steps does not depend on the scale of a loss, so that no method has to be tuned. The gradient noise
of CoPG and of the policy gradients with a baseline vanishes at π*, where all advantages are zero,
and their regret falls to rounding; importance weights and sampled labels stay noisy at π*, and
these methods hover above it, at a height that falls with the step size.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from _exact import data, solution
from _save import options, save
from matplotlib.figure import Figure

import bandit
from bandit import plots, presets

METHODS = (
    "copg",
    "policy_gradient_behavior",
    "policy_gradient_value",
    "importance_sampling",
    "dpo",
    "ipo",
    "policy_gradient",
)
SEED = 0
STEP_SIZE = 0.003
BATCH = 128
FLOOR = 1e-8


def trained(name: str, *, runs: int, steps: int) -> plots.Band:
    """Quartiles of the regret of a method over its runs."""
    problem, mu = presets.three_armed_bandit(), presets.three_armed_behavior()
    history = bandit.train(
        problem,
        presets.method(name).loss,
        pairs=bandit.pairs.independent(mu),
        batch_size=BATCH,
        steps=steps,
        optimizer=bandit.Adam(STEP_SIZE),
        runs=runs,
        rng=SEED,
        record_every=steps // 150,
        **data(problem, name),
    )
    return plots.band(history.steps, history.regret())


def limits() -> dict[str, float]:
    """Regret of every method's exact solution."""
    problem, mu = presets.three_armed_bandit(), presets.three_armed_behavior()
    pairs = bandit.pairs.independent(mu)
    return {name: solution(problem, name, pairs).regret for name in METHODS}


def draw(bands: dict[str, plots.Band], exact: dict[str, float]) -> Figure:
    """The curves, with a legend that says where each method is going."""
    figure = Figure(figsize=(7.8, 4.3))
    ax = figure.subplots()
    plots.regret_curves(bands, exact=exact, ax=ax)
    ax.set(ylim=(FLOOR, 1.5), title="Regret when the data favor the worst arm")
    lines = dict(zip(bands, ax.lines, strict=False))
    right = [name for name in bands if exact[name] < 1e-12]
    wrong = [name for name in bands if exact[name] >= 1e-12]
    upper = ax.legend(
        handles=[lines[name] for name in wrong],
        title="ends elsewhere",
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        alignment="left",
    )
    ax.legend(
        handles=[lines[name] for name in right],
        title=r"ends at $\pi^*$ (regret 0)",
        loc="upper left",
        bbox_to_anchor=(1.01, 0.76),
        alignment="left",
    )
    ax.add_artist(upper)
    for name in wrong:
        ax.text(
            0.995,
            exact[name] * 1.06,
            f"exact {exact[name]:.4f}",
            transform=ax.get_yaxis_transform(),
            ha="right",
            va="bottom",
            fontsize="small",
            color=plots.color(name),
        )
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    scale = {"runs": 5, "steps": 300} if how.quick else {"runs": 100, "steps": 3000}
    bands, exact = {name: trained(name, **scale) for name in METHODS}, limits()
    numbers = pd.concat(
        pd.DataFrame(curve._asdict()).assign(method=name, exact_regret=exact[name])
        for name, curve in bands.items()
    )
    with plots.style():
        figure = draw(bands, exact)
    save(figure, numbers, how, title="Regret of sampled training, off-policy", seed=SEED)


if __name__ == "__main__":
    main()
