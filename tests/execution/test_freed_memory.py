"""Tensors whose storage has been freed, as whoever saves memory does: torch ends the process there.

Sharded and offloaded parameters keep their shape while their storage has no bytes.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import torch_warmstart as tws


def _state(model):
    return {name: torch.ones_like(value) for name, value in model.state_dict().items()}


def _freed(tensor, left=0):
    tensor.untyped_storage().resize_(left)
    return tensor


@pytest.mark.parametrize("left", [0, 8], ids=["all", "half"])
def test_a_source_is_refused(left):
    model = nn.Linear(2, 2)
    state = _state(model)
    _freed(state["weight"], left)
    with pytest.raises(tws.PlanError, match="'weight' holds no values: its storage has been freed"):
        tws.warm_start(model, tws.WarmStartSettings(state))


def test_rows_of_a_source_are_refused():
    table = {"weight": _freed(torch.ones(2, 2))}
    info = tws.VocabInfo(["b", "a"], old_vocab=["a", "b"])
    with pytest.raises(tws.PlanError, match="its storage has been freed"):
        tws.warm_start(nn.Embedding(2, 2), tws.WarmStartSettings(table, ".*", {"weight": info}))


@pytest.mark.parametrize("left", [0, 8], ids=["all", "half"])
def test_a_parameter_is_refused_and_may_be_left_out(left):
    model = nn.Linear(2, 2)
    state = _state(model)
    _freed(model.weight, left)
    with pytest.raises(tws.PlanError, match="weight has no memory: its storage has been freed"):
        tws.warm_start(model, tws.WarmStartSettings(state))
    tws.warm_start(model, tws.WarmStartSettings(state, "bias"))
    assert model.bias.tolist() == [1.0, 1.0]


def test_a_slot_is_refused():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    source = {"model": _state(model), "optimizer": copy.deepcopy(optimizer.state_dict())}
    _freed(optimizer.state[model.weight]["exp_avg"])
    with pytest.raises(tws.PlanError, match="weight/exp_avg has no memory"):
        tws.warm_start(model, tws.WarmStartSettings(source), optimizer=optimizer)


@pytest.mark.parametrize("which", ["model", "source"])
def test_what_is_freed_after_the_plan_is_told(which):
    model = nn.Linear(2, 2)
    state = _state(model)
    plan = tws.plan_warm_start(model, tws.WarmStartSettings(state))
    _freed(model.weight if which == "model" else state["weight"])
    with pytest.raises(tws.SettingsError, match="has changed since the plan was made"):
        tws.apply_plan(plan)
    assert model.bias.tolist() != [1.0, 1.0]


def test_a_live_table_is_refused():
    table = nn.Embedding(2, 2)
    _freed(table.weight)
    info = tws.VocabInfo(["b", "a"], old_vocab=["a", "b"])
    with pytest.raises(tws.PlanError, match="its storage has been freed"):
        tws.change_vocabulary(table, {"weight": info})


def test_views_up_to_the_last_byte_are_read():
    memory = torch.arange(12.0)
    views = {"weight": memory.as_strided((2, 2), (1, 4), 6), "bias": memory[10:]}
    model = nn.Linear(2, 2)
    tws.warm_start(model, tws.WarmStartSettings(views))
    assert model.weight.tolist() == [[6.0, 10.0], [7.0, 11.0]]
    assert model.bias.tolist() == [10.0, 11.0]


def test_a_vocabulary_and_a_record_are_refused():
    with pytest.raises(tws.VocabularyError, match="whose storage has been freed has no values"):
        tws.Vocabulary.load(_freed(torch.arange(3)))
    with pytest.raises(tws.SettingsError, match="storage has been freed"):
        tws.verify_port(nn.Identity(), torch.ones(2), _freed(torch.ones(2)))
    with pytest.raises(tws.SettingsError, match="storage has been freed"):
        tws.verify_port(nn.Identity(), _freed(torch.ones(2)), torch.ones(2))
