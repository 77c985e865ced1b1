"""Sorted string tables: blocks, handles, compression, order; and tables made to do harm."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cramjam
import pytest
from bundle_writer import (
    TABLE_MAGIC,
    encode_block,
    footer,
    masked_crc32c,
    sealed_block,
    varint,
    write_table,
)
from formats_helpers import RecordingFile
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_warmstart.errors import CorruptCheckpointError
from torch_warmstart.formats.recognise import is_table as has_magic
from torch_warmstart.formats.tensorflow.table import Table
from torch_warmstart.storage import LocalFile

MEGABYTE = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table"


def open_table(path: Path, data: bytes) -> Table:
    path.write_bytes(data)
    return Table(LocalFile(str(path)))


def sealed_as(contents: bytes, kind: int) -> bytes:
    typed = contents + bytes([kind])
    return typed + struct.pack("<I", masked_crc32c(typed))


def table_of(*blocks: tuple[bytes, bytes]) -> bytes:
    """A table from (separator, sealed data block); the index lists them in this order."""
    out, handles = bytearray(), []
    for separator, sealed in blocks:
        handles.append((separator, varint(len(out)) + varint(len(sealed) - 5)))
        out += sealed
    return with_index(bytes(out), encode_block(handles, restart_interval=1))


def with_index(data: bytes, index: bytes) -> bytes:
    at = len(data)
    return data + sealed_block(index) + footer((0, 0), (at, len(index)))


@contextmanager
def at_most(megabytes: int) -> Iterator[None]:
    """Fails if Python and numpy hold more memory than this at any time."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < megabytes * MEGABYTE


# ---- What tables hold ------------------------------------------------------------------------


@given(
    entries=st.dictionaries(st.binary(max_size=12), st.binary(max_size=40), max_size=40),
    block_size=st.sampled_from([1, 50, 200, 262_144]),
    restart_interval=st.integers(1, 16),
    compression=st.sampled_from(["none", "snappy"]),
)
@settings(max_examples=60, deadline=None)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    entries: dict[bytes, bytes],
    block_size: int,
    restart_interval: int,
    compression: str,
) -> None:
    data = write_table(
        sorted(entries.items()),
        block_size=block_size,
        restart_interval=restart_interval,
        compression=compression,  # type: ignore[arg-type]
    )
    table = open_table(tmp_path_factory.getbasetemp() / "any.table", data)

    assert list(table) == sorted(entries.items())
    for key, value in entries.items():
        assert table.get(key) == value
        if key + b"\0" not in entries:
            assert table.get(key + b"\0") is None
    assert table.get(b"\xff" * 13) is None


def test_an_empty_table_has_nothing(path: Path) -> None:
    table = open_table(path, write_table([]))

    assert list(table) == []
    assert table.get(b"") is None


def test_a_lookup_reads_one_data_block(path: Path) -> None:
    path.write_bytes(write_table([(b"%03d" % i, b"v") for i in range(100)], block_size=64))
    log: list[tuple[str, int, int]] = []
    table = Table(RecordingFile(str(path), log))
    opened = len(log)

    assert table.get(b"050") == b"v"
    assert table.get(b"050") == b"v"
    assert len(log) == opened + 1


@pytest.mark.parametrize("size", [0, 1, 47])
def test_a_file_shorter_than_a_footer_is_no_table(path: Path, size: int) -> None:
    path.write_bytes(bytes(size))

    assert not has_magic(LocalFile(str(path)))
    with pytest.raises(CorruptCheckpointError, match=rf"\({size} bytes\) does not end as an SS"):
        Table(LocalFile(str(path)))


def test_a_file_that_ends_otherwise_is_no_table(path: Path) -> None:
    with pytest.raises(
        CorruptCheckpointError, match=r"bad magic number\): it is truncated, or not"
    ):
        open_table(path, write_table([(b"a", b"b")])[:-1] + b"\0")


def test_the_footer_ends_with_the_magic_number() -> None:
    assert (
        write_table([])[-8:] == struct.pack("<Q", TABLE_MAGIC) == bytes.fromhex("57fb808b247547db")
    )


