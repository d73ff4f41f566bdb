# %% [markdown]
# # Problem set 2: the score function and baselines
#
# A policy gradient is an average of rewards times *scores*, $\nabla \ln \pi$. You write the scores, the exact gradient
# and its estimate from samples, and find out what a baseline is good for. It goes with notebook 02. Ten points,
# about 75 minutes.
#
# Replace every `raise NotImplementedError()` by your own code, with numpy alone: the package `bandit` knows most
# answers, and one that calls it is refused. The cell below each answer tests it, and says what is wrong if something
# is. When you are graded, the same tests run with other numbers too.
#
# | symbol | in the code | meaning |
# | --- | --- | --- |
# | $\theta$ | `logits` | $\pi(y) = e^{\theta_y} / \sum_k e^{\theta_k}$, arrays of length $K$ |
# | $R(y) = r(y) - \beta \ln \frac{\pi(y)}{\pi_\text{ref}(y)}$ | `regularized` | regularized rewards, an array of length $K$ |
# | $b$ | `baseline` | a number that is subtracted from $R$ |
# | $J(\pi)$ | | $\sum_y \pi(y)\,r(y) - \beta\,\mathrm{KL}(\pi \,\Vert\, \pi_\text{ref}) = \mathbb E_\pi[R]$ |

# %% examiner=true
import checks
import numpy as np
import bandit
from bandit import analysis, losses, pairs


def random_case(rng, size):
    """A problem and a policy, both at random, and the regularized rewards."""
    reference, policy = rng.dirichlet(np.full(size, 2.0), size=2)
    problem = bandit.Bandit(rng.normal(size=size), rng.uniform(0.2, 2), reference)
    return problem, policy, problem.reward - problem.beta * np.log(policy / reference)


# %%
import numpy as np

import bandit
from ps02_examiner import *


# %% [markdown]
# ## 1. The score
#
# Differentiate $\ln \pi(y) = \theta_y - \ln \sum_k e^{\theta_k}$ by every logit, and write the vector
# $\nabla_\theta \ln \pi(y)$. (The test knows no formula: it takes differences of $\ln \pi$.)


# %% answer="score"
def score(policy, arm):
    """∇ ln π(arm) by the logits, an array of length K; ``policy`` holds the probabilities."""
    ### BEGIN SOLUTION
    gradient = -policy
    gradient[arm] += 1
    return gradient
    ### END SOLUTION


# %% examiner=true
def examine_score(answer, logits, arm):
    def log_policy(at):
        return at - np.log(np.sum(np.exp(at)))

    policy, step = np.exp(log_policy(logits)), 1e-5
    moves = step * np.eye(len(logits))
    slopes = [(log_policy(logits + m) - log_policy(logits - m))[arm] / (2 * step) for m in moves]
    one = np.eye(len(logits))[arm]
    mistakes = {
        "the sign is wrong: raising a logit makes its own answer likelier": policy - one,
        "that is the derivative of π, not of ln π": policy[arm] * (one - policy),
        "the first term is missing: θ_y itself has derivative 1": -policy,
        "the second term is missing: all logits are in the normalization": one,
        "that is 1/π(y): the derivative by π(y), not by the logits": one / policy[arm],
        "the other logits have derivatives, too: all logits are in the normalization": one
        * (1 - policy[arm]),
    }
    found = answer(policy.copy(), arm)
    checks.close(f"score({policy.round(3)}, {arm})", found, slopes, mistakes)


# %% check="score" points=2
examine_score(score, np.array([0.5, -0.3, 0.1]), 0)
examine_score(score, np.array([0.5, -0.3, 0.1]), 2)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(201)
for size in (2, 5, 8):
    examine_score(score, rng.normal(size=size), size // 2)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. The average score
#
# On the policy's own samples scores average to zero. What is $\mathbb E_{y \sim \mu}[\nabla \ln \pi(y)]$ if the answers come
# from somebody else's policy $\mu$?


# %% answer="average_score"
def average_score(policy, behavior):
    """Σ_y μ(y) ∇ ln π(y), an array of length K."""
    ### BEGIN SOLUTION
    return behavior - policy
    ### END SOLUTION


# %% examiner=true
def examine_average_score(answer, policy, behavior):
    own = [np.eye(len(policy))[y] - policy for y in range(len(policy))]
    mistakes = {
        "it is zero only if the answers come from the policy itself": np.zeros(len(policy)),
        "the sign is wrong: what the data show often is pushed up": policy - behavior,
        "each score must be weighted by μ(y)": np.sum(own, axis=0),
        "a logit moves with the scores of all answers, not only of its own": behavior
        * (1 - policy),
    }
    checks.close("average_score(...)", answer(policy, behavior), behavior @ own, mistakes)


# %% check="average_score" points=1
examine_average_score(average_score, np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.2, 0.7]))
examine_average_score(average_score, np.array([0.5, 0.3, 0.2]), np.array([0.5, 0.3, 0.2]))
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(202)
for size in (2, 6):
    examine_average_score(average_score, *rng.dirichlet(np.ones(size), size=2))
