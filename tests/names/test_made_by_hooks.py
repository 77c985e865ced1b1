"""What a model's load hooks make of other tensors is said to be so, never left out in silence."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(4, 4) for _ in range(3))
        self.register_buffer("scale", torch.ones(()))
        self.register_load_state_dict_pre_hook(split)


def split(module, state, prefix, *_):
    for leaf in ("weight", "bias"):
        if f"{prefix}qkv.{leaf}" in state:
            parts = state.pop(f"{prefix}qkv.{leaf}").chunk(3)
            state.update({f"{prefix}{n}.{leaf}": p for n, p in zip("qkv", parts, strict=True)})
    state.setdefault(f"{prefix}scale", module.scale)


def model():
    return nn.ModuleDict({"att": Attention(), "out": nn.Linear(4, 2)})


FUSED = {
    "att.qkv.weight": torch.randn(12, 4),
    "att.qkv.bias": torch.randn(12),
    "att.scale": torch.tensor(2.0),
    "out.weight": torch.randn(2, 4),
    "out.bias": torch.randn(2),
}


def test_tensors_that_a_hook_splits_are_one_problem_with_the_way_round():
    with pytest.raises(tws.PlanError) as caught:
        tws.warm_start(model(), FUSED)
    (problem,) = caught.value.problems
    assert problem.code == "made-by-hook"
    assert "att.q.weight (and 5 other variables) would be made by a load hook" in problem.text
    loaded, new = model(), model()
    loaded.load_state_dict(FUSED)
    tws.warm_start(new, loaded.state_dict())
    assert torch.equal(new["att"].k.weight, FUSED["att.qkv.weight"][4:8])


def test_what_is_kept_for_it_is_heard():
    settings = tws.WarmStartSettings(FUSED, on_missing="keep")
    with pytest.warns(tws.WarmStartWarning, match="made by a load hook"):
        report = tws.warm_start(model(), settings)
    assert "made-by-hook" in [note.code for note in report.notes if note.severity == "warning"]


def test_what_a_hook_fills_in_itself_is_only_missing():
    state = {key: tensor for key, tensor in FUSED.items() if key != "att.scale"}
    state = {**state, **{f"att.{n}.{x}": torch.ones(4, 4) if x == "weight" else torch.ones(4)
                         for n in "qkv" for x in ("weight", "bias")}}  # fmt: skip
    state = {key: tensor for key, tensor in state.items() if "qkv" not in key}
    with pytest.raises(tws.PlanError) as caught:
        tws.warm_start(model(), tws.WarmStartSettings(state, [".*"]))
    assert [problem.code for problem in caught.value.problems] == ["not-in-checkpoint"]


class Shifts(nn.Module):
    """Changes its own memory, and draws, where it is to be loaded."""

    def __init__(self, *, fails):
        super().__init__()
        self.fc, self.other = nn.Linear(2, 2), nn.Linear(2, 2)
        self._fails = fails
        self._register_load_state_dict_pre_hook(self._shift)

    def _shift(self, *_):
        self.other.bias.data.add_(1)
        torch.rand(3)
        if self._fails:
            raise ValueError("no")


def test_hooks_that_are_tried_by_a_plan_leave_memory_and_chance_as_they_were():
    model = Shifts(fails=False)
    before, chance = model.other.bias.detach().clone(), torch.get_rng_state()
    settings = tws.WarmStartSettings({"fc.bias": torch.ones(2)}, on_missing="keep")
    plan = tws.plan_warm_start(model, settings)
    assert torch.equal(model.other.bias, before)
    assert torch.equal(torch.get_rng_state(), chance)
    tws.apply_plan(plan)
    assert torch.equal(model.other.bias, before + 1)  # once, as load_state_dict calls them


def test_hooks_that_raise_after_they_were_tried_leave_memory_as_it_was():
    model = Shifts(fails=True)
    before = model.other.bias.detach().clone()
    settings = tws.WarmStartSettings({"fc.bias": torch.ones(2)}, on_missing="keep")
    with pytest.raises(tws.WarmStartError, match="raised ValueError: no"):
        tws.warm_start(model, settings)
    assert torch.equal(model.other.bias, before)


DEEDS = {
    "freezes": lambda w: w.requires_grad_(False),
    "drops-gradient": lambda w: setattr(w, "grad", None),
    "zeroes-gradient": lambda w: w.grad.zero_(),
    "casts": lambda w: setattr(w, "data", w.data.double()) or setattr(w.grad, "data", w.double()),
    "tags": lambda w: setattr(w, "tag", 1),
    "draws": lambda w: (random.random(), np.random.random()),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_what_a_hook_does_to_training_is_undone_after_a_plan(deed):
    model = nn.ModuleDict({"fc": nn.Linear(2, 2)})
    weight = model["fc"].weight
    weight.grad = gradient = torch.ones(2, 2)
    before, drawn = copy.deepcopy((weight, gradient)), random.getstate()
    of_numpy = np.random.get_state()[1].tolist()
    model._register_load_state_dict_pre_hook(lambda *_: DEEDS[deed](weight))
    settings = tws.WarmStartSettings({"fc.bias": torch.ones(2)}, on_missing="keep")
    tws.plan_warm_start(model, settings)
    assert (weight.requires_grad, vars(weight)) == (True, {})
    assert weight.grad is gradient
    for tensor, old in zip((weight, gradient), before, strict=True):
        assert (tensor.dtype, tensor.tolist()) == (old.dtype, old.tolist())
    assert random.getstate() == drawn
    assert np.random.get_state()[1].tolist() == of_numpy
