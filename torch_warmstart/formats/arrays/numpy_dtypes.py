"""numpy's dtypes as torch's, and raw bytes of a numpy dtype as a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from torch_warmstart.storage import Bytes

_SAME_NAME = {
    *("bool", "float16", "float32", "float64", "complex64", "complex128"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}


def torch_dtype(dtype: np.dtype[Any]) -> torch.dtype | None:
    """The torch dtype of the same values in either byte order; None if torch has no such one."""
    found = getattr(torch, dtype.name) if dtype.name in _SAME_NAME else None
    return found if isinstance(found, torch.dtype) else None


def tensor_of_bytes(raw: Bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> torch.Tensor:
    """The elements that lie in `raw` in C order; a view of it if they are aligned and native."""
    if not len(raw):  # numpy's empty arrays may have strides that torch cannot view
        return torch.empty(shape, dtype=torch_dtype(dtype))
    return torch.from_numpy(native(raw.view(dtype))).view(shape)


def native(array: Any) -> Any:
    """The same array in this machine's byte order, aligned, as torch's kernels want it."""
    if not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    return array if array.flags.aligned else array.copy()
