"""Optimizers of parameters whose dtype takes no step, or takes one that is no number."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

import torch_warmstart as tws

PACKED = [torch.int8, torch.uint8, torch.bool, torch.int32, torch.float8_e4m3fn]
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "fused": partial(torch.optim.AdamW, fused=True),
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adagrad": torch.optim.Adagrad,
    "rmsprop": partial(torch.optim.RMSprop, momentum=0.9),
}


class Packed(nn.Module):
    """A trained vector beside frozen weights."""

    def __init__(self, dtype, value):
        super().__init__()
        self.packed = nn.Parameter(torch.full((3, 2), value).to(dtype), requires_grad=False)
        self.scale = nn.Parameter(torch.full((3,), value))


@pytest.mark.parametrize("dtype", PACKED, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_weights_of_which_no_step_can_be_taken_may_be_among_an_optimizers(dtype, name):
    old, new = Packed(dtype, 1.0), Packed(dtype, 0.0)
    trained = OPTIMIZERS[name]([old.scale])
    old.scale.grad = torch.tensor([1.0, 2.0, 3.0])
    trained.step()
    state = trained.state_dict()
    state["state"] = {1: state["state"][0]}
    state["param_groups"][0]["params"] = [0, 1]
    optimizer = OPTIMIZERS[name](new.parameters())
    source = {"model": old.state_dict(), "optimizer": state}
    tws.warm_start(new, source, optimizer=optimizer)
    assert torch.equal(new.packed.view(torch.uint8), old.packed.view(torch.uint8))
    for slot, value in trained.state[old.scale].items():
        assert torch.equal(optimizer.state[new.scale][slot], value), slot


def test_trained_weights_of_which_no_step_can_be_taken_are_our_own_error():
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(3).to(torch.float8_e5m2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    source = {"weight": torch.zeros(3).to(torch.float8_e5m2)}
    with pytest.raises(tws.UnsupportedError, match="SGD does not keep its state"):
        tws.warm_start(model, source, optimizer=optimizer)


def test_new_rows_of_rmsprops_momentum_begin_as_zeros_in_half_precision():
    old, new = nn.Embedding(2, 3).half(), nn.Embedding(3, 3).half()
    make = partial(torch.optim.RMSprop, momentum=0.9, centered=True)
    trained, optimizer = make(old.parameters()), make(new.parameters())
    old.weight.grad = torch.ones(2, 3).half()
    trained.step()
    source = {"model": old.state_dict(), "optimizer": trained.state_dict()}
    infos = {"weight": tws.VocabInfo(["a", "b", "c"], old_vocab=["c", "a"])}
    settings = tws.WarmStartSettings(source, var_name_to_vocab_info=infos)
    tws.warm_start(new, settings, optimizer=optimizer)
    momentum = trained.state[old.weight]["momentum_buffer"]
    wanted = torch.stack([momentum[1], torch.zeros(3).half(), momentum[0]])
    assert torch.equal(optimizer.state[new.weight]["momentum_buffer"], wanted)
