"""A weight that comes under a spectral norm, without the vectors by which that is estimated."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm

import torch_warmstart as tws

DRESSES = [parametrizations.spectral_norm, spectral_norm]


@pytest.mark.parametrize("dress", DRESSES, ids=["parametrised", "by a hook"])
def test_it_is_warned_of_and_what_the_warning_says_helps(dress):
    old, model = nn.Linear(3, 2), dress(nn.Linear(3, 2))
    with pytest.warns(tws.WarmStartWarning, match="norm-left-behind"):
        report = tws.warm_start(model, tws.WarmStartSettings(old.state_dict(), [".*"]))
    assert [note.code for note in report.notes if "vector" in note.text] == ["norm-left-behind"]
    for _ in range(100):
        model(torch.ones(1, 3))
    model.eval()(torch.ones(1, 3))
    assert torch.linalg.matrix_norm(model.weight, 2).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dress", DRESSES, ids=["parametrised", "by a hook"])
def test_where_they_come_along_or_the_weight_stays_nothing_is_said(dress, recwarn):
    old, model = dress(nn.Linear(3, 2)), dress(nn.Linear(3, 2))
    for selected in ([".*"], ["bias"]):
        report = tws.warm_start(model, tws.WarmStartSettings(old.state_dict(), selected))
        assert "norm-left-behind" not in {note.code for note in report.notes}
