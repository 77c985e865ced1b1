"""Sorted string tables: the container of TensorFlow's `.index` files and of whole V1 files.

    data block*  metaindex block  index block  footer (48 bytes)

An index entry points at a data block and its key is at least the block's last key, so one lookup
reads the footer, the index block and one data block. A block is prefix-compressed entries, restart
offsets (not needed for reading forward), a type byte and a masked CRC-32C.

Sources: leveldb `table/format.cc`, `table/block.cc`; tensorflow `core/lib/io/table.cc`.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator

import cramjam

from torch_warmstart.errors import CorruptCheckpointError
from torch_warmstart.formats.wire import WireError, masked_crc, read_varint
from torch_warmstart.storage import ByteSource

MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER_SIZE = 48
_TRAILER_SIZE = 5  # type byte, masked crc
_UNCOMPRESSED, _SNAPPY = 0, 1
_SNAPPY_MAX_RATIO = 64  # a copy element of two or three bytes yields at most 64
_MAX_KEY_EXPANSION = 64  # real blocks unfold 2 to 10 times; a crafted one without end

Entry = tuple[bytes, bytes]
Handle = tuple[int, int]  # offset and size of a block


def has_magic(source: ByteSource) -> bool:
    """True if the file ends as a table does."""
    if source.size < _FOOTER_SIZE:
        return False
    return source.read(source.size - len(MAGIC), len(MAGIC)).tobytes() == MAGIC


class Table:
    """A table opened for reading; the index block is decoded, data blocks are decoded on demand."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._last_keys, self._handles = self._read_index()
        self._cached: tuple[int, list[Entry]] | None = None  # the block looked into last

    def __iter__(self) -> Iterator[Entry]:
        """Every entry, in key order; raises CorruptCheckpointError where the order breaks."""
        previous: bytes | None = None
        for block in range(len(self._handles)):
            for entry in self._entries(block):
                if previous is not None and entry[0] <= previous:
                    raise self._corrupt(self._handles[block], "its keys are not in order")
                previous = entry[0]
                yield entry

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None; reads one data block at most."""
        block = bisect.bisect_left(self._last_keys, key)
        if block == len(self._handles):
            return None
        entries = self._entries(block)
        at = bisect.bisect_left(entries, (key,))
        if at < len(entries) and entries[at][0] == key:
            return entries[at][1]
        return None

    def _read_index(self) -> tuple[list[bytes], list[Handle]]:
        source = self._source
        if not has_magic(source):
            raise CorruptCheckpointError(
                f"{source.url} ({source.size:,} bytes) does not end as an SSTable does (bad magic "
                "number): it is truncated, or not a TensorFlow checkpoint index."
            )
        footer_at = source.size - _FOOTER_SIZE
        footer = source.read(footer_at, _FOOTER_SIZE).tobytes()
        try:
            _, position = _read_handle(footer, 0)  # the metaindex: always empty in these files
            index_handle, _ = _read_handle(footer, position)
            index = self._decode_block(index_handle)
            keys = [key for key, _ in index]
            handles = [_read_handle(value, 0)[0] for _, value in index]
        except WireError as error:
            raise self._corrupt((footer_at, _FOOTER_SIZE), f"its index: {error}") from error
        if any(left > right for left, right in itertools.pairwise(keys)):
            raise self._corrupt(index_handle, "its index is not in order")
        return keys, handles

    def _entries(self, block: int) -> list[Entry]:
        if self._cached is None or self._cached[0] != block:
            self._cached = (block, self._decode_block(self._handles[block]))
        return self._cached[1]

    def _decode_block(self, handle: Handle) -> list[Entry]:
        try:
            return _decode_entries(self._read_block(handle))
        except WireError as error:
            raise self._corrupt(handle, str(error)) from error

    def _read_block(self, handle: Handle) -> bytes:
        offset, size = handle
        raw = self._source.read(offset, size + _TRAILER_SIZE).tobytes()
        contents, kind = raw[:size], raw[size]
        stored = int.from_bytes(raw[size + 1 :], "little")
        computed = masked_crc(raw[: size + 1])
        if stored != computed:
            raise WireError(
                f"its checksum is {stored:#010x} in the file, {computed:#010x} computed"
            )
        if kind == _UNCOMPRESSED:
            return contents
        if kind == _SNAPPY:
            return _unsnap(contents)
        raise WireError(f"unknown compression {kind}")

    def _corrupt(self, handle: Handle, fact: str) -> CorruptCheckpointError:
        offset, size = handle
        return CorruptCheckpointError(
            f"{self._source.url}: the block of {size:,} bytes at offset {offset:,} is damaged: "
            f"{fact}."
        )


def _read_handle(data: bytes, position: int) -> tuple[Handle, int]:
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (offset, size), position


def _decode_entries(block: bytes) -> list[Entry]:
    if len(block) < 4:
        raise WireError("too short to hold its restart count")
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise WireError(f"{restarts} restart points do not fit")
    entries: list[Entry] = []
    position, key = 0, b""
    key_bytes_left = _MAX_KEY_EXPANSION * (len(block) + 1024)
    while position < end:
        shared, position = _read_small(block, position)
        added, position = _read_small(block, position)
        value_size, position = _read_small(block, position)
        value_at = position + added
        if shared > len(key) or value_at + value_size > end:
            raise WireError(f"entry {len(entries)} runs past the block")
        key = key[:shared] + block[position:value_at]
        key_bytes_left -= len(key)
        if key_bytes_left < 0:
            raise WireError("its keys unfold to far more than the block")
        position = value_at + value_size
        entries.append((key, block[value_at:position]))
    return entries


def _read_small(block: bytes, position: int) -> tuple[int, int]:
    byte = block[position]  # in range: the restart array follows the entries
    if byte < 0x80:  # nearly always; read_varint costs three times as much
        return byte, position + 1
    return read_varint(block, position)


def _unsnap(data: bytes) -> bytes:
    length, _ = read_varint(data, 0)
    if length > _SNAPPY_MAX_RATIO * len(data):  # before it is allocated
        raise WireError(f"{len(data)} snappy bytes claim to unfold to {length}")
    try:
        unfolded = bytes(cramjam.snappy.decompress_raw(data))
    except cramjam.DecompressionError as error:
        raise WireError(f"its snappy data: {error}") from error
    if len(unfolded) != length:
        raise WireError(f"its snappy data unfolds to {len(unfolded)} bytes, not {length}")
    return unfolded
