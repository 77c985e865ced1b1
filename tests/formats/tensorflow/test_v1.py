"""TensorFlow V1 checkpoints: against files written by hand, and against real TensorFlow."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_writer import FULL, DType, encode_block, write_bundle, write_table
from formats_helpers import float_entry, raw
from torch import nn
from v1_writer import V1Slice, V1Tensor, build_v1, tensor_proto, whole, write_v1

import torch_warmstart as tw
from torch_warmstart.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    SettingsError,
    UnsupportedError,
)
from torch_warmstart.formats.base import TensorLocation


def in_rows(name: str, *sizes: int, width: int = 2, files: tuple[int, ...] = ()) -> V1Tensor:
    """A float tensor that counts up from 0, cut into slices of so many rows."""
    parts, row = [], 0
    for number, size in enumerate(sizes):
        elements = range(row * width, (row + size) * width)
        proto = tensor_proto(DType.FLOAT, list(elements))
        file = files[number] if files else 0
        parts.append(V1Slice([(row, size), FULL], proto, file))
        row += size
    return V1Tensor(name, DType.FLOAT, [row, width], parts)


# ---- What is in a file -----------------------------------------------------------------------

VALUES = [  # type, elements as stored, what they are
    (DType.FLOAT, [1.5, -2, math.inf], torch.tensor([1.5, -2, math.inf])),
    (DType.DOUBLE, [1e300, -0.1], torch.tensor([1e300, -0.1], dtype=torch.float64)),
    (DType.HALF, [0x3C00, 0xC000], torch.tensor([1, -2], dtype=torch.float16)),
    (DType.BFLOAT16, [0x3F80, 0xC000], torch.tensor([1, -2], dtype=torch.bfloat16)),
    (DType.INT32, [0, 300, -1, -(2**31)], torch.tensor([0, 300, -1, -(2**31)], dtype=torch.int32)),
    (DType.INT16, [2**15 - 1, -(2**15)], torch.tensor([2**15 - 1, -(2**15)], dtype=torch.int16)),
    (DType.INT8, [127, -128, 0], torch.tensor([127, -128, 0], dtype=torch.int8)),
    (DType.UINT8, [0, 127, 128, 255], torch.tensor([0, 127, 128, 255], dtype=torch.uint8)),
    (DType.UINT16, [0, 65535], torch.from_numpy(np.array([0, 65535], np.uint16))),
    (DType.UINT32, [0, 2**32 - 1], torch.from_numpy(np.array([0, 2**32 - 1], np.uint32))),
    (DType.INT64, [0, 2**63 - 1, -(2**63)], torch.tensor([0, 2**63 - 1, -(2**63)])),
    (DType.UINT64, [1, 2**64 - 1], torch.from_numpy(np.array([1, 2**64 - 1], np.uint64))),
    (DType.BOOL, [0, 1, 1], torch.tensor([False, True, True])),
    (DType.QINT8, [-1, 5], torch.tensor([-1, 5], dtype=torch.int8)),
    (DType.QINT32, [-1, 2**31 - 1], torch.tensor([-1, 2**31 - 1], dtype=torch.int32)),
    (DType.COMPLEX64, [1, 2, -3, 0.5], torch.tensor([1 + 2j, -3 + 0.5j])),
    (DType.COMPLEX128, [1, 2], torch.tensor([1 + 2j], dtype=torch.complex128)),
]


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "a field an element"])
@pytest.mark.parametrize(
    ("dtype", "stored", "expected"), VALUES, ids=lambda v: getattr(v, "name", "")
)
def test_every_type_is_read(
    tmp_path: Path, dtype: DType, stored: list[float], expected: torch.Tensor, packed: bool
) -> None:
    proto = tensor_proto(dtype, stored, packed=packed)
    tensor = V1Tensor("x", dtype, [len(expected)], [V1Slice([FULL], proto)])
    write_v1(tmp_path / "model", [tensor])

    checkpoint = tw.load_checkpoint(tmp_path / "model")

    value = checkpoint.get_tensor("x")
    assert value.dtype == expected.dtype == checkpoint.spec("x").dtype
    assert raw(value) == raw(expected)
    assert raw(checkpoint.get_tensor("x", torch.tensor([len(expected) - 1, 0]))) == raw(
        expected.view(torch.uint8).view(len(expected), -1)[[-1, 0]]
    )


def test_strings_are_read(tmp_path: Path) -> None:
    write_v1(tmp_path / "model", [whole("s", DType.STRING, [2, 2], [b"a", b"", b"\xff", b"dd"])])

    checkpoint = tw.load_checkpoint(tmp_path / "model")

    assert checkpoint.get_tensor("s") == [b"a", b"", b"\xff", b"dd"]
    assert checkpoint.get_tensor("s", torch.tensor([1, 1])) == [b"\xff", b"dd"] * 2


def test_scalars_and_empty_tensors_are_read(tmp_path: Path) -> None:
    tensors = [
        whole("scalar", DType.INT64, [], [7]),
        whole("empty", DType.FLOAT, [0, 3], []),
        whole("no ints", DType.INT32, [2, 0], []),
        whole("no strings", DType.STRING, [0], []),
    ]
    write_v1(tmp_path / "model", tensors)

    checkpoint = tw.load_checkpoint(tmp_path / "model")

    assert checkpoint.get_tensor("scalar").shape == ()
    assert checkpoint.get_tensor("scalar") == 7
    assert checkpoint.get_tensor("empty").shape == (0, 3)
    assert checkpoint.get_tensor("no ints", torch.tensor([1])).shape == (1, 0)
    assert checkpoint.get_tensor("no strings") == []


def test_varints_of_every_length_are_read_across_stretches(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 64, 150_000)
    numbers = (generator.integers(0, 2**63, 150_000) >> bits) * generator.choice([1, -1], 150_000)
    write_v1(tmp_path / "model", [whole("x", DType.INT64, [150_000], numbers.tolist())])

    value = tw.load_checkpoint(tmp_path / "model").get_tensor("x")

    assert np.array_equal(value.numpy(), numbers)


def test_a_file_says_what_it_is_and_what_is_in_it(tmp_path: Path) -> None:
    write_v1(tmp_path / "model", [whole("b", DType.HALF, [2], [0, 0]), in_rows("a", 1, 2)])

    with tw.load_checkpoint(tmp_path / "model") as checkpoint:
        assert repr(checkpoint) == f"<TensorFlow V1 checkpoint '{tmp_path}/model', 2 tensors>"
        assert list(checkpoint) == ["a", "b"]
        assert checkpoint.family == "tensorflow"
        assert checkpoint.spec("b").stored_dtype == "half"
        assert checkpoint.location("a") == TensorLocation(("model",), 2)
        assert checkpoint.location("b") == TensorLocation(("model",))
        checkpoint.prefetch(["a", "b"])
        checkpoint.verify("a")


def test_a_file_without_version_record_is_read(tmp_path: Path) -> None:
    write_v1(tmp_path / "export", [in_rows("x", 3)], versions=None)

    assert tw.load_checkpoint(tmp_path / "export").get_tensor("x").tolist() == [
        [0, 1],
        [2, 3],
        [4, 5],
    ]


def test_a_file_for_newer_readers_is_refused(tmp_path: Path) -> None:
    write_v1(tmp_path / "model", [in_rows("x", 3)], versions=b"\x08\x02\x10\x02")

    with pytest.raises(CorruptCheckpointError, match="asks for a reader of version 2"):
        tw.load_checkpoint(tmp_path / "model")


@pytest.mark.parametrize("compression", ["none", "snappy"])
@pytest.mark.parametrize("block_size", [64, 262144])
def test_blocks_may_be_small_and_compressed(
    tmp_path: Path, compression: str, block_size: int
) -> None:
    tensors = [in_rows(f"layer/{n}", 1, 2) for n in range(40)]
    write_v1(tmp_path / "model", tensors, compression=compression, block_size=block_size)

    checkpoint = tw.load_checkpoint(tmp_path / "model")

    assert len(checkpoint) == 40
    assert all(
        checkpoint.get_tensor(key).tolist() == [[0, 1], [2, 3], [4, 5]] for key in checkpoint
    )


def test_a_tensor_outlives_its_checkpoint_and_can_be_written_to(tmp_path: Path) -> None:
    write_v1(tmp_path / "model", [whole("x", DType.FLOAT, [400_000], [1.0] * 400_000)])
    before = (tmp_path / "model").read_bytes()

    with tw.load_checkpoint(tmp_path / "model") as checkpoint:
        value = checkpoint.get_tensor("x")
    value += 1

    assert value.sum() == 800_000
    assert (tmp_path / "model").read_bytes() == before


def test_a_large_float_tensor_is_not_copied_many_times(tmp_path: Path) -> None:
    size = 1_000_000
    write_v1(tmp_path / "model", [whole("x", DType.FLOAT, [size], [0.5] * size)])
    checkpoint = tw.load_checkpoint(tmp_path / "model")

    tracemalloc.start()
    checkpoint.get_tensor("x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 1.5 * 4 * size


# ---- Slices and files ------------------------------------------------------------------------


def test_slices_are_joined(tmp_path: Path) -> None:
    write_v1(tmp_path / "model", [in_rows("x", 2, 1, 3)])

    checkpoint = tw.load_checkpoint(tmp_path / "model")

    assert checkpoint.get_tensor("x").flatten().tolist() == list(range(12))
    assert checkpoint.get_tensor("x", torch.tensor([5, 0, 2])).tolist() == [
        [10, 11],
        [0, 1],
        [4, 5],
    ]


@pytest.mark.parametrize(
    "dtype", [DType.HALF, DType.COMPLEX64, DType.STRING, DType.BOOL, DType.UINT16]
)
def test_slices_of_types_that_tensorflow_does_not_join_are_joined(
    tmp_path: Path, dtype: DType
) -> None:
    pieces: dict[int, tuple[list[Any], list[Any]]] = {
        DType.HALF: ([0x3C00, 0x4000], [0x4200, 0x4400]),
        DType.COMPLEX64: ([1, 0, 2, 0], [3, 0, 4, 0]),
        DType.STRING: ([b"1", b"2"], [b"3", b"4"]),
        DType.BOOL: ([1, 0], [0, 1]),
        DType.UINT16: ([1, 2], [3, 4]),
    }
    left, right = pieces[dtype]
    parts = [
        V1Slice([FULL, (1, 1)], tensor_proto(dtype, right)),
        V1Slice([FULL, (0, 1)], tensor_proto(dtype, left)),
    ]
    write_v1(tmp_path / "model", [V1Tensor("x", dtype, [2, 2], parts)])

    checkpoint = tw.load_checkpoint(tmp_path / "model")
    value, row = checkpoint.get_tensor("x"), checkpoint.get_tensor("x", torch.tensor([1]))

    if dtype == DType.STRING:
        assert value == [b"1", b"3", b"2", b"4"]
        assert row == [b"2", b"4"]
    elif dtype == DType.BOOL:
        assert value.tolist() == [[True, False], [False, True]]
        assert row.tolist() == [[False, True]]
    else:
        assert value.tolist() == [[1, 3], [2, 4]]
        assert row.tolist() == [[2, 4]]


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Three files: one tensor in one of them, one across all."""
    tensors = [in_rows("x", 1, 1, 1, files=(2, 0, 1)), whole("y", DType.INT32, [], [-5], file=1)]
    write_v1(tmp_path / "run" / "model", tensors, num_files=3)
    (tmp_path / "run" / "checkpoint").write_text('model_checkpoint_path: "model-?????-of-00003"\n')
    return tmp_path / "run" / "model"


