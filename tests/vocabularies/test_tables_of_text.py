"""Tables of text: rows longer than pyarrow's blocks, ids in their cells, files called alike."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import torch_warmstart as tws
from torch_warmstart.vocabularies import by_pyarrow

pyarrow = pytest.importorskip("pyarrow")

LONG = "x" * (3 << 20)
SEPARATORS = pytest.mark.parametrize(("ending", "separator"), [("csv", ","), ("tsv", "\t")])


def written(path, text):
    path.write_bytes(text.encode())
    return str(path)


@SEPARATORS
def test_an_entry_longer_than_a_block_is_read(tmp_path, ending, separator):
    rows = [("entry", "count"), ("a", 3), (LONG, 5), ("b", 1)]
    path = written(tmp_path / f"c.{ending}", "".join(f"{e}{separator}{c}\n" for e, c in rows))
    updated = tws.update_vocabulary(["a"], path, today=20_000)
    assert [len(entry) for entry in updated.entries] == [1, len(LONG), 1]
    assert updated.usage.counts.tolist() == [3, 5, 1]
    assert len(tws.Vocabulary.load(path, column="entry")) == 3
    updated.save(tmp_path / f"v.{ending}")
    again = tws.Vocabulary.load(tmp_path / f"v.{ending}")
    assert again.fingerprint == updated.fingerprint


def test_a_line_of_json_longer_than_a_block_is_read(tmp_path):
    path = written(tmp_path / "c.jsonl", f'{{"t": "a"}}\n{{"t": "{LONG}"}}\n')
    assert len(tws.Vocabulary.load(path, column="t")) == 2


@SEPARATORS
def test_a_line_that_no_table_has_is_refused_in_our_words(tmp_path, ending, separator, monkeypatch):
    monkeypatch.setattr(by_pyarrow, "_MOST", 1 << 20)
    path = written(tmp_path / f"c.{ending}", f"entry{separator}count\n{LONG}{separator}5\n")
    said = "a line of it has 3,145,7.. bytes, and a row of a table at most 1,048,576"
    for read in (
        lambda: tws.update_vocabulary(["a"], path, today=20_000),
        lambda: tws.Vocabulary.load(path, column="entry"),
    ):
        with pytest.raises(tws.VocabularyError, match=said):
            read()


def test_a_row_of_many_lines_longer_than_a_block_is_refused_in_our_words(tmp_path):
    row = "x\n" * (2 << 20)
    path = written(tmp_path / "c.csv", f'entry,count\n"{row}",5\n')
    with pytest.raises(tws.VocabularyError, match="a row of it goes over many lines"):
        tws.update_vocabulary(["a"], path, today=20_000)


@pytest.mark.parametrize("lines", [[], [5], [0, 0], [1 << 20, 3], [3, 1 << 20, (1 << 22) + 1, 7]])
@pytest.mark.parametrize("ends", [True, False])
def test_blocks_are_as_long_as_the_longest_line(lines, ends):
    text = "\n".join("a" * length for length in lines) + "\n" * ends
    raw = np.frombuffer(text.encode(), dtype=np.uint8)
    longest = max(lines, default=0)
    assert longest < by_pyarrow.block_size_of(raw) <= max(1 << 20, longest + 2)


def test_lines_may_end_as_they_did_on_a_macintosh(tmp_path, monkeypatch):
    monkeypatch.setattr(by_pyarrow, "_MOST", 50)
    path = written(tmp_path / "c.csv", "entry,count\r" + "a,1\rb,2\r" * 20)
    assert tws.update_vocabulary(["a"], path, today=20_000).usage.counts.tolist() == [20, 40]


@SEPARATORS
def test_cells_are_ids_where_the_vocabulary_has_ids(tmp_path, ending, separator):
    rows = [("entry", "count"), (7, 3), (-9, 2), (7, 1)]
    path = written(tmp_path / f"c.{ending}", "".join(f"{e}{separator}{c}\n" for e, c in rows))
    updated = tws.update_vocabulary(torch.tensor([4, 7]), path, today=20_000)
    assert list(updated.entries) == [4, 7, -9]
    assert updated.usage.counts.tolist() == [0, 4, 2]
    found = tws.diff_vocabularies(torch.tensor([4, 7]), updated, counts=path)
    assert found.weights["kept"] == 4
    as_text = tws.update_vocabulary(["4", "7"], path, today=20_000)
    assert list(as_text.entries) == [b"4", b"7", b"-9"]


def test_ids_without_a_sign_are_read_as_such(tmp_path):
    path = written(tmp_path / "c.csv", f"entry,count\n7,3\n{2**64 - 1},2\n")
    old = np.array([2**63 + 5], dtype=np.uint64)
    updated = tws.update_vocabulary(old, path, today=20_000)
    assert list(updated.entries) == [2**63 + 5, 7, 2**64 - 1]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("abc", "its entries are to be integers, as those of the int64 array.*invalid value 'abc'"),
        ("1.5", "its entries are to be integers"),
        (str(2**64), "its entries are to be integers"),
        ("", "row 2 has a count, but its entry is blank"),
    ],
)
def test_what_is_no_id_is_refused(tmp_path, cell, said):
    path = written(tmp_path / "c.csv", f"entry,count\n7,3\n{cell},2\n")
    with pytest.raises(tws.VocabularyError, match=said):
        tws.update_vocabulary(np.array([4, 7]), path, today=20_000)


def test_a_saved_vocabulary_that_is_called_csv_is_what_it_is(tmp_path):
    tws.update_vocabulary(["a"], {"b": 2}, today=20_000).save(tmp_path / "v.csv")
    updated = tws.update_vocabulary(["b"], str(tmp_path / "v.csv"), today=20_001)
    assert updated.usage.counts.tolist() == [2]


def test_without_pyarrow_it_is_said_what_to_install_and_what_goes_without(tmp_path, monkeypatch):
    path = written(tmp_path / "c.csv", "entry,count\n7,3\n")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(tws.MissingDependencyError, match=r"torch-warmstart\[arrow\]'.*a pair of"):
        tws.update_vocabulary(np.array([4, 7]), path, today=20_000)
    table = np.loadtxt(path, dtype=np.int64, delimiter=",", skiprows=1, ndmin=2)
    updated = tws.update_vocabulary(np.array([4, 7]), (table[:, 0], table[:, 1]), today=20_000)
    assert updated.usage.counts.tolist() == [0, 3]
    with pytest.raises(tws.MissingDependencyError, match=r"torch-warmstart\[arrow\]"):
        tws.Vocabulary.load(path, column="entry")


@pytest.mark.parametrize(
    ("separator", "name"), [(";", "semicolons"), ("|", "bars"), ("\t", "tabs"), (",", "commas")]
)
@pytest.mark.parametrize("column", ["token", 0])
def test_cells_that_something_else_separates_are_no_one_column(tmp_path, separator, name, column):
    lines = [("token", "n"), ("a", 5), ("b", 3), ("c", 1)]
    text = "".join(f"{token}{separator}{count}\n" for token, count in lines)
    path = written(tmp_path / ("t.csv" if separator != "," else "t.tsv"), text)
    with pytest.raises(tws.VocabularyError, match=f"has {name} between its cells, and is to be"):
        tws.Vocabulary.load(path, column=column)


_LINES_OF_KEYS = {
    "one each": lambda n: b'{"k%d": 1}\n' % n,
    "colons": lambda n: b'{"a":"b",":%d": 1}\n' % n,
    "escaped": lambda n: b'{"%d\\"a": 1}\n' % n,
    "spaced": lambda n: b'{"k%d"  : 1}\n' % n,
    "nested": lambda n: b'{"%d":{"%d":{"%d": 1}}}\n' % (n % 27, n // 27 % 27, n // 729),
    "over lines": lambda n: b'{"%d":\n{"%d":\n{"%d": 1}}}\n' % (n % 27, n // 27 % 27, n // 729),
}


@pytest.mark.parametrize("make", _LINES_OF_KEYS.values(), ids=_LINES_OF_KEYS.keys())
def test_json_lines_with_a_key_each_are_refused_before_they_are_read(
    tmp_path: Path, make: Callable[[int], bytes]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(map(make, range(12_000))))
    held = pyarrow.total_allocated_bytes()
    before = pyarrow.default_memory_pool().max_memory()
    with pytest.raises(tws.VocabularyError, match="keys, which would be as many columns"):
        tws.Vocabulary.load(path, column="k3")
    assert pyarrow.default_memory_pool().max_memory() <= max(before, held + (64 << 20))


@pytest.mark.parametrize(
    "line",
    [
        '{"token": "t%d", "n": %d}\n',
        '{"token":"http://t%d:80","n":%d}\r\n',
        '{"token": "t%d\\"n\\":", "m": {"n": %d}}\n',
    ],
)
def test_json_lines_that_share_their_keys_are_many(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(line % (n, n * 7) for n in range(20_000)), newline="")
    assert len(tws.Vocabulary.load(path, column="token")) == 20_000


def test_of_counts_a_quoted_blank_is_the_empty_entry(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text('entry,count\n"",3\nNA,2\nb,1\n')
    updated = tws.update_vocabulary(["a"], path, today=20_000)
    assert list(updated.entries) == [b"a", b"", b"NA", b"b"]
    assert list(tws.Vocabulary.load(path, column="entry").entries) == [b"", b"NA", b"b"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("c.csv", 'entry,count\n"",3\n,2\n'), ("c.tsv", "entry\tcount\na\t3\n\t2\n")],
)
def test_of_counts_a_blank_entry_is_still_a_slip(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(tws.VocabularyError, match="row 2 has a count, but its entry is blank"):
        tws.update_vocabulary(["a"], tmp_path / name, today=20_000)
