"""TensorFlow V1 checkpoints that are damaged or lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_writer import FULL, DType, encode_block, write_table
from v1_helpers import in_rows
from v1_writer import V1Slice, V1Tensor, tensor_proto, whole, write_v1

import torch_warmstart as tw
from torch_warmstart.errors import (
    CorruptCheckpointError,
    SettingsError,
    UnsupportedError,
)

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
