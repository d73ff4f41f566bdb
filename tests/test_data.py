"""Logs, readers and shipped tables: exact facts, plain loops, and files that are broken."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import subprocess
import sys
import warnings
from collections import Counter
from importlib import resources
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from bandit import analysis, data, losses, pairs
from bandit.data.counts import SUMS

COLUMNS = {"context": "position", "arm": "item", "reward": "click", "propensity": "p"}
HEADER = "position,item,click,p"


def loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*{{m.partition('.')[0] for m in sys.modules}})"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


def test_nothing_heavy_is_loaded():
    loaded = loaded_by("import bandit.data, bandit.ope; bandit.data.open_bandit('all', 'bts')")
    assert not loaded & {"pandas", "pyarrow", "sklearn", "matplotlib"}


def test_bandit_alone_loads_no_data():
    modules = subprocess.check_output(
        [sys.executable, "-c", "import bandit, sys; print(*sys.modules)"], text=True
    ).split()
    assert not {"bandit.data", "bandit.ope"} & set(modules)


# -------------------------------------------------------------------------- logs and counts


def a_log(n: int = 300, seed: int = 0) -> data.Log:
    rng = np.random.default_rng(seed)
    return data.Log(
        rng.choice(3, size=n, p=[0.6, 0.3, 0.1]),
        rng.choice(4, size=n, p=[0.4, 0.3, 0.2, 0.1]),
        rng.normal(0.5, 2.0, n),
        rng.uniform(0.01, 1.0, n),
        context_labels=["a", "b", "c"],
        arm_labels=range(4),
    )


def test_counts_are_sums_over_rows():
    log = a_log()
    expected = {name: np.zeros((3, 4)) for name in SUMS}
    for x, y, r, p in zip(log.contexts, log.arms, log.rewards, log.propensities, strict=True):
        values = [1, r, r * r, 1 / p, r / p, r * r / p, 1 / p**2, r / p**2, (r / p) ** 2]
        for name, value in zip(SUMS[:-1], values, strict=True):
            expected[name][x, y] += value
        expected["largest_inverse"][x, y] = max(expected["largest_inverse"][x, y], 1 / p)
    counts = log.counts()
    for name in SUMS:
        np.testing.assert_allclose(getattr(counts, name), expected[name], rtol=1e-12, atol=1e-13)
    assert len(counts) == len(log) == 300
    assert counts.shape == log.shape == (3, 4)


def test_multiplicity_is_repetition():
    log = a_log(40)
    often = np.random.default_rng(1).integers(0, 4, 40)
    again = data.Log(
        np.repeat(log.contexts, often),
        np.repeat(log.arms, often),
        np.repeat(log.rewards, often),
        np.repeat(log.propensities, often),
        context_labels=log.context_labels,
        arm_labels=log.arm_labels,
    )
    for name in SUMS:
        np.testing.assert_allclose(
            getattr(log.counts(often), name), getattr(again.counts(), name), rtol=1e-12, atol=1e-13
        )


def test_the_bound_on_the_largest_inverse_holds_and_is_reached():
    log = a_log()
    exact = log.counts()
    bound = data.Counts(
        **{name: getattr(exact, name) for name in SUMS[:-1]},
        context_labels=exact.context_labels,
        arm_labels=exact.arm_labels,
    )
    assert (bound.largest_inverse >= exact.largest_inverse * (1 - 1e-9)).all()
    one = data.Log(None, [0, 0, 0], [1.0, 1.0, 0.0], [0.5, 0.5, 0.01]).counts()
    sums = {name: getattr(one, name) for name in SUMS[:-1]}
    tight = data.Counts(**sums, arm_labels=(0,))
    assert tight.largest_inverse.item() == pytest.approx(100)


def test_from_counts_is_the_log_it_stands_for():
    behavior = np.array([[0.2, 0.8], [0.6, 0.4]])
    n, wins = np.array([[3, 5], [2, 1]]), np.array([[1, 4], [0, 1]])
    rows = [
        (x, y, float(i < wins[x, y]), behavior[x, y])
        for x, y in itertools.product(range(2), repeat=2)
        for i in range(n[x, y])
    ]
    log = data.Log(*map(np.array, zip(*rows, strict=True)))
    table = data.from_counts(n, wins, behavior)
    for name in SUMS:
        np.testing.assert_allclose(getattr(table, name), getattr(log.counts(), name), rtol=1e-13)
    assert data.from_counts([2, 3], [1, 1]).context_labels == (None,)
    assert data.from_counts([2, 3], [1, 1]).inverse is None


def test_tables_keep_labels():
    frame = a_log(5).to_dataframe()
    assert list(frame.columns) == ["context", "arm", "reward", "propensity"]
    assert set(frame["context"]) <= {"a", "b", "c"}
    counts = a_log().counts()
    frame = counts.to_dataframe().set_index(["context", "arm"])
    assert frame.loc[("b", 3), "reward"] == counts.reward[1, 3]
    assert repr(counts).startswith("Counts(300 rows, 3 contexts, 4 arms, total reward")
    assert repr(data.Log(None, [0], [1.0])) == "Log(1 rows, 1 contexts, 1 arms, no propensities)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.Log(None, [0, 1], [1.0]), r"arms: expected shape \(n,\) = \(1,\)"),
        (lambda: data.Log(None, [0.5], [1.0]), "arms: expected integer codes, got float64"),
        (lambda: data.Log(None, [-1], [1.0]), "arms: expected codes from 0"),
        (lambda: data.Log(None, [2], [1.0], arm_labels="ab"), "arms: .* 0 to 1, got 2 at index 0"),
        (lambda: data.Log(None, [0], [1.0], arm_labels="aa"), "arm_labels: expected different"),
        (lambda: data.Log(None, [0], [np.nan]), "rewards: expected finite"),
        (lambda: data.Log(None, [0], [1e60]), "rewards: expected at most 1e"),
        (lambda: data.Log(None, [], []), r"rewards: expected shape \(n,\) with n > 0"),
        (lambda: data.Log(None, [0], [1.0], [0.0]), "propensities: expected numbers in"),
        (lambda: data.Log(None, [0], [1.0], [1.5]), "propensities: .* got 1.5 at index 0"),
        (lambda: data.Log(None, [0], [1.0], [0.5, 0.5]), r"propensities: expected shape"),
        (lambda: a_log().counts([-1.0] * 300), "multiplicity: expected at least 0"),
        (lambda: data.from_counts([0, 0], [0, 0]), "n: expected counts"),
        (
            lambda: data.from_counts([2, 1], [3, 0]),
            "reward: expected sums of 0s and 1s.* got 3 at index 0",
        ),
        (lambda: data.from_counts([2, 0], [1, 1], reward2=[1, 1]), "reward2: .*, got 1 at index 1"),
        (
            lambda: data.from_counts([2, 0], [1, 0], reward2=[1, 1]),
            "reward2: expected 0 where n is 0",
        ),
        (lambda: data.from_counts([2, 1], [1]), "reward: expected shape"),
        (lambda: data.from_counts([2, 1], [1, 0], [0.0, 1.0]), "propensity: .*, got 0 at index 0"),
        (lambda: data.open_bandit("kids", "bts"), "campaign: expected one of all, men, women"),
        (lambda: data.open_bandit("all", "best"), "policy: expected one of random, bts"),
        (lambda: data.Log(None, [0, 10**9], [1, 2]), "arms: expected codes from 0, below 10000000"),
        (lambda: data.semi_synthetic("all", 0, 0), "n: expected a positive integer"),
        (lambda: data.semi_synthetic("all", 5, None), "rng: expected a seed, SeedSequence or"),
        (lambda: data.thompson_policy([1.0], [1.0], slots=2), "slots: expected at most"),
        (lambda: data.thompson_policy([1e6, 1.0], [1e6, 1.0], panels=1), "panels: expected more"),
    ],
)
def test_errors_are_one_clear_line(call, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------- files


@pytest.fixture
def write(tmp_path):
    def to(text: str | bytes, name: str = "log.csv"):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return to


def as_csv(log: data.Log) -> str:
    stream = io.StringIO()
    rows = csv.writer(stream)
    rows.writerow(HEADER.split(","))
    for x, y, r, p in zip(log.contexts, log.arms, log.rewards, log.propensities, strict=True):
        rows.writerow([log.context_labels[x], log.arm_labels[y], repr(float(r)), repr(float(p))])
    return stream.getvalue()


def assert_same_log(one: data.Log, other: data.Log) -> None:
    assert (one.context_labels, one.arm_labels) == (other.context_labels, other.arm_labels)
    for name in ("contexts", "arms", "rewards", "propensities"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def assert_same_counts(one: data.Counts, other: data.Counts) -> None:
    assert (one.context_labels, one.arm_labels) == (other.context_labels, other.arm_labels)
    for name in SUMS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("prefix", ["", "\ufeff"], ids=["plain", "with a byte-order mark"])
def test_csv_gives_the_log_back(write, prefix):
    log = a_log()
    assert_same_log(data.read_csv(write(prefix + as_csv(log)), **COLUMNS), log)


@pytest.mark.parametrize("chunksize", [1, 7, 300, 10_000])
def test_streaming_is_reading_to_the_last_bit(write, chunksize):
    path = write(as_csv(a_log()))
    streamed = data.count_csv(path, **COLUMNS, chunksize=chunksize)
    assert_same_counts(streamed, data.read_csv(path, **COLUMNS).counts())


def test_labels_are_sorted_as_numbers_or_as_text(write):
    text = "item,click\n9,0\n10,1\n-2,0\n"
    log = data.read_csv(write(text), arm="item", reward="click")
    assert log.arm_labels == (-2, 9, 10)
    assert log.arms.tolist() == [1, 2, 0]
    mixed = data.read_csv(write(text + "007,0\n"), arm="item", reward="click")
    assert mixed.arm_labels == ("-2", "007", "10", "9")
    assert mixed.counts().reward.tolist() == [[0.0, 0.0, 1.0, 0.0]]


def test_given_arms_keep_their_order_and_those_not_logged(write):
    path = write("item,click\nb,1\na,0\n")
    log = data.read_csv(path, arm="item", reward="click", arms=["c", "b", "a"])
    assert log.arm_labels == ("c", "b", "a")
    assert log.arms.tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"row 2, column 'item': expected one of the given arms"):
        data.read_csv(path, arm="item", reward="click", arms=["b", "c"])


def test_other_delimiters_quotes_blank_lines_and_unused_columns(write):
    path = write('note;item;click\n"a;\nb";x;1\n\n"";"y ""z""";0\n')
    log = data.read_csv(path, arm="item", reward="click", delimiter=";")
    assert log.arm_labels == ("x", 'y "z"')
    assert len(log) == 2


