"""Three typical wrong answers to each problem set, and what a student is told about each.

A wrong answer is the model solution with a piece of text replaced. Those of one set are in
different tasks, so that one submission can contain all of them. Whole wrong functions come after
them, for the tests that are shown.
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


class More(NamedTuple):
    """A wrong function for ``task`` of the problem set; the student reads ``told`` at once."""

    set: str
    task: str
    wrong: str
    told: str


def function(head: str, *lines: str) -> str:
    return "\n    ".join([f"def {head}:", *lines])


_LEFT_OUT = "a logit moves with the scores of all answers, not only of its own"

MORE = [
    More(
        "ps01", "kl", function("kl(p, q)", "return p * np.log(p / q)"), "a sum or mean is missing"
    ),
    More(
        "ps01",
        "objective",
        function(
            "objective(policy, reward, reference, beta)",
            "return np.mean(policy * reward) - beta * policy @ np.log(policy / reference)",
        ),
        "the expected reward is a sum, not a mean",
    ),
    More(
        "ps01",
        "optimal_policy",
        function(
            "optimal_policy(reward, reference, beta)",
            "log_best = np.log(reference) + reward / beta",
            "return log_best / log_best.sum()",
        ),
        "that is ln π*, but for a constant",
    ),
    More(
        "ps01",
        "equalizing_beta",
        function("equalizing_beta(reward, reference)", "return [1.0]"),
        "expected one number",
    ),
    More(
        "ps01",
        "regret",
        function(
            "regret(policy, reward, reference, beta)",
            "best = reference * np.exp(reward / beta)",
            "return beta * policy @ np.log(policy / best)",
        ),
        "π* must be divided by Z",
    ),
    More(
        "ps02",
        "score",
        function(
            "score(policy, arm)",
            "own = np.zeros(len(policy))",
            "own[arm] = 1 - policy[arm]",
            "return own",
        ),
        "the other logits have derivatives, too",
    ),
    More(
        "ps02",
        "average_score",
        function("average_score(policy, behavior)", "return behavior * (1 - policy)"),
        _LEFT_OUT,
    ),
    More(
        "ps02",
        "policy_gradient",
        function(
            "policy_gradient(policy, reward, reference, beta)",
            "return policy * (1 - policy) * (reward - beta * np.log(policy / reference))",
        ),
        _LEFT_OUT,
    ),
    More(
        "ps02",
        "best_baseline",
        function("best_baseline(policy, regularized)", "return regularized.mean()"),
        "that is the plain mean over the answers",
    ),
    More(
        "ps03",
        "regularized_reward",
        function(
            "regularized_reward(log_prob, ref_log_prob, reward, beta)",
            "return reward - beta * np.log(log_prob / ref_log_prob)",
        ),
        "`log_prob` is a logarithm already",
    ),
    More(
        "ps03",
        "pair_weight",
        function("pair_weight(regularized)", "return regularized[..., 1] - regularized[..., 0]"),
        "that is the first answer's weight; return both",
    ),
    More(
        "ps03",
        "expected_gradient",
        function("expected_gradient(behavior, regularized)", "return -2 * behavior * regularized"),
        "the mean regularized reward must be subtracted",
    ),
    More("ps03", "determined", function("determined(counts)", "return 1"), "True or False, got 1"),
    More(
        "ps04",
        "ipo_loss",
        function("ipo_loss(delta, p, beta)", "return (delta - (2 * p - 1) / (2 * beta)) ** 2"),
        "the mean is over the two squares, not over the two targets",
    ),
    More(
        "ps04",
        "ipo_weight",
        function("ipo_weight(delta, p, beta)", "return 2 * (delta - (2 * p - 1) / 2 * beta)"),
        "mind the parentheses",
    ),
    More(
        "ps04",
        "rest",
        function("rest(p, beta)", "return (2 * p - 1) / beta"),
        "a factor ½ is missing",
    ),
    More(
        "ps05",
        "right_baseline",
        function(
            "right_baseline(reward, reference, beta)",
            "return np.log(reference @ np.exp(reward / beta)) / beta",
        ),
        "multiply by β",
    ),
    More(
        "ps05",
        "expected_step",
        function(
            "expected_step(policy, behavior, regularized, baseline)",
            "return behavior @ (regularized - baseline) * (behavior - policy)",
        ),
        "the mean of a product is not the product of the means",
    ),
    More(
        "ps06",
        "dpo_weight",
        function(
            "dpo_weight(delta, p, beta)", "return beta * (1 / (1 + np.exp(-beta * delta)) - p)"
        ),
        "return both",
    ),
    More(
        "ps06",
        "rest",
        function("rest(p, beta)", "return np.log(p / (1 - p)) / beta"),
        "divides by zero: the end is infinite",
    ),
    More(
        "ps07",
        "leave_one_out",
        function(
            "leave_one_out(regularized)",
            "size = len(regularized)",
            "mean = regularized.mean(axis=-1, keepdims=True)",
            "return (regularized - mean) * size / (size - 1)",
        ),
        "G is the length of the last axis, not of the first",
    ),
    More(
        "ps07",
        "grpo_advantage",
        function(
            "grpo_advantage(reward)",
            "centered = reward - reward.mean(axis=-1, keepdims=True)",
            "return centered / (reward.std(axis=-1, keepdims=True) + 1e-4)",
        ),
        "a small number is added to the spread",
    ),
    More(
        "ps07",
        "variance",
        function(
            "variance(policy, regularized, baseline)",
            "steps = (regularized - baseline)[:, None] * (np.eye(len(policy)) - policy)",
            "return steps.var(axis=0).sum()",
        ),
        "weighted by the policy, not all alike",
    ),
    More(
        "ps08",
        "estimates",
        function("estimates(rewards, weights)", "return np.mean(weights * rewards)"),
        "that is IPW alone; return both",
    ),
    More(
        "ps08",
        "effective_sample_size",
        function("effective_sample_size(weights)", "return 1 / np.sum(weights**2)"),
        "that is for weights that sum to 1",
    ),
    More(
        "ps09",
        "completion_mask",
        function(
            "completion_mask(prompt_lengths, lengths, width)",
            "place, start, end = np.arange(width), prompt_lengths[:, None], lengths[:, None]",
            "return (place >= start) & (place < end - start)",
        ),
        "the prompt is in it already",
    ),
    More(
        "ps09",
        "positions",
        function(
            "positions(attention_mask)",
            "return attention_mask * np.arange(attention_mask.shape[1])",
        ),
        "places are not positions",
    ),
    More(
        "ps10",
        "robust",
        function(
            "robust(group, *, beta)",
            "regularized = group.reward - beta * (group.log_prob - group.ref_log_prob)",
            "gap = regularized[..., 0] - regularized[..., 1]",
            "value = (np.logaddexp(gap, -gap) - np.log(2)) / beta",
            "return Score(value, np.stack([-np.sinh(gap), np.sinh(gap)], axis=-1))",
        ),
        "tanh, not sinh",
    ),
]
