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
import operator
from collections.abc import Iterable, Iterator

from torch_warmstart.errors import CorruptCheckpointError
from torch_warmstart.formats.base import MalformedError
from torch_warmstart.formats.recognise import TABLE_FOOTER, is_table
from torch_warmstart.formats.tensorflow.wire import masked_crc, read_varint, unsnap
from torch_warmstart.storage import ByteSource

_TRAILER_SIZE = 5  # type byte, masked crc
_TAIL = 1 << 20  # bytes fetched at once: footer, index block, and of most indexes the rest too
_UNCOMPRESSED, _SNAPPY = 0, 1
_MAX_EXPANSION = 64  # real blocks unfold 2 to 10 times; a crafted one without end
_ENTRY_COST = 100  # bytes that Python takes for an entry, beside its key
_LARGE = 1 << 20  # bytes; TF closes a block at 256 KB, so a larger one is nearly all one tensor

Block = bytes | memoryview  # bytes are parsed faster, a view copies no large tensor
Entries = tuple[list[bytes], list[Block]]  # keys and values of a block
Handle = tuple[int, int]  # offset and size of a block


class Table:
    """A table opened for reading; the index block is decoded, data blocks are decoded on demand."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        source.prefetch([(max(0, source.size - _TAIL), source.size)])
        self._last_keys, self._handles = self._read_index()
        self._cached: tuple[int, Entries] | None = None  # the block looked into last

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Every entry, in key order; raises CorruptCheckpointError where the order breaks."""
        previous: bytes | None = None
        for block, limit in enumerate(self._last_keys):
            keys, values = self._entries(block)
            ordered = keys if previous is None else [previous, *keys]
            if not all(map(operator.lt, ordered, itertools.islice(ordered, 1, None))):
                raise self._corrupt(self._handles[block], "its keys are not in order")
            if keys and keys[-1] > limit:  # get() would look for it elsewhere
                raise self._corrupt(self._handles[block], "its keys are not those of the index")
            yield from zip(keys, map(bytes, values), strict=True)
            previous = limit  # at least the block's last key, and less than the next one's first

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None; reads one data block at most."""
        value = self._find(key)
        return None if value is None else bytes(value)

    def view(self, key: bytes) -> memoryview | None:
        """As `get`, without a copy of a large value."""
        value = self._find(key)
        return None if value is None else memoryview(value)

    def prefetch(self, keys: Iterable[bytes]) -> None:
        """Fetches the data blocks of keys that will be asked for one by one."""
        blocks = {bisect.bisect_left(self._last_keys, key) for key in keys}
        handles = (self._handles[block] for block in blocks if block < len(self._handles))
        ranges = [(offset, offset + size + _TRAILER_SIZE) for offset, size in handles]
        self._source.prefetch([r for r in ranges if r[1] <= self._source.size])

    def _find(self, key: bytes) -> Block | None:
        block = bisect.bisect_left(self._last_keys, key)
        if block == len(self._handles):
            return None
        keys, values = self._entries(block)
        at = bisect.bisect_left(keys, key)
        return values[at] if at < len(keys) and keys[at] == key else None

    def _read_index(self) -> tuple[list[bytes], list[Handle]]:
        source = self._source
        if not is_table(source):
            raise CorruptCheckpointError(
                f"{source.url} ({source.size:,} bytes) does not end as an SSTable does (bad magic "
                "number): it is truncated, or not a TensorFlow checkpoint index."
            )
        footer_at = source.size - TABLE_FOOTER
        footer = source.read(footer_at, TABLE_FOOTER).tobytes()
        try:
            _, position = _read_handle(footer, 0)  # the metaindex: always empty in these files
            index_handle, _ = _read_handle(footer, position)
            keys, values = self._decode_block(index_handle)
            handles = [_read_handle(value, 0)[0] for value in values]
            _check_apart(handles, footer_at)
        except MalformedError as error:
            raise self._corrupt((footer_at, TABLE_FOOTER), f"its index: {error}") from error
        if any(left > right for left, right in itertools.pairwise(keys)):
            raise self._corrupt(index_handle, "its index is not in order")
        return keys, handles

    def _entries(self, block: int) -> Entries:
        cached = self._cached  # once: another thread may put another block there
        if cached is None or cached[0] != block:
            cached = self._cached = (block, self._decode_block(self._handles[block]))
        return cached[1]

    def _decode_block(self, handle: Handle) -> Entries:
        try:
            return _decode_entries(self._read_block(handle), handle[1])
        except MalformedError as error:
            raise self._corrupt(handle, str(error)) from error

    def _read_block(self, handle: Handle) -> Block:
        offset, size = handle
        raw = self._source.read(offset, size + _TRAILER_SIZE)
        contents, kind = raw[:size], int(raw[size])
        stored = int.from_bytes(raw[size + 1 :].tobytes(), "little")
        computed = masked_crc(raw[: size + 1])
        if stored != computed:
            raise MalformedError(
                f"its checksum is {stored:#010x} in the file, {computed:#010x} computed"
            )
        if kind == _UNCOMPRESSED:
            return contents.data if size > _LARGE else contents.tobytes()
        if kind == _SNAPPY:
            return unsnap(contents.tobytes())
        raise MalformedError(f"unknown compression {kind}")

    def _corrupt(self, handle: Handle, fact: str) -> CorruptCheckpointError:
        offset, size = handle
        return CorruptCheckpointError(
            f"{self._source.url}: the block of {size:,} bytes at offset {offset:,} is damaged: "
            f"{fact}."
        )


def _read_handle(data: Block, position: int) -> tuple[Handle, int]:
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (offset, size), position


def _check_apart(handles: list[Handle], available: int) -> None:
    """Blocks that share their bytes could make a small file endless.

    One outside the file is not counted: it is refused when it is read.
    """
    sizes = (size + _TRAILER_SIZE for offset, size in handles if offset + size <= available)
    claimed = sum(sizes)
    if claimed > available:
        raise MalformedError(f"its blocks claim {claimed:,} bytes of {available:,}")


def _decode_entries(block: Block, stored_size: int) -> Entries:
    """The entries of a block that takes `stored_size` bytes in the file."""
    if len(block) < 4:
        raise MalformedError("too short to hold its restart count")
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise MalformedError(f"{restarts} restart points do not fit")
    keys: list[bytes] = []
    values: list[Block] = []
    position, key = 0, b""
    bytes_left = _MAX_EXPANSION * (stored_size + 1024)
    while position < end:
        # Nearly always of a byte each, and in range: the restart array follows the entries.
        shared, added, value_size = block[position : position + 3]
        if shared | added | value_size < 0x80:
            position += 3
        else:
            shared, position = read_varint(block, position)
            added, position = read_varint(block, position)
            value_size, position = read_varint(block, position)
        value_at = position + added
        next_at = value_at + value_size
        if shared > len(key) or next_at > end:
            raise MalformedError(f"entry {len(keys)} runs past the block")
        key = key[:shared] + block[position:value_at]
        bytes_left -= len(key) + _ENTRY_COST
        if bytes_left < 0:
            raise MalformedError("its keys unfold to far more than the block")
        keys.append(key)
        values.append(block[value_at:next_at])
        position = next_at
    return keys, values
