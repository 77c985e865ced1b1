"""Files in fsspec's memory, and what is asked of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem


def put(url: str, data: bytes) -> str:
    fsspec.filesystem("memory").pipe(url, data)
    return url


def upload(folder: Path, url: str) -> str:
    for path in folder.rglob("*"):
        if path.is_file():
            put(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return url


@dataclass
class Requests:
    """The ranges that were fetched: name of the file, first byte, last byte + 1."""

    ranges: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return sum(stop - start for _, start, stop in self.ranges)

    @property
    def files(self) -> set[str]:
        return {name for name, _, _ in self.ranges}


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Requests:
    """Every range that is fetched from fsspec's memory from now on."""
    found = Requests()
    original = MemoryFileSystem.cat_ranges

    def cat_ranges(
        self: Any, paths: list[str], starts: list[int], ends: list[int], **options: Any
    ) -> Any:
        for path, start, stop in zip(paths, starts, ends, strict=True):
            found.ranges.append((path.rsplit("/", 1)[-1], start, stop))
        return original(self, paths, starts, ends, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_ranges", cat_ranges)
    return found


@pytest.fixture
def remote() -> Iterator[str]:
    """The URL of a directory that nothing is in."""
    url = "memory://remote_files"
    yield url
    filesystem = fsspec.filesystem("memory")
    if filesystem.exists(url):
        filesystem.rm(url, recursive=True)
