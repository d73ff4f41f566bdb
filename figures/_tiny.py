"""A transformer whose 216 outputs are listed, and exact training on it, as two scripts use it.

These scripts need torch (extra ``llm``).
"""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import torch

from bandit import Bandit, losses, pairs, plots, preferences, presets
from bandit.llm import TinyTransformer, as_bandit, train_exact

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


def trained(name: str, mu: str, steps: int, every: int, shift: float = 0.0) -> pd.DataFrame:
    """KL(π‖π*) along exact full-batch training of a copy of the reference, a row a record."""
    torch.set_num_threads(1)
    model = reference()
    base, method = problem(model, shift), presets.method(name)
    on_labels = "preference" in losses.traits(method.loss).requires
    history = train_exact(
        copy.deepcopy(model),
        method.loss,
        base,
        PROMPT,
        pairs.independent(behaviors(base)[mu]),
        preference=preferences.bradley_terry(base.reward) if on_labels else None,
        baseline=method.baseline,
        steps=steps,
        learning_rate=LEARNING_RATE,
        record_every=every,
    )
    distance = history.regret()[:, 0] / BETA
    return pd.DataFrame(
        {"method": name, "behavior": mu, "shift": shift, "step": history.steps, "kl": distance}
    )


def draw_curve(ax: plots.Axes, part: pd.DataFrame, name: str, **look: object) -> None:
    """One method's KL(π‖π*) against steps, in its look."""
    own = plots.look(name)
    style = {"color": own.color, "linestyle": own.linestyle, "label": presets.method(name).label}
    ax.plot(part.step, part.kl, **(style | look))
