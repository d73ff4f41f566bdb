"""One look per method, the same in every picture; no plotting library is needed to ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from bandit import presets


class Look(NamedTuple):
    """How a method is drawn."""

    color: str
    linestyle: Any
    marker: str


DASHED, DOTTED, DASH_DOT = (0, (5, 2)), (0, (1, 1.4)), (0, (5, 1.5, 1, 1.5))
LONG, DASH_DOTS = (0, (9, 2)), (0, (5, 1.5, 1, 1.5, 1, 1.5))

# The methods that stand together most often have the colors of Okabe and Ito; no two methods share
# color, line and marker, so that a picture can be read without color too.
LOOKS: Mapping[str, Look] = MappingProxyType(
    {
        "copg": Look("#0072B2", "-", "o"),
        "rloo": Look("#332288", DOTTED, "s"),
        "log_variance": Look("#44AA99", DASH_DOT, "p"),
        "rebel": Look("#88CCEE", DASHED, "h"),
        "value_regression": Look("#117733", DASH_DOTS, "s"),
        "trajectory_balance": Look("#6699CC", LONG, "d"),
        "optimal_advantage": Look("#AA4499", DASH_DOT, "*"),
        "policy_gradient": Look("#000000", "-", "X"),
        "policy_gradient_value": Look("#009E73", DASHED, "^"),
        "policy_gradient_behavior": Look("#CC79A7", DOTTED, "v"),
        "pmd_mean": Look("#CC3311", DASHED, "p"),
        "asymmetric_reinforce": Look("#DDAA33", DOTTED, "H"),
        "importance_sampling": Look("#56B4E9", DASH_DOT, "D"),
        "ppo_clip": Look("#999999", DASHED, "<"),
        "clipped_objective": Look("#666666", DOTTED, ">"),
        "grpo": Look("#882255", DASH_DOTS, "P"),
        "reward_weighted": Look("#999933", LONG, "*"),
        "ipo": Look("#D55E00", "-", "s"),
        "dpo": Look("#E69F00", DASHED, "d"),
        "dpo_with_data_term": Look("#B8860B", DASH_DOTS, "d"),
        "slic": Look("#7F5539", DASH_DOT, "H"),
    }
)
# For names of the user's own: two grays, then colors that no method has.
SPARE = (
    Look("#444444", "-", "8"),
    Look("#777777", "-", "4"),
    Look("#DDCC77", "-", "p"),
    Look("#661100", "-", "h"),
    Look("#AADDCC", "-", "<"),
    Look("#882288", "-", "P"),
)


def look(name: str) -> Look:
    """Color, line and marker of a method of ``bandit.presets.METHODS``; ValueError for others."""
    presets.method(name)
    return LOOKS[name]


def color(name: str) -> str:
    """The color of a method of ``bandit.presets.METHODS``, as ``"#rrggbb"``."""
    return look(name).color


def looks_of(names: Sequence[str]) -> list[Look]:
    """Looks for a picture: the methods' own, and spare ones for names of the user's own."""
    own = [name for name in names if name not in LOOKS]
    return [LOOKS.get(name) or SPARE[own.index(name) % len(SPARE)] for name in names]


def label_of(name: str) -> str:
    """The name shown in legends."""
    return presets.METHODS[name].label if name in presets.METHODS else str(name)
