"""A box: a part of a tensor that several pieces or several processes make up together.

Slices of a file's tensor and shards of a model's are the same thing, and this is the one word for
it. Nothing here knows which of them it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
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
