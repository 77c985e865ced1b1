"""safetensors files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from formats_helpers import assert_read_or_refused, raw
from safetensors.torch import save_file

import torch_warmstart as tw
from torch_warmstart.errors import (
    CorruptCheckpointError,
    MissingTensorError,
    SettingsError,
    UnsupportedError,
)

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
if hasattr(torch, "float8_e8m0fnu"):  # from torch 2.7 on
    DTYPES["F8_E8M0"] = torch.float8_e8m0fnu


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def write(path: Path, header: dict[str, Any] | bytes, data: bytes = b"") -> None:
    """Writes a file from its header, which need not be a good one."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_a_file_made_by_hand_is_read(path: Path) -> None:
    data = bytes.fromhex("0000803f 00000040 0100 ffff")
    write(path, {"w": entry("F32", [2], 0, 8), "n": entry("I16", [1, 2], 8, 12)}, data)
    with tw.load_checkpoint(path) as checkpoint:
        assert sorted(checkpoint) == ["n", "w"]
        assert (checkpoint.family, checkpoint.format) == ("torch", "safetensors file")
        assert checkpoint.get_tensor("w").tolist() == [1.0, 2.0]
        assert checkpoint.get_tensor("n").tolist() == [[1, -1]]
        assert checkpoint.spec("n").shape == (1, 2)
        assert checkpoint.spec("n").stored_dtype == "I16"


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_is_read_whole_and_by_rows(path: Path, name: str) -> None:
    full = torch.tensor([[0, 1], [1, 1], [1, 0]]).to(DTYPES[name])
    save_file({"x": full}, path)
    checkpoint = tw.load_checkpoint(path)

    assert checkpoint.spec("x").dtype == DTYPES[name]
    assert checkpoint.spec("x").stored_dtype == name
    assert raw(checkpoint.get_tensor("x")) == raw(full)
    rows = checkpoint.get_tensor("x", torch.tensor([2, 0]))
    assert raw(rows) == raw(torch.tensor([[1, 0], [0, 1]]).to(DTYPES[name]))


def test_a_type_torch_cannot_hold_is_listed_but_not_read(path: Path) -> None:
    write(path, {"x": entry("F6_E2M3", [4], 0, 3), "w": entry("U8", [1], 3, 4)}, b"abcc")
    checkpoint = tw.load_checkpoint(path)

    assert checkpoint.spec("x").dtype is None
    assert checkpoint.get_tensor("w").tolist() == [99]
    with pytest.raises(UnsupportedError, match="'x' is of type F6_E2M3, which torch cannot hold"):
        checkpoint.get_tensor("x")


def test_scalars_and_empty_tensors_are_read(path: Path) -> None:
    save_file({"scalar": torch.tensor(3.0), "empty": torch.empty(0, 4)}, path)
    checkpoint = tw.load_checkpoint(path)

    assert checkpoint.get_tensor("scalar").item() == 3
    assert checkpoint.get_tensor("empty").shape == (0, 4)


def test_bad_rows_are_refused(path: Path) -> None:
    save_file({"x": torch.zeros(2)}, path)

    with pytest.raises(SettingsError, match="rows lie between -1 and 0, but tensor 'x' has rows 0"):
        tw.load_checkpoint(path).get_tensor("x", torch.tensor([0, -1]))


def test_a_missing_key_is_told_with_near_names(path: Path) -> None:
    save_file({"layer.weight": torch.zeros(2)}, path)
    checkpoint = tw.load_checkpoint(path)

    assert "layer.bias" not in checkpoint
    with pytest.raises(MissingTensorError, match="Did you mean 'layer.weight'"):
        checkpoint.spec("layer.weigth")


def test_tensors_outlive_their_checkpoint_and_leave_the_file_alone(path: Path) -> None:
    save_file({"x": torch.arange(4000.0)}, path)
    before = path.read_bytes()
    with tw.load_checkpoint(path) as checkpoint:
        tensor = checkpoint.get_tensor("x")
    del checkpoint
    assert tensor[3999] == 3999
    tensor.fill_(-1)

    assert path.read_bytes() == before


def test_the_metadata_entry_is_no_tensor(path: Path) -> None:
    save_file({"x": torch.zeros(2)}, path, metadata={"format": "pt"})
    checkpoint = tw.load_checkpoint(path)

    assert list(checkpoint) == ["x"]
    assert checkpoint.metadata() is None


@pytest.mark.parametrize("name", ["model.bin", "checkpoint", "we[i]rd*?"])
def test_a_file_name_says_nothing(tmp_path: Path, name: str) -> None:
    save_file({"x": torch.ones(2)}, tmp_path / name)

    assert tw.load_checkpoint(tmp_path / name).get_tensor("x").tolist() == [1, 1]


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"{nonsense", b""),
        (b"{" * 5000, b""),
        ({"x": entry("F32", [2], 0, 4)}, bytes(4)),
        ({"x": entry("F32", [2], 0, 8)}, bytes(4)),
        ({"x": entry("F32", [2], 0, 8)}, bytes(12)),
        ({"x": entry("F32", [2], 4, 12)}, bytes(12)),
        ({"x": entry("F32", [1 << 62, 8], 0, 8)}, bytes(8)),
        ({"x": entry("WHAT", [2], 0, 8)}, bytes(8)),
        ({"x": {"dtype": "F32"}}, b""),
        ({"x": entry("F32", [2], 0, 8), "y": entry("F32", [2], 4, 12)}, bytes(12)),
    ],
    ids=[
        "no json",
        "deep json",
        "size",
        "cut data",
        "more data",
        "hole",
        "overflow",
        "dtype",
        "fields",
        "overlap",
    ],
)
def test_a_damaged_header_is_told(path: Path, header: Any, data: bytes) -> None:
    write(path, header, data)

    with pytest.raises(CorruptCheckpointError, match=rf"{path} is not a valid safetensors file: "):
        tw.load_checkpoint(path)


def test_a_header_longer_than_the_file_is_told(path: Path) -> None:
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")

    with pytest.raises(CorruptCheckpointError, match="its header would be longer than the file"):
        tw.load_checkpoint(path)


@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_a_flipped_byte_is_read_or_an_error_of_ours(path: Path, mask: int) -> None:
    save_file({"w": torch.arange(3.0), "b": torch.arange(2)}, path)
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])
        assert_read_or_refused(path)


def test_a_file_cut_off_anywhere_is_an_error_of_ours(path: Path) -> None:
    save_file({"w": torch.arange(3.0), "b": torch.arange(2)}, path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(CorruptCheckpointError):
            tw.load_checkpoint(path)
