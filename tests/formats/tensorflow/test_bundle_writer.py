"""The writer of test checkpoints, checked against real TensorFlow.

Other tests trust `bundle_writer`; this file is why they may. Everything that TensorFlow can read
is read back with it. What it refuses (slices of half tensors, byte-swapped float8) is covered by
the same code paths with dtypes that it accepts.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from bundle_writer import (
    EMPTY_CRC,
    FULL,
    BundleEntry,
    BundleSlice,
    DType,
    Endianness,
    build_bundle,
    encode_tensor_name_slice,
    masked_crc32c,
    shortest_separator,
    varint,
    write_bundle,
    write_files,
    write_table,
)

pytestmark = pytest.mark.tensorflow

Read = Callable[..., np.ndarray]

PLAIN_DTYPES = [dtype for dtype in DType if dtype not in (DType.STRING, DType.VARIANT)]
# TensorFlow has no byte order for the later ones, not even for those of one byte.
SWAPPABLE_DTYPES = [dtype for dtype in PLAIN_DTYPES if dtype <= DType.UINT64]


@pytest.fixture(scope="module")
def tf() -> ModuleType:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    return tensorflow


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return tmp_path / "model.ckpt"


@pytest.fixture
def read(tf: ModuleType, prefix: Path) -> Read:
    """Reads one tensor of the checkpoint at `prefix`, whole or a slice of it."""

    def restore(key: str | bytes, dtype: int, spec: str = "") -> np.ndarray:
        [tensor] = tf.raw_ops.RestoreV2(
            prefix=str(prefix),
            tensor_names=[key],
            shape_and_slices=[spec],
            dtypes=[tf.as_dtype(int(dtype))],
        )
        return tensor.numpy()

    return restore


def raw_numbers(tf: ModuleType, dtype: DType, count: int) -> bytes:
    """Returns `count` elements whose bytes all differ in place, so that any swap shows."""
    if dtype in (DType.BOOL, DType.INT2, DType.UINT2, DType.INT4, DType.UINT4):
        return bytes(i % 2 for i in range(count))
    width = np.dtype(tf.as_dtype(int(dtype)).as_numpy_dtype).itemsize
    return bytes(i % 7 + 1 for i in range(count * width))


# ---- Keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "extents", "key"),
    [
        ("part", [(0, 2), FULL], b"\x00part\x00\x01\x01\x02\x80\x82\x80\x7f"),
        ("w", [(0, 4), (130, 70)], b"\x00w\x00\x01\x01\x02\x80\x84\xc0\x82\xc0\x46"),
        (
            b"nm\xff\x00z",
            [(64, 10000)],
            b"\x00nm\xff\x00\x00\xffz\x00\x01\x01\x01\xc0\x40\xe0\x27\x10",
        ),
        ("scalar", [], b"\x00scalar\x00\x01\x00"),
    ],
)
def test_slice_keys_are_those_tensorflow_was_seen_to_write(
    name: str | bytes, extents: list[tuple[int, int]], key: bytes
) -> None:
    assert encode_tensor_name_slice(name, extents) == key


@pytest.mark.parametrize("start", [0, 63, 64, 8191, 8192, 2**20, 2**27, 2**34, 2**62])
def test_slices_are_found_at_every_length_of_a_number(prefix: Path, read: Read, start: int) -> None:
    """The tensor is sparse: one slice of it is stored, and TensorFlow asks for exactly that."""
    total = start + 3
    part = BundleSlice([(start, 3)], b"\x01\x02\x03")
    write_bundle(prefix, [BundleEntry("x", DType.INT8, [total], slices=[part])])

    assert read("x", DType.INT8, f"{total} {start},3").tolist() == [1, 2, 3]


def test_separators_are_short_and_between() -> None:
    assert shortest_separator(b"abc1", b"abf") == b"abd"
    assert shortest_separator(b"abc", b"abd") == b"abc"
    assert shortest_separator(b"ab", b"abc") == b"ab"
    assert shortest_separator(b"a\xff\xff", b"b") == b"a\xff\xff"


# ---- Dtypes and byte order -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", PLAIN_DTYPES, ids=lambda dtype: dtype.name)
def test_every_dtype_reads_back(tf: ModuleType, prefix: Path, read: Read, dtype: DType) -> None:
    raw = raw_numbers(tf, dtype, 6)
    write_bundle(prefix, [BundleEntry("x", dtype, [2, 3], raw)])
    result = read("x", dtype)

    assert (result.shape, result.tobytes()) == ((2, 3), raw)


@pytest.mark.parametrize("dtype", SWAPPABLE_DTYPES, ids=lambda dtype: dtype.name)
def test_big_endian_reads_back_swapped(
    tf: ModuleType, prefix: Path, read: Read, dtype: DType
) -> None:
    raw = raw_numbers(tf, dtype, 6)
    write_bundle(prefix, [BundleEntry("x", dtype, [6], raw)], endianness="big")
    stored = Path(f"{prefix}.data-00000-of-00001").read_bytes()

    assert read("x", dtype).tobytes() == raw
    assert (stored == raw) == (len(raw) == 6)


@pytest.mark.parametrize("endianness", ["little", "big"])
def test_strings_read_back(prefix: Path, read: Read, endianness: Endianness) -> None:
    strings = [b"", b"a", b"\x00\xff", b"x" * 127, b"y" * 128, b"z" * 70000]
    entries = [
        BundleEntry("many", DType.STRING, [2, 3], strings),
        BundleEntry("none", DType.STRING, [0, 4], []),
        BundleEntry("one", DType.STRING, [], [b"scalar"]),
    ]
    write_bundle(prefix, entries, endianness=endianness)

    assert read("many", DType.STRING).ravel().tolist() == strings
    assert read("none", DType.STRING).shape == (0, 4)
    assert read("one", DType.STRING) == b"scalar"


def test_scalars_and_empty_tensors_read_back(prefix: Path, read: Read) -> None:
    entries = [
        BundleEntry("scalar", DType.INT32, [], b"\x05\0\0\0"),
        BundleEntry("empty", DType.FLOAT, [16, 0, 18]),
    ]
    write_bundle(prefix, entries)

    assert read("scalar", DType.INT32) == 5
    assert read("empty", DType.FLOAT).shape == (16, 0, 18)
    assert masked_crc32c(b"") == EMPTY_CRC


# ---- Tables ----------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "snappy"])
@pytest.mark.parametrize("layout", [{}, {"block_size": 4096}, {"block_size": 1}], ids=str)
def test_many_keys_in_many_blocks(
    tf: ModuleType, prefix: Path, layout: dict[str, int], compression: Any
) -> None:
    count = 20_000
    entries = [
        BundleEntry(f"layer_{i % 97}/w{i}", DType.INT32, [], i.to_bytes(4, "little"), shard=i % 3)
        for i in range(count)
    ]
    write_bundle(prefix, entries, num_shards=3, compression=compression, **layout)
    reader = tf.train.load_checkpoint(str(prefix))

    assert reader.get_variable_to_shape_map() == {entry.key: [] for entry in entries}
    for i in range(0, count, 371):
        assert reader.get_tensor(f"layer_{i % 97}/w{i}") == i


@pytest.mark.parametrize("restart_interval", [1, 2, 16, 10_000])
def test_restart_intervals(tf: ModuleType, prefix: Path, restart_interval: int) -> None:
    entries = [BundleEntry(f"w{i}", DType.INT8, [], bytes([i])) for i in range(100)]
    write_bundle(prefix, entries, restart_interval=restart_interval)
    reader = tf.train.load_checkpoint(str(prefix))

    assert [reader.get_tensor(f"w{i}") for i in range(100)] == list(range(100))


def test_same_index_as_tensorflow_to_the_byte(tf: ModuleType, tmp_path: Path) -> None:
    """Two blocks, so that the separator between them is compared as well."""
    keys = [f"some/longer/scope_{i % 89}/variable_{i}" for i in range(15_000)]
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "theirs"),
        tensor_names=keys,
        shape_and_slices=[""] * len(keys),
        tensors=[tf.constant(i) for i in range(len(keys))],
    )
    entries = [
        BundleEntry(key, DType.INT32, [], i.to_bytes(4, "little")) for i, key in enumerate(keys)
    ]
    write_bundle(tmp_path / "ours", entries)

    for suffix in ("index", "data-00000-of-00001"):
        assert (tmp_path / f"ours.{suffix}").read_bytes() == (
            tmp_path / f"theirs.{suffix}"
        ).read_bytes()


# ---- Placement -------------------------------------------------------------------------------


@pytest.mark.parametrize("alignment", [1, 64, 4096])
def test_padding_between_tensors(prefix: Path, read: Read, alignment: int) -> None:
    entries = [BundleEntry(f"w{i}", DType.UINT8, [i], bytes([i]) * i) for i in range(5)]
    write_bundle(prefix, entries, alignment=alignment)

    for i in range(5):
        assert read(f"w{i}", DType.UINT8).tolist() == [i] * i


def grid_slices(full: np.ndarray) -> list[BundleSlice]:
    """Cuts a [6, 4] array into five slices, in both dimensions and three data files."""
    cuts = [([(0, 2), (0, 1)], 2), ([(0, 2), (1, 3)], 0), ([(2, 1), FULL], 1)]
    cuts += [([(3, 3), (2, 2)], 1), ([(3, 3), (0, 2)], 0)]
    return [BundleSlice(extents, cut(full, extents).tobytes(), shard) for extents, shard in cuts]


def cut(full: np.ndarray, extents: list[tuple[int, int]]) -> np.ndarray:
    return full[tuple(slice(None) if e == FULL else slice(e[0], e[0] + e[1]) for e in extents)]


@pytest.mark.parametrize("endianness", ["little", "big"])
@pytest.mark.parametrize("dtype", [DType.FLOAT, DType.INT64, DType.COMPLEX64], ids=str)
def test_slices_read_back_whole_and_in_part(
    tf: ModuleType, prefix: Path, read: Read, dtype: DType, endianness: Endianness
) -> None:
    full = np.arange(24).reshape(6, 4).astype(tf.as_dtype(int(dtype)).as_numpy_dtype)
    entries = [
        BundleEntry("w", dtype, [6, 4], slices=grid_slices(full)),
        BundleEntry("other", DType.INT8, [], b"\x01", shard=2),
    ]
    write_bundle(prefix, entries, num_shards=3, endianness=endianness)

    np.testing.assert_array_equal(read("w", dtype), full)
    np.testing.assert_array_equal(read("w", dtype, "6 4 1,4:1,2"), full[1:5, 1:3])
    assert set(tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()) == {"w", "other"}


def test_slices_in_three_dimensions_and_as_pairs(prefix: Path, read: Read) -> None:
    full = np.arange(2 * 3 * 70, dtype=np.int32).reshape(2, 3, 70)
    cuts = [[FULL, (0, 3), (0, 65)], [(0, 1), FULL, (65, 5)], [(1, 1), FULL, (65, 5)]]
    slices = [(extents, cut(full, extents).tobytes()) for extents in cuts]
    write_bundle(prefix, [BundleEntry("cube", DType.INT32, full.shape, slices=slices)])

    np.testing.assert_array_equal(read("cube", DType.INT32), full)


@pytest.mark.parametrize("dtype", [DType.HALF, DType.UINT16, DType.FLOAT8_E5M2], ids=str)
def test_slices_that_tensorflow_cannot_join_are_each_readable(
    tf: ModuleType, prefix: Path, read: Read, dtype: DType
) -> None:
    full = np.arange(24).reshape(6, 4).astype(tf.as_dtype(int(dtype)).as_numpy_dtype)
    entry = BundleEntry("w", dtype, [6, 4], slices=grid_slices(full))
    write_bundle(prefix, [entry], num_shards=3)

    for part in entry.slices:
        spec = ":".join("-" if e == FULL else f"{e[0]},{e[1]}" for e in part.extents)
        assert read("w", dtype, f"6 4 {spec}").tobytes() == part.data


# ---- Lies ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ({"crc": 1}, "Checksum does not match"),
        ({"offset": 9}, "Read less bytes than requested"),
        ({"size": 7}, "Invalid size in bundle entry"),
        ({"shard_id": 5}, "data-00005-of-00001"),
        ({"shape_dims": [-1]}, "-1"),
        ({"shape_dims": [3]}, "Invalid size in bundle entry"),
    ],
    ids=str,
)
def test_lies_reach_the_index(
    tf: ModuleType, prefix: Path, read: Read, lie: dict[str, Any], message: str
) -> None:
    honest = BundleEntry("y", DType.INT32, [2], bytes(range(8)))
    write_bundle(prefix, [honest, BundleEntry("x", DType.INT32, [2], bytes(range(8)), **lie)])

    assert read("y", DType.INT32).tobytes() == honest.data
    with pytest.raises((tf.errors.OpError, ValueError), match=message):
        read("x", DType.INT32)


def test_records_are_what_protobuf_makes_of_the_same_fields(tf: ModuleType) -> None:
    """Parsed by generated code and serialized again, every record comes out as it went in."""
    from tensorflow.core.protobuf import tensor_bundle_pb2

    entries = [
        BundleEntry("lies", DType.INT8, [2], b"ab", shape_dims=[-1, 0, 2**40], unknown_rank=True),
        BundleEntry("placed", DType.INT8, [1], b"c", shard=1, offset=2**40, size=-1, crc=7),
        BundleEntry("cut", DType.INT8, [2, 9], slices=[BundleSlice([(0, 0), FULL], b"")]),
    ]
    records, _ = build_bundle(
        entries, num_shards=2, endianness="big", producer=3, min_consumer=1, bad_consumers=[4, 300]
    )
    header = tensor_bundle_pb2.BundleHeaderProto.FromString(records.pop(b""))
    parsed = {key: tensor_bundle_pb2.BundleEntryProto.FromString(records[key]) for key in records}

    assert (header.num_shards, header.endianness, header.version.producer) == (2, 1, 3)
    assert (header.version.min_consumer, header.version.bad_consumers) == (1, [4, 300])
    assert {key: proto.SerializeToString() for key, proto in parsed.items()} == records
    assert [dim.size for dim in parsed[b"lies"].shape.dim] == [-1, 0, 2**40]
    assert parsed[b"lies"].shape.unknown_rank
    placed = parsed[b"placed"]
    assert (placed.shard_id, placed.offset, placed.size, placed.crc32c) == (1, 2**40, -1, 7)
    [extents] = (part.extent for part in parsed[b"cut"].slices)
    assert [extent.HasField("length") for extent in extents] == [True, False]


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ({"producer": 0}, None),
        ({"producer": 100}, None),
        ({"min_consumer": 2}, "min consumer version 2 above current version"),
        ({"bad_consumers": [7, 1]}, "disallows consumer version 1"),
    ],
    ids=str,
)
def test_versions_reach_the_header(
    tf: ModuleType, prefix: Path, read: Read, version: dict[str, Any], message: str | None
) -> None:
    write_bundle(prefix, [BundleEntry("x", DType.INT8, [], b"\x03")], **version)

    if message is None:
        assert read("x", DType.INT8) == 3
    else:
        with pytest.raises(tf.errors.OpError, match=message):
            read("x", DType.INT8)


def test_a_bundle_can_be_changed_before_it_is_written(prefix: Path, read: Read) -> None:
    records, shards = build_bundle([BundleEntry("x", DType.INT8, [], b"\x03")])
    records[b"renamed"] = records.pop(b"x")
    write_files(prefix, write_table(sorted(records.items())), shards)

    assert read("renamed", DType.INT8) == 3


def test_negative_varints_have_ten_bytes() -> None:
    assert varint(-1) == b"\xff" * 9 + b"\x01"
    assert varint(300) == b"\xac\x02"
