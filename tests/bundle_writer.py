"""Writes TensorFlow V2 checkpoints from plain bytes, without TensorFlow.

The reader under test must not be checked only against files that one version of TensorFlow likes
to write. This module writes the rest: many small blocks, compressed blocks, several shards,
big-endian data, sliced tensors of any dtype, padding between tensors, and files that lie.

It shares no code with ``torch_warmstart`` (a mistake in shared code would cancel out), and
``test_bundle_writer.py`` reads what it writes back with real TensorFlow.

Bottom-up: integers and checksums, protobuf fields, OrderedCode keys, the SSTable, the bundle.
The rule of the lies: every number in a file is computed honestly unless the caller gives another
one, and then it is written as it is. No function refuses a value because it is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Literal, NamedTuple

import cramjam
import google_crc32c
import numpy as np

Compression = Literal["none", "snappy"]
Endianness = Literal["little", "big"]
Extent = tuple[int, int]  # (start, length) of a slice in one dimension
TensorData = bytes | Sequence[bytes]  # raw little-endian elements, or the strings of a DT_STRING

FULL: Extent = (0, -1)  # "all of this dimension": TF's own encoding of a missing extent
TABLE_MAGIC = 0xDB4775248B80FB57
EMPTY_CRC = 0xA282EAD8  # the masked crc of no bytes


class DType(IntEnum):
    """TensorFlow's DataType numbers (the ones that can be stored)."""

    FLOAT = 1
    DOUBLE = 2
    INT32 = 3
    UINT8 = 4
    INT16 = 5
    INT8 = 6
    STRING = 7
    COMPLEX64 = 8
    INT64 = 9
    BOOL = 10
    QINT8 = 11
    QUINT8 = 12
    QINT32 = 13
    BFLOAT16 = 14
    QINT16 = 15
    QUINT16 = 16
    UINT16 = 17
    COMPLEX128 = 18
    HALF = 19
    VARIANT = 21
    UINT32 = 22
    UINT64 = 23
    FLOAT8_E5M2 = 24
    FLOAT8_E4M3FN = 25
    FLOAT8_E4M3FNUZ = 26
    FLOAT8_E4M3B11FNUZ = 27
    FLOAT8_E5M2FNUZ = 28
    INT4 = 29
    UINT4 = 30
    INT2 = 31
    UINT2 = 32
    FLOAT4_E2M1FN = 33


# Bytes that a big-endian machine stores in the other order. A complex number is two floats.
_SWAP_WIDTH = {
    **dict.fromkeys((DType.INT16, DType.UINT16, DType.QINT16, DType.QUINT16), 2),
    **dict.fromkeys((DType.HALF, DType.BFLOAT16), 2),
    **dict.fromkeys((DType.FLOAT, DType.INT32, DType.UINT32, DType.QINT32, DType.COMPLEX64), 4),
    **dict.fromkeys((DType.DOUBLE, DType.INT64, DType.UINT64, DType.COMPLEX128), 8),
}


# ---- Integers and checksums ------------------------------------------------------------------


def varint(value: int) -> bytes:
    """Encodes a base-128 varint; negative numbers as 64-bit two's complement, as protobuf does."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def mask_crc(crc: int) -> int:
    """Masks a crc, so that a crc of bytes that contain crcs stays a good crc."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """Returns the masked CRC-32C (Castagnoli) of `data`."""
    return mask_crc(google_crc32c.value(data))


def byte_swapped(data: bytes, width: int) -> bytes:
    """Reverses the bytes of every `width`-byte element."""
    out = bytearray(len(data))
    for i in range(width):
        out[i::width] = data[width - 1 - i :: width]
    return bytes(out)


# ---- Protobuf fields -------------------------------------------------------------------------


def field_varint(number: int, value: int, *, keep_zero: bool = False) -> bytes:
    """Encodes an integer, bool or enum field; proto3 leaves zero out unless it is in a oneof."""
    if not value and not keep_zero:
        return b""
    return varint(number << 3) + varint(value)


def field_fixed32(number: int, value: int) -> bytes:
    """Encodes a fixed32 field; zero is left out."""
    return varint(number << 3 | 5) + struct.pack("<I", value) if value else b""


def field_bytes(number: int, value: bytes) -> bytes:
    """Encodes a string, bytes or message field; an empty message is still written."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def shape_proto(dims: Iterable[int], *, unknown_rank: bool = False) -> bytes:
    """Encodes a TensorShapeProto."""
    sizes = b"".join(field_bytes(2, field_varint(1, dim)) for dim in dims)
    return sizes + field_varint(3, unknown_rank)


