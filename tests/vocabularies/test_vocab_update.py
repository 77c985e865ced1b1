"""`update_vocabulary` against a dict that is walked through, and its files."""

from __future__ import annotations

import datetime
import random
from dataclasses import replace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

import torch_warmstart as tws
from torch_warmstart.entries import PADDING

TODAY = 20_000


class Slow:
    """The same by a dict from entry to (row, count, last seen, born), entry by entry."""

    def __init__(self, entries, size):
        self.known = {entry: [row, 0, None, -1] for row, entry in enumerate(entries)}
        self.size = size

    def update(self, counts, *, min_count, expire_after, max_size, today):
        for entry, of in self.known.items():
            of[1] += counts.get(entry, 0)
            if counts.get(entry, 0) or of[2] is None:
                of[2] = today
        for entry in [e for e, of in self.known.items() if today - of[2] > expire_after]:
            del self.known[entry]
        new = [e for e, n in counts.items() if e not in self.known and n >= min_count]
        new.sort(key=lambda e: (-counts[e], e))
        ranked = sorted(
            [*((-of[2], -of[1], 0, of[0], e) for e, of in self.known.items())]
            + [(-today, -counts[e], 1, place, e) for place, e in enumerate(new)]
        )
        stay = {e for *_, e in ranked[:max_size]}
        self.known = {e: of for e, of in self.known.items() if e in stay}
        new = [e for e in new if e in stay]
        taken = {of[0] for of in self.known.values()}
        free = iter(row for row in range(self.size + len(new)) if row not in taken)
        for entry in new:
            self.known[entry] = [next(free), counts[entry], today, today]
        self.size = max(self.size, 1 + max(of[0] for of in self.known.values()))


def _as(kind, number):
    return number * 7919 - 50_000 if kind == "ids" else f"user/{number:06d}/ü".encode()


@pytest.mark.parametrize("kind", ["ids", "text"])
def test_days_of_updates_are_those_of_a_dict(kind):
    draw = random.Random(3)
    entries = [_as(kind, number) for number in range(150)]
    vocab, slow = tws.Vocabulary.load(entries), Slow(entries, 150)
    for day in range(12):
        numbers = [min(int(draw.paretovariate(0.6)), 500) + 9 * day for _ in range(600)]
        counts = {}
        for number in numbers:
            counts[_as(kind, number)] = counts.get(_as(kind, number), 0) + 1
        settings = {"min_count": 2, "expire_after": 3, "max_size": 160, "today": TODAY + day}
        vocab = tws.update_vocabulary(vocab, counts, **settings)
        slow.update(counts, **settings)
        assert len(vocab) == slow.size
        rows = vocab.entry_rows.tolist()
        found = {
            entry: [row, *numbers]
            for entry, row, *numbers in zip(
                vocab.listed.values(slice(None)),
                rows,
                vocab.usage.counts.tolist(),
                vocab.usage.last_seen.tolist(),
                vocab.usage.born.tolist(),
                strict=True,
            )
        }
        assert found == slow.known
        assert rows == sorted(rows)


def test_neither_the_order_of_counts_nor_their_form_matters():
    old = ["a", "b", "c"]
    counts = {"d": 2, "e": 2, "b": 1, "f": 3}
    expected = tws.update_vocabulary(old, counts, today=TODAY).entries
    assert list(expected) == [b"a", b"b", b"c", b"f", b"d", b"e"]
    backwards = dict(reversed(counts.items()))
    table = pyarrow.table({"entry": [*counts, None, "d"], "count": [1, 2, 1, 3, 9, 1]})
    for form in (backwards, (list(counts), np.array([*counts.values()])), table, table.to_pandas()):
        assert list(tws.update_vocabulary(old, form, today=TODAY).entries) == list(expected)


