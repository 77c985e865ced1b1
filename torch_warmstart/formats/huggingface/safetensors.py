"""safetensors files: a JSON header that says where each tensor lies, then the tensors.

The safetensors library reads local files only. This reader works on any byte source, and serves
local files too: so both kinds are checked in the same way and give the same errors, `rows` read no
more than those rows of either, and dtypes do not depend on the version of a library. The checks are
the library's (`validate` in its `tensor.rs`), and duplicate keys, which it lets pass.

Format: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import torch

from torch_warmstart.errors import CorruptCheckpointError
from torch_warmstart.formats.base import Block, Checkpoint, Family, TensorSpec
from torch_warmstart.formats.families import FAMILY_KEY, family_of
from torch_warmstart.formats.place import Place
from torch_warmstart.formats.recognise import SAFETENSORS_LENGTH
from torch_warmstart.formats.rows import read_rows
from torch_warmstart.storage import ByteSource

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}
_OF_NEWER = {"F8_E8M0": "float8_e8m0fnu"}  # torch's from 2.7 on
DTYPES |= {word: getattr(torch, name) for word, name in _OF_NEWER.items() if hasattr(torch, name)}
_OTHER_BITS = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F8_E8M0": 8,
}  # not for every torch: only listed
_BITS = {**_OTHER_BITS, **{name: 8 * dtype.itemsize for name, dtype in DTYPES.items()}}

MAX_HEADER = 100_000_000  # bytes; the library's own limit
_MAX_RANK = 64  # torch's own
_METADATA = "__metadata__"
_TOO_LARGE = 1 << 63  # for an index


def open_place(place: Place) -> SafetensorsCheckpoint:
    """Opens a file."""
    return SafetensorsCheckpoint(place.source)


class _Entry(NamedTuple):  # a header may have a million, and a tuple is made in half the time
    """A tensor of the header."""

    shape: tuple[int, ...]
    stored: str
    start: int  # in the file
    stop: int


class SafetensorsCheckpoint(Checkpoint):
    """One `.safetensors` file; its header is checked when it is opened."""

    format = "safetensors file"
    family: Family

    def __init__(self, source: ByteSource) -> None:
        """Reads the header; raises CorruptCheckpointError."""
        self.url: str = source.url
        self._source = source
        try:
            self._entries, said = _read_header(source)
        except _HeaderError as error:
            raise CorruptCheckpointError(
                f"{self.url} is not a valid safetensors file: {error}."
            ) from error
        # Which framework wrote it, if the header says so.
        self.said_format: str | None = said.get(FAMILY_KEY)
        self.family = family_of(self._entries, self.said_format)
        # save_model() keeps a tied weight once, and says here what else it is called.
        self._aliases = {
            name: key
            for name, key in said.items()
            if name != FAMILY_KEY and key in self._entries and name not in self._entries
        }
        self._entries |= {name: self._entries[key] for name, key in self._aliases.items()}
        self._tied = set(self._aliases.values())
        self._specs: dict[str, TensorSpec] = {}  # that have been asked for, once or more

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def _find(self, key: str) -> TensorSpec | None:
        spec = self._specs.get(key)
        entry = self._entries.get(key) if spec is None else None
        if entry is None:
            return spec
        kept_as = self._aliases.get(key, key)
        storage = kept_as if kept_as in self._tied else None
        dtype = DTYPES.get(entry.stored)
        made = TensorSpec(key, entry.shape, dtype, entry.stored, storage=storage)
        return self._specs.setdefault(key, made)

    def prefetch(self, keys: Sequence[str]) -> None:
        entries = [self._entries[key] for key in keys]
        self._source.prefetch([(entry.start, entry.stop) for entry in entries])

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> torch.Tensor:
        assert spec.dtype is not None  # get_tensor() has looked
        entry = self._entries[spec.key]
        shape = entry.shape if rows is None else (len(rows), *entry.shape[1:])
        if not math.prod(shape):
            return torch.empty(shape, dtype=spec.dtype)
        raw = self._read_bytes(entry, rows)
        if raw.data_ptr() % spec.dtype.itemsize:
            raw = raw.clone()  # the format aligns nothing; torch's kernels want it
        return raw.view(spec.dtype).view(shape)

    def _row_blocks(self, spec: TensorSpec, rows: torch.Tensor) -> Sequence[Block]:
        entry = self._entries[spec.key]
        assert spec.dtype is not None
        length = entry.stop - entry.start
        raw = torch.from_numpy(
            read_rows(self._source, entry.start, length, length // entry.shape[0], rows)
        )
        return [(0, raw.view(spec.dtype).view(entry.shape))]

    def _read_bytes(self, entry: _Entry, rows: torch.Tensor | None) -> torch.Tensor:
        """The bytes of a tensor, on top of the file, or a copy of those of some rows."""
        length = entry.stop - entry.start
        if rows is None:
            return torch.from_numpy(self._source.read(entry.start, length))
        row_bytes = length // entry.shape[0]
        there = torch.from_numpy(read_rows(self._source, entry.start, length, row_bytes, rows))
        return there.view(-1, row_bytes).index_select(0, rows).flatten()

    def _close(self) -> None:
        self._source.close()


class _HeaderError(Exception):
    """The header contradicts the format."""


def _read_header(source: ByteSource) -> tuple[dict[str, _Entry], dict[str, str]]:
    """The tensors by key, in the order of the header; and what it says besides."""
    if source.size < SAFETENSORS_LENGTH:
        raise _HeaderError(f"it has only {source.size} bytes")
    length = int.from_bytes(source.read(0, SAFETENSORS_LENGTH).tobytes(), "little")
    if length > min(MAX_HEADER, source.size - SAFETENSORS_LENGTH):
        raise _HeaderError(f"its header would have {length:,} bytes, the file has {source.size:,}")
    data = SAFETENSORS_LENGTH + length
    header = _parse_json(source.read(SAFETENSORS_LENGTH, length).tobytes(), data)
    entries = {key: _checked(key, value, data) for key, value in header.items() if key != _METADATA}
    _check_layout(entries, data, source.size)
    metadata = header.get(_METADATA)
    said = metadata.items() if isinstance(metadata, dict) else ()
    return entries, {name: value for name, value in said if isinstance(value, str)}


def _parse_json(text: bytes, data: int) -> Mapping[str, Any]:
    """The header, in which what describes a tensor is an entry as soon as it has been parsed.

    The dicts and lists of all tensors together would be most of what the collector has to visit.
    """

    def convert(pairs: list[tuple[str, Any]]) -> Any:
        found = _without_duplicates(pairs)
        entry = _entry_of(found, data) if "data_offsets" in found else ""
        return entry if isinstance(entry, _Entry) else found

    try:
        header = json.loads(text.decode(), object_pairs_hook=convert)
    except (ValueError, RecursionError) as error:
        raise _HeaderError(f"its header is not JSON: {error or type(error).__name__}") from error
    if not isinstance(header, dict):
        kind = "tensor's entry" if isinstance(header, _Entry) else type(header).__name__
        raise _HeaderError(f"its header is a {kind}")
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _HeaderError(f"its header has {counts.most_common(1)[0][0]!r} twice")
    return found


def _checked(key: str, value: Any, data: int) -> _Entry:
    """One tensor of the header; raises for what is none."""
    if isinstance(value, _Entry):
        return value
    if not isinstance(value, dict):
        raise _HeaderError(f"its header has no dict for {key!r}")
    raise _HeaderError(f"tensor {key!r} {_entry_of(value, data)}")


def _entry_of(value: Mapping[str, Any], data: int) -> _Entry | str:
    """What a tensor's description says, whose offsets count from `data`; or what is wrong in it."""
    stored, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(stored, str) or stored not in _BITS:
        return f"has dtype {stored!r}, which is none of the format's"
    if not _are_sizes(offsets) or len(offsets) != 2 or not _are_sizes(shape):
        return f"has shape {reprlib.repr(shape)} and data_offsets {reprlib.repr(offsets)}"
    count = math.prod(shape)
    strides = count or math.prod(size or 1 for size in shape)  # an empty tensor has some, too
    if strides >= _TOO_LARGE:
        return f"has the impossible shape {reprlib.repr(shape)}"
    length = offsets[1] - offsets[0]
    if count * _BITS[stored] != 8 * length:
        return f"of {stored} and shape {shape} has {length:,} bytes"
    return _Entry(tuple(shape), stored, data + offsets[0], data + offsets[1])


def _are_sizes(numbers: Any) -> TypeGuard[list[int]]:
    if not isinstance(numbers, list) or len(numbers) > _MAX_RANK:
        return False
    for number in numbers:  # noqa: SIM110  # in half the time of all()
        if type(number) is not int or not 0 <= number < _TOO_LARGE:
            return False
    return True


def _check_layout(entries: Mapping[str, _Entry], data: int, size: int) -> None:
    """Raises unless the tensors cover the file from `data` on, without holes or overlaps."""
    end = data
    ordered = sorted(entries.items(), key=lambda item: item[1][2:])  # by start, then stop
    for key, entry in ordered:
        if entry.start != end:
            raise _HeaderError(
                f"tensor {key!r} begins at offset {entry.start - data:,}, where the one before it "
                f"ends at {end - data:,}"
            )
        end = entry.stop
    if end != size:
        raise _HeaderError(f"its tensors end at byte {end:,}, the file at {size:,}")
