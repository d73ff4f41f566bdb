"""Three typical wrong answers to each problem set, and what a student is told about each.

A wrong answer is the model solution with a piece of text replaced. Those of one set are in
different tasks, so that one submission can contain all of them.
"""

from __future__ import annotations

from typing import NamedTuple


class Wrong(NamedTuple):
    """In the answer to ``task``, ``right`` became ``wrong``; the student reads ``told``."""

    task: str
    right: str
    wrong: str
    told: str


WRONG = {
    "ps01-closed-form": (
        Wrong("kl", "p[used] * np.log", "np.log", "weighted by p(y)"),
        Wrong("objective", "- beta * divergence", "+ beta * divergence", "has the wrong sign"),
        Wrong("optimal_policy", "reference * np.exp", "np.exp", "the reference is missing"),
    ),
    "ps02-score-function": (
        Wrong(
            "score",
            "gradient[arm] += 1",
            "gradient[arm] += 1\n    gradient *= policy[arm]",
            "that is the derivative of π, not of ln π",
        ),
        Wrong("estimate", ".mean(axis=0)", ".sum(axis=0)", "divided by the number of samples"),
        Wrong(
            "best_baseline", "policy * np.sum(scores**2, axis=1)", "policy", "that is the mean of R"
        ),
    ),
    "ps03-copg": (
        Wrong("pair_loss", "(2 * beta)", "beta", "the ½ is missing"),
        Wrong("pair_weight", "[-gap, gap]", "[gap, -gap]", "opposite sign: a loss is descended"),
        Wrong(
            "group_weight", "- regularized) / (size - 1)", ") / size", "includes the answer itself"
        ),
    ),
    "ps04-ipo": (
        Wrong("ipo_loss", "1 / (2 * beta)", "1 / beta", "the margin is 1/(2β), not 1/β"),
        Wrong("ipo_weight", "(2 * p - 1)", "1", "for p = 1 only"),
        Wrong(
            "ipo_solution",
            "preference @ behavior",
            "behavior @ preference",
            "how often an answer loses",
        ),
    ),
    "ps05-off-policy": (
        Wrong("expected_step", "- policy * pull.sum()", "", "the term −π of the score is missing"),
        Wrong(
            "weighted_estimate",
            "policy[arms] / behavior[arms]",
            "behavior[arms] / policy[arms]",
            "turned round",
        ),
        Wrong("reward_weighted_solution", "behavior * np.exp", "np.exp", "frequencies are missing"),
    ),
    "ps06-dpo": (
        Wrong("bradley_terry", "np.logaddexp(0.0, -gap)", "np.logaddexp(0.0, gap)", "exchanged"),
        Wrong("dpo_weight", "beta * (1 /", "(1 /", "the factor β of the chain rule is missing"),
        Wrong(
            "implicit_reward",
            "return reward - reward.mean()",
            "return reward",
            "the mean is not zero",
        ),
    ),
    "ps07-group-baselines": (
        Wrong("leave_one_out", " * size / (size - 1)", "", "the mean includes the answer itself"),
        Wrong(
            "grpo_advantage", "reward.std(axis=-1,", "reward.std(axis=-1, ddof=1,", "G, not G − 1"
        ),
        Wrong("variance", " - mean @ mean", "", "the square of the mean must be subtracted"),
    ),
    "ps08-logged-data": (
        Wrong(
            "importance_weights", "policy[contexts, arms]", "policy[0, arms]", "row of each context"
        ),
        Wrong(
            "effective_sample_size",
            "np.sum(weights) ** 2",
            "np.sum(weights)",
            "the square of the sum",
        ),
        Wrong(
            "doubly_robust", "said + weights", "said - weights", "the correction has the wrong sign"
        ),
    ),
    "ps09-sequences": (
        Wrong(
            "completion_lengths",
            ".argmax(axis=1) + 1",
            ".argmax(axis=1)",
            "EOS belongs to the completion",
        ),
        Wrong(
            "completion_mask",
            "place >= prompt",
            "place > prompt",
            "the first token of the completion",
        ),
        Wrong(
            "completion_log_prob",
            "0.0).sum(axis=-1)",
            "0.0).sum(axis=-1) / counted.sum(axis=-1)",
            "the mean",
        ),
    ),
    "ps10-your-own-loss": (
        Wrong("numerical_weight", "/ (2 * h)", "/ h", "the two places are 2h apart"),
        Wrong("robust", "[-pull, pull]", "[pull, -pull]", "opposite sign"),
        Wrong(
            "repaired_weight", "-beta *", "-1 *", "the factor β of the chain rule is still missing"
        ),
    ),
}
