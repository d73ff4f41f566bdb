"""What training leaves behind: the logits of every run at every record, and what they tell."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bandit._checks import Array
from bandit.problem import Bandit, log_softmax

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
# What numpy and json raise on files that are something else.
_UNREADABLE = (zipfile.BadZipFile, EOFError, KeyError, ValueError, TypeError, AttributeError)


@dataclasses.dataclass(frozen=True, eq=False)
class History:
    """The course of a training; ``T`` records of ``runs`` runs.

    Attributes
    ----------
    problem : Bandit
    method : str
        Name of the loss.
    settings : mapping
        How it was trained, in plain numbers and strings.
    steps : ndarray of int (T,)
        Updates made before each record; the first record is the start, 0.
    logits : ndarray (T, runs, [X,] K)
        Of the policies. A run that diverged has NaN or infinities from there on.
    theta : ndarray (T, runs, d) or None
        Parameters of a log-linear policy.
    interrupted : bool
        True if training was stopped from the keyboard; the records are those made until then.
    """

    problem: Bandit
    method: str
    settings: Mapping[str, Any]
    steps: np.ndarray
    logits: Array
    theta: Array | None = None
    interrupted: bool = False

    @property
    def n_runs(self) -> int:
        """Number of runs."""
        return self.logits.shape[1]

    def policy(self) -> Array:
        """Probabilities (T, runs, [X,] K)."""
        with np.errstate(invalid="ignore"):
            return np.exp(log_softmax(self.logits))

    def regret(self) -> Array:
        """J(π*) − J(π), in units of reward, (T, runs)."""
        return self._of_policies(self.problem.regret)

    def kl(self) -> Array:
        """E_x KL(π ‖ π_ref), in nats, (T, runs)."""
        return self._of_policies(self.problem.kl)

    def kl_to_optimal(self) -> Array:
        """E_x KL(π ‖ π*), in nats, (T, runs)."""
        return self._of_policies(self.problem.kl_to_optimal)

    def expected_reward(self) -> Array:
        """E_x E_π[r], in units of reward, (T, runs)."""
        return self._of_policies(self.problem.expected_reward)

    def _of_policies(self, quantity: Callable[[Array], Array]) -> Array:
        """``quantity`` of every policy, NaN where a run has diverged."""
        policy = self.policy()
        arms = tuple(range(2, policy.ndim))
        finite = np.isfinite(policy).all(axis=arms)
        result = np.full(finite.shape, np.nan)
        if finite.any():
            result[finite] = quantity(policy[finite])
        return result

    def to_dataframe(self) -> pd.DataFrame:
        """A row per record and run: ``step``, ``run``, ``regret``, ``kl``, ``expected_reward``."""
        import pandas as pd

        records, runs = self.logits.shape[:2]
        return pd.DataFrame(
            {
                "step": np.repeat(self.steps, runs),
                "run": np.tile(np.arange(runs), records),
                "regret": self.regret().ravel(),
                "kl": self.kl().ravel(),
                "expected_reward": self.expected_reward().ravel(),
            }
        )

    # ------------------------------------------------------------------------------- files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all of it to an ``.npz`` file, without pickle; :meth:`load` gives it back."""
        about = {
            "format": FORMAT,
            "method": self.method,
            "settings": dict(self.settings),
            "interrupted": self.interrupted,
        }
        arrays: dict[str, Any] = {
            "about": np.array(json.dumps(about)),
            "steps": self.steps,
            "logits": self.logits,
            "reward": self.problem.reward,
            "beta": np.array(self.problem.beta),
            "reference": self.problem.reference,
            "context_weights": self.problem.context_weights,
            "theta": self.theta,
        }
        # An open file keeps the name as given: numpy would append ".npz" to a bare path.
        with open(path, "wb") as file:
            np.savez_compressed(file, **{k: v for k, v in arrays.items() if v is not None})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> History:
        """The history that :meth:`save` wrote to ``path``.

        Raises
        ------
        ValueError
            If the file is something else, or of a later format.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                stored = dict(archive)
            about = json.loads(stored["about"].item())
            version = int(about["format"])
            if version <= FORMAT:
                return cls._of_stored(stored, about)
        except _UNREADABLE as error:
            raise ValueError(
                f"path: expected a file written by History.save, got {path}"
            ) from error
        raise ValueError(f"path: expected format {FORMAT} or lower, got {version}")

    @classmethod
    def _of_stored(cls, stored: Mapping[str, Any], about: Mapping[str, Any]) -> History:
        return cls(
            problem=Bandit(
                stored["reward"],
                stored["beta"].item(),
                stored["reference"],
                stored.get("context_weights"),
            ),
            method=about["method"],
            settings=about["settings"],
            steps=stored["steps"],
            logits=stored["logits"],
            theta=stored.get("theta"),
            interrupted=about["interrupted"],
        )

    # ----------------------------------------------------------------------------- display

    def __repr__(self) -> str:
        state = ", interrupted" if self.interrupted else ""
        return (
            f"History({self.method}, {self.n_runs} runs, {len(self.steps)} records to step "
            f"{self.steps[-1]}{state})"
        )

    def _repr_html_(self) -> str:
        import pandas as pd

        shown = np.unique(np.linspace(0, len(self.steps) - 1, 5).astype(int))
        regret = self.regret()[shown]
        low, median, high = np.quantile(regret, [0.25, 0.5, 0.75], axis=1)
        table = pd.DataFrame(
            {
                "regret, median": median,
                "lower quartile": low,
                "upper quartile": high,
                "KL(π‖π_ref), median": np.median(self.kl()[shown], axis=1),
            },
            index=pd.Index(self.steps[shown], name="step"),
        )
        return f"<p>{self!r}</p>{table.to_html(float_format='{:.4g}'.format)}"


# -------------------------------------------------------------------------------- provenance


def seed_of(rng: Any) -> int | str:
    """What to start a random stream from to see the same numbers again."""
    if isinstance(rng, (int, np.integer)):
        return int(rng)
    source = rng.bit_generator.seed_seq if isinstance(rng, np.random.Generator) else rng
    return "".join(repr(source).split())


def hyper_of(loss: Any) -> dict[str, Any]:
    """Hyper-parameters bound to a loss, as numbers and strings."""
    if not isinstance(loss, functools.partial):
        return {}
    return hyper_of(loss.func) | {
        k: v if isinstance(v, (int, float, str, type(None))) else repr(v)
        for k, v in loss.keywords.items()
    }
