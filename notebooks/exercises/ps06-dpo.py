# %% [markdown]
# # Problem set 6: DPO and Bradley–Terry
#
# When do preferences say as much as rewards? You write the Bradley–Terry model, DPO's loss and weight, find where DPO
# comes to rest, and read the rewards off a policy. It goes with notebook 05. Ten points, about 75 minutes.
#
# Replace every `raise NotImplementedError()` by your own code, with numpy alone: the package `bandit` knows most
# answers, and one that calls it is refused. The cell below each answer tests it, and says what is wrong if something
# is. When you are graded, the same tests run with other numbers too.
#
# | symbol | in the code | meaning |
# | --- | --- | --- |
# | $\sigma(z) = 1/(1 + e^{-z})$ | | the logistic function; $1 - \sigma(z) = \sigma(-z)$ |
# | $P(y, z)$ | `preference` | probability that answer $y$ is preferred to $z$, an array `(K, K)` |
# | $\Delta$ | `delta` | difference of log-ratios, $\ln\frac{\pi(y_1)}{\pi_\text{ref}(y_1)} - \ln\frac{\pi(y_2)}{\pi_\text{ref}(y_2)}$ |
# | $p$ | `p` | probability that the first answer of a pair is preferred |

# %% examiner=true
import checks
import numpy as np
import bandit
from bandit import losses, preferences
from bandit.losses import Group


def dpo_of(delta, p, beta):
    """The package's value and weight of pairs with these differences of log-ratios."""
    log_prob = np.stack([np.asarray(delta), np.zeros(np.shape(delta))], axis=-1)
    return losses.dpo(
        Group(log_prob, np.zeros(log_prob.shape), preference=np.asarray(p)), beta=beta
    )


def logistic(z):
    """For the tests; not for large −z."""
    return 1 / (1 + np.exp(-z))


# %%
import numpy as np

import bandit
from ps06_examiner import *


# %% [markdown]
# ## 1. The Bradley–Terry model
#
# Write the matrix $P(y, z) = \sigma\bigl(r(y) - r(z)\bigr)$. Rewards of a thousand must not overflow (numpy has
# `np.logaddexp`, and scipy has `scipy.special.expit`).


# %% answer="bradley_terry"
def bradley_terry(reward):
    """P, an array (K, K), from rewards of length K."""
    ### BEGIN SOLUTION
    gap = reward[:, None] - reward[None, :]
    return np.exp(-np.logaddexp(0.0, -gap))
    ### END SOLUTION


# %% examiner=true
def examine_bradley_terry(answer, reward):
    right = preferences.bradley_terry(reward)
    with np.errstate(over="ignore", invalid="ignore"):
        odds = np.exp(reward[:, None] - reward[None, :])
    mistakes = {
        "rows and columns are exchanged: P(y, z) is large where y is the better one": right.T,
        "these are odds, P/(1 − P); the probability is σ of the gap": odds,
        "these are certain preferences; Bradley–Terry's are noisy": preferences.deterministic(
            reward
        ),
        "these are the gaps; take σ of them": reward[:, None] - reward[None, :],
        "that is σ of each reward; it takes a gap for every pair of answers": logistic(
            reward.clip(-500)
        ),
    }
    with np.errstate(over="raise", invalid="raise"):
        try:
            found = answer(reward)
        except FloatingPointError as error:
            raise AssertionError(
                f"bradley_terry({reward}): {error}: exp of a large number"
            ) from None
    checks.close(f"bradley_terry({reward})", found, right, mistakes)


# %% check="bradley_terry" points=2
examine_bradley_terry(bradley_terry, np.array([2.5, 2.0, 1.0]))
examine_bradley_terry(bradley_terry, np.array([1000.0, 0.0]))
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(601)
examine_bradley_terry(bradley_terry, rng.normal(size=5))
examine_bradley_terry(bradley_terry, np.array([-3000.0, 2000.0, 1999.0]))
### END HIDDEN TESTS

# %% [markdown]
# ## 2. DPO's loss
#
# $$\ell = -p \ln \sigma(\beta\Delta) - (1 - p) \ln \sigma(-\beta\Delta)$$
#
# A large $|\Delta|$ must not give `inf`: what is $-\ln\sigma(z)$ when $z$ is very negative?


