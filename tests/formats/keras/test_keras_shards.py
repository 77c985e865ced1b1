"""Weights that Keras 3 saves in several files, and an index that lists them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws

pytest.importorskip("h5py")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model of Keras's, the index of its shards, and all in one file."""
    keras = pytest.importorskip("keras")
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((6, 8)),
            layers.LSTM(8, return_sequences=True, name="rnn"),
            layers.Dense(64, name="up"),
            layers.Dense(8, name="down"),
            layers.BatchNormalization(name="norm"),
        ]
    )
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, w.shape) for w in model.get_weights()])
    folder = tmp_path_factory.mktemp("shards")
    model.save_weights(folder / "m.weights.json", max_shard_size=2.5e-6)
    model.save_weights(folder / "m.weights.h5")
    assert len(list(folder.glob("m_*.weights.h5"))) > 2
    return model, folder


def twin():
    layers = {
        "rnn": nn.LSTM(8, 8, batch_first=True),
        "up": nn.Linear(8, 64),
        "down": nn.Linear(64, 8),
        "norm": nn.BatchNorm1d(8, 1e-3, 0.01),
    }
    return nn.ModuleDict(layers).eval()


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_they_are_one_checkpoint(saved):
    model, folder = saved
    with (
        tws.load_checkpoint(folder / "m.weights.json") as parts,
        tws.load_checkpoint(folder / "m.weights.h5") as whole,
    ):
        assert set(parts) == set(whole)
        assert {**parts.full_names()} == {**whole.full_names()}
        for key in whole:
            assert torch.equal(parts.get_tensor(key), whole.get_tensor(key))
        rows = parts.get_tensor("layers/dense/vars/0", rows=[3, 1])
        assert torch.equal(rows, whole.get_tensor("layers/dense/vars/0")[[3, 1]])
    ported = twin()
    tws.warm_start(ported, tws.WarmStartSettings(folder / "m.weights.json", [".*"]))
    x = np.random.default_rng(1).normal(size=(2, 6, 8)).astype("float32")
    found = ported["down"](ported["up"](ported["rnn"](torch.tensor(x))[0]))
    found = ported["norm"](found.transpose(1, 2)).transpose(1, 2)
    assert np.abs(found.detach().numpy() - np.asarray(model(x))).max() < 1e-4


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [2.1e-6, 2.5e-6, 4e-6, 1.0])
def test_however_they_are_cut(size, saved, tmp_path):
    model, folder = saved
    model.save_weights(tmp_path / "m.weights.json", max_shard_size=size)
    with (
        tws.load_checkpoint(tmp_path / "m.weights.json") as parts,
        tws.load_checkpoint(folder / "m.weights.h5") as whole,
    ):
        assert set(parts) == set(whole)
        assert all(torch.equal(parts.get_tensor(k), whole.get_tensor(k)) for k in whole)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("entry", "error", "said"),
    [
        ({"/no/vars": ["m_00000.weights.h5"]}, tws.CorruptCheckpointError, "'/no/vars' is in m_0"),
        ({"/no/vars": ["no.weights.h5"]}, FileNotFoundError, "no.weights.h5"),
        ({"/no/vars": ["../m.weights.h5"]}, tws.WarmStartError, "m.weights.h5"),
        ({"/no/vars": [7]}, tws.CorruptCheckpointError, "weight_map"),
        ({"/no/vars": []}, tws.CorruptCheckpointError, "weight_map"),
        ({"/no/vars": {}}, tws.CorruptCheckpointError, "weight_map"),
        ({"no": ["m_00000.weights.h5"]}, tws.CorruptCheckpointError, "weight_map"),
    ],
)
def test_an_index_that_is_not_so(entry, error, said, saved, tmp_path):
    _, folder = saved
    for shard in folder.glob("m_*.weights.h5"):
        (tmp_path / shard.name).write_bytes(shard.read_bytes())
    index = json.loads((folder / "m.weights.json").read_text())
    index["weight_map"] |= entry
    path = tmp_path / "m.weights.json"
    path.write_text(json.dumps(index))
    with pytest.raises((error, tws.WarmStartError), match=said):
        tws.load_checkpoint(path)
