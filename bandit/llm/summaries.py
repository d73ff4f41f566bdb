"""Learning to summarize in miniature: the experiment on summaries where everything can be listed.

A document is a row of words; its summary is at most three tokens long, words and an end. A reader
likes words that the document repeats. From the reader's choices a reward model is learned, which is
*taken as ground truth* from then on: what is asked is how well each method maximizes the learned
reward with data from the reference, not whether the reader would agree.

:func:`make_world` draws documents, trains a reference by likelihood on fair summaries and a reward
model on preferences; :func:`draw_data` has the reference write pairs of summaries, once. What
methods make of them: :mod:`bandit.llm.summary_runs`.

Letters: ``X`` documents, ``K`` summaries, ``N`` pairs, ``P`` words of a document, ``L`` tokens of a
summary.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, softmax

from bandit.llm.completions import Completions
from bandit.llm.enumeration import Outputs, all_completions, policy_of
from bandit.llm.reward_model import (
    RewardModel,
    RewardReport,
    TinyScorer,
    report,
    train_reward_model,
)
from bandit.llm.scoring import sequence_log_prob
from bandit.llm.tiny import TinyTransformer
from bandit.problem import Bandit

END, WORDS, DOCUMENT, SUMMARY = 0, 5, 6, 3
"""The token that ends a summary; words 1 … 5; tokens of a document, and of a summary at most."""

JUDGED_BY = 64
"""Training documents that learning rates are chosen by."""

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


# ------------------------------------------------------------------------- documents and readers


def summaries() -> Outputs:
    """All K = 156 summaries of at most three tokens."""
    return all_completions(WORDS + 1, SUMMARY, END)


def draw_documents(count: int, rng: np.random.Generator) -> Integers:
    """Documents (X, P) that come back to two or three of their words."""
    favor = rng.dirichlet(np.full(WORDS, 0.4), size=count)
    cumulative = (0.8 * favor + 0.2 / WORDS).cumsum(axis=1)
    drawn = rng.random((count, DOCUMENT, 1)) > cumulative[:, None, :-1]
    return 1 + drawn.sum(axis=2)


def utility(documents: Integers) -> Array:
    """What the reader of documents (X, P) feels about each summary, (X, K).

    Each distinct word is worth one less than the times it stands in the document, at most 2; a
    repeated word and a summary that isn't ended cost 1 each.
    """
    tokens, lengths = summaries()
    count = (documents[:, :, None] == np.arange(1, WORDS + 1)).sum(axis=1)  # (X, words)
    said = (tokens[:, :, None] == np.arange(1, WORDS + 1)).sum(axis=1)  # (K, words)
    worth = np.minimum(count - 1, 2) @ (said > 0).T
    ended = tokens[np.arange(len(tokens)), lengths - 1] == END
    return worth - np.maximum(said - 1, 0).sum(axis=1) - ~ended


# ------------------------------------------------------------------------------------- the world


class World(NamedTuple):
    """Documents to learn from and documents held out, the reference, and the learned reward."""

    reference: TinyTransformer
    documents: Integers  # (X, P)
    held_out: Integers
    policy: Array  # (X, K), the reference's
    held_out_policy: Array
    reward: Array  # (X, K), by the reward model
    held_out_reward: Array
    held_out_utility: Array  # by the reader, looked at only to describe the reward model
    report: RewardReport  # of the reward model on held-out preferences

    def problem(self, beta: float) -> Bandit:
        """Held-out documents as contexts, all summaries as arms, the reward model as truth."""
        return Bandit(self.held_out_reward, beta, self.held_out_policy)

    def training_problem(self, beta: float) -> Bandit:
        """The same of the first documents of the training set, enough to choose by."""
        return Bandit(self.reward[:JUDGED_BY], beta, self.policy[:JUDGED_BY])


def make_world(
    seed: int = 0, *, documents: int = 512, held_out: int = 32, steps: int = 400
) -> World:
    """Documents, a reference (SFT) and a reward model, each trained for ``steps`` steps."""
    rng = np.random.default_rng(seed)
    seen, unseen = draw_documents(documents, rng), draw_documents(held_out, rng)
    reference = new_model(seed)
    _imitate(reference, seen, softmax(utility(seen), axis=1), steps, rng)
    scorer = RewardModel(TinyScorer(WORDS + 1, DOCUMENT + SUMMARY, seed=seed + 1))
    policies = [policy_of(reference, part) for part in (seen, unseen)]
    choices = draw_pairs(policies[0], utility(seen), 8, rng)
    train_reward_model(scorer, choices.completions(seen), steps=steps, batch_size=64, rng=rng)
    judged = [_judged(scorer, part) for part in (seen, unseen)]
    # Preferences leave a constant open. This one puts the reference's mean at 0, the choice that is
    # kindest to policy gradient without a baseline.
    shift = (policies[0] * judged[0]).sum(axis=1).mean()
    new = draw_pairs(policies[1], utility(unseen), 64, rng)
    margin = np.diff(judged[1][new.document[:, None], new.members])[:, 0]
    return World(
        reference,
        seen,
        unseen,
        policies[0],
        policies[1],
        judged[0] - shift,
        judged[1] - shift,
        utility(unseen),
        report(-margin, new.label),
    )


def new_model(seed: int = 0) -> TinyTransformer:
    """An untrained writer of summaries."""
    return TinyTransformer(
        WORDS + 1, SUMMARY, eos=END, prompt_length=DOCUMENT, layers=1, heads=1, seed=seed
    )


def _imitate(
    model: TinyTransformer, documents: Integers, target: Array, steps: int, rng: np.random.Generator
) -> None:
    """Maximum likelihood on summaries drawn from ``target`` (X, K)."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, fused=True)
    for _ in range(steps):
        which = rng.integers(len(documents), size=64)
        chosen = _draw(target[which], rng)
        cost = -sequence_log_prob(model, *batch(documents[which], chosen)).mean()
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()


