"""Byte sources seen otherwise: part of one as a source of its own, one as a Python file."""

from __future__ import annotations

import io
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, Protocol, TypeVar

from torch_warmstart.storage import Bytes, ByteSource, Guard, Ranges, check_range, shifted


class Closable(Protocol):
    """A file, or what has files."""

    def close(self) -> None: ...


Opened = TypeVar("Opened", bound=Closable)


class OpenOnce(Generic[Opened]):
    """The files of a checkpoint, each opened when it is first needed, whichever thread asks."""

    def __init__(self) -> None:
        self._guard = Guard()
        self._opened: dict[Hashable, Opened] = {}

    def get(self, name: Hashable, open_it: Callable[[], Opened]) -> Opened:
        """The file of a name."""
        with self._guard:
            if name not in self._opened:
                self._opened[name] = open_it()
            return self._opened[name]

    def close(self) -> None:
        """Closes them all; one that is asked for again is opened anew."""
        with self._guard:
            opened, self._opened = self._opened, {}
        for file in opened.values():
            file.close()


class Window:
    """Part of a byte source."""

    def __init__(self, source: ByteSource, offset: int, size: int, name: str) -> None:
        self.url: str = f"{source.url}[{name}]"
        self.size: int = size
        self.max_gap: int | None = source.max_gap
        self.offset: int = offset
        self._source = source

    def read(self, offset: int, length: int) -> Bytes:
        check_range(self, offset, length)
        return self._source.read(self.offset + offset, length)

    def view(self, offset: int, length: int) -> Bytes:
        check_range(self, offset, length)
        return self._source.view(self.offset + offset, length)

    def pieces(self, offset: int, length: int) -> Iterator[Bytes]:
        check_range(self, offset, length)
        return self._source.pieces(self.offset + offset, length)

    def prefetch(self, ranges: Ranges) -> None:
        self._source.prefetch(shifted(ranges, self.offset))

    def close(self) -> None:
        self._source.close()


class SourceFile(io.RawIOBase):
    """A byte source as a Python file, for libraries that want one; they fetch what they read."""

    def __init__(self, source: ByteSource) -> None:
        self._source, self._at = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        if start + offset < 0:
            raise ValueError(f"negative seek position {start + offset}")
        self._at = start + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        return self._take(-1 if size is None else size).tobytes()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._take(len(buffer))
        buffer[: len(data)] = data.data
        return len(data)

    def _take(self, size: int) -> Bytes:
        left = max(0, self._source.size - self._at)
        length = left if size < 0 else min(size, left)
        data = self._source.read(self._at, length)
        self._at += length
        return data
