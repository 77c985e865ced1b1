"""TensorFlow V2 checkpoints, "tensor bundles": `P.index` and `P.data-00000-of-0000n`.

The index is a table: the empty key holds the header, every other key a tensor's entry (dtype,
shape, data file, offset, size, checksum) or, for a tensor kept in slices, the list of its slices.
Opening a bundle reads the index only; entries are decoded when asked for; data files are opened
when needed.

Source: tensorflow `core/util/tensor_bundle/tensor_bundle.cc`, `core/protobuf/tensor_bundle.proto`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from torch_warmstart.bits import as_bits, take_rows
from torch_warmstart.errors import CorruptCheckpointError
from torch_warmstart.formats import object_graph, slices
from torch_warmstart.formats.base import Checkpoint, Family, TensorSpec
from torch_warmstart.formats.table import Table
from torch_warmstart.formats.tf_dtypes import STORED_TYPES, STRING, StoredType
from torch_warmstart.formats.wire import (
    BYTES,
    FIXED32,
    VARINT,
    WireError,
    all_bytes,
    crc32c,
    decode_text,
    last_bytes,
    last_int,
    mask_crc,
    masked_crc,
    read_fields,
    read_varint,
    signed,
    walk_fields,
)
from torch_warmstart.storage import Bytes, ByteSource, open_source

_READER_VERSION = 1  # kTensorBundleVersion
_BIG_ENDIAN = 1
_MAX_RANK = 254  # TensorShape::MaxDimensions
_HEADER_FIELDS = {1: VARINT, 2: VARINT, 3: BYTES}
_ENTRY_FIELDS = {1: VARINT, 2: BYTES, 3: VARINT, 4: VARINT, 5: VARINT, 6: FIXED32, 7: BYTES}
_CRC_SIZE = 4


@dataclass(frozen=True, slots=True)
class _Header:
    num_shards: int
    big_endian: bool


@dataclass(frozen=True, slots=True)
class _Entry:
    stored: StoredType
    shape: tuple[int, ...]
    shard: int
    offset: int  # in the data file, bytes
    size: int  # bytes
    crc: int  # masked
    slices: tuple[tuple[slices.Extent, ...], ...]

    @property
    def numel(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


class BundleCheckpoint(Checkpoint):
    """A V2 checkpoint."""

    format = "TensorFlow V2 checkpoint"
    family: Family = "tensorflow"

    def __init__(self, prefix: str, *, verify: bool = True) -> None:
        """Opens the index; raises FileNotFoundError or CorruptCheckpointError.

        Args:
            prefix: Path without `.index`.
            verify: Check each tensor's CRC-32C before handing it out, once.
        """
        self.url = prefix
        self._verify = verify
        self._index_url = prefix + ".index"
        self._table = Table(open_source(self._index_url))
        self._header = self._read_header()
        self._shards: dict[int, ByteSource] = {}
        self._verified: set[str] = set()
        self._keys: list[str] | None = None
        self._full_names: Mapping[str, tuple[str, ...]] | None = None

    # -- the index ---------------------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        if self._keys is None:
            self._keys = self._list_keys()
        return iter(self._keys)

    def _list_keys(self) -> list[str]:
        """All keys but the header's and those of slices that a tensor lists as its own."""
        entries = [entry for entry in self._table if entry[0]]
        hidden: set[bytes] = set()
        if entries and entries[0][0].startswith(b"\0"):  # slices sort before every name
            for key, value in entries:
                for extents in self._decode_entry(key, value).slices:
                    hidden.add(slices.encode_slice_key(key, extents))
        return [decode_text(key) for key, _ in entries if key not in hidden]

    def full_names(self) -> Mapping[str, tuple[str, ...]]:
        if self._full_names is None:
            self._full_names = self._read_full_names()
        return self._full_names

    def _read_full_names(self) -> Mapping[str, tuple[str, ...]]:
        if object_graph.KEY not in self:
            return {}
        strings = self.get_tensor(object_graph.KEY)
        try:
            if not isinstance(strings, list) or len(strings) != 1:
                raise WireError("it is not one string")
            return object_graph.full_names(strings[0])
        except WireError as error:
            raise CorruptCheckpointError(f"{self.url}: its object graph: {error}.") from error

    def _find(self, key: str) -> TensorSpec | None:
        entry = self._find_entry(_encode_key(key))
        if entry is None:
            return None
        storage = (entry.shard, entry.offset) if entry.size else None
        return TensorSpec(key, entry.shape, entry.stored.dtype, entry.stored.name, storage)

    def _entry(self, key: str) -> _Entry:
        entry = self._find_entry(_encode_key(key))
        assert entry is not None, key  # get_tensor() and verify() look the key up first
        return entry

    def _find_entry(self, key: bytes) -> _Entry | None:
        value = self._table.get(key) if key else None
        return None if value is None else self._decode_entry(key, value)

    def _read_header(self) -> _Header:
        value = self._table.get(b"")
        if value is None:
            raise CorruptCheckpointError(
                f"{self._index_url} has no header entry: it is an SSTable, but not the index of a "
                "TensorFlow V2 checkpoint."
            )
        try:
            return _decode_header(value)
        except WireError as error:
            raise CorruptCheckpointError(f"{self._index_url}: its header: {error}.") from error

    def _decode_entry(self, key: bytes, value: bytes) -> _Entry:
        try:
            entry = _decode_entry(value)
            if not 0 <= entry.shard < self._header.num_shards:
                raise WireError(f"it names data file {entry.shard} of {self._header.num_shards}")
            return entry
        except WireError as error:
            raise self._corrupt(decode_text(key), str(error)) from error

    # -- the data ----------------------------------------------------------------------------

    def verify(self, key: str) -> None:
        self._check_readable(self.spec(key))  # the checksum of a variant is of another kind
        entry = self._entry(key)
        if key in self._verified:
            return
        try:
            if entry.stored is STRING:
                self._read_strings(entry, check=True)
            else:
                for part in self._parts(key, entry):
                    self._check_crc(part)
        except WireError as error:
            raise self._corrupt(key, str(error)) from error
        self._verified.add(key)

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> Any:
        entry = self._entry(spec.key)
        try:
            if entry.stored is STRING:
                strings = self._read_strings(entry, check=self._verify)
                return strings if rows is None else _string_rows(strings, entry, rows)
            parts = self._parts(spec.key, entry)
            if rows is None and self._verify:
                self.verify(spec.key)
            if entry.slices:
                return self._read_slices(entry, parts, rows)
            tensor = self._view(entry)
            return self._unpack(entry, tensor if rows is None else take_rows(tensor, rows))
        except WireError as error:
            raise self._corrupt(spec.key, str(error)) from error

    def _parts(self, key: str, entry: _Entry) -> list[_Entry]:
        """The entries that hold a tensor's bytes: itself, or its slices in the order listed."""
        parts = [] if entry.slices else [entry]
        for extents in entry.slices:
            part = self._find_entry(slices.encode_slice_key(_encode_key(key), extents))
            if part is None:
                raise WireError(f"its slice {extents} is not in the index")
            if part.stored is not entry.stored:
                raise WireError(f"its slice {extents} is of type {part.stored.name}")
            parts.append(part)
        for part in parts:
            _check_size(part)
        return parts

    def _read_slices(
        self, entry: _Entry, parts: list[_Entry], rows: torch.Tensor | None
    ) -> torch.Tensor:
        boxes = [slices.resolve_box(extents, entry.shape) for extents in entry.slices]
        for box, part in zip(boxes, parts, strict=True):
            if part.shape != box.sizes:
                raise WireError(f"its slice at {box.offsets} has shape {part.shape}")
        self._check_backed(parts)
        slices.check_cover(boxes, entry.shape)
        shape = entry.shape if rows is None else (len(rows), *entry.shape[1:])
        out = torch.empty(shape, dtype=entry.stored.dtype)
        for box, part in zip(boxes, parts, strict=True):
            slices.assemble(box, as_bits(self._view(part)), as_bits(out), rows)
        return self._unpack(entry, out)

    def _check_backed(self, parts: list[_Entry]) -> None:
        """Slices that share their bytes could claim a tensor of any size from a small file."""
        claimed = sum(part.size for part in parts)
        present = sum(self._shard(shard).size for shard in {part.shard for part in parts})
        if claimed > present:
            raise WireError(f"its slices claim {claimed:,} bytes, its data files hold {present:,}")

    def _view(self, entry: _Entry) -> torch.Tensor:
        """The tensor as stored, on top of the mapping where that is possible."""
        assert entry.stored.dtype is not None
        if not entry.numel:  # numpy's empty arrays may have strides that torch cannot view
            return torch.empty(entry.shape, dtype=entry.stored.dtype)
        raw = torch.from_numpy(self._native(self._raw(entry), entry))
        if raw.data_ptr() % entry.stored.itemsize:
            raw = raw.clone()  # TF packs tensors densely; torch's kernels want them aligned
        return raw.view(entry.stored.dtype).view(entry.shape)

    def _native(self, raw: Bytes, entry: _Entry) -> Bytes:
        dtype = entry.stored.dtype
        assert dtype is not None
        if not self._header.big_endian or dtype.itemsize == 1:
            return raw
        word = dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
        swapped: Bytes = raw.reshape(-1, word)[:, ::-1].copy()
        return swapped.reshape(-1)

    def _unpack(self, entry: _Entry, tensor: torch.Tensor) -> torch.Tensor:
        if entry.stored.unpack is None:
            return tensor
        try:
            return entry.stored.unpack(tensor)
        except CorruptCheckpointError as error:
            raise WireError(str(error)) from error

    def _read_strings(self, entry: _Entry, *, check: bool) -> list[bytes]:
        if entry.slices:
            raise WireError("strings kept in slices, which no TensorFlow reads")
        big_endian = self._header.big_endian
        return _decode_strings(self._raw(entry), entry, check=check, big_endian=big_endian)

    def _check_crc(self, entry: _Entry) -> None:
        computed = masked_crc(self._raw(entry))
        if computed != entry.crc:
            raise WireError(
                f"its checksum is {entry.crc:#010x} in the index, {computed:#010x} computed over "
                f"{entry.size:,} bytes at offset {entry.offset:,} of data file {entry.shard}"
            )

    def _raw(self, entry: _Entry) -> Bytes:
        return self._shard(entry.shard).read(entry.offset, entry.size)

    def _shard(self, number: int) -> ByteSource:
        if number not in self._shards:
            url = f"{self.url}.data-{number:05d}-of-{self._header.num_shards:05d}"
            try:
                self._shards[number] = open_source(url)
            except FileNotFoundError as error:
                raise CorruptCheckpointError(
                    f"{self._index_url} says that tensors are in {url}, which does not exist. "
                    "Copy all files of a checkpoint together."
                ) from error
        return self._shards[number]

    def close(self) -> None:
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()

    def _corrupt(self, key: str, fact: str) -> CorruptCheckpointError:
        return CorruptCheckpointError(f"{self.url}: tensor {key!r} is damaged: {fact}.")


