"""TensorFlow V2 checkpoints: which are refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_writer import (
    EMPTY_CRC,
    FULL,
    BundleEntry,
    DType,
    build_bundle,
    field_bytes,
    field_varint,
    varint,
    write_bundle,
    write_files,
    write_table,
)
from formats_helpers import (
    FIXTURES,
    float_entry,
    open_bundle,
)

from torch_warmstart.errors import (
    CorruptCheckpointError,
    UnsupportedError,
)

# ---- The header ------------------------------------------------------------------------------


def write_with_header(prefix: Path, header: bytes) -> None:
    records, shards = build_bundle([float_entry("x", 2)])
    write_files(prefix, write_table(sorted({**records, b"": header}.items())), shards)


@pytest.mark.parametrize(
    "version",
    [{}, {"producer": 0}, {"producer": 100}, {"min_consumer": 1}, {"bad_consumers": [0, 2, 300]}],
    ids=str,
)
def test_a_version_this_reader_may_read_is_read(prefix: Path, version: dict[str, Any]) -> None:
    write_bundle(prefix, [float_entry("x", 2)], **version)

    assert open_bundle(prefix).get_tensor("x").tolist() == [0, 1]


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ({"min_consumer": 2}, "asks for a reader of version 2 .*; this is version 1"),
        ({"bad_consumers": [7, 1]}, r"bad readers \[1, 7\]\); this is version 1"),
        ({"producer": -1}, "producer -1"),
    ],
    ids=str,
)
def test_a_version_this_reader_must_not_read_is_refused(
    prefix: Path, version: dict[str, Any], message: str
) -> None:
    write_bundle(prefix, [float_entry("x", 2)], **version)

    with pytest.raises(CorruptCheckpointError, match=message):
        open_bundle(prefix)


def test_bad_readers_that_are_not_packed_are_seen_too(prefix: Path) -> None:
    version = field_varint(1, 1) + field_varint(3, 9) + field_varint(3, 1)
    write_with_header(prefix, field_varint(1, 1) + field_bytes(3, version))

    with pytest.raises(CorruptCheckpointError, match=r"bad readers \[1, 9\]"):
        open_bundle(prefix)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "it counts 0 data files"),
        (field_varint(1, -3), "it counts -3 data files"),
        (field_varint(1, 1) + field_varint(2, 2), "unknown endianness 2"),
        (field_bytes(1, b"1"), "field 1 has wire type 2 instead of 0"),
        (field_varint(1, 1) + b"\x1a\x05\x08", "field 3 claims 5 bytes, 1 are left"),
        (field_varint(1, 1) + field_bytes(3, field_bytes(3, b"\x80")), "varint runs past the end"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "longer than 64 bits"),
        (b"\x0b", "wire type 3 in field 1"),
        (b"\x02", "field number 0"),
    ],
    ids=["empty", "negative", "endianness", "bytes", "cut", "packed", "varint", "group", "zero"],
)
def test_a_damaged_header_is_refused(prefix: Path, header: bytes, message: str) -> None:
    write_with_header(prefix, header)

    with pytest.raises(
        CorruptCheckpointError, match=rf"model\.ckpt\.index: its header: .*{message}"
    ):
        open_bundle(prefix)


def test_unknown_fields_are_skipped(prefix: Path) -> None:
    unknown = field_varint(9, 5) + field_bytes(10, b"new") + b"\x5d0000" + b"\x6100000000"
    records, shards = build_bundle([float_entry("x", 2)])
    records = {key: value + unknown for key, value in records.items()}
    write_files(prefix, write_table(sorted(records.items())), shards)

    assert open_bundle(prefix).get_tensor("x").tolist() == [0, 1]


def test_a_table_without_header_is_refused(prefix: Path) -> None:
    records, shards = build_bundle([float_entry("x", 2)])
    del records[b""]
    write_files(prefix, write_table(sorted(records.items())), shards)

    with pytest.raises(CorruptCheckpointError, match=r"has no header entry: it is an SSTable"):
        open_bundle(prefix)


# ---- Entries that lie ------------------------------------------------------------------------

HUGE = 1 << 62


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ({"shard_id": 1}, "it names data file 1 of 1"),
        ({"shard_id": -1}, "it names data file -1 of 1"),
        ({"offset": -4}, "8 bytes at offset -4 are needed"),
        ({"offset": 4}, "8 bytes at offset 4 are needed, but the file has 8 bytes"),
        ({"offset": HUGE}, "at offset 4,611,686,018,427,387,904 are needed"),
        ({"size": -1}, "it has -1 bytes, but shape"),
        ({"size": 4}, r"it has 4 bytes, but shape \[2\] of float takes 8"),
        ({"size": HUGE}, "it has 4,611,686,018,427,387,904 bytes, but shape"),
        ({"shape_dims": [3]}, r"it has 8 bytes, but shape \[3\] of float takes 12"),
        ({"shape_dims": [-1]}, r"impossible shape \[-1\]"),
        ({"shape_dims": [-2, -1]}, r"impossible shape \[-2, -1\]"),
        ({"shape_dims": [HUGE, HUGE]}, "impossible shape"),
        ({"shape_dims": [1] * 255}, "impossible shape"),
        ({"shape_dims": [1 << 32, 1 << 32]}, "impossible shape"),  # 0 elements in 64 bits
        ({"shape_dims": [HUGE]}, "of float takes 18,446,744,073,709,551,616"),  # 0 bytes
        ({"unknown_rank": True}, "its rank is unknown"),
        (
            {"crc": 1},
            "its checksum is 0x00000001 in the index, 0x[0-9a-f]{8} computed over 8 bytes",
        ),
    ],
    ids=str,
)
def test_an_entry_that_lies_is_refused(prefix: Path, lie: dict[str, Any], message: str) -> None:
    write_bundle(prefix, [float_entry("x", 2, **lie)])
    checkpoint = open_bundle(prefix)

    with pytest.raises(CorruptCheckpointError, match=message):
        checkpoint.get_tensor("x")


@pytest.mark.parametrize("shape", [[0, HUGE, HUGE], [HUGE, HUGE, 0], [HUGE, 0, 8]], ids=str)
def test_an_empty_tensor_of_impossible_size_is_refused(prefix: Path, shape: list[int]) -> None:
    write_bundle(
        prefix,
        [
            BundleEntry("x", DType.FLOAT, shape, b""),
            BundleEntry("y", DType.FLOAT, shape, slices=[([FULL] * 3, b"")]),
        ],
    )
    checkpoint = open_bundle(prefix)

    for key in ("x", "y"):
        with pytest.raises(CorruptCheckpointError, match="impossible shape"):
            checkpoint.get_tensor(key)


@pytest.mark.parametrize("number", [0, 34, 101, 1 << 40])
def test_an_unknown_dtype_is_refused(prefix: Path, number: int) -> None:
    write_bundle(prefix, [BundleEntry("x", number, [2], bytes(8))])
    checkpoint = open_bundle(prefix)

    with pytest.raises(
        CorruptCheckpointError, match=f"'x' is damaged: unknown dtype number {number}"
    ):
        checkpoint.spec("x")


@pytest.mark.parametrize(
    ("number", "name"), [(20, "resource"), (21, "variant"), (27, "float8_e4m3b11fnuz")]
)
def test_a_type_torch_cannot_hold_is_listed_but_not_read(
    prefix: Path, number: int, name: str
) -> None:
    write_bundle(prefix, [BundleEntry("x", number, [2], bytes(2))])
    checkpoint = open_bundle(prefix)

    assert checkpoint.spec("x").stored_dtype == name
    assert checkpoint.spec("x").dtype is None
    with pytest.raises(UnsupportedError, match=f"'x' is of type {name}, which torch cannot hold"):
        checkpoint.get_tensor("x")


def test_a_variant_is_not_called_damaged_because_its_checksum_is_another_kind() -> None:
    checkpoint = open_bundle(FIXTURES / "dtypes" / "model.ckpt")

    with pytest.raises(UnsupportedError, match="'variant' is of type variant"):
        checkpoint.verify("variant")


@pytest.mark.parametrize("rows", [None, torch.tensor([1])], ids=["whole", "rows"])
@pytest.mark.parametrize("value", [2, 255])
def test_bools_other_than_0_and_1_are_refused(
    prefix: Path, value: int, rows: torch.Tensor | None
) -> None:
    parts = [([(0, 1)], b"\0"), ([(1, 1)], bytes([value]))]
    write_bundle(
        prefix,
        [
            BundleEntry("x", DType.BOOL, [2], bytes([1, value])),
            BundleEntry("cut", DType.BOOL, [2], slices=parts),
        ],
    )
    checkpoint = open_bundle(prefix)

    for key in ("x", "cut"):
        with pytest.raises(CorruptCheckpointError, match="bytes other than 0 and 1"):
            checkpoint.get_tensor(key, rows)


def test_the_last_of_repeated_fields_wins_as_in_protobuf(prefix: Path) -> None:
    records, shards = build_bundle([float_entry("x", 2)])
    records[b"x"] = field_varint(1, DType.INT64) + field_varint(5, 99) + records[b"x"]
    write_files(prefix, write_table(sorted(records.items())), shards)

    assert open_bundle(prefix).get_tensor("x").tolist() == [0, 1]


@pytest.mark.parametrize(
    "entry",
    [
        b"\xff",
        field_varint(1, 1) + b"\x12\x7f",
        field_bytes(1, b""),
        field_varint(1, 1) + field_bytes(2, field_varint(2, 1)),
        field_varint(1, 1) + field_varint(6, 5),
    ],
    ids=["varint", "cut shape", "dtype as bytes", "dim as varint", "crc as varint"],
)
def test_an_entry_that_is_no_protobuf_is_refused(prefix: Path, entry: bytes) -> None:
    records, shards = build_bundle([float_entry("x", 2)])
    records[b"y"] = entry
    write_files(prefix, write_table(sorted(records.items())), shards)
    checkpoint = open_bundle(prefix)

    assert checkpoint.get_tensor("x").tolist() == [0, 1]
    with pytest.raises(CorruptCheckpointError, match="tensor 'y' is damaged"):
        checkpoint.get_tensor("y")


# ---- Checksums -------------------------------------------------------------------------------


def flip(path: str | Path, at: int) -> None:
    data = bytearray(Path(path).read_bytes())
    data[at] ^= 0x40
    Path(path).write_bytes(data)


def test_a_flipped_byte_of_a_tensor_is_found(prefix: Path) -> None:
    write_bundle(prefix, [float_entry("x", 2), float_entry("y", 2)])
    flip(f"{prefix}.data-00000-of-00001", 6)
    checkpoint = open_bundle(prefix)

    assert checkpoint.get_tensor("y").tolist() == [0, 1]
    with pytest.raises(
        CorruptCheckpointError, match=r"model\.ckpt: tensor 'x' is damaged: its check"
    ):
        checkpoint.get_tensor("x")
    assert checkpoint.get_tensor("y").tolist() == [0, 1]


def test_without_verification_a_flipped_byte_is_read_as_it_is(prefix: Path) -> None:
    write_bundle(prefix, [BundleEntry("x", DType.INT8, [2], b"\x01\x02")])
    flip(f"{prefix}.data-00000-of-00001", 1)
    checkpoint = open_bundle(prefix, verify=False)

    assert checkpoint.get_tensor("x").tolist() == [1, 0x42]
    with pytest.raises(CorruptCheckpointError, match="checksum"):
        checkpoint.verify("x")


def test_a_flipped_byte_of_a_block_is_found_when_the_block_is_needed(prefix: Path) -> None:
    write_bundle(prefix, [float_entry(key, 2) for key in "abcdef"], block_size=1)
    index = Path(f"{prefix}.index")
    flip(index, index.read_bytes().index(b"f" + b"\x08\x01"))
    checkpoint = open_bundle(prefix)

    assert checkpoint.get_tensor("a").tolist() == [0, 1]
    message = (
        r"model\.ckpt\.index: the block of \d+ bytes at offset \d+ is damaged: "
        "its checksum is 0x[0-9a-f]{8} in the file, 0x[0-9a-f]{8} computed"
    )
    with pytest.raises(CorruptCheckpointError, match=message):
        checkpoint.get_tensor("f")
    with pytest.raises(CorruptCheckpointError, match=message):
        list(checkpoint)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (1, "its strings take 71 bytes, not 7|string lengths does not match"),  # a length
        (3, "the checksum of its string lengths does not match"),  # the checksum of lengths
        (6, "the checksum of its strings does not match"),  # a character
    ],
)
def test_a_flipped_byte_of_strings_is_found(prefix: Path, at: int, message: str) -> None:
    write_bundle(prefix, [BundleEntry("s", DType.STRING, [2], [b"", b"x"])])
    flip(f"{prefix}.data-00000-of-00001", at)

    with pytest.raises(CorruptCheckpointError, match=message):
        open_bundle(prefix).get_tensor("s")


def test_without_verification_flipped_strings_are_read_as_they_are(prefix: Path) -> None:
    write_bundle(prefix, [BundleEntry("s", DType.STRING, [2], [b"ab", b"x"])])
    flip(f"{prefix}.data-00000-of-00001", 8)
    checkpoint = open_bundle(prefix, verify=False)

    assert checkpoint.get_tensor("s") == [b"ab", b"8"]
    with pytest.raises(CorruptCheckpointError, match="the checksum of its strings"):
        checkpoint.verify("s")


def test_string_lengths_that_were_swapped_are_found(prefix: Path) -> None:
    write_bundle(prefix, [BundleEntry("s", DType.STRING, [2], [b"ab", b"c"])])
    data_file = Path(f"{prefix}.data-00000-of-00001")
    data = data_file.read_bytes()
    data_file.write_bytes(data[1::-1] + data[2:])

    with pytest.raises(CorruptCheckpointError, match="string lengths does not match"):
        open_bundle(prefix).get_tensor("s")


@pytest.mark.parametrize("shape", [[], [3], [2, 0], [0]], ids=str)
def test_strings_of_any_shape_come_flat(prefix: Path, shape: list[int]) -> None:
    strings = [b"\0" * (200 * i) for i in range(int(np.prod(shape)))]
    write_bundle(prefix, [BundleEntry("s", DType.STRING, shape, strings)])

    assert open_bundle(prefix).get_tensor("s") == strings


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ({"shape_dims": [1 << 50]}, "1125899906842624 strings do not fit in 7 bytes"),
        ({"shape_dims": [1]}, "its strings take 5 bytes, not 7"),
        ({"shape_dims": [3]}, "its strings take|varint"),
        ({"size": 6}, "its strings take 7 bytes, not 6"),
        ({"size": 0}, "2 strings do not fit in 0 bytes"),
    ],
    ids=str,
)
def test_strings_that_do_not_fit_are_refused(
    prefix: Path, lie: dict[str, Any], message: str
) -> None:
    write_bundle(prefix, [BundleEntry("s", DType.STRING, [2], [b"", b"x"], **lie)])

    with pytest.raises(CorruptCheckpointError, match=message):
        open_bundle(prefix, verify=False).get_tensor("s")


def test_an_empty_tensor_is_verified_too(prefix: Path) -> None:
    write_bundle(prefix, [float_entry("x", 0), float_entry("bad", 0, crc=7)])
    checkpoint = open_bundle(prefix)

    assert EMPTY_CRC == 0xA282EAD8
    assert checkpoint.get_tensor("x").tolist() == []
    with pytest.raises(CorruptCheckpointError, match="0xa282ead8 computed over 0 bytes"):
        checkpoint.get_tensor("bad")


def test_an_index_of_another_save_is_found_by_checksums_or_size(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a", [float_entry("x", 2), float_entry("y", 9)])
    write_bundle(tmp_path / "b", [BundleEntry("x", DType.INT8, [8], b"12345678")])
    shutil.copy(tmp_path / "b.data-00000-of-00001", tmp_path / "a.data-00000-of-00001")
    checkpoint = open_bundle(tmp_path / "a")

    with pytest.raises(CorruptCheckpointError, match="checksum"):
        checkpoint.get_tensor("x")
    with pytest.raises(CorruptCheckpointError, match="or its index belongs to another file"):
        checkpoint.get_tensor("y")


def test_varints_of_the_test_writer_are_those_of_the_format() -> None:
    assert varint(300) == b"\xac\x02"
