"""Files that are there whole or not at all: written beside their place, and then put there."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def beside(path: str) -> Iterator[str]:
    """A file of nobody else's beside a path, which takes its place when the block ends.

    It is on the disk by then. If the block raises, or that cannot be done, nothing is left of it,
    and what was at the path stays.

    Raises OSError.
    """
    if "\0" in path:
        raise OSError(errno.EINVAL, "a path has no null bytes", path)
    folder = os.path.dirname(os.path.abspath(path))
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{os.path.basename(path)[:80]}.")
    os.close(handle)
    try:
        yield name
        with open(name, "rb+") as file:
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
