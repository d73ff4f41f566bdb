"""The experiment on summaries: its world, its data, and what a run records."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bandit.llm import policy_of, summaries, summary_runs


@pytest.fixture(scope="module")
def world():
    return summaries.make_world(0, documents=96, held_out=6, steps=60)


def test_what_the_reader_likes():
    tokens, lengths = summaries.summaries()
    number = {
        tuple(y[:n].tolist()): k for k, (y, n) in enumerate(zip(tokens, lengths, strict=True))
    }
    assert len(number) == len(tokens) == 156
    worth = summaries.utility(np.array([[1, 1, 1, 1, 2, 2], [1, 2, 3, 4, 5, 5]]))
    assert worth.shape == (2, 156)
    by_hand = {
        (0,): (0, 0),
        (1, 0): (2, 0),  # four times in the document, worth at most 2
        (2, 0): (1, 0),
        (1, 2, 0): (3, 0),
        (1, 1, 0): (1, -1),  # said twice
        (1, 2, 5): (1, 0),  # a word that isn't there, and no end; and one word twice there
        (3, 3, 3): (-4, -3),
    }
    for summary, values in by_hand.items():
        assert tuple(worth[:, number[summary]]) == values, summary


def test_documents_repeat_words():
    documents = summaries.draw_documents(2000, np.random.default_rng(0))
    assert documents.shape == (2000, 6)
    assert set(np.unique(documents)) == {1, 2, 3, 4, 5}
    counts = (documents[:, :, None] == np.arange(1, 6)).sum(axis=1)
    assert 2.5 < counts.max(axis=1).mean() < 5
    np.testing.assert_allclose(counts.mean(axis=0), 1.2, atol=0.12)


def test_the_world_is_made_of_what_it_says(world):
    np.testing.assert_array_equal(world.policy, policy_of(world.reference, world.documents))
    np.testing.assert_array_equal(world.held_out_policy, policy_of(world.reference, world.held_out))
    # The reward's zero is the reference's mean.
    mean = (world.policy * world.reward).sum(axis=1).mean()
    assert mean == pytest.approx(0, abs=1e-9)
    # Trained on fair summaries, the reference is better than chance, by the reader's own measure.
    written = (world.held_out_policy * world.held_out_utility).sum(axis=1).mean()
    assert written > world.held_out_utility.mean() + 0.5
    assert world.report.pairs == 6 * 64
    assert world.report.accuracy > 0.52
    kept = summaries.make_world(0, documents=96, held_out=6, steps=1)
    np.testing.assert_array_equal(kept.documents, world.documents)


def test_pairs_come_from_the_policy_with_labels_from_the_rewards():
    """Fixed seed; each frequency is within four standard errors of its probability."""
    policy = np.tile([[0.6, 0.3, 0.1]], (20_000, 1))
    reward = np.tile([[0.0, 1.0, -2.0]], (20_000, 1))
    data = summaries.draw_pairs(policy, reward, 2, np.random.default_rng(0))
    count = data.members.size
    for arm, p in enumerate(policy[0]):
        error = np.sqrt(p * (1 - p) / count)
        assert (data.members == arm).mean() == pytest.approx(p, abs=4 * error)
    np.testing.assert_array_equal(data.reward, reward[0][data.members])
    for pair, p in {(0, 1): 0.2689, (1, 0): 0.7311, (1, 2): 0.9526, (2, 2): 0.5}.items():
        labels = data.label[(data.members == pair).all(axis=1)]
        assert labels.mean() == pytest.approx(p, abs=4 * np.sqrt(0.25 / len(labels)))
    np.testing.assert_array_equal(data.document, np.repeat(np.arange(20_000), 2))


def test_a_run_begins_at_the_reference_and_learns(world):
    data = summaries.draw_data(world, 4, np.random.default_rng(0))
    before = [p.clone() for p in world.reference.parameters()]
    curve = summary_runs.train(
        world, data, "copg", 0.3, learning_rate=3e-3, steps=60, record_every=20, seed=0
    )
    assert curve.steps.tolist() == [0, 20, 40, 60]
    problem = world.problem(0.3)
    assert curve.kl[0] == pytest.approx(0, abs=1e-9)
    assert curve.reward[0] == pytest.approx(float(problem.expected_reward(problem.reference)))
    assert curve.kl[-1] > 0.05
    training = world.training_problem(0.3)
    assert curve.objective > training.objective(training.reference) + 0.1
    assert all(torch.equal(a, b) for a, b in zip(before, world.reference.parameters(), strict=True))


@pytest.mark.parametrize("method", summary_runs.METHODS)
def test_seeds_differ_and_repeat(world, method):
    def final(seed):
        job = (method, 0.5, 1e-3, seed)
        return summary_runs._job(world, 1, (4, 4), job).reward[-1]

    assert final(0) == final(0)
    assert final(0) != final(1)


def test_compare_tunes_all_methods_alike_and_takes_the_best(world):
    """The table against runs made one at a time."""
    rates = (1e-5, 1e-2)
    options = {"learning_rates": rates, "seeds": 2, "steps": 20, "record_every": 10}
    table = summary_runs.compare(
        world, (0.2,), methods=("copg", "dpo"), pairs_per_document=2, **options
    )
    assert len(table) == 2 * 2 * 3
    for method in ("copg", "dpo"):
        runs = {
            rate: summary_runs._job(world, 2, (20, 10), (method, 0.2, rate, 0)) for rate in rates
        }
        best = max(rates, key=lambda rate: runs[rate].objective)
        part = table[table.method == method]
        assert set(part.learning_rate) == {best}
        np.testing.assert_array_equal(part[part.seed == 0].reward, runs[best].reward)
        np.testing.assert_array_equal(part[part.seed == 0].kl, runs[best].kl)


def test_two_workers_change_nothing(world):
    options = {
        "methods": ("copg",), "learning_rates": (1e-3,), "seeds": 2, "steps": 4,
        "record_every": 2, "pairs_per_document": 1,
    }  # fmt: skip
    one, two = (summary_runs.compare(world, (0.5,), **options, workers=n) for n in (1, 2))
    assert one.equals(two)


def test_no_method_is_above_the_front(world):
    front = summary_runs.optimal_front(world, [0.05, 0.1, 0.2, 0.5, 1, 2, 5])
    assert (np.diff(front.kl) < 0).all()
    data = summaries.draw_data(world, 2, np.random.default_rng(0))
    for method in summary_runs.METHODS:
        curve = summary_runs.train(world, data, method, 0.2, learning_rate=3e-3, steps=20, seed=0)
        # E[r] ≤ J(π*) + β KL for every β: the front's tangents.
        for beta in front.beta:
            bound = world.problem(beta).optimal_value() + beta * curve.kl
            assert (curve.reward <= bound + 1e-9).all()
