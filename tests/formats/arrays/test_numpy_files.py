"""numpy's files: real ones, and ones that lie."""

from __future__ import annotations

import io
import pickle
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import torch_warmstart as tw
from torch_warmstart.errors import CorruptCheckpointError, UnsupportedError, WarmStartError

DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
]

Put = Callable[[str, bytes], str]


@pytest.fixture(params=["local", "remote"])
def put(request: pytest.FixtureRequest, tmp_path: Path) -> Put:
    """Writes a file, here or behind a URL, and tells where."""

    def write(name: str, data: bytes) -> str:
        if request.param == "remote":
            url = f"memory://{uuid.uuid4().hex}/{name}"
            fsspec.filesystem("memory").pipe(url, data)
            return url
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write


def npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz(*, compressed: bool = False, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def zipped(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in members:
            file.writestr(name, data)
    return buffer.getvalue()


def table(dtype: str = "float32", shape: tuple[int, ...] = (5, 3)) -> Any:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


# ---- Reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_read_whole_and_by_rows(put: Put, dtype: str, order: Any) -> None:
    array = np.asarray(table(dtype), order=order)
    with tw.load_checkpoint(put("emb.npy", npy(array))) as checkpoint:
        assert (checkpoint.family, list(checkpoint)) == ("torch", ["emb"])
        assert checkpoint["emb"].dtype == getattr(torch, dtype)
        whole = checkpoint.get_tensor("emb")
        some = checkpoint.get_tensor("emb", torch.tensor([4, 0, 4]))

    assert whole.numpy().tolist() == array.tolist()
    assert some.numpy().tolist() == array[[4, 0, 4]].tolist()


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (1,), (2, 3, 4)])
def test_every_shape_is_read(put: Put, shape: tuple[int, ...]) -> None:
    url = put("a.npz", npz(a=table(shape=shape)))

    tensor = tw.load_checkpoint(url).get_tensor("a")
    assert tuple(tensor.shape) == shape
    assert tensor.tolist() == table(shape=shape).tolist()


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_of_an_npz_are_read(put: Put, compressed: bool) -> None:
    arrays = {
        "layer/kernel": table(),
        "big": table(">f8"),
        "fortran": np.asfortranarray(table("int16")),
        "step": np.int64(7),
    }
    with tw.load_checkpoint(put("m.npz", npz(compressed=compressed, **arrays))) as checkpoint:
        assert set(checkpoint) == set(arrays)
        for key, array in arrays.items():
            assert checkpoint.get_tensor(key).tolist() == array.tolist()
            checkpoint.verify(key)
        rows = torch.tensor([3, 3, 1])
        assert checkpoint.get_tensor("big", rows).tolist() == arrays["big"][[3, 3, 1]].tolist()


def test_big_endian_arrays_are_read(put: Put) -> None:
    array = table(">c16")
    checkpoint = tw.load_checkpoint(put("a.npy", npy(array)))

    assert checkpoint.get_tensor("a").tolist() == array.tolist()
    assert checkpoint.get_tensor("a", torch.tensor([2])).tolist() == array[[2]].tolist()


def test_a_local_array_is_mapped_and_never_written_to(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy(table()))
    first, second = (tw.load_checkpoint(path).get_tensor("a") for _ in range(2))
    with tw.load_checkpoint(path) as checkpoint:
        views = [checkpoint.view_tensor("a") for _ in range(2)]

    first.zero_()
    assert views[0].data_ptr() == views[1].data_ptr()
    assert second.tolist() == table().tolist()
    assert path.read_bytes() == npy(table())


