"""The one door for bytes: a URL becomes bytes, and nothing here knows what they mean.

Local files are memory-mapped. A file behind a URL (`scheme://`) is mirrored: the ranges that are
asked for are fetched, many at a time, into a sparse temporary file, which is mapped in turn. So
both kinds hand out views, nothing is fetched twice, and what nobody asks for is never touched.

Paths are plain `str`, because `pathlib.Path` collapses `gs://`. A local mapping is private (copy on
write): a tensor made on top of it may be written to by its owner, and the file never changes.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from torch_warmstart.errors import (
    CorruptCheckpointError,
    MissingDependencyError,
    SettingsError,
    StorageError,
    WarmStartError,
)
from torch_warmstart.storage.ranges import (
    NO_RANGES,
    Range,
    Ranges,
    batches,
    covers,
    subtract,
    union,
)

Bytes = npt.NDArray[np.uint8]  # a flat view; numpy because it may sit on a mapping at any offset

# Without MAP_NORESERVE Linux refuses a private mapping larger than memory. The name is in Python's
# mmap only from 3.13 on; the value is asm-generic's, shared by x86 and arm.
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)

_PIECE = 8 << 20  # bytes of one request; several run at a time
_MAX_BYTES_IN_FLIGHT = 128 << 20  # fetched but not yet in the mirror
_MAX_REQUESTS = 1024  # of one batch
MAX_GAP = 64 << 10  # bytes fetched for nothing rather than asked for in a request of their own
_EXTRAS = {
    "gs": "gcs",
    "gcs": "gcs",
    "s3": "s3",
    "s3a": "s3",
    "hf": "hf",
    "http": "http",
    "https": "http",
}  # what to install for a scheme: torch-warmstart[...]


class Filesystem(Protocol):
    """What is needed of a remote filesystem; fsspec's have these methods."""

    def size(self, path: str) -> int | None: ...
    def isfile(self, path: str) -> bool: ...
    def isdir(self, path: str) -> bool: ...
    def ls(self, path: str, detail: bool) -> list[str]: ...
    def cat_ranges(
        self, paths: list[str], starts: list[int], ends: list[int]
    ) -> Sequence[bytes | Exception]: ...


class ByteSource(Protocol):
    """A file of known size from which ranges are read."""

    url: str
    size: int  # bytes
    max_gap: int | None  # bytes better fetched than skipped; None: nothing needs to be fetched

    def read(self, offset: int, length: int) -> Bytes:
        """Bytes `[offset, offset + length)`; CorruptCheckpointError if they are not there."""
        ...

    def prefetch(self, ranges: Ranges) -> None:
        """Fetches ranges together that will be read one by one."""
        ...

    def view(self, offset: int, length: int) -> Bytes:
        """As `read`, but of bytes that were prefetched; others may come as zeros."""
        ...

    def close(self) -> None: ...


class LocalFile:
    """A local file, mapped into memory on first use. Views outlive `close()`."""

    max_gap: int | None = None

    def __init__(self, url: str) -> None:
        self.url = url
        self.size = os.stat(url).st_size
        self._mapping: Bytes | None = None

    def read(self, offset: int, length: int) -> Bytes:
        check_range(self, offset, length)
        if self._mapping is None:
            self._mapping = _map_file(self.url, self.size)
        return self._mapping[offset : offset + length]

    def prefetch(self, ranges: Ranges) -> None:
        pass  # the operating system reads ahead

    view = read

    def close(self) -> None:
        self._mapping = None  # the mapping itself goes when its last view does


