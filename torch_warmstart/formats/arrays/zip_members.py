"""Members of a zip file as byte sources of their own.

Python's `zipfile` reads the directory. A member that is stored is a window onto the file, so it is
mapped, or fetched range by range, as the file itself is. A compressed one has to be read whole.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np

from torch_warmstart.errors import CorruptCheckpointError, UnsupportedError
from torch_warmstart.formats.sources import SourceFile, Window
from torch_warmstart.storage import ZIP, Bytes, ByteSource, Guard, Ranges, check_range

_LOCAL_HEADER_SIZE = 30  # and behind it the name and the extra field, whose sizes end it
_ENCRYPTED = 0x1
MAX_RATIO = 1_100  # deflate's best is 1032 to 1: more is a bomb
_CHUNK = 16 << 20
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError)


class Unpacked:
    """A compressed member, in memory."""

    max_gap: int | None = None

    def __init__(self, url: str, data: Bytes) -> None:
        self.url: str = url
        self.size: int = len(data)
        self._data = data

    def read(self, offset: int, length: int) -> Bytes:
        check_range(self, offset, length)
        return self._data[offset : offset + length]

    def prefetch(self, ranges: Ranges) -> None:
        pass  # it is all here

    view = read

    def pieces(self, offset: int, length: int) -> Iterator[Bytes]:
        return iter([self.read(offset, length)])

    def close(self) -> None:
        pass


class ZipMembers:
    """The directory of a zip file."""

    def __init__(self, source: ByteSource) -> None:
        """Reads the directory; raises CorruptCheckpointError or UnsupportedError."""
        self._source = source
        self._guard = Guard()  # for the archive, which has one position in its file
        try:
            self._archive = zipfile.ZipFile(SourceFile(source))
        except _BROKEN_ZIP as error:
            raise self._corrupt(f"it is not a complete zip file: {error}") from error
        self.infos: dict[str, zipfile.ZipInfo] = {}
        for info in self._archive.infolist():
            self._check(info)
            self.infos[info.filename] = info

    def _check(self, info: zipfile.ZipInfo) -> None:
        name = info.filename
        if name in self.infos:  # which of them is meant depends on who reads the file
            raise self._corrupt(f"two members are called {name!r}")
        if info.flag_bits & _ENCRYPTED:
            raise UnsupportedError(f"{self._source.url}: member {name!r} is encrypted.")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnsupportedError(
                f"{self._source.url}: member {name!r} is compressed by method "
                f"{info.compress_type}; only deflate is read."
            )
        stored = info.compress_type == zipfile.ZIP_STORED
        if info.compress_size > self._source.size or (
            info.file_size != info.compress_size
            if stored
            else info.file_size > info.compress_size * MAX_RATIO
        ):
            raise self._corrupt(
                f"member {name!r} claims {info.file_size:,} bytes in {info.compress_size:,}"
            )

    def prefetch_heads(self, names: Sequence[str], size: int) -> None:
        """Fetches the first bytes of members together."""
        starts = [self.infos[name].header_offset for name in names]
        ends = [min(self._source.size, s + _LOCAL_HEADER_SIZE + size) for s in starts]
        self._source.prefetch([r for r in zip(starts, ends, strict=True) if r[0] < r[1]])

    def head(self, name: str, size: int) -> bytes:
        """The first bytes of a member, fewer if it is shorter."""
        if self.is_stored(name):
            window = self._window(self.infos[name])
            return window.read(0, min(size, window.size)).tobytes()
        with self._guard, self._open(name) as file:
            return self._read_packed(name, file, size)

    def is_stored(self, name: str) -> bool:
        return self.infos[name].compress_type == zipfile.ZIP_STORED

    def open(self, name: str) -> ByteSource:
        """A member as a byte source; a compressed one is read whole, and checked."""
        info = self.infos[name]
        if self.is_stored(name):
            return self._window(info)
        end = info.header_offset + _LOCAL_HEADER_SIZE + len(info.filename) + info.compress_size
        self._source.prefetch([(info.header_offset, min(end, self._source.size))])
        with self._guard, self._open(name) as file:
            data = self._read_packed(name, file, info.file_size)
            if len(data) != info.file_size or file.read(1):
                raise self._corrupt(f"member {name!r} does not have the size it claims")
        return Unpacked(f"{self._source.url}[{name}]", np.frombuffer(bytearray(data), np.uint8))

    def verify(self, name: str) -> None:
        """Checks a stored member against its CRC-32; compressed ones are checked when read."""
        if not self.is_stored(name):
            return
        info, crc = self.infos[name], 0
        window = self._window(info)
        for start in range(0, window.size, _CHUNK):
            for piece in window.pieces(start, min(_CHUNK, window.size - start)):
                crc = zlib.crc32(piece.data, crc)
        if crc != info.CRC:
            raise self._corrupt(
                f"member {name!r} is damaged: its checksum is {info.CRC:#010x} in the directory, "
                f"{crc:#010x} computed over {window.size:,} bytes"
            )

    def _window(self, info: zipfile.ZipInfo) -> Window:
        header = self._source.read(info.header_offset, _LOCAL_HEADER_SIZE).tobytes()
        if header[:4] != ZIP:
            raise self._corrupt(f"member {info.filename!r} is not where the directory says")
        behind = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        offset = info.header_offset + _LOCAL_HEADER_SIZE + behind
        check_range(self._source, offset, info.file_size)
        return Window(self._source, offset, info.file_size, info.filename)

    def _open(self, name: str) -> IO[bytes]:
        try:
            return self._archive.open(name)
        except _BROKEN_ZIP as error:
            raise self._corrupt(f"member {name!r} cannot be read: {error}") from error

    def _read_packed(self, name: str, file: IO[bytes], size: int) -> bytes:
        try:
            return file.read(size)
        except _BROKEN_ZIP as error:
            raise self._corrupt(f"member {name!r} cannot be read: {error}") from error

    def _corrupt(self, fact: str) -> CorruptCheckpointError:
        return CorruptCheckpointError(f"{self._source.url}: {fact}.")
