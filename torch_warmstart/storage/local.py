"""Files of this machine: mapped, small ones read.

A mapping is private (copy on write): a tensor made on top of it may be written to by its owner, and
the file never changes. It keeps no descriptor, so a checkpoint may have any number of files.

A file is looked at before something of it is handed out, as it may have been cut or changed. What
guards it from then on is a lease, or that it is copied by a system call (`leases`).
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from torch_warmstart.errors import CorruptCheckpointError
from torch_warmstart.storage.file_state import FileState, state_of
from torch_warmstart.storage.files import Bytes, check_range, of_this_machine
from torch_warmstart.storage.guards import Guard
from torch_warmstart.storage.leases import copied, is_safe
from torch_warmstart.storage.ranges import Ranges

# Without MAP_NORESERVE Linux refuses a private mapping larger than memory. The name is in Python's
# mmap only from 3.13 on; the value is asm-generic's, shared by x86 and arm.
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
_SMALL = 64 << 10  # bytes of a file that is read whole: for a few pages a mapping costs more
_SMALL_PART = 256 << 10  # bytes of a header or the like, which are copied


class LocalFile:
    """A local file, mapped into memory on first use. Views outlive `close()`."""

    max_gap: int | None = None

    def __init__(self, url: str, path: str | None = None) -> None:
        """Looks at the file, but does not open it.

        Args:
            url: What it is called in messages.
            path: Where it is, if that is not the same.
        """
        self.url: str = url
        self.path: str = os.path.abspath(path or url)
        with of_this_machine(url):
            found = os.stat(self.path)
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for without end
            raise FileNotFoundError(errno.ENOENT, "What is there is no file", self.path)
        self._state = state_of(found)
        self.size: int = found.st_size
        self._guard = Guard()
        self._mapping: Bytes | None = None

    def read(self, offset: int, length: int) -> Bytes:
        there = self.view(offset, length)
        if length > _SMALL_PART or self._is_safe():
            return there
        pieces = [piece.copy() for piece in copied(there, self.url)]
        return np.concatenate(pieces) if pieces else there

    def read_whole(self) -> Bytes:
        """All of it in memory of its own: what becomes of the file later does not matter."""
        with of_this_machine(self.url), _open_to_read(self.path) as file:
            self._compare(state_of(os.fstat(file)))
            contents = _read_whole(file, self.size)
            self._compare(state_of(os.fstat(file)))
        return contents

    def view(self, offset: int, length: int) -> Bytes:
        check_range(self, offset, length)
        return self._mapped()[offset : offset + length]

    def pieces(self, offset: int, length: int) -> Iterator[Bytes]:
        there = self.view(offset, length)
        return iter([there]) if self._is_safe() else copied(there, self.url)

    def _is_safe(self) -> bool:
        return self.size <= _SMALL or is_safe(self.path)

    def prefetch(self, ranges: Ranges) -> None:
        pass  # the operating system reads ahead

    def check(self) -> None:
        """Raises CorruptCheckpointError if what was mapped of it has been changed or cut.

        A file that another has taken the place of, or that was deleted, is still what it was.
        """
        with contextlib.suppress(FileNotFoundError):
            now = state_of(os.stat(self.path))
            if now.inode == self._state.inode:
                self._compare(now)

    def _compare(self, now: FileState) -> None:
        if now.inode != self._state.inode or now.is_edited_since(self._state):
            sizes = f"it had {self.size:,} bytes, now there are {now.size:,}"
            raise CorruptCheckpointError(
                f"{self.url} has been changed since it was opened"
                f"{f': {sizes}' if now.size != self.size else ''}. Open the checkpoint again, when "
                "nobody writes to it."
            )

    def _mapped(self) -> Bytes:
        with self._guard, of_this_machine(self.url):
            if self._mapping is None:
                with _open_to_read(self.path) as file:
                    self._compare(state_of(os.fstat(file)))
                    self._mapping = _contents(file, self.path, self.size)
                    self._compare(state_of(os.fstat(file)))
            elif self.size > _SMALL:
                self.check()
            return self._mapping

    def close(self) -> None:
        self._mapping = None  # the mapping itself goes when its last view does


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
    contents, at = np.empty(size, dtype=np.uint8), 0
    with open(file, "rb", buffering=0, closefd=False) as raw:
        while at < size and (read := raw.readinto(contents[at:].data)):
            at += read
    contents[at:] = 0
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
