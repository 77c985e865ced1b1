"""A call under `torch.inference_mode()`: what it makes for a model can be trained afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(3, 2)
        self.out = nn.Linear(2, 1)

    def forward(self, rows):
        return self.out(self.words(rows)).sum()


INFO = {"words": tws.VocabInfo(["c", "new", "a"], old_vocab=["a", "b", "c"])}


def train(model, optimizer):
    model(torch.tensor([0, 2])).backward()
    optimizer.step()


def trained():
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), amsgrad=True)
    train(model, optimizer)
    return model, optimizer


def test_a_live_model_and_its_optimizer_go_on():
    model, optimizer = trained()
    copy = Net()
    with torch.inference_mode():
        tws.change_vocabulary(model, INFO, optimizer=optimizer, ema=[copy])
    train(model, optimizer)
    assert not copy.words.weight.is_inference()


def test_slots_that_are_made_can_be_stepped():
    yesterday, old = trained()
    saved = {"model": yesterday.state_dict(), "optimizer": old.state_dict()}
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), amsgrad=True)
    with torch.inference_mode():
        tws.warm_start(model, tws.WarmStartSettings(saved, ".*", INFO), optimizer=optimizer)
    train(model, optimizer)


@pytest.mark.parametrize("is_made_under_it", [False, True])
def test_parameters_on_meta_are_made_to_be_trained_as_they_were(is_made_under_it):
    with torch.inference_mode(is_made_under_it), torch.device("meta"):
        model = Net()
    with torch.inference_mode():
        tws.warm_start(model, Net().state_dict())
    assert {p.is_inference() for p in model.parameters()} == {is_made_under_it}


def test_what_was_made_under_it_is_filled_outside_as_what_can_be_trained():
    with torch.inference_mode(), torch.device("meta"):
        model = Net()
    tws.warm_start(model, Net().state_dict())
    train(model, torch.optim.SGD(model.parameters(), lr=0.1))
