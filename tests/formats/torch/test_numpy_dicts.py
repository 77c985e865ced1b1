"""A mapping of names to numpy arrays in memory is a state_dict too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws

W = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("nested", [False, True])
def test_arrays_are_taken(nested):
    state = {"weight": W, "bias": np.ones(2, dtype=np.float32), "note": "text"}
    model = nn.Linear(3, 2)
    tws.warm_start(model, {"model": state, "epoch": 3} if nested else state)
    assert np.array_equal(model.weight.detach().numpy(), W)


@pytest.mark.parametrize(
    "make",
    [lambda a: a.astype(">f4"), lambda a: a[::-1][::-1], np.asfortranarray],
    ids=["big endian", "strides", "fortran"],
)
def test_whatever_their_memory_is_like(make):
    array = make(W)
    array.setflags(write=False)
    with tws.load_checkpoint({"weight": array}) as checkpoint:
        assert torch.equal(checkpoint.get_tensor("weight"), torch.from_numpy(W))


def test_negative_strides_and_dtypes_that_torch_lacks():
    with tws.load_checkpoint({"w": W[::-1], "s": np.array(["a"])}) as checkpoint:
        assert list(checkpoint) == ["w"]
        assert checkpoint.get_tensor("w").tolist() == W[::-1].tolist()
