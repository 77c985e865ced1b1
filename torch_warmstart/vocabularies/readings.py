"""How two vocabularies that hardly agree would agree: what to say instead of starting from zeros.

Nothing here is ever done to a vocabulary; a sample of the new entries is only looked for otherwise,
and the message says what would match.
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from torch_warmstart.entries import WAYS_OF_WRITING, Entries, way_of_writing
from torch_warmstart.errors import shown_entry

_SAMPLE = 2_000  # new entries that are looked for
_MOST = 500_000  # old entries that they are looked for among; no tokenizer has more
_OF_PYTHON = re.compile(rb"b(['\"])(.*)\1", re.DOTALL)
_NUMBER = re.compile(rb"(-?)0*(\d+)(?:\.0+)?")
_UP_TO_SIGN = re.compile(rb"(?:.*[^0-9A-Za-z])?", re.DOTALL)
_TOLD_APART = 0.9  # of a side's entries, which a reading may at most make alike
_ENCODED = 20_000  # new entries that are looked for in another encoding
_ENCODINGS = ("cp1252", "latin-1")
_WORD = re.compile(rb"[A-Za-z]")
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


def _part(sign: bytes, number: int) -> Reading:
    def read(entry: bytes) -> bytes:
        parts = entry.rsplit(sign, 1)
        return parts[number] if len(parts) > 1 else entry

    return read


def _without_prefix(entry: bytes) -> bytes:
    for prefix in WAYS_OF_WRITING.values():
        if entry.startswith(prefix):
            return entry[len(prefix) :]
    return entry


def _without_b(entry: bytes) -> bytes:
    written = _OF_PYTHON.fullmatch(entry)
    return entry if written is None else written[2]


def _number(entry: bytes) -> bytes:
    written = _NUMBER.fullmatch(entry)
    return entry if written is None else written[1] + written[2]


def _forms_of(sides: Sequence[Sequence[bytes]]) -> str:
    """The setting that reads prefixes, where the sides have one each, and not the same."""
    forms = _differing(*(way_of_writing(side, 0) for side in sides))
    return forms and f", as by {forms}"


def _differing(new: str, old: str) -> str:
    is_known = new and old and new != old
    return f"forms={{'new': {new!r}, 'old': {old!r}}}" if is_known else ""


def differing_forms(new: Entries, old: Entries) -> str:
    """The setting for vocabularies of tokenizers of two kinds, by a look at some entries; or ""."""
    if not new.is_text or not old.is_text or max(len(new), len(old)) > _MOST:
        return ""
    prefixes = tuple(WAYS_OF_WRITING.values())
    if not new.may_have(prefixes) or not old.may_have(prefixes):  # as of nearly every file
        return ""
    return _differing(*(way_of_writing(side.some()) for side in (new, old)))


def other_encoding(
    new: Entries,
    old: Entries,
    rows: torch.Tensor,
    formed: Sequence[Callable[[Iterable[bytes]], Iterable[bytes]]] = (tuple, tuple),
) -> str:
    """What would match of the entries that were not found if one side were read as no UTF-8; or "".

    Only the letters beside ASCII's differ then, so that the others are found, and nothing is odd. A
    token of bytes that are part of a character is no UTF-8 either, but no entry of the other side.

    Args:
        new: The new vocabulary.
        old: The old one.
        rows: For each new entry its old one, or -1.
        formed: What makes of new entries, and of old ones, what is compared.

    Returns:
        A sentence: `3 more of the new entries would be found if the old vocabulary ...`
    """
    if not new.is_text or not old.is_text or new.is_ascii or old.is_ascii:
        return ""
    old = old.slice(0, min(len(old), _MOST))
    if new.is_utf8 and old.is_utf8:  # as nearly all are
        return ""
    missing = (rows < 0).nonzero().flatten()
    listed = new.take(missing[:: max(1, len(missing) // _ENCODED)]).values(slice(None))
    tried = [one for one in listed if isinstance(one, bytes) and not one.isascii()]
    if not tried:
        return ""
    known = [one for one in old.values(slice(None)) if isinstance(one, bytes) and not one.isascii()]
    of_new, of_old = formed
    sides = (("new", tried, of_new, {*of_old(known)}), ("old", known, of_old, {*of_new(tried)}))
    for named, side, as_compared, other in sides:
        for encoding in _ENCODINGS:
            read = {*as_compared(_decoded(side, encoding))}
            found = len(read & other)
            if found and found >= _SHARE * min(len(read), len(other)):
                return (
                    f"{found:,} more of the new entries would be found if the {named} vocabulary, "
                    f"in which some are no UTF-8, were read as {encoding}: write it as UTF-8."
                )
    return ""


def _decoded(entries: Sequence[bytes], encoding: str) -> set[bytes]:
    """Those that are no UTF-8, and words, in UTF-8."""
    found = set()
    for entry in entries:
        with contextlib.suppress(UnicodeDecodeError):
            if _WORD.search(entry) and not _is_utf8(entry):
                found.add(entry.decode(encoding).encode())
    return found


def _is_utf8(entry: bytes) -> bool:
    try:
        entry.decode()
    except UnicodeDecodeError:
        return False
    return True


_casefolded = _text(str.casefold)
# What is said, and how an entry of either side is then read. The mildest come first.
_READINGS: Sequence[tuple[str, Reading]] = (
    ("a byte-order mark were dropped", lambda entry: entry.removeprefix(codecs.BOM_UTF8)),
    ("spaces and returns around entries were dropped", bytes.strip),
    ("quotes around entries were dropped", lambda entry: entry.strip(b"\"'")),
    ("Python's b'...' around entries were dropped", _without_b),
    ("numbers were written alike ('1.0' and '01' as '1')", _number),
    ("case were ignored", _casefolded),
    ("both were in Unicode's normal form NFC", _text(lambda t: unicodedata.normalize("NFC", t))),
    ("the prefixes '▁', 'Ġ' and '##' were dropped", _without_prefix),
    ("the suffix '</w>' were dropped", lambda entry: entry.removesuffix(b"</w>")),
)
# The setting that reads so, if there is one, by the entries of both sides.
_FORMS: Mapping[Reading, Callable[[Sequence[Sequence[bytes]]], str]] = {
    _casefolded: lambda _: ", as by forms='casefold'",
    _without_prefix: _forms_of,
}
# The same, of readings that leave something out.
_CUTS: Sequence[tuple[str, Reading]] = (
    ("only the first of the columns that tabs separate were read", _column(b"\t", 0)),
    ("only the second of the columns that tabs separate were read", _column(b"\t", 1)),
    ("only the first of the columns that commas separate were read", _column(b",", 0)),
    ("only the second of the columns that commas separate were read", _column(b",", 1)),
    ("only the first of the columns that semicolons separate were read", _column(b";", 0)),
    ("only the first of the columns that bars separate were read", _column(b"|", 0)),
    ("only the first of the columns that spaces separate were read", _column(b" ", 0)),
    ("only the second of the columns that spaces separate were read", _column(b" ", 1)),
    ("only the second of the columns that semicolons separate were read", _column(b";", 1)),
    ("only the second of the columns that bars separate were read", _column(b"|", 1)),
    *(
        (f"only what stands {where} the last {sign.decode()!r} were read", _part(sign, number))
        for sign in (b":", b"=")
        for number, where in enumerate(("before", "behind"))
    ),
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
    cuts = ((what, read) for what, read in _CUTS if not _leaves_kinds_out(read, entries))
    for condition, read in itertools.chain(_READINGS, cuts):
        found = _count(read, *entries)
        if found and found >= _SHARE * len(tried):
            forms = _FORMS[read](entries) if read in _FORMS else ""
            return (
                f"{found:,} of {len(tried):,} that were tried would be found if {condition}{forms}."
            )
    prefixes = [_shared_prefix(side) for side in entries]
    if any(prefixes) and not all(prefixes):  # of two they may be what tells them apart
        found = _found_of(
            [[e.removeprefix(p) for e in s] for s, p in zip(entries, prefixes, strict=True)]
        )
        if found and found >= _SHARE * len(tried):
            return (
                f"{found:,} of {len(tried):,} that were tried would be found if "
                f"{shown_entry(b''.join(prefixes))} in front were dropped."
            )
    return ""


def _shared_prefix(side: Sequence[bytes]) -> bytes:
    """What all entries of a side begin with, up to what is no letter and no digit: `id_`."""
    if len(side) < 2:
        return b""
    first, last = min(side), max(side)  # what these share all share
    pairs = enumerate(zip(first, last, strict=False))
    size = next((at for at, (one, other) in pairs if one != other), min(len(first), len(last)))
    found = _UP_TO_SIGN.match(first[:size])
    return found[0] if found else b""


def _count(read: Reading, tried: Sequence[bytes], known: Sequence[bytes]) -> int:
    """How many would be found."""
    return _found_of([[read(entry) for entry in side] for side in (tried, known)])


def _leaves_kinds_out(read: Reading, sides: Sequence[Sequence[bytes]]) -> bool:
    """Whether what a reading leaves out tells the sides apart: `user 7` from `item 7`."""
    left_out = [{_left_out(entry, read(entry)) for entry in side} for side in sides]
    are_kinds = all(
        b"" not in words and len(words) <= max(1, _SHARE * len(side))
        for words, side in zip(left_out, sides, strict=True)
    )
    return are_kinds and left_out[0].isdisjoint(left_out[1])


def _left_out(entry: bytes, kept: bytes) -> bytes:
    return entry.removesuffix(kept) if entry.endswith(kept) else entry.removeprefix(kept)


def _found_of(sides: Sequence[Sequence[bytes]]) -> int:
    """How many would be found; none, if entries of a side are no more told from each other."""
    if any(len(set(side)) < _TOLD_APART * len(side) for side in sides):
        return 0
    there = set(sides[1])
    return sum(entry in there for entry in sides[0] if entry)