class RemoteFile:
    """A file behind a URL, mirrored range by range."""

    def __init__(self, url: str, filesystem: Filesystem, path: str, max_gap: int) -> None:
        self.url = url
        self.size = _size_of(url, filesystem, path)
        self._filesystem, self._path = filesystem, path
        self.max_gap: int | None = max_gap
        self._mirror: _Mirror | None = None
        self._present = NO_RANGES

    def read(self, offset: int, length: int) -> Bytes:
        check_range(self, offset, length)
        if not covers(self._present, offset, offset + length):
            self.prefetch([(offset, offset + length)])
        return self.view(offset, length)

    def view(self, offset: int, length: int) -> Bytes:
        check_range(self, offset, length)
        return self._opened().mapping[offset : offset + length]

    def prefetch(self, ranges: Ranges) -> None:
        joined = union(subtract(ranges, self._present), self.max_gap or 0)
        # What is there stays as it is, in a gap too: the owner of a tensor may have written to it.
        missing = subtract(joined, self._present)
        for batch in batches(missing, _PIECE, _MAX_BYTES_IN_FLIGHT, _MAX_REQUESTS):
            self._fetch(batch)
        self._present = union(np.concatenate([self._present, missing]))

    def _fetch(self, batch: list[Range]) -> None:
        starts, stops = [start for start, _ in batch], [stop for _, stop in batch]
        with _reaching(self.url):
            fetched = self._filesystem.cat_ranges([self._path] * len(batch), starts, stops)
            for data in fetched:
                if isinstance(data, Exception):
                    raise data
        mirror = self._opened()
        for wanted, data in zip(batch, fetched, strict=True):
            assert not isinstance(data, Exception)
            self._check_length(wanted, len(data))
            mirror.write(wanted[0], data)

    def _check_length(self, wanted: Range, got: int) -> None:
        start, stop = wanted
        if got == stop - start:
            return
        why = "Has the file been replaced meanwhile?"
        if got == self.size:
            why = "That is the whole file: its server does not serve ranges. Copy the file first."
        raise CorruptCheckpointError(
            f"{self.url}: asked for {stop - start:,} bytes at offset {start:,}, got {got:,}. {why}"
        )

    def _opened(self) -> _Mirror:
        if self._mirror is None:
            self._mirror = _Mirror(self.size)
        return self._mirror

    def close(self) -> None:
        self._mirror, self._present = None, NO_RANGES


class _Mirror:
    """A mapped temporary file that goes with its last view; only what is written takes room."""

    def __init__(self, size: int) -> None:
        self._file = tempfile.TemporaryFile(prefix="torch_warmstart_")  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._file.truncate(size)
        self.mapping = np.empty(0, dtype=np.uint8)  # an empty file cannot be mapped
        if size:
            self.mapping = np.frombuffer(mmap.mmap(self._file.fileno(), size), dtype=np.uint8)

    def write(self, offset: int, data: bytes) -> None:
        """Raises StorageError if the disk is full: through the mapping, that ends the process."""
        if not hasattr(os, "pwrite"):  # Windows, which has set the room aside
            self.mapping[offset : offset + len(data)] = np.frombuffer(data, dtype=np.uint8)
            return
        left = memoryview(data)
        try:
            while left:
                left = left[os.pwrite(self._file.fileno(), left, offset + len(data) - len(left)) :]
        except OSError as error:
            raise StorageError(
                f"What is fetched cannot be kept in {tempfile.gettempdir()}: {error.strerror}. Set "
                "TMPDIR to a directory with more room."
            ) from error


