"""Strings of variable length in HDF5: read without a look at the data, and never for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import torch_warmstart as tw
from torch_warmstart.formats.keras import hdf5
from torch_warmstart.storage import LocalFile

ROWS = 40_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/dense")
        group.attrs["name"] = "my_dense"
        group.create_dataset("kernel", data=np.arange(ROWS, dtype="<f4").reshape(-1, 4))
        group["kernel"].attrs["dtype"] = "float32"
        group.create_dataset("bias", data=np.ones(4, "<f4"))
        file.attrs["backend"] = "tensorflow"
    return path


class Counting(LocalFile):
    """Notes what was asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.asked: list[tuple[int, int]] = []

    def read(self, offset: int, length: int):
        self.asked.append((offset, offset + length))
        return super().read(offset, length)


def data_of(path: Path) -> tuple[int, int]:
    with h5py.File(path) as file:
        offset = file["layers/dense/kernel"].id.get_offset()
    return offset, offset + ROWS * 4


def test_they_are_read_and_the_data_is_not(path: Path) -> None:
    source = Counting(path)
    tree = hdf5.read_tree(source)
    assert tree.texts[""] == {"backend": ["tensorflow"]}
    assert tree.texts["layers/dense"] == {"name": ["my_dense"]}
    assert {d.path: d.marked for d in tree.datasets} == {
        "layers/dense/kernel": "float32",
        "layers/dense/bias": "",
    }
    start, stop = data_of(path)
    inside = [min(b, stop) - max(a, start) for a, b in source.asked if a < stop and b > start]
    assert sum(inside) < 4096


def test_a_file_without_them_is_walked_once(tmp_path: Path) -> None:
    path = tmp_path / "plain.h5"
    with h5py.File(path, "w") as file:
        file.attrs["names"] = np.array([b"a", b"bc"])
        file.create_dataset("x", data=np.zeros(100_000))
    source = Counting(path)
    assert hdf5.read_tree(source).texts[""] == {"names": ["a", "bc"]}
    assert sum(b - a for a, b in source.asked) < 20_000


def heap_of(content: bytes) -> int:
    return content.index(b"GCOL\x01\0\0\0")


def looping(content: bytes, at: int) -> bytes:
    """A heap whose first object has no size, and another number than the one looked for."""
    size = int.from_bytes(content[at + 8 : at + 16], "little")
    return content[at : at + 16] + bytes(size - 16)


def end_of(path: Path) -> subprocess.CompletedProcess[str]:
    """What becomes of opening it, in a process of its own: it may not come back by itself."""
    code = (
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (100, 100))\n"
        "import sys, torch_warmstart as tw\n"
        "try:\n    tw.load_checkpoint(sys.argv[1])\n"
        "except tw.CorruptCheckpointError as error:\n    print(error)\n"
    )
    root = str(Path(tw.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": root, "PATH": ""},
    )


@pytest.mark.parametrize("within", [0, 5_000, ROWS * 4 - 8])
def test_a_heap_in_the_data_of_a_tensor_is_refused(path: Path, within: int) -> None:
    content = bytearray(path.read_bytes())
    heap, (start, _stop) = heap_of(bytes(content)), data_of(path)
    at = start + within
    evil = looping(bytes(content), heap)
    content += bytes(max(0, at + len(evil) - len(content)))
    content[at : at + len(evil)] = evil
    address, lie = heap.to_bytes(8, "little"), at.to_bytes(8, "little")
    assert bytes(content).count(address) > 0
    path.write_bytes(bytes(content).replace(address, lie))
    done = end_of(path)
    assert done.returncode == 0, done.stderr
    words = ("is the data of a tensor", "has no end", "cannot be read as HDF5")
    assert any(word in done.stdout for word in words), done.stdout


def test_a_heap_without_an_end_is_refused(path: Path) -> None:
    content = path.read_bytes()
    at = heap_of(content)
    evil = looping(content, at)
    path.write_bytes(content[:at] + evil + content[at + len(evil) :])
    done = end_of(path)
    assert "has no end" in done.stdout, done.stderr


def test_reads_near_the_data_are_let_through() -> None:
    data = [(1000, 100_000), (200_000, 300_000)]
    near = [(0, 1000), (500, 1512), (100_000, 100_512), (199_900, 200_412), (150_000, 150_001)]
    far = [(1000, 1001), (99_999, 100_000), (0, 4096), (199_999, 203_000), (250_000, 400_000)]
    assert not [read for read in near if hdf5._enters(*read, data)]
    assert [read for read in far if hdf5._enters(*read, data)] == far
