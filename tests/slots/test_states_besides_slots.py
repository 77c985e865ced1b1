"""What an optimizer keeps that is no slot: in containers, in param groups, in attributes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import torch_warmstart as tws


class Stepping(torch.optim.Optimizer):
    """Goes through the parameters that have a gradient."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            self.begin(group)
            for p in group["params"]:
                if p.grad is not None:
                    self.update(group, p, self.state[p])

    def begin(self, group): ...


class InList(Stepping):
    def update(self, group, p, state):
        state.setdefault("step", 0)
        state.setdefault("averages", [torch.zeros_like(p), torch.zeros_like(p)])
        state["step"] += 1
        state["averages"][0].add_(p.grad)


class InDict(Stepping):
    def update(self, group, p, state):
        state.setdefault("kept", {"average": torch.zeros_like(p)})["average"].add_(p.grad)


class InGroup(Stepping):
    """As Prodigy and D-Adaptation estimate a rate."""

    def begin(self, group):
        group["d"] = group.get("d", 1e-6) * 1.5

    def update(self, group, p, state):
        state.setdefault("s", torch.zeros_like(p)).add_(p.grad)


class InAttribute(Stepping):
    def __init__(self, params):
        super().__init__(params)
        self.buffers = [torch.ones_like(p) for g in self.param_groups for p in g["params"]]
        self.seen = {"norms": [torch.ones(()), torch.ones(5000)]}

    def update(self, group, p, state):
        for norm in self.seen["norms"]:
            norm.mul_(0.5)
        self.buffers[0].mul_(0.5).add_(p.grad)


class ByParameter(Stepping):
    def __init__(self, params):
        super().__init__(params)
        self.kept = {p: torch.zeros_like(p) for g in self.param_groups for p in g["params"]}

    def update(self, group, p, state):
        self.kept[p].add_(p.grad)


def _trained(cls, steps=2):
    model = nn.Linear(3, 2)
    optimizer = cls(model.parameters())
    for _ in range(steps):
        model(torch.ones(4, 3)).sum().backward()
        optimizer.step()
    return model, optimizer


def _saved(cls):
    model, optimizer = _trained(cls)
    return {"model": model.state_dict(), "optimizer": copy.deepcopy(optimizer.state_dict())}


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize(("cls", "name"), [(InList, "averages"), (InDict, "kept")])
def test_slots_in_a_container_are_refused_whether_it_has_stepped_or_not(cls, name, steps):
    model, optimizer = _trained(cls, steps)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(tws.UnsupportedError, match=f"keeps '{name}' for each parameter, a "):
        tws.warm_start(model, _saved(cls), optimizer=optimizer)
    assert str(optimizer.state_dict()) == str(before)


@pytest.mark.parametrize("steps", [0, 2])
def test_what_steps_change_in_param_groups_is_said(steps):
    model, optimizer = _trained(InGroup, steps)
    groups = copy.deepcopy([{**g, "params": None} for g in optimizer.param_groups])
    with pytest.warns(tws.WarmStartWarning, match="its steps change 'd' in its param groups"):
        report = tws.warm_start(model, _saved(InGroup), optimizer=optimizer)
    assert [note.code for note in report.notes] == ["steps-not-set"]
    assert [{**g, "params": None} for g in optimizer.param_groups] == groups


@pytest.mark.parametrize("cls", [InAttribute, ByParameter])
def test_a_state_outside_of_state_is_refused_and_left_alone(cls):
    model, optimizer = _trained(cls, 0)
    before = copy.deepcopy({n: v for n, v in vars(optimizer).items() if n in ("buffers", "seen")})
    with pytest.raises(tws.UnsupportedError, match="does not keep its state by parameter"):
        tws.plan_warm_start(model, _saved(torch.optim.Adam), optimizer=optimizer)
    for name, value in before.items():
        assert str(vars(optimizer)[name]) == str(value)
