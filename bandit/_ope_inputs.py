"""What the functions of :mod:`bandit.ope` are given, checked once for all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from bandit import _checks
from bandit._checks import shown
from bandit._estimators import MODELED, Given, auto_shrinkage, cell_means
from bandit.data.log import Data, counts_of

NOTHING_SHOWN = "policy: expected some arm that the log shows, got none"


def given(
    method: str,
    data: Data,
    policy: ArrayLike,
    shrinkage: float | str = 0.0,
    model: ArrayLike | None = None,
) -> Given:
    """All that the formula of ``method`` needs, or one line saying what does not fit the log."""
    counts = counts_of(data)
    pi = _checks.per_cell("policy", _checks.distribution("policy", policy), counts.shape)
    if method != "direct_method" and counts.inverse is None:
        raise ValueError("data: expected propensities, got a log without; direct_method needs none")
    if model is not None:
        if shrinkage != 0.0:
            raise ValueError(f"shrinkage: expected 0 beside a given model, got {shown(shrinkage)}")
        q = _checks.per_cell("model", _checks.finite_array("model", model), counts.shape)
        return Given(counts, pi, q, None)
    if method not in MODELED:
        return Given(counts, pi, np.zeros(counts.shape), None)
    overall = counts.reward.sum() / counts.n.sum()
    q = cell_means(counts, shrinkage)
    kappa = shrinkage
    if shrinkage == "auto":
        kappa = auto_shrinkage(counts, cell_means(counts), overall)
    return Given(counts, pi, q, float(kappa))
