"""Histories: what they compute, and that files give them back exactly."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

import bandit
from bandit import losses


def small(contexts: bool = True, **options) -> bandit.History:
    rng = np.random.default_rng(1)
    shape = (2, 3) if contexts else (3,)
    problem = bandit.Bandit(
        rng.normal(size=shape),
        0.6,
        rng.dirichlet(np.full(3, 2.0), size=shape[:-1]),
        [0.25, 0.75] if contexts else None,
    )
    settings = {
        "pairs": bandit.pairs.independent([0.2, 0.3, 0.5]),
        "batch_size": 5,
        "steps": 30,
        "optimizer": bandit.Adam(0.1),
        "runs": 4,
        "rng": 0,
        "record_every": 10,
    } | options
    return bandit.train(problem, losses.copg, **settings)


LOG_LINEAR = {"policy": bandit.LogLinear([[0.0, 1.0], [1.0, 0.0], [2.0, -1.0]])}


@pytest.mark.parametrize("contexts", [False, True])
def test_quantities_are_those_of_the_policies(contexts):
    history = small(contexts)
    policy = history.policy()
    assert policy.shape == history.logits.shape == (4, 4, *history.problem.shape)
    np.testing.assert_allclose(policy.sum(axis=-1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(
        np.log(policy) - np.log(policy[..., :1]),
        history.logits - history.logits[..., :1],
        atol=1e-12,
    )
    problem = history.problem
    rho = [0.25, 0.75] if contexts else [1.0]
    for t, run in ((0, 0), (1, 2), (3, 3)):
        rows = np.atleast_2d(policy[t, run])
        reward, reference = np.atleast_2d(problem.reward), np.atleast_2d(problem.reference)
        optimal = np.atleast_2d(problem.optimal_policy())
        expected = sum(w * (p * r).sum() for w, p, r in zip(rho, rows, reward, strict=True))
        kl = sum(
            w * (p * np.log(p / q)).sum() for w, p, q in zip(rho, rows, reference, strict=True)
        )
        away = sum(
            w * (p * np.log(p / q)).sum() for w, p, q in zip(rho, rows, optimal, strict=True)
        )
        assert history.expected_reward()[t, run] == pytest.approx(expected, rel=1e-12)
        assert history.kl()[t, run] == pytest.approx(kl, abs=1e-12)
        assert history.kl_to_optimal()[t, run] == pytest.approx(away, abs=1e-12)
        assert history.regret()[t, run] == pytest.approx(0.6 * away, abs=1e-12)
    assert history.regret().shape == (4, 4)


def test_the_table_has_a_row_per_record_and_run():
    history = small()
    table = history.to_dataframe()
    assert list(table.columns) == ["step", "run", "regret", "kl", "expected_reward"]
    assert len(table) == 16
    row = table[(table["step"] == 20) & (table["run"] == 3)].iloc[0]
    assert row["regret"] == history.regret()[2, 3]
    assert row["kl"] == history.kl()[2, 3]
    assert row["expected_reward"] == history.expected_reward()[2, 3]


@pytest.mark.parametrize("contexts", [False, True])
@pytest.mark.parametrize("options", [{}, LOG_LINEAR])
def test_files_give_everything_back(contexts, options, tmp_path):
    history = small(contexts, **options)
    path = tmp_path / "run.history"
    history.save(path)
    assert path.exists()
    back = bandit.History.load(path)
    for name in ("steps", "logits", "theta"):
        ours, theirs = getattr(history, name), getattr(back, name)
        assert (ours is None) == (theirs is None)
        assert ours is None or (np.array_equal(ours, theirs) and ours.dtype == theirs.dtype)
    assert (back.theta is not None) == bool(options)
    for name in ("reward", "reference", "context_weights", "beta", "shape"):
        assert np.array_equal(getattr(back.problem, name), getattr(history.problem, name))
    assert back.method == "copg"
    assert back.settings == history.settings
    assert back.interrupted is False
    assert np.array_equal(back.regret(), history.regret())


def test_settings_say_how_to_repeat_the_run():
    history = small(reward_noise=0.5, baseline=None)
    assert history.settings == {
        "hyper": {"beta": 0.6},
        "baseline": None,
        "pairs": "Pairs(independent, 3 arms)",
        "preference_labels": None,
        "group_size": 2,
        "batch_size": 5,
        "reward_noise": 0.5,
        "steps": 30,
        "optimizer": "Adam(lr=0.1, beta1=0.9, beta2=0.999, eps=1e-08)",
        "runs": 4,
        "seed": 0,
        "record_every": 10,
    }
    one, two = np.random.default_rng(5), np.random.default_rng(5)
    assert small(rng=one).settings["seed"] == small(rng=two).settings["seed"]
    assert "5" in small(rng=np.random.SeedSequence(5)).settings["seed"]


def test_the_seed_on_record_repeats_the_run():
    rng = np.random.default_rng(8)
    rng.spawn(2)  # whoever had it before
    history = small(rng=rng)
    seed = eval(history.settings["seed"], {"SeedSequence": np.random.SeedSequence})
    assert np.array_equal(small(rng=seed).logits, history.logits)


def test_an_interrupted_history_stays_one(tmp_path):
    def stop(step, steps):
        raise KeyboardInterrupt

    with pytest.warns(RuntimeWarning, match="interrupted"):
        history = small(progress=stop)
    history.save(tmp_path / "part.npz")
    back = bandit.History.load(tmp_path / "part.npz")
    assert back.interrupted is True
    assert "interrupted" in repr(back)


def test_files_hold_no_pickle(tmp_path):
    path = tmp_path / "run.npz"
    small().save(path)
    with np.load(path, allow_pickle=False) as archive:
        assert {"about", "steps", "logits", "reward"} <= set(archive)
        assert all(archive[name].dtype != object for name in archive)


def test_other_files_are_refused_in_one_line(tmp_path):
    text, other, broken = tmp_path / "a.txt", tmp_path / "b.npz", tmp_path / "c.npz"
    text.write_text("step,regret\n0,1\n")
    np.savez(other, steps=np.arange(3))
    with zipfile.ZipFile(broken, "w") as archive:
        archive.writestr("about.npy", b"no array")
    empty, cut, array = tmp_path / "d.npz", tmp_path / "e.npz", tmp_path / "f.npy"
    empty.touch()
    small().save(tmp_path / "whole.npz")
    cut.write_bytes((tmp_path / "whole.npz").read_bytes()[:-100])
    np.save(array, np.arange(3))
    for path in (text, other, broken, empty, cut, array):
        with pytest.raises(
            ValueError, match=r"^path: expected a file written by History.save"
        ) as e:
            bandit.History.load(path)
        assert "\n" not in str(e.value)
    with pytest.raises(FileNotFoundError):
        bandit.History.load(tmp_path / "absent.npz")


def test_a_later_format_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    small().save(path)
    with np.load(path) as archive:
        stored = dict(archive)
    about = json.loads(stored["about"].item()) | {"format": 99}
    np.savez(path, **stored | {"about": np.array(json.dumps(about))})
    with pytest.raises(ValueError, match="expected format 1 or lower, got 99"):
        bandit.History.load(path)


def test_the_display_is_a_small_table():
    history = small()
    html = history._repr_html_()
    assert "History(copg, 4 runs, 4 records to step 30)" in html
    assert html.count("<tr") <= 7
    assert f"{np.median(history.regret()[-1]):.4g}" in html


def test_a_diverged_run_does_not_hide_the_others():
    start = np.stack([np.zeros((2, 3))] * 4)
    history = small(start=start)
    logits = history.logits.copy()
    logits[2:, 1] = np.nan
    broken = bandit.History(history.problem, "copg", {}, history.steps, logits)
    assert np.isnan(broken.regret()[2:, 1]).all()
    keep = [0, 2, 3]
    assert np.array_equal(broken.regret()[:, keep], history.regret()[:, keep])
    assert "NaN" not in broken._repr_html_().split("KL(")[0]


def test_a_file_with_half_of_a_history_is_refused(tmp_path):
    path = tmp_path / "half.npz"
    np.savez(path, about=np.array('{"format": 1}'))
    with pytest.raises(ValueError, match=r"^path: expected a file written by History.save"):
        bandit.History.load(path)
