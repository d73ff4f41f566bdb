"""Logs as people have them: packed, with several columns for a context, in frames, in pieces."""

from __future__ import annotations

import gzip
import itertools
import math
import threading

import numpy as np
import pandas as pd
import pytest

import bandit
from bandit import data
from bandit.data.counts import SUMS

COLUMNS = {"context": "device", "arm": "item", "reward": "sales", "propensity": "p"}


def a_frame(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "device": rng.choice(["phone", "desk, old", "a=b"], n),
            "hour": rng.choice([1, 2, 10], n),
            "item": rng.choice(["ñandú", 'the "red" one'], n),
            "sales": rng.normal(3.0, 2.0, n),
            "click": rng.random(n) < 0.3,
            "p": rng.uniform(0.2, 0.9, n),
        }
    )


def assert_same_log(one: data.Log, other: data.Log) -> None:
    assert (one.context_labels, one.arm_labels) == (other.context_labels, other.arm_labels)
    for name in ("contexts", "arms", "rewards", "propensities"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def assert_same_counts(one: data.Counts, other: data.Counts) -> None:
    assert (one.context_labels, one.arm_labels) == (other.context_labels, other.arm_labels)
    for name in SUMS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


# -------------------------------------------------------------------------------- how it is written


@pytest.mark.parametrize("packed", [False, True])
def test_frames_and_files_of_every_kind_are_the_same_log(tmp_path, packed):
    pytest.importorskip("pyarrow")
    frame = a_frame()
    text = frame.to_csv(index=False, float_format="%.17g").encode()
    (tmp_path / "log.csv").write_bytes(gzip.compress(text) if packed else text)
    frame.to_parquet(tmp_path / "log.parquet")
    log = data.from_dataframe(frame.set_axis(range(100, 160)), **COLUMNS)
    assert log.rewards.tolist() == frame.sales.tolist()
    assert [log.context_labels[x] for x in log.contexts] == frame.device.tolist()
    assert [log.arm_labels[y] for y in log.arms] == frame["item"].tolist()
    assert_same_log(data.read_csv(tmp_path / "log.csv", **COLUMNS), log)
    assert_same_log(data.read_parquet(tmp_path / "log.parquet", **COLUMNS), log)
    assert_same_counts(data.count_csv(tmp_path / "log.csv", **COLUMNS, chunksize=7), log.counts())


def test_a_log_can_come_through_a_pipe(tmp_path):
    import os

    path = tmp_path / "pipe"
    os.mkfifo(path)
    text = a_frame().to_csv(index=False, float_format="%.17g").encode()
    writer = threading.Thread(target=path.write_bytes, args=(gzip.compress(text),))
    writer.start()
    log = data.read_csv(path, **COLUMNS)
    writer.join()
    assert_same_log(log, data.from_dataframe(a_frame(), **COLUMNS))


def test_true_and_false_are_one_and_zero(tmp_path):
    frame = a_frame()
    frame.to_csv(tmp_path / "log.csv", index=False)
    for log in (
        data.read_csv(tmp_path / "log.csv", arm="item", reward="click"),
        data.from_dataframe(frame, arm="item", reward="click"),
        data.from_dataframe(frame.astype({"click": "boolean"}), arm="item", reward="click"),
        data.from_dataframe(frame.astype({"click": object}), arm="item", reward="click"),
    ):
        assert log.rewards.tolist() == frame.click.astype(float).tolist()
    (tmp_path / "other.csv").write_text("item,click\na,TRUE\na, false \nb,true\n")
    log = data.read_csv(tmp_path / "other.csv", arm="item", reward="click")
    assert log.rewards.tolist() == [1.0, 0.0, 1.0]


def test_decimal_commas(tmp_path):
    frame = a_frame()
    path = tmp_path / "log.csv"
    frame.to_csv(path, index=False, sep=";", decimal=",", float_format="%.17g")
    log = data.read_csv(path, **COLUMNS, delimiter=";", decimal=",")
    assert_same_log(log, data.from_dataframe(frame, **COLUMNS))
    with pytest.raises(ValueError, match=r"row 1, column 'sales': expected a finite number"):
        data.read_csv(path, **COLUMNS, delimiter=";")
    # What divides thousands is not taken for what divides decimals.
    path.write_text("item;sales\na;1.234\n")
    with pytest.raises(ValueError, match=r"column 'sales': .* got '1\.234'"):
        data.count_csv(path, arm="item", reward="sales", delimiter=";", decimal=",")
    with pytest.raises(ValueError, match="decimal: expected one of"):
        data.read_csv(path, arm="item", reward="sales", decimal=";")


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_another_delimiter_is_guessed_at(tmp_path, delimiter):
    path = tmp_path / "log.csv"
    a_frame().to_csv(path, index=False, sep=delimiter)
    with pytest.raises(ValueError, match="are its columns divided by") as caught:
        data.read_csv(path, **COLUMNS)
    assert str(caught.value).endswith(f"divided by {delimiter!r}?")


def test_whole_numbers_written_with_a_point_are_whole_numbers(tmp_path):
    """Tables write 3 as 3.0 where another row has none."""
    frame = pd.DataFrame({"item": [9.0, 10.0, -2.0], "click": [0, 1, 0]})
    frame.to_csv(tmp_path / "log.csv", index=False)
    log = data.read_csv(tmp_path / "log.csv", arm="item", reward="click")
    assert log.arm_labels == (-2, 9, 10)
    assert log.arms.tolist() == [1, 2, 0]
    both = data.from_dataframe(frame.assign(item=["1", "1.0", "2"]), arm="item", reward="click")
    assert both.arm_labels == ("1", "1.0", "2")
    halves = data.from_dataframe(frame.assign(item=["1.5", "1.0", "2"]), arm="item", reward="click")
    assert halves.arm_labels == ("1.0", "1.5", "2")


def test_days_are_labels_and_moments_are_not(tmp_path):
    pa = pytest.importorskip("pyarrow")
    days = pd.to_datetime(["2024-02-01", "2024-01-31", "2024-02-01"])
    frame = pd.DataFrame({"day": days.date, "now": days, "item": ["a", "b", "a"], "r": [1, 2, 3]})
    path = tmp_path / "log.parquet"
    frame.to_parquet(path)
    log = data.read_parquet(path, context="day", arm="item", reward="r")
    assert log.context_labels == ("2024-01-31", "2024-02-01")
    with pytest.raises(ValueError, match=r"numbers, text or days in column 'now', got timestamp"):
        data.read_parquet(path, context="now", arm="item", reward="r")
    with pytest.raises(ValueError, match=r"numbers or text in column 'day', got date32"):
        data.read_parquet(path, arm="item", reward="day")
    assert pa.types.is_date(pa.array(days.date).type)


# ----------------------------------------------------------------------------------- contexts


def test_several_columns_make_a_context_of_each_combination(tmp_path):
    frame = a_frame()
    frame.to_csv(tmp_path / "log.csv", index=False)
    several = {**COLUMNS, "context": ["device", "hour"]}
    log = data.read_csv(tmp_path / "log.csv", **several)
    written = {"desk, old": '"desk, old"', "a=b": '"a=b"', "phone": "phone"}
    there = set(zip(frame.device, frame.hour, strict=True))
    # "hour=2" comes before "hour=10".
    assert log.context_labels == tuple(
        f"device={written[device]}, hour={hour}"
        for device in ("a=b", "desk, old", "phone")
        for hour in (1, 2, 10)
        if (device, hour) in there
    )
    assert [log.context_labels[x] for x in log.contexts] == [
        f"device={written[d]}, hour={h}" for d, h in zip(frame.device, frame.hour, strict=True)
    ]
    assert_same_log(data.from_dataframe(frame, **several), log)
    assert_same_counts(data.count_csv(tmp_path / "log.csv", **several, chunksize=5), log.counts())
    alone = data.read_csv(tmp_path / "log.csv", **{**COLUMNS, "context": ["hour"]})
    assert alone.context_labels == (1, 2, 10)


def test_values_that_look_like_two_are_not_mixed_up():
    frame = pd.DataFrame(
        {
            "a": ['x", b="y', "x", "x, b=y", '"x"'],
            "b": ["z", 'y, b="z"', "z", "y"],
            "item": list("abcd"),
            "r": range(4),
        }
    )
    log = data.from_dataframe(frame, context=["a", "b"], arm="item", reward="r")
    assert len(set(log.context_labels)) == 4
    assert sorted(log.contexts.tolist()) == [0, 1, 2, 3]


def test_a_gap_in_one_of_several_columns_is_a_bad_row(tmp_path):
    (tmp_path / "log.csv").write_text("a,b,item,r\n1,2,x,0\n1,,x,0\n,2,x,0\n", encoding="utf-8")
    named = {"context": ["a", "b"], "arm": "item", "reward": "r"}
    with pytest.raises(ValueError, match=r"row 2, column 'b': expected a context, got nothing"):
        data.read_csv(tmp_path / "log.csv", **named)
    with pytest.warns(data.BadRowsWarning, match="1 a: missing, 1 b: missing"):
        log = data.read_csv(tmp_path / "log.csv", **named, on_bad="drop")
    assert log.context_labels == ("a=1, b=2",)


@pytest.mark.parametrize("context", [[], ["a", "a"], 7, {"a"}])
def test_names_of_contexts_are_checked(context):
    frame = pd.DataFrame({"a": [1], "item": [1], "r": [1]})
    with pytest.raises(TypeError, match="context: expected the name of a column, or different"):
        data.from_dataframe(frame, context=context, arm="item", reward="r")


def test_contexts_that_never_return_are_refused_before_memory_is():
    n = 300_000
    log = data.Log(np.arange(n), np.arange(n) % 100, np.zeros(n))
    with pytest.raises(ValueError, match="context: expected at most 20000000 cells, got 300000"):
        log.counts()


# --------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize(
    ("column", "value", "message", "reason"),
    [
        ("p", np.nan, "row 6, column 'p': expected a probability .* got nothing", "p: missing"),
        ("p", 0.0, "row 6, column 'p': expected a probability .* got '0.0'", "p: not in (0, 1]"),
        ("sales", np.inf, "column 'sales': expected a finite number", "sales: not a number"),
        ("sales", "many", "column 'sales': .* got 'many'", "sales: not a number"),
        ("sales", 1 + 2j, "column 'sales': expected a finite number", "sales: not a number"),
        ("item", None, "row 6, column 'item': expected an arm, got nothing", "item: missing"),
        ("item", " ", "row 6, column 'item': expected an arm, got nothing", "item: missing"),
        ("device", pd.NA, "column 'device': expected a context, got nothing", "device: missing"),
    ],
)
def test_bad_rows_of_frames_are_named_or_dropped_and_counted(column, value, message, reason):
    frame = a_frame()
    if not isinstance(value, float):
        frame = frame.astype({column: complex if isinstance(value, complex) else object})
    frame.loc[5, column] = value
    with pytest.raises(ValueError, match=rf"^frame: .*{message}") as caught:
        data.from_dataframe(frame, **COLUMNS)
    assert "\n" not in str(caught.value)
    if isinstance(value, complex):
        return  # the whole column is
    with pytest.warns(data.BadRowsWarning, match="frame: dropped 1 of 60 rows") as warned:
        log = data.from_dataframe(frame, **COLUMNS, on_bad="drop")
    assert warned[0].filename == __file__
    assert log.dropped == {reason: 1}
    assert_same_log(
        data.Log(
            log.contexts, log.arms, log.rewards, log.propensities,
            context_labels=log.context_labels, arm_labels=log.arm_labels,
        ),
        data.from_dataframe(a_frame().drop(index=5), **COLUMNS),
    )  # fmt: skip