def _encode_key(key: str) -> bytes:
    return key.encode("utf-8", errors="surrogateescape")


def _decode_header(value: bytes) -> _Header:
    fields = read_fields(value, _HEADER_FIELDS)
    num_shards = signed(last_int(fields, 1))
    if num_shards < 1:
        raise WireError(f"it counts {num_shards} data files")
    endianness = last_int(fields, 2)
    if endianness not in (0, _BIG_ENDIAN):
        raise WireError(f"unknown endianness {endianness}")
    _check_version(last_bytes(fields, 3) or b"")
    return _Header(num_shards, endianness == _BIG_ENDIAN)


def _check_version(value: bytes) -> None:
    producer, min_consumer, bad_consumers = 0, 0, set()
    for number, wire_type, field in walk_fields(value):
        if number == 1 and wire_type == VARINT:
            producer = signed(int(field))
        elif number == 2 and wire_type == VARINT:
            min_consumer = signed(int(field))
        elif number == 3:
            bad_consumers |= _ints(field)
    if min_consumer > _READER_VERSION or _READER_VERSION in bad_consumers or producer < 0:
        raise WireError(
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


def _decode_entry(value: bytes) -> _Entry:
    fields = read_fields(value, _ENTRY_FIELDS)
    number = last_int(fields, 1)
    if number not in STORED_TYPES:
        raise WireError(f"unknown dtype number {number}")
    return _Entry(
        stored=STORED_TYPES[number],
        shape=_decode_shape(last_bytes(fields, 2) or b""),
        shard=signed(last_int(fields, 3)),
        offset=signed(last_int(fields, 4)),
        size=signed(last_int(fields, 5)),
        crc=last_int(fields, 6),
        slices=tuple(_decode_slice(data) for data in all_bytes(fields, 7)),
    )


def _decode_shape(data: bytes) -> tuple[int, ...]:
    fields = read_fields(data, {2: BYTES, 3: VARINT})
    if last_int(fields, 3):
        raise WireError("its rank is unknown")
    sizes = tuple(
        signed(last_int(read_fields(dim, {1: VARINT}), 1)) for dim in all_bytes(fields, 2)
    )
    strides = math.prod(size or 1 for size in sizes)  # in 64 bits, of an empty tensor too
    if len(sizes) > _MAX_RANK or any(size < 0 for size in sizes) or strides >= 1 << 63:
        raise WireError(f"impossible shape {list(sizes[:8])}")
    return sizes


def _decode_slice(data: bytes) -> tuple[slices.Extent, ...]:
    extents = []
    for extent in all_bytes(read_fields(data, {1: BYTES}), 1):
        fields = read_fields(extent, {1: VARINT, 2: VARINT})
        length = signed(last_int(fields, 2)) if 2 in fields else slices.FULL
        extents.append((signed(last_int(fields, 1)), length))
    return tuple(extents)


def _check_size(entry: _Entry) -> None:
    needed = entry.numel * entry.stored.itemsize
    if entry.size != needed:
        raise WireError(
            f"it has {entry.size:,} bytes, but shape {list(entry.shape)} of "
            f"{entry.stored.name} takes {needed:,}"
        )


def _decode_strings(raw: Bytes, entry: _Entry, *, check: bool, big_endian: bool) -> list[bytes]:
    """`varint length` times n, masked crc of the lengths, then the bytes."""
    data = raw.tobytes()
    if entry.numel > len(data):  # a length takes at least a byte: refuse before looping
        raise WireError(f"{entry.numel} strings do not fit in {len(data)} bytes")
    lengths, position = [], 0
    for _ in range(entry.numel):
        length, position = read_varint(data, position)
        lengths.append(length)
    start = position + _CRC_SIZE
    if start + sum(lengths) != len(data):
        raise WireError(f"its strings take {start + sum(lengths)} bytes, not {len(data)}")
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
    fixed = b"".join(n.to_bytes(4 if n < 1 << 32 else 8, order) for n in lengths)
    crc = crc32c(fixed)
    stored_lengths_crc = data[position : position + _CRC_SIZE]
    if mask_crc(crc) != int.from_bytes(stored_lengths_crc, order):
        raise WireError("the checksum of its string lengths does not match")
    if mask_crc(crc32c(data[position:], crc)) != stored:
        raise WireError("the checksum of its strings does not match")


def _string_rows(strings: list[bytes], entry: _Entry, rows: torch.Tensor) -> list[bytes]:
    per_row = entry.numel // entry.shape[0]  # rows are checked: there is at least one
    return [s for row in rows.tolist() for s in strings[row * per_row : (row + 1) * per_row]]
