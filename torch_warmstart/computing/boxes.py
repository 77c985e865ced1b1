"""A box: a part of a tensor that several pieces or several processes make up together.

Slices of a file's tensor and shards of a model's are the same thing, and this is the one word for
it. Nothing here knows which of them it is.

Which rows of one tensor are rows of another, and which, a vector says: int64, -1 for none. It is as
long as a vocabulary, so on a CPU it is counted and searched by numpy, in the caller's thread: torch
splits what is longer than its grain among threads that spin while they wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from torch_warmstart.values import frozen

_BLOCK = 1 << 15  # numbers made at a time, so that they stay in the cache


@frozen
class Box:
    """A part of a larger tensor; the offsets and sizes count elements, one a dimension."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Box:
        """The box that is all of a tensor."""
        return cls((0,) * len(shape), tuple(shape))

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.sizes)

    @property
    def ends(self) -> tuple[int, ...]:
        """Behind its last element, along each dimension."""
        return tuple(start + size for start, size in zip(self.offsets, self.sizes, strict=True))

    @property
    def index(self) -> tuple[slice, ...]:
        """What to index the larger tensor with."""
        return tuple(map(slice, self.offsets, self.ends))

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """This part of the larger tensor, as a view."""
        return tensor[self.index] if self.sizes else tensor

    def along(self, dim: int) -> slice:
        """The part of one dimension that it takes."""
        return slice(self.offsets[dim], self.ends[dim])

    def spread(self, dim: int, size: int) -> Box:
        """The same with all of one dimension, whose size is given."""
        offsets, sizes = list(self.offsets), list(self.sizes)
        offsets[dim], sizes[dim] = 0, size
        return Box(tuple(offsets), tuple(sizes))

    def permuted(self, order: Sequence[int]) -> Box:
        """The same of a tensor that is permuted: its dimension i is this one's `order[i]`."""
        return Box(tuple(self.offsets[d] for d in order), tuple(self.sizes[d] for d in order))

    def within(self, outer: Box) -> Box:
        """The same, counted from where an outer box begins."""
        return Box(tuple(map(int.__sub__, self.offsets, outer.offsets)), self.sizes)

    def common(self, other: Box) -> Box | None:
        """What two boxes have in common; None: no element."""
        starts = tuple(map(max, self.offsets, other.offsets))
        sizes = tuple(map(int.__sub__, map(min, self.ends, other.ends), starts))
        return Box(starts, sizes) if all(size > 0 for size in sizes) else None

    def holds(self, rows: torch.Tensor) -> torch.Tensor:
        """Which of the larger tensor's rows lie in this one: bool of `len(rows)`."""
        first, count = self.offsets[0], self.sizes[0]
        return (rows >= first) & (rows < first + count)

    def rows_within(self, rows: torch.Tensor) -> torch.Tensor:
        """Those rows, counted from the box's first."""
        return rows[self.holds(rows)] - self.offsets[0]


def pieces_of(tensor: Any) -> tuple[tuple[Box, torch.Tensor], ...] | None:
    """What is here of a tensor that other processes have parts of, and says so in `pieces`.

    None: all of it is here. How a library divides it is not this module's to know.
    """
    pieces = getattr(tensor, "pieces", None)
    if not isinstance(pieces, tuple) or not all(isinstance(p.box, Box) for p in pieces):
        return None
    return tuple((piece.box, piece.tensor) for piece in pieces)


def assembled(
    pieces: Sequence[tuple[Box, torch.Tensor]], box: Box, like: torch.Tensor
) -> torch.Tensor | None:
    """A box of a larger tensor from pieces that have nothing in common: a view where one has it.

    Args:
        pieces: What there is of the larger tensor.
        box: The part that is wanted.
        like: Says which dtype and device it has where nothing is wanted.

    Returns None if the pieces do not have all of it.
    """
    found = [(common, outer, piece) for outer, piece in pieces if (common := box.common(outer))]
    if sum(common.numel for common, _, _ in found) != box.numel:
        return None
    if not found:
        return torch.empty(box.sizes, dtype=like.dtype, device=like.device)
    parts = [(common, common.within(outer).of(piece)) for common, outer, piece in found]
    if len(parts) == 1:
        return parts[0][1]
    made = parts[0][1].new_empty(box.sizes)
    for common, part in parts:
        common.within(box).of(made).copy_(part)
    return made


# -- vectors of rows -------------------------------------------------------------------------------


def with_old_row(rows: torch.Tensor) -> torch.Tensor:
    """Where rows are at least 0: int64."""
    if rows.device.type != "cpu":
        return (rows >= 0).nonzero().flatten()
    return torch.from_numpy(np.flatnonzero(rows.numpy() >= 0))


def without_old_row(rows: torch.Tensor) -> torch.Tensor:
    """Where rows are below 0: int64."""
    if rows.device.type != "cpu":
        return (rows < 0).nonzero().flatten()
    return torch.from_numpy(np.flatnonzero(rows.numpy() < 0))


def count_with_old_row(rows: torch.Tensor) -> int:
    """How many rows are at least 0."""
    if rows.device.type != "cpu":
        return int((rows >= 0).sum())
    return int(np.count_nonzero(rows.numpy() >= 0))


def extremes(rows: torch.Tensor) -> tuple[int, int]:
    """The lowest and the highest of a vector that has one."""
    if rows.device.type != "cpu":
        lowest, highest = torch.stack(torch.aminmax(rows)).tolist()
        return lowest, highest
    numbers = rows.numpy()
    return int(numbers.min()), int(numbers.max())


def count_in_place(rows: torch.Tensor) -> int:
    """How many rows are their own number."""
    if rows.device.type != "cpu":
        return int((rows == torch.arange(len(rows), device=rows.device)).sum())
    numbers, found = rows.numpy(), 0
    for start in range(0, len(numbers), _BLOCK):
        part = numbers[start : start + _BLOCK]
        found += int(np.count_nonzero(part == np.arange(start, start + len(part))))
    return found