### END HIDDEN TESTS

# %% [markdown]
# ## 3. The gradient of the objective
#
# Write $\nabla J = \sum_y \pi(y)\, R(y)\, \nabla \ln \pi(y)$ for all logits, without sampling.
#
# (Why is $R$ not differentiated, although it contains $\pi$? Because $\sum_y \pi(y) \nabla \ln \pi(y) = 0$.)


# %% answer="policy_gradient"
def policy_gradient(policy, reward, reference, beta):
    """∇J by the logits, an array of length K."""
    ### BEGIN SOLUTION
    regularized = reward - beta * np.log(policy / reference)
    return policy * (regularized - policy @ regularized)
    ### END SOLUTION


# %% examiner=true
def examine_policy_gradient(answer, problem, policy):
    reward, reference, beta = problem.reward, problem.reference, problem.beta
    own = pairs.independent(policy)
    loss, log_policy = losses.policy_gradient, np.log(policy)
    right = -analysis.population(problem, loss, log_policy, own, group_size=1)[1]
    regularized = reward - beta * np.log(policy / reference)
    wrong_penalty = reward + beta * np.log(policy / reference)
    no_beta = reward - np.log(policy / reference)
    mistakes = {
        "the sign is wrong: the objective is climbed, not descended": -right,
        "the KL penalty is missing: use R, not r": policy * (reward - policy @ reward),
        "the KL penalty has the wrong sign": policy * (wrong_penalty - policy @ wrong_penalty),
        "beta is missing before the log-ratio": policy * (no_beta - policy @ no_beta),
        "every other logit matters too: the term −π(k) of the score is missing": policy
        * regularized,
        "the answers must be weighted by the policy": regularized - policy @ regularized,
        "the mean must be taken under the policy, not over the answers": policy
        * (regularized - regularized.mean()),
        "a logit moves with the scores of all answers, not only of its own": policy
        * regularized
        * (1 - policy),
        "that is the derivative by π(y), without the softmax": regularized - beta,
    }
    found = answer(policy, reward, reference, beta)
    checks.close("policy_gradient(...)", found, right, mistakes)


# %% check="policy_gradient" points=3
examine_policy_gradient(
    policy_gradient,
    bandit.Bandit([1.0, 2.0, -0.5], 0.5, [0.5, 0.1, 0.4]),
    np.array([0.6, 0.3, 0.1]),
)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(203)
for size in (2, 5, 9):
    examine_policy_gradient(policy_gradient, *random_case(rng, size)[:2])
### END HIDDEN TESTS

# %% [markdown]
# ## 4. The gradient from samples
#
# `arms` are $n$ answers drawn from the policy (integers from 0). Estimate $\nabla J$ by the mean of
# $(R(y_i) - b)\, \nabla \ln \pi(y_i)$ over the sample.


# %% answer="estimate"
def estimate(arms, policy, regularized, baseline):
    """The estimate of ∇J, an array of length K; ``arms`` is an array of length n."""
    ### BEGIN SOLUTION
    scores = np.eye(len(policy))[arms] - policy
    return ((regularized[arms] - baseline)[:, None] * scores).mean(axis=0)
    ### END SOLUTION


