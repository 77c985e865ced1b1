"""The parts of a variable that this process holds, as boxes of the global tensor.

A tensor that is whole here is one box. Every other kind will be told here, and nowhere else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a global tensor; the offsets and sizes count elements, one a dimension."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.sizes)


def boxes_of(tensor: torch.Tensor) -> tuple[Box, ...]:
    """The boxes of a tensor that are here."""
    return (Box((0,) * tensor.ndim, tuple(tensor.shape)),)
