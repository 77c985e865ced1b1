"""TensorFlow V2 checkpoints: what is in them, what is read of them, and which are refused."""

from __future__ import annotations

import hashlib
import os
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
    BundleSlice,
    DType,
    Place,
    build_bundle,
    entry_proto,
    field_bytes,
    field_varint,
    shape_proto,
    varint,
    write_bundle,
    write_files,
    write_table,
)
from cpu_time import cpu_seconds_below
from formats_helpers import (
    FIXTURES,
    TORCH_DTYPES,
    RecordingFile,
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
    SettingsError,
    UnsupportedError,
)
from torch_warmstart.formats.tensorflow import bundle, object_graph
from torch_warmstart.storage import storage

FOLDERS = sorted(path.parent.name for path in FIXTURES.glob("*/expected.json"))
STORED_NAMES = {"float32": "float", "float64": "double", "float16": "half"}  # else as TF's own
NOT_FOR_TORCH = ("float4_e2m1fn", "float8_e4m3b11fnuz", "variant")
SHARDED = {"merged": 3, "sharded_object": 9}


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return tmp_path / "model.ckpt"


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
        BundleEntry(object_graph.KEY, DType.STRING, [], [b"\x0a\xff"]),
        BundleEntry(object_graph.KEY, DType.STRING, [], [b"\x08\x01"]),
        BundleEntry(object_graph.KEY, DType.STRING, [2], [b"", b""]),
        BundleEntry(object_graph.KEY, DType.STRING, [0], []),
        BundleEntry(object_graph.KEY, DType.FLOAT, [], floats(1)),
        BundleEntry(object_graph.KEY, DType.FLOAT, [1], floats(1)),
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


# ---- Rows ------------------------------------------------------------------------------------


@pytest.fixture
def table(prefix: Path) -> bundle.BundleCheckpoint:
    """The numbers 0 to 23 as 6 rows of 4: whole, in a 2-D mosaic, and as strings."""
    return _table(prefix, "little")


@pytest.fixture
def big_endian_table(prefix: Path) -> bundle.BundleCheckpoint:
    return _table(prefix, "big")


def _table(prefix: Path, endianness: Any) -> bundle.BundleCheckpoint:
    full = np.arange(24, dtype="<f4").reshape(6, 4)
    boxes = [((4, 2), (3, 1)), ((0, 4), (0, 2)), ((0, 4), (2, 2)), ((4, 2), (0, 3))]
    mosaic = [
        BundleSlice([rows, cols], full[rows[0] : sum(rows), cols[0] : sum(cols)].tobytes())
        for rows, cols in boxes
    ]
    write_bundle(
        prefix,
        [
            BundleEntry("odd", DType.INT8, [1], b"\0"),
            BundleEntry("whole", DType.FLOAT, [6, 4], full.tobytes()),
            BundleEntry("mosaic", DType.FLOAT, [6, 4], slices=mosaic),
            BundleEntry("words", DType.STRING, [6, 4], [b"%d" % i for i in range(24)]),
            BundleEntry("none", DType.FLOAT, [0, 4], b""),
            BundleEntry("scalar", DType.FLOAT, [], floats(1)),
        ],
        endianness=endianness,
    )
    return open_bundle(prefix)


