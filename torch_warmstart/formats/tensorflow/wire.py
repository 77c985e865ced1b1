"""The encodings TensorFlow's files are made of: varints, protobuf fields, masked CRC-32C.

Five small messages do not justify generated protobuf code, which would tie users to one protobuf
release. Everything here takes bytes and returns plain values; whatever is wrong is a
`MalformedError` with a short fact, to which the caller adds file and offset.

Sources: protobuf's encoding document; leveldb `util/coding.cc`; tensorflow
`core/lib/hash/crc32c.h`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

import google_crc32c

from torch_warmstart.formats.base import MalformedError
from torch_warmstart.storage import Bytes

if TYPE_CHECKING:
    import numpy.typing as npt

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5

FIXED_SIZE = {FIXED64: 8, FIXED32: 4}
MAX_VARINT_BYTES = 10  # 64 bits, seven a byte
_SNAPPY_MAX_RATIO = 22  # a copy element of three bytes yields at most 64
_CRC_MASK_DELTA = 0xA282EAD8  # leveldb util/crc32c.h
_UINT32 = 0xFFFFFFFF

Buffer = TypeVar("Buffer", bytes, memoryview)  # a view where copying a tensor would hurt
FieldValue = int | bytes
Fields = dict[int, list[FieldValue]]
_Crc = TypeVar("_Crc", int, "npt.NDArray[Any]")  # one, or many


def read_varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """An unsigned varint of at most 64 bits, and the position after it."""
    if position < len(data) and data[position] < 0x80:  # nearly always
        return data[position], position + 1
    result = 0
    for shift in range(0, 7 * MAX_VARINT_BYTES, 7):
        if position >= len(data):
            raise MalformedError(f"a varint runs past the end of its {len(data)} bytes")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            if result >> 64:
                break
            return result, position
    raise MalformedError("a varint is longer than 64 bits")


def encode_varint(value: int) -> bytes:
    """The inverse of `read_varint`."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def signed(value: int) -> int:
    """A varint as protobuf's int32 or int64: two's complement in 64 bits."""
    return value - (1 << 64) if value >= 1 << 63 else value


def walk_fields(data: Buffer) -> Iterator[tuple[int, int, int | Buffer]]:
    """Every field of a message in file order: number, wire type, value."""
    position, end = 0, len(data)
    while position < end:
        tag, position = read_varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise MalformedError("field number 0")
        if wire_type == VARINT:
            value, position = read_varint(data, position)
            yield number, wire_type, value
            continue
        if wire_type == BYTES:
            size, position = read_varint(data, position)
        elif wire_type in FIXED_SIZE:
            size = FIXED_SIZE[wire_type]
        else:
            raise MalformedError(f"wire type {wire_type} in field {number}")
        if size > end - position:
            raise MalformedError(f"field {number} claims {size} bytes, {end - position} are left")
        chunk = data[position : position + size]
        position += size
        yield number, wire_type, chunk if wire_type == BYTES else int.from_bytes(chunk, "little")


def read_fields(data: bytes, wire_types: dict[int, int]) -> Fields:
    """The values of the fields in `wire_types`, as lists; fields not asked for are skipped."""
    fields: Fields = {}
    for number, wire_type, value in walk_fields(data):
        expected = wire_types.get(number)
        if expected is None:
            continue
        if wire_type != expected:
            raise MalformedError(f"field {number} has wire type {wire_type} instead of {expected}")
        fields.setdefault(number, []).append(value)
    return fields


def last_int(fields: Fields, number: int, default: int = 0) -> int:
    """The last value of an integer field; protobuf lets later ones win."""
    values = fields.get(number)
    return int(values[-1]) if values else default


def last_bytes(fields: Fields, number: int) -> bytes | None:
    """The last value of a bytes field or submessage."""
    values = fields.get(number)
    return values[-1] if values else None  # type: ignore[return-value]


def all_bytes(fields: Fields, number: int) -> list[bytes]:
    """Every value of a repeated bytes field or submessage."""
    return fields.get(number, [])  # type: ignore[return-value]


def decode_text(data: bytes) -> str:
    """Names in files are UTF-8; a stray byte survives as a lone surrogate instead of failing."""
    return data.decode("utf-8", errors="surrogateescape")


def encode_text(text: str) -> bytes:
    """The inverse of `decode_text`."""
    return text.encode("utf-8", errors="surrogateescape")


def masked_crc(data: Bytes | bytes) -> int:
    """CRC-32C of some bytes, masked as LevelDB and TensorFlow store it."""
    return mask_crc(crc32c(data))


def crc32c(data: Bytes | bytes, crc: int = 0) -> int:
    """CRC-32C, continuing from `crc`."""
    _warn_if_crc_is_slow()
    return int(google_crc32c.extend(crc, data))


def mask_crc(crc: _Crc) -> _Crc:
    """LevelDB's mask: a CRC stored beside its own data should not look like one."""
    rotated = ((crc >> 15) | (crc << 17)) & _UINT32
    return (rotated + _CRC_MASK_DELTA) & _UINT32


@functools.cache
def _warn_if_crc_is_slow() -> None:
    if google_crc32c.implementation != "c":
        logging.getLogger(__name__).warning(
            "google-crc32c runs its pure Python fallback on this machine: verifying a checkpoint "
            "is some hundred times slower. Install its binary wheel, or pass verify=False."
        )


def unsnap(data: bytes) -> bytes:
    """A block of snappy's, unfolded; MalformedError if it is none, or claims too much."""
    import cramjam  # TensorFlow's own bundles are not compressed

    length, _ = read_varint(data, 0)
    if length > _SNAPPY_MAX_RATIO * len(data):  # before it is allocated
        raise MalformedError(f"{len(data)} snappy bytes claim to unfold to {length}")
    try:
        unfolded = bytes(cramjam.snappy.decompress_raw(data))
    except cramjam.DecompressionError as error:
        raise MalformedError(f"its snappy data: {error}") from error
    if len(unfolded) != length:
        raise MalformedError(f"its snappy data unfolds to {len(unfolded)} bytes, not {length}")
    return unfolded
