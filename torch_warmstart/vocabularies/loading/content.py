"""What a file is by its content that is read as a vocabulary but has not one entry a line."""

from __future__ import annotations

import codecs
import functools
import json
import re
from collections.abc import Callable, Sequence

import numpy as np

from torch_warmstart.entries import FILE_KIND
from torch_warmstart.errors import VocabularyError
from torch_warmstart.storage import (
    ARROW,
    ARROW_STREAM,
    HDF5,
    NPY,
    PACKED,
    PARQUET,
    ZIP,
    Bytes,
    what_came_instead,
)
from torch_warmstart.vocabularies.numbering import is_numbering

HEAD = 4096  # bytes looked at
_LINES = 50  # of which a table is recognised
_COUNTED = (  # which group has the token, and which its id or count
    (re.compile(rb"([^ ]+) (\d{1,18})\r?"), 1, 2),
    (re.compile(rb" *(\d{1,18}) ([^ ]+)\r?"), 2, 1),  # as `uniq -c` writes
)
_KEYED = re.compile(rb"[^\t]*\t-?\d+\r?")  # `token \t id`, or a count

TIKTOKEN_LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) (\d{1,10})\r?")  # base64 and a rank
BOM = codecs.BOM_UTF8
_WITH_BOM = ("csv", "tsv", "jsonl", "json")  # of whose first entry it is no part
KEPT_TABLE = f"# {FILE_KIND} ".encode()  # how a table of ours begins that is text
PARQUET_KEY = FILE_KIND.encode()  # in the schema of one that is Parquet
_FOOT = 1 << 20  # bytes at the end of a Parquet file that its schema lies in
_SAVED_HEAD = 1 << 20  # bytes of the header of a saved vocabulary

