"""The protobuf messages of TensorFlow checkpoints, decoded into plain values.

Sources: tensorflow `core/protobuf/tensor_bundle.proto`, `core/framework/tensor_shape.proto`,
`tensor_slice.proto`, `versions.proto`; string tensors: `core/util/tensor_bundle/tensor_bundle.cc`.
Whatever is wrong is a `MalformedError`.
"""

from __future__ import annotations

import functools
import math
import re
from typing import Literal, NamedTuple

import numpy as np

from torch_warmstart.formats import slices
from torch_warmstart.formats.base import MalformedError
from torch_warmstart.formats.tensorflow.dtypes import STORED_TYPES, StoredType
from torch_warmstart.formats.tensorflow.wire import (
    BYTES,
    FIXED32,
    VARINT,
    all_bytes,
    crc32c,
    last_bytes,
    last_int,
    mask_crc,
    read_fields,
    read_varint,
    signed,
    walk_fields,
)
from torch_warmstart.storage import Bytes
from torch_warmstart.values import frozen

_READER_VERSION = 1  # kTensorBundleVersion, and TF_CHECKPOINT_VERSION of V1
_BIG_ENDIAN = 1
_MAX_RANK = 254  # TensorShape::MaxDimensions
_HEADER_FIELDS = {1: VARINT, 2: VARINT, 3: BYTES}
_ENTRY_FIELDS = {1: VARINT, 2: BYTES, 3: VARINT, 4: VARINT, 5: VARINT, 6: FIXED32, 7: BYTES}
_CRC_SIZE = 4
# What follows dtype and shape where TensorFlow has written an entry: shard, offset, size, crc. Its
# varints are of 56 bits at most, so they are never negative.
_PLACE = re.compile(
    rb"(?:\x18([\x00-\x7f]))?"
    rb"(?:\x20([\x80-\xff]{0,7}[\x00-\x7f]))?"
    rb"(?:\x28([\x80-\xff]{0,7}[\x00-\x7f]))?"
    rb"\x35(.{4})",
    re.DOTALL,
)


@frozen
class Header:
    """The header of a bundle."""

    num_shards: int
    big_endian: bool


