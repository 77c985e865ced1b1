"""Statistics that a rule would find are not left behind in silence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws

RULES = [
    {"norm.": "b1/"},
    {r"norm\.(\w+)": r"b1/\1"},
    lambda name: name.replace("norm.", "b1/"),
]


def _old(*left_out: str) -> dict[str, torch.Tensor]:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"b1/{name}": torch.ones(3) for name in names if name not in left_out}


@pytest.mark.parametrize("rules", RULES[:3], ids=["scope", "pattern", "function"])
def test_they_are_warned_of(rules):
    model = nn.ModuleDict({"norm": nn.BatchNorm1d(3)})
    if isinstance(rules, dict) and "(" in next(iter(rules)):
        rules = tws.NameRules({}, tuple(rules.items()))
    settings = tws.WarmStartSettings(_old(), ".*", var_name_to_prev_var_name=rules)
    notes = {note.code: note for note in tws.plan_warm_start(model, settings).notes}
    said = notes["buffers-left-behind"]
    assert said.severity == "warning"
    assert "2 buffers that the checkpoint has (such as 'norm.running_mean')" in said.text


def test_what_the_checkpoint_does_not_have_is_no_loss():
    model = nn.ModuleDict({"norm": nn.BatchNorm1d(3)})
    old = _old("running_mean", "running_var")
    settings = tws.WarmStartSettings(old, ".*", var_name_to_prev_var_name={"norm.": "b1/"})
    codes = [note.code for note in tws.plan_warm_start(model, settings).notes]
    assert "buffers-left-behind" not in codes
