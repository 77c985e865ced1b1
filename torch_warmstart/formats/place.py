"""What a path points at, looked at once: the formats' sniffers all ask the same few questions."""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Callable, Collection
from typing import Any, TypeVar, cast

from torch_warmstart.formats.sources import SourceFile
from torch_warmstart.storage import ZIP, ByteSource, Storage

Found = TypeVar("Found")

# Bytes fetched at once, because several readers will look at a few of them each.
_HEAD = 1 << 10
_ZIP_TAIL = 16 << 10


class Place:
    """A path, and what is there. Nothing is asked of the filesystem twice."""

    def __init__(
        self,
        url: str,
        storage: Storage,
        *,
        verify: bool = True,
        entry: str | None = None,
        wanted: Collection[str] = (),
    ) -> None:
        self.url: str = url
        self.storage: Storage = storage
        # For those who open it: check checksums; which mapping of a nested container is meant.
        self.verify: bool = verify
        self.entry: str | None = entry
        self._found: dict[Callable[[Place], Any], Any] = {}
        self.wanted = wanted  # the names of the model's tensors, which tell that too

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

    def once(self, look: Callable[[Place], Found]) -> Found:
        """What a look at the place finds, which is taken once; for what only one format asks."""
        if look not in self._found:
            self._found[look] = look(self)
        return cast("Found", self._found[look])

    def head(self, size: int) -> bytes:
        """The first bytes of a file, fewer if it is shorter; empty if it is none."""
        if not self.is_file:
            return b""
        there = self.source.read(0, min(max(size, _HEAD), self.source.size))
        return there[:size].tobytes()

    @functools.cached_property
    def archive(self) -> zipfile.ZipFile | None:
        """A zip file, whose directory is read once; None if it is none."""
        if self.head(len(ZIP)) != ZIP:
            return None
        size = self.source.size
        self.source.prefetch([(max(0, size - _ZIP_TAIL), size)])
        try:
            return zipfile.ZipFile(SourceFile(self.source))
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            return None

    @functools.cached_property
    def zip_names(self) -> tuple[str, ...]:
        """The names of a zip file's members; empty if it is none."""
        return () if self.archive is None else tuple(self.archive.namelist())

    def close(self) -> None:
        """Lets go of the file, if it was opened."""
        if "source" in self.__dict__:
            self.source.close()
