"""What exports Arrow's C data interface: columns of pandas', polars', pyarrow's and others'.

The C structs are read where they are, without the library that made them, and no entry becomes a
Python object. (The Arrow specification: "The Arrow C data interface", "The Arrow C stream
interface", "Arrow columnar format"; the PyCapsule interface names the capsules.)
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from torch_warmstart.entries import ENTRY, ENTRY_COLUMN, ROW_COLUMN, Entries, Vocabulary
from torch_warmstart.errors import (
    VocabularyError,
    cause_of,
    listed_entries,
    printable,
    said_of_entries,
    shown_entry,
)
from torch_warmstart.values import frozen
from torch_warmstart.vocabularies.loading.arrays import from_numpy, with_gaps
from torch_warmstart.vocabularies.numbering import (
    as_whole,
    check_index,
    check_numbers,
    may_be_numbers,
    may_begin_numbers,
)

_DEEPEST = 8  # dictionaries of dictionaries that are followed
_INLINE = 12  # bytes of a view's text that stand in the view itself
_VIEW = 16  # bytes of a view: length, then the text, or its beginning, buffer and offset


_OF_ONE_WIDTH = b"w:"  # and the number of bytes
_FLOATING = "floating numbers"
_CAST = ": ids that have become floating beside missing ones by .astype('Int64') of pandas."
# By how Arrow's format begins what a column holds that is no entry.
_NO_ENTRIES = (
    *((form, _FLOATING) for form in (b"e", b"f", b"g")),
    (b"b", "true or false"),
    (b"n", "nothing but nulls"),
    (b"t", "dates or times"),
    (b"d", "decimal numbers"),
    (b"+", "nested, or encoded by runs"),
)
_EXTENSION = b"ARROW:extension:name"  # of what is stored as something else than it is
_STORED_AS_IS = {"arrow.uuid"}  # of those that are stored as integers or bytes of one width


class _Schema(ctypes.Structure):
    pass


class _Array(ctypes.Structure):
    pass


_Schema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_void_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(_Schema))),
    ("dictionary", ctypes.POINTER(_Schema)),
    ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(_Schema))),
    ("private_data", ctypes.c_void_p),
]
_Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
    ("dictionary", ctypes.POINTER(_Array)),
    ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(_Array))),
    ("private_data", ctypes.c_void_p),
]


class _Stream(ctypes.Structure):
    pass


_Stream._fields_ = [
    (
        "get_schema",
        ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Stream), ctypes.POINTER(_Schema)),
    ),
    ("get_next", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Stream), ctypes.POINTER(_Array))),
    ("get_last_error", ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.POINTER(_Stream))),
    ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(_Stream))),
    ("private_data", ctypes.c_void_p),
]

_INTEGERS = {  # by the letters of their formats
    b"c": np.int8,
    b"C": np.uint8,
    b"s": np.int16,
    b"S": np.uint16,
    b"i": np.int32,
    b"I": np.uint32,
    b"l": np.int64,
    b"L": np.uint64,
}
_NUMBERS = {**_INTEGERS, b"e": np.float16, b"f": np.float32, b"g": np.float64}
_OFFSETS = {b"u": np.int32, b"z": np.int32, b"U": np.int64, b"Z": np.int64}
_VIEWS = (b"vu", b"vz")
_STRUCT = b"+s"


@frozen
class _Column:
    """A chunk: ids, or places in a buffer; and which of them are there (None: all)."""

    is_there: npt.NDArray[np.bool_] | None
    ids: npt.NDArray[Any] | None = None
    data: npt.NDArray[np.uint8] | None = None
    starts: npt.NDArray[np.int64] | None = None
    lengths: npt.NDArray[np.int64] | None = None

    def take(self, at: npt.NDArray[np.int64]) -> _Column:
        """The entries of these numbers, as a dictionary's indices name them."""
        picked = {
            name: None if values is None else values[at]
            for name in ("is_there", "ids", "starts", "lengths")
            for values in [getattr(self, name)]
        }
        return replace(self, **picked)


