"""Whole tensors copied by threads of ours: as `copy_`, seen by autograd, refused as torch does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_warmstart.execution.gathering import by_rows, copy_whole

_DTYPES = [torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.int16, torch.bool]


@given(
    shape=st.lists(st.integers(0, 6), max_size=3),
    dtypes=st.tuples(st.sampled_from(_DTYPES), st.sampled_from(_DTYPES)),
    grain=st.integers(1, 7),
    piece=st.integers(1, 64),
    is_transposed=st.booleans(),
)
@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_it_equals_torchs_copy(shape, dtypes, grain, piece, is_transposed):
    old, new = dtypes
    source = (torch.rand(shape) * 100 - 50).to(old)
    if is_transposed:
        source = source.mT.contiguous().mT if source.ndim > 1 else source
    out, expected = torch.ones(shape, dtype=new), torch.ones(shape, dtype=new)
    expected.copy_(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_rows, "GRAIN", grain)
        patch.setattr(by_rows, "PIECE_BYTES", piece)
        patch.setattr(by_rows, "COPIED_BYTES", piece)
        copy_whole(source, out)
    assert torch.equal(out, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_graph_that_saw_the_table_before_is_not_used_after(dtype):
    table = torch.nn.Parameter(torch.ones(1 << 16))
    loss = (table * table).sum()
    with torch.no_grad():
        copy_whole(torch.zeros(1 << 16, dtype=dtype), table.detach())
    assert not table.any()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_frozen_by_inference_mode_is_refused_as_torch_does(dtype):
    source = torch.zeros(1 << 16, dtype=dtype)
    with torch.inference_mode():
        table = torch.ones(1 << 16)
    with pytest.raises(RuntimeError, match="nference"):
        copy_whole(source, table)
    with torch.inference_mode():
        copy_whole(source, table)
    assert not table.any()


def test_other_shapes_do_as_torch_does():
    out = torch.ones(1 << 16)
    copy_whole(torch.zeros(()), out)
    assert not out.any()
    with pytest.raises(RuntimeError, match="must match"):
        copy_whole(torch.zeros(3), out)
