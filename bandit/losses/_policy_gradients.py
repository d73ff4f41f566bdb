"""Policy gradients and weighted likelihood; notation in :mod:`bandit.losses`."""

from __future__ import annotations

from array_api_compat import array_namespace

from bandit.contract import Group, Score, objective
from bandit.losses._blocks import (
    advantage_of,
    hold,
    log_ratio_of,
    per_member,
    ratio_of,
    times,
    total,
    within_clip,
)


@objective(
    "reward",
    sizes=(1, None),
    kinds="exchangeable separable semi_gradient affine_in_reward reads_baseline",
)
def policy_gradient(group: Group, *, beta: float, baseline: str = "none") -> Score:
    r"""Policy gradient with the KL penalty inside the reward.

    .. math:: \text{value} = -\sum_i A_i \ln\pi(y_i), \quad \text{weight}_i = -A_i, \quad
              A_i = R_i - b \text{ held constant}

    Parameters
    ----------
    group : Group
        ``log_prob``, ``ref_log_prob``, ``reward``: (..., G); ``baseline`` for ``"given"``.
    beta : float
        Regularization strength, in units of reward.
    baseline : {"none", "given", "leave_one_out"}
        b = 0, ``group.baseline``, or the mean R of the other completions of the group.

    Returns
    -------
    Score
        ``weight`` in units of reward. ``value`` measures nothing, only its gradient does. On-policy
        the descent direction is G times the gradient of E[r] − β KL(π‖π_ref).

    Notes
    -----
    The loss cannot see whether the data are on-policy. If they are not, then without a baseline its
    stationary point is not π*; with b = E_μ[R] it is.

    References
    ----------
    Williams 1992; for the off-policy role of the baseline, arXiv:2406.19185.
    """
    advantage = advantage_of(group, beta, baseline)
    return Score(-total(advantage * group.log_prob), -advantage)


@objective(
    "reward",
    kinds="exchangeable separable contrastive quadratic semi_gradient affine_in_reward",
)
def rloo(group: Group, *, beta: float) -> Score:
    r"""REINFORCE leave-one-out: policy gradient with the mean of the others for baseline.

    .. math:: \text{weight}_i = -\Bigl(R_i - \frac{1}{G-1}\sum_{j\ne i} R_j\Bigr)

    Parameters
    ----------
    group : Group
        ``log_prob``, ``ref_log_prob``, ``reward``: (..., G), G ≥ 2.
    beta : float
        Regularization strength, in units of reward.

    Returns
    -------
    Score
        ``weight`` equal to :func:`copg`'s, sample by sample, for every G; ``value`` measures
        nothing.

    References
    ----------
    Ahmadian et al. 2024, arXiv:2402.14740, with the KL penalty inside the reward.
    """
    own = group._replace(baseline=None)  # the group is its own baseline
    return policy_gradient(own, beta=beta, baseline="leave_one_out")


@objective(
    "reward behavior_log_prob",
    sizes=(1, None),
    kinds="exchangeable separable semi_gradient affine_in_reward reads_baseline",
)
def importance_sampling(
    group: Group, *, beta: float, clip: float | None = None, baseline: str = "none"
) -> Score:
    r"""Policy gradient with importance weights, in score form.

    .. math:: \text{value} = -\sum_i \rho_i A_i \ln\pi(y_i), \quad \text{weight}_i = -\rho_i A_i,
              \quad \rho_i = \min\bigl(\pi(y_i)/\mu(y_i), \text{clip}\bigr)

    with ρ and A = R − b held constant.

    Parameters
    ----------
    group : Group
        ``log_prob``, ``ref_log_prob``, ``reward``, ``behavior_log_prob``: (..., G).
    beta : float
        Regularization strength, in units of reward.
    clip : float, optional
        Upper bound of the ratio; it trades variance for bias. None: no bound.
    baseline : {"none", "given", "leave_one_out"}
        As in :func:`policy_gradient`.

    Returns
    -------
    Score
        ``weight`` in units of reward; ``value`` measures nothing.

    Notes
    -----
    Unclipped, and with a behavior that covers all arms, the expected direction is G times the
    policy gradient. The loss cannot see whether ``behavior_log_prob`` is what really drew the data.
    With ``"leave_one_out"`` the baseline averages R under μ, not under π.

    References
    ----------
    Precup, Sutton and Singh 2000 (importance sampling off-policy); Degris, White and Sutton 2012,
    arXiv:1205.4839 (its policy gradient).
    """
    xp = array_namespace(group.log_prob)
    ratio = hold(ratio_of(group))
    if clip is not None:
        ratio = xp.minimum(ratio, xp.full_like(ratio, clip))
    weighted = times(ratio, advantage_of(group, beta, baseline))
    return Score(-total(weighted * group.log_prob), -weighted)


