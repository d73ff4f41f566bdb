# %% [markdown]
# # Problem set 8: logged data and the effective sample size
#
# Somebody's system chose arms, and wrote down contexts, arms, rewards, and with which probability it chose what it
# chose. What would another policy have earned? You write the estimators, a standard error, and the number that tells
# whether to believe any of it. It goes with notebook 06. Ten points, about 75 minutes.
#
# Replace every `raise NotImplementedError()` by your own code, with numpy alone: the package `bandit` knows most
# answers, and one that calls it is refused. The cell below each answer tests it, and says what is wrong if something
# is. When you are graded, the same tests run with other numbers too.
#
# | symbol | in the code | meaning |
# | --- | --- | --- |
# | $x_i, y_i$ | `contexts`, `arms` | integers from 0, arrays of length $n$ |
# | $r_i$ | `rewards` | an array of length $n$ |
# | $p_i$ | `propensities` | probability with which $y_i$ was chosen in context $x_i$, length $n$ |
# | $\pi(y \mid x)$ | `policy` | the policy to evaluate, an array `(X, K)`: a row for each context |
# | $w_i = \pi(y_i \mid x_i) / p_i$ | `weights` | importance weights, length $n$ |

# %% examiner=true
import checks
import numpy as np
from bandit import data, ope


def random_log(rng, n, contexts=3, arms=4):
    """A log of n decisions, and another policy, at random."""
    logging, policy = rng.dirichlet(np.full(arms, 3.0), size=(2, contexts))
    x = rng.integers(contexts, size=n)
    y = np.array([rng.choice(arms, p=logging[c]) for c in x])
    labels = {"context_labels": range(contexts), "arm_labels": range(arms)}
    return data.Log(x, y, rng.normal(size=n) + y, logging[x, y], **labels), policy


def weights_of(log, policy):
    """For the tests of the other tasks."""
    return policy[log.contexts, log.arms] / log.propensities


# %%
import numpy as np

import bandit
from bandit import data
from ps08_examiner import *

small = data.Log(
    [0, 0, 1, 1, 1], [0, 1, 1, 0, 1], [1.0, 0.0, 2.0, 1.0, 0.5], [0.8, 0.2, 0.4, 0.6, 0.4]
)
other = np.array([[0.3, 0.7], [0.5, 0.5]])

# %% [markdown]
# ## 1. Importance weights


# %% answer="importance_weights"
def importance_weights(contexts, arms, propensities, policy):
    """w of each row, an array of length n."""
    ### BEGIN SOLUTION
    return policy[contexts, arms] / propensities
    ### END SOLUTION


# %% examiner=true
def examine_importance_weights(answer, log, policy):
    x, y, p = log.contexts, log.arms, log.propensities
    right = weights_of(log, policy)
    mistakes = {
        "the ratio is turned round: an arm that was logged too rarely must count more": 1 / right,
        "the policy depends on the context: take the row of each context": policy[0][y] / p,
        "the policy depends on the context: don't average over contexts": policy.mean(axis=0)[y]
        / p,
        "the propensities are missing": policy[x, y],
        "divide by the propensity, don't multiply": policy[x, y] * p,
    }
    checks.close("importance_weights(...)", answer(x, y, p, policy), right, mistakes)


# %% check="importance_weights" points=1
examine_importance_weights(importance_weights, small, other)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(801)
for n in (12, 60):
    examine_importance_weights(importance_weights, *random_log(rng, n))
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Two estimates
#
# Write inverse propensity weighting, $\text{IPW} = \frac1n \sum_i w_i r_i$, and its self-normalized version, $\text{SNIPW} =
# \sum_i w_i r_i / \sum_i w_i$. Return both.


# %% answer="estimates"
def estimates(rewards, weights):
    """Two numbers: IPW and SNIPW."""
    ### BEGIN SOLUTION
    total = np.sum(weights * rewards)
    return total / len(rewards), total / np.sum(weights)
    ### END SOLUTION


# %% examiner=true
def examine_estimates(answer, log, policy):
    w, r = weights_of(log, policy), log.rewards
    ipw, normalized = ope.ipw(log, policy).value, ope.self_normalized_ipw(log, policy).value
    mistakes = {
        "the two are in the other order": [normalized, ipw],
        "IPW is a mean: divide by the number of rows": [ipw * len(r), normalized],
        "that is the mean of the logged rewards: the weights are missing": [r.mean(), r.mean()],
        "SNIPW divides by the sum of the weights": [ipw, ipw],
        "that is IPW alone; return both": ipw,
        "that is SNIPW alone; return both": normalized,
        "SNIPW divides by the sum of the weights instead of n, not besides": [
            ipw,
            normalized / len(r),
        ],
    }
    checks.close("estimates(...)", answer(r, w), [ipw, normalized], mistakes)


# %% check="estimates" points=2
examine_estimates(estimates, small, other)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(802)
for n in (12, 60):
    examine_estimates(estimates, *random_log(rng, n))
### END HIDDEN TESTS

# %% [markdown]
# ## 3. The effective sample size
#
# A mean with unequal weights is as noisy as one of $n_\text{eff} = \bigl(\sum_i w_i\bigr)^2 / \sum_i w_i^2$ rows with equal weights.
# If it is a small part of $n$, a few rows decide everything.


