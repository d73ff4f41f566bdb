"""Learning curves on digits: how many logged pairs it takes to read handwriting.

Scikit-learn's 1,797 pictures of digits as a contextual bandit: ten arms, reward 1 for the arm that
names the digit. A log holds pairs of arms drawn uniformly for pictures of the training set; the
policy is a softmax of ten linear functions of the 64 gray levels, trained from the uniform
reference on batches of 64 of the logged pairs, all methods with β = 0.2 and the same draws. The
methods on preferences see which arm of a pair had the higher reward, ½ on a tie. Left: the
probability of the right digit on pictures held out; right: how often the likeliest arm is the right
one. Lines are means over five logs, bands span them. How sure of itself a policy becomes is set by
β, which means something else for each method: CoPG asks for 1/β nats between right and wrong, IPO
for half of that, and DPO, whose labels are never wrong here, for ever more. Four pairs of five hold
no right digit: they only say that both arms are equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from _save import options, save
from matplotlib.figure import Figure

from bandit import Adam, data, looks, plots, presets
from bandit.losses import Group
from bandit.problem import log_softmax

SEED = 0
BETA = 0.2
BATCH = 64
METHODS = ("copg", "ipo", "dpo", "reward_weighted")


def learn(method: str, logs: Sequence[data.Digits], pairs: int, steps: int) -> np.ndarray:
    """The policy (S, 1797, 10) after training on the first ``pairs`` pairs of S logs, together."""
    pictures = logs[0].features
    inputs = np.concatenate([pictures, np.ones((len(pictures), 1))], axis=-1)  # (X, D)
    x = np.stack([log.log.contexts[: 2 * pairs : 2] for log in logs])  # (S, N)
    arms = np.stack([log.log.arms[: 2 * pairs].reshape(-1, 2) for log in logs])  # (S, N, 2)
    rewards = np.stack([log.log.rewards[: 2 * pairs].reshape(-1, 2) for log in logs])
    loss, seeds = presets.method(method).loss, np.arange(len(logs))[:, None]
    theta = np.zeros((len(logs), inputs.shape[1], 10))
    update = Adam(0.03).start(theta.shape)
    rng = np.random.default_rng([SEED, pairs])
    for _ in range(steps):
        drawn = rng.integers(pairs, size=(len(logs), BATCH))
        batch = inputs[x[seeds, drawn]]  # (S, B, D)
        log_policy = log_softmax(batch @ theta)
        members, reward = arms[seeds, drawn], rewards[seeds, drawn]  # (S, B, 2)
        group = Group(
            log_prob=np.take_along_axis(log_policy, members, axis=-1),
            ref_log_prob=np.full(members.shape, -np.log(10)),
            reward=reward,
            preference=0.5 + 0.5 * np.sign(reward[..., 0] - reward[..., 1]),
        )
        weight = loss(group, beta=BETA).weight
        by_arm = (weight[..., None] * (members[..., None] == np.arange(10))).sum(axis=-2)
        slope = by_arm - np.exp(log_policy) * weight.sum(axis=-1, keepdims=True)
        update(theta, batch.swapaxes(-1, -2) @ slope / BATCH)
    return np.exp(log_softmax(inputs @ theta))


def curves(sizes: Sequence[int], seeds: int, steps: int) -> pd.DataFrame:
    """Accuracies on held-out pictures, a row per method, number of pairs and log."""
    streams = np.random.default_rng(SEED).spawn(seeds)
    logs = [data.digits(max(sizes), rng) for rng in streams]
    rows = []
    for method in METHODS:
        for pairs in sizes:
            policies = learn(method, logs, pairs, steps)
            for seed, (log, policy) in enumerate(zip(logs, policies, strict=True)):
                likeliest = np.eye(10)[policy.argmax(axis=-1)]
                right = (log.accuracy(policy), log.accuracy(likeliest))
                rows.append((method, pairs, seed, *right))
    return pd.DataFrame(rows, columns=["method", "pairs", "log", "accuracy", "likeliest"])


def draw(table: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(9.2, 4.3), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, column in zip(axes, ("accuracy", "likeliest"), strict=True):
        for name, part in table.groupby("method", sort=False):
            look, by = looks.look(name), part.groupby("pairs")[column]
            mean = by.mean()
            ax.fill_between(
                mean.index, by.min(), by.max(), color=look.color, alpha=0.2, linewidth=0
            )
            ax.plot(
                mean.index,
                mean,
                color=look.color,
                linestyle=look.linestyle,
                marker=look.marker,
                label=presets.method(name).label,
            )
        ax.axhline(0.1, color="0.3", linewidth=1, linestyle=":")
        ax.set_xscale("log")
        ax.set_xlabel("logged pairs of arms")
    axes[0].set_ylim(0, 1)
    axes[0].set_ylabel("share right, on pictures held out")
    axes[0].set_title(r"Drawn from the policy: $\beta$ decides")
    axes[1].set_title("Likeliest arm: all learn to read")
    handles = axes[0].get_legend_handles_labels()[0]
    handles += axes[0].plot([], [], color="0.3", linewidth=1, linestyle=":", label="chance")
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    how = options(__file__, __doc__, arguments)
    sizes = (30, 300) if how.quick else (30, 100, 300, 1000, 3000, 10_000)
    table = curves(sizes, 2 if how.quick else 5, 50 if how.quick else 250)
    with plots.style():
        figure = draw(table)
    save(figure, table, how, title="Learning curves on digits", seed=SEED)


if __name__ == "__main__":
    main()
