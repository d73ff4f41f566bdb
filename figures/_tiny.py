"""A transformer whose 216 outputs are listed, and exact training on it, as two scripts use it.

These scripts need torch (extra ``llm``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from bandit import Bandit, losses, pairs, plots, preferences, presets
from bandit.llm import TinyTransformer, as_bandit
from bandit.llm.exact import Exact, train_exact_together

SEED, BETA, LEARNING_RATE = 0, 0.5, 0.004
VOCABULARY, LENGTH = 6, 3
PROMPT = np.array([[0]])


def reference() -> TinyTransformer:
    """π_ref: initial weights, sharpened so that no two outputs are equally likely."""
    model = TinyTransformer(VOCABULARY, LENGTH, seed=SEED)
    with torch.no_grad():
        model.head.weight.mul_(1.5)
    return model


def problem(model: TinyTransformer, shift: float = 0.0) -> Bandit:
    """Normal rewards of the 216 outputs with mean 0 under π_ref, and ``shift`` added to all."""
    rewards = np.random.default_rng(SEED).normal(size=(1, VOCABULARY**LENGTH))
    base = as_bandit(model, rewards, BETA, PROMPT)
    return Bandit(rewards - base.expected_reward(base.reference) + shift, BETA, base.reference)


def behaviors(base: Bandit) -> dict[str, np.ndarray]:
    """Who writes the data: nobody in particular, or the reference."""
    return {"uniform": np.full(base.shape, 1 / base.n_arms), "reference": base.reference}


class Run(NamedTuple):
    """A method, whose data, and what is added to every reward."""

    method: str
    behavior: str
    shift: float = 0.0


def trained(runs: Sequence[Run], steps: int, every: int) -> pd.DataFrame:
    """KL(π‖π*) along exact full-batch training of a copy of the reference, a row a record."""
    torch.set_num_threads(1)
    model = reference()
    histories = train_exact_together(
        model,
        [exact(model, run) for run in runs],
        PROMPT,
        steps=steps,
        learning_rate=LEARNING_RATE,
        record_every=every,
    )
    return pd.concat(
        [
            pd.DataFrame(
                run._asdict() | {"step": history.steps, "kl": history.regret()[:, 0] / BETA}
            )
            for run, history in zip(runs, histories, strict=True)
        ]
    )


def exact(model: TinyTransformer, run: Run) -> Exact:
    """What is learned: loss, problem and data; exact preferences for a method that reads them."""
    base, method = problem(model, run.shift), presets.method(run.method)
    on_labels = "preference" in losses.traits(method.loss).requires
    return Exact(
        method.loss,
        base,
        pairs.independent(behaviors(base)[run.behavior]),
        preferences.bradley_terry(base.reward) if on_labels else None,
        method.baseline,
    )


def draw_curve(ax: plots.Axes, part: pd.DataFrame, name: str, **look: object) -> None:
    """One method's KL(π‖π*) against steps, in its look."""
    own = plots.look(name)
    style = {"color": own.color, "linestyle": own.linestyle, "label": presets.method(name).label}
    ax.plot(part.step, part.kl, **(style | look))