def slice_proto(extents: Iterable[Extent]) -> bytes:
    """Encodes a TensorSliceProto; a `FULL` extent is an empty message."""
    return b"".join(field_bytes(1, _extent_proto(*extent)) for extent in extents)


def _extent_proto(start: int, length: int) -> bytes:
    if (start, length) == FULL:
        return b""
    return field_varint(1, start) + field_varint(2, length, keep_zero=True)


def header_proto(
    num_shards: int = 1,
    *,
    endianness: Endianness = "little",
    producer: int = 1,
    min_consumer: int = 0,
    bad_consumers: Sequence[int] = (),
) -> bytes:
    """Encodes a BundleHeaderProto."""
    version = field_varint(1, producer) + field_varint(2, min_consumer)
    if bad_consumers:
        version += field_bytes(3, b"".join(map(varint, bad_consumers)))  # packed, as proto3 does
    return (
        field_varint(1, num_shards) + field_varint(2, endianness == "big") + field_bytes(3, version)
    )


class Place(NamedTuple):
    """Where the bytes of a tensor are, and their masked crc."""

    shard_id: int = 0
    offset: int = 0
    size: int = 0
    crc: int = 0


NOWHERE = Place()  # of a partitioned tensor as a whole: only its slices have bytes


def entry_proto(
    dtype: int, shape: bytes, place: Place = NOWHERE, slices: Iterable[bytes] = ()
) -> bytes:
    """Encodes a BundleEntryProto; `shape` and `slices` are encoded messages."""
    head = field_varint(1, dtype) + field_bytes(2, shape) + field_varint(3, place.shard_id)
    where = field_varint(4, place.offset) + field_varint(5, place.size)
    tail = field_fixed32(6, place.crc) + b"".join(field_bytes(7, part) for part in slices)
    return head + where + tail


# ---- OrderedCode: keys of slices -------------------------------------------------------------


def ordered_string(value: bytes) -> bytes:
    """Encodes a string so that encoded strings sort as the strings do."""
    escapes = {0x00: b"\x00\xff", 0xFF: b"\xff\x00"}
    return b"".join(escapes.get(byte, bytes([byte])) for byte in value) + b"\x00\x01"


def ordered_number(value: int) -> bytes:
    """Encodes an unsigned number so that encoded numbers sort as the numbers do."""
    digits = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(digits)]) + digits


def ordered_signed(value: int) -> bytes:
    """Encodes a signed number so that encoded numbers sort as the numbers do.

    With n bytes, the n leading bits tell the length (inverted for negative numbers), which leaves
    7n bits for the two's complement.
    """
    size = next(n for n in range(1, 11) if -(1 << 7 * n - 1) <= value < 1 << 7 * n - 1)
    header = (1 << size) - 1 << 7 * size
    return ((value & (1 << 8 * size) - 1) ^ header).to_bytes(size, "big")


def encode_tensor_name_slice(name: str | bytes, extents: Sequence[Extent]) -> bytes:
    """Returns the index key of one slice of the tensor `name`."""
    numbers = (ordered_signed(number) for extent in extents for number in extent)
    head = ordered_number(0) + ordered_string(_as_bytes(name)) + ordered_number(len(extents))
    return head + b"".join(numbers)


def _as_bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key


# ---- SSTable ---------------------------------------------------------------------------------


class _Block:
    """One block under construction: entries with shared prefixes, then the restart points."""

    def __init__(self, restart_interval: int) -> None:
        self._interval = restart_interval
        self._buffer = bytearray()
        self._restarts = [0]
        self._since_restart = 0
        self.last_key = b""

    def add(self, key: bytes, value: bytes) -> None:
        if self._since_restart == self._interval:
            self._restarts.append(len(self._buffer))
            self._since_restart = 0
        shared = _common_prefix(self.last_key, key) if self._since_restart else 0
        self._buffer += varint(shared) + varint(len(key) - shared) + varint(len(value))
        self._buffer += key[shared:] + value
        self._since_restart += 1
        self.last_key = key

    def size(self) -> int:
        return len(self._buffer) + 4 * len(self._restarts) + 4

    def finish(self) -> bytes:
        tail = [*self._restarts, len(self._restarts)]
        return bytes(self._buffer) + struct.pack(f"<{len(tail)}I", *tail)


