"""A directory of Hugging Face's that has TensorFlow's weights alone."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws

WIDTH = 4


def block() -> nn.ModuleDict:
    return nn.ModuleDict({"attention": nn.ModuleDict({"query": nn.Linear(WIDTH, WIDTH)})})


def bert() -> nn.ModuleDict:
    encoder = nn.ModuleDict({"layer": nn.ModuleList([block(), block()])})
    return nn.ModuleDict({"embeddings": nn.Embedding(9, WIDTH), "encoder": encoder})


@pytest.fixture
def directory(tmp_path):
    tensors = {"embeddings/weight:0": np.random.rand(9, WIDTH)}
    for number in range(2):
        base = f"encoder/layer_._{number}/attention/query"
        tensors[f"{base}/kernel:0"] = np.random.rand(WIDTH, WIDTH)
        tensors[f"{base}/bias:0"] = np.random.rand(WIDTH)
    with h5py.File(tmp_path / "tf_model.h5", "w") as file:
        file.attrs["layer_names"] = [b"bert"]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.9.0"
        group = file.create_group("bert")
        group.attrs["weight_names"] = [f"tf_model/bert/{name}".encode() for name in tensors]
        for name, values in tensors.items():
            group[f"tf_model/bert/{name}"] = values.astype("f4")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return tmp_path, tensors


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: nn.ModuleDict({"bert": m})])
def test_its_layers_are_the_models(directory, wrap):
    path, tensors = directory
    model = bert()
    tws.warm_start(wrap(model), path)
    for number, layer in enumerate(model["encoder"]["layer"]):
        query = layer["attention"]["query"]
        kernel = tensors[f"encoder/layer_._{number}/attention/query/kernel:0"]
        assert np.allclose(query.weight.detach().numpy(), kernel.T)
    assert np.allclose(model["embeddings"].weight.detach().numpy(), tensors["embeddings/weight:0"])


def test_torchs_weights_come_first(directory):
    path, _ = directory
    model = bert()
    torch.save(model.state_dict(), path / "pytorch_model.bin")
    with tws.load_checkpoint(path) as checkpoint:
        assert checkpoint.url.endswith("pytorch_model.bin")


def test_the_bias_of_gpt2s_linear_layer_has_one_row(tmp_path):
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
    kernel, bias = np.random.rand(WIDTH, WIDTH), np.random.rand(1, WIDTH)
    with h5py.File(tmp_path / "tf_model.h5", "w") as file:
        file.attrs["layer_names"], file.attrs["backend"] = [b"h"], b"tensorflow"
        group = file.create_group("h")
        group.attrs["weight_names"] = [b"tf_model/h/c_attn/weight:0", b"tf_model/h/c_attn/bias:0"]
        group["tf_model/h/c_attn/weight:0"] = kernel.astype("f4")
        group["tf_model/h/c_attn/bias:0"] = bias.astype("f4")
    model = nn.ModuleDict({"h": nn.ModuleDict({"c_attn": conv1d(WIDTH, WIDTH)})})
    tws.warm_start(model, tmp_path / "tf_model.h5")
    assert np.allclose(model["h"]["c_attn"].weight.detach().numpy(), kernel)
    assert np.allclose(model["h"]["c_attn"].bias.detach().numpy(), bias[0])
