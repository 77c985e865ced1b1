"""Where tensors only make believe that they hold values, nothing is said to be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import torch_warmstart as tws

OLD = {"weight": torch.ones(2, 3)}


def _info() -> dict[str, tws.VocabInfo]:
    return {"weight": tws.VocabInfo(["b", "a"], old_vocab=["a", "b"])}


STARTS: dict[str, Callable[[Any], Any]] = {
    "warm_start": lambda model: tws.warm_start(model, OLD),
    "plan_warm_start": lambda model: tws.plan_warm_start(model, OLD),
    "change_vocabulary": lambda model: tws.change_vocabulary(model, _info()),
}


@pytest.mark.parametrize("start", STARTS)
def test_a_start_among_fake_tensors_is_refused(start: str) -> None:
    model = nn.Embedding(2, 3)
    before = model.weight.detach().clone()
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        pytest.raises(tws.SettingsError, match="FakeTensorMode"),
    ):
        STARTS[start](model)
    assert torch.equal(model.weight, before)


def test_a_plan_made_outside_is_not_applied_among_fake_tensors() -> None:
    plan = tws.plan_warm_start(nn.Embedding(2, 3), OLD)
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        pytest.raises(tws.SettingsError, match="FakeTensorMode"),
    ):
        tws.apply_plan(plan)
