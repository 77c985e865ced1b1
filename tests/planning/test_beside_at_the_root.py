"""A model that is one layer: what lies beside it lies at the root of the checkpoint."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws

WIDER = {
    "layers": (nn.LSTM(3, 2, 3), nn.LSTM(3, 2, 2), "weight_hh_l2"),
    "directions": (nn.GRU(3, 2, bidirectional=True), nn.GRU(3, 2), "weight_hh_l0_reverse"),
    "biases": (nn.LSTM(3, 2), nn.LSTM(3, 2, bias=False), "bias_hh_l0"),
    "statistics": (
        nn.BatchNorm1d(2),
        nn.BatchNorm1d(2, track_running_stats=False),
        "running_mean",
    ),
    "a shift": (nn.LayerNorm(2), nn.RMSNorm(2), "bias"),
    "a row": (nn.MultiheadAttention(4, 2, add_bias_kv=True), nn.MultiheadAttention(4, 2), "bias_k"),
}


@pytest.mark.parametrize("what", WIDER)
def test_what_the_layer_cannot_have_is_a_problem(what):
    old, new, lost = WIDER[what]
    before = {name: value.clone() for name, value in new.state_dict().items()}
    with pytest.raises(tws.PlanError, match=f"the checkpoint has .*'{lost}'") as error:
        tws.warm_start(new, old.state_dict())
    assert {problem.code for problem in error.value.problems} == {"lost-beside"}
    assert all(torch.equal(value, before[name]) for name, value in new.state_dict().items())


@pytest.mark.parametrize("what", WIDER)
def test_so_it_is_for_a_layer_within_a_model_that_a_rule_takes_from_there(what):
    old, new, _ = WIDER[what]
    settings = tws.WarmStartSettings(old.state_dict(), var_name_to_prev_var_name={"layer.": "/"})
    with pytest.raises(tws.PlanError, match="lost-beside|would be lost"):
        tws.warm_start(nn.ModuleDict({"layer": new}), settings)


def test_it_can_be_lost_knowingly():
    old, new, _ = WIDER["layers"]
    settings = tws.WarmStartSettings(old.state_dict(), on_mismatch="keep")
    with pytest.warns(tws.WarmStartWarning, match="lost-beside"):
        tws.warm_start(new, settings)
    assert torch.equal(new.weight_hh_l1, old.weight_hh_l1)


def test_counts_and_the_like_are_no_tensors_of_the_layer():
    source = {**nn.Linear(3, 2).state_dict(), "epoch": torch.tensor(3), "log_alpha": torch.ones(1)}
    model = nn.Linear(3, 2)
    tws.warm_start(model, source)
    assert torch.equal(model.weight, source["weight"])


@pytest.mark.parametrize("name", ["weight_scale", "weight_fake_quant.scale", "weight.zero_point"])
def test_what_changes_its_weight_is_one(name):
    source = {**nn.Linear(3, 2).state_dict(), name: torch.ones(2)}
    with pytest.raises(tws.PlanError, match=name):
        tws.warm_start(nn.Linear(3, 2), source)