def exports_arrow(source: Any) -> bool:
    """Whether it has a column, or a table, to export."""
    return hasattr(source, "__arrow_c_stream__") or hasattr(source, "__arrow_c_array__")


def from_table(
    source: Any, column: str | int | None = None, *, has_names: bool = True, origin: str = ""
) -> Vocabulary:
    """A column's entries, one a row in their order; VocabularyError if another says otherwise.

    Args:
        source: The table.
        column: Which one.
        has_names: Whether somebody has named the columns.
        origin: Where it comes from; "": what it is.
    """
    beside = _Beside()
    found = from_arrow(source, column, origin=origin, beside=beside)
    beside.check(origin or _origin_of(source), has_names=has_names)
    return found


class _Beside:
    """The columns of whole numbers beside the entries', while a table is read."""

    def __init__(self) -> None:
        self._parts: dict[int, list[npt.NDArray[Any]]] = {}
        self._names: dict[int, str] = {}
        self._metadata: dict[bytes, bytes] = {}

    def begin(self, schema: Any, number: int, names: Sequence[str]) -> None:
        """What a table's columns are, of which one has the entries."""
        self._metadata = _metadata(schema)
        kinds = [schema.children[at].contents for at in range(len(names))]
        chosen = (at for at, kind in enumerate(kinds) if at != number and _has_numbers(kind))
        self._names = {at: names[at] for at in chosen if may_be_numbers(names[at])}
        self._parts = {at: [] for at in self._names}

    def take(self, schema: Any, array: Any) -> None:
        """A chunk; what has nulls numbers no entries."""
        for at in list(self._names):
            named = f"Column {shown_entry(self._names[at])}"
            found = _column_at(schema, array, at, named, _NUMBERS)
            is_complete = found.is_there is None or bool(found.is_there.all())
            numbers = as_whole(found.ids) if found.ids is not None and is_complete else None
            if numbers is None or not may_begin_numbers(numbers):
                del self._names[at], self._parts[at]  # before there are more of it
            else:
                self._parts[at].append(numbers)

    def check(self, origin: str, *, has_names: bool) -> None:
        """Raises VocabularyError for one that numbers the entries in another way."""
        for at, name in self._names.items():
            if self._parts[at]:
                check_numbers(origin, name, _joined(self._parts[at]), has_names=has_names)
        check_index(origin, self._metadata)


def _has_numbers(schema: Any) -> bool:
    """Whether a column holds numbers that mean themselves, by a dictionary or not."""
    inner = schema.dictionary.contents if schema.dictionary else schema
    return inner.format in _NUMBERS and not any(_EXTENSION in _metadata(s) for s in (schema, inner))


def _origin_of(source: Any) -> str:
    return f"the {type(source).__module__.split('.')[0]} {type(source).__name__}"


def from_arrow(
    source: Any,
    column: str | int | None = None,
    *,
    origin: str = "",
    beside: _Beside | None = None,
    may_be_none: bool = False,
) -> Vocabulary:
    """A column's entries; nulls are rows without one. `beside` is shown the other columns.

    Raises VocabularyError for a column of no entries, unless there may be none: they are text then.
    """
    given = origin
    origin = given or _origin_of(source)
    chunks = list(_chunks_of(source, column, origin, beside))
    total = sum(_length(chunk) for chunk in chunks)
    if not total and not may_be_none:
        raise VocabularyError(
            f"A vocabulary needs at least one entry; {origin} that was given is empty."
        )
    origin = given or f"{origin} of length {total:,}"
    kept = _kept(chunks)
    if not total or (kept is not None and not kept.any()):
        if not may_be_none:
            raise VocabularyError(
                "A vocabulary needs at least one entry; a column of nulls was given."
            )
        return _without_entries(total, origin)
    if all(chunk.ids is not None for chunk in chunks):
        ids = _joined([chunk.ids for chunk in chunks if chunk.ids is not None])
        found = from_numpy(ids if kept is None else ids[kept])
        found = replace(found, listed=replace(found.listed, origin=origin))
    else:
        entries = _text(chunks, origin)
        if kept is not None:
            entries = entries.take(torch.from_numpy(np.flatnonzero(kept)))
        found = Vocabulary(entries, len(entries))
    return found if kept is None else with_gaps(found, kept, origin)