class Entry(NamedTuple):  # made in a third of a dataclass's time, and there may be 100,000
    """A tensor of a bundle, or one slice of it."""

    stored: StoredType
    shape: tuple[int, ...]
    shard: int
    offset: int  # in the data file, bytes
    size: int  # bytes
    crc: int  # masked
    slices: tuple[tuple[slices.Extent, ...], ...]

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; the whole of a scalar."""
        return math.prod(self.shape[1:]) * self.stored.itemsize


def decode_header(value: bytes) -> Header:
    """BundleHeaderProto; refuses versions that a TensorFlow of this format would."""
    fields = read_fields(value, _HEADER_FIELDS)
    num_shards = signed(last_int(fields, 1))
    if num_shards < 1:
        raise MalformedError(f"it counts {num_shards} data files")
    endianness = last_int(fields, 2)
    if endianness not in (0, _BIG_ENDIAN):
        raise MalformedError(f"unknown endianness {endianness}")
    check_version(last_bytes(fields, 3) or b"")
    return Header(num_shards, endianness == _BIG_ENDIAN)


def check_version(value: bytes) -> None:
    """VersionDef; V1 and V2 checkpoints are both of version 1, early V1 files of version 0."""
    producer, min_consumer, bad_consumers = 0, 0, set()
    for number, wire_type, field in walk_fields(value):
        if number == 1 and wire_type == VARINT:
            producer = signed(int(field))
        elif number == 2 and wire_type == VARINT:
            min_consumer = signed(int(field))
        elif number == 3:
            bad_consumers |= _ints(field)
    if min_consumer > _READER_VERSION or _READER_VERSION in bad_consumers or producer < 0:
        raise MalformedError(
            f"it asks for a reader of version {min_consumer} (producer {producer}, bad readers "
            f"{sorted(bad_consumers)}); this is version {_READER_VERSION}"
        )


def _ints(field: int | bytes) -> set[int]:
    if isinstance(field, int):
        return {field}
    values, position = set(), 0
    while position < len(field):
        value, position = read_varint(field, position)
        values.add(value)
    return values


def decode_entry(value: bytes) -> Entry:
    """BundleEntryProto.

    TensorFlow writes the fields in order. What a message in two parts means, its parts mean
    together, so where the first is dtype and shape and the rest is as usual, no field is walked.
    """
    cut = 4 + value[3] if len(value) > 3 else 0  # value[3] is the size of the shape
    place = _PLACE.fullmatch(value, cut)
    content = _decode_content(value[:cut])
    if place is None or content is None:
        return _decode_unusual_entry(value)
    stored, shape = content
    shard, offset, size, crc = place.groups(b"\0")
    return Entry(
        stored,
        shape,
        shard[0],
        offset[0] if len(offset) == 1 else _join_sevens(offset),
        size[0] if len(size) == 1 else _join_sevens(size),
        int.from_bytes(crc, "little"),
        (),
    )


@functools.lru_cache(maxsize=4096)  # a model has many tensors, but few shapes
def _decode_content(data: bytes) -> tuple[StoredType, tuple[int, ...]] | None:
    """Dtype and shape, if these bytes are both and nothing else."""
    try:
        fields = read_fields(data, _ENTRY_FIELDS)
        if fields.keys() == {1, 2} and last_int(fields, 1) in STORED_TYPES:
            return STORED_TYPES[last_int(fields, 1)], decode_shape(last_bytes(fields, 2) or b"")
    except MalformedError:
        pass
    return None  # whoever decodes all of it will say what is wrong


def _join_sevens(data: bytes) -> int:
    value = 0
    for byte in reversed(data):
        value = value << 7 | byte & 0x7F
    return value


def _decode_unusual_entry(value: bytes) -> Entry:
    fields = read_fields(value, _ENTRY_FIELDS)
    number = last_int(fields, 1)
    if number not in STORED_TYPES:
        raise MalformedError(f"unknown dtype number {number}")
    return Entry(
        stored=STORED_TYPES[number],
        shape=decode_shape(last_bytes(fields, 2) or b""),
        shard=signed(last_int(fields, 3)),
        offset=signed(last_int(fields, 4)),
        size=signed(last_int(fields, 5)),
        crc=last_int(fields, 6),
        slices=tuple(decode_slice(data) for data in all_bytes(fields, 7)),
    )


@functools.lru_cache(maxsize=4096)  # a model has many tensors, but few shapes
def decode_shape(data: bytes) -> tuple[int, ...]:
    """TensorShapeProto: known sizes, whose product fits in 64 bits."""
    fields = read_fields(data, {2: BYTES, 3: VARINT})
    if last_int(fields, 3):
        raise MalformedError("its rank is unknown")
    dims = all_bytes(fields, 2)
    if len(dims) > _MAX_RANK:  # before multiplying: a long product takes the square of its length
        raise MalformedError(f"impossible shape of {len(dims)} dimensions")
    sizes = tuple(signed(last_int(read_fields(dim, {1: VARINT}), 1)) for dim in dims)
    strides = math.prod(size or 1 for size in sizes)  # in 64 bits, of an empty tensor too
    if any(size < 0 for size in sizes) or strides >= 1 << 63:
        raise MalformedError(f"impossible shape {list(sizes[:8])}")
    return sizes


def decode_slice(data: bytes) -> tuple[slices.Extent, ...]:
    """TensorSliceProto: an extent a dimension, as written."""
    extents = []
    for extent in all_bytes(read_fields(data, {1: BYTES}), 1):
        fields = read_fields(extent, {1: VARINT, 2: VARINT})
        length = signed(last_int(fields, 2)) if 2 in fields else slices.FULL
        extents.append((signed(last_int(fields, 1)), length))
    return tuple(extents)


def check_size(entry: Entry) -> None:
    """Raises MalformedError unless an entry has the bytes its shape and type take."""
    if entry.stored.dtype is None:  # strings: only their bytes tell
        return
    needed = entry.numel * entry.stored.itemsize
    if entry.size != needed:
        raise MalformedError(
            f"it has {entry.size:,} bytes, but shape {list(entry.shape)} of "
            f"{entry.stored.name} takes {needed:,}"
        )


def decode_strings(raw: Bytes, entry: Entry, *, check: bool, big_endian: bool) -> list[bytes]:
    """`varint length` times n, masked crc of the lengths, then the bytes."""
    data = raw.tobytes()
    if entry.numel > len(data):  # a length takes at least a byte: refuse before looping
        raise MalformedError(f"{entry.numel} strings do not fit in {len(data)} bytes")
    lengths, position = [], 0
    for _ in range(entry.numel):
        length, position = read_varint(data, position)
        lengths.append(length)
    start = position + _CRC_SIZE
    if start + sum(lengths) != len(data):
        raise MalformedError(f"its strings take {start + sum(lengths)} bytes, not {len(data)}")
    if check:
        _check_string_crc(data, lengths, position, entry.crc, big_endian)
    strings = []
    for length in lengths:
        strings.append(data[start : start + length])
        start += length
    return strings


def _check_string_crc(
    data: bytes, lengths: list[int], position: int, stored: int, big_endian: bool
) -> None:
    order: Literal["big", "little"] = "big" if big_endian else "little"
    crc = crc32c(_fixed_lengths(lengths, order))
    stored_lengths_crc = data[position : position + _CRC_SIZE]
    if mask_crc(crc) != int.from_bytes(stored_lengths_crc, order):
        raise MalformedError("the checksum of its string lengths does not match")
    if mask_crc(crc32c(data[position:], crc)) != stored:
        raise MalformedError("the checksum of its strings does not match")


def _fixed_lengths(lengths: list[int], order: Literal["big", "little"]) -> bytes:
    """The lengths as they enter the checksum: 32 bits each, 64 where it takes them."""
    if max(lengths, default=0) < 1 << 32:  # always but for a string of 4 GB; not as Python objects
        return np.array(lengths, dtype="<u4" if order == "little" else ">u4").tobytes()
    return b"".join(n.to_bytes(4 if n < 1 << 32 else 8, order) for n in lengths)
