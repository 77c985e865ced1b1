"""Forms that entries are written in: `Ġx`, `▁x`, `##x`, bytes as letters, case.

Only where the settings ask for it. Entries of either side become what they stand for in a text, a
space in front where a word begins; those that are then alike are one and the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from torch_warmstart.entries import (
    Entries,
    casefolded,
    is_added_to_word_pieces,
    text_of_bytes,
    text_of_pieces,
    text_of_word_pieces,
)
from torch_warmstart.values import Form, frozen
from torch_warmstart.vocabularies.entry_index import MISSING

_BLOCK = 1 << 16  # entries at a time


def _wordpiece(entry: bytes) -> bytes:
    return entry if is_added_to_word_pieces(entry) else text_of_word_pieces(entry)


_FORMS: Mapping[Form, Callable[[bytes], bytes]] = {
    "byte_level": text_of_bytes,
    "sentencepiece": text_of_pieces,
    "wordpiece": _wordpiece,
    "casefold": casefolded,
}


@frozen(eq=False)
class Alike:
    """What was found by forms."""

    rows: torch.Tensor  # for each new entry the number of its old one, or -1
    num_present: int
    collision: str  # two old entries that have become alike, as a sentence's part
    num_collisions: int  # how many old entries another one of the same form came before
    shared: str  # two new entries of one old row, as a sentence's part
    num_sharing: int  # how many new entries take an old row that one before them takes
    repeat: tuple[int, int] | None  # two old entries that are written the same, too
    new_repeat: tuple[int, int] | None  # two new ones that are, and take an old row


def join_forms(
    new: Entries, old: Entries, new_forms: Sequence[Form], old_forms: Sequence[Form]
) -> Alike:
    """For each new entry the old one of its form.

    Of several old ones the one that is written the same; if none is, the first.
    """
    first: dict[bytes, int] = {}
    more: dict[bytes, list[int]] = {}
    for number, form in enumerate(_formed(old, old_forms)):
        before = first.setdefault(form, number)
        if before != number:
            more.setdefault(form, [before]).append(number)
    same = {old.entry(number): number for numbers in more.values() for number in numbers}
    forms = _formed(new, new_forms)
    numbers = [first.get(form, MISSING) for form in forms]
    for number, form in enumerate(forms if more else ()):
        written = same.get(new.entry(number), MISSING) if form in more else MISSING
        if written in more.get(form, ()):
            numbers[number] = written
    rows = torch.tensor(numbers, dtype=torch.int64, device="cpu")
    shared = _sharing(numbers)
    pairs = sorted((its[0], one) for its in shared for one in its[1:])
    return Alike(
        rows.to(new.device),
        int((rows >= 0).sum()),
        _shown(old, ((a, b) for a, b, *_ in more.values())),
        sum(len(numbers) - 1 for numbers in more.values()),
        _shown(new, pairs),
        len(pairs),
        _repeat_in(old, more.values()),
        _repeat_in(new, shared),
    )


def _repeat_in(entries: Entries, alike: Iterable[Sequence[int]]) -> tuple[int, int] | None:
    """Two entries that are written the same, of runs of such that are alike by forms."""
    for numbers in alike:
        first: dict[bytes | int, int] = {}
        for number in numbers:
            before = first.setdefault(entries.entry(number), number)
            if before != number:
                return before, number
    return None


def _sharing(numbers: Sequence[int]) -> list[list[int]]:
    """The new entries that take one old row, of each such row."""
    taking: dict[int, list[int]] = {}
    for at, number in enumerate(numbers):
        if number != MISSING:
            taking.setdefault(number, []).append(at)
    return [its for its in taking.values() if len(its) > 1]


def _shown(entries: Entries, pairs: Iterable[tuple[int, int]]) -> str:
    """The first pair: no more than `ENTRIES_SHOWN` entries of a vocabulary are told."""
    return next((f"{entries.show(a)} and {entries.show(b)}" for a, b in pairs), "")


def in_forms(forms: Sequence[Form]) -> Callable[[Iterable[bytes]], list[bytes]]:
    """What makes of entries what they stand for."""

    def formed(entries: Iterable[bytes]) -> list[bytes]:
        for form in forms:
            entries = map(_FORMS[form], entries)
        return list(entries)

    return formed


def _formed(entries: Entries, forms: Sequence[Form]) -> list[bytes]:
    found: list[bytes] = []
    formed = in_forms(forms)
    for start in range(0, len(entries), _BLOCK):
        values = entries.values(slice(start, start + _BLOCK))
        found += formed(e for e in values if isinstance(e, bytes))
    return found