@pytest.mark.parametrize(
    "spelling",
    [
        lambda p: p,
        lambda p: f"{p}-?????-of-00003",
        lambda p: f"{p}-00000-of-00003",
        lambda p: f"{p}-00002-of-00003",
        lambda p: p.parent,
        lambda p: p.parent / "checkpoint",
    ],
    ids=["prefix", "pattern", "first file", "last file", "directory", "state file"],
)
def test_every_way_to_name_a_sharded_checkpoint_finds_it(
    sharded: Path, spelling: Callable[[Path], str | Path]
) -> None:
    checkpoint = tw.load_checkpoint(spelling(sharded))

    assert checkpoint.url == f"{sharded}-?????-of-00003"
    assert checkpoint.get_tensor("x").tolist() == [[0, 1], [2, 3], [4, 5]]
    assert checkpoint.get_tensor("y") == -5
    assert checkpoint.location("x") == TensorLocation(
        ("model-00000-of-00003", "model-00001-of-00003", "model-00002-of-00003"), 3
    )
    assert checkpoint.location("y") == TensorLocation(("model-00001-of-00003",))


def test_the_latest_sharded_checkpoint_is_its_pattern_as_in_tensorflow(sharded: Path) -> None:
    assert tw.latest_checkpoint(sharded.parent) == f"{sharded}-?????-of-00003"


