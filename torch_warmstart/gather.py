"""The hot path: rows from a source into an existing tensor, and nothing else.

Rows whose index is -1 are left as they are. No temporary is larger than a chunk, whatever the size
of the table. Every path here equals the plain loop over rows, and a test says so.
"""

from __future__ import annotations

import torch

from torch_warmstart.bits import as_bits
from torch_warmstart.errors import SettingsError

CHUNK_BYTES = 64 << 20  # of destination rows worked on at a time, and of source rows on their way


def gather_rows(
    source: torch.Tensor, remapping: torch.Tensor, out: torch.Tensor, dim: int = 0
) -> torch.Tensor:
    """Overwrites `out[i]` with `source[remapping[i]]` wherever `remapping[i] >= 0`.

    Args:
        source: The old tensor, on any device; its dtype is cast to `out`'s.
        remapping: int64, one index into `source` along `dim` for each index of `out`; a negative
            one leaves the row of `out` as it is. Repeats are allowed.
        out: The tensor to fill, in place; a leaf that requires grad is fine.
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
    if not remapping.numel() or not out.numel():
        return out
    with torch.no_grad():
        target = out.detach()
        source = source.detach()
        if source.untyped_storage().data_ptr() == target.untyped_storage().data_ptr():
            source = source.clone()  # reading rows that were already overwritten
        remapping = remapping.to(target.device)
        if source.device != target.device:
            _gather_across(source, remapping, target, dim)
        else:
            _gather_here(source, remapping, target, dim)
    return out


def _gather_here(
    source: torch.Tensor, remapping: torch.Tensor, out: torch.Tensor, dim: int
) -> None:
    """Both on one device: chunk by chunk of `out` along its first dimension."""
    complete = bool((remapping >= 0).all())
    for part in _chunks(out):
        rows, piece = (remapping[part], source) if dim == 0 else (remapping, source[part])
        if complete and source.dtype == out.dtype:
            torch.index_select(as_bits(piece), dim, rows, out=as_bits(out[part]))
        else:
            _overwrite(piece, rows, out[part], dim)


def _overwrite(source: torch.Tensor, rows: torch.Tensor, out: torch.Tensor, dim: int) -> None:
    """Some rows have no source: they are put back after a gather over all of them."""
    if not source.shape[dim]:
        return
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
    for part in _chunks(source, dim):
        edges = torch.tensor([part.start, part.stop], device=ordered.device)
        first, last = (int(edge) for edge in torch.searchsorted(ordered, edges))
        if first == last:
            continue
        chunk = source.narrow(dim, part.start, part.stop - part.start).to(out.device)
        rows = _select(chunk, dim, ordered[first:last] - part.start).to(out.dtype)
        as_bits(out).index_copy_(dim, order[first:last], as_bits(rows))


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
    if remapping.numel() and int(remapping.max()) >= source.shape[dim]:
        raise SettingsError(
            f"gather_rows: remapping asks for row {int(remapping.max())} of a source that has "
            f"{source.shape[dim]} along dimension {dim}."
        )
    if source.dtype != out.dtype and not (
        source.dtype.is_floating_point and out.dtype.is_floating_point
    ):
        _check_widening(source.dtype, out.dtype)


def _check_widening(source: torch.dtype, out: torch.dtype) -> None:
    if not torch.can_cast(source, out) or source.is_complex != out.is_complex:
        raise SettingsError(f"gather_rows: {source} is not cast to {out}.")
