"""What the ports of whole Keras models share: weights that matter, floats, and comparisons."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

import torch_warmstart as tws

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the import: it logs a page otherwise
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


# -- Keras' side -----------------------------------------------------------------------------------


@contextlib.contextmanager
def floats(keras: Any, dtype: str) -> Iterator[None]:
    """Keras' layers are made with this dtype."""
    policies = keras.mixed_precision
    before = keras.backend.floatx(), policies.global_policy()
    keras.backend.set_floatx(dtype)
    policies.set_global_policy(dtype)
    try:
        yield
    finally:
        keras.backend.set_floatx(before[0])
        policies.set_global_policy(before[1])


def randomise(model: Any, seed: int = 0) -> None:
    """Weights as after some training: no zeros, ones or other starts that hide a mistake."""
    rng = np.random.default_rng(seed)
    model.set_weights([_drawn(rng, w.name, tuple(w.shape)) for w in model.weights])


def _drawn(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    leaf = name.rpartition("/")[2].removesuffix(":0")
    if leaf in ("gamma", "moving_variance"):
        return rng.uniform(0.5, 1.5, shape)
    fan_in = np.prod(shape[:-1]) if len(shape) > 1 and leaf != "bias" else 25
    return rng.normal(0, 1 / np.sqrt(fan_in), shape)


def outputs_by_layer(keras: Any, model: Any, inputs: Any, names: list[str]) -> dict[str, Any]:
    """What layers of a functional model give, by their names."""
    inner = keras.Model(model.inputs, [model.get_layer(name).output for name in names])
    outputs = inner(inputs, training=False)
    return {name: numbers(out) for name, out in zip(names, outputs, strict=True)}


def numbers(tensor: Any) -> np.ndarray:
    """A copy: TensorFlow's own memory is read-only, which torch warns of."""
    return np.array(tensor)


# -- torch's side ----------------------------------------------------------------------------------


def images(dtype: str, *shape: int, seed: int = 1) -> tuple[np.ndarray, torch.Tensor]:
    """The same images channels-last and channels-first."""
    values = np.random.default_rng(seed).normal(size=shape).astype(dtype)
    return values, channels_first(values)


def channels_first(values: Any) -> torch.Tensor:
    return torch.from_numpy(numbers(values)).movedim(-1, 1).contiguous()


def everything(checkpoint: Any, **settings: Any) -> tws.WarmStartSettings:
    """All global variables: the moving statistics of batch norms are among them."""
    return tws.WarmStartSettings(str(checkpoint), [".*"], **settings)


def port(model: nn.Module, checkpoint: Any, **settings: Any) -> tws.WarmStartPlan:
    """Fills a model in one call, every variable of it."""
    plan = tws.plan_warm_start(model, everything(checkpoint, **settings))
    tws.apply_plan(plan)
    kept = [item.name for item in plan.items if item.state == "kept"]
    assert all(name.endswith("num_batches_tracked") for name in kept), kept
    return plan


def assert_agrees(
    model: nn.Module, inputs: Any, outputs: Any, layers: Mapping[str, Any] | None = None
) -> None:
    """To 1e-5 in float32, 1e-10 in float64: what verify_port allows by default."""
    check = tws.verify_port(model, inputs, outputs, layers=layers)
    assert check, str(check)


def relative_error(mine: torch.Tensor, theirs: Any) -> float:
    record = np.asarray(theirs)
    return float(np.abs(mine.detach().numpy() - record).max() / np.abs(record).max())


class PadSame(nn.Module):
    """TensorFlow's SAME for a size that the stride divides: what is odd comes behind."""

    def __init__(self, size: int, stride: int, value: float = 0.0):
        super().__init__()
        total = max(size - stride, 0)
        self.pads, self.value = (total // 2, total - total // 2) * 2, value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x, self.pads, value=self.value)
