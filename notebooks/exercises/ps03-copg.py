# %% [markdown]
# # Problem set 3: the contrastive policy gradient
#
# You write CoPG's loss and its weight, first for a pair and then for a group, and find out when data determine an
# answer at all. It goes with notebook 03, sections 1, 2 and 5. Ten points, about 75 minutes.
#
# Replace every `raise NotImplementedError()` by your own code, with numpy alone: the package `bandit` knows most
# answers, and one that calls it is refused. The cell below each answer tests it, and says what is wrong if something
# is. When you are graded, the same tests run with other numbers too.
#
# | symbol | in the code | meaning |
# | --- | --- | --- |
# | $\ln\pi(y_i)$ | `log_prob` | of the $G$ answers of a group, an array `(..., G)`: the group is the last axis |
# | $\ln\pi_\text{ref}(y_i)$ | `ref_log_prob` | likewise |
# | $r(y_i)$ | `reward` | likewise |
# | $R_i = r(y_i) - \beta \ln \frac{\pi(y_i)}{\pi_\text{ref}(y_i)}$ | `regularized` | regularized rewards, `(..., G)` |
#
# A *weight* is the derivative of a loss by $\ln \pi(y_i)$: a training step goes along $-\sum_i \text{weight}_i \nabla \ln \pi(y_i)$.

# %% examiner=true
import checks
import numpy as np
import bandit
from bandit import analysis, losses, pairs
from bandit.losses import Group


def random_group(rng, *shape):
    """Answers with their log-probabilities and rewards, at random."""
    log_prob, ref_log_prob = np.log(rng.uniform(0.05, 0.6, size=(2, *shape)))
    return Group(log_prob, ref_log_prob, rng.normal(size=shape))


# %%
import numpy as np

import bandit
from ps03_examiner import *


# %% [markdown]
# ## 1. Regularized rewards


# %% answer="regularized_reward"
def regularized_reward(log_prob, ref_log_prob, reward, beta):
    """R of each answer, an array like ``reward``."""
    ### BEGIN SOLUTION
    return reward - beta * (log_prob - ref_log_prob)
    ### END SOLUTION


# %% examiner=true
def examine_regularized_reward(answer, group, beta):
    log_prob, ref_log_prob, reward = group[:3]
    penalty = beta * (log_prob - ref_log_prob)
    right = -losses.policy_gradient(group, beta=beta).weight
    mistakes = {
        "an answer that became likelier must pay: the penalty has the wrong sign": reward + penalty,
        "beta is missing": reward - penalty / beta,
        "the reference is missing": reward - beta * log_prob,
        "the log-ratio is a difference of logarithms, not their quotient": reward
        - beta * log_prob / ref_log_prob,
        "take the logarithm of the ratio, not the ratio": reward - beta * np.exp(penalty / beta),
        "`log_prob` is a logarithm already: don't take another": reward
        - beta * np.log(log_prob / ref_log_prob),
        "the log-ratio is a difference of logarithms, not of probabilities": reward
        - beta * (np.exp(log_prob) - np.exp(ref_log_prob)),
        "the penalty belongs to each answer: don't sum over the group": reward - penalty.sum(),
    }
    found = answer(log_prob, ref_log_prob, reward, beta)
    checks.close("regularized_reward(...)", found, right, mistakes)


# %% check="regularized_reward" points=1
examine_regularized_reward(
    regularized_reward, Group(np.log([0.6, 0.3]), np.log([0.5, 0.1]), np.array([1.0, 2.0])), 0.5
)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(301)
examine_regularized_reward(regularized_reward, random_group(rng, 4, 3), 0.3)
examine_regularized_reward(regularized_reward, random_group(rng, 2), 2.0)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. The loss of a pair
#
# $$\ell = \frac{1}{2\beta} (R_1 - R_2)^2$$
#
# `regularized` has shape `(..., 2)`; return one number for each pair.


# %% answer="pair_loss"
def pair_loss(regularized, beta):
    """CoPG's loss of each pair, an array (...)."""
    ### BEGIN SOLUTION
    gap = regularized[..., 0] - regularized[..., 1]
    return gap**2 / (2 * beta)
    ### END SOLUTION


# %% examiner=true
def group_of(regularized):
    """Answers whose regularized rewards are these, whatever β is."""
    nothing = np.zeros(np.shape(regularized))
    return Group(nothing, nothing, np.asarray(regularized))


def examine_pair_loss(answer, regularized, beta):
    gap = regularized[..., 0] - regularized[..., 1]
    right = losses.copg(group_of(regularized), beta=beta).value
    mistakes = {
        "the gap must be squared": gap / (2 * beta),
        "the factor 1/(2β) is missing": gap**2,
        "the factor is 1/(2β), not β/2": gap**2 * beta / 2,
        "β is missing in the factor 1/(2β)": gap**2 / 2,
        "the ½ is missing in the factor 1/(2β)": gap**2 / beta,
        "the pair is on the last axis, not on the first": (regularized[0] - regularized[1]) ** 2
        / (2 * beta),
        "square the difference, don't subtract the squares": (
            regularized[..., 0] ** 2 - regularized[..., 1] ** 2
        )
        / (2 * beta),
    }
    checks.close("pair_loss(...)", answer(regularized, beta), right, mistakes)


