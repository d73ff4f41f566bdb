"""Sweeps: the same table from any number of workers, whatever is killed, broken or full."""

from __future__ import annotations

import errno
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import sweep_killer
import threadpoolctl
from sweep_killer import GRID, METHODS, PROBLEMS, whole_sweep

import bandit
from bandit import analysis, losses, preferences, presets, sweeps
from bandit.sweeps import cells, descriptions, folder, load, sweep, transport

HERE = Path(__file__).parent
PROBLEM = bandit.Bandit([1.0, 0.0, -0.5], 0.4, [0.5, 0.3, 0.2])
MU = [0.2, 0.2, 0.6]
SMALL = {"beta": [0.4, 0.8], "behavior": {"worst": MU}, "steps": 12, "batch_size": 8}


def small(folder=None, methods=("copg", "ipo"), **changed):
    """Four cells of two runs; quick."""
    settings = {"runs": 2, "seed": 3, "folder": folder} | changed
    return sweep(PROBLEM, methods, SMALL, **settings)


def same(one: pd.DataFrame, two: pd.DataFrame) -> None:
    """Equal to the last bit, and in kind."""
    pd.testing.assert_frame_equal(one, two, check_exact=True, check_dtype=True)
    for name in one.columns[one.dtypes == np.float64]:
        assert one[name].to_numpy().tobytes() == two[name].to_numpy().tobytes()


@pytest.fixture(scope="module")
def expected() -> pd.DataFrame:
    return whole_sweep()


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """The directory of a small finished sweep; copy it before breaking it."""
    path = tmp_path_factory.mktemp("small") / "results"
    small(path)
    return path


@pytest.fixture
def copied(results, tmp_path) -> Path:
    return Path(shutil.copytree(results, tmp_path / "copy"))


def cell_files(path: Path) -> list[Path]:
    return folder.cell_files(path)


# ------------------------------------------------------------------------------- what is computed


def test_rows_of_training_are_those_of_train():
    table = small(methods=["policy_gradient_behavior"])
    assert list(table.columns[:6]) == ["problem", "method", "beta", "behavior", "batch_size",
                                       "steps"]  # fmt: skip
    plan = cells.plan(PROBLEM, ["policy_gradient_behavior"], SMALL, 2, 3, True)
    for cell in plan.cells:
        rows = table[table.beta == cell.labels["beta"]]
        problem = bandit.Bandit([1.0, 0.0, -0.5], cell.labels["beta"], [0.5, 0.3, 0.2])
        entropy, spawn_key = cell.stream
        history = bandit.train(
            problem,
            losses.policy_gradient,
            pairs=bandit.pairs.independent(MU),
            baseline="behavior",
            batch_size=8,
            steps=12,
            runs=2,
            optimizer=bandit.Adam(0.01),
            rng=np.random.SeedSequence(entropy, spawn_key=spawn_key),
            record_every=12,
        )
        assert rows.step.tolist() == [0, 0, 12, 12]
        assert rows.run.tolist() == [0, 1, 0, 1]
        for name in ("regret", "kl_to_optimal", "kl", "expected_reward"):
            assert rows[name].tolist() == getattr(history, name)().ravel().tolist()
        assert len(set(rows.regret)) == 3, "two runs from one start"


def test_exact_columns_are_those_of_compare():
    grid = {"beta": [0.4, 1.5], "behavior": {"worst": MU}, "preference": "deterministic"}
    table = sweep({"ours": PROBLEM}, ["ipo", "dpo", "policy_gradient"], grid)
    assert len(table) == 6
    for beta in (0.4, 1.5):
        problem = bandit.Bandit(PROBLEM.reward, beta, PROBLEM.reference)
        judge = preferences.deterministic(problem.reward)
        rows = table[table.beta == beta].set_index("method")
        nu = bandit.pairs.independent(MU)
        found = analysis.compare(problem, nu, ["ipo", "dpo", "policy_gradient"], judge)
        for name in ("regret", "kl_to_optimal"):
            np.testing.assert_array_equal(rows[f"exact_{name}"], found[name])
        for name in ("slowest_eigenvalue", "variance_at_reference", "converged", "message"):
            assert rows[name].tolist() == pytest.approx(found[name].tolist(), nan_ok=True, abs=0)
    assert table[table.method == "dpo"].exact_regret.isna().all()
    assert not table[table.method == "dpo"].converged.any()


