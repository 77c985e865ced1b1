"""NVTabular's categories: `unique.<column>.parquet`, with `meta.<column>.parquet` beside it.

Since 23.6 (nvtabular/ops/categorify.py, `_save_encodings`): row 0 is for padding, 1 for null, from
2 on as many as there are buckets for what is not listed, one without buckets; then come the
categories. The file has these alone, and which rows are theirs is the index that pandas keeps in
the schema; `meta` says the same by kind, offset and number. A fit on many partitions makes a folder
of that name, with `part.<n>.parquet`. Before (1.8, `_write_uniques`): no index is kept, the first
category is null, and its row 0 is that of what is not listed too.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from torch_warmstart.entries import MASK, MOST_ROWS, OOV, UNKNOWN, Usage, Vocabulary
from torch_warmstart.errors import (
    VocabularyError,
    WarmStartError,
    cause_of,
    did_you_mean,
    listed,
    printable,
    said_of_entries,
)
from torch_warmstart.storage import Bytes, Storage, base_name, below, is_signed, join, parent
from torch_warmstart.values import frozen
from torch_warmstart.vocabularies.by_pyarrow import parquet_table, pyarrow_for, reader_of
from torch_warmstart.vocabularies.loading import from_arrow

_NAME = re.compile(r"unique\.(?P<column>.+)\.parquet")
_PART = re.compile(r"part\.(?P<number>\d{1,9})\.parquet")
_KINDS = ("pad", "null", "oov", "unique")
_NULL = "null"  # what the row of missing values is called
_FIRST = 3  # the row of the first category without buckets
_MOST_META = 1 << 20  # bytes of a file of four rows
_EXACT = {32: 1 << 24, 64: 1 << 53}  # by bits, up to where a float is one whole number
_AGAIN = "Fit the workflow again, or pass a mapping of entry to row."


class _WrongError(ValueError):
    """What is wrong with a file, to follow its name."""


@frozen
class _Categories:
    """What a file holds: a column of entries, how often each was seen, and the rows that it says.

    Without `rows` it does not say any.
    """

    entries: Any
    sizes: Any
    rows: range | None


def read_categories(
    raw: Bytes, url: str, column: str | int | None, storage: Storage
) -> Vocabulary | None:
    """The vocabulary in a Parquet file; None where it is none of NVTabular's, or another column's.

    Raises VocabularyError: it is one, but its rows are not what it says, or not said.
    """
    with _reading(url):
        schema = _file(raw).schema_arrow
        name = _column_of(schema, base_name(url))
        if name is None or column not in (None, name):
            return None
        return _vocabulary([_read(raw, name)], url, name, storage)


def read_folder(url: str, storage: Storage, key: str | None) -> Vocabulary | None:
    """Of a folder of such files the one of column `key`; None if there are none in it.

    Raises VocabularyError: there are several and none is named, or one is not what it says.
    """
    names = storage.list_directory(url)
    own = _NAME.fullmatch(base_name(url.rstrip("/")))
    if own and key is None and any(map(_PART.fullmatch, names)):
        return _of_parts(url, names, own["column"], storage)
    columns = {told["column"]: name for name in names if (told := _NAME.fullmatch(name))}
    if not columns:
        return None
    if key is None and len(columns) == 1:
        key = next(iter(columns))
    if key is None or key not in columns:
        asked = "" if key is None else f"no column {printable(key)!r}, but "
        known = listed(repr(printable(name)) for name in sorted(columns))
        raise VocabularyError(
            f"{url} holds {asked}the categories of {known}: say which by "
            f"Vocabulary.load(..., key=...).{did_you_mean(key or '', columns)}"
        )
    found = below(url, columns[key])
    if storage.is_directory(found):
        return _of_parts(found, storage.list_directory(found), key, storage)
    return read_categories(storage.read_all(found), found, key, storage)


def _of_parts(url: str, names: Sequence[str], column: str, storage: Storage) -> Vocabulary:
    """A folder of parts, each with rows that follow those of the one before."""
    numbers = {int(told["number"]): name for name in names if (told := _PART.fullmatch(name))}
    files = [numbers[number] for number in sorted(numbers)]
    with _reading(url):
        if not files:
            raise _WrongError("no part of it is there")
        parts = [_read(storage.read_all(below(url, name)), column) for name in files]
        return _vocabulary(parts, url.rstrip("/"), column, storage)


@contextlib.contextmanager
def _reading(url: str) -> Iterator[None]:
    """What goes wrong with a file, as ours."""
    arrow = pyarrow_for(f"Reading {url}")
    try:
        yield
    except WarmStartError:  # from the storage
        raise
    except _WrongError as error:
        text = f"{url} is no vocabulary as NVTabular writes them: {error}. {_AGAIN}"
        raise VocabularyError(text) from error
    except (arrow.ArrowException, OSError, ValueError, TypeError) as error:
        text = f"{url} cannot be read as parquet: {said_of_entries(error)}"
        raise VocabularyError(text) from cause_of(error)


# -- a file ----------------------------------------------------------------------------------------


def _file(raw: Bytes) -> Any:
    from pyarrow import parquet

    return parquet.ParquetFile(reader_of(raw))


def _column_of(schema: Any, name: str) -> str | None:
    """The column of the categories: the file's name says it, or the columns and the index do."""
    told = _NAME.fullmatch(name)
    if told:
        return told["column"] if told["column"] in schema.names else None
    is_pair = len(schema.names) == 2 and schema.names[1] == f"{schema.names[0]}_size"
    rows = _index_of(schema) if is_pair else None
    is_ours = isinstance(rows, range) and rows.start >= _FIRST
    return schema.names[0] if is_ours else None


