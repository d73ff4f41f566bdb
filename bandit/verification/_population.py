r"""What a loss does in expectation, exactly: is its update the policy gradient, where does it come
to rest, how fast, and with what variance. All numbers are :mod:`bandit.analysis`'s.

The ascent direction of J on the logits is :math:`\rho(x)\,\pi(R_\beta - \mathbb{E}_\pi R_\beta)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from bandit import analysis, losses, pairs, presets
from bandit._checks import Array
from bandit.problem import log_softmax
from bandit.tables import number
from bandit.verification._examples import ProblemCase, policy_example, shrink_problem
from bandit.verification._report import PROPERTY, SKIPPED, Finding
from bandit.verification._subject import Subject

PROPORTIONAL = 1e-8
# A variance below this, relative to the squared mean, is rounding.
ROUNDING = 1e-12
OUR = ProblemCase(
    reward=presets.three_armed_bandit().reward,
    beta=presets.three_armed_bandit().beta,
    reference=presets.three_armed_bandit().reference,
    mu=presets.three_armed_behavior(),
    other=presets.three_armed_behavior()[::-1],
    logits=presets.three_armed_bandit().log_reference,
)


def ascent(case: ProblemCase) -> Array:
    """∇J by the logits of the case's policy, ([X,] K)."""
    problem = case.problem
    log_policy = log_softmax(case.logits)
    policy = np.exp(log_policy)
    regularized = case.reward - case.beta * (log_policy - problem.log_reference)
    gradient = policy * (regularized - (policy * regularized).sum(axis=-1, keepdims=True))
    weights = problem.context_weights
    return gradient if weights is None else weights[:, None] * gradient


def update(subject: Subject, case: ProblemCase, size: int) -> Array:
    """The expected descent direction on-policy with groups of ``size``, ([X,] K)."""
    policy = np.exp(log_softmax(case.logits))
    _, gradient = analysis.population(
        case.problem,
        subject.loss,
        case.logits,
        pairs.independent(policy),
        group_size=size,
        **subject.data(case.preference),
    )
    return -gradient


def _angle(one: Array, two: Array) -> tuple[float, float]:
    """The best f with one = f · two, and the sine of the angle between their lines."""
    size = np.sqrt((two**2).sum())
    if not size > 0:
        return 0.0, 1.0
    factor = float((one * two).sum() / size**2)
    left = np.sqrt(((one - factor * two) ** 2).sum()) / max(np.sqrt((one**2).sum()), 1e-300)
    return factor, float(left)


# ---------------------------------------------------------------------------------- on-policy


def check_on_policy(
    subject: Subject, rng: np.random.Generator, cases: Sequence[ProblemCase]
) -> Iterator[Finding]:
    """Is the expected update on-policy a multiple of ∇J, and which?"""
    sizes = [size for size in subject.sizes if size <= 3]
    factors: dict[int, dict[float, float]] = {size: {} for size in sizes}
    worst, where = 0.0, (cases[0], 2)
    for case in cases:
        for size in sizes:
            found, gradient = update(subject, case, size), ascent(case)
            if not np.isfinite(found).all():
                text = f"the expected update with groups of {size} is not finite"
                yield Finding("on_policy", PROPERTY, text, {"proportional": False})
                return
            if np.abs(found).max() <= 1e-12 * np.abs(gradient).max():
                continue
            factors[size][case.beta], left = _angle(found, gradient)
            if left > worst:
                worst, where = left, (case, size)
    factors = {size: by_beta for size, by_beta in factors.items() if by_beta}
    if not factors:
        text = "the expected update is 0: on-policy it does not learn"
        facts: dict[str, Any] = {"proportional": True, "factor": "0"}
        yield Finding("on_policy", PROPERTY, text, facts)
    elif worst > PROPORTIONAL:
        yield _not_proportional(subject, *where, worst)
    else:
        yield _proportional(factors)


def _not_proportional(subject: Subject, case: ProblemCase, size: int, worst: float) -> Finding:
    def fails(candidate: ProblemCase) -> bool:
        found, gradient = update(subject, candidate, size), ascent(candidate)
        return bool(np.isfinite(found).all()) and _angle(found, gradient)[1] > min(0.1, worst / 2)

    case = shrink_problem(case, fails, budget=60)
    found, gradient = update(subject, case, size), ascent(case)
    _, left = _angle(found, gradient)
    turned = math.degrees(math.asin(min(left, 1.0)))
    turned = turned if (found * gradient).sum() >= 0 else 180 - turned
    seen = f"with groups of {size} it points {turned:.1f}° away from ∇J"
    text = f"the expected update is not proportional to ∇J: at the example, {seen}"
    facts = {"proportional": False, "degrees": round(turned, 4)}
    return Finding(
        "on_policy", PROPERTY, text, facts, policy_example(case, size, seen, *subject.data_names)
    )


