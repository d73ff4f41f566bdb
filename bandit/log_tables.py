"""Learned and evaluated policies as text: for a terminal, as CSV and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from bandit.log_cases import Logged
from bandit.tables import aligned, number, numbers, plain

if TYPE_CHECKING:
    import pandas as pd

    from bandit.offline import Fit


def log_lines(logged: Logged) -> Iterator[str]:
    """What the log holds, and what was left out of it."""
    counts = logged.counts
    rows = len(counts)
    contexts = "no" if counts.context_labels == (None,) else str(counts.n_contexts)
    yield (
        f"{logged.name}: {rows} rows, {contexts} context{'s' * (contexts != '1')}, "
        f"{counts.n_arms} arm{'s' * (counts.n_arms != 1)}, "
        f"mean reward {number(float(counts.reward.sum()) / rows)}"
    )
    if counts.dropped:
        lost = ", ".join(f"{many} {reason}" for reason, many in counts.dropped.items())
        yield f"dropped {sum(counts.dropped.values())} bad rows: {lost}"


# Contexts whose arms are shown; more do not fit a screen.
MOST_CONTEXTS = 50


def top_text(fit: Fit, number_of_arms: int, stream: TextIO) -> str:
    """The likeliest arms of each context, of the first fifty if there are more."""
    arms = min(number_of_arms, len(fit.arm_labels))
    more = len(fit.context_labels) - MOST_CONTEXTS
    text = _top_table(fit.top(number_of_arms).iloc[: MOST_CONTEXTS * arms], stream)
    if more > 0:
        text += f"\nand {more} more contexts, which a table of --out has"
    return text


def _top_table(top: pd.DataFrame, stream: TextIO) -> str:
    columns: dict[str, Sequence[str]] = {}
    words = 1
    if not top["context"].isna().all():
        columns["context"] = [str(label) for label in top["context"]]
        words = 2
    columns["arm"] = [str(label) for label in top["arm"]]
    for name in ("probability", "reference", "reward"):
        columns[name] = numbers(top[name])
    columns["rows"] = [str(rows) for rows in top["rows"]]
    return aligned(columns, stream, words)


def estimates_text(table: pd.DataFrame, logged: Logged, level: float, stream: TextIO) -> str:
    """The table of :func:`bandit.ope.evaluate`, and below it how far the log can tell."""
    columns = {
        "estimate": list(table.index),
        "value": numbers(table["value"]),
        "std. error": numbers(table["standard_error"]),
        f"{100 * level:g}% from": numbers(table["low"]),
        "to": numbers(table["high"]),
    }
    first = table.iloc[0]
    lines = [aligned(columns, stream, words=1), ""]
    if logged.counts.inverse is None:
        lines.append("no propensities, so only a model of the reward can tell")
    else:
        size, most = first["effective_sample_size"], first["max_weight"]
        lines.append(
            f"effective sample size {size:.5g} of {len(logged.counts)} rows; largest weight "
            f"{'at most ' if logged.sums_only else ''}{most:.5g}"
        )
    lines.append(f"share of the policy's choices that no row shows: {number(first['unseen'])}")
    return "\n".join(lines)


def document(
    logged: Logged, table: pd.DataFrame, notes: Sequence[str], about: dict[str, Any]
) -> dict[str, Any]:
    """All that there is to tell, as plain values for JSON.

    Parameters
    ----------
    logged : Logged
    table : DataFrame
        Of :func:`bandit.ope.evaluate`.
    notes : sequence of str
        What to be wary of.
    about : dict
        What was asked for, first in the document.
    """
    counts = logged.counts
    return plain(
        {
            **about,
            "log": {
                "name": logged.name,
                "rows": len(counts),
                "contexts": counts.n_contexts,
                "arms": counts.n_arms,
                "total_reward": float(counts.reward.sum()),
                "propensities": counts.inverse is not None,
                "max_weight_is_a_bound": logged.sums_only,
                "dropped": dict(counts.dropped),
            },
            "estimates": table.reset_index().to_dict(orient="records"),
            "warnings": list(notes),
        }
    )


def as_json(document: dict[str, Any]) -> str:
    """Of plain values, null for what is not a number."""
    return json.dumps(document, indent=2, allow_nan=False)


def fit_line(fit: Fit, options: Any) -> str:
    """What was learned, with its settings."""
    reference = options.reference or "uniform"
    kl = number(fit.diagnostics.kl)
    return (
        f"{fit.method}, β = {fit.problem.beta:g}, π_ref {reference}, rewards {options.rewards}; "
        f"KL(π‖π_ref) = {kl} nats"
    )