def test_moments_are_no_rewards():
    frame = a_frame().assign(sales=pd.Timestamp("2024-01-01"))
    with pytest.raises(ValueError, match=r"column 'sales': expected a finite number"):
        data.from_dataframe(frame, **COLUMNS)


def test_certain_choices_in_single_precision_are_certain(tmp_path):
    """A softmax of float32 says 1.0000001."""
    frame = pd.DataFrame({"item": ["a", "b"], "r": [1, 0], "p": [1.0000001, 0.5]})
    frame.to_csv(tmp_path / "log.csv", index=False)
    named = {"arm": "item", "reward": "r", "propensity": "p"}
    by_hand = data.Log(None, [0, 1], [1.0, 0.0], frame.p)
    for log in (data.from_dataframe(frame, **named), by_hand):
        assert log.propensities.tolist() == [1.0, 0.5]
    counts = data.count_csv(tmp_path / "log.csv", **named)
    assert counts.inverse.tolist() == [[1.0, 2.0]]
    assert data.from_counts([3, 1], [1, 0], [1.0000001, 0.5]).inverse.tolist() == [[3.0, 2.0]]
    with pytest.raises(ValueError, match=r"row 1, column 'p': .* got '1\.00001'"):
        data.from_dataframe(frame.replace(1.0000001, 1.00001), **named)


