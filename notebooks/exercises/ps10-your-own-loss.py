# %% [markdown]
# # Problem set 10: verify your own loss
#
# Somebody proposes an objective. Is its weight the derivative of its value? Does it find the optimal policy from
# other people's data? Does its answer depend on who drew them? You write the tools that tell, an objective of your
# own, and repair somebody else's. It goes with notebook 09. Ten points, about 90 minutes.
#
# Replace every `raise NotImplementedError()` by your own code. In tasks 1 to 3 take numpy alone (and `Score`): the
# package `bandit` knows most answers, and one that calls it is refused; tasks 4 and 5 call it. The cell below each
# answer tests it, and says what is wrong if something is. When you are graded, the same tests run with other numbers
# too.
#
# **The contract.** A loss takes a `Group` with fields `log_prob`, `ref_log_prob` and `reward`, arrays `(..., G)`, and a
# keyword `beta`. It returns `Score(value, weight)`: `value` of shape `(...)` is to be minimized, and `weight`, `(..., G)`, is
# its derivative by `log_prob`. As before $R_i = r_i - \beta\,(\ln\pi(y_i) - \ln\pi_\text{ref}(y_i))$.

# %% examiner=true
import warnings
import checks
import numpy as np
import bandit
from bandit import analysis, losses, pairs
from bandit.losses import Group, Score


def random_group(rng, *shape):
    """Answers with their log-probabilities and rewards, at random."""
    log_prob, ref_log_prob = np.log(rng.uniform(0.05, 0.6, size=(2, *shape)))
    return Group(log_prob, ref_log_prob, rng.normal(size=shape))


def slopes(loss, group, step=1e-5):
    """For the tests: the derivative of a loss's value by each ``log_prob``, numerically."""
    columns = []
    for move in step * np.eye(group.log_prob.shape[-1]):
        up, down = (loss(group._replace(log_prob=group.log_prob + s * move)).value for s in (1, -1))
        columns.append((up - down) / (2 * step))
    return np.stack(columns, axis=-1)


# %%
import numpy as np

import bandit
from bandit import analysis, losses, pairs
from bandit.losses import Group, Score
from ps10_examiner import *

example = bandit.Bandit([1.0, 2.0, -0.5], 0.5, [0.5, 0.1, 0.4])

# %% [markdown]
# ## 1. The derivative, numerically
#
# Write *central differences*: the derivative by $\ln\pi(y_i)$ is nearly
# $\bigl(\ell(\ln\pi(y_i) + h) - \ell(\ln\pi(y_i) - h)\bigr) / 2h$, one answer moved at a time. `loss` is a function of a group
# (β is bound already), and `group` holds a single group of $G$ answers. A group with other log-probabilities is
# `group._replace(log_prob=...)`.


# %% answer="numerical_weight"
def numerical_weight(loss, group, h):
    """The derivative of ``loss(group).value`` by each log_prob, an array (G,)."""
    ### BEGIN SOLUTION
    derivative = np.zeros(len(group.log_prob))
    for i in range(len(derivative)):
        move = np.zeros(len(derivative))
        move[i] = h
        above = loss(group._replace(log_prob=group.log_prob + move)).value
        below = loss(group._replace(log_prob=group.log_prob - move)).value
        derivative[i] = (above - below) / (2 * h)
    return derivative
    ### END SOLUTION


# %% examiner=true
def examine_numerical_weight(answer, name, group, beta, h):
    def loss(at):
        return losses.get(name)(at, beta=beta)

    right, here = loss(group).weight, loss(group).value
    moves = h * np.eye(len(group.log_prob))
    ahead = np.array([loss(group._replace(log_prob=group.log_prob + m)).value for m in moves])
    behind = np.array([loss(group._replace(log_prob=group.log_prob - m)).value for m in moves])
    mistakes = {
        "the sign is wrong: value ahead minus value behind": (behind - ahead) / (2 * h),
        "the two places are 2h apart, not h": (ahead - behind) / h,
        "the difference must be divided by 2h": ahead - behind,
        "that is a one-sided difference, with an error proportional to h": (ahead - here) / h,
        "that is a one-sided difference, behind, with an error proportional to h": (here - behind)
        / h,
        "move one answer at a time, not all together": np.full(
            len(right),
            (
                loss(group._replace(log_prob=group.log_prob + h)).value
                - loss(group._replace(log_prob=group.log_prob - h)).value
            )
            / (2 * h),
        ),
    }
    before = group.log_prob.copy()
    found = answer(loss, group, h)
    assert (group.log_prob == before).all(), (
        "numerical_weight(...) changed the group it was given: make a copy of log_prob before you move it"
    )
    checks.close(f"numerical_weight({name}, ...)", found, right, mistakes)


