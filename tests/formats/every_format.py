"""One checkpoint in every format, for tests that hold for all of them."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monolith_writer
import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from bundle_writer import FULL, BundleEntry, DType, write_bundle
from safetensors.torch import save_file
from v1_writer import V1Slice, V1Tensor, tensor_proto, write_v1

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


def _v1(folder: Path) -> str:
    cuts = [(0, 25), (25, 35)]
    written = []
    for key, tensor in tensors().items():
        parts = [
            V1Slice(
                [cut, FULL],
                tensor_proto(DType.FLOAT, tensor[cut[0] : sum(cut)].flatten().tolist()),
            )
            for cut in cuts
        ]
        written.append(V1Tensor(key, DType.FLOAT, tuple(tensor.shape), parts))
    write_v1(folder / "m.ckpt", written)
    return "m.ckpt"


def _legacy(folder: Path) -> str:
    torch.save(tensors(), folder / "m.pt", _use_new_zipfile_serialization=False)
    return "m.pt"


def _keras(folder: Path) -> str:
    _hdf5(folder)
    with zipfile.ZipFile(folder / "m.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {}}))
        archive.write(folder / "m.h5", "model.weights.h5")
    (folder / "m.h5").unlink()
    return "m.keras"


def _npy(folder: Path) -> str:
    np.save(folder / "m.npy", tensors()["part1.weight"].numpy())
    return "m.npy"


def _word2vec(folder: Path) -> str:
    rows = tensors()["part1.weight"].numpy()
    words = [b"w%d %s" % (n, row.tobytes()) for n, row in enumerate(rows)]
    (folder / "m.bin").write_bytes(b"%d %d\n" % rows.shape + b"\n".join(words) + b"\n")
    return "m.bin"


def _hugectr(folder: Path) -> str:
    (folder / "key").write_bytes(np.arange(ROWS, dtype="<i8").tobytes())
    (folder / "emb_vector").write_bytes(tensors()["part1.weight"].numpy().tobytes())
    return ""


def _dynamicemb(folder: Path) -> str:
    rows = tensors()["part1.weight"].numpy()
    for rank in range(2):
        end = f"rank_{rank}.world_size_2"
        keys = np.arange(rank, ROWS, 2, dtype="<i8")
        (folder / f"t_emb_keys.{end}").write_bytes(keys.tobytes())
        (folder / f"t_emb_values.{end}").write_bytes(rows[rank::2].tobytes())
    return ""


def _monolith(folder: Path) -> str:
    rows = tensors()["part1.weight"].tolist()
    dumps = [("adagrad", {1: [0.5] * COLUMNS})]
    monolith_writer.table(
        folder,
        "m",
        [monolith_writer.entry_dump(n, row, dumps, n) for n, row in enumerate(rows)],
        shards=2,
    )
    return ""


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

# Of which most tests have seen enough with those above.
FURTHER: dict[str, Callable[[Path], str]] = {
    "tf-v1": _v1,
    "torch-legacy": _legacy,
    "keras": _keras,
    "npy": _npy,
    "word2vec-bin": _word2vec,
    "hugectr": _hugectr,
    "dynamicemb": _dynamicemb,
    "monolith": _monolith,
}
