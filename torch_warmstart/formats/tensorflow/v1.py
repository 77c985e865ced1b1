"""TensorFlow V1 checkpoints: sorted string tables that hold the tensors themselves.

A checkpoint is one file, or files `P-00000-of-0000n` that each hold some tensors, or some slices of
tensors. In each file the empty key holds the list of its tensors (type, shape, slices) and every
other key the elements of one slice as a TensorProto. Opening a checkpoint reads the lists; a
tensor's elements are decoded when asked for. Every block is checked against its checksum whenever
it is read, whatever `verify` says.

TensorFlow wrote this format until 0.12 and writes it still with `Saver(write_version=V1)`. Its own
reader refuses some of what it writes (tensors in slices, half, complex); this one does not.

Sources: tensorflow `core/util/tensor_slice_writer.cc`, `core/util/tensor_slice_reader.cc`,
`core/util/saved_tensor_slice.proto`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from torch_warmstart.computing import Box
from torch_warmstart.dtypes import take_rows
from torch_warmstart.errors import CorruptCheckpointError
from torch_warmstart.formats import slices
from torch_warmstart.formats.base import (
    Checkpoint,
    Family,
    MalformedError,
    TensorLocation,
    TensorSpec,
)
from torch_warmstart.formats.place import Place
from torch_warmstart.formats.tensorflow import paths, table
from torch_warmstart.formats.tensorflow.dtypes import STORED_TYPES, STRING, StoredType
from torch_warmstart.formats.tensorflow.records import check_version, decode_shape, decode_slice
from torch_warmstart.formats.tensorflow.tensor_proto import read_numbers, read_strings
from torch_warmstart.formats.tensorflow.wire import (
    BYTES,
    VARINT,
    all_bytes,
    decode_text,
    encode_text,
    last_bytes,
    last_int,
    read_fields,
    walk_fields,
)
from torch_warmstart.storage import LOCAL, ByteSource, Storage, base_name

_LIST_KEY = b""  # kSavedTensorSlicesKey


def open_place(place: Place) -> V1Checkpoint:
    """Opens the checkpoint that a path stands for."""
    found = paths.look_up(place)
    if found is None or not found.v1_files:  # format="tf-v1" says that it is one
        return V1Checkpoint(place.url, (place.url,), place.storage)
    return V1Checkpoint(found.prefix, found.v1_files, place.storage)


@dataclass(slots=True)
class _Tensor:
    """A tensor, and which slices of it each file holds."""

    stored: StoredType
    shape: tuple[int, ...]
    parts: list[tuple[int, tuple[slices.Extent, ...]]] = field(default_factory=list)


class V1Checkpoint(Checkpoint):
    """A V1 checkpoint."""

    format = "TensorFlow V1 checkpoint"
    family: Family = "tensorflow"
    has_checksums = True

    def __init__(self, url: str, files: Sequence[str], storage: Storage = LOCAL) -> None:
        """Opens every file and reads its list of tensors.

        Args:
            url: What TensorFlow calls the checkpoint: its file, or `P-?????-of-0000n`.
            files: All its files.
            storage: Where they come from.

        Raises CorruptCheckpointError.
        """
        self.url = url
        self._sources: list[ByteSource] = []
        self._tables: list[table.Table] = []
        self._tensors: dict[str, _Tensor] = {}
        try:
            for file in files:
                self._open_file(file, storage)
        except BaseException:
            self.close()
            raise

    # -- the lists ---------------------------------------------------------------------------

    def _open_file(self, file: str, storage: Storage) -> None:
        try:
            source = storage.open(file)
        except FileNotFoundError as error:
            raise CorruptCheckpointError(
                f"{self.url}: {base_name(file)} does not exist. Copy all files of a checkpoint "
                "together."
            ) from error
        self._sources.append(source)
        self._tables.append(table.Table(source))
        try:
            self._read_list(len(self._tables) - 1)
        except MalformedError as error:
            raise CorruptCheckpointError(
                f"{file} is an SSTable, but its list of tensors is not that of a TensorFlow V1 "
                f"checkpoint: {error}. (The index of a V2 checkpoint must be called <prefix>.index "
                "and be beside its data.)"
            ) from error

    def _read_list(self, number: int) -> None:
        """SavedTensorSlices.meta of one file: tensor=1, versions=2."""
        value = self._tables[number].get(_LIST_KEY)
        if value is None:
            raise MalformedError("there is none")
        meta = last_bytes(read_fields(value, {1: BYTES}), 1) or b""
        fields = read_fields(meta, {1: BYTES, 2: BYTES})
        check_version(last_bytes(fields, 2) or b"")  # files of early 2016 have no version
        for about in all_bytes(fields, 1):
            self._add_tensor(number, about)

    def _add_tensor(self, number: int, about: bytes) -> None:
        """SavedSliceMeta: name=1, shape=2, type=3, slice=4."""
        fields = read_fields(about, {1: BYTES, 2: BYTES, 3: VARINT, 4: BYTES})
        name = decode_text(last_bytes(fields, 1) or b"")
        try:
            dtype = last_int(fields, 3)
            if dtype not in STORED_TYPES:
                raise MalformedError(f"unknown dtype number {dtype}")
            shape = decode_shape(last_bytes(fields, 2) or b"")
            tensor = self._tensors.setdefault(name, _Tensor(STORED_TYPES[dtype], shape))
            if tensor.stored is not STORED_TYPES[dtype] or tensor.shape != shape:
                raise MalformedError("it is listed twice, with different types or shapes")
            tensor.parts += [(number, decode_slice(data)) for data in all_bytes(fields, 4)]
        except MalformedError as error:
            raise self._damaged(name, str(error)) from error

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._tensors))

    def __len__(self) -> int:
        return len(self._tensors)

    def _find(self, key: str) -> TensorSpec | None:
        tensor = self._tensors.get(key)
        if tensor is None:
            return None
        return TensorSpec(key, tensor.shape, tensor.stored.dtype, tensor.stored.name)

    def location(self, key: str) -> TensorLocation:
        parts = self._tensors[self.spec(key).key].parts
        files = sorted({base_name(self._sources[number].url) for number, _ in parts})
        return TensorLocation(tuple(files), len(parts) if len(parts) > 1 else 0)

    # -- the data ----------------------------------------------------------------------------

    def prefetch(self, keys: Sequence[str]) -> None:
        wanted: dict[int, list[bytes]] = {}
        for key in keys:
            for number, extents in self._tensors[key].parts:
                slice_key = slices.encode_slice_key(encode_text(key), extents)
                wanted.setdefault(number, []).append(slice_key)
        for number, slice_keys in wanted.items():
            self._tables[number].prefetch(slice_keys)

    def verify(self, key: str) -> None:
        spec = self.spec(key)
        self._check_readable(spec)
        self._read(spec, None)  # blocks are checked as they are read

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> Any:
        tensor = self._tensors[spec.key]
        try:
            boxes = _boxes(tensor)
            protos = [self._proto(spec.key, *part) for part in tensor.parts]
            if tensor.stored is STRING:
                return _join_strings(tensor, boxes, protos, rows)
            return _join_numbers(tensor, boxes, protos, rows)
        except MalformedError as error:
            raise self._damaged(spec.key, str(error)) from error

    def _proto(self, key: str, number: int, extents: tuple[slices.Extent, ...]) -> memoryview:
        """SavedTensorSlices.data.data of one slice: the TensorProto."""
        record = self._tables[number].view(slices.encode_slice_key(encode_text(key), extents))
        if record is None:
            raise MalformedError(
                f"its slice {extents} is not in {base_name(self._sources[number].url)}"
            )
        return _submessage(_submessage(record, 2), 3)

    def _close(self) -> None:
        for source in self._sources:
            source.close()


def _boxes(tensor: _Tensor) -> list[Box]:
    """The slices' boxes; one that is listed twice would let a small file claim a huge tensor."""
    extents = [extents for _, extents in tensor.parts]
    if len(set(extents)) != len(extents):
        raise MalformedError("one of its slices is listed twice")
    return [slices.resolve_box(part, tensor.shape) for part in extents]