# %% check="numerical_weight" points=2
rng = np.random.default_rng(10)
# The value of CoPG is quadratic, so central differences are exact for any h, even a large one.
examine_numerical_weight(numerical_weight, "copg", random_group(rng, 2), 0.5, 0.1)
examine_numerical_weight(numerical_weight, "log_variance", random_group(rng, 4), 0.5, 0.1)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(1001)
examine_numerical_weight(numerical_weight, "copg", random_group(rng, 5), 1.7, 0.05)
preferred = random_group(rng, 2)._replace(preference=np.array(0.7))
examine_numerical_weight(numerical_weight, "ipo", preferred, 0.3, 0.2)
examine_numerical_weight(numerical_weight, "dpo", preferred, 0.8, 1e-4)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. An objective of your own
#
# CoPG squares the gap $R_1 - R_2$ of a pair, so a single absurd reward pulls with all its weight. Write a robust version,
#
# $$\ell = \frac1\beta \ln \cosh(R_1 - R_2) ,$$
#
# which is CoPG's loss for small gaps and grows only linearly for large ones. Return a `Score` with the value and the weight,
# for batches of pairs `(..., 2)`. Derive the weight on paper. For large gaps $\ln\cosh z = \ln\frac{e^z + e^{-z}}{2}$ must not
# overflow: `np.logaddexp` helps.


# %% answer="robust"
def robust(group, *, beta):
    """The robust contrastive loss, Score(value (...), weight (..., 2))."""
    ### BEGIN SOLUTION
    regularized = group.reward - beta * (group.log_prob - group.ref_log_prob)
    gap = regularized[..., 0] - regularized[..., 1]
    value = (np.logaddexp(gap, -gap) - float(np.log(2))) / beta
    pull = np.tanh(gap)
    return Score(value, np.stack([-pull, pull], axis=-1))
    ### END SOLUTION


# %% examiner=true
def examine_robust(answer, group, beta):
    score = answer(group, beta=beta)
    assert isinstance(score, Score), (
        f"robust(...): expected Score(value, weight), got {type(score).__name__}"
    )
    # CoPG's value is gap²/2β, its weight ∓gap.
    gap = -losses.copg(group, beta=beta).weight[..., 0]
    size = np.abs(gap)
    right = (size + np.log1p(np.exp(-2 * size)) - np.log(2)) / beta
    mistakes = {
        "the factor 1/β is missing": right * beta,
        "that is ln(e^z + e^−z): the ½ of cosh is missing": right + np.log(2) / beta,
        "the penalty of R has the wrong sign, or the log-ratio is turned round": robust_of(
            group._replace(log_prob=group.ref_log_prob, ref_log_prob=group.log_prob), beta
        ),
        "that is the loss of the rewards; the log-ratios are missing": robust_of(
            group._replace(log_prob=group.ref_log_prob), beta
        ),
        "that is CoPG itself": losses.copg(group, beta=beta).value,
    }
    checks.close("robust(...).value", score.value, right, mistakes)
    slope = slopes(lambda at: answer(at, beta=beta), group)
    mistakes = {
        "your weight has the opposite sign: ∂R/∂ln π is −β": -slope,
        "a factor β is missing or too many: the chain rule brings −β, which cancels the 1/β": slope
        / beta,
        "a factor β too many": slope * beta,
        "that is CoPG's weight: the derivative of ln cosh is tanh": np.stack([-gap, gap], axis=-1),
        "the derivative of ln cosh is tanh, not sinh": np.stack(
            [-np.sinh(gap), np.sinh(gap)], axis=-1
        ),
        "both have the same sign": np.stack([slope[..., 0]] * 2, axis=-1),
    }
    checks.close("robust(...).weight", score.weight, slope, mistakes, tolerance=1e-5)


