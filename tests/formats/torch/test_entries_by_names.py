"""Which entry of a container is meant: that which has the model's names, if nothing else has."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from trees import nested

import torch_warmstart as tws


def _net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def _sources(tree, tmp_path):
    yield tree
    torch.save(tree, tmp_path / "m.pt")
    yield tmp_path / "m.pt"


def _prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


OLD = _net().state_dict()
OTHER = {"a": torch.ones(1), "b": torch.ones(1)}
ONE = {
    "a loose tensor": {"actor": OLD, "log_alpha": torch.zeros(1)},
    "other tensors": {"net": OLD, "critic": OTHER},
    "beside a usual name": {"model": OTHER, "net": OLD},
    "wrapped": {"net": _prefixed(OLD, "module."), "x": torch.ones(1)},
    "deeper": {"agent": {"policy": OLD, "value": OTHER}, "t": torch.ones(1)},
}


@pytest.mark.parametrize("name", ONE)
def test_the_entry_with_the_models_names_is_taken(name, tmp_path):
    for source in _sources(ONE[name], tmp_path):
        model = _net(1)
        tws.warm_start(model, source)
        assert all(torch.equal(model.state_dict()[key], value) for key, value in OLD.items())


def test_the_root_is_taken_where_it_has_the_names():
    model = _net(1)
    tws.warm_start(model, {**OLD, "model": OTHER})
    assert torch.equal(model[0].weight, OLD["0.weight"])


def test_two_that_have_them_are_listed():
    tree = {"actor": OLD, "target": OLD, "log_alpha": torch.zeros(1)}
    with pytest.raises(tws.SettingsError, match="'actor' .*'target'") as error:
        tws.warm_start(_net(1), tree)
    assert "entry='actor'" in str(error.value)


def test_without_the_names_all_is_as_it_was():
    with tws.load_checkpoint({"actor": OLD, "log_alpha": torch.zeros(1)}) as checkpoint:
        assert list(checkpoint) == ["log_alpha"]


@pytest.mark.parametrize("entry", [None, "model"])
def test_an_entry_may_be_a_tree(entry, tmp_path):
    for source in _sources({"model": nested(OLD, "."), "iteration": 5}, tmp_path):
        model = _net(1)
        tws.warm_start(model, tws.WarmStartSettings(source, entry=entry))
        assert torch.equal(model[1].weight, OLD["1.weight"])


def test_the_whole_may_be_one():
    """OpenNMT-py keeps the last layer by itself."""
    tree = {"model": {"0.weight": OLD["0.weight"]}, "generator": {"1.weight": OLD["1.weight"]}}
    with tws.load_checkpoint(
        {**tree, "optim": {"state": {}, "param_groups": []}}, entry=""
    ) as all_of_it:
        assert sorted(all_of_it) == ["generator.1.weight", "model.0.weight"]


def test_a_container_of_itself_ends():
    tree = {"a": {"x": torch.ones(1)}, "b": {"y": torch.ones(1)}}
    tree["b"]["again"] = tree
    shared = {"deep": tree}
    for _ in range(60):
        shared = {"l": shared, "r": shared}
    with tws.load_checkpoint({"model": shared, "z": {"z": torch.ones(1)}}, entry="") as checkpoint:
        assert len(checkpoint) == 3


def test_two_tensors_of_a_tree_that_would_have_one_name_are_told():
    tree = {"model": {"a": {"b.c": torch.ones(1)}, "a.b": {"c": torch.zeros(1)}}}
    with pytest.raises(tws.SettingsError, match=r"Two tensors .* are called 'a\.b\.c'"):
        tws.load_checkpoint(tree, entry="model")
    same = torch.ones(1)
    tied = {"model": {"a": {"b.c": same}, "a.b": {"c": same}}}
    assert list(tws.load_checkpoint(tied, entry="model")) == ["a.b.c"]
