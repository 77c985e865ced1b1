"""What all who read tables by pyarrow have in common: that it is there, its blocks, its errors.

Of a table of text it reads no less than a row at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from torch_warmstart.errors import MissingDependencyError, said_of_entries
from torch_warmstart.storage import Bytes

_LEAST = 1 << 20  # bytes, as pyarrow has it
_MOST = 64 << 20  # of a line; whoever has longer ones has no table
_PIECE = 1 << 22
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
