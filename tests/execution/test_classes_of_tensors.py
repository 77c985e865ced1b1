"""Parameters of classes that have a say in what torch's functions do with them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws


class Plain(torch.Tensor):
    """Refuses one of torch's functions."""

    refused = ""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") == cls.refused:
            raise ValueError(f"no {cls.refused}")
        return super().__torch_function__(func, types, args, kwargs or {})


def build(refused):
    kind = type("Refusing", (Plain,), {"refused": refused})
    model = nn.Module()
    model.first = nn.Parameter(torch.zeros(2))
    model.register_buffer("table", torch.zeros(3, 2).as_subclass(kind))
    return model


SOURCE = {"first": torch.ones(2), "table": torch.arange(6.0).view(3, 2)}
INFO = {"table": tws.VocabInfo(["c", "new", "a"], old_vocab=["a", "b", "c"])}
MOVED = [[4, 5], [0, 0], [0, 1]]


def values(model):
    with torch._C.DisableTorchFunctionSubclass():
        return model.table.tolist()


@pytest.mark.parametrize(
    "refused",
    ["index_select", "index_copy_", "index_fill_", "__getitem__", "__len__", "untyped_storage"],
)
def test_rows_are_moved_in_its_memory_whatever_its_class_refuses(refused):
    model = build(refused)
    tws.warm_start(model, tws.WarmStartSettings(SOURCE, [".*"], INFO))
    assert values(model) == MOVED
    assert type(model.table).__name__ == "Refusing"


@pytest.mark.parametrize("infos", [None, INFO])
def test_one_that_refuses_to_be_filled_is_found_while_planning(infos):
    model = build("copy_")
    with pytest.raises(tws.PlanError, match="table is of a class that refuses plain values"):
        tws.warm_start(model, tws.WarmStartSettings(SOURCE, [".*"], infos))
    assert not model.first.any()


@pytest.mark.parametrize("refused", ["is_contiguous", "is_conj", "is_neg"])
def test_one_that_does_not_say_how_it_lies_is_an_error_of_ours(refused):
    model = build(refused)
    with pytest.raises(tws.UnsupportedError, match="table is of class Refusing"):
        tws.warm_start(model, tws.WarmStartSettings(SOURCE, [".*"]))
    assert not model.first.any()


def test_state_of_such_a_class_follows_too():
    model = nn.Module()
    model.table = nn.Parameter(torch.zeros(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    kind = type("Refusing", (Plain,), {"refused": "index_select"})
    kept = torch.zeros(3, 2).as_subclass(kind)
    optimizer.state[model.table]["momentum_buffer"] = kept
    saved = {"state": {0: {"momentum_buffer": SOURCE["table"]}}, "param_groups": [{"params": [0]}]}
    source = {"model": {"table": SOURCE["table"]}, "optimizer": saved}
    tws.warm_start(model, tws.WarmStartSettings(source, ".*", INFO), optimizer=optimizer)
    assert optimizer.state[model.table]["momentum_buffer"] is kept
    with torch._C.DisableTorchFunctionSubclass():
        assert kept.tolist() == MOVED


class Loaded(nn.Parameter):
    """As vLLM's are: a parameter that knows how it is loaded."""

    def loader(self):
        return self.says


def test_a_parameter_on_meta_is_made_anew_as_one_of_its_class():
    model = nn.Module()
    model.table = Loaded(torch.zeros(3, 2, device="meta"), requires_grad=False)
    model.table.says = "rows"
    tws.warm_start(model, {"table": SOURCE["table"]})
    assert type(model.table) is Loaded
    assert model.table.loader() == "rows"
    assert not model.table.requires_grad
    assert torch.equal(model.table, SOURCE["table"])