def test_a_remote_array_is_fetched_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    filesystem = fsspec.filesystem("memory")
    url = f"memory://{uuid.uuid4().hex}/a.npy"
    filesystem.pipe(url, npy(table(shape=(1000, 1000))))
    fetched: list[int] = []
    original = type(filesystem).cat_ranges

    def cat_ranges(self: Any, paths: Any, starts: Any, ends: Any, **options: Any) -> Any:
        fetched.extend(end - start for start, end in zip(starts, ends, strict=True))
        return original(self, paths, starts, ends, **options)

    monkeypatch.setattr(type(filesystem), "cat_ranges", cat_ranges)
    rows = tw.load_checkpoint(url).get_tensor("a", torch.tensor([900, 2]))

    assert rows[:, 0].tolist() == [900_000, 2_000]
    assert sum(fetched) < 200_000


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_header_is_read(put: Put, version: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, table(), version)

    assert tw.load_checkpoint(put("a.npy", buffer.getvalue())).get_tensor("a").shape == (5, 3)


def test_members_that_are_no_arrays_are_left_out(put: Put) -> None:
    data = zipped([("a.npy", npy(table())), ("readme.txt", b"hello")])

    assert list(tw.load_checkpoint(put("a.npz", data))) == ["a"]


def test_a_model_is_warm_started_from_an_npz(put: Put) -> None:
    old, new = nn.Linear(3, 3), nn.Linear(3, 3)
    url = put("m.npz", npz(**{key: value.numpy() for key, value in old.state_dict().items()}))
    tw.warm_start(new, url)

    assert torch.equal(new.weight, old.weight)
    assert torch.equal(new.bias, old.bias)


# ---- Files that lie --------------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('the pickle ran')",))


def test_pickles_are_never_loaded(put: Put) -> None:
    array = np.array([Evil()], dtype=object)
    buffer = io.BytesIO()
    np.savez(buffer, a=array, b=table())
    checkpoint = tw.load_checkpoint(put("m.npz", buffer.getvalue()))

    assert checkpoint.get_tensor("b").tolist() == table().tolist()
    with pytest.raises(UnsupportedError, match="'a' is of type object, which torch cannot hold"):
        checkpoint.get_tensor("a")
    with pytest.raises(WarmStartError):
        tw.load_checkpoint(put("p.npy", pickle.dumps(Evil()))).get_tensor("p")


@pytest.mark.parametrize(
    "content", [{"weight": np.zeros(2)}, [np.zeros(2), np.zeros(3)]], ids=["dict", "list"]
)
def test_a_pickled_npy_is_said_to_be_one(put: Put, content: Any) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array(content, dtype=object), allow_pickle=True)
    url = put("p.npy", buffer.getvalue())
    with pytest.raises(UnsupportedError, match="holds pickled Python objects .* np.savez"):
        tw.load_checkpoint(url)


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.zeros(2, [("x", "f4")]), "structured"),
        (np.array(["a", "b"]), "<U1"),
        (np.array([b"a"]), r"\|S1"),
        (np.zeros(2, "M8[s]"), r"datetime64\[s\]"),
    ],
)
def test_dtypes_that_torch_does_not_have_are_told(put: Put, array: Any, word: str) -> None:
    checkpoint = tw.load_checkpoint(put("a.npy", npy(array)))

    assert checkpoint["a"].dtype is None
    with pytest.raises(UnsupportedError, match=f"'a' is of type {word}, which torch cannot hold"):
        checkpoint.get_tensor("a")


def header(text: str, version: int = 1) -> bytes:
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode()


