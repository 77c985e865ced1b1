"""An older checkpoint for rows that are back: with names of its own, or told as what it is."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bundle_writer import write_bundle
from embedding_variable_writer import deeprec, floats
from torch import nn
from torch.distributed import checkpoint as dcp

import torch_warmstart as tws

NEW = [3, 1, 9]
FRESH = [0.5, 0.5]


def saved(path, ids, name="emb", entry="model", offset=0.0, state=True):
    """Row of id i: [i, i + offset]; its Adagrad sums are a hundred more."""
    model = nn.ModuleDict({name: nn.Embedding(len(ids), 2)})
    rows = torch.tensor([[i, i + offset] for i in map(float, ids)])
    with torch.no_grad():
        model[name].weight.copy_(rows)
    optimizer = torch.optim.Adagrad(model.parameters())
    optimizer.state[model[name].weight]["sum"].copy_(rows + 100)
    content = {entry: model.state_dict()}
    torch.save({**content, "optimizer": optimizer.state_dict()} if state else content, path)
    return str(path)


def started(url, fallback, old=(1, 2), **more):
    model = nn.ModuleDict({"emb": nn.Embedding(len(NEW), 2)})
    nn.init.constant_(model["emb"].weight, 7.0)
    optimizer = torch.optim.Adagrad(model.parameters(), initial_accumulator_value=0.5)
    info = tws.VocabInfo(NEW, old_vocab=list(old), fallback=fallback)
    settings = tws.WarmStartSettings(url, ".*", {"emb.weight": info}, **more)
    try:
        report = tws.warm_start(model, settings, optimizer=optimizer)
    except tws.WarmStartError:
        assert model["emb"].weight.unique().tolist() == [7.0]
        raise
    rows = model["emb"].weight.tolist()
    return rows, optimizer.state[model["emb"].weight]["sum"].tolist(), report


def test_an_older_checkpoint_has_names_of_its_own(tmp_path):
    today = saved(tmp_path / "today.pt", [1, 2])
    week = saved(tmp_path / "week.pt", [3, 1], name="item_table", entry="net", offset=0.25)
    older = tws.WarmStartSettings(
        week, var_name_to_prev_var_name={"emb.weight": "item_table.weight"}, entry="net"
    )
    rows, sums, report = started(today, [(older, [3, 1])])
    assert rows == [[3, 3.25], [1, 1], [0, 0]]
    assert sums == [[103, 103.25], [101, 101], FRESH]
    assert report["emb.weight"].rows.returned == 1


def test_it_is_of_another_form_than_the_newest(tmp_path):
    """The first weeks were trained in DeepRec; the rules for that are no rules of today's."""
    today = saved(tmp_path / "today.pt", [1, 2])
    rows = {3: [33.0, -33.0], 1: [11.0, -11.0]}
    write_bundle(tmp_path / "m", [*deeprec("in/emb", rows), *deeprec("in/emb/Adagrad", rows)])
    older = tws.WarmStartSettings(
        str(tmp_path / "m"), var_name_to_prev_var_name={"emb.weight": "in/emb"}
    )
    found, sums, _ = started(today, [(older, tws.FROM_CHECKPOINT)])
    assert found == [[33, -33], [1, 1], [0, 0]]
    assert sums == [[33, -33], [101, 101], FRESH]


def test_the_newest_has_rules_that_its_fallback_does_not_follow(tmp_path):
    today = saved(tmp_path / "today.pt", [1, 2], name="renamed")
    week = saved(tmp_path / "week.pt", [3], offset=0.25)
    rules = {"emb.weight": "renamed.weight"}
    with pytest.raises(tws.PlanError) as told:
        started(today, [(week, [3])], var_name_to_prev_var_name=rules)
    text = str(told.value)
    assert text.startswith(f"The fallback {week} has 1 problem; nothing was changed:")
    assert "'renamed.weight'" in text
    assert "give it settings of its own: fallback=[(WarmStartSettings(url, ...), voc" in text
    own = tws.WarmStartSettings(week)
    rows, _, _ = started(today, [(own, [3])], var_name_to_prev_var_name=rules)
    assert rows == [[3, 3.25], [1, 1], [0, 0]]


