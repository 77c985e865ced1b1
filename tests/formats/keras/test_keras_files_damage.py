"""HDF5 files that mean harm."""

from __future__ import annotations

import io
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras_files_helpers import MATRIX, VECTOR, numbered

import torch_warmstart as tw
from torch_warmstart.errors import (
    CorruptCheckpointError,
    UnsupportedError,
    WarmStartError,
)

h5py = pytest.importorskip("h5py")

# ---- Files that mean harm --------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = VECTOR
    (tmp_path / "secret.raw").write_bytes(VECTOR.tobytes())
    return tmp_path


def test_links_are_not_followed(h5: Any, secret: Path) -> None:
    def external(file: Any) -> None:
        file["x"] = h5py.ExternalLink(str(secret / "secret.h5"), "/x")

    def soft(file: Any) -> None:
        file["y"], file["x"] = VECTOR, h5py.SoftLink("/y")

    for fill in (external, soft):
        with pytest.raises(UnsupportedError, match="'x' is a soft or external link"):
            tw.load_checkpoint(h5(fill))


def test_data_in_other_files_is_not_read(h5: Any, secret: Path) -> None:
    def external(file: Any) -> None:
        place = [(str(secret / "secret.raw"), 0, 12)]
        file.create_dataset("x", (3,), "f4", external=place)

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout((3,), "f4")
        layout[:] = h5py.VirtualSource(str(secret / "secret.h5"), "x", (3,))
        file.create_virtual_dataset("x", layout)

    for fill in (external, virtual):
        path = h5(
            lambda file, fill=fill: (
                file.create_group("g"),
                fill(file),
                file.create_dataset("pad", data=MATRIX),
            )
        )
        checkpoint = tw.load_checkpoint(path)
        for rows in (None, torch.tensor([1])):
            with pytest.raises(UnsupportedError, match="'x': its data is in other files"):
                checkpoint.get_tensor("x", rows)


def test_filters_that_could_be_plugins_are_not_run(h5: Any) -> None:
    path = h5(lambda file: file.create_dataset("x", data=MATRIX, scaleoffset=2))

    with pytest.raises(UnsupportedError, match="packed by HDF5 filter 6, which may be a plugin"):
        tw.load_checkpoint(path).get_tensor("x")


def test_groups_in_a_circle_are_walked_once(h5: Any) -> None:
    def fill(file: Any) -> None:
        file["a/x"] = VECTOR
        file["a/again"] = file["a"]
        file["a/root"] = file["/"]
        file["b"] = file["a/x"]

    checkpoint = tw.load_checkpoint(h5(fill))
    assert set(checkpoint) == {"a/x", "b"}
    assert checkpoint["a/x"].storage == checkpoint["b"].storage is not None


def test_groups_nested_too_deep_are_told(h5: Any) -> None:
    path = h5(lambda file: file.create_group("/".join("a" * 500)))

    with pytest.raises(CorruptCheckpointError, match="more than 100 groups within each other"):
        tw.load_checkpoint(path)


@pytest.mark.parametrize(
    "options",
    [
        {"shape": (1 << 40,)},
        {"shape": (1 << 40,), "chunks": (1 << 10,)},
        {"shape": (4,), "maxshape": (None,), "chunks": (1 << 28,), "compression": "gzip"},
    ],
)
def test_sizes_that_a_file_cannot_hold_are_told(h5: Any, options: Any) -> None:
    path = h5(lambda file: file.create_dataset("x", dtype="f4", **options))

    with pytest.raises(CorruptCheckpointError, match=r"'x' claims [\d,]+ bytes in a file of"):
        tw.load_checkpoint(path)


def test_a_chunked_dataset_may_be_larger_than_its_file(h5: Any) -> None:
    path = h5(lambda file: file.create_dataset("x", (1000, 100), "f4", chunks=(10, 100)))

    assert tw.load_checkpoint(path).get_tensor("x").count_nonzero() == 0  # never written


@pytest.mark.parametrize("size", [8, 100, 700, -1])
def test_a_file_cut_off_is_told(h5: Any, size: int) -> None:
    path = h5(lambda file: numbered(file, "layers/dense", MATRIX, VECTOR))
    path.write_bytes(path.read_bytes()[:size])

    with pytest.raises(CorruptCheckpointError, match=f"{path} cannot be read as HDF5"):
        tw.load_checkpoint(path)


def test_an_error_of_the_network_is_not_called_damage(
    h5: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = h5(lambda file: numbered(file, "layers/dense", MATRIX))
    url = f"memory://{uuid.uuid4().hex}/f.h5"
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe(url, path.read_bytes())
    original, calls = type(filesystem).cat_ranges, []

    def cat_ranges(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) > 1:
            raise ConnectionResetError("the other side hung up")
        return original(self, *arguments, **options)

    monkeypatch.setattr(type(filesystem), "cat_ranges", cat_ranges)
    with pytest.raises(Exception, match="the other side hung up") as caught:
        tw.load_checkpoint(url)
    assert not isinstance(caught.value, CorruptCheckpointError)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.data())
def test_damage_never_ends_in_another_error(tmp_path: Path, data: st.DataObject) -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        numbered(file, "layers/dense", MATRIX, VECTOR, name="den")
        file.create_dataset("x", data=MATRIX, chunks=(2, 2), compression="gzip")
    contents = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        contents[data.draw(st.integers(8, len(contents) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "f.h5").write_bytes(contents)
    try:
        with tw.load_checkpoint(tmp_path / "f.h5") as checkpoint:
            checkpoint.full_names()
            for key in checkpoint:
                checkpoint.get_tensor(key)
    except WarmStartError:
        pass
