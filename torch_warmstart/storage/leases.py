"""Keeping others from writing to local files while they are copied, as far as the system can.

Whoever touches a mapping behind the end of a file that was cut meanwhile is killed by the system
(SIGBUS). A read lease makes who wants to write to the file wait until it is given back, or the
system's patience is over (45 s on Linux). Where none can be had, a system call copies what is
mapped: it fails where the process would be killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from torch_warmstart.errors import CorruptCheckpointError
from torch_warmstart.storage.files import Bytes, of_this_machine
from torch_warmstart.storage.guards import Guard

PIECE = (
    1 << 20
)  # bytes that a system call copies at a time; more is slower, as it leaves the caches
_MAX_LEASES = 512  # each keeps a descriptor
_SHARE_OF_DESCRIPTORS = 4  # that leases may take: one in so many
_F_SETSIG = 10  # fcntl's number, which Python does not name
_CAN_BE_CUT = sys.platform != "win32"  # which refuses to cut a file that somebody has mapped

_guard = Guard()
_held: Counter[str] = Counter()  # by real path; threads may warm-start from one file


class Leases:
    """Files that nobody can begin to write to or cut for a while.

    Linux has that, for files of one's own on a disk of one's own that nobody has open for writing.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        """Takes as many as it can; close them soon."""
        self._files: dict[str, int] = {}
        with contextlib.suppress(ImportError):
            import fcntl

            if hasattr(fcntl, "F_SETLEASE"):
                for path in list(dict.fromkeys(map(os.path.realpath, paths)))[: _most_leases()]:
                    self._take(path)

    def _take(self, path: str) -> None:
        import fcntl

        with contextlib.suppress(OSError):
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                # What it sends by itself when somebody has to wait, SIGIO, ends a process.
                fcntl.fcntl(file, _F_SETSIG, signal.SIGURG)
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            except BaseException:
                os.close(file)
                raise
            self._files[path] = file
            with _guard:
                _held[path] += 1

    def close(self) -> None:
        """Lets those go on who wait."""
        while self._files:
            path, file = self._files.popitem()
            with _guard:
                _held[path] -= 1
            os.close(file)


def is_safe(path: str) -> bool:
    """Whether nobody can cut a mapped local file: it is leased, or the system forbids it."""
    return not _CAN_BE_CUT or _held[path] > 0 or _held[os.path.realpath(path)] > 0


def _most_leases() -> int:
    most = _limited("RLIMIT_NOFILE", _MAX_LEASES * _SHARE_OF_DESCRIPTORS)
    return min(_MAX_LEASES, most // _SHARE_OF_DESCRIPTORS)


def _limited(limit: str, wanted: int) -> int:
    """What the system lets a process have, at most what is wanted."""
    try:
        import resource
    except ImportError:  # Windows
        return wanted
    soft, _ = resource.getrlimit(getattr(resource, limit))
    return wanted if soft == resource.RLIM_INFINITY else min(soft, wanted)


def copied(data: Bytes, what: str) -> Iterator[Bytes]:
    """The same bytes in pieces, copied by a system call; each is good until the next is taken.

    Where nobody can cut a mapping they are looked at where they are.

    Args:
        data: On a mapping that may be cut, or in any other memory.
        what: The file, for the message.

    Raises:
        CorruptCheckpointError: they are no longer there.
    """
    if not _CAN_BE_CUT:  # nor has such a system these calls
        yield data
        return
    at_a_time = _limited("RLIMIT_FSIZE", PIECE) or PIECE  # that counts for files in memory, too
    piece = np.empty(min(at_a_time, data.size), dtype=np.uint8)
    with of_this_machine(what), _own_file() as file:
        for start in range(0, data.size, at_a_time):
            part = data[start : start + at_a_time]
            taken = piece[: part.size]
            try:
                _write(file, part)
            except OSError as error:
                if error.errno != errno.EFAULT:
                    raise
                raise CorruptCheckpointError(
                    f"{what} has been cut while it was read. Open the checkpoint again, when "
                    "nobody writes to it."
                ) from error
            os.preadv(file, [taken.data], 0)
            yield taken


@contextlib.contextmanager
def _own_file() -> Iterator[int]:
    """An empty file that nobody else has; in memory on Linux."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("torch_warmstart")
        try:
            yield file
        finally:
            os.close(file)
    else:
        with tempfile.TemporaryFile() as temporary:
            yield temporary.fileno()


def _write(file: int, data: Bytes) -> None:
    at = 0
    while at < data.size:
        at += os.pwrite(file, data[at:].data, at)
