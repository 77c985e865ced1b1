"""Axes of size 1 that come or go: the same values in the same order."""

from __future__ import annotations

import ast

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart.layouts.named import named_layout

PAIRS = {  # in the checkpoint, in the model
    "a bias of OpenAI's baselines": ((1, 4, 1, 1), (4,)),
    "a bias of ConvBERT": ((4,), (4, 1)),
    "positions": ((3, 4), (1, 3, 4)),
    "a class's vector": ((4,), (1, 1, 4)),
    "in another place": ((3, 1, 4), (3, 4, 1)),
    "one number": ((1, 1), (1,)),
}


def model(shape):
    return nn.ParameterDict({"b": nn.Parameter(torch.zeros(shape))})


@pytest.mark.parametrize(("there", "here"), PAIRS.values(), ids=PAIRS)
def test_it_is_refused_with_the_line_that_takes_it(there, here):
    value = torch.randn(there)
    source = {"c1/b": value, "c1/kernel": torch.zeros(2, 3)}
    rule = {"b": "c1/b"}
    settings = tws.WarmStartSettings(source, var_name_to_prev_var_name=rule)
    with pytest.raises(tws.PlanError, match="Only axes of size 1 differ") as error:
        tws.warm_start(model(here), settings)
    line = str(error.value).partition("var_name_to_layout=")[2].partition("}")[0] + "}"
    layouts = ast.literal_eval(line)
    target = model(here)
    settings = tws.WarmStartSettings(
        source, var_name_to_prev_var_name=rule, var_name_to_layout=layouts
    )
    report = tws.warm_start(target, settings)
    assert torch.equal(target["b"], value.reshape(here))
    assert report["b"].change == f"shaped[{', '.join(map(str, here))}]"


@pytest.mark.parametrize("shape", [(2, 4), (4, 2), (8,), (2, 2, 2)], ids=str)
def test_other_sizes_do_not_become_each_other(shape):
    assert named_layout("shaped[1, 2, 4]").shapes_in_torch([shape]) == (
        ((1, 2, 4),) if shape == (2, 4) else None
    )


@pytest.mark.parametrize("name", ["shaped", "shaped[]", "shaped[x]", "shaped[1,]", "shaped[-1]"])
def test_a_name_without_its_sizes_is_no_layout(name):
    with pytest.raises(tws.SettingsError, match=r"shaped\[sizes\]"):
        named_layout(name)


def test_it_goes_back_without_them():
    layout, value = named_layout("shaped[1,4,1]"), torch.randn(4)
    (new,) = layout.to_torch(value)
    assert new.shape == (1, 4, 1)
    assert torch.equal(*layout.to_tf(new), value)


def test_it_is_proposed_where_names_agree():
    source = {f"pi/conv_{k}/kernel": torch.randn(3, 3, 2, 4) for k in (1, 2)}
    source |= {f"pi/conv_{k}/b": torch.randn(1, 4, 1, 1) for k in (1, 2)}
    target = nn.ModuleDict({f"conv{k}": nn.Conv2d(2, 4, 3) for k in (1, 2)})
    found = tws.suggest_names(target, source)
    layouts = {item.variable: (item.names, item.layout) for item in found.items}
    assert layouts["conv1.bias"] == (("pi/conv_1/b",), "shaped[4]")
    rules = found.as_rules("medium")  # its layouts with it
    settings = tws.WarmStartSettings(source, var_name_to_prev_var_name=rules)
    tws.warm_start(target, settings)
    assert torch.equal(target["conv2"].bias, source["pi/conv_2/b"].flatten())