GOOD = "1,3,0,0.5"
BAD = {
    "1,3,0,": ("row 2, column 'p': expected a probability in (0, 1]", "p: missing"),
    "1,3,0,-0.1": ("row 2, column 'p': expected a probability", "p: not in (0, 1]"),
    "1,3,0,0": ("got '0'", "p: not in (0, 1]"),
    "1,3,0,1.01": ("got '1.01'", "p: not in (0, 1]"),
    "1,3,0,1e-60": ("at least 1e-50, got '1e-60'", "p: not in (0, 1]"),
    "1,3,0,half": ("row 2, column 'p': expected a probability", "p: not a number"),
    "1,3,0,nan": ("got 'nan'", "p: not a number"),
    "1,3,yes,0.5": ("row 2, column 'click': expected a finite number", "click: not a number"),
    "1,3,1_0,0.5": ("got '1_0'", "click: not a number"),
    "1,3,1e999,0.5": ("got '1e999'", "click: not a number"),
    "1,3,1e60,0.5": ("at most 1e+50 in size, got '1e60'", "click: too large"),
    "1,3, ,0.5": ("column 'click': expected a finite number", "click: missing"),
    "1,,0,0.5": ("row 2, column 'item': expected one of the given arms", "item: missing"),
    "1,8,0,0.5": ("row 2, column 'item': expected one of the given arms", "item: unknown arm"),
    "1, 3,0,0.5": ("column 'item': expected one of the given arms, got ' 3'", "item: unknown arm"),
    ",3,0,0.5": ("column 'position': expected a context, got nothing", "position: missing"),
    "1,3,0": ("row 2: expected 4 fields, got 3", "wrong number of fields"),
    "1,3,0,0.5,9": ("row 2: expected 4 fields, got 5", "wrong number of fields"),
}


