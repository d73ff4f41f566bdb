"""The examiner: what an objective of one's own does, and whether it keeps the contract of
:mod:`bandit.losses`.

``bandit.verify(loss)`` from Python, ``python -m bandit verify module:function`` from a terminal.
Every check is explained in the documentation, page *Verify an objective*.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from bandit import _checks
from bandit.losses import Loss
from bandit.verification import (
    _draws,
    _extremes,
    _forms,
    _gradient,
    _libraries,
    _population,
    _promises,
    _solutions,
)
from bandit.verification._report import FAULT, SKIPPED, Example, Finding, Report
from bandit.verification._subject import LossError, Subject

__all__ = ["CHECKS", "Example", "Finding", "Report", "verify"]

CHECKS = (
    "returns batch gradient reads traits arrays extremes reward_shift log_ratio_shift on_policy "
    "existence optimality behavior stability variance"
).split()
"""The checks, in the order of a report."""

LEVELS = {"full": 5, "quick": 3}  # and how many problems each solves


def verify(
    loss: Loss | str,
    *,
    level: str = "full",
    rng: np.random.Generator | int = 0,
    baseline: str | None = None,
    libraries: Sequence[str] | None = None,
) -> Report:
    r"""Examine an objective: is it what it says, and what does it do.

    On random groups: whether ``weight`` is the gradient of ``value`` (central differences, and
    automatic differentiation by torch or JAX), whether its traits are true, how it takes shifts,
    other arrays and extreme values. On random problems (uneven references, contexts, off-policy
    pairs), exactly: whether its expected update is a multiple of :math:`\nabla J` on-policy,
    whether it has a solution off-policy, whether that is π\*, depends on the behavior and is
    stable, and the variance next to CoPG's.

    Parameters
    ----------
    loss : callable or str
        A function of a group and of keywords that returns a Score, with traits or without.
        ``beta`` and ``eta`` = 1/β are filled in, other keywords need defaults or to be bound with
        :func:`functools.partial`. Or the name of a shipped one.
    level : {"full", "quick"}
        ``quick``: fewer problems, and no other array library.
    rng : Generator or int
        For groups and problems. The same seed gives the same report.
    baseline : {"value", "behavior", "reward", "optimal"}, optional
        What ``group.baseline`` is, as in :func:`bandit.analysis.population`. Default: that of its
        preset for a shipped loss; ``value`` for one that does without none; else none.
    libraries : sequence of {"torch", "jax"}, optional
        To compare numpy with. Default: those installed.

    Returns
    -------
    Report
        Printed, a table. Findings are of kind ``passed``, ``fault`` (the contract is broken),
        ``property`` (a fact about the method) or ``skipped`` (with the reason), with the smallest
        counterexample found. ``report.ok`` tells whether there is no fault.

    Raises
    ------
    TypeError, ValueError
        If ``loss`` is not such a function, or an argument is not one of those listed. Whatever
        ``loss`` itself raises becomes a finding.

    Examples
    --------
    >>> import bandit
    >>> report = bandit.verify("ipo", level="quick")
    >>> report.ok, report["behavior"].numbers["depends"]
    (True, True)
    """
    _checks.one_of("level", level, LEVELS)
    seed = None if isinstance(rng, np.random.Generator) else rng
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, (int, np.integer))):
        raise TypeError(f"rng: expected a Generator or an integer, got {type(seed).__name__}")
    if seed is not None and seed < 0:
        raise ValueError(f"rng: expected a seed of at least 0, got {seed}")
    subject = Subject(loss, baseline)
    names = _asked_for(level, libraries)
    with warnings.catch_warnings():
        # What a loss warns of on its way to a number shows in the number.
        warnings.simplefilter("ignore")
        findings = list(_examine(subject, level, np.random.default_rng(rng), names))
        changed = _forms.changed_since(subject)
        if changed is not None:
            findings[0] = changed
    seed = None if seed is None else int(seed)
    return Report(subject.name, tuple(findings), level, seed, subject.baseline)


def _asked_for(level: str, asked: Sequence[str] | None) -> list[str]:
    if asked is None:
        return list(_libraries.installed()) if level == "full" else []
    if isinstance(asked, str):
        raise TypeError(f"libraries: expected a sequence of names, got {asked!r}")
    for name in asked:
        _checks.one_of("libraries", name, _libraries.KNOWN)
        if name not in _libraries.installed():
            raise ValueError(f"libraries: expected installed ones, got {name!r}, which is not")
    return list(asked)


def _examine(
    subject: Subject, level: str, rng: np.random.Generator, names: Sequence[str]
) -> Iterator[Finding]:
    # A stream for each check: one that is skipped does not change what the others draw.
    streams = dict(zip([*CHECKS, "problems"], rng.spawn(len(CHECKS) + 1), strict=True))
    found = _guarded("returns", lambda: _forms.check_returns(subject, streams["returns"]))
    if not subject.sizes:
        yield from (_libraries.elsewhere(subject, one, names) for one in found)
        for name in CHECKS[1:]:
            yield Finding(name, SKIPPED, "not judged, as it does not return what it should")
        return
    yield from found
    others = _libraries.load(names)
    cases = _draws.problems(streams["problems"], LEVELS[level])
    steps: dict[str, Callable[[], Iterable[Finding]]] = {
        "batch": lambda: _forms.check_batch(subject, streams["batch"]),
        "gradient": lambda: _gradient.check_gradient(subject, streams["gradient"], others),
        "reads": lambda: _promises.check_reads(subject, streams["reads"]),
        "traits": lambda: _promises.check_traits(subject, streams["traits"]),
        "arrays": lambda: _libraries.check_arrays(subject, streams["arrays"], others),
        "extremes": lambda: _extremes.check_extremes(subject, streams["extremes"]),
        "reward_shift": lambda: _promises.check_reward_shift(subject, streams["reward_shift"]),
        "log_ratio_shift": lambda: _promises.check_log_ratio_shift(
            subject, streams["log_ratio_shift"]
        ),
        "on_policy": lambda: _population.check_on_policy(subject, streams["on_policy"], cases),
        "existence": lambda: _solutions.check_solutions(subject, cases),
        "variance": lambda: _population.check_variance(subject, streams["variance"], cases),
    }
    batches = True
    for name, step in steps.items():
        if name in EXACT and not batches:
            for check in EXACT[name]:
                yield Finding(check, SKIPPED, "not judged, as the exact analysis needs batches")
            continue
        found = _guarded(name, step)
        batches = batches and not (name == "batch" and found[-1].kind == FAULT)
        yield from found


# The exact analysis looks at many groups, and often at many policies, in one call.
EXACT = {
    "on_policy": ["on_policy"],
    "existence": ["existence", "optimality", "behavior", "stability"],
    "variance": ["variance"],
}


def _guarded(check: str, step: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """A check's findings; what the loss raises on the way is one, too."""
    try:
        return list(step())
    except LossError as trouble:
        return [Finding(check, FAULT, trouble.text, {"kind": trouble.kind})]
    except (ArithmeticError, ValueError) as error:
        # LinAlgError is a ValueError: numbers from a loss may be more than an algorithm takes.
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        if check == "returns":  # nothing is known of a loss that was not even asked
            return [Finding(check, FAULT, f"it could not be examined: {why}")]
        return [Finding(check, SKIPPED, f"the exact analysis gave up: {why}")]
