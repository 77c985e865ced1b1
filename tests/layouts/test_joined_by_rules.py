"""Several tensors that a rule names for one weight: each below the one before."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws

WIDTH, HEADS = 6, 2
NAMES = ("query", "key", "value")
KERNELS = {name: torch.randn(WIDTH, WIDTH) for name in NAMES}  # [in, out], and square
BIASES = {name: torch.randn(WIDTH) for name in NAMES}
WEIGHT = torch.cat([KERNELS[name].T for name in NAMES])
BIAS = torch.cat([BIASES[name] for name in NAMES])


def rules(weight, bias="bias", layer="qkv"):
    leaves = {"weight": weight, "bias": bias}
    return {
        f"{layer}.{ours}": [f"att/{name}/{theirs}" for name in NAMES]
        for ours, theirs in leaves.items()
        if theirs
    }


def keras(split=False):
    found = {}
    for name in NAMES:
        kernel, bias = KERNELS[name], BIASES[name]
        if split:
            kernel, bias = kernel.reshape(WIDTH, HEADS, -1), bias.reshape(HEADS, -1)
        found |= {f"att/{name}/kernel": kernel, f"att/{name}/bias": bias}
    return found


def model(layer=None):
    return nn.ModuleDict({"qkv": layer or nn.Linear(WIDTH, 3 * WIDTH)})


def started(source, target, rule, **settings):
    settings = tws.WarmStartSettings(source, var_name_to_prev_var_name=rule, **settings)
    return tws.warm_start(target, settings)


@pytest.mark.parametrize("split", [False, True], ids=["joined heads", "an axis of heads"])
def test_query_key_and_value_of_tensorflow_become_one_linear(split):
    target = model()
    report = started(keras(split), target, rules("kernel"))
    assert torch.equal(target["qkv"].weight, WEIGHT)
    assert torch.equal(target["qkv"].bias, BIAS)
    assert not report.notes
    assert not report.unexpected_keys


def test_weights_of_torch_stay_as_they_are():
    source = {f"att.{name}.weight": KERNELS[name].T.contiguous() for name in NAMES}
    source |= {f"att.{name}.bias": BIASES[name] for name in NAMES}
    target = model()
    started(source, target, rules("weight"))
    assert torch.equal(target["qkv"].weight, WEIGHT)


def test_square_ones_that_torch_did_not_name_are_warned_of():
    source = {f"att.{name}": KERNELS[name] for name in NAMES}
    rule = {"qkv.weight": list(source)}
    target = model(nn.Linear(WIDTH, 3 * WIDTH, bias=False))
    settings = tws.WarmStartSettings(source, var_name_to_prev_var_name=rule)
    (told,) = tws.plan_warm_start(target, settings).notes
    assert "nobody says where its outputs are" in told.text
    report = started(source, target, rule, var_name_to_layout={"qkv.weight": "transpose"})
    assert not report.notes
    assert torch.equal(target["qkv"].weight, WEIGHT)


def test_they_may_be_of_several_sizes():
    source = {"a/kernel": torch.randn(4, 2), "b/kernel": torch.randn(4, 3)}
    target = nn.ModuleDict({"both": nn.Linear(4, 5, bias=False)})
    started(source, target, {"both.weight": list(source)})
    assert torch.equal(target["both"].weight, torch.cat([*source.values()], 1).T)


def test_convolutions_side_by_side():
    source = {"a/kernel": torch.randn(3, 3, 4, 2), "b/kernel": torch.randn(3, 3, 4, 3)}
    target = nn.ModuleDict({"both": nn.Conv2d(4, 5, 3, bias=False)})
    started(source, target, {"both.weight": list(source)})
    assert torch.equal(target["both"].weight, torch.cat([*source.values()], 3).permute(3, 2, 0, 1))


def test_what_does_not_add_up_is_refused():
    source = {f"att/{name}/kernel": KERNELS[name] for name in NAMES}
    with pytest.raises(tws.PlanError, match=r"joined\[transpose\]"):
        started(source, model(nn.Linear(WIDTH, WIDTH, bias=False)), rules("kernel", ""))


def test_a_bias_of_one_is_lost_if_there_is_none_for_it():
    with pytest.raises(tws.PlanError, match="would be lost"):
        started(keras(), model(nn.Linear(WIDTH, 3 * WIDTH, bias=False)), rules("kernel", ""))


def test_parts_of_a_table_are_still_rows():
    source = {f"softmax/weights_{k}": torch.randn(2, 4) for k in range(2)}
    target = nn.ModuleDict({"head": nn.Linear(4, 4, bias=False)})
    started(source, target, {"head.weight": list(source)})
    assert torch.equal(target["head"].weight, torch.cat([*source.values()]))


def test_a_layout_of_the_users_is_that_of_each():
    target = model(nn.Linear(WIDTH, 3 * WIDTH, bias=False))
    source = {key: kernel for key, kernel in keras().items() if "kernel" in key}
    rule = rules("kernel", "")
    started(source, target, rule, var_name_to_layout={"qkv.weight": "identity"})
    assert torch.equal(target["qkv"].weight, torch.cat([KERNELS[name] for name in NAMES]))


def test_their_slots_are_joined_too():
    slots = {f"{key}/{slot}": torch.rand(t.shape) for key, t in keras().items() for slot in "mv"}
    source = keras() | {f"{k[:-1]}adam_{k[-1]}": t for k, t in slots.items()}
    source["global_step"] = torch.tensor(9)
    target = model()
    optimizer = torch.optim.Adam(target.parameters())
    settings = tws.WarmStartSettings(source, var_name_to_prev_var_name=rules("kernel"))
    tws.warm_start(target, settings, optimizer=optimizer)
    state = optimizer.state[target["qkv"].weight]
    expected = torch.cat([slots[f"att/{name}/kernel/m"].T for name in NAMES])
    assert torch.equal(state["exp_avg"], expected)
    assert state["step"] == 9


def test_what_a_file_leaves_open_of_each_is_warned_of(tmp_path):
    path = str(tmp_path / "w.h5")
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [f"my_{name}".encode() for name in NAMES]
        file.attrs["keras_version"] = "2.9.0"
        for name in NAMES:
            group = file.create_group(f"my_{name}")
            group.attrs["weight_names"] = [f"my_{name}/kernel:0".encode()]
            group[f"my_{name}/kernel:0"] = np.asarray(KERNELS[name])
    target = model(nn.Linear(WIDTH, 3 * WIDTH, bias=False))
    rule = {"qkv.weight": [f"my_{name}/kernel" for name in NAMES]}
    settings = tws.WarmStartSettings(path, var_name_to_prev_var_name=rule)
    plan = tws.plan_warm_start(target, settings)
    (told,) = [note for note in plan.notes if note.code == "layout-presumed"]
    assert "{'qkv.weight': 'transpose'}" in str(told)
    said = {"qkv.weight": "transpose"}
    report = started(path, target, rule, var_name_to_layout=said)
    assert not report.notes
    assert torch.equal(target["qkv"].weight, WEIGHT)