# %% answer="effective_sample_size"
def effective_sample_size(weights):
    """n_eff, a number between 1 and n."""
    ### BEGIN SOLUTION
    return np.sum(weights) ** 2 / np.sum(weights**2)
    ### END SOLUTION


# %% examiner=true
def examine_effective_sample_size(answer, log, policy):
    w = weights_of(log, policy)
    right = ope.ipw(log, policy).effective_sample_size
    mistakes = {
        "the ratio is turned round: equal weights should give n": 1 / right,
        "the square of the sum is missing": w.sum() / (w**2).sum(),
        "square and sum are exchanged above: sum first, then square": 1.0,
        "that is n_eff / n, a share": right / len(w),
        "that is the number of rows; unequal weights make it smaller": len(w),
        "that is a root of it": np.sqrt(right),
        "that is for weights that sum to 1; these don't": 1 / (w**2).sum(),
    }
    checks.close("effective_sample_size(...)", answer(w), right, mistakes)


# %% check="effective_sample_size" points=2
examine_effective_sample_size(effective_sample_size, small, other)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(803)
for n in (12, 60):
    examine_effective_sample_size(effective_sample_size, *random_log(rng, n))
### END HIDDEN TESTS

# %% [markdown]
# ## 4. A standard error
#
# IPW is a mean of the $n$ terms $t_i = w_i r_i$. Estimate its standard error,
# $\sqrt{\frac{1}{n (n - 1)} \sum_i (t_i - \bar t)^2}$.


# %% answer="standard_error"
def standard_error(rewards, weights):
    """Of IPW, in units of reward."""
    ### BEGIN SOLUTION
    terms = weights * rewards
    return terms.std(ddof=1) / np.sqrt(len(terms))
    ### END SOLUTION


# %% examiner=true
def examine_standard_error(answer, log, policy):
    w, r = weights_of(log, policy), log.rewards
    n, right = len(r), ope.ipw(log, policy).standard_error
    mistakes = {
        "that is the spread of a single term; a mean of n has less": right * np.sqrt(n),
        "take the root: that is a variance, in squared units of reward": right**2,
        "the mean was estimated from the same rows: n − 1, not n": right * np.sqrt((n - 1) / n),
        "the weights are missing": r.std(ddof=1) / np.sqrt(n),
        "the mean of the terms must be subtracted": np.sqrt(np.sum((w * r) ** 2) / (n * (n - 1))),
        "divide the spread by √n, not by n": right / np.sqrt(n),
    }
    checks.close("standard_error(...)", answer(r, w), right, mistakes)


# %% check="standard_error" points=2
examine_standard_error(standard_error, small, other)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(804)
for n in (12, 60):
    examine_standard_error(standard_error, *random_log(rng, n))
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Doubly robust
#
# Somebody has a model $q(x, y)$ of the reward, made from other data. Alone it says $\text{DM} = \frac1n \sum_i \sum_y \pi(y \mid x_i)\,
# q(x_i, y)$. The *doubly robust* estimate corrects it by what the model got wrong on the logged rows:
#
# $$\text{DR} = \text{DM} + \frac1n \sum_i w_i\, \bigl(r_i - q(x_i, y_i)\bigr) .$$


# %% answer="doubly_robust"
def doubly_robust(contexts, arms, rewards, weights, policy, model):
    """DR, in units of reward; ``policy`` and ``model`` have shape (X, K)."""
    ### BEGIN SOLUTION
    said = np.sum(policy * model, axis=1)[contexts]
    return np.mean(said + weights * (rewards - model[contexts, arms]))
    ### END SOLUTION


# %% examiner=true
def examine_doubly_robust(answer, log, policy, model):
    x, y, r, w = log.contexts, log.arms, log.rewards, weights_of(log, policy)
    right = ope.doubly_robust(log, policy, model=model).value
    said = np.sum(policy * model, axis=1)
    gap = w * (r - model[x, y])
    mistakes = {
        "that is what the model says alone; the correction is missing": said[x].mean(),
        "that is the correction alone; what the model says is missing": gap.mean(),
        "the correction has the wrong sign: it adds what the model missed": (said[x] - gap).mean(),
        "the correction must be weighted: the rows are the logging policy's": (
            said[x] + r - model[x, y]
        ).mean(),
        "the model speaks of the contexts of the log: count each as often as it occurs": said.mean()
        + gap.mean(),
        "the model must speak of the arms the policy would choose, not of the logged ones": (
            model[x, y] + gap
        ).mean(),
        "the model's answer is averaged with the policy's probabilities": (
            model[x].mean(axis=1) + gap
        ).mean(),
        "the model's prediction must be subtracted in the correction": (said[x] + w * r).mean(),
        "both parts are means over the rows: divide by n": (said[x] + gap).sum(),
        "what the model says is a sum over the arms, then a mean over the rows": (
            (policy * model)[x].mean() + gap.mean()
        ),
        "divide the correction by n, not by the sum of the weights": said[x].mean()
        + gap.sum() / w.sum(),
    }
    found = answer(x, y, r, w, policy, model)
    checks.close("doubly_robust(...)", found, right, mistakes)


# %% check="doubly_robust" points=3
examine_doubly_robust(doubly_robust, small, other, np.array([[0.9, 0.2], [1.1, 0.8]]))
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(805)
for n in (12, 60):
    log, policy = random_log(rng, n)
    examine_doubly_robust(doubly_robust, log, policy, rng.normal(size=policy.shape))
### END HIDDEN TESTS
