"""Activations that are layers of a Sequential are those of the layers before them."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from torch import nn

import torch_warmstart as tws
from torch_warmstart.formats.keras.configs import with_activations


def layer(kind, **options):
    return {"class_name": kind, "config": options}


def sequential(*layers):
    return layer("Sequential", layers=list(layers))


DENSE = layer("Dense", activation="linear")


def activations(model):
    made = with_activations(copy.deepcopy(model))["config"]["layers"]
    return [each["config"].get("activation") for each in made]


@pytest.mark.parametrize(
    ("behind", "found"),
    [
        ([layer("Activation", activation="gelu")], "gelu"),
        ([layer("Dropout", rate=0.5), layer("ReLU", max_value=None)], "relu"),
        ([layer("ReLU", max_value=6.0, negative_slope=0.0)], "relu6"),
        ([layer("Softmax", axis=-1)], "softmax"),
        ([layer("ReLU", max_value=[7])], layer("ReLU", max_value=[7])),
        ([layer("ReLU", negative_slope=0.1)], layer("ReLU", negative_slope=0.1)),
        ([layer("Softmax", axis=1)], layer("Softmax", axis=1)),
        ([layer("Dropout", rate=0.1), layer("ELU", alpha=0.5)], layer("ELU", alpha=0.5)),
        ([layer("UnitNormalization", axis=-1)], layer("UnitNormalization", axis=-1)),
        ([layer("PReLU")], "linear"),  # which has weights of its own
        ([layer("Activation", activation={"class_name": "function"})], "linear"),
        ([layer("BatchNormalization"), layer("Activation", activation="relu")], "linear"),
        ([layer("Dense", activation="relu")], "linear"),
        ([], "linear"),
        (["no layer", 7, None], "linear"),
    ],
)
def test_what_stands_behind_a_layer(behind, found):
    made = with_activations(copy.deepcopy(sequential(DENSE, *behind)))["config"]["layers"]
    assert made[0]["config"]["activation"] == found
    assert made[1:] == behind


def test_a_layers_own_and_those_of_others_stay():
    relu = layer("Activation", activation="relu")
    assert activations(sequential(layer("Dense", activation="tanh"), relu))[0] == "tanh"
    assert activations(sequential(layer("LSTM", activation="linear"), relu))[0] == "linear"
    graph = layer("Functional", layers=[DENSE, relu])
    assert with_activations(graph) is graph
    inner = with_activations(sequential(sequential(DENSE, relu)))["config"]["layers"][0]
    assert inner["config"]["layers"][0]["config"]["activation"] == "relu"
    old = {"class_name": "Sequential", "config": [DENSE, relu]}  # of Keras 2.2
    assert with_activations(old)["config"][0]["config"]["activation"] == "relu"


def test_models_within_models_without_end_are_left():
    model = sequential(DENSE)
    for _ in range(5_000):
        model = sequential(model)
    assert with_activations(model) is model


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", ["keras", "tf_keras"])
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_another_one_in_torch_is_told(library, suffix, tmp_path: Path):
    keras = pytest.importorskip(library)
    pytest.importorskip("h5py")
    layers = keras.layers
    parts = [layers.Input((4,)), layers.Dense(4, name="0"), layers.Activation("gelu")]
    keras.Sequential([*parts, layers.Dense(3, name="2")]).save(tmp_path / f"m.{suffix}")

    def audits(activation):
        model = nn.Sequential(nn.Linear(4, 4), activation, nn.Linear(4, 3))
        return tws.plan_warm_start(model, tmp_path / f"m.{suffix}").audits

    assert audits(nn.GELU()) == ()
    (told,) = audits(nn.ReLU())
    assert "nn.ReLU (1) follows it; the file says activation='gelu'" in str(told)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", ["keras", "tf_keras"])
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_one_that_is_a_layer_with_an_option_is_told_too(library, suffix, tmp_path: Path):
    keras = pytest.importorskip(library)
    pytest.importorskip("h5py")
    layers = keras.layers

    def audits(theirs, ours):
        parts = [layers.Input((4,)), layers.Dense(4, name="0"), theirs]
        keras.Sequential([*parts, layers.Dense(3, name="2")]).save(tmp_path / f"m.{suffix}")
        between = [] if ours is None else [ours]
        model = nn.Sequential()
        parts = [nn.Linear(4, 4), *between, nn.Linear(4, 3)]
        for name, part in zip("012" if between else "02", parts, strict=True):
            model.add_module(name, part)
        found = map(str, tws.plan_warm_start(model, tmp_path / f"m.{suffix}").audits)
        return [audit for audit in found if "the file says" in audit]

    assert audits(layers.LeakyReLU(0.3), nn.LeakyReLU(0.3)) == []
    assert audits(layers.ELU(0.5), nn.ELU(0.5)) == []
    assert audits(layers.ReLU(negative_slope=0.1), nn.LeakyReLU(0.1)) == []
    assert audits(layers.ReLU(max_value=2.0), nn.Hardtanh(0.0, 2.0)) == []
    (told,) = audits(layers.LeakyReLU(0.3), nn.LeakyReLU())
    assert "negative_slope=0.01 follows it; the file says activation='LeakyReLU'" in told
    assert "Make it nn.LeakyReLU(negative_slope=0.3)" in told
    (told,) = audits(layers.ELU(0.5), nn.ELU())
    assert "Make it nn.ELU(alpha=0.5)" in told
    (told,) = audits(layers.ELU(0.5), None)
    assert "Put nn.ELU(alpha=0.5) between them" in told
    (told,) = audits(layers.UnitNormalization(), None)
    assert "the file says activation='UnitNormalization'. Put what it does between" in told
