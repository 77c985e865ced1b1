"""A vocabulary as a table that other programs read: entry, row, count, last_seen, born.

Parquet, a row group at a time; or text with tabs between the columns. What the columns cannot say
(special rows, how many rows there are) stands in the schema's metadata, and of text in a first line
that begins with `#`. pyarrow writes and reads both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from torch_warmstart.entries import (
    COUNT_COLUMN,
    ENTRY_COLUMN,
    PARQUET_SUFFIX,
    ROW_COLUMN,
    UNKNOWN,
    Entries,
    Usage,
    Vocabulary,
    said_in_files,
)
from torch_warmstart.errors import (
    WRONG_DOCUMENT,
    SettingsError,
    VocabularyError,
    cause_of,
)
from torch_warmstart.storage import Bytes, beside
from torch_warmstart.vocabularies.by_pyarrow import (
    block_size_of,
    parquet_table,
    pyarrow_for,
    reader_of,
    said_of_text,
)
from torch_warmstart.vocabularies.loading import KEPT_TABLE, PARQUET_KEY, checked_special

_GROUP = 1 << 20  # entries of a row group
_LINE = 1 << 20  # bytes that a line of text has at most
_DAYS = ("last_seen", "born")
_USAGE = (COUNT_COLUMN, *_DAYS)


def save_table(vocabulary: Vocabulary, path: str) -> None:
    """Writes a Parquet or text file, whole or not at all.

    Raises SettingsError: it cannot be written, or an entry cannot stand in a line of text.
    """
    arrow = pyarrow_for(f"A vocabulary as a table such as {path}")
    write = _write_parquet if path.endswith(PARQUET_SUFFIX) else _write_text
    try:
        with beside(path) as written:
            write(vocabulary, written)
    except (OSError, arrow.ArrowException) as error:
        why = getattr(error, "strerror", None) or error
        raise SettingsError(f"{path} cannot be written: {why}.") from error


def _about(vocabulary: Vocabulary) -> str:
    return json.dumps({**said_in_files(vocabulary), "fingerprint": vocabulary.fingerprint})


def _write_parquet(vocabulary: Vocabulary, path: str) -> None:
    from pyarrow import parquet

    schema = _schema(vocabulary).with_metadata({PARQUET_KEY: _about(vocabulary)})
    with parquet.ParquetWriter(path, schema) as writer:
        for columns in _columns(vocabulary):
            writer.write_table(_table(columns, schema))


def _write_text(vocabulary: Vocabulary, path: str) -> None:
    import pyarrow
    from pyarrow import csv

    schema = _schema(vocabulary)
    if schema.field(ENTRY_COLUMN).type == pyarrow.large_binary():
        raise SettingsError(
            "An entry of the vocabulary is no UTF-8, which a file of text cannot hold: save it to "
            "a path that ends in .parquet."
        )
    with open(path, "wb") as file:
        file.write(KEPT_TABLE + _about(vocabulary).encode() + b"\n")
        file.write("\t".join(schema.names).encode() + b"\n")
        options = csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
        for columns in _columns(vocabulary):
            _check_one_line(vocabulary, columns[ENTRY_COLUMN])
            csv.write_csv(_table(columns, schema), file, options)


def _check_one_line(vocabulary: Vocabulary, column: Any) -> None:
    if vocabulary.listed.ids is not None:
        return
    raw = np.frombuffer(column.buffers()[2] or b"", dtype=np.uint8)
    if bool(np.isin(raw, np.frombuffer(b'\t\n\r"', dtype=np.uint8)).any()):
        raise SettingsError(
            "An entry of the vocabulary has a tab, a quote or an end of line in it, which a line "
            "of text cannot hold: save it to a path that ends in .parquet."
        )


def _schema(vocabulary: Vocabulary) -> Any:
    import pyarrow

    ids = pyarrow.uint64() if vocabulary.listed.is_unsigned else pyarrow.int64()
    entry = pyarrow.large_binary() if vocabulary.listed.ids is None else ids
    if entry == pyarrow.large_binary() and _is_utf8(vocabulary.listed):
        entry = pyarrow.large_string()
    numbers = [(name, pyarrow.int64()) for name in (ROW_COLUMN, COUNT_COLUMN)]
    days = [(name, pyarrow.date32()) for name in _DAYS]
    return pyarrow.schema([(ENTRY_COLUMN, entry), *numbers, *days])


def _is_utf8(listed: Entries) -> bool:
    """Whether all entries are text of which other programs make strings."""
    for start in range(0, len(listed), _GROUP):
        data, lengths = listed.packed(slice(start, start + _GROUP))
        raw = data.numpy()
        ends = lengths.cumsum(0).numpy()
        begins = ends[:-1][ends[:-1] < len(raw)]
        try:
            raw.tobytes().decode()
        except UnicodeDecodeError:
            return False
        if bool((raw[begins] & 0xC0 == 0x80).any()):  # an entry begins within a character
            return False
    return True


def _columns(vocabulary: Vocabulary) -> Iterator[dict[str, Any]]:
    """The columns of each row group."""
    rows, usage = vocabulary.entry_rows, vocabulary.usage
    for start in range(0, max(1, len(rows)), _GROUP):
        stop = min(start + _GROUP, len(rows))
        here = usage.slice(start, stop) if usage is not None else None
        numbers = dict.fromkeys(_USAGE) if here is None else _days(here)
        step = slice(start, stop)
        entry = _entries(vocabulary.listed, step)
        yield {ENTRY_COLUMN: entry, ROW_COLUMN: rows[step].numpy(), **numbers, "size": stop - start}


def _days(usage: Usage) -> dict[str, Any]:
    return {
        COUNT_COLUMN: usage.counts.numpy(),
        "last_seen": usage.last_seen.numpy(),
        "born": usage.born.numpy(),
    }


def _entries(listed: Entries, step: slice) -> Any:
    import pyarrow

    if listed.ids is not None:
        ids = listed.ids[step].numpy()
        return pyarrow.array(ids.view(np.uint64) if listed.is_unsigned else ids)
    data, lengths = listed.packed(step)
    bounds = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths.numpy(), out=bounds[1:])
    buffers = [None, pyarrow.py_buffer(bounds), pyarrow.py_buffer(data.contiguous().numpy())]
    return pyarrow.Array.from_buffers(pyarrow.large_binary(), len(lengths), buffers)


def _table(columns: dict[str, Any], schema: Any) -> Any:
    import pyarrow

    size = columns.pop("size")
    arrays = []
    for field in schema:
        values = columns[field.name]
        if values is None:
            arrays.append(pyarrow.nulls(size, field.type))
        elif field.name in _DAYS:
            mask = values == UNKNOWN
            arrays.append(pyarrow.array(values, mask=mask).cast(field.type))
        elif field.name == ENTRY_COLUMN:
            arrays.append(values.cast(field.type))
        else:
            arrays.append(pyarrow.array(values, field.type))
    return pyarrow.Table.from_arrays(arrays, schema=schema)


# -- reading ---------------------------------------------------------------------------------------


def read_kept_table(raw: Bytes, url: str) -> Vocabulary:
    """The vocabulary in it; VocabularyError if it is damaged."""
    arrow = pyarrow_for(f"A vocabulary as a table such as {url}")
    try:
        table, about = _read_parquet(raw) if raw[:1] == b"P"[0] else _read_text(raw)
        return _vocabulary_of(table, json.loads(about), url)
    except (arrow.ArrowException, OSError, *WRONG_DOCUMENT) as error:
        told = said_of_text(error)
        raise VocabularyError(
            f"{url} is a damaged vocabulary: {told}. Save it again."
        ) from cause_of(error)


def _read_parquet(raw: Bytes) -> tuple[Any, bytes]:
    from pyarrow import parquet

    file = parquet.ParquetFile(reader_of(raw))
    table = parquet_table(file, len(raw), [ENTRY_COLUMN, ROW_COLUMN, *_USAGE])
    return table, (table.schema.metadata or {})[PARQUET_KEY]


def _read_text(raw: Bytes) -> tuple[Any, bytes]:
    import pyarrow
    from pyarrow import csv

    head = raw[:_LINE].tobytes().split(b"\n", 1)[0]
    rest = raw[len(head) + 1 :]
    names = rest[:_LINE].tobytes().split(b"\n", 1)[0]
    if names.split(b"\t") != [name.encode() for name in (ENTRY_COLUMN, ROW_COLUMN, *_USAGE)]:
        raise ValueError("its first lines are not what we write")
    types = {
        ROW_COLUMN: pyarrow.int64(),
        COUNT_COLUMN: pyarrow.int64(),
        **dict.fromkeys(_DAYS, pyarrow.date32()),
        ENTRY_COLUMN: pyarrow.large_binary(),
    }
    about = head[len(KEPT_TABLE) :]
    if (kind := json.loads(about).get("kind", "")) and kind != "text":
        types[ENTRY_COLUMN] = pyarrow.uint64() if kind == "uint64" else pyarrow.int64()
    buffer = reader_of(rest)
    parse = csv.ParseOptions(delimiter="\t", quote_char=False)
    convert = csv.ConvertOptions(column_types=types, strings_can_be_null=False)
    blocks = csv.ReadOptions(block_size=block_size_of(rest))
    return csv.read_csv(buffer, blocks, parse, convert), about


def _vocabulary_of(table: Any, about: dict[str, Any], url: str) -> Vocabulary:
    listed = _listed(table, about["kind"], url)
    rows = _int64(table, ROW_COLUMN)
    special = checked_special(about, len(listed), rows)
    is_dense = len(rows) > 0 and int(rows[-1]) == len(rows) - 1
    at = None if is_dense else torch.from_numpy(rows)
    found = Vocabulary(
        listed,
        about["num_rows"],
        at,
        special=special,
        oov_hash=str(about["oov_hash"]),
        is_padded=bool(about["is_padded"]),
        usage=_usage(table),
    )
    if found.fingerprint != about["fingerprint"]:
        raise ValueError("its rows are not those that it was written with")
    return found


def _listed(table: Any, kind: str, url: str) -> Entries:
    import pyarrow

    column = table.column(ENTRY_COLUMN)
    if column.null_count:
        raise ValueError("a row has no entry")
    if kind != "text":
        ids = column.to_numpy().astype(np.uint64 if kind == "uint64" else np.int64)
        return Entries(
            url, "row", ids=torch.from_numpy(ids.view(np.int64)), is_unsigned=kind == "uint64"
        )
    chunk = pyarrow.concat_arrays([part.cast(pyarrow.large_binary()) for part in column.chunks])
    places = np.frombuffer(chunk.buffers()[1], dtype=np.int64)[chunk.offset :][: len(chunk) + 1]
    data = np.frombuffer(chunk.buffers()[2] or b"\0", dtype=np.uint8)
    return Entries(url, "row", torch.from_numpy(data.copy()), torch.from_numpy(places.copy()))


def _usage(table: Any) -> Usage | None:
    if table.num_rows and table.column(COUNT_COLUMN).null_count == table.num_rows:
        return None
    counts = torch.from_numpy(_int64(table, COUNT_COLUMN))
    if bool((counts < 0).any()):
        raise ValueError("a count is negative")
    usage = Usage(counts, *(_days_of(table, name) for name in _DAYS))
    if not usage.has_days():
        raise ValueError("a day of it is before 1970, or after 9999")
    return usage


def _days_of(table: Any, name: str) -> torch.Tensor:
    import pyarrow

    days = table.column(name).cast(pyarrow.int32()).fill_null(UNKNOWN)
    return torch.from_numpy(days.to_numpy().astype(np.int32))


def _int64(table: Any, name: str) -> Any:
    column = table.column(name)
    if column.null_count:
        raise ValueError(f"the column {name!r} has gaps")
    return column.to_numpy().astype(np.int64)