def test_a_missing_file_of_a_sharded_checkpoint_is_told(sharded: Path) -> None:
    Path(f"{sharded}-00001-of-00003").unlink()

    for path in (sharded, f"{sharded}-00002-of-00003", sharded.parent):
        with pytest.raises(CorruptCheckpointError, match="model-00001-of-00003 does not exist"):
            tw.load_checkpoint(path)


def test_of_two_saves_in_different_numbers_of_files_the_complete_one_is_read(sharded: Path) -> None:
    write_v1(sharded, [in_rows("x", 4)], num_files=2)
    Path(f"{sharded}-00001-of-00002").unlink()

    assert tw.load_checkpoint(sharded).url == f"{sharded}-?????-of-00003"


def test_two_complete_saves_of_one_prefix_are_ambiguous(sharded: Path) -> None:
    write_v1(sharded, [in_rows("x", 4)], num_files=1)

    message = r"several checkpoints; pass one: '.*model-\?\?\?\?\?-of-00001', '.*-of-00003'\.$"
    with pytest.raises(CheckpointNotFoundError, match=message):
        tw.load_checkpoint(sharded)


def test_a_file_called_like_the_only_shard_is_read(tmp_path: Path) -> None:
    write_v1(tmp_path / "export", [in_rows("x", 1)], num_files=1)

    assert tw.load_checkpoint(tmp_path / "export-00000-of-00001").get_tensor("x").tolist() == [
        [0, 1]
    ]


