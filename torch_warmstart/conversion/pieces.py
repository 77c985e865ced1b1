"""A tensor that is yet to be written: what it is called, how large it is, and how to get it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from torch_warmstart.values import frozen

BLOCK = 16 << 20  # bytes that are looked at together


@frozen
class Piece:
    """A tensor to write; its values are asked for when it is its turn."""

    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], torch.Tensor]
    storage: object = None  # equal for pieces that are one tensor; None: like no other

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return self.numel * self.dtype.itemsize

    def blocks(self) -> Iterator[memoryview]:
        """Its bytes in C order, some at a time, whatever device and strides it has."""
        tensor = self.read()
        if tensor.numel():
            for rows in _in_blocks(tensor.detach()):
                flat = rows.cpu().contiguous().reshape(-1)
                yield flat.view(torch.uint8).numpy().data


def _in_blocks(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    if not tensor.ndim:
        yield tensor
        return
    if tensor.is_contiguous():
        tensor = tensor.reshape(-1)
    bytes_a_row = tensor[0].numel() * tensor.element_size()
    at_once = max(1, BLOCK // bytes_a_row)
    for begin in range(0, len(tensor), at_once):
        yield tensor[begin : begin + at_once]
