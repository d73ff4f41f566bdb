"""The loss under examination: called with what its signature asks for, watched while it answers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from bandit import _checks, groups, losses, presets
from bandit.losses import Group, Loss, Score, Traits

# What a problem knows and fills in, see bandit.groups.bind.
FILLED_IN = ("beta", "eta")
LONGEST = 160


class LossError(Exception):
    """What a loss did instead of returning a score, in one line; ``kind`` tells troubles apart.

    Not a ValueError: nothing on the way out may take it for one of its own.
    """

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.text, self.kind = text, kind


class Subject:
    """A loss, what it declares, and what the first checks find out for those after them.

    Attributes
    ----------
    name : str
    loss : callable
        The loss itself, but that an exception or a misshapen answer becomes a
        :class:`LossError`. Its bound hyper-parameters and traits are where the exact analysis looks
        for them.
    own : Traits
    declared : bool
        Whether the traits are the loss's own words rather than the defaults.
    baseline : str or None
        What ``group.baseline`` is in the exact analysis, by name; None: groups have none.
    sizes : tuple of int
        Group sizes it was seen to answer for.
    witness : (Group, Score) or None
        What it said at the beginning, at β = 1/2, to be asked once more at the end.
    reads : frozenset of str
        The fields of the group that were seen to change its answer.
    seen : tuple of str
        The traits that it was seen to have, declared or not.
    """

    def __init__(self, loss: Loss | str, baseline: str | None = None) -> None:
        if isinstance(loss, str):
            loss = losses.get(loss)
        if not callable(loss):
            raise TypeError(f"loss: expected a function, got {type(loss).__name__}")
        base, bound = loss, {}
        if isinstance(loss, functools.partial):
            base, bound = loss.func, loss.keywords
            if loss.args:
                raise TypeError("loss: expected only keywords bound by functools.partial")
        self.name = groups.name_of(base)
        self.options = _options(loss, self.name)
        self.own: Traits = losses.traits(base)
        if not isinstance(self.own, Traits):
            raise TypeError(
                f"loss: expected traits of type bandit.losses.Traits, got {_checks.shown(self.own)}"
            )
        self.declared = hasattr(base, "traits")
        self.documentation = inspect.getdoc(base) if inspect.isroutine(base) else None
        self.loss: Loss = functools.partial(_watched(base, self.name, self.own), **bound)
        self.bound = bound
        if baseline is not None:
            _checks.one_of("baseline", baseline, groups.BASELINES)
            if self.declared and not self.own.reads_baseline:
                raise ValueError(f"baseline: expected None for {self.name}, which has none")
        self.baseline = baseline or self._usual_baseline(loss)
        self.witness: tuple[Group, Score] | None = None
        self.sizes: tuple[int, ...] = ()
        self.reads: frozenset[str] = frozenset()
        self.seen: tuple[str, ...] = ()

    def distrust(self, traits: Sequence[str]) -> None:
        """No shortcut for the exact analysis where what is declared was found not to be true."""
        less: dict[str, Any] = dict.fromkeys(traits, False)
        self.own = self.own._replace(**less)
        self.loss.func.traits = self.own  # type: ignore[attr-defined]

    def _usual_baseline(self, loss: Loss) -> str | None:
        """Of a shipped loss its preset's; where there has to be one, E_π[R]."""
        preset = presets.METHODS.get(self.name)
        if preset is not None and preset.loss is loss:
            return preset.baseline
        needed = "baseline" in self.own.requires or self.bound.get("baseline") == "given"
        return "value" if needed else None

    def hyper(self, beta: float) -> dict[str, Any]:
        """The keywords filled in at regularization strength ``beta``: those left open."""
        known = {"beta": beta, "eta": 1 / beta, "baseline": "given"}
        return {k: known[k] for k in self.options if k != "baseline" or self.baseline}

    def score(self, group: Group, beta: float) -> Score:
        """Value and weight at β = ``beta``; numbers beyond float64 don't warn here."""
        with np.errstate(all="ignore"):
            return self.loss(group, **self.hyper(beta))

    @property
    def data_names(self) -> tuple[str | None, str | None]:
        """Preferences and baseline that it needs beside the problem, by name."""
        judged = "preference" in (self.reads or self.own.requires)
        return "bradley_terry" if judged else None, self.baseline

    def data(self, preference: Any) -> dict[str, Any]:
        """What the exact analysis is given beside the problem and the pairs."""
        wants = not self.declared or "preference" in self.own.requires
        return {
            "preference": preference if wants else None,
            "baseline": self.baseline,
        }


