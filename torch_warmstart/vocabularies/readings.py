"""How two vocabularies that hardly agree would agree: what to say instead of starting from zeros.

Nothing here is ever done to a vocabulary; a sample of the new entries is only looked for otherwise,
and the message says what would match.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

import torch

from torch_warmstart.entries import Entries

_SAMPLE = 2_000  # new entries that are looked for
_MOST = 500_000  # old entries that they are looked for among
_BOM = b"\xef\xbb\xbf"
_PREFIXES = ("▁".encode(), "Ġ".encode(), b"##")  # sentencepiece's, byte-level BPE's, WordPiece's
_TOLD_APART = 0.9  # of a side's entries, which a reading may at most make alike
_SHARE = 0.1  # of the sample that a reading must find to be worth saying

Reading = Callable[[bytes], bytes]


def _text(change: Callable[[str], str]) -> Reading:
    def read(entry: bytes) -> bytes:
        try:
            return change(entry.decode()).encode()
        except UnicodeDecodeError:
            return entry

    return read


def _column(separator: bytes, number: int) -> Reading:
    def read(entry: bytes) -> bytes:
        columns = entry.split(separator)
        return columns[number] if len(columns) > number else entry

    return read


def _without_prefix(entry: bytes) -> bytes:
    for prefix in _PREFIXES:
        if entry.startswith(prefix):
            return entry[len(prefix) :]
    return entry


# What is said, and how an entry of either side is then read. The mildest come first.
_READINGS: Sequence[tuple[str, Reading]] = (
    ("a byte-order mark were dropped", lambda entry: entry.removeprefix(_BOM)),
    ("spaces and returns around entries were dropped", bytes.strip),
    ("quotes around entries were dropped", lambda entry: entry.strip(b"\"'")),
    ("case were ignored", _text(str.casefold)),
    ("both were in Unicode's normal form NFC", _text(lambda t: unicodedata.normalize("NFC", t))),
    ("the prefixes '▁', 'Ġ' and '##' were dropped", _without_prefix),
    ("only the first of the columns that tabs separate were read", _column(b"\t", 0)),
    ("only the second of the columns that tabs separate were read", _column(b"\t", 1)),
    ("only the first of the columns that commas separate were read", _column(b",", 0)),
    ("only the second of the columns that commas separate were read", _column(b",", 1)),
    ("only the first of the columns that spaces separate were read", _column(b" ", 0)),
)


def other_reading(new: Entries, old: Entries, rows: torch.Tensor) -> str:
    """What would match of the entries that were not found; "" if no other reading would.

    Args:
        new: The new vocabulary.
        old: The old one.
        rows: For each new entry its old one, or -1.

    Returns:
        A sentence: `1,990 of 2,000 that were tried would be found if case were ignored.`
    """
    if not new.is_text or not old.is_text:
        return ""
    missing = (rows < 0).nonzero().flatten().cpu()
    step = max(1, len(missing) // _SAMPLE)
    tried = [new.entry(int(at)) for at in missing[::step][:_SAMPLE]]
    known = [old.entry(at) for at in range(min(len(old), _MOST))]
    entries = [[e for e in side if isinstance(e, bytes)] for side in (tried, known)]
    for condition, read in _READINGS:
        found = _count(read, *entries)
        if found and found >= _SHARE * len(tried):
            return f"{found:,} of {len(tried):,} that were tried would be found if {condition}."
    return ""


def _count(read: Reading, tried: Sequence[bytes], known: Sequence[bytes]) -> int:
    """How many would be found; none, if entries of a side are no more told from each other."""
    sides = [[read(entry) for entry in side] for side in (tried, known)]
    if any(len(set(side)) < _TOLD_APART * len(side) for side in sides):
        return 0
    there = set(sides[1])
    return sum(entry in there for entry in sides[0] if entry)
