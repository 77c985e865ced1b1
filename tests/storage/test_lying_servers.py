"""What a server answers is checked: which range, how long, of which version of the file."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from recording_server import Server, serving
from remote_files import put, remote

import torch_warmstart as tw
from torch_warmstart.storage import Storage

__all__ = ["remote"]  # a fixture

DATA = bytes(range(200))


@pytest.fixture
def web() -> Iterator[Server]:
    pytest.importorskip("aiohttp")
    with serving() as server:
        server.files["/f"] = DATA
        yield server


def test_a_range_is_what_was_asked_for(web: Server) -> None:
    assert Storage().open(f"{web.url}/f").read(10, 20).tobytes() == DATA[10:30]


@pytest.mark.parametrize("told", ["bytes 0-19/200", "bytes 10-30/200", "bytes 11-29/200", "", "x"])
def test_another_range_is_not_taken_for_it(web: Server, told: str) -> None:
    source = Storage().open(f"{web.url}/f")
    web.lies["Content-Range"] = told
    with pytest.raises(tw.StorageError, match="asked for bytes 10 to 29, its server answered with"):
        source.read(10, 20)


def test_a_whole_answer_as_long_as_the_range_is_not_taken_for_it(web: Server) -> None:
    source = Storage().open(f"{web.url}/f")
    web.files["/f"], web.serves_ranges = DATA[:20], False
    with pytest.raises(tw.StorageError, match="its server answered with 'the whole file'"):
        source.read(10, 20)


@pytest.mark.parametrize("packed", [False, True], ids=["long", "packed"])
def test_of_an_answer_no_more_is_kept_than_was_asked_for(web: Server, packed: bool) -> None:
    source = Storage().open(f"{web.url}/f")
    long = bytes(64 << 20)
    web.files["/f"], web.serves_ranges = gzip.compress(long) if packed else long, False
    if packed:
        web.lies["Content-Encoding"] = "gzip"
    tracemalloc.start()
    try:
        with pytest.raises(tw.CorruptCheckpointError, match="answers with more than the 200 bytes"):
            source.read(0, 20)
        assert tracemalloc.get_traced_memory()[1] < len(long) / 2
    finally:
        tracemalloc.stop()


def test_nor_of_a_page_that_is_no_file(web: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_warmstart.storage.web._MOST_UNASKED", 1 << 10)
    source = Storage().open(f"{web.url}/f")
    web.status, web.everywhere = 404, bytes(1 << 12)
    with pytest.raises(tw.CorruptCheckpointError, match="answers with more than 1,024 bytes"):
        source.read(0, 20)


def _with_old_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file on the web fsspec told the ETag, and not the time."""
    from fsspec.implementations import http

    ask = http._file_info

    async def told(*arguments: Any, **options: Any) -> dict[str, Any]:
        info = await ask(*arguments, **options)
        return {name: value for name, value in info.items() if name != "Last-Modified"}

    monkeypatch.setattr(http, "_file_info", told)


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("validator", ["ETag", "Last-Modified"])
def test_over_http_a_file_that_was_replaced_is_told(
    web: Server, monkeypatch: pytest.MonkeyPatch, validator: str, is_old: bool
) -> None:
    if is_old:
        _with_old_fsspec(monkeypatch)
    web.lies[validator] = "one"
    source = Storage().open(f"{web.url}/f")
    assert source.read(0, 10).tobytes() == DATA[:10]
    web.files["/f"], web.lies[validator] = bytes(200), "two"
    with pytest.raises(tw.CorruptCheckpointError, match="has been replaced since it was opened"):
        source.read(100, 10)


def test_a_file_that_was_replaced_by_one_of_equal_size_is_told(remote: str) -> None:
    source = Storage().open(put(f"{remote}/f", DATA))
    assert source.read(0, 10).tobytes() == DATA[:10]
    put(f"{remote}/f", bytes(200))
    with pytest.raises(tw.CorruptCheckpointError, match="has been replaced since it was opened"):
        source.read(100, 10)


def test_of_a_file_that_was_replaced_meanwhile_nothing_is_kept(
    remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Storage().open(put(f"{remote}/f", DATA))
    original = MemoryFileSystem.cat_ranges

    def replacing(self: Any, *arguments: Any, **options: Any) -> Any:
        found = original(self, *arguments, **options)
        put(f"{remote}/f", bytes(200))
        return found

    monkeypatch.setattr(MemoryFileSystem, "cat_ranges", replacing)
    for _ in range(2):
        with pytest.raises(tw.CorruptCheckpointError, match="has been replaced"):
            source.read(0, 10)


@pytest.mark.parametrize("answer", [[], [None], ["text"], [b"x" * 10] * 2], ids=repr)
def test_a_filesystem_that_answers_otherwise_is_our_error(
    remote: str, monkeypatch: pytest.MonkeyPatch, answer: list[object]
) -> None:
    source = Storage().open(put(f"{remote}/f", DATA))
    monkeypatch.setattr(MemoryFileSystem, "cat_ranges", lambda *a, **k: answer)
    with pytest.raises(tw.StorageError, match="cannot be read"):
        source.read(0, 10)


@pytest.mark.parametrize("size", [-1, 1 << 62, 1 << 70, "x", None])
def test_a_size_that_cannot_be_is_our_error(
    remote: str, monkeypatch: pytest.MonkeyPatch, size: object
) -> None:
    url = put(f"{remote}/f", DATA)
    info = MemoryFileSystem.info
    monkeypatch.setattr(
        MemoryFileSystem, "info", lambda self, path, **k: {**info(self, path), "size": size}
    )
    with pytest.raises(tw.StorageError, match="cannot be read"):
        Storage().open(url).read(0, 10)