FIELDS = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}"


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (header(FIELDS) + bytes(7), r"takes 8 bytes behind the header, but 7 are there"),
        (header(FIELDS) + bytes(9), r"takes 8 bytes behind the header, but 9 are there"),
        (header(FIELDS.replace("(2,)", "(1 << 50,)")), "its header is no Python literal"),
        (header(FIELDS.replace("(2,)", f"({1 << 50},)")), "takes 4,503,599,627,370,496 bytes"),
        (header(FIELDS.replace("(2,)", f"(0, {1 << 80})")), "its shape is"),
        (header(FIELDS.replace("(2,)", "(-1, -2)")), r"its shape is \(-1, -2\)"),
        (header(FIELDS.replace("(2,)", "[2]")), r"its shape is \[2\]"),
        (header(FIELDS.replace("(2,)", "(True,)")), r"its shape is \(True,\)"),
        (header(FIELDS.replace("False", "'no'")), "neither C nor Fortran"),
        (header(FIELDS.replace("<f4", "nonsense")), "its dtype is 'nonsense'"),
        (header("__import__('os').abort()"), "its header is"),
        (header("[" * 5000), "its header is"),
        (header("{}"), "does not hold descr"),
        (header(FIELDS, version=2).replace(b"\x02\x00", b"\x09\x00", 1), "version is 9"),
        (header(FIELDS)[:30], "its header is cut off"),
        (header("x" * 20_000, version=2), "its header has 20,000 bytes"),
        (b"\x93NUMPY", "magic bytes"),
    ],
)
def test_a_damaged_array_is_told(put: Put, data: bytes, fact: str) -> None:
    url = put("a.npy", data)
    with pytest.raises(CorruptCheckpointError, match=f"{url} is no valid .npy file: .*({fact})"):
        tw.load_checkpoint(url)
    with pytest.raises(CorruptCheckpointError, match=f"member 'a.npy' is no .*({fact})"):
        tw.load_checkpoint(put("a.npz", zipped([("a.npy", data)])))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(put: Put) -> None:
    data = zipped([("a.npy", npy(table())), ("a.npy", npy(table("int8")))])

    with pytest.raises(CorruptCheckpointError, match=r"two members are called 'a\.npy'"):
        tw.load_checkpoint(put("a.npz", data))


def test_a_zip_bomb_is_refused(put: Put) -> None:
    data = bytearray(zipped([("a.npy", npy(table(shape=(100, 100))))], zipfile.ZIP_DEFLATED))
    at = data.index(b"PK\x01\x02") + 24  # the directory's word for the size in memory
    data[at : at + 4] = (0xFFFF0000).to_bytes(4, "little")

    with pytest.raises(CorruptCheckpointError, match=r"'a\.npy' claims 4,294,901,760 bytes in"):
        tw.load_checkpoint(put("a.npz", bytes(data)))


def test_a_compressed_member_of_another_size_is_told(put: Put) -> None:
    array = npy(np.random.default_rng(0).normal(size=100))
    data = bytearray(zipped([("a.npy", array)], zipfile.ZIP_DEFLATED))
    at = data.index(b"PK\x01\x02") + 24
    for size in (len(array) - 8, len(array) + 8):
        data[at : at + 4] = size.to_bytes(4, "little")
        with pytest.raises(CorruptCheckpointError, match="takes 800 bytes|Bad CRC-32"):
            tw.load_checkpoint(put("a.npz", bytes(data)))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_flipped_bit_is_told(put: Put, compressed: bool) -> None:
    data = bytearray(npz(compressed=compressed, a=np.random.default_rng(0).normal(size=1000)))
    data[4000] ^= 1
    url = put("a.npz", bytes(data))

    with pytest.raises(CorruptCheckpointError, match=r"member 'a\.npy'"):
        tw.load_checkpoint(url).get_tensor("a")
    if not compressed:
        assert tw.load_checkpoint(url, verify=False).get_tensor("a").shape == (1000,)


@given(st.data())
def test_damage_never_ends_in_another_error(data: st.DataObject) -> None:
    compressed = data.draw(st.booleans())
    contents = bytearray(npz(compressed=compressed, a=table(), b=table("int8")))
    for _ in range(data.draw(st.integers(1, 4))):
        contents[data.draw(st.integers(0, len(contents) - 1))] = data.draw(st.integers(0, 255))
    url = f"memory://{uuid.uuid4().hex}/a.npz"
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe(url, bytes(contents[: data.draw(st.integers(0, len(contents)))]))
    try:
        with tw.load_checkpoint(url) as checkpoint:
            for key in checkpoint:
                checkpoint.get_tensor(key)
    except WarmStartError:
        pass
    finally:
        filesystem.rm(url)
