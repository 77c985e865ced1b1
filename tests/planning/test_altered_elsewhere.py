"""Weights in another form whose marks do not lie in their own folder, or that have none at all."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import torch_warmstart as tws

W = torch.randn(4, 4)
FLOAT8 = W.to(torch.float8_e4m3fn)


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight.triu() + weight.triu(1).T


def plain():
    return nn.ModuleDict({"fc": nn.Linear(4, 4, bias=False)})


def warnings_of(source, **settings):
    plan = tws.plan_warm_start(plain(), tws.WarmStartSettings(source, **settings))
    return [note.code for note in plan.notes if note.severity == "warning"]


@pytest.mark.parametrize(
    "key", ["fc_scale", "scales.fc", "fc_amax_history", "fc._extra_state", "fc_dequant"]
)
def test_a_scale_elsewhere_is_heard_beside_numbers_of_one_byte(key):
    assert warnings_of({"fc.weight": FLOAT8, key: torch.ones(1)}) == ["weight-quantised"]
    assert warnings_of({"fc.weight": W, key: torch.ones(1)}) == []
    said = {"fc.weight": "identity"}
    source = {"fc.weight": FLOAT8, key: torch.ones(1)}
    assert warnings_of(source, var_name_to_layout=said) == []
    assert warnings_of({"fc.weight": FLOAT8, "other.bias": W}) == []


@pytest.mark.parametrize("key", ["fc_adapter.up", "adapters.fc.down_proj.weight", "x.adapter1.w"])
def test_a_module_that_is_called_an_adapter_and_not_taken_is_heard(key):
    assert warnings_of({"fc.weight": W, key: torch.ones(1)}) == ["adapter-left-behind"]
    assert warnings_of({"fc.weight": W, "adaptering.weight": torch.ones(1)}) == []


def test_what_a_parametrization_computes_a_weight_from_is_not_the_weight():
    source = plain()
    parametrize.register_parametrization(source["fc"], "weight", Symmetric())
    state = source.state_dict()
    suggested = tws.suggest_names(plain(), state)
    assert [item.confidence for item in suggested.items] == ["none"]
    with pytest.raises(tws.PlanError, match="remove_parametrizations") as caught:
        tws.warm_start(plain(), state)
    assert caught.value.problems[0].code == "weight-parametrized"
    assert not caught.value.problems[0].hint  # no layout takes what is not found
    assert "weight-parametrized" in warnings_of(state, on_missing="keep", on_mismatch="keep")
    rule = {"fc.weight": "fc.parametrizations.weight.original"}
    with pytest.raises(tws.PlanError, match="remove_parametrizations") as caught:
        tws.warm_start(plain(), tws.WarmStartSettings(state, var_name_to_prev_var_name=rule))
    assert [problem.code for problem in caught.value.problems] == ["weight-parametrized"]
    said = {"fc.weight": "identity"}
    model = plain()
    tws.warm_start(
        model,
        tws.WarmStartSettings(state, var_name_to_prev_var_name=rule, var_name_to_layout=said),
    )
    assert torch.equal(model["fc"].weight, state["fc.parametrizations.weight.original"])


def test_a_plain_weight_of_torchs_into_a_spectral_norm_is_told():
    normed = plain()
    parametrizations.spectral_norm(normed["fc"])
    plan = tws.plan_warm_start(normed, {"fc.weight": W})
    assert ["estimate of its norm" in str(audit) for audit in plan.audits] == [True]
    whole = {key: tensor.clone() for key, tensor in normed.state_dict().items()}
    assert tws.plan_warm_start(normed, whole).audits == ()


class Scaled(nn.Module):
    """A layer that keeps its weight in one byte a number, with a scale."""

    def __init__(self, dtype, scale, kind="buffer"):
        super().__init__()
        weight = torch.ones(4, 4).to(dtype)
        if dtype.is_floating_point:
            self.weight = nn.Parameter(weight, requires_grad=False)
        else:
            self.register_buffer("weight", weight)
        if kind == "parameter":
            self.register_parameter(scale, nn.Parameter(torch.rand(1)))
        else:
            self.register_buffer(scale, torch.rand(1), persistent=kind == "buffer")


def scales_kept(model, source, selected, **settings):
    settings = tws.WarmStartSettings(source, selected, **settings)
    notes = tws.plan_warm_start(nn.ModuleDict({"fc": model}), settings).notes
    return [note.text for note in notes if note.code == "weight-quantised"]


@pytest.mark.parametrize("kind", ["buffer", "parameter", "not saved"])
@pytest.mark.parametrize("scale", ["weight_scale", "weight_scale_inv", "scale", "scale_weight"])
def test_a_scale_of_the_models_that_stays_beside_numbers_of_one_byte_is_heard(kind, scale):
    model = Scaled(torch.float8_e4m3fn, scale, kind)
    keep = {"on_missing": "keep"}
    for source in ({"fc.weight": W}, {"fc/kernel:0": W}):
        rule = {"fc.weight": next(iter(source))}
        settings = {**keep, "var_name_to_prev_var_name": rule}
        (said,) = scales_kept(model, source, ".*", **settings)
        assert f"float8_e4m3fn in the model, whose module has '{scale}', too" in said
        settings["var_name_to_layout"] = {"fc.weight": "identity"}
        assert scales_kept(model, source, ".*", **settings) == []


def test_a_scale_is_left_by_a_pattern_too():
    model = Scaled(torch.int8, "weight_scale")
    source = {"fc.weight": torch.ones(4, 4, dtype=torch.int8), "fc.weight_scale": torch.ones(1)}
    assert len(scales_kept(model, source, ["fc.weight$"])) == 1
    assert scales_kept(model, source, [".*"]) == []


def test_what_scales_no_weight_or_no_numbers_of_one_byte_is_not_heard():
    keep = {"on_missing": "keep"}
    source = {"fc.weight": W}
    assert scales_kept(Scaled(torch.float8_e4m3fn, "input_scale"), source, ".*", **keep) == []
    assert scales_kept(Scaled(torch.float32, "weight_scale"), source, ".*", **keep) == []
    masked = {"fc.weight": torch.ones(4, 4, dtype=torch.bool)}
    assert scales_kept(Scaled(torch.bool, "scale"), masked, ["fc.weight"]) == []


def test_a_switch_beside_a_scale_is_no_number_that_it_scales():
    model = nn.Module()  # as FakeQuantize is
    model.register_buffer("enabled", torch.ones(1, dtype=torch.uint8))
    model.register_buffer("scale", torch.ones(1))
    source = {"fc.enabled": torch.zeros(1, dtype=torch.uint8), "fc.scale": torch.ones(1)}
    assert scales_kept(model, source, ["fc.enabled"]) == []
