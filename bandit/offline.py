r"""Offline learning: a policy from what another one logged.

Letters: ``n`` rows, ``X`` contexts, ``K`` arms. From the rows of a log pairs are drawn within a
context; any objective of :mod:`bandit.losses` is minimized over them. What CoPG learns has a closed
form: with s the least-squares scores of the observed differences of reward,

.. math::
    \pi(y|x) = \frac{\pi_\text{ref}(y|x)\, e^{s(x, y)/\beta}}{Z(x)}
    \quad\text{for the arms seen in } x ,

and s is the mean reward of each arm's rows where any two rows of a context are a pair.

**Arms never seen.** Only ratios of probabilities within a connected component of the comparison
graph are determined by a log. The convention here, for every method: a component keeps the mass
that the reference gives it. So an arm never seen in a context keeps its reference probability
there, and a context never seen keeps the reference.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from bandit import _checks, _fit_files, _learning, _learning_rows, ope
from bandit._checks import Array, shown
from bandit._diagnostics import Diagnostics, Labels, diagnose
from bandit._lesson import Rewards, lesson_of, logging_policy, method_of
from bandit.analysis import NotIdentifiedWarning
from bandit.data.counts import Counts
from bandit.data.log import Data
from bandit.descent import Progress
from bandit.history import History
from bandit.losses import Loss
from bandit.optimizers import Adam, Optimizer
from bandit.policies import LogLinear
from bandit.presets import Method
from bandit.problem import Bandit

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Diagnostics", "Fit", "fit", "logging_policy"]


@dataclass(frozen=True, eq=False)
class Fit:
    """A policy learned from a log; made by :func:`fit`.

    Attributes
    ----------
    policy : ndarray (X, K)
        Probabilities.
    problem : Bandit
        Estimated rewards (X, K), the reference, β, and contexts weighted by their rows. The reward
        of a cell without rows is that of a model or the mean of all rows; no loss saw the latter.
    method : str
        Name of the method.
    context_labels, arm_labels : tuple
        What rows and columns stand for, as in the log.
    diagnostics : Diagnostics
    counts : Counts or None
        The log it was learned from; None when read from files.
    history : History or None
        Of training by batches, on the same problem.
    theta : ndarray (d,) or None
        Parameters of a log-linear policy.
    """

    policy: Array
    problem: Bandit
    method: str
    context_labels: Labels
    arm_labels: Labels
    diagnostics: Diagnostics
    counts: Counts | None = field(default=None, repr=False)
    history: History | None = field(default=None, repr=False)
    theta: Array | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        contexts, arms = self.policy.shape
        trouble = "" if self.diagnostics.converged else ", not converged"
        return (
            f"Fit({self.method}, {contexts} contexts, {arms} arms, beta={self.problem.beta:g}"
            f"{trouble})"
        )

    def to_dataframe(self) -> pd.DataFrame:
        """One row per context and arm: context, arm, probability, reference, reward, rows.

        ``rows`` is missing in a fit read from files without them.
        """
        return _fit_files.table(vars(self))

    def top(self, n: int = 5) -> pd.DataFrame:
        """The ``n`` likeliest arms of each context, likeliest first.

        Parameters
        ----------
        n : int

        Returns
        -------
        DataFrame
            Columns context, arm, probability, reference, reward (as estimated) and rows.
        """
        number = min(_checks.positive_integer("n", n), self.policy.shape[1])
        best = np.argsort(-self.policy, axis=-1, kind="stable")[:, :number]
        places = best + self.policy.shape[1] * np.arange(len(best))[:, None]
        return self.to_dataframe().iloc[places.ravel()].reset_index(drop=True)

    def evaluate(
        self,
        data: Data | None = None,
        *,
        shrinkage: float | str = 0.0,
        model: ArrayLike | None = None,
        level: float = 0.95,
    ) -> pd.DataFrame:
        """What the policy is worth on a log: the table of :func:`bandit.ope.evaluate`.

        Parameters
        ----------
        data : Log or Counts, optional
            Default: the log it was learned from, which flatters it. Contexts and arms are matched
            by their labels; it may lack some. Arms that the policy does not know it never plays.
        shrinkage, model, level
            As for :func:`bandit.ope.evaluate`; ``model`` is in the order of this fit's labels.

        Raises
        ------
        ValueError
            If ``data`` has contexts that this policy does not know, or None came to a fit read from
            files.

        Warns
        -----
        LowOverlapWarning
            If the effective sample size is under 5 % of the rows.
        UserWarning
            If there are arms that the policy does not know.
        """
        if data is None:
            if self.counts is None:
                raise ValueError(
                    "data: expected a Log or Counts, as a fit read from files has none"
                )
            data = self.counts
        arms, policy = self.arm_labels, self.policy
        new = _fit_files.arms_beyond(data, arms)
        if new:
            arms, policy = (*arms, *new), np.pad(policy, ((0, 0), (0, len(new))))
            if model is not None:
                model = np.pad(np.broadcast_to(model, self.policy.shape), ((0, 0), (0, len(new))))
        counts = _fit_files.aligned(data, self.context_labels, arms)
        return ope.evaluate(counts, policy, shrinkage=shrinkage, model=model, level=level)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``policy.csv`` and ``report.json`` into ``folder``, each whole or not at all.

        Neither the log nor the history of training is written.

        Raises
        ------
        TypeError
            If labels are other than strings, numbers, booleans and None.
        """
        _fit_files.save(vars(self), folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Fit:
        """The fit that :meth:`save` wrote into ``folder``, to the last bit.

        Raises
        ------
        ValueError
            If the files are missing, something else, or not from the same fit.
        """
        stored = _fit_files.load(folder)
        stored["diagnostics"] = Diagnostics(**stored["diagnostics"])
        return cls(**stored)


# -------------------------------------------------------------------------------------- learning


def fit(
    data: Data,
    method: str | Method | Loss = "copg",
    *,
    beta: float,
    reference: ArrayLike | str | None = None,
    preference: ArrayLike | str | None = None,
    rewards: Rewards = "mean",
    pairing: str = "all",
    policy: LogLinear | None = None,
    solver: str = "exact",
    steps: int | None = None,
    batch_size: int | None = None,
    optimizer: Optimizer | None = None,
    rng: int | np.random.SeedSequence | np.random.Generator | None = None,
    progress: bool | Progress | None = None,
) -> Fit:
    r"""Learn a policy from a log.

    Parameters
    ----------
    data : Log or Counts
    method : str, presets.Method or function of bandit.losses
        A name of ``bandit.presets.METHODS``, or a loss; its other hyper-parameters are bound with
        ``functools.partial``.
    beta : float
        β > 0, in units of reward (see the loss; for losses on preferences it is something else).
    reference : array_like (K,) or (X, K), "uniform" or "logging"
        π_ref, above 0. "logging": :func:`logging_policy` of the log. Default: uniform.
    preference : array_like ([X,] K, K), "rows" or "bradley_terry"
        P(y ≻ y'), for losses on preferences. "rows": the chance that a random row of y has a higher
        reward than one of y', ties counting half. "bradley_terry": σ(r̂ − r̂') of the estimated
        rewards. Default: "rows" with ``rewards="mean"``, else "bradley_terry".
    rewards : str, callable or array_like (K,) or (X, K)
        "mean" of each cell's rows; "lower_confidence_bound" or "empirical_bayes" of
        :mod:`bandit.pessimism`; a function of the data that returns them; or the rewards
        themselves. All but "mean" say something of cells without rows too: such a cell then counts
        as one row of that reward.
    pairing : {"all", "consecutive"}
        "all": any two rows of a context are a pair. "consecutive": rows 2i and 2i + 1 are, as in
        logs of comparisons; needs a Log.
    policy : LogLinear, optional
        Features (K, d) or (X, K, d): one θ for all contexts, which also speaks of arms and contexts
        never seen. Default: a probability for every cell.
    solver : {"exact", "minibatch"}
        The solution of the expected loss over all pairs of rows, or stochastic gradient descent on
        pairs of rows with their own, noisy rewards; the latter needs a Log.
    steps, batch_size : int, optional
        For "minibatch": updates (default 2000), and pairs in each (default 256).
    optimizer : Optimizer, optional
        For "minibatch"; default ``bandit.Adam(0.02)``.
    rng : int, SeedSequence or Generator
        For "minibatch", and needed there.
    progress : bool or callable, optional
        For "minibatch", as for :func:`bandit.train`.

    Returns
    -------
    Fit

    Raises
    ------
    ValueError, TypeError
        One line with the argument's name, what was expected and what came; also if training
        diverged.

    Warns
    -----
    NotIdentifiedWarning
        If the exact solver found no solution.
    RuntimeWarning
        If training was interrupted.

    Notes
    -----
    Losses with importance weights see the propensities of the log, and of a log without them the
    frequencies of its arms. The exact solver sees the rows of a cell through one number, which is
    all that losses affine in the reward and the unnormalized reward-weighted likelihood take from
    them; for any other loss a warning in the diagnostics says so.

    Examples
    --------
    >>> import bandit
    >>> log = bandit.data.Log(None, [0, 1, 1, 2], [1.0, 0.0, 1.0, 0.0])
    >>> bandit.fit(log, "copg", beta=0.5).policy.round(3).tolist()
    [[0.665, 0.245, 0.09]]
    """
    chosen = method_of(method)
    _checks.one_of("solver", solver, ("exact", "minibatch"))
    options = {
        "steps": steps,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "rng": rng,
        "progress": progress,
    }
    lesson = lesson_of(data, chosen, beta, reference, preference, rewards, pairing)
    policy = LogLinear.checked(policy, lesson.problem.shape)
    history: History | None = None
    if solver == "exact":
        learned = _exactly(lesson, policy, options)
        if not learned.converged:
            warnings.warn(f"{chosen.label}: {learned.message}", NotIdentifiedWarning, stacklevel=2)
    else:
        learned, history = _learning_rows.learn_from_batches(lesson, policy, **_chosen(options))
    return Fit(
        policy=_checks.read_only(np.exp(learned.log_policy)),
        problem=lesson.problem,
        method=chosen.label,
        context_labels=lesson.evidence.counts.context_labels,
        arm_labels=lesson.evidence.counts.arm_labels,
        diagnostics=diagnose(lesson, learned, policy),
        counts=lesson.evidence.counts,
        history=history,
        theta=learned.theta,
    )


def _exactly(
    lesson: _learning.Lesson, policy: LogLinear | None, options: Mapping[str, Any]
) -> _learning.Learned:
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name}: expected None with solver='exact', got {shown(value)}")
    if policy is None:
        return _learning.learn_exactly(lesson)
    return _learning.learn_features(lesson, policy)


def _chosen(options: Mapping[str, Any]) -> dict[str, Any]:
    """How to train by batches: as asked, and where nobody said how, as it mostly goes well."""
    default = {"steps": 2000, "batch_size": 256, "optimizer": Adam(0.02)}
    asked = {name: value for name, value in options.items() if value is not None}
    _checks.positive_integer("steps", (default | asked)["steps"])
    return {"rng": None, "progress": None} | default | asked
