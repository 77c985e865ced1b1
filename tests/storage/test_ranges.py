"""Arithmetic on byte ranges equals sets of bytes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_warmstart.storage.ranges import batches, covers, shifted, subtract, union, within

RANGES = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 12)).map(lambda pair: (pair[0], sum(pair))),
    max_size=8,
)


def _bytes(ranges):
    return {byte for start, stop in ranges for byte in range(start, stop)}


@given(RANGES)
def test_a_union_is_sorted_disjoint_and_has_the_same_bytes(ranges):
    joined = union(ranges).tolist()
    assert _bytes(joined) == _bytes(ranges)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(joined))


@pytest.mark.parametrize(
    ("gap", "joined"),
    [(2, [[0, 12]]), (1, [[0, 4], [6, 8], [10, 12]]), (1 << 70, [[0, 12]])],
)
def test_ranges_a_small_gap_apart_are_joined(gap, joined):
    assert union([(10, 12), (0, 4), (6, 8), (5, 5)], gap).tolist() == joined


@given(RANGES, RANGES)
def test_a_difference_has_what_is_wanted_and_not_there(wanted, present):
    missing = subtract(wanted, union(present)).tolist()
    assert _bytes(missing) == _bytes(wanted) - _bytes(present)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(missing))


@given(RANGES, st.integers(0, 50), st.integers(0, 12))
def test_what_is_covered_needs_nothing_more(present, start, length):
    wanted = (start, start + length)
    assert covers(union(present), *wanted) == (_bytes([wanted]) <= _bytes(present))


@given(RANGES, st.integers(0, 50), st.integers(0, 12))
def test_what_lies_within_is_cut_at_both_ends(ranges, start, length):
    found = within(union(ranges), start, start + length)
    assert _bytes(found) == _bytes(ranges) & _bytes([(start, start + length)])


@given(RANGES, st.integers(1, 5), st.integers(5, 12), st.integers(1, 4))
def test_batches_hold_every_byte_once_in_bounded_pieces(ranges, piece, total, count):
    joined = union(ranges)
    groups = list(batches(joined, piece, total, count))
    pieces = [one for group in groups for one in group]
    assert sum(stop - start for start, stop in pieces) == len(_bytes(joined))
    assert _bytes(pieces) == _bytes(joined)
    assert all(stop - start <= piece for start, stop in pieces)
    assert all(sum(stop - start for start, stop in group) <= total for group in groups)
    assert all(1 <= len(group) <= count for group in groups)


def test_ranges_move_together():
    assert shifted([(0, 4), (6, 8)], 10).tolist() == [[10, 14], [16, 18]]
    assert shifted(np.array([[0, 4]]), 1).tolist() == [[1, 5]]
    assert shifted([], 1).tolist() == []
