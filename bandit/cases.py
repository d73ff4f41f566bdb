"""From what was typed on the command line to a bandit, its data and the methods to run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bandit import losses, preferences, presets
from bandit._checks import Array
from bandit.pairs import Pairs, independent
from bandit.preferences import check as check_preference
from bandit.presets import Method
from bandit.problem import Bandit


class Case(NamedTuple):
    """What a command works on; arrays (K,) and (K, K).

    ``behavior`` is None on-policy; ``preference`` and ``judged_by`` (how it came about) are None
    where no method reads preferences.
    """

    problem: Bandit
    behavior: Array | None
    preference: Array | None
    judged_by: str | None
    methods: dict[str, Method]

    @property
    def pairs(self) -> Pairs | None:
        """Both arms of a pair drawn from the behavior; None on-policy."""
        return None if self.behavior is None else independent(self.behavior)


def from_options(options: argparse.Namespace, *, on_policy: bool = False) -> Case:
    """The case that parsed options ask for; a ValueError naming the option where they make none."""
    ours = presets.three_armed_bandit()
    reward = numbers("reward", options.reward)
    problem = Bandit(
        ours.reward if reward is None else reward,
        ours.beta if options.beta is None else options.beta,
        numbers("reference", options.reference),
    )
    methods = {name: presets.method(name) for name in _names(options)}
    if on_policy and options.behavior is not None:
        raise ValueError(
            "behavior: expected none with --on-policy, where the policy draws the arms"
        )
    behavior = None if on_policy else _behavior(options, problem)
    judged = any(map(reads_preferences, methods.values()))
    if options.preferences is not None and not judged:
        raise ValueError(
            f"preferences: expected none, as no method reads them, got {options.preferences}"
        )
    kind = "bradley-terry" if options.preferences is None else options.preferences
    kind = kind if judged else None
    return Case(problem, behavior, _preference(kind, problem), kind, methods)


def reads_preferences(method: Method) -> bool:
    """Whether its data are preferences rather than rewards."""
    return "preference" in losses.traits(method.loss).requires


def no_exact_solution(method: Method, group_size: int, reward_noise: float) -> str:
    """Why the exact solution on pairs is not where such a training ends; empty where it is."""
    own = losses.traits(method.loss)
    if group_size != 2 and not own.separable:
        return "its exact solution is for groups of two"
    if reward_noise and "reward" in own.requires and not own.affine_in_reward:
        return "its exact solution is for rewards without noise"
    return ""


def words(given: Sequence[str]) -> list[str]:
    """Items of a list written with commas, spaces or both."""
    return [word for part in given for word in part.replace(",", " ").split()]


def real(text: str) -> float:
    """A number that was typed, for argparse."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text.strip()!r}") from None


def whole(text: str) -> int:
    """A whole number that was typed, for argparse."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text.strip()!r}") from None


def _names(options: argparse.Namespace) -> list[str]:
    if options.methods is None:
        return list(options.default_methods)
    names = words(options.methods)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"methods: expected names, each once, got {' '.join(names) or 'none'}")
    return names


def numbers(option: str, given: Sequence[str] | None) -> Array | None:
    """The numbers of a list that was typed; None if it was not."""
    if given is None:
        return None
    found = []
    for word in words(given):
        try:
            found.append(float(word))
        except ValueError:
            raise ValueError(f"{option}: expected numbers, got {word!r}") from None
    return np.array(found)


def _behavior(options: argparse.Namespace, problem: Bandit) -> Array:
    given = numbers("behavior", options.behavior)
    if given is None:
        ours = presets.three_armed_behavior()
        return ours if problem.n_arms == len(ours) else problem.reference
    if given.shape != problem.shape:
        raise ValueError(f"behavior: expected {problem.n_arms} probabilities, got {given.size}")
    return given


def _preference(kind: str | None, problem: Bandit) -> Array | None:
    if kind is None:
        return None
    if kind == "bradley-terry":
        return preferences.bradley_terry(problem.reward)
    if kind == "deterministic":
        return preferences.deterministic(problem.reward)
    return check_preference(_matrix(kind), problem.shape)


def _matrix(file: str) -> Array:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(
            "preferences: expected bradley-terry, deterministic or a readable CSV file, "
            f"got {file!r} ({error.strerror})"
        ) from error
    except UnicodeDecodeError:
        raise ValueError(f"preferences: expected a CSV file, got {file!r} (not text)") from None
    rows = [row.split(",") for row in text.splitlines() if row.strip()]
    try:
        return np.array([[float(cell) for cell in row] for row in rows])
    except ValueError as error:
        # Not a number, or rows of different lengths.
        raise ValueError(
            f"preferences: expected a CSV matrix of numbers in {file!r}, got: {error}"
        ) from None