@pytest.mark.parametrize("row", BAD)
@pytest.mark.parametrize("chunksize", [1, 100])
def test_bad_rows_are_named_or_dropped_and_counted(write, row, chunksize):
    path = write(f"{HEADER}\n{GOOD}\n{row}\n{GOOD}\n")
    message, reason = BAD[row]
    with pytest.raises(ValueError, match=r"^log.csv: ") as caught:
        data.count_csv(path, **COLUMNS, arms=[3, 4], chunksize=chunksize)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.warns(data.BadRowsWarning, match="dropped 1 of 3 rows") as warned:
        log = data.read_csv(path, **COLUMNS, arms=[3, 4], on_bad="drop")
    assert warned[0].filename == __file__
    assert log.dropped == {reason: 1}
    assert len(log) == 2


def test_all_kinds_of_bad_rows_are_counted_each_once(write):
    path = write("\n".join([HEADER, GOOD, *BAD, ",,,"]))
    expected = Counter(reason for _, reason in BAD.values()) + Counter(["position: missing"])
    for chunksize in (3, 100):
        with pytest.warns(data.BadRowsWarning, match=f"dropped {len(BAD) + 1} of {len(BAD) + 2}"):
            counts = data.count_csv(path, **COLUMNS, arms=[3], on_bad="drop", chunksize=chunksize)
        assert counts.dropped == expected
        assert len(counts) == 1
    with pytest.raises(ValueError, match=r"expected rows, got 1, all of them bad \(1 p: missing\)"):
        data.read_csv(write(f"{HEADER}\n1,3,0,\n"), **COLUMNS, on_bad="drop")


