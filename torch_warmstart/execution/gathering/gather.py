"""The hot path: rows from a source into an existing tensor, and nothing else.

All rows that a plan moves are moved here, those of tensors in slices too. Rows whose index is -1
are left as they are. Beside the remapping, no temporary is larger than a chunk, whatever the size
of the table; a dtype is changed chunk by chunk. Every path equals the plain loop over rows, and a
test says so:

    one device    a kernel on a GPU, whole rows on a CPU by numpy, else torch chunk by chunk
    host to GPU   through pinned memory, while what came before is placed (`streaming`)
    any other     chunk by chunk of the source, sorted, each row to where it belongs

A source in blocks is streamed as one, and otherwise goes the last way.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from torch_warmstart.computing import GRAIN, extremes, forget_derived, on_cpu
from torch_warmstart.dtypes import (
    CASTS,
    NO_PLAIN_TENSOR,
    as_bits,
    as_bytes,
    cast_is_lossy,
    is_aligned,
    lies_in_memory,
)
from torch_warmstart.errors import SettingsError, check_kind
from torch_warmstart.execution.gathering.by_rows import is_plain, put_zeros, take_into
from torch_warmstart.execution.insisting import insist_once
from torch_warmstart.formats import Block

if TYPE_CHECKING:
    from torch_warmstart.execution.gathering.streaming import Place

CHUNK_BYTES = 64 << 20  # of destination rows worked on at a time, and of source rows on their way
# Elements at a time where a dtype is changed on a CPU: they stay in the cache between gather and
# cast, and are too few for torch to wait for other threads.
CAST_ELEMENTS = GRAIN
KERNEL_BYTES = 16 << 20  # of destination; torch has moved less before Triton is even imported


@on_cpu
def gather_rows(
    source: torch.Tensor, remapping: torch.Tensor, out: torch.Tensor, dim: int = 0
) -> torch.Tensor:
    """Overwrites `out[i]` with `source[remapping[i]]` wherever `remapping[i] >= 0`.

    Args:
        source: The old tensor, on any device; its dtype is cast to `out`'s. It may begin at any
            byte.
        remapping: int64, one index into `source` along `dim` for each index of `out`; a negative
            one leaves the row of `out` as it is. Repeats are allowed.
        out: The tensor to fill, in place; a leaf that requires grad is fine. On a GPU it is filled
            when the current stream gets there; a source on the host has been read by the return.
        dim: The dimension the rows are along. The other sizes of `source` and `out` are equal.

    Returns:
        `out`.

    Raises:
        SettingsError: shapes or dtypes do not fit, or an index is not in `source`.

    Example:
        >>> gather_rows(torch.eye(2), torch.tensor([1, -1, 0]), out=torch.full((3, 2), 7.0))
        tensor([[0., 1.],
                [7., 7.],
                [1., 0.]])
    """
    for name, tensor in (("source", source), ("remapping", remapping), ("out", out)):
        check_kind(f"gather_rows: {name}", tensor, torch.Tensor, "a tensor")
        if not lies_in_memory(tensor):
            raise SettingsError(f"gather_rows: {name} is {NO_PLAIN_TENSOR}")
    check_kind("gather_rows: dim", dim, int, "an int")
    with torch._C.DisableTorchFunctionSubclass():  # what a class does to functions may fail midway
        whole = source.detach().resolve_conj().resolve_neg()
        index, target = remapping.detach(), out.detach()
        _check_own_elements(target)
        try:
            gather_blocks([(0, whole)], index, target, dim)
        finally:
            forget_derived()
    return out


def _check_own_elements(out: torch.Tensor) -> None:
    """Raises SettingsError if what is written is not what is read, or more than one element."""
    sizes = zip(out.shape, out.stride(), strict=True)
    is_expanded = any(size > 1 and stride == 0 for size, stride in sizes)
    if is_expanded or out.is_conj() or out.is_neg():
        how = "is expanded" if is_expanded else "is a view that conjugates or negates another"
        raise SettingsError(f"gather_rows: out {how}: fill a tensor of its own (out.clone()).")


def gather_blocks(
    blocks: Sequence[Block], remapping: torch.Tensor, out: torch.Tensor, dim: int = 0
) -> torch.Tensor:
    """`gather_rows` from a source that lies in blocks, each with the number of its first row.

    Together they are the source, each row once; in which order they are given does not matter.
    Raises SettingsError as `gather_rows` does, and where rows are missing between two blocks.
    """
    for _, block in blocks:
        _check(block, remapping, out, dim)
    dim = dim % out.ndim
    blocks = sorted(blocks, key=lambda block: (block[0], block[1].shape[dim]))
    size = _check_adjacent(blocks, dim)
    if not remapping.numel():
        return out
    lowest, highest = extremes(remapping)
    _check_inside(highest, size, dim)
    if highest < 0 or not out.numel():
        return out
    with torch.no_grad():
        target = out.detach()
        blocks = [(first, _apart(block.detach(), target)) for first, block in blocks]
        if not _are_aligned(blocks) and blocks[0][1].dtype == target.dtype:
            blocks, target = _in_bytes(blocks), as_bytes(target)
        remapping = remapping.to(target.device).contiguous()
        _move(blocks, remapping, target, dim, complete=lowest >= 0)
    return out


def fill_rows(
    rows: torch.Tensor | float, places: torch.Tensor, out: torch.Tensor, dim: int = 0
) -> None:
    """Overwrites `out[places[i]]` with `rows[i]`, or with a number, wherever that is along `dim`.

    Args:
        rows: Of the dtype of `out`, on its device.
        places: int64, no entry twice.
        out: The tensor to fill, in place.
        dim: The dimension the rows are along.
    """
    if isinstance(rows, torch.Tensor):
        as_bits(out).index_copy_(dim, places, as_bits(rows))
    elif rows == 0 and dim == 0 and is_plain(out.detach()):
        put_zeros(places, out.detach())
    elif rows == 0:
        as_bits(out).index_fill_(dim, places, 0)  # zero is all bits zero in every dtype
    else:
        out.index_fill_(dim, places, rows)


def _apart(source: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """The source, or a copy where its rows could be overwritten before they are read."""
    is_same = source.untyped_storage().data_ptr() == out.untyped_storage().data_ptr()
    return source.clone() if is_same else source


def _move(
    blocks: Sequence[Block], remapping: torch.Tensor, out: torch.Tensor, dim: int, *, complete: bool
) -> None:
    """By the way that suits where source and `out` are."""
    devices = {block.device for _, block in blocks}
    if len(blocks) == 1 and devices == {out.device}:
        _gather_here(blocks[0][1], remapping, out, dim, complete=complete)
    elif dim == 0 and out.device.type == "cuda" and devices == {torch.device("cpu")}:
        _stream(blocks, remapping, out)
    else:
        _gather_sorted(blocks, remapping, out, dim)


def _are_aligned(blocks: Sequence[Block]) -> bool:
    return all(is_aligned(block) for _, block in blocks)


def _in_bytes(blocks: Sequence[Block]) -> list[Block]:
    return [(first, as_bytes(block)) for first, block in blocks]


def _from_bytes(rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return rows.view(dtype).squeeze(-1)


def _gather_here(
    source: torch.Tensor, remapping: torch.Tensor, out: torch.Tensor, dim: int, *, complete: bool
) -> None:
    """Both on one device: at once by the kernel, or chunk by chunk of `out` by torch."""
    if dim == 0 and _moved_by_kernel(source, remapping, out):
        return
    if dim == 0 and source.dtype == out.dtype and is_plain(source) and is_plain(out):
        take_into(source, remapping, out, complete=complete)
        return
    row_bytes = _row_bytes(out, 0, source.dtype)
    chunk_bytes = CHUNK_BYTES
    if dim == 0 and source.dtype != out.dtype and out.device.type == "cpu":
        itemsize = max(source.dtype.itemsize, out.dtype.itemsize)
        chunk_bytes = min(CHUNK_BYTES, CAST_ELEMENTS * itemsize)
    for part in _chunks(len(out), row_bytes, chunk_bytes):
        rows, piece = (remapping[part], source) if dim == 0 else (remapping, source[part])
        if complete and source.dtype == out.dtype:
            torch.index_select(as_bits(piece), dim, rows, out=as_bits(out[part]))
        else:
            _overwrite(piece, rows, out[part], dim)


def _overwrite(source: torch.Tensor, rows: torch.Tensor, out: torch.Tensor, dim: int) -> None:
    """Some rows have no source: they are put back after a gather over all of them."""
    absent = (rows < 0).nonzero().flatten()
    before = as_bits(out).index_select(dim, absent)
    rows = rows.clamp(min=0)

    def gather() -> None:
        if source.dtype == out.dtype:
            torch.index_select(as_bits(source), dim, rows, out=as_bits(out))
        else:
            out.copy_(_select(source, dim, rows))

    # Whatever interrupts it: who gathers again would take what is there for what was there before.
    insist_once(gather, lambda: as_bits(out).index_copy_(dim, absent, before))


def _gather_sorted(
    blocks: Sequence[Block], remapping: torch.Tensor, out: torch.Tensor, dim: int
) -> None:
    """Blocks, or another device: chunk by chunk of the source, each row to where it belongs.

    The remapping is sorted once, so that the rows a chunk serves lie together. To another device
    travels the chunk or what is wanted of it, whichever is less.
    """
    ordered, order = torch.sort(remapping)
    pieces = [
        (first + part.start, block.narrow(dim, part.start, part.stop - part.start))
        for first, block in blocks
        for part in _chunks(block.shape[dim], _row_bytes(block, dim, out.dtype))
    ]
    starts = ordered.new_tensor([first for first, _ in pieces])
    edges = [*torch.searchsorted(ordered, starts).tolist(), len(ordered)]
    for (first, piece), start, stop in zip(pieces, edges, edges[1:], strict=False):
        if start == stop:
            continue
        served = slice(start, stop)
        travels = stop - start >= piece.shape[dim] and is_aligned(piece)
        device = out.device if travels else piece.device
        _scatter(piece.to(device), ordered[served] - first, out, order[served], dim)


def _scatter(
    source: torch.Tensor, index: torch.Tensor, out: torch.Tensor, places: torch.Tensor, dim: int
) -> None:
    """`out[places] = source[index]` along `dim`, chunk by chunk: an index may repeat."""
    if dim == 0 and source.device == out.device and _moved_by_kernel(source, index, out, places):
        return
    for part in _chunks(len(index), _row_bytes(out, dim, source.dtype)):
        rows = _select(source, dim, index[part].to(source.device)).to(out.device)
        as_bits(out).index_copy_(dim, places[part], as_bits(rows.to(out.dtype)))


def _stream(blocks: Sequence[Block], remapping: torch.Tensor, out: torch.Tensor) -> None:
    """From the host to a GPU; rows that begin anywhere travel as bytes."""
    from torch_warmstart.execution.gathering.streaming import cuda_streams, stream_rows

    place: Place = _place
    if not _are_aligned(blocks):
        place = _placing_bytes(blocks[0][1].dtype)
        blocks = _in_bytes(blocks)
    streams = cuda_streams(out.device)
    stream_rows(blocks, remapping, out, place=place, buffer_bytes=CHUNK_BYTES, streams=streams)


def _placing_bytes(dtype: torch.dtype) -> Place:
    """`_place` for rows that have travelled as bytes."""
    return lambda rows, index, out, places: _place(_from_bytes(rows, dtype), index, out, places)


def _place(
    rows: torch.Tensor, index: torch.Tensor, out: torch.Tensor, places: torch.Tensor
) -> None:
    """`out[places] = rows[index]`: of a chunk that has travelled, on the device of `out`."""
    _scatter(rows.to(out.dtype), index, out, places, 0)


_without_triton: set[torch.device] = set()  # where it was seen not to work


def _moved_by_kernel(
    source: torch.Tensor,
    rows: torch.Tensor,
    out: torch.Tensor,
    places: torch.Tensor | None = None,
) -> bool:
    """Whether Triton has moved the rows; where it has not, torch's operations do it."""
    if not _suits_the_kernel(out) or source.dtype != out.dtype or out.device in _without_triton:
        return False
    if _triton_would_crash():
        return False
    try:
        from torch_warmstart.execution.gathering.row_kernel import move_rows  # imports Triton

        return move_rows(source, rows, out, places)
    except Exception:  # no Triton, no C compiler for it, a GPU it does not know: not the caller's
        _without_triton.add(out.device)
        return False