def test_where_there_is_no_exact_solution_to_compare_with_the_table_says_why():
    grid = {"behavior": ["policy", "reference"], "group_size": [2, 3], "steps": 3, "batch_size": 4}
    table = sweep(PROBLEM, ["grpo", "copg"], grid, runs=1)
    why = table.groupby(["method", "behavior", "group_size"]).message.first()
    assert why["copg", "policy", 2] == "it learns on its own data"
    assert why["copg", "reference", 3] == "converged"
    assert why["grpo", "reference", 3] == "its exact solution is for groups of two"
    unsolved = table.message != "converged"
    assert table[unsolved].exact_regret.isna().all()
    assert table[~unsolved].exact_regret.notna().all()
    assert "exact_regret" not in sweep(PROBLEM, ["copg"], grid, runs=1, exact=False)


def test_random_numbers_belong_to_the_cell():
    alone = small(methods=["ipo"])
    both = small(methods=["copg", "ipo"])
    same(both[both.method == "ipo"].reset_index(drop=True), alone)
    more = sweep(PROBLEM, ["ipo"], SMALL | {"beta": [0.8, 0.1, 0.4]}, runs=3, seed=3)
    kept = more[(more.run < 2) & (more.beta != 0.1)]
    kept = kept.sort_values("beta", kind="stable").reset_index(drop=True)
    same(kept, alone)
    longer = sweep(PROBLEM, ["ipo"], SMALL | {"steps": 24, "record_every": 12}, runs=2, seed=3)
    assert longer[longer.step == 12].regret.tolist() == alone[alone.step == 12].regret.tolist()
    drawn = [cell.stream for cell in cells.plan(PROBLEMS, METHODS, GRID, 3, 5, True).cells]
    assert len(set(drawn)) == len(drawn) == 144
    other = small(methods=["ipo"], seed=4)
    assert not (other[other.step == 12].regret == alone[alone.step == 12].regret).any()


def test_a_diverged_run_is_nan_and_no_warning():
    grid = {"learning_rate": [0.1, 1e200], "optimizer": "sgd", "steps": 30, "batch_size": 4}
    table = sweep(PROBLEM, ["copg"], grid, runs=2)
    last = table[table.step == 30].set_index("learning_rate").regret
    assert np.isfinite(last[0.1]).all()
    assert np.isnan(last[1e200]).all()


# --------------------------------------------------------------------- workers and backends