def _kept(chunks: list[_Column]) -> npt.NDArray[np.bool_] | None:
    if all(chunk.is_there is None or bool(chunk.is_there.all()) for chunk in chunks):
        return None
    parts = [
        np.ones(_length(chunk), dtype=bool) if chunk.is_there is None else chunk.is_there
        for chunk in chunks
    ]
    kept: npt.NDArray[np.bool_] = np.concatenate(parts)
    return kept


def _without_entries(count: int, origin: str) -> Vocabulary:
    """So many rows of no entry."""
    none = torch.zeros(0, dtype=torch.int64)
    text = torch.zeros(1, dtype=torch.uint8)
    return Vocabulary(Entries(origin, ENTRY, text, none, lengths=none), count, none)


def _length(chunk: _Column) -> int:
    values = chunk.ids if chunk.ids is not None else chunk.lengths
    assert values is not None
    return len(values)


def _text(chunks: list[_Column], origin: str) -> Entries:
    """The chunks' buffers one behind the other, and the places of all entries in them."""
    buffers = [chunk.data for chunk in chunks if chunk.data is not None]
    begins = np.cumsum([0, *(len(data) for data in buffers)])
    for chunk, begin in zip(chunks, begins, strict=False):
        if begin and chunk.starts is not None:
            np.add(chunk.starts, begin, out=chunk.starts)
    data = _joined(buffers)
    starts = _joined([chunk.starts for chunk in chunks if chunk.starts is not None])
    lengths = _joined([chunk.lengths for chunk in chunks if chunk.lengths is not None])
    if not len(data):
        data = np.zeros(1, dtype=np.uint8)
    return Entries(
        origin,
        ENTRY,
        torch.from_numpy(data),
        torch.from_numpy(starts),
        lengths=torch.from_numpy(lengths),
    )


def _joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Vectors one behind the other; a single one is not copied once more."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


# -- the C interface -------------------------------------------------------------------------------


def _chunks_of(
    source: Any, column: str | int | None, origin: str, beside: _Beside | None
) -> Iterator[_Column]:
    """The chunks of a column, copied out of the memory that is released behind each."""
    if hasattr(source, "__arrow_c_stream__"):
        capsule = _exported(source.__arrow_c_stream__, origin)
        stream = _pointer(capsule, b"arrow_array_stream", _Stream)
        schema = _Schema()
        _check(stream.get_schema(ctypes.byref(stream), ctypes.byref(schema)), stream, origin)
        try:
            number = _number_of(schema, column, origin, beside)
            field = schema if number is None else schema.children[number].contents
            _check_no_objects(source, field, origin)
            yield from _chunks_in(stream, schema, number, origin, beside)
        finally:
            _release(schema)
        return
    schema_capsule, array_capsule = _exported(source.__arrow_c_array__, origin)
    schema = _pointer(schema_capsule, b"arrow_schema", _Schema)
    array = _pointer(array_capsule, b"arrow_array", _Array)
    yield _chunk(schema, array, _number_of(schema, column, origin, beside), origin, beside)


def _exported(export: Callable[[], Any], origin: str) -> Any:
    """What it exports; of objects of several kinds nobody can make a column."""
    try:
        return export()
    except UnicodeDecodeError as error:
        raise VocabularyError(
            f"{origin} has columns whose names are no UTF-8, which cannot be read: rename them."
        ) from cause_of(error)
    except Exception as error:
        said = printable(said_of_entries(error)).rstrip(".")
        raise VocabularyError(
            f"{origin} cannot be exported as a column of Arrow's, of one type: {said}. A "
            "vocabulary is all str, all bytes or all integers of 64 bits: convert it first, ids by "
            ".astype('Int64') or 'UInt64' of pandas, what is mixed by .astype(str)."
        ) from cause_of(error)


