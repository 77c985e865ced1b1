"""Of a layer from which something is taken every tensor is used, without effect, or told."""

from __future__ import annotations

import pytest
import torch
from bundle_writer import write_random_bundle
from torch import nn

import torch_warmstart as tws


def write(path, shapes):
    write_random_bundle(path, shapes)
    return str(path)


@pytest.mark.parametrize("name", ["kernel_scale", "lora_kernel_a", "kernel_mask", "something"])
def test_a_tensor_beside_a_kernel_is_a_problem(name, tmp_path):
    model = nn.ModuleDict({"fc": nn.Linear(3, 2)})
    shapes = {"fc/kernel": (3, 2), "fc/bias": (2,), f"fc/{name}": (3, 2)}
    checkpoint = write(tmp_path / "c", shapes)
    with pytest.raises(tws.PlanError) as caught:
        tws.plan_warm_start(model, checkpoint)
    (problem,) = caught.value.problems
    assert problem.code == "lost-beside"
    assert problem.subject == "fc.weight"
    assert f"beside 'fc/kernel' the checkpoint has 'fc/{name}'" in problem.text


def test_with_on_mismatch_keep_it_is_a_warning_and_with_a_layout_the_users_business(tmp_path):
    model = nn.ModuleDict({"fc": nn.Linear(3, 2)})
    checkpoint = write(tmp_path / "c", {"fc/kernel": (3, 2), "fc/bias": (2,), "fc/gain": (2,)})
    kept = tws.WarmStartSettings(checkpoint, on_mismatch="keep")
    (note,) = tws.plan_warm_start(model, kept).notes
    assert (note.code, note.severity) == ("lost-beside", "warning")
    layouts = {"fc.weight": "transpose", "fc.bias": "identity"}
    named = tws.WarmStartSettings(checkpoint, var_name_to_layout=layouts)
    assert not tws.plan_warm_start(model, named).notes


def test_what_has_no_effect_is_said(tmp_path):
    model = nn.ModuleDict({"fc": nn.Linear(3, 2)})
    shapes = {"fc/kernel": (3, 2), "fc/bias": (2,), "fc/vector_u": (1, 2)}
    (note,) = tws.plan_warm_start(model, write(tmp_path / "c", shapes)).notes
    assert (note.code, note.severity) == ("unused-beside", "note")
    assert "'fc/vector_u'" in note.text


def test_statistics_are_not_left_beside_a_norm_that_has_none(tmp_path):
    model = nn.ModuleDict({"bn": nn.BatchNorm1d(2, track_running_stats=False)})
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    checkpoint = write(tmp_path / "c", {f"bn/{name}": (2,) for name in names})
    with pytest.raises(tws.PlanError, match=r"moving_mean.*track_running_stats=True"):
        tws.plan_warm_start(model, checkpoint)


def test_what_another_variable_takes_is_used_selected_or_not(tmp_path):
    model = nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(3, 2, bias=False)})
    shapes = {"a/kernel": (3, 2), "a/bias": (2,), "a/other": (3, 2)}
    checkpoint = write(tmp_path / "c", shapes)
    settings = tws.WarmStartSettings(checkpoint, "a.", None, {"b.weight": "a/other"})
    with pytest.raises(tws.PlanError, match="not used"):
        tws.plan_warm_start(model, settings)
    settings = tws.WarmStartSettings(checkpoint, ".*weight", None, {"b.weight": "a/other"})
    assert not tws.plan_warm_start(model, settings).notes


def test_slots_are_no_neighbours(tmp_path):
    model = nn.ModuleDict({"fc": nn.Linear(3, 2)})
    shapes = {"fc/kernel": (3, 2), "fc/bias": (2,), "fc/kernel/Adam": (3, 2), "fc/bias/Adam": (2,)}
    assert not tws.plan_warm_start(model, write(tmp_path / "c", shapes)).notes


def test_one_more_cell_is_not_left_behind(tmp_path):
    model = nn.ModuleDict({"rnn": nn.LSTM(3, 2, num_layers=2)})
    shapes = {}
    for cell in range(3):
        path = f"rnn/multi_rnn_cell/cell_{cell}/basic_lstm_cell"
        shapes |= {f"{path}/kernel": (5 if cell == 0 else 4, 8), f"{path}/bias": (8,)}
    with pytest.raises(tws.PlanError, match="cell_2/basic_lstm_cell/bias"):
        tws.plan_warm_start(model, write(tmp_path / "c", shapes))


@pytest.mark.parametrize("name", ["weight_scale_inv", "lora_A", "lora_A.default.weight"])
def test_a_tensor_beside_a_weight_of_torch_is_a_problem(name):
    model = nn.ModuleDict({"fc": nn.Linear(3, 2)})
    state = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.ones(2), f"fc.{name}": torch.ones(2)}
    with pytest.raises(tws.PlanError, match=f"fc.{name}"):
        tws.plan_warm_start(model, state)


def test_layers_of_ones_own_may_leave_what_they_like():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2))

    state = {"own.w": torch.ones(2), "own.v": torch.ones(2)}
    assert not tws.plan_warm_start(nn.ModuleDict({"own": Own()}), state).notes


def test_an_adapter_that_is_called_by_the_name_of_its_layer_alone_is_beside_it(tmp_path):
    """So Keras 3 names in a SavedModel what a layer got once it was built."""
    model = nn.ModuleDict({"fc": nn.Linear(3, 2)})
    shapes = {"net/fc/kernel": (3, 2), "net/fc/bias": (2,)}
    assert tws.plan_warm_start(model, write(tmp_path / "plain", shapes))
    lora = {"fc/lora_kernel_a": (3, 1), "fc/lora_kernel_b": (1, 2)}
    with pytest.raises(tws.PlanError, match="fc/lora_kernel_a"):
        tws.plan_warm_start(model, write(tmp_path / "adapted", shapes | lora))
    other = {"fc/gain": (3,)}  # of a layer of that name of its own
    assert tws.plan_warm_start(model, write(tmp_path / "other", shapes | other))


def test_the_adapters_of_a_saved_model_are_not_lost(tmp_path):
    keras = pytest.importorskip("keras")
    layers = [keras.layers.Embedding(7, 4, name="emb"), keras.layers.Dense(5, name="d")]
    original = keras.Sequential([keras.Input((3,)), *layers])
    for layer in layers:
        layer.enable_lora(2)
    original.export(str(tmp_path / "exported"), verbose=False)
    model = nn.ModuleDict({"emb": nn.Embedding(7, 4), "d": nn.Linear(4, 5)})
    with pytest.raises(tws.PlanError, match="belongs to an adapter") as told:
        tws.plan_warm_start(model, str(tmp_path / "exported"))
    assert {problem.subject for problem in told.value.problems} == {"emb.weight", "d.weight"}