def test_any_number_of_workers_gives_the_same_bits(expected, tmp_path):
    told = []
    table = sweep(
        PROBLEMS, METHODS, GRID, runs=3, seed=5, folder=tmp_path / "two", workers=2,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    same(table, expected)
    assert told == [(i + 1, 144) for i in range(144)]
    same(load(tmp_path / "two"), expected)


@pytest.mark.slow
def test_a_dask_cluster_of_two_processes_gives_the_same_bits(expected, tmp_path):
    distributed = pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    # On a busy machine a worker is not dead that is not heard of for a while.
    patient = {
        "distributed.comm.timeouts.connect": "1h",
        "distributed.comm.timeouts.tcp": "1h",
        "distributed.scheduler.worker-ttl": None,
        "distributed.deploy.lost-worker-timeout": "1h",
    }
    options = {"processes": True, "threads_per_worker": 1, "dashboard_address": None}
    options |= {"local_directory": str(tmp_path / "dask"), "timeout": "1h"}
    with dask.config.set(patient), distributed.Client(n_workers=2, **options) as own:
        # It answers from two processes, neither of them this one.
        assert len(set(own.run(os.getpid).values()) - {os.getpid()}) == 2
        with joblib.parallel_config(backend="dask"):
            table = whole_sweep(tmp_path / "results")
    same(table, expected)
    same(load(tmp_path / "results"), expected)


def test_a_cell_computes_on_one_thread_of_linear_algebra(monkeypatch):
    seen = []

    def summary(*args):
        seen.extend(pool["num_threads"] for pool in threadpoolctl.threadpool_info())
        return analysis.summary(*args)

    monkeypatch.setattr(cells, "analysis", type("", (), {"summary": staticmethod(summary)}))
    monkeypatch.setattr(cells.analysis, "chosen", analysis.chosen, raising=False)
    with threadpoolctl.threadpool_limits(2):
        sweep(PROBLEM, ["copg"])
        assert seen
        assert set(seen) == {1}


# ------------------------------------------------------------------------------ kill -9


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills by signals")
def test_twenty_kills_with_workers_lose_nothing(expected, tmp_path):
    path = tmp_path / "results"
    # joblib leaves empty folders behind when it is killed: not in the machine's memory, then.
    environment = os.environ | {"JOBLIB_TEMP_FOLDER": str(tmp_path)}
    killed = subprocess.run(
        [sys.executable, str(HERE / "sweep_killer.py"), str(path), "20", "7"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert killed.returncode == 0, killed.stderr
    counts = [int(line) for line in killed.stdout.split()]
    assert len(counts) == 20
    assert counts == sorted(counts), "a finished cell was lost"
    assert 0 < counts[-1] < 144, counts
    before = {file.name: file.stat().st_mtime_ns for file in cell_files(path)}
    same(whole_sweep(path), expected)
    after = {file.name: file.stat().st_mtime_ns for file in cell_files(path)}
    assert len(after) == 144
    assert before.items() <= after.items(), "a finished cell was computed again"
    assert not list(path.rglob("*.partial"))


def test_a_killed_worker_is_one_clear_line(tmp_path):
    methods = {"copg": losses.copg, "fatal": _kills_its_process}
    with pytest.raises(ChildProcessError, match=r"^sweep: a worker was killed, perhaps for want"):
        sweep(PROBLEM, methods, folder=tmp_path / "results", workers=2)
    assert len(cell_files(tmp_path / "results")) <= 1


def _kills_its_process(group, *, beta):
    os.kill(os.getpid(), 9)


class _Lock:
    """As locks and open files, nothing that another process could be given."""

    def __reduce__(self):
        raise TypeError("cannot pickle a lock")


LOCK = _Lock()


def _behind_a_lock(group, *, beta):
    assert LOCK
    return losses.copg(group, beta=beta)


_behind_a_lock.__module__ = "__main__"  # as in a script or a notebook: sent as it is, not by name


def test_a_loss_that_cannot_be_sent_is_one_clear_line(tmp_path):
    methods = {"copg": losses.copg, "mine": _behind_a_lock}
    line = r"^methods\['mine'\]: expected a loss that can be sent .* \(cannot pickle a lock\); with"
    with pytest.raises(TypeError, match=line):
        sweep(PROBLEM, methods, folder=tmp_path / "results", workers=2)
    # Nobody has to be sent anything here.
    alone = sweep(PROBLEM, methods, folder=tmp_path / "results", workers=1)
    with joblib.parallel_config("threading", n_jobs=2):
        same(sweep(PROBLEM, methods), alone)


class _Odd(Exception):  # noqa: N818
    """Its own arguments are not those of its base, so that no copy can be made of it."""

    def __init__(self, what, where):
        super().__init__(f"{what} at {where}")


def _fails_oddly(group, *, beta):
    raise _Odd("overflow", 3)


def test_what_a_loss_raises_elsewhere_is_told_here(tmp_path):
    methods = {"odd": _fails_oddly}
    with pytest.raises(_Odd, match="overflow at 3"):
        sweep(PROBLEM, methods, workers=1)
    line = r"^_Odd: overflow at 3 \(in the cell problem problem, method odd, beta 2.0\)$"
    with pytest.raises(RuntimeError, match=line):
        sweep(PROBLEM, methods, {"beta": [2.0]}, folder=tmp_path / "results", workers=2)


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (ValueError("reward: expected"), True),
        (OSError(2, "no such file"), True),
        (_Odd("overflow", 3), False),
        (ValueError(LOCK), False),
        (RuntimeError(), True),
    ],
)
def test_errors_that_can_be_made_again_are_told_from_others(error, sent):
    assert transport.can_be_sent(error) == sent


def test_finished_cells_do_not_wait_for_others_on_their_way_to_a_directory(tmp_path, monkeypatch):
    sizes = []

    class Watched(joblib.Parallel):
        def __call__(self, tasks):
            sizes.append(self.batch_size)
            return super().__call__(tasks)

    monkeypatch.setattr(joblib, "Parallel", Watched)
    small(tmp_path / "results")
    assert sizes == [1]


def test_an_interrupt_ends_the_workers_without_a_word(tmp_path):
    """Warnings are errors here, also those that come when Python tidies up."""

    def interrupt(done, total):
        raise KeyboardInterrupt

    grid = SMALL | {"beta": [0.1, 0.2, 0.4, 0.8]}
    arguments = {"runs": 2, "seed": 3, "folder": tmp_path / "results", "workers": 2}
    with pytest.raises(KeyboardInterrupt) as held:
        sweep(PROBLEM, ["copg", "ipo"], grid, progress=interrupt, **arguments)
    assert len(cell_files(tmp_path / "results")) == 1
    # The directory is free at once, though what was raised still holds every frame.
    same(sweep(PROBLEM, ["copg", "ipo"], grid, **arguments), load(tmp_path / "results"))
    assert held.traceback


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills by signals")
def test_what_is_there_is_counted_where_it_cannot_be_opened(copied, monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(folder.os, "open", forbidden)
    with pytest.raises(PermissionError, match="Permission denied; 4 of 4 cells are kept in"):
        small(copied)


# ---------------------------------------------------------------- resuming, and what is refused


def test_a_finished_sweep_computes_nothing_again(copied, monkeypatch):
    monkeypatch.setattr(cells, "run", None)
    same(small(copied), load(copied))


def test_interrupted_it_keeps_what_is_finished_and_goes_on(tmp_path, monkeypatch):
    path, compute, done = tmp_path / "results", cells.run, []

    def run(cell):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(cell.key)
        return compute(cell)

    monkeypatch.setattr(cells, "run", run)
    with pytest.raises(KeyboardInterrupt):
        small(path)
    assert [file.name[:16] for file in cell_files(path)] == sorted(done)
    with pytest.warns(RuntimeWarning, match="1 of 4 cells are missing"):
        part = load(path)
    monkeypatch.undo()
    same(small(path), small())
    same(part, small().iloc[: len(part)])


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"methods": ["copg"]}, r'methods is \["copg", "ipo"\] there, \["copg"\] here'),
        ({"seed": 4}, "seed is 3 there, 4 here"),
        ({"runs": 3}, "runs is 2 there, 3 here"),
        ({"exact": False}, "exact is true there, false here"),
    ],
)
def test_a_directory_of_another_sweep_is_refused(copied, changed, line):
    before = {file: file.read_bytes() for file in copied.rglob("*") if file.is_file()}
    with pytest.raises(ValueError, match=f"^folder: expected the results of this sweep.*{line}$"):
        small(copied, **changed)
    assert before == {file: file.read_bytes() for file in copied.rglob("*") if file.is_file()}