@pytest.mark.parametrize("name", ["", "/model", "/model-?????-of-00003", "/model-00001-of-00003"])
def test_a_sharded_checkpoint_is_read_from_a_remote_store(sharded: Path, name: str) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for file in sharded.parent.iterdir():
        memory.pipe(f"/v1/{file.name}", file.read_bytes())

    checkpoint = tw.load_checkpoint(f"memory://v1{name}")
    checkpoint.prefetch(["x", "y"])

    assert checkpoint.get_tensor("x").tolist() == [[0, 1], [2, 3], [4, 5]]


# ---- Paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.ckpt-5", "export", "checkpoint", "we[i]rd*?", "a.data"])
def test_any_file_name_is_read(tmp_path: Path, name: str) -> None:
    write_v1(tmp_path / name, [in_rows("x", 1)])

    assert tw.load_checkpoint(tmp_path / name).get_tensor("x").tolist() == [[0, 1]]


def test_a_state_file_may_name_a_v1_checkpoint(tmp_path: Path) -> None:
    write_v1(tmp_path / "model", [in_rows("x", 1)])
    (tmp_path / "model.meta").write_bytes(b"graph")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model"')

    for path in (tmp_path, tmp_path / "checkpoint", tmp_path / "model.meta"):
        assert tw.load_checkpoint(path).url == f"{tmp_path}/model"
    assert tw.latest_checkpoint(tmp_path) == f"{tmp_path}/model"


def test_v2_wins_over_v1_of_the_same_name(tmp_path: Path) -> None:
    write_v1(tmp_path / "model", [in_rows("x", 1)])
    write_v1(tmp_path / "model", [in_rows("x", 1)], num_files=1)
    write_bundle(tmp_path / "model", [float_entry("x", 5)])
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model"')

    for path in (tmp_path / "model", tmp_path, tmp_path / "checkpoint"):
        assert tw.load_checkpoint(path).spec("x").shape == (5,)


def test_v1_and_v2_may_share_a_directory(tmp_path: Path) -> None:
    write_v1(tmp_path / "model-1", [in_rows("x", 1)])
    write_bundle(tmp_path / "model-2", [float_entry("x", 5)])
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model-2"')

    assert tw.load_checkpoint(tmp_path / "model-1").format == "TensorFlow V1 checkpoint"
    assert tw.load_checkpoint(tmp_path).format == "TensorFlow V2 checkpoint"


def test_a_state_file_that_names_no_table_is_told(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"no table")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model"')

    with pytest.raises(CheckpointNotFoundError, match="names 'model' as the latest checkpoint"):
        tw.load_checkpoint(tmp_path)


