"""Tensors of cells that no name tells as Keras's or TensorFlow 1's: the order of gates is open."""

from __future__ import annotations

from dataclasses import replace

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


CUDNN = "cudnn_lstm/rnn/multi_rnn_cell/cell_0/cudnn_compatible_lstm_cell/"
PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def cudnn_cell(front=CUDNN):
    return {
        f"{front}kernel": torch.randn(INPUTS + UNITS, 4 * UNITS),
        f"{front}bias": torch.arange(4.0 * UNITS),
    }


@pytest.mark.parametrize("how", ["rule", "list", "name", "suggested"])
def test_a_cell_of_cudnn_has_no_forget_bias_added(how):
    """As DeepSpeech was published; its gates are in TensorFlow 1's order: i, c, f, o."""
    source, model = cudnn_cell(), nn.ModuleDict({"rnn": nn.LSTM(INPUTS, UNITS)})
    rules = {"rule": {"rnn.": CUDNN}, "list": {f"rnn.{p}_l0": list(source) for p in PARTS}}
    rule = rules.get(how)
    if how == "name":
        source = cudnn_cell(CUDNN.removeprefix("cudnn_lstm/"))
    elif how == "suggested":
        rule = tws.suggest_names(model, source).as_rules("low")
    settings = tws.WarmStartSettings(source, var_name_to_prev_var_name=rule)
    with pytest.warns(tws.WarmStartWarning, match="adds no forget_bias"):
        tws.warm_start(model, settings)
    gates = [*range(UNITS), *range(2 * UNITS, 3 * UNITS), *range(UNITS, 2 * UNITS)]
    assert model["rnn"].bias_ih_l0.tolist() == [*gates, *range(3 * UNITS, 4 * UNITS)]


@pytest.mark.parametrize("forget_bias", [0.0, 1.0])
def test_it_is_certain_once_it_is_said(forget_bias):
    source, model = cudnn_cell(), nn.ModuleDict({"rnn": nn.LSTM(INPUTS, UNITS)})
    layouts = {"rnn.bias_ih_l0": f"tf1_lstm[forget_bias={forget_bias}]"}
    settings = tws.WarmStartSettings(
        source, var_name_to_prev_var_name={"rnn.": CUDNN}, var_name_to_layout=layouts
    )
    report = tws.warm_start(model, settings)
    assert "layout-presumed" not in {note.code for note in report.notes}
    assert model["rnn"].bias_ih_l0[UNITS] == 2 * UNITS + forget_bias


@pytest.mark.parametrize("proj_size", [0, 2], ids=["plain", "projected"])
def test_what_is_named_for_another_cell_is_a_layout_of_this_one(proj_size):
    source = cudnn_cell()
    model = nn.ModuleDict({"rnn": nn.LSTM(INPUTS, UNITS, proj_size=proj_size)})
    if proj_size:
        source[f"{CUDNN}kernel"] = torch.randn(INPUTS + proj_size, 4 * UNITS)
        source[f"{CUDNN}projection/kernel"] = torch.randn(UNITS, proj_size)
    settings = tws.WarmStartSettings(source, var_name_to_prev_var_name={"rnn.": CUDNN})
    with pytest.warns(tws.WarmStartWarning, match=r"that it added \('tf1_lstm\w*\[forget") as told:
        tws.warm_start(model, settings)
    named = str(told[0].message).partition("that it added ('")[2].partition("'")[0]
    tws.warm_start(model, replace(settings, var_name_to_layout={"rnn.bias_ih_l0": named}))
    assert model["rnn"].bias_ih_l0[UNITS] == 2 * UNITS + 1


def test_a_gru_of_cudnn_is_refused_for_what_it_is():
    shapes = {"kernel": (INPUTS, 9), "recurrent_kernel": (UNITS, 9), "bias": (18,)}
    source = {f"g/{name}": torch.randn(shape) for name, shape in shapes.items()}
    model = nn.ModuleDict({"rnn": nn.GRU(INPUTS, UNITS)})
    settings = tws.WarmStartSettings(source, var_name_to_prev_var_name={"rnn.": "g/"})
    with pytest.raises(tws.PlanError, match="that of CuDNNGRU"):
        tws.warm_start(model, settings)
