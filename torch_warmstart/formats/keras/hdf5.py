"""HDF5 files as a flat list of datasets, read with h5py, with an eye on files that mean harm.

An HDF5 file can point at other files (external links, external storage, virtual datasets), name
filters that are loaded as plugins, link groups in circles and claim any size. Only hard links are
followed, each group once; only filters that h5py brings along are run; sizes are bounded by the
file's. h5py sees a file object, never a path.

The tree is walked when the file is opened, and h5py holds nothing afterwards. A dataset that lies
in one piece is read from the byte source as every other tensor is: mapped, or fetched by ranges.
Only chunked datasets are read through h5py.

Strings of variable length are read last, in a second pass (`_read_heap_texts`), as libhdf5 can loop
for ever over the heaps they lie in.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from traceback import clear_frames
from typing import Any

import numpy as np
import torch

from torch_warmstart.errors import (
    CorruptCheckpointError,
    MissingDependencyError,
    UnsupportedError,
    WarmStartError,
)
from torch_warmstart.formats.arrays import MAX_RATIO, native, torch_dtype
from torch_warmstart.formats.rows import row_ranges
from torch_warmstart.formats.sources import SourceFile
from torch_warmstart.storage import ByteSource, Range
from torch_warmstart.values import frozen

_MAX_DEPTH = 100  # groups in groups; Keras nests as deep as models do
_BLOCK = 64 << 10  # bytes fetched at a time: h5py reads its metadata in many small pieces
_DEFLATE, _SHUFFLE, _FLETCHER, _LZF = 1, 2, 3, 32_000  # the filters that h5py brings along
_FILTERS = (_DEFLATE, _SHUFFLE, _FLETCHER, _LZF)
_BROKEN_HDF5 = (OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError)

Texts = dict[str, list[str]]  # attributes that are strings, by name


@frozen
class Dataset:
    """A dataset without its data."""

    path: str  # from the root, without a leading slash
    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None  # None: numpy has no such one
    marked: str  # what Keras notes of a dtype that numpy does not have: "bfloat16"
    address: int  # of its header; equal for two names of one dataset
    offset: int | None  # of its bytes in the file, as they are in memory; None: ask h5py
    chunk_rows: int  # rows that are read together anyway
    refusal: str | None  # why it is not read

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """The dtype of the tensor."""
        if self.dtype is None:
            return None
        if self.marked == "bfloat16" and self.dtype.itemsize == 2 and self.dtype.kind == "V":
            return torch.bfloat16
        return torch_dtype(self.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return math.prod(self.shape) * (self.dtype.itemsize if self.dtype is not None else 0)


@frozen
class Tree:
    """All datasets of a file, and what is written about its groups."""

    datasets: tuple[Dataset, ...]
    texts: dict[str, Texts]  # by the path of the group


def read_tree(source: ByteSource) -> Tree:
    """Walks a file; raises CorruptCheckpointError, UnsupportedError, MissingDependencyError."""
    with _opened(source) as file:
        walk = _Walk(source)
        walk.run(file.id)
    found = _read_heap_texts(source, walk)
    marks = {path: texts["dtype"] for path, texts in found.items() if "dtype" in texts}
    datasets = tuple(
        replace(dataset, marked=" ".join(marks[dataset.path])) if dataset.path in marks else dataset
        for dataset in walk.datasets
    )
    texts = {path: {**texts, **found.get(path, {})} for path, texts in walk.texts.items()}
    return Tree(datasets, texts)


def read_dataset(source: ByteSource, dataset: Dataset, rows: torch.Tensor | None) -> Any:
    """A dataset, or some of its rows, as a numpy array in this machine's byte order."""
    with _opened(source) as file:
        found = file[dataset.path]
        if rows is None:
            return native(np.asarray(found[()]))  # a scalar comes as one
        # h5py takes lists of rows one by one; runs of them are read as slices.
        ordered, inverse = torch.unique(rows, return_inverse=True)
        parts = [native(found[:0])]
        for start, stop in row_ranges(ordered, 1, 0, dataset.chunk_rows):
            wanted = ordered[(ordered >= start) & (ordered < stop)] - start
            parts.append(native(found[start:stop])[wanted.numpy()])
        return np.concatenate(parts)[inverse.numpy()]


