"""What change_vocabulary refuses it says in its own words, not in those of a warm start."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import torch_warmstart as tws

INFO = tws.VocabInfo(["b", "new", "c"], old_vocab=["a", "b", "c"])


class Odd(torch.optim.Optimizer):
    """Keeps something for each parameter of which nobody knows what it begins with."""

    def __init__(self, model: nn.Module, make: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__(model.parameters(), {})
        for parameter in model.parameters():
            self.state[parameter] = {"own": make(parameter)}

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        del closure


def refusal(model: nn.Module, info: tws.VocabInfo = INFO, **more: Odd) -> tws.PlanError:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(tws.PlanError) as refused:
        tws.change_vocabulary(model, {"0.weight": info}, **more)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    text = str(refused.value)
    assert text.startswith("The vocabulary change has 1 problem; nothing was changed:")
    for setting in ("vars_to_warm_start", "on_mismatch", "ClipOrPad", "checkpoint"):
        assert setting not in text
    return refused.value


@pytest.mark.parametrize("make", [torch.ones_like, lambda p: torch.ones(len(p)), torch.flatten])
def test_a_slot_that_cannot_follow_needs_another_optimizer(make: Callable[..., torch.Tensor]):
    model = nn.Sequential(nn.Embedding(3, 2))
    own = type("Odd", (Odd,), {})  # what a class keeps is found out once
    error = refusal(model, optimizer=own(model, lambda p: make(p.detach())))
    assert "Make a new optimizer instead of passing this one." in str(error)
    assert error.__cause__ is None


def test_what_is_found_too_little_or_cannot_be_made():
    refusal(
        nn.Sequential(nn.Embedding(3, 2)),
        tws.VocabInfo(["b", "x"], old_vocab=["a", "b", "c"], min_found=0.9),
    )
    narrow = tws.init.vectors((["x"], torch.ones(1, 7)), None)
    refusal(
        nn.Sequential(nn.Embedding(3, 2)),
        tws.VocabInfo(["b", "x"], old_vocab=["a", "b", "c"], backup_initializer=narrow),
    )


def test_what_is_odd_about_the_old_vocabulary_is_said_without_a_checkpoint():
    longer = tws.VocabInfo(["b"], old_vocab=["a", "b", "c", "d"])
    with pytest.warns(tws.WarmStartWarning, match="old-vocab-longer") as told:
        tws.change_vocabulary(nn.Sequential(nn.Embedding(3, 2)), {"0.weight": longer})
    assert not any("checkpoint" in str(one.message) for one in told)


def test_what_would_be_ignored_is_refused():
    model = nn.Sequential(nn.Embedding(3, 2))
    back = tws.VocabInfo(["b"], old_vocab=["a", "b", "c"], fallback=[("last_week.pt", ["a"])])
    with pytest.raises(tws.SettingsError, match="fallback takes rows from older checkpoints"):
        tws.change_vocabulary(model, {"0.weight": back})
    with pytest.raises(tws.SettingsError, match="'0' is not used, because each variable of that"):
        tws.change_vocabulary(model, {"0.weight": INFO, "0": INFO})


def test_what_to_call_first_can_be_pasted():
    model = nn.ModuleDict(
        {"in-put": nn.ModuleList([nn.Embedding(3, 2), weight_norm(nn.Linear(2, 3))])}
    )
    with pytest.raises(tws.PlanError) as refused:
        tws.change_vocabulary(model, {"in-put.1.weight": INFO})
    call = "torch.nn.utils.parametrize.remove_parametrizations(model['in-put'][1], 'weight')"
    assert call in str(refused.value)
    eval(call)  # what was said is run
    changed = tws.VocabInfo(["b", "new"], old_vocab=["a", "b", "c"])
    tws.change_vocabulary(model, {"in-put.1.weight": changed})
    assert model["in-put"][1].weight.shape == (2, 2)


def test_what_an_optimizer_keeps_of_no_parameter_stays():
    model = nn.Sequential(nn.Embedding(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    optimizer.state["rounds"] = 5
    optimizer.state["total"] = torch.ones(2)
    tws.change_vocabulary(model, {"0.weight": INFO}, optimizer=optimizer)
    assert optimizer.state["rounds"] == 5
    assert torch.equal(optimizer.state["total"], torch.ones(2))
