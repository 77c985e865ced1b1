"""What all who read tables by pyarrow have in common: that it is there, its blocks, its errors.

Of a table of text it reads no less than a row at a time. A table that is packed may say a long text
or a number over and over in a few bytes, so it is read a piece at a time, and has a bound. So have
JSON lines, which are as many columns as they have keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from torch_warmstart.errors import MissingDependencyError, said_of_entries
from torch_warmstart.storage import Bytes

_LEAST = 1 << 20  # bytes, as pyarrow has it
_MOST = 64 << 20  # of a line; whoever has longer ones has no table
_PIECE = 1 << 22
_MOST_TIMES = 1_000  # how much larger than its file a packed table may be, as deflate may
_ALWAYS = 64 << 20  # bytes that any may have
_LONG = 1 << 20  # bytes of an entry that is longer than any
_MOST_ROWS = 1 << 16  # that are read before their size is looked at
_CELL = 8  # bytes of a cell that is null, at most
_TOKEN = re.compile(rb'"([^"]*)"?\s*(:)?|([{\[])|([}\]])')
# What is escaped in a text, by what no text may hold as it is.
_ESCAPED = ((b"\\\\", b"\x00\x00"), (b'\\"', b"\x01\x01"))
_LOOKED_FOR = 64  # keys of the first line
_STRADDLES = "straddling object"  # pyarrow's word for a row that is longer than a block


def pyarrow_for(what: str, instead: str = "") -> Any:
    """The library; MissingDependencyError, with what is to be done, where it is not installed."""
    try:
        import pyarrow
    except ImportError as error:
        raise MissingDependencyError(
            f"{what} needs pyarrow: pip install 'torch-warmstart[arrow]'{instead}"
        ) from error
    return pyarrow


def reader_of(raw: Bytes) -> Any:
    """A file of pyarrow's of these bytes, in memory of its own.

    Memory of Python's would do, but one of Arrow's threads may be the last to let go of it, while
    Python ends: it would wait for the GIL then, and the process be aborted.
    """
    import pyarrow

    memory = pyarrow.allocate_buffer(len(raw))
    np.frombuffer(memory, dtype=np.uint8)[:] = raw
    return pyarrow.BufferReader(memory)


def parquet_table(file: Any, size: int, columns: Sequence[str] | None = None) -> Any:
    """The table in a Parquet file of so many bytes, or some columns of it, in their order there.

    Raises ValueError: it unfolds to more than a vocabulary does.
    """
    import pyarrow

    about, most = file.metadata, _most_bytes(size)
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    chunks = [group.column(at) for group in groups for at in range(group.num_columns)]
    longest = max((chunk.total_uncompressed_size for chunk in chunks), default=0)
    rows = min(_MOST_ROWS, most // _LONG, max(1, most // max(1, longest)))
    batches = list(_bounded(file.iter_batches(rows, columns=columns), most))
    if not batches:
        return file.read(columns=columns)
    return pyarrow.Table.from_batches(batches)


def arrow_table(reader: Any, size: int) -> Any:
    """The table that a reader of Arrow's own files has, of so many bytes; raises as above.

    What they hold is mapped, not looked at: places of texts may be outside of their buffers.
    """
    import pyarrow

    if hasattr(reader, "num_record_batches"):
        batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        batches = iter(reader)
    found = list(_bounded(batches, _most_bytes(size)))
    for batch in found:
        batch.validate(full=True)
    return pyarrow.Table.from_batches(found, reader.schema)


def _bounded(batches: Iterable[Any], most: int) -> Iterator[Any]:
    total = 0
    for batch in batches:
        total += batch.nbytes
        if total > most:
            raise ValueError(
                f"it unfolds to more than {most:,} bytes, a thousand times its size or "
                f"{_ALWAYS:,}: no vocabulary does"
            )
        yield batch


def _most_bytes(size: int) -> int:
    """How many bytes the table in a file of so many may take, where it may be larger than that."""
    return max(_ALWAYS, _MOST_TIMES * size)


def check_cells(raw: Bytes) -> None:
    """Raises ValueError for JSON lines that are more cells than a table may have.

    pyarrow makes a column of each key, with a cell for each line: where every line has a key of its
    own, that is the square of the file.
    """
    text, most = raw.tobytes(), _most_bytes(len(raw))
    lines = text.count(b"{")  # at most
    allowed = most // (_CELL * max(1, lines))
    if text.count(b":") <= allowed or _at_most(text, lines) <= allowed:
        return
    for escaped, instead in _ESCAPED:
        text = text.replace(escaped, instead)
    for number in _counted(text):
        if number > allowed:
            raise ValueError(
                f"its {lines:,} lines have more than {allowed:,} keys, which would be as many "
                "columns: no table does"
            )


def _at_most(text: bytes, lines: int) -> int:
    """A bound of the keys of lines that all have those of the first one, found without a parser.

    Only where no text holds what looks like a key, and no object is within another.
    """
    apart = text.count(b"}\n{") + text.count(b"}\r\n{") + 1
    colons = text.count(b":")
    if b"\\" in text or apart != lines:
        return colons
    first = text[: text.find(b"}") + 1]
    keys = {found[1] for found in _TOKEN.finditer(first) if found[2]}
    if len(keys) > _LOOKED_FOR:
        return colons
    return len(keys) + colons - sum(text.count(b'"' + key + b'":') for key in keys)


def _counted(text: bytes) -> Iterator[int]:
    """How many keys there are so far; those of objects within others are others."""
    numbers: dict[tuple[int, bytes], int] = {}
    around: list[int] = []
    inside = value = 0  # the keys that stand for the object, and for what is next in it
    for token in _TOKEN.finditer(text):
        key, is_key, opens, closes = token.groups()
        if is_key:
            value = numbers.setdefault((inside, key), len(numbers) + 1)
            yield len(numbers)
        elif opens:
            around.append(inside)
            inside = value
        elif closes:
            inside = value = around.pop() if around else 0


def block_size_of(raw: Bytes) -> int:
    """Bytes of a block so that each line of a text is within two of them.

    Raises ValueError: a line is longer than any row of a table.
    """
    longest = _longest_line(raw)
    if longest > _MOST:
        raise ValueError(
            f"a line of it has {longest:,} bytes, and a row of a table at most {_MOST:,}"
        )
    return max(_LEAST, longest + 1)


def said_of_text(error: Exception) -> str:
    """The first line of what pyarrow says of a table of text; it may hold an entry."""
    if _STRADDLES in str(error):
        return f"a row of it goes over many lines, in {_LEAST:,} bytes and more"
    return said_of_entries(error)


def _longest_line(raw: Bytes) -> int:
    longest = begins = 0
    for start in range(0, len(raw), _PIECE):
        piece = raw[start : start + _PIECE]
        ends = np.flatnonzero((piece == ord("\n")) | (piece == ord("\r")))
        if len(ends):
            inside = int(np.diff(ends).max(initial=0))
            longest = max(longest, start + int(ends[0]) - begins, inside)
            begins = start + int(ends[-1])
    return max(longest, len(raw) - begins)