@contextlib.contextmanager
def _opened(source: ByteSource, data: Sequence[Range] = ()) -> Iterator[Any]:
    """A file; nothing of `data` is read, which is what its datasets hold."""
    h5py = _import_h5py()
    stream = _Stream(source, data)
    try:
        with h5py.File(stream, "r") as file:
            yield file
    except WarmStartError as error:  # some are also RuntimeError or ValueError
        clear_frames(error.__traceback__)
        raise
    except _BROKEN_HDF5 as error:
        clear_frames(error.__traceback__)
        if stream.error is not None:  # h5py puts words of its own in its place
            clear_frames(stream.error.__traceback__)
            raise stream.error from error
        raise CorruptCheckpointError(f"{source.url} cannot be read as HDF5: {error}") from error
    finally:
        stream.error = None


def _import_h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError(
            "Reading Keras and other HDF5 files needs h5py: pip install 'torch-warmstart[keras]'"
        ) from error
    return h5py


class _Stream(SourceFile):
    """A source as h5py wants it; it remembers the error that made a read fail."""

    def __init__(self, source: ByteSource, data: Sequence[Range]) -> None:
        super().__init__(source)
        self.error: Exception | None = None
        self._data = data

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            start, stop = self._at, min(self._at + len(buffer), self._source.size)
            if _enters(start, stop, self._data):
                raise CorruptCheckpointError(
                    f"{self._source.url}: what its header points to at offset {start:,} is the "
                    "data of a tensor."
                )
            first = start - start % _BLOCK
            last = min(stop + -stop % _BLOCK, self._source.size)
            if start < stop:
                self._source.prefetch([(first, last)])
            return super().readinto(buffer)
        except Exception as error:
            self.error = error
            raise


