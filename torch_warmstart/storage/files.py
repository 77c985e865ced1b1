"""Files as byte sources, and those behind a URL: mirrored range by range.

The ranges that are asked for are fetched, many at a time, into a sparse temporary file, which is
mapped. So it hands out views as a local file does, nothing is fetched twice, and what nobody asks
for is never touched.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import numpy as np

from torch_warmstart.errors import CorruptCheckpointError, StorageError, WarmStartError, as_sentence
from torch_warmstart.storage.guards import Guard
from torch_warmstart.storage.ranges import (
    NO_RANGES,
    NoRangesError,
    Range,
    RangeArray,
    Ranges,
    as_array,
    batches,
    covers,
    subtract,
    union,
    within,
)

Version = tuple[tuple[str, str], ...]
_File = tuple[str, int, Version]  # where, how long, and which of those that have been there
# A flat view; numpy because it may sit on a mapping at any offset.
Bytes = np.ndarray[tuple[Any, ...], np.dtype[np.uint8]]

_PIECE = 8 << 20  # bytes of one request; several run at a time
_MAX_BYTES_IN_FLIGHT = 128 << 20  # fetched but not yet in the mirror
# What fsspec's filesystems call the version of a file, or when it changed.
_VERSIONS = ("ETag", "etag", "generation", "Last-Modified", "LastModified", "mtime", "created")
_MAX_REQUESTS = 1024  # of one batch


class Filesystem(Protocol):
    """What is needed of a remote filesystem; fsspec's have these methods."""

    def info(self, path: str) -> Mapping[str, Any]: ...
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
        """As `read`, but of bytes that were prefetched; others may come as zeros.

        It is no copy, so a local file that nobody leases must not be cut while it is looked at.
        """
        ...

    def pieces(self, offset: int, length: int) -> Iterator[Bytes]:
        """What `read` gives, in pieces to be looked at once each; safe whatever is cut."""
        ...

    def close(self) -> None: ...