def _options(loss: Loss, name: str) -> tuple[str, ...]:
    """Those of β and η that are open keywords; one line if anything else has to be given."""
    try:
        signature = inspect.signature(loss)
    except (TypeError, ValueError):
        raise TypeError(f"loss: expected a function with a signature, got {name}") from None
    wanted = f"got {name}{signature}"
    bound = loss.keywords if isinstance(loss, functools.partial) else {}
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(signature.parameters.values())
    if not parameters or parameters[0].kind not in (*positional, inspect.Parameter.VAR_POSITIONAL):
        raise TypeError(f"loss: expected a function of a group, {wanted}")
    for other in parameters[1:]:
        needed = other.default is inspect.Parameter.empty and other.name not in bound
        if other.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue
        if needed and (other.name not in FILLED_IN or other.kind == positional[0]):
            raise TypeError(
                f"loss: expected a function of a group whose keywords other than beta and eta have "
                f"defaults or are bound with functools.partial, {wanted}"
            )
    fitting = (*FILLED_IN, "baseline")
    return tuple(k for k in fitting if k in signature.parameters and k not in bound)


def _watched(base: Callable, name: str, own: Traits) -> Callable:
    @functools.wraps(base)
    def watched(group: Group, **hyper: Any) -> Score:
        try:
            score = base(group, **hyper)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever it is, it is the loss's
            raise LossError(said(error), type(error).__name__) from error
        _check_form(score, group.log_prob)
        return score

    watched.__name__ = name
    watched.traits = own  # type: ignore[attr-defined]
    return watched


def said(error: BaseException) -> str:
    """What an exception that is not ours has to say, in one line."""
    try:
        text = str(error).strip()
    except Exception:  # its own words are wrong, too
        text = ""
    text = (text or "no message").splitlines()[0].rstrip(" :")
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return f"raises {type(error).__name__}: {text}"


def _check_form(score: Any, log_prob: Any) -> None:
    shape = tuple(log_prob.shape)
    for part, expected in (("value", shape[:-1]), ("weight", shape)):
        if not hasattr(score, part):
            raise LossError(f"returns {type(score).__name__}, not a bandit.losses.Score", "form")
        array = getattr(score, part)
        if not (hasattr(array, "shape") or isinstance(array, Real)):
            raise LossError(f"{part} is {type(array).__name__}, not an array", "form")
        found = tuple(getattr(array, "shape", ()))
        if found != expected:
            raise LossError(
                f"{part} has shape {found} for log_prob of shape {shape}, not {expected}", "shape"
            )
        if isinstance(array, np.ndarray):
            if type(array) is not np.ndarray:
                raise LossError(f"{part} is {type(array).__name__}, not a plain array", "form")
            if array.dtype.kind not in "fiu":
                raise LossError(f"{part} has dtype {array.dtype}, not real numbers", "form")
        elif isinstance(log_prob, np.ndarray):
            _check_readable(part, array)


def _check_readable(part: str, array: Any) -> None:
    """Arrays of numpy go in: what comes out has to be one for numpy, too."""
    try:
        np.asarray(array, dtype=np.float64)
    except Exception as error:
        kind = f"{type(array).__module__.partition('.')[0]}.{type(array).__name__}"
        raise LossError(f"{part} is {kind} for numpy arrays; it {said(error)}", "form") from error
