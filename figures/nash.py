"""Nash-MD finds the equilibrium of a preference cycle, faster than its bound.

Three arms in a cycle: arm 1 beats arm 2 nine times in ten, arm 2 beats arm 3 seven, arm 3 beats
arm 1 eight; reference (0.2, 0.3, 0.5). Left: KL from the regularized equilibrium to Nash-MD's
iterate (solid), and the bound 8/(τ²(T + 1)) (dotted), for three strengths τ. Right, τ = 0.05: the
arrows are the natural gradient of P(π ≻ π_t) − τ KL(π‖π_ref) at π = π_t, the line Nash-MD's path
from the reference, the star the equilibrium; beside it the exact solutions of IPO and DPO at
β = 0.05, from independent pairs of the reference. Exact: nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from _exact import solution
from _save import options, save
from matplotlib.figure import Figure

from bandit import Bandit, flow, pairs, plots, presets
from bandit.related import nash

CYCLE = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
REFERENCE = np.array([0.2, 0.3, 0.5])
STRENGTHS = {0.5: "#009E73", 0.1: "#0072B2", 0.02: "#CC79A7"}
SHOWN = 0.05


def convergence(steps: int) -> pd.DataFrame:
    """KL(π*‖π_t) and the bound, at about evenly spaced logarithms of t."""
    rows = []
    for tau in STRENGTHS:
        history = nash.nash_md(CYCLE, REFERENCE, tau, steps=steps, record_every=1)
        kl = history.kl_from(nash.equilibrium(CYCLE, REFERENCE, tau))
        at = np.unique(np.geomspace(1, steps, 120).astype(int))
        rows.append(
            pd.DataFrame({"kind": "kl", "tau": tau, "step": at, "kl": kl[at]}).assign(
                bound=history.bound()[at]
            )
        )
    return pd.concat(rows)


def places(steps: int, resolution: int) -> pd.DataFrame:
    """Points of the simplex: the path, the solutions, and the field with its velocity."""
    path = nash.nash_md(CYCLE, REFERENCE, SHOWN, steps=steps, record_every=1).policies
    problem = Bandit(np.zeros(3), SHOWN, REFERENCE)
    ends = {
        "equilibrium": nash.equilibrium(CYCLE, REFERENCE, SHOWN).policy,
        "ipo": solution(problem, "ipo", pairs.independent(REFERENCE), CYCLE).policy,
        "dpo": solution(problem, "dpo", pairs.independent(REFERENCE), CYCLE).policy,
    }
    grid = flow.simplex_grid(resolution)
    gain = grid @ CYCLE.T - SHOWN * np.log(grid / REFERENCE)
    velocity = grid * (gain - (grid * gain).sum(axis=-1, keepdims=True))
    parts = [
        pd.DataFrame(path, columns=ARMS).assign(kind="path", step=np.arange(len(path))),
        pd.DataFrame(list(ends.values()), columns=ARMS).assign(kind=list(ends)),
        pd.DataFrame(np.hstack([grid, velocity]), columns=ARMS + DOTS).assign(kind="field"),
    ]
    table = pd.concat(parts).assign(tau=SHOWN)
    shown = table.kind.isin(ends)
    table.loc[shown, "exploitability"] = nash.exploitability(table.loc[shown, ARMS], CYCLE)
    return table


ARMS, DOTS = ([f"{word}_{k}" for k in (1, 2, 3)] for word in ("arm", "dot"))


def draw(numbers: pd.DataFrame) -> Figure:
    """Curves on the left, the simplex on the right."""
    figure = Figure(figsize=(8.6, 3.9))
    left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
    for tau, part in numbers[numbers.kind == "kl"].groupby("tau"):
        left.plot(part.step, part.kl, color=STRENGTHS[tau], label=rf"$\tau$ = {tau:g}")
        left.plot(part.step, part.bound, color=STRENGTHS[tau], ls=":")
    left.plot([], [], color="#444444", ls=":", label=r"bound $8/\tau^2(T+1)$")
    left.set(xscale="log", yscale="log", title="Far below the bound, at every step")
    left.set(xlabel="step $T$", ylabel=r"KL($\pi^*_\tau$‖$\pi_T$)  [nats]")
    left.legend(loc="lower left")
    by_kind = dict(iter(numbers.groupby("kind")))
    field = by_kind["field"]
    plots.simplex_flow(
        field[ARMS].to_numpy(),
        field[DOTS].to_numpy(),
        paths=by_kind["path"][ARMS].to_numpy(),
        problem=None,
        ax=right,
    )
    path = right.lines[-1]
    path.set_color("#0072B2")
    path.set_label("Nash-MD")
    marks = {
        "equilibrium": ("*", "white", "equilibrium", 210),
        "ipo": (plots.look("ipo").marker, plots.color("ipo"), presets.method("ipo").label, 50),
        "dpo": (plots.look("dpo").marker, plots.color("dpo"), presets.method("dpo").label, 50),
    }
    for name, (marker, face, label, size) in marks.items():
        at = plots.simplex_xy(by_kind[name][ARMS].to_numpy())
        right.scatter(
            *at.T, s=size, marker=marker, c=face, edgecolors="black", lw=0.8, zorder=6, label=label
        )
    right.set_title(rf"IPO and DPO end elsewhere, $\tau$ = $\beta$ = {SHOWN:g}")
    right.legend(loc="upper left", bbox_to_anchor=(-0.12, 1.0))
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    numbers = pd.concat(
        [convergence(200 if how.quick else 10_000), places(100, 8 if how.quick else 14)]
    )
    with plots.style():
        figure = draw(numbers)
    save(figure, numbers, how, title="Nash-MD on a preference cycle", seed=None)


if __name__ == "__main__":
    main()