def test_labels_of_dropped_rows_are_not_arms(write):
    path = write(f"{HEADER}\n{GOOD}\n2,7,x,0.5\n")
    with pytest.warns(data.BadRowsWarning, match="1 click: not a number"):
        log = data.read_csv(path, **COLUMNS, on_bad="drop")
    assert (log.context_labels, log.arm_labels) == ((1,), (3,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "log.csv: expected a header and rows, got an empty file"),
        (HEADER, "log.csv: expected rows, got none"),
        (f"position,item,click,q\n{GOOD}", "propensity: expected a column of log.csv .* got 'p'"),
        (f"position,item,click,p,p\n{GOOD},1", "log.csv: expected one column 'p' in the header"),
        (f"{HEADER}\n{GOOD}\n1,3,0,\xff".encode("latin-1"), "expected UTF-8 text, got byte 0xff"),
        (f'{HEADER}\n{GOOD}\n1,"3,0,0.5\n', "log.csv: expected CSV, got at line 3"),
        (f"{HEADER}\n{GOOD}\n1,{'3' * 200_000},0,0.5", "log.csv: expected CSV, .* field limit"),
        ("\x00\x01\x02" * 100, "context: expected a column of log.csv"),
        (f"{HEADER}\n{GOOD}\n1,3,\x00,0.5\n", "row 2, column 'click': expected a finite number"),
        ("\ufeff".encode() * 2 + HEADER.encode(), "context: expected a column of log.csv"),
        (f"{HEADER}\n{GOOD}\n".encode("utf-16"), "expected UTF-8 text, got byte 0xff after row 0"),
        (f"{HEADER}\n1,3,{'9' * 5000},0.5\n", "column 'click': expected a finite number"),
        (f"{HEADER}\n{GOOD}\n1,3,0\n", "row 2: expected 4 fields, got 3"),
        (f"{HEADER}\r{GOOD}\r1,3,0,1.5\r", "row 2, column 'p': .* got '1.5'"),
        (gzip.compress(HEADER.encode())[:-9], "expected a whole gzip file, got: Compressed file"),
        (b"\x1f\x8b\x07" + b"x" * 50, "expected a whole gzip file, got: Unknown compression"),
        (b"PK\x03\x04\x14\x00\xff\xff", "expected UTF-8 text, got a zip file or a spreadsheet"),
        (b"PAR1\x15\x04\x15\xff", "expected UTF-8 text, got a Parquet file"),
    ],
    ids="empty header column twice bytes quote huge binary nul boms utf-16 digits ragged returns "
    "gzip deflate zip parquet".split(),
)
def test_broken_files_are_one_clear_line(write, text, message):
    for read in (data.read_csv, data.count_csv):
        with pytest.raises(ValueError, match=message) as caught:
            read(write(text), **COLUMNS)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("read", [data.read_csv, data.count_csv])
