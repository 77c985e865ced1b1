"""A column of a table in a file: csv, tsv, JSON lines, Parquet, Arrow. pyarrow reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch_warmstart.entries import ROW_COLUMN, Vocabulary
from torch_warmstart.errors import (
    VocabularyError,
    cause_of,
    plural,
    printable,
)
from torch_warmstart.storage import Bytes
from torch_warmstart.vocabularies.by_pyarrow import (
    arrow_table,
    block_size_of,
    check_cells,
    parquet_table,
    pyarrow_for,
    reader_of,
    said_of_text,
)
from torch_warmstart.vocabularies.loading.arrow import from_table
from torch_warmstart.vocabularies.loading.content import BOM, HEAD, is_numbered, mark_of
from torch_warmstart.vocabularies.numbering import may_be_numbers, may_number
from torch_warmstart.vocabularies.refused_entries import check_no_blank_cells

_COUNTED = re.compile(r"CSV parse error: Expected \d+ columns, got \d+")
_NUMBER = re.compile(rb"-?\d+(\.\d+)?")
_NUMBERS = re.compile("(dictionary<values=)?(u?int|float|double|halffloat)")  # types of pyarrow's
_LOOKED_AT = 50  # lines
SEPARATORS = {"csv": ",", "tsv": "\t"}
_OTHERS = {"semicolons": b";", "bars": b"|", "tabs": b"\t", "commas": b","}
_TEXTS = (*SEPARATORS, "jsonl")


def read_table(
    raw: Bytes, url: str, form: str, column: str | int | None, *, is_said: bool = False
) -> Vocabulary:
    """The column of a table as a vocabulary.

    Of csv and tsv a column by name means that the first line has the names, and one by number that
    it has not. Their cells are text, whatever they look like, and none may be blank.

    Args:
        raw: The file.
        url: Where it is.
        form: Which table it is.
        column: Its name or number.
        is_said: Whether the form is the user's word or the file's name, not only likely.

    Raises:
        VocabularyError: it is no such table, or has no such column.
        MissingDependencyError: pyarrow is not installed.
    """
    if column is None and form in SEPARATORS:
        raise VocabularyError(
            f"{url} is a table: say which column holds the entries, by name where the first line "
            "has the names, else by number: Vocabulary.load(..., column=0)."
        )
    pyarrow = pyarrow_for(f"Reading a column of {url}")
    _check_separator(raw[:HEAD].tobytes(), url, form)
    try:
        table = _table_of(raw, form, column)
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
        raise VocabularyError(f"{url} cannot be read as {form}: {_why(error)}") from cause_of(error)
    if form == "jsonl" and table.num_rows == 1 and not is_said:
        raise VocabularyError(
            f"{url} is one JSON document, not a line for each entry: leave column= out if it is a "
            "vocab.json or a tokenizer.json; if it is JSON lines, of which there is one, write "
            "format='jsonl'."
        )
    if form in SEPARATORS and isinstance(column, int):
        _check_number(table, url, column)
    has_names = form not in SEPARATORS or isinstance(column, str)
    found = from_table(table, column, has_names=has_names, origin=url)
    found = replace(found, listed=replace(found.listed, origin=_origin(url, column)))
    if form in SEPARATORS:
        check_no_blank_cells(found, form)
    return found


def _table_of(raw: Bytes, form: str, column: str | int | None) -> Any:
    """Arrow's table, of which only that column may be read; raises what pyarrow raises."""
    raw = raw[len(mark_of(raw[: len(BOM)].tobytes(), form)) :]
    if form == "jsonl":
        check_cells(raw)
    buffer = reader_of(raw)
    block = block_size_of(raw) if form in _TEXTS else 0
    if form in _READERS:
        return _READERS[form](buffer, column, block)
    return _read_separated(buffer, SEPARATORS[form], column, block)


def _check_separator(head: bytes, url: str, form: str) -> None:
    """Raises VocabularyError for lines that something else separates: each would be one cell."""
    own = SEPARATORS.get(form, "").encode()
    if not own or own in head.split(b"\n")[0]:
        return
    for name, separator in _OTHERS.items():
        if separator != own and is_numbered(head, separator):
            raise VocabularyError(
                f"{url} has {name} between its cells, and is to be read as {form}: pass the column "
                "of its entries as a sequence; or, if each line is an entry with its separators, "
                "Vocabulary.load(..., format='lines')."
            )


def _check_number(table: Any, url: str, column: int) -> None:
    """Of a column by its number: that there is one, and that the first line is no names."""
    if not 0 <= column < table.num_columns:
        raise VocabularyError(
            f"{url} has {plural(table.num_columns, 'column')}, counted from 0: none is number "
            f"{column}."
        )
    if _has_names(table):
        raise VocabularyError(
            f"{url} seems to have names in its first line, above numbers: say the column by its "
            "name, which leaves that line out, or pass the column as a sequence."
        )


