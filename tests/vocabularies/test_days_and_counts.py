"""What is said of days and counts by mistake, or in other types than Python's own."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
import torch

import torch_warmstart as tws

DAY = 20_001
COUNTS = {"b": 1, "c": 2}


@pytest.fixture
def monday():
    return tws.update_vocabulary(["a", "b"], COUNTS, today=DAY)


def test_days_go_forward(monday, tmp_path):
    """Else what was seen since would go too soon, as if it had not been."""
    told = "today is 2024-10-04, but .* were seen on 2024-10-05: days go forward"
    with pytest.raises(tws.SettingsError, match=told):
        tws.update_vocabulary(monday, COUNTS, today=DAY - 1)
    monday.save(tmp_path / "monday.voc")
    with pytest.raises(tws.SettingsError, match="monday.voc has entries that were seen on"):
        tws.update_vocabulary(tmp_path / "monday.voc", COUNTS, today=0)
    twice = tws.update_vocabulary(monday, COUNTS, today=DAY, expire_after=0)
    assert twice.usage.counts.tolist() == [0, 2, 4]
    assert twice.usage.last_seen.tolist() == [DAY] * 3


@pytest.mark.parametrize(
    "wrong",
    [
        20241005,
        1_728_000_000,
        -1,
        True,
        1.0,
        "5.10.2024",
        "1969-12-31",
        datetime.date(1969, 12, 31),
        np.datetime64("NaT"),
        np.datetime64("1969-12-31"),
    ],
    ids=str,
)
def test_what_is_no_day_is_refused(monday, wrong):
    with pytest.raises(tws.SettingsError, match="today is a datetime.date from 1970 on"):
        tws.update_vocabulary(monday, COUNTS, today=wrong)


def test_a_day_may_be_text():
    text, day = "2024-10-05", datetime.date(2024, 10, 5)
    told, same = (tws.update_vocabulary(["a"], {"b": 3}, today=each).usage for each in (text, day))
    assert told.last_seen.tolist() == same.last_seen.tolist()


def test_the_nat_of_pandas_is_no_day(monday):
    pandas = pytest.importorskip("pandas")
    with pytest.raises(tws.SettingsError, match="today is a datetime.date"):
        tws.update_vocabulary(monday, COUNTS, today=pandas.NaT)


@pytest.mark.parametrize(
    "same",
    [
        np.int64(DAY),
        np.datetime64("2024-10-05"),
        np.datetime64("2024-10-05T23:59:59"),
        datetime.datetime(2024, 10, 5, 23, tzinfo=datetime.timezone(datetime.timedelta(hours=9))),
    ],
    ids=str,
)
def test_a_day_is_what_says_it(monday, same):
    later = tws.update_vocabulary(
        monday, COUNTS, today=same, min_count=np.int64(1), max_size=np.int64(3)
    )
    assert later.usage.last_seen.tolist() == [DAY] * 3


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"a": 1.0}, "whole numbers, not float64: make integers of them first"),
        ({"a": float("nan")}, "whole numbers, not float64"),
        ({"b": 2, "a": -1}, r"are negative for 1 entry, such as 'a' \(entry 2\): count again"),
        ({"a": True}, "whole numbers, not bool"),
        ({"a": 1, None: 5}, "entry None"),
        ((["a", "b"], [1]), "2 entries, but 1 counts"),
        ("no-such-file.csv", "counts at no-such-file.csv cannot be read"),
    ],
    ids=str,
)
def test_what_counts_nothing_is_refused(monday, counts, told):
    with pytest.raises(tws.VocabularyError, match=told):
        tws.update_vocabulary(monday, counts, today=DAY)


def test_counts_that_pandas_made_floats_of_are_told(monday):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"entry": ["a", "b"], "count": [1, None]})
    with pytest.raises(tws.VocabularyError, match=r"'count' of .* fillna\(0\).astype"):
        tws.update_vocabulary(monday, frame, today=DAY)
    whole = frame.fillna(0).astype({"count": "int64"})
    assert tws.update_vocabulary(monday, whole, today=DAY).usage.counts.tolist() == [1, 1, 2]


@pytest.mark.parametrize("entry", ["a", 7])
def test_an_updated_vocabulary_is_called_what_it_is(tmp_path, entry):
    path = tmp_path / "old.parquet"
    tws.update_vocabulary([entry], ([entry], [1]), today=DAY).save(path)
    updated = tws.Vocabulary.load(path)
    for night in range(2):
        updated = tws.update_vocabulary(updated, ([entry], [1]), today=DAY + night)
        assert updated.origin == f"{path}, updated"
    with pytest.raises(tws.SettingsError, match="old.parquet, updated has entries that were seen"):
        tws.update_vocabulary(updated, ([entry], [1]), today=DAY)


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ((["a", "b"], np.ma.array([1, 99], mask=[0, 1])), "Some counts are missing"),
        ((["a", "b"], torch.tensor([1.0, 2.0], requires_grad=True)), "numbers, not float32"),
        ((["a", "b"], [[1], [1, 2]]), "Counts are a number for each entry"),
        (([], [1]), "a pair of no entries and of numbers"),
        ({"a": 1 << 70}, "A count of the numbers is more than"),
    ],
    ids=["masked", "grad", "ragged", "no entries", "huge"],
)
def test_numbers_that_are_no_counts_are_refused(monday, counts, told):
    with pytest.raises(tws.VocabularyError, match=told):
        tws.update_vocabulary(monday, counts, today=DAY)


@pytest.mark.parametrize("pair", [False, True], ids=["mapping", "pair"])
def test_counts_of_several_widths_are_whole(monday, pair):
    """Numpy makes floating numbers of them, which hold fewer digits."""
    counts = {"a": np.int8(3), "z": np.uint64((1 << 43) + 1)}
    given = (list(counts), list(counts.values())) if pair else counts
    updated = tws.update_vocabulary(monday, given, today=DAY)
    assert updated.usage.counts.tolist() == [3, 1, 2, (1 << 43) + 1]


def test_a_count_without_a_sign_is_not_one_below_zero(monday):
    arrow = pytest.importorskip("pyarrow")
    huge = arrow.array([1, (1 << 64) - 1], arrow.uint64())
    with pytest.raises(tws.VocabularyError, match="which nobody has counted"):
        tws.update_vocabulary(monday, arrow.table({"entry": ["a", "b"], "count": huge}), today=DAY)


def test_counts_that_can_be_read_once_are_refused(monday):
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"entry": ["a"], "count": [1]})
    with pytest.raises(tws.SettingsError, match="which can be read once: pass its table"):
        tws.update_vocabulary(monday, table.to_reader(), today=DAY)
