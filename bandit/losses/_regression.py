"""Objectives that regress regularized rewards on a value; notation in :mod:`bandit.losses`."""

from __future__ import annotations

import math
from numbers import Real

from array_api_compat import array_namespace

from bandit._checks import shown
from bandit.contract import Group, Score, objective
from bandit.losses._blocks import given, log_ratio_of, per_member, regularized_reward, total
from bandit.losses._policy_gradients import policy_gradient


@objective(
    "reward baseline",
    sizes=(1, None),
    kinds="exchangeable separable quadratic affine_in_reward reads_baseline",
)
def value_regression(group: Group, *, beta: float) -> Score:
    r"""Regression of the regularized reward on a value (DRO; with V* known, A*-PO's second stage).

    .. math:: \text{value} = \tfrac12 \sum_i (R_i - V)^2, \qquad
              \text{weight}_i = -\beta\,(R_i - V)

    Parameters
    ----------
    group : Group
        ``log_prob``, ``ref_log_prob``, ``reward``: (..., G); ``baseline``: V (...), in units of
        reward, held constant here. A learned V is that which fits the data best, E_μ[R].
    beta : float
        Regularization strength, in units of reward.

    Returns
    -------
    Score
        ``value`` in squared units of reward, the sum over the group. ``weight`` is β times
        :func:`policy_gradient`'s with V for baseline. With V = E_μ[R], expected value and gradient
        are β times :func:`copg`'s, for independent completions and groups of any one size.

    Notes
    -----
    Minimized over π and V together, or with V = V* = β ln Z, the minimizer is π*. With any other V
    the stationary point has μ (R − V) ∝ π: it is π* only if μ is π*.

    References
    ----------
    Richemond et al. 2024, arXiv:2405.19107 (V learned); Brantley et al. 2025, arXiv:2505.20686
    (version 1; V = β ln of the mean of exp(r/β) over samples from the reference, fixed, data from
    the policy; there without the ½).
    """
    residual = regularized_reward(group, beta) - per_member(given(group))
    return Score(total(residual**2) / 2, -beta * residual)


@objective(
    "reward baseline",
    sizes=(1, None),
    kinds="exchangeable separable quadratic affine_in_reward reads_baseline",
)
def trajectory_balance(group: Group, *, beta: float) -> Score:
    r"""Trajectory balance with a log-partition function of its own for each prompt.

    .. math:: \text{value} = \tfrac12 \sum_i (\ln Z + \ell_i - r_i/\beta)^2, \qquad
              \text{weight}_i = \ln Z + \ell_i - r_i/\beta

    Parameters
    ----------
    group : Group
        ``log_prob``, ``ref_log_prob``, ``reward``: (..., G); ``baseline``: β ln Z (...), in units
        of reward, held constant here. A learned ln Z is that which fits the data best, E_μ[R]/β.
    beta : float
        Regularization strength, in units of reward.

    Returns
    -------
    Score
        ``value`` in squared nats, ``weight`` in nats: 1/β² times :func:`value_regression`, value
        and weight. With ln Z = E_μ[R]/β, expected value and gradient are 1/β times :func:`copg`'s,
        for independent completions.

    Notes
    -----
    Minimized over π and ln Z together the minimizer is π* with its ln Z. :func:`log_variance` is
    this with ln Z fitted to each group instead of to each prompt.

    References
    ----------
    Malkin et al. 2022, arXiv:2201.13259, equation 14, for completions drawn in one step and the
    density π_ref exp(r/β) (there without the ½).
    """
    surplus = per_member(given(group)) / beta + log_ratio_of(group) - group.reward / beta
    return Score(total(surplus**2) / 2, surplus)


@objective("reward", kinds="exchangeable separable quadratic affine_in_reward reads_baseline")
def pmd_mean(group: Group, *, beta: float) -> Score:
    r"""Policy mirror descent with the mean reward in place of the log-partition function.

    .. math:: \text{value} = \frac{1}{2\beta} \sum_i (r_i - \bar r - \beta\ell_i)^2, \qquad
              \text{weight}_i = -(r_i - \bar r - \beta\ell_i)

    Parameters
    ----------
    group : Group
        ``log_prob``, ``ref_log_prob`` (of the policy a round starts from), ``reward``: (..., G),
        G ≥ 2; ``baseline``: r̄ (...) if given, else the mean reward of the group.
    beta : float
        Regularization strength of a round, in units of reward.

    Returns
    -------
    Score
        Both in units of reward; ``weight`` is :func:`policy_gradient`'s with r̄ for baseline, and
        so :func:`copg`'s but for r̄, the mean of r, where that has the mean of R.

    Notes
    -----
    With r̄ = E_μ[r] the stationary point has μ (R − E_μ[r]) ∝ π: it is not π*, unless μ is. With
    the mean of a group of G it is moreover that of rewards shrunk by (G − 1)/G, because each
    completion is part of the mean it is compared with.

    References
    ----------
    Kimi team 2025, arXiv:2501.12599, section 2.3.2, the gradient of its surrogate with the mean
    reward; called PMD-mean and solved exactly in Xu et al. 2026, arXiv:2602.05933.
    """
    mean = array_namespace(group.reward).mean(group.reward, axis=-1, keepdims=True)
    mean = mean if group.baseline is None else per_member(group.baseline)
    residual = regularized_reward(group, beta) - mean
    return Score(total(residual**2) / (2 * beta), -residual)


@objective(
    "reward baseline",
    sizes=(1, None),
    kinds="exchangeable separable semi_gradient affine_in_reward reads_baseline",
)
def asymmetric_reinforce(group: Group, *, beta: float, shift: float = -0.1) -> Score:
    r"""Off-policy REINFORCE with a baseline below (or above) the mean, and a KL penalty.

    .. math:: \text{value} = -\sum_i A_i \ln\pi(y_i), \quad \text{weight}_i = -A_i, \quad
              A_i = R_i - (b + \text{shift}) \text{ held constant}

    Parameters
    ----------
    group : Group
        ``log_prob``, ``ref_log_prob``, ``reward``: (..., G); ``baseline``: b (...), the mean of R
        over the data.
    beta : float
        Regularization strength, in units of reward.
    shift : float
        In units of reward. Below 0 good completions are pushed up more than bad ones down.

    Returns
    -------
    Score
        ``weight`` is :func:`policy_gradient`'s less ``shift``: to the gradient with b it adds
        −shift times that of the likelihood −Σ ln π(y_i) of the data. ``value`` measures nothing.

    Notes
    -----
    With b = E_μ[R] the population loss is :func:`copg`'s (per completion) − shift · KL(μ‖π) up to a
    constant: below the mean a compromise between π* and μ, always unique; above it data are
    avoided, and uniqueness is certain only up to a shift of 2β min μ.

    References
    ----------
    Arnal et al. 2025, arXiv:2506.20520 (version 1), there without the KL penalty.
    """
    if isinstance(shift, bool) or not isinstance(shift, Real):
        raise TypeError(f"asymmetric_reinforce: expected shift to be a number, got {shown(shift)}")
    if not math.isfinite(shift):
        raise ValueError(f"asymmetric_reinforce: expected shift to be finite, got {shift}")
    moved = group._replace(baseline=given(group) + float(shift))
    return policy_gradient(moved, beta=beta, baseline="given")
