# %% [markdown]
# # Problem set 5: off-policy bias, by hand
#
# What happens to a policy gradient when the answers are not the policy's own? You work it out exactly: the step it
# takes, the pull away from the optimum, the one baseline that stops it, and two remedies. It goes with notebooks 02
# and 04. Ten points, about 75 minutes.
#
# Replace every `raise NotImplementedError()` by your own code, with numpy alone: the package `bandit` knows most
# answers, and one that calls it is refused. The cell below each answer tests it, and says what is wrong if something
# is. When you are graded, the same tests run with other numbers too.
#
# | symbol | in the code | meaning |
# | --- | --- | --- |
# | $\pi$, $\mu$ | `policy`, `behavior` | probabilities of $K$ answers; the data are drawn from $\mu$ |
# | $R(y) = r(y) - \beta \ln \frac{\pi(y)}{\pi_\text{ref}(y)}$ | `regularized` | regularized rewards, an array of length $K$ |
# | $b$ | `baseline` | a number that is subtracted from $R$ |
# | $e_y$ | | the array with a one for answer $y$ and zeros elsewhere: $\nabla \ln \pi(y) = e_y - \pi$ |

# %% examiner=true
import checks
import numpy as np
import bandit
from bandit import analysis, losses, pairs


def random_case(rng, size):
    """A problem, a policy and a behavior, all at random."""
    reference, policy, behavior = rng.dirichlet(np.full(size, 2.0), size=3)
    return bandit.Bandit(rng.normal(size=size), rng.uniform(0.3, 2), reference), policy, behavior


# %%
import numpy as np

import bandit
from ps05_examiner import *

example = bandit.Bandit([1.0, 2.0, -0.5], 0.5, [0.5, 0.1, 0.4])

# %% [markdown]
# ## 1. The step that is taken
#
# Answers are drawn from $\mu$, and nobody notices. Write the expected step of a policy gradient,
#
# $$\sum_y \mu(y)\, (R(y) - b)\, (e_y - \pi) .$$


# %% answer="expected_step"
def expected_step(policy, behavior, regularized, baseline):
    """The expected step in the logits, an array of length K."""
    ### BEGIN SOLUTION
    pull = behavior * (regularized - baseline)
    return pull - policy * pull.sum()
    ### END SOLUTION


# %% examiner=true
def examine_expected_step(answer, problem, policy, behavior, baseline):
    regularized = problem.reward - problem.beta * np.log(policy / problem.reference)
    nu, loss = pairs.independent(behavior), losses.policy_gradient
    right = -analysis.population(
        problem, loss, np.log(policy), nu, baseline=baseline, group_size=1
    )[1]
    pull, own = behavior * (regularized - baseline), policy * (regularized - baseline)
    mistakes = {
        "the sign is wrong: a step climbs": -right,
        "the answers are drawn from μ, not from π": own - policy * own.sum(),
        "the term −π of the score is missing": pull,
        "the term −π of the score is weighted by the policy's mean; it is the data's": pull
        - policy * own.sum(),
        "the scores are e_y − π, with π the policy being trained": pull - behavior * pull.sum(),
        "the baseline is missing": right + baseline * (behavior - policy),
        "a logit moves with the scores of all answers, not only of its own": pull * (1 - policy),
        "the mean of a product is not the product of the means": pull.sum() * (behavior - policy),
    }
    found = answer(policy, behavior, regularized, baseline)
    checks.close("expected_step(...)", found, right, mistakes)


# %% check="expected_step" points=2
examine_expected_step(
    expected_step, example, np.array([0.6, 0.3, 0.1]), np.array([0.1, 0.2, 0.7]), 0.4
)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(501)
for size in (2, 6):
    examine_expected_step(expected_step, *random_case(rng, size), rng.normal())
### END HIDDEN TESTS

# %% [markdown]
# ## 2. The pull away from the optimum
#
# Now $\pi = \pi^*$. There all $R(y)$ equal one number, $\beta \ln Z$ with $Z = \sum_y \pi_\text{ref}(y)\, e^{r(y)/\beta}$.
# Simplify the step of task 1 on paper, and write what is left: if it is not zero, learning leaves the optimum.


# %% answer="pull_at_optimum"
def pull_at_optimum(reward, reference, beta, behavior, baseline):
    """The expected step at π = π*, an array of length K."""
    ### BEGIN SOLUTION
    unnormalized = reference * np.exp(reward / beta)
    best = unnormalized / unnormalized.sum()
    return (beta * np.log(unnormalized.sum()) - baseline) * (behavior - best)
    ### END SOLUTION


