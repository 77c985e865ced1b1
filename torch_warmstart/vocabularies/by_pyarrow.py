"""What all who read tables by pyarrow have in common: that it is there, its blocks, its errors.

Of a table of text it reads no less than a row at a time. A table that is packed may say a long text
or a number over and over in a few bytes, so it is read a piece at a time, and has a bound.
"""

from __future__ import annotations

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

    about, most = file.metadata, max(_ALWAYS, _MOST_TIMES * size)
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
    found = list(_bounded(batches, max(_ALWAYS, _MOST_TIMES * size)))
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
