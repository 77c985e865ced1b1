"""safetensors files, read lazily through the safetensors library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from torch_warmstart.bits import take_rows
from torch_warmstart.errors import CorruptCheckpointError
from torch_warmstart.formats.base import Checkpoint, Family, TensorSpec

_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


class SafetensorsCheckpoint(Checkpoint):
    """One `.safetensors` file; its header is checked when it is opened."""

    format = "safetensors file"
    family: Family = "torch"

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            file: Any = safe_open(url, framework="pt", device="cpu")
        except (SafetensorError, ValueError) as error:
            raise CorruptCheckpointError(
                f"{url} is not a valid safetensors file: {error}"
            ) from error
        self._file = file
        self._keys: list[str] = list(file.keys())

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def _find(self, key: str) -> TensorSpec | None:
        try:
            part = self._file.get_slice(key)
        except SafetensorError:  # what it raises for an unknown key
            return None
        stored = str(part.get_dtype())
        return TensorSpec(key, tuple(part.get_shape()), _DTYPES.get(stored), stored)

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> torch.Tensor:
        tensor: torch.Tensor = self._file.get_tensor(spec.key)
        return tensor if rows is None else take_rows(tensor, rows)
