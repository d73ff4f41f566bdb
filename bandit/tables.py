"""Results as text: for a terminal, as CSV and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import ArrayLike

from bandit._checks import Array
from bandit.cases import Case

if TYPE_CHECKING:
    import pandas as pd

# Numbers below this are rounding, and differ between machines.
NOISE = 1e-12
MOST_SHOWN = 6

_ASCII = str.maketrans(
    {"π": "pi", "β": "beta", "μ": "mu", "‖": "||", "≻": ">", "–": "-", "…": "...", "ν": "nu"}
    | {"∇": "grad ", "−": "-", "°": " degrees", "²": "^2"}
)

# --------------------------------------------------------------------------------- compare


def comparison_text(case: Case, table: pd.DataFrame, stream: TextIO) -> str:
    """The table of :func:`bandit.analysis.compare` to read, with what did not converge below."""
    solved = table["converged"]
    columns = {
        "method": list(table.index),
        "solution": [
            probabilities(policy) if known else "none*"
            for policy, known in zip(table["policy"], solved, strict=True)
        ],
        "KL(π‖π*)": computed(table["kl_to_optimal"]),
        "regret": computed(table["regret"]),
        "slowest eig.": computed(table["slowest_eigenvalue"]),
        "var. at π_ref": computed(table["variance_at_reference"]),
        "var. at solution": computed(table["variance_at_solution"]),
    }
    notes = footnotes(table["message"][~solved].to_dict())
    return "\n".join([*heading(case), "", aligned(columns, stream), *notes])


def comparison_csv(case: Case, table: pd.DataFrame) -> str:
    """The same in full precision, the policy spread over columns pi_0, pi_1, …."""
    flat = table.drop(columns="policy")
    for arm in range(case.problem.n_arms):
        flat.insert(arm, f"pi_{arm}", [policy[arm] for policy in table["policy"]])
    return flat.to_csv(lineterminator="\n").rstrip("\n")


def comparison_json(case: Case, table: pd.DataFrame) -> str:
    """The same with the problem beside it; null for what is not a number."""
    problem = case.problem
    records = table.reset_index().to_dict(orient="records")
    document = {
        "reward": problem.reward,
        "beta": problem.beta,
        "reference": problem.reference,
        "behavior": case.behavior,
        "preferences": case.judged_by,
        "optimal_policy": problem.optimal_policy(),
        "optimal_value": problem.optimal_value(),
        "methods": records,
    }
    return json.dumps(plain(document), indent=2, allow_nan=False)


def plain(value: Any) -> Any:
    """As JSON has it: lists for arrays, null for what is not a finite number."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


# ----------------------------------------------------------------------------------- train


def curves_text(
    steps: Array,
    regret: Mapping[str, Array],
    exact: Mapping[str, float],
    notes: Mapping[str, str],
    stream: TextIO,
) -> str:
    """Median over runs of the regret (T, runs) at a few steps, beside that of the exact solutions.

    Without ``exact`` there is no last column; ``notes`` says for some methods why it is empty.
    """
    shown = _few(np.asarray(steps))
    columns: dict[str, Sequence[str]] = {"method": list(regret)}
    for place, at in enumerate(shown):
        head = f"step {steps[at]}" if place == 0 else f"{steps[at]}"
        # A training that was cut short has fewer records.
        columns[head] = numbers(
            [np.median(runs[at]) if at < len(runs) else np.nan for runs in regret.values()]
        )
    if exact:
        columns["exact solution"] = [
            number(exact[name]) + ("*" if name in notes else "") for name in regret
        ]
    kept = {name: note for name, note in notes.items() if name in regret}
    return "\n".join([aligned(columns, stream, words=1), *footnotes(kept)])


def _few(steps: Array, most: int = 7) -> list[int]:
    """Places of the first record and the last, and of some between them at even ratios of steps."""
    if len(steps) < 3:
        return list(range(len(steps)))
    wanted = np.geomspace(steps[1], steps[-1], most - 1)
    places = np.abs(steps[:, None] - wanted).argmin(axis=0)
    return sorted({0, *places.tolist()})


# ---------------------------------------------------------------------------- common parts


def heading(case: Case) -> Iterator[str]:
    """The problem and its optimum, in three lines."""
    problem = case.problem
    reference = probabilities(problem.reference)
    yield f"reward r = {vector(problem.reward)}, β = {problem.beta:g}, π_ref = {reference}"
    drawn = "arms drawn on-policy"
    if case.behavior is not None:
        drawn = f"arms drawn from μ = {probabilities(case.behavior)}"
    yield drawn + (f", preferences {case.judged_by}" if case.judged_by else "")
    best = probabilities(problem.optimal_policy())
    yield f"optimal π* = {best}, J(π*) = {problem.optimal_value():.6g}"


def number(x: float) -> str:
    """Four significant digits; a dash for NaN, and a bound for what is nothing but rounding."""
    if np.isnan(x):
        return "–"
    return f"< {NOISE:.0e}" if 0 < abs(x) < NOISE else f"{x:.4g}"


def numbers(column: Any) -> list[str]:
    """Each as :func:`number` has it."""
    return [number(x) for x in column]


def computed(column: Any) -> list[str]:
    """The same for what is never zero but by rounding: whether it is exactly so, is luck."""
    return [f"< {NOISE:.0e}" if abs(x) < NOISE else number(x) for x in column]


def vector(values: ArrayLike) -> str:
    """(2.5, 2, 1, …): the first few of any numbers."""
    return _listed([f"{x:.4g}" for x in np.asarray(values)[:MOST_SHOWN]], np.size(values))


def probabilities(values: ArrayLike) -> str:
    """(0.7054, 0.2595, 2.1e-06, …): four decimals, or the size of what they cannot show."""
    shown = [
        f"{p:.4f}" if p >= 5e-5 or p == 0 else f"{p:.1e}" for p in np.asarray(values)[:MOST_SHOWN]
    ]
    return _listed(shown, np.size(values))


def _listed(shown: list[str], size: int) -> str:
    return "(" + ", ".join([*shown, "…"] if size > len(shown) else shown) + ")"


def aligned(columns: Mapping[str, Sequence[str]], stream: TextIO, words: int = 2) -> str:
    """A table for ``stream``: the first ``words`` columns to the left, numbers to the right."""
    cells = [
        [printable(on_one_line(cell), stream) for cell in (name, *column)]
        for name, column in columns.items()
    ]
    widths = [max(map(len, column)) for column in cells]
    lines = []
    for row in zip(*cells, strict=True):
        padded = [
            cell.ljust(width) if place < words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def footnotes(notes: Mapping[str, str]) -> Iterator[str]:
    """A line for each, the first after an empty one."""
    for place, (name, text) in enumerate(notes.items()):
        yield ("\n" if place == 0 else "") + f"* {name}: {text}"


def on_one_line(text: str) -> str:
    """``text`` with escapes for line breaks and whatever else a terminal would act upon."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def printable(text: str, stream: TextIO) -> str:
    """``text`` as the stream can show it: Greek letters are spelled out where they cannot be."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_ASCII)
        return text.encode(encoding, errors="replace").decode(encoding)
    return text