ROWS = [[], [0], [5], [3, 1, 4, 1, 5], [2, 2, 2], [5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("key", ["whole", "mosaic"])
@pytest.mark.parametrize("kind", ["table", "big_endian_table"])
def test_rows_are_those_of_the_full_tensor(
    request: pytest.FixtureRequest, kind: str, key: str, rows: list[int]
) -> None:
    checkpoint = request.getfixturevalue(kind)
    tensor = checkpoint.get_tensor(key, torch.tensor(rows, dtype=torch.int64))

    assert tensor.shape == (len(rows), 4)
    assert tensor.tolist() == [[4 * r, 4 * r + 1, 4 * r + 2, 4 * r + 3] for r in rows]


@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_rows_of_strings_are_those_of_the_full_tensor(
    table: bundle.BundleCheckpoint, rows: list[int]
) -> None:
    expected = [b"%d" % (4 * r + c) for r in rows for c in range(4)]

    assert table.get_tensor("words", torch.tensor(rows, dtype=torch.int64)) == expected


@pytest.mark.parametrize(
    "dtype", [DType.HALF, DType.UINT16, DType.UINT64, DType.FLOAT8_E4M3FN, DType.COMPLEX128]
)
def test_rows_of_unusual_dtypes_are_read(prefix: Path, dtype: DType) -> None:
    width = {DType.FLOAT8_E4M3FN: 1, DType.UINT64: 8, DType.COMPLEX128: 16}.get(dtype, 2)
    data = bytes(range(6 * width))
    parts = [([(0, 1), FULL], data[: 2 * width]), ([(1, 2), FULL], data[2 * width :])]
    write_bundle(
        prefix,
        [BundleEntry("x", dtype, [3, 2], data), BundleEntry("y", dtype, [3, 2], slices=parts)],
    )
    checkpoint = open_bundle(prefix)

    expected = data[4 * width :] + data[: 2 * width]
    assert raw(checkpoint.get_tensor("x", torch.tensor([2, 0]))) == expected
    assert raw(checkpoint.get_tensor("y", torch.tensor([2, 0]))) == expected


def test_rows_of_packed_numbers_are_unpacked(prefix: Path) -> None:
    write_bundle(prefix, [BundleEntry("x", DType.INT4, [2, 2], bytes([1, 15, 8, 7]))])
    checkpoint = open_bundle(prefix)

    assert checkpoint.get_tensor("x").tolist() == [[1, -1], [-8, 7]]
    assert checkpoint.get_tensor("x", torch.tensor([1])).tolist() == [[-8, 7]]


def test_no_rows_of_an_empty_tensor_are_an_empty_tensor(table: bundle.BundleCheckpoint) -> None:
    assert table.get_tensor("none", torch.empty(0, dtype=torch.int64)).shape == (0, 4)


@pytest.mark.parametrize(
    ("key", "rows", "message"),
    [
        ("whole", [6], "rows lie between 6 and 6, but tensor 'whole' has rows 0 to 5"),
        ("mosaic", [0, 6], "rows lie between 0 and 6, but tensor 'mosaic' has rows 0 to 5"),
        ("words", [-1], "rows lie between -1 and -1, but tensor 'words' has rows 0 to 5"),
        ("none", [0], "rows lie between 0 and 0, but tensor 'none' has no rows"),
        ("scalar", [0], "tensor 'scalar' is a scalar and has no rows"),
    ],
)
def test_rows_outside_the_tensor_are_refused(
    table: bundle.BundleCheckpoint, key: str, rows: list[int], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        table.get_tensor(key, torch.tensor(rows))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.tensor([0], dtype=torch.int32), r"not torch.int32 of shape \(1,\)"),
        (torch.tensor([True]), "not torch.bool"),
        (torch.tensor([0.0]), "not torch.float32"),
        (torch.tensor(0), r"not torch.int64 of shape \(\)"),
        (torch.tensor([[0]]), r"not torch.int64 of shape \(1, 1\)"),
    ],
    ids=["int32", "bool", "float", "scalar", "matrix"],
)
def test_rows_must_be_a_vector_of_int64(
    table: bundle.BundleCheckpoint, rows: torch.Tensor, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        table.get_tensor("whole", rows)


# ---- No copies, no needless reads ------------------------------------------------------------


def test_an_aligned_tensor_is_the_mapped_file_itself(prefix: Path) -> None:
    write_bundle(prefix, [float_entry("x", 1000)])
    checkpoint = open_bundle(prefix)
    first, second = checkpoint.get_tensor("x"), checkpoint.get_tensor("x")

    assert first.data_ptr() == second.data_ptr()


def test_writing_into_a_tensor_leaves_the_file_as_it_is(prefix: Path) -> None:
    write_bundle(prefix, [float_entry("x", 1000)])
    data_file = Path(f"{prefix}.data-00000-of-00001")
    before = data_file.read_bytes()
    checkpoint = open_bundle(prefix)
    checkpoint.get_tensor("x").fill_(-1.0)
    checkpoint.close()

    assert data_file.read_bytes() == before
    assert open_bundle(prefix).get_tensor("x")[999] == 999


def test_a_tensor_outlives_its_closed_checkpoint(prefix: Path) -> None:
    write_bundle(prefix, [float_entry("x", 5000)])
    with open_bundle(prefix) as checkpoint:
        tensor = checkpoint.get_tensor("x")
    del checkpoint

    assert tensor.sum() == 12_497_500


def _records_reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    log: list[tuple[str, int, int]] = []
    monkeypatch.setattr(storage, "LocalFile", lambda url: RecordingFile(url, log))
    return log


def test_opening_and_listing_reads_no_data_file(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(prefix, [float_entry("a", 4), float_entry("b", 4)])
    log = _records_reads(monkeypatch)
    checkpoint = open_bundle(prefix)
    shapes = {key: checkpoint.spec(key).shape for key in checkpoint}

    assert shapes == {"a": (4,), "b": (4,)}
    assert {name for name, _, _ in log} == {"model.ckpt.index"}


def test_one_small_tensor_of_a_huge_file_is_read_alone(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = 50 << 30
    entries = [
        float_entry("first", 4),
        float_entry("last", 3, offset=huge - 12),
        BundleEntry("all", DType.FLOAT, [huge // 4], b"", offset=0, size=huge),
    ]
    write_bundle(prefix, entries)
    data_file = f"{prefix}.data-00000-of-00001"
    os.truncate(data_file, huge)  # a hole: it takes no room on disk
    with open(data_file, "r+b") as file:
        file.seek(huge - 12)
        file.write(floats(3))
    log = _records_reads(monkeypatch)
    with cpu_seconds_below(2):
        checkpoint = open_bundle(prefix)

        assert checkpoint.get_tensor("first").tolist() == [0, 1, 2, 3]
        assert checkpoint.get_tensor("last").tolist() == [0, 1, 2]
        data_reads = [(offset, length) for name, offset, length in log if ".data-" in name]
        last = (huge - 12, 12)
        assert data_reads == [(0, 16), (0, 16), last, last]  # to check, to give
        assert checkpoint.get_tensor("all", torch.tensor([3, huge // 4 - 1])).tolist() == [3, 2]


def test_a_tensor_is_checked_once(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [([(0, 1)], floats(1)), ([(1, 2)], floats(2, 1))]
    write_bundle(prefix, [float_entry("x", 4), BundleEntry("y", DType.FLOAT, [3], slices=parts)])
    checked: list[int] = []
    original = bundle.masked_crc
    monkeypatch.setattr(
        bundle, "masked_crc", lambda data: (checked.append(len(data)), original(data))[1]
    )
    checkpoint = open_bundle(prefix)
    for _ in range(3):
        checkpoint.get_tensor("x")
        checkpoint.verify("x")
        checkpoint.get_tensor("y")
        checkpoint.verify("y")

    assert sorted(checked) == [4, 8, 16]


def test_rows_are_read_without_checking_the_whole_tensor(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(prefix, [float_entry("x", 4, crc=1)])
    checkpoint = open_bundle(prefix)

    assert checkpoint.get_tensor("x", torch.tensor([3])).tolist() == [3]
    with pytest.raises(CorruptCheckpointError, match="checksum"):
        checkpoint.verify("x")


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