def test_changed_settings_and_versions_are_noticed(copied, monkeypatch):
    for grid, place in [
        (SMALL | {"beta": [0.4, 0.9]}, "grids.beta"),
        (SMALL | {"behavior": {"worst": [0.2, 0.2, 0.6 + 1e-12]}}, "grids.behavior"),
        ({k: v for k, v in SMALL.items() if k != "steps"}, "grids"),
    ]:
        with pytest.raises(ValueError, match=rf"another one's: {place} is "):
            sweep(PROBLEM, ["copg", "ipo"], grid, runs=2, seed=3, folder=copied)
    changed = bandit.Bandit(PROBLEM.reward + np.array([0, 0, 1e-12]), 0.4, PROBLEM.reference)
    with pytest.raises(ValueError, match=r"problems.problem.reward.sha256 is "):
        sweep(changed, ["copg", "ipo"], SMALL, runs=2, seed=3, folder=copied)
    monkeypatch.setattr(bandit, "__version__", "9.9")
    with pytest.raises(ValueError, match=r'version is ".*" there, "9.9" here'):
        small(copied)


def test_a_changed_function_is_noticed():
    def described(loss):
        return descriptions.digest(descriptions.described("methods", presets.Method("mine", loss)))

    def make(scale):
        def mine(group, *, beta):
            return losses.Score(scale * group.reward, scale * group.reward)

        return mine

    def written_otherwise(group, *, beta):
        return losses.Score(-group.reward, group.reward)

    assert described(make(1.0)) == described(make(1.0))
    assert described(make(1.0)) != described(make(2.0))
    clip = functools.partial(losses.importance_sampling, clip=2.0)
    found = {described(f) for f in (
        make(1.0), written_otherwise, losses.copg, losses.rloo, losses.importance_sampling,
        clip, functools.partial(losses.importance_sampling, clip=3.0),
    )}  # fmt: skip
    assert len(found) == 7
    assert described(clip) == described(functools.partial(clip))
    sources = ["lambda group, *, beta: 1.0", "lambda group, *, beta: 2.0"]
    without_source = [eval(source) for source in sources]
    assert described(without_source[0]) != described(without_source[1])
    with pytest.raises(TypeError, match=r"^methods.hyper.beta: expected numbers, .*, got object"):
        described(functools.partial(losses.copg, beta=object()))
    with pytest.raises(TypeError, match=r"^methods: expected a function, got Traits"):
        described(losses.Traits())