def _suits_the_kernel(out: torch.Tensor) -> bool:
    return out.is_cuda and out.numel() * out.element_size() >= KERNEL_BYTES


def _triton_would_crash() -> bool:
    """Whether to import Triton here would end the process.

    TensorFlow 2.20 and newer put their LLVM where a Triton imported behind them takes it for its
    own (tensorflow/tensorflow#124205); a Triton that was there first is safe.
    """
    return "tensorflow" in sys.modules and "triton" not in sys.modules


def _select(source: torch.Tensor, dim: int, rows: torch.Tensor) -> torch.Tensor:
    if not is_aligned(source):
        return _from_bytes(as_bytes(source).index_select(dim, rows), source.dtype)
    return as_bits(source).index_select(dim, rows).view(source.dtype)


def _row_bytes(tensor: torch.Tensor, dim: int, other: torch.dtype) -> int:
    """Bytes of a row along `dim`, in the wider of its dtype and another."""
    itemsize = max(tensor.dtype.itemsize, other.itemsize)
    return tensor.numel() // max(1, tensor.shape[dim]) * itemsize


def _chunks(size: int, row_bytes: int, chunk_bytes: int = 0) -> list[slice]:
    """The chunks of `size` rows."""
    step = max(1, (chunk_bytes or CHUNK_BYTES) // max(1, row_bytes))
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def _check(source: torch.Tensor, remapping: torch.Tensor, out: torch.Tensor, dim: int) -> None:
    if not -out.ndim <= dim < out.ndim or source.ndim != out.ndim:
        raise SettingsError(
            f"gather_rows: dim {dim} of a source of shape {list(source.shape)} into an out of "
            f"shape {list(out.shape)}: both need the same rank, and dim must be one of theirs."
        )
    dim = dim % out.ndim
    sizes = enumerate(zip(source.shape, out.shape, strict=True))
    if any(old != new for at, (old, new) in sizes if at != dim):
        raise SettingsError(
            f"gather_rows: source {list(source.shape)} and out {list(out.shape)} may differ in "
            f"dimension {dim} only."
        )
    if remapping.dtype != torch.int64 or tuple(remapping.shape) != (out.shape[dim],):
        raise SettingsError(
            f"gather_rows: remapping must be int64 of [{out.shape[dim]}], one index for each row "
            f"of out; it is {remapping.dtype} of {list(remapping.shape)}."
        )
    if source.dtype == out.dtype:
        return
    if cast_is_lossy(source.dtype, out.dtype, by_callers_choice=True) is None:
        raise SettingsError(
            f"gather_rows: {source.dtype} is not cast to {out.dtype}: {CASTS} or floating types."
        )


def _check_adjacent(blocks: Sequence[Block], dim: int) -> int:
    """How many rows blocks in the order of their rows have; each begins where one ends."""
    end = 0
    for first, block in blocks:
        if first != end:
            raise SettingsError(
                f"gather_rows: a block of the source begins at row {first}, where the rows before "
                f"it end at {end}."
            )
        end += block.shape[dim]
    return end


def _check_inside(highest: int, size: int, dim: int) -> None:
    if highest >= size:
        raise SettingsError(
            f"gather_rows: remapping asks for row {highest} of a source that has {size} along "
            f"dimension {dim}."
        )