class _Walk:
    """One pass over the groups of a file, depth first, without recursion."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._seen: set[int] = set()  # groups, by address: hard links may form circles
        self.datasets: list[Dataset] = []
        self.texts: dict[str, Texts] = {}
        self.in_heaps: dict[str, None] = {}  # groups and datasets with strings of variable length

    def run(self, root: Any) -> None:
        todo = [("", root, 0)]
        while todo:
            path, group, depth = todo.pop()
            if depth > _MAX_DEPTH:
                raise self._corrupt(f"more than {_MAX_DEPTH} groups within each other")
            address = _address(group)
            if address in self._seen:
                continue
            self._seen.add(address)
            self.texts[path] = self._read_texts(path, group)
            inner = [(p, g, depth + 1) for p, g in self._children(path, group)]
            todo.extend(reversed(inner))

    def _children(self, path: str, group: Any) -> Iterator[tuple[str, Any]]:
        """The groups in a group; its datasets are noted on the way."""
        h5py = _import_h5py()
        for name in list(group):
            child = f"{path}/" * bool(path) + name.decode("utf-8", "surrogateescape")
            if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                raise UnsupportedError(
                    f"{self._source.url}: {child!r} is a soft or external link, which could lead "
                    "to another file. Links like these are not followed."
                )
            found = h5py.h5o.open(group, name)
            if isinstance(found, h5py.h5d.DatasetID):
                self.datasets.append(self._dataset(child, found))
            elif isinstance(found, h5py.h5g.GroupID):
                yield child, found

    def _dataset(self, path: str, found: Any) -> Dataset:
        h5py = _import_h5py()
        layout = found.get_create_plist()
        chunked = layout.get_layout() == h5py.h5d.CHUNKED
        dtype = _dtype(found)
        shape = found.shape  # None for a dataset without a dataspace
        dataset = Dataset(
            path=path,
            shape=shape or (),
            dtype=None if shape is None else dtype,
            marked=" ".join(self._read_texts(path, found).get("dtype", ())),
            address=_address(found),
            offset=_offset(found, dtype, math.prod(shape or ())),
            chunk_rows=layout.get_chunk()[0] if chunked else 1,
            refusal=_refusal(layout),
        )
        self._check_size(dataset, layout.get_chunk() if chunked else None)
        return dataset

    def _check_size(self, dataset: Dataset, chunk: tuple[int, ...] | None) -> None:
        limit = self._source.size * (1 if chunk is None else MAX_RATIO)
        itemsize = 0 if dataset.dtype is None else dataset.dtype.itemsize
        for size in (dataset.nbytes, math.prod(chunk or ()) * itemsize):
            if size > limit:
                raise self._corrupt(
                    f"{dataset.path!r} claims {size:,} bytes in a file of {self._source.size:,}"
                )

    def _read_texts(self, path: str, owner: Any) -> Texts:
        """The attributes that are strings of one length, or lists of them."""
        texts: Texts = {}
        for attribute in _text_attributes(owner):
            if math.prod(attribute.shape) > self._source.size:
                raise self._corrupt(f"an attribute claims {math.prod(attribute.shape):,} strings")
            if attribute.get_type().is_variable_str():
                self.in_heaps[path] = None
            else:
                texts.update([_read_text(attribute)])
        return texts

    def _corrupt(self, fact: str) -> CorruptCheckpointError:
        return CorruptCheckpointError(f"{self._source.url}: {fact}.")


def _dtype(found: Any) -> np.dtype[Any] | None:
    try:
        dtype: np.dtype[Any] = found.dtype
    except TypeError:  # no numpy equivalent
        return None
    return dtype


def _offset(found: Any, dtype: np.dtype[Any] | None, numel: int) -> int | None:
    """Where a dataset's bytes lie, if they lie there just as numpy keeps them."""
    h5py = _import_h5py()
    if dtype is None or dtype.hasobject or found.get_storage_size() != numel * dtype.itemsize:
        return None  # the last: packed, or never written
    if not found.get_type().equal(h5py.h5t.py_create(dtype, logical=True)):
        return None  # h5py converts: integers of 24 bits, for example
    plist = found.get_create_plist()
    if plist.get_layout() != h5py.h5d.CONTIGUOUS or plist.get_external_count():
        return None
    offset: int | None = found.get_offset()
    return offset


def _refusal(plist: Any) -> str | None:
    h5py = _import_h5py()
    if plist.get_external_count() or plist.get_layout() == h5py.h5d.VIRTUAL:
        return "its data is in other files"
    codes = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
    unknown = [code for code in codes if code not in _FILTERS]
    return f"it is packed by HDF5 filter {unknown[0]}, which may be a plugin" if unknown else None


def _address(found: Any) -> int:
    address: int = _import_h5py().h5o.get_info(found).addr
    return address


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode("utf-8", "surrogateescape")
    return str(value)


# -- attributes that are strings -------------------------------------------------------------------


def _text_attributes(owner: Any) -> Iterator[Any]:
    h5py = _import_h5py()
    for number in range(h5py.h5a.get_num_attrs(owner)):
        attribute = h5py.h5a.open(owner, index=number)
        empty = attribute.get_space().get_simple_extent_type() == h5py.h5s.NULL
        if not empty and isinstance(attribute.get_type(), h5py.h5t.TypeStringID):
            yield attribute


def _read_text(attribute: Any) -> tuple[str, list[str]]:
    values = np.empty(attribute.shape, dtype=attribute.dtype)
    attribute.read(values)
    name = attribute.name.decode("utf-8", "surrogateescape")
    return name, [_text(value) for value in values.ravel().tolist()]


# -- heaps, where strings of variable length lie ---------------------------------------------------
#
# Reading one, libhdf5 steps from object to object of a global heap, and one of no size stops it
# there for ever, beyond the reach of a signal. So the heaps are looked through before: wherever one
# can begin but in the data of tensors, which is most of a file. There none may be: a read that
# begins there, or comes far into it, is refused. libhdf5 reads a heap from its beginning, at least
# `_LEAST_HEAP` bytes of it, and what it reads ahead of a header (512 bytes) is less than `_AHEAD`.

