"""The experiment on summaries: its world, its data, and what a run records."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from bandit import losses
from bandit.llm import policy_of, sequence_log_prob, summaries, summary_runs
from bandit.llm.reward_model import shuffled
from bandit.llm.summary_runs import Job


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


def data_of(world, seeds, per_document=2):
    return {
        seed: summaries.draw_data(world, per_document, np.random.default_rng([seed, 1]))
        for seed in seeds
    }


def test_a_run_begins_at_the_reference_and_learns(world):
    before = [p.clone() for p in world.reference.parameters()]
    jobs = [Job("copg", 0.3, 3e-3, 0)]
    problem, training = world.problem(0.3), world.training_problem(0.3)
    steps, kl = [], []
    for step, copies in summary_runs.training(
        world, data_of(world, [0], 4), jobs, steps=60, record_every=25
    ):
        (policy,) = copies.policies(world.held_out)
        steps.append(step)
        kl.append(float(problem.kl(policy)))
        if step == 0:
            np.testing.assert_allclose(policy, world.held_out_policy, rtol=1e-5)
    assert steps == [0, 25, 50, 60]
    assert kl[0] == pytest.approx(0, abs=1e-9)
    assert kl[-1] > 0.05
    (reached,) = summary_runs.objective(world, copies, jobs)
    seen = copies.policies(world.documents[: summaries.JUDGED_BY])[0]
    assert reached == pytest.approx(float(training.objective(seen)))
    assert reached > training.objective(training.reference) + 0.1
    assert all(torch.equal(a, b) for a, b in zip(before, world.reference.parameters(), strict=True))


def trained_alone(world, data, job, steps, batch_size):
    """The same run written out: one model, sequence_log_prob, its own Adam."""
    model = summaries.new_model()
    model.load_state_dict(world.reference.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=job.learning_rate)
    order = shuffled(len(data.label), batch_size, steps, np.random.default_rng(job.seed))
    for step, rows in enumerate(order):
        for group in optimizer.param_groups:
            group["lr"] = job.learning_rate * (1 - step / steps)
        documents = np.repeat(world.documents[data.document[rows]], 2, axis=0)
        chosen = data.members[rows].ravel()
        log_prob = sequence_log_prob(model, *summaries.batch(documents, chosen)).unflatten(
            0, (-1, 2)
        )
        reference = world.policy[data.document[rows][:, None], data.members[rows]]
        group = losses.Group(
            log_prob,
            torch.tensor(np.log(reference)).float(),
            torch.tensor(data.reward[rows]).float(),
            torch.tensor(data.label[rows]).float(),
        )
        if job.method == "policy_gradient_behavior":
            regularized = group.reward - job.beta * (log_prob.detach() - group.ref_log_prob)
            mean = regularized.mean().expand(len(rows))
            score = losses.policy_gradient(
                group._replace(baseline=mean), beta=job.beta, baseline="given"
            )
        elif job.method == "policy_gradient":
            score = losses.policy_gradient(group, beta=job.beta, baseline="none")
        else:
            score = losses.get(job.method)(group, beta=job.beta)
        optimizer.zero_grad()
        ((score.weight.detach() * log_prob).sum() / len(rows)).backward()
        optimizer.step()
    return policy_of(model, world.held_out)


def test_side_by_side_is_as_one_at_a_time(world):
    """Other methods, β, learning rates and seeds beside a run do not change it."""
    jobs = [
        Job(method, beta, rate, seed)
        for rate in (1e-3, 4e-3)
        for method, beta, seed in zip(
            summary_runs.METHODS, (0.2, 0.5, 0.3, 0.2, 0.4), (0, 1, 0, 2, 1), strict=True
        )
    ]
    data = data_of(world, range(3))
    *_, (step, copies) = summary_runs.training(
        world, data, jobs, steps=6, batch_size=8, record_every=6
    )
    assert step == 6
    policies = copies.policies(world.held_out)
    for job, policy in zip(jobs, policies, strict=True):
        alone = trained_alone(world, data[job.seed], job, 6, 8)
        # Single precision; the runs differ from each other by far more, see below.
        np.testing.assert_allclose(policy, alone, rtol=2e-3, atol=1e-6, err_msg=str(job))
    some = copies.policies(world.held_out, [7, 2])
    np.testing.assert_allclose(some, policies[[7, 2]], rtol=1e-5)
    apart = np.abs(policies[:, None] - policies[None]).max(axis=(2, 3))
    assert apart[~np.eye(len(jobs), dtype=bool)].min() > 1e-3


def test_compare_tunes_all_methods_alike_and_takes_the_best(world):
    """The table against runs made apart; held-out documents choose nothing."""
    rates, seeds = (1e-2, 1e-5), (0, 1)
    options = {"learning_rates": rates, "seeds": 3, "steps": 20, "record_every": 10}
    table = summary_runs.compare(
        world, (0.2, 0.6), methods=("copg", "dpo"), pairs_per_document=2, **options
    )
    assert len(table) == 2 * 2 * 3 * 3
    data = data_of(world, range(3))
    for method in ("copg", "dpo"):
        for beta in (0.2, 0.6):
            reached = {}
            for rate in rates:
                jobs = [Job(method, beta, rate, seed) for seed in seeds]
                *_, (_, copies) = summary_runs.training(
                    world, data, jobs, steps=20, record_every=20
                )
                reached[rate] = summary_runs.objective(world, copies, jobs).mean()
            best = max(rates, key=reached.get)
            part = table[(table.method == method) & (table.beta == beta)]
            assert set(part.learning_rate) == {best}
            jobs = [Job(method, beta, best, seed) for seed in range(3)]
            *_, (_, copies) = summary_runs.training(world, data, jobs, steps=20, record_every=20)
            last = part[part.step == 20].sort_values("seed")
            problem, policies = world.problem(beta), copies.policies(world.held_out)
            np.testing.assert_allclose(last.reward, problem.expected_reward(policies), rtol=1e-4)
            np.testing.assert_allclose(last.kl, problem.kl(policies), rtol=1e-3, atol=1e-8)
    assert table[table.step == 20].groupby(["method", "beta"]).reward.nunique().eq(3).all()


def test_curves_are_recorded_where_asked_for(world):
    options = {
        "methods": ("copg",), "learning_rates": (1e-3,), "seeds": 1, "tuning_seeds": 1,
        "steps": 4, "record_every": 2, "pairs_per_document": 1,
    }  # fmt: skip
    table = summary_runs.compare(world, (0.5, 0.2), curves_at=(0.2,), **options)
    assert table[["beta", "step"]].to_numpy().tolist() == [[0.5, 4], [0.2, 0], [0.2, 2], [0.2, 4]]
    again = summary_runs.compare(world, (0.5, 0.2), **options)
    pd.testing.assert_frame_equal(table, again.iloc[[2, 3, 4, 5]].reset_index(drop=True))


def test_no_method_is_above_the_front(world):
    front = summary_runs.optimal_front(world, [0.05, 0.1, 0.2, 0.5, 1, 2, 5])
    assert (np.diff(front.kl) < 0).all()
    jobs = [Job(method, 0.2, 3e-3, 0) for method in summary_runs.METHODS]
    problem = world.problem(1.0)
    for _, copies in summary_runs.training(
        world, data_of(world, [0]), jobs, steps=20, record_every=20
    ):
        policies = copies.policies(world.held_out)
        # E[r] ≤ J(π*) + β KL for every β: the front's tangents.
        for beta in front.beta:
            bound = world.problem(beta).optimal_value() + beta * problem.kl(policies)
            assert (problem.expected_reward(policies) <= bound + 1e-9).all()
