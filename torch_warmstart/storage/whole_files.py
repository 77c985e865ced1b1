"""Files that are there whole or not at all: written beside their place, and then put there."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

_SHOWN = 40  # characters of a name that are part of another, which may have 255 bytes
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
    folder, name = os.path.split(os.path.abspath(path))
    written = os.path.join(folder, f".{name[:_SHOWN]}.{os.urandom(8).hex()}")
    old = _mode(path)
    try:
        _make(written, old)
        yield written
        with open(written, "rb+") as file:
            if old is not None:
                os.chmod(file.fileno() if os.chmod in os.supports_fd else written, old)
            os.fsync(file.fileno())
        os.replace(written, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(written)
        raise


def _is_written_to_itself(path: str) -> bool:
    """Whether a path is a device, a pipe, or a file that a process has open (`/dev/stdout`)."""
    if not os.path.exists(path):
        return False
    is_open = os.path.islink(path) and os.readlink(path).startswith(_OPEN_FILES)
    is_open |= os.path.realpath(os.path.dirname(path)).startswith(_OPEN_FILES)
    return is_open or not (os.path.isfile(path) or os.path.isdir(path))


def _mode(path: str) -> int | None:
    """The rights of what a file replaces."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return None


def _make(path: str, old: int | None) -> None:
    """Makes a file as any other is made: the umask is the whole process's, and is not asked for.

    What is to have the rights of another is its owner's alone until then.
    """
    rights = 0o666 if old is None else 0o600
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, rights))
