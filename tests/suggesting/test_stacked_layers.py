"""Layers of a model that the checkpoint keeps in one tensor, [layers, ...]."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws


def layers(make, count=3):
    return nn.ModuleDict({"layers": nn.ModuleList(nn.ModuleDict(make()) for _ in range(count))})


def started(model, state):
    found = tws.suggest_names(model, state)
    rules = found.as_rules("medium")
    tws.warm_start(model, tws.WarmStartSettings(state, var_name_to_prev_var_name=rules))
    return found


@pytest.mark.parametrize("width", [4, 6])  # a square kernel, and one that is not
def test_kernels_in_one_tensor_are_proposed_by_number_and_are_kernels(width):
    kernel, bias = torch.randn(3, 4, width), torch.randn(3, width)
    state = {"layers/mlp/kernel": kernel, "layers/mlp/bias": bias}
    model = layers(lambda: {"mlp": nn.Linear(4, width)})
    found = started(model, state)
    assert {item.variable: (item.names, item.layout) for item in found.items} == {
        f"layers.{at}.mlp.{leaf}": ((f"layers/mlp/{key}",), f"stacked[{at}]")
        for at in range(3)
        for leaf, key in (("weight", "kernel"), ("bias", "bias"))
    }
    assert found.unused == ()
    assert "one of the 3 that lie in one tensor, by its number" in str(found)
    for at, layer in enumerate(model["layers"]):
        assert torch.equal(layer["mlp"].weight, kernel[at].t())
        assert torch.equal(layer["mlp"].bias, bias[at])


def test_layers_along_the_second_axis_are_proposed_too():
    """As T5X and MaxText keep them: [in, layers, out], and a scale as [width, layers]."""
    state = {"layers/mlp/kernel": torch.randn(4, 3, 6), "layers/norm/scale": torch.randn(4, 3)}
    model = layers(lambda: {"mlp": nn.Linear(4, 6, bias=False), "norm": nn.RMSNorm(4)})
    found = started(model, state)
    assert {item.layout for item in found.items} == {f"stacked[{at}, 1]" for at in range(3)}
    for at, layer in enumerate(model["layers"]):
        assert torch.equal(layer["mlp"].weight, state["layers/mlp/kernel"][:, at].t())
        assert torch.equal(layer["norm"].weight, state["layers/norm/scale"][:, at])


def test_a_stack_that_may_lie_along_two_axes_is_not_proposed():
    model = layers(lambda: {"mlp": nn.Linear(3, 6, bias=False)})
    (*items,) = tws.suggest_names(model, {"layers/mlp/kernel": torch.zeros(3, 3, 6)}).items
    assert {item.confidence for item in items} == {"none"}


def test_weights_of_torch_in_one_tensor_are_taken_as_they_are():
    weight = torch.randn(3, 4, 4)
    model = layers(lambda: {"expert": nn.Linear(4, 4, bias=False)})
    started(model, {"layers.expert.weight": weight})
    assert all(torch.equal(layer["expert"].weight, weight[at]) for at, layer in
               enumerate(model["layers"]))  # fmt: skip


def test_convolutions_and_parameters_of_ones_own():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.q = nn.Parameter(torch.zeros(6, 2, 3))

    kernel, q = torch.randn(2, 3, 3, 4, 5), torch.randn(2, 6, 2, 3)
    model = layers(lambda: {"conv": nn.Conv2d(4, 5, 3, bias=False), "attn": Own()}, 2)
    started(model, {"m/layers/conv/kernel": kernel, "m/layers/attn/q/kernel": q})
    for at, layer in enumerate(model["layers"]):
        assert torch.equal(layer["conv"].weight, kernel[at].permute(3, 2, 0, 1))
        assert torch.equal(layer["attn"].q, q[at])


@pytest.mark.parametrize(
    "state",
    [
        {"layers/mlp/kernel": torch.zeros(4, 4, 6)},  # one layer more
        {"a/mlp/kernel": torch.zeros(3, 4, 6), "b/mlp/kernel": torch.zeros(3, 4, 6)},
        {"something/else/kernel": torch.zeros(3, 4, 6)},
        {"layers/mlp/kernel": torch.zeros(3, 6, 4)},
    ],
)
def test_what_may_be_another_or_has_other_rows_is_not_proposed(state):
    model = layers(lambda: {"mlp": nn.Linear(4, 6, bias=False)})
    assert {item.confidence for item in tws.suggest_names(model, state).items} == {"none"}


def test_a_part_of_size_one_is_a_kernel_too():
    kernel = torch.randn(1, 4, 4)
    model = nn.ModuleDict({"fc": nn.Linear(4, 4, bias=False)})
    tws.warm_start(
        model,
        tws.WarmStartSettings(
            {"fc/kernel": kernel}, var_name_to_layout={"fc.weight": "squeeze[1]"}
        ),
    )
    assert torch.equal(model["fc"].weight, kernel[0].t())


def test_a_table_in_parts_is_proposed_whole():
    """Tensor2tensor cuts one into sixteen, of which the first two would make a smaller table."""
    parts = {f"symbols_64_8/shared/weights_{k}": torch.randn(4, 8) for k in range(16)}
    source = {**parts, "ffn/conv1/kernel": torch.zeros(2, 3)}
    (item,) = tws.suggest_names(nn.ModuleDict({"embed": nn.Embedding(64, 8)}), source).items
    assert set(item.names) == set(parts)
    assert item.confidence == "medium"
