# %% [markdown]
# # Problem set 4: IPO as a contrastive policy gradient
#
# IPO learns from preferences. You write its loss and its weight, find out where it comes to rest, and show that it is
# CoPG with two rewards. It goes with notebook 03, section 3. Ten points, about an hour.
#
# Replace every `raise NotImplementedError()` by your own code, with numpy alone: the package `bandit` knows most
# answers, and one that calls it is refused. The cell below each answer tests it, and says what is wrong if something
# is. When you are graded, the same tests run with other numbers too.
#
# | symbol | in the code | meaning |
# | --- | --- | --- |
# | $\Delta$ | `delta` | difference of log-ratios, $\ln\frac{\pi(y_1)}{\pi_\text{ref}(y_1)} - \ln\frac{\pi(y_2)}{\pi_\text{ref}(y_2)}$ |
# | $p$ | `p` | probability that the first answer is preferred to the second |
# | $\beta$ | `beta` | regularization strength (IPO's own paper calls it $\tau$) |
#
# `delta` and `p` are numbers or arrays of one shape.

# %% examiner=true
import checks
import numpy as np
import bandit
from bandit import analysis, losses, pairs, preferences
from bandit.losses import Group


def ipo_of(delta, p, beta):
    """The package's value and weight of pairs with these differences of log-ratios."""
    log_prob = np.stack([np.asarray(delta), np.zeros(np.shape(delta))], axis=-1)
    return losses.ipo(
        Group(log_prob, np.zeros(log_prob.shape), preference=np.asarray(p)), beta=beta
    )


# %%
import numpy as np

import bandit
from ps04_examiner import *


# %% [markdown]
# ## 1. The loss
#
# $$\ell = p \Bigl(\Delta - \frac{1}{2\beta}\Bigr)^2 + (1 - p) \Bigl(\Delta + \frac{1}{2\beta}\Bigr)^2$$


# %% answer="ipo_loss"
def ipo_loss(delta, p, beta):
    """IPO's loss of each pair, an array like ``delta``."""
    ### BEGIN SOLUTION
    margin = 1 / (2 * beta)
    return p * (delta - margin) ** 2 + (1 - p) * (delta + margin) ** 2
    ### END SOLUTION


# %% examiner=true
def examine_ipo_loss(answer, delta, p, beta):
    def with_margin(m, first=p):
        return first * (delta - m) ** 2 + (1 - first) * (delta + m) ** 2

    mistakes = {
        "the margin is 1/(2β), not 1/β": with_margin(1 / beta),
        "the margin is 1/(2β), not β/2": with_margin(beta / 2),
        "the margin is 1/(2β), not ½: beta is missing": with_margin(0.5),
        "the signs of the margins are exchanged: a preferred first answer wants Δ = +1/(2β)": with_margin(
            -1 / (2 * beta)
        ),
        "the second term is missing: the second answer is preferred with probability 1 − p": p
        * (delta - 1 / (2 * beta)) ** 2,
        "both targets have the same sign": (delta - 1 / (2 * beta)) ** 2,
        "the mean is over the two squares, not over the two targets": (
            delta - (2 * p - 1) / (2 * beta)
        )
        ** 2,
        "that is β² times the loss: the margin is 1/(2β) for Δ, and ½ only for βΔ": beta**2
        * with_margin(1 / (2 * beta)),
        "one number for each pair: don't average": np.mean(with_margin(1 / (2 * beta))),
    }
    checks.close("ipo_loss(...)", answer(delta, p, beta), ipo_of(delta, p, beta).value, mistakes)


# %% check="ipo_loss" points=2
examine_ipo_loss(ipo_loss, np.array([0.3, -1.2, 2.0]), np.array([1.0, 0.0, 0.7]), 0.2)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(401)
for beta in (0.1, 1.5):
    examine_ipo_loss(ipo_loss, rng.normal(size=(3, 4)), rng.uniform(size=(3, 4)), beta)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. The weight
#
# Differentiate the loss by $\ln\pi(y_1)$, that is, by $\Delta$. (The second answer has minus the same.)


# %% answer="ipo_weight"
def ipo_weight(delta, p, beta):
    """∂ loss / ∂ ln π(y₁) of each pair, an array like ``delta``."""
    ### BEGIN SOLUTION
    return 2 * (delta - (2 * p - 1) / (2 * beta))
    ### END SOLUTION


