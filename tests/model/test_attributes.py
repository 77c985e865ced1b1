"""What a load hook does to its module is undone after a plan, and after a failure.

And what it, or an initialiser, does to the optimizer.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import torch_warmstart as tws


class Counts(nn.Module):
    def __init__(self, fails=False):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.seen, self.told, self._log = [], {"loads": 0}, {"a"}
        self.long = list(range(2_000))
        self.fails = fails
        self.register_load_state_dict_pre_hook(Counts.hook)

    def hook(self, state, prefix, *_):
        self.seen.append(len(state))
        self.told["loads"] += 1
        self._log.add("b")
        if f"{prefix}old.weight" in state:
            state[f"{prefix}fc.weight"] = state.pop(f"{prefix}old.weight")
        if self.fails and not next(iter(state.values())).is_meta:
            raise RuntimeError("no")


STATE = {"old.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)}


def test_a_plan_leaves_lists_and_dicts_as_they_were():
    model = Counts()
    seen = model.seen
    tws.plan_warm_start(model, STATE)
    assert (model.seen, model.told, model._log) == ([], {"loads": 0}, {"a"})
    assert model.seen is seen


def test_so_does_a_start_that_fails_and_one_that_does_not_is_heard():
    model = Counts(fails=True)
    with pytest.raises(tws.WarmStartError):
        tws.warm_start(model, STATE)
    assert (model.seen, model.told, model._log) == ([], {"loads": 0}, {"a"})
    good = Counts()
    tws.warm_start(good, STATE)
    assert good.told["loads"] == len(good.seen) > 0
    assert torch.equal(good.fc.weight, STATE["old.weight"])


def _trained():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return model, optimizer


def _disturb(optimizer):
    first, second = optimizer.param_groups[0]["params"]
    optimizer.state[first]["step"] = 7
    optimizer.state[first]["more"] = 1
    optimizer.state[first]["exp_avg"].add_(1)
    del optimizer.state[second]
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    optimizer.param_groups[0]["lr"] = 3
    optimizer.param_groups[0]["params"].clear()


def _snapshot(optimizer):
    groups = [{**group, "params": [*group["params"]]} for group in optimizer.param_groups]
    state = [(key, dict(value)) for key, value in optimizer.state.items()]
    numbers = [[value.tolist() for value in each.values()] for _, each in state]
    return repr(groups), [(id(key), [*map(id, each.values())]) for key, each in state], numbers


@pytest.mark.parametrize("who", ["hook", "initialiser"])
def test_groups_and_state_of_the_optimizer_are_as_they_were(who):
    model, optimizer = _trained()
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    saved = copy.deepcopy(saved)
    before = _snapshot(optimizer)

    def fail(*_):
        _disturb(optimizer)
        raise RuntimeError("no")

    infos = None
    if who == "hook":
        model.register_load_state_dict_pre_hook(fail)
    else:
        infos = {"": tws.VocabInfo(["c", "a"], old_vocab=["a", "b"], backup_initializer=fail)}
    settings = tws.WarmStartSettings(saved, ".*", infos)
    plan = tws.plan_warm_start(model, settings, optimizer=optimizer)
    with pytest.raises(tws.WarmStartError, match="RuntimeError"):
        tws.apply_plan(plan)
    assert _snapshot(optimizer) == before
