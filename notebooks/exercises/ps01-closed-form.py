# %% [markdown]
# # Problem set 1: the closed form
#
# You work out by hand what notebook 01 shows: what a policy is worth when straying from the reference costs
# something, which policy is best, and how much any other one loses. Ten points, about an hour.
#
# Replace every `raise NotImplementedError()` by your own code, with numpy alone: the package `bandit` knows most
# answers, and one that calls it is refused. The cell below each answer tests it, and says what is wrong if something
# is. When you are graded, the same tests run with other numbers too.
#
# | symbol | in the code | meaning |
# | --- | --- | --- |
# | $\pi(y)$ | `policy` | probabilities of $K$ answers, an array of length $K$ |
# | $\pi_\text{ref}(y)$ | `reference` | the reference policy, all entries above 0 |
# | $r(y)$ | `reward` | rewards, an array of length $K$ |
# | $\beta$ | `beta` | price of one nat of divergence, in units of reward |

# %% examiner=true
import checks
import numpy as np
import bandit

# %%
import numpy as np

import bandit
from ps01_examiner import *


# %% [markdown]
# ## 1. The divergence
#
# Write $\mathrm{KL}(p \,\|\, q) = \sum_y p(y) \ln \frac{p(y)}{q(y)}$, in nats. An entry of `p` may be zero; then
# its term is zero, because $t \ln t \to 0$. All entries of `q` are above zero.


# %% answer="kl"
def kl(p, q):
    """KL(p‖q) of two arrays of length K, a number."""
    ### BEGIN SOLUTION
    used = p > 0
    return np.sum(p[used] * np.log(p[used] / q[used]))
    ### END SOLUTION


# %% examiner=true
def examine_kl(answer, p, q):
    right = bandit.Bandit(np.zeros(len(p)), beta=1.0, reference=q).kl(p)
    terms = np.log(np.where(p > 0, p, 1.0) / q)
    mistakes = {
        "the arguments are exchanged: the average of the log-ratio is over p": q @ np.log(q / p)
        if p.all()
        else np.nan,
        "each term must be weighted by p(y)": terms.sum(),
        "that is in bits; take the natural logarithm": right / np.log(2),
    }
    checks.close(f"kl({p}, {q})", answer(p, q), right, mistakes)


# %% check="kl" points=2
examine_kl(kl, np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6]))
examine_kl(kl, np.array([0.5, 0.0, 0.5]), np.array([0.2, 0.2, 0.6]))
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(101)
for size in (2, 5, 9):
    examine_kl(kl, *rng.dirichlet(np.ones(size), size=2))
examine_kl(kl, np.array([0.0, 1.0]), np.array([0.7, 0.3]))
### END HIDDEN TESTS

# %% [markdown]
# ## 2. What a policy is worth
#
# Write the objective, $J(\pi) = \sum_y \pi(y)\, r(y) - \beta\, \mathrm{KL}(\pi \,\|\, \pi_\text{ref})$. Here all
# entries of `policy` are above zero.


# %% answer="objective"
def objective(policy, reward, reference, beta):
    """J(policy), in units of reward, a number."""
    ### BEGIN SOLUTION
    divergence = np.sum(policy * np.log(policy / reference))
    return policy @ reward - beta * divergence
    ### END SOLUTION


# %% examiner=true
def examine_objective(answer, policy, reward, reference, beta):
    problem = bandit.Bandit(reward, beta, reference)
    earned, divergence = policy @ reward, problem.kl(policy)
    reverse = reference @ np.log(reference / policy)
    mistakes = {
        "straying from the reference should cost something: the penalty has the wrong sign": earned
        + beta * divergence,
        "the penalty is missing": earned,
        "beta is missing: a nat costs beta units of reward": earned - divergence,
        "beta belongs before the penalty, not below it": earned - divergence / beta,
        "the divergence is turned round: it is KL(policy‖reference)": earned - beta * reverse,
        "the rewards are not weighted by the policy": reward.sum() - beta * divergence,
        "the expected reward is a sum, not a mean over the answers": np.mean(policy * reward)
        - beta * divergence,
        "the log-ratios are not weighted by the policy": earned
        - beta * np.sum(np.log(policy / reference)),
        "only the penalty is there; the expected reward is missing": -beta * divergence,
    }
    checks.close(
        "objective(...)",
        answer(policy, reward, reference, beta),
        problem.objective(policy),
        mistakes,
    )


# %% check="objective" points=2
examine_objective(
    objective, np.array([0.6, 0.3, 0.1]), np.array([1.0, 2.0, -0.5]), np.array([0.5, 0.1, 0.4]), 0.5
)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(102)
for size, beta in ((2, 0.3), (6, 1.7)):
    policy, reference = rng.dirichlet(np.ones(size), size=2)
    examine_objective(objective, policy, rng.normal(size=size), reference, beta)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. The best policy
#
# Write $\pi^*(y) = \pi_\text{ref}(y)\, e^{r(y)/\beta} / Z$. A reward of 1000 with $\beta = 1$ must not overflow:
# what may be added to all exponents without changing the result?


# %% answer="optimal_policy"
def optimal_policy(reward, reference, beta):
    """π*, an array of length K that sums to 1."""
    ### BEGIN SOLUTION
    exponent = reward / beta - np.max(reward / beta)
    unnormalized = reference * np.exp(exponent)
    return unnormalized / unnormalized.sum()
    ### END SOLUTION