def _judged(scorer: RewardModel, documents: Integers) -> Array:
    """The reward model's rewards of all summaries, (X, K)."""
    tokens, lengths = summaries()
    spoken = [y[:n].tolist() for y, n in zip(tokens, lengths, strict=True)]
    prompts = [document for document in documents.tolist() for _ in spoken]
    rewards = scorer.rewards(prompts, spoken * len(documents), batch_size=4096)
    return rewards.reshape(len(documents), -1)


# --------------------------------------------------------------------------------------- the data


class Data(NamedTuple):
    """Offline pairs: a document, two summaries by number, their rewards and one label."""

    document: Integers  # (N,)
    members: Integers  # (N, 2)
    reward: Array  # (N, 2)
    label: Array  # (N,), 1 where the first is preferred

    def completions(self, documents: Integers) -> Completions:
        """The pairs as token ids, with rewards and labels."""
        tokens, lengths = summaries_as_arrays()
        return Completions.from_lists(
            documents[self.document].tolist(),
            [[tokens[k, : lengths[k]].tolist() for k in pair] for pair in self.members],
            self.reward.tolist(),
            self.label.tolist(),
        )


def draw_pairs(policy: Array, reward: Array, per_document: int, rng: np.random.Generator) -> Data:
    """Pairs of summaries from ``policy`` (X, K), labels drawn by Bradley–Terry on ``reward``."""
    document = np.repeat(np.arange(len(policy)), per_document)
    members = np.stack([_draw(policy[document], rng) for _ in range(2)], axis=1)
    rewards = reward[document[:, None], members]
    label = (rng.random(len(document)) < expit(rewards[:, 0] - rewards[:, 1])).astype(float)
    return Data(document, members, rewards, label)


def draw_data(world: World, per_document: int, rng: np.random.Generator) -> Data:
    """The offline data of the experiment: the reference writes, the reward model judges.

    A method on rewards gets two real numbers a pair, one on preferences a single noisy bit drawn
    from the same rewards. The comparison is of methods as they are used, not of equal information.
    """
    return draw_pairs(world.policy, world.reward, per_document, rng)


def _draw(policy: Array, rng: np.random.Generator) -> Integers:
    """An arm from each row of policies (N, K)."""
    cumulative = policy.cumsum(axis=1)
    return (rng.random((len(policy), 1)) * cumulative[:, -1:] > cumulative).sum(axis=1)


def batch(documents: Integers, chosen: Integers) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ids, attention mask and completion mask of summaries ``chosen`` (B,) of documents (B, P)."""
    tokens, lengths = summaries_as_arrays()
    ids = np.concatenate([documents, tokens[chosen]], axis=1)
    place = np.arange(ids.shape[1])
    attention = place < DOCUMENT + lengths[chosen][:, None]
    completion = attention & (place >= DOCUMENT)
    return torch.from_numpy(ids), torch.from_numpy(attention), torch.from_numpy(completion)


summaries_as_arrays = functools.cache(summaries)
