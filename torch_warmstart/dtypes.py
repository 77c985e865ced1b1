"""The same bytes under a dtype that every torch kernel knows.

torch has no `index_select`, `index_copy_` or masked copy for uint16, float8 and others on every
device; moving rows does not look at their values, so integers of the same size do as well.
"""

from __future__ import annotations

import torch

_SAME_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_KNOWN_EVERYWHERE = {torch.float32, torch.float64, torch.int32, torch.int64, torch.uint8}


def dtype_name(dtype: torch.dtype) -> str:
    """`float32`, for people."""
    return str(dtype).removeprefix("torch.")


def as_bits(tensor: torch.Tensor) -> torch.Tensor:
    """A view of `tensor` with elements of the same size; no copy, any strides."""
    if tensor.dtype in _KNOWN_EVERYWHERE or tensor.dtype.itemsize not in _SAME_SIZE:
        return tensor  # complex128, of 16 bytes, is known everywhere too
    return tensor.view(_SAME_SIZE[tensor.dtype.itemsize])


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """A view of `tensor` as uint8, with the bytes of an element as another dimension, the last."""
    return tensor.unsqueeze(-1).view(torch.uint8)


def is_aligned(tensor: torch.Tensor) -> bool:
    """Whether it begins at an address that torch's kernels expect of its dtype."""
    return tensor.data_ptr() % tensor.element_size() == 0


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor`, or where it begins at another address, a copy."""
    if is_aligned(tensor):
        return tensor
    return as_bytes(tensor).clone().view(tensor.dtype).squeeze(-1)


def take_rows(tensor: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """`tensor.index_select(0, rows)` for every dtype."""
    return as_bits(tensor).index_select(0, rows).view(tensor.dtype)
