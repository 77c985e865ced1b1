"""Situations of the field that came out wrong, or were said otherwise, by layouts and slots."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bundle_writer import write_random_bundle
from torch import nn

import torch_warmstart as tws


@pytest.mark.parametrize("is_frozen", [False, True])
def test_frozen_biases_of_an_lstm_are_said_to_be_the_same(is_frozen, tmp_path):
    model = nn.ModuleDict({"lstm": nn.LSTM(3, 2)})
    if is_frozen:
        model["lstm"].bias_hh_l0.requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    shapes = {"kernel": (3, 8), "recurrent_kernel": (2, 8), "bias": (8,)}
    tensors = {f"lstm/{name}": shape for name, shape in shapes.items()}
    slots = {
        f"{name}/{slot}": shape for name, shape in tensors.items() for slot in ("Adam", "Adam_1")
    }
    counts = {"global_step": ()}
    write_random_bundle(tmp_path / "c", tensors | slots | counts)
    settings = tws.WarmStartSettings(str(tmp_path / "c"), on_missing="keep")
    plan = tws.plan_warm_start(model, settings, optimizer=optimizer)
    told = [str(note) for note in plan.notes if "bias_hh" in str(note)]
    assert bool(told) is not is_frozen, [str(note) for note in plan.notes]
    assert all("requires_grad" in note for note in told)


@pytest.mark.parametrize("end", ["gamma", "layer_norm/layer_norm_bias"])
def test_what_differs_in_long_names_is_shown(end, tmp_path):
    names = "abcdef"
    deep = "very/long/path/that/goes/on/and/on/for/ever"
    arrays = {f"transformer/{n}/{deep}/{end}": np.ones(4, "f4") for n in names}
    np.savez(tmp_path / "m.npz", **arrays)
    model = nn.ModuleDict({n: nn.ParameterDict({"w": nn.Parameter(torch.zeros(4))}) for n in names})
    rules = {f"{n}.w": key for n, key in zip(names, arrays, strict=True)}
    settings = tws.WarmStartSettings(str(tmp_path / "m.npz"), ".*", None, rules)
    text = str(tws.plan_warm_start(model, settings))
    rows = [line for line in text.splitlines() if "..." in line or deep in line]
    assert len(set(rows)) == len(rows)
    sources = [row.split(None, 1)[1] for row in rows]
    assert len(set(sources)) == len(names), text


def test_a_layer_that_is_known_is_not_said_to_be_without_a_name(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        folder = file.create_group("layers/batch_normalization")
        folder.create_group("vars")
        folder["vars"].attrs["name"] = "bn"
        for number in range(3):  # of four: one of gamma and beta, and the statistics
            folder["vars"][str(number)] = np.ones(4, "f4")
    model = nn.ModuleDict({"bn": nn.BatchNorm1d(4)})
    settings = tws.WarmStartSettings(str(tmp_path / "m.weights.h5"), [".*"])
    with pytest.raises(tws.PlanError) as error:
        tws.plan_warm_start(model, settings)
    text = str(error.value)
    assert "does not say what its layers are called" not in text
    assert "layer 'bn'" in text
    named = ("weight", "running_mean", "running_var")
    rules = {f"bn.{name}": f"layers/batch_normalization/vars/{at}" for at, name in enumerate(named)}
    settings = tws.WarmStartSettings(str(tmp_path / "m.weights.h5"), [".*"], None, rules)
    report = tws.warm_start(model, settings)  # what is the weight is not offered for the bias
    assert report["bn.bias"].state == "kept"