SCALE = {"by": 1.0}


def by_scale(group, *, beta):
    return losses.Score(SCALE["by"] * group.reward, helper(group))


def helper(group):
    return group.reward


def test_a_function_is_more_than_its_own_lines(monkeypatch):
    """Two sweeps that differ must not take each other's results for their own."""

    def described(loss):
        return descriptions.digest(descriptions.described("methods", loss))

    one, other = (lambda group, beta: group.reward), (lambda group, beta: -group.reward)
    assert described(one) != described(other)

    def wrapping(scale):
        @functools.wraps(losses.copg)
        def wrapped(group, *, beta):
            return losses.copg(group, beta=scale * beta)

        return wrapped

    found = {described(loss) for loss in (wrapping(1.0), wrapping(2.0), losses.copg)}
    assert len(found) == 3
    before = described(by_scale)
    assert described(by_scale) == before
    with monkeypatch.context() as changed:
        changed.setitem(SCALE, "by", 2.0)
        assert described(by_scale) != before
    with monkeypatch.context() as changed:
        changed.setitem(globals(), "helper", lambda group: -group.reward)
        assert described(by_scale) != before
    assert described(by_scale) == before


def test_functions_that_call_each_other_are_described_to_an_end():
    def make(last):
        def even(group, *, beta):
            return odd(group, beta=beta)

        def odd(group, *, beta):
            return even(group, beta=beta) if last > 1 else unborn

        text = descriptions.digest(descriptions.described("methods", even))
        unborn = None
        return text

    assert make(1.0) == make(1.0)
    assert make(1.0) != make(2.0)