def _common_prefix(a: bytes, b: bytes) -> int:
    length = min(len(a), len(b))
    return next((i for i in range(length) if a[i] != b[i]), length)


def encode_block(entries: Iterable[tuple[bytes, bytes]], *, restart_interval: int = 16) -> bytes:
    """Encodes the contents of one block, without its trailer."""
    block = _Block(restart_interval)
    for key, value in entries:
        block.add(key, value)
    return block.finish()


def sealed_block(contents: bytes, *, compression: Compression = "none") -> bytes:
    """Adds what follows a block on disk: the compression byte and the masked crc."""
    if compression == "snappy":
        contents = bytes(cramjam.snappy.compress_raw(contents))
    typed = contents + bytes([compression == "snappy"])
    return typed + struct.pack("<I", masked_crc32c(typed))


def shortest_separator(last: bytes, following: bytes) -> bytes:
    """Returns a short key k with last <= k < following, which need not be a real key."""
    at = _common_prefix(last, following)
    if at < min(len(last), len(following)) and last[at] + 1 < following[at]:
        return last[:at] + bytes([last[at] + 1])
    return last


def short_successor(last: bytes) -> bytes:
    """Returns a short key k with last <= k: the separator behind the last block."""
    at = next((i for i, byte in enumerate(last) if byte != 0xFF), None)
    return last if at is None else last[:at] + bytes([last[at] + 1])


def footer(metaindex: tuple[int, int], index: tuple[int, int]) -> bytes:
    """Encodes the last 48 bytes of a table from two block handles (offset, size)."""
    handles = b"".join(map(varint, (*metaindex, *index)))
    return handles.ljust(40, b"\0") + struct.pack("<Q", TABLE_MAGIC)


def write_table(
    entries: Iterable[tuple[bytes, bytes]],
    *,
    block_size: int = 262144,
    restart_interval: int = 16,
    compression: Compression = "none",
) -> bytes:
    """Encodes an SSTable.

    Args:
        entries: Keys and values in the order to write them. A sane table is sorted by key and has
            no key twice, but that is the caller's business.
        block_size: A data block is closed as soon as it has this many bytes.
        restart_interval: Entries between two keys that are stored whole.
        compression: Applied to every block, the index block included, whether it helps or not.

    Returns:
        The bytes of the table.
    """
    out = bytearray()

    def append(contents: bytes) -> tuple[int, int]:
        sealed = sealed_block(contents, compression=compression)
        out.extend(sealed)
        return len(out) - len(sealed), len(sealed) - 5

    index = _Block(1)
    for contents, separator in _data_blocks(entries, block_size, restart_interval):
        index.add(separator, b"".join(map(varint, append(contents))))
    metaindex_handle = append(encode_block([]))
    index_handle = append(index.finish())
    return bytes(out) + footer(metaindex_handle, index_handle)


def _data_blocks(
    entries: Iterable[tuple[bytes, bytes]], block_size: int, restart_interval: int
) -> Iterator[tuple[bytes, bytes]]:
    """Yields the contents of each data block and the key that goes into the index for it."""
    block, full = _Block(restart_interval), False
    for key, value in entries:
        if full:
            yield block.finish(), shortest_separator(block.last_key, key)
            block = _Block(restart_interval)
        block.add(key, value)
        full = block.size() >= block_size
    if block.size() > len(encode_block([])):
        yield block.finish(), short_successor(block.last_key)


# ---- Tensor bundle ---------------------------------------------------------------------------


@dataclass(frozen=True)
class BundleSlice:
    """One slice of a partitioned tensor; see `BundleEntry` for the fields below `shard`.

    Attributes:
        extents: One (start, length) a dimension, `FULL` for all of it.
        data: The elements of the slice.
        shard: The data file that gets the bytes.
    """

    extents: Sequence[Extent]
    data: TensorData
    shard: int = 0
    dtype: int | None = None
    shape_dims: Sequence[int] | None = None
    shard_id: int | None = None
    offset: int | None = None
    size: int | None = None
    crc: int | None = None


