"""The hot path: rows from a source into an existing tensor, and nothing else.

Rows whose index is -1 are left as they are. Beside the remapping, no temporary is larger than a
chunk, whatever the size of the table. Every path equals the plain loop over rows, and a test says
so:

    one device    a kernel on a GPU, else torch chunk by chunk
    host to GPU   through pinned memory, while what came before is placed (`streaming`)
    any other     chunk by chunk to the other device
"""

from __future__ import annotations

import sys

import torch

from torch_warmstart.dtypes import as_bits
from torch_warmstart.errors import SettingsError
from torch_warmstart.execution.streaming import cuda_streams, stream_rows

CHUNK_BYTES = 64 << 20  # of destination rows worked on at a time, and of source rows on their way
KERNEL_BYTES = 16 << 20  # of destination; torch has moved less before Triton is even imported


def gather_rows(
    source: torch.Tensor, remapping: torch.Tensor, out: torch.Tensor, dim: int = 0
) -> torch.Tensor:
    """Overwrites `out[i]` with `source[remapping[i]]` wherever `remapping[i] >= 0`.

    Args:
        source: The old tensor, on any device; its dtype is cast to `out`'s.
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
    _check(source, remapping, out, dim)
    dim = dim % out.ndim
    if not remapping.numel():
        return out
    lowest, highest = torch.stack(torch.aminmax(remapping)).tolist()
    _check_inside(highest, source, dim)
    if highest < 0 or not out.numel():
        return out
    with torch.no_grad():
        target = out.detach()
        source = source.detach()
        if source.untyped_storage().data_ptr() == target.untyped_storage().data_ptr():
            source = source.clone()  # reading rows that were already overwritten
        remapping = remapping.to(target.device).contiguous()
        if source.device == target.device:
            _gather_here(source, remapping, target, dim, complete=lowest >= 0)
        elif dim == 0 and source.device.type == "cpu" and target.device.type == "cuda":
            streams = cuda_streams(target.device)
            stream_rows(
                source, remapping, target, place=_place, buffer_bytes=CHUNK_BYTES, streams=streams
            )
        else:
            _gather_across(source, remapping, target, dim)
    return out


def _gather_here(
    source: torch.Tensor, remapping: torch.Tensor, out: torch.Tensor, dim: int, *, complete: bool
) -> None:
    """Both on one device: at once by the kernel, or chunk by chunk of `out` by torch."""
    if dim == 0 and _moved_by_kernel(source, remapping, out):
        return
    for part in _chunks(out):
        rows, piece = (remapping[part], source) if dim == 0 else (remapping, source[part])
        if complete and source.dtype == out.dtype:
            torch.index_select(as_bits(piece), dim, rows, out=as_bits(out[part]))
        else:
            _overwrite(piece, rows, out[part], dim)


def _overwrite(source: torch.Tensor, rows: torch.Tensor, out: torch.Tensor, dim: int) -> None:
    """Some rows have no source: they are put back after a gather over all of them."""
    absent = (rows < 0).nonzero().flatten()
    before = as_bits(out).index_select(dim, absent)
    if source.dtype == out.dtype:
        torch.index_select(as_bits(source), dim, rows.clamp(min=0), out=as_bits(out))
    else:
        out.copy_(_select(source, dim, rows.clamp(min=0)))
    as_bits(out).index_copy_(dim, absent, before)


def _gather_across(
    source: torch.Tensor, remapping: torch.Tensor, out: torch.Tensor, dim: int
) -> None:
    """Another device: the source travels in chunks of rows, each scattered where it belongs.

    The remapping is sorted once, so that the rows a chunk serves lie together.
    """
    ordered, order = torch.sort(remapping)
    parts = _chunks(source, dim)
    starts = torch.tensor([part.start for part in parts], device=ordered.device)
    edges = [*torch.searchsorted(ordered, starts).tolist(), len(ordered)]
    for part, first, last in zip(parts, edges, edges[1:], strict=False):
        if first == last:
            continue
        chunk = source.narrow(dim, part.start, part.stop - part.start).to(out.device)
        rows = _select(chunk, dim, ordered[first:last] - part.start).to(out.dtype)
        as_bits(out).index_copy_(dim, order[first:last], as_bits(rows))


def _place(
    rows: torch.Tensor, index: torch.Tensor, out: torch.Tensor, places: torch.Tensor
) -> None:
    """`out[places] = rows[index]`: of a chunk that has travelled, on the device of `out`."""
    rows = rows.to(out.dtype)
    if not _moved_by_kernel(rows, index, out, places):
        as_bits(out).index_copy_(0, places, as_bits(rows).index_select(0, index))


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
        from torch_warmstart.execution.row_kernel import move_rows  # imports Triton

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
    return as_bits(source).index_select(dim, rows).view(source.dtype)


def _chunks(tensor: torch.Tensor, dim: int = 0) -> list[slice]:
    size = tensor.shape[dim]
    row_bytes = max(1, tensor.numel() * tensor.element_size() // max(1, size))
    step = max(1, CHUNK_BYTES // row_bytes)
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
    if source.dtype != out.dtype and not (
        source.dtype.is_floating_point and out.dtype.is_floating_point
    ):
        _check_widening(source.dtype, out.dtype)


def _check_inside(highest: int, source: torch.Tensor, dim: int) -> None:
    if highest >= source.shape[dim]:
        raise SettingsError(
            f"gather_rows: remapping asks for row {highest} of a source that has "
            f"{source.shape[dim]} along dimension {dim}."
        )


def _check_widening(source: torch.dtype, out: torch.dtype) -> None:
    if not torch.can_cast(source, out) or source.is_complex != out.is_complex:
        raise SettingsError(f"gather_rows: {source} is not cast to {out}.")