def _index_of(schema: Any) -> range | str | None:
    """What pandas keeps of the rows: a range, the name of a column, or nothing."""
    told = schema.pandas_metadata
    kept = told.get("index_columns", []) if isinstance(told, Mapping) else []
    if not isinstance(kept, list) or len(kept) > 1:
        raise _WrongError("its index has several columns")
    if not kept or isinstance(kept[0], str):
        return kept[0] if kept else None
    said = kept[0] if isinstance(kept[0], Mapping) else {}
    words: list[Any] = [said.get(word) for word in ("start", "stop", "step")]
    if not all(type(word) is int and 0 <= word <= MOST_ROWS for word in words) or not words[2]:
        raise _WrongError("its index is no range of rows")
    return range(*words)


def _read(raw: Bytes, column: str) -> _Categories:
    import pyarrow

    file = _file(raw)
    schema = file.schema_arrow
    index = _index_of(schema)
    sizes = f"{column}_size"
    known = {column, sizes, index}
    others = [name for name in schema.names if name not in known]
    if others or column not in schema.names:
        names = listed(repr(printable(name)) for name in schema.names)
        raise _WrongError(
            f"its columns are {names}, and one of entries, with its sizes, is looked for"
        )
    table = parquet_table(file, len(raw))
    entries = table.column(column)
    if pyarrow.types.is_dictionary(entries.type):
        entries = entries.cast(entries.type.value_type)
    if isinstance(index, str):
        if index not in schema.names:
            raise _WrongError(f"its index would be in a column {printable(index)!r}")
        index = _consecutive(_whole(table.column(index), "index"))
    if index is not None and (index.step != 1 or len(index) != len(entries)):
        raise _WrongError(
            f"its index is {index.start}, {index.start + index.step}, ... {index.stop} for "
            f"{len(entries):,} entries"
        )
    found = table.column(sizes) if sizes in schema.names else None
    return _Categories(entries, found, index)


def _consecutive(numbers: torch.Tensor) -> range:
    if not len(numbers) or bool((numbers.diff() != 1).any()):
        raise _WrongError("its index does not count its entries")
    return range(int(numbers[0]), int(numbers[-1]) + 1)


def _whole(column: Any, what: str) -> torch.Tensor:
    """A column of whole numbers, however pandas held them: int64."""
    import pyarrow

    if pyarrow.types.is_floating(column.type):
        column = _from_floats(column, what)
    if column.null_count or not pyarrow.types.is_integer(column.type):
        raise _WrongError(f"its {what} column is no whole numbers")
    return torch.from_numpy(column.cast(pyarrow.int64()).to_numpy().copy())


def _from_floats(column: Any, what: str) -> Any:
    """Integers that pandas made floats of, because some were missing."""
    import pyarrow
    from pyarrow import compute

    is_exact = compute.less(compute.abs(column), float(_EXACT.get(column.type.bit_width, 0)))
    if not compute.all(is_exact).as_py():  # NaN, which is no number, is not less
        raise _WrongError(f"its {what} column holds what is no whole number")
    try:
        return column.cast(pyarrow.int64())
    except pyarrow.ArrowInvalid as error:
        raise _WrongError(f"its {what} column holds fractions") from error


# -- all of it -------------------------------------------------------------------------------------


def _vocabulary(
    parts: Sequence[_Categories], url: str, column: str, storage: Storage
) -> Vocabulary:
    import pyarrow

    whole = _joined(parts)
    meta = _meta(url, column, storage)
    nulls = whole.entries.null_count
    if nulls and (nulls > 1 or whole.entries[0].is_valid):
        raise _WrongError("more than its first entry is null")
    if len(whole.entries) == nulls:
        raise VocabularyError(f"{url} holds no category: a vocabulary needs at least one entry.")
    if nulls:
        rows, special = _rows_of_old(whole, meta)
    else:
        rows, special = _rows_of_new(whole, meta)
    entries = whole.entries.slice(nulls)
    if pyarrow.types.is_floating(entries.type):
        entries = _from_floats(entries, "entry")
    listed = from_arrow(entries).listed
    if len(entries.unique()) != len(entries):
        raise _WrongError("an entry is there twice")
    return Vocabulary(
        replace(listed, origin=url),
        rows.stop,
        first=rows.start,
        special=special,
        usage=_usage(whole.sizes, nulls),
    )


