"""Where the flow along a vector field leads, for flows whose rates are many orders apart.

Plain numerical code, as :mod:`bandit.solvers`, whose search for a root it helps out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from bandit._checks import Array
from bandit.solvers import CLOSE, STEP_TOLERANCE, Field, Linearize

# The flow is followed from this time to that one, in units of θ over the field at the start.
BRIEF, LONGEST = 1e-6, 1e30
ROUGHLY = {"rtol": 1e-4, "atol": 1e-6}


def follow_flow(
    field: Field,
    jacobian: Field,
    linearize: Linearize,
    start: Array,
    *,
    gone: Callable[[Array], bool],
    rare: bool = False,
) -> Array:
    """Where the flow θ' = −field(θ) of one system takes ``start`` (P,), near enough for Newton.

    Slower and surer than :func:`bandit.solvers.find_root`: the flow itself is integrated (by a
    stiff, adaptive method), so that it is not lost on the plateaus of a softmax. It is left where
    it is ``gone``.

    It is followed against the logarithm of time, in which what decays like a power of time is
    straight and takes few steps; with ``rare`` a second time against time itself, if that led
    nowhere: where rates are very far apart, which of the two gets through is a matter of luck.
    """
    speed = float(np.abs(field(start)).max())
    if not (np.isfinite(speed) and speed > 0):
        return start

    def arrived(theta: Array) -> bool:
        return _newton_contracts(field, linearize, theta)

    from scipy.integrate import BDF  # slow to import, and seldom needed

    stretched = BDF(
        lambda s, theta: -np.exp(s) * field(theta),
        np.log(BRIEF / speed),
        start,
        np.log(LONGEST * max(1.0, 1 / speed)),
        jac=lambda s, theta: -np.exp(s) * jacobian(theta),
        first_step=0.5,
        **ROUGHLY,
    )
    end, sure = _integrated(stretched, lambda s: s, gone, arrived, 0.01 if rare else 0.3, 200)
    if sure or not rare:
        return end
    plain = BDF(
        lambda t, theta: -field(theta),
        0.0,
        start,
        LONGEST,
        jac=lambda t, theta: -jacobian(theta),
        **ROUGHLY,
    )
    return _integrated(plain, np.log, gone, arrived, 0.0, 1000)[0]


def _integrated(
    flow: Any,
    age: Callable[[float], float],
    gone: Callable[[Array], bool],
    arrived: Callable[[Array], bool],
    least: float,
    most_steps: int,
) -> tuple[Array, bool]:
    """Where an integrator ends, and whether there is nothing beyond: it is gone, or has arrived.

    25 steps in which neither its age, ln t, nor any unknown changes by ``least`` are the last.
    """
    from scipy.linalg import LinAlgWarning

    with warnings.catch_warnings():
        # Where the flow stands still its systems may be singular: Newton's method says so later.
        warnings.simplefilter("ignore", LinAlgWarning)
        then, there = -np.inf, flow.y
        for taken in range(1, most_steps + 1):
            try:
                flow.step()
            except ValueError:  # it met numbers beyond float64
                break
            if flow.status == "finished" or gone(flow.y):
                return flow.y, True
            if flow.status != "running":
                break
            if taken % 5 == 0 and arrived(flow.y):
                return flow.y, True
            if taken % 25 == 0:
                if age(flow.t) < then + least and np.abs(flow.y - there).max() < least:
                    break
                then, there = age(flow.t), flow.y
    return flow.y, False


def _newton_contracts(field: Field, linearize: Linearize, theta: Array) -> bool:
    """Whether Newton's next steps are short, each much shorter than the one before."""
    longest = CLOSE
    for _ in range(3):
        here, now = theta[None], field(theta)[None]
        step = linearize(here, now).step(now, np.array([np.inf]))[0] if now.any() else now[0]
        length = float(np.abs(step).max())
        if length <= STEP_TOLERANCE:
            return True
        if not length < longest:
            return False
        longest, theta = length / 4, theta + step
    return True
