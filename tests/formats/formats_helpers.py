"""What the tests of the file formats share: expected values, raw bytes, small bundles."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundle_writer import BundleEntry, DType

from torch_warmstart import load_checkpoint, storage
from torch_warmstart.errors import WarmStartError
from torch_warmstart.formats.tensorflow.bundle import BundleCheckpoint

FIXTURES = Path(__file__).parents[1] / "fixtures"

TORCH_DTYPES = {  # by TensorFlow's name; a quantized number is read as the integer it is
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "uint16": torch.uint16,
    "uint32": torch.uint32,
    "uint64": torch.uint64,
    "bool": torch.bool,
    "complex64": torch.complex64,
    "complex128": torch.complex128,
    "qint8": torch.int8,
    "qint16": torch.int16,
    "qint32": torch.int32,
    "quint8": torch.uint8,
    "quint16": torch.uint16,
    "int2": torch.int8,
    "int4": torch.int8,
    "uint2": torch.uint8,
    "uint4": torch.uint8,
    "float8_e5m2": torch.float8_e5m2,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e4m3fnuz": torch.float8_e4m3fnuz,
    "float8_e5m2fnuz": torch.float8_e5m2fnuz,
}


def raw(tensor: torch.Tensor) -> bytes:
    """The elements of a tensor in C order, as they lie in memory."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def expected_of(folder: Path) -> dict[str, Any]:
    """The `expected.json` of a fixture; `fixtures/make_fixtures.py` says what is in it."""
    contents: dict[str, Any] = json.loads((folder / "expected.json").read_text())
    return contents


def listed_strings(values: Any) -> list[bytes]:
    """The strings of an `expected.json`, flat and in C order."""
    if isinstance(values, str):
        return [bytes.fromhex(values)]
    return [string for value in values for string in listed_strings(value)]


def listed_tensor(about: dict[str, Any]) -> torch.Tensor:
    """The `values` of a numeric tensor in an `expected.json`."""
    dtype, shape = TORCH_DTYPES[about["dtype"]], about["shape"]
    if dtype.is_complex:
        parts = torch.tensor(about["values"], dtype=dtype.to_real()).reshape(*shape, 2)
        return torch.view_as_complex(parts)
    if dtype == torch.uint64:  # torch.tensor() refuses the upper half
        return torch.from_numpy(np.array(about["values"], dtype=np.uint64))
    exact = torch.float64 if dtype.is_floating_point else torch.int64
    return torch.tensor(about["values"], dtype=exact).reshape(shape).to(dtype)


def open_bundle(prefix: Path, *, verify: bool = True) -> BundleCheckpoint:
    return BundleCheckpoint(str(prefix), verify=verify)


def floats(count: int, start: int = 0) -> bytes:
    """The float32 numbers `start`, `start + 1`, ..., as stored."""
    return np.arange(start, start + count, dtype="<f4").tobytes()


def float_entry(key: str, *shape: int, **lies: Any) -> BundleEntry:
    """A float32 tensor that counts up from 0."""
    return BundleEntry(key, DType.FLOAT, shape, floats(int(np.prod(shape))), **lies)


class RecordingFile(storage.LocalFile):
    """A local file that notes which bytes it was asked for."""

    def __init__(self, url: str, log: list[tuple[str, int, int]]) -> None:
        super().__init__(url)
        self._log = log

    def read(self, offset: int, length: int) -> storage.Bytes:
        self._log.append((Path(self.url).name, offset, length))
        return super().read(offset, length)

    def pieces(self, offset: int, length: int) -> Iterator[storage.Bytes]:
        self._log.append((Path(self.url).name, offset, length))
        return super().pieces(offset, length)


def assert_read_or_refused(path: Path) -> None:
    """Opening a damaged file and reading all of it ends in tensors or in an error of ours."""
    with contextlib.suppress(WarmStartError), load_checkpoint(path) as checkpoint:
        for key in checkpoint:
            assert checkpoint.get_tensor(key).nbytes <= path.stat().st_size
