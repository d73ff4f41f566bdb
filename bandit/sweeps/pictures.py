"""Any column of a sweep's table against any other: :func:`bandit.plots.sweep`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from bandit.canvas import axes_for, band
from bandit.looks import LOOKS, Look, label_of, looks_of
from bandit.sweeps.cells import RESULTS

if TYPE_CHECKING:
    import pandas as pd

UNITS = {
    "regret": r"regret $J(\pi^*) - J(\pi)$  [reward]",
    "exact_regret": r"regret of the exact solution  [reward]",
    "kl_to_optimal": r"KL($\pi$‖$\pi^*$)  [nats]",
    "exact_kl_to_optimal": r"KL($\pi$‖$\pi^*$) of the exact solution  [nats]",
    "kl": r"KL($\pi$‖$\pi_\mathrm{ref}$)  [nats]",
    "expected_reward": "expected reward",
    "slowest_eigenvalue": "slowest eigenvalue  [1 / step size]",
    "variance_at_reference": r"gradient variance at $\pi_\mathrm{ref}$",
    "variance_at_solution": "gradient variance at the solution",
    "step": "gradient step",
    "beta": r"$\beta$  [reward]",
    "behavior": r"behavior $\mu$",
    "reward_noise": "noise of rewards  [reward]",
    "batch_size": "batch size  [groups]",
    "group_size": "group size  [arms]",
}
# From this ratio of greatest to least on, an axis of positive numbers is logarithmic.
WIDE = 20
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
MARKERS, DASHES = "osD^vXPh", ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (5, 1.5, 1, 1.5)))


def sweep(
    table: pd.DataFrame, *, x: str, y: str, hue: str | None = "method", ax: Axes | None = None
) -> Axes:
    """A result of a sweep against a setting: a curve for each value of ``hue``, with bands.

    Curves are medians over the runs, and bands their middle halves. Unless ``x`` is ``"step"``,
    only the last record of each run counts. An axis is logarithmic where its numbers are positive
    and span more than a factor of 20; results that are NaN are left out.

    Parameters
    ----------
    table : DataFrame
        As :func:`bandit.sweep` and :func:`bandit.sweeps.load` return it, or some of its rows.
    x, y : str
        Names of columns; ``y`` holds numbers.
    hue : str, optional
        Name of a column; None: one curve.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If a setting that is neither ``x`` nor ``hue`` has several values: a band would mix them.
    """
    shown = _rows(table, x, y, hue)
    curves = {None: shown} if hue is None else dict(iter(shown.groupby(hue, sort=False)))
    places = {value: place for place, value in enumerate(dict.fromkeys(shown[x]))}
    numeric = shown[x].dtype.kind in "if"
    with axes_for(ax) as axes:
        for (value, rows), own in zip(curves.items(), _looks(list(curves)), strict=True):
            values, spread = _band_of(rows, x, y)
            at = np.array([v if numeric else places[v] for v in values], dtype=np.float64)
            order = np.argsort(at, kind="stable")
            lower, median, upper = (np.array(part)[order] for part in spread)
            label = None if value is None else label_of(value)
            axes.fill_between(at[order], lower, upper, color=own.color, alpha=0.22, lw=0)
            axes.plot(
                at[order],
                median,
                color=own.color,
                linestyle=own.linestyle,
                marker=None if x == "step" else own.marker,
                label=label,
            )
        axes.set(xlabel=UNITS.get(x, x.replace("_", " ")), ylabel=UNITS.get(y, y.replace("_", " ")))
        axes.set(xscale=_scale(shown[x]), yscale=_scale(shown[y]))
        if not numeric:
            axes.set_xticks(range(len(places)), [str(value) for value in places])
        if hue is not None:
            title = None if hue == "method" else UNITS.get(hue, hue.replace("_", " "))
            axes.legend(title=title)
        return axes


def _rows(table: pd.DataFrame, x: str, y: str, hue: str | None) -> pd.DataFrame:
    """The rows to draw, or one line about what keeps them from being drawn."""
    for name, column in (("x", x), ("y", y), ("hue", hue)):
        if column is not None and column not in table.columns:
            known = ", ".join(map(str, table.columns))
            raise ValueError(f"{name}: expected one of {known}; got {column!r}")
    if table[y].dtype.kind not in "if":
        raise ValueError(f"y: expected a column of numbers, got {y!r}")
    for column in table.columns:
        if column in RESULTS or column in (x, hue) or table[column].nunique() <= 1:
            continue
        values = ", ".join(map(str, table[column].unique()[:4]))
        raise ValueError(
            f"table: expected one value of {column}, or {column!r} for x or hue, got {values}"
        )
    if "step" in table.columns and x != "step":
        inputs = [name for name in table.columns if name not in RESULTS]
        last = table.groupby(inputs, sort=False)["step"].transform("max")
        table = table[table["step"] == last]
    finite = table[np.isfinite(table[y])]
    if finite.empty:
        raise ValueError(f"table: expected finite numbers in {y!r}, got none")
    return finite


def _band_of(rows: pd.DataFrame, x: str, y: str) -> tuple[list[Any], tuple[Any, Any, Any]]:
    """The values of ``x`` and the quartiles of ``y`` at each."""
    groups = {value: part.to_numpy(np.float64) for value, part in rows.groupby(x, sort=False)[y]}
    bands = [band(np.zeros(1), values[None]) for values in groups.values()]
    return list(groups), tuple([part[i][0] for part in bands] for i in (1, 2, 3))  # type: ignore


def _looks(values: list[Any]) -> list[Look]:
    """The methods' own looks; for other values one after the other."""
    if all(value in LOOKS for value in values):
        return looks_of(values)
    return [
        Look(COLORS[i % len(COLORS)], DASHES[i // len(COLORS) % 4], MARKERS[i % len(MARKERS)])
        for i in range(len(values))
    ]


def _scale(values: pd.Series) -> str:
    wide = values.dtype.kind in "if" and values.min() > 0 and values.max() > WIDE * values.min()
    return "log" if wide else "linear"
