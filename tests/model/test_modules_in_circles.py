"""A module that lies within itself, on which torch's own state_dict() does not end."""

from __future__ import annotations

import pytest
from torch import nn

import torch_warmstart as tws


def _itself():
    model = nn.Sequential(nn.Linear(2, 2))
    model.add_module("me", model)
    return model, "model.me"


def _in_a_part():
    model = nn.Module()
    model.body = nn.ModuleDict({"layer": nn.Linear(2, 2)})
    model.body["outer"] = model.body
    return model, "model.body.outer"


CALLS = {
    "warm_start": lambda model: tws.warm_start(model, {}),
    "change_vocabulary": lambda model: tws.change_vocabulary(
        model, {"0.weight": tws.VocabInfo(["a"], old_vocab=["a", "b"])}
    ),
    "suggest_names": lambda model: tws.suggest_names(model, {}),
}


@pytest.mark.parametrize("make", [_itself, _in_a_part])
@pytest.mark.parametrize("name", CALLS)
def test_a_module_within_itself_is_named(make, name):
    model, where = make()
    with pytest.raises(tws.SettingsError, match=f"{where} is a module that it lies within"):
        CALLS[name](model)


def test_a_module_in_several_places_is_none():
    shared = nn.Linear(2, 2)
    model = nn.ModuleDict({"a": nn.Sequential(shared), "b": nn.Sequential(shared), "c": shared})
    tws.warm_start(model, model.state_dict())
    model["a"].outer = (model,)  # as it says
    tws.warm_start(model, model.state_dict())