def test_the_index_of_a_v2_checkpoint_under_another_name_is_told(tmp_path: Path) -> None:
    write_bundle(tmp_path / "model", [float_entry("x", 5)])
    (tmp_path / "model.index").rename(tmp_path / "export")

    message = (
        r"export is an SSTable, but .*: field 1 has wire type 0 instead of 2\. \(The index of a V2"
    )
    with pytest.raises(CorruptCheckpointError, match=message):
        tw.load_checkpoint(tmp_path / "export")


# ---- Damage ----------------------------------------------------------------------------------


def float_slice(*extents: tuple[int, int], count: int, **options: Any) -> V1Slice:
    return V1Slice(extents, tensor_proto(DType.FLOAT, [0.0] * count), **options)


def float_tensor(shape: list[int], *parts: V1Slice) -> V1Tensor:
    return V1Tensor("x", DType.FLOAT, shape, parts)


LIES = {
    "too few elements": (float_tensor([3], float_slice(FULL, count=2)), "2 elements are stored"),
    "too many elements": (float_tensor([1], float_slice(FULL, count=2)), "2 elements are stored"),
    "a huge shape": (float_tensor([2**40], float_slice(FULL, count=2)), "2 elements are stored"),
    "no slices": (float_tensor([2], float_slice(FULL, count=2, listed=False)), "hold 0 elements"),
    "a slice that is not there": (
        float_tensor([2], float_slice(FULL, count=2, stored=False)),
        r"its slice \(\(0, -1\),\) is not in model",
    ),
    "a gap": (
        float_tensor([3], float_slice((0, 1), count=1), float_slice((2, 1), count=1)),
        "hold 2 elements of 3",
    ),
    "an overlap": (
        float_tensor([3], float_slice((0, 2), count=2), float_slice((1, 1), count=1)),
        "overlap",
    ),
    "a slice listed twice": (
        float_tensor([2, 2], *[float_slice((0, 1), FULL, count=2)] * 2),
        "listed twice",
    ),
    "a slice outside": (float_tensor([3], float_slice((2, 2), count=2)), "lies outside"),
    "a slice of another rank": (float_tensor([2], float_slice(FULL, FULL, count=2)), "rank 2"),
    "half an element": (
        float_tensor([1], V1Slice([FULL], b"\x2a\x05\0\0\0\0\0")),
        "5 bytes are no whole number of float",
    ),
    "a number where an array should be": (
        float_tensor([1], V1Slice([FULL], b"\x28\x05")),
        "field 5 has wire type 0 instead of 5",
    ),
    "a varint without end": (
        V1Tensor("x", DType.INT64, [1], [V1Slice([FULL], b"\x52\x02\x01\x80")]),
        "its last varint has no end",
    ),
    "a varint that is too long": (
        V1Tensor("x", DType.INT64, [1], [V1Slice([FULL], b"\x52\x0b" + b"\x80" * 10 + b"\1")]),
        "a varint is longer than 10 bytes",
    ),
    "a varint longer than a stretch": (
        V1Tensor(
            "x",
            DType.INT64,
            [1],
            [V1Slice([FULL], b"\x52\x81\x80\x20" + b"\x80" * (1 << 19) + b"\1")],
        ),
        "a varint is longer than 10 bytes",
    ),
    "strings that are numbers": (
        V1Tensor("x", DType.STRING, [1], [V1Slice([FULL], b"\x40\x01")]),
        "field 8 has wire type 0 instead of 2",
    ),
    "a TensorProto that ends early": (
        float_tensor([1], V1Slice([FULL], b"\x2a\x04\0")),
        "claims 4 bytes",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_damaged_tensor_is_refused_by_name_and_others_are_read(tmp_path: Path, lie: str) -> None:
    tensor, fact = LIES[lie]
    write_v1(tmp_path / "model", [tensor, in_rows("good", 1)])

    checkpoint = tw.load_checkpoint(tmp_path / "model")

    with pytest.raises(CorruptCheckpointError, match=f"model: tensor 'x' is damaged: .*{fact}"):
        checkpoint.get_tensor("x")
    with pytest.raises(CorruptCheckpointError, match="tensor 'x' is damaged"):
        checkpoint.verify("x")
    assert checkpoint.get_tensor("good").tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("tensor", "fact"),
    [
        (V1Tensor("x", 0, [1], [float_slice(FULL, count=1)]), "unknown dtype number 0"),
        (V1Tensor("x", 250, [1], [float_slice(FULL, count=1)]), "unknown dtype number 250"),
        (float_tensor([-1], float_slice(FULL, count=1)), r"impossible shape \[-1\]"),
    ],
    ids=["no type", "a type of the future", "a negative size"],
)
def test_an_impossible_list_is_refused(tmp_path: Path, tensor: V1Tensor, fact: str) -> None:
    write_v1(tmp_path / "model", [tensor])

    with pytest.raises(CorruptCheckpointError, match=f"tensor 'x' is damaged: {fact}"):
        tw.load_checkpoint(tmp_path / "model")


def test_a_type_that_torch_lacks_is_refused_by_name(tmp_path: Path) -> None:
    write_v1(tmp_path / "model", [V1Tensor("x", DType.VARIANT, [1], [V1Slice([FULL], b"")])])

    with pytest.raises(UnsupportedError, match="'x' is of type variant"):
        tw.load_checkpoint(tmp_path / "model").get_tensor("x")


def test_a_type_that_no_v1_checkpoint_holds_is_refused_by_name(tmp_path: Path) -> None:
    write_v1(tmp_path / "model", [V1Tensor("x", DType.INT4, [1], [V1Slice([FULL], b"")])])

    with pytest.raises(CorruptCheckpointError, match="type int4 is none that a V1 checkpoint"):
        tw.load_checkpoint(tmp_path / "model").get_tensor("x")


def test_files_that_disagree_about_a_tensor_are_refused(tmp_path: Path) -> None:
    tensors = [whole("x", DType.FLOAT, [1], [0]), whole("x", DType.FLOAT, [2], [0, 0], file=1)]
    write_v1(tmp_path / "model", tensors, num_files=2)

    with pytest.raises(CorruptCheckpointError, match="listed twice, with different"):
        tw.load_checkpoint(tmp_path / "model")


def test_a_table_without_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(write_table([(b"a", b"b")]))

    with pytest.raises(
        CorruptCheckpointError, match="list of tensors is not that .*: there is none"
    ):
        tw.load_checkpoint(tmp_path / "model")


def test_every_flipped_bit_of_the_data_is_noticed(tmp_path: Path) -> None:
    write_v1(tmp_path / "model", [whole("x", DType.FLOAT, [8], [1.0] * 8)])
    good = (tmp_path / "model").read_bytes()
    data_size = good.index(encode_block([]) + b"\0")  # what comes before the metaindex block

    for position in range(data_size):
        bad = bytearray(good)
        bad[position] ^= 4
        (tmp_path / "model").write_bytes(bad)
        with pytest.raises(CorruptCheckpointError, match="checksum"):
            tw.load_checkpoint(tmp_path / "model").get_tensor("x")


def test_no_truncation_is_read(tmp_path: Path) -> None:
    write_v1(tmp_path / "model", [in_rows("x", 2)])
    good = (tmp_path / "model").read_bytes()

    for size in range(len(good)):
        (tmp_path / "model").write_bytes(good[:size])
        with pytest.raises(CorruptCheckpointError):
            tw.load_checkpoint(tmp_path / "model", format="tf-v1")


def test_rows_outside_are_refused(tmp_path: Path) -> None:
    write_v1(tmp_path / "model", [in_rows("x", 2)])

    with pytest.raises(SettingsError, match="tensor 'x' has rows 0 to 1"):
        tw.load_checkpoint(tmp_path / "model").get_tensor("x", torch.tensor([2]))


# ---- Warm start ------------------------------------------------------------------------------


def test_a_model_warm_starts_from_v1_through_a_vocabulary_change(tmp_path: Path) -> None:
    tensors = [
        in_rows("words/embeddings", 2, 1),
        whole("out/kernel", DType.FLOAT, [2, 1], [10, 20]),
        whole("out/bias", DType.FLOAT, [1], [30]),
    ]
    write_v1(tmp_path / "model", tensors)
    (tmp_path / "old").write_text("cat\ndog\nowl\n")
    (tmp_path / "new").write_text("owl\ncat\n")
    model = nn.ModuleDict({"words": nn.Embedding(2, 2), "out": nn.Linear(2, 1)})

    settings = tw.WarmStartSettings(
        tmp_path / "model",
        var_name_to_vocab_info={
            "words.weight": tw.VocabInfo(str(tmp_path / "new"), -1, 0, str(tmp_path / "old"))
        },
    )
    tw.warm_start(model, settings)

    assert model["words"].weight.tolist() == [[4, 5], [0, 1]]
    assert model["out"].weight.tolist() == [[10, 20]]
    assert model["out"].bias.tolist() == [30]


# ---- Real TensorFlow -------------------------------------------------------------------------

NUMPY_TYPES = [
    *(np.float16, np.float32, np.float64, np.complex64, np.complex128, np.bool_),
    *(np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16),
]


def assorted_values() -> dict[str, np.ndarray]:
    """Arrays of every type that a V1 Saver takes, of several ranks."""
    generator = np.random.default_rng(1)
    values = {}
    for dtype in NUMPY_TYPES:
        name = np.dtype(dtype).name
        bits = generator.integers(0, 256, 6 * np.dtype(dtype).itemsize, dtype=np.uint8)
        array = bits % 2 == 0 if dtype is np.bool_ else bits.view(dtype)
        if dtype in (np.float16, np.float32, np.float64, np.complex64, np.complex128):
            array = generator.normal(size=6).astype(dtype)
        values[f"{name}/matrix"] = array.reshape(2, 3)
        values[f"{name}/scalar"] = array[0].reshape(())
        values[f"{name}/empty"] = array[:0].reshape(0, 3)
    return values


def save_with_tensorflow(prefix: Path, values: dict[str, Any], **options: Any) -> str:
    from tf_oracle import tf1

    with tf1.Graph().as_default(), tf1.Session() as session:
        for name, value in values.items():
            tf1.get_variable(name, initializer=value, use_resource=False)
        session.run(tf1.global_variables_initializer())
        saver = tf1.train.Saver(write_version=tf1.train.SaverDef.V1, **options)
        path = saver.save(session, str(prefix), write_meta_graph=False)
    return str(path)


@pytest.mark.tensorflow
@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "sharded"])
def test_every_type_that_tensorflow_writes_is_read(tmp_path: Path, sharded: bool) -> None:
    from tf_oracle import tf

    values = assorted_values()
    path = save_with_tensorflow(tmp_path / "model", values, sharded=sharded)
    assert tf.train.latest_checkpoint(str(tmp_path)) == path
    assert tw.latest_checkpoint(tmp_path) == path

    for source in (path, tmp_path, tmp_path / "model"):
        checkpoint = tw.load_checkpoint(source)
        assert sorted(checkpoint) == sorted(values)
        for name, value in values.items():
            read = checkpoint.get_tensor(name)
            assert tuple(read.shape) == value.shape
            assert raw(read) == value.tobytes(), name