# %% answer="dpo_loss"
def dpo_loss(delta, p, beta):
    """DPO's loss of each pair, an array like ``delta``."""
    ### BEGIN SOLUTION
    z = beta * delta
    return p * np.logaddexp(0.0, -z) + (1 - p) * np.logaddexp(0.0, z)
    ### END SOLUTION


# %% examiner=true
def examine_dpo_loss(answer, delta, p, beta):
    right = dpo_of(delta, p, beta).value
    win, loss = (np.logaddexp(0.0, -s * beta * delta) for s in (1, -1))
    mistakes = {
        "the sign is wrong: the log-likelihood is maximized, so the loss is minus it": -right,
        "the two terms are exchanged: a preferred first answer wants a large Δ": p * loss
        + (1 - p) * win,
        "the second term is missing": p * win,
        "β is missing: σ takes βΔ": p * np.logaddexp(0, -delta) + (1 - p) * np.logaddexp(0, delta),
        "β multiplies Δ, it does not divide it": p * np.logaddexp(0, -delta / beta)
        + (1 - p) * np.logaddexp(0, delta / beta),
        "the logarithm is missing": -p * np.exp(-win) - (1 - p) * np.exp(-loss),
        "an uncertain preference has two terms, not one with 2p − 1 inside σ": np.logaddexp(
            0, -(2 * p - 1) * beta * delta
        ),
    }
    with np.errstate(all="ignore"):
        found = answer(delta, p, beta)
    checks.close("dpo_loss(...)", found, right, mistakes)


# %% check="dpo_loss" points=2
examine_dpo_loss(dpo_loss, np.array([0.3, -1.2, 2.0]), np.array([1.0, 0.0, 0.7]), 0.4)
examine_dpo_loss(dpo_loss, np.array([-5000.0, 5000.0]), np.array([0.9, 0.4]), 0.5)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(602)
examine_dpo_loss(dpo_loss, rng.normal(size=(3, 4)), rng.uniform(size=(3, 4)), 2.0)
examine_dpo_loss(dpo_loss, np.array([3000.0]), np.array([0.25]), 1.0)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. DPO's weight
#
# Differentiate the loss by $\ln\pi(y_1)$ and by $\ln\pi(y_2)$. It is short: use $\sigma'(z) = \sigma(z)\,\sigma(-z)$.


# %% answer="dpo_weight"
def dpo_weight(delta, p, beta):
    """The two derivatives for each pair, an array (..., 2)."""
    ### BEGIN SOLUTION
    slope = beta * (1 / (1 + np.exp(-beta * delta)) - p)
    return np.stack([slope, -slope], axis=-1)
    ### END SOLUTION


# %% examiner=true
def examine_dpo_weight(answer, delta, p, beta):
    right = dpo_of(delta, p, beta).weight
    first = right[..., 0]
    sure = -beta * logistic(-beta * delta)
    mistakes = {
        "your weight has the opposite sign: a loss is descended, so a preferred first answer has a negative weight": (
            -right
        ),
        "the factor β of the chain rule is missing": right / beta,
        "both have the same sign, but what pushes one answer up pushes the other down": np.stack(
            [first, first], axis=-1
        ),
        "that is for p = 1 only": np.stack([sure, -sure], axis=-1),
        "that is the first answer's; return both, in a new last axis": first,
        "the two derivatives of a pair go along the last axis, not the first": np.stack(
            [first, -first]
        ),
        "β is missing inside σ": beta
        * np.stack([logistic(delta) - p, p - logistic(delta)], axis=-1),
        "the derivative of ln σ(z) is σ(−z), not σ(z)": np.stack(
            [-beta * (logistic(beta * delta) + p - 1), beta * (logistic(beta * delta) + p - 1)],
            axis=-1,
        ),
    }
    checks.close("dpo_weight(...)", answer(delta, p, beta), right, mistakes)


# %% check="dpo_weight" points=2
examine_dpo_weight(dpo_weight, np.array([0.3, -1.2, 2.0]), np.array([1.0, 0.0, 0.7]), 0.4)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(603)
for beta in (0.2, 2.5):
    examine_dpo_weight(dpo_weight, rng.normal(size=(2, 5)), rng.uniform(size=(2, 5)), beta)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Where one pair comes to rest
#
# If all data are one pair, the first answer preferred with probability $p$ above 0 and below 1: which $\Delta$ does DPO
# lead to? And with $p = 1$, or $p = 0$? There the loss decreases for ever: return `np.inf` or `-np.inf`.


