"""What people hold vocabularies in becomes a `Vocabulary`: which reader is for what."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from torch_warmstart.dtypes import why_no_values
from torch_warmstart.entries import Entries, Vocabulary, with_rows_of_a_list
from torch_warmstart.errors import SettingsError, VocabularyError, plural
from torch_warmstart.settings import ALL_ENTRIES
from torch_warmstart.storage import LOCAL, Storage
from torch_warmstart.vocabularies.loading.files import read_file
from torch_warmstart.vocabularies.loading.lines import check_lines
from torch_warmstart.vocabularies.refused_entries import check_no_blank_lines


def read_vocabulary(
    source: Any,
    device: torch.device | str = "cpu",
    storage: Storage = LOCAL,
    *,
    column: str | int | None = None,
    key: str | None = None,
    format: str | None = None,
) -> Vocabulary:
    """Reads a vocabulary, whole.

    Raises:
        VocabularyError: it is empty, not there, or not what it should be.
        SettingsError: it is of no kind that holds a vocabulary.
    """
    if isinstance(column, bool) or not isinstance(column, str | int | None):
        raise SettingsError(f"column is a column's name or number, not {column!r}.")
    where = _device(device)
    if isinstance(source, str | os.PathLike):
        vocabulary = _read_path(source, storage, column=column, key=key, format=format)
        check_lines(vocabulary.listed, is_said=format == "lines")
    else:
        for name, value in (("key", key), ("format", format)):
            if value is not None:
                raise SettingsError(f"{name}={value!r} is for files; entries were given.")
        vocabulary = _in_memory(source, column, listed=with_rows_of_a_list)
    return vocabulary.to(where)


def _read_path(source: str | os.PathLike[str], storage: Storage, **how: Any) -> Vocabulary:
    return read_file(os.path.expanduser(os.fspath(source)), storage, **how)


def _device(said: torch.device | str) -> torch.device:
    """Where a vocabulary is read to; raises SettingsError if none can be held there."""
    why = why_no_values()
    if why:
        raise SettingsError(f"{why}. Read and use vocabularies outside of it.")
    try:
        return torch.device(said)
    except (RuntimeError, TypeError, ValueError) as error:
        raise SettingsError(f"device={said!r} is no device that torch has here.") from error


def read_entries(
    source: Any, device: torch.device | str = "cpu", storage: Storage = LOCAL
) -> Entries:
    """The entries that a vocabulary lists, one for each of its items.

    Raises VocabularyError where an item is none: all behind it would be taken for another one's.
    """
    found = read_items(source, device, storage)
    if len(found.listed) < len(found):
        raise VocabularyError(
            f"{found.origin} holds None, or another row without an entry, and each must be one: "
            "leave these out."
        )
    return found.listed


def read_items(
    source: Any, device: torch.device | str = "cpu", storage: Storage = LOCAL
) -> Vocabulary:
    """A vocabulary; what Keras calls `[UNK]` is an entry as any other, and so is each line.

    So they are to TensorFlow.
    """
    where = _device(device)
    is_path = isinstance(source, str | os.PathLike)
    found = _read_path(source, storage) if is_path else _in_memory(source, None)
    return found.to(where)


def load(
    source: Any,
    *,
    column: str | int | None = None,
    key: str | None = None,
    format: str | None = None,
) -> Vocabulary:
    """`Vocabulary.load`."""
    vocabulary = read_vocabulary(source, column=column, key=key, format=format)
    check_no_blank_lines(vocabulary.listed)
    return vocabulary


def _in_memory(
    source: Any,
    column: str | int | None,
    *,
    listed: Callable[[Vocabulary], Vocabulary] = lambda found: found,
) -> Vocabulary:
    """A vocabulary that is no file; `listed` says what one that is no more than a list has."""
    from torch_warmstart.vocabularies.loading.arrow import exports_arrow, from_table
    from torch_warmstart.vocabularies.loading.objects import (
        from_labels,
        from_object,
        holds_ints,
        without_index,
    )

    labelled = from_labels(source) if column is None else None
    if labelled is not None:
        return labelled
    if exports_arrow(source) and not (column is None and holds_ints(source)):
        return listed(from_table(*without_index(source, column)))
    if column is not None:
        raise SettingsError(f"column={column!r} is for tables; a {_name(source)} was given.")
    if isinstance(source, Vocabulary):
        return source
    found = from_object(source)
    if found is not None:
        return found
    for kind, read in _readers():
        if isinstance(source, kind) and not isinstance(source, bytes | bytearray | memoryview):
            return read(source) if kind is Mapping else listed(read(source))
    if callable(getattr(source, "to_numpy", None)):  # pandas' that export no Arrow, as an Index
        return listed(_from_values(source))
    raise SettingsError(
        f"A vocabulary is a path or URL, a sequence or array of str, bytes or int, a mapping of "
        f"entry to row, a column that exports Arrow, a lookup layer or a tokenizer; not a "
        f"{_name(source)}.{_instead_of(source)}"
    )


def _instead_of(source: Any) -> str:
    """What to pass instead of what is no vocabulary, but nearly one; or ""."""
    if isinstance(source, set | frozenset):
        return " A set has no order, and rows have one: pass its entries as a list, in that order."
    if isinstance(source, bytes | bytearray | memoryview):
        return " A path is a str."
    if callable(getattr(source, "numpy", None)):
        return " If it is a tensor, pass its .numpy()."
    if isinstance(source, Iterable):
        return " If it gives the entries in the order of their rows, pass list(...) of it."
    return ""


def _from_array(array: Any) -> Vocabulary:
    """Numpy's array; text of any width as a column of Arrow's, where pyarrow makes one of it.

    Numpy itself takes three times as long to make bytes of it, as it reads every text twice.
    """
    from torch_warmstart.vocabularies.loading.arrays import from_numpy, origin_of
    from torch_warmstart.vocabularies.loading.arrow import from_arrow

    column = _as_arrow(array) if array.dtype.kind == "T" else None
    if column is None:
        return from_numpy(array)

    return from_arrow(column, origin=origin_of(array))


def _as_arrow(array: Any) -> Any:
    """The same as a column of Arrow's, missing texts as nulls; None if that cannot be had."""
    is_text = isinstance(getattr(array.dtype, "na_object", None), str)  # what is missing is one
    if is_text or array.ndim != 1 or not len(array) or isinstance(array, np.ma.MaskedArray):
        return None
    try:
        import pyarrow as pa
    except ImportError:
        return None
    try:
        return pa.array(array, type=pa.large_string())
    except pa.ArrowException:  # before 22
        return None


