"""Bytes from local files, which are mapped, and from whatever fsspec knows."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_writer import write_bundle
from formats_helpers import FIXTURES, expected_of, float_entry, listed_strings
from fsspec.implementations.memory import MemoryFileSystem
from remote_files import put, remote, upload

import torch_warmstart as tw
from torch_warmstart import storage
from torch_warmstart.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    MissingDependencyError,
    SettingsError,
)

__all__ = ["remote"]  # a fixture


@pytest.fixture(params=["local", "remote"])
def file(request: pytest.FixtureRequest, tmp_path: Path, remote: str) -> str:
    """A file of the ten bytes 0 to 9, with a path or a URL."""
    if request.param == "remote":
        return put(f"{remote}/ten", bytes(range(10)))
    (tmp_path / "ten").write_bytes(bytes(range(10)))
    return str(tmp_path / "ten")


# ---- Reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "length"), [(0, 10), (3, 4), (9, 1), (10, 0), (0, 0)])
def test_a_range_of_a_file_is_read(file: str, offset: int, length: int) -> None:
    source = storage.LOCAL.open(file)

    assert (source.url, source.size) == (file, 10)
    assert source.read(offset, length).tobytes() == bytes(range(offset, offset + length))


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 11), (10, 1), (11, 0), (-1, 2), (0, -1), (1 << 63, 1), (1, 1 << 64)]
)
def test_a_range_outside_the_file_is_told(file: str, offset: int, length: int) -> None:
    message = (
        rf"^{file}: {length:,} bytes at offset {offset:,} are needed, but the file has 10 bytes\. "
        r"It is truncated, or its index belongs to another file\.$"
    )
    with pytest.raises(CorruptCheckpointError, match=message):
        storage.LOCAL.open(file).read(offset, length)


def test_what_was_read_may_be_written_to_and_outlives_the_source(file: str) -> None:
    source = storage.LOCAL.open(file)
    data = source.read(2, 3)
    source.close()
    data[:] = 99

    assert data.tolist() == [99, 99, 99]
    assert storage.LOCAL.read_all(file).tolist() == list(range(10))


def test_a_source_can_be_read_again_after_it_was_closed(file: str) -> None:
    source = storage.LOCAL.open(file)
    source.close()

    assert source.read(0, 2).tolist() == [0, 1]


def test_an_empty_file_is_read(tmp_path: Path, remote: str) -> None:
    (tmp_path / "empty").write_bytes(b"")
    for url in (str(tmp_path / "empty"), put(f"{remote}/empty", b"")):
        assert storage.LOCAL.read_all(url).tobytes() == b""
        with pytest.raises(CorruptCheckpointError, match="but the file has 0 bytes"):
            storage.LOCAL.open(url).read(0, 1)


def test_a_local_file_is_mapped_once(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(100))
    source = storage.LOCAL.open(str(tmp_path / "f"))
    first, second = source.read(0, 50), source.read(10, 50)

    assert np.shares_memory(first, second)


def test_a_mapping_may_be_larger_than_memory(tmp_path: Path) -> None:
    size = 1 << 40
    path = tmp_path / "hole"
    path.write_bytes(b"")
    os.truncate(path, size)
    source = storage.LOCAL.open(str(path))

    assert source.read(size - 4, 4).tobytes() == bytes(4)


def test_a_remote_file_that_gives_less_than_asked_is_told(
    remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = storage.LOCAL.open(put(f"{remote}/f", bytes(10)))
    put(f"{remote}/f", bytes(4))

    with pytest.raises(CorruptCheckpointError, match="asked for 8 bytes at offset 0, got 4"):
        source.read(0, 8)


def test_a_file_that_is_not_there_is_a_file_not_found_error(tmp_path: Path, remote: str) -> None:
    for url in (str(tmp_path / "no"), f"{remote}/no"):
        with pytest.raises(FileNotFoundError):
            storage.LOCAL.open(url)


# ---- Directories and names -------------------------------------------------------------------


def test_files_and_directories_are_told_apart(file: str) -> None:
    directory = storage.parent(file)

    assert storage.LOCAL.exists(file)
    assert not storage.LOCAL.exists(directory)
    assert storage.LOCAL.is_directory(directory)
    assert not storage.LOCAL.is_directory(file)
    assert not storage.LOCAL.exists(file + "x")
    assert not storage.LOCAL.is_directory(file + "x")


def test_names_in_a_directory_are_sorted(tmp_path: Path, remote: str) -> None:
    for name in ("b", "a [1]*", "sub/c"):
        put(f"{remote}/{name}", b"")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    for url in (str(tmp_path), remote):
        assert storage.LOCAL.list_directory(url) == ["a [1]*", "b", "sub"]
        assert storage.LOCAL.list_directory(storage.join(url, "no")) == []
        assert storage.LOCAL.list_directory(storage.join(url, "b")) == []


@pytest.mark.parametrize(
    ("directory", "name", "joined"),
    [
        ("dir", "a", "dir/a"),
        ("dir/", "a", "dir/a"),
        (".", "a", "./a"),
        ("dir", "/abs/a", "/abs/a"),
        ("dir", "sub/a", "dir/sub/a"),
        ("gs://b/dir", "a", "gs://b/dir/a"),
        ("gs://b/dir/", "sub/a", "gs://b/dir/sub/a"),
    ],
)
def test_paths_are_joined(directory: str, name: str, joined: str) -> None:
    assert storage.join(directory, name) == joined


@pytest.mark.parametrize(
    ("url", "parent", "base"),
    [
        ("dir/a", "dir", "a"),
        ("a", ".", "a"),
        ("/a", "/", "a"),
        ("dir/", "dir", ""),
        ("gs://b/dir/a", "gs://b/dir", "a"),
        ("gs://b/dir/", "gs://b", "dir"),
    ],
)
def test_paths_are_taken_apart(url: str, parent: str, base: str) -> None:
    assert (storage.parent(url), storage.base_name(url)) == (parent, base)


# ---- Remote checkpoints ----------------------------------------------------------------------


def test_a_remote_checkpoint_is_read_by_every_name(remote: str) -> None:
    upload(FIXTURES / "name_based", remote)
    expected = expected_of(FIXTURES / "name_based")["tensors"]
    prefix = f"{remote}/model.ckpt-7"
    for source in (remote, f"{remote}/", prefix, f"{prefix}.index", f"{remote}/checkpoint"):
        checkpoint = tw.load_checkpoint(source)
        assert checkpoint.url == prefix
        assert list(checkpoint) == sorted(expected)
    assert checkpoint.get_tensor("global_step").item() == 7
    assert checkpoint.get_tensor("empty").shape == (0, 16)
    rows = checkpoint.get_tensor("dense/kernel", torch.tensor([2, 0])).tolist()
    values = expected["dense/kernel"]["values"]
    assert rows == [values[2], values[0]]
    strings = [key for key in expected if expected[key]["dtype"] == "string"]
    for key in strings:
        assert checkpoint.get_tensor(key) == listed_strings(expected[key]["values"])


def test_a_remote_saved_model_is_found(remote: str) -> None:
    upload(FIXTURES / "saved_model", remote)

    assert tw.load_checkpoint(remote).url == f"{remote}/variables/variables"


def test_a_remote_checkpoint_reads_only_the_ranges_it_needs(
    tmp_path: Path, remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path / "m", [float_entry("a", 1000), float_entry("b", 2)])
    upload(tmp_path, remote)
    ranges: list[tuple[str, int, int]] = []
    original = MemoryFileSystem.cat_ranges

    def cat_ranges(self: Any, paths: Any, starts: Any, ends: Any, **options: Any) -> Any:
        ranges.extend(r for r in zip(paths, starts, ends, strict=True) if ".data-" in r[0])
        return original(self, paths, starts, ends, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_ranges", cat_ranges)
    assert tw.load_checkpoint(f"{remote}/m").get_tensor("b").tolist() == [0, 1]

    assert [(start, end) for _, start, end in ranges] == [(4000, 4008)]


def test_a_remote_path_to_nothing_tells_what_is_beside_it(remote: str) -> None:
    put(f"{remote}/model.ckpt-1.index", b"")

    message = (
        rf"There is no checkpoint at {remote}/x: no such file or directory, and no {remote}/x.index"
        rf"\. {remote} holds model.ckpt-1.index\. Checkpoints there: '{remote}/model.ckpt-1'"
    )
    with pytest.raises(CheckpointNotFoundError, match=message):
        tw.load_checkpoint(f"{remote}/x")


def test_an_unknown_scheme_is_told() -> None:
    with pytest.raises(
        SettingsError, match="Reading nosuch://bucket/x(.index)?: Protocol not known: nosuch"
    ):
        tw.load_checkpoint("nosuch://bucket/x")


def test_a_scheme_whose_package_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)  # even where it is installed

    message = r"Reading s3://bucket/x(.index)? needs .* pip install 'torch-warmstart\[s3\]'"
    with pytest.raises(MissingDependencyError, match=message):
        tw.load_checkpoint("s3://bucket/x")


@pytest.mark.parametrize("options", [torch.ones(3), [("anon", True)]], ids=["tensor", "pairs"])
def test_options_that_are_no_mapping_are_told_by_every_door(options: Any) -> None:
    doors = (
        lambda: tw.load_checkpoint("s3://bucket/m.pt", storage_options=options),
        lambda: tw.latest_checkpoint("s3://bucket", storage_options=options),
        lambda: tw.WarmStartSettings("s3://bucket/m.pt", storage_options=options),
        lambda: tw.generate_vocab_remapping(["a"], ["a"], storage_options=options),
    )
    for door in doors:
        with pytest.raises(tw.SettingsError, match="storage_options must be a mapping for fsspec"):
            door()
