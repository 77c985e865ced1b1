"""Mappings of classes of the caller's as checkpoints, which may read what they hold when asked."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import nn

import torch_warmstart as tws


class Lazy(Mapping):
    """Makes its tensors anew each time."""

    def __init__(self, state, fails=""):
        self.state, self.fails, self.asked = state, fails, []

    def __getitem__(self, key):
        if key == self.fails:
            raise OSError("the disk is gone")
        self.asked.append(key)
        return self.state[key] + len(self.asked) // 3

    def __iter__(self):
        if self.fails == "names":
            raise RuntimeError("closed")
        return iter(self.state)

    def __len__(self):
        return len(self.state)


class LazyDict(dict):
    def items(self):
        raise RuntimeError("closed")


@pytest.fixture(params=["alone", "one of a group"], autouse=True)
def process(request, monkeypatch):
    """Where there is a group, what is sharded is looked for before anything else."""
    if request.param == "one of a group":
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda group=None: 1)


STATE = {"weight": torch.eye(2), "bias": torch.ones(2)}


def test_each_tensor_is_asked_for_once():
    source, model = Lazy(STATE), nn.Linear(2, 2)
    tws.warm_start(model, source)
    assert sorted(source.asked) == ["bias", "weight"]
    assert torch.equal(model.weight, STATE["weight"])


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (Lazy(STATE, "bias"), "The Lazy .* it raised OSError: the disk is gone"),
        (Lazy(STATE, "names"), "RuntimeError: closed"),
        (LazyDict(STATE), "The LazyDict"),
        ({"model": Lazy(STATE, "bias")}, "The Lazy"),
    ],
)
def test_one_that_cannot_be_read_is_an_error_of_ours(source, why):
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    with pytest.raises(tws.CheckpointError, match=why) as error:
        tws.warm_start(model, source)
    assert isinstance(error.value.__cause__, OSError | RuntimeError)
    assert torch.equal(model.weight, before)