def test_files_are_closed_when_a_row_is_bad(write, read, monkeypatch):
    streams, opened = [], Path.open

    def watched(*args, **kwargs):
        streams.append(opened(*args, **kwargs))
        return streams[-1]

    path = write(f"{HEADER}\n{GOOD}\n1,3,0,-1\n")
    monkeypatch.setattr(Path, "open", watched)
    with pytest.raises(ValueError, match="row 2") as caught:
        read(path, **COLUMNS)
    # While the error, and with it every frame, is still held.
    assert caught.value is not None
    assert [stream.closed for stream in streams] == [True]


def test_arguments_are_checked(write):
    path = write(f"{HEADER}\n{GOOD}\n")
    for extra, message in (
        ({"on_bad": "skip"}, "on_bad: expected one of error, drop"),
        ({"arms": "34"}, "arms: expected a sequence"),
        ({"arms": [3, "3"]}, "arms: expected different arms"),
        ({"arms": []}, "arms: expected different arms, and some"),
        ({"delimiter": ";;"}, "delimiter: expected one character"),
        ({"arm": 3}, "arm: expected the name of a column, got 3"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            data.read_csv(path, **{**COLUMNS, **extra})
    with pytest.raises(ValueError, match="chunksize: expected a positive integer"):
        data.count_csv(path, **COLUMNS, chunksize=0)
    readers = (data.read_csv, data.count_csv, data.read_parquet, data.count_parquet)
    for read in readers:
        with pytest.raises(FileNotFoundError):
            read(path.with_name("none.csv"), **COLUMNS)
        with pytest.raises(OSError, match=r"directory|denied"):
            read(path.parent, **COLUMNS)


FIELD = st.one_of(
    st.sampled_from(["1", "0.5", "", "nan", "-1", "x", '"', "1,1", "\n", "é", "\x00", "1e400"]),
    st.text(max_size=4),
)
MESSY = st.one_of(
    st.binary(max_size=80),
    st.lists(st.lists(FIELD, min_size=3, max_size=5).map(",".join), max_size=6).map(
        lambda rows: "\n".join([HEADER, *rows]).encode("utf-8", "surrogatepass")
    ),
)


@given(content=MESSY, on_bad=st.sampled_from(["error", "drop"]))
def test_any_bytes_are_a_log_or_one_clear_line(tmp_path_factory, content, on_bad):
    path = tmp_path_factory.mktemp("fuzz") / "log.csv"
    path.write_bytes(content)
    results, errors = [], []
    for read, extra in ((data.read_csv, {}), (data.count_csv, {"chunksize": 2})):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", data.BadRowsWarning)
            try:
                found = read(path, **COLUMNS, on_bad=on_bad, **extra)
            except ValueError as error:
                errors.append(error)
                results.append(None)
            else:
                results.append(found.counts() if isinstance(found, data.Log) else found)
    for error in errors:
        assert type(error) is ValueError
        assert len(str(error).splitlines()) == 1
        assert "log.csv" in str(error)
    assert (results[0] is None) == (results[1] is None)
    if results[0] is not None and results[1] is not None:
        assert_same_counts(*results)
        assert results[0].dropped == results[1].dropped


# --------------------------------------------------------------------------------- Parquet


@pytest.fixture
def parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet as pq

    def to(columns: dict):
        path = tmp_path / "log.parquet"
        pq.write_table(pa.table(columns), path, row_group_size=50)
        return path

    return to


def columns_of(log: data.Log) -> dict:
    frame = log.to_dataframe()
    return dict(zip(HEADER.split(","), (frame[name].tolist() for name in frame), strict=True))


def test_parquet_gives_the_log_back_and_streams(parquet):
    log = a_log()
    path = parquet(columns_of(log))
    assert_same_log(data.read_parquet(path, **COLUMNS), log)
    for chunksize in (7, 10_000):
        assert_same_counts(data.count_parquet(path, **COLUMNS, chunksize=chunksize), log.counts())


@pytest.mark.parametrize(
    ("column", "value", "message", "reason"),
    [
        ("p", None, "row 61, column 'p': expected a probability .* got nothing", "p: missing"),
        ("p", 0.0, "row 61, column 'p': .* got '0.0'", "p: not in"),
        ("p", float("nan"), "row 61, column 'p': .* got 'nan'", "p: not a number"),
        ("item", None, "row 61, column 'item': expected an arm, got nothing", "item: missing"),
        ("click", float("inf"), "row 61, column 'click': .* got 'inf'", "click: not a number"),
    ],
)
def test_parquet_names_and_drops_bad_rows(parquet, column, value, message, reason):
    columns = columns_of(a_log())
    columns[column][60] = value
    path = parquet(columns)
    with pytest.raises(ValueError, match=message):
        data.read_parquet(path, **COLUMNS)
    with pytest.warns(data.BadRowsWarning, match=f"dropped 1 of 300 rows.*{reason}"):
        assert len(data.count_parquet(path, **COLUMNS, on_bad="drop")) == 299


def test_parquet_takes_booleans_and_text(parquet):
    path = parquet({"item": ["b", "a"], "click": [True, False], "p": ["0.5", "0.25"]})
    log = data.read_parquet(path, arm="item", reward="click", propensity="p")
    assert log.rewards.tolist() == [1.0, 0.0]
    assert log.propensities.tolist() == [0.5, 0.25]


def test_damaged_parquet_is_a_log_or_one_clear_line(parquet):
    """Cut short anywhere, or with any byte changed: what comes of it is never another error."""
    path = parquet({name: values[:3] for name, values in columns_of(a_log(3)).items()})
    whole, step = path.read_bytes(), 11
    versions = [whole[:size] for size in range(0, len(whole), step)]
    versions += [
        whole[:at] + bytes([byte]) + whole[at + 1 :]
        for at in range(0, len(whole), step)
        for byte in (0x00, 0x80, 0xFF, whole[at] ^ 1)
    ]
    errors = []
    for content in versions:
        path.write_bytes(content)
        for read in (data.read_parquet, data.count_parquet):
            try:
                assert len(read(path, **COLUMNS)) > 0
            except ValueError as error:
                errors.append(error)
    assert len(versions) < len(errors) < 2 * len(versions)
    for error in errors:
        assert type(error) is ValueError
        assert len(str(error).splitlines()) == 1
        assert "log.parquet" in str(error)


ODD = {
    "lists": ("item", [[1], [2]], None, r"numbers, text or days in column 'item', got list<"),
    "structs": (
        "item",
        [{"a": 1}, {"a": 2}],
        None,
        "text or days in column 'item', got struct",
    ),
    "bytes": ("item", [b"a", b"b"], None, "numbers, text or days in column 'item', got bin"),
    "times": ("click", [0, 1], "timestamp[us]", "numbers or text in column 'click', got timestamp"),
    "nothing": ("click", [None, None], None, "row 1, column 'click': expected .* got nothing"),
    "a gap": ("click", [1, None], None, "row 2, column 'click': expected .* got nothing"),
    "a word": ("p", ["0.5", "half"], None, "row 2, column 'p': expected a probability"),
}


@pytest.mark.parametrize("kind", ODD)
def test_parquet_types_that_hold_no_labels_or_numbers(parquet, kind):
    pa = pytest.importorskip("pyarrow")
    column, values, of_type, message = ODD[kind]
    columns = {"item": ["a", "b"], "click": [0.0, 1.0], "p": [0.5, 0.25]}
    columns[column] = pa.array(values, of_type and pa.type_for_alias(of_type))
    path = parquet(columns)
    for read in (data.read_parquet, data.count_parquet):
        with pytest.raises(ValueError, match=rf"^log\.parquet: .*{message}") as caught:
            read(path, arm="item", reward="click", propensity="p")
        assert "\n" not in str(caught.value)


def test_parquet_types_that_do(parquet):
    pa = pytest.importorskip("pyarrow")
    names = pa.array(["a", "b"])
    for arms in (names.dictionary_encode(), names.cast("large_string"), names.cast("string_view")):
        for clicks in (pa.array([0, 1]), pa.array([0, 1], pa.float16()), pa.array(["0", "1"])):
            path = parquet({"item": arms, "click": clicks.dictionary_encode(), "n": clicks})
            for reward in ("click", "n"):
                log = data.read_parquet(path, arm="item", reward=reward)
                assert log.arm_labels == ("a", "b")
                assert log.rewards.tolist() == [0.0, 1.0]


def test_parquet_columns_twice_and_with_dots(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet as pq

    path = tmp_path / "log.parquet"
    pq.write_table(pa.table([["a"], [1.0], [2.0]], names=["item", "click", "click"]), path)
    with pytest.raises(ValueError, match="expected one column 'click' in the header, got 2"):
        data.read_parquet(path, arm="item", reward="click")
    pq.write_table(pa.table({"item": ["a"], "item.id": ["b"], "click": [1.0]}), path)
    assert data.read_parquet(path, arm="item.id", reward="click").arm_labels == ("b",)
    assert data.read_parquet(path, arm="item", reward="click").arm_labels == ("a",)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"x" * 100 + b"PAR1", b"a,b\n1,2\n"])
def test_what_is_not_parquet_is_one_clear_line(write, content):
    pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match=r"log.csv: expected a Parquet file") as caught:
        data.read_parquet(write(content), **COLUMNS)
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------- shipped tables

