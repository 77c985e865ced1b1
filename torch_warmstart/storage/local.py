"""Files of this machine: mapped, small ones read, and leased while they are copied.

A mapping is private (copy on write): a tensor made on top of it may be written to by its owner, and
the file never changes. It keeps no descriptor, so a checkpoint may have any number of files.

Whoever touches a mapping behind the end of a file that was cut meanwhile is killed by the system
(SIGBUS). So a file is looked at before something of it is handed out, and leased while a model is
written: who wants to write to it waits until that is done, or the system's patience is over
(45 s on Linux).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from torch_warmstart.errors import CorruptCheckpointError
from torch_warmstart.storage.files import Bytes, check_range
from torch_warmstart.storage.guards import Guard
from torch_warmstart.storage.ranges import Ranges

# Without MAP_NORESERVE Linux refuses a private mapping larger than memory. The name is in Python's
# mmap only from 3.13 on; the value is asm-generic's, shared by x86 and arm.
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
_SMALL = 64 << 10  # bytes of a file that is read whole: for a few pages a mapping costs more
_MAX_LEASES = 512  # each keeps a descriptor
_SHARE_OF_DESCRIPTORS = 4  # that leases may take: one in so many
_F_SETSIG = 10  # fcntl's number, which Python does not name

_State = tuple[int, int, int, int]


class LocalFile:
    """A local file, mapped into memory on first use. Views outlive `close()`."""

    max_gap: int | None = None

    def __init__(self, url: str, path: str | None = None) -> None:
        """Looks at the file, but does not open it.

        Args:
            url: What it is called in messages.
            path: Where it is, if that is not the same.
        """
        self.url, self.path = url, os.path.abspath(path or url)
        self._state = _state(os.stat(self.path))
        self.size = self._state[2]
        self._guard = Guard()
        self._mapping: Bytes | None = None

    def read(self, offset: int, length: int) -> Bytes:
        check_range(self, offset, length)
        return self._mapped()[offset : offset + length]

    def prefetch(self, ranges: Ranges) -> None:
        pass  # the operating system reads ahead

    view = read

    def check(self) -> None:
        """Raises CorruptCheckpointError if what was mapped of it has been changed or cut.

        A file that another has taken the place of, or that was deleted, is still what it was.
        """
        with contextlib.suppress(FileNotFoundError):
            now = _state(os.stat(self.path))
            if now[:2] == self._state[:2]:
                self._compare(now)

    def _compare(self, now: _State) -> None:
        if now != self._state:
            raise CorruptCheckpointError(
                f"{self.url} has been changed since it was opened: it had {self.size:,} bytes, now "
                f"there are {now[2]:,}. Open the checkpoint again, when nobody writes to it."
            )

    def _mapped(self) -> Bytes:
        with self._guard:
            if self._mapping is None:
                with _open_to_read(self.path) as file:
                    self._compare(_state(os.fstat(file)))
                    self._mapping = _contents(file, self.path, self.size)
                    self._compare(_state(os.fstat(file)))
            elif self.size > _SMALL:
                self.check()
            return self._mapping

    def close(self) -> None:
        self._mapping = None  # the mapping itself goes when its last view does


def _state(found: os.stat_result) -> _State:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def _open_to_read(path: str) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        yield file
    finally:
        os.close(file)


def _contents(file: int, path: str, size: int) -> Bytes:
    if size <= _SMALL:
        return _read_whole(file, size)
    if sys.platform == "win32":
        mapping = mmap.mmap(file, size, access=mmap.ACCESS_COPY)
        return np.frombuffer(mapping, dtype=np.uint8)
    return _map_without_descriptor(file, path, size)


def _read_whole(file: int, size: int) -> Bytes:
    """What is there; less than `size` if the file has been cut, which its state then tells."""
    contents = np.zeros(size, dtype=np.uint8)
    at = 0
    while at < size and (data := os.read(file, size - at)):
        contents[at : at + len(data)] = np.frombuffer(data, dtype=np.uint8)
        at += len(data)
    return contents


def _map_without_descriptor(file: int, path: str, size: int) -> Bytes:
    """Torch's mapping keeps none open; Python's does, up to 3.12 always.

    torch cannot map what is larger than memory, nor read every path.
    """
    same_file = f"/proc/self/fd/{file}" if sys.platform == "linux" else path
    try:
        storage: Any = torch.UntypedStorage.from_file(same_file, shared=False, nbytes=size)
        contents: Bytes = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
        return contents
    except (RuntimeError, UnicodeError):
        flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        mapping = mmap.mmap(file, size, flags=flags, prot=protection)
        return np.frombuffer(mapping, dtype=np.uint8)


class Leases:
    """Files that nobody can begin to write to or cut for a while, as far as the system has leases.

    It has them on Linux, for files of one's own on a disk of one's own that nobody has open for
    writing. For others nothing is done.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        """Takes them; close them soon."""
        self._files: list[int] = []
        with contextlib.suppress(ImportError):
            import fcntl

            if hasattr(fcntl, "F_SETLEASE"):
                self._take(list(paths)[: _most_leases()])

    def _take(self, paths: list[str]) -> None:
        import fcntl

        for path in paths:
            with contextlib.suppress(OSError):
                file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                self._files.append(file)
                # What it sends by itself when somebody has to wait, SIGIO, ends a process.
                fcntl.fcntl(file, _F_SETSIG, signal.SIGURG)
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)

    def close(self) -> None:
        """Lets those go on who wait."""
        while self._files:
            os.close(self._files.pop())


def _most_leases() -> int:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft if soft != resource.RLIM_INFINITY else _MAX_LEASES * _SHARE_OF_DESCRIPTORS
    return min(_MAX_LEASES, few // _SHARE_OF_DESCRIPTORS)
