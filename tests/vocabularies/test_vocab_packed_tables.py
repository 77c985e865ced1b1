"""Tables of strangers: packed ones have a bound, and what Arrow's own files say is looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import torch_warmstart as tws

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

LONG = "a" * (1 << 20)


def _arrow(path: Path, table: Any, **options: Any) -> None:
    with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)


def _repeated(count: int) -> Any:
    return pa.table({"t": pa.array([LONG] * count, pa.large_string())})


@pytest.mark.parametrize("count", [60, 70], ids=["kept", "refused"])
@pytest.mark.parametrize("name", ["t.parquet", "unique.t.parquet", "t.arrow"])
def test_a_packed_table_has_a_bound(tmp_path: Path, name: str, count: int) -> None:
    path = tmp_path / name
    if path.suffix == ".parquet":
        pq.write_table(_repeated(count), path, compression="zstd")
    else:
        _arrow(path, _repeated(count), compression="zstd")
    why = "unfolds to more than 67,108,864 bytes" if count == 70 else "twice|no index"
    with pytest.raises(tws.VocabularyError, match=why):
        tws.Vocabulary.load(path, column="t").rows(["a"])


def test_of_one_entry_over_and_over_no_more_than_the_bound_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(_repeated(500), path, compression="zstd")
    before = pa.default_memory_pool().max_memory()
    held = pa.total_allocated_bytes()
    with pytest.raises(tws.VocabularyError, match="unfolds to more than"):
        tws.Vocabulary.load(path, column="t")
    assert pa.default_memory_pool().max_memory() <= max(before, held + (400 << 20))


def _texts(offsets: list[int]) -> Any:
    buffers = [None, pa.py_buffer(np.array(offsets, np.int32)), pa.py_buffer(b"abcdefgh")]
    return pa.Array.from_buffers(pa.string(), 4, buffers)


def _views(words: list[int]) -> Any:
    views = np.tile(np.array(words, np.int32), (4, 1))
    buffers = [None, pa.py_buffer(views), pa.py_buffer(b"x" * 100)]
    return pa.Array.from_buffers(pa.string_view(), 4, buffers)


def _makes_views() -> bool:
    """Whether this pyarrow makes an array of views of buffers; older ones only read such files."""
    try:
        _views([20, 0, 0, 0])
    except ValueError:
        return False
    return True


_OF_VIEWS = pytest.mark.skipif(not _makes_views(), reason="pyarrow makes no views of buffers")


@pytest.mark.parametrize("form", ["file", "stream"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: _texts([0, 2_000_000, 4, 6, 8]),
        lambda: _texts([0, 2, -70_000_000, 6, 8]),
        pytest.param(lambda: _views([20, 0, 7, 0]), marks=_OF_VIEWS),
        pytest.param(lambda: _views([20, 0, 0, 500]), marks=_OF_VIEWS),
        pytest.param(lambda: _views([-20, 0, 0, 0]), marks=_OF_VIEWS),
    ],
    ids=["behind", "before", "no buffer", "behind a buffer", "negative"],
)
def test_places_outside_of_an_arrow_file_are_refused(
    tmp_path: Path, make: Callable[[], Any], form: str
) -> None:
    table, path = pa.table({"t": make()}), tmp_path / "t.arrow"
    writing = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with writing(path, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(tws.VocabularyError, match="cannot be read as arrow: In column 0"):
        tws.Vocabulary.load(path, column="t")


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
def test_an_empty_table_is_told_as_before(tmp_path: Path, name: str) -> None:
    path, table = tmp_path / name, pa.table({"t": pa.array([], pa.string())})
    (pq.write_table(table, path) if name.endswith("parquet") else _arrow(path, table))
    with pytest.raises(tws.VocabularyError, match="at least one entry"):
        tws.Vocabulary.load(path, column="t")


def _packed(path: Path, form: str, codec: str, *, by_dictionary: bool) -> bytes:
    texts = pa.array([letter * 5_000 for letter in "abc"], pa.string())
    table = pa.table({"t": texts.dictionary_encode() if by_dictionary else texts})
    writing = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with writing(path, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table)
    return path.read_bytes()


@pytest.mark.parametrize("by_dictionary", [False, True], ids=["plain", "dictionary"])
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("form", ["file", "stream"])
def test_what_a_batch_says_that_it_unfolds_to_is_seen_before_memory_is_taken(
    tmp_path: Path, form: str, codec: str, by_dictionary: bool
) -> None:
    path = tmp_path / "t.arrow"
    raw = _packed(path, form, codec, by_dictionary=by_dictionary)
    assert len(tws.Vocabulary.load(path, column="t")) == 3
    size = (15_000).to_bytes(8, "little")  # of the texts
    packed = raw.rindex(size)  # before it, how long the column's text is may be said, too
    path.write_bytes(raw[:packed] + (70 << 20).to_bytes(8, "little") + raw[packed + 8 :])
    with pytest.raises(tws.VocabularyError, match="unfolds to more than 67,108,864 bytes"):
        tws.Vocabulary.load(path, column="t")


@pytest.mark.parametrize("form", ["file", "stream"])
def test_a_packed_file_cut_or_changed_anywhere_raises_our_errors_only(
    tmp_path: Path, form: str
) -> None:
    path = tmp_path / "t.arrow"
    raw = _packed(path, form, "zstd", by_dictionary=True)
    for at in range(8, len(raw), 3):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x81]) + raw[at + 1 :])
        with contextlib.suppress(tws.WarmStartError):
            tws.Vocabulary.load(path, column="t")
        path.write_bytes(raw[:at])
        with contextlib.suppress(tws.WarmStartError):
            tws.Vocabulary.load(path, column="t")
