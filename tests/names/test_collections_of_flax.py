"""Flax keeps a model's parameters and its running statistics apart, by the same layers' names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.Conv_0 = nn.Conv2d(3, 8, 3, bias=False)
        self.BatchNorm_0 = nn.BatchNorm2d(8)
        self.Dense_0 = nn.Linear(8, 8)


def _tree():
    rng = np.random.default_rng(3)

    def array(*shape):
        return torch.from_numpy(rng.normal(size=shape).astype(np.float32))

    return {
        "params": {
            "Conv_0": {"kernel": array(3, 3, 3, 8)},
            "BatchNorm_0": {"scale": array(8), "bias": array(8)},
            "Dense_0": {"kernel": array(8, 8), "bias": array(8)},
        },
        "batch_stats": {"BatchNorm_0": {"mean": array(8), "var": array(8).abs()}},
    }


def _flat(tree, separator):
    return {
        separator.join((collection, layer, leaf)): value
        for collection, layers in tree.items()
        for layer, leaves in layers.items()
        for leaf, value in leaves.items()
    }


FORMS = {
    "slashes": lambda tree: _flat(tree, "/"),
    "dots": lambda tree: _flat(tree, "."),
    "with a count": lambda tree: {**_flat(tree, "/"), "step": torch.tensor(7)},
    "nested": lambda tree: tree,
    "a training state": lambda tree: {**tree, "opt_state": {"0": {"mu": tree["params"]}}},
}


def _is_of(model, tree):
    params, stats = tree["params"], tree["batch_stats"]["BatchNorm_0"]
    norm, dense = model.BatchNorm_0, model.Dense_0
    pairs = (
        (model.Conv_0.weight, params["Conv_0"]["kernel"].permute(3, 2, 0, 1)),
        (norm.weight, params["BatchNorm_0"]["scale"]),
        (norm.running_mean, stats["mean"]),
        (norm.running_var, stats["var"]),
        (dense.weight, params["Dense_0"]["kernel"].t()),
        (dense.bias, params["Dense_0"]["bias"]),
    )
    return all(torch.equal(found, wanted) for found, wanted in pairs)


@pytest.mark.parametrize("form", FORMS)
def test_both_are_found_and_their_names_leave_no_doubt(form):
    tree, model = _tree(), Net()
    report = tws.warm_start(model, tws.WarmStartSettings(FORMS[form](tree), [".*"]))
    assert _is_of(model, tree)
    assert not report.notes


@pytest.mark.parametrize("form", FORMS)
def test_statistics_that_a_str_leaves_behind_are_warned_of(form):
    plan = tws.plan_warm_start(Net(), FORMS[form](_tree()))
    assert "buffers-left-behind" in [note.code for note in plan.notes]


def test_parameters_alone_have_their_collection_in_front_too():
    tree = {"params": {k: v for k, v in _tree()["params"].items() if k != "BatchNorm_0"}}
    model = nn.ModuleDict({"Conv_0": nn.Conv2d(3, 8, 3, bias=False), "Dense_0": nn.Linear(8, 8)})
    plan = tws.plan_warm_start(model, _flat(tree, "/"))
    assert not plan.notes
    assert not plan.inferred


@pytest.mark.parametrize("stats", [{}, {"seen": {}}], ids=["empty", "nothing in it"])
def test_parameters_beside_empty_statistics_are_alone(stats):
    old, model = nn.Linear(2, 2), nn.Linear(2, 2)
    tws.warm_start(model, {"params": old.state_dict(), "batch_stats": stats})
    assert torch.equal(model.weight, old.weight)


@pytest.mark.parametrize("usual", ["model", "state_dict"])
def test_numbers_of_such_names_beside_a_model_are_others(usual):
    old, model = nn.Linear(2, 2), nn.Linear(2, 2)
    others = {"params": {"lr": torch.tensor(0.1)}, "batch_stats": {"seen": torch.tensor(3)}}
    tws.warm_start(model, {usual: old.state_dict(), **others})
    assert torch.equal(model.weight, old.weight)


def _kernels(*layers):
    return {name: {"kernel": torch.randn(4, 4)} for name in layers}


def _kernel_of(module, tree):
    return torch.equal(module.weight, tree["kernel"].t())


def _linear(*names):
    return nn.ModuleDict({name: nn.Linear(4, 4, bias=False) for name in names})


@pytest.mark.parametrize("names", [("Dense_0",), ("Dense_0", "Dense_1"), ("fc1", "fc2")])
@pytest.mark.parametrize("path", [(), ("model",), ("net",), ("a", "b", "c", "d")])
def test_a_tree_of_layers_is_one_model(names, path):
    tree = _kernels(*names)
    state, model = tree, _linear(*names)
    for key in reversed(path):
        state, model = {key: state}, nn.ModuleDict({key: model})
    tws.warm_start(model, state)
    for key in path:
        model = model[key]
    assert all(_kernel_of(model[name], tree[name]) for name in names)


def test_tensors_beside_layers_are_in_their_tree():
    tree = {"cls": torch.randn(1, 4), "block": {"gain": torch.randn(4), **_kernels("fc")}}
    names = {"cls", "block.gain", "block.fc.kernel"}
    assert set(tws.load_checkpoint(tree)) == names


@pytest.mark.parametrize("usual", ["model", "params"])
def test_a_model_in_its_usual_place_is_meant_and_averages_beside_it_are_told(usual):
    state = {"step": torch.tensor(3), usual: _kernels("fc", "out"), "ema": _kernels("fc", "out")}
    model = _linear("fc", "out")
    report = tws.warm_start(model, state)
    assert _kernel_of(model["fc"], state[usual]["fc"])
    (note,) = report.notes
    assert note.code == "averages-left-behind"
    assert "entry='ema'" in note.text
    tws.warm_start(model, tws.WarmStartSettings(state, entry="ema"))
    assert _kernel_of(model["out"], state["ema"]["out"])


def test_of_two_models_none_is_taken_unasked():
    state = {name: _kernels("a", "b", "c") for name in ("online", "target")}
    with pytest.raises(tws.PlanError, match="'(online|target)/'} or {'/':"):
        tws.warm_start(_linear("a", "b", "c"), state)
    model = _linear("a", "b", "c")
    tws.warm_start(model, tws.WarmStartSettings(state, entry="target"))
    assert _kernel_of(model["b"], state["target"]["b"])


def test_a_model_that_is_a_layer_takes_the_one_there_is():
    model, tree = nn.Linear(4, 4, bias=False), _kernels("fc")
    tws.warm_start(model, tree)
    assert _kernel_of(model, tree["fc"])


def test_mappings_of_whole_names_are_models():
    state = {name: {"fc/kernel": torch.randn(4, 4)} for name in ("model", "other")}
    with pytest.raises(tws.SettingsError, match="in several entries"):
        tws.load_checkpoint(state)