@objective(
    "reward behavior_log_prob", sizes=(1, None), kinds="exchangeable semi_gradient reads_baseline"
)
def ppo_clip(group: Group, *, beta: float, epsilon: float = 0.2, baseline: str = "none") -> Score:
    r"""Proximal policy optimization's clipped surrogate.

    .. math:: \text{value} = -\sum_i \min\bigl(\rho_i A_i,
              \operatorname{clip}(\rho_i, 1-\epsilon, 1+\epsilon) A_i\bigr), \qquad
              \text{weight}_i = -\rho_i A_i \text{ where the unclipped branch is active, else } 0

    with ρ = π/μ differentiated and A = R − b held constant.

    Parameters
    ----------
    group : Group
        ``log_prob``, ``ref_log_prob``, ``reward``, ``behavior_log_prob``: (..., G).
    beta : float
        Regularization strength, in units of reward.
    epsilon : float
        Half-width of the interval the ratio is clipped to, in (0, 1).
    baseline : {"none", "given", "leave_one_out"}
        As in :func:`policy_gradient`.

    Returns
    -------
    Score
        Both in units of reward.

    Notes
    -----
    Made for data from the last iterate. On data from a fixed, distant behavior the clipping
    switches completions off for ever, and the field is discontinuous.

    References
    ----------
    Schulman et al. 2017, arXiv:1707.06347, equation 7.
    """
    xp = array_namespace(group.log_prob)
    advantage, ratio = advantage_of(group, beta, baseline), ratio_of(group)
    active = within_clip(advantage, ratio, epsilon)
    used = xp.where(active, ratio, xp.clip(ratio, 1 - epsilon, 1 + epsilon))
    weight = xp.where(active, -times(ratio, advantage), xp.zeros_like(ratio))
    return Score(-total(times(used, advantage)), weight)


@objective(
    "reward behavior_log_prob", sizes=(1, None), kinds="exchangeable semi_gradient reads_baseline"
)
def clipped_objective(
    group: Group, *, beta: float, epsilon: float = 0.2, baseline: str = "none"
) -> Score:
    r"""Clipped-objective policy gradient: PPO's clip around ln π instead of the ratio.

    .. math:: \text{value} = -\sum_i \min\bigl(A_i \ln\pi_i,
              A_i \ln\operatorname{clip}(\pi_i, (1-\epsilon)\mu_i, (1+\epsilon)\mu_i)\bigr), \qquad
              \text{weight}_i = -A_i \text{ where active, else } 0

    with A = R − b held constant.

    Parameters
    ----------
    group : Group
        ``log_prob``, ``ref_log_prob``, ``reward``, ``behavior_log_prob``: (..., G).
    beta : float
        Regularization strength, in units of reward.
    epsilon : float
        Half-width of the clipping interval, relative to μ, in (0, 1).
    baseline : {"none", "given", "leave_one_out"}
        As in :func:`policy_gradient`.

    Returns
    -------
    Score
        ``weight`` in units of reward; PPO's is this one times ρ.

    References
    ----------
    Markowitz and Staley 2023, arXiv:2311.05846.
    """
    xp = array_namespace(group.log_prob)
    advantage, ratio = advantage_of(group, beta, baseline), ratio_of(group)
    active = within_clip(advantage, ratio, epsilon)
    bound = group.behavior_log_prob + xp.log(xp.clip(ratio, 1 - epsilon, 1 + epsilon))
    used = xp.where(active, group.log_prob, bound)
    weight = xp.where(active, -advantage, xp.zeros_like(advantage))
    return Score(-total(used * advantage), weight)


