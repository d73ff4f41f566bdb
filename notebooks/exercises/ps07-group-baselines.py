# %% [markdown]
# # Problem set 7: group baselines and variance
#
# Methods for language models draw several answers to a prompt and compare them with each other. You write the
# comparisons of RLOO and GRPO, find out what it costs to be part of one's own baseline, and compute variances exactly.
# It goes with notebooks 02 and 03. Ten points, about 75 minutes.
#
# Replace every `raise NotImplementedError()` by your own code, with numpy alone: the package `bandit` knows most
# answers, and one that calls it is refused. The cell below each answer tests it, and says what is wrong if something
# is. When you are graded, the same tests run with other numbers too.
#
# | symbol | in the code | meaning |
# | --- | --- | --- |
# | $G$ | | number of answers in a group: the last axis |
# | $R_i$ | `regularized` | regularized rewards of a group, `(..., G)`; in task 4 of all $K$ answers |
# | $A_i$ | | advantage: what multiplies $\nabla \ln \pi(y_i)$ in a step |

# %% examiner=true
import checks
import numpy as np
import bandit
from bandit import analysis, losses, pairs
from bandit.losses import Group


def group_of(reward):
    """Answers with these rewards, and with π = π_ref."""
    nothing = np.zeros(np.shape(reward))
    return Group(nothing, nothing, np.asarray(reward))


# %%
import numpy as np

import bandit
from ps07_examiner import *


# %% [markdown]
# ## 1. Leave one out
#
# RLOO's advantage is $A_i = R_i - \frac{1}{G-1} \sum_{j \neq i} R_j$. Write it without a loop.


# %% answer="leave_one_out"
def leave_one_out(regularized):
    """RLOO's advantages, an array (..., G)."""
    ### BEGIN SOLUTION
    size = regularized.shape[-1]
    mean = regularized.mean(axis=-1, keepdims=True)
    return (regularized - mean) * size / (size - 1)
    ### END SOLUTION


# %% examiner=true
def examine_leave_one_out(answer, regularized):
    right = -losses.rloo(group_of(regularized), beta=1.0).weight
    size = regularized.shape[-1]
    total = regularized.sum(axis=-1, keepdims=True)
    mistakes = {
        "that is the weight of a loss; an advantage has the other sign": -right,
        "the mean includes the answer itself; leave it out": regularized - total / size,
        "the sum of the others is divided by G; there are G − 1 of them": regularized
        - (total - regularized) / size,
        "the answer itself must be taken out of the sum": regularized - total / (size - 1),
        "the mean runs over all groups; the group is the last axis": regularized
        - regularized.mean(),
        "the sum runs over all groups; the group is the last axis": regularized
        - (regularized.sum() - regularized) / (size - 1),
    }
    if regularized.ndim > 1:
        rows = len(regularized)
        if rows > 1:
            mistakes["G is the length of the last axis, not of the first"] = (
                (regularized - total / size) * rows / (rows - 1)
            )
        along = regularized.shape[0]
        mean = regularized.mean(axis=0)
        mistakes["the mean runs over the first axis; the group is the last"] = (
            (regularized - mean) * along / max(along - 1, 1)
        )
    checks.close("leave_one_out(...)", answer(regularized), right, mistakes)


# %% check="leave_one_out" points=2
examine_leave_one_out(leave_one_out, np.array([1.0, -0.5, 2.0, 0.0]))
examine_leave_one_out(leave_one_out, np.array([[1.0, -0.5, 2.0], [0.3, 0.2, 0.1]]))
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(701)
for shape in ((2,), (4, 6), (3, 2, 5)):
    examine_leave_one_out(leave_one_out, rng.normal(size=shape))
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Being part of one's own baseline
#
# With the mean of *all* $G$ answers for a baseline, the expected step is the right one times a number that depends on $G$
# only. Which number?
#
# (The test compares $R_i - \bar R$ with RLOO's advantage in random groups.)


# %% answer="shrinkage"
def shrinkage(size):
    """(step with the mean of all) / (step with the mean of the others), for groups of ``size``."""
    ### BEGIN SOLUTION
    return (size - 1) / size
    ### END SOLUTION


