"""How a new row begins depends on what its table does: in a live model as in one that is filled."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import init

OLD, NEW = ["a", "b", "c"], ["a", "abc", "c", "b"]
METHODS = {
    "exp": lambda: init.subword({"abc": ["a", "b", "c"]}, weights="exp"),
    "last": lambda: init.subword({"abc": ["a", "b", "c"]}, weights="last"),
    "first": lambda: init.subword({"abc": ["a", "b", "c"]}, weights="first"),
    "mean": init.mean,
}


class Model(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.first = nn.Embedding(size, 2)
        self.head = nn.Linear(2, size)


class Tied(Model):
    def __init__(self, size):
        super().__init__(size)
        self.head.weight = self.first.weight


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [Model, Tied])
def test_tables_begin_as_in_a_warm_start_from_the_model(kind, method):
    def info():
        return tws.VocabInfo(NEW, old_vocab=OLD, backup_initializer=METHODS[method]())

    live, names = kind(3), ["first", "head"] if kind is Model else ["first"]
    before = copy.deepcopy(live.state_dict())
    tws.change_vocabulary(live, {name: info() for name in names})
    started = kind(4)
    infos = {f"{name}.{leaf}": info() for name, leaf in [("first", "weight"), ("head", "bias")]}
    if kind is Model:
        infos["head.weight"] = info()
    tws.warm_start(started, tws.WarmStartSettings(before, ".*", infos))
    for name, value in live.state_dict().items():
        if kind is Model or name != "head.bias":  # which follows the tie with zeros
            assert torch.equal(value, started.state_dict()[name]), name
    if method == "exp" and kind is Model:
        assert not torch.allclose(
            live.first.weight[1] @ torch.linalg.pinv(before["first.weight"]),
            live.head.weight[1] @ torch.linalg.pinv(before["head.weight"]),
        )
