"""Tensors of cells that no name tells as Keras's or TensorFlow 1's: the order of gates is open."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws

UNITS, INPUTS = 3, 2
CELLS = {"LSTM": (nn.LSTM, 4), "GRU": (nn.GRU, 3)}


def said(module, source, names, **settings):
    model = nn.ModuleDict({"rnn": module(INPUTS, UNITS)})
    rule = {f"rnn.{ours}": theirs for ours, theirs in names.items()}
    source = source | {"other/kernel": torch.zeros(2, 5)}
    settings = tws.WarmStartSettings(source, list(rule), None, rule, **settings)
    plan = tws.plan_warm_start(model, settings)
    return plan, [str(note) for note in plan.notes if note.code == "layout-presumed"]


@pytest.mark.parametrize(("module", "gates"), CELLS.values(), ids=CELLS)
def test_a_kernel_with_a_name_of_its_own_is_warned_of_until_it_is_said(module, gates):
    source = {"lstm1/wx": torch.randn(INPUTS, gates * UNITS)}  # as OpenAI's baselines have it
    plan, (told,) = said(module, source, {"weight_ih_l0": "lstm1/wx"})
    assert "in which order its gates are" in told
    assert plan.inferred == ("rnn.weight_ih_l0",)
    layout = plan.items[0].layout.name
    assert f"{{'rnn.weight_ih_l0': {layout!r}}}" in told
    layouts = {"rnn.weight_ih_l0": layout}
    names = {"weight_ih_l0": "lstm1/wx"}
    assert said(module, source, names, var_name_to_layout=layouts)[1] == []


@pytest.mark.parametrize(
    ("kernel", "bias"),
    [("Linear/Matrix", "Linear/Bias"), ("W_0", "B"), ("weights", "biases"), ("w_gates", "b_gates")],
)
def test_what_tensorflow_1_has_called_its_cells_is_theirs(kernel, bias):
    shapes = {kernel: (INPUTS + UNITS, 4 * UNITS), bias: (4 * UNITS,)}
    source = {f"Cell0/{name}": torch.randn(shape) for name, shape in shapes.items()}
    for part in ("weight_ih_l0", "bias_ih_l0"):
        plan, told = said(nn.LSTM, source, {part: list(source)})
        assert told == []
        (item,) = (item for item in plan.items if item.name == f"rnn.{part}")
        assert item.layout.name == "tf1_lstm[forget_bias=1.0]"


def test_a_whole_cell_of_other_names_is_warned_of_once():
    shapes = {"wx": (INPUTS, 4 * UNITS), "wh": (UNITS, 4 * UNITS), "b": (4 * UNITS,)}
    source = {f"cell/{name}": torch.randn(shape) for name, shape in shapes.items()}
    names = {key: list(source) for key in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0")}
    _, (told,) = said(nn.LSTM, source, names)
    assert "(and 2 other variables)" in told
    assert "in the order of Keras's" in told


def test_a_bias_alone_is_not_proposed():
    """It would be refused, as it may be laid out in two ways."""
    source = {"Cell0/Matrix": torch.randn(INPUTS + UNITS, 4 * UNITS), "x/kernel": torch.ones(2, 5)}
    source["Cell0/Bias"] = torch.randn(4 * UNITS)
    found = tws.suggest_names(nn.ModuleDict({"rnn": nn.LSTM(INPUTS, UNITS)}), source)
    levels = {item.variable: item.confidence for item in found.items}
    assert (levels["rnn.bias_ih_l0"], levels["rnn.bias_hh_l0"]) == ("none", "none")