def test_frames_are_checked():
    with pytest.raises(TypeError, match="frame: expected a DataFrame of pandas, got dict"):
        data.from_dataframe({"item": [1]}, arm="item", reward="item")
    with pytest.raises(ValueError, match="reward: expected a column of frame"):
        data.from_dataframe(a_frame(), arm="item", reward="clicks")
    with pytest.raises(ValueError, match="days in column 'item', got unhashable type: 'list'"):
        data.from_dataframe(a_frame().assign(item=[[1]] * 60), **COLUMNS)
    with pytest.raises(ValueError, match="frame: expected rows, got none"):
        data.from_dataframe(a_frame().iloc[:0], **COLUMNS)
    twice = a_frame().set_axis(["device", "hour", "item", "sales", "sales", "p"], axis=1)
    with pytest.raises(ValueError, match="frame: expected one column 'sales' in the header, got 2"):
        data.from_dataframe(twice, **COLUMNS)


# --------------------------------------------------------------------------------------- pieces


def test_counting_pieces_is_counting_the_whole_to_the_last_bit():
    frame = a_frame()
    whole = data.from_dataframe(frame, **COLUMNS).counts()
    chunks = (frame[at : at + 7] for at in range(0, 60, 7))
    sums = data.count(data.from_dataframe(chunk, **COLUMNS) for chunk in chunks)
    order = [[sums.context_labels.index(x) for x in whole.context_labels],
             [sums.arm_labels.index(y) for y in whole.arm_labels]]  # fmt: skip
    for name in SUMS:
        np.testing.assert_array_equal(getattr(sums, name)[np.ix_(*order)], getattr(whole, name))
    # Of sums only the last digits may differ.
    halves = [data.from_dataframe(part, **COLUMNS).counts() for part in (frame[:31], frame[31:])]
    sums = data.count(halves)
    order = [[sums.context_labels.index(x) for x in whole.context_labels],
             [sums.arm_labels.index(y) for y in whole.arm_labels]]  # fmt: skip
    for name in SUMS:
        np.testing.assert_allclose(
            getattr(sums, name)[np.ix_(*order)], getattr(whole, name), rtol=1e-13
        )


