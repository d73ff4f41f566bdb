"""Where a vector field vanishes, and where a kinked convex function is least.

Plain numerical code: it knows of vectors and Jacobians, not of bandits. Systems of ``P`` unknowns
are solved ``B`` at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bandit._checks import Array

Field = Callable[[Array], Array]

# A root counts when a full Newton step from it would move no unknown by more than this.
STEP_TOLERANCE = 1e-8
FIELD_TOLERANCE = 1e-10
FIRST_TIME_STEP = 0.5
GREATEST_GROWTH = 8.0
LONGEST_TIME_STEP = 1e16
# Steps as short as this do not get around a kink.
SHORTEST = 1e-8
# So many steps in a row without finding the root of an all but vanished field: there is none.
PATIENCE = 40
# So many in a row at a place that cannot be left for a root.
LEAVE = 15
# A component that has fallen to this share of what it was at the start.
DEAD = 1e-15
# The least tolerances that HiGHS takes.
EXACT = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
# A Newton step shorter than this, in nats, is close to a root.
CLOSE = 0.01


class Root(NamedTuple):
    """Where the search ended, for each of ``B`` systems.

    ``residual`` is the greatest |field|, ``step`` the greatest change a full Newton step would
    still make; ``vanishing`` tells that the field dies out without a root at a finite place,
    ``dead`` that some component of it does.
    """

    theta: Array  # (B, P)
    residual: Array  # (B,)
    step: Array  # (B,)
    converged: NDArray[np.bool_]  # (B,)
    vanishing: NDArray[np.bool_]  # (B,)
    dead: NDArray[np.bool_]  # (B,)


class Linearization(Protocol):
    """The field around one place, as an equation to solve for steps."""

    def step(self, field: Array, time_step: Array) -> Array:
        """The move (B, P) that brings the field (B, P) to −move·scale/time_step.

        Infinite time steps (B,) make it Newton's, that brings the field to zero.
        """
        ...

    scale: Array  # (B, P), by which the components of the field are brought to one size


Linearize = Callable[[Array, Array], Linearization]


def find_root(
    field: Field,
    linearize: Linearize,
    start: Array,
    *,
    affine: bool = False,
    first_time_step: float = FIRST_TIME_STEP,
    unit: float = 1.0,
    gone: Callable[[Array], NDArray[np.bool_]] | None = None,
    most_steps: int = 200,
) -> Root:
    """Follow the flow θ' = −field(θ) to where it rests, by implicit Euler steps of growing length.

    Short steps follow the flow, and so end at a stable root; long ones are Newton's and converge
    quadratically (pseudo-transient continuation). How long a step may be is judged from the
    correction it would need, in units of θ, so that neither the size of the field nor that of its
    components matters. An affine field is solved in one step and refined in a second.

    Parameters
    ----------
    field : (B, P) -> (B, P)
    linearize : (theta, field(theta)) -> Linearization
    start : ndarray (B, P)
    first_time_step : float
        Infinite for a start that is close to the root.
    unit : float
        Size of the terms whose rounding the field cannot do without, where that is above 1: a root
        has |field| below 1e-10 times it, or times |field| at the start if that is larger.
    gone : (B, P) -> (B,) of bool, optional
        Places that cannot be left for a root: the search ends where it has been at such ones for
        some steps in a row.
    """
    theta, now = start, field(start)
    first = np.abs(now)
    goal = FIELD_TOLERANCE * np.maximum(max(1.0, unit), _greatest(now))
    forever = np.full(len(start), np.inf)
    time_step = forever if affine else np.full(len(start), first_time_step)
    step, full = forever, np.zeros_like(start)
    faint, away = np.zeros((2, len(start)), dtype=int)
    done = np.zeros(len(start), dtype=bool)
    around = None
    for _ in range(most_steps):
        if around is None:
            around = linearize(theta, now)
            full = around.step(now, forever)
        step = _greatest(full)
        reach = STEP_TOLERANCE * np.maximum(1.0, _greatest(theta - start))
        done = (_greatest(now) <= goal) & (step <= reach)
        faint = np.where((_greatest(now) <= 1e-5 * goal) & ~done, faint + 1, 0)
        if gone is not None:
            away = np.where(gone(theta) & ~done, away + 1, 0)
        over = done | (faint > PATIENCE) | (away > LEAVE) | (time_step < SHORTEST)
        if over.all() or not np.isfinite(now).all():
            break
        move = full if affine else around.step(now, time_step)
        trial = theta + np.where(over[:, None], 0.0, move)
        then = field(trial)
        if affine:
            theta, now, around = trial, then, None
            continue
        left = then + around.scale * move / time_step[:, None]
        miss = _greatest(around.step(left, time_step)) / np.maximum(_greatest(move), 1e-300)
        better = (miss < 0.5) & np.isfinite(then).all(axis=-1)
        growth = np.clip(0.25 / np.maximum(miss, 1e-300), 0.1, GREATEST_GROWTH)
        time_step = np.where(np.isnan(growth), 0.1, growth) * np.minimum(
            time_step, LONGEST_TIME_STEP
        )
        theta = np.where(better[:, None], trial, theta)
        now = np.where(better[:, None], then, now)
        if better.any():
            around = None
    polished = theta + np.where(done[:, None], full, 0.0)
    then = field(polished)
    better = done & (_greatest(then) <= _greatest(now))
    theta, now = np.where(better[:, None], polished, theta), np.where(better[:, None], then, now)
    # Out of steps where the field is its own rounding: it died out, if not for long enough above.
    vanishing = (faint > 0) | (~done & (_greatest(now) <= 1e-3 * goal))
    dead = ((np.abs(now) < DEAD * first) & (np.abs(full) > CLOSE)).any(axis=-1) & ~done
    return Root(theta, _greatest(now), step, done, vanishing, dead)


def _greatest(x: Array) -> Array:
    return np.abs(x).max(axis=-1)


class Dense:
    """A linearization by a Jacobian (B, P, P) whose null space is the range of the projector
    ``gauge`` (B or 1, P, P); steps have no part in it.

    Rows are brought to one size first, so that an arm seen with probability 1e-12 counts as much
    as the others, unless smaller than ``floor`` times the greatest (such a row is rounding); what
    is singular beyond the gauge is left out of the step.
    """

    def __init__(self, jacobian: Array, gauge: Array, floor: float = 0.0) -> None:
        scale = np.abs(jacobian).max(axis=-1)
        scale = np.maximum(scale, floor * scale.max(axis=-1, keepdims=True))
        self.scale = np.where(scale > 0, scale, 1.0)
        self.matrix, self.gauge = jacobian / self.scale[..., None] + gauge, gauge

    def step(self, field: Array, time_step: Array) -> Array:
        """The implicit Euler step of length ``time_step``."""
        matrix = self.matrix + (1 / time_step)[:, None, None] * np.eye(field.shape[-1])
        move = _solve(matrix, -(field / self.scale))
        return move - (self.gauge @ move[..., None])[..., 0]


def _solve(matrix: Array, right: Array) -> Any:
    if not (np.isfinite(matrix).all() and np.isfinite(right).all()):
        return np.full_like(right, np.nan)
    try:
        return np.linalg.solve(matrix, right[..., None])[..., 0]
    except np.linalg.LinAlgError:
        return (np.linalg.pinv(matrix, rcond=1e-13) @ right[..., None])[..., 0]


class Krylov:
    """A linearization too large for a matrix: GMRES on differences of the field.

    ``scale`` (B, P) brings the rows to one size; ``size`` is the length of a typical change of θ,
    over which an ``affine`` field is differenced.
    """

    def __init__(
        self, field: Field, theta: Array, now: Array, scale: Array, size: float, affine: bool
    ) -> None:
        self.field, self.theta, self.now, self.scale = field, theta, now, scale
        self.length, self.affine = (size if affine else 1e-4 * size), affine

    def step(self, field: Array, time_step: Array) -> Array:
        """The implicit Euler step of length ``time_step``."""
        right = -field / self.scale
        if _greatest(right).max() <= 1e-2 * STEP_TOLERANCE:
            # Rows are of size one: what is left to do is as small as the field.
            return right
        from scipy.sparse.linalg import LinearOperator, gmres  # slow to import, seldom needed

        steady = (1 / time_step)[:, None]

        def times(vector: Array) -> Array:
            direction = vector.reshape(self.theta.shape)
            return (self._along(direction) / self.scale + steady * direction).ravel()

        shape = (right.size, right.size)
        operator = LinearOperator(shape, matvec=times, dtype=np.float64)
        move = gmres(operator, right.ravel(), rtol=1e-7, restart=20, maxiter=5)[0]
        return move.reshape(self.theta.shape)

    def _along(self, direction: Array) -> Array:
        """Derivative of the field along a direction (B, P)."""
        longest = np.abs(direction).max()
        if longest == 0:
            return np.zeros_like(direction)
        h = self.length / longest
        forward = self.field(self.theta + h * direction)
        if self.affine:
            return (forward - self.now) / h
        return (forward - self.field(self.theta - h * direction)) / (2 * h)


class Minimum(NamedTuple):
    """Least value of a convex function: where, how far above a lower bound, and whether alone."""

    theta: Array  # (P,)
    value: float
    gap: float
    converged: bool
    unique: bool


def minimize_piecewise_linear(
    function: Callable[[Array], tuple[float, Array]],
    start: Array,
    fixed: NDArray[np.bool_],
    radius: float,
    *,
    tolerance: float = 1e-11,
    most_cuts: int = 600,
) -> Minimum:
    """Least value of a convex piecewise-linear function, by cutting planes (Kelley's method).

    Every evaluation adds a plane below the function; a linear program finds the least value of the
    planes, which bounds the function's from below. Afterwards each unknown is pushed as far as the
    optimal value allows, to see whether the minimizer is the only one.

    Parameters
    ----------
    function : (P,) -> (value, subgradient (P,))
    start : ndarray (P,)
    fixed : ndarray (P,) of bool
        Unknowns that stay at ``start`` (one for each direction the function cannot see).
    radius : float
        The search stays within this distance of ``start`` in every unknown.
    """
    from scipy.optimize import linprog  # slow to import, and seldom needed

    slopes: list[Array] = []
    offsets: list[float] = []
    reach = np.where(fixed, 0.0, radius)
    bounds = [*zip(start - reach, start + reach, strict=True), (None, None)]

    def look(theta: Array) -> float:
        value, slope = function(theta)
        slopes.append(slope)
        offsets.append(float(slope @ theta) - value)
        return value

    def program(cost: Array, ceiling: float | None = None) -> Array:
        planes = np.column_stack([np.array(slopes), np.full(len(slopes), -1.0)])
        top = [*bounds[:-1], (None, ceiling)]
        return linprog(
            cost, A_ub=planes, b_ub=np.array(offsets), bounds=top, method="highs", options=EXACT
        ).x

    lowest = np.append(np.zeros(len(start)), 1.0)
    best, value, gap = start, look(start), np.inf
    floor = tolerance * max(1.0, abs(value))
    while gap > floor and len(slopes) < most_cuts:
        trial = program(lowest)
        found = look(trial[:-1])
        if found < value:
            best, value = trial[:-1], found
        gap = value - trial[-1]
    converged = bool(gap <= floor)
    return Minimum(
        best, value, gap, converged, converged and _alone(program, look, best, value, fixed)
    )


def _alone(program, look, best: Array, value: float, fixed: NDArray[np.bool_]) -> bool:
    """Whether no unknown can move without raising the value."""
    slack = 1e-9 * max(1.0, abs(value))
    for k in np.flatnonzero(~fixed):
        for sign in (1.0, -1.0):
            cost = np.append(np.where(np.arange(len(best)) == k, sign, 0.0), 0.0)
            for _ in range(50):
                end = program(cost, value + slack)
                if end is None or abs(end[k] - best[k]) < 1e-5:
                    break
                if look(end[:-1]) <= value + 2 * slack:
                    return False
    return True
