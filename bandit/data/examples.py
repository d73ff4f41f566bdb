"""The shipped tables: Open Bandit counts and a rock-paper-scissors tournament.

Terms and provenance are in ``DATA_LICENSE`` beside them. The Open Bandit tables are aggregated from
the small version of the data of arXiv:2008.07146; cite it when you use them.
"""

from __future__ import annotations

import csv
from importlib import resources
from typing import NamedTuple

import numpy as np

from bandit import _checks, preferences
from bandit._checks import Array
from bandit.data.counts import Counts, Labels

CAMPAIGNS = ("all", "men", "women")
POLICIES = ("random", "bts")
POSITIONS = (1, 2, 3)
ROWS = 10_000
CLICKS = {
    ("all", "random"): 38,
    ("all", "bts"): 42,
    ("men", "random"): 46,
    ("men", "bts"): 69,
    ("women", "random"): 46,
    ("women", "bts"): 46,
}


def _table(name: str) -> list[dict[str, str]]:
    text = resources.files("bandit.data").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def open_bandit(campaign: str, policy: str) -> Counts:
    """Clicks on recommended clothes, by position (context) and item (arm): 10,000 rows a log.

    Parameters
    ----------
    campaign : {"all", "men", "women"}
        80, 34 and 46 items.
    policy : {"random", "bts"}
        Who chose: at random, or Bernoulli Thompson sampling.

    Returns
    -------
    Counts
        Contexts are the positions 1 to 3, arms the items. The table has sums and no maxima, so
        ``largest_inverse`` is a bound.

    Raises
    ------
    ValueError
        For another campaign or policy.
    RuntimeError
        If the shipped table does not have the totals it should.

    Notes
    -----
    38 to 69 clicks a log do not tell items apart: these data teach evaluation and its failures, not
    which learner is better. The Thompson policy adapts, so its propensities drift within a log.
    Source: arXiv:2008.07146, small version, summed over rows without user columns.
    """
    key = (
        _checks.one_of("campaign", campaign, CAMPAIGNS),
        _checks.one_of("policy", policy, POLICIES),
    )
    rows = [r for r in _table("obd_counts_ext.csv") if (r["campaign"], r["policy"]) == key]
    arms = tuple(sorted({int(row["item_id"]) for row in rows}))
    cells = {(int(row["position"]), int(row["item_id"])): row for row in rows}

    def column(name: str) -> Array:
        return np.array([[float(cells[x, y][name]) for y in arms] for x in POSITIONS])

    clicks, weighted, squared_weighted = map(column, ("clicks", "sum_ip_clicks", "sum_ip2_clicks"))
    found = (round(float(column("impressions").sum())), round(float(clicks.sum())))
    if found != (ROWS, CLICKS[key]) or len(cells) != len(rows):
        raise RuntimeError(
            f"obd_counts_ext.csv: expected {ROWS} rows and {CLICKS[key]} clicks for "
            f"{campaign}/{policy}, got {found[0]} and {found[1]}"
        )
    # A click is 0 or 1, so it is its own square.
    return Counts(
        n=column("impressions"),
        reward=clicks,
        reward2=clicks,
        inverse=column("sum_ip"),
        inverse_reward=weighted,
        inverse_reward2=weighted,
        inverse2=column("sum_ip2"),
        inverse2_reward=squared_weighted,
        inverse2_reward2=squared_weighted,
        context_labels=POSITIONS,
        arm_labels=arms,
    )


class Items(NamedTuple):
    """Features of the items of a campaign: ``number`` (K,) and three ``categories`` (K, 3)."""

    labels: Labels
    number: Array
    categories: np.ndarray


def items(campaign: str) -> Items:
    """Features of the items that :func:`open_bandit` counts, in the same order.

    Parameters
    ----------
    campaign : {"all", "men", "women"}
    """
    _checks.one_of("campaign", campaign, CAMPAIGNS)
    rows = [row for row in _table("items.csv") if row["campaign"] == campaign]
    return Items(
        tuple(int(row["item_id"]) for row in rows),
        np.array([float(row["item_feature_0"]) for row in rows]),
        np.array([[int(row[f"cat{j}"]) for j in (1, 2, 3)] for row in rows]),
    )


def production_prior(campaign: str) -> tuple[Array, Array]:
    """Beta(α, β) counts of clicks per item from before the logging: two arrays (K,).

    α of about α + β impressions were clicks. Where the counts come from is thinly documented at
    their source; take them as realistic click rates.

    Parameters
    ----------
    campaign : {"all", "men", "women"}
    """
    _checks.one_of("campaign", campaign, CAMPAIGNS)
    rows = [row for row in _table("bts_prior.csv") if row["campaign"] == campaign]
    return (
        np.array([float(row["alpha"]) for row in rows]),
        np.array([float(row["beta"]) for row in rows]),
    )


class Matches(NamedTuple):
    """A tournament: who beat whom how often, and the preferences that follow.

    ``wins[y, y']`` counts a tie as half a win for each; ``ties`` (K, K) is symmetric.
    """

    names: tuple[str, ...]
    wins: Array
    ties: Array
    preference: Array


def rock_paper_scissors() -> Matches:
    """Six rock-paper-scissors programs, 300 matches for each pair: a real preference cycle.

    halbot beats russrocker4, which beats mod1bot, which beats halbot: there is no best program,
    and the reward of a Bradley–Terry model cannot say so.

    Returns
    -------
    Matches
        Names (6,), wins, ties and preferences (6, 6).

    Notes
    -----
    Our own measurement with the programs bundled in OpenSpiel 2.0.2. The six were chosen from a
    larger round robin because they have a cycle, which was then confirmed on these, fresh matches.
    """
    rows = _table("rrps6.csv")
    names = tuple(dict.fromkeys([row["bot_i"] for row in rows] + [row["bot_j"] for row in rows]))
    wins, ties = np.zeros((2, len(names), len(names)))
    for row in rows:
        i, j = names.index(row["bot_i"]), names.index(row["bot_j"])
        wins[i, j], wins[j, i] = float(row["wins_i"]), float(row["wins_j"])
        ties[i, j] = ties[j, i] = float(row["ties"])
    wins += ties / 2
    played = wins + wins.T
    if len(names) != 6 or (played[~np.eye(6, dtype=bool)] != 300).any():
        raise RuntimeError("rrps6.csv: expected 300 matches for each pair of six programs")
    return Matches(names, wins, ties, preferences.from_counts(wins))
