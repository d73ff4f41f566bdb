"""What every picture stands on: the package's style, axes to draw on, and bands over runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from bandit import _checks
from bandit._checks import Array


def style() -> AbstractContextManager[None]:
    """The package's style sheet, for the length of a ``with`` block."""
    # Loads the backend, which switches interactive drawing on in a notebook: done within the block,
    # it would be undone at its end, and no picture but the first would be shown.
    plt.draw_if_interactive()
    return plt.style.context(Path(__file__).with_name("bandit.mplstyle"))


@contextmanager
def axes_for(ax: Axes | None) -> Iterator[Axes]:
    """``ax``, or new axes in the package's style."""
    if ax is not None:
        if not isinstance(ax, Axes):
            raise TypeError(f"ax: expected matplotlib Axes or None, got {type(ax).__name__}")
        yield ax
        return
    with style():
        yield plt.figure().add_subplot()


class Band(NamedTuple):
    """A curve with the spread around it: steps, and the three quartiles over runs, each (T,)."""

    steps: Array
    lower: Array
    median: Array
    upper: Array


def band(steps: ArrayLike, values: ArrayLike) -> Band:
    """Quartiles over the last axis of ``values`` (T, runs) at ``steps`` (T,)."""
    steps, values = _checks.real_array("steps", steps), _checks.real_array("values", values)
    if values.ndim != 2 or steps.shape != values.shape[:1] or values.size == 0:
        raise ValueError(
            f"values: expected shape (T, runs) with T = {steps.shape}, got {values.shape}"
        )
    return Band(steps, *np.percentile(values, [25, 50, 75], axis=-1))
