"""Whether a column beside the entries of a table numbers them otherwise than their order does.

What it is called does not matter: pandas writes its index without a name. Files and tables in
memory are judged alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from torch_warmstart.errors import VocabularyError, shown_entry

# Columns that say how often or when there was an entry, in whatever order that puts them.
_USAGE = re.compile(
    r"(?!(row|line|seq|entry|token|word|item|index|idx)[ _.-]?(n|num)$)"  # numbers of rows
    r"(.*[ _.-])?(counts?|n|num|freqs?|frequency|frequencies|occurrences|size|weight|score"
    r"|last_seen|born|versions?)",
    re.IGNORECASE,
)
_PANDAS = b"pandas"  # what its metadata is called in a schema
FIRST = 1024  # of a column, by which most are known not to number anything
_EXACT = 2.0**53  # from here on floats are not all whole numbers
_FEW = 8  # numbers with gaps that may as well be of anything


def may_be_numbers(name: str) -> bool:
    """Whether a column of whole numbers may say rows, by its name."""
    return not _USAGE.fullmatch(name)


def may_number(lowest: int, highest: int, count: int) -> bool:
    """Whether integers between these may number so many entries: no more are gaps than entries.

    So they are told where the first rows are for something else, or some rows are gaps.
    """
    begin = int(lowest == 1)  # numbers from 1 on leave no row out
    return lowest >= 0 and count > 1 and count - 1 <= highest < 2 * count + begin


def as_whole(numbers: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Numbers as integers, of floating ones, which pandas makes of some; None: they are fractions.

    Those that a float holds exactly are few enough to number rows.
    """
    if numbers.dtype.kind != "f":
        return numbers
    is_whole = np.isfinite(numbers) & (np.abs(numbers) < _EXACT) & (numbers == np.rint(numbers))
    return numbers.astype(np.int64) if bool(is_whole.all()) else None


def may_begin_numbers(numbers: npt.NDArray[Any]) -> bool:
    """Whether the first of some integers may be numbers: features of few values are not."""
    first = numbers[:FIRST]
    return not len(first) or (int(first.min()) >= 0 and len(np.unique(first)) == len(first))


def is_numbering(numbers: npt.NDArray[Any]) -> bool:
    """Whether integers number entries: each another one, and as good as all up to the highest."""
    count = len(numbers)
    if count < 2:
        return count == 1 and int(numbers[0]) in (0, 1)
    lowest, highest = int(numbers.min()), int(numbers.max())
    if not may_number(lowest, highest, count):
        return False
    if highest - lowest != count - 1 and count < _FEW:
        return False
    is_there = np.zeros(highest + 1, dtype=bool)
    is_there[numbers.astype(np.int64)] = True
    return int(is_there.sum()) == count


def check_numbers(
    origin: str, name: str, numbers: npt.NDArray[Any], *, has_names: bool = True
) -> None:
    """Raises VocabularyError for numbers of all entries that are not 0, 1, 2 or 1, 2, 3 and so on.

    Without names of columns, counts cannot be told from numbers but by what sorts entries by them.
    """
    if not is_numbering(numbers):
        return
    found = numbers.astype(np.int64)
    steps = np.diff(found)
    lowest, highest = int(found.min()), int(found.max())
    is_in_order = lowest in (0, 1) and bool((steps == 1).all())
    if not is_in_order and (has_names or not bool((steps < 0).all())):
        raise _otherwise(origin, f"in column {shown_entry(name)}, from {lowest:,} to {highest:,}")


def check_index(origin: str, metadata: Mapping[bytes, bytes]) -> None:
    """Raises VocabularyError for a range that goes back, which pandas keeps as metadata only."""
    try:
        kept = json.loads(metadata.get(_PANDAS, b"{}"))
        index = (kept.get("index_columns") or [None])[0]
    except (ValueError, RecursionError, AttributeError, LookupError, TypeError):
        return  # somebody else's
    if isinstance(index, dict) and index.get("step") == -1 and index.get("stop") in (-1, 0):
        raise _otherwise(origin, "by the index of pandas that its metadata keeps")


def _otherwise(origin: str, where: str) -> VocabularyError:
    return VocabularyError(
        f"{origin} numbers its entries {where}, otherwise than by the order of its lines. If those "
        "are their rows, pass a mapping, {entry: row}; if the lines are in the order of the rows, "
        "pass the column's values as a sequence."
    )