_HEAP = re.compile(rb"GCOL\x01\0\0\0")  # a global heap collection: signature, version, reserved
_HEAP_OBJECT = 16  # bytes of an object's header, and of the collection's own
_LEAST_HEAP = 4096
_AHEAD = _LEAST_HEAP // 2
_LARGE = 64 << 10  # bytes of data that it is worth to leave out
_MAX_SCAN = 1 << 30  # bytes looked through for heaps; about a second
_MAX_REMOTE_SCAN = 16 << 20  # bytes fetched for it


def _read_heap_texts(source: ByteSource, walk: _Walk) -> dict[str, Texts]:
    """The attributes that are strings of variable length, by the group or dataset they are of.

    In a file with too much to look through they are left out, and with them Keras 3's names.
    """
    data = _data_ranges(walk.datasets)
    if not walk.in_heaps or not _check_heaps(source, data):
        return {}
    h5py = _import_h5py()
    found: dict[str, Texts] = {}
    with _opened(source, data) as file:
        for path in walk.in_heaps:
            name = path.encode("utf-8", "surrogateescape")
            owner = h5py.h5o.open(file.id, name) if name else file.id
            found[path] = dict(
                _read_text(attribute)
                for attribute in _text_attributes(owner)
                if attribute.get_type().is_variable_str()
            )
    return found


def _data_ranges(datasets: Sequence[Dataset]) -> list[Range]:
    """Where large datasets lie that are in one piece, in order, each once."""
    found = {(d.offset, d.offset + d.nbytes) for d in datasets if d.offset is not None}
    return [(start, stop) for start, stop in sorted(found) if stop - start >= _LARGE]


def _check_heaps(source: ByteSource, data: Sequence[Range]) -> bool:
    """Whether all heaps outside of the data have been looked through.

    Raises CorruptCheckpointError where libhdf5 would not come to the end of one.
    """
    edges = [0, *(edge for start, stop in data for edge in (start, stop)), source.size]
    between = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]
    is_remote = source.max_gap is not None
    if sum(b - a for a, b in between) > (_MAX_REMOTE_SCAN if is_remote else _MAX_SCAN):
        return False
    source.prefetch(between)
    for first, behind in between:
        part = source.read(first, min(behind + _HEAP_OBJECT, source.size) - first).data
        for match in _HEAP.finditer(part):
            if not _is_sound_heap(source, first + match.start()):
                raise CorruptCheckpointError(
                    f"{source.url}: its global heap at offset {first + match.start():,} has no end."
                )
    return True


def _enters(start: int, stop: int, data: Sequence[Range]) -> bool:
    """Whether a read is of data: it begins there, or comes farther into it than reading ahead."""
    at = max(0, bisect.bisect_right(data, (start, math.inf)) - 1)
    for first, behind in data[at : at + 2]:
        if first <= start < behind or start < first < stop - _AHEAD:
            return True
    return False


def _is_sound_heap(source: ByteSource, start: int) -> bool:
    """Whether every object of a global heap collection lies in it and leads on to the next.

    HDF5 File Format Specification, III.E: after 16 bytes of header, objects of index (2 bytes),
    reference count (2), reserved (4), size (8) and data padded to 8. Index 0 is free space, whose
    size counts its own 16 bytes.
    """
    data = source.read(start, min(_LEAST_HEAP, source.size - start)).data
    size = int.from_bytes(data[8:16], "little")
    if size > len(data):
        data = source.read(start, min(size, source.size - start)).data
    at = _HEAP_OBJECT
    while at + _HEAP_OBJECT <= min(size, len(data)):
        index = int.from_bytes(data[at : at + 2], "little")
        length = int.from_bytes(data[at + 8 : at + 16], "little")
        step = length if index == 0 else _HEAP_OBJECT + length + -length % 8
        if step < _HEAP_OBJECT or at + step > size:
            return False
        at += step
    return True