def test_one_of_them_for_several_tables_is_opened_once(tmp_path):
    names = ("a", "b")
    for path, ids in ((tmp_path / "today.pt", [1.0]), (tmp_path / "week.pt", [3.0])):
        torch.save({f"{n}.weight": torch.tensor([[i, i]]) for n in names for i in ids}, path)
    own = tws.WarmStartSettings(str(tmp_path / "week.pt"))
    for older in ([own, own], [tmp_path / "week.pt", tmp_path / "." / "week.pt"]):
        model = nn.ModuleDict({name: nn.Embedding(2, 2) for name in names})
        infos = {
            f"{name}.weight": tws.VocabInfo([1, 3], old_vocab=[1], fallback=[(one, [3])])
            for name, one in zip(names, older, strict=True)
        }
        plan = tws.plan_warm_start(
            model, tws.WarmStartSettings(str(tmp_path / "today.pt"), ".*", infos)
        )
        assert plan.checkpoint.url.count("week.pt") == 1
        tws.apply_plan(plan)
        assert [model[name].weight.tolist() for name in names] == [[[1, 1], [3, 3]]] * 2


@pytest.mark.parametrize(
    "more",
    [
        {"vars_to_warm_start": ["emb.*"]},
        {"vars_to_warm_start": None},
        {"var_name_to_vocab_info": {"emb.weight": tws.VocabInfo([1])}},
    ],
)
def test_what_is_taken_is_not_said_twice(tmp_path, more):
    today, week = saved(tmp_path / "today.pt", [1, 2]), saved(tmp_path / "week.pt", [3])
    own = tws.WarmStartSettings(week, **more)
    with pytest.raises(tws.SettingsError, match="Leave vars_to_warm_start and var_name_to_voc"):
        started(today, [(own, [3])])
    with pytest.raises(tws.SettingsError, match="None is for load_planner"):
        started(today, [(tws.WarmStartSettings(None), [3])])


def test_a_settings_file_says_it(tmp_path):
    today = saved(tmp_path / "today.pt", [1, 2])
    week = saved(tmp_path / "week.pt", [3], name="old_emb", offset=0.25)
    older = tws.WarmStartSettings(
        week, var_name_to_prev_var_name=[(r"emb\.(.*)", r"old_emb.\1")], entry="model"
    )
    info = tws.VocabInfo(NEW, old_vocab=[1, 2], fallback=[(older, [3])])
    settings = tws.WarmStartSettings(today, ".*", {"emb.weight": info})
    tws.save_settings(tmp_path / "s.toml", settings)
    loaded = tws.load_settings(tmp_path / "s.toml")
    ((again, vocabulary),) = loaded.var_name_to_vocab_info["emb.weight"].fallback
    assert (again.ckpt_to_initialize_from, again.entry, vocabulary) == (week, "model", [3])
    model = nn.ModuleDict({"emb": nn.Embedding(len(NEW), 2)})
    tws.warm_start(model, loaded)
    assert model["emb"].weight.tolist() == [[3, 3.25], [1, 1], [0, 0]]


def test_a_fallback_without_a_vocabulary_is_told_in_its_own_word(tmp_path):
    today, week = saved(tmp_path / "today.pt", [1, 2]), saved(tmp_path / "week.pt", [3])
    with pytest.raises(tws.PlanError) as told:
        started(today, [(week, tws.FROM_CHECKPOINT)])
    text = str(told.value)
    assert "the vocabulary of the fallback is not given" in text
    assert f"fallback=[({week!r}, vocabulary)]" in text
    assert "old_vocab" not in text
    tws.save_vocabularies(week, {"emb.weight": [3]})
    with pytest.raises(tws.PlanError) as told:
        started(today, [(week, tws.FROM_CHECKPOINT["no"])])
    assert "old_vocab" not in str(told.value)


def test_a_fallback_whose_vocabulary_contradicts_what_lies_beside_it_is_heard(tmp_path):
    today, week = saved(tmp_path / "today.pt", [1, 2]), saved(tmp_path / "week.pt", [3, 9])
    tws.save_vocabularies(week, {"emb.weight": [3, 9]})
    with pytest.warns(tws.WarmStartWarning, match=r"Of the fallback .*week.pt: emb.weight: 2 en"):
        started(today, [(week, [9, 3])])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, _, report = started(today, [(week, [3, 9])])
    assert not [note for note in report.notes if note.code == "old-vocab-differs"]


def test_a_fallback_that_keeps_its_ids_is_told_in_its_own_word(tmp_path):
    today = saved(tmp_path / "today.pt", [1, 2])
    write_bundle(tmp_path / "m", deeprec("emb", {3: [3.0, 3.0], 9: [9.0, 9.0]}))
    with pytest.raises(tws.PlanError, match="vocabulary of the fallback.*FROM_CHECKPOINT in fall"):
        started(today, [(str(tmp_path / "m"), [9, 3])])


