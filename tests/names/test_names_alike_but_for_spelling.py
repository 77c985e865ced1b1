"""Parameters of one model whose names differ only in how the same name may be spelt."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws


def _with(*names):
    model = nn.Module()
    for name in names:
        model.register_parameter(name, nn.Parameter(torch.zeros(2)))
    return model


def _of(model):
    return {name: parameter.tolist() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("names", [["ids:0"], ["ids:0", "ids:1"], ["ids", "ids:0"], [":0", "0:0"]])
def test_a_parameter_may_be_called_like_an_output_of_tensorflow(names):
    model, source = _with(*names), {name: torch.randn(2) for name in names}
    tws.warm_start(model, source)
    assert _of(model) == {name: value.tolist() for name, value in source.items()}


def test_a_parameter_of_a_parameter_dict_may_be():
    model = nn.ParameterDict({"user:0": torch.zeros(2), "user:1": torch.zeros(2)})
    tws.warm_start(model, {"user:0": torch.ones(2), "user:1": torch.ones(2)})
    assert _of(model) == {"user:0": [1.0, 1.0], "user:1": [1.0, 1.0]}


@pytest.mark.parametrize(("there", "other"), [("ids", "ids:0"), ("ids:0", "ids")])
def test_what_is_called_exactly_as_one_parameter_is_not_anothers(there, other):
    model = _with("ids", "ids:0")
    with pytest.raises(tws.PlanError, match=f"{other} is not in the checkpoint .* so is {there},"):
        tws.warm_start(model, {there: torch.ones(2)})
    tws.warm_start(model, tws.WarmStartSettings({there: torch.ones(2)}, on_missing="keep"))
    assert _of(model) == {there: [1.0, 1.0], other: [0.0, 0.0]}


def test_slashes_and_dots_may_tell_two_parameters_apart():
    model = _with("a/b")
    model.a = _with("b")
    tws.warm_start(model, tws.WarmStartSettings({"a/b": torch.ones(2)}, on_missing="keep"))
    assert _of(model) == {"a/b": [1.0, 1.0], "a.b": [0.0, 0.0]}


def test_a_rule_may_give_it_to_both():
    model = _with("ids", "ids:0")
    settings = tws.WarmStartSettings(
        {"ids": torch.ones(2)}, var_name_to_prev_var_name={"ids:0": "ids"}
    )
    tws.warm_start(model, settings)
    assert _of(model) == {"ids": [1.0, 1.0], "ids:0": [1.0, 1.0]}