def _has_names(table: Any) -> bool:
    """Whether the first line has names: no number above the numbers of some column."""
    for column in table.slice(0, _LOOKED_AT).columns:
        cells = [c.encode() if isinstance(c, str) else c for c in column.to_pylist()]
        if len(cells) > 2 and all(isinstance(cell, bytes) for cell in cells):
            first, *others = cells
            if not _NUMBER.fullmatch(first) and all(map(_NUMBER.fullmatch, others)):
                return True
    return False


def _why(error: Exception) -> str:
    """What pyarrow says, without the content of the file that it may quote."""
    first = said_of_text(error)
    counted = _COUNTED.match(first)
    return printable(counted[0] if counted else first)[:200].rstrip(".") + "."


def _origin(url: str, column: str | int | None) -> str:
    return url if column is None else f"{url}, column {column!r}"


def _read_separated(buffer: Any, separator: str, column: str | int | None, block: int) -> Any:
    import pyarrow
    from pyarrow import csv

    has_no_names = isinstance(column, int)
    options = csv.ReadOptions(autogenerate_column_names=has_no_names, block_size=block)
    parse = csv.ParseOptions(
        delimiter=separator,
        newlines_in_values=True,
        ignore_empty_lines=False,  # or the rows behind one would be others
        quote_char='"' if separator == "," else False,
    )
    name = f"f{column}" if has_no_names else column  # as pyarrow calls them
    convert = csv.ConvertOptions(
        column_types={name: pyarrow.large_binary()},
        null_values=[""],  # a blank cell, and no NA
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    return csv.read_csv(buffer, options, parse, convert)


def _read_json(buffer: Any, column: str | int | None, block: int) -> Any:
    import pyarrow

    table = _json_as(buffer, None, block)
    name = table.column_names[0] if column is None and table.num_columns == 1 else column
    if not isinstance(name, str) or name not in table.column_names:
        return table
    meant = _meant(table.schema.field(name))
    if meant is None:
        return table
    try:
        return _json_as(buffer, meant, block)
    except pyarrow.ArrowInvalid:  # numbers that are no ids
        return table


def _meant(field: Any) -> Any:
    """What a column of JSON was before pyarrow guessed: text like a date, an id without a sign."""
    import pyarrow

    kinds = {pyarrow.types.is_timestamp: "string", pyarrow.types.is_float64: "uint64"}
    kind = next((kind for is_it, kind in kinds.items() if is_it(field.type)), None)
    return None if kind is None else field.with_type(getattr(pyarrow, kind)())


def _json_as(buffer: Any, field: Any, block: int) -> Any:
    """The lines as a table, with a column of this kind; None: of what pyarrow takes it for."""
    import pyarrow
    from pyarrow import json

    schema = None if field is None else pyarrow.schema([field])
    buffer.seek(0)
    options = json.ReadOptions(block_size=block)
    return json.read_json(buffer, options, json.ParseOptions(explicit_schema=schema))


def _read_parquet(buffer: Any, column: str | int | None, block: int) -> Any:
    from pyarrow import parquet

    del block
    size = buffer.size()
    file = parquet.ParquetFile(buffer)
    schema = file.schema_arrow
    if column not in schema.names:
        return parquet_table(file, size)
    numbers = (field for field in schema if _NUMBERS.match(str(field.type)))
    beside = [f.name for f in numbers if f.name != column and may_be_numbers(f.name)]
    chosen = [column, *(name for name in beside if _may_be_all(file, name))]
    return parquet_table(file, size, chosen)


def _may_be_all(file: Any, name: str) -> bool:
    """Whether the bounds that the file keeps of a column's values let them number its lines.

    What is called as `Vocabulary.save` calls it says rows whatever they are.
    """
    if name == ROW_COLUMN:
        return True
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    columns = [group.column(at) for group in groups for at in range(group.num_columns)]
    known = [chunk.statistics for chunk in columns if chunk.path_in_schema == name]
    if not all(stated is not None and stated.has_min_max for stated in known):
        return True
    lowest = min((stated.min for stated in known), default=0)
    highest = max((stated.max for stated in known), default=0)
    return may_number(lowest, highest, file.metadata.num_rows)


def _read_arrow(buffer: Any, column: str | int | None, block: int) -> Any:
    del column, block
    return arrow_table(buffer)


_READERS: Mapping[str, Callable[[Any, str | int | None, int], Any]] = {
    "jsonl": _read_json,
    "parquet": _read_parquet,
    "arrow": _read_arrow,
}
