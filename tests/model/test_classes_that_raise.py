"""Parameters of a class whose `__torch_function__` raises when it is asked what it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws


class Odd(nn.Parameter):
    """Raises for calls of a name, once it is told which."""

    refused = "nothing"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if cls.refused in getattr(func, "__name__", ""):
            raise RuntimeError(f"no {cls.refused} here")
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("refused", ["__get__", "is_inference", "numel"])
def test_it_is_named_by_an_error_of_ours(monkeypatch, refused):
    model = nn.Sequential(nn.Linear(3, 2))
    model[0].weight = Odd(torch.zeros(2, 3))
    optimizer = torch.optim.Adam(model.parameters())
    checkpoint = nn.Sequential(nn.Linear(3, 2)).state_dict()
    tws.plan_warm_start(model, checkpoint, optimizer=optimizer)  # as long as it answers
    monkeypatch.setattr(Odd, "refused", refused)
    with pytest.raises(
        tws.UnsupportedError, match=rf"0\.weight is of class Odd, .* \(no {refused} here"
    ):
        tws.plan_warm_start(model, checkpoint, optimizer=optimizer)


def test_one_that_is_not_selected_need_not_answer(monkeypatch):
    model = nn.Sequential(nn.Linear(3, 2))
    model[0].weight = Odd(torch.zeros(2, 3))
    checkpoint = {"0.weight": torch.ones(2, 3), "0.bias": torch.ones(2)}
    monkeypatch.setattr(Odd, "refused", "is_inference")
    tws.warm_start(model, tws.WarmStartSettings(checkpoint, "0.bias"))
    assert model[0].bias.tolist() == [1, 1]
