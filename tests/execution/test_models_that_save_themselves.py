"""Models with a `state_dict` and a `load_state_dict` of their own are called as these call them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws


class Wrapper(nn.Module):
    """Saves and loads as its net does, as a wrapper for training may."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def state_dict(self, *args, **kwargs):
        return self.net.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict, strict=True, assign=False):
        return self.net.load_state_dict(state_dict, strict, assign)


class Renaming(Wrapper):
    def state_dict(self):  # which takes no arguments, as torch's does
        return {f"saved.{name}": t for name, t in self.net.state_dict().items()}

    def load_state_dict(self, state_dict, strict=True):
        own = {name.removeprefix("saved."): tensor for name, tensor in state_dict.items()}
        return self.net.load_state_dict(own, strict)


def _net():
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))


@pytest.mark.parametrize("cls", [Wrapper, Renaming])
@pytest.mark.parametrize("names", ["its own", "the tensors'", "by a rule"])
def test_it_starts_from_its_twin_and_from_its_tensors_names(cls, names):
    old, model = cls(_net()), cls(_net())
    with torch.no_grad():
        old.net[1].running_mean.add_(3)
    saved, rules = old.state_dict(), None
    if names == "the tensors'":
        saved = nn.Module.state_dict(old)
    elif names == "by a rule":
        saved, rules = old.net.state_dict(), {"net.": ""}
    settings = tws.WarmStartSettings(saved, [".*"], var_name_to_prev_var_name=rules)
    report = tws.warm_start(model, settings)
    assert not any(note.code == "not-taken-by-the-model" for note in report.notes)
    for name, tensor in nn.Module.state_dict(old).items():
        assert torch.equal(nn.Module.state_dict(model)[name], tensor), name


def test_a_plan_says_how_the_names_were_found():
    plan = tws.plan_warm_start(Wrapper(_net()), Wrapper(_net()).state_dict())
    item = next(item for item in plan.items if item.variable.name == "net.0.weight")
    assert item.keys == ("0.weight",)
    assert "by a load hook of the model" in item.reason


def test_one_that_only_saves_in_its_own_way_is_called_as_its_tensors_are():
    class Filtered(nn.Sequential):
        def state_dict(self, *args, **kwargs):
            return {f"x.{name}": t for name, t in super().state_dict(*args, **kwargs).items()}

    old, model = _net(), Filtered(*_net())
    tws.warm_start(model, tws.WarmStartSettings(old.state_dict(), [".*"]))
    assert torch.equal(model[0].weight, old[0].weight)


def test_one_that_cannot_say_its_names_is_left_to_its_loading():
    class Failing(nn.Sequential):
        def state_dict(self, *args, **kwargs):
            raise RuntimeError("not today")

        def load_state_dict(self, state_dict, strict=True, assign=False):
            for name, tensor in state_dict.items():
                self.get_parameter(name).data.copy_(tensor)

    old, model = nn.Sequential(nn.Linear(3, 3)), Failing(nn.Linear(3, 3))
    tws.warm_start(model, old.state_dict())
    assert torch.equal(model[0].weight, old[0].weight)


class Merging(nn.Module):
    """Merges what it has when it is saved, under other names, and loads those."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def state_dict(self, *args, **options):
        self.fc.weight.data.mul_(2)
        return {f"inner.{name}": one for name, one in super().state_dict(*args, **options).items()}

    def load_state_dict(self, state_dict, strict=True, assign=False):
        state = {name.removeprefix("inner."): one for name, one in state_dict.items()}
        return super().load_state_dict(state, strict, assign)


def test_what_a_model_changes_as_it_saves_itself_is_undone_by_a_plan():
    model = Merging()
    before = model.fc.weight.detach().clone()
    plan = tws.plan_warm_start(
        model, {"inner.fc.weight": torch.ones(2, 2), "inner.fc.bias": torch.ones(2)}
    )
    assert torch.equal(model.fc.weight, before)
    tws.apply_plan(plan)
    assert model.fc.weight.tolist() == [[1, 1], [1, 1]]


class WithoutOptions(nn.Linear):
    def load_state_dict(self, state):
        return super().load_state_dict({name: 2 * tensor for name, tensor in state.items()})


def _with_one_of_its_own():
    model = nn.Linear(2, 2)
    load = model.load_state_dict
    model.load_state_dict = lambda state, **options: load(
        {name: 2 * tensor for name, tensor in state.items()}, **options
    )
    return model


@pytest.mark.parametrize("make", [lambda: WithoutOptions(2, 2), _with_one_of_its_own])
def test_whatever_loads_it_is_called_as_it_can_be(make):
    model = make()
    tws.warm_start(model, {"weight": torch.eye(2), "bias": torch.ones(2)})
    assert torch.equal(model.weight, 2 * torch.eye(2))
    assert model.bias.tolist() == [2, 2]
