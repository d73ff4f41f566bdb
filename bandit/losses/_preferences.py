"""Objectives on preferences between two completions; notation in :mod:`bandit.losses`."""

from __future__ import annotations

from array_api_compat import array_namespace

from bandit.contract import Group, Score, objective
from bandit.losses._blocks import (
    difference,
    log_ratio_of,
    opposed,
    sigmoid_and_cost,
)


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
    delta = difference(log_ratio_of(group))
    value = p * (delta - margin) ** 2 + (1 - p) * (delta + margin) ** 2
    return Score(value, opposed(2 * (delta - (2 * p - 1) * margin)))


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
    sigmoid, cost = sigmoid_and_cost(beta * difference(log_ratio_of(group)))
    opposite, opposite_cost = sigmoid_and_cost(-beta * difference(log_ratio_of(group)))
    # p − σ written as p(1 − σ) − (1 − p)σ keeps its digits when p and σ are close to 0 or 1.
    return Score(
        p * cost + (1 - p) * opposite_cost,
        opposed(-beta * (p * opposite - (1 - p) * sigmoid)),
    )


@objective("preference", sizes=(2, 2), kinds="exchangeable")
def dpo_with_data_term(group: Group, *, beta: float, alpha: float = 0.1) -> Score:
    r"""DPO with a likelihood term on the data, the sampled form of a forward KL penalty.

    .. math:: \text{value} = \text{DPO} - \frac{\alpha}{2} \bigl(\ln\pi(y_1) + \ln\pi(y_2)\bigr),
              \qquad \text{weight} = \mp\beta\,(p - \sigma(\beta\Delta)) - \frac{\alpha}{2}

    Parameters
    ----------
    group : Group
        Pairs with ``preference`` p (...): a probability or a label of 0 or 1.
    beta : float
        Regularization strength of the contrast, in units of reward.
    alpha : float
        Weight of the likelihood, in nats of contrast per nat of likelihood.

    Returns
    -------
    Score
        ``value`` in nats; ``weight`` sums to −α, so it is not contrastive.

    Notes
    -----
    In expectation the term is α KL(μ‖π) up to a constant, μ being the mean distribution of the two
    completions. It isn't minimized by π*. A tabular minimizer π̂ exists if all arms are in the data,
    for deterministic preferences too, has KL(μ‖π̂) ≤ KL(μ‖π_ref) + ln 2 / α, and every π̂(y)/μ(y)
    within 1 ± 2β/α. An arm outside the data is given up.

    References
    ----------
    Shan et al. 2024, arXiv:2409.05622, for the likelihood of preferred and other data alike; here
    of a tabular or autoregressive policy, which has one, instead of a diffusion model's bound.
    """
    contrast = dpo(group, beta=beta)
    likelihood = array_namespace(group.log_prob).mean(group.log_prob, axis=-1)
    return Score(contrast.value - alpha * likelihood, contrast.weight - alpha / 2)


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
    p, z = group.preference, beta * difference(log_ratio_of(group))
    short, over = xp.maximum(1 - z, xp.zeros_like(z)), xp.maximum(1 + z, xp.zeros_like(z))
    slope = (1 - p) * xp.astype(over > 0, z.dtype) - p * xp.astype(short > 0, z.dtype)
    return Score(p * short + (1 - p) * over, opposed(beta * slope))