def test_what_is_inferred_of_a_fallback_is_not_certain(tmp_path):
    today = saved(tmp_path / "today.pt", [1, 2], state=False)
    week = tmp_path / "week"
    write_bundle(week, [floats("model/emb/embeddings", [[3.0, 3.0]])])
    model = nn.ModuleDict({"emb": nn.Embedding(len(NEW), 2)})
    info = tws.VocabInfo(NEW, old_vocab=[1, 2], fallback=[(str(week), [3])])
    plan = tws.plan_warm_start(model, tws.WarmStartSettings(today, ".*", {"emb.weight": info}))
    assert plan.inferred == ("emb.weight",)
    assert any("Of the fallback" in note.text for note in plan.notes)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_load_planner_sees_one_checkpoint_and_says_so(tmp_path):
    model = nn.ModuleDict({"emb": nn.Embedding(2, 2)})
    dcp.save(model.state_dict(), checkpoint_id=str(tmp_path / "dcp"), no_dist=True)
    before = model["emb"].weight.detach().clone()
    info = tws.VocabInfo([1, 3], old_vocab=[1, 2], fallback=[("week.pt", [3])])
    planner = tws.load_planner(model, tws.WarmStartSettings(None, ".*", {"emb.weight": info}))
    with pytest.raises(dcp.api.CheckpointException) as told:
        dcp.load(
            model.state_dict(),
            checkpoint_id=str(tmp_path / "dcp"),
            planner=planner,
            no_dist=True,
        )
    assert "fallback takes rows from older checkpoints, and a load planner" in str(told.value)
    assert torch.equal(model["emb"].weight.detach(), before)


PAGE = Path(__file__).parents[3] / "docs" / "recommenders.md"


def test_the_block_of_the_page_takes_what_is_back_from_both(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(older = .*?)```", PAGE.read_text("utf-8"), re.DOTALL)[0]
    for name, ids in (("monday", [1]), ("last_week", [3])):
        torch.save({"item.weight": torch.tensor([[float(i), 0.5] for i in ids])}, f"{name}.pt")
    tws.save_vocabularies("last_week.pt", {"item.weight": [3]})
    write_bundle(tmp_path / "last_year.ckpt-1000", deeprec("item_emb", {9: [9.0, 9.0]}))
    known = {"tws": tws, "new": [1, 3, 9]}
    exec(code.replace("tws.VocabInfo(", "info = tws.VocabInfo("), known)
    model = nn.ModuleDict({"item": nn.Embedding(3, 2)})
    info = replace(known["info"], old_vocab=[1])
    tws.warm_start(model, tws.WarmStartSettings("monday.pt", ".*", {"item.weight": info}))
    assert model["item"].weight.tolist() == [[1, 0.5], [3, 0.5], [9, 9]]


def test_the_file_of_the_page_says_the_same(tmp_path):
    table = re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[0]
    path = tmp_path / "s.toml"
    path.write_text(f'ckpt_to_initialize_from = "monday.pt"\n\n{table}')
    settings = tws.load_settings(path)
    (week, _), (year, named) = settings.var_name_to_vocab_info["item.weight"].fallback
    assert (week, year.ckpt_to_initialize_from) == ("last_week.pt", "last_year.ckpt-1000")
    assert (year.var_name_to_prev_var_name, named) == (
        {"item.weight": "item_emb"},
        tws.FROM_CHECKPOINT,
    )
    tws.save_settings(tmp_path / "again.toml", settings)
    again = tws.load_settings(tmp_path / "again.toml")
    assert again.var_name_to_vocab_info == settings.var_name_to_vocab_info


def test_what_is_new_is_read_where_the_newest_is(tmp_path):
    """The older one lies elsewhere, with a way to it of its own; the new vocabulary does not."""
    today = saved(tmp_path / "today.pt", [1, 2], state=False)
    (tmp_path / "new.txt").write_text("b\na\nz\n")
    weights = {"emb.weight": torch.tensor([[3.0, 3.25]])}
    own = tws.WarmStartSettings(weights, storage_options={"anything": 1})
    model = nn.ModuleDict({"emb": nn.Embedding(3, 2)})
    info = tws.VocabInfo(
        str(tmp_path / "new.txt"), old_vocab=["a", "c"], fallback=[(own, ["b"])], min_found=0.3
    )
    tws.warm_start(model, tws.WarmStartSettings(today, ".*", {"emb.weight": info}))
    assert model["emb"].weight.tolist() == [[3, 3.25], [1, 1], [0, 0]]
    weights["emb.weight"].zero_()  # a plan of weights in memory is of what they are then
    with pytest.raises(tws.SettingsError, match=r"^Settings in fallback say .{150,250}$"):
        started(today, [(replace(own, vars_to_warm_start=None), ["b"])])