def _chunks_in(
    stream: Any, schema: Any, number: int | None, origin: str, beside: _Beside | None
) -> Iterator[_Column]:
    while True:
        array = _Array()
        _check(stream.get_next(ctypes.byref(stream), ctypes.byref(array)), stream, origin)
        if not array.release:  # the stream is at its end
            return
        try:
            yield _chunk(schema, array, number, origin, beside)
        finally:
            _release(array)


def _pointer(capsule: Any, name: bytes, kind: type[ctypes.Structure]) -> Any:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return kind.from_address(get(capsule, name))


def _release(struct: Any) -> None:
    if struct.release:
        struct.release(ctypes.byref(struct))


def _check(status: int, stream: Any, origin: str) -> None:
    if not status:
        return
    said = stream.get_last_error(ctypes.byref(stream))
    reason = said.decode("utf-8", "replace") if said else f"error {status}"
    raise VocabularyError(f"{origin} cannot be read: {reason}.")


def _check_no_objects(source: Any, field: Any, origin: str) -> None:
    """Raises VocabularyError for a column of Python's objects, of which polars exports addresses.

    Polars has nothing else that it exports as bytes of one width.
    """
    library = type(source).__module__.partition(".")[0]
    if library == "polars" and field.format.startswith(_OF_ONE_WIDTH):
        raise VocabularyError(
            f"{origin} holds Python's objects (polars' Object): a vocabulary is text, binary or "
            "integers. Make the column anew as one of these, pl.Series(column.to_list()), or pass "
            "column.to_list()."
        )


def _check_stored_as_is(schema: Any, origin: str) -> None:
    """Raises VocabularyError for what stands for something else than its integers or bytes."""
    name = _metadata(schema).get(_EXTENSION, b"").decode("utf-8", "replace")
    form = schema.format
    if not name or name in _STORED_AS_IS:
        return
    if form in _INTEGERS or form.startswith(_OF_ONE_WIDTH):
        raise VocabularyError(
            f"{origin} holds what is of an extension of Arrow's, {shown_entry(name)}, and stored "
            f"as {form.decode('ascii', 'replace')!r}: a vocabulary is text, binary or integers. "
            "Cast the column first, to text or to what it is stored as."
        )


def _metadata(schema: Any) -> dict[bytes, bytes]:
    """A number of pairs; of each the key and the value, behind their lengths."""
    if not schema.metadata:
        return {}
    at, found = schema.metadata, []
    count = 2 * ctypes.c_int32.from_address(at).value
    at += 4
    for _ in range(count):
        size = ctypes.c_int32.from_address(at).value
        found.append(ctypes.string_at(at + 4, size))
        at += 4 + size
    return dict(zip(found[::2], found[1::2], strict=True))


def _chunk(
    schema: Any, array: Any, number: int | None, origin: str, beside: _Beside | None
) -> _Column:
    """The chunk of a column by itself, or of that of a number of a table."""
    if number is None:
        return _decoded(schema, array, origin)
    if beside is not None:
        beside.take(schema, array)
    return _column_at(schema, array, number, origin)


def _column_at(
    schema: Any, array: Any, number: int, origin: str, kinds: Mapping[bytes, Any] = _INTEGERS
) -> _Column:
    child, inside = schema.children[number].contents, array.children[number].contents
    found = _decoded(child, inside, origin, kinds=kinds)
    start = array.offset  # of the table; its columns know nothing of it
    if start or _length(found) != array.length:
        found = found.take(np.arange(start, start + array.length))
    return _where_both(found, _valid(array))  # a struct that is null has no columns