def _from_values(source: Any) -> Vocabulary:
    """Pandas' arrays and indices; what is missing, beside which ids become floats, is no entry."""
    from torch_warmstart.vocabularies.loading.arrays import from_numpy, from_sequence

    if hasattr(source, "levels") and source.nlevels == 1:
        source = source.get_level_values(0)
    if getattr(source, "nlevels", 1) > 1:
        raise VocabularyError(
            f"the {_name(source)} of length {len(source):,} has several labels for each row: pass "
            "one level of it, index.get_level_values(0)."
        )
    is_missing = np.asarray(source.isna()) if callable(getattr(source, "isna", None)) else None
    if is_missing is None or is_missing.ndim != 1 or not is_missing.any():
        return from_numpy(np.asarray(source.to_numpy()))
    values = np.array(source.astype(object), dtype=object)  # a copy: theirs may be read-only
    values[is_missing] = None
    return from_sequence(values.tolist(), f"the {_name(source)} of length {len(values):,}")


def _readers() -> tuple[tuple[type, Callable[[Any], Vocabulary]], ...]:
    from torch_warmstart.vocabularies.loading.arrays import from_mapping, from_sequence, from_tensor

    return (
        (torch.Tensor, from_tensor),
        (np.ndarray, _from_array),
        (Mapping, from_mapping),
        (Sequence, from_sequence),
    )


def _name(source: Any) -> str:
    return type(source).__name__


def used_rows(vocabulary: Vocabulary, size: int, setting: str) -> Vocabulary:
    """The first `size` rows (-1: all), no entry of them blank; VocabularyError otherwise.

    Of what tables are customarily padded for, such as a tokenizer, `size` may be larger.
    """
    if size > len(vocabulary):
        if not vocabulary.is_padded:
            what = vocabulary.listed.unit if len(vocabulary.listed) == len(vocabulary) else "row"
            raise VocabularyError(
                f"{setting}={size:,}, but {vocabulary.origin} has only "
                f"{plural(len(vocabulary), what)}. If the further rows are padding, pass "
                f"Vocabulary.load(...).padded_to({size})."
            )
        return vocabulary.padded_to(size)
    used = vocabulary if size == ALL_ENTRIES else vocabulary.head(size)
    check_no_blank_lines(used.listed)
    return used