@dataclass(frozen=True)
class BundleEntry:
    """One tensor of a bundle.

    The fields below `shard` are lies: where they are not None they are written in place of the
    true values, and nothing else changes.

    Attributes:
        key: Name of the tensor.
        dtype: DataType number, see `DType`.
        shape: Shape of the full tensor.
        data: Raw little-endian elements in C order, or the strings of a string tensor. Unused
            if there are slices.
        slices: The parts of a partitioned tensor, as `BundleSlice` or as (extents, data).
        shard: The data file that gets the bytes.
        shape_dims: Sizes to put into the shape, for instance negative or huge ones.
        unknown_rank: Whether to set this flag of the shape.
        shard_id: Data file that the index names.
        offset: Offset that the index names.
        size: Number of bytes that the index names.
        crc: Masked checksum that the index names.
    """

    key: str | bytes
    dtype: int
    shape: Sequence[int]
    data: TensorData = b""
    slices: Sequence[BundleSlice | tuple[Sequence[Extent], TensorData]] = ()
    shard: int = 0
    shape_dims: Sequence[int] | None = None
    unknown_rank: bool = False
    shard_id: int | None = None
    offset: int | None = None
    size: int | None = None
    crc: int | None = None


def encode_strings(
    strings: Sequence[bytes], endianness: Endianness = "little"
) -> tuple[bytes, int]:
    """Encodes the elements of a string tensor.

    Returns:
        The bytes, and their masked crc. It is not the crc of the bytes: the lengths enter it as
        32-bit numbers (64-bit beyond that), although they are stored as varints.
    """
    order = "<" if endianness == "little" else ">"
    sizes = [len(string) for string in strings]
    hashed = b"".join(struct.pack(order + "IQ"[size >> 32 > 0], size) for size in sizes)
    checksum = struct.pack(order + "I", masked_crc32c(hashed))
    body = b"".join(strings)
    crc = google_crc32c.extend(google_crc32c.value(hashed), checksum + body)
    return b"".join(map(varint, sizes)) + checksum + body, mask_crc(crc)


def encode_data(data: TensorData, dtype: int, endianness: Endianness) -> tuple[bytes, int]:
    """Returns the bytes of a tensor as they are stored, and their masked crc."""
    if not isinstance(data, bytes):
        return encode_strings(data, endianness)
    if endianness == "big" and dtype in _SWAP_WIDTH:
        data = byte_swapped(data, _SWAP_WIDTH[DType(dtype)])
    return data, masked_crc32c(data)


class _Shards:
    """The data files under construction."""

    def __init__(self, num_shards: int, endianness: Endianness, alignment: int) -> None:
        self.files = [bytearray() for _ in range(num_shards)]
        self._endianness = endianness
        self._alignment = alignment

    def append(self, data: TensorData, dtype: int, shard: int) -> Place:
        """Stores a tensor and returns where it went."""
        stored, crc = encode_data(data, dtype, self._endianness)
        file = self.files[shard]
        file += bytes(-len(file) % self._alignment)
        place = Place(shard, len(file), len(stored), crc)
        file += stored
        return place


def _with_lies(place: Place, entry: BundleEntry | BundleSlice) -> Place:
    lies = {name: getattr(entry, name) for name in Place._fields}
    return place._replace(**{name: lie for name, lie in lies.items() if lie is not None})


def _plain_record(entry: BundleEntry, shape: bytes, shards: _Shards) -> tuple[bytes, bytes]:
    place = _with_lies(shards.append(entry.data, entry.dtype, entry.shard), entry)
    return _as_bytes(entry.key), entry_proto(entry.dtype, shape, place)


def _slice_record(entry: BundleEntry, part: BundleSlice, shards: _Shards) -> tuple[bytes, bytes]:
    """Encodes the record of one slice, whose shape has every `FULL` extent filled in."""
    dtype = entry.dtype if part.dtype is None else part.dtype
    place = _with_lies(shards.append(part.data, dtype, part.shard), part)
    true_dims = [
        size if extent == FULL else extent[1]
        for size, extent in zip(entry.shape, part.extents, strict=False)
    ]
    dims = true_dims if part.shape_dims is None else part.shape_dims
    key = encode_tensor_name_slice(entry.key, part.extents)
    return key, entry_proto(dtype, shape_proto(dims), place)


