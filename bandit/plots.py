"""Pictures: functions that draw finished arrays or the package's objects, and return the Axes.

What is drawn was computed elsewhere (:mod:`bandit.analysis`, :mod:`bandit.flow`, a
:class:`bandit.History`). Every method of ``bandit.presets.METHODS`` has one color, line and marker
in all pictures, see :func:`look`; a name of your own gets a neutral one. Without ``ax`` a figure in
the package's style is made; with ``ax`` the axes are used as they are. The user's ``rcParams`` are
never changed: to draw in the package's style on axes of your own, make them in ``with style():``.

Letters: ``K`` arms, ``T`` recorded steps or times, ``N`` policies, ``...`` any leading axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from bandit import _checks
from bandit._checks import Array
from bandit.canvas import Band, axes_for, band, style
from bandit.looks import LOOKS, Look, color, label_of, look, looks_of
from bandit.problem import Bandit
from bandit.sweeps.pictures import sweep

__all__ = [
    "LOOKS",
    "Band",
    "Look",
    "band",
    "color",
    "look",
    "policy_bars",
    "regret_curves",
    "reward_kl_front",
    "simplex_flow",
    "simplex_xy",
    "style",
    "sweep",
]

REFERENCE, OPTIMUM = r"$\pi_\mathrm{ref}$", r"$\pi^*$"


def _named(argument: str, values: Any) -> Mapping[str, Any]:
    if not isinstance(values, Mapping) or not values:
        raise TypeError(
            f"{argument}: expected a mapping from method names, not empty, "
            f"got {type(values).__name__ if not isinstance(values, Mapping) else 'an empty one'}"
        )
    return values


def _policy(argument: str, given: Any) -> Array:
    """Probabilities from an array, a Solution or a History."""
    policy = getattr(given, "policy", given)
    return _checks.distribution(argument, policy() if callable(policy) else policy)


# --------------------------------------------------------------------------------- regret curves


def regret_curves(
    curves: Mapping[str, Any], *, exact: Mapping[str, Any] | None = None, ax: Axes | None = None
) -> Axes:
    """Regret against gradient step on a logarithmic axis: median, and the middle half of the runs.

    Parameters
    ----------
    curves : mapping, method name → History, pair of arrays or :class:`Band`
        A pair is the steps (T,) and the regrets (T, runs).
    exact : mapping, method name → Solution or regret, optional
        Drawn as a dashed line: what the curve of the same color must approach. A solution whose
        regret is below 1e-12, that is π*, has no place on the axis and no line.
    ax : Axes, optional

    Returns
    -------
    Axes
    """
    bands = {name: _band(name, curve) for name, curve in _named("curves", curves).items()}
    limits = {} if exact is None else _named("exact", exact)
    with axes_for(ax) as axes:
        for (name, curve), own in zip(bands.items(), looks_of(list(bands)), strict=True):
            axes.fill_between(
                curve.steps, curve.lower, curve.upper, color=own.color, alpha=0.22, lw=0
            )
            axes.plot(
                curve.steps,
                curve.median,
                color=own.color,
                linestyle=own.linestyle,
                label=label_of(name),
            )
        for limit, own in zip(limits.values(), looks_of(list(limits)), strict=True):
            height = float(getattr(limit, "regret", limit))
            if height > 1e-12:
                axes.axhline(height, color=own.color, linestyle=(0, (2, 2)), lw=1.1, zorder=1)
        axes.set(yscale="log", xlabel="gradient step")
        axes.set_ylabel(r"regret $J(\pi^*) - J(\pi)$  [reward]")
        axes.margins(x=0)
        axes.legend()
        return axes


def _band(name: str, curve: Any) -> Band:
    if isinstance(curve, Band):
        return curve
    if isinstance(curve, tuple) and len(curve) == 2:
        return band(*curve)
    if hasattr(curve, "steps") and hasattr(curve, "regret"):
        return band(curve.steps, curve.regret())
    raise TypeError(
        f"curves[{name!r}]: expected a bandit.History, (steps, regret) or a bandit.plots.Band, "
        f"got {type(curve).__name__}"
    )


# ----------------------------------------------------------------------------------- the simplex

# Arm 1 on top, arm 2 on the left, arm 3 on the right of an equilateral triangle.
CORNERS = np.array([[0.5, np.sqrt(0.75)], [0.0, 0.0], [1.0, 0.0]])


def simplex_xy(policy: ArrayLike) -> Array:
    """Where policies (..., 3) lie in the plane of :func:`simplex_flow`, (..., 2)."""
    policy = _checks.real_array("policy", policy)
    _checks.trailing_shape("policy", policy, (3,), "(..., 3)")
    return policy @ CORNERS


def simplex_flow(
    policies: ArrayLike,
    velocity: ArrayLike,
    *,
    paths: Any = None,
    landscape: ArrayLike | None = None,
    problem: Bandit | None = None,
    solution: Any = None,
    method: str | None = None,
    arms: Sequence[str] = ("arm 1", "arm 2", "arm 3"),
    ax: Axes | None = None,
) -> Axes:
    """A method's update field on the simplex of three arms.

    Parameters
    ----------
    policies, velocity : array_like (N, 3)
        Where arrows stand, and dπ/dt there (see :func:`bandit.flow.policy_velocity`). All arrows
        are equally long; the faster, the darker, relative to the fastest.
    paths : array_like (T, ..., 3) or History, optional
        Trajectories, in the method's color.
    landscape : array_like (N,), optional
        A number for each of ``policies``, for instance the regret, as gray levels (higher: darker).
    problem : Bandit, optional
        Marks its π_ref (ring) and its π* (star).
    solution : Solution or array_like (3,), optional
        The method's own solution, a filled marker.
    method : str, optional
        Gives the color and the title.
    arms : three strings
        Names at the corners: top, left, right.
    ax : Axes, optional

    Returns
    -------
    Axes
    """
    at, arrows = simplex_xy(_policy("policies", policies)), simplex_xy(velocity)
    if at.ndim != 2 or arrows.shape != at.shape:
        shapes = np.shape(policies), np.shape(velocity)
        raise ValueError(f"velocity: expected the shape (N, 3) of policies, got {shapes}")
    if len(arms) != 3:
        raise ValueError(f"arms: expected three names, got {len(arms)}")
    own = looks_of(["" if method is None else method])[0]
    with axes_for(ax) as axes:
        _triangle(axes, arms)
        if landscape is not None:
            values = _checks.finite_array("landscape", landscape)
            _checks.trailing_shape("landscape", values, at.shape[:1], "(N,)")
            x, y = at.T
            axes.tricontourf(x, y, values, levels=12, cmap="Greys", alpha=0.45, zorder=0)
        _arrows(axes, at, arrows)
        if paths is not None:
            track = simplex_xy(_policy("paths", paths))
            track = track.reshape(len(track), -1, 2)
            axes.plot(track[..., 0], track[..., 1], color=own.color, lw=1.4, zorder=3)
        if problem is not None:
            _mark(axes, problem.reference, REFERENCE, "o", "white", "black", 34)
            _mark(axes, problem.optimal_policy(), OPTIMUM, "*", "white", "black", 230)
        if solution is not None:
            _mark(axes, _policy("solution", solution), "solution", own.marker, own.color, "w", 50)
        if method is not None:
            axes.set_title(label_of(method))
        return axes


def _triangle(axes: Axes, arms: Sequence[str]) -> None:
    outline = CORNERS[[0, 1, 2, 0]]
    axes.plot(*outline.T, color="#555555", lw=0.9, zorder=1)
    # Names stay inside the width of the triangle, so that panels can stand close together.
    offsets = [(6, 0, "left", "top"), (0, -3, "left", "top"), (0, -3, "right", "top")]
    for name, corner, (dx, dy, ha, va) in zip(arms, CORNERS, offsets, strict=True):
        axes.annotate(
            name, corner, (dx, dy), textcoords="offset points", ha=ha, va=va, fontsize="small"
        )
    axes.set(aspect="equal", xlim=(-0.03, 1.03), ylim=(-0.03, 0.9))
    axes.axis("off")


def _arrows(axes: Axes, at: Array, arrows: Array) -> None:
    speed = np.hypot(*arrows.T)
    fastest = max(float(speed.max()), 1e-300)
    unit = arrows / np.where(speed > 0, speed, 1.0)[:, None]
    spacing = 0.6 / np.sqrt(len(at))
    shade = np.tile(to_rgba("#222222"), (len(at), 1))
    shade[:, 3] = 0.2 + 0.6 * np.sqrt(speed / fastest)
    axes.quiver(
        *at.T,
        *(unit * spacing).T,
        color=shade,
        angles="xy",
        scale_units="xy",
        scale=1,
        pivot="mid",
        width=0.006,
        headwidth=4,
        headlength=4.5,
        headaxislength=4,
        zorder=2,
    )


def _mark(
    axes: Axes, policy: Array, name: str, marker: str, face: str, edge: str, size: float
) -> None:
    x, y = simplex_xy(policy)
    axes.scatter(
        x, y, s=size, marker=marker, c=face, edgecolors=edge, linewidths=0.8, zorder=5, label=name
    )


# ------------------------------------------------------------------------------------------- bars


def policy_bars(
    policies: Mapping[str, Any],
    *,
    problem: Bandit | None = None,
    arms: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Policies side by side, a bar for each arm and method.

    Parameters
    ----------
    policies : mapping, method name → Solution or array_like (K,)
    problem : Bandit, optional
        Draws its π* (solid) and π_ref (dotted) across the bars of each arm.
    arms : K strings, optional
        Names below the bars. Default: arm 1, arm 2, ….
    ax : Axes, optional

    Returns
    -------
    Axes
    """
    given = _named("policies", policies)
    heights = {name: _policy(f"policies[{name!r}]", policy) for name, policy in given.items()}
    count = next(iter(heights.values())).shape[-1]
    for name, height in heights.items():
        if height.shape != (count,):
            raise ValueError(f"policies[{name!r}]: expected shape ({count},), got {height.shape}")
    names = [f"arm {k + 1}" for k in range(count)] if arms is None else list(arms)
    if len(names) != count:
        raise ValueError(f"arms: expected {count} names, got {len(names)}")
    if problem is not None and problem.shape != (count,):
        raise ValueError(f"problem: expected shape (K,) = ({count},), got {problem.shape}")
    width, places = 0.8 / len(heights), np.arange(count)
    with axes_for(ax) as axes:
        for i, ((name, height), own) in enumerate(
            zip(heights.items(), looks_of(list(heights)), strict=True)
        ):
            left = places - 0.4 + (i + 0.5) * width
            axes.bar(left, height, 0.9 * width, color=own.color, label=label_of(name))
        if problem is not None:
            lines: list[tuple[str, Array, Any]] = [
                (OPTIMUM, problem.optimal_policy(), "-"),
                (REFERENCE, problem.reference, ":"),
            ]
            for name, policy, dash in lines:
                axes.hlines(policy, places - 0.43, places + 0.43, "black", dash, lw=1.3, label=name)
        axes.set_xticks(places, names)
        axes.set(ylabel=r"probability $\pi$", ylim=(0, None))
        axes.grid(visible=False, axis="x")
        axes.legend()
        return axes


