"""Few entries are looked up in a dict: the same rows, repeats and counts as by the index."""

from __future__ import annotations

import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_warmstart.entries import Entries
from torch_warmstart.vocabularies import join as join_module
from torch_warmstart.vocabularies.join import join, work_of
from torch_warmstart.vocabularies.loading import read_entries
from torch_warmstart.vocabularies.loading.lines import entries_of_lines

TEXT = st.lists(st.binary(max_size=3), min_size=1, max_size=30)
LINES = st.lists(st.binary(max_size=3).map(lambda b: b.replace(b"\n", b"x").replace(b"\r", b"y")))
IDS = st.lists(st.integers(-5, 5), min_size=1, max_size=30)


def _both_ways(new: Entries, old: Entries):
    found = []
    for most in (0, 1 << 30):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(join_module, "_SMALL", most)
            told = []
            found.append(join(new, old, lambda _, nbytes, told=told: told.append(nbytes)))
            assert found[-1].repeat or sum(told) == work_of(new, old)
    return found


def _check(new: Entries, old: Entries) -> None:
    by_index, by_dict = _both_ways(new, old)
    assert by_dict.repeat == by_index.repeat
    if by_index.repeat is None:
        assert by_dict.rows.tolist() == by_index.rows.tolist()
        assert by_dict.num_present == by_index.num_present
        rows = by_dict.rows[by_dict.rows >= 0].tolist()
        assert by_dict.may_share == (len(set(rows)) < len(rows))


@given(new=TEXT, old=TEXT)
def test_text_is_found_as_by_the_index(new, old):
    _check(read_entries(new), read_entries(old))


@given(new=IDS, old=IDS)
def test_ids_are_found_as_by_the_index(new, old):
    _check(read_entries(new), read_entries(old))


@given(new=LINES, old=LINES, cut=st.integers(0, 5), is_ended=st.booleans())
def test_lines_are_found_as_by_the_index(new, old, cut, is_ended):
    def read(lines):
        raw = b"\n".join([b"first", *lines]) + b"\n" * is_ended
        return entries_of_lines(torch.frombuffer(bytearray(raw), dtype=torch.uint8), "a file")

    new, old = read(new), read(old)
    _check(new.slice(min(cut, len(new) - 1), len(new)), old)


def test_entries_that_lie_far_from_each_other_are_the_same_values():
    entries = read_entries([b"%d" % n for n in range(5000)])
    taken = entries.take(torch.tensor([4999, 0, 17]))
    assert taken.values(slice(None)) == [b"4999", b"0", b"17"]
    assert entries.slice(10, 13).values(slice(1, 3)) == [b"11", b"12"]
    assert entries.values(slice(0, 0)) == []


def test_the_rows_are_those_of_the_loop():
    new, old = ["b", "", "x", "b"], ["a", "b", ""]
    found = join(read_entries(new), read_entries(old))
    assert found.rows.tolist() == oracle.remap(new, old)
    assert found.may_share
