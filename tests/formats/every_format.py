"""One checkpoint in every format, for tests that hold for all of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from bundle_writer import FULL, BundleEntry, DType, write_bundle
from safetensors.torch import save_file

ROWS, COLUMNS, TENSORS = 60, 8, 6


def tensors() -> dict[str, torch.Tensor]:
    return {
        f"part{n}.weight": torch.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS).float() + 1000 * n
        for n in range(TENSORS)
    }


def _bundle(folder: Path) -> str:
    cuts = [(0, 20), (20, 10), (30, 30)]
    entries = [
        BundleEntry(
            key,
            DType.FLOAT,
            tuple(tensor.shape),
            slices=[([cut, FULL], tensor[cut[0] : sum(cut)].numpy().tobytes()) for cut in cuts],
        )
        if n % 2
        else BundleEntry(
            key, DType.FLOAT, tuple(tensor.shape), tensor.numpy().tobytes(), shard=n % 4 // 2
        )
        for n, (key, tensor) in enumerate(tensors().items())
    ]
    write_bundle(folder / "m", entries, num_shards=2)
    return "m.index"


def _safetensors(folder: Path) -> str:
    save_file(tensors(), folder / "m.safetensors")
    return "m.safetensors"


def _sharded(folder: Path) -> str:
    weight_map = {}
    for n, key in enumerate(tensors()):
        name = f"model-{n // 2}.safetensors"
        weight_map[key] = name
        save_file({k: v for k, v in tensors().items() if weight_map.get(k) == name}, folder / name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    return index.name


def _torch(folder: Path) -> str:
    torch.save(tensors(), folder / "m.pt")
    return "m.pt"


def _dcp(folder: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no process group
        dcp.save(tensors(), checkpoint_id=str(folder))
    return ".metadata"


def _numpy(save: Any) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        save(folder / "m.npz", **{key: tensor.numpy() for key, tensor in tensors().items()})
        return "m.npz"

    return write


def _hdf5(folder: Path) -> str:
    import h5py

    with h5py.File(folder / "m.h5", "w") as file:
        for n, (key, tensor) in enumerate(tensors().items()):
            file.create_dataset(key, data=tensor.numpy(), chunks=(7, COLUMNS) if n % 2 else None)
    return "m.h5"


def _text(folder: Path) -> str:
    rows = tensors()["part1.weight"].tolist()
    lines = [f"w{n} {' '.join(map(str, row))}\n" for n, row in enumerate(rows)]
    (folder / "m.txt").write_text("".join(lines))
    return "m.txt"


WRITERS: dict[str, Callable[[Path], str]] = {
    "tf-v2": _bundle,
    "safetensors": _safetensors,
    "hf": _sharded,
    "torch": _torch,
    "dcp": _dcp,
    "npz": _numpy(np.savez),
    "npz-compressed": _numpy(np.savez_compressed),
    "hdf5": _hdf5,
    "text": _text,
}
