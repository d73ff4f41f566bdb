"""Objectives that contrast the rewards of a group; notation in :mod:`bandit.losses`."""

from __future__ import annotations

from array_api_compat import array_namespace

from bandit.contract import Group, Score, objective
from bandit.losses._blocks import (
    difference,
    log_ratio_of,
    minus_mean_of_others,
    opposed,
    regularized_reward,
    total,
)


@objective("reward", kinds="exchangeable separable contrastive quadratic affine_in_reward")
def copg(group: Group, *, beta: float) -> Score:
    r"""Contrastive policy gradient.

    .. math:: \text{value} = \frac{1}{2\beta(G-1)} \sum_{i<j} (R_i - R_j)^2, \qquad
              \text{weight}_i = -\Bigl(R_i - \frac{1}{G-1}\sum_{j\ne i} R_j\Bigr)

    Parameters
    ----------
    group : Group
        ``log_prob``, ``ref_log_prob``, ``reward``: (..., G), G ≥ 2.
    beta : float
        Regularization strength, in units of reward.

    Returns
    -------
    Score
        ``value`` (...) in units of reward; ``weight`` (..., G) in units of reward. On-policy the
        descent direction is G times the gradient of E[r] − β KL(π‖π_ref).

    Notes
    -----
    Nothing is held constant and no importance weight appears: whatever drew the groups, if they
    connect all arms the only minimizer is π* ∝ π_ref exp(r/β). The loss cannot see whether they do:
    within disconnected sets of arms only ratios inside each set are learned.

    References
    ----------
    Flet-Berliac et al. 2024, arXiv:2406.19185, the pairwise loss and its gradient; for G > 2 the
    average over pairs, scaled so that the weight is the leave-one-out policy gradient's.
    """
    advantage = minus_mean_of_others(regularized_reward(group, beta))
    size = advantage.shape[-1]
    return Score((size - 1) / (2 * beta * size) * total(advantage**2), -advantage)


@objective("reward", kinds="exchangeable separable contrastive quadratic affine_in_reward")
def log_variance(group: Group, *, beta: float) -> Score:
    r"""Log-variance loss (VarGrad; trajectory balance with the log-partition estimated per group).

    .. math:: \text{value} = \tfrac12 \operatorname{Var}_i(R_i/\beta), \qquad
              \text{weight}_i = -\frac{R_i - \bar R}{\beta (G-1)}

    with the unbiased sample variance over the group.

    Parameters
    ----------
    group : Group
        ``log_prob``, ``ref_log_prob``, ``reward``: (..., G), G ≥ 2.
    beta : float
        Regularization strength, in units of reward.

    Returns
    -------
    Score
        ``value`` in squared nats, ``weight`` in nats. G β times it is :func:`copg`, value and
        weight.

    References
    ----------
    Richter et al. 2020, arXiv:2010.10436 (log-variance loss); Malkin et al. 2022, arXiv:2201.13259
    (trajectory balance).
    """
    surprise = regularized_reward(group, beta) / beta
    deviation = surprise - array_namespace(surprise).mean(surprise, axis=-1, keepdims=True)
    others = surprise.shape[-1] - 1
    return Score(total(deviation**2) / (2 * others), -deviation / others)


@objective(
    "reward",
    sizes=(2, 2),
    kinds="exchangeable separable contrastive quadratic affine_in_reward",
)
def rebel(group: Group, *, eta: float) -> Score:
    r"""REBEL: regress the reward difference on the relative change of log-ratio.

    .. math:: \text{value} = \tfrac12 \bigl(\Delta_t/\eta - (r_1 - r_2)\bigr)^2, \qquad
              \text{weight} = \pm \bigl(\Delta_t/\eta - (r_1 - r_2)\bigr)/\eta

    Parameters
    ----------
    group : Group
        ``ref_log_prob`` is the *previous iterate's* ln π_t, against which Δ_t is measured.
    eta : float
        Step size of the mirror-descent round, per unit of reward. One round from π_ref with
        η = 1/β has π* for solution.

    Returns
    -------
    Score
        ``value`` in squared units of reward. With η = 1/β the weight is β times :func:`copg`'s.

    References
    ----------
    Gao et al. 2024, arXiv:2404.16767, algorithm 1 (there without the ½).
    """
    residual = difference(log_ratio_of(group)) / eta - difference(group.reward)
    return Score(residual**2 / 2, opposed(residual / eta))