def _number_of(
    schema: Any, column: str | int | None, origin: str, beside: _Beside | None
) -> int | None:
    """Which column of a table is meant, the named one or the only one; None: it is no table."""
    if schema.format != _STRUCT:
        if column is not None:
            raise VocabularyError(f"{origin} is one column, so column={column!r} is of no use.")
        return None
    names = _names_of(schema)
    number = _number_among(names, column, origin)
    if beside is not None:
        beside.begin(schema, number, names)
    return number


def _names_of(schema: Any) -> list[str]:
    return [
        (schema.children[number].contents.name or b"").decode("utf-8", "replace")
        for number in range(schema.n_children)
    ]


def _number_among(names: Sequence[str], column: str | int | None, origin: str) -> int:
    _check_rows_not_lost(names, column, origin)
    if column is None and len(names) == 1:
        return 0
    if isinstance(column, int) and 0 <= column < len(names):
        return column
    if isinstance(column, str) and names.count(column) == 1:
        return names.index(column)
    if isinstance(column, str) and column in names:
        raise VocabularyError(
            f"{origin} has {names.count(column)} columns that are called {column!r}: pass the one "
            "that is meant as a sequence."
        )
    asked = "" if column is None else f"no column {column!r}, but "
    known, first = listed_entries(names), shown_entry(names[0] if names else "name")
    raise VocabularyError(
        f"{origin} is a table with {asked}the columns {known}: say which one holds the entries by "
        f"Vocabulary.load(..., column={first})."
    )


def _check_rows_not_lost(names: Sequence[str], column: str | int | None, origin: str) -> None:
    """Raises VocabularyError for a table of entries that says in another column which row each has.

    `Vocabulary.save` writes such tables; without their metadata they are no longer told by it.
    """
    asked = names[column] if isinstance(column, int) and 0 <= column < len(names) else column
    if asked == ENTRY_COLUMN and ROW_COLUMN in names:
        raise VocabularyError(
            f"{origin} says in its column {ROW_COLUMN!r} which row each entry has; a column by "
            "itself is an entry a row, in order. Load what Vocabulary.save wrote as it is, without "
            "column=. If the rows are 0, 1, 2 and so on, pass the column's values as a sequence."
        )


def _decoded(
    schema: Any,
    array: Any,
    origin: str,
    depth: int = 0,
    *,
    kinds: Mapping[bytes, Any] = _INTEGERS,
) -> _Column:
    """What a column holds; numbers of these kinds are ids."""
    form, length, offset = schema.format, array.length, array.offset
    _check_stored_as_is(schema, origin)
    there = _valid(array)
    if schema.dictionary:
        if depth >= _DEEPEST or form not in _INTEGERS:
            raise VocabularyError(f"{origin} is encoded by a dictionary that cannot be followed.")
        inner, inside = schema.dictionary.contents, array.dictionary.contents
        values = _decoded(inner, inside, origin, depth + 1, kinds=kinds)
        at = _buffer(array, 1, _INTEGERS[form], length, offset).astype(np.int64)
        if there is not None:
            at[~there] = 0
        has_any = there is None or bool(there.any())
        if not _length(values) and not has_any:
            values = _one_null(values)
        if len(at) and not 0 <= int(at.min()) <= int(at.max()) < _length(values):
            raise VocabularyError(f"{origin} names entries that its dictionary does not have.")
        return _where_both(values.take(at), there)
    if form in kinds:
        return _Column(there, ids=_buffer(array, 1, kinds[form], length, offset).copy())
    if form in _OFFSETS:
        bounds = _buffer(array, 1, _OFFSETS[form], length + 1 if length else 0, offset)
        edges = bounds.astype(np.int64) if length else np.zeros(1, dtype=np.int64)
        first, last = int(edges[0]), int(edges[-1])
        if first:
            edges -= first
        data = _buffer(array, 2, np.uint8, last - first, first)
        return _Column(there, None, data.copy(), edges[:-1], np.diff(edges))
    if form in _VIEWS:
        return _of_views(array, there)
    if form.startswith(_OF_ONE_WIDTH):
        return _of_one_width(array, there, int(form.removeprefix(_OF_ONE_WIDTH)))
    what = next((what for begin, what in _NO_ENTRIES if form.startswith(begin)), "of another kind")
    raise VocabularyError(
        f"{origin} holds what is {what} (Arrow's type {form.decode('ascii', 'replace')!r}): a "
        "vocabulary is text, binary or integers. Cast the column first"
        f"{_CAST if what == _FLOATING else '.'}"
    )


