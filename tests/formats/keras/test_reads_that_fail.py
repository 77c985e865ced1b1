"""A read that fails within h5py leaves nothing behind that ends the process when it exits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

# Errors that are kept keep what their tracebacks hold: h5py's, which must not outlive Python.
PROGRAM = """
import sys
import torch_warmstart as tws
from torch_warmstart.formats.keras import hdf5

path, whole, kept, left = sys.argv[1], hdf5.SourceFile.readinto, [], 0

def readinto(self, buffer):
    global left
    left -= 1
    if left < 0:
        raise tws.StorageError("no connection")
    return whole(self, buffer)

hdf5.SourceFile.readinto = readinto
for number in range(60):
    left = number
    try:
        with tws.load_checkpoint(path) as checkpoint:
            checkpoint.get_tensor("chunked")
        break
    except tws.StorageError as error:
        kept.append(error)
print(len(kept))
"""


def test_the_process_ends_as_others_do_whichever_read_fails(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("chunked", data=np.arange(480.0).reshape(60, 8), chunks=(7, 8))
        file.create_group("g").attrs["names"] = ["a", "b"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 5 < int(done.stdout) < 60