# %% examiner=true
def examine_pull_at_optimum(answer, problem, behavior, baseline):
    best, top = problem.optimal_policy(), problem.optimal_value()
    nu, loss = pairs.independent(behavior), losses.policy_gradient
    right = -analysis.population(problem, loss, np.log(best), nu, baseline=baseline, group_size=1)[
        1
    ]
    mistakes = {
        "it is zero only for data from π* itself, or for the right baseline": np.zeros(len(best)),
        "the sign is wrong: what the data show often is pulled up (if R is above the baseline)": -right,
        "the baseline is missing": top * (behavior - best),
        "the common value of R is β ln Z: β is missing": (top / problem.beta - baseline)
        * (behavior - best),
        "the scores average to μ − π*, not to μ − π_ref": (top - baseline)
        * (behavior - problem.reference),
        "the scores average to μ − π*, not to μ": (top - baseline) * behavior,
        "the common value of R is β ln Z, not the mean reward": (best @ problem.reward - baseline)
        * (behavior - best),
        "the baseline is subtracted from R, not from the step": top * (behavior - best) - baseline,
    }
    arguments = problem.reward, problem.reference, problem.beta, behavior, baseline
    checks.close("pull_at_optimum(...)", answer(*arguments), right, mistakes)


# %% check="pull_at_optimum" points=2
examine_pull_at_optimum(pull_at_optimum, example, np.array([0.1, 0.2, 0.7]), 0.0)
examine_pull_at_optimum(pull_at_optimum, example, np.array([0.1, 0.2, 0.7]), 0.8)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(502)
for size in (2, 5):
    problem, _, behavior = random_case(rng, size)
    examine_pull_at_optimum(pull_at_optimum, problem, behavior, rng.normal())
### END HIDDEN TESTS

# %% [markdown]
# ## 3. The baseline that stops it
#
# For which number $b$ does a policy gradient rest at $\pi^*$, whatever $\mu$ draws the data?
#
# (The test knows no formula for it: it takes the step at $\pi^*$ with your baseline.)


# %% answer="right_baseline"
def right_baseline(reward, reference, beta):
    """The baseline with which π* is at rest, in units of reward."""
    ### BEGIN SOLUTION
    return beta * np.log(np.sum(reference * np.exp(reward / beta)))
    ### END SOLUTION


# %% examiner=true
def examine_right_baseline(answer, problem, behavior):
    best = problem.optimal_policy()
    b = checks.number(
        "right_baseline(...)", answer(problem.reward, problem.reference, problem.beta)
    )
    for what, mean in {
        "the mean reward of the reference": problem.reference @ problem.reward,
        "the mean reward of π*, without the penalty that π* pays": best @ problem.reward,
        "the mean reward over the answers": problem.reward.mean(),
        "the largest reward": problem.reward.max(),
        "ln Z, in nats; a baseline is in units of reward": problem.optimal_value() / problem.beta,
        "ln Z / β; multiply by β": problem.optimal_value() / problem.beta**2,
    }.items():
        assert not np.isclose(b, mean) or np.isclose(mean, problem.optimal_value()), (
            f"right_baseline(...) is {what}: it must equal R(y), which at π* is the same for every answer"
        )
    nu, loss = pairs.independent(behavior), losses.policy_gradient
    gradient = analysis.population(
        problem, loss, np.log(best), nu, baseline=float(b), group_size=1
    )[1]
    assert np.abs(gradient).max() < 1e-6, (
        f"with b = {b:.6g} the step at π* is {-gradient.round(6)}: what is seen often is pushed "
        + (
            "up, so the baseline is too small"
            if gradient @ (behavior - best) < 0
            else "down: it is too large"
        )
    )


# %% check="right_baseline" points=2
examine_right_baseline(right_baseline, example, np.array([0.1, 0.2, 0.7]))
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(503)
for size in (2, 6):
    problem, _, behavior = random_case(rng, size)
    examine_right_baseline(right_baseline, problem, behavior)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Importance weights
#
# `arms` are $n$ answers drawn from $\mu$ (integers from 0). Estimate $\nabla J = \sum_y \pi(y)\, R(y)\, (e_y - \pi)$ from
# them, without bias, by weighing each with $\pi(y)/\mu(y)$, and take the mean.