def test_counts_are_read_from_parquet_by_row_groups(tmp_path):
    table = pyarrow.table({"entry": [5, 6, 5, 7], "count": [1, 1, 4, 2], "more": list("abcd")})
    path = tmp_path / "counts.parquet"
    pyarrow.parquet.write_table(table, path, row_group_size=1)
    vocab = tws.update_vocabulary([1, 6], path, today=TODAY)
    assert list(vocab.entries) == [1, 6, 5, 7]
    assert vocab.usage.counts.tolist() == [0, 1, 5, 2]
    pyarrow.parquet.write_table(table.rename_columns(["id", "count", "more"]), path)
    with pytest.raises(tws.VocabularyError, match=r"'id', 'count', 'more'; counts are in 'entry'"):
        tws.update_vocabulary([1, 6], path)


def test_special_rows_stay_and_padding_is_used_up():
    vocab = tws.Vocabulary.load({"[PAD]": 0, "x": 2, "y": 3})
    vocab = replace(
        vocab, num_rows=8, special={"pad_token": range(1), "oov": range(1, 2), PADDING: range(4, 8)}
    )
    seen = tws.update_vocabulary(vocab, {"n": 1, "m": 5}, expire_after=0, today=TODAY)
    assert list(seen.entries) == [b"[PAD]", None, b"x", b"y", b"m", b"n", None, None]
    assert seen.special == {"pad_token": range(1), "oov": range(1, 2), PADDING: range(6, 8)}
    everything = tws.update_vocabulary(seen, {"q": 1}, expire_after=10**30, today=TODAY)
    assert list(everything.entries)[:7] == [b"[PAD]", None, b"x", b"y", b"m", b"n", b"q"]
    later = tws.update_vocabulary(seen, {"q": 1}, expire_after=0, today=TODAY + 1)
    assert list(later.entries) == [b"[PAD]", None, b"q", None, None, None, None, None]
    assert later.special[PADDING] == range(6, 8)  # what was used once is a gap
    small = tws.update_vocabulary(vocab, {"n": 1, "m": 5}, max_size=4, today=TODAY)
    assert list(small.entries) == [b"[PAD]", None, b"m", b"n"]


@pytest.mark.parametrize("name", ["kept.parquet", "kept.tsv", "kept.vocab"])
@pytest.mark.parametrize("entries", [["a", "b", "é"], [1, -2, 3], [1, 2**63, 2**64 - 1]])
def test_a_file_holds_entry_row_count_and_days(tmp_path, name, entries):
    path = tmp_path / name
    vocab = tws.update_vocabulary(entries, {entries[1]: 7}, today=TODAY)
    vocab = tws.update_vocabulary(
        vocab, {entries[1]: 7, entries[0]: 1}, expire_after=0, today=TODAY + 1
    )
    vocab.save(path)
    read = tws.Vocabulary.load(path)
    assert read.fingerprint == vocab.fingerprint
    assert len(read) == 3
    for field in ("counts", "last_seen", "born"):
        assert torch.equal(getattr(read.usage, field), getattr(vocab.usage, field))
    if name.endswith(".parquet"):
        table = pyarrow.parquet.read_table(path)
        assert table.column_names == ["entry", "row", "count", "last_seen", "born"]
        assert table.to_pylist()[0] == {
            "entry": entries[0],
            "row": 0,
            "count": 1,
            "last_seen": datetime.date.fromordinal(719_163 + TODAY + 1),
            "born": None,
        }


@pytest.mark.parametrize("name", ["kept.parquet", "kept.tsv"])
def test_a_damaged_table_is_our_error_and_never_another_vocabulary(tmp_path, name):
    path = tmp_path / name
    vocab = tws.update_vocabulary(["a", "b"], {"c": 3}, today=TODAY)
    vocab.save(path)
    whole = path.read_bytes()
    draw = random.Random(5)
    for _ in range(150):
        raw = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        path.write_bytes(raw[: draw.randint(4, len(raw))] if draw.random() < 0.3 else raw)
        try:
            read = tws.Vocabulary.load(path)
        except tws.VocabularyError:
            continue
        is_read_as_lines = name.endswith(".tsv") and read.usage is None
        assert is_read_as_lines or read.fingerprint == vocab.fingerprint


