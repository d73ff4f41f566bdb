"""The explorer's picture: update field and descents on the simplex, and the regret curve.

All text is plain: formulas would take matplotlib longer than the rest of the picture.
"""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from bandit import plots
from bandit.canvas import style
from bandit.explorer.state import STEPS, View

# Steps of a descent that are drawn: close together at the beginning, where it is fastest.
DRAWN = np.unique(np.concatenate([[0], np.geomspace(1, STEPS, 60).round().astype(int)]))
LOWEST = 1e-12
SIZE = (9.4, 4.2)


def draw(view: View, *, size: tuple[float, float] = SIZE) -> Figure:
    """A figure of two panels, in the package's style, that belongs to nobody.

    Parameters
    ----------
    view : View
    size : two floats
        Inches.

    Returns
    -------
    Figure
    """
    with style():
        # Places are fixed: laying panels out anew would take longer than drawing them.
        figure = Figure(figsize=size, layout="none")  # type: ignore[arg-type]
        FigureCanvasAgg(figure)
        _simplex(figure.add_axes((0.01, 0.02, 0.47, 0.86)), view)
        _regret(figure.add_axes((0.58, 0.13, 0.40, 0.75)), view)
        return figure


def png(view: View, *, size: tuple[float, float] = SIZE, dpi: int = 100) -> bytes:
    """The picture of :func:`draw` as a PNG file."""
    file = io.BytesIO()
    draw(view, size=size).savefig(
        file, format="png", dpi=dpi, pil_kwargs={"compress_level": 3}, metadata={"Software": None}
    )
    return file.getvalue()


def _simplex(axes: Axes, view: View) -> None:
    whole = np.isfinite(view.paths).all(axis=(0, 2))
    moving = np.isfinite(view.velocity).all(axis=-1)
    rewards = (f"arm {arm + 1}, r = {r:.4g}" for arm, r in enumerate(view.problem.reward))
    plots.simplex_flow(
        view.grid[moving],
        view.velocity[moving],
        paths=view.paths[DRAWN][:, whole] if whole.any() else None,
        landscape=view.problem.regret(view.grid[moving]),
        problem=view.problem,
        solution=view.settled,
        method=view.choice.method,
        arms=tuple(rewards),
        ax=axes,
    )
    x, y = plots.simplex_xy(view.behavior)
    axes.scatter(x, y, s=60, marker="x", c="black", linewidths=1.6, zorder=6)
    axes.set_title(f"{view.method.label}: where it moves the policy")
    axes.legend(handles=_key(view), loc="upper left", bbox_to_anchor=(-0.02, 1.0))


def _key(view: View) -> list[Line2D]:
    own = plots.looks_of([view.choice.method])[0]
    marks = [("o", "white", 5.5, "reference π_ref"), ("*", "white", 12, "optimal π*")]
    if view.settled is not None:
        marks.append((own.marker, own.color, 6, "solution"))
    found = [
        Line2D([], [], ls="", marker=marker, mfc=face, mec="black", mew=0.8, ms=size, label=name)
        for marker, face, size, name in marks
    ]
    found.append(Line2D([], [], ls="", marker="x", mec="black", mew=1.6, ms=7, label="behavior μ"))
    found.append(Line2D([], [], color=own.color, lw=1.4, label="gradient descent"))
    return found


def _regret(axes: Axes, view: View) -> None:
    own = plots.looks_of([view.choice.method])[0]
    steps = np.arange(len(view.regret))
    height = np.where(view.regret > LOWEST, view.regret, np.nan)
    axes.plot(steps, height, color=own.color)
    handles = [Line2D([], [], color=own.color, label="exact gradient descent from π_ref")]
    seen = [float(h) for h in height if np.isfinite(h)]
    if view.settled is not None and view.settled.regret > LOWEST:
        seen.append(view.settled.regret)
        axes.axhline(view.settled.regret, color="#333333", linestyle=(0, (2, 2)), lw=1.1)
        handles.append(
            Line2D([], [], color="#333333", ls=(0, (2, 2)), lw=1.1, label="regret of its solution")
        )
    axes.set(yscale="log", xlabel="gradient step", xlim=(0, steps[-1]))
    if seen:
        axes.set_ylim(min(*seen, max(seen) / 10) / 2, max(seen) * 3)
    axes.yaxis.set_major_formatter(FuncFormatter(_short))
    if max(seen, default=1) / min(seen, default=1) > 100:
        axes.minorticks_off()  # Over ten decades they would be a tenth of the time.
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("regret J(π*) − J(π)  [reward]")
    axes.set_title("Its regret, step by step")
    axes.legend(handles=handles, loc="upper right")


def _short(height: float, _: int) -> str:
    """0.01 and 1e-07: what is short."""
    return f"{height:g}"
