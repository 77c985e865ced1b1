"""A month in small: each night's model is, id by id and bit by bit, what a dict says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

import torch_warmstart as tws

SCRIPT = Path(__file__).parents[1] / "examples" / "month" / "month.py"


@pytest.fixture(scope="module")
def month():
    spec = importlib.util.spec_from_file_location("month", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["month"] = module  # where dataclasses look their types up
    spec.loader.exec_module(module)
    return module


def test_nights_agree_bit_for_bit_with_a_dict(month):
    said = []
    losses = month.run(6, 60, 500, said.append)
    assert len(said) == 6
    assert all(len(of) == 6 for of in losses.values())
    assert any("0.00%" not in line for text in said for line in text.split("\n") if "new" in line)


def test_the_check_of_a_night_can_fail(month):
    torch.manual_seed(0)
    vocab = tws.Vocabulary.load([5, 6, 7])
    model = month.TwoTower(3)
    optimizer = month.optimizer_of(model)
    before = month.remember(model, optimizer, vocab)
    assert month.check(model, optimizer, vocab, before) == 3
    for table in (model.item.weight, optimizer.state[model.bias.weight]["sum"]):
        with torch.no_grad():
            table[1] += 1
        with pytest.raises(AssertionError, match="id 6"):
            month.check(model, optimizer, vocab, before)
        with torch.no_grad():
            table[1] -= 1
            before = month.remember(model, optimizer, vocab)
    with pytest.raises(AssertionError):
        month.check(model, optimizer, tws.Vocabulary.load([6, 5, 7]), before)
