"""A format's reader is imported when a file of its kind is opened, and no other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_writer import write_bundle
from formats_helpers import float_entry
from safetensors.torch import save_file

FOLDERS = ("arrays", "huggingface", "keras", "tensorflow", "torch")
_FORMATS = "torch_warmstart.formats."


def _bundle(folder: Path) -> Path:
    write_bundle(folder / "m", [float_entry("x", 2)])
    return folder / "m"


def _safetensors(folder: Path) -> Path:
    save_file({"x": torch.ones(2)}, folder / "m.safetensors")
    return folder / "m.safetensors"


def _huggingface(folder: Path) -> Path:
    save_file({"x": torch.ones(2)}, folder / "model.safetensors")
    return folder


def _torch(folder: Path) -> Path:
    torch.save({"x": torch.ones(2)}, folder / "m.pt")
    return folder / "m.pt"


def _npy(folder: Path) -> Path:
    np.save(folder / "x.npy", np.ones(2))
    return folder / "x.npy"


def _text(folder: Path) -> Path:
    (folder / "x.txt").write_text("a 1 2 3\nb 4 5 6\n")
    return folder / "x.txt"


def _modules_after(code: str) -> set[str]:
    """The readers that a statement brings into an interpreter that has torch."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = f"import torch, sys; import torch_warmstart as tw; {code}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = done.stdout.split()
    assert "h5py" not in found
    inside = (name.removeprefix(_FORMATS) for name in found if name.startswith(_FORMATS))
    return {name for name in inside if name.split(".")[0] in FOLDERS}


@pytest.mark.parametrize(
    ("write", "folder"),
    [(_bundle, "tensorflow"), (_torch, "torch"), (_huggingface, "huggingface"), (_npy, "arrays")],
)
def test_a_file_of_one_format_imports_no_reader_of_another(
    tmp_path: Path, write: Callable[[Path], Path], folder: str
) -> None:
    found = _modules_after(f"tw.load_checkpoint({str(write(tmp_path))!r})")
    assert {name.split(".")[0] for name in found} == {folder}


def test_of_its_own_folder_only_its_reader_is_imported(tmp_path: Path) -> None:
    safetensors = _modules_after(f"tw.load_checkpoint({str(_safetensors(tmp_path))!r})")
    assert safetensors == {"huggingface", "huggingface.safetensors"}
    torch_file = _modules_after(f"tw.load_checkpoint({str(_torch(tmp_path))!r})")
    readers = {"torch.file", "torch.records", "torch.stand_ins", "torch.unpickling"}
    assert torch_file == {"torch", *readers}
    vectors = _modules_after(f"tw.load_checkpoint({str(_text(tmp_path))!r})")
    assert "arrays.text_vectors" in vectors
    assert not {name for name in vectors if name.split(".")[0] != "arrays"}
    bundle = _modules_after(f"tw.load_checkpoint({str(_bundle(tmp_path))!r})")
    assert "tensorflow.v1" not in bundle


def test_a_state_dict_and_a_warm_start_from_one_import_no_reader() -> None:
    start = "m = torch.nn.Linear(2, 3); tw.warm_start(m, m.state_dict())"
    assert _modules_after("tw.load_checkpoint({'x': torch.ones(2)})") == set()
    assert _modules_after(start) == set()
