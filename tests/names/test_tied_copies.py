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
