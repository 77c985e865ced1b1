"""The one door for bytes: a URL becomes a file, and nothing here knows what its bytes mean."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import field, replace
from typing import Any

from torch_warmstart.errors import (
    CorruptCheckpointError,
    MissingDependencyError,
    SettingsError,
    StorageError,
    UnsupportedError,
    check_choice,
    check_kind,
    check_number_of_bytes,
    path_of,
)
from torch_warmstart.storage.files import (
    Bytes,
    ByteSource,
    Filesystem,
    Mirrors,
    RemoteFile,
    of_this_machine,
    reaching,
)
from torch_warmstart.storage.local import LocalFile
from torch_warmstart.storage.urls import (
    here,
    is_remote,
    is_signed,
    is_web,
    parent,
    stays_below,
)
from torch_warmstart.values import Opener, frozen

MAX_GAP = 64 << 10  # bytes fetched for nothing rather than asked for in a request of their own
_FILE = "file://"
_NO_DIRECTORY = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_EXTRAS = {
    "gs": "gcs",
    "gcs": "gcs",
    "s3": "s3",
    "s3a": "s3",
    "hf": "hf",
    "http": "http",
    "https": "http",
}  # what to install for a scheme: torch-warmstart[...]


@frozen
class _Root:
    """What the user named, on the filesystem that its URL leads to."""

    url: str
    filesystem: Filesystem | None  # None: local
    path: str = ""
    folder: str = ""  # where the process was: relative paths are seen from there for good

    def path_of(self, url: str) -> str:
        """The path of a URL beside or below it, by comparing texts: no parser sees the URL."""
        if not is_remote(self.url) and not is_remote(url):  # TensorFlow's filesystems know paths
            return url
        here, path = self.url.rstrip("/"), self.path.rstrip("/")
        above = parent(self.url)
        rest = url.removeprefix(here)
        if not url.startswith(here):
            asked = path.partition("?")[0] if is_signed(self.url) else path
            rest, path = url.removeprefix(above), asked.rpartition("/")[0]
        beside = url.startswith(here) or url == above or url.startswith(above + "/")
        if beside and ".." not in rest.split("/"):
            return path + rest
        raise CorruptCheckpointError(f"{url} is neither beside nor below {self.url}.")


@frozen(slots=False)
class Storage:
    """Where files come from, and with which options.

    It parses the URL that it is given. So of a checkpoint only the URL that the user wrote may come
    here; `connected` to that, it takes what is beside and below it, and nothing else.

    Args:
        options: Passed to fsspec's filesystem: credentials, endpoints, timeouts, ...
        filesystem: "fsspec"; "gfile" for TensorFlow's own filesystems (`tf.io.gfile`, with
            tensorflow-io-gcs-filesystem for `gs://`); "auto" takes fsspec, and TensorFlow's only
            for `gs://` where gcsfs is not installed and TensorFlow is.
        max_gap: Bytes that are rather fetched for nothing than left out between two ranges.
        mirror_dir: Where copies of what is fetched lie. None: where Python's `tempfile` says.
        mirror_limit: Bytes that these copies may take together. None: as much as there is room.
    """

    options: Mapping[str, Any] | None = None
    filesystem: Opener = "auto"
    max_gap: int = MAX_GAP
    mirror_dir: str | os.PathLike[str] | None = None
    mirror_limit: int | None = None
    _mirrors: Mirrors | None = field(default=None, repr=False, compare=False)
    _root: _Root | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind("storage_options", self.options, Mapping | None, "a mapping for fsspec")
        check_choice("filesystem", self.filesystem, Opener)
        check_number_of_bytes("max_gap", self.max_gap)
        limit, folder = self.mirror_limit, self.mirror_dir
        if limit is not None:
            check_number_of_bytes("mirror_limit", limit)
        if folder is not None and not os.path.isdir(path_of("mirror_dir", folder)):
            raise SettingsError(f"mirror_dir is no directory: {folder}.")
        if self._mirrors is None:
            mirrors = Mirrors(None if folder is None else os.fspath(folder), limit)
            object.__setattr__(self, "_mirrors", mirrors)

    def connected(self, url: str) -> Storage:
        """The same, on the one filesystem that a user's URL leads to."""
        if self._is_local(url):
            return replace(self, _root=_Root(url, None, folder=here()))
        return replace(self, _root=_Root(url, *self._connect(url)))

    def open(self, url: str) -> ByteSource:
        """Opens a file; raises FileNotFoundError if there is none."""
        if self._is_local(url):
            return LocalFile(url, self._path(url))
        filesystem, path = self._connect(url)
        assert self._mirrors is not None
        return RemoteFile(url, filesystem, path, self.max_gap, self._mirrors)

    def kept(self) -> AbstractContextManager[None]:
        """Around opening a checkpoint, whose files are looked at, closed and opened again.

        What has been fetched of them is kept meanwhile, and so fetched once.
        """
        assert self._mirrors is not None
        return self._mirrors.kept()

    @contextmanager
    def named_by(self, index: str, url: str) -> Iterator[None]:
        """Around opening a file that an index names: if it is not there, the checkpoint is damaged.

        Nor may it be a link that leads out of the directory where the index is. Where the index is
        a link itself, as in Hugging Face's cache, the directory to which that leads counts too.
        An `index` that ends with a slash is the directory itself, whose files are told by name.
        Behind a signed address there may be no other files; to one that is only said how to answer
        (`?download=true`) there are.
        """
        if not is_remote(url.removeprefix(_FILE)):
            self._check_link(index, url)
        try:
            yield
        except (FileNotFoundError, StorageError) as error:
            if is_signed(index):
                raise UnsupportedError(
                    f"{index} lists other files, such as {url}, which cannot be read, and a signed "
                    "address is good for one: copy all files of the checkpoint, or open the folder "
                    "with storage_options that are good for all."
                ) from error
            if isinstance(error, StorageError):
                raise
            raise CorruptCheckpointError(
                f"{index} says that tensors are in {url}, which does not exist. Copy all files of "
                "a checkpoint together."
            ) from error

    def _check_link(self, index: str, url: str) -> None:
        path, naming = (self._path(name.removeprefix(_FILE)) for name in (url, index))
        real = os.path.realpath(path)
        homes = [os.path.realpath(naming if index.endswith("/") else parent(naming))]
        if not index.endswith("/"):
            homes.append(parent(os.path.realpath(naming)))
        if not any(real.startswith(home.rstrip(os.sep) + os.sep) for home in homes):
            raise CorruptCheckpointError(
                f"{index} names {url}, a link that leads out of its directory, to {real}. If that "
                "is the file that is meant, copy it there."
            )

    def read_all(self, url: str) -> Bytes:
        """The whole of a file, for whoever keeps it: a local one is copied, not mapped."""
        source = self.open(url)
        try:
            if isinstance(source, LocalFile):
                return source.read_whole()
            return source.read(0, source.size)
        finally:
            source.close()

    def exists(self, url: str) -> bool:
        """True if `url` is a file."""
        if self._is_local(url):
            return os.path.isfile(self._path(url))
        from torch_warmstart.storage.web import is_absence

        try:
            filesystem, path = self._connect(url)
        except FileNotFoundError:  # of a chain, the file within which it would be
            return False
        with reaching(url):
            if not is_web(url):
                return bool(filesystem.isfile(path))
            try:  # there fsspec takes every answer but yes for no
                return filesystem.info(path).get("type") != "directory"
            except FileNotFoundError as error:
                if is_absence(error):
                    return False
                raise

    def is_directory(self, url: str) -> bool:
        """True if `url` is a directory, or on an object store, a prefix with something in it."""
        if self._is_local(url):
            return os.path.isdir(self._path(url))
        filesystem, path = self._connect(url)
        return _is_directory(filesystem, path)

    def list_directory(self, url: str) -> list[str]:
        """Names (not paths) of what is directly in a directory, sorted; empty if there is none."""
        if self._is_local(url):
            with of_this_machine(url):
                try:
                    return sorted(os.listdir(self._path(url)))
                except OSError as error:
                    if error.errno not in _NO_DIRECTORY:
                        raise
                    return []
        filesystem, path = self._connect(url)
        if not _is_directory(filesystem, path):
            return []
        with reaching(url):
            listed = filesystem.ls(path, detail=False)
        names = (str(inside).rstrip("/").rsplit("/", 1)[-1] for inside in listed)
        return sorted(name for name in names if stays_below(name))

    def _path(self, url: str) -> str:
        """Where a local file is, wherever the process has gone meanwhile."""
        return os.path.join("" if self._root is None else self._root.folder, url)

    def _is_local(self, url: str) -> bool:
        if self._root is not None:
            return self._root.filesystem is None
        return not is_remote(url) and self.filesystem != "gfile"

    def _connect(self, url: str) -> tuple[Filesystem, str]:
        from torch_warmstart.storage.web import with_checked_client

        if self._root is not None and self._root.filesystem is not None:
            return self._root.filesystem, self._root.path_of(url)
        if self._uses_gfile(url):
            from torch_warmstart.storage.gfile import GfileFilesystem

            return GfileFilesystem(), url
        import fsspec.core  # only for remote files: it costs about 30 ms

        with reaching(url):
            try:
                filesystem, path = fsspec.core.url_to_fs(
                    url, **with_checked_client(url, self.options or {})
                )
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


def _is_directory(filesystem: Filesystem, path: str) -> bool:
    try:
        return bool(filesystem.isdir(path))
    except Exception:  # nothing to list: not over http, not with these rights, not there
        return False


def _how_to_install(url: str, error: ImportError) -> str:
    extra = _EXTRAS.get(url.partition("://")[0])
    if extra is None:  # a chain of schemes, or a rare one: fsspec's own text names the package
        return f"Reading {url}: {error}"
    return f"Reading {url} needs another package: pip install 'torch-warmstart[{extra}]' ({error})"