def test_what_was_dropped_adds_up_and_parts_must_agree():
    told = data.Log(None, [0], [1.0], [0.5], dropped={"p: missing": 2})
    bare = data.Log(None, [0], [1.0])
    seen = data.Log([0], [0], [1.0], [0.5])
    assert data.count([told, told.counts()]).dropped == {"p: missing": 4}
    with pytest.raises(ValueError, match=r"all of them with propensities or none.* index 1"):
        data.count([told, bare])
    with pytest.raises(ValueError, match=r"all of them with no contexts or none.* index 2"):
        data.count([told, told, seen])
    with pytest.raises(ValueError, match="parts: expected a Log or Counts, got none"):
        data.count([])
    with pytest.raises(TypeError, match="parts: expected Logs and Counts, got list"):
        data.count([[1]])


# ----------------------------------------------------------------------------------- held out


def test_rows_are_divided_once_each():
    log = data.from_dataframe(a_frame(), **COLUMNS)
    rest, held = data.split(log, 0.25, rng=0)
    assert (len(rest), len(held)) == (45, 15)
    assert rest.context_labels == held.context_labels == log.context_labels
    assert sorted([*rest.rewards, *held.rewards]) == sorted(log.rewards)
    again, other = data.split(log, 0.25, rng=0)[1], data.split(log, 0.25, rng=1)[1]
    assert again.rewards.tolist() == held.rewards.tolist() != other.rewards.tolist()