@objective("reward", kinds="exchangeable semi_gradient")
def grpo(group: Group, *, beta: float) -> Score:
    r"""Group-relative policy optimization: one step, no clipping, KL penalty beside the reward.

    .. math:: \text{value} = -\sum_i A_i \ln\pi(y_i) + \beta \sum_i (e^{-\ell_i} - 1 + \ell_i),
              \qquad \text{weight}_i = -A_i + \beta (1 - e^{-\ell_i}), \qquad A_i = (r_i - \bar r)/s

    with s the standard deviation of the group (divisor G); A is 0 where all rewards are equal.

    Parameters
    ----------
    group : Group
        ``log_prob``, ``ref_log_prob``, ``reward``: (..., G), G ≥ 2.
    beta : float
        Weight of the KL estimate; rewards have lost their unit in A, so β is a pure number here.

    Returns
    -------
    Score
        Summed over the group (divide by G for the paper's mean).

    Notes
    -----
    Dividing by s and the KL estimate in the loss both move the stationary point: on-policy the
    gradient of that estimate is the one of KL(π_ref‖π), not of KL(π‖π_ref). For pairs A is ±1: only
    the order of the rewards is seen.

    References
    ----------
    Shao et al. 2024, arXiv:2402.03300, equations 3 and 4.
    """
    xp = array_namespace(group.log_prob)
    centered = group.reward - xp.mean(group.reward, axis=-1, keepdims=True)
    spread = xp.sqrt(xp.mean(centered**2, axis=-1, keepdims=True))
    # Equal rewards may differ from their rounded mean, so ask for their range.
    differ = xp.max(group.reward, axis=-1, keepdims=True) > xp.min(
        group.reward, axis=-1, keepdims=True
    )
    advantage = xp.where(differ, centered, xp.zeros_like(centered)) / xp.where(
        differ, spread, xp.ones_like(spread)
    )
    log_ratio = log_ratio_of(group)
    penalty = xp.expm1(-log_ratio)
    value = -total(advantage * group.log_prob) + beta * total(penalty + log_ratio)
    return Score(value, -advantage - beta * penalty)


@objective("reward", sizes=(1, None), kinds="exchangeable reads_baseline")
def reward_weighted(group: Group, *, beta: float, normalize: bool = False) -> Score:
    r"""Reward-weighted likelihood (AWR): imitate the data, good completions more.

    .. math:: \text{value} = -\sum_i \omega_i \ln\pi(y_i), \quad \text{weight}_i = -\omega_i, \quad
              \omega_i = \exp\bigl((r_i - b)/\beta\bigr)

    Parameters
    ----------
    group : Group
        ``log_prob``, ``reward``: (..., G); ``baseline`` b (...) if given, else 0. A baseline
        changes the scale of the loss and keeps exp in range: it overflows float64 at
        (r − b)/β = 709.
    beta : float
        Temperature, in units of reward.
    normalize : bool
        Divide ω by its sum over the group.

    Returns
    -------
    Score
        In nats.

    Notes
    -----
    The minimizer is ∝ μ exp(r/β), with μ the distribution of the data: π* only if μ = π_ref. The
    reference is not looked at. With ``normalize=True`` the minimizer is yet another one.

    References
    ----------
    Peters and Schaal 2007; Peng et al. 2019, arXiv:1910.00177.
    """
    xp = array_namespace(group.log_prob)
    exponent = group.reward / beta
    if group.baseline is not None:
        exponent = (group.reward - per_member(group.baseline)) / beta
    if normalize:
        exponent = exponent - xp.max(exponent, axis=-1, keepdims=True)
    weight = xp.exp(exponent)
    if normalize:
        weight = weight / xp.sum(weight, axis=-1, keepdims=True)
    weight = weight + xp.zeros_like(group.log_prob)
    return Score(-total(weight * group.log_prob), -weight)
