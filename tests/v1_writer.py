"""Writes TensorFlow V1 checkpoints from numbers, without TensorFlow and without torch_warmstart.

As in `bundle_writer`, whatever the caller gives is written as it is, even if it is a lie.
`formats/test_v1.py` reads what it writes with real TensorFlow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle_writer import (
    FULL,
    DType,
    Extent,
    encode_tensor_name_slice,
    field_bytes,
    field_varint,
    shape_proto,
    slice_proto,
    varint,
    write_table,
)

_FIELDS = {  # number of the repeated field, struct's letter; None: varints
    DType.FLOAT: (5, "f"),
    DType.DOUBLE: (6, "d"),
    DType.COMPLEX64: (9, "f"),
    DType.COMPLEX128: (12, "d"),
    DType.HALF: (13, None),
    DType.BFLOAT16: (13, None),
    DType.INT64: (10, None),
    DType.BOOL: (11, None),
    DType.UINT32: (16, None),
    DType.UINT64: (17, None),
    DType.STRING: (8, None),
}
_INT_VAL = (7, None)
_WIRE_TYPES = {"f": 5, "d": 1, None: 0}


@dataclass(frozen=True)
class V1Slice:
    """A slice of a tensor.

    Attributes:
        extents: One (start, length) a dimension, `FULL` for all of it.
        proto: Its elements as an encoded TensorProto, see `tensor_proto`.
        file: Which file of a sharded checkpoint gets it.
        listed: Whether the file's list has it.
        stored: Whether the file has its elements.
    """

    extents: Sequence[Extent]
    proto: bytes
    file: int = 0
    listed: bool = True
    stored: bool = True


@dataclass(frozen=True)
class V1Tensor:
    """A tensor; `dtype` is a number of TensorFlow's DataType."""

    name: str
    dtype: int
    shape: Sequence[int]
    slices: Sequence[V1Slice]


def tensor_proto(dtype: int, elements: Sequence[Any], *, packed: bool = True) -> bytes:
    """Encodes the elements: numbers (bits of a half, parts of a complex), or strings."""
    number, letter = _FIELDS.get(DType(dtype), _INT_VAL)
    if dtype == DType.STRING:
        return b"".join(field_bytes(number, string) for string in elements)
    encoded = [varint(e) if letter is None else struct.pack(f"<{letter}", e) for e in elements]
    if packed:
        return field_bytes(number, b"".join(encoded)) if encoded else b""
    return b"".join(varint(number << 3 | _WIRE_TYPES[letter]) + element for element in encoded)


def whole(
    name: str, dtype: int, shape: Sequence[int], elements: Sequence[Any], *, file: int = 0
) -> V1Tensor:
    """A tensor in one piece."""
    return V1Tensor(
        name, dtype, shape, [V1Slice([FULL] * len(shape), tensor_proto(dtype, elements), file)]
    )


def build_v1(
    tensors: Iterable[V1Tensor], *, file: int = 0, versions: bytes | None = b"\x08\x01"
) -> dict[bytes, bytes]:
    """The records of one file, for tests that want to change something before it is written.

    Args:
        tensors: All tensors of the checkpoint.
        file: Which of its files this is; only slices of this file are in it.
        versions: The encoded VersionDef; None leaves it out, as in early 2016.
    """
    listed, records = b"", {}
    for tensor in tensors:
        here = [part for part in tensor.slices if part.file == file]
        if here:
            listed += field_bytes(1, _slice_meta(tensor, [p for p in here if p.listed]))
        for part in here:
            if part.stored:
                key = encode_tensor_name_slice(tensor.name, part.extents)
                records[key] = _record(tensor.name, part)
    meta = listed + (b"" if versions is None else field_bytes(2, versions))
    return {b"": field_bytes(1, meta), **records}


def _slice_meta(tensor: V1Tensor, parts: Sequence[V1Slice]) -> bytes:
    head = field_bytes(1, tensor.name.encode()) + field_bytes(2, shape_proto(tensor.shape))
    slices = b"".join(field_bytes(4, slice_proto(part.extents)) for part in parts)
    return head + field_varint(3, tensor.dtype) + slices


def _record(name: str, part: V1Slice) -> bytes:
    place = field_bytes(1, name.encode()) + field_bytes(2, slice_proto(part.extents))
    return field_bytes(2, place + field_bytes(3, part.proto))


def write_v1(
    prefix: str | Path,
    tensors: Sequence[V1Tensor],
    *,
    num_files: int | None = None,
    versions: bytes | None = b"\x08\x01",
    **table_options: Any,
) -> None:
    """Writes a V1 checkpoint; `table_options` are those of `bundle_writer.write_table`.

    Args:
        prefix: Its path.
        tensors: What is in it.
        num_files: None: it is the file `prefix`. Else it is `prefix-00000-of-0000n`, ....
        versions: See `build_v1`.
    """
    Path(prefix).parent.mkdir(parents=True, exist_ok=True)
    for file in range(num_files or 1):
        records = build_v1(tensors, file=file, versions=versions)
        path = f"{prefix}-{file:05d}-of-{num_files:05d}" if num_files else str(prefix)
        Path(path).write_bytes(write_table(sorted(records.items()), **table_options))
