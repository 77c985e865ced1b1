"""What became of new rows, to be shown: who made how many, and one row as a sum of entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

import torch

from torch_warmstart.dtypes import as_python
from torch_warmstart.entries import Vocabulary, bytes_of
from torch_warmstart.errors import ENTRIES_SHOWN, entry_text, hides_entries, printable
from torch_warmstart.new_rows.composing import Made
from torch_warmstart.new_rows.mixture import Mixture
from torch_warmstart.new_rows.rows import has_entry
from torch_warmstart.values import frozen

_SHOWN = ENTRIES_SHOWN - 1  # old entries of a row, beside the new one
_ROUNDED = 0.005  # a weight below it would be shown as 0.00


@frozen(eq=False)
class _Rows:
    """Rows of one initialiser."""

    label: str
    rows: torch.Tensor
    new: Vocabulary | None
    old: Vocabulary | None
    mixture: Mixture | None


@frozen
class NewRowsAccount:
    """Who made a variable's new rows; false where nobody of `tws.init` did.

    Attributes:
        answered: Initialisers and how many rows each has made, in the order they were asked;
            "zeros" are rows that none answered for. They add up to the new rows.
    """

    answered: tuple[tuple[str, int], ...]
    _rows: tuple[_Rows, ...] = field(default=(), repr=False, compare=False)

    def __bool__(self) -> bool:
        return bool(self.answered)

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {label}" for label, count in self.answered)

    def show(self, entry: str | bytes | int) -> str:
        """One new row, as the sum of old rows that it began as.

        Raises:
            KeyError: no initialiser has made a row of that entry.

        Example:
            >>> report["tok.weight"].new_rows.show("réseau")                # doctest: +SKIP
            'réseau = 0.61 network + 0.39 grid'
        """
        value = as_python(entry)
        value = bytes_of(value) if isinstance(value, str) else value
        is_entry = isinstance(value, bytes | int) and not isinstance(value, bool)
        for rows in self._rows if is_entry else ():
            at = _find(rows, value)
            if at is not None:
                return f"{_text(value)} = {_sum(rows, at)}"
        raise KeyError(
            f"No initialiser has made a row of {entry!r}: it has its old one, or zeros where none "
            "answers, or is not in the new vocabulary."
        )


def account_of(made: Sequence[Made], num_unanswered: int) -> NewRowsAccount:
    """The account of rows that have been made."""
    counts: dict[str, int] = {}
    for one in made:
        counts[one.label] = counts.get(one.label, 0) + len(one)
    if num_unanswered:
        counts["zeros"] = num_unanswered
    rows = tuple(
        _Rows(
            one.label, one.everywhere.rows, one.new.vocabulary, one.new.old.vocabulary, one.mixture
        )
        for one in made
    )
    return NewRowsAccount(tuple(counts.items()), rows)


def _find(rows: _Rows, value: bytes | int) -> int | None:
    """Where among rows an entry's is."""
    if rows.new is None:
        return None
    at = has_entry(rows.new, rows.rows).nonzero().flatten()
    listed = rows.new.listed.take(rows.new.numbers_at(rows.rows[at]))
    values = listed.values(slice(None))
    return int(at[values.index(value)]) if value in values else None


def _sum(rows: _Rows, at: int) -> str:
    if rows.mixture is None:
        return f"a row by {rows.label}"
    terms = rows.mixture.terms(at)
    if not terms:
        return rows.label
    shown, others = terms[:_SHOWN], terms[_SHOWN:]
    text = ""
    for index, weight in shown:
        sign = ("- " if weight < 0 else "") if not text else (" - " if weight < 0 else " + ")
        factor = (
            "" if abs(abs(weight) - 1) < _ROUNDED and len(terms) == 1 else f"{abs(weight):.2f} "
        )
        text += f"{sign}{factor}{_entry(rows.old, index)}"
    if others:
        text += f" + {len(others):,} more"
    return text + (" + noise" if rows.label.endswith("+ noise") else "")


def _entry(old: Vocabulary | None, index: int) -> str:
    value = old.entries[index] if old is not None and index < len(old) else None
    return f"row {index:,}" if value is None or hides_entries() else _text(value)


def _text(value: bytes | int) -> str:
    return printable(str(entry_text(value)))
