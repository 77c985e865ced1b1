"""What a path points at, looked at once: the formats' sniffers all ask the same few questions."""

from __future__ import annotations

import functools
import io
import zipfile

from torch_warmstart.errors import CheckpointNotFoundError
from torch_warmstart.formats.tensorflow import paths
from torch_warmstart.storage import Bytes, ByteSource, Storage

# Bytes fetched at once, because several readers will look at a few of them each.
_HEAD = 1 << 10
_ZIP_TAIL = 16 << 10


class Place:
    """A path, and what is there. Nothing is asked of the filesystem twice."""

    def __init__(
        self, url: str, storage: Storage, *, verify: bool = True, entry: str | None = None
    ) -> None:
        self.url, self.storage = url, storage
        # For those who open it: check checksums; which mapping of a nested container is meant.
        self.verify, self.entry = verify, entry

    @functools.cached_property
    def is_file(self) -> bool:
        return self.storage.exists(self.url)

    @functools.cached_property
    def is_directory(self) -> bool:
        return not self.is_file and self.storage.is_directory(self.url)

    @functools.cached_property
    def names(self) -> list[str]:
        """What is in a directory."""
        return self.storage.list_directory(self.url) if self.is_directory else []

    @functools.cached_property
    def source(self) -> ByteSource:
        """The file, opened."""
        return self.storage.open(self.url)

    @functools.cached_property
    def tensorflow(self) -> paths.Found | None:
        """The TensorFlow checkpoint that the path stands for."""
        try:
            return paths.find(self.url, self.storage)
        except CheckpointNotFoundError:
            return None

    def head(self, size: int) -> bytes:
        """The first bytes of a file, fewer if it is shorter; empty if it is none."""
        if not self.is_file:
            return b""
        there = self.source.read(0, min(max(size, _HEAD), self.source.size))
        return there[:size].tobytes()

    @functools.cached_property
    def zip_names(self) -> tuple[str, ...]:
        """The names of a zip file's members; empty if it is none."""
        if self.head(4) != b"PK\x03\x04":
            return ()
        size = self.source.size
        self.source.prefetch([(max(0, size - _ZIP_TAIL), size)])
        try:
            with zipfile.ZipFile(SourceFile(self.source)) as archive:
                return tuple(archive.namelist())
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            return ()

    def close(self) -> None:
        """Lets go of the file, if it was opened."""
        if "source" in self.__dict__:
            self.source.close()


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
