"""The same moves from memory that may vanish: a mapped file that somebody can cut, without a lease.

A source is taken in parts along the dimension in which its elements lie farthest apart, so that a
part's bytes lie together; each is copied by a system call, which notices what is no longer there,
and used from where it was copied to. Three times as slow as a copy, so it is done only where it has
to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from torch_warmstart.dtypes import span_of
from torch_warmstart.execution.gathering.by_rows import copy_whole
from torch_warmstart.execution.gathering.gather import CHUNK_BYTES, gather_blocks
from torch_warmstart.formats import Block
from torch_warmstart.storage import copied

_MOST_PARTS = 256  # of a table, as each takes a look at the whole remapping
_WHAT = "A file of the checkpoint"


def copy_guarded(source: torch.Tensor, target: torch.Tensor) -> None:
    """`target.copy_(source)`; raises CorruptCheckpointError where the source is no longer there."""
    dim = _outermost(source)
    for start, part in _parts(source, dim):
        rows = target if dim is None else target.narrow(dim, start, part.shape[dim])
        copy_whole(_in_own_memory(part), rows)


def duplicate(source: torch.Tensor) -> torch.Tensor:
    """`source.clone()`, raising the same."""
    if source.device.type != "cpu":
        return source.clone()
    out = torch.empty_like(source)
    copy_guarded(source, out)
    return out


_Gather = Callable[[Sequence[Block], torch.Tensor, torch.Tensor, int], object]


def gather_with(*, is_safe: bool) -> _Gather:
    """What gathers rows: `gather_blocks`, from memory that nobody can take away."""
    return gather_blocks if is_safe else _gather_guarded


def _gather_guarded(
    blocks: Sequence[Block], remapping: torch.Tensor, out: torch.Tensor, dim: int
) -> None:
    """`gather_blocks`, raising the same."""
    if any(block.device.type != "cpu" for _, block in blocks):
        gather_blocks(blocks, remapping, out, dim)
        return
    for first, block in blocks:
        across = _outermost(block)
        for start, part in _parts(block, across):
            here = first + (start if across == dim else 0)
            index = _inside(remapping, here, part.shape[dim])
            if not bool((index >= 0).any()):
                continue  # no row of it is wanted, so it is not looked at
            to = out
            if across is not None and across != dim:
                to = out.narrow(across, start, part.shape[across])
            gather_blocks([(0, _in_own_memory(part))], index, to, dim)


def _inside(remapping: torch.Tensor, first: int, count: int) -> torch.Tensor:
    """The remapping of some rows only, counted from the first of them."""
    is_there = (remapping >= first) & (remapping < first + count)
    return torch.where(is_there, remapping - first, -1)


def _outermost(tensor: torch.Tensor) -> int | None:
    """The dimension whose neighbours lie farthest apart; None: there is one element, or none."""
    strides = [
        (stride, dim)
        for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True))
        if size > 1
    ]
    return max(strides)[1] if strides and tensor.numel() else None


def _parts(tensor: torch.Tensor, dim: int | None) -> Iterator[tuple[int, torch.Tensor]]:
    """Parts along a dimension, each with where it begins."""
    if not tensor.numel():
        return
    if dim is None:
        yield 0, tensor
        return
    size = tensor.shape[dim]
    each = max(1, tensor.stride(dim) * tensor.element_size())
    step = max(1, CHUNK_BYTES // each, -(-size // _MOST_PARTS))
    for start in range(0, size, step):
        yield start, tensor.narrow(dim, start, min(step, size - start))


def _in_own_memory(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes from a tensor's first element to its last, copied, and it on top of them."""
    own = torch.empty(span_of(tensor) * tensor.element_size(), dtype=torch.uint8)
    at, memory = 0, own.numpy()
    for piece in copied(_bytes(tensor, own.numel()).numpy(), _WHAT):
        memory[at : at + piece.size] = piece
        at += piece.size
    return own.view(tensor.dtype).as_strided(tensor.shape, tensor.stride())


def _bytes(tensor: torch.Tensor, length: int) -> torch.Tensor:
    """The memory that begins at a tensor's first element."""
    storage = tensor.untyped_storage()
    start = tensor.storage_offset() * tensor.element_size()
    return torch.empty(0, dtype=torch.uint8).set_(storage, start, (length,))  # type: ignore[call-overload,no-any-return]
