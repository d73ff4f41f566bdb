"""A tournament with a cycle: what Bradley–Terry, DPO, IPO and the equilibrium pick.

Six rock-paper-scissors programs, 300 matches a pair (bandit.data.rock_paper_scissors); a tie is
half a win. Left: how often the row beats the column. Middle: policies over the programs, reference
uniform. The reward of a Bradley–Terry model is greatest for halbot. The equilibrium is the one at
τ = 0.01; DPO and IPO have the β at which they are as far from the reference as it is. Right: how
often the best answer to a policy wins, against KL(π‖π_ref), over β or τ. DPO's solution *is* the
optimal policy for the Bradley–Terry reward. Exact: nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from _exact import solution
from _save import options, save
from matplotlib.figure import Figure
from scipy.optimize import brentq

from bandit import Bandit, data, pairs, plots
from bandit.plots import look
from bandit.related import nash

TAU = 0.01
NASH = "Nash equilibrium"
BEST = "Bradley–Terry's best"


def policy_of(matches: data.Matches, method: str, strength: float) -> np.ndarray:
    """The method's exact solution at β or τ = ``strength``."""
    count = len(matches.names)
    uniform = np.full(count, 1 / count)
    if method == NASH:
        return nash.equilibrium(matches.preference, uniform, strength).policy
    everyone = pairs.from_counts(matches.wins)
    problem = Bandit(np.zeros(count), strength)
    return solution(problem, method, everyone, matches.preference).policy


def as_far(matches: data.Matches, method: str, kl: float) -> float:
    """The β at which the method is ``kl`` nats from the reference."""
    gauge = Bandit(np.zeros(len(matches.names)), 1.0)

    def excess(log_beta: float) -> float:
        return float(gauge.kl(policy_of(matches, method, float(np.exp(log_beta))))) - kl

    return float(np.exp(brentq(excess, np.log(0.02), np.log(50.0), xtol=1e-13, rtol=1e-13)))


def numbers_of(matches: data.Matches, points: int) -> pd.DataFrame:
    """A row for every policy: its kind, method, strength, KL, exploitability and probabilities."""
    gauge, rows = Bandit(np.zeros(len(matches.names)), 1.0), []

    def add(kind: str, method: str, strength: float, policy: np.ndarray) -> None:
        rows.append(
            {
                "kind": kind,
                "method": method,
                "strength": strength,
                "kl": float(gauge.kl(policy)),
                "exploitability": float(nash.exploitability(policy, matches.preference)),
                **dict(zip(matches.names, policy, strict=True)),
            }
        )

    middle = policy_of(matches, NASH, TAU)
    # At β = 1 the solution's log-ratios are the rewards of the Bradley–Terry model.
    reward = np.log(policy_of(matches, "dpo", 1.0))
    add("picked", BEST, 0.0, np.eye(len(reward))[reward.argmax()])
    for method in ("dpo", "ipo"):
        beta = as_far(matches, method, float(gauge.kl(middle)))
        add("picked", method, beta, policy_of(matches, method, beta))
    add("picked", NASH, TAU, middle)
    for method, ends in (("dpo", (30, 0.12)), ("ipo", (5, 0.012)), (NASH, (5, 1e-4))):
        for strength in np.geomspace(*ends, points):
            add("curve", method, strength, policy_of(matches, method, float(strength)))
    return pd.DataFrame(rows)


def draw(matches: data.Matches, numbers: pd.DataFrame) -> Figure:
    """The matrix, the policies, and how they fare."""
    figure = Figure(figsize=(11.4, 3.9))
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1.25, 1.1])
    _matrix(left, matches)
    picked = numbers[numbers.kind == "picked"]
    plots.policy_bars(
        {row.method: picked.loc[i, list(matches.names)] for i, row in picked.iterrows()},
        arms=matches.names,
        ax=middle,
    )
    for bar in middle.containers[3]:
        bar.set_color(BLUE)
    middle.tick_params(axis="x", rotation=45)
    middle.set_title("Rewards favor halbot")
    middle.legend(loc="upper right")
    for method, part in numbers[numbers.kind == "curve"].groupby("method", sort=False):
        own = {"color": BLUE} if method == NASH else look(method)._asdict() | {"marker": None}
        label = method if method == NASH else method.upper()
        right.plot(part.kl, 0.5 + part.exploitability, label=label, **own)
    best = picked[picked.method == BEST]
    right.plot(best.kl, 0.5 + best.exploitability, "8", color="#444444", label=BEST, ls="none")
    right.axhline(0.5, color="#888888", lw=0.9, ls=":")
    right.set(title="All but one can be beaten", ylim=(0.48, 0.82))
    right.set(xlabel=r"KL($\pi$‖$\pi_\mathrm{ref}$)  [nats]", ylabel="wins of the best answer")
    right.legend(loc="lower right", bbox_to_anchor=(1, 0.06))
    return figure


def _matrix(ax: object, matches: data.Matches) -> None:
    ax.imshow(matches.preference, cmap="PuOr", vmin=0, vmax=1)
    for (i, j), p in np.ndenumerate(matches.preference):
        shade = "white" if abs(p - 0.5) > 0.35 else "black"
        ax.text(j, i, f"{p:.2f}", ha="center", va="center", fontsize="x-small", color=shade)
    places = np.arange(len(matches.names))
    ax.set_xticks(places, matches.names, rotation=60, ha="right", rotation_mode="anchor")
    ax.set_yticks(places, matches.names)
    ax.grid(visible=False)
    ax.set_title("Row beats column: a cycle of three")


BLUE = "#0072B2"


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    matches = data.rock_paper_scissors()
    numbers = numbers_of(matches, 5 if how.quick else 30)
    with plots.style():
        figure = draw(matches, numbers)
    save(figure, numbers, how, title="What each method picks from a cycle", seed=None)


if __name__ == "__main__":
    main()