def _records(entry: BundleEntry, shards: _Shards) -> Iterator[tuple[bytes, bytes]]:
    dims = entry.shape if entry.shape_dims is None else entry.shape_dims
    shape = shape_proto(dims, unknown_rank=entry.unknown_rank)
    if not entry.slices:
        yield _plain_record(entry, shape, shards)
        return
    parts = [part if isinstance(part, BundleSlice) else BundleSlice(*part) for part in entry.slices]
    extents = [slice_proto(part.extents) for part in parts]
    proto = entry_proto(entry.dtype, shape, _with_lies(NOWHERE, entry), extents)
    yield _as_bytes(entry.key), proto
    for part in parts:
        yield _slice_record(entry, part, shards)


def build_bundle(
    entries: Iterable[BundleEntry],
    *,
    num_shards: int = 1,
    endianness: Endianness = "little",
    producer: int = 1,
    min_consumer: int = 0,
    bad_consumers: Sequence[int] = (),
    alignment: int = 1,
) -> tuple[dict[bytes, bytes], list[bytes]]:
    """Encodes a bundle, for tests that want to change something before it is written.

    Returns:
        The records of the index (key -> value, the header under the key b"", unsorted), and the
        contents of each data file.
    """
    shards = _Shards(num_shards, endianness, alignment)
    header = header_proto(
        num_shards,
        endianness=endianness,
        producer=producer,
        min_consumer=min_consumer,
        bad_consumers=bad_consumers,
    )
    records = {b"": header}
    for entry in entries:
        records.update(_records(entry, shards))
    return records, [bytes(file) for file in shards.files]


def write_files(prefix: str | Path, index: bytes, shards: Sequence[bytes]) -> None:
    """Writes `prefix.index` and `prefix.data-0000k-of-0000n`, making their folder if needed."""
    Path(prefix).parent.mkdir(parents=True, exist_ok=True)
    Path(f"{prefix}.index").write_bytes(index)
    for number, data in enumerate(shards):
        Path(f"{prefix}.data-{number:05d}-of-{len(shards):05d}").write_bytes(data)


def write_bundle(
    prefix: str | Path,
    entries: Iterable[BundleEntry],
    *,
    num_shards: int = 1,
    endianness: Endianness = "little",
    producer: int = 1,
    min_consumer: int = 0,
    bad_consumers: Sequence[int] = (),
    alignment: int = 1,
    block_size: int = 262144,
    restart_interval: int = 16,
    compression: Compression = "none",
) -> None:
    """Writes a V2 checkpoint.

    Args:
        prefix: Path of the checkpoint, without `.index`.
        entries: The tensors, in the order in which their bytes go into the data files. The index
            is sorted. Of two entries with one key the last one is in the index.
        num_shards: Number of data files.
        endianness: Byte order of the machine that pretends to write. The data of `entries` is
            little-endian in either case.
        producer: Version of the writer; 0 is the time before versions.
        min_consumer: Oldest reader that may read the file.
        bad_consumers: Readers that must not.
        alignment: Every tensor starts at a multiple of this, behind zero bytes.
        block_size: See `write_table`.
        restart_interval: See `write_table`.
        compression: See `write_table`.
    """
    records, shards = build_bundle(
        entries,
        num_shards=num_shards,
        endianness=endianness,
        producer=producer,
        min_consumer=min_consumer,
        bad_consumers=bad_consumers,
        alignment=alignment,
    )
    index = write_table(
        sorted(records.items()),
        block_size=block_size,
        restart_interval=restart_interval,
        compression=compression,
    )
    write_files(prefix, index, shards)


def write_random_bundle(prefix: str, shapes: Mapping[str, Sequence[int]]) -> str:
    """Writes float tensors of these shapes by key, always the same; returns the prefix."""
    entries = []
    for at, (key, shape) in enumerate(sorted(shapes.items())):
        values = np.random.default_rng(at).normal(size=shape).astype("<f4")
        entries.append(BundleEntry(key, DType.FLOAT, values.shape, values.tobytes()))
    write_bundle(prefix, entries)
    return prefix
