"""Where the real checkpoints are, and TensorFlow's own reading of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_warmstart as tws

VARIABLE = "TORCH_WARMSTART_CHECKPOINTS"
FOLDER = Path(os.environ.get(VARIABLE, ""))

needs_checkpoints = pytest.mark.skipif(
    VARIABLE not in os.environ, reason=f"{VARIABLE} names no folder of real checkpoints"
)


def tf_weights(path: str, dtype: str = "float32") -> Callable[[str], Any]:
    """The tensors of a checkpoint by name, as TensorFlow itself reads them.

    A path of an object-based checkpoint need not spell the suffix that TensorFlow gives its keys.
    """
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(FOLDER / path))
    keys = reader.get_variable_to_dtype_map()

    def read(name: str) -> Any:
        key = name if name in keys else f"{name}/.ATTRIBUTES/VARIABLE_VALUE"
        return tf.cast(reader.get_tensor(key), dtype)

    return read


def port(model: torch.nn.Module, path: str, **settings: Any) -> tws.WarmStartReport:
    """Warm-starts a model, every parameter of it, from a real checkpoint."""
    report = tws.warm_start(model, tws.WarmStartSettings(str(FOLDER / path), **settings))
    states = {account.name: account.state for account in report.variables}
    kept = [n for n, _ in model.named_parameters() if states[n] == "kept"]
    assert kept == list(report.missing_keys), report
    return report


def assert_agrees(model: torch.nn.Module, inputs: Any, expected: Any, **more: Any) -> tws.PortCheck:
    """Fails with the table of all layers unless a port computes what was recorded."""
    check = tws.verify_port(model, inputs, expected, **more)
    assert check, f"\n{check}"
    return check


def random_batch(*shape: int, seed: int = 0) -> np.ndarray:
    """Inputs of a model."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def channels_first(images: np.ndarray) -> np.ndarray:
    """TensorFlow's images as torch has them."""
    return np.ascontiguousarray(np.moveaxis(images, -1, 1))