def _join_numbers(
    tensor: _Tensor,
    boxes: list[Box],
    protos: list[memoryview],
    rows: torch.Tensor | None,
) -> torch.Tensor:
    pieces = [read_numbers(proto, tensor.stored) for proto in protos]
    for box, piece in zip(boxes, pieces, strict=True):
        _check_count(box, piece.count())  # before anything of the claimed size is allocated
    slices.check_cover(boxes, tensor.shape)
    if len(pieces) == 1:
        whole = pieces[0].decode().view(tensor.shape)
        return whole if rows is None else take_rows(whole, rows)
    assert tensor.stored.dtype is not None
    decoded = (piece.decode().view(box.sizes) for box, piece in zip(boxes, pieces, strict=True))
    return slices.join(boxes, decoded, tensor.shape, tensor.stored.dtype, rows)


def _join_strings(
    tensor: _Tensor,
    boxes: list[Box],
    protos: list[memoryview],
    rows: torch.Tensor | None,
) -> list[bytes]:
    pieces = [read_strings(proto) for proto in protos]
    for box, piece in zip(boxes, pieces, strict=True):
        _check_count(box, len(piece))
    slices.check_cover(boxes, tensor.shape)
    if len(pieces) == 1:
        return slices.string_rows(pieces[0], tensor.shape, rows)
    return slices.join_strings(boxes, pieces, tensor.shape, rows)


def _check_count(box: Box, count: int) -> None:
    if count != box.numel:
        raise MalformedError(f"{count:,} elements are stored of a slice of shape {list(box.sizes)}")


def _submessage(message: memoryview, number: int) -> memoryview:
    """The last value of a submessage field, not copied; an empty one if there is none."""
    found = message[:0]
    for field_number, _, value in walk_fields(message):
        if field_number == number:
            if not isinstance(value, memoryview):
                raise MalformedError(f"field {number} of its record is no message")
            found = value
    return found
