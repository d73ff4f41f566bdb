"""PPO's clip around ln π instead of the ratio: what it changes in the update, and in training.

Above, exactly, over the ratio ρ = π/μ of a completion, with ε = 0.2 and its advantage A held at 1
or −1. Left: the weight on ∇ln π in the ascent direction. PPO's is the clipped objective's times ρ:
the clipped objective's is the smaller one wherever ρ has moved with its advantage (shaded), the
greater one elsewhere; both are switched off at the same ratios. Right: the objectives, less their
values at ρ = 1. They are not ordered: the clipped objective lies below PPO's for A > 0 and above it
for A < 0.

Below: exact gradient steps (step size 1) on 40 random bandits with ten arms and β = 0.05; the data
are the policy's of up to 20 steps ago. Means over the bandits. Clipped, the stale data do little
harm; unclipped, the policy commits itself to wrong arms. Between PPO and the clipped objective
there is next to no difference here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from _save import options, save
from matplotlib.figure import Figure
from scipy.special import entr

from bandit import SGD, Bandit, losses, plots, presets
from bandit.losses import Group
from bandit.related import family

SEED, EPSILON, REFRESH = 0, 0.2, 20
CLIPPED = ("ppo_clip", "clipped_objective")
# Two looks of this picture's own: the pair has to be told apart.
COLORS = {"ppo_clip": "#D55E00", "clipped_objective": "#0072B2"}
CURVES = {
    "policy_gradient": ("PG, fresh data", 1, "#009E73", "-"),
    "policy_gradient_stale": ("PG, stale data", REFRESH, "#000000", (0, (1, 1.4))),
    "ppo_clip": ("PPO clip, stale data", REFRESH, COLORS["ppo_clip"], "-"),
    "clipped_objective": (
        "clipped objective, stale data",
        REFRESH,
        COLORS["clipped_objective"],
        (0, (4, 3)),
    ),
}


def updates(points: int) -> pd.DataFrame:
    """Weight and objective of single completions: a row for each method, advantage and ratio."""
    ratio = np.linspace(0.5, 1.5, points)
    log_prob = np.log(0.3 * ratio)[:, None]
    rows = []
    for name in CLIPPED:
        for advantage in (1.0, -1.0):
            # Without log-ratio to the reference R is the reward, and that the advantage.
            group = Group(
                log_prob,
                log_prob,
                np.full_like(log_prob, advantage),
                behavior_log_prob=np.full_like(log_prob, np.log(0.3)),
            )
            score = losses.get(name)(group, beta=1.0, epsilon=EPSILON)
            at_one = {"ppo_clip": advantage, "clipped_objective": advantage * np.log(0.3)}[name]
            rows.append(
                pd.DataFrame(
                    {
                        "kind": "update",
                        "method": name,
                        "advantage": advantage,
                        "ratio": ratio,
                        "weight": -score.weight[:, 0],
                        "objective": -score.value - at_one,
                    }
                )
            )
    return pd.concat(rows)


def bandits(count: int) -> Bandit:
    """Random problems as contexts that share nothing."""
    rng = np.random.default_rng(SEED)
    reward, reference = rng.normal(size=(count, 10)), rng.dirichlet(np.full(10, 2.0), size=count)
    return Bandit(reward, 0.05, reference)


def courses(count: int, steps: int) -> pd.DataFrame:
    """Mean regret and entropy at every step: a row for each method and step."""
    problem, rows = bandits(count), []
    for name, (_, refresh, *_) in CURVES.items():
        loss = losses.get(name.removesuffix("_stale"))
        history = family.descend_on_stale_data(
            problem, loss, refresh=refresh, steps=steps, optimizer=SGD(1.0), baseline="value"
        )
        rows.append(
            pd.DataFrame(
                {
                    "kind": "training",
                    "method": name,
                    "step": history.steps,
                    "regret": history.regret()[:, 0],
                    "entropy": entr(history.policy()[:, 0]).sum(axis=-1).mean(axis=-1),
                }
            )
        )
    return pd.concat(rows)


def draw(numbers: pd.DataFrame) -> Figure:
    """Updates above, training below."""
    figure = Figure(figsize=(8.4, 6.4))
    (left, right), below = figure.subplots(2, 2)
    draw_updates(left, right, numbers[numbers.kind == "update"])
    for ax, column in zip(below, ("entropy", "regret"), strict=True):
        for name, (label, _, color, dash) in CURVES.items():
            part = numbers[numbers.method == name].dropna(subset=["step"])
            ax.plot(part.step, part[column], color=color, linestyle=dash, label=label, lw=1.6)
        ax.set(xlabel="gradient step")
        ax.margins(x=0)
    below[0].set(ylabel="mean entropy  [nats]", title="Clipping keeps the entropy...")
    below[1].set(ylabel="mean regret  [reward]", title="... until the good arms are known")
    below[1].set(yscale="log")
    below[0].legend(loc="upper right", fontsize="small")
    return figure


def draw_updates(left, right, numbers: pd.DataFrame) -> None:
    for (name, advantage), part in numbers.groupby(["method", "advantage"], sort=False):
        dash = "-" if name == "ppo_clip" else (0, (4, 2))
        look = {"color": COLORS[name], "linestyle": dash, "lw": 1.6}
        label = presets.method(name).label if advantage > 0 else None
        # A switch is a jump, not a slope.
        jump = np.abs(np.diff(part.weight, prepend=part.weight.iloc[0])) > 0.5
        left.plot(part.ratio, part.weight.mask(jump), label=label, **look)
        right.plot(part.ratio, part.objective, **look)
    for ax in (left, right):
        ax.set(xlabel=r"ratio $\rho = \pi/\mu$", xlim=(0.5, 1.5))
    left.axvspan(1.0, 1 + EPSILON, ymin=0.5, color="#EEEEEE", zorder=0)
    left.axvspan(1 - EPSILON, 1.0, ymax=0.5, color="#EEEEEE", zorder=0)
    left.set(ylim=(-1.7, 1.7), ylabel=r"weight on $\nabla\ln\pi$  [A]", title="The update: ρA or A")
    left.legend(loc="upper left", fontsize="small")
    right.set(ylabel=r"objective, less that at $\rho = 1$  [A]", title="Objectives: not ordered")
    for ax, up, down in ((left, (0.6, 0.75), (1.4, -0.8)), (right, (0.62, -0.28), (1.4, -0.28))):
        ax.text(*up, "A = 1", fontsize="small", ha="center")
        ax.text(*down, "A = −1", fontsize="small", ha="center")


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    count, steps = (4, 60) if how.quick else (40, 400)
    numbers = pd.concat([updates(201), courses(count, steps)])
    with plots.style():
        figure = draw(numbers)
    save(figure, numbers, how, title="PPO and the clipped objective", seed=SEED)


if __name__ == "__main__":
    main()
