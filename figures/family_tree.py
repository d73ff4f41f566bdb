"""Who lands on π*: the exact solutions of CoPG's family on 50 random off-policy problems.

Two to six arms; rewards from an exponential distribution on scales from 0.3 to 1.5, β = 0.5; a
reference and a behavior μ of unequal probabilities; independent pairs from μ, and Bradley–Terry
preferences unless it says deterministic. A dot is a problem: KL(solution ‖ π*), exact; the bar is
the median. What is below 1e-12 is drawn there. At the right: on how many problems a method has no
solution, or none that could be found (asked for ten problems only: it takes long to say so).

REBEL's rounds are ten, with η = 0.9/β; "penalty in r" subtracts β ln(π_t/π_ref) from the rewards of
a round. A*-PO's estimated V* comes from 8 samples of the reference. Asymmetric baselines lie 0.1
below or above the mean; "group of 2" compares completions with the mean reward of their own pair.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from _save import options, save
from matplotlib.figure import Figure

import bandit
from bandit import Bandit, analysis, losses, plots, preferences, presets
from bandit._checks import Array
from bandit.problem import kl_divergence
from bandit.related import family

SEED, FLOOR, ON_OPTIMUM = 0, 1e-17, 1e-9
DRAWN_FLOOR = 1e-12
ARMS = (2, 3, 4, 5, 6)
above = functools.partial(losses.asymmetric_reinforce, shift=0.1)
# Not in the catalog under these names: label and method.
VARIANTS = {
    "asymmetric_below": ("asymmetric REINFORCE, below", presets.method("asymmetric_reinforce")),
    "asymmetric_above": (
        "asymmetric REINFORCE, above",
        presets.Method("", above, "behavior"),
    ),
    "pmd_mean_pairs": ("mirror descent, group of 2", presets.Method("", losses.pmd_mean)),
}
LABELS = {
    "rebel_penalty": "REBEL, 10 rounds, penalty in r",
    "rebel_rounds": "REBEL, 10 rounds",
    "optimal_advantage_8": "A*-PO, estimated V*",
    "dpo_deterministic": "DPO, deterministic preferences",
}
# From the top: those that land on π*, elsewhere, and nowhere.
ORDER = (
    *("copg", "rloo", "log_variance", "rebel", "rebel_penalty", "value_regression"),
    *("trajectory_balance", "optimal_advantage", "policy_gradient_behavior"),
    *("importance_sampling", "dpo", "optimal_advantage_8", "asymmetric_below"),
    *("asymmetric_above", "pmd_mean", "pmd_mean_pairs", "reward_weighted", "ipo", "grpo"),
    *("policy_gradient", "rebel_rounds", "dpo_deterministic"),
)

# That there is no solution takes the solver long to say: so many problems must do.
FEWER = {"dpo_deterministic": 10}


class Block(NamedTuple):
    """Problems with the same number of arms, solved together as contexts that share nothing."""

    problem: Bandit
    mu: Array
    rng: np.random.Generator


def blocks(count: int) -> list[Block]:
    """Random problems, ``count`` in all."""
    made = []
    for arms, rng in zip(ARMS, np.random.default_rng(SEED).spawn(len(ARMS)), strict=True):
        shape = (count // len(ARMS), arms)
        scale = 0.3 * 5.0 ** rng.uniform(0, 1, size=(shape[0], 1))
        reward = scale * (rng.exponential(size=shape) - 0.5)
        reference, mu = (
            0.9 * rng.dirichlet(np.ones(arms), size=shape[0]) + 0.1 / arms for _ in range(2)
        )
        made.append(Block(Bandit(reward, 0.5, reference), mu, rng))
    return made


def landings_of(name: str, block: Block) -> Array:
    """How far from π* a method ends on each problem of a block, in nats; NaN if nowhere."""
    problem, mu, rng = block
    if name in ("rebel_rounds", "rebel_penalty"):
        path = family.mirror_descent(
            problem,
            losses.rebel,
            eta=0.9 / problem.beta,
            rounds=10,
            pairs=bandit.pairs.independent(mu),
            regularized=name == "rebel_penalty",
        )
        return kl_divergence(path[-1], problem.log_optimal_policy())
    if name == "optimal_advantage_8":
        values, probability = family.value_estimates(problem, 8)
        drawn = [rng.choice(v, p=p / p.sum()) for v, p in zip(values, probability, strict=True)]
        return landings(problem, losses.value_regression, mu, {"baseline": np.array(drawn)})
    strict = name.endswith("_deterministic")
    known = name.removesuffix("_deterministic")
    method = VARIANTS[name][1] if name in VARIANTS else presets.method(known)
    data: dict[str, Any] = {"baseline": method.baseline}
    if "preference" in losses.traits(method.loss).requires:
        judge = preferences.deterministic if strict else preferences.bradley_terry
        data = {"preference": judge(problem.reward)}
    return landings(problem, method.loss, mu, data)


def landings(problem: Bandit, loss: losses.Loss, mu: Array, data: dict[str, Any]) -> Array:
    """KL(solution ‖ π*) in every context; one by one where not all have a solution."""
    with warnings.catch_warnings():
        # What the warning would say, the picture does.
        warnings.simplefilter("ignore", analysis.NotIdentifiedWarning)
        goal = analysis.solve(problem, loss, bandit.pairs.independent(mu), **data)
    if goal.converged:
        return kl_divergence(goal.logits, problem.log_optimal_policy())
    if problem.n_contexts == 1:
        return np.full(1, np.nan)
    alone = []
    for x in range(len(mu)):
        one = slice(x, x + 1)
        own = {k: v[one] if isinstance(v, np.ndarray) else v for k, v in data.items()}
        here = Bandit(problem.reward[one], problem.beta, problem.reference[one])
        alone.append(landings(here, loss, mu[one], own))
    return np.concatenate(alone)


def table(count: int) -> pd.DataFrame:
    """A row for every method and problem."""
    parts = []
    for name in ORDER:
        shown = min(count, FEWER.get(name, count))
        kl = np.concatenate([landings_of(name, block) for block in blocks(shown)])
        arms = np.repeat(ARMS, shown // len(ARMS))
        # Rounding differs by machine: below this it is all the same.
        kl = np.where(kl < FLOOR, FLOOR, kl)
        parts.append(
            pd.DataFrame(
                {"method": name, "problem": np.arange(shown), "arms": arms, "kl_to_optimal": kl}
            )
        )
    return pd.concat(parts)


def label_of(name: str) -> str:
    """What is written at a method's line."""
    if name in LABELS:
        return LABELS[name]
    return VARIANTS[name][0] if name in VARIANTS else presets.method(name).label


