"""Rows from a tensor in blocks: by every path, what the loop over rows of the whole one gives."""

from __future__ import annotations

import itertools

import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_gather import DTYPES, _filled, _install_kernel, _same, on_a_gpu  # noqa: F401
from test_row_kernel import load
from test_streaming import Player, finish

from torch_warmstart import SettingsError
from torch_warmstart.execution.gathering import gather
from torch_warmstart.execution.gathering.gather import _place, gather_blocks
from torch_warmstart.execution.gathering.streaming import stream_rows


def _cut(source, edges, dim=0):
    """A tensor as blocks that lie apart, cut before some of its rows."""
    bounds = [0, *sorted(edges), source.shape[dim]]
    return [
        (first, source.narrow(dim, first, end - first).clone())
        for first, end in itertools.pairwise(bounds)
    ]


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    data=st.data(),
    chunk=st.sampled_from([1, 16, 64, 1 << 20]),
    cast=st.booleans(),
    strided=st.booleans(),
)
def test_blocks_along_any_axis_equal_the_loop(shape, data, chunk, cast, strided):
    dim = data.draw(st.integers(0, len(shape) - 1))
    shape[dim] = old = data.draw(st.integers(1, 12))
    edges = data.draw(st.lists(st.integers(0, old), max_size=4))  # some blocks are empty
    remapping = data.draw(st.lists(st.integers(-1, old - 1), max_size=15))
    source = _filled(shape, torch.float64 if cast else torch.float32)
    out = _filled([*shape[:dim], len(remapping), *shape[dim + 1 :]], torch.float32, start=50)
    if strided:
        out = torch.stack([out, out], -1)[..., 1]
    expected = oracle.gather(source, remapping, out, dim)
    blocks = data.draw(st.permutations(_cut(source, edges, dim)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather, "CHUNK_BYTES", chunk)
        index = torch.tensor(remapping, dtype=torch.int64)
        assert gather_blocks(blocks, index, out, dim=dim - len(shape)) is out
    assert torch.equal(out, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_blocks_of_every_dtype_are_gathered(dtype, device):
    source = _filled((7, 3), dtype)
    out = _filled((6, 3), dtype, start=100).to(device)
    remapping = [6, -1, 0, 3, 3, -1]
    expected = oracle.gather(source.view(torch.uint8), remapping, out.cpu().view(torch.uint8), 0)
    gather_blocks(_cut(source, [1, 3, 4]), torch.tensor(remapping), out)
    assert _same(out.view(torch.uint8), expected)


def test_a_block_of_the_very_tensor_that_is_filled_is_read_first():
    table = torch.arange(12.0).reshape(6, 2)
    expected = table[[5, 4, 3, 2, 1, 0]]
    gather_blocks([(0, table[:2]), (2, table[2:])], torch.tensor([5, 4, 3, 2, 1, 0]), table)
    assert torch.equal(table, expected)


@pytest.mark.parametrize("source_dtype", [torch.float32, torch.float64], ids=str)
def test_the_kernel_takes_blocks(source_dtype, on_a_gpu):  # noqa: F811
    calls, move_rows = [], load(interpreted=True).move_rows

    def counted(source, rows, out, places=None):
        calls.append(len(rows))
        return move_rows(source, rows, out, places)

    _install_kernel(on_a_gpu, counted)
    source, remapping = _filled((9, 4), source_dtype), [-1, 8, 0, 1, 8, 4, -1, 2]
    out = _filled((8, 4), torch.float32, start=50)
    expected = oracle.gather(source, remapping, out, 0)
    gather_blocks(_cut(source, [2, 2, 5, 7]), torch.tensor(remapping), out)
    assert torch.equal(out, expected)
    assert calls == ([2, 2, 2] if source_dtype == torch.float32 else [])  # it casts nothing
    assert not gather._without_triton


@given(
    rows=st.integers(1, 40),
    shape=st.sampled_from([(), (3,), (2, 3), (70,)]),
    data=st.data(),
    buffer_bytes=st.sampled_from([1, 200, 1000, 4000, 1 << 20]),
    seed=st.integers(0, 1 << 20),
    haste=st.sampled_from([0.0, 0.3, 0.7, 0.95]),
    cast=st.booleans(),
)
def test_blocks_arrive_whatever_order_the_streams_work_in(
    rows, shape, data, buffer_bytes, seed, haste, cast
):
    crowd = data.draw(st.sampled_from([rows, max(1, rows // 8)]))
    index = st.one_of(st.just(-1), st.integers(0, crowd - 1), st.integers(0, rows - 1))
    remapping = data.draw(st.lists(index, min_size=1, max_size=60))
    edges = data.draw(st.lists(st.integers(0, rows), max_size=5))
    source = _filled((rows, *shape), torch.float32)
    out = _filled((len(remapping), *shape), torch.float64 if cast else torch.float32, start=70)
    expected = oracle.gather(source, remapping, out, 0)
    blocks, player = _cut(source, edges), Player(seed, haste)
    stream_rows(
        blocks,
        torch.tensor(remapping),
        out,
        place=_place,
        buffer_bytes=buffer_bytes,
        streams=player.as_streams(),
    )
    for _, block in blocks:  # it has been read: the caller may do with it as it likes
        block.fill_(-1)
    finish(player)
    assert torch.equal(out, expected)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("where", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_on_a_gpu_blocks_equal_the_whole(dim, where, dtype, monkeypatch):
    monkeypatch.setattr(gather, "CHUNK_BYTES", 1 << 14)
    monkeypatch.setattr(gather, "KERNEL_BYTES", 0)
    monkeypatch.setattr(gather, "_without_triton", set())
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(3000, 16, generator=generator, dtype=dtype).to(where)
    remapping = torch.randint(-1, 3000, (5000,), generator=generator)
    expected = torch.where(
        remapping[:, None] >= 0, source.cpu()[remapping.clamp(min=0)].float(), 7.0
    )
    out = torch.full((5000, 16), 7.0, device="cuda")
    blocks = _cut(source, [1, 700, 700, 2000])
    if dim:
        blocks = [(first, block.T) for first, block in blocks]
    gather_blocks(blocks, remapping, out.T if dim else out, dim=dim)
    assert torch.equal(out.cpu(), expected)
    assert not gather._without_triton


def _unaligned(tensor):
    """The same values, as they lie in a file that aligns nothing."""
    storage = torch.zeros(tensor.nbytes + 1, dtype=torch.uint8).numpy()[1:]
    moved = torch.from_numpy(storage).view(tensor.dtype).view(tensor.shape)
    moved.view(torch.uint8).copy_(tensor.view(torch.uint8))
    assert moved.data_ptr() % moved.element_size()
    return moved


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_a_source_may_begin_at_any_byte(count, dim, dtype, device, monkeypatch):
    monkeypatch.setattr(gather, "CHUNK_BYTES", 64)
    source = _filled((8, 5), torch.float64)
    index = torch.tensor([3, -1, 7, 0, 3, -1, 5, 6, 7])
    out = _filled((9, 5), dtype, start=100)
    expected = oracle.gather(source, index.tolist(), out, 0)
    blocks = [(first, _unaligned(block)) for first, block in _cut(source, [2, 5][: count - 1])]
    target = out.to(device)
    if dim:
        blocks = [(first, block.T) for first, block in blocks]
    gather_blocks(blocks, index, target.T if dim else target, dim=dim)
    assert torch.equal(target.cpu(), expected)


def test_rows_that_travel_as_bytes_arrive_in_another_dtype():
    source, out = _filled((9, 4), torch.float64), _filled((12, 4), torch.bfloat16, start=50)
    remapping = [8, 0, -1, 3, 3, 4, 5, 1, 2, 7, -1, 6]
    expected = oracle.gather(source, remapping, out, 0)
    blocks = [(first, _unaligned(block)) for first, block in _cut(source, [4])]
    player = Player(0, haste=0.5)
    stream_rows(
        gather._in_bytes(blocks),
        torch.tensor(remapping),
        out,
        place=gather._placing_bytes(torch.float64),
        buffer_bytes=400,
        streams=player.as_streams(),
    )
    finish(player)
    assert torch.equal(out, expected)


def test_a_row_that_is_wanted_everywhere_takes_no_more_memory_than_a_chunk(monkeypatch):
    sizes, select = [], gather._select
    monkeypatch.setattr(gather, "CHUNK_BYTES", 1 << 10)
    monkeypatch.setattr(
        gather, "_select", lambda *args: sizes.append((made := select(*args)).nbytes) or made
    )
    out = torch.zeros(4000, 8)
    gather_blocks(_cut(_filled((6, 8), torch.float64), [2, 4]), torch.full((4000,), 3), out)
    assert torch.equal(out, _filled((6, 8), torch.float32)[3].expand(4000, 8))
    assert max(sizes) <= 1 << 10


@pytest.mark.parametrize("dim", [0, 1])
def test_a_dtype_is_changed_chunk_by_chunk(dim, monkeypatch):
    monkeypatch.setattr(gather, "CHUNK_BYTES", 1 << 12)
    sizes, select = [], gather._select
    monkeypatch.setattr(
        gather, "_select", lambda *args: sizes.append((made := select(*args)).nbytes) or made
    )
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(300, 200, dtype=torch.float64, generator=generator)
    remapping = torch.randint(-1, source.shape[dim], (250,), generator=generator)
    shape = (250, 200) if dim == 0 else (300, 250)
    out = torch.full(shape, 7.0, dtype=torch.bfloat16)
    expected = oracle.gather(source, remapping.tolist(), out, dim)
    gather.gather_rows(source, remapping, out, dim=dim)
    assert torch.equal(out, expected)
    assert max(sizes) <= 1 << 12


@pytest.mark.parametrize(
    ("blocks", "remapping", "message"),
    [
        ([(0, 2), (2, 3)], [5], "asks for row 5 of a source that has 5 along dimension 0"),
        ([(0, 2), (3, 2)], [0], "begins at row 3, where the rows before it end at 2"),
        ([(0, 2), (1, 2)], [0], "begins at row 1, where the rows before it end at 2"),
        ([(1, 2)], [1], "begins at row 1, where the rows before it end at 0"),
    ],
)
def test_blocks_that_are_not_all_of_it_are_an_error(blocks, remapping, message):
    out = torch.zeros(1, 2)
    with pytest.raises(SettingsError, match=message):
        gather_blocks(
            [(first, torch.ones(count, 2)) for first, count in blocks], torch.tensor(remapping), out
        )
    assert not out.any()