@pytest.mark.tensorflow
def test_strings_that_tensorflow_writes_are_read(tmp_path: Path) -> None:
    strings = np.array([[b"a", b""], [b"\x00\xff", b"long" * 100]], dtype=object)
    path = save_with_tensorflow(tmp_path / "model", {"s": strings})

    assert tw.load_checkpoint(path).get_tensor("s") == strings.reshape(-1).tolist()


@pytest.mark.tensorflow
def test_quantized_types_that_tensorflow_writes_are_read(tmp_path: Path) -> None:
    from tf_oracle import tf, tf1

    arrays = {
        "qint8": np.array([-128, 127], np.int8),
        "quint8": np.array([0, 255], np.uint8),
        "qint32": np.array([-(2**31), 2**31 - 1], np.int32),
    }
    with tf1.Graph().as_default(), tf1.Session() as session:
        data = [tf.bitcast(tf.constant(a), getattr(tf, name)) for name, a in arrays.items()]
        session.run(
            tf.raw_ops.SaveSlices(
                filename=str(tmp_path / "model"),
                tensor_names=list(arrays),
                shapes_and_slices=[""] * len(arrays),
                data=data,
            )
        )

    checkpoint = tw.load_checkpoint(tmp_path / "model")

    for name, array in arrays.items():
        assert checkpoint.spec(name).stored_dtype == name
        assert raw(checkpoint.get_tensor(name)) == array.tobytes()