def test_sets_in_code_without_source_have_no_order():
    code = """
from bandit.sweeps import descriptions
space = {}
exec("def mine(group, beta): return 1 if group in {'a', 'b', 'c', 'd', 'e'} else 2", space)
print(descriptions.digest(descriptions.described("methods", space["mine"])))
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_a_default_that_is_nan_is_equal_to_itself(tmp_path):
    def mine(group, *, beta, missing=np.nan):
        return losses.copg(group, beta=beta)

    once = sweep(PROBLEM, {"mine": mine}, folder=tmp_path)
    assert sweep(PROBLEM, {"mine": mine}, folder=tmp_path).equals(once)


def test_a_users_own_loss_crosses_processes():
    def half_copg(group, *, beta):
        score = losses.copg(group, beta=beta)
        return losses.Score(0.5 * score.value, 0.5 * score.weight)

    table = sweep(PROBLEM, {"half": half_copg, "copg": losses.copg}, workers=2)
    rates = table.set_index("method").slowest_eigenvalue
    assert rates["half"] == pytest.approx(0.5 * rates["copg"])


@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "swapped"])
def test_damaged_cells_are_named_and_done_again(copied, damage):
    files = cell_files(copied)
    content = files[1].read_bytes()
    at = len(content) // 2
    files[1].write_bytes(
        {
            "flipped": content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :],
            "truncated": content[:-1],
            "emptied": b"",
            "swapped": files[0].read_bytes(),
        }[damage]
    )
    with pytest.raises(ValueError, match=f"^folder: .*{files[1].name} is damaged; run its sweep"):
        load(copied)
    with pytest.warns(RuntimeWarning, match=f"{files[1].name} is damaged, and its cell is comp"):
        table = small(copied)
    same(table, small())
    assert files[1].read_bytes() == content
    same(load(copied), table)


def test_missing_cells_are_done_again(copied):
    for file in cell_files(copied)[:2]:
        file.unlink()
    same(small(copied), small())


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"format": 1}', b"\xff"])
def test_a_damaged_manifest_is_one_line(copied, content):
    (copied / "manifest.json").write_bytes(content)
    for call in (small, load):
        with pytest.raises(ValueError, match=r"^folder: expected the results of a sweep, .* is da"):
            call(copied)


def test_the_manifest_tells_the_whole_sweep(results):
    about = json.loads((results / "manifest.json").read_text(encoding="utf-8"))
    plan = cells.plan(PROBLEM, ("copg", "ipo"), SMALL, 2, 3, True)
    assert about["fingerprint"] == plan.fingerprint
    assert about["cells"] == [cell.key for cell in plan.cells]
    told = about["description"]
    assert told["version"] == bandit.__version__
    assert (told["runs"], told["seed"], told["exact"]) == (2, 3, True)
    assert told["problems"]["problem"]["reward"]["values"] == [1.0, 0.0, -0.5]
    assert told["methods"]["ipo"] == {"loss": {"name": "ipo"}, "baseline": None}
    assert [label for label, _ in told["grids"]["beta"]] == [0.4, 0.8]
    assert told["grids"]["behavior"][0][1]["values"] == MU


def test_cells_are_parquet_that_others_can_read(results):
    parts = [pd.read_parquet(file) for file in cell_files(results)]
    order = ["method", "beta", "step", "run"]
    same(
        pd.concat(parts).sort_values(order).reset_index(drop=True),
        load(results).sort_values(order).reset_index(drop=True),
    )


def test_other_directories_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it", encoding="utf-8")
    with pytest.raises(ValueError, match=r"^folder: expected a new directory .*holds thesis.tex$"):
        small(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]
    with pytest.raises(ValueError, match=r"^folder: expected the results of a sweep, got"):
        load(tmp_path / "nowhere")


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks there")
def test_two_processes_do_not_share_a_directory(copied):
    holder = (
        "import fcntl, os, sys\n"
        "handle = os.open(sys.argv[1], os.O_RDWR)\n"
        "fcntl.lockf(handle, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(copied / ".lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=r"^folder: expected one sweep .* is in use"):
            small(copied)
        other.communicate("")
    same(small(copied), load(copied))


# ------------------------------------------------------------------------ full and forbidden


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_a_clear_error_and_leaves_what_is_there(results, tmp_path):
    path = tmp_path / "results"
    keys = [cell.key for cell in cells.plan(PROBLEM, ("copg", "ipo"), SMALL, 2, 3, True).cells]
    full = next(file.name for file in cell_files(results) if file.name.startswith(keys[2]))
    (path / "cells").mkdir(parents=True)
    shutil.copy(results / "manifest.json", path)
    # What is written to its place on the way comes to a device without space.
    (path / "cells" / f".{full}.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device; 2 of 4 cells are kept in") as told:
        small(path)
    assert told.value.errno == errno.ENOSPC
    assert {file.name[:16] for file in cell_files(path)} == set(keys[:2])
    assert not list(path.rglob("*.partial")), "the part of a file was left"
    same(small(path), load(results))


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    with pytest.raises(OSError, match="Not a directory; no cell was finished"):
        small(file / "results")
    with pytest.raises(ValueError, match="folder: expected a path, got an empty string"):
        small("")

    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(folder.os, "replace", forbidden)
    with pytest.raises(PermissionError, match="Permission denied; no cell was finished"):
        small(tmp_path / "results")
    monkeypatch.undo()
    same(small(tmp_path / "results"), small())


# ------------------------------------------------------------------------------------ arguments


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"problems": {}}, "problems: expected a bandit.Bandit or a mapping"),
        ({"problems": {"a": 1}}, r"problems\['a'\]: expected a bandit.Bandit, got int"),
        ({"methods": []}, "methods: expected at least one method"),
        ({"methods": ["nope"]}, "method: expected one of"),
        ({"grids": {"temperature": 1.0}}, "grids: expected one of beta, behavior"),
        ({"grids": [1]}, "grids: expected a mapping"),
        ({"grids": {"beta": []}}, "beta: expected at least one value"),
        ({"grids": {"beta": [1.0, 1]}}, "beta: expected values with different labels, got 1.0 tw"),
        ({"grids": {"beta": [0.0]}}, "beta: expected a finite number above 0"),
        ({"grids": {"steps": [5]}}, "steps: expected none with runs=0"),
        ({"grids": {"steps": 2.5}, "runs": 1}, "steps: expected a positive integer"),
        ({"grids": {"optimizer": "lion"}, "runs": 1}, "optimizer: expected one of adam, sgd"),
        (
            {"grids": {"reward_noise": -1.0}, "runs": 1},
            "reward_noise: expected a finite number of at least 0",
        ),
        ({"grids": {"behavior": "policy"}}, "behavior: expected other data than 'policy'.*in the"),
        ({"grids": {"behavior": [[0.5, 0.5]]}}, r"pairs: expected shape .* \(in the cell problem"),
        ({"grids": {"behavior": np.full(7, 1 / 7)}}, "behavior: expected a mapping from labels"),
        ({"grids": {"group_size": 3}, "runs": 1, "methods": ["ipo"]}, "group_size: expected 2 to"),
        ({"runs": -1}, "runs: expected a whole number of at least 0, got -1"),
        ({"runs": 1.0}, "runs: expected a whole number, got float"),
        ({"seed": -1}, "seed: expected a whole number of at least 0"),
        ({"exact": False}, "exact: expected True with runs=0"),
        ({"exact": 1}, "exact: expected True or False"),
        (
            {"methods": {5: losses.copg, "5": losses.rloo}},
            "methods: expected different names, got '5' tw",
        ),
        ({"problems": {5: PROBLEM, "5": PROBLEM}}, "problems: expected different names, got '5'"),
        ({"workers": 0}, "workers: expected at least 1, or -1"),
        ({"workers": "2"}, "workers: expected a whole number, got str"),
        ({"folder": 5}, "folder: expected a path, got int"),
        ({"folder": "a\0b"}, "folder: expected a path, got one with a zero byte"),
        ({"grids": {"batch_size": 2**70}, "runs": 1}, "batch_size: expected an integer of at most"),
        ({"progress": 1}, "progress: expected True, False or a function"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, line):
    given = {"problems": PROBLEM, "methods": ["copg"]} | arguments
    with pytest.raises((ValueError, TypeError), match=f"^{line}") as told:
        sweep(**given)
    assert "\n" not in str(told.value)


def test_what_goes_wrong_in_a_cell_is_told_with_its_name():
    def refuses(group, *, beta):
        raise ValueError("group: expected something else")

    with pytest.raises(ValueError, match=r"group: .* \(in the cell problem problem, method mine"):
        sweep(PROBLEM, {"mine": refuses}, workers=2)


class RefusalError(RuntimeError):
    """Made of two things, as UnicodeDecodeError is of five."""

    def __init__(self, one, two):
        super().__init__(one, two)


def test_errors_of_other_kinds_keep_their_kind(tmp_path):
    def refuses(group, *, beta):
        raise RefusalError(1, 2)

    def misreads(group, *, beta):
        return b"\xff".decode()

    for loss, kind in ((refuses, RefusalError), (misreads, UnicodeDecodeError)):
        with pytest.raises(kind) as told:
            sweep(PROBLEM, {"mine": loss})
        assert told.value.__notes__ == ["(in the cell problem problem, method mine)"]


def test_one_sweep_at_a_time_in_one_process_too(tmp_path):
    def again(done, total):
        sweep(PROBLEM, ["copg"], folder=tmp_path)

    with pytest.raises(ValueError, match=r"^folder: expected one sweep at a time"):
        sweep(PROBLEM, ["copg"], folder=tmp_path, progress=again)
    assert len(sweep(PROBLEM, ["copg"], folder=tmp_path)) == 1


def test_progress_is_a_bar_with_the_time_left(capsys):
    small(progress=True)
    shown = capsys.readouterr().err
    assert "4/4" in shown
    assert "00:00<" in shown


def test_without_joblib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(ImportError, match=r"pip install 'copg-bandit\[sweep\]'"):
        sweep(PROBLEM, ["copg"])


def test_names_are_where_they_are_promised():
    assert bandit.sweep is sweeps.sweep
    assert sweep_killer.landed(HERE) == 0
