"""Models whose parameters have no shape yet: refused by their names, whatever a file holds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws

STATES = {
    "the same names": {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(3)},
    "another name": {"fc.weight": torch.ones(3, 2)},
}


@pytest.mark.parametrize("on_missing", ["error", "keep"])
@pytest.mark.parametrize("state", STATES)
def test_a_lazy_model_is_refused(state, on_missing):
    model = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    settings = tws.WarmStartSettings(STATES[state], [".*"], on_missing=on_missing)
    with pytest.raises(tws.PlanError, match="has no shape yet: run a batch through"):
        tws.warm_start(model, settings)
    assert isinstance(model[0].weight, nn.UninitializedParameter)


def test_after_a_batch_it_is_a_model_like_others():
    model = nn.Sequential(nn.LazyLinear(3))
    model(torch.ones(1, 2))
    tws.warm_start(model, STATES["the same names"])
    assert model[0].weight.tolist() == [[1.0, 1.0]] * 3


def test_a_layer_without_a_shape_that_nobody_asks_for_is_left_as_it_is():
    model = nn.Sequential(nn.Embedding(3, 2), nn.LazyLinear(3), nn.LazyBatchNorm1d())
    info = tws.VocabInfo(list("cxa"), old_vocab=list("abc"), backup_initializer=nn.init.ones_)
    old = torch.arange(6.0).reshape(3, 2)
    settings = tws.WarmStartSettings({"0.weight": old}, "0", {"0.weight": info})
    plan = tws.plan_warm_start(model, settings)
    report = tws.apply_plan(plan)
    assert model[0].weight.tolist() == [[4.0, 5.0], [1.0, 1.0], [0.0, 1.0]]
    assert isinstance(model[1].weight, nn.UninitializedParameter)
    (lazy,) = [item for item in plan.items if item.name == "1.weight"]
    assert lazy.shape_change == "no shape yet"
    assert report.variables[1].shape == ()
    assert tws.change_vocabulary(
        model, {"0.weight": tws.VocabInfo(list("ab"), old_vocab=list("cxa"))}
    )
    assert model[0].weight.shape == (2, 2)
