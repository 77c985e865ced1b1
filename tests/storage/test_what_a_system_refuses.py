"""What the system refuses a process: descriptors, rights, sizes of files, its own directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import torch_warmstart as tws
from torch_warmstart.storage import LOCAL

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits are POSIX's")

# Sees to it that the file cannot be leased, and so is copied by a system call.
LIMITED = """
import resource, sys, torch
import torch_warmstart as tws
written_to = open(sys.argv[1], "r+b")
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (10_007, hard))
model = torch.nn.Embedding(20_000, 3)
tws.warm_start(model, sys.argv[1])
print(bool((model.weight[:, 2] == torch.arange(20_000)).all()))
"""


def written(path: Path) -> Path:
    np.savez(path, weight=np.arange(20_000, dtype=np.float32).repeat(3).reshape(-1, 3))
    return path


def test_who_may_write_small_files_only_reads_large_ones(tmp_path: Path) -> None:
    """What is copied through memory is a file to the system; it is cut into smaller pieces."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(written(tmp_path / "m.npz"))],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(tws.__file__).parents[1])},
        check=False,
    )
    assert done.stdout == "True\n", done.stderr[-2000:]


def test_what_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, what the system says of it, and a directory."""
    path = written(tmp_path / "m.npz")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    for name, where in (("open", path), ("stat", path), ("listdir", tmp_path)):
        with monkeypatch.context() as patched:
            patched.setattr(f"os.{name}", refuse)
            with pytest.raises(tws.StorageError) as told:
                LOCAL.list_directory(str(where)) if name == "listdir" else LOCAL.read_all(str(path))
        assert str(told.value) == f"{where} cannot be read: Permission denied."


def test_a_working_directory_that_is_gone_takes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(tws.SettingsError, match=r"x\.pt cannot be written: No such file"):
        tws.convert({"a": torch.ones(2)}, "x.pt")
    assert not tmp_path.joinpath("x.pt").exists()
