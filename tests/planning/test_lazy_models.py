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
