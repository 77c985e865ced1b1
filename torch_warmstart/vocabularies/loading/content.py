"""What a file is by its content that is read as a vocabulary but has not one entry a line."""

from __future__ import annotations

import re

HEAD = 4096  # bytes looked at
_LINES = 50  # of which a table is recognised
_KEYED = re.compile(rb"[^\t]*\t-?\d+\r?")  # `token \t id`, or a count

# By their first bytes. (The Unicode standard, and each format's own specification.)
_MAGIC = (
    (b"\xef\xbb\xbf", "begins with a byte-order mark, which would be a part of its first entry"),
    (b"\xff\xfe", "is UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "is UTF-16; save it as UTF-8"),
    (b"\x1f\x8b", "is compressed by gzip"),
    (b"BZh", "is compressed by bzip2"),
    (b"\xfd7zXZ\x00", "is compressed by xz"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd"),
    (b"PK\x03\x04", "is a zip archive, as .keras, .pt and .npz files are"),
    (b"\x89HDF", "is an HDF5 file"),
    (b"PAR1", "is a Parquet table"),
    (b"\x93NUMPY", "is an array of numpy's"),
    (b"ARROW1", "is an Arrow table"),
    (b"SQLite format 3\x00", "is a database of SQLite's"),
    (
        b"version https://git-lfs",
        "is a pointer of Git LFS: fetch the file itself by `git lfs pull`",
    ),
)
_DO = "pass its entries as a sequence"


def what_else_it_is(head: bytes) -> str:
    """What is wrong with reading a file as lines, from its first 4,096 bytes; "" if nothing is.

    Returns:
        What follows the file's name in a sentence: `is a zip archive, as .keras files are: ...`
    """
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return f"{what}; {_DO}, or a file with one entry a line"
    if b"\0" in head:
        return f"is binary, not text with one entry a line; {_DO}"
    if is_json(head):
        return f"is JSON, not text with one entry a line; {_DO} in the order of their ids"
    if _is_table(head):
        return (
            "is a table with a number behind a tab in each line, not one entry a line; if its "
            "lines are in the order of the rows, pass Vocabulary.load(..., column=0, format='tsv')"
            f", else {_DO.removeprefix('pass ')}"
        )
    return ""


def is_json(head: bytes) -> bool:
    """Whether it begins as an object or a list with strings, as `vocab.json` is."""
    return re.match(rb"\s*(\{\s*\"|\[\s*(\"|\{\s*\"))", head) is not None and (
        b'":' in head or b'" :' in head or b'",' in head
    )


def _is_table(head: bytes) -> bool:
    lines = head.split(b"\n")
    whole = lines[:-1] or lines  # the last one may be cut
    return len(whole) > 1 and all(_KEYED.fullmatch(line) for line in whole[:_LINES])
