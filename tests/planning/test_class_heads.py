"""Heads, classes and tables of another size: by label, by position, tied."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import ClipOrPad, PlanError, SettingsError, VocabInfo, WarmStartSettings

OLD = [f"class {n}" for n in range(80)]
NEW = [f"class {n}" for n in range(79, 59, -1)]  # 20 of them, in another order


class Detector(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)
        self.head = nn.Conv2d(4, classes, 1)
        self.norm = nn.BatchNorm2d(classes)


def _by_label(**more):
    return VocabInfo(NEW, -1, 0, OLD, **more)


def _filled(model):
    for at, tensor in enumerate(model.state_dict().values()):
        if tensor.is_floating_point():
            tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape) + 1000.0 * at)
    return model


def test_classes_are_chosen_by_label_for_weight_and_bias_together():
    old, new = _filled(Detector(80)), Detector(20)
    tws.warm_start(new, WarmStartSettings(old, [".*"], {"head": _by_label(), "norm": _by_label()}))
    rows = torch.arange(79, 59, -1)
    assert torch.equal(new.head.weight, old.head.weight[rows])
    assert torch.equal(new.head.bias, old.head.bias[rows])
    assert torch.equal(new.norm.running_var, old.norm.running_var[rows])
    assert torch.equal(new.body.weight, old.body.weight)


def test_a_module_s_entry_leaves_out_what_is_not_selected_and_what_has_its_own():
    old, new = _filled(Detector(80)), Detector(20)
    bias = new.head.bias.detach().clone()
    settings = WarmStartSettings(old, "head.weight", {"head": _by_label()})
    tws.warm_start(new, settings)
    assert torch.equal(new.head.weight, old.head.weight.flip(0)[:20])
    assert torch.equal(new.head.bias, bias)
    both = {"head": _by_label(), "head.bias": ClipOrPad()}
    tws.warm_start(new, WarmStartSettings(old, "head", both))
    assert torch.equal(new.head.bias, old.head.bias[:20])


def test_the_inputs_of_a_layer_are_an_axis_that_its_bias_does_not_have():
    old, new = _filled(nn.Sequential(nn.Linear(80, 2))), nn.Sequential(nn.Linear(20, 2))
    tws.warm_start(new, WarmStartSettings(old, ".*", {"0": _by_label(axis=1)}))
    assert torch.equal(new[0].weight, old[0].weight.flip(1)[:, :20])
    assert torch.equal(new[0].bias, old[0].bias)


def test_the_outputs_of_a_transposed_convolution_are_its_second_axis_and_its_bias():
    old = _filled(nn.ModuleDict({"head": nn.ConvTranspose2d(4, 80, 2)}))
    new = nn.ModuleDict({"head": nn.ConvTranspose2d(4, 20, 2)})
    tws.warm_start(new, WarmStartSettings(old, ".*", {"head": _by_label(axis=1)}))
    assert torch.equal(new["head"].weight, old["head"].weight.flip(1)[:, :20])
    assert torch.equal(new["head"].bias, old["head"].bias.flip(0)[:20])


def test_the_inputs_of_a_transposed_convolution_are_not_along_its_bias():
    old = _filled(nn.ModuleDict({"head": nn.ConvTranspose1d(80, 20, 2)}))
    new = nn.ModuleDict({"head": nn.ConvTranspose1d(20, 20, 2)})
    tws.warm_start(new, WarmStartSettings(old, ".*", {"head": _by_label()}))
    assert torch.equal(new["head"].weight, old["head"].weight.flip(0)[:20])
    assert torch.equal(new["head"].bias, old["head"].bias)


def test_only_the_module_s_axis_from_the_start_is_clear():
    settings = WarmStartSettings(Detector(80), ".*", {"head": _by_label(axis=-1)})
    with pytest.raises(SettingsError, match="no variable of the module 'head' has an axis -1"):
        tws.warm_start(Detector(20), settings)


def test_none_selects_all_of_a_module_with_an_entry():
    old, new = _filled(Detector(80)), Detector(20)
    body = new.body.weight.detach().clone()
    report = tws.warm_start(new, WarmStartSettings(old, None, {"head": _by_label()}))
    assert torch.equal(new.head.bias, old.head.bias.flip(0)[:20])
    assert torch.equal(new.body.weight, body)
    assert report.count("remapped") == 2


def test_a_module_s_entry_that_is_not_selected_is_an_error():
    settings = WarmStartSettings(Detector(80), "body", {"head": _by_label()})
    with pytest.raises(PlanError, match="'head.weight' is not used"):
        tws.warm_start(Detector(20), settings)


# -- by position -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("new_size", "old_size"), [(3, 5), (5, 3), (4, 4)])
def test_rows_are_clipped_or_padded_only_when_asked(new_size, old_size):
    old, new = _filled(nn.Embedding(old_size, 2)), nn.Embedding(new_size, 2)
    if new_size != old_size:
        with pytest.raises(PlanError, match="take its rows by position with a ClipOrPad"):
            tws.warm_start(new, old)
    info = ClipOrPad(backup_initializer=lambda tensor: tensor.fill_(7.0))
    report = tws.warm_start(new, WarmStartSettings(old, ".*", {"weight": info}))
    shared = min(new_size, old_size)
    assert torch.equal(new.weight[:shared], old.weight[:shared])
    assert bool((new.weight[shared:] == 7.0).all())
    rows = report["weight"].rows
    assert (rows.total, rows.copied, rows.dropped) == (new_size, shared, old_size - shared)


def test_positions_of_any_axis_may_be_kept():
    old, new = _filled(nn.Linear(3, 2)), _filled(nn.Linear(5, 2))
    before = new.weight.detach().clone()
    tws.warm_start(new, WarmStartSettings(old, "weight", {"weight": ClipOrPad(-1, "keep")}))
    assert torch.equal(new.weight[:, :3], old.weight)
    assert torch.equal(new.weight[:, 3:], before[:, 3:])


def test_a_clip_or_pad_is_checked():
    with pytest.raises(SettingsError, match="axis must be an int"):
        ClipOrPad("rows")
    with pytest.raises(PlanError, match="its ClipOrPad is for axis 2"):
        tws.warm_start(
            nn.Embedding(2, 2),
            WarmStartSettings(nn.Embedding(3, 2), ".*", {"weight": ClipOrPad(2)}),
        )


def test_slots_follow_by_position():
    old, new = nn.Embedding(5, 2), nn.Embedding(3, 2)
    optimizer = torch.optim.SGD(new.parameters(), 0.1, momentum=0.9)
    state = {"weight": old.weight.detach(), "weight/Momentum": torch.randn(5, 2)}
    settings = WarmStartSettings(
        state, [".*"], {"weight": ClipOrPad()}, {"weight/momentum_buffer": "weight/Momentum"}
    )
    tws.warm_start(new, settings, optimizer=optimizer)
    buffer = optimizer.state[new.weight]["momentum_buffer"]
    assert torch.equal(buffer, state["weight/Momentum"][:3])


# -- tied ------------------------------------------------------------------------------------------


class LanguageModel(nn.Module):
    def __init__(self, words, tie):
        super().__init__()
        self.embed = nn.Embedding(words, 3)
        self.head = nn.Linear(3, words)
        if tie:
            self.head.weight = self.embed.weight


@pytest.mark.parametrize("name", ["embed.weight", "head.weight"])
def test_a_tied_head_follows_the_embedding(name):
    old, new = _filled(LanguageModel(80, tie=True)), LanguageModel(20, tie=True)
    infos = {name: _by_label(), "head.bias": _by_label()}
    tws.warm_start(new, WarmStartSettings(old, ".*", infos))
    assert new.head.weight is new.embed.weight
    assert torch.equal(new.head.weight, old.embed.weight.flip(0)[:20])
    assert torch.equal(new.head.bias, old.head.bias.flip(0)[:20])


def test_an_untied_head_may_be_filled_from_a_tied_one():
    old, new = _filled(LanguageModel(80, tie=True)), LanguageModel(20, tie=False)
    infos = {"embed": _by_label(), "head": _by_label()}
    tws.warm_start(new, WarmStartSettings(old, ".*", infos))
    assert torch.equal(new.head.weight, new.embed.weight)
    assert new.head.weight is not new.embed.weight


def test_a_module_s_entry_takes_a_tied_weight_once():
    old, new = _filled(LanguageModel(80, tie=True)), LanguageModel(20, tie=True)
    tws.warm_start(new, WarmStartSettings(old, ".*", {"embed": _by_label(), "head": _by_label()}))
    assert torch.equal(new.head.weight, old.embed.weight.flip(0)[:20])
    assert torch.equal(new.head.bias, old.head.bias.flip(0)[:20])
