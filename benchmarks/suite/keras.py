"""Keras files: HDF5 of Keras 2 and of Keras 3, against h5py."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from case import (
    MIB,
    OURS,
    Benchmark,
    Case,
    Contender,
    LeftOutError,
    Parameters,
    Prepared,
    Sizes,
    Summary,
    Verdict,
    at_least,
)

if TYPE_CHECKING:
    import torch

_TABLES, _COLUMNS = 8, 64
_BYTES, _QUICK_BYTES = 512 * MIB, 1 * MIB
_KINDS = {"h5": ".h5", "weights": ".weights.h5"}
_AS_FAST = 1.0  # as h5py and a copy


def _make(case: Parameters, folder: Path) -> dict[str, Any]:
    """Keras writes them itself: what lies where in such a file is its own."""
    os.environ["KERAS_BACKEND"] = "torch"
    try:
        import keras
    except ImportError as error:
        raise LeftOutError("keras not installed, which writes the files") from error
    import numpy as np

    rng, layers = np.random.default_rng(6), []
    for at in range(_TABLES):
        layer = keras.layers.Embedding(case["rows"], _COLUMNS, name=f"table_{at}")
        layer.build((None, None))
        layer.set_weights([rng.standard_normal((case["rows"], _COLUMNS), dtype=np.float32)])
        layers.append(layer)
    entry = keras.Input((_TABLES,), dtype="int32")
    looked_up = [layer(entry[:, at]) for at, layer in enumerate(layers)]
    model = keras.Model(entry, keras.layers.Concatenate()(looked_up))
    path = _file(case, folder)
    model.save_weights(path) if case["kind"] == "weights" else model.save(path)
    whole = hashlib.sha256()
    for layer in layers:
        whole.update(layer.get_weights()[0])
    return {"keras": keras.__version__, "sha256": whole.hexdigest()}


def _file(case: Parameters, folder: Path) -> Path:
    return folder / f"model{_KINDS[case['kind']]}"


def _prepare(case: Parameters, folder: Path, run: Callable[[Any], object]) -> Prepared:
    import torch

    tables = {f"table_{at}": torch.nn.Embedding(case["rows"], _COLUMNS) for at in range(_TABLES)}
    model = torch.nn.ModuleDict(tables)

    def result() -> str:
        whole = hashlib.sha256()
        for parameter in model.parameters():
            whole.update(parameter.detach().numpy())
        return whole.hexdigest()

    return Prepared(lambda: run(model), result, [_file(case, folder)])


def _prepare_ours(case: Parameters, folder: Path) -> Prepared:
    import torch_warmstart as tws

    return _prepare(case, folder, lambda model: tws.warm_start(model, _file(case, folder)))


def _by_hand(
    case: Parameters, folder: Path, fill: Callable[[torch.Tensor, Any], object]
) -> Prepared:
    """A loop over the tables, whose place in the file is known."""
    import h5py

    paths = {
        "h5": lambda at: f"model_weights/table_{at}/table_{at}/embeddings",
        "weights": lambda at: f"layers/embedding{f'_{at}' if at else ''}/vars/0",
    }

    def run(model: torch.nn.ModuleDict) -> None:
        with h5py.File(_file(case, folder)) as file:
            for at in range(_TABLES):
                weight = model[f"table_{at}"].weight.detach()
                fill(weight, file[paths[case["kind"]](at)])

    return _prepare(case, folder, run)


def _prepare_copied(case: Parameters, folder: Path) -> Prepared:
    import torch

    return _by_hand(case, folder, lambda weight, found: weight.copy_(torch.from_numpy(found[()])))


def _prepare_direct(case: Parameters, folder: Path) -> Prepared:
    return _by_hand(case, folder, lambda weight, found: found.read_direct(weight.numpy()))


_CONTENDERS = {
    OURS: Contender("ours", _prepare_ours, ("h5py",)),
    "h5py": Contender("h5py, then a copy", _prepare_copied, ("h5py",)),
    "direct": Contender("h5py's `read_direct` into the parameter", _prepare_direct, ("h5py",)),
}


def _name(kind: str, size: int) -> str:
    return f"{_KINDS[kind]}, {size // MIB:,} MiB"


def _cases(sizes: Sizes) -> list[Case]:
    size = sizes.mebibytes * MIB if sizes.mebibytes else _QUICK_BYTES if sizes.quick else _BYTES
    rows = size // _TABLES // _COLUMNS // 4
    return [
        Case(_name(kind, size), {"kind": kind, "rows": rows}, tuple(_CONTENDERS), folder=kind)
        for kind in _KINDS
    ]


def _judge(summaries: Mapping[str, Summary]) -> list[Verdict]:
    return [
        at_least(
            f"{_KINDS[kind]}: the time of {_CONTENDERS[peer].label} at least {_AS_FAST} x ours",
            summaries[_name(kind, _BYTES)].times_faster(peer),
            _AS_FAST,
        )
        for kind in _KINDS
        if _name(kind, _BYTES) in summaries
        for peer in ("h5py", "direct")
    ]


BENCHMARK = Benchmark(
    title="Keras files",
    about=f"{_TABLES} tables of {_COLUMNS} columns, float32, as Keras 3 writes them. By hand means "
    "to know where in the file each is.",
    contenders=_CONTENDERS,
    cases=_cases,
    make=_make,
    judge=_judge,
    toy=lambda case: {**case, "rows": 64},
    beyond="beyond the model",
)