# %% examiner=true
def examine_shrinkage(answer, size):
    regularized = np.random.default_rng(size).normal(size=(3, size))
    others = -losses.rloo(group_of(regularized), beta=1.0).weight
    ratio = (regularized - regularized.mean(axis=-1, keepdims=True)) / others
    assert np.ptp(ratio) < 1e-9, "shrinkage: the test is broken, tell your teacher"
    mistakes = {
        "that is the inverse: subtracting part of oneself makes an advantage smaller": 1
        / ratio.mean(),
        "it is not 1: an answer that is part of its baseline is partly compared with itself": 1.0,
        "that is the share of the answer itself; what is left?": 1 / size,
    }
    checks.close(f"shrinkage({size})", answer(size), ratio.mean(), mistakes)


# %% check="shrinkage" points=1
examine_shrinkage(shrinkage, 4)
### BEGIN HIDDEN TESTS
for size in (2, 5, 64):
    examine_shrinkage(shrinkage, size)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. GRPO's advantage
#
# GRPO divides by the spread: $A_i = (r_i - \bar r) / s$ with $s = \sqrt{\frac{1}{G} \sum_i (r_i - \bar r)^2}$ of the group. Where
# all rewards of a group are equal there is nothing to learn, and $A_i = 0$ (not `nan`).


# %% answer="grpo_advantage"
def grpo_advantage(reward):
    """GRPO's advantages, an array (..., G)."""
    ### BEGIN SOLUTION
    centered = reward - reward.mean(axis=-1, keepdims=True)
    spread = reward.std(axis=-1, keepdims=True)
    return np.where(
        np.ptp(reward, axis=-1, keepdims=True) > 0, centered / np.where(spread > 0, spread, 1), 0
    )
    ### END SOLUTION


# %% examiner=true
def examine_grpo_advantage(answer, reward):
    right = -losses.grpo(group_of(reward), beta=1.0).weight
    centered = reward - reward.mean(axis=-1, keepdims=True)
    spread = reward.std(axis=-1, keepdims=True)
    whole = reward.std() if np.ptp(reward) else 1.0
    with np.errstate(all="ignore"):
        mistakes = {
            "that is the weight of a loss; an advantage has the other sign": -right,
            "the division by the spread is missing": centered,
            "the divisor inside s is G, not G − 1": centered
            / reward.std(axis=-1, ddof=1, keepdims=True),
            "that is divided by the variance; take its root": centered / spread**2,
            "the mean of the group must be subtracted": reward / spread,
            "the spread is that of each group, not of all together": centered / whole,
            "a small number is added to the spread, and changes the answer; where the spread is 0 return 0 instead": (
                centered / (spread + 1e-4)
            ),
        }
        found = answer(reward)
    if (np.ptp(reward, axis=-1) == 0).any() and found is not None:
        assert np.isfinite(found).all(), (
            "grpo_advantage(...): a group of equal rewards has spread 0, and 0/0 is nan; its advantages are 0"
        )
    # Whoever adds 1e-8 to the spread, as many do, is right enough.
    checks.close("grpo_advantage(...)", found, right, mistakes, tolerance=1e-5)


# %% check="grpo_advantage" points=2
examine_grpo_advantage(grpo_advantage, np.array([1.0, 0.0, 0.0, 1.0, 1.0]))
examine_grpo_advantage(grpo_advantage, np.array([[1.0, -0.5, 2.0], [0.3, 0.2, 0.1]]))
examine_grpo_advantage(grpo_advantage, np.array([[1.0, 1.0], [0.0, 1.0]]))
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(703)
for shape in ((7,), (4, 2), (3, 2, 5)):
    examine_grpo_advantage(grpo_advantage, rng.normal(size=shape))
examine_grpo_advantage(grpo_advantage, np.array([[0.1, 0.1, 0.1], [0.4, -1.0, 0.3]]))
### END HIDDEN TESTS

# %% [markdown]
# ## 4. The variance of one sample
#
# One answer is drawn from `policy`, and a step goes along $g(y) = (R(y) - b)\,(e_y - \pi)$. Its total variance (the trace
# of its covariance) is $\mathbb E\,\|g\|^2 - \|\mathbb E\,g\|^2$. Write it as a sum over all $K$ answers.


# %% answer="variance"
def variance(policy, regularized, baseline):
    """E‖g‖² − ‖E g‖², a number; all arrays have length K."""
    ### BEGIN SOLUTION
    steps = (regularized - baseline)[:, None] * (np.eye(len(policy)) - policy)
    mean = policy @ steps
    return policy @ np.sum(steps**2, axis=1) - mean @ mean
    ### END SOLUTION