# ---- Damage ----------------------------------------------------------------------------------


def test_keys_out_of_order_are_told(path: Path) -> None:
    table = open_table(path, write_table([(b"b", b""), (b"a", b"")]))

    with pytest.raises(CorruptCheckpointError, match="its keys are not in order"):
        list(table)


def test_a_key_twice_is_told(path: Path) -> None:
    table = open_table(path, write_table([(b"a", b"1"), (b"a", b"2")]))

    with pytest.raises(CorruptCheckpointError, match="its keys are not in order"):
        list(table)


def test_an_index_out_of_order_is_told(path: Path) -> None:
    block = sealed_block(encode_block([(b"a", b"")]))

    with pytest.raises(CorruptCheckpointError, match="its index is not in order"):
        open_table(path, table_of((b"z", block), (b"b", block)))


def test_blocks_that_overlap_are_told(path: Path) -> None:
    contents = encode_block([(b"a", b"1"), (b"b", b"2")])
    handle = varint(0) + varint(len(contents))
    index = encode_block([(b"b", handle), (b"c", handle)], restart_interval=1)
    table = open_table(path, with_index(sealed_block(contents), index))

    assert table.get(b"a") == b"1"
    with pytest.raises(CorruptCheckpointError, match="its keys are not in order"):
        list(table)


@pytest.mark.parametrize("kind", [2, 4, 255])
def test_an_unknown_compression_is_told(path: Path, kind: int) -> None:
    table = open_table(path, table_of((b"z", sealed_as(encode_block([(b"a", b"")]), kind))))

    with pytest.raises(CorruptCheckpointError, match=f"unknown compression {kind}"):
        table.get(b"a")


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "too short to hold its restart count"),
        (b"\0\0\0", "too short to hold its restart count"),
        (b"\1\0\0\0", "1 restart points do not fit"),
        (b"\xff\xff\xff\xff", "4294967295 restart points do not fit"),
        (b"\xff" * 30 + b"\0\0\0\0", "longer than 64 bits"),
        (b"\x05\x01\x00a" + b"\0\0\0\0", "entry 0 runs past the block"),  # shares with no key
        (b"\x00\x09\x00a" + b"\0\0\0\0", "entry 0 runs past the block"),
        (b"\x00\x01\x09a" + b"\0\0\0\0", "entry 0 runs past the block"),
        (b"\x00" + varint(1 << 63) + b"\x00a" + b"\0\0\0\0", "entry 0 runs past the block"),
        (b"\x80" + b"\0\0\0\0", "entry 0 runs past the block"),
        (b"\x80" + b"\xff" * 4 + b"\1\0\0\0", "runs past the block|varint"),
    ],
    ids=[
        "empty",
        "three bytes",
        "one restart",
        "many restarts",
        "varint",
        "shared",
        "key",
        "value",
        "huge key",
        "cut varint",
        "varint into the restarts",
    ],
)
@pytest.mark.parametrize("where", ["data", "index"])
def test_a_block_that_is_none_is_told(
    path: Path, where: str, contents: bytes, message: str
) -> None:
    data = (
        table_of((b"z", sealed_block(contents))) if where == "data" else with_index(b"", contents)
    )

    with pytest.raises(CorruptCheckpointError, match=message):
        open_table(path, data).get(b"a")


@pytest.mark.parametrize(
    "handle",
    [(1 << 63, 8), (0, 1 << 63), (10_000, 8), (0, 10_000), ((1 << 64) - 1, (1 << 64) - 1)],
    ids=str,
)
def test_handles_outside_the_file_are_told(path: Path, handle: tuple[int, int]) -> None:
    value = varint(handle[0]) + varint(handle[1])
    table = open_table(path, with_index(b"", encode_block([(b"z", value)])))

    with pytest.raises(CorruptCheckpointError, match="are needed, but the file has"):
        table.get(b"a")
    good = write_table([(b"a", b"")])
    with pytest.raises(CorruptCheckpointError, match="are needed, but the file has|its index"):
        open_table(path, good[:-48] + footer((0, 0), handle))


