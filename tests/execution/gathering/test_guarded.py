"""Moves from memory that may vanish: the same values, and an error of ours where it has."""

import mmap
import os

import numpy as np
import pytest
import torch

import torch_warmstart as tw
from torch_warmstart.execution.gathering import copy_guarded, duplicate, gather_with, guarded
from torch_warmstart.execution.gathering.gather import gather_blocks


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "CHUNK_BYTES", 96)
    monkeypatch.setattr("torch_warmstart.storage.leases.PIECE", 40)


def layouts(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    flat = (torch.arange(240) % 101).to(dtype)
    raw = torch.empty(241 * flat.element_size(), dtype=torch.uint8)
    unaligned = torch.from_numpy(raw.numpy()[1 : 1 + flat.nbytes]).view(torch.uint8)
    unaligned.copy_(flat.view(torch.uint8))
    return {
        "plain": flat.view(12, 20),
        "turned": flat.view(20, 12).t(),
        "three": flat.view(4, 5, 12).permute(2, 0, 1),
        "part": flat.view(15, 16)[2:9, 3:11],
        "stepped": flat.view(15, 16)[::3, ::2],
        "spread": flat[:6].view(6, 1).expand(6, 7),
        "one": flat[3:4].view(1, 1),
        "none": flat[:0].view(0, 5),
        "scalar": flat[7],
    }


DTYPES = [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.uint8]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_copy_is_a_copy_whatever_the_strides(dtype: torch.dtype) -> None:
    for name, source in layouts(dtype).items():
        target = torch.zeros(source.shape, dtype=dtype)
        copy_guarded(source, target)
        assert torch.equal(target, source), name
        assert torch.equal(duplicate(source), source), name


def test_a_copy_casts_as_torch_does() -> None:
    source = torch.linspace(0, 1, 300, dtype=torch.float64).view(30, 10)
    target = torch.zeros(30, 10, dtype=torch.bfloat16)
    copy_guarded(source, target)
    assert torch.equal(target, source.to(torch.bfloat16))


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("name", ["plain", "turned", "part", "stepped"])
def test_rows_go_where_the_gather_puts_them(name: str, dim: int) -> None:
    source = layouts(torch.float32)[name]
    generator = torch.Generator().manual_seed(3)
    remapping = torch.randint(-1, source.shape[dim], (17,), generator=generator)
    shape = [17 if at == dim else size for at, size in enumerate(source.shape)]
    wanted, got = torch.full(shape, 9.0), torch.full(shape, 9.0)
    gather_blocks([(0, source)], remapping, wanted, dim)
    gather_with(is_safe=False)([(0, source)], remapping, got, dim)
    assert torch.equal(got, wanted)


def test_rows_of_blocks_go_there_too() -> None:
    source = layouts(torch.float32)["plain"]
    blocks = [(7, source[7:]), (0, source[:7])]
    remapping = torch.tensor([11, -1, 0, 6, 7, 7])
    wanted, got = torch.zeros(6, 20), torch.zeros(6, 20)
    gather_blocks(blocks, remapping, wanted, 0)
    gather_with(is_safe=False)(blocks, remapping, got, 0)
    assert torch.equal(got, wanted)


@pytest.mark.skipif(os.name == "nt", reason="Windows does not let a mapped file be cut")
def test_what_has_been_cut_is_an_error_and_not_the_end(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(8 * mmap.PAGESIZE))
    with open(path, "r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        source = torch.from_numpy(np.frombuffer(mapping, dtype=np.uint8)).view(8, -1)
        file.truncate(3 * mmap.PAGESIZE)
    target = torch.zeros_like(source)
    with pytest.raises(tw.CorruptCheckpointError, match="has been cut while it was read"):
        copy_guarded(source, target)
    with pytest.raises(tw.CorruptCheckpointError):
        duplicate(source)
    with pytest.raises(tw.CorruptCheckpointError):
        gather_with(is_safe=False)([(0, source)], torch.tensor([7]), target[:1], 0)
