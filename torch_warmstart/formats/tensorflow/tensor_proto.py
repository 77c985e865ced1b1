"""The elements of a TensorProto, where they lie in one typed repeated field.

So V1 checkpoints keep every tensor: float_val for floats, int_val for all small integers, and so
on; never in tensor_content, never shortened. Fixed-width elements are taken as they lie in the
file, varints are decoded a stretch at a time.

Sources: tensorflow `core/framework/tensor.proto`; which field for which type:
`core/util/saved_tensor_slice_util.h`, TENSOR_PROTO_EXTRACT_TYPE. Whatever is wrong is a
`MalformedError`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from torch_warmstart.formats.base import MalformedError
from torch_warmstart.formats.tensorflow.dtypes import StoredType
from torch_warmstart.formats.tensorflow.wire import (
    BYTES,
    FIXED32,
    FIXED64,
    FIXED_SIZE,
    MAX_VARINT_BYTES,
    VARINT,
    encode_varint,
    walk_fields,
)
from torch_warmstart.storage import Bytes
from torch_warmstart.values import frozen

_STRING_FIELD = 8
_NUMBER_FIELDS = {  # field and wire type of an element; a complex number is two elements
    "half": (13, VARINT),  # its bits
    "bfloat16": (13, VARINT),
    "float": (5, FIXED32),
    "double": (6, FIXED64),
    "complex64": (9, FIXED32),
    "complex128": (12, FIXED64),
    "int64": (10, VARINT),
    "bool": (11, VARINT),
    "uint32": (16, VARINT),
    "uint64": (17, VARINT),
    **dict.fromkeys(("int32", "int16", "int8", "uint16", "uint8"), (7, VARINT)),
    **dict.fromkeys(("qint32", "qint16", "qint8", "quint16", "quint8"), (7, VARINT)),
}
_LAST_BYTE = 0x80  # a varint's last byte is below
_STRETCH = 1 << 18  # bytes of varints decoded at a time: a few MB of intermediate arrays


@frozen
class Numbers:
    """The elements of a numeric tensor, packed as protobuf packs them."""

    stored: StoredType
    packed: Bytes
    is_varint: bool

    def count(self) -> int:
        """Number of elements, told without decoding them."""
        if self.is_varint:
            return int(np.count_nonzero(self.packed < _LAST_BYTE))
        return len(self.packed) // self.stored.itemsize

    def decode(self) -> torch.Tensor:
        """The elements as a flat tensor, on top of the file's bytes where that is possible."""
        dtype, packed = self.stored.dtype, self.packed
        assert dtype is not None
        if not packed.size:
            return torch.empty(0, dtype=dtype)
        if self.is_varint:
            return torch.from_numpy(self._decode_varints()).view(dtype)
        if packed.size % self.stored.itemsize:
            raise MalformedError(f"{packed.size} bytes are no whole number of {self.stored.name}")
        if not packed.flags.writeable or packed.ctypes.data % self.stored.itemsize:
            packed = (
                packed.copy()
            )  # torch wants its tensors writable, its kernels want them aligned
        return torch.from_numpy(packed).view(dtype)

    def _decode_varints(self) -> npt.NDArray[Any]:
        """Integers of the tensor's size, in two's complement whatever their sign."""
        if self.packed[-1] >= _LAST_BYTE:
            raise MalformedError("its last varint has no end")
        elements = np.empty(self.count(), dtype=f"u{self.stored.itemsize}")
        start, done = 0, 0
        while start < len(self.packed):
            stretch = self.packed[start : start + _STRETCH]
            ends = np.flatnonzero(stretch < _LAST_BYTE)
            if not ends.size:
                raise MalformedError(f"a varint is longer than {MAX_VARINT_BYTES} bytes")
            values = _decode_stretch(stretch, ends)
            if self.stored.dtype is torch.bool:
                values = (values != 0).view(np.uint8)
            elements[done : done + len(ends)] = values  # the low bits, as TF's cast keeps
            done += len(ends)
            start += int(ends[-1]) + 1
        return elements


def _decode_stretch(raw: Bytes, ends: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """The varints that end at `ends`; all first bytes at once, then all second bytes, ..."""
    if len(ends) == len(raw):
        return raw
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > MAX_VARINT_BYTES:
        raise MalformedError(f"a varint is longer than {MAX_VARINT_BYTES} bytes")
    values = (raw[starts] & 0x7F).astype(np.uint64)
    for at in range(1, longest):
        longer = np.flatnonzero(lengths > at)
        bits = (raw[starts[longer] + at] & 0x7F).astype(np.uint64)
        values[longer] |= bits << np.uint64(7 * at)
    return values


def read_numbers(proto: memoryview, stored: StoredType) -> Numbers:
    """The elements of a numeric TensorProto; nothing is decoded yet."""
    if stored.name not in _NUMBER_FIELDS:
        raise MalformedError(f"type {stored.name} is none that a V1 checkpoint can hold")
    number, wire_type = _NUMBER_FIELDS[stored.name]
    chunks: list[memoryview | bytearray] = []
    for found, kind, value in walk_fields(proto):
        if found != number:
            continue
        if isinstance(value, memoryview):
            chunks.append(value)
        elif kind != wire_type:
            raise MalformedError(f"field {number} has wire type {kind} instead of {wire_type}")
        else:  # not packed: one element a field, as protobuf readers must accept
            last = chunks[-1] if chunks else None
            if not isinstance(last, bytearray):
                chunks.append(last := bytearray())
            last += _pack(value, wire_type)
    packed = chunks[0] if len(chunks) == 1 else bytearray().join(chunks)
    return Numbers(stored, np.frombuffer(packed, dtype=np.uint8), wire_type == VARINT)


def _pack(value: int, wire_type: int) -> bytes:
    if wire_type == VARINT:
        return encode_varint(value)
    return value.to_bytes(FIXED_SIZE[wire_type], "little")


def read_strings(proto: memoryview) -> list[bytes]:
    """The elements of a string TensorProto."""
    strings = []
    for number, kind, value in walk_fields(proto):
        if number != _STRING_FIELD:
            continue
        if not isinstance(value, memoryview):
            raise MalformedError(f"field {number} has wire type {kind} instead of {BYTES}")
        strings.append(bytes(value))
    return strings