# %% examiner=true
def examine_ipo_weight(answer, delta, p, beta):
    right = ipo_of(delta, p, beta).weight[..., 0]
    mistakes = {
        "your weight has the opposite sign: a loss is descended, so that a Δ below its target has a negative weight": (
            -right
        ),
        "half of it: the derivative of a square brings a 2": right / 2,
        "that is for p = 1 only": 2 * (delta - 1 / (2 * beta)),
        "the target's sign is wrong: a preferred answer is pulled up": 2
        * (delta + (2 * p - 1) / (2 * beta)),
        "the target of an uncertain preference is (2p − 1)/(2β), not p/(2β)": 2
        * (delta - p / (2 * beta)),
        "the target is twice what it should be: (2p − 1)/(2β)": 2 * (delta - (2 * p - 1) / beta),
        "only the first answer's weight is asked for": np.stack([right, -right], axis=-1),
        "the second term is missing: the second answer is preferred with probability 1 − p": 2
        * p
        * (delta - 1 / (2 * beta)),
        "the target is (2p − 1)/(2β): mind the parentheses, /2 * beta multiplies by beta": 2
        * (delta - (2 * p - 1) / 2 * beta),
    }
    checks.close("ipo_weight(...)", answer(delta, p, beta), right, mistakes)


# %% check="ipo_weight" points=2
examine_ipo_weight(ipo_weight, np.array([0.3, -1.2, 2.0]), np.array([1.0, 0.0, 0.7]), 0.2)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(402)
for beta in (0.1, 1.5):
    examine_ipo_weight(ipo_weight, rng.normal(size=(3, 4)), rng.uniform(size=(3, 4)), beta)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Where one pair comes to rest
#
# If all data are one pair of answers, the first preferred with probability $p$: which $\Delta$ does IPO lead to?
# (The test asks whether the loss is smallest there.)


# %% answer="rest"
def rest(p, beta):
    """The Δ with the smallest loss, an array like ``p``."""
    ### BEGIN SOLUTION
    return (2 * p - 1) / (2 * beta)
    ### END SOLUTION


# %% examiner=true
def examine_rest(answer, p, beta):
    slope = ipo_of(np.array([-1.0, 1.0]), np.array([p, p]), beta).weight[:, 0]
    right = -1 - slope[0] * 2 / (slope[1] - slope[0])  # a straight line through zero
    mistakes = {
        "that is for p = 1 only": 1 / (2 * beta),
        "the sign is wrong: an answer preferred more often than not should become likelier": -right,
        "a factor ½ is missing": 2 * right,
        "at p = ½ nothing is preferred, and Δ should be 0": p / (2 * beta),
        "divide by beta: the weaker the regularization the farther Δ goes": (2 * p - 1) * beta / 2,
        "that is where DPO comes to rest; IPO's target is linear in p": np.log(p / (1 - p)) / beta
        if 0 < p < 1
        else np.nan,
    }
    checks.close(f"rest({p}, {beta})", answer(p, beta), right, mistakes)


# %% check="rest" points=2
examine_rest(rest, 0.7, 0.2)
examine_rest(rest, 0.5, 0.2)
### BEGIN HIDDEN TESTS
for p, beta in ((1.0, 0.4), (0.1, 0.7), (0.0, 2.0), (0.62, 0.05)):
    examine_rest(rest, p, beta)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. IPO is CoPG
#
# For a clear preference ($p = 1$) IPO's weight is that of CoPG, $-(R_1 - R_2)$ for the first answer, times a factor, if
# the first answer is given the reward $g/2$ and the second $-g/2$. Find the gap of rewards $g$ and the factor.
#
# (The test compares the package's two losses, on random pairs, with your numbers.)


# %% answer="as_copg"
def as_copg(beta):
    """Two numbers: the gap g, and the factor c with IPO's weight = c · CoPG's weight."""
    ### BEGIN SOLUTION
    return 0.5, 2 / beta
    ### END SOLUTION