# %% check="pair_loss" points=1
examine_pair_loss(pair_loss, np.array([1.0, -0.5]), 0.25)
examine_pair_loss(pair_loss, np.array([[1.0, -0.5], [0.2, 0.7], [0.0, 3.0]]), 0.25)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(302)
examine_pair_loss(pair_loss, rng.normal(size=(5, 2)), 0.7)
examine_pair_loss(pair_loss, rng.normal(size=(2, 3, 2)), 3.0)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. The weight of a pair
#
# Differentiate this loss by $\ln\pi(y_1)$ and by $\ln\pi(y_2)$. Mind the chain rule: $\partial R_i / \partial \ln\pi(y_i) = -\beta$.
# (The test differentiates the loss numerically.)


# %% answer="pair_weight"
def pair_weight(regularized):
    """The two derivatives for each pair, an array (..., 2)."""
    ### BEGIN SOLUTION
    gap = regularized[..., 0] - regularized[..., 1]
    return np.stack([-gap, gap], axis=-1)
    ### END SOLUTION


# %% examiner=true
def examine_pair_weight(answer, regularized, beta):
    group, step, slopes = group_of(regularized), 1e-4, []
    for move in step * np.eye(2):
        up, down = (
            losses.copg(group._replace(log_prob=s * move + group.log_prob), beta=beta)
            for s in (1, -1)
        )
        slopes.append((up.value - down.value) / (2 * step))
    right = np.stack(slopes, axis=-1)
    gap = regularized[..., 0] - regularized[..., 1]
    mistakes = {
        "your weight has the opposite sign: a loss is descended, so the better answer has a negative weight": -right,
        "a factor 1/β too many: the chain rule brings −β": right / beta,
        "a factor β too many: the loss is divided by β already": right * beta,
        "half of it: differentiating the square brings a 2": right / 2,
        "both have the same sign, but what pushes one answer up pushes the other down": np.stack(
            [-gap, -gap], axis=-1
        ),
        "both have the same sign, and the wrong one": np.stack([gap, gap], axis=-1),
        "that is the first answer's weight; return both, in a new last axis": -gap,
        "the two weights of a pair go along the last axis, not the first": np.stack([-gap, gap]),
    }
    checks.close("pair_weight(...)", answer(regularized), right, mistakes)


# %% check="pair_weight" points=2
examine_pair_weight(pair_weight, np.array([[1.0, -0.5], [0.2, 0.7]]), 0.25)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(303)
examine_pair_weight(pair_weight, rng.normal(size=(5, 2)), 0.7)
examine_pair_weight(pair_weight, rng.normal(size=(2, 3, 2)), 3.0)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. The weight in a group
#
# In a group of $G$ answers every answer is compared with all the others, and the weight is
#
# $$\text{weight}_i = -\Bigl(R_i - \frac{1}{G-1} \sum_{j \ne i} R_j\Bigr) .$$
#
# Write it without a loop over pairs: a group's sum is computed once.


# %% answer="group_weight"
def group_weight(regularized):
    """The weight of each answer, an array (..., G)."""
    ### BEGIN SOLUTION
    size = regularized.shape[-1]
    others = (regularized.sum(axis=-1, keepdims=True) - regularized) / (size - 1)
    return others - regularized
    ### END SOLUTION


# %% examiner=true
def examine_group_weight(answer, regularized):
    right = losses.copg(group_of(regularized), beta=1.0).weight
    size = regularized.shape[-1]
    total = regularized.sum(axis=-1, keepdims=True)
    mistakes = {
        "your weight has the opposite sign: a loss is descended, so the better answer has a negative weight": -right,
        "your mean includes the answer itself: there are G − 1 others": total / size - regularized,
        "the sum of the others must be divided by G − 1": total - 2 * regularized,
        "the sum of the others is divided by G; there are G − 1 of them": (total - regularized)
        / size
        - regularized,
        "the answer itself must be taken out of the sum": total / (size - 1) - regularized,
        "only the others' mean is there; R_i is missing": (total - regularized) / (size - 1),
    }
    if regularized.ndim > 1:
        rows = len(regularized)
        along = regularized.sum(axis=0)
        mistakes["the group is the last axis, not the first"] = (along - regularized) / max(
            rows - 1, 1
        ) - regularized
    checks.close("group_weight(...)", answer(regularized), right, mistakes)