# By their first bytes. (The Unicode standard, and each format's own specification.)
_MAGIC = (
    (BOM, "begins with a byte-order mark, which would be a part of its first entry"),
    (b"\xff\xfe", "is UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "is UTF-16; save it as UTF-8"),
    *((magic, f"is compressed by {name}") for magic, name in PACKED.items()),
    (ZIP, "is a zip archive, as .keras, .pt and .npz files are"),
    (HDF5[:4], "is an HDF5 file"),
    (PARQUET, "is a Parquet table"),
    (NPY, "is an array of numpy's"),
    (ARROW, "is an Arrow table"),
    (ARROW_STREAM, "is a stream of Arrow's"),
    (b"SQLite format 3\x00", "is a database of SQLite's"),
    (b"\xff\xd8\xff", "is a JPEG image"),
    (b"\x89PNG", "is a PNG image"),  # of lines, a return behind it is gone already
    (b"GIF8", "is a GIF image"),
    (b"%PDF-", "is a PDF"),
    (b"<?xml", "is XML"),
)
_NUMBER = re.compile(rb'"?-?\d+(\.\d+)?"?')
_SAFETENSORS = re.compile(rb'.{5}\0\0\0\{\s*"', re.DOTALL)  # the header's size, then the header
# Pickles of protocol 0, which is text: of a list or a dict, a tuple, a set.
_PICKLE = re.compile(rb"\([ld]p[01]\n|\(V[^\n]*\np[01]\n|c__builtin__\n")
_PYTHON = re.compile(rb"\s*[\[{(]\s*b?'")  # as JSON begins, in single quotes
# How JSON begins that holds something; or all of it is empty. A bracket is an entry, too.
_LIST = re.compile(rb"\s*(\[\s*[-\d\[tfn{\"]|(\[[ \t]*\]|\{[ \t]*\})\s*\Z)")
_STATED = re.compile(rb"\d+ \d+ ?")  # how many vectors, and of how many numbers
_REAL = re.compile(rb"-?\d+(\.\d+)?(e[-+]?\d+)?")
_LEAST_VECTOR = 4  # numbers; fewer may be the parts of one entry
_DO = "pass its entries as a sequence"
# What people write above a column of entries. ("voter id" is what people look for.)
_ABOVE = re.compile(
    rb"(?i:tokens?|words?|terms?|entry|entries|vocab|vocabulary|items?|u?ids?|\w+_ids?)"
    rb"|\w+ I[Dd]s?|[a-z]+I[Dd]s?"
)
_FEW = 8  # words or less are a closed list, whose first may be "entry" or "user_id" itself
_CODE = re.compile(rb"[A-Za-z]{2}")  # of a country or a language, as Indonesia's is "id"
# What people call a column of numbers (not "K" above 1, 2, 3 or "V4581"), and the words of what may
# stand in front of numbers as an entry, such as "unknown_user" or "under 18".
_NAME = re.compile(rb"[A-Za-z]{2,}([_ .-]+[A-Za-z]+)*")
_IN_FRONT = re.compile(
    rb"(?i)(^no|(^|[_ .-])(unk|unknown|oov|out|others?|rest|misc|rare|pad|padding|mask|masked|none"
    rb"|not|null|nan?|inf|missing|default|empty|undefined|invalid|unseen|new|cold|all|any|total|bos"
    rb"|eos|sos|cls|sep|anonymous|guest|under|over|below|above|before|after|pre))([_ .-]|$)"
)
_CELLS = re.compile(rb"[\t,;|](?! )")  # not of a text with commas


def empty(url: str) -> VocabularyError:
    """The error for a file without a byte."""
    return VocabularyError(f"{url} is empty: a vocabulary needs at least one entry.")


@functools.lru_cache(maxsize=4)  # a dozen questions are asked of one file's
def _lines_of(head: bytes) -> tuple[bytes, ...]:
    return tuple(head.split(b"\n"))


def _is_of_python(head: bytes) -> bool:
    return _PYTHON.match(head) is not None and (b"'," in head or b"':" in head)


def _ends_in_returns(head: bytes) -> bool:
    return b"\n" not in head and b"\r" in head.rstrip(b"\r")


@functools.lru_cache(maxsize=4)  # asked when a file is read, and when its lines are looked up
def what_else_it_is(head: bytes, *, is_said: bool = False) -> str:
    """What is wrong with reading a file as lines, from its first 4,096 bytes; "" if nothing is.

    Args:
        head: These bytes.
        is_said: Whether the user says that it is lines: what lines look like is then no matter.

    Returns:
        What follows the file's name in a sentence: `is a zip archive, as .keras files are: ...`
    """
    stranger = what_stranger_it_is(head)
    if stranger:
        return f"{stranger}; {_DO}, or a file with one entry a line"
    others = _NO_LINES if is_said else (*_NO_LINES, *_NOT_BY_THEIR_LOOKS)
    return next((what for is_it, what in others if is_it(head)), "")


def what_stranger_it_is(head: bytes) -> str:
    """What a file is by its first bytes that is no text; "" if that is not known."""
    instead = what_came_instead(head)
    if instead:
        return instead
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    if _PICKLE.match(head):
        return "is a pickle"
    return "is a safetensors file" if _SAFETENSORS.match(head) else ""


def mark_of(head: bytes, form: str) -> bytes:
    """The byte-order mark that a file of a form of text begins with, if that may have one."""
    return BOM if form in _WITH_BOM and head.startswith(BOM) else b""


def why_no_text(head: bytes, form: str) -> str:
    """Why a file cannot be what it is to be read as, a form of text; "" if it can."""
    head = head.removeprefix(mark_of(head, form))
    stranger = what_stranger_it_is(head)
    if stranger:
        return stranger
    if _is_binary(head):
        return "is binary"
    return "is JSON" if form not in ("json", "jsonl") and is_json(head) else ""


def _is_binary(head: bytes) -> bool:
    """Whether it has zeros. Other control characters stand in entries, as ^A of Hive's does."""
    return b"\0" in head


def is_json_lines(head: bytes) -> bool:
    """Whether each line begins an object of its own."""
    lines = [line for line in _lines_of(head) if line.strip()]
    return len(lines) > 1 and all(line.lstrip()[:1] == b"{" for line in lines) and is_json(head)


def is_numbered(head: bytes, separator: bytes) -> bool:
    """Whether it is a table with a number in the first or last cell of each line but the first.

    Where all cells are numbers they may be the parts of one entry, as of crossed features.
    """
    lines = _lines_of(head)
    if separator not in lines[0]:
        return False
    cells = [line.rstrip(b"\r").split(separator) for line in (lines[:-1] or lines)[:_LINES]]
    if len(cells) < 3 or len(cells[0]) < 2 or len({*map(len, cells)}) > 1:
        return False
    if all(_NUMBER.fullmatch(cell) for row in cells for cell in row):
        return False
    return any(all(_NUMBER.fullmatch(row[at]) for row in cells[1:]) for at in (0, -1))


def is_header(first: bytes, others: Sequence[bytes]) -> bool:
    """Whether what stands in front of entries looks like their name, as none of these does."""
    if len(others) < 2:
        return False
    if all(map(_NUMBER.fullmatch, others)):
        return _NAME.fullmatch(first) is not None and _IN_FRONT.search(first) is None
    if len(others) < _FEW or not _is_named(first) or any(map(_is_named, others)):
        return False
    return _CODE.fullmatch(first) is None or not any(map(_CODE.fullmatch, others))


def _is_named(line: bytes) -> bool:
    return _ABOVE.fullmatch(_CELLS.split(line)[0].strip(b' "')) is not None


def is_counted(head: bytes) -> bool:
    """Whether each line is another word, a space and a number: ids from 0 or 1 on, or counts.

    Or the number first.
    """
    lines = (_lines_of(head)[:-1] or (head,))[:_LINES]
    return len(lines) > 2 and any(_is_counted(lines, *way) for way in _COUNTED)


def _is_counted(lines: Sequence[bytes], pattern: re.Pattern[bytes], word: int, number: int) -> bool:
    if pattern.fullmatch(lines[0]) is None:  # as of nearly every file
        return False
    found = [match for line in lines if (match := pattern.fullmatch(line)) is not None]
    if len({match[word] for match in found}) < len(lines):
        return False
    numbers = [int(match[number]) for match in found]
    if numbers[0] in (0, 1) and numbers == sorted(set(numbers)):  # ids, which may have gaps
        return is_numbering(np.array(numbers))
    return numbers[0] > numbers[-1] and numbers == sorted(numbers, reverse=True)


def is_packed(raw: Bytes) -> bool:
    """Whether it is compressed in a way that is unfolded."""
    return raw[:8].tobytes().startswith(tuple(PACKED))


def is_kept_table(raw: Bytes) -> bool:
    """Whether it is a table that `save_table` wrote."""
    if raw[:4].tobytes() == PARQUET:
        return PARQUET_KEY in raw[-_FOOT:].tobytes()
    return raw[: len(KEPT_TABLE)].tobytes() == KEPT_TABLE


def is_saved(raw: Bytes) -> bool:
    """Whether it is what `Vocabulary.save` wrote: a header that says so, behind its size."""
    if raw[8:9].tobytes() != b"{":
        return False
    head = raw[:_SAVED_HEAD].tobytes()
    size = int.from_bytes(head[:8], "little")
    return size < len(raw) and FILE_KIND.encode() in head[: 8 + size]


def is_tiktoken(head: bytes) -> bool:
    """Whether a file's beginning is ranks from 0 on, each behind base64."""
    lines = _lines_of(head)
    if not TIKTOKEN_LINE.fullmatch(lines[0]):
        return False
    found = [TIKTOKEN_LINE.fullmatch(line) for line in (lines[:-1] or lines)[:_LINES]]
    return len(found) > 1 and all(
        match is not None and int(match[2]) == rank and len(match[1]) % 4 == 0
        for rank, match in enumerate(found)
    )


def is_json(head: bytes) -> bool:
    """Whether it begins as an object or a list with strings, as `vocab.json` is."""
    return re.match(rb"\s*(\{\s*\"|\[\s*(\"|\{\s*\"))", head) is not None and (
        b'":' in head or b'" :' in head or b'",' in head
    )


def is_json_throughout(head: bytes, raw: Bytes) -> bool:
    """Whether all of a file is one list of JSON's, of ids for instance, or is empty as such."""
    if _LIST.match(head) is None:
        return False
    try:
        return isinstance(json.loads(raw.tobytes()), list | dict)
    except (ValueError, RecursionError):
        return False


def _is_table(head: bytes) -> bool:
    if b"\t" not in head:
        return False
    lines = _lines_of(head)
    whole = lines[:-1] or lines  # the last one may be cut
    return len(whole) > 1 and all(_KEYED.fullmatch(line) for line in whole[:_LINES])


def _is_merges(head: bytes) -> bool:
    """Whether it is a tokenizer's `merges.txt`: its version, then two pieces a line."""
    if not head.startswith(b"#version:"):
        return False
    lines = _lines_of(head)[1:]
    whole = lines[:-1] or lines
    return all(len(line.split()) == 2 for line in whole if line)


def _is_vectors(head: bytes) -> bool:
    """Whether each line is a word and its vector, as GloVe's and fastText's `.vec` are.

    The latter say in a first line how many there are, and of how many numbers.
    """
    stated, _, rest = head.partition(b"\n")
    if _STATED.fullmatch(stated.rstrip(b"\r")) is None:
        rest = head
    if len(rest.partition(b"\n")[0].split()) <= _LEAST_VECTOR:  # as of nearly every file
        return False
    rows = [line.split() for line in rest.split(b"\n")]
    if len(rows) > 1:
        rows = rows[:-1]  # the last one may be cut
    elif rows:
        rows = [rows[0][:-1]]
    if not rows or len(rows[0]) <= _LEAST_VECTOR or len({*map(len, rows)}) > 1:
        return False
    numbers = [cell for row in rows for cell in row[1:]]
    return any(b"." in cell for cell in numbers) and all(map(_REAL.fullmatch, numbers))


# In this order; whether a file is something else than lines, and what follows its name.
_NO_LINES: Sequence[tuple[Callable[[bytes], bool], str]] = (
    (_is_binary, f"is binary, not text with one entry a line; {_DO}"),
    (is_json, f"is JSON, not text with one entry a line; {_DO} in the order of their ids"),
    (
        _is_of_python,
        f"is a list or a dict as Python prints it, not text with one entry a line; {_DO}",
    ),
    (_ends_in_returns, f"ends its lines by returns alone, so that all of it is one line; {_DO}"),
)
# The same for what is lines, but seems not to have an entry in each.
_NOT_BY_THEIR_LOOKS: Sequence[tuple[Callable[[bytes], bool], str]] = (
    (_is_merges, "is a tokenizer's merges, not its tokens: pass the vocab.json beside it"),
    (
        _is_vectors,
        f"is words and their vectors, not one entry a line; {_DO}: the first word of each line",
    ),
    (
        _is_table,
        "is a table with a number behind a tab in each line, not one entry a line; if its lines "
        "are in the order of the rows, pass Vocabulary.load(..., column=0, format='tsv'), else "
        f"{_DO.removeprefix('pass ')}",
    ),
)
