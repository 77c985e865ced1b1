"""safetensors behind URLs: only the header and what is asked for is fetched, and all is checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from remote_files import Requests, put, remote, requests
from safetensors.torch import save

import torch_warmstart as tw
from torch_warmstart.errors import CorruptCheckpointError, WarmStartError

__all__ = ["remote", "requests"]  # fixtures

DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32),
    *(torch.uint64, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2),
]


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def file_of(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str, shape: list[Any], start: Any, stop: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.fixture(params=["local", "remote"])
def write(request: pytest.FixtureRequest, tmp_path: Path, remote: str) -> Any:
    """Writes a file and returns its path or URL."""

    def to_file(data: bytes) -> str:
        if request.param == "remote":
            return put(f"{remote}/m.safetensors", data)
        (tmp_path / "m.safetensors").write_bytes(data)
        return str(tmp_path / "m.safetensors")

    return to_file


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_is_read_whole_and_by_rows(write: Any, dtype: torch.dtype) -> None:
    full = torch.tensor([[0, 1], [1, 1], [1, 0]]).to(dtype)
    checkpoint = tw.load_checkpoint(write(save({"odd": torch.ones(1).bool(), "x": full})))

    assert checkpoint.spec("x").dtype == dtype
    assert raw(checkpoint.get_tensor("x")) == raw(full)
    rows = checkpoint.get_tensor("x", torch.tensor([2, 0, 2]))
    assert (rows.dtype, raw(rows)) == (dtype, raw(full.view(3, 2)[[2, 0, 2]]))


def test_a_tensor_at_an_odd_offset_is_read(write: Any) -> None:
    header = {"a": entry("U8", [1], 0, 1), "b": entry("F32", [2, 1], 1, 9)}
    values = torch.tensor([[1.5], [2.5]])
    checkpoint = tw.load_checkpoint(write(file_of(header, b"\x07" + raw(values))))

    assert checkpoint.get_tensor("b").tolist() == [[1.5], [2.5]]
    assert checkpoint.get_tensor("b").data_ptr() % 4 == 0
    assert checkpoint.get_tensor("b", torch.tensor([1])).tolist() == [[2.5]]


def test_scalars_and_empty_tensors_are_read(write: Any) -> None:
    state = {"s": torch.tensor(3.0), "e": torch.empty(0, 4), "z": torch.empty(5, 0)}
    checkpoint = tw.load_checkpoint(write(save(state)))

    assert checkpoint.get_tensor("s").item() == 3
    assert checkpoint.get_tensor("e").shape == (0, 4)
    assert checkpoint.get_tensor("z", torch.tensor([4, 4])).shape == (2, 0)
    assert checkpoint.get_tensor("e", torch.empty(0, dtype=torch.int64)).shape == (0, 4)


def test_only_what_is_asked_for_is_fetched(remote: str, requests: Requests) -> None:
    state = {"big": torch.rand(100_000, 8), "small": torch.rand(4)}
    url = put(f"{remote}/m.safetensors", save(state))
    checkpoint = tw.load_checkpoint(url)
    checkpoint.spec("big")
    assert requests.nbytes < 1500

    rows = torch.tensor([99_999, 3, 50_000, 4])
    assert torch.equal(checkpoint.get_tensor("big", rows), state["big"][rows])
    assert requests.nbytes < 1500 + 200
    assert torch.equal(checkpoint.get_tensor("small"), state["small"])
    assert requests.nbytes < 1500 + 200 + 100


def test_tensors_are_fetched_together(remote: str, requests: Requests) -> None:
    state = {f"w{number:02}": torch.rand(1000) for number in range(30)}
    checkpoint = tw.load_checkpoint(put(f"{remote}/m.safetensors", save(state)))
    before = len(requests.ranges)
    checkpoint.prefetch(list(state))
    assert len(requests.ranges) == before + 1

    assert all(torch.equal(checkpoint.get_tensor(key), state[key]) for key in state)
    assert len(requests.ranges) == before + 1


def test_a_model_is_warm_started_from_a_url(remote: str) -> None:
    url = put(f"{remote}/m.safetensors", save(torch.nn.Linear(3, 2).state_dict()))
    model = torch.nn.Linear(3, 2)
    tw.warm_start(model, url)

    assert torch.equal(model.weight, tw.load_checkpoint(url).get_tensor("weight"))


def test_tensors_outlive_their_checkpoint(write: Any) -> None:
    url = write(save({"x": torch.arange(4000.0)}))
    with tw.load_checkpoint(url) as checkpoint:
        tensor = checkpoint.get_tensor("x")
    tensor.fill_(-1)

    assert tw.load_checkpoint(url).get_tensor("x")[3999] == 3999


# ---- What is wrong -----------------------------------------------------------------------------

GOOD = entry("F32", [2], 0, 8)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"{nonsense", b"", "its header is not JSON: "),
        (b"{" * 5000, b"", "its header is not JSON: "),
        (b'{"a":' * 99_999, b"", "its header is not JSON: "),
        (b'{"a":"\xff"}', b"", "its header is not JSON: "),
        (b'{"a":' + b"9" * 5000 + b"}", b"", "its header is not JSON: "),
        ({"x": [1]}, b"", "its header has no dict for 'x'"),
        ({"x": {"dtype": "F32"}}, b"", "tensor 'x' has shape None and data_offsets None"),
        ({"x": entry("WHAT", [2], 0, 8)}, bytes(8), "dtype 'WHAT', which is none of the format's"),
        ({"x": entry("F32", [-2], 0, 8)}, bytes(8), r"tensor 'x' has shape \[-2\] and data_off"),
        ({"x": entry("F32", [2.0], 0, 8)}, bytes(8), r"tensor 'x' has shape \[2\.0\] and"),
        ({"x": entry("F32", [True], 0, 4)}, bytes(4), r"tensor 'x' has shape \[True\] and"),
        ({"x": entry("U8", [1] * 65, 0, 1)}, bytes(1), r"tensor 'x' has shape \[1, 1, "),
        ({"x": entry("F32", [2], 8, 0)}, bytes(8), "'x' of F32 and shape .2. has -8 bytes"),
        ({"x": entry("F32", [2], 0, 4)}, bytes(4), "'x' of F32 and shape .2. has 4 bytes"),
        ({"x": entry("F32", [1 << 62] * 64, 0, 8)}, bytes(8), "has the impossible shape"),
        ({"x": entry("F4", [3], 0, 2)}, bytes(2), "'x' of F4 and shape .3. has 2 bytes"),
        ({"x": GOOD}, bytes(4), "its tensors end at byte 77, the file at 73"),
        ({"x": GOOD}, bytes(12), "its tensors end at byte 77, the file at 81"),
        ({"x": entry("F32", [2], 4, 12)}, bytes(12), "'x' begins at offset 4, where the one"),
        ({"x": GOOD, "y": entry("F32", [2], 4, 12)}, bytes(12), "'y' begins at offset 4, where"),
        (b'{"x":' + json.dumps(GOOD).encode() + b',"x":3}', bytes(8), "its header has 'x' twice"),
    ],
)
def test_a_damaged_header_is_told(write: Any, header: Any, data: bytes, message: str) -> None:
    with pytest.raises(
        CorruptCheckpointError, match=rf"is not a valid safetensors file: .*{message}"
    ):
        tw.load_checkpoint(write(file_of(header, data)))


def test_a_header_longer_than_the_format_allows_is_told(tmp_path: Path) -> None:
    with (tmp_path / "m.safetensors").open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little") + b"{")
        file.truncate(200_000_000)

    with pytest.raises(CorruptCheckpointError, match="its header would have 100,000,001 bytes"):
        tw.load_checkpoint(tmp_path / "m.safetensors")


@pytest.mark.parametrize("mask", [0x01, 0x04, 0x80])
def test_a_flipped_byte_of_the_header_is_read_or_an_error_of_ours(write: Any, mask: int) -> None:
    data = save({"w": torch.arange(3.0), "b": torch.arange(2)}, metadata={"format": "pt"})
    length = 8 + int.from_bytes(data[:8], "little")
    for at in range(0, length, 2):
        url = write(data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])
        try:
            checkpoint = tw.load_checkpoint(url)
            assert sum(checkpoint.get_tensor(key).nbytes for key in checkpoint) <= len(data)
        except WarmStartError:
            pass


def test_a_file_cut_off_anywhere_is_an_error_of_ours(write: Any) -> None:
    data = save({"w": torch.arange(3.0), "b": torch.arange(2)})
    for length in range(0, len(data), 3):
        with pytest.raises(CorruptCheckpointError):
            tw.load_checkpoint(write(data[:length]))
