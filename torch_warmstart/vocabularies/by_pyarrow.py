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
from torch_warmstart.storage import ARROW_STREAM, Bytes

_LEAST = 1 << 20  # bytes, as pyarrow has it
_MOST = 64 << 20  # of a line; whoever has longer ones has no table
_PIECE = 1 << 22
_MOST_TIMES = 1_000  # how much larger than its file a packed table may be, as deflate may
_ALWAYS = 64 << 20  # bytes that any may have
_LONG = 1 << 20  # bytes of an entry that is longer than any
_MOST_ROWS = 1 << 16  # that are read before their size is looked at
_FOOTER_END = 10  # bytes of a file of Arrow's behind its footer: its length, and the magic
_BLOCKS = (2, 3)  # the fields of a footer that say where dictionaries and batches are
_OF_DICTIONARY, _OF_BATCH = 2, 3  # kinds of messages
_PACKED_ONCE = b"ARROW:experimental_compression"  # how it was said before there was a field
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


def arrow_table(buffer: Any) -> Any:
    """The table in a file of Arrow's own, or a stream of it; raises as above.

    What they hold is mapped, not looked at: places of texts may be outside of their buffers.
    """
    import pyarrow
    from pyarrow import ipc

    size = buffer.size()
    is_stream = buffer.read(len(ARROW_STREAM)) == ARROW_STREAM
    buffer.seek(0)
    reader = (ipc.open_stream if is_stream else ipc.open_file)(buffer)
    _check_stated(buffer, _most_bytes(size), is_stream=is_stream)
    if is_stream:
        batches = iter(reader)
    else:
        batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
    found = list(_bounded(_validated(batches), _most_bytes(size)))
    return pyarrow.Table.from_batches(found, reader.schema)


def _validated(batches: Iterable[Any]) -> Iterator[Any]:
    """Before so much as their size is asked for, which Arrow finds by following their places."""
    for batch in batches:
        batch.validate(full=True)
        yield batch


def _check_stated(buffer: Any, most: int, *, is_stream: bool) -> None:
    """Raises ValueError for what says of itself that it unfolds to more.

    Arrow takes memory for what is said, and none for more, before it unfolds anything. A reader is
    open by now: it has verified the footer, as it does each message when that is read.
    """
    place, total = buffer.tell(), 0
    for message in _messages(buffer, is_stream=is_stream):
        total += _stated(message)
        if total > most:
            raise _too_much(most)
    buffer.seek(place)


def _messages(buffer: Any, *, is_stream: bool) -> Iterator[Any]:
    """The messages of a stream, or those that a file's footer names, as often as it does."""
    from pyarrow import ipc

    buffer.seek(0)
    if is_stream:
        yield from ipc.MessageReader.open_stream(buffer)
        return
    buffer.seek(buffer.size() - _FOOTER_END)
    length = int.from_bytes(buffer.read(4), "little")
    buffer.seek(buffer.size() - _FOOTER_END - length)
    footer = buffer.read(length)
    root = _followed(footer, 0)
    for number in _BLOCKS:
        for begin, *_ in _numbers(footer, _field(footer, root, number), 3):
            buffer.seek(begin)
            yield ipc.read_message(buffer)


def _stated(message: Any) -> int:
    """To how many bytes a message says that its buffers unfold: each begins with its number."""
    raw = message.metadata.to_pybytes()
    root = _followed(raw, 0)
    kind, header = _field(raw, root, 1), _field(raw, root, 2)
    if not kind or not header or raw[kind] not in (_OF_DICTIONARY, _OF_BATCH):
        return 0
    batch = _followed(raw, header)
    if raw[kind] == _OF_DICTIONARY:
        batch = _followed(raw, _field(raw, batch, 1))
    if not _field(raw, batch, 3) and _PACKED_ONCE not in raw:
        return 0
    body = memoryview(message.body)
    buffers = _numbers(raw, _field(raw, batch, 2), 2)
    sizes = (
        int.from_bytes(body[at : at + 8], "little", signed=True) for at, long in buffers if long
    )
    return sum(size for size in sizes if size > 0)  # -1: it is as it is


def _field(raw: bytes, table: int, number: int) -> int:
    """Where a field of a table of FlatBuffers' is; 0: it is not there."""
    about = table - int.from_bytes(raw[table : table + 4], "little", signed=True)
    at = 4 + 2 * number
    if at >= int.from_bytes(raw[about : about + 2], "little"):
        return 0
    place = int.from_bytes(raw[about + at : about + at + 2], "little")
    return table + place if place else 0


def _followed(raw: bytes, at: int) -> int:
    return at + int.from_bytes(raw[at : at + 4], "little")


def _numbers(raw: bytes, at: int, each: int) -> list[list[int]]:
    """A vector of so many words of 64 bits each; of none that is not there."""
    if not at:
        return []
    begin = _followed(raw, at)
    count = int.from_bytes(raw[begin : begin + 4], "little")
    found: list[list[int]] = (
        np.frombuffer(raw, "<i8", each * count, begin + 4).reshape(-1, each).tolist()
    )
    return found


def _bounded(batches: Iterable[Any], most: int) -> Iterator[Any]:
    total = 0
    for batch in batches:
        total += batch.nbytes
        if total > most:
            raise _too_much(most)
        yield batch


def _too_much(most: int) -> ValueError:
    return ValueError(
        f"it unfolds to more than {most:,} bytes, a thousand times its size or {_ALWAYS:,}: no "
        "vocabulary does"
    )


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
