"""The one door for bytes: a URL becomes bytes, and nothing here knows what they mean.

Local files are memory-mapped; whatever is spelled with `://` goes through fsspec, which is imported
only then. Paths are plain `str`, because `pathlib.Path` collapses `gs://`.

A mapping is private (copy on write): a tensor made on top of it may be written to by its owner, the
file never changes, and pages nobody needs are never read.
"""

from __future__ import annotations

import mmap
import os
import sys
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from torch_warmstart.errors import CorruptCheckpointError, MissingDependencyError, SettingsError

Bytes = npt.NDArray[np.uint8]  # a flat view; numpy because it may sit on a mapping at any offset

# Without MAP_NORESERVE Linux refuses a private mapping larger than memory. The name is in Python's
# mmap only from 3.13 on; the value is asm-generic's, shared by x86 and arm.
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


class ByteSource(Protocol):
    """A file of known size from which ranges are read."""

    url: str
    size: int  # bytes

    def read(self, offset: int, length: int) -> Bytes:
        """Bytes `[offset, offset + length)`; CorruptCheckpointError if they are not there."""
        ...

    def close(self) -> None: ...


class LocalFile:
    """A local file, mapped into memory on first use. Views outlive `close()`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.size = os.stat(url).st_size
        self._mapping: Bytes | None = None

    def read(self, offset: int, length: int) -> Bytes:
        check_range(self, offset, length)
        if self._mapping is None:
            self._mapping = _map_file(self.url, self.size)
        return self._mapping[offset : offset + length]

    def close(self) -> None:
        self._mapping = None  # the mapping itself goes when its last view does


class RemoteFile:
    """A file behind fsspec; every read is one ranged request."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._filesystem, self._path = _filesystem(url)
        self.size = int(self._filesystem.size(self._path))

    def read(self, offset: int, length: int) -> Bytes:
        check_range(self, offset, length)
        data = self._filesystem.cat_file(self._path, start=offset, end=offset + length)
        if len(data) != length:
            raise CorruptCheckpointError(
                f"{self.url}: asked for {length:,} bytes at offset {offset:,}, got {len(data):,}."
            )
        return np.frombuffer(bytearray(data), dtype=np.uint8)  # bytearray: writable, as a mapping

    def close(self) -> None:
        pass


def open_source(url: str) -> ByteSource:
    """Opens a file; raises FileNotFoundError if there is none."""
    return RemoteFile(url) if is_remote(url) else LocalFile(url)


def read_all(url: str) -> Bytes:
    """The whole of a file; local ones are mapped, not copied."""
    source = open_source(url)
    try:
        return source.read(0, source.size)
    finally:
        source.close()


def exists(url: str) -> bool:
    """True if `url` is a file."""
    if is_remote(url):
        filesystem, path = _filesystem(url)
        return bool(filesystem.isfile(path))
    return os.path.isfile(url)


def is_directory(url: str) -> bool:
    """True if `url` is a directory, or on an object store, a prefix with something in it."""
    if is_remote(url):
        filesystem, path = _filesystem(url)
        return bool(filesystem.isdir(path))
    return os.path.isdir(url)


def list_directory(url: str) -> list[str]:
    """Names (not paths) of what is directly in a directory, sorted; empty if there is none."""
    if is_remote(url):
        filesystem, path = _filesystem(url)
        if not filesystem.isdir(path):
            return []
        return sorted(
            str(p).rstrip("/").rsplit("/", 1)[-1] for p in filesystem.ls(path, detail=False)
        )
    try:
        return sorted(os.listdir(url))
    except (FileNotFoundError, NotADirectoryError):
        return []


def join(directory: str, name: str) -> str:
    """A path in a directory; an absolute `name` or a URL stands for itself."""
    if is_remote(name) or os.path.isabs(name):
        return name
    if is_remote(directory):
        return directory.rstrip("/") + "/" + name
    return os.path.join(directory, name)


def parent(url: str) -> str:
    """The directory a path is in (`.` for a bare name)."""
    if is_remote(url):
        return url.rstrip("/").rsplit("/", 1)[0]
    return os.path.dirname(url) or "."


def base_name(url: str) -> str:
    """The last part of a path."""
    return url.rstrip("/").rsplit("/", 1)[-1] if is_remote(url) else os.path.basename(url)


def is_remote(url: str) -> bool:
    """True for `scheme://...`."""
    return "://" in url


def check_range(source: ByteSource, offset: int, length: int) -> None:
    """Raises CorruptCheckpointError unless the range lies within the file."""
    if offset < 0 or length < 0 or offset + length > source.size:
        raise CorruptCheckpointError(
            f"{source.url}: {length:,} bytes at offset {offset:,} are needed, but the file has "
            f"{source.size:,} bytes. It is truncated, or its index belongs to another file."
        )


def _map_file(path: str, size: int) -> Bytes:
    if size == 0:
        return np.empty(0, dtype=np.uint8)  # an empty file cannot be mapped
    with open(path, "rb") as file:
        if sys.platform == "win32":
            mapping = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
        else:
            flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
            protection = mmap.PROT_READ | mmap.PROT_WRITE
            mapping = mmap.mmap(file.fileno(), size, flags=flags, prot=protection)
    return np.frombuffer(mapping, dtype=np.uint8)


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec.core  # only for remote files: it costs about 30 ms

    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:  # fsspec's own text names the package that serves the scheme
        raise MissingDependencyError(f"Reading {url}: {error}") from error
    except ValueError as error:  # "Protocol not known"
        raise SettingsError(f"Reading {url}: {error}") from error
    return filesystem, path