def _proportional(factors: dict[int, dict[float, float]]) -> Finding:
    formula = _formula(factors)
    listed = {
        f"G={size}, beta={beta:g}": round(factor, 6)
        for size, by_beta in factors.items()
        for beta, factor in by_beta.items()
    }
    facts = {"proportional": True, "factor": formula, "factors": listed}
    if formula is None:
        text = "the expected update is along ∇J, by a factor that differs from problem to problem"
        return Finding("on_policy", PROPERTY, text, facts)
    values = [f for by_beta in factors.values() for f in by_beta.values()]
    away = " (it descends J)" if min(values) < 0 else ""
    return Finding("on_policy", PROPERTY, f"the expected update is {formula} ∇J{away}", facts)


def _formula(factors: dict[int, dict[float, float]]) -> str | None:
    """The factor as c · f(G) · β^k, if it is that for every size and β."""
    by_size = SHAPES if len(factors) > 1 else SHAPES[:1]
    for name, of_size in by_size:
        for power in (0, 1, -1, 2, -2):
            ratios = [
                factor / (of_size(size) * beta**power)
                for size, by_beta in factors.items()
                for beta, factor in by_beta.items()
                if of_size(size) != 0
            ]
            if max(ratios) - min(ratios) <= 1e-6 * max(map(abs, ratios)):
                return _written(round(ratios[0], 6), name, power)
    return None


# Of the group size, the first that fits; with groups of one size there is nothing to tell.
SHAPES: tuple[tuple[str, Callable[[int], float]], ...] = (
    ("", lambda g: 1.0),
    ("G", lambda g: float(g)),
    ("(G−1)", lambda g: g - 1.0),
    ("1/G", lambda g: 1.0 / g),
    ("(G−1)/G", lambda g: (g - 1.0) / g),
)
POWERS = {0: "", 1: "β", 2: "β²", -1: "1/β", -2: "1/β²"}


def _written(constant: float, by_size: str, power: int) -> str:
    """A product, its denominators last: 2β, G/β."""
    above, below = "", ""
    for factor in (by_size, POWERS[power]):
        over, _, under = factor.partition("/")
        above += "" if over == "1" else over
        below += f"/{under}" if under else ""
    shown = f"{abs(constant):.6g}"
    shown = above if shown == "1" and above else shown + above
    return ("−" if constant < 0 else "") + shown + below


# ----------------------------------------------------------------------------------- variance


def noise(loss: Any, case: ProblemCase, data: dict[str, Any]) -> float:
    """trace Cov / ‖mean‖² of the gradient of one pair drawn by μ, at the reference."""
    arguments = (case.problem, loss, case.problem.log_reference, pairs.independent(case.mu))
    mean = analysis.population(*arguments, **data)[1]
    weights = case.problem.context_weights
    if weights is not None:  # the variance is of a context's gradient, the mean carries its weight
        mean = mean / np.sqrt(weights)[:, None]
    with np.errstate(all="ignore"):
        variance = np.float64(analysis.gradient_variance(*arguments, **data))
        ratio = float(variance / (mean**2).sum())
        return 0.0 if ratio < ROUNDING else ratio


def check_variance(
    subject: Subject, rng: np.random.Generator, cases: Sequence[ProblemCase]
) -> Iterator[Finding]:
    """The noise of one pair's gradient, in units of its mean, next to CoPG's on the same data."""
    if 2 not in subject.sizes:
        yield Finding("variance", SKIPPED, "it takes no pairs to compare with CoPG's")
        return
    found = []
    for case in (OUR, *cases):
        mine = noise(subject.loss, case, subject.data(case.preference))
        theirs = noise(losses.copg, case, {})
        found.append((mine, theirs))
    if not np.isfinite(found[0]).all():
        text = (
            "at the reference of our three-armed bandit its expected gradient is 0, or not finite: "
            "there is no signal to compare the noise with"
        )
        yield Finding("variance", PROPERTY, text, {"noise": None})
        return
    ratios = [mine / theirs for mine, theirs in found if np.isfinite(mine)]
    mute = len(found) - len(ratios)
    facts = {
        "noise": rounded(found[0][0]),
        "copg": rounded(found[0][1]),
        "least_ratio": rounded(min(ratios)),
        "greatest_ratio": rounded(max(ratios)),
    }
    text = (
        f"variance of a pair's gradient over its squared mean, at the reference of our "
        f"three-armed bandit: {number(found[0][0])}, CoPG's {number(found[0][1])}"
    )
    if max(ratios) - min(ratios) <= 1e-6 * max(ratios):
        same = abs(ratios[0] - 1) < 1e-6
        text += "; the same on all problems" if same else f"; {ratios[0]:.3g} times CoPG's on all"
    else:
        text += f"; {min(ratios):.3g} to {max(ratios):.3g} times CoPG's on all problems"
    if mute:
        text += f" but {mute}, where its expected gradient is 0 or its variance infinite"
    yield Finding("variance", PROPERTY, text, facts)


def rounded(x: float) -> float | None:
    """Six digits, the same on every machine; None for what is not finite."""
    return float(f"{x:.6g}") if np.isfinite(x) else None
