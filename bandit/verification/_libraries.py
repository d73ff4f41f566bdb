"""The same loss on the arrays of other libraries: numbers, derivatives and dtypes."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bandit._checks import Array
from bandit.losses import Group, Score
from bandit.verification import _draws
from bandit.verification._examples import GroupCase, group_example, shrink_group
from bandit.verification._forms import SAME, apart, scale_of
from bandit.verification._report import FAULT, PASSED, PROPERTY, SKIPPED, Example, Finding
from bandit.verification._subject import LossError, Subject

KNOWN = ("torch", "jax")


class Library(abc.ABC):
    """A library of arrays that differentiates automatically; ``trials`` is how many cases to look
    at for the smallest one, fewer where each takes long."""

    name: str
    trials = 400

    @abc.abstractmethod
    def array(self, values: Array, dtype: str) -> Any:
        """``values`` as the library has them."""

    @abc.abstractmethod
    def owns(self, array: Any) -> bool:
        """Whether an array is the library's own."""

    @abc.abstractmethod
    def slope_and_weight(self, subject: Subject, case: GroupCase) -> tuple[Array, Array]:
        """∂ value / ∂ log_prob (..., G) by automatic differentiation, and the weight (..., G) that
        came with that value."""

    def settings(self) -> contextlib.AbstractContextManager:
        """What has to be switched on for float64."""
        return contextlib.nullcontext()

    def group(self, case: GroupCase, dtype: str) -> Group:
        """The case's group in the library's arrays."""
        return Group(*(None if f is None else self.array(f, dtype) for f in case.group))

    def score(self, subject: Subject, case: GroupCase, dtype: str = "float64") -> Score:
        """The score, in the library's arrays."""
        with self.settings():
            return subject.score(self.group(case, dtype), case.beta)

    def takes(self, subject: Subject) -> bool:
        """Whether the loss answers in the library's arrays, and can be differentiated."""
        return self.refusal(subject) is None

    def refusal(self, subject: Subject) -> str | None:
        """Why the loss has no answer in this library's arrays; None if it has."""
        case = _plain_case(subject)
        try:
            score = self.score(subject, case)
            if all(self.owns(part) for part in score):
                self.slope_and_weight(subject, case)
        except LossError as trouble:
            return trouble.text
        if not all(self.owns(part) for part in score):
            return f"returns {type(score.weight).__name__}"
        return None

    def gap(self, subject: Subject, case: GroupCase) -> float:
        """How far the slope is from the weight, relative to them."""
        slope, weight = self.slope_and_weight(subject, case)
        gap = np.abs(slope - weight).max()
        return float(gap / scale_of(slope, weight)) if np.isfinite(gap) else float("inf")


def _plain_case(subject: Subject) -> GroupCase:
    rng = np.random.default_rng(0)
    return _draws.groups(rng, subject.sizes[-1], 1.0, subject.baseline)


class _Torch(Library):
    name = "torch"

    def __init__(self) -> None:
        self.torch = importlib.import_module("torch")

    def array(self, values: Array, dtype: str) -> Any:
        return self.torch.asarray(np.array(values), dtype=getattr(self.torch, dtype))

    def owns(self, array: Any) -> bool:
        return isinstance(array, self.torch.Tensor)

    def slope_and_weight(self, subject: Subject, case: GroupCase) -> tuple[Array, Array]:
        group = self.group(case, "float64")
        log_prob = group.log_prob.requires_grad_()
        value, weight = subject.score(group._replace(log_prob=log_prob), case.beta)
        slope = None
        if value.requires_grad:
            (slope,) = self.torch.autograd.grad(value.sum(), log_prob, allow_unused=True)
        zeros = np.zeros(case.group.log_prob.shape)
        return zeros if slope is None else slope.numpy(), weight.detach().double().numpy()


class _JAX(Library):
    name = "JAX"
    trials = 20

    def __init__(self) -> None:
        self.jax = importlib.import_module("jax")
        self.numpy = importlib.import_module("jax.numpy")

    def settings(self) -> contextlib.AbstractContextManager:
        return self.jax.enable_x64(True)

    def array(self, values: Array, dtype: str) -> Any:
        return self.numpy.asarray(values, dtype=dtype)

    def owns(self, array: Any) -> bool:
        return isinstance(array, self.jax.Array)

    def slope_and_weight(self, subject: Subject, case: GroupCase) -> tuple[Array, Array]:
        with self.settings():
            group = self.group(case, "float64")

            def total(log_prob: Any) -> Any:
                score = subject.score(group._replace(log_prob=log_prob), case.beta)
                return score.value.sum(), score.weight

            slope, weight = self.jax.grad(total, has_aux=True)(group.log_prob)
            return np.asarray(slope), np.asarray(weight, dtype=np.float64)


def installed() -> tuple[str, ...]:
    """Those of torch and JAX that can be imported; nothing is imported to find out."""
    return tuple(name for name in KNOWN if importlib.util.find_spec(name) is not None)


