"""What a load hook puts in the place of modules and parameters is what is filled, and told."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart.errors import CallbackError


class Rebuilding(nn.Sequential):
    """Makes its head anew when it is loaded, as models do that adapt to a checkpoint."""

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        self[1] = nn.Linear(3, 2)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class LoadingItself(nn.Sequential):
    def load_state_dict(self, state_dict, strict=True, assign=False):
        self[1] = nn.Linear(3, 2)
        return super().load_state_dict(state_dict, strict, assign)


def _layers(cls=nn.Sequential):
    return cls(nn.Linear(3, 3), nn.Linear(3, 2))


def _with_pre_hook(replace):
    def make():
        model = _layers()
        model.register_load_state_dict_pre_hook(lambda module, *_: replace(module))
        return model

    return make


def _new_head(module):
    module[1] = nn.Linear(3, 2)


def _new_weight(module):
    module[1].weight = nn.Parameter(torch.zeros(2, 3))


MODELS = {
    "by a pre-hook": _with_pre_hook(_new_head),
    "a parameter": _with_pre_hook(_new_weight),
    "by its own loading": lambda: _layers(Rebuilding),
    "by its own load_state_dict": lambda: _layers(LoadingItself),
}


@pytest.mark.parametrize("make", MODELS)
def test_what_is_put_in_a_modules_place_is_filled(make):
    old, model = _layers(), MODELS[make]()
    head = model[1]
    report = tws.warm_start(model, old)
    assert make == "a parameter" or model[1] is not head
    for name, value in old.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
        assert report[name].state == "copied"


@pytest.mark.parametrize("make", MODELS)
def test_what_was_there_is_put_back_if_a_later_hook_raises(make):
    model = MODELS[make]()
    before = list(model.named_modules()), list(model.named_parameters())
    values = {name: value.clone() for name, value in model.state_dict().items()}

    def fail(*_):
        raise ValueError("no")

    model.register_load_state_dict_post_hook(fail)
    with pytest.raises(CallbackError):
        tws.warm_start(model, _layers())
    after = list(model.named_modules()), list(model.named_parameters())
    for found, expected in zip(after, before, strict=True):
        assert [(name, id(one)) for name, one in found] == [(n, id(one)) for n, one in expected]
    for name, value in model.state_dict().items():
        assert torch.equal(value, values[name])


@pytest.mark.parametrize("what", ["weight", "module"])
def test_what_a_post_hook_puts_in_its_place_is_said(what):
    old, model = _layers(), _layers()

    def double(module, _):
        doubled = nn.Parameter(module[1].weight.detach() * 2)
        if what == "module":
            module[1] = nn.Linear(3, 2, bias=False)
        module[1].weight = doubled

    model.register_load_state_dict_post_hook(double)
    report = tws.warm_start(model, old)
    assert torch.equal(model[1].weight, old[1].weight * 2)
    assert report["1.weight"].state == "converted"
    assert "changed by the model's own loading" in report["1.weight"].reason
    assert report["0.weight"].state == "copied"


def test_parameters_that_a_hook_unties_are_both_filled():
    def untie(module):
        module[1].weight = nn.Parameter(torch.zeros(3, 3))

    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model.register_load_state_dict_pre_hook(lambda module, *_: untie(module))
    weight = torch.randn(3, 3)
    biases = {"0.bias": torch.ones(3), "1.bias": torch.zeros(3)}
    tws.warm_start(model, {"0.weight": weight, "1.weight": weight, **biases})
    assert torch.equal(model[0].weight, weight)
    assert torch.equal(model[1].weight, weight)


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner


def _wrap(renames):
    """A hook that puts a layer into another module, and renames its keys or does not."""

    def hook(module, state, prefix, *_):
        module[1] = Wrapped(module[1])
        for leaf in ("weight", "bias") if renames else ():
            state[f"{prefix}1.inner.{leaf}"] = state.pop(f"{prefix}1.{leaf}")

    return hook


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_layer_that_a_hook_wraps_is_filled_where_it_is_now(device):
    old = _layers()
    with torch.device(device):
        model = _layers()
    head = model[1]
    model.register_load_state_dict_pre_hook(_wrap(renames=True))
    report = tws.warm_start(model, old)
    assert model[1].inner is head
    assert torch.equal(head.weight, old[1].weight)
    assert {item.state for item in report.variables} == {"copied"}


def test_what_a_hook_wraps_and_leaves_out_is_on_meta_still_wherever_it_is():
    with torch.device("meta"):
        model = _layers()
    model.register_load_state_dict_pre_hook(_wrap(renames=False))
    with pytest.warns(tws.WarmStartWarning, match=r"Left on the meta device.*'1\.weight'"):
        report = tws.warm_start(model, _layers())
    assert model[1].inner.weight.is_meta
    assert not hasattr(model[1], "weight")
    assert [item.state for item in report.variables] == ["copied", "copied", "kept", "kept"]


def test_a_pre_hook_that_writes_into_what_is_not_in_the_checkpoint_is_said():
    model = _layers()

    def fill(module, *_):
        with torch.no_grad():
            module[1].bias.fill_(7)

    model.register_load_state_dict_pre_hook(fill)
    state = {key: value for key, value in _layers().state_dict().items() if key != "1.bias"}
    report = tws.warm_start(model, tws.WarmStartSettings(state, on_missing="keep"))
    item = report["1.bias"]
    assert model[1].bias.tolist() == [7, 7]
    assert (item.state, item.reason) == ("converted", "changed by the model's own loading")