# %% answer="weighted_estimate"
def weighted_estimate(arms, policy, behavior, regularized):
    """The estimate of ∇J, an array of length K."""
    ### BEGIN SOLUTION
    ratio = policy[arms] / behavior[arms]
    scores = np.eye(len(policy))[arms] - policy
    return ((ratio * regularized[arms])[:, None] * scores).mean(axis=0)
    ### END SOLUTION


# %% examiner=true
def examine_weighted_estimate(answer, arms, policy, behavior, regularized):
    log_policy, log_behavior = np.log(policy)[arms], np.log(behavior)[arms]
    group = losses.Group(log_policy, log_policy, regularized[arms], behavior_log_prob=log_behavior)
    weight = -losses.importance_sampling(group, beta=1.0).weight
    scores = np.eye(len(policy))[arms] - policy
    ratio = policy[arms] / behavior[arms]
    plain = regularized[arms][:, None] * scores
    terms = weight[:, None] * scores
    mistakes = {
        "the ratio is turned round: an answer that the data show too often must count less": (
            plain / ratio[:, None]
        ).mean(axis=0),
        "the ratio is missing": plain.mean(axis=0),
        "dividing by μ is half of the ratio π/μ": (plain / behavior[arms][:, None]).mean(axis=0),
        "multiplying by π is half of the ratio π/μ": (plain * policy[arms][:, None]).mean(axis=0),
        "divide by the number of samples, not by the sum of the ratios (that is another estimate, with a bias)": (
            terms.sum(axis=0) / ratio.sum()
        ),
        "the sum must be divided by the number of samples": terms.sum(axis=0),
        "the term −π of the score is missing": (weight[:, None] * (scores + policy)).mean(axis=0),
        "the scores are e_y − π, with π the policy being trained": (
            weight[:, None] * (scores + policy - behavior)
        ).mean(axis=0),
    }
    found = answer(arms, policy, behavior, regularized)
    checks.close("weighted_estimate(...)", found, terms.mean(axis=0), mistakes)


# %% check="weighted_estimate" points=2
examine_weighted_estimate(
    weighted_estimate,
    np.array([2, 2, 1, 2, 0]),
    np.array([0.6, 0.3, 0.1]),
    np.array([0.1, 0.2, 0.7]),
    np.array([1.0, 2.0, -0.5]),
)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(504)
for size, n in ((2, 9), (5, 40)):
    _, policy, behavior = random_case(rng, size)
    drawn = rng.choice(size, size=n, p=behavior)
    examine_weighted_estimate(weighted_estimate, drawn, policy, behavior, rng.normal(size=size))
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Weighted likelihood
#
# Reward-weighted likelihood avoids policy gradients altogether: it minimizes $-\mathbb E_{y \sim \mu}[e^{r(y)/\beta} \ln \pi(y)]$.
# Find the minimizer on paper. When is it $\pi^*$?


# %% answer="reward_weighted_solution"
def reward_weighted_solution(reward, beta, behavior):
    """The minimizer over all policies, an array of length K."""
    ### BEGIN SOLUTION
    mass = behavior * np.exp(reward / beta)
    return mass / mass.sum()
    ### END SOLUTION


# %% examiner=true
def examine_reward_weighted_solution(answer, problem, behavior):
    nu = pairs.independent(behavior)
    right = analysis.solve(problem, losses.reward_weighted, nu).policy
    tilt = np.exp(problem.reward / problem.beta)
    mistakes = {
        "that is π*: it is found only if the data come from the reference": problem.optimal_policy(),
        "the data's frequencies are missing": tilt / tilt.sum(),
        "the probabilities don't sum to 1": behavior * tilt,
        "beta is missing": behavior * np.exp(problem.reward) / (behavior @ np.exp(problem.reward)),
        "that is the behavior itself: what do the weights do?": behavior,
        "the reward is divided by beta, not multiplied by it": behavior
        * np.exp(problem.reward * problem.beta)
        / (behavior @ np.exp(problem.reward * problem.beta)),
        "the loss is linear in ln π, so the weights enter as they are, not as logarithms": behavior
        * problem.reward
        / (behavior @ problem.reward),
    }
    found = answer(problem.reward, problem.beta, behavior)
    checks.close("reward_weighted_solution(...)", found, right, mistakes)


# %% check="reward_weighted_solution" points=2
examine_reward_weighted_solution(reward_weighted_solution, example, np.array([0.1, 0.2, 0.7]))
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(505)
for size in (2, 6):
    problem, _, behavior = random_case(rng, size)
    examine_reward_weighted_solution(reward_weighted_solution, problem, behavior)
### END HIDDEN TESTS