# %% examiner=true
def examine_as_copg(answer, beta, seed):
    answer = answer(beta)
    assert answer is not None, "as_copg(...) is None: is there a `return`?"
    assert np.shape(answer) == (2,), f"as_copg(...): expected two numbers, got {answer!r}"
    gap, factor = answer
    log_prob, ref_log_prob = np.random.default_rng(seed).normal(size=(2, 50, 2))
    group = Group(log_prob, ref_log_prob, np.tile([gap / 2, -gap / 2], (50, 1)), np.ones(50))
    ipo, copg = (
        losses.ipo(group, beta=beta).weight[:, 0],
        losses.copg(group, beta=beta).weight[:, 0],
    )
    slope, offset = np.polyfit(copg, ipo, 1)
    assert not np.allclose(ipo, -factor * copg), "as_copg(...): the factor has the wrong sign"
    assert np.isclose(slope, factor), (
        f"as_copg({beta}): with rewards ±{gap / 2:.4g} IPO's weights rise by {slope:.6g} where CoPG's rise by 1, "
        f"and your factor is {factor:.6g}; compare the coefficients of Δ in both"
    )
    assert abs(offset) < 1e-8, (
        f"as_copg({beta}): the factor is right, but the weights differ by {offset:.6g} everywhere: "
        f"your gap {gap:.4g} of rewards is too {'small' if offset < 0 else 'large'}; it does not depend on β"
    )


# %% check="as_copg" points=2
examine_as_copg(as_copg, 0.5, 0)
### BEGIN HIDDEN TESTS
for beta, seed in ((0.1, 1), (1.0, 2), (3.0, 3)):
    examine_as_copg(as_copg, beta, seed)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Where IPO ends
#
# Both answers of a pair are drawn independently from $\mu$, and $P(y, z)$ is the probability that $y$ is preferred to $z$.
# Then IPO's solution is
#
# $$\pi(y) \propto \pi_\text{ref}(y)\, \exp\Bigl(\frac{1}{\beta} \sum_z \mu(z)\, P(y, z)\Bigr) :$$
#
# what counts is how often an answer wins *against the answers in the data*.


# %% answer="ipo_solution"
def ipo_solution(preference, reference, behavior, beta):
    """IPO's solution, an array of length K; ``preference`` has shape (K, K)."""
    ### BEGIN SOLUTION
    wins = preference @ behavior
    unnormalized = reference * np.exp(wins / beta)
    return unnormalized / unnormalized.sum()
    ### END SOLUTION


# %% examiner=true
def examine_ipo_solution(answer, preference, reference, behavior, beta):
    problem = bandit.Bandit(np.zeros(len(reference)), beta, reference)
    nu = pairs.independent(behavior)
    right = analysis.solve(problem, losses.ipo, nu, preference=preference).policy

    def tilted(base, exponent):
        return base * np.exp(exponent) / np.sum(base * np.exp(exponent))

    wins = preference @ behavior
    mistakes = {
        "you averaged how often an answer loses: sum over the second index of P": tilted(
            reference, behavior @ preference / beta
        ),
        "the reference is missing": tilted(1.0, wins / beta),
        "divide by beta": tilted(reference, wins),
        "divide by beta, don't multiply by it": tilted(reference, wins * beta),
        "the opponents must be weighted by the behavior": tilted(
            reference, preference.mean(axis=1) / beta
        ),
        "the opponents are drawn from the behavior, not from the reference": tilted(
            reference, preference @ reference / beta
        ),
        "the probabilities don't sum to 1": reference * np.exp(wins / beta),
        "the behavior draws the opponents; what is multiplied by exp(...) is the reference": tilted(
            behavior, wins / beta
        ),
        "the exponent is divided by β, not by 2β": tilted(reference, wins / (2 * beta)),
    }
    found = answer(preference, reference, behavior, beta)
    checks.close("ipo_solution(...)", found, right, mistakes)


# %% check="ipo_solution" points=2
examine_ipo_solution(
    ipo_solution,
    preferences.bradley_terry([2.5, 2.0, 1.0]),
    np.array([0.5, 0.1, 0.4]),
    np.array([0.1, 0.2, 0.7]),
    0.4,
)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(405)
cycle = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
examine_ipo_solution(ipo_solution, cycle, *rng.dirichlet(np.ones(3), size=2), 0.3)
examine_ipo_solution(
    ipo_solution,
    preferences.bradley_terry(rng.normal(size=5)),
    *rng.dirichlet(np.ones(5), size=2),
    1.2,
)
### END HIDDEN TESTS