def robust_of(group, beta):
    """The value once more, for the tests."""
    size = np.abs(losses.copg(group, beta=beta).weight[..., 0])
    return (size + np.log1p(np.exp(-2 * size)) - np.log(2)) / beta


# %% check="robust" points=2
examine_robust(robust, Group(np.log([0.6, 0.3]), np.log([0.5, 0.1]), np.array([1.0, 2.0])), 0.5)
examine_robust(robust, random_group(np.random.default_rng(102), 3, 2), 2.0)
large = robust(Group(np.zeros(2), np.zeros(2), np.array([2000.0, 0.0])), beta=1.0)
checks.close("robust(...).value with a gap of 2000", large.value, 2000 - np.log(2))
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(1002)
examine_robust(robust, random_group(rng, 2, 4, 2), 0.3)
examine_robust(robust, random_group(rng, 2), 1.4)
report = bandit.verify(robust, level="quick")
broken = [f.text for f in report.faults if f.check in ("returns", "batch", "gradient")]
assert not broken, "bandit.verify(robust) finds: " + "; ".join(broken)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Somebody else's objective
#
# A colleague turns rewards into soft preferences, $p = \sigma(r_1 - r_2)$, and trains with DPO's loss. The value is right. The
# weight is not: the derivative of the value tells another story. Write the right one.


# %%
def colleague(group, *, beta):
    """DPO on soft preferences made from rewards. The value is right, the weight is not."""
    log_ratio = group.log_prob - group.ref_log_prob
    delta = log_ratio[..., 0] - log_ratio[..., 1]
    p = 1 / (1 + np.exp(group.reward[..., 1] - group.reward[..., 0]))
    value = p * np.logaddexp(0, -beta * delta) + (1 - p) * np.logaddexp(0, beta * delta)
    pull = p - 1 / (1 + np.exp(-beta * delta))
    return Score(value, np.stack([pull, -pull], axis=-1))


# %% answer="repaired_weight"
def repaired_weight(group, beta):
    """The derivative of ``colleague(group, beta=beta).value``, an array (..., 2)."""
    ### BEGIN SOLUTION
    return -beta * colleague(group, beta=beta).weight
    ### END SOLUTION


# %% examiner=true
def examine_repaired_weight(answer, group, beta):
    p = 1 / (1 + np.exp(group.reward[..., 1] - group.reward[..., 0]))
    right = losses.dpo(group._replace(preference=p), beta=beta).weight
    theirs = -right / beta
    mistakes = {
        "that is the colleague's own weight": theirs,
        "your weight has the opposite sign: a loss is descended": -right,
        "the sign is right; the factor β of the chain rule is still missing": -theirs,
        "both have the same sign, but what pushes one answer up pushes the other down": np.abs(
            right
        )
        * np.sign(right[..., :1]),
    }
    checks.close("repaired_weight(...)", answer(group, beta), right, mistakes)


# %% check="repaired_weight" points=2
examine_repaired_weight(repaired_weight, random_group(np.random.default_rng(103), 2), 0.4)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(1003)
for shape in ((2,), (5, 2)):
    examine_repaired_weight(repaired_weight, random_group(rng, *shape), rng.uniform(0.2, 3))
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Does it find the optimal policy?
#
# `analysis.solve(problem, loss, pairs.independent(behavior))` computes where a loss comes to rest exactly: `.policy`, its
# `.regret`, and `.converged`, which is False if there is no such policy, or more than one. Decide whether `loss` finds $\pi^*$
# from the data of `behavior`, with a regret of at most a millionth.


# %% answer="finds_optimum"
def finds_optimum(loss, problem, behavior):
    """True or False."""
    ### BEGIN SOLUTION
    solution = analysis.solve(problem, loss, pairs.independent(behavior))
    return bool(solution.converged and solution.regret < 1e-6)
    ### END SOLUTION


# %% examiner=true package=true
def examine_finds_optimum(answer, loss, problem, behavior, right, explanation):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", analysis.NotIdentifiedWarning)
        found = answer(loss, problem, np.array(behavior))
    name = getattr(loss, "__name__", "loss")
    checks.same(f"finds_optimum({name}, ..., {behavior})", found, right, explanation)


