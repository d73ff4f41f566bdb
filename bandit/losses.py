r"""Every objective, written once, for any array library.

An objective looks at a :class:`Group` of ``G`` completions of the same prompt (a pair is
``G = 2``) and returns a :class:`Score`:

``value`` ``(...)``
    the loss to *minimize*, with the group axis reduced;
``weight`` ``(..., G)``
    the derivative of ``value`` with respect to each ``log_prob``, *with whatever the method treats
    as constant held constant*.

Hence every method reads as policy gradient with a weight of its own, and descends along

.. math:: \nabla\,\text{value} = \sum_i \text{weight}_i \, \nabla \ln \pi(y_i) ,

which is :math:`\sum_i \text{weight}_i (e_{y_i} - \pi)` in the logits of a tabular softmax policy
and ``(weight.detach() * log_prob).sum()`` for an automatic-differentiation library. Constants are
held with a stop-gradient, so differentiating ``value`` in torch or JAX gives exactly ``weight``.

Notation (axes: ``...`` any leading axes, ``G`` the group, always last):

* :math:`\ell_i = \ln\pi(y_i) - \ln\pi_\text{ref}(y_i)`, the log-ratio, in nats;
* :math:`R_i = r_i - \beta \ell_i`, the regularized reward, in units of reward;
* :math:`\Delta = \ell_1 - \ell_2` for a pair;
* :math:`p = P(y_1 \succ y_2)`, the probability that the first completion is preferred.

All functions are pure, take numpy, torch, JAX or any other array-API arrays, keep their dtype and
device, and take hyper-parameters by keyword. Fix them with :func:`functools.partial`.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace, is_jax_array, is_torch_array

from bandit.contract import REGISTRY, Group, Loss, Score, Traits, get, objective, traits

__all__ = [
    "REGISTRY",
    "Group",
    "Loss",
    "Score",
    "Traits",
    "clipped_objective",
    "copg",
    "dpo",
    "get",
    "grpo",
    "importance_sampling",
    "ipo",
    "log_variance",
    "policy_gradient",
    "ppo_clip",
    "rebel",
    "reward_weighted",
    "rloo",
    "slic",
    "traits",
]

# ---------------------------------------------------------------- building blocks of the formulas


def _hold(x: Any) -> Any:
    """``x`` as a constant of automatic differentiation."""
    if is_torch_array(x):
        return x.detach()
    if is_jax_array(x):
        import jax

        return jax.lax.stop_gradient(x)
    return x


def _sum(x: Any) -> Any:
    return array_namespace(x).sum(x, axis=-1)


def _log_ratio(group: Group) -> Any:
    return group.log_prob - group.ref_log_prob


def _regularized_reward(group: Group, beta: float) -> Any:
    return group.reward - beta * _log_ratio(group)


def _minus_mean_of_others(x: Any) -> Any:
    """x_i − mean over j ≠ i of x_j, in O(G): G/(G−1) times the deviation from the group's mean."""
    size = x.shape[-1]
    mean = array_namespace(x).mean(x, axis=-1, keepdims=True)
    return (x - mean) * (size / (size - 1))


def _advantage(group: Group, beta: float, baseline: str) -> Any:
    """The regularized reward less a baseline, held constant."""
    regularized = _hold(_regularized_reward(group, beta))
    if baseline in ("none", "leave_one_out") and group.baseline is not None:
        raise ValueError(
            f"baseline: expected 'given' because group.baseline is set, got {baseline!r}"
        )
    if baseline == "none":
        return regularized
    if baseline == "given":
        return regularized - _per_member(_given(group))
    if baseline == "leave_one_out":
        if regularized.shape[-1] < 2:
            raise ValueError(
                "baseline: expected groups of at least 2 for 'leave_one_out', got groups of 1"
            )
        return _minus_mean_of_others(regularized)
    raise ValueError(f"baseline: expected none, given or leave_one_out; got {baseline!r}")


def _given(group: Group) -> Any:
    if group.baseline is None:
        raise ValueError("baseline: expected group.baseline for 'given', got None")
    return group.baseline


def _per_member(x: Any) -> Any:
    """A per-group quantity as it meets the group axis; plain numbers meet it as they are."""
    return x[..., None] if getattr(x, "shape", ()) else x