@pytest.mark.tensorflow
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "complex64"])
@pytest.mark.parametrize(("rows", "columns"), [(3, 1), (1, 2), (2, 3)])
def test_partitioned_tensors_that_tensorflow_writes_are_read(
    tmp_path: Path, dtype: str, rows: int, columns: int
) -> None:
    from tf_oracle import tf1

    expected = np.arange(7 * 6).reshape(7, 6).astype(dtype)
    row_sizes = [len(part) for part in np.array_split(np.arange(7), rows)]
    column_sizes = [len(part) for part in np.array_split(np.arange(6), columns)]
    specs, data = [], []
    row = 0
    for height in row_sizes:
        column = 0
        for width in column_sizes:
            specs.append(f"7 6 {row},{height}:{column},{width}")
            data.append(expected[row : row + height, column : column + width])
            column += width
        row += height
    with tf1.Graph().as_default(), tf1.Session() as session:
        save = tf1.raw_ops.SaveSlices(
            filename=str(tmp_path / "model"),
            tensor_names=["x"] * len(data),
            shapes_and_slices=specs,
            data=[tf1.constant(part) for part in data],
        )
        session.run(save)

    checkpoint = tw.load_checkpoint(tmp_path / "model")

    assert checkpoint.location("x").num_slices == rows * columns
    assert raw(checkpoint.get_tensor("x")) == expected.tobytes()
    chosen = torch.tensor([6, 0, 3, 3])
    assert raw(checkpoint.get_tensor("x", chosen)) == expected[[6, 0, 3, 3]].tobytes()