CLICKS = {"all": (38, 42), "men": (46, 69), "women": (46, 46)}
ITEMS = {"all": 80, "men": 34, "women": 46}


@pytest.mark.parametrize("campaign", CLICKS)
def test_open_bandit_has_its_totals(campaign):
    for policy, clicks in zip(("random", "bts"), CLICKS[campaign], strict=True):
        counts = data.open_bandit(campaign, policy)
        assert len(counts) == 10_000
        assert counts.reward.sum() == clicks
        assert counts.shape == (3, ITEMS[campaign])
        assert counts.context_labels == (1, 2, 3)
        assert counts.arm_labels == data.items(campaign).labels
    random = data.open_bandit(campaign, "random")
    np.testing.assert_allclose(random.inverse, random.n * ITEMS[campaign], rtol=1e-9)


def test_damaged_tables_are_noticed(monkeypatch):
    from bandit.data import examples

    rows = examples._table("obd_counts_ext.csv")
    rows[0]["clicks"] = "1"
    monkeypatch.setattr(examples, "_table", lambda name: rows)
    with pytest.raises(RuntimeError, match="expected 10000 rows and 38 clicks for all/random"):
        data.open_bandit("all", "random")


def test_the_smallest_propensity_is_a_millionth():
    counts = data.open_bandit("women", "bts")
    assert counts.largest_inverse.max() == pytest.approx(1e6, rel=1e-4)


