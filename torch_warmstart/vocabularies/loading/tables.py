"""A column of a table in a file: csv, tsv, JSON lines, Parquet, Arrow. pyarrow reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch_warmstart.entries import Vocabulary
from torch_warmstart.errors import (
    MissingDependencyError,
    VocabularyError,
    cause_of,
    printable,
)
from torch_warmstart.storage import Bytes
from torch_warmstart.vocabularies.loading.arrow import from_arrow

_COUNTED = re.compile(r"CSV parse error: Expected \d+ columns, got \d+")
_SEPARATORS = {"csv": ",", "tsv": "\t"}


def read_table(raw: Bytes, url: str, form: str, column: str | int | None) -> Vocabulary:
    """The column of a table as a vocabulary.

    Of csv and tsv a column by name means that the first line has the names, and one by number that
    it has not. Their cells are text, whatever they look like.

    Raises:
        VocabularyError: it is no such table, or has no such column.
        MissingDependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise MissingDependencyError(
            f"Reading a column of {url} needs pyarrow: pip install 'torch-warmstart[arrow]'"
        ) from error
    if column is None and form in _SEPARATORS:
        raise VocabularyError(
            f"{url} is a table: say which column holds the entries, by name where the first line "
            "has the names, else by number: Vocabulary.load(..., column=0)."
        )
    buffer = pyarrow.BufferReader(pyarrow.py_buffer(raw))
    try:
        table = _READERS[form](buffer, column) if form in _READERS else None
        if table is None:
            table = _read_separated(buffer, _SEPARATORS[form], column)
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
        raise VocabularyError(f"{url} cannot be read as {form}: {_why(error)}") from cause_of(error)
    if form == "jsonl" and table.num_rows == 1:
        raise VocabularyError(
            f"{url} is one JSON document, not a line for each entry: leave column= and format= out "
            "if it is a vocab.json or a tokenizer.json."
        )
    found = _named(table, url, column)
    return replace(found, listed=replace(found.listed, origin=_origin(url, column)))


def _named(table: Any, url: str, column: str | int | None) -> Vocabulary:
    try:
        return from_arrow(table, column)
    except VocabularyError as error:
        raise VocabularyError(f"{url}: {error}") from error
    except UnicodeDecodeError as error:
        raise VocabularyError(
            f"{url} is no UTF-8: the names of its columns cannot be read."
        ) from error


def _why(error: Exception) -> str:
    """What pyarrow says, without the content of the file that it may quote."""
    first = str(error).split("\n", 1)[0]
    counted = _COUNTED.match(first)
    return printable(counted[0] if counted else first)[:200].rstrip(".") + "."


def _origin(url: str, column: str | int | None) -> str:
    return url if column is None else f"{url}, column {column!r}"


def _read_separated(buffer: Any, separator: str, column: str | int | None) -> Any:
    import pyarrow
    from pyarrow import csv

    has_no_names = isinstance(column, int)
    options = csv.ReadOptions(autogenerate_column_names=has_no_names)
    parse = csv.ParseOptions(
        delimiter=separator,
        newlines_in_values=True,
        quote_char='"' if separator == "," else False,
    )
    name = f"f{column}" if has_no_names else column  # as pyarrow calls them
    convert = csv.ConvertOptions(
        column_types={name: pyarrow.large_binary()}, strings_can_be_null=False, null_values=[]
    )
    return csv.read_csv(buffer, options, parse, convert)


def _read_json(buffer: Any, column: str | int | None) -> Any:
    from pyarrow import json

    del column
    return json.read_json(buffer)


def _read_parquet(buffer: Any, column: str | int | None) -> Any:
    from pyarrow import parquet

    file = parquet.ParquetFile(buffer)
    names = file.schema_arrow.names
    return file.read(columns=[column] if column in names else None)


def _read_arrow(buffer: Any, column: str | int | None) -> Any:
    from pyarrow import ipc

    del column
    return ipc.open_file(buffer).read_all()


_READERS: Mapping[str, Callable[[Any, str | int | None], Any]] = {
    "jsonl": _read_json,
    "parquet": _read_parquet,
    "arrow": _read_arrow,
}