# %% check="group_weight" points=2
examine_group_weight(group_weight, np.array([1.0, -0.5, 2.0, 0.0]))
examine_group_weight(group_weight, np.array([[1.0, -0.5, 2.0], [0.3, 0.2, 0.1]]))
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(304)
for shape in ((7,), (4, 2), (3, 2, 5)):
    examine_group_weight(group_weight, rng.normal(size=shape))
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Where training goes
#
# Both answers of a pair are drawn independently from a behavior $\mu$. Write the *expected gradient* of the loss by the
# logits of a softmax policy over $K$ answers,
#
# $$g = \sum_{y, y'} \mu(y)\, \mu(y')\, \bigl(\text{weight}_1\, \nabla \ln \pi(y) + \text{weight}_2\, \nabla \ln \pi(y')\bigr) .$$
#
# A double loop will do. (It can also be written with sums over single answers. Which terms of the scores cancel?)


# %% answer="expected_gradient"
def expected_gradient(behavior, regularized):
    """The expected gradient by the logits, an array of length K; ``regularized`` has length K."""
    ### BEGIN SOLUTION
    # The weights of a pair sum to zero, so the terms −π of the scores cancel.
    return -2 * behavior * (regularized - behavior @ regularized)
    ### END SOLUTION


# %% examiner=true
def examine_expected_gradient(answer, problem, policy, behavior):
    regularized = problem.reward - problem.beta * np.log(policy / problem.reference)
    nu = pairs.independent(behavior)
    right = analysis.population(problem, losses.copg, np.log(policy), nu)[1]
    mistakes = {
        "that is the direction of a step, −g; the gradient of a loss points uphill": -right,
        "only one of the two answers of a pair is counted": right / 2,
        "only one of the two answers of a pair is counted, and the sign is wrong": -right / 2,
        "the answers are drawn from the behavior, not from the policy": -2
        * policy
        * (regularized - policy @ regularized),
        "the mean regularized reward must be taken under the behavior": -2
        * behavior
        * (regularized - regularized.mean()),
        "the gap is between two answers: the mean regularized reward must be subtracted": -2
        * behavior
        * regularized,
        "an answer that is drawn more often counts for more: μ(y) is missing": -2
        * (regularized - behavior @ regularized),
    }
    found = answer(behavior, regularized)
    checks.close("expected_gradient(...)", found, right, mistakes)


# %% check="expected_gradient" points=2
examine_expected_gradient(
    expected_gradient,
    bandit.Bandit([1.0, 2.0, -0.5], 0.5, [0.5, 0.1, 0.4]),
    np.array([0.6, 0.3, 0.1]),
    np.array([0.1, 0.2, 0.7]),
)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(305)
for size in (2, 6):
    reference, policy, behavior = rng.dirichlet(np.full(size, 2.0), size=3)
    problem = bandit.Bandit(rng.normal(size=size), rng.uniform(0.2, 2), reference)
    examine_expected_gradient(expected_gradient, problem, policy, behavior)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. Do the data say enough?
#
# `counts[y, z]` is how often answer $y$ stood first in a pair with $z$. Join two answers if they were ever compared,
# whichever stood first. CoPG's solution is determined if one can get from every answer to every other along such
# joints. An answer compared only with itself is joined to nothing.


# %% answer="determined"
def determined(counts):
    """Whether the comparisons connect all answers: True or False, from an array (K, K)."""
    ### BEGIN SOLUTION
    joined = (counts + counts.T > 0) | np.eye(len(counts), dtype=bool)
    reached = np.linalg.matrix_power(joined.astype(float), len(counts)) > 0
    return bool(reached.all())
    ### END SOLUTION


# %% examiner=true
def examine_determined(answer, counts, explanation):
    counts = np.array(counts)
    right = len(pairs.components(pairs.from_counts(counts))) == 1
    checks.same(f"determined({counts.tolist()})", answer(counts), right, explanation)


# %% check="determined" points=2
every = "every answer was compared with every other"
alone = "every answer occurs, but the last was compared with itself only"
order = "it does not matter which answer of a pair stood first"
chain = "0 and 2 were never compared directly, but both were compared with 1"
islands = "there are two groups of answers with no comparison between them"
examine_determined(determined, [[0, 3, 1], [2, 0, 1], [1, 1, 0]], every)
examine_determined(determined, [[0, 3, 0], [2, 0, 0], [0, 0, 5]], alone)
examine_determined(determined, [[0, 3, 0], [0, 0, 1], [0, 0, 0]], chain + ", and " + order)
### BEGIN HIDDEN TESTS
examine_determined(determined, [[0, 0, 0], [4, 0, 0], [1, 0, 0]], order)
examine_determined(determined, [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 2], [0, 0, 2, 0]], islands)
examine_determined(determined, np.eye(7, k=1), chain)
examine_determined(determined, np.diag([1.0] * 4 + [0.0], k=1)[:6, :6] + np.eye(6), islands)
examine_determined(determined, [[1, 1], [1, 1]], every)
### END HIDDEN TESTS
