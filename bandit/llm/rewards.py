"""Rewards of texts, computed by functions: sentiment, checks, length.

A reward is any ``Callable[[list[str], list[str]], list[float]]``: from prompts and completions, one
of each per row, to one finite number per row, in units of its own. :func:`rewarded` calls it and
looks at what comes back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bandit import _checks

Reward = Callable[[list[str], list[str]], list[float]]
Check = str | re.Pattern[str] | Callable[[str, str], bool]


def rewarded(
    reward: Reward, prompts: Sequence[str], completions: Sequence[str]
) -> NDArray[np.float64]:
    """The rewards of texts as an array (N,), checked: one finite number for each completion.

    Raises
    ------
    TypeError, ValueError
        If texts are not strings or of unequal number, or the function returns anything but N
        finite numbers; the row is named.
    """
    prompts, completions = list(prompts), list(completions)
    if len(prompts) != len(completions):
        raise ValueError(
            f"completions: expected {len(prompts)} texts like prompts, got {len(completions)}"
        )
    for name, texts in (("prompts", prompts), ("completions", completions)):
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"{name}[{i}]: expected a string, got {type(text).__name__}")
    values = _checks.real_array("reward", reward(prompts, completions))
    if values.shape != (len(completions),):
        raise ValueError(
            f"reward: expected a function that returns {len(completions)} numbers, "
            f"got shape {values.shape}"
        )
    return _checks.finite_array("reward", values)


def sentiment() -> Reward:
    """How positive a completion sounds: VADER's compound score, from −1 to 1.

    Needs the package ``vaderSentiment`` (extra ``llm``). A dictionary of words and a few rules: it
    reads neither irony nor the prompt.

    References
    ----------
    Hutto and Gilbert 2014, VADER: a parsimonious rule-based model for sentiment analysis.
    """
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError as error:
        raise ImportError(
            'sentiment: expected the package vaderSentiment (pip install "copg-bandit[llm]")'
        ) from error
    analyzer = SentimentIntensityAnalyzer()

    def reward(prompts: list[str], completions: list[str]) -> list[float]:
        return [float(analyzer.polarity_scores(text)["compound"]) for text in completions]

    return reward


def checks(required: Sequence[Check]) -> Reward:
    """The fraction of checks a completion passes, as unit tests of a text: from 0 to 1.

    Parameters
    ----------
    required : sequence
        Regular expressions, found anywhere in the completion, or predicates
        ``(prompt, completion) -> bool``.

    Raises
    ------
    ValueError, TypeError
        For no checks, an invalid expression, or a predicate that answers neither True nor False.
    """
    if isinstance(required, str) or not required:
        raise ValueError(f"required: expected a list of at least one check, got {required!r}")
    tests = [_predicate(i, check) for i, check in enumerate(required)]

    def reward(prompts: list[str], completions: list[str]) -> list[float]:
        return [
            sum(test(prompt, text) for test in tests) / len(tests)
            for prompt, text in zip(prompts, completions, strict=True)
        ]

    return reward


def _predicate(index: int, check: Check) -> Callable[[str, str], bool]:
    name = f"required[{index}]"
    if isinstance(check, str | re.Pattern):
        try:
            pattern = re.compile(check)
        except re.error as error:
            raise ValueError(
                f"{name}: expected a regular expression, got {check!r} ({error})"
            ) from error
        return lambda prompt, text: pattern.search(text) is not None
    if not callable(check):
        raise TypeError(
            f"{name}: expected a regular expression or a predicate, got {type(check).__name__}"
        )

    def asked(prompt: str, text: str) -> bool:
        answer = check(prompt, text)
        if not isinstance(answer, bool | np.bool_):
            raise TypeError(f"{name}: expected True or False, got {type(answer).__name__}")
        return bool(answer)

    return asked


def length(target: int, unit: str = "words") -> Reward:
    """Closeness to a length: −|n − target| / target, 0 at the target and −1 for an empty text.

    Parameters
    ----------
    target : int
    unit : {"words", "characters"}
        Words are what white space separates.
    """
    target = _checks.positive_integer("target", target)
    _checks.one_of("unit", unit, ("words", "characters"))

    def reward(prompts: list[str], completions: list[str]) -> list[float]:
        sizes = [len(text.split() if unit == "words" else text) for text in completions]
        return [-abs(size - target) / target for size in sizes]

    return reward


def by_name(name: str) -> Reward:
    """A reward as one types it: ``sentiment``, ``length:20`` (words) or ``matches:REGEX``."""
    kind, _, value = name.partition(":")
    if kind == "sentiment" and not value:
        return sentiment()
    if kind == "length" and value.isdecimal():
        return length(int(value))
    if kind == "matches" and value:
        return checks([value])
    raise ValueError(f"reward: expected sentiment, length:WORDS or matches:REGEX; got {name!r}")