# %% examiner=true
def examine_optimal_policy(answer, reward, reference, beta):
    problem = bandit.Bandit(reward, beta, reference)

    def tilted(base, exponent):
        mass = base * np.exp(exponent - exponent.max())
        return mass / mass.sum()

    with np.errstate(over="ignore"):
        unnormalized = reference * np.exp(reward / beta)
    mistakes = {
        "the reference is missing: habits are multiplied by exp(r/β)": tilted(1.0, reward / beta),
        "the reward is divided by beta, not multiplied by it": tilted(reference, reward * beta),
        "beta is missing": tilted(reference, reward),
        "the exponent has the wrong sign: that favors bad answers": tilted(
            reference, -reward / beta
        ),
        "the probabilities don't sum to 1: divide by Z": unnormalized,
        "that is ln π*, but for a constant: take exp of it, then divide by the sum": (
            (log_best := np.log(reference) + reward / beta) / log_best.sum()
        ),
    }
    found = answer(reward, reference, beta)
    checks.close("optimal_policy(...)", found, problem.optimal_policy(), mistakes)


# %% check="optimal_policy" points=2
examine_optimal_policy(
    optimal_policy, np.array([1.0, 2.0, 0.5, -1.0]), np.array([0.5, 0.1, 0.3, 0.1]), 0.5
)
examine_optimal_policy(optimal_policy, np.array([1000.0, 999.0]), np.array([0.3, 0.7]), 1.0)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(103)
for size, beta in ((3, 0.2), (8, 2.5)):
    examine_optimal_policy(
        optimal_policy, rng.normal(size=size), rng.dirichlet(np.ones(size)), beta
    )
examine_optimal_policy(
    optimal_policy, np.array([-5000.0, -5001.0, -5003.0]), np.array([0.3, 0.5, 0.2]), 0.7
)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Which β makes two answers equally likely?
#
# There are two answers. The second has the higher reward and the lower reference probability. Derive on paper the
# $\beta$ for which $\pi^*$ gives both the same probability, and write the formula. (The test does not know the
# formula: it computes $\pi^*$ with your $\beta$ and looks.)


# %% answer="equalizing_beta"
def equalizing_beta(reward, reference):
    """The β at which π* = (½, ½), for arrays of length 2."""
    ### BEGIN SOLUTION
    return (reward[1] - reward[0]) / np.log(reference[0] / reference[1])
    ### END SOLUTION


# %% examiner=true
def examine_equalizing_beta(answer, reward, reference):
    beta = checks.number("equalizing_beta(...)", answer(reward, reference))
    assert beta > 0, (
        f"equalizing_beta(...) = {beta:.4g}, but β must be above 0: check which answer comes first"
    )
    first, second = bandit.Bandit(reward, beta, reference).optimal_policy()
    inverse = bandit.Bandit(reward, 1 / beta, reference).optimal_policy()
    assert abs(inverse[0] - 0.5) > 1e-6 or abs(first - 0.5) < 1e-6, (
        "equalizing_beta(...) is 1/β of what is asked for: solve for β once more"
    )
    assert abs(first - 0.5) < 1e-6, (
        f"with your β = {beta:.6g} the answers have probabilities {first:.4f} and {second:.4f}: β is too "
        + ("small" if second > first else "large")
    )


# %% check="equalizing_beta" points=2
examine_equalizing_beta(equalizing_beta, np.array([1.0, 2.0]), np.array([5 / 6, 1 / 6]))
### BEGIN HIDDEN TESTS
examine_equalizing_beta(equalizing_beta, np.array([-1.0, 2.5]), np.array([0.9, 0.1]))
examine_equalizing_beta(equalizing_beta, np.array([0.1, 0.4]), np.array([0.55, 0.45]))
### END HIDDEN TESTS

# %% [markdown]
# ## 5. What any other policy loses
#
# The *regret* of a policy is $J(\pi^*) - J(\pi)$. Notebook 01 shows that it is a divergence times a number. Write it
# that way (the difference of two values of $J$ is correct too, but loses its digits where the regret is small).


# %% answer="regret"
def regret(policy, reward, reference, beta):
    """J(π*) − J(policy), in units of reward, a number."""
    ### BEGIN SOLUTION
    log_best = np.log(reference) + reward / beta
    log_best = log_best - np.log(np.sum(np.exp(log_best)))
    return beta * np.sum(policy * (np.log(policy) - log_best))
    ### END SOLUTION


# %% examiner=true
def examine_regret(answer, policy, reward, reference, beta):
    problem = bandit.Bandit(reward, beta, reference)
    best = problem.optimal_policy()
    mistakes = {
        "a regret is never negative: it is what is missing to the best value": -problem.regret(
            policy
        ),
        "the factor is missing: a divergence is in nats, a regret in units of reward": problem.regret(
            policy
        )
        / beta,
        "the divergence is turned round: it is KL(policy‖π*)": beta * best @ np.log(best / policy),
        "that is the penalty, the divergence from the reference": beta * problem.kl(policy),
        "that is the loss of expected reward alone, without the penalties": (best - policy)
        @ reward,
        "π* must be divided by Z: these are minus J, without J(π*)": -problem.objective(policy),
        "π* is not greedy: it pays a penalty, too": reward.max() - policy @ reward,
    }
    found = answer(policy, reward, reference, beta)
    checks.close("regret(...)", found, problem.regret(policy), mistakes)


# %% check="regret" points=2
examine_regret(
    regret, np.array([0.6, 0.3, 0.1]), np.array([1.0, 2.0, -0.5]), np.array([0.5, 0.1, 0.4]), 0.5
)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(105)
for size, beta in ((2, 0.4), (7, 1.3)):
    policy, reference = rng.dirichlet(np.ones(size), size=2)
    examine_regret(regret, policy, rng.normal(size=size), reference, beta)
### END HIDDEN TESTS
