"""Logged data: what some policy did, what it got, and how likely it was to do it.

A :class:`Log` has one entry per logged decision, :class:`Counts` one per context and arm, with all
the sums that evaluation needs. Letters: ``n`` rows, ``X`` contexts, ``K`` arms. A log without
contexts has X = 1.

The shipped tables and their terms are in this folder, see ``DATA_LICENSE``.
"""

from __future__ import annotations

from bandit.data.counts import Counts, from_counts
from bandit.data.division import count, split
from bandit.data.examples import (
    Items,
    Matches,
    items,
    open_bandit,
    production_prior,
    rock_paper_scissors,
)
from bandit.data.frames import from_dataframe
from bandit.data.log import BadRowsWarning, Log
from bandit.data.readers import count_csv, count_parquet, read_csv, read_parquet
from bandit.data.simulated import Digits, Simulation, digits, semi_synthetic, thompson_policy

__all__ = [
    "BadRowsWarning",
    "Counts",
    "Digits",
    "Items",
    "Log",
    "Matches",
    "Simulation",
    "count",
    "count_csv",
    "count_parquet",
    "digits",
    "from_counts",
    "from_dataframe",
    "items",
    "open_bandit",
    "production_prior",
    "read_csv",
    "read_parquet",
    "rock_paper_scissors",
    "semi_synthetic",
    "split",
    "thompson_policy",
]
