"""What a load hook does to its module is undone after a plan, and after a failure."""

from __future__ import annotations

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
