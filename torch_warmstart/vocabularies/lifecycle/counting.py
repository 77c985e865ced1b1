"""Counts of entries as people hold them, block by block, also of a Parquet or csv file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from torch_warmstart.dtypes import lies_in_memory, masked_in
from torch_warmstart.entries import COUNT_COLUMN, ENTRY_COLUMN, Entries, Vocabulary
from torch_warmstart.errors import (
    SettingsError,
    VocabularyError,
    cause_of,
    is_whole,
    listed_entries,
    plural,
)
from torch_warmstart.storage import LOCAL, PARQUET, Bytes
from torch_warmstart.vocabularies.by_pyarrow import (
    block_size_of,
    pyarrow_for,
    reader_of,
    said_of_text,
)
from torch_warmstart.vocabularies.loading import (
    SEPARATORS,
    are_text,
    exports_arrow,
    from_arrow,
    is_kept_table,
    is_saved,
    read_entries,
    read_vocabulary,
)
from torch_warmstart.vocabularies.nvtabular import read_categories
from torch_warmstart.vocabularies.refused_entries import check_none_blank_is_counted

Counted = tuple[Entries, torch.Tensor]  # some entries, and how often each was seen: int64

_BLOCK = 1 << 18  # entries at a time
MOST_COUNT = 1 << 44  # so that a block of counts has a sum of 64 bits
_KINDS = (
    "a mapping of entry to count, a pair of entries and counts, what value_counts() of a column of "
    "pandas' that has a name returns, a table with the columns 'entry' and 'count' (pandas, "
    "polars, pyarrow, or the path of a Parquet, csv or tsv file), or a Vocabulary that has counts, "
    "or its file"
)
_WHOLE = (
    "Counts are whole numbers; where pandas made floats of them because some are missing, "
    "fillna(0).astype('int64')."
)


def counted_blocks(counts: Any, listed: Entries) -> Iterator[Counted]:
    """Entries and their counts, in blocks; an entry may be in several.

    Args:
        counts: What holds them.
        listed: Those that they are of: where these are ids, so are the cells of csv and tsv.

    Raises:
        SettingsError: it is nothing that holds counts.
        VocabularyError: the counts are not whole numbers from 0 on, or not as many as entries.
        MissingDependencyError: a file needs pyarrow.
    """
    for entries, numbers in _blocks(counts, listed):
        if len(entries) != len(numbers):
            raise VocabularyError(
                f"{entries.origin} has {len(entries):,} entries, but {len(numbers):,} counts."
            )
        below = (numbers < 0).nonzero().flatten()
        if len(below):
            raise VocabularyError(
                f"The counts of {entries.origin} are negative for {plural(len(below), 'entry')}, "
                f"such as {entries.show(int(below[0]))}: count again."
            )
        if bool((numbers > MOST_COUNT).any()):
            raise _too_many(entries.origin)
        yield entries, numbers


def _too_many(origin: str) -> VocabularyError:
    return VocabularyError(
        f"A count of {origin} is more than {MOST_COUNT:,}, which nobody has counted: is it a "
        "number of something else?"
    )


def _blocks(counts: Any, listed: Entries) -> Iterator[Counted]:
    counts = _by_label(counts)
    if isinstance(counts, Vocabulary):
        if counts.usage is None:
            raise SettingsError(f"{counts.origin} has no counts; counts are {_KINDS}.")
        yield from _cut(counts.listed, counts.usage.counts)
    elif isinstance(counts, str | os.PathLike):
        yield from _of_file(os.path.expanduser(os.fspath(counts)), listed)
    elif exports_arrow(counts) and not isinstance(counts, Iterator):
        yield from _cut(*_of_table(counts))
    elif isinstance(counts, Mapping):
        if None in counts:
            raise VocabularyError("The counts have the entry None, which no row has: leave it out.")
        if counts:
            values = _whole(list(counts.values()))
            yield from _cut(read_entries(list(counts)), values)
    elif isinstance(counts, tuple) and len(counts) == 2:
        entries, numbers = counts
        entries = entries if hasattr(entries, "__len__") else list(entries)
        if len(entries):
            yield from _cut(read_entries(entries), _whole(numbers))
        elif len(_as_array(numbers)):
            raise VocabularyError("The counts are a pair of no entries and of numbers.")
    else:
        once = ", which can be read once: pass its table" if exports_arrow(counts) else ""
        raise SettingsError(f"Counts are {_KINDS}; not a {type(counts).__name__}{once}.")


def _by_label(counts: Any) -> Any:
    """A Series of pandas' as a pair, as its value_counts() says: entries are its labels.

    Labels that are integers and have no name may as well be the numbers of a table's lines.
    """
    labels: Any = getattr(counts, "index", None)
    if getattr(counts, "ndim", 0) != 1 or not hasattr(labels, "to_numpy"):
        return counts
    is_said = labels.name is not None or are_text(labels)
    return (labels.to_numpy(), counts.to_numpy()) if is_said else counts


def _cut(entries: Entries, numbers: torch.Tensor) -> Iterator[Counted]:
    for start in range(0, max(len(entries), len(numbers)), _BLOCK):
        stop = min(start + _BLOCK, len(entries))
        yield entries.slice(min(start, stop), stop), numbers[start : start + _BLOCK]


def _as_array(given: Any) -> npt.NDArray[Any]:
    """Numbers as users hold them; raises VocabularyError for what is none, or no vector."""
    if masked_in(given):
        raise VocabularyError("Some counts are missing: leave these out, with their entries.")
    if isinstance(given, torch.Tensor) and lies_in_memory(given):
        given = given.detach().cpu()
    try:
        found = np.asarray(given)
        # Of several widths numpy makes floating numbers, or objects, though all are whole.
        if (
            found.dtype.kind in "fO"
            and isinstance(given, list | tuple)
            and all(map(is_whole, given))
        ):
            found = np.array([int(number) for number in given], dtype=np.int64)
    except OverflowError as error:
        raise _too_many("the numbers") from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise VocabularyError(f"Counts are a number for each entry: {error}.") from error
    return found


def _whole(given: Any) -> torch.Tensor:
    numbers = _as_array(given)
    if numbers.dtype.kind not in "iu":
        raise VocabularyError(
            f"Counts are whole numbers, not {numbers.dtype}: make integers of them first."
        )
    if numbers.ndim != 1:
        raise VocabularyError(f"Counts are a number for each entry, not {list(numbers.shape)}.")
    if numbers.dtype.kind == "u" and bool((numbers > MOST_COUNT).any()):
        raise _too_many("the array")
    return torch.from_numpy(numbers.astype(np.int64))


def _of_table(table: Any, origin: str | None = None) -> Counted:
    """Rows without an entry are left out, and those may be all: of a day, or of a block."""
    entries = _column(table, ENTRY_COLUMN, f"Counts are {_KINDS}.")
    numbers = _column(table, COUNT_COLUMN, _WHOLE)
    if not len(entries.listed):
        return entries.listed, torch.zeros(0, dtype=torch.int64)
    if numbers.listed.ids is None or len(numbers.listed) != len(numbers):
        raise VocabularyError(
            f"The column {COUNT_COLUMN!r} holds something else than whole numbers."
        )
    if numbers.listed.is_unsigned:
        raise _too_many(numbers.origin)
    listed = replace(entries.listed, origin=origin or entries.listed.origin)
    return listed, numbers.listed.ids.index_select(0, entries.entry_rows)


def _column(table: Any, name: str, hint: str) -> Vocabulary:
    try:
        return from_arrow(table, name, may_be_none=True)
    except VocabularyError as error:
        raise VocabularyError(f"The column {name!r} of the counts: {error} {hint}") from error


def _of_file(path: str, listed: Entries) -> Iterator[Counted]:
    try:
        raw = LOCAL.read_all(path)
    except OSError as error:
        raise VocabularyError(f"The counts at {path} cannot be read: {error}") from error
    separator = SEPARATORS.get(os.path.splitext(path)[1].lower().removeprefix("."))
    if raw[: len(PARQUET)].tobytes() == PARQUET:
        categories = read_categories(raw, path, None, LOCAL)
        if categories is not None:
            yield from _blocks(categories, listed)
        else:
            yield from _of_table_file(path, raw, _parquet_blocks)
    elif separator is not None and not is_kept_table(raw) and not is_saved(raw):
        read = partial(_separated_blocks, separator=separator, like=listed)
        yield from _of_table_file(path, raw, read, _as_integers(listed))
    else:
        yield from _blocks(read_vocabulary(path), listed)


def _as_integers(listed: Entries) -> str:
    """What is to be said where a table cannot be read, of the entries that it counts."""
    if listed.is_text:
        return ""
    return f" (its entries are to be integers, as those of {listed.origin} are)"


def _of_table_file(
    path: str, raw: Bytes, read: Callable[[str, Bytes], Iterator[Any]], besides: str = ""
) -> Iterator[Counted]:
    arrow = pyarrow_for(
        f"Reading counts from {path}",
        "; without it, pass a pair of arrays, the entries and their counts.",
    )
    try:
        batches = (batch for batch in read(path, raw) if batch.num_rows)
        yield from (_of_table(arrow.Table.from_batches([batch]), path) for batch in batches)
        arrow.default_memory_pool().release_unused()  # which else stays pyarrow's
    except (arrow.ArrowException, OSError, ValueError, KeyError) as error:
        if isinstance(error, VocabularyError):
            raise
        told = said_of_text(error)
        raise VocabularyError(
            f"{path} holds no counts that can be read{besides}: {told}"
        ) from cause_of(error)


def _parquet_blocks(path: str, raw: Bytes) -> Iterator[Any]:
    from pyarrow import parquet

    file = parquet.ParquetFile(reader_of(raw), pre_buffer=False)
    _check_columns(path, file.schema_arrow.names)
    yield from file.iter_batches(_BLOCK, columns=[ENTRY_COLUMN, COUNT_COLUMN])


def _separated_blocks(path: str, raw: Bytes, separator: str, like: Entries) -> Iterator[Any]:
    """The first line has the names; entries are text, or ids where those are that they are of.

    Whether ids are without a sign the file does not say, and those that they are of may be too few
    to tell: the first one of 2**63 or more does, from which on they are read so.
    """
    import pyarrow

    read = partial(_separated_blocks_of, path, raw, separator)
    if like.is_text or like.is_unsigned:
        yield from read(pyarrow.large_binary() if like.is_text else pyarrow.uint64())
        return
    done = 0
    try:
        for batch in read(pyarrow.int64()):
            done += batch.num_rows
            yield batch
    except pyarrow.ArrowInvalid:
        with contextlib.suppress(pyarrow.ArrowInvalid):
            for batch in read(pyarrow.uint64()):
                rest = batch.slice(min(done, batch.num_rows))
                done -= batch.num_rows - rest.num_rows
                yield rest
            return
        raise


def _separated_blocks_of(path: str, raw: Bytes, separator: str, kind: Any) -> Iterator[Any]:
    import pyarrow
    from pyarrow import csv

    is_quoted = separator == ","
    parse = csv.ParseOptions(
        delimiter=separator, quote_char='"' if is_quoted else False, newlines_in_values=is_quoted
    )
    convert = csv.ConvertOptions(
        column_types={ENTRY_COLUMN: kind, COUNT_COLUMN: pyarrow.int64()},
        null_values=[""],  # a blank cell, and no NA; "" is the empty entry, as of vocabularies
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    blocks = csv.ReadOptions(block_size=block_size_of(raw))
    with csv.open_csv(reader_of(raw), blocks, parse, convert) as file:
        _check_columns(path, file.schema.names)
        before = 0
        for batch in file:
            check_none_blank_is_counted(path, batch.column(ENTRY_COLUMN), before)
            before += batch.num_rows
            yield batch.select([ENTRY_COLUMN, COUNT_COLUMN])


def _check_columns(path: str, names: list[str]) -> None:
    if not {ENTRY_COLUMN, COUNT_COLUMN} <= set(names):
        known = listed_entries(names)  # or a first line that has no names
        raise VocabularyError(
            f"{path} has the columns {known}; counts are in {ENTRY_COLUMN!r} and "
            f"{COUNT_COLUMN!r}: rename them."
        )
