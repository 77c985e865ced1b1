"""Whole rows moved by numpy: as the loop over rows, in pieces, and seen by autograd."""

from __future__ import annotations

import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_warmstart import gather_rows
from torch_warmstart.execution.gathering import by_rows
from torch_warmstart.execution.gathering.gather import fill_rows


@given(
    remapping=st.lists(st.integers(-1, 5), min_size=1, max_size=30),
    shape=st.lists(st.integers(1, 4), max_size=2),
    dtype=st.sampled_from([torch.bfloat16, torch.float64, torch.complex64, torch.bool]),
    piece=st.integers(1, 40),
    step=st.integers(1, 40),
    start=st.integers(0, 7),
)
def test_rows_in_pieces_equal_the_loop(remapping, shape, dtype, piece, step, start):
    size = torch.empty(6, *shape, dtype=dtype).nbytes
    memory = torch.arange(size + 8, dtype=torch.uint8) % 2
    source = torch.empty(0, dtype=dtype).set_(
        memory[start:].clone().untyped_storage(), 0, (6, *shape)
    )
    out = torch.ones(len(remapping), *shape, dtype=dtype)
    expected = oracle.gather(
        source.unsqueeze(-1).view(torch.uint8),
        remapping,
        out.unsqueeze(-1).view(torch.uint8),
        0,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_rows, "PIECE_BYTES", piece)
        patch.setattr(by_rows, "_STEP_BYTES", step)
        gather_rows(source, torch.tensor(remapping), out)
    assert torch.equal(out.unsqueeze(-1).view(torch.uint8), expected)


@pytest.mark.parametrize("remapping", [[1, 0], [1, -1]], ids=["complete", "with a new row"])
def test_a_graph_that_saw_the_table_before_is_not_used_after(remapping):
    table = torch.nn.Parameter(torch.ones(2, 2))
    loss = (table * table).sum()
    gather_rows(torch.eye(2), torch.tensor(remapping), table)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_filling_with_zeros_is_seen_too():
    table = torch.nn.Parameter(torch.ones(3, 2))
    loss = (table * table).sum()
    with torch.no_grad():
        fill_rows(0.0, torch.tensor([1]), table)
    assert table.tolist() == [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("remapping", [[1, 0], [1, -1]], ids=["complete", "with a new row"])
def test_what_is_frozen_by_inference_mode_is_refused_as_torch_does(remapping):
    with torch.inference_mode():
        table = torch.ones(2, 2)
    with pytest.raises(RuntimeError, match="nference"):
        gather_rows(torch.eye(2), torch.tensor(remapping), table)
    with torch.inference_mode():
        gather_rows(torch.eye(2), torch.tensor(remapping), table)
    assert table[0].tolist() == [0.0, 1.0]


def test_rows_too_wide_for_a_record_go_another_way():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_rows, "_WIDEST_ROW", 8)
        assert not by_rows.is_plain(torch.eye(2))
        out = gather_rows(torch.eye(2), torch.tensor([1, -1]), torch.full((2, 2), 7.0))
    assert out.tolist() == [[0.0, 1.0], [7.0, 7.0]]