def small_counts() -> data.Counts:
    return data.from_counts(
        [[3, 2], [0, 1]], [[1, 2], [0, 0]], [[0.6, 0.4], [0.5, 0.5]], arm_labels=["a", "b"]
    )


def test_counts_are_divided_as_their_rows_would_be():
    """The chance of every division, by listing which 3 of the 6 rows are held out."""
    rows = [(0, 0, 1), (0, 0, 0), (0, 0, 0), (0, 1, 1), (0, 1, 1), (1, 1, 0)]
    expected: dict[tuple, float] = {}
    for chosen in itertools.combinations(rows, 3):
        table = np.zeros((2, 2, 2))
        for x, y, r in chosen:
            table[:, x, y] += 1, r
        key = tuple(table.ravel())
        expected[key] = expected.get(key, 0.0) + 1 / math.comb(6, 3)
    counts, rng, draws = small_counts(), np.random.default_rng(0), 1500
    found: dict[tuple, int] = {}
    for _ in range(draws):
        rest, held = data.split(counts, 0.5, rng=rng)
        np.testing.assert_array_equal(rest.n + held.n, counts.n)
        np.testing.assert_array_equal(rest.reward + held.reward, counts.reward)
        key = tuple(np.stack([held.n, held.reward]).ravel())
        found[key] = found.get(key, 0) + 1
    assert set(found) == set(expected)
    # Each within five standard errors.
    for key, chance in expected.items():
        assert abs(found[key] / draws - chance) < 5 * math.sqrt(chance * (1 - chance) / draws)
    np.testing.assert_allclose(rest.inverse + held.inverse, counts.inverse)
    np.testing.assert_allclose(rest.inverse2_reward + held.inverse2_reward, counts.inverse2_reward)
    assert rest.arm_labels == ("a", "b")


def test_the_example_can_be_divided_where_its_propensities_stay():
    log = data.open_bandit("men", "random")
    rest, held = data.split(log, 0.5, rng=0)
    assert (len(rest), len(held)) == (5000, 5000)
    assert held.reward.sum() + rest.reward.sum() == 46
    uniform = np.full(34, 1 / 34)
    value = bandit.ope.ipw(held, uniform).value
    assert value == pytest.approx(held.reward.sum() / 5000, rel=1e-9)
    with pytest.raises(ValueError, match="propensities are one number in each cell, got sums over"):
        data.split(data.open_bandit("men", "bts"), 0.5, rng=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.split([1], 0.5, rng=0), "data: expected a Log or Counts, got list"),
        (lambda: data.split(small_counts(), 0.01, rng=0), "share: expected a share that leaves"),
        (lambda: data.split(small_counts(), 1.5, rng=0), "share: expected a share that leaves"),
        (lambda: data.split(small_counts(), 0.0, rng=0), "share: expected a finite number above"),
        (lambda: data.split(small_counts(), 0.5, rng=None), "rng: expected a seed"),
        (
            lambda: data.split(data.from_counts([2.0], [5.0], reward2=[13.0]), 0.5, rng=0),
            "data: expected rows, or counts of rewards 0 and 1",
        ),
        (
            lambda: data.split(data.from_counts([2e9, 3.0], [5.0, 1.0]), 0.5, rng=0),
            "data: expected counts of fewer than 1000000000 rows",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_divided_is_one_clear_line(call, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
