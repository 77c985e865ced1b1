"""Tied weights of which a checkpoint has a tensor for each name, as copying one by one leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import nn

import torch_warmstart as tws

PREFIX = {"": "old."}
PATTERN = [(r"(.*)", r"old.\1")]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tok, self.head = nn.Embedding(5, 2), nn.Linear(2, 5)
        self.head.weight = self.tok.weight


def _copied(prefix: str = "") -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value.clone() for name, value in Tied().state_dict().items()}


def _save_npz(state: dict[str, torch.Tensor], path: Path) -> None:
    np.savez(path, **{name: value.numpy() for name, value in state.items()})


WRITERS = {
    "a.pt": torch.save,
    "a.npz": _save_npz,
    "a.safetensors": save_file,
    "dcp": lambda state, path: dcp.save(state, checkpoint_id=path, no_dist=True),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_equal_copies_are_one_tensor(name, tmp_path):
    state, model = _copied(), Tied()
    WRITERS[name](state, tmp_path / name)
    report = tws.warm_start(model, str(tmp_path / name))
    assert torch.equal(model.head.weight, state["tok.weight"])
    assert not report.unexpected_keys


@pytest.mark.parametrize("rules", [PREFIX, PATTERN], ids=["scope", "pattern"])
def test_a_rule_for_both_names_finds_equal_copies(rules):
    state, model = _copied("old."), Tied()
    settings = tws.WarmStartSettings(state, var_name_to_prev_var_name=rules)
    assert not tws.warm_start(model, settings).unexpected_keys
    assert torch.equal(model.head.weight, state["old.tok.weight"])


@pytest.mark.parametrize("rules", [PREFIX, PATTERN], ids=["scope", "pattern"])
def test_a_rule_does_not_choose_between_weights_that_differ(rules):
    state = _copied("old.")
    state["old.head.weight"] += 1
    settings = tws.WarmStartSettings(state, var_name_to_prev_var_name=rules)
    with pytest.raises(tws.PlanError, match=r"'old.tok.weight' and 'old.head.weight'"):
        tws.plan_warm_start(Tied(), settings)


def test_copies_in_other_dtypes_are_not_chosen_between():
    state = _copied()
    state["head.weight"] = state["head.weight"].double()
    with pytest.raises(tws.PlanError, match="different keys: 'tok.weight' and 'head.weight'"):
        tws.plan_warm_start(Tied(), state)


def test_rows_move_where_copies_are_equal():
    state, model, old = _copied(), Tied(), list("abcde")
    info = tws.VocabInfo(old[::-1], old_vocab=old)
    infos = {"tok.weight": info, "head.bias": info}
    tws.warm_start(model, tws.WarmStartSettings(state, ".*", infos))
    assert torch.equal(model.head.weight, state["tok.weight"].flip(0))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_copies_that_are_read_later_only_are_not_chosen_between(tmp_path):
    model = Tied()
    dcp.save(_copied(), checkpoint_id=tmp_path, no_dist=True)
    planner = tws.load_planner(model, tws.WarmStartSettings(None))
    with pytest.raises(dcp.api.CheckpointException, match="'tok.weight' and 'head.weight'"):
        dcp.load(model.state_dict(), checkpoint_id=tmp_path, planner=planner, no_dist=True)


class Wide(nn.Module):
    """Tied, and of a square weight, whose layouts shapes do not tell."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.tok, self.head = nn.Embedding(rows, 2), nn.Linear(2, rows, bias=False)
        self.head.weight = self.tok.weight


@pytest.mark.parametrize("rows", [5, 2], ids=["tall", "square"])
@pytest.mark.parametrize("rules", [{}, PREFIX], ids=["own", "scope"])
def test_a_copy_that_lies_the_other_way_is_compared_as_it_will_be(rows, rules, tmp_path):
    table, model = torch.randn(rows, 2), Wide(rows)
    state = {"tok.embeddings": table, "head.kernel": table.t().contiguous()}
    state = {f"old.{name}" if rules else name: value for name, value in state.items()}
    save_file(state, tmp_path / "a.safetensors")
    settings = tws.WarmStartSettings(
        str(tmp_path / "a.safetensors"), var_name_to_prev_var_name=rules
    )
    assert not tws.warm_start(model, settings).unexpected_keys
    assert torch.equal(model.head.weight, table)


def test_a_copy_that_lies_as_the_other_but_should_not_is_none(tmp_path):
    table = torch.randn(2, 2)
    state = {"tok.embeddings": table, "head.kernel": table.clone()}
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(tws.PlanError, match=r"'tok.embeddings' and 'head.kernel'"):
        tws.plan_warm_start(Wide(2), str(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("is_copied", [False, True], ids=["tied", "copied"])
def test_copies_are_one_parameter_of_an_optimizer(is_copied):
    old, model = Tied(), Tied()
    optimizer = torch.optim.Adam(old.parameters())
    for parameter in old.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    weights = {name: v.clone() if is_copied else v for name, v in old.state_dict().items()}
    saved = {"model": weights, "optimizer": optimizer.state_dict()}
    model.extra = nn.Linear(2, 3)  # so that what `optimizer` has now tells of no order
    here = torch.optim.Adam(model.parameters())
    settings = tws.WarmStartSettings(saved, on_missing="keep")
    tws.warm_start(model, settings, optimizer=here)
    moments = optimizer.state[old.tok.weight]["exp_avg"]
    assert torch.equal(here.state[model.tok.weight]["exp_avg"], moments)