# %% check="finds_optimum" points=2
examine_finds_optimum(
    finds_optimum,
    losses.copg,
    example,
    [0.1, 0.2, 0.7],
    True,
    "CoPG finds π* from any data that connect all arms",
)
examine_finds_optimum(
    finds_optimum,
    losses.policy_gradient,
    example,
    [0.1, 0.2, 0.7],
    False,
    "it comes to rest somewhere else; look at the regret",
)
examine_finds_optimum(
    finds_optimum,
    losses.copg,
    example,
    [0.4, 0.6, 0.0],
    False,
    "arm 2 is never seen, so no single policy is determined: not converged",
)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(1004)
problem = bandit.Bandit(rng.normal(size=4), 0.8, rng.dirichlet(np.full(4, 3.0)))
data = rng.dirichlet(np.full(4, 3.0))
on_policy = problem.optimal_policy()
examine_finds_optimum(
    finds_optimum, losses.log_variance, problem, data, True, "it is CoPG on another scale"
)
examine_finds_optimum(
    finds_optimum, losses.reward_weighted, problem, data, False, "it finds μ exp(r/β)"
)
examine_finds_optimum(
    finds_optimum,
    losses.reward_weighted,
    problem,
    problem.reference,
    True,
    "with data from π_ref it does",
)
examine_finds_optimum(
    finds_optimum,
    losses.importance_sampling,
    problem,
    data,
    True,
    "weights repair a policy gradient",
)
examine_finds_optimum(finds_optimum, losses.grpo, problem, data, False, "GRPO's answer is not π*")
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Does it matter who drew the data?
#
# Decide whether the policy that `loss` finds depends on the behavior: whether two behaviors lead to policies with an entry
# that differs by more than a millionth. `preference` is passed on to `analysis.solve`; it is None for losses on rewards.


# %% answer="depends_on_behavior"
def depends_on_behavior(loss, problem, first, second, preference=None):
    """True or False, for two behaviors."""
    ### BEGIN SOLUTION
    ends = [
        analysis.solve(problem, loss, pairs.independent(behavior), preference=preference).policy
        for behavior in (first, second)
    ]
    return bool(np.abs(ends[0] - ends[1]).max() > 1e-6)
    ### END SOLUTION


# %% examiner=true package=true
def examine_depends_on_behavior(answer, loss, problem, seed, right, explanation, preference=None):
    first, second = np.random.default_rng(seed).dirichlet(np.full(problem.n_arms, 3.0), size=2)
    found = answer(loss, problem, first, second, preference)
    name = getattr(loss, "__name__", "loss")
    checks.same(f"depends_on_behavior({name}, ...)", found, right, explanation)


# %% check="depends_on_behavior" points=2
judge = bandit.preferences.bradley_terry(example.reward)
examine_depends_on_behavior(
    depends_on_behavior, losses.copg, example, 1, False, "CoPG finds π* from both"
)
examine_depends_on_behavior(
    depends_on_behavior,
    losses.ipo,
    example,
    2,
    True,
    "IPO counts wins against the answers in the data",
    judge,
)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(1005)
problem = bandit.Bandit(rng.normal(size=4), 0.8, rng.dirichlet(np.full(4, 3.0)))
judge = bandit.preferences.bradley_terry(problem.reward)
examine_depends_on_behavior(
    depends_on_behavior,
    losses.dpo,
    problem,
    3,
    False,
    "DPO finds π* of Bradley–Terry preferences",
    judge,
)
examine_depends_on_behavior(
    depends_on_behavior, losses.reward_weighted, problem, 4, True, "it finds μ exp(r/β)"
)
examine_depends_on_behavior(
    depends_on_behavior, losses.policy_gradient, problem, 5, True, "without a baseline it does"
)
examine_depends_on_behavior(
    depends_on_behavior, losses.rloo, problem, 6, False, "RLOO's weight is CoPG's"
)
### END HIDDEN TESTS

# %% [markdown]
# ## And now all at once
#
# `bandit.verify` asks all this, and more, of any function that keeps the contract. Try it on yours, on your colleague's, and
# on one that you always wanted to try.

# %%
print(bandit.verify(robust, level="quick"))
