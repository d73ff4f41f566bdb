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

The formulas are written in rooms of this package, one for each family; they are used from here.
"""

from __future__ import annotations

from bandit.contract import REGISTRY, Group, Loss, Score, Traits, get, traits
from bandit.losses._contrastive import copg, log_variance, rebel
from bandit.losses._policy_gradients import (
    clipped_objective,
    grpo,
    importance_sampling,
    policy_gradient,
    ppo_clip,
    reward_weighted,
    rloo,
)
from bandit.losses._preferences import dpo, dpo_with_data_term, ipo, slic
from bandit.losses._regression import (
    asymmetric_reinforce,
    pmd_mean,
    trajectory_balance,
    value_regression,
)

__all__ = [
    "REGISTRY",
    "Group",
    "Loss",
    "Score",
    "Traits",
    "asymmetric_reinforce",
    "clipped_objective",
    "copg",
    "dpo",
    "dpo_with_data_term",
    "get",
    "grpo",
    "importance_sampling",
    "ipo",
    "log_variance",
    "pmd_mean",
    "policy_gradient",
    "ppo_clip",
    "rebel",
    "reward_weighted",
    "rloo",
    "slic",
    "traits",
    "trajectory_balance",
    "value_regression",
]