def test_production_prior_has_its_totals():
    alpha, beta = data.production_prior("all")
    assert alpha.sum() == 6758
    assert (alpha + beta).sum() == 1_593_068
    assert data.items("all").number.shape == (80,)
    assert data.items("women").categories.shape == (46, 3)


def test_the_cycle_of_rock_paper_scissors():
    found = data.rock_paper_scissors()
    at = {name: i for i, name in enumerate(found.names)}

    def between(first: str, second: str) -> tuple[float, float, float]:
        i, j = at[first], at[second]
        ties = found.ties[i, j]
        return found.wins[i, j] - ties / 2, found.wins[j, i] - ties / 2, ties

    assert between("halbot", "russrocker4") == (300, 0, 0)
    assert between("russrocker4", "mod1bot") == (189, 107, 4)
    assert between("mod1bot", "halbot") == (232, 65, 3)
    p = found.preference
    np.testing.assert_allclose(p + p.T, 1.0)
    assert p[at["mod1bot"], at["halbot"]] == pytest.approx(233.5 / 300)
    # No Condorcet winner: everyone loses to someone.
    assert ((p - np.eye(6)) < 0.5).any(axis=1).all()
    off = ~np.eye(6, dtype=bool)
    assert ((found.wins + found.wins.T)[off] == 300).all()
    score = np.zeros(6)  # Bradley–Terry by Zermelo's fixed point
    for _ in range(2000):
        strength = np.exp(score)
        meets = 300 / (strength[:, None] + strength[None, :]) * off
        score = np.log(found.wins.sum(axis=1) / meets.sum(axis=1))
        score -= score.mean()
    assert found.names[int(score.argmax())] == "halbot"


def test_the_license_travels_with_the_tables():
    text = resources.files("bandit.data").joinpath("DATA_LICENSE").read_text(encoding="utf-8")
    for part in (
        "Copyright 2020 Yuta Saito, Yusuke Narita and ZOZO Technologies, Inc.",
        "Derived: aggregated, user columns dropped",
        "arXiv:2008.07146",
        "Apache License",
        "END OF TERMS AND CONDITIONS",
    ):
        assert part in text


