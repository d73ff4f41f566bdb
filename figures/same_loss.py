"""One text, two array libraries: the weights of every loss from numpy and from torch.

Twelve random groups (pairs, with rewards, preference, behavior and baseline; β = 0.5). Rings: the
weight of every completion, ∂ value/∂ ln π with the method's constants held, as the function in
``bandit.losses`` returns it for numpy arrays: what trains a table of probabilities. Dots: what
torch's automatic differentiation makes of the *value* that the same function returns for torch
tensors: what would train a language model. On the right the largest difference relative to the
largest weight, in double precision, and the same with torch in single precision.

Needs torch (extra ``llm``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from _save import options, save
from matplotlib.figure import Figure

from bandit import Bandit, groups, losses, plots, presets

SEED, GROUPS, BETA = 0, 12, 0.5


def group() -> dict[str, np.ndarray]:
    """Fields of the groups, (12, 2) and (12,)."""
    rng = np.random.default_rng(SEED)
    reference, behavior = rng.normal(-3, 1, size=(2, GROUPS, 2))
    return {
        "log_prob": reference + rng.normal(0, 0.7, size=(GROUPS, 2)),
        "ref_log_prob": reference,
        "reward": rng.normal(0.5, 1, size=(GROUPS, 2)),
        "preference": rng.random(GROUPS),
        "behavior_log_prob": behavior,
        "baseline": rng.normal(0.5, 0.5, size=GROUPS),
    }


def bound(name: str) -> tuple[Callable, list[str]]:
    """The method's loss with its hyper-parameters, and the fields it reads."""
    method = presets.method(name)
    loss = groups.bind(method.loss, Bandit([0.0, 0.0], beta=BETA), method.baseline)
    fields = ["log_prob", "ref_log_prob", *sorted(losses.traits(loss).requires - {"log_prob"})]
    if method.baseline is not None:
        fields.append("baseline")
    return loss, list(dict.fromkeys(fields))


def weights(name: str) -> pd.DataFrame:
    """A row a completion: its weight from numpy, from torch, and from torch in single precision."""
    data, (loss, fields) = group(), bound(name)
    columns = {"numpy": loss(losses.Group(**{f: data[f] for f in fields})).weight.ravel()}
    for column, dtype in (("torch", torch.float64), ("torch_single", torch.float32)):
        tensors = {f: torch.tensor(data[f], dtype=dtype) for f in fields}
        tensors["log_prob"].requires_grad_()
        loss(losses.Group(**tensors)).value.sum().backward()
        columns[column] = tensors["log_prob"].grad.double().numpy().ravel()
    return pd.DataFrame(columns).assign(method=name)


def draw(numbers: pd.DataFrame) -> Figure:
    """A line for each method."""
    figure = Figure(figsize=(7.8, 5.6))
    ax = figure.subplots()
    heads = {1.03: "double", 1.17: "single"}
    for x, head in heads.items():
        ax.text(x, 1.01, head, transform=ax.transAxes, fontsize="small")
    ax.text(1.03, 1.055, "largest difference", transform=ax.transAxes, fontweight="bold")
    for i, (name, part) in enumerate(numbers.groupby("method", sort=False)):
        own, height = plots.look(name), np.full(len(part), -i)
        ring = {"facecolors": "none", "edgecolors": own.color, "s": 46, "linewidths": 0.9}
        ax.scatter(part.numpy, height, **ring)
        ax.scatter(part.torch, height, color=own.color, s=7, linewidths=0)
        for x, column in zip(heads, ("torch", "torch_single"), strict=True):
            difference = (part[column] - part.numpy).abs().max() / part.numpy.abs().max()
            ax.text(
                x,
                -i,
                f"{difference:.0e}" if difference else "0",
                transform=ax.get_yaxis_transform(),
                fontsize="small",
                va="center",
            )
    names = list(numbers.method.unique())
    ax.set_yticks(-np.arange(len(names)), [presets.method(n).label for n in names])
    ax.set_xscale("symlog", linthresh=2)
    ax.set(xlabel="weight of a completion", title="Weights: from numpy (rings) and torch (dots)")
    ax.margins(x=0.04)
    ax.set_xticks([-10, -2, -1, 0, 1, 2, 10], ["−10", "−2", "−1", "0", "1", "2", "10"])
    ax.minorticks_off()
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    numbers = pd.concat([weights(name) for name in presets.METHODS])
    with plots.style():
        figure = draw(numbers)
    # Rounding differs by machine, and with it these differences; the weights do not.
    save(figure, numbers, how, title="Weights of every loss from numpy and torch", seed=SEED)


if __name__ == "__main__":
    main()