@pytest.mark.parametrize("value", [b"", b"\x80", b"\x05", b"\xff" * 11], ids=bytes.hex)
def test_a_handle_that_is_cut_off_is_told(path: Path, value: bytes) -> None:
    with pytest.raises(CorruptCheckpointError, match="is damaged: its index: a varint"):
        open_table(path, with_index(b"", encode_block([(b"z", value)])))


def test_an_index_that_lists_itself_as_data_holds_handles_only(path: Path) -> None:
    handle = varint(0) + varint(14)
    index = encode_block([(b"z", handle)])
    assert len(index) == 14
    table = open_table(path, with_index(b"", index))

    assert list(table) == [(b"z", handle)]
    assert table.get(b"a") is None


def test_a_footer_that_points_into_the_footer_is_told(path: Path) -> None:
    data = write_table([(b"a", b"")])

    with pytest.raises(CorruptCheckpointError, match="its checksum is"):
        open_table(path, data[:-48] + footer((0, 0), (len(data) - 48, 43)))


# ---- Bombs -----------------------------------------------------------------------------------


def test_keys_that_unfold_without_end_are_refused(path: Path) -> None:
    key = b"k" * 50_000
    entries = varint(0) + varint(len(key)) + varint(0) + key
    for _ in range(50_000):  # each repeats all of the key before it: 2.5 GB in 250 KB
        entries += varint(len(key)) + b"\0\0"
    bomb = entries + struct.pack("<II", 0, 1)
    table = open_table(path, table_of((b"z", sealed_block(bomb))))

    with at_most(64), pytest.raises(CorruptCheckpointError, match="its keys unfold to far more"):
        list(table)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (varint(1 << 40) + b"\x00a", "claim to unfold to 1099511627776"),
        (varint((1 << 64) - 1) + b"\x00a", "claim to unfold to"),
        (b"\xff" * 11, "longer than 64 bits"),
        (b"", "a varint runs past the end"),
        (varint(5) + b"\x00a", "its snappy data"),  # one literal where five bytes are claimed
        (varint(4) + b"\x01\x00", "its snappy data"),  # a copy from before the start
        (varint(3) + b"\x10abcde", "its snappy data"),  # a longer literal than claimed
    ],
    ids=["terabyte", "64 bits", "varint", "empty", "short", "copy", "long"],
)
def test_snappy_data_that_lies_is_refused(path: Path, data: bytes, message: str) -> None:
    table = open_table(path, table_of((b"z", sealed_as(data, 1))))

    with at_most(16), pytest.raises(CorruptCheckpointError, match=message):
        table.get(b"a")


def test_snappy_blocks_that_repeat_themselves_are_read(path: Path) -> None:
    value = b"0123456789" * 20_000
    contents = encode_block([(b"a", value)])
    assert len(cramjam.snappy.compress_raw(contents)) < len(contents) // 20
    table = open_table(path, table_of((b"z", sealed_block(contents, compression="snappy"))))

    assert table.get(b"a") == value


@given(st.binary(max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_bytes_in_a_snappy_block_are_entries_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    table = open_table(
        tmp_path_factory.getbasetemp() / "snappy.table", table_of((b"z", sealed_as(data, 1)))
    )
    with suppress(CorruptCheckpointError):
        list(table)


@given(st.binary(max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_bytes_in_a_block_are_entries_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    table = open_table(
        tmp_path_factory.getbasetemp() / "plain.table", table_of((b"z", sealed_as(data, 0)))
    )
    with suppress(CorruptCheckpointError):
        list(table)


def test_many_handles_of_one_large_block_do_not_multiply_it(path: Path) -> None:
    contents = encode_block([(b"%06d" % i, b"") for i in range(20_000)])
    handle = varint(0) + varint(len(contents))
    index = encode_block([(b"%06d" % i, handle) for i in range(20_000)], restart_interval=1)

    with at_most(64), pytest.raises(CorruptCheckpointError, match="its blocks claim"):
        open_table(path, with_index(sealed_block(contents), index))
