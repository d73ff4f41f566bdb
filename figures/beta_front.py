"""Reward against divergence: the best trade-off over β, and where each method lands for the same β.

Our three-armed bandit's rewards and reference, β from 8 to 1/16 (left to right along the front),
pairs drawn independently from the behavior (0.1, 0.2, 0.7), Bradley–Terry preferences. The front is
traced by π*_β: no policy with the same KL(π‖π_ref) has a greater expected reward. Markers: the
exact solution of a method at β = 8, 4, …, 1/16, ringed at β = 0.5. A method right for every β sits
on the front at the β asked for; one on the front elsewhere regularizes more or less than asked; one
below it gives reward away. Exact: nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from _exact import solution
from _save import options, save
from matplotlib.figure import Figure

from bandit import Bandit, pairs, plots, presets

METHODS = ("copg", "dpo", "policy_gradient", "ipo", "grpo", "reward_weighted")
MARKED = 0.5


def landings(betas: np.ndarray, methods: Sequence[str]) -> pd.DataFrame:
    """KL and reward of π* (method ``optimum``) and of every method's solution at every β."""
    base = presets.three_armed_bandit()
    data = pairs.independent(presets.three_armed_behavior())
    rows = []
    for beta in betas:
        problem = Bandit(base.reward, beta=beta, reference=base.reference)
        policies = {"optimum": problem.optimal_policy()}
        for name in methods:
            goal = solution(problem, name, data)
            policies[name] = goal.policy if goal.converged else np.full(3, np.nan)
        for name, policy in policies.items():
            known = np.isfinite(policy).all()
            rows.append(
                {
                    "method": name,
                    "beta": beta,
                    "kl": problem.kl(policy) if known else np.nan,
                    "reward": problem.expected_reward(policy) if known else np.nan,
                    "regret": problem.regret(policy) if known else np.nan,
                }
            )
    return pd.DataFrame(rows)


def draw(numbers: pd.DataFrame, per_octave: int) -> Figure:
    """The front with the methods' landings, markers at the powers of 2, rings at β = 0.5."""
    figure = Figure(figsize=(7.8, 4.3))
    ax = figure.subplots()
    by_method = dict(iter(numbers.groupby("method", sort=False)))
    optimum = by_method.pop("optimum")
    plots.reward_kl_front(
        (optimum.kl.to_numpy(), optimum.reward.to_numpy()),
        {n: (part.kl.to_numpy(), part.reward.to_numpy()) for n, part in by_method.items()},
        ax=ax,
    )
    for line in ax.lines:
        line.set_markevery(per_octave)
    ringed = numbers[numbers.beta == MARKED]
    ring = {"s": 110, "facecolors": "none", "edgecolors": "black", "linewidths": 1}
    ax.scatter(ringed.kl, ringed.reward, zorder=6, **ring)
    handles = [
        *ax.get_legend().legend_handles,
        ax.scatter([], [], label=rf"at $\beta$ = {MARKED:g}", **ring),
    ]
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5))
    ax.set_xscale("log")
    for beta, name in ((4, "4"), (1, "1"), (1 / 4, "¼"), (1 / 16, "1/16")):
        here = optimum[optimum.beta == beta]
        ax.annotate(
            rf"$\beta$ = {name}",
            (here.kl.item(), here.reward.item()),
            (-8, 6),
            textcoords="offset points",
            ha="right",
            fontsize="small",
        )
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    per = 2 if how.quick else 8
    numbers = pd.concat(
        [
            landings(2.0 ** np.arange(5, 3, -1 / per), ()),
            landings(2.0 ** np.arange(3, -4 - 1e-9, -1 / per), METHODS),
        ]
    )
    with plots.style():
        figure = draw(numbers, per)
    save(figure, numbers, how, title="Reward against divergence over β", seed=None)


if __name__ == "__main__":
    main()
