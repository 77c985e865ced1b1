"""Variables that a program of TensorFlow 2 keeps side by side are no tensors of one layer."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tensorflow as tf
import torch
from torch import nn

import torch_warmstart as tws


def saved(path, tables, **others):
    """A checkpoint of `tf.train.Checkpoint(user=..., item=..., ...)`, and its tables."""
    values = {name: np.random.rand(5, 2).astype("float32") for name in tables}
    variables = {name: tf.Variable(value) for name, value in values.items()}
    checkpoint = tf.train.Checkpoint(**variables, **others)
    return checkpoint.save(str(path / "c")), values


@pytest.mark.parametrize("renamed", [False, True])
def test_at_the_root_of_a_checkpoint(tmp_path, renamed):
    step = tf.Variable(3, dtype=tf.int64)
    url, values = saved(tmp_path, ["user", "item"], step=step, offset=tf.Variable([1.0]))
    name = "articles" if renamed else "item"
    model = nn.ModuleDict({name: nn.Embedding(5, 2)})
    rules = {"articles.weight": "item"} if renamed else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tws.warm_start(model, tws.WarmStartSettings(url, var_name_to_prev_var_name=rules))
    assert torch.equal(model[name].weight, torch.from_numpy(values["item"]))


@pytest.mark.parametrize(("beside", "is_lost"), [("offset", False), ("scale", True)])
def test_as_attributes_of_a_module(tmp_path, beside, is_lost):
    module = tf.Module()
    module.item = tf.Variable(np.ones((5, 2), "float32"))
    setattr(module, beside, tf.Variable([2.0, 3.0]))
    url = tf.train.Checkpoint(towers=module).save(str(tmp_path / "c"))
    model = nn.ModuleDict({"towers": nn.ModuleDict({"item": nn.Embedding(5, 2)})})
    if is_lost:
        with pytest.raises(tws.PlanError, match="towers/scale.*scales the weight"):
            tws.warm_start(model, url)
    else:
        tws.warm_start(model, url)
        assert model["towers"]["item"].weight.eq(1).all()