def test_what_a_line_cannot_hold_is_refused_and_leaves_the_file(tmp_path):
    path = tmp_path / "kept.tsv"
    tws.update_vocabulary(["a"], {}, today=TODAY).save(path)
    before = path.read_bytes()
    with pytest.raises(tws.SettingsError, match=r"tab.*\.parquet"):
        tws.update_vocabulary(["a\tb"], {}, today=TODAY).save(path)
    with pytest.raises(tws.SettingsError, match=r"no UTF-8.*\.parquet"):
        tws.update_vocabulary([b"a", b"\xff"], {}, today=TODAY).save(path)
    assert path.read_bytes() == before
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "counts", "error", "said"),
    [
        ({"min_count": 0}, {}, tws.SettingsError, "min_count"),
        ({"expire_after": -1}, {}, tws.SettingsError, "expire_after"),
        ({"max_size": True}, {}, tws.SettingsError, "max_size"),
        ({"today": "now"}, {}, tws.SettingsError, "today"),
        ({"max_size": 2}, {"c": 1}, tws.SettingsError, "keep theirs, up to row 3"),
        ({}, {"a": -1}, tws.VocabularyError, "negative"),
        ({}, {"a": 1.5}, tws.VocabularyError, "whole numbers"),
        ({}, {7: 1}, tws.VocabularyError, "same kind"),
        ({}, (["a", "b"], [1]), tws.VocabularyError, "2 entries, but 1 counts"),
        ({}, 3, tws.SettingsError, "not a int"),
    ],
)
def test_what_cannot_be_is_said(settings, counts, error, said):
    vocab = tws.Vocabulary.load(["z", "y", "x"])
    if "max_size" in settings and settings["max_size"] == 2:
        counted = tws.update_vocabulary(vocab, {"x": 5, "c": 1}, today=TODAY)
        vocab, counts = counted, {"x": 5, "c": 1}
        settings = {**settings, "today": TODAY + 1}
    with pytest.raises(error, match=said):
        tws.update_vocabulary(vocab, counts, **settings)


def test_an_entry_twice_in_the_old_vocabulary_is_refused():
    with pytest.raises(tws.VocabularyError, match=r"twice: 'a' \(entry 1\) and 'a' \(entry 3\)"):
        tws.update_vocabulary(["a", "b", "a"], {"b": 1})


def test_a_diff_tells_what_became_of_entries():
    monday = tws.Vocabulary.load({"a": 0, "b": 1, "c": 2, "d": 3})
    tuesday = tws.Vocabulary.load({"a": 0, "c": 1, "r": 2, "n": 5})
    diff = tws.diff_vocabularies(monday, tuesday, {"a": 6, "c": 2, "r": 1, "n": 1, "d": 5})
    assert (diff.kept, diff.moved, diff.returned, diff.new, diff.dropped) == (1, 1, 0, 2, 2)
    assert diff.shares["kept"] == 0.6
    assert diff.shares["new"] == 0.2
    assert diff.shares["dropped"] == 5 / 13
    assert diff.reused == 2
    assert diff.rows["new"].tolist() == [2, 5]
    assert diff.rows["dropped"].tolist() == [1, 3]
    back = tws.diff_vocabularies(monday, tuesday, earlier=[["z"], ["r", "a"]])
    assert (back.returned, back.new) == (1, 1)
    assert back.shares["returned"] == 0.25
    with pytest.raises(tws.VocabularyError, match="twice"):
        tws.diff_vocabularies(["a"], ["a", "a"])
    with pytest.raises(tws.VocabularyError, match="twice"):
        tws.diff_vocabularies(["a", "a"], ["a"])


def test_a_diff_weighs_by_the_counts_that_vocabularies_have():
    old = tws.update_vocabulary(["a", "b"], {"a": 3, "b": 1}, today=TODAY)
    new = tws.update_vocabulary(old, {"a": 1, "c": 5}, expire_after=0, today=TODAY + 1)
    diff = tws.diff_vocabularies(old, new)
    assert diff.weights == {"kept": 4, "moved": 0, "returned": 0, "new": 5, "dropped": 1}
    assert "new" in str(diff)
    assert "55.56%, by counts" in str(diff)
    # The old one has seen 4 in all; what stays has been seen once more since.
    assert (diff.old_weight, diff.shares["dropped"]) == (4, 0.25)