# ------------------------------------------------------------------------------- simulations


def test_thompson_policy_is_what_sampling_does():
    """200,000 draws of the top two of five: every share within five standard errors."""
    alpha, beta = np.array([2.0, 5.0, 1.0, 8.0, 3.0]), np.array([9.0, 20.0, 1.5, 40.0, 11.0])
    draws = np.random.default_rng(0).beta(alpha, beta, size=(200_000, 5))
    for slots in (1, 2):
        shown = np.argsort(-draws, axis=1)[:, :slots]
        share = np.bincount(shown.ravel(), minlength=5) / shown.size
        exact = data.thompson_policy(alpha, beta, slots=slots)
        assert (np.abs(share - exact) < 5 * np.sqrt(exact / 200_000)).all()
    np.testing.assert_allclose(data.thompson_policy(alpha, beta, slots=5), np.full(5, 0.2))
    # Two arms: P(Beta(a, 1) > Beta(b, 1)) = a/(a+b).
    np.testing.assert_allclose(data.thompson_policy([3, 1], [1, 1]), [0.75, 0.25], rtol=1e-12)


def test_semi_synthetic_clicks_come_from_their_truth():
    """20,000 rows: total clicks and every arm's share within five standard errors."""
    found = data.semi_synthetic("men", 20_000, 3)
    alpha, beta = data.production_prior("men")
    np.testing.assert_allclose(found.reward, alpha / (alpha + beta))
    mean = float(found.behavior @ found.reward)
    assert abs(found.log.rewards.mean() - mean) < 5 * np.sqrt(mean / 20_000)
    share = np.bincount(found.log.arms, minlength=34) / 20_000
    assert (np.abs(share - found.behavior) < 5 * np.sqrt(found.behavior / 20_000)).all()
    np.testing.assert_array_equal(found.log.propensities, found.behavior[found.log.arms])
    again, other = data.semi_synthetic("men", 50, 3), data.semi_synthetic("men", 50, 4)
    assert_same_log(again.log, data.semi_synthetic("men", 50, 3).log)
    assert (again.log.arms != other.log.arms).any()


def test_the_thompson_logger_is_worth_what_it_was():
    found = data.semi_synthetic("all", 1, 0)
    assert found.behavior @ found.reward == pytest.approx(4.34e-3, abs=0.01e-3)


def test_simulations_are_problems():
    found = data.semi_synthetic("men", 10, 0)
    problem = found.problem(0.01)
    solution = analysis.solve(problem, losses.copg, pairs.independent(found.behavior))
    np.testing.assert_allclose(solution.policy, problem.optimal_policy(), atol=1e-8)


def test_digits_are_pairs_of_answers_with_their_truth():
    pytest.importorskip("sklearn")
    behavior = np.array([0.3, 0.2, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05])
    found = data.digits(4000, 0, behavior)
    log = found.log
    assert len(log) == 8000
    np.testing.assert_array_equal(log.contexts[::2], log.contexts[1::2])
    np.testing.assert_array_equal(log.rewards, found.digit[log.contexts] == log.arms)
    np.testing.assert_array_equal(log.propensities, behavior[log.arms])
    assert set(log.contexts.tolist()) <= set(found.train.tolist())
    assert not set(found.train.tolist()) & set(found.test.tolist())
    assert found.train.size + found.test.size == 1797
    assert found.features.shape == (1797, 64)
    assert (found.features.min(), found.features.max()) == (0.0, 1.0)
    # Every arm's share within five standard errors.
    share = np.bincount(log.arms) / 8000
    assert (np.abs(share - behavior) < 5 * np.sqrt(behavior / 8000)).all()
    assert found.accuracy(found.reward) == 1.0
    assert found.accuracy(found.behavior, found.train[:1]) == behavior[found.digit[0]]
    assert_same_log(data.digits(9, 1).log, data.digits(9, 1).log)
    with pytest.raises(ValueError, match="behavior: expected shape"):
        data.digits(9, 1, [0.5, 0.5])
    with pytest.raises(TypeError, match="rng: expected a seed, SeedSequence or Generator"):
        data.digits(9, None)