# %% examiner=true
def examine_estimate(answer, arms, policy, regularized, baseline):
    # The weight of a loss is minus the advantage of each sample.
    flat = np.zeros(len(arms))
    group = losses.Group(flat, flat, regularized[arms], baseline=np.array(baseline))
    advantage = -losses.policy_gradient(group, beta=1.0, baseline="given").weight
    scores = np.eye(len(policy))[arms] - policy
    terms = advantage[:, None] * scores
    mistakes = {
        "the sum must be divided by the number of samples": terms.sum(axis=0),
        "the baseline is missing": (terms + baseline * scores).mean(axis=0),
        "the baseline is subtracted, not added": (terms + 2 * baseline * scores).mean(axis=0),
        "the term −π(k) of the score is missing": (advantage[:, None] * (scores + policy)).mean(
            axis=0
        ),
        "the mean runs over the wrong axis: one number for each sample came out": terms.mean(
            axis=1
        ),
        "the samples come from the policy already: don't weight them by it again": (
            policy[arms][:, None] * terms
        ).sum(axis=0),
        "the baseline is subtracted from R, not from the gradient": (
            terms + baseline * scores
        ).mean(axis=0)
        - baseline,
        "the baseline is given; that is the sample's own mean": (
            (regularized[arms] - regularized[arms].mean())[:, None] * scores
        ).mean(axis=0),
    }
    found = answer(arms, policy, regularized, baseline)
    checks.close("estimate(...)", found, terms.mean(axis=0), mistakes)


# %% check="estimate" points=2
examine_estimate(
    estimate, np.array([0, 2, 0, 1]), np.array([0.5, 0.3, 0.2]), np.array([1.0, 2.0, -0.5]), 0.7
)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(204)
for size, n in ((2, 7), (5, 50)):
    _, policy, regularized = random_case(rng, size)
    examine_estimate(
        estimate, rng.choice(size, size=n, p=policy), policy, regularized, rng.normal()
    )
### END HIDDEN TESTS

# %% [markdown]
# ## 5. The best baseline
#
# On-policy no baseline changes the mean of $(R - b) \nabla \ln \pi$, but its variance $\mathbb E\,\|(R - b) \nabla \ln \pi\|^2 -
# \|\nabla J\|^2$ depends on $b$. Find the $b$ with the smallest variance: a parabola in $b$. It is a mean of $R$, with
# weights that are not quite $\pi(y)$.
#
# (The test knows no formula: it computes the variance with your $b$ and with others.)


# %% answer="best_baseline"
def best_baseline(policy, regularized):
    """The number b with the least variance of one sample's gradient."""
    ### BEGIN SOLUTION
    scores = np.eye(len(policy)) - policy
    weights = policy * np.sum(scores**2, axis=1)
    return weights @ regularized / weights.sum()
    ### END SOLUTION


# %% examiner=true
def examine_best_baseline(answer, problem, policy):
    regularized = problem.reward - problem.beta * np.log(policy / problem.reference)
    own = {"pairs": pairs.independent(policy), "group_size": 1}

    def variance(b):
        loss = losses.policy_gradient
        return analysis.gradient_variance(problem, loss, np.log(policy), baseline=b, **own)

    below, middle, above = (float(variance(b)) for b in (-1.0, 0.0, 1.0))
    right = (below - above) / (2 * (below + above - 2 * middle))
    plain = policy * np.sum((np.eye(len(policy)) - policy) ** 2, axis=1)
    mistakes = {
        "that is the mean of R under the policy; weight each R by the squared length of its score too": policy
        @ regularized,
        "each R must be weighted by the policy too": (plain / policy)
        @ regularized
        / (plain / policy).sum(),
        "the weights must be divided by their sum": plain @ regularized,
        "weight by the squared length of the score, not the length": (
            np.sqrt(plain * policy) @ regularized / np.sqrt(plain * policy).sum()
        ),
        "that is the plain mean over the answers": regularized.mean(),
        "the length of a score has all its entries, not only the answer's own": (
            (own_entry := policy * (1 - policy) ** 2) @ regularized / own_entry.sum()
        ),
    }
    checks.close("best_baseline(...)", answer(policy, regularized), right, mistakes)


# %% check="best_baseline" points=2
examine_best_baseline(
    best_baseline, bandit.Bandit([1.0, 2.0, -0.5], 0.5, [0.5, 0.1, 0.4]), np.array([0.6, 0.3, 0.1])
)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(205)
for size in (3, 6):
    examine_best_baseline(best_baseline, *random_case(rng, size)[:2])
### END HIDDEN TESTS