# --------------------------------------------------------------------------- reward against KL


def reward_kl_front(
    front: Any,
    landings: Mapping[str, Any] | None = None,
    *,
    problem: Bandit | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Expected reward against KL(π‖π_ref): the optimal front, and where methods land.

    Parameters
    ----------
    front : pair of array_like (N,)
        KL(π*‖π_ref) in nats and expected reward of the optimal policies over β.
    landings : mapping, method name → pair of array_like (N,), or Solution, optional
        KL and reward of the method's solutions; a Solution needs ``problem`` to be placed.
    problem : Bandit, optional
    ax : Axes, optional

    Returns
    -------
    Axes
    """
    kl, reward = _kl_and_reward("front", front, problem)
    given = {} if landings is None else _named("landings", landings)
    points = {n: _kl_and_reward(f"landings[{n!r}]", p, problem) for n, p in given.items()}
    with axes_for(ax) as axes:
        axes.plot(kl, reward, color="#BBBBBB", lw=5, solid_capstyle="round", zorder=1)
        for (x, y), own in zip(points.values(), looks_of(list(points)), strict=True):
            axes.plot(x, y, color=own.color, ls=own.linestyle, marker=own.marker, lw=1.1, zorder=3)
        front_label = r"optimal front: $\pi^*$ over $\beta$"
        handles = [Line2D([], [], color="#BBBBBB", lw=5, label=front_label)]
        handles += [
            Line2D(
                [], [], color=o.color, ls=o.linestyle, marker=o.marker, lw=1.1, label=label_of(n)
            )
            for n, o in zip(points, looks_of(list(points)), strict=True)
        ]
        axes.set(xlabel=r"KL($\pi$‖$\pi_\mathrm{ref}$)  [nats]", ylabel="expected reward")
        axes.legend(handles=handles)
        return axes


def _kl_and_reward(argument: str, given: Any, problem: Bandit | None) -> tuple[Array, Array]:
    if hasattr(given, "policy"):
        if problem is None:
            raise ValueError(f"problem: expected a Bandit to place {argument}, got None")
        policy = _policy(argument, given)
        return np.atleast_1d(problem.kl(policy)), np.atleast_1d(problem.expected_reward(policy))
    if not isinstance(given, Sequence | np.ndarray) or len(given) != 2:
        raise TypeError(f"{argument}: expected a pair of arrays, KL and reward, got other things")
    kl, reward = (np.atleast_1d(_checks.real_array(argument, part)) for part in given)
    if kl.shape != reward.shape or kl.ndim != 1:
        raise ValueError(
            f"{argument}: expected two arrays (N,), got shapes {kl.shape} and {reward.shape}"
        )
    return kl, reward
