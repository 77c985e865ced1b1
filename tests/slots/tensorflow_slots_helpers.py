"""What the tests of TensorFlow's slots share."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from bundle_writer import BundleEntry, DType
from torch import nn

import torch_warmstart as tws
from torch_warmstart import WarmStartSettings

EVERYTHING = [".*"]


def entry(key, values):
    array = np.asarray(values)
    if array.dtype == np.int64:
        return BundleEntry(key, DType.INT64, array.shape, array.astype("<i8").tobytes())
    return BundleEntry(key, DType.FLOAT, array.shape, array.astype("<f4").tobytes())


class One(nn.Module):
    """One weight that is copied as it is."""

    def __init__(self, shape=(3,)):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(shape))


def powers(steps, betas=(0.9, 0.999)):
    """What TensorFlow has after so many steps: multiplied and rounded each time."""
    values = []
    for beta in betas:
        value = np.float32(beta)
        for _ in range(steps):
            value = np.float32(value * np.float32(beta))
        values.append(value)
    return dict(zip(("beta1_power", "beta2_power"), values, strict=True))


def start(prefix, optimizer=torch.optim.Adam, model=None, **options):
    model = model or One()
    settings = {k: options.pop(k) for k in list(options) if k.startswith(("var_", "on_"))}
    made = optimizer(model.parameters(), **options)
    report = tws.warm_start(
        model, WarmStartSettings(prefix, EVERYTHING, **settings), optimizer=made
    )
    (parameter, *_) = model.parameters()
    return SimpleNamespace(
        model=model, optimizer=made, report=report, state=dict(made.state[parameter])
    )


M, V = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]
ADAM = {"w": [0.0, 0.0, 0.0], "w/Adam": M, "w/Adam_1": V, **powers(5)}