def _ratio(group: Group) -> Any:
    return array_namespace(group.log_prob).exp(group.log_prob - group.behavior_log_prob)


def _difference(x: Any) -> Any:
    """x_1 − x_2 of a pair."""
    return x[..., 0] - x[..., 1]


def _opposed(slope: Any) -> Any:
    """The weights of a pair from the derivative by Δ: one up, the other down."""
    return array_namespace(slope).stack([slope, -slope], axis=-1)


def _sigmoid_and_cost(z: Any) -> tuple[Any, Any]:
    """σ(z) and −ln σ(z), without overflow on either side."""
    xp = array_namespace(z)
    cost = xp.logaddexp(xp.zeros_like(z), -z)
    return xp.exp(-cost), cost


def _within_clip(advantage: Any, ratio: Any, epsilon: float) -> Any:
    """Where the unclipped branch of PPO's minimum is the active one."""
    too_likely = (advantage > 0) & (ratio > 1 + epsilon)
    too_rare = (advantage < 0) & (ratio < 1 - epsilon)
    return ~(too_likely | too_rare)


# ------------------------------------------------------------------------ contrastive, on rewards


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
    advantage = _minus_mean_of_others(_regularized_reward(group, beta))
    size = advantage.shape[-1]
    return Score((size - 1) / (2 * beta * size) * _sum(advantage**2), -advantage)


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
    surprise = _regularized_reward(group, beta) / beta
    deviation = surprise - array_namespace(surprise).mean(surprise, axis=-1, keepdims=True)
    others = surprise.shape[-1] - 1
    return Score(_sum(deviation**2) / (2 * others), -deviation / others)


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
    residual = _difference(_log_ratio(group)) / eta - _difference(group.reward)
    return Score(residual**2 / 2, _opposed(residual / eta))


# ----------------------------------------------------------------------------- on preferences


@objective("preference", sizes=(2, 2), kinds="exchangeable contrastive quadratic")
def ipo(group: Group, *, beta: float) -> Score:
    r"""Identity preference optimization (the paper's τ is our β).

    .. math:: \text{value} = p\,\bigl(\Delta - \tfrac{1}{2\beta}\bigr)^2
                           + (1-p)\bigl(\Delta + \tfrac{1}{2\beta}\bigr)^2, \qquad
              \text{weight} = \pm 2 \Bigl(\Delta - \frac{2p-1}{2\beta}\Bigr)

    Parameters
    ----------
    group : Group
        Pairs with ``preference`` p (...): a probability or a label of 0 or 1.
    beta : float
        Regularization strength, in units of preference (a probability per nat).

    Returns
    -------
    Score
        ``value`` in squared nats, ``weight`` in nats. Equals 2/β times :func:`copg` with rewards +¼
        for the preferred completion and −¼ for the other.

    Notes
    -----
    With independent pairs from μ the minimizer is ∝ π_ref exp(E_{y'∼μ}[P(y ≻ y')]/β): it depends on
    who was compared with whom, and it isn't π* of the rewards behind the preferences.

    References
    ----------
    Azar et al. 2023, arXiv:2310.12036, equation 17.
    """
    p, margin = group.preference, 1 / (2 * beta)
    delta = _difference(_log_ratio(group))
    value = p * (delta - margin) ** 2 + (1 - p) * (delta + margin) ** 2
    return Score(value, _opposed(2 * (delta - (2 * p - 1) * margin)))


@objective("preference", sizes=(2, 2), kinds="exchangeable contrastive")
def dpo(group: Group, *, beta: float) -> Score:
    r"""Direct preference optimization.

    .. math:: \text{value} = -p \ln\sigma(\beta\Delta) - (1-p)\ln\sigma(-\beta\Delta), \qquad
              \text{weight} = \mp\beta\,(p - \sigma(\beta\Delta))

    Parameters
    ----------
    group : Group
        Pairs with ``preference`` p (...): a probability or a label of 0 or 1.
    beta : float
        Regularization strength, in units of reward.

    Returns
    -------
    Score
        ``value`` in nats, ``weight`` in units of reward.

    Notes
    -----
    With Bradley–Terry preferences P = σ(r − r') the minimizer is π*. The loss cannot see whether
    preferences are noisy enough for a minimizer to exist: with deterministic ones it decreases for
    ever as the policy leaves the reference.

    References
    ----------
    Rafailov et al. 2023, arXiv:2305.18290, equation 7.
    """
    p = group.preference
    sigmoid, cost = _sigmoid_and_cost(beta * _difference(_log_ratio(group)))
    opposite, opposite_cost = _sigmoid_and_cost(-beta * _difference(_log_ratio(group)))
    # p − σ written as p(1 − σ) − (1 − p)σ keeps its digits when p and σ are close to 0 or 1.
    return Score(
        p * cost + (1 - p) * opposite_cost,
        _opposed(-beta * (p * opposite - (1 - p) * sigmoid)),
    )