# %% answer="rest"
def rest(p, beta):
    """The Δ with the smallest loss, a number."""
    ### BEGIN SOLUTION
    if p in (0, 1):
        return np.inf if p == 1 else -np.inf
    return np.log(p / (1 - p)) / beta
    ### END SOLUTION


# %% examiner=true
def examine_rest(answer, p, beta):
    try:
        with np.errstate(all="ignore"):
            found = answer(p, beta)
    except ZeroDivisionError:
        raise AssertionError(
            f"rest({p}, {beta}) divides by zero: the end is infinite, return np.inf or -np.inf"
        ) from None
    if 0 < p < 1:
        right = preferences_to_gap(p) / beta
        mistakes = {
            "the sign is wrong: an answer preferred more often than not should become likelier": -right,
            "β is missing: σ takes βΔ": right * beta,
            "divide by β: σ takes βΔ, and that is what is found first": right * beta**2,
            "that is where IPO comes to rest": (2 * p - 1) / (2 * beta),
            "ln p is not enough: σ(z) = p for z = ln p − ln(1 − p)": np.log(p) / beta,
            "that is σ, not its inverse": logistic(p) / beta,
            "the logarithm of a quotient is not the quotient of the logarithms": np.log(p)
            / np.log(1 - p)
            / beta,
        }
    else:
        right, mistakes = np.inf if p == 1 else -np.inf, {}
        assert found is None or not np.isfinite(found), (
            f"rest({p}, {beta}) = {found}: the loss is still smaller farther away; no finite Δ is the end"
        )
    checks.close(f"rest({p}, {beta})", found, right, mistakes)


def preferences_to_gap(p):
    """The gap of rewards behind p: the zero of DPO's weight, found by bisection."""
    low, high = -40.0, 40.0
    for _ in range(200):
        middle = (low + high) / 2
        if dpo_of(np.array(middle), p, 1.0).weight[0] < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


# %% check="rest" points=2
examine_rest(rest, 0.75, 0.2)
examine_rest(rest, 0.5, 0.2)
examine_rest(rest, 1.0, 0.2)
### BEGIN HIDDEN TESTS
for p, beta in ((0.1, 0.7), (0.99, 1.5), (0.62, 0.05), (0.0, 1.0)):
    examine_rest(rest, p, beta)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. The rewards behind a policy
#
# A policy trained with DPO on Bradley–Terry preferences is $\pi^* \propto \pi_\text{ref}\, e^{r/\beta}$ (if it can be). So the
# rewards can be read off it, but for a constant that nobody can know. Return the ones with mean zero.


# %% answer="implicit_reward"
def implicit_reward(policy, reference, beta):
    """Rewards with mean zero whose π* is ``policy``, an array of length K."""
    ### BEGIN SOLUTION
    reward = beta * np.log(policy / reference)
    return reward - reward.mean()
    ### END SOLUTION


# %% examiner=true
def examine_implicit_reward(answer, problem):
    policy, reference, beta = problem.optimal_policy(), problem.reference, problem.beta
    log_ratio = np.log(policy / reference)
    right = problem.reward - problem.reward.mean()
    mistakes = {
        "the mean is not zero: subtract it": beta * log_ratio,
        "the sign is wrong: what became likelier is what is rewarded": -right,
        "β is missing: log-ratios are in nats, rewards are β times as much": right / beta,
        "multiply by β, don't divide": right / beta**2,
        "the reference is missing": beta * (np.log(policy) - np.log(policy).mean()),
        "the logarithm is missing": beta * (policy / reference - np.mean(policy / reference)),
        "the mean over the answers should be zero, not the one under the policy": beta
        * (log_ratio - policy @ log_ratio),
    }
    checks.close("implicit_reward(...)", answer(policy, reference, beta), right, mistakes)


# %% check="implicit_reward" points=2
examine_implicit_reward(implicit_reward, bandit.Bandit([1.0, 2.0, -0.5], 0.5, [0.5, 0.1, 0.4]))
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(605)
for size, beta in ((2, 0.3), (6, 1.7)):
    examine_implicit_reward(
        implicit_reward, bandit.Bandit(rng.normal(size=size), beta, rng.dirichlet(np.ones(size)))
    )
### END HIDDEN TESTS
