"""Averages of the weights, and other entries, are told of wherever a torch file keeps them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws


def _net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


OLD = _net().state_dict()
EMA = {name: value * 0.5 for name, value in OLD.items()}
SWA = torch.optim.swa_utils.AveragedModel(_net(3)).state_dict()
LISTED = {"decay": 0.9, "shadow_params": list(EMA.values()), "collected_params": None}


def _told(source, **more):
    plan = tws.plan_warm_start(_net(1), tws.WarmStartSettings(source, **more))
    return [str(note) for note in plan.notes if note.code == "averages-left-behind"]


@pytest.mark.parametrize(
    ("tree", "entry", "path"),
    [
        ({"model": OLD, "ema_state_dict": EMA}, "model", "ema_state_dict"),
        ({"current_model_state": OLD, "ema_model_state": EMA}, "current_model_state", "ema_model_"),
        ({"state_dict": OLD, "averaged_model": SWA}, "state_dict", "averaged_model"),
        ({"state_dict": OLD, "model_ema": {"module": EMA}}, "state_dict", "model_ema/module"),
        (
            {"state_dict": OLD, "callbacks": {"EMA": {"ema_state_dict": EMA}}},
            None,
            "callbacks/EMA/ema_state_dict",
        ),
    ],
)
def test_an_entry_of_averages_is_told_with_what_takes_it(tree, entry, path, tmp_path):
    torch.save(tree, tmp_path / "m.pt")
    (told,) = _told(str(tmp_path / "m.pt"), entry=entry)
    assert f"entry='{path}" in told
    taken = told.rpartition("entry='")[2].partition("'")[0]
    model = _net(1)
    tws.warm_start(model, tws.WarmStartSettings(str(tmp_path / "m.pt"), entry=taken))
    right = SWA["module.0.bias"] if "averaged_model" in tree else EMA["0.bias"]
    assert torch.equal(model[0].bias, right)


@pytest.mark.parametrize(
    "front", ["ema", "model_ema", "swa_model", "averaged_model", "shadow", "swa_model.module"]
)
def test_averages_among_the_names_are_told_with_what_takes_them(front):
    tree = {**OLD, **{f"{front}.{name}": value for name, value in EMA.items()}}
    (told,) = _told(tree)
    assert told.endswith(f"var_name_to_prev_var_name={{'/': '{front}.'}}.")
    model = _net(1)
    tws.warm_start(model, tws.WarmStartSettings(tree, var_name_to_prev_var_name={"/": f"{front}."}))
    assert torch.equal(model[0].bias, EMA["0.bias"])


def test_what_is_chosen_itself_is_not_left_behind():
    assert _told({"model": OLD, "ema_state_dict": EMA}, entry="ema_state_dict") == []


@pytest.mark.parametrize("tree", [{"model": OLD, "ema": LISTED}, {**OLD, "ema": LISTED}])
def test_a_list_of_averages_has_no_names(tree):
    (told,) = _told(tree)
    assert "'ema/shadow_params' (4 tensors)" in told
    assert "ema.copy_to" in told


def test_averages_whose_names_have_no_dots():
    state = {**OLD, **{f"model_ema.{name.replace('.', '')}": value for name, value in EMA.items()}}
    (told,) = _told({"state_dict": state})
    assert "{'0.weight': 'model_ema.0weight', ...}" in told


@pytest.mark.parametrize(
    "tree",
    [
        {"model": OLD, "schema": {"a": torch.ones(1)}},  # `ema` within a word
        {"model": OLD, "ema": {"of.others": torch.ones(1)}},
        {"model": OLD, "ema": {"decay": 0.9}},
    ],
)
def test_what_are_no_averages_of_these(tree):
    assert _told(tree, entry="model") == []


def test_a_container_that_contains_itself_ends():
    tree = {"model": OLD, "ema": {}}
    tree["ema"]["ema"] = tree["ema"]
    assert _told(tree) == []


FOREIGN = {"enc.w": torch.ones(3, 2), "enc.b": torch.ones(3)}


def test_without_the_models_names_the_entries_are_listed():
    tree = {"actor": FOREIGN, "critic": {"v.w": torch.ones(2)}, "log_alpha": torch.ones(())}
    with pytest.raises(tws.PlanError) as error:
        tws.plan_warm_start(_net(), tree)
    (problem,) = error.value.problems
    assert problem.code == "entry-without-names"
    assert "'actor' (2 tensors: 'enc.w', ...), 'critic' (1 tensor: 'v.w')" in str(problem)
    plan = tws.plan_warm_start(_net(), tws.WarmStartSettings(tree, on_missing="keep"))
    assert "entry-without-names" in [n.code for n in plan.notes if n.severity == "warning"]


def test_several_entries_are_listed_with_their_first_keys():
    with pytest.raises(tws.SettingsError, match=r"'actor' \(2 tensors: 'enc.w', \.\.\.\)"):
        tws.plan_warm_start(_net(), {"actor": FOREIGN, "critic": FOREIGN})


def test_what_is_found_has_no_need_of_entries():
    tree = {**OLD, "actor": FOREIGN}
    assert [item.state for item in tws.plan_warm_start(_net(), tree).items] == ["copied"] * 4


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_distributed_checkpoint_tells_of_them_too(tmp_path):
    dcp = pytest.importorskip("torch.distributed.checkpoint")
    tree = {"model": OLD, "ema_state_dict": EMA}
    dcp.save(tree, checkpoint_id=tmp_path / "c", no_dist=True)
    (told,) = _told(str(tmp_path / "c"), entry="model")
    assert "entry='ema_state_dict'" in told
