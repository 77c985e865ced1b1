"""Settings may name a variable as `named_parameters()` does, with what wrappers put into names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws


def tower() -> nn.Module:
    return nn.ModuleDict({"b": nn.ModuleDict({"c": nn.Embedding(3, 2)})})


class Compiled(nn.Module):
    """What torch.compile makes of a module, without the time that takes."""

    def __init__(self) -> None:
        super().__init__()
        self._orig_mod = tower()


SOURCE = {"b.c.weight": torch.arange(6.0).reshape(3, 2)}


@pytest.mark.parametrize("make", [tower, Compiled, lambda: nn.DataParallel(tower())])
@pytest.mark.parametrize("separator", [".", "/"])
def test_a_variable_is_found_by_either_of_its_names(make, separator: str) -> None:
    for name in {"b.c.weight", *dict(make().named_parameters())}:
        spelt, model = name.replace(".", separator), make()
        info = tws.VocabInfo(["z", "x"], 2, 1, ["x", "y", "z"])
        settings = tws.WarmStartSettings(
            SOURCE,
            var_name_to_vocab_info={spelt: info},
            var_name_to_prev_var_name={spelt: "b.c.weight"},
            var_name_to_layout={spelt: "identity"},
        )
        tws.warm_start(model, settings)
        (table,) = model.parameters()
        assert table.tolist() == [[4.0, 5.0], [0.0, 1.0], [0.0, 0.0]]


def test_both_of_its_names_are_one_variable() -> None:
    rules = {"b.c.weight": "b.c.weight", "_orig_mod.b.c.weight": "b.c.weight"}
    with pytest.raises(tws.PlanError) as caught:
        tws.warm_start(Compiled(), tws.WarmStartSettings(SOURCE, ".*", None, rules))
    assert {problem.code for problem in caught.value.problems} == {"entry-twice"}


@pytest.mark.parametrize("make", [tower, Compiled, lambda: nn.DataParallel(tower())])
def test_a_map_names_its_targets_so_too(make) -> None:
    for name in {"b.c.weight", *dict(make().named_parameters())}:
        model = make()
        tws.init_from_checkpoint(model, SOURCE, {"b.c.weight": name})
        (table,) = model.parameters()
        assert table.equal(SOURCE["b.c.weight"])
