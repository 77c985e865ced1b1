"""What is offered for names that are not found: what is free, was trained, and fits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws


def test_the_nearest_names_are_those_that_nobody_uses():
    model = nn.ModuleDict({"a": nn.Linear(3, 4), "a2": nn.Linear(3, 4)})
    state = {f"{name}.weight": torch.rand(4, 3) for name in ("a", "b2")}
    state |= {f"{name}.bias": torch.rand(4) for name in ("a", "b2")}
    with pytest.raises(tws.PlanError) as error:
        tws.plan_warm_start(model, state)
    text = str(error.value)
    assert "Nearest: 'b2.weight'" in text
    assert "'a.weight'" not in text


def test_what_was_there_before_a_layer_was_trained_anew_is_never_offered():
    model = nn.ModuleDict({"score": nn.Linear(3, 4)})
    layer = "base_model.model.score"
    state = {
        f"{layer}.{which}.{leaf}": torch.rand(shape)
        for which in ("original_module", "modules_to_save.default")
        for leaf, shape in (("weight", (4, 3)), ("bias", (4,)))
    }
    found = tws.suggest_names(model, state)
    trained = f"{layer}.modules_to_save.default"
    assert {item.variable: item.names for item in found.items} == {
        "score.weight": (f"{trained}.weight",),
        "score.bias": (f"{trained}.bias",),
    }


def test_axes_of_size_one_in_front_are_offered_with_the_layout_that_drops_them():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.temperatures = nn.Parameter(torch.zeros(5))
            self.out = nn.Linear(4, 2)

    kernel, values = torch.rand(4, 2), torch.rand(1, 5)
    state = {"m/temps": values, "m/out/kernel": kernel, "m/out/bias": torch.rand(2)}
    model = Scaled()
    found = tws.suggest_names(model, state)
    (item,) = [item for item in found.items if item.variable == "temperatures"]
    assert (item.names, item.layout) == (("m/temps",), "squeeze[1]")
    assert "as squeeze[1]" in item.reason
    rules = found.as_rules("low")
    tws.warm_start(model, tws.WarmStartSettings(state, var_name_to_prev_var_name=rules))
    assert torch.equal(model.temperatures.detach(), values[0])