@dataclass(frozen=True)
class Storage:
    """Where files come from, and with which options.

    Args:
        options: Passed to fsspec's filesystem: credentials, endpoints, timeouts, ...
        filesystem: "fsspec"; "gfile" for TensorFlow's own filesystems (`tf.io.gfile`, with
            tensorflow-io-gcs-filesystem for `gs://`); "auto" takes fsspec, and TensorFlow's only
            for `gs://` where gcsfs is not installed and TensorFlow is.
        max_gap: Bytes that are rather fetched for nothing than left out between two ranges.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    filesystem: Literal["auto", "fsspec", "gfile"] = "auto"
    max_gap: int = MAX_GAP

    def __post_init__(self) -> None:
        if self.filesystem not in ("auto", "fsspec", "gfile"):
            raise SettingsError(
                f"filesystem is 'auto', 'fsspec' or 'gfile', not {self.filesystem!r}."
            )
        if isinstance(self.max_gap, bool) or not isinstance(self.max_gap, int) or self.max_gap < 0:
            raise SettingsError(f"max_gap is a number of bytes, at least 0, not {self.max_gap!r}.")

    def open(self, url: str) -> ByteSource:
        """Opens a file; raises FileNotFoundError if there is none."""
        if self._is_local(url):
            return LocalFile(url)
        filesystem, path = self._connect(url)
        return RemoteFile(url, filesystem, path, self.max_gap)

    def read_all(self, url: str) -> Bytes:
        """The whole of a file; local ones are mapped, not copied."""
        source = self.open(url)
        try:
            return source.read(0, source.size)
        finally:
            source.close()

    def exists(self, url: str) -> bool:
        """True if `url` is a file."""
        if self._is_local(url):
            return os.path.isfile(url)
        filesystem, path = self._connect(url)
        with _reaching(url):
            return bool(filesystem.isfile(path))

    def is_directory(self, url: str) -> bool:
        """True if `url` is a directory, or on an object store, a prefix with something in it."""
        if self._is_local(url):
            return os.path.isdir(url)
        filesystem, path = self._connect(url)
        return _is_directory(filesystem, path)

    def list_directory(self, url: str) -> list[str]:
        """Names (not paths) of what is directly in a directory, sorted; empty if there is none."""
        if self._is_local(url):
            try:
                return sorted(os.listdir(url))
            except (FileNotFoundError, NotADirectoryError):
                return []
        filesystem, path = self._connect(url)
        if not _is_directory(filesystem, path):
            return []
        with _reaching(url):
            listed = filesystem.ls(path, detail=False)
        return sorted(str(inside).rstrip("/").rsplit("/", 1)[-1] for inside in listed)

    def _is_local(self, url: str) -> bool:
        return not is_remote(url) and self.filesystem != "gfile"

    def _connect(self, url: str) -> tuple[Filesystem, str]:
        if self._uses_gfile(url):
            from torch_warmstart.storage.gfile import GfileFilesystem

            return GfileFilesystem(), url
        import fsspec.core  # only for remote files: it costs about 30 ms

        with _reaching(url):
            try:
                filesystem, path = fsspec.core.url_to_fs(url, **self.options)
            except ImportError as error:
                raise MissingDependencyError(_how_to_install(url, error)) from error
            except ValueError as error:  # "Protocol not known"
                raise SettingsError(f"Reading {url}: {error}") from error
            return filesystem, path

    def _uses_gfile(self, url: str) -> bool:
        if self.filesystem != "auto":
            return self.filesystem == "gfile"
        if not url.startswith("gs://"):
            return False
        from importlib.util import find_spec

        return find_spec("gcsfs") is None and find_spec("tensorflow") is not None


LOCAL = Storage()  # what a path needs that says nothing else


def join(directory: str, name: str) -> str:
    """A path in a directory; an absolute `name` or a URL stands for itself."""
    if is_remote(name) or os.path.isabs(name):
        return name
    if is_remote(directory):
        return directory.rstrip("/") + "/" + name
    return os.path.join(directory, name)


def join_sibling(directory: str, name: str) -> str:
    """A file that another file names, which must be in the same directory or below it."""
    parts = name.replace("\\", "/").split("/")
    if not name or is_remote(name) or os.path.isabs(name) or ".." in parts or "" in parts:
        raise CorruptCheckpointError(
            f"{directory}: a file of the checkpoint is named {name!r}, which is not in its "
            "directory."
        )
    return join(directory, name)


@contextmanager
def named_by(index: str, url: str) -> Iterator[None]:
    """Around opening a file that an index names: if it is not there, the checkpoint is damaged."""
    try:
        yield
    except FileNotFoundError as error:
        raise CorruptCheckpointError(
            f"{index} says that tensors are in {url}, which does not exist. Copy all files of a "
            "checkpoint together."
        ) from error


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


def is_signed(url: str) -> bool:
    """True for a web address with a query, which stands for one file: no name can be appended."""
    return url.startswith(("http://", "https://")) and "?" in url


def check_range(source: ByteSource, offset: int, length: int) -> None:
    """Raises CorruptCheckpointError unless the range lies within the file."""
    if offset < 0 or length < 0 or offset + length > source.size:
        raise CorruptCheckpointError(
            f"{source.url}: {length:,} bytes at offset {offset:,} are needed, but the file has "
            f"{source.size:,} bytes. It is truncated, or its index belongs to another file."
        )


def _is_directory(filesystem: Filesystem, path: str) -> bool:
    try:
        return bool(filesystem.isdir(path))
    except Exception:  # nothing to list: not over http, not with these rights, not there
        return False


def _size_of(url: str, filesystem: Filesystem, path: str) -> int:
    with _reaching(url):
        size = filesystem.size(path)
    if size is None:
        raise StorageError(f"{url} cannot be read: its server does not tell how long it is.")
    return int(size)


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Names the file: filesystems raise errors of many kinds, and few of them say where."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no such file: {url}") from error
    except (ImportError, WarmStartError):
        raise
    except Exception as error:
        raise StorageError(f"{url} cannot be read: {type(error).__name__}: {error}") from error


def _how_to_install(url: str, error: ImportError) -> str:
    extra = _EXTRAS.get(url.partition("://")[0])
    if extra is None:  # a chain of schemes, or a rare one: fsspec's own text names the package
        return f"Reading {url}: {error}"
    return f"Reading {url} needs another package: pip install 'torch-warmstart[{extra}]' ({error})"


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
