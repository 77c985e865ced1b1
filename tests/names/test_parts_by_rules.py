"""Parts of a weight under another prefix: a rule finds them by their own names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws

norm = nn.utils.parametrizations.weight_norm
PUT_ON = {"along-0": norm, "whole": lambda layer: norm(layer, dim=None)}


def _model(put_on):
    return nn.ModuleDict({"conv": put_on(nn.Conv1d(4, 4, 3)), "fc": put_on(nn.Linear(4, 4))})


@pytest.mark.parametrize("put_on", PUT_ON)
def test_parts_of_a_norm_are_found_by_a_rule_for_a_prefix(put_on):
    source, model = _model(PUT_ON[put_on]), _model(PUT_ON[put_on])
    for parameter in source.parameters():
        nn.init.normal_(parameter)
    state = {f"old.{name}": value for name, value in source.state_dict().items()}
    rules = {"": "old."}
    tws.warm_start(model, tws.WarmStartSettings(state, var_name_to_prev_var_name=rules))
    pairs = zip(model.parameters(), source.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