def _joined(parts: Sequence[_Categories]) -> _Categories:
    import pyarrow

    if len(parts) == 1:
        return parts[0]
    for before, behind in itertools.pairwise(parts):
        if before.rows is None or behind.rows is None or before.rows.stop != behind.rows.start:
            raise _WrongError("the rows of its parts do not follow one another: one is missing")
        if before.entries.type != behind.entries.type:
            raise _WrongError("its parts are of several types")
    rows = [part.rows for part in parts if part.rows is not None]
    chunks = [chunk for part in parts for chunk in part.entries.chunks]
    sizes = [part.sizes for part in parts if part.sizes is not None]
    return _Categories(
        pyarrow.chunked_array(chunks, parts[0].entries.type),
        pyarrow.chunked_array([c for column in sizes for c in column.chunks])
        if len(sizes) == len(parts)
        else None,
        range(rows[0].start, rows[-1].stop),
    )


def _rows_of_old(whole: _Categories, meta: Mapping[str, range]) -> tuple[range, dict[str, range]]:
    """Before 23.6 the first row is for null and for what is not listed."""
    if meta or (whole.rows is not None and whole.rows.start):
        raise _WrongError("its first entry is null, but its rows do not begin at 0")
    return range(1, len(whole.entries)), {OOV: range(1)}


def _rows_of_new(whole: _Categories, meta: Mapping[str, range]) -> tuple[range, dict[str, range]]:
    if whole.rows is None and not meta:
        raise _WrongError(
            "it keeps no index, its first entry is not null, and no meta file lies beside it, so "
            "that nothing says which rows are whose"
        )
    rows = whole.rows or meta["unique"]
    if rows.start < _FIRST:
        raise _WrongError(
            f"its entries begin at row {rows.start}, but rows 0 to 2 are for padding, null and "
            "what is not listed"
        )
    if not meta and rows.start > _FIRST:
        raise _WrongError(
            f"its entries begin at row {rows.start}, and what the rows before are for is in the "
            "meta file, which does not lie beside it"
        )
    if meta and len(meta["unique"]) != len(whole.entries):
        raise _WrongError(
            f"it has {len(whole.entries):,} entries, but the meta file beside it says "
            f"{len(meta['unique']):,}"
        )
    if meta and meta["unique"].start > rows.start:
        raise _WrongError(
            f"its entries begin at row {rows.start}, but the meta file beside it says "
            f"{meta['unique'].start}"
        )
    if meta and meta["unique"].start < rows.start:  # one table for several columns
        return rows, {}
    return rows, {MASK: range(1), _NULL: range(1, 2), OOV: range(2, rows.start)}


def _usage(sizes: Any, nulls: int) -> Usage | None:
    if sizes is None:
        return None
    counts = _whole(sizes.slice(nulls), "size")
    if bool((counts < 0).any()):
        raise _WrongError("a size of it is negative")
    unknown = torch.full((len(counts),), UNKNOWN, dtype=torch.int32)
    return Usage(counts, unknown, unknown.clone())


def _meta(url: str, column: str, storage: Storage) -> Mapping[str, range]:
    """The rows of each kind, as the file beside says; empty without it."""
    beside = join(parent(url), f"meta.{column}.parquet")
    if is_signed(url) or base_name(beside) != f"meta.{column}.parquet":
        return {}
    if not storage.exists(beside):
        return {}
    source = storage.open(beside)
    try:
        if source.size > _MOST_META:
            raise _WrongError(
                f"{base_name(beside)} has {source.size:,} bytes, which no such file has"
            )
        file = _file(source.read(0, source.size))
        table = parquet_table(file, source.size, ["kind", "offset", "num_indices"])
    finally:
        source.close()
    if table.num_columns != 3 or tuple(table.column("kind").to_pylist()) != _KINDS:
        raise _WrongError(f"{base_name(beside)} does not say what rows are for")
    starts = _whole(table.column("offset"), "offset").tolist()
    counts = _whole(table.column("num_indices"), "num_indices").tolist()
    found = {
        kind: range(start, start + count)
        for kind, start, count in zip(_KINDS, starts, counts, strict=True)
    }
    ends = [0, *(rows.stop for rows in found.values())]
    if starts != ends[:-1] or min(counts[:3]) < 1 or counts[3] < 0:
        raise _WrongError(f"{base_name(beside)} has rows of no use, or of several uses")
    return found