def draw(numbers: pd.DataFrame) -> Figure:
    """A line for each method."""
    figure = Figure(figsize=(8.2, 6.2))
    ax = figure.subplots()
    spread = np.random.default_rng(SEED).uniform(-0.28, 0.28, size=len(numbers))
    ax.axvspan(1e-13, 3e-12, color="#F2F2F2", zorder=0)
    for i, (_, part) in enumerate(numbers.groupby("method", sort=False)):
        kl = part.kl_to_optimal.to_numpy()
        own = kl[~np.isnan(kl)]
        lands = len(own) and own.max() < ON_OPTIMUM
        color = "#0072B2" if lands else "#D55E00"
        ax.scatter(
            kl.clip(DRAWN_FLOOR), spread[: len(kl)] - i, s=9, color=color, alpha=0.55, linewidths=0
        )
        if len(own):
            ax.vlines(max(np.median(own), DRAWN_FLOOR), -i - 0.4, -i + 0.4, color=color, lw=2)
        if len(own) < len(kl):
            ax.text(
                1.01,
                -i,
                f"none: {len(kl) - len(own)} of {len(kl)}",
                transform=ax.get_yaxis_transform(),
                fontsize="small",
                va="center",
            )
    names = list(numbers.method.unique())
    ax.set_yticks(-np.arange(len(names)), [label_of(name) for name in names])
    ax.set(xscale="log", xlim=(3e-13, 30), ylim=(0.7 - len(names), 0.7))
    ax.set(xlabel=r"KL(solution‖$\pi^*$)  [nats]")
    ax.set_title(
        "Eleven ways to the optimal policy (blue), and cousins that end elsewhere", loc="right"
    )
    ticks = {1e-12: "below\n$10^{-12}$"} | {10.0**k: f"$10^{{{k}}}$" for k in (-9, -6, -3, 0)}
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.minorticks_off()
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    numbers = table(5 if how.quick else 50)
    with plots.style():
        figure = draw(numbers)
    save(figure, numbers, how, title="Exact solutions of CoPG's family off-policy", seed=SEED)


if __name__ == "__main__":
    main()