# %% examiner=true
def examine_variance(answer, problem, policy, baseline):
    regularized = problem.reward - problem.beta * np.log(policy / problem.reference)
    given = {"baseline": baseline, "group_size": 1}
    loss, nu = losses.policy_gradient, pairs.independent(policy)
    right = analysis.gradient_variance(problem, loss, np.log(policy), nu, **given)
    steps = (regularized - baseline)[:, None] * (np.eye(len(policy)) - policy)
    square, mean = policy @ np.sum(steps**2, axis=1), policy @ steps
    plain = regularized[:, None] * (np.eye(len(policy)) - policy)
    advantage = regularized - baseline
    mistakes = {
        "the square of the mean must be subtracted": square,
        "only the square of the mean is there": mean @ mean,
        "the answers are not weighted by their probabilities": np.sum(steps**2) - mean @ mean,
        "the baseline is missing": policy @ np.sum(plain**2, axis=1)
        - np.sum((policy @ plain) ** 2),
        "that is the variance of R; the lengths of the scores are missing": policy @ advantage**2
        - (policy @ advantage) ** 2,
        "that is a standard deviation": np.sqrt(right),
        "the answers are weighted by the policy, not all alike": np.sum(steps.var(axis=0)),
    }
    found = answer(policy, regularized, baseline)
    checks.close("variance(...)", found, right, mistakes)


# %% check="variance" points=3
example = bandit.Bandit([1.0, 2.0, -0.5], 0.5, [0.5, 0.1, 0.4])
examine_variance(variance, example, np.array([0.6, 0.3, 0.1]), 0.4)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(704)
for size in (2, 6):
    reference, policy = rng.dirichlet(np.full(size, 2.0), size=2)
    examine_variance(
        variance, bandit.Bandit(rng.normal(size=size), 0.7, reference), policy, rng.normal()
    )
### END HIDDEN TESTS

# %% [markdown]
# ## 5. All pairs at once
#
# A group of $G$ answers has $G(G-1)/2$ pairs. Nobody needs to list them: write $\sum_{i<j} (R_i - R_j)^2$ with sums over the
# group only, from $\sum_i R_i$ and $\sum_i R_i^2$ or from the deviations $R_i - \bar R$. (The test has a group of
# 3 000 answers: a loop over its 4.5 million pairs is slow.)


# %% answer="sum_over_pairs"
def sum_over_pairs(regularized):
    """Σ_{i<j} (R_i − R_j)² of each group, an array (...)."""
    ### BEGIN SOLUTION
    deviation = regularized - regularized.mean(axis=-1, keepdims=True)
    return regularized.shape[-1] * np.sum(deviation**2, axis=-1)
    ### END SOLUTION


# %% examiner=true
def examine_sum_over_pairs(answer, regularized):
    size = regularized.shape[-1]
    right = losses.copg(group_of(regularized), beta=0.5).value * (size - 1)
    mistakes = {
        "every pair is counted twice": 2 * right,
        "the sum of squared deviations must be multiplied by G": right / size,
        "multiply by G, not by G − 1": right * (size - 1) / size,
        "that is a mean over pairs": right / (size * (size - 1) / 2),
        "that is the variance (divisor G); what does it have to be multiplied by?": right / size**2,
        "only the squares are there; the cross terms −2 R_i R_j are missing": (size - 1)
        * np.sum(regularized**2, axis=-1),
        "one number for each group: sum over the last axis alone": np.sum(right),
    }
    checks.close("sum_over_pairs(...)", answer(regularized), right, mistakes)


# %% check="sum_over_pairs" points=2
examine_sum_over_pairs(sum_over_pairs, np.array([1.0, -0.5, 2.0, 0.0]))
examine_sum_over_pairs(sum_over_pairs, np.array([[1.0, -0.5, 2.0], [0.3, 0.2, 0.1]]))
examine_sum_over_pairs(sum_over_pairs, np.linspace(-1, 2, 3_000))
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(705)
for shape in ((2,), (3, 5), (2, 3_000)):
    examine_sum_over_pairs(sum_over_pairs, rng.normal(size=shape))
### END HIDDEN TESTS
