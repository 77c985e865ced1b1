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
