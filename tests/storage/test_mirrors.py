"""Where what is fetched is kept: a file without a name, its owner's alone."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from remote_files import put, remote

import torch_warmstart as tw
from torch_warmstart.storage import Storage

__all__ = ["remote"]  # a fixture
posix = pytest.mark.skipif(sys.platform == "win32", reason="files have names there")


def descriptors(folder: Path) -> list[int]:
    """The open files of this process that lie in a folder."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing is gone by now
            if os.readlink(f"/proc/self/fd/{name}").startswith(f"{folder}/"):
                found.append(int(name))
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_it_is_private_nameless_and_where_tempfile_says(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = Storage(max_gap=0).open(put(f"{remote}/f", bytes(1 << 20)))
    source.read(1000, 10)
    assert os.listdir(tmp_path) == []
    found = [os.fstat(file) for file in descriptors(tmp_path)]
    assert found
    for state in found:
        assert stat.S_IMODE(state.st_mode) == 0o600
        assert state.st_nlink == 0
        assert state.st_blocks * 512 < 1 << 16  # what nobody asked for takes no room
    del found
    source.close()
    assert descriptors(tmp_path) == []


@posix
def test_no_room_for_it_is_our_error(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Storage().open(put(f"{remote}/f", bytes(100)))

    def no_more(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(tempfile, "TemporaryFile", no_more)
    with pytest.raises(tw.StorageError, match="Too many open files"):
        source.read(0, 10)


def test_no_directory_for_it_is_not_taken_for_no_checkpoint(
    remote: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in a container whose files are all read-only: who starts anew without one must know."""
    url = put(f"{remote}/m.npy", bytes(100))

    def none_usable() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none_usable)
    with pytest.raises(tw.StorageError) as told:
        tw.load_checkpoint(url)
    assert str(told.value) == (
        f"{url} cannot be read, as no copy of it can be kept here: No usable temporary directory "
        "found in ['/tmp']. Set mirror_dir to a directory that may be written into."
    )
    assert bytes(Storage(mirror_dir=tmp_path).open(url).read(0, 100)) == bytes(100)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_it_lies_where_the_user_says(remote: str, tmp_path: Path) -> None:
    source = Storage(mirror_dir=tmp_path).open(put(f"{remote}/f", bytes(1000)))
    source.read(0, 1000)
    assert len(descriptors(tmp_path)) > 0
    source.close()
    assert descriptors(tmp_path) == []


def test_it_takes_no_more_room_than_the_user_says(remote: str) -> None:
    storage = Storage(max_gap=0, mirror_limit=1000)
    one = storage.open(put(f"{remote}/one", bytes(900)))
    other = storage.open(put(f"{remote}/other", b"x" * 900))
    one.read(0, 600)
    one.read(0, 500)  # nothing is kept twice
    with pytest.raises(tw.StorageError, match=r"600 more bytes .* mirror_limit=1,000 .* 600 are"):
        other.read(0, 600)
    assert bytes(other.read(0, 400)) == b"x" * 400
    one.close()
    assert bytes(other.read(0, 900)) == b"x" * 900


def test_a_warm_start_above_the_limit_changes_nothing(remote: str) -> None:
    from safetensors.torch import save

    model = torch.nn.Linear(8, 8)
    before = model.weight.detach().clone()
    url = put(f"{remote}/m.safetensors", save({"weight": torch.ones(8, 8), "bias": torch.ones(8)}))
    with pytest.raises(tw.StorageError, match="mirror_limit=300"):
        tw.warm_start(model, tw.WarmStartSettings(url, mirror_limit=300))
    assert torch.equal(model.weight, before)
    tw.warm_start(model, tw.WarmStartSettings(url, mirror_limit=10_000))
    assert model.weight.detach().eq(1).all()


@pytest.mark.parametrize(
    ("field", "value"), [("mirror_dir", "/no/such/place"), ("mirror_limit", "1 GB")]
)
def test_settings_that_cannot_be_are_refused(field: str, value: str) -> None:
    with pytest.raises(tw.SettingsError, match=field):
        tw.WarmStartSettings("x", **{field: value})
