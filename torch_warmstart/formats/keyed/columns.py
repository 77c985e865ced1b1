"""From the columns of a table's parts to the table, with every length compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from torch_warmstart.entries import Entries, Vocabulary, entries_of_bytes
from torch_warmstart.errors import CorruptCheckpointError, shown_entry
from torch_warmstart.formats.base import MalformedError
from torch_warmstart.formats.keyed.table import Column, KeyedTable
from torch_warmstart.values import frozen

_SIGNED = (torch.int64, torch.int32, torch.int16, torch.int8)
_INTEGERS = (*_SIGNED, torch.uint64, torch.uint32, torch.uint16, torch.uint8)
_SUBPARTS = 1000  # of DeepRec's: by key % 1000 (kSavedPartitionNum)


@frozen(eq=False)
class Columns:
    """A part: how many rows its values have, and how its columns are read."""

    rows: int
    keys: Callable[[], Any]  # a tensor of integers, or a list of bytes
    columns: dict[str, Column]
    offsets: Column | None = None  # where the sub-parts of DeepRec begin
    is_later: bool = False  # whether it replaces what parts before it say of an id


def table_of(
    name: str, values: str, width: tuple[int, ...], parts: Sequence[Columns], origin: str
) -> KeyedTable:
    """A table whose values are those of the parts one behind the other.

    What is read raises CorruptCheckpointError if a column is longer or shorter than the values, or
    a key is there twice.
    """
    total = sum(part.rows for part in parts)
    shared = set.intersection(*(set(part.columns) for part in parts)) if parts else set()
    return KeyedTable(
        name=name,
        values=values,
        shape=(total, *width),
        parts=len(parts),
        origin=origin,
        read_keys=lambda: _told(origin, lambda: _keys(parts, total, origin)),
        columns={
            column: lambda column=column: _told(  # type: ignore[misc]
                origin, lambda: _column(parts, column)
            )
            for column in sorted(shared)
        },
    )


_Read = TypeVar("_Read")


def _told(origin: str, read: Callable[[], _Read]) -> _Read:
    try:
        return read()
    except MalformedError as error:
        raise CorruptCheckpointError(f"{origin}: {error}.") from error


def _column(parts: Sequence[Columns], name: str) -> torch.Tensor:
    return torch.cat([_checked(part.columns[name](), part.rows, name) for part in parts])


def _checked(column: Any, rows: int, what: str) -> torch.Tensor:
    if isinstance(column, torch.Tensor) and column.dtype not in _INTEGERS:
        raise MalformedError(f"its {what} column is of {column.dtype}, and no whole numbers")
    if not isinstance(column, torch.Tensor) or column.dim() != 1 or len(column) != rows:
        found = list(column.shape) if isinstance(column, torch.Tensor) else f"[{len(column)}]"
        raise MalformedError(f"its {what} column is {found} for {rows} rows of values")
    is_wide = column.dtype == torch.uint64  # whose bits stay
    made: torch.Tensor = column.view(torch.int64) if is_wide else column.to(torch.int64)
    return made


def _keys(parts: Sequence[Columns], total: int, origin: str) -> Vocabulary:
    read = [part.keys() for part in parts]
    if any(isinstance(keys, list) for keys in read):
        return _text_keys(parts, read, origin)
    is_dense = all(keys.shape == (part.rows, 1) for part, keys in zip(parts, read, strict=True))
    if is_dense:  # of TensorFlow's DenseHashTable, which saves its empty places too
        read = [keys.flatten() for keys in read]
    checked = [_checked(keys, part.rows, "key") for part, keys in zip(parts, read, strict=True)]
    for part, keys in zip(parts, checked, strict=True):
        _check_offsets(part, keys)
    joined = torch.cat([torch.empty(0, dtype=torch.int64), *checked])
    rows = _filled(joined) if is_dense else _rows_of(joined, parts)
    at = None if rows is None else rows
    is_unsigned = any(keys.dtype == torch.uint64 for keys in read)
    if is_unsigned and any(keys.dtype in _SIGNED and bool((keys < 0).any()) for keys in read):
        raise MalformedError("keys of a part have a sign, those of another none")
    ids = joined if rows is None else joined[rows]
    return Vocabulary(Entries(origin, "key", ids=ids, is_unsigned=is_unsigned), total, at)


def _filled(ids: torch.Tensor) -> torch.Tensor:
    """The rows whose key is none of those that stand for an empty place, as these repeat."""
    _, inverse, counts = torch.unique(ids, return_inverse=True, return_counts=True)
    is_filled: torch.Tensor = counts[inverse] == 1
    return is_filled.nonzero().flatten()


def _text_keys(parts: Sequence[Columns], read: Sequence[Any], origin: str) -> Vocabulary:
    if not all(isinstance(keys, list) for keys in read):
        raise MalformedError("keys of a part are text, those of another none")
    for part, keys in zip(parts, read, strict=True):
        if len(keys) != part.rows:
            raise MalformedError(f"its keys are {len(keys)} for {part.rows} rows of values")
    texts = [text for keys in read for text in keys]
    if len(set(texts)) != len(texts):
        raise MalformedError("a key is there twice")
    return Vocabulary(entries_of_bytes(texts, origin), len(texts))


def _rows_of(ids: torch.Tensor, parts: Sequence[Columns]) -> torch.Tensor | None:
    """The rows that count where a later part replaces some; None: all of them.

    Raises MalformedError: a key is there twice, and none of its places comes later.
    """
    order = torch.sort(ids, stable=True).indices
    ordered = ids[order]
    same = ordered[1:] == ordered[:-1]
    if not bool(same.any()):
        return None
    later = torch.cat([torch.full((part.rows,), part.is_later) for part in parts])
    before, behind = order[:-1][same], order[1:][same]
    wrong = later[before] | ~later[behind]
    if bool(wrong.any()):
        key = int(ids[behind[wrong][0]])
        raise MalformedError(f"key {shown_entry(key)} is there twice")
    counts = torch.ones(len(ids), dtype=torch.bool)
    counts[before] = False
    return counts.nonzero().flatten()


def _check_offsets(part: Columns, keys: torch.Tensor) -> None:
    """Sub-parts lie one behind the other, each with the keys of its remainder."""
    if part.offsets is None:
        return
    offsets = part.offsets()
    is_fine = (
        isinstance(offsets, torch.Tensor)
        and offsets.dim() == 1
        and len(offsets) == _SUBPARTS + 1
        and int(offsets[0]) == 0
        and int(offsets[-1]) == part.rows
        and bool((offsets[1:] >= offsets[:-1]).all())
    )
    if not is_fine:
        raise MalformedError(f"its sub-parts do not make up its {part.rows} rows")
    numbers = torch.arange(_SUBPARTS).repeat_interleave(offsets.diff().to(torch.int64))
    remainders = torch.fmod(keys, _SUBPARTS)  # C++'s, which has the sign of the key
    if bool((numbers != remainders).any()):
        key = int(keys[(numbers != remainders).nonzero()[0, 0]])
        raise MalformedError(
            f"key {shown_entry(key)} lies in another sub-part than its remainder's"
        )
