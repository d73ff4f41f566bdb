"""Learned policies as tables and files: ``policy.csv`` and ``report.json``, without pickle."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import math
import os
import tempfile
import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bandit import _checks
from bandit._checks import Array
from bandit.data.counts import SUMS, Counts, Labels
from bandit.data.log import Data, counts_of
from bandit.problem import Bandit

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
POLICY, REPORT = "policy.csv", "report.json"
COLUMNS = ("probability", "reference", "reward")


Fields = Mapping[str, Any]
"""Those of a :class:`bandit.offline.Fit`, by name."""


def table(fit: Fields) -> pd.DataFrame:
    """One row per context and arm."""
    import pandas as pd

    policy, problem, counts = fit["policy"], fit["problem"], fit["counts"]
    contexts, arms = policy.shape
    columns: dict[str, Any] = {
        "context": [label for label in fit["context_labels"] for _ in range(arms)],
        "arm": list(fit["arm_labels"]) * contexts,
        "probability": policy.ravel(),
        "reference": problem.reference.ravel(),
        "reward": problem.reward.ravel(),
    }
    if counts is not None:
        columns["rows"] = np.round(counts.n.ravel()).astype(np.int64)
    return pd.DataFrame(columns)


def arms_beyond(data: Data, known: Labels) -> Labels:
    """The arms of ``data`` that are not known, with a warning that says how often they came."""
    counts = counts_of(data)
    place = {label: at for at, label in enumerate(counts.arm_labels)}
    new = tuple(label for label in place if label not in set(known))
    if new:
        rows = counts.n[:, [place[label] for label in new]].sum()
        warnings.warn(
            f"data: the policy does not know {len(new)} of {len(place)} arms and never plays them, "
            f"such as {new[0]!r}; they were logged in {rows:g} of {len(counts)} rows",
            UserWarning,
            stacklevel=3,
        )
    return new


def aligned(
    data: Data, context_labels: Sequence[Hashable], arm_labels: Sequence[Hashable]
) -> Counts:
    """The counts of ``data`` with these contexts and arms, in their order, zeros where it has none.

    Raises
    ------
    ValueError
        If it has a context or arm with another label.
    """
    counts = counts_of(data)
    if (counts.context_labels, counts.arm_labels) == (tuple(context_labels), tuple(arm_labels)):
        return counts
    order = []
    for kind, known, mine in (
        ("context", context_labels, counts.context_labels),
        ("arm", arm_labels, counts.arm_labels),
    ):
        place = {label: i for i, label in enumerate(known)}
        strange = [label for label in mine if label not in place]
        if strange:
            raise ValueError(
                f"data: expected {kind}s that the policy knows, got {kind} {strange[0]!r}"
            )
        order.append([place[label] for label in mine])
    sums: dict[str, Any] = {}
    for name in SUMS:
        given = getattr(counts, name)
        if given is not None:
            wide = np.zeros((len(context_labels), len(arm_labels)))
            wide[np.ix_(*order)] = given
            sums[name] = wide
    return Counts(
        **sums,
        context_labels=tuple(context_labels),
        arm_labels=tuple(arm_labels),
        dropped=counts.dropped,
    )


# ------------------------------------------------------------------------------------------ files


def save(fit: Fields, folder: str | os.PathLike[str]) -> None:
    """Write both files, the report last: it knows the table's fingerprint."""
    import bandit

    where = Path(folder)
    frame = table(fit)
    text = frame.to_csv(index=False, lineterminator="\n", float_format="%.17g")
    problem, theta = fit["problem"], fit["theta"]
    weights = problem.context_weights
    report = {
        "format": FORMAT,
        "version": bandit.__version__,
        "method": fit["method"],
        "beta": problem.beta,
        "context_labels": _plain("context_labels", fit["context_labels"]),
        "arm_labels": _plain("arm_labels", fit["arm_labels"]),
        "context_weights": None if weights is None else weights.tolist(),
        "theta": None if theta is None else theta.tolist(),
        "diagnostics": _jsonable(dataclasses.asdict(fit["diagnostics"])),
        "policy_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    where.mkdir(parents=True, exist_ok=True)
    _write(where / POLICY, text)
    _write(where / REPORT, json.dumps(report, indent=1, allow_nan=False) + "\n")


def _write(path: Path, text: str) -> None:
    """All of it or nothing: a reader never sees half a file."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def _plain(name: str, labels: Sequence[Any]) -> list[Any]:
    plain = [label.item() if isinstance(label, np.generic) else label for label in labels]
    for label in plain:
        if not (label is None or isinstance(label, (str, int, float, bool))):
            raise TypeError(
                f"{name}: expected strings, numbers, booleans or None to save, "
                f"got {type(label).__name__}"
            )
    return plain


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def load(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields that :func:`save` wrote, with the diagnostics as a dictionary."""
    where = Path(folder)
    try:
        text = (where / POLICY).read_bytes()
        report = json.loads((where / REPORT).read_text(encoding="utf-8"))
        version = int(report["format"])
        if version <= FORMAT:
            if hashlib.sha256(text).hexdigest() != report["policy_sha256"]:
                raise ValueError("the two files are not of the same fit")
            return _fields(text.decode("utf-8"), report)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"folder: expected {POLICY} and {REPORT} written by Fit.save in {where}, got {error}"
        ) from error
    raise ValueError(f"folder: expected format {FORMAT} or lower, got {version}")


def _fields(text: str, report: dict[str, Any]) -> dict[str, Any]:
    contexts, arms = tuple(report["context_labels"]), tuple(report["arm_labels"])
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    policy, reference, reward = (
        np.array([float(row[name]) for row in rows]).reshape(len(contexts), len(arms))
        for name in COLUMNS
    )
    given = report["diagnostics"]
    numbers = ("effective_sample_size", "max_weight", "kl", "value", "reference_value")
    return {
        "policy": _checks.read_only(policy),
        "problem": Bandit(reward, report["beta"], reference, report["context_weights"]),
        "method": report["method"],
        "context_labels": contexts,
        "arm_labels": arms,
        "theta": None if report["theta"] is None else _array(report["theta"]),
        "diagnostics": {
            **given,
            **{name: float(given[name]) for name in numbers},
            "unseen": tuple(tuple(part) for part in given["unseen"]),
            "components": tuple(tuple(map(tuple, parts)) for parts in given["components"]),
            "warnings": tuple(given["warnings"]),
        },
    }


def _array(values: Any) -> Array:
    return np.asarray(values, dtype=np.float64)
