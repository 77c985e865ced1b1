"""Which entries are refused: blank ones of a file, one that is there twice, text beside ids.

A blank line or cell is most likely a slip; in a sequence "" is an entry (Keras's `get_vocabulary()`
begins with it) and None a row without one. In a tokenizer's directory a blank line of `vocab.txt`
is a token, as its class reads it: such entries are read without being called lines.

An entry twice is an error where nobody could tell which row is its own: always in an old
vocabulary, and in a new one if an old row would go to both. Files whose reader would lose one of
the two, such as JSON, are refused by their readers.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from torch_warmstart.computing import in_blocks
from torch_warmstart.entries import LINE, Entries, Vocabulary, positions
from torch_warmstart.errors import VocabularyError

_TWICE = {
    "old": "{} has an entry twice, so its old row is ambiguous: {} and {}.",
    "new": "{} has an entry twice: {} and {}. Two rows of the new variable would claim the same "
    "old row.",
    "any": "{} has an entry twice: {} and {}. Which row is its own cannot be known.",
}


def check_once(
    entries: Entries, repeat: tuple[int, int] | None, side: Literal["old", "new", "any"] = "any"
) -> None:
    """Raises VocabularyError if two places of one entry have been found; None: there are none."""
    if repeat is not None:
        raise VocabularyError(_TWICE[side].format(entries.origin, *map(entries.show, repeat)))


def check_one_kind(one: Entries, other: Entries) -> None:
    """Raises VocabularyError if one holds text and the other integers, which are never the same."""
    if one.is_text != other.is_text:
        text, ids = (one, other) if one.is_text else (other, one)
        raise VocabularyError(
            f"{text.origin} holds text and {ids.origin} integers; give both as the same kind. "
            "Cells of csv and tsv files are text; a Parquet column of integers is ids."
        )


def check_no_blank_lines(vocabulary: Entries) -> None:
    """Raises VocabularyError, with the place, if a line of a text file is blank."""
    if not vocabulary.is_text or vocabulary.unit != LINE or not vocabulary.may_be_blank:
        return

    def blanks_in(block: slice) -> torch.Tensor:
        _, lengths = vocabulary.places(block)
        if int(lengths.min()) > 0:
            return lengths.new_empty(0)
        at: torch.Tensor = positions(lengths == 0) + block.start
        return at

    blank = torch.cat(in_blocks(blanks_in, len(vocabulary), vocabulary.device))
    if len(blank):
        raise VocabularyError(
            f"{vocabulary.origin}: {LINE} {int(blank[0]) + 1:,} is blank{_how_many(blank)}. Every "
            "line of a vocabulary is an entry, and a blank one is most likely a slip."
        )


def check_no_blank_cells(column: Vocabulary, form: str) -> None:
    """The same of a column of csv or tsv, whose blank cells have been read as rows without one."""
    is_blank = torch.ones(len(column), dtype=torch.bool)
    is_blank[column.entry_rows] = False
    blank = positions(is_blank)
    if len(blank):
        quoted = ' An empty entry is written "".' if form == "csv" else ""
        raise VocabularyError(
            f"{column.origin}: the cell of row {int(blank[0]) + 1:,} is blank{_how_many(blank)}, "
            "which is a slip, or a row without an entry. Take such lines out, or pass the column "
            f"as a sequence, with None where a row has no entry.{quoted}"
        )


def check_none_blank_is_counted(path: str, entries: Any, before: int) -> None:
    """The same of a file of counts: of Arrow's column of entries, and the rows before it."""
    from pyarrow import compute

    blank = compute.index(entries.is_null(), value=True).as_py()
    if blank >= 0:
        raise VocabularyError(
            f"{path}: row {before + blank + 1:,} has a count, but its entry is blank. Remove the "
            "row, or write what was counted there."
            + (' An empty entry is written "".' if path.lower().endswith(".csv") else "")
        )


def _how_many(blank: torch.Tensor) -> str:
    return f" ({len(blank):,} are)" if len(blank) > 1 else ""