@objective("preference", sizes=(2, 2), kinds="exchangeable contrastive piecewise_linear")
def slic(group: Group, *, beta: float) -> Score:
    r"""Hinge loss on the scaled log-ratio difference (SLiC type).

    .. math:: \text{value} = p \max(0, 1 - \beta\Delta) + (1-p) \max(0, 1 + \beta\Delta), \qquad
              \text{weight} = \pm\beta \bigl((1-p)[\beta\Delta > -1] - p\,[\beta\Delta < 1]\bigr)

    Parameters
    ----------
    group : Group
        Pairs with ``preference`` p (...): a probability or a label of 0 or 1.
    beta : float
        Inverse of the margin, in units of reward.

    Returns
    -------
    Score
        ``value`` without unit, ``weight`` in units of reward; at a kink one of its subgradients.

    Notes
    -----
    The loss sees the sign of p − ½ more than its size: the minimizer sits on kinks βΔ = ±1, or is
    a whole set, and isn't π*.

    References
    ----------
    Zhao et al. 2023, arXiv:2305.10425, in the normalized form without the likelihood term.
    """
    xp = array_namespace(group.log_prob)
    p, z = group.preference, beta * _difference(_log_ratio(group))
    short, over = xp.maximum(1 - z, xp.zeros_like(z)), xp.maximum(1 + z, xp.zeros_like(z))
    slope = (1 - p) * xp.astype(over > 0, z.dtype) - p * xp.astype(short > 0, z.dtype)
    return Score(p * short + (1 - p) * over, _opposed(beta * slope))


# ------------------------------------------------------------------------------ policy gradients


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
    advantage = _advantage(group, beta, baseline)
    return Score(-_sum(advantage * group.log_prob), -advantage)


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
    ratio = _hold(_ratio(group))
    if clip is not None:
        ratio = xp.minimum(ratio, xp.full_like(ratio, clip))
    weighted = ratio * _advantage(group, beta, baseline)
    return Score(-_sum(weighted * group.log_prob), -weighted)


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
    advantage, ratio = _advantage(group, beta, baseline), _ratio(group)
    active = _within_clip(advantage, ratio, epsilon)
    used = xp.where(active, ratio, xp.clip(ratio, 1 - epsilon, 1 + epsilon))
    weight = xp.where(active, -ratio * advantage, xp.zeros_like(ratio))
    return Score(-_sum(used * advantage), weight)


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
    advantage, ratio = _advantage(group, beta, baseline), _ratio(group)
    active = _within_clip(advantage, ratio, epsilon)
    bound = group.behavior_log_prob + xp.log(xp.clip(ratio, 1 - epsilon, 1 + epsilon))
    used = xp.where(active, group.log_prob, bound)
    weight = xp.where(active, -advantage, xp.zeros_like(advantage))
    return Score(-_sum(used * advantage), weight)


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
    log_ratio = _log_ratio(group)
    penalty = xp.expm1(-log_ratio)
    value = -_sum(advantage * group.log_prob) + beta * _sum(penalty + log_ratio)
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
        exponent = (group.reward - _per_member(group.baseline)) / beta
    if normalize:
        exponent = exponent - xp.max(exponent, axis=-1, keepdims=True)
    weight = xp.exp(exponent)
    if normalize:
        weight = weight / xp.sum(weight, axis=-1, keepdims=True)
    weight = weight + xp.zeros_like(group.log_prob)
    return Score(-_sum(weight * group.log_prob), -weight)
