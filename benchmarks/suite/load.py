"""A whole model, without vocabularies: many tensors, each as large as its variable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from case import (
    MIB,
    OURS,
    Benchmark,
    Case,
    Contender,
    Parameters,
    Prepared,
    Sizes,
    Summary,
    Verdict,
    at_least,
    at_most,
)

if TYPE_CHECKING:
    import torch

_TENSORS, _QUICK_TENSORS = 200, 20
_BYTES, _QUICK_BYTES = 1000 << 20, 2 << 20
_COLUMNS = 1024
_NAME = "1,000 MiB in 200 tensors"
_FASTER, _WITHIN = 2, 1.3
_UNVERIFIED, _VERIFIED = 0.95, 0.6


def _make(case: Parameters, folder: Path) -> dict[str, Any]:
    import checkpoints
    import numpy as np
    import safetensors.torch
    import torch

    rng = np.random.default_rng(1)
    shape = (case["bytes"] // case["tensors"] // 4 // _COLUMNS, _COLUMNS)
    tensors = {key: rng.standard_normal(shape, dtype=np.float32) for key in _keys(case)}
    written_by = checkpoints.write_checkpoint(folder, tensors)
    state = {key.replace("/", "."): torch.from_numpy(tensor) for key, tensor in tensors.items()}
    safetensors.torch.save_file(state, _safetensors(folder))
    torch.save(state, _torch(folder))
    return {"checkpoint_by": written_by, "sha256": _digest(list(state.values()))}


def _keys(case: Parameters) -> list[str]:
    return [f"block_{at:05d}/kernel" for at in range(case["tensors"])]


def _safetensors(folder: Path) -> Path:
    return folder / "model.safetensors"


def _torch(folder: Path) -> Path:
    return folder / "model.pt"


def _digest(tensors: list[torch.Tensor]) -> str:
    """SHA-256 of all tensors, one after the other: what the data file of the checkpoint has too."""
    whole = hashlib.sha256()
    for tensor in tensors:
        whole.update(tensor.detach().numpy())
    return whole.hexdigest()


def _new_model(case: Parameters) -> torch.nn.Module:
    """A model with all its memory, holding ones."""
    import torch

    rows = case["bytes"] // case["tensors"] // 4 // _COLUMNS
    model = torch.nn.Module()
    for key in _keys(case):
        block = torch.nn.Module()
        block.kernel = torch.nn.Parameter(torch.ones(rows, _COLUMNS))
        model.add_module(key.partition("/")[0], block)
    return model


def _prepare(model: torch.nn.Module, run: Callable[[], object], *files: Path) -> Prepared:
    return Prepared(run, lambda: _digest(list(model.parameters())), files)


def _cold(prepare: Callable[[Parameters, Path], Prepared]) -> Callable[..., Prepared]:
    """The same from files that are read from the disk."""

    def prepare_cold(case: Parameters, folder: Path) -> Prepared:
        prepared = prepare(case, folder)
        return replace(prepared, files=(), cold=prepared.files)

    return prepare_cold


def _prepare_ours(case: Parameters, folder: Path, *, verify: bool = True) -> Prepared:
    import checkpoints

    import torch_warmstart as tws

    model = _new_model(case)

    def run() -> None:
        settings = tws.WarmStartSettings(checkpoints.prefix(folder), verify=verify)
        tws.warm_start(model, settings)

    return _prepare(model, run, *checkpoints.files(folder))


def _prepare_unverified(case: Parameters, folder: Path) -> Prepared:
    return _prepare_ours(case, folder, verify=False)


def _prepare_ours_safetensors(case: Parameters, folder: Path) -> Prepared:
    import torch_warmstart as tws

    model = _new_model(case)
    return _prepare(
        model, lambda: tws.warm_start(model, str(_safetensors(folder))), _safetensors(folder)
    )


def _prepare_tf(case: Parameters, folder: Path) -> Prepared:
    """tf.compat.v1.train.warm_start, whose variables get their memory when they are initialised."""
    import checkpoints
    import tensorflow as tf

    v1 = tf.compat.v1
    graph = tf.Graph()
    shape = [case["bytes"] // case["tensors"] // 4 // _COLUMNS, _COLUMNS]
    with graph.as_default():
        variables = [v1.get_variable(key, shape) for key in _keys(case)]
    session = v1.Session(graph=graph)

    def run() -> None:
        with graph.as_default():
            v1.train.warm_start(checkpoints.prefix(folder))
            session.run(v1.global_variables_initializer())

    def result() -> str:
        whole = hashlib.sha256()
        for variable in variables:
            whole.update(session.run(variable))
        return whole.hexdigest()

    return Prepared(run, result, checkpoints.files(folder), case["bytes"])


def _prepare_safetensors(case: Parameters, folder: Path) -> Prepared:
    import safetensors.torch

    model = _new_model(case)

    def run() -> None:
        model.load_state_dict(safetensors.torch.load_file(_safetensors(folder)))

    return _prepare(model, run, _safetensors(folder))


def _prepare_torch(case: Parameters, folder: Path, *, mmap: bool = False) -> Prepared:
    import torch

    model = _new_model(case)

    def run() -> None:
        model.load_state_dict(torch.load(_torch(folder), weights_only=True, mmap=mmap))

    return _prepare(model, run, _torch(folder))


def _prepare_torch_mapped(case: Parameters, folder: Path) -> Prepared:
    return _prepare_torch(case, folder, mmap=True)


def _prepare_crc(_case: Parameters, folder: Path) -> Prepared:
    """Nothing but one pass of google_crc32c over the mapped data file."""
    import checkpoints
    import google_crc32c
    import numpy as np

    data = np.memmap(checkpoints.data_file(folder), mode="r")
    return Prepared(
        run=lambda: google_crc32c.value(data),
        result=lambda: hashlib.sha256(data).hexdigest(),
        files=checkpoints.files(folder),
    )


_TF, _ST = ("tensorflow",), ("safetensors",)
_CONTENDERS = {
    OURS: Contender("ours, checksums verified", _prepare_ours),
    "ours_unverified": Contender("ours, `verify=False`", _prepare_unverified),
    "ours_safetensors": Contender("ours, from safetensors", _prepare_ours_safetensors, _ST),
    "tf": Contender("TensorFlow's `warm_start`", _prepare_tf, _TF),
    "safetensors": Contender("safetensors `load_file`, then load", _prepare_safetensors, _ST),
    "torch": Contender("`torch.load`, then load", _prepare_torch),
    "torch_mapped": Contender("`torch.load(mmap=True)`, then load", _prepare_torch_mapped),
    "crc": Contender("one CRC-32C pass, nothing loaded", _prepare_crc),
    "ours_cold": Contender("cold files: ours, checksums verified", _cold(_prepare_ours)),
    "unverified_cold": Contender("cold files: ours, `verify=False`", _cold(_prepare_unverified)),
    "safetensors_cold": Contender("cold files: safetensors", _cold(_prepare_safetensors), _ST),
}


def _cases(sizes: Sizes) -> list[Case]:
    tensors = sizes.tensors or (_QUICK_TENSORS if sizes.quick else _TENSORS)
    size = sizes.mebibytes * MIB if sizes.mebibytes else _QUICK_BYTES if sizes.quick else _BYTES
    name = f"{size // MIB:,} MiB in {tensors:,} tensors"
    return [Case(name, {"tensors": tensors, "bytes": size}, tuple(_CONTENDERS), folder="model")]


def _judge(summaries: Mapping[str, Summary]) -> list[Verdict]:
    summary = summaries.get(_NAME)
    if not summary:
        return []
    load, unverified, crc = (
        summary.seconds(one) for one in ("safetensors", "ours_unverified", "crc")
    )
    ours = summary.seconds(OURS)
    off = unverified / load if unverified and load else None
    on = ours / (load + crc) if ours and load and crc else None
    return [
        at_least(
            f"at least {_FASTER} x faster than TensorFlow", summary.times_faster("tf"), _FASTER
        ),
        at_least(
            f"without verification: safetensors' time at least {_UNVERIFIED} x ours",
            1 / off if off else None,
            _UNVERIFIED,
        ),
        at_least(
            f"with it: safetensors' time at least {_VERIFIED} x ours",
            summary.times_faster("safetensors"),
            _VERIFIED,
        ),
        at_most(f"with it within {_WITHIN} x of safetensors and a CRC pass", on, _WITHIN),
        at_least(
            f"cold files, without verification: safetensors' time at least {_UNVERIFIED} x ours",
            summary.times_faster("safetensors_cold", of="unverified_cold"),
            _UNVERIFIED,
        ),
        at_least(
            f"cold files, with it: safetensors' time at least {_VERIFIED} x ours",
            summary.times_faster("safetensors_cold", of="ours_cold"),
            _VERIFIED,
        ),
    ]


BENCHMARK = Benchmark(
    title="A whole model, without vocabularies",
    about=(
        "float32 tensors of 1,024 columns into a model whose parameters exist, from a TensorFlow "
        "checkpoint; safetensors and torch read the same tensors from files of their own formats, "
        "and load them with `load_state_dict`."
    ),
    contenders=_CONTENDERS,
    cases=_cases,
    make=_make,
    judge=_judge,
    toy=lambda _case: {"tensors": 2, "bytes": 16 * _COLUMNS * 4},
    beyond="beyond the model",
)