class Mirrors:
    """Where copies of remote files lie, and how much room they may take together."""

    def __init__(self, directory: str | None = None, limit: int | None = None) -> None:
        self.directory = directory
        self._limit, self._taken = limit, 0
        self._guard = Guard()
        self._kept: list[dict[_File, _Mirror]] = []  # of each opening that goes on

    def copy_of(self, file: _File) -> _Mirror:
        """A copy of a file: while a checkpoint is opened, the one that there is already.

        Only then, as not every server tells a file from the one that takes its place.
        """
        with self._guard:
            known = next((kept[file] for kept in self._kept if file in kept), None)
            copy = known or _Mirror(file[0], file[1], self)
            for kept in self._kept:
                kept[file] = copy
            return copy

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Around opening a checkpoint: copies are kept, though their files are closed."""
        copies: dict[_File, _Mirror] = {}
        with self._guard:
            self._kept.append(copies)
        try:
            yield
        finally:
            with self._guard:
                self._kept = [kept for kept in self._kept if kept is not copies]

    def __reduce__(self) -> tuple[Any, ...]:
        return Mirrors, (self.directory, self._limit)  # a copy keeps copies of its own

    def take(self, count: int, url: str) -> None:
        """Asks for room; raises StorageError where there is no more."""
        with self._guard:
            if self._limit is not None and self._taken + count > self._limit:
                raise StorageError(
                    f"{url}: {count:,} more bytes are needed of it, and of mirror_limit="
                    f"{self._limit:,} bytes {self._taken:,} are in use. Set mirror_limit higher, "
                    "or take less of the checkpoint."
                )
            self._taken += count

    def give_back(self, count: int) -> None:
        """Of what a copy had that is gone."""
        with self._guard:
            self._taken -= count


class RemoteFile:
    """A file behind a URL, mirrored range by range.

    Threads may share it. One that wants what another is fetching waits for it. Whoever reads while
    the file is closed goes on with the mirror that he has begun with.
    """

    def __init__(
        self, url: str, filesystem: Filesystem, path: str, max_gap: int, mirrors: Mirrors
    ) -> None:
        self.url: str = url
        self.size: int
        self._mirrors = mirrors
        self.size, self._version = _size_and_version(url, filesystem, path)
        self._filesystem, self._path = filesystem, path
        self.max_gap: int | None = max_gap
        self._guard = Guard()
        self._mirror: _Mirror | None = None
        self._pid = os.getpid()
        self._serves_ranges = True  # as far as is known

    def read(self, offset: int, length: int) -> Bytes:
        check_range(self, offset, length)
        mirror = self._opened()
        if not covers(mirror.present, offset, offset + length):
            self._fetch_into(mirror, [(offset, offset + length)])
        return mirror.mapping[offset : offset + length]

    def view(self, offset: int, length: int) -> Bytes:
        check_range(self, offset, length)
        return self._opened().mapping[offset : offset + length]

    def pieces(self, offset: int, length: int) -> Iterator[Bytes]:
        return iter([self.read(offset, length)])

    def prefetch(self, ranges: Ranges) -> None:
        self._fetch_into(self._opened(), ranges)

    def _fetch_into(self, mirror: _Mirror, ranges: Ranges) -> None:
        joined = union(subtract(ranges, mirror.present), self.max_gap or 0)
        while mirror.lacks(joined):
            fetch = self._fetch_parts if self._serves_ranges else self._fetch_whole
            taken = mirror.take(joined if self._serves_ranges else as_array([(0, self.size)]))
            try:
                with mirror.room_for(taken):
                    fetch(mirror, taken)
            except NoRangesError:
                self._serves_ranges = False
            finally:
                mirror.give_back(taken)

    def _fetch_parts(self, mirror: _Mirror, taken: RangeArray) -> None:
        for batch in batches(taken, _PIECE, _MAX_BYTES_IN_FLIGHT, _MAX_REQUESTS):
            mirror.write(zip(batch, self._fetch(batch), strict=True))

    def _fetch(self, batch: list[Range]) -> list[bytes]:
        self._check_process()
        starts, stops = [start for start, _ in batch], [stop for _, stop in batch]
        with reaching(self.url), _one_at_a_time(self._filesystem):
            answers = self._filesystem.cat_ranges([self._path] * len(batch), starts, stops)
            fetched = list(map(_as_bytes, answers))
            if len(fetched) != len(batch):
                raise ValueError(f"{len(batch)} ranges were asked for, {len(fetched)} came")
        for wanted, data in zip(batch, fetched, strict=True):
            self._check_length(wanted, len(data))
        self._check_version()
        return fetched

    def _fetch_whole(self, mirror: _Mirror, taken: RangeArray) -> None:
        """All of it in one answer, of a server that has no other."""
        if not len(taken):  # others are at it
            return
        self._check_process()
        answer = _Answer(self.url, self.size, mirror, taken)
        filesystem: Any = self._filesystem  # fsspec's: gfile serves ranges
        with reaching(self.url), _one_at_a_time(filesystem):
            filesystem.get_file(self._path, answer)
        answer.check_whole()
        self._check_version()
        mirror.say_present(taken)

    def _check_process(self) -> None:
        """An event loop and its connections stay behind when a process forks."""
        if _is_concurrent(self._filesystem) and self._pid != os.getpid():
            raise StorageError(
                f"{self.url} was opened before this process was forked off, so that its connection "
                "is another process's. Open the checkpoint in the process that reads it."
            )

    def _check_version(self) -> None:
        """Behind what was fetched: if the file is still the one that was opened, that was, too."""
        if not self._version:
            return
        if _size_and_version(self.url, self._filesystem, self._path) != (self.size, self._version):
            raise _replaced(self.url)

    def _check_length(self, wanted: Range, got: int) -> None:
        start, stop = wanted
        if got == stop - start:
            return
        if got == self.size:
            raise NoRangesError(self.url)
        raise CorruptCheckpointError(
            f"{self.url}: asked for {stop - start:,} bytes at offset {start:,}, got {got:,}. Has "
            "the file been replaced meanwhile?"
        )

    def _opened(self) -> _Mirror:
        with self._guard:
            if self._mirror is None:
                self._mirror = self._mirrors.copy_of((self.url, self.size, self._version))
            return self._mirror

    def close(self) -> None:
        with self._guard:
            self._mirror = None


class _Answer:
    """Where a filesystem writes a whole file to: what was taken of it goes into the mirror.

    What is there already may be looked at by others. It is not written again, but compared.
    """

    def __init__(self, url: str, size: int, mirror: _Mirror, taken: RangeArray) -> None:
        self._url, self._size, self._mirror = url, size, mirror
        self._taken, self._present = taken, mirror.present
        self._at = 0

    def write(self, data: bytes) -> int:
        start, stop = self._at, self._at + len(data)
        if stop > self._size:
            raise CorruptCheckpointError(
                f"{self._url}: its server answers with more than the {self._size:,} bytes that it "
                "says the file has."
            )
        for begin, end in within(self._present, start, stop):
            if self._mirror.mapping[begin:end].tobytes() != data[begin - start : end - start]:
                raise _replaced(self._url)
        for begin, end in within(self._taken, start, stop):
            self._mirror.put(begin, data[begin - start : end - start])
        self._at = stop
        return len(data)

    def tell(self) -> int:
        return self._at

    def read(self, _: int = -1) -> bytes:  # fsspec takes for a file what has this, too
        raise NotImplementedError

    def close(self) -> None:
        pass

    def check_whole(self) -> None:
        """Raises CorruptCheckpointError if the answer ended before the file does."""
        if self._at != self._size:
            raise CorruptCheckpointError(
                f"{self._url}: its server says that the file has {self._size:,} bytes, and "
                f"answers with {self._at:,}."
            )


def _replaced(url: str) -> CorruptCheckpointError:
    return CorruptCheckpointError(
        f"{url} has been replaced since it was opened. Open the checkpoint again."
    )


class _Mirror:
    """A mapped temporary file that goes with its last view; only what is written takes room.

    The file has no name and is its owner's alone, so nothing is left of it however the process
    ends. A range is `present` once its bytes are there, and `pending` while a thread fetches it.
    """

    def __init__(self, url: str, size: int, mirrors: Mirrors) -> None:
        self._url, self._mirrors, self._room = url, mirrors, [0]
        self._directory = _directory_for(mirrors, url)
        weakref.finalize(self, _give_back, mirrors, self._room)
        self.present: RangeArray = NO_RANGES
        self._pending = NO_RANGES
        self._guard, self._pid = Guard(), os.getpid()
        self.mapping: Bytes = np.empty(0, dtype=np.uint8)  # an empty file cannot be mapped
        try:
            self._file = tempfile.TemporaryFile(  # noqa: SIM115
                prefix="torch_warmstart_", dir=self._directory
            )
            weakref.finalize(self, self._file.close)
            self._file.truncate(size)
            if size:
                self.mapping = np.frombuffer(mmap.mmap(self._file.fileno(), size), dtype=np.uint8)
        except OSError as error:
            raise StorageError(
                f"{url} cannot be read: of what its server says are {size:,} bytes no copy can be "
                f"kept in {self._directory}, or it cannot be mapped: {error}."
            ) from error
        except (OverflowError, ValueError) as error:
            raise StorageError(
                f"{url} cannot be read: its server says that it has {size:,} bytes, which cannot "
                f"be mapped: {error}."
            ) from error

    @contextmanager
    def room_for(self, ranges: RangeArray) -> Iterator[None]:
        """Around fetching something; raises StorageError where it may not be kept."""
        count = _bytes_in(ranges)
        self._mirrors.take(count, self._url)
        self._add_room(count)
        try:
            yield
        finally:
            lacking = _bytes_in(subtract(ranges, self.present))
            self._add_room(-lacking)
            self._mirrors.give_back(lacking)

    def _add_room(self, count: int) -> None:
        with self._guard:
            self._room[0] += count

    def lacks(self, ranges: RangeArray) -> bool:
        """Whether something of the ranges is not there."""
        return len(subtract(ranges, self.present)) > 0

    def take(self, ranges: RangeArray) -> RangeArray:
        """What the calling thread is to fetch of the ranges.

        Empty, after a while, if others were fetching all of it; then it is time to look again.
        """
        with self._guard:
            self._forget_other_process()
            missing = subtract(ranges, self.present)
            mine = subtract(missing, self._pending)
            if len(mine):
                self._pending = union(np.concatenate([self._pending, mine]))
            elif len(missing):
                self._guard.wait()
            return mine

    def _forget_other_process(self) -> None:
        """Those who were fetching when this process was forked off are not in it."""
        if self._pid != os.getpid():
            self._pending, self._pid = NO_RANGES, os.getpid()

    def give_back(self, taken: RangeArray) -> None:
        """Ends what `take` began, whatever came of it."""
        with self._guard:
            self._pending = subtract(self._pending, taken)
            self._guard.wake()

    def write(self, fetched: Iterable[tuple[Range, bytes]]) -> None:
        """Raises StorageError if the disk is full: through the mapping, that ends the process."""
        ranges = []
        for (start, stop), data in fetched:
            self.put(start, data)
            ranges.append((start, stop))
        self.say_present(as_array(ranges))

    def say_present(self, ranges: RangeArray) -> None:
        """That ranges have been put where they belong."""
        with self._guard:
            self.present = union(np.concatenate([self.present, ranges]))
            self._guard.wake()

    def put(self, offset: int, data: bytes) -> None:
        if not hasattr(os, "pwrite"):  # Windows, which has set the room aside
            self.mapping[offset : offset + len(data)] = np.frombuffer(data, dtype=np.uint8)
            return
        left = memoryview(data)
        try:
            while left:
                left = left[os.pwrite(self._file.fileno(), left, offset + len(data) - len(left)) :]
        except OSError as error:
            raise StorageError(
                f"What is fetched cannot be kept in {self._directory}: {error.strerror}. Set "
                "mirror_dir to a directory with more room."
            ) from error


def _bytes_in(ranges: RangeArray) -> int:
    return int((ranges[:, 1] - ranges[:, 0]).sum())


def _directory_for(mirrors: Mirrors, url: str) -> str:
    try:
        return mirrors.directory or tempfile.gettempdir()
    except FileNotFoundError as error:  # not of the checkpoint, which may well be there
        why = as_sentence(error.strerror or str(error))
        raise StorageError(
            f"{url} cannot be read, as no copy of it can be kept here: {why} Set mirror_dir to a "
            "directory that may be written into."
        ) from error


def _give_back(mirrors: Mirrors, room: list[int]) -> None:
    mirrors.give_back(room[0])


_ALONE = Guard()


def _one_at_a_time(filesystem: Filesystem) -> AbstractContextManager[None]:
    """Holds others up where a filesystem shares its open files or its connection."""
    return nullcontext() if _is_concurrent(filesystem) else _ALONE


def _is_concurrent(filesystem: Filesystem) -> bool:
    """Whether it runs requests in an event loop, as fsspec says; then it can run them at once."""
    return bool(getattr(filesystem, "async_impl", False))


def check_range(source: ByteSource, offset: int, length: int) -> None:
    """Raises CorruptCheckpointError unless the range lies within the file."""
    if offset < 0 or length < 0 or offset + length > source.size:
        raise CorruptCheckpointError(
            f"{source.url}: {length:,} bytes at offset {offset:,} are needed, but the file has "
            f"{source.size:,} bytes. It is truncated, or its index belongs to another file."
        )


def _as_bytes(answer: object) -> bytes:
    if isinstance(answer, Exception):
        raise answer
    if not isinstance(answer, bytes):
        raise TypeError(f"its filesystem answered with {type(answer).__name__}")
    return answer


def _size_and_version(url: str, filesystem: Filesystem, path: str) -> tuple[int, Version]:
    """How long a file is, and what its filesystem tells its versions apart by, if it does."""
    from torch_warmstart.storage.web import changed_at

    with reaching(url):
        found = filesystem.info(path)
        info = {"Last-Modified": changed_at(path), **found}  # told in the answer to that
        size = info.get("size")
        if size is not None and int(size) < 0:
            raise ValueError(f"its size is {size}")
    if size is None:
        raise StorageError(f"{url} cannot be read: its server does not tell how long it is.")
    return int(size), tuple((name, str(info[name])) for name in _VERSIONS if info.get(name))


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Names the file: filesystems raise errors of many kinds, and few of them say where."""
    try:
        yield
    except FileNotFoundError as error:
        from torch_warmstart.storage.web import is_absence

        if is_absence(error):
            raise FileNotFoundError(f"no such file: {url}") from error
        raise _unreachable(url, error.__cause__ or error) from error
    except (ImportError, WarmStartError):
        raise
    except Exception as error:
        raise _unreachable(url, error) from error


@contextmanager
def of_this_machine(url: str) -> Iterator[None]:
    """Names the file for which the system says no; that there is none stays what it is."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        why = as_sentence(error.strerror or str(error))
        raise StorageError(f"{url} cannot be read: {why}") from error


def _unreachable(url: str, error: BaseException) -> StorageError:
    if isinstance(error, TimeoutError | asyncio.TimeoutError):  # two classes up to Python 3.10
        return StorageError(
            f"{url} cannot be read: a request took longer than its server has time for. "
            "storage_options={'timeout': seconds} sets how much it has on the web."
        )
    return StorageError(f"{url} cannot be read: {type(error).__name__}: {error}")
