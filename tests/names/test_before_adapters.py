"""Layers that PEFT has put adapters around are found by the names of before, if a rule says so."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws

PLAIN = [(r"(.*)base_layer\.([^.]+)", r"\1\2")]
AROUND_ALL = [(r"base_model\.model\.(.*?)(?:base_layer\.)?([^.]+)", r"\1\2")]


class Adapted(nn.Module):
    """As PEFT makes of a linear layer that it adapts."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = layer
        self.lora_A = nn.ModuleDict({"default": nn.Linear(layer.in_features, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, layer.out_features, bias=False)})


class Peft(nn.Module):
    """As PEFT puts a model of its own around a user's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.base_model = nn.Module()
        self.base_model.model = model


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3))


def adapted() -> nn.Sequential:
    first, second, last = plain()
    return nn.Sequential(Adapted(first), Adapted(second), last)


def start(model: nn.Module, source: nn.Module, rules=None, **how) -> tws.WarmStartReport:
    settings = tws.WarmStartSettings(
        source.state_dict(), ".*", var_name_to_prev_var_name=rules or {}, **how
    )
    return tws.warm_start(model, settings)


@pytest.mark.parametrize(
    ("make", "rule", "count"),
    [(adapted, PLAIN, "4 of the 8"), (lambda: Peft(adapted()), AROUND_ALL, "6 of the 10")],
    ids=["layers", "the whole model"],
)
def test_the_rule_for_layers_without_their_adapters_is_told_and_works(make, rule, count):
    old, model = plain(), make()
    said = f"(r'{rule[0][0]}', r'{rule[0][1]}')"
    with pytest.raises(tws.PlanError) as refused:
        start(make(), old)
    (problem,) = (p for p in refused.value.problems if p.code == "rule-missing")
    assert count in problem.text
    assert said in problem.text
    with pytest.warns(tws.WarmStartWarning, match="before PEFT put adapters around them"):
        report = start(make(), old, on_missing="keep")
    assert said in next(str(n) for n in report.notes if n.code == "rule-missing")
    report = start(model, old, rule, on_missing="keep")
    assert not [note for note in report.notes if note.severity == "warning"]
    inner = model.base_model.model if isinstance(model, Peft) else model
    for mine, its in zip(inner, old, strict=True):
        assert torch.equal(getattr(mine, "base_layer", mine).weight, its.weight)


def test_a_checkpoint_of_the_adapted_model_needs_no_rule():
    model, source = adapted(), adapted()
    assert not start(model, source).notes
    assert torch.equal(model[0].base_layer.weight, source[0].base_layer.weight)


def test_a_layer_of_ones_own_that_is_called_so_is_told_as_any_other():
    model = nn.ModuleDict({"base_layer": nn.Linear(3, 2), "head": nn.Linear(2, 1)})
    with pytest.raises(tws.PlanError) as refused:
        start(model, nn.ModuleDict({"body": nn.Linear(3, 2), "head": nn.Linear(2, 1)}))
    assert not [p for p in refused.value.problems if p.code == "rule-missing"]