def load(names: Sequence[str]) -> list[Library]:
    """The libraries called ``torch`` and ``jax``."""
    return [{"torch": _Torch, "jax": _JAX}[name]() for name in names]


def elsewhere(subject: Subject, found: Finding, names: Sequence[str]) -> Finding:
    """A fault with arrays of numpy, with a word on other libraries if that is all it is."""
    example = found.example
    if found.numbers.get("kind") not in ("TypeError", "AttributeError") or example is None:
        return found
    fields = {name: np.array(values) for name, values in example.inputs["group"].items()}
    case = GroupCase(Group(**fields), example.inputs.get("beta", 1.0))
    for library in load(names):
        try:
            library.score(subject, case)
        except LossError:
            continue
        text = (
            f"{found.text}; it takes arrays of {library.name} alone: the methods and operators "
            "that arrays of all libraries have would serve numpy, too"
        )
        return dataclasses.replace(found, text=text)
    return found


# --------------------------------------------------------------------------------- the check


def check_arrays(
    subject: Subject, rng: np.random.Generator, libraries: Sequence[Library]
) -> Iterator[Finding]:
    """The same numbers from numpy and every other library, and the dtype that was given."""
    sizes = sorted(subject.sizes, key=lambda size: size != 2)  # pairs first
    cases = [_draws.groups(rng, size, _draws.BETAS[1], subject.baseline) for size in sizes]
    case = cases[0]
    refusals, agreeing = {}, ["numpy"]
    wrong = _dtype_of_numpy(subject, case)
    for library in libraries:
        refusal = library.refusal(subject)
        if refusal is not None:
            refusals[library.name] = refusal
            continue
        differences = (_disagreement(subject, library, one) for one in cases)
        difference = next((found for found in differences if found is not None), None)
        if difference is not None:
            yield difference
            return
        wrong = wrong or _dtype_of(subject, library, case)
        agreeing.append(library.name)
    facts = {"agree": agreeing, "refuse": refusals}
    if wrong:
        yield Finding("arrays", FAULT, wrong, facts)
        return
    same = f"the same numbers from {' and '.join(agreeing[:2])}" + "".join(
        f" and {name}" for name in agreeing[2:]
    )
    if refusals:
        name, why = next(iter(refusals.items()))
        text = f"{same}; {name}: {why}" if len(agreeing) > 1 else f"numpy alone; {name}: {why}"
        yield Finding("arrays", PROPERTY, f"{text}; float32 stays float32", facts)
    elif not libraries:
        text = "float32 stays float32; other libraries were not asked"
        yield Finding("arrays", SKIPPED, text, facts)
    else:
        yield Finding("arrays", PASSED, f"{same}; float32 stays float32", facts)


def _disagreement(subject: Subject, library: Library, case: GroupCase) -> Finding | None:
    ours = Score(*map(np.asarray, subject.score(case.group, case.beta)))
    theirs = library.score(subject, case)
    for part in Score._fields:
        mine, other = getattr(ours, part), np.asarray(getattr(theirs, part))
        if not np.abs(mine - other).max() <= SAME * scale_of(mine):
            example = _smallest_difference(subject, library, case)
            text = f"numpy and {library.name} disagree: {example.seen}"
            return Finding("arrays", FAULT, text, {"library": library.name}, example)
    return None


def _smallest_difference(subject: Subject, library: Library, case: GroupCase) -> Example:
    def fails(candidate: GroupCase) -> bool:
        try:
            mine = subject.score(candidate.group, candidate.beta)
            other = library.score(subject, candidate)
        except LossError:
            return False
        both = [tuple(map(np.asarray, pair)) for pair in zip(mine, other, strict=True)]
        return max(np.abs(a - b).max() for a, b in both) > 1e-4 * scale_of(*mine)

    for index in np.ndindex(case.group.log_prob.shape[:-1]):
        if fails(case.one(index)):
            case = shrink_group(case.one(index), fails, subject.sizes, library.trials)
            break
    mine, other = subject.score(case.group, case.beta), library.score(subject, case)
    values = apart(mine.value, np.asarray(other.value))
    weights = apart(mine.weight, np.asarray(other.weight))
    seen = "value {} and {}, weight {} and {}".format(*values, *weights)
    return group_example(case, subject.hyper(case.beta), seen)


def _dtype_of_numpy(subject: Subject, case: GroupCase) -> str:
    found = ""
    for dtype in ("float64", "float32"):
        group = Group(*(None if f is None else f.astype(dtype) for f in case.group))
        found = found or _changed("numpy", subject.score(group, case.beta), dtype)
    return found


def _dtype_of(subject: Subject, library: Library, case: GroupCase) -> str:
    found = ""
    for dtype in ("float64", "float32"):
        found = found or _changed(library.name, library.score(subject, case, dtype), dtype)
    return found


def _changed(name: str, score: Score, given: str) -> str:
    for part, array in zip(Score._fields, score, strict=True):
        dtype = str(getattr(array, "dtype", type(array).__name__)).rpartition(".")[2]
        if dtype != given:
            return f"{part} is {dtype} for {name} arrays of {given}"
    return ""
