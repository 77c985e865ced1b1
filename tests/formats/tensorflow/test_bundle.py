"""TensorFlow V2 checkpoints: what is in them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_writer import (
    FULL,
    BundleEntry,
    DType,
    Place,
    build_bundle,
    entry_proto,
    shape_proto,
    write_bundle,
    write_files,
    write_table,
)
from formats_helpers import (
    FIXTURES,
    TORCH_DTYPES,
    expected_of,
    float_entry,
    floats,
    listed_strings,
    listed_tensor,
    open_bundle,
    raw,
)

from torch_warmstart.errors import (
    CorruptCheckpointError,
    MissingTensorError,
    UnsupportedError,
)
from torch_warmstart.formats import OBJECT_GRAPH_KEY

FOLDERS = sorted(path.parent.name for path in FIXTURES.glob("*/expected.json"))
STORED_NAMES = {"float32": "float", "float64": "double", "float16": "half"}  # else as TF's own
NOT_FOR_TORCH = ("float4_e2m1fn", "float8_e4m3b11fnuz", "variant")
SHARDED = {"merged": 3, "sharded_object": 9}


# ---- Golden checkpoints ----------------------------------------------------------------------


def test_the_fixtures_are_there() -> None:
    assert {"dtypes", "merged", "name_based", "object_based", "partitioned"} <= set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_golden_checkpoint_has_the_keys_shapes_and_dtypes_tensorflow_says(folder: str) -> None:
    expected = expected_of(FIXTURES / folder)
    with open_bundle(FIXTURES / folder / expected["prefix"]) as checkpoint:
        assert list(checkpoint) == sorted(expected["tensors"])
        assert len(checkpoint) == len(expected["tensors"])
        for key, about in expected["tensors"].items():
            spec = checkpoint.spec(key)
            assert spec.key == key
            assert list(spec.shape) == about["shape"]
            assert spec.dtype == TORCH_DTYPES.get(about["dtype"])
            assert spec.stored_dtype == STORED_NAMES.get(about["dtype"], about["dtype"])


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_golden_checkpoint_has_the_values_tensorflow_reads(folder: str, verify: bool) -> None:
    expected = expected_of(FIXTURES / folder)
    with open_bundle(FIXTURES / folder / expected["prefix"], verify=verify) as checkpoint:
        for key, about in expected["tensors"].items():
            if about["dtype"] in NOT_FOR_TORCH:
                with pytest.raises(UnsupportedError, match=f"type {about['dtype']}, which torch"):
                    checkpoint.get_tensor(key)
                continue
            value = checkpoint.get_tensor(key)
            if about["dtype"] == "string":
                assert value == listed_strings(about["values"])
            elif "sha256" in about:
                assert hashlib.sha256(raw(value)).hexdigest() == about["sha256"]
            else:
                assert list(value.shape) == about["shape"]
                assert raw(value) == raw(listed_tensor(about)), key


@pytest.mark.parametrize("folder", SHARDED)
def test_a_golden_checkpoint_has_as_many_data_files_as_it_should(folder: str) -> None:
    assert len(list((FIXTURES / folder).glob("*.data-*"))) == SHARDED[folder]


@pytest.mark.parametrize("folder", ["object_based", "sharded_object", "saved_model"])
def test_full_names_are_those_of_the_object_graph(folder: str) -> None:
    expected = expected_of(FIXTURES / folder)
    names: dict[str, tuple[str, ...]] = {}
    for node in expected["object_graph"]:
        for _, full_name, key in node["attributes"]:
            if full_name and key not in names.get(full_name, ()):
                names[full_name] = (*names.get(full_name, ()), key)
    checkpoint = open_bundle(FIXTURES / folder / expected["prefix"])

    assert names
    assert checkpoint.full_names() == names


def test_a_full_name_that_two_variables_share_has_both_keys() -> None:
    names = open_bundle(FIXTURES / "object_based" / "ckpt-1").full_names()

    assert len(names["fruit"]) == 2


def test_a_name_based_checkpoint_has_no_full_names() -> None:
    assert open_bundle(FIXTURES / "name_based" / "model.ckpt-7").full_names() == {}


@pytest.mark.parametrize(
    "graph",
    [
        BundleEntry(OBJECT_GRAPH_KEY, DType.STRING, [], [b"\x0a\xff"]),
        BundleEntry(OBJECT_GRAPH_KEY, DType.STRING, [], [b"\x08\x01"]),
        BundleEntry(OBJECT_GRAPH_KEY, DType.STRING, [2], [b"", b""]),
        BundleEntry(OBJECT_GRAPH_KEY, DType.STRING, [0], []),
        BundleEntry(OBJECT_GRAPH_KEY, DType.FLOAT, [], floats(1)),
        BundleEntry(OBJECT_GRAPH_KEY, DType.FLOAT, [1], floats(1)),
    ],
    ids=["cut off", "wrong wire type", "two strings", "no string", "a scalar", "a vector"],
)
def test_a_damaged_object_graph_is_refused(prefix: Path, graph: BundleEntry) -> None:
    write_bundle(prefix, [graph])

    with pytest.raises(CorruptCheckpointError, match="its object graph"):
        open_bundle(prefix).full_names()


# ---- Values the writer made ------------------------------------------------------------------


def test_big_endian_numbers_come_in_the_order_of_this_machine(prefix: Path) -> None:
    records, _ = build_bundle([BundleEntry("x", DType.INT32, [2], bytes(8))], endianness="big")
    records[b"x"] = entry_proto(DType.INT32, shape_proto([2]), Place(0, 0, 8, 0))
    stored = bytes.fromhex("00000001 fffffffe")
    write_files(prefix, write_table(sorted(records.items())), [stored])

    assert open_bundle(prefix, verify=False).get_tensor("x").tolist() == [1, -2]


def test_big_endian_complex_numbers_keep_their_parts_in_place(prefix: Path) -> None:
    stored = np.array([1 + 2j, -3.5j], dtype=">c16").tobytes()
    records, _ = build_bundle([BundleEntry("x", DType.COMPLEX128, [2], b"")], endianness="big")
    records[b"x"] = entry_proto(DType.COMPLEX128, shape_proto([2]), Place(0, 0, 32, 0))
    write_files(prefix, write_table(sorted(records.items())), [stored])

    assert open_bundle(prefix, verify=False).get_tensor("x").tolist() == [1 + 2j, -3.5j]


@pytest.mark.parametrize(
    ("dtype", "width"),
    [
        (DType.INT8, 1),
        (DType.FLOAT8_E5M2, 1),
        (DType.INT16, 2),
        (DType.HALF, 2),
        (DType.BFLOAT16, 2),
        (DType.QUINT16, 2),
        (DType.FLOAT, 4),
        (DType.UINT32, 4),
        (DType.QINT32, 4),
        (DType.DOUBLE, 8),
        (DType.UINT64, 8),
        (DType.COMPLEX64, 8),
        (DType.COMPLEX128, 16),
    ],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_big_endian_data_of_every_width_is_swapped(prefix: Path, dtype: int, width: int) -> None:
    data = bytes(range(6 * width))
    halves = [([(0, 1), FULL], data[: 3 * width]), ([(1, 1), FULL], data[3 * width :])]
    write_bundle(
        prefix,
        [
            BundleEntry("pad", DType.INT8, [1], b"\0"),
            BundleEntry("plain", dtype, [2, 3], data),
            BundleEntry("cut", dtype, [2, 3], slices=halves),
        ],
        endianness="big",
    )
    checkpoint = open_bundle(prefix)

    assert raw(checkpoint.get_tensor("plain")) == data
    assert raw(checkpoint.get_tensor("cut")) == data
    rows = torch.tensor([1, 0])
    assert raw(checkpoint.get_tensor("plain", rows)) == data[3 * width :] + data[: 3 * width]


def test_big_endian_strings_are_read_and_verified(prefix: Path) -> None:
    strings = [b"", b"a", b"\xff" * 300]
    write_bundle(prefix, [BundleEntry("s", DType.STRING, [3], strings)], endianness="big")

    assert open_bundle(prefix).get_tensor("s") == strings


@pytest.mark.parametrize("compression", ["none", "snappy"])
def test_twenty_thousand_keys_in_many_blocks_are_all_found(prefix: Path, compression: Any) -> None:
    count = 20_011
    entries = [
        BundleEntry(f"layer_{i:05d}/kernel", DType.INT32, [], i.to_bytes(4, "little"))
        for i in range(count)
    ]
    write_bundle(prefix, entries, block_size=65_536, compression=compression)
    checkpoint = open_bundle(prefix)

    assert list(checkpoint) == [f"layer_{i:05d}/kernel" for i in range(count)]
    assert [int(checkpoint.get_tensor(key)) for key in checkpoint] == list(range(count))
    assert "layer_20011/kernel" not in checkpoint
    assert "layer_0" not in checkpoint  # between two blocks' separators, perhaps
    with pytest.raises(MissingTensorError, match="Did you mean 'layer_00007/kernel'"):
        checkpoint.spec("layer_00007/kernl")


@pytest.mark.parametrize("block_size", [1, 64, 262_144])
@pytest.mark.parametrize("restart_interval", [1, 16])
def test_blocks_of_any_size_hold_the_same_table(
    prefix: Path, block_size: int, restart_interval: int
) -> None:
    keys = ["a", "a/b", "a/b/c", "ab", "b\xff", "longer/name/with/a/shared/prefix_1", "z" * 300]
    entries = [float_entry(key, number) for number, key in enumerate(keys)]
    write_bundle(prefix, entries, block_size=block_size, restart_interval=restart_interval)
    checkpoint = open_bundle(prefix)

    assert list(checkpoint) == sorted(keys, key=str.encode)
    for number, key in enumerate(keys):
        assert checkpoint.get_tensor(key).tolist() == list(range(number))


def test_names_that_are_no_utf8_can_be_listed_and_read(prefix: Path) -> None:
    write_bundle(prefix, [BundleEntry(b"w\xff\xe9", DType.INT8, [1], b"\x05")])
    checkpoint = open_bundle(prefix)
    [key] = checkpoint

    assert key == "w\udcff\udce9"
    assert checkpoint.get_tensor(key).tolist() == [5]


@pytest.mark.parametrize(
    ("dtype", "width"),
    [(DType.HALF, 2), (DType.FLOAT, 4), (DType.INT64, 8), (DType.COMPLEX128, 16)],
)
def test_a_tensor_at_an_unaligned_offset_is_read_right(
    prefix: Path, dtype: int, width: int
) -> None:
    data = bytes(range(5 * width))
    padding = [BundleEntry(f"pad{i}", DType.INT8, [1], b"\0") for i in range(3)]
    write_bundle(prefix, [*padding, BundleEntry("x", dtype, [5], data)])
    tensor = open_bundle(prefix).get_tensor("x")

    assert raw(tensor) == data
    assert tensor.data_ptr() % width == 0


def test_padding_between_tensors_is_skipped(prefix: Path) -> None:
    entries = [BundleEntry("a", DType.INT8, [3], b"abc"), float_entry("b", 3), float_entry("c", 2)]
    write_bundle(prefix, entries, alignment=64)
    checkpoint = open_bundle(prefix)

    assert Path(f"{prefix}.data-00000-of-00001").stat().st_size == 128 + 8
    assert checkpoint.get_tensor("b").tolist() == [0, 1, 2]
    assert checkpoint.get_tensor("c").tolist() == [0, 1]


def test_tensors_that_share_bytes_share_their_storage_key(prefix: Path) -> None:
    entries = [float_entry("a", 2), float_entry("b", 2, offset=0), float_entry("c", 2, offset=8)]
    write_bundle(prefix, entries)
    checkpoint = open_bundle(prefix)

    assert checkpoint.spec("a").storage is not None
    assert checkpoint.spec("a").storage == checkpoint.spec("b").storage
    assert checkpoint.spec("c").storage != checkpoint.spec("a").storage
    assert checkpoint.get_tensor("a").tolist() == checkpoint.get_tensor("b").tolist() == [0, 1]


def test_empty_tensors_share_nothing(prefix: Path) -> None:
    write_bundle(prefix, [float_entry("a", 0), float_entry("b", 2, 0)])
    checkpoint = open_bundle(prefix)

    assert checkpoint.spec("a").storage is checkpoint.spec("b").storage is None
    assert checkpoint.get_tensor("b").shape == (2, 0)


def test_stale_data_files_of_another_save_are_left_alone(prefix: Path) -> None:
    write_bundle(prefix, [BundleEntry("x", DType.INT8, [2], b"\x07\x08")])  # one file, older
    write_bundle(prefix, [float_entry("a", 2), float_entry("x", 2, shard=1)], num_shards=2)
    checkpoint = open_bundle(prefix)

    assert checkpoint.get_tensor("x").tolist() == [0.0, 1.0]
    assert sorted(checkpoint) == ["a", "x"]


def test_only_the_data_files_that_are_needed_must_be_there(prefix: Path) -> None:
    write_bundle(prefix, [float_entry("a", 2), float_entry("b", 2, shard=1)], num_shards=2)
    os.remove(f"{prefix}.data-00000-of-00002")
    checkpoint = open_bundle(prefix)

    assert checkpoint.get_tensor("b").tolist() == [0.0, 1.0]
    message = (
        r"model\.ckpt\.index says that tensors are in .*model\.ckpt\.data-00000-of-00002, "
        "which does not exist. Copy all files of a checkpoint together."
    )
    with pytest.raises(CorruptCheckpointError, match=message):
        checkpoint.get_tensor("a")


def test_a_missing_index_is_a_file_not_found_error(prefix: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_bundle(prefix)


def test_specs_tell_sizes_without_reading_data(prefix: Path) -> None:
    write_bundle(
        prefix,
        [
            float_entry("w", 3, 5),
            BundleEntry("c", DType.COMPLEX128, [2], bytes(32)),
            BundleEntry("s", DType.STRING, [2], [b"a", b"b"]),
        ],
    )
    os.remove(f"{prefix}.data-00000-of-00001")
    checkpoint = open_bundle(prefix)

    assert (checkpoint.spec("w").numel, checkpoint.spec("w").nbytes) == (15, 60)
    assert (checkpoint.spec("c").numel, checkpoint.spec("c").nbytes) == (2, 32)
    assert (checkpoint.spec("s").numel, checkpoint.spec("s").nbytes) == (2, 0)


def test_a_missing_key_is_told_with_near_names(prefix: Path) -> None:
    write_bundle(prefix, [float_entry("dense/kernel", 1), float_entry("dense/bias", 1)])
    checkpoint = open_bundle(prefix)

    assert "dense/kernal" not in checkpoint
    assert "" not in checkpoint  # the header
    assert 7 not in checkpoint
    assert checkpoint.get("dense/kernal") is None
    message = r"has no tensor 'dense/kernal'\. Did you mean 'dense/kernel'"
    for ask in (checkpoint.spec, checkpoint.get_tensor, checkpoint.verify):
        with pytest.raises(MissingTensorError, match=message):
            ask("dense/kernal")


def test_the_repr_names_the_file_and_counts_tensors(prefix: Path) -> None:
    write_bundle(prefix, [float_entry("a", 1), float_entry("b", 1)])

    assert repr(open_bundle(prefix)) == f"<TensorFlow V2 checkpoint {str(prefix)!r}, 2 tensors>"


@pytest.mark.parametrize("rank", [64, 65, 254])
def test_a_tensor_of_the_highest_rank_is_read(prefix: Path, rank: int) -> None:
    cut = [([(0, 1)] + [FULL] * (rank - 1), floats(1))]
    write_bundle(
        prefix,
        [
            float_entry("x", *[1] * rank),
            BundleEntry("cut", DType.FLOAT, [1] * rank, slices=cut),
        ],
    )
    checkpoint = open_bundle(prefix)

    assert checkpoint.get_tensor("x").shape == (1,) * rank
    assert checkpoint.get_tensor("cut").shape == (1,) * rank
    assert checkpoint.get_tensor("cut", torch.tensor([0, 0])).shape == (2,) + (1,) * (rank - 1)
