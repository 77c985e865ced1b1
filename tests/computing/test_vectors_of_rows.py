"""Vectors of rows are counted and searched as the plain loop does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_warmstart.computing import boxes
from torch_warmstart.computing.boxes import (
    count_in_place,
    count_with_old_row,
    extremes,
    with_old_row,
    without_old_row,
)
from torch_warmstart.entries import filled


@given(st.lists(st.integers(-1, 8), max_size=20), st.sampled_from([1, 3, 1 << 15]))
def test_rows_are_counted_and_found_as_by_a_loop(rows, block):
    vector = torch.tensor(rows, dtype=torch.int64)
    assert with_old_row(vector).tolist() == [at for at, row in enumerate(rows) if row >= 0]
    assert without_old_row(vector).tolist() == [at for at, row in enumerate(rows) if row < 0]
    assert count_with_old_row(vector) == sum(row >= 0 for row in rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boxes, "_BLOCK", block)
        assert count_in_place(vector) == sum(at == row for at, row in enumerate(rows))
    if rows:
        assert extremes(vector) == (min(rows), max(rows))


def test_vectors_that_are_parts_of_others_are_taken_too():
    columns = torch.tensor([[0, 7], [-1, 7], [2, 7], [5, 7]])
    rows = columns[:, 0]
    assert without_old_row(rows).tolist() == [1]
    assert count_in_place(rows) == 2
    assert extremes(rows) == (-1, 5)


def test_a_vector_is_the_same_on_every_device(device):
    rows = torch.tensor([3, -1, 2, 9], device=device)
    assert with_old_row(rows).tolist() == [0, 2, 3]
    assert without_old_row(rows).tolist() == [1]
    assert (count_with_old_row(rows), count_in_place(rows), extremes(rows)) == (3, 1, (-1, 9))
    made = filled(3, -1, rows.device)
    assert (made.device, made.dtype) == (rows.device, torch.int64)
    assert made.tolist() == [-1] * 3
