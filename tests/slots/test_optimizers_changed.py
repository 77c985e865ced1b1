"""An optimizer that is changed between a plan and its application."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws


def _pair(**options):
    model = nn.Linear(3, 2)
    return model, torch.optim.Adam(model.parameters(), **options)


def _step(model, optimizer):
    optimizer.zero_grad()
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()


def _planned(**options):
    """A model with its optimizer, and what is planned for them."""
    old, its = _pair(amsgrad=True)
    _step(old, its)
    model, optimizer = _pair(**options)
    checkpoint = {"model": old.state_dict(), "optimizer": its.state_dict()}
    return model, optimizer, tws.plan_warm_start(model, checkpoint, optimizer=optimizer)


def _take_out(optimizer):
    optimizer.param_groups[0]["params"].pop()


def _set(option):
    return lambda optimizer: optimizer.param_groups[0].update(amsgrad=option)


def _put_elsewhere(optimizer):
    taken = optimizer.param_groups[0]["params"].pop()
    optimizer.add_param_group({"params": [taken], "amsgrad": True})


CHANGES = {
    "a parameter taken out": (False, _take_out, "bias/step would no longer be kept"),
    "all of them": (False, lambda o: o.param_groups.clear(), "weight/step would no longer"),
    "an option on": (False, _set(True), "weight/max_exp_avg_sq is kept besides"),
    "an option off": (True, _set(False), "weight/max_exp_avg_sq would no longer be kept"),
    "on in a new group": (False, _put_elsewhere, "bias/max_exp_avg_sq is kept besides"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_an_optimizer_would_keep_otherwise_asks_for_a_new_plan(name):
    amsgrad, change, message = CHANGES[name]
    model, optimizer, plan = _planned(amsgrad=amsgrad)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    change(optimizer)
    with pytest.raises(tws.SettingsError, match=f"has changed since the plan was made.*{message}"):
        tws.apply_plan(plan)
    assert not optimizer.state
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_what_changes_nothing_that_is_kept_is_no_change():
    model, optimizer, plan = _planned()
    optimizer.param_groups[0]["lr"] = 0.5
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    optimizer.load_state_dict(optimizer.state_dict())  # makes the groups anew
    tws.apply_plan(plan)
    _step(model, optimizer)
    assert optimizer.state[model.weight]["step"].item() == 2
