"""A checkpoint of very many tensors: opening it and reading one, and listing them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from case import (
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
)

_TENSORS, _QUICK = 100_000, 1_000
_SHAPE = (4, 2)
_OPEN, _LIST = "open, read one", "list all"
_WITHIN = {_OPEN: 1.0, _LIST: 2.0}  # times TensorFlow's time


def _make(case: Parameters, folder: Path) -> dict[str, Any]:
    import checkpoints
    import numpy as np
    from tokens import digest

    keys = _keys(case["tensors"])
    rng = np.random.default_rng(1)
    tensors = dict(
        zip(keys, rng.standard_normal((len(keys), *_SHAPE), dtype=np.float32), strict=True)
    )
    written_by = checkpoints.write_checkpoint(folder, tensors)
    return {
        "checkpoint_by": written_by,
        _OPEN: digest(tensors[_wanted(case)]),
        _LIST: _digest_list([(key, _SHAPE, "float32") for key in keys]),
    }


def _keys(tensors: int) -> list[str]:
    return [f"encoder/layer_{at // 8:05d}/part_{at % 8}/kernel" for at in range(tensors)]


def _wanted(case: Parameters) -> str:
    return _keys(case["tensors"])[case["tensors"] // 2]


def _digest_list(listed: list[tuple[str, tuple[int, ...], str]]) -> str:
    import hashlib

    lines = (f"{key} {list(shape)} {dtype}" for key, shape, dtype in sorted(listed))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _prepare_ours(case: Parameters, folder: Path) -> Prepared:
    from tokens import digest

    import torch_warmstart as tws

    def read_one(prefix: str, key: str) -> Any:
        with tws.load_checkpoint(prefix) as checkpoint:
            return checkpoint.get_tensor(key)

    def list_all(prefix: str) -> Any:
        with tws.load_checkpoint(prefix) as checkpoint:
            return [(key, spec.shape, spec.dtype) for key, spec in checkpoint.items()]

    def named(listed: Any) -> str:
        return _digest_list(
            [(key, shape, str(dtype).removeprefix("torch.")) for key, shape, dtype in listed]
        )

    if case["job"] == _LIST:
        return _prepare(list_all, named, folder)
    return _prepare(
        lambda prefix: read_one(prefix, _wanted(case)), lambda one: digest(one.numpy()), folder
    )


def _prepare_tf(case: Parameters, folder: Path) -> Prepared:
    import tensorflow as tf
    from tokens import digest

    def read_one(prefix: str, key: str) -> Any:
        return tf.train.load_checkpoint(prefix).get_tensor(key)

    def list_all(prefix: str) -> Any:
        reader = tf.train.load_checkpoint(prefix)
        dtypes = reader.get_variable_to_dtype_map()
        shapes = reader.get_variable_to_shape_map()
        return [(key, shape, dtypes[key]) for key, shape in shapes.items()]

    def named(listed: Any) -> str:
        return _digest_list([(key, tuple(shape), dtype.name) for key, shape, dtype in listed])

    if case["job"] == _LIST:
        return _prepare(list_all, named, folder)
    return _prepare(lambda prefix: read_one(prefix, _wanted(case)), digest, folder)


def _prepare(run: Callable[[str], Any], digest: Callable[[Any], str], folder: Path) -> Prepared:
    import checkpoints

    results: list[Any] = []
    return Prepared(
        run=lambda: results.append(run(checkpoints.prefix(folder))),
        result=lambda: digest(results[0]),
        files=checkpoints.files(folder),
    )


_CONTENDERS = {
    OURS: Contender("ours: `load_checkpoint`", _prepare_ours),
    "tf": Contender("TensorFlow's `load_checkpoint`", _prepare_tf, ("tensorflow",)),
}


def _name(tensors: int, job: str) -> str:
    return f"{tensors:,} tensors: {job}"


def _cases(sizes: Sizes) -> list[Case]:
    tensors = sizes.tensors or (_QUICK if sizes.quick else _TENSORS)
    return [
        Case(
            _name(tensors, job),
            {"tensors": tensors, "job": job},
            tuple(_CONTENDERS),
            folder=str(tensors),
            expects=job,
        )
        for job in (_OPEN, _LIST)
    ]


def _judge(summaries: Mapping[str, Summary]) -> list[Verdict]:
    verdicts = []
    for job, within in _WITHIN.items():
        summary = summaries.get(_name(_TENSORS, job))
        if summary:
            target = f"{job}: TensorFlow's time at least {1 / within:g} x ours"
            verdicts.append(at_least(target, summary.times_faster("tf"), 1 / within))
    return verdicts


BENCHMARK = Benchmark(
    title="A checkpoint of very many tensors",
    about=(
        "Opening a TensorFlow checkpoint and reading one small tensor from its middle; and listing "
        "the names, shapes and dtypes of all."
    ),
    contenders=_CONTENDERS,
    cases=_cases,
    make=_make,
    judge=_judge,
    toy=lambda case: case | {"tensors": 10},
)