@pytest.mark.tensorflow
@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "sharded"])
def test_a_partitioned_variable_of_a_saver_is_read(tmp_path: Path, sharded: bool) -> None:
    from tf_oracle import tf1

    expected = np.arange(20, dtype=np.float32).reshape(10, 2)
    with tf1.Graph().as_default(), tf1.Session() as session:
        parts = [tf1.constant(expected[:5]), tf1.constant(expected[5:])]
        variable = tf1.get_variable(
            "w", [10, 2], partitioner=tf1.fixed_size_partitioner(2), use_resource=False
        )
        session.run([tf1.assign(v, p) for v, p in zip(variable, parts, strict=True)])
        saver = tf1.train.Saver(write_version=tf1.train.SaverDef.V1, sharded=sharded)
        path = saver.save(session, str(tmp_path / "model"))

    for source in (path, tmp_path):
        assert raw(tw.load_checkpoint(source).get_tensor("w")) == expected.tobytes()


@pytest.mark.tensorflow
def test_the_devices_of_a_sharded_saver_make_several_files(tmp_path: Path) -> None:
    from tf_oracle import tf1

    config = tf1.ConfigProto(device_count={"CPU": 3})
    with tf1.Graph().as_default():
        for number in range(3):
            with tf1.device(f"/cpu:{number}"):
                tf1.get_variable(f"v{number}", initializer=np.float32(number), use_resource=False)
        with tf1.Session(config=config) as session:
            session.run(tf1.global_variables_initializer())
            saver = tf1.train.Saver(write_version=tf1.train.SaverDef.V1, sharded=True)
            path = saver.save(session, str(tmp_path / "model"))
    assert path.endswith("model-?????-of-00003")

    for source in (path, tmp_path, tmp_path / "model", tmp_path / "model-00001-of-00003"):
        checkpoint = tw.load_checkpoint(source)
        assert {key: float(checkpoint.get_tensor(key)) for key in checkpoint} == {
            "v0": 0,
            "v1": 1,
            "v2": 2,
        }


@pytest.mark.tensorflow
def test_tensorflow_reads_what_the_writer_of_these_tests_writes(tmp_path: Path) -> None:
    from tf_oracle import tf1

    tensors = [whole(f"t{n}", d, [len(v)], s) for n, (d, s, v) in enumerate(VALUES[:2])]
    write_v1(tmp_path / "model", [*tensors, whole("i", DType.INT8, [2], [-1, 3])])

    reader = tf1.train.NewCheckpointReader(str(tmp_path / "model"))

    assert reader.get_tensor("t0").tolist() == [1.5, -2, math.inf]
    assert reader.get_tensor("t1").tolist() == [1e300, -0.1]
    assert reader.get_tensor("i").tolist() == [-1, 3]


def test_the_writer_keeps_slices_of_other_files_out() -> None:
    assert len(build_v1([in_rows("x", 1, 1, files=(0, 1))], file=1)) == 2
