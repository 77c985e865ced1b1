"""Files that are there whole or not at all: written beside their place, and then put there."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator

_OPEN_FILES = "/proc/"  # where Linux has links to what processes have open


@contextlib.contextmanager
def beside(path: str) -> Iterator[str]:
    """A file of nobody else's beside a path, which takes its place when the block ends.

    It is on the disk by then, and may be read and written by whoever might what it replaces. If the
    block raises, or that cannot be done, nothing is left of it, and what was at the path stays.

    What no file can take the place of, as a device or a pipe, is itself what is written to.

    Raises OSError.
    """
    if "\0" in path:
        raise OSError(errno.EINVAL, "a path has no null bytes", path)
    if _is_written_to_itself(path):
        yield path
        return
    folder = os.path.dirname(os.path.abspath(path))
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{os.path.basename(path)[:80]}.")
    os.close(handle)
    try:
        yield name
        with open(name, "rb+") as file:
            os.fchmod(file.fileno(), _mode(path))
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _is_written_to_itself(path: str) -> bool:
    """Whether a path is a device, a pipe, or a file that a process has open (`/dev/stdout`)."""
    if not os.path.exists(path):
        return False
    is_open = os.path.islink(path) and os.readlink(path).startswith(_OPEN_FILES)
    is_open |= os.path.realpath(os.path.dirname(path)).startswith(_OPEN_FILES)
    return is_open or not (os.path.isfile(path) or os.path.isdir(path))


def _mode(path: str) -> int:
    """The rights of what a file replaces, or of any new one."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