def _one_null(values: _Column) -> _Column:
    """A null of what a dictionary without an entry holds: as that of other chunks, text or ids."""
    null, zero = np.zeros(1, dtype=np.bool_), np.zeros(1, dtype=np.int64)
    if values.ids is not None:
        return _Column(null, ids=zero.astype(values.ids.dtype))
    return _Column(null, data=np.empty(0, np.uint8), starts=zero, lengths=zero)


def _where_both(found: _Column, there: npt.NDArray[np.bool_] | None) -> _Column:
    """The entries that are there both in their column and in what names or holds them."""
    inner = found.is_there
    both = there if inner is None else inner if there is None else there & inner
    return replace(found, is_there=both)


def _of_one_width(array: Any, there: npt.NDArray[np.bool_] | None, width: int) -> _Column:
    data = _buffer(array, 1, np.uint8, array.length * width, array.offset * width)
    starts = np.arange(array.length, dtype=np.int64) * width
    return _Column(there, None, data.copy(), starts, np.full(array.length, width, dtype=np.int64))


def _of_views(array: Any, there: npt.NDArray[np.bool_] | None) -> _Column:
    """Text by views: short ones hold theirs, the others lie in further buffers."""
    views = _buffer(array, 1, np.uint8, array.length * _VIEW, array.offset * _VIEW)
    words = views.view(np.int32).reshape(-1, 4)
    count = array.n_buffers - 3  # the last one holds the sizes of those before
    sizes = _buffer(array, array.n_buffers - 1, np.int64, count, 0)
    further = [_buffer(array, 2 + n, np.uint8, int(sizes[n]), 0) for n in range(count)]
    lengths = words[:, 0].astype(np.int64)
    is_long = lengths > _INLINE
    if there is not None:
        is_long &= there
        lengths[~there] = 0
    short = [] if is_long.all() else [views]  # which hold their text themselves
    begins = np.cumsum([sum(map(len, short)), *map(int, sizes)])
    data = _joined([*short, *further]) if short or further else views[:0]
    starts = words[:, 3].astype(np.int64)
    if count > 1:
        starts += begins[np.where(is_long, words[:, 2], 0)]
    else:
        starts += begins[0]
    if short:
        starts = np.where(is_long, starts, np.arange(array.length, dtype=np.int64) * _VIEW + 4)
    owned = data.copy() if len(short) + len(further) == 1 else data
    return _Column(there, None, owned, starts, lengths)


def _valid(array: Any) -> npt.NDArray[np.bool_] | None:
    """Which entries are there; None: all."""
    if array.null_count == 0 or not array.n_buffers or not array.buffers[0] or not array.length:
        return None
    stop = array.offset + array.length
    bits = _buffer(array, 0, np.uint8, -(-stop // 8), 0)
    there = np.unpackbits(bits, bitorder="little")[array.offset : stop].astype(bool)
    return None if there.all() else there


def _buffer(array: Any, number: int, dtype: Any, count: int, offset: int) -> npt.NDArray[Any]:
    """Elements of a buffer where they are; they must be copied before the array is released."""
    size = np.dtype(dtype).itemsize
    address = array.buffers[number] if number < array.n_buffers else None
    if not address or not count:
        return np.empty(0, dtype=dtype)
    raw = (ctypes.c_char * (count * size)).from_address(address + offset * size)
    return np.frombuffer(raw, dtype=dtype)
