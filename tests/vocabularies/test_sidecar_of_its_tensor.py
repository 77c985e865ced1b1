"""A vocabulary beside a checkpoint is that of the values it was saved for, or of none."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from remote_files import Requests, remote, requests, upload
from torch import nn

import torch_warmstart as tws

OLD, NEW = ["a", "b", "c", "d"], ["d", "x", "b"]
FOUND = [[6, 7], [0, 0], [2, 3]]
WRONG = "but for other values than .* holds"

__all__ = ["remote", "requests"]  # fixtures


def save(path, offset=0.0, rows=4, dtype=torch.float32):
    weight = torch.arange(2.0 * rows).view(rows, 2) + offset
    torch.save({"tok.weight": weight.to(dtype)}, path)
    return str(path)


def start(url, **info):
    model = nn.Module()
    model.tok = nn.Embedding(len(NEW), 2)
    infos = {"tok.weight": tws.VocabInfo(NEW, **info)}
    tws.warm_start(model, tws.WarmStartSettings(str(url), ".*", infos))
    return model.tok.weight.tolist()


@pytest.fixture
def saved(tmp_path):
    path = save(tmp_path / "m.pt")
    tws.save_vocabularies(path, {"tok.weight": OLD})
    return Path(path)


@pytest.mark.parametrize(
    "written", [{"offset": 1.0}, {"rows": 6}, {"rows": 3}, {"dtype": torch.float64}], ids=str
)
def test_a_checkpoint_that_is_written_anew_has_other_entries_perhaps(saved, written):
    """Yesterday's vocabulary stays beside today's checkpoint, unless it is saved again."""
    save(saved, **written)
    with pytest.raises(tws.PlanError, match=WRONG):
        start(saved)
    with pytest.raises(tws.PlanError, match=WRONG):
        start(saved, old_vocab=tws.FROM_CHECKPOINT["tok.weight"])
    with pytest.warns(tws.WarmStartWarning, match=f"cannot be looked at: .* {WRONG}"):
        start(saved, old_vocab=OLD[:3])
    tws.save_vocabularies(saved, {"tok.weight": OLD[:3]})
    start(saved)


def test_one_row_of_few_is_seen(saved):
    weight = torch.arange(8.0).view(4, 2)
    weight[2, 1] += 1
    torch.save({"tok.weight": weight}, saved)
    with pytest.raises(tws.PlanError, match=WRONG):
        start(saved)


def test_of_many_rows_some_are_looked_at(tmp_path):
    path, count = tmp_path / "m.pt", 200_000
    weight = torch.zeros(count, 2)
    torch.save({"tok.weight": weight}, path)
    tws.save_vocabularies(path, {"tok.weight": torch.arange(count)})
    model = nn.Module()
    model.tok = nn.Embedding(3, 2)
    infos = {"tok.weight": tws.VocabInfo([5, 7, 9])}
    settings = tws.WarmStartSettings(str(path), ".*", infos)
    tws.plan_warm_start(model, settings)
    weight[::100] += 1  # which a day of training does to more
    torch.save({"tok.weight": weight}, path)
    with pytest.raises(tws.PlanError, match=WRONG):
        tws.plan_warm_start(model, settings)


def test_another_checkpoints_vocabulary_is_not_taken(saved, tmp_path):
    save(tmp_path / "other.pt", offset=1.0)
    for beside in list(tmp_path.glob("m.pt.warmstart*")):
        shutil.copy(beside, tmp_path / beside.name.replace("m.pt", "other.pt", 1))
    with pytest.raises(tws.PlanError, match=WRONG):
        start(tmp_path / "other.pt")


def test_a_checkpoint_is_renamed_with_what_lies_beside_it(saved, tmp_path):
    for file in list(tmp_path.glob("m.pt*")):
        file.rename(tmp_path / file.name.replace("m.pt", "monday.pt", 1))
    assert start(tmp_path / "monday.pt") == FOUND
    next(tmp_path.glob("monday.pt.warmstart-*")).unlink()
    with pytest.raises(tws.PlanError, match="needs 'monday.pt.warmstart-.*Copy the files beside"):
        start(tmp_path / "monday.pt")


def test_a_link_to_a_checkpoint_has_what_lies_beside_that(saved, tmp_path):
    os.mkdir(tmp_path / "elsewhere")
    os.symlink(saved, tmp_path / "elsewhere" / "latest.pt")
    assert start(tmp_path / "elsewhere" / "latest.pt") == FOUND


@pytest.mark.parametrize("told", [{}, [], {"shape": [4, "x"], "ends": "", "spread": ""}], ids=str)
def test_a_sample_that_is_none_is_our_error(saved, told):
    beside = Path(f"{saved}.warmstart.json")
    about = json.loads(beside.read_text())
    about["vocabularies"]["tok.weight"]["tensor"] = told
    beside.write_text(json.dumps(about))
    with pytest.raises(tws.PlanError, match="is damaged"):
        start(saved)


def test_what_was_saved_without_a_sample_is_taken(saved):
    beside = Path(f"{saved}.warmstart.json")
    about = json.loads(beside.read_text())
    del about["vocabularies"]["tok.weight"]["tensor"]
    beside.write_text(json.dumps(about))
    assert start(saved) == FOUND


def test_of_a_remote_one_both_ends_are_looked_at(saved, tmp_path, remote, requests: Requests):
    upload(tmp_path, remote)
    assert start(f"{remote}/m.pt") == FOUND
    save(saved, offset=1.0)
    upload(tmp_path, remote)
    with pytest.raises(tws.PlanError, match=WRONG):
        start(f"{remote}/m.pt")


def test_every_dtype_and_axis_has_one(tmp_path):
    dtypes = [torch.bfloat16, torch.float16, torch.int8, torch.bool, torch.complex64]
    held = {str(dtype): torch.ones(4, 3).to(dtype) for dtype in dtypes}
    held |= {"bias": torch.zeros(4), "across": torch.zeros(3, 4), "part": torch.zeros(8, 2)[::2]}
    path = str(tmp_path / "m.pt")
    torch.save(held, path)
    tws.save_vocabularies(path, dict.fromkeys(held, OLD))
    about = json.loads(Path(f"{path}.warmstart.json").read_text())["vocabularies"]
    assert len({told["tensor"]["spread"] for told in about.values()}) == len(held)


@pytest.mark.parametrize(
    "named", [tws.FROM_CHECKPOINT, tws.FROM_CHECKPOINT["tok.weight"]], ids=["all", "named"]
)
def test_it_lies_beside_the_checkpoint_that_was_opened_wherever_the_process_has_gone(
    saved, named, tmp_path, monkeypatch
):
    other = tmp_path / "other"
    other.mkdir()
    tws.save_vocabularies(save(other / "m.pt", offset=9.0), {"tok.weight": OLD[::-1]})
    monkeypatch.chdir(tmp_path)
    model = nn.Module()
    model.tok = nn.Embedding(len(NEW), 2)
    checkpoint = tws.load_checkpoint("m.pt")
    monkeypatch.chdir(other)
    infos = {"tok.weight": tws.VocabInfo(NEW, old_vocab=named)}
    tws.warm_start(model, tws.WarmStartSettings(checkpoint, ".*", infos))
    assert model.tok.weight.tolist() == FOUND
