"""Tables that no id has come to yet: something tells how wide their rows are, or nothing."""

from __future__ import annotations

import struct

import monolith_writer as mw
import pytest
from bundle_writer import write_bundle
from embedding_variable_writer import deeprec
from torch import nn

import torch_warmstart as tws

NEW = [7, 4]
TYPES = "keys=int64,values=float"


def raw(path, code, numbers):
    path.write_bytes(struct.pack(f"<{len(numbers)}{code}", *numbers))


def tfra(folder, name, ids, width=2):
    folder.mkdir(exist_ok=True)
    raw(folder / f"{name}_mht_1of1_rank0_size1-keys", "q", ids)
    raw(folder / f"{name}_mht_1of1_rank0_size1-values", "f", [float(i) for i in ids] * width)
    return str(folder)


def dynamicemb(folder, name, of_ranks, opt=None):
    folder.mkdir(exist_ok=True)
    for rank, ids in enumerate(of_ranks):
        end = f"rank_{rank}.world_size_{len(of_ranks)}"
        raw(folder / f"{name}_emb_keys.{end}", "q", ids)
        raw(folder / f"{name}_emb_values.{end}", "f", [n for i in ids for n in (i, -i)])
        if opt is not None:
            raw(folder / f"{name}_emb_opt_values.{end}", "f", [float(i) for i in ids] * opt)
    return str(folder)


def hugectr(folder, ids):
    folder.mkdir()
    raw(folder / "key", "q", ids)
    raw(folder / "emb_vector", "f", [n for i in ids for n in (i, -i)])
    return str(folder)


def started(url, key="emb", entry=None, width=2):
    model = nn.ModuleDict({"emb": nn.Embedding(len(NEW), width)})
    nn.init.constant_(model["emb"].weight, 5.0)
    settings = tws.WarmStartSettings(
        url, ".*", {"emb.weight": tws.VocabInfo(NEW)}, {"emb.weight": key}, entry=entry
    )
    try:
        tws.warm_start(model, settings)
    except tws.WarmStartError:
        assert model["emb"].weight.unique().tolist() == [5.0]
        raise
    return model["emb"].weight.tolist()


def of_monolith(path):
    return mw.table(path, "emb", [], 1), "emb", None


UNTOLD = {
    "hugectr": lambda path: (hugectr(path / "emb", []), "emb", None),
    "dynamicemb": lambda path: (dynamicemb(path / "d", "emb", [[], []], 1), "emb", None),
    "tfra": lambda path: (tfra(path / "t", "emb", []), "emb", TYPES),
}


@pytest.mark.parametrize("form", UNTOLD)
def test_what_nothing_tells_is_said_and_never_a_shape(tmp_path, form):
    url, key, entry = UNTOLD[form](tmp_path)
    with pytest.raises(tws.PlanError, match="'emb' has no rows, and no file says how many") as told:
        started(url, key, entry)
    assert [problem.code for problem in told.value.problems] == ["tensor-unreadable"]
    with tws.load_checkpoint(url, entry=entry) as checkpoint:
        assert checkpoint.spec(key).shape == (0,)
        table = checkpoint.tables()[key]
        assert (table.shape, len(table.keys)) == ((0,), 0)
        with pytest.raises(tws.UnsupportedError, match="'emb' has no rows"):
            checkpoint.get_tensor(key)


def test_a_table_of_monolith_without_records_is_said_beside_one_that_has_some(tmp_path):
    mw.table(tmp_path, "emb", [], 1)
    url = mw.table(tmp_path, "other", [mw.entry_dump(7, [1, 2], (), 100)], 1)
    with pytest.raises(tws.PlanError, match="'emb' has no rows, and no file says how many"):
        started(url)
    assert started(url, "other") == [[1, 2], [0, 0]]
    with tws.load_checkpoint(url) as checkpoint:
        assert sorted(checkpoint.tables()) == ["emb", "other"]


@pytest.mark.parametrize("width", [1, 2])
def test_no_shape_is_made_of_what_would_fit(tmp_path, width):
    """A model whose rows are as wide as rows once were made of nothing: one number."""
    with pytest.raises(tws.PlanError, match="has no rows"):
        started(hugectr(tmp_path / "emb", []), width=width)


def test_parts_of_other_ranks_tell_it(tmp_path):
    assert started(dynamicemb(tmp_path / "d", "emb", [[], [7]])) == [[7, -7], [0, 0]]


def test_the_caller_tells_it(tmp_path):
    url = tfra(tmp_path / "t", "emb", [])
    with pytest.raises(tws.PlanError, match=r"say it in entry, which ends in ',dim=16'"):
        started(url, entry=TYPES)
    with pytest.warns(tws.WarmStartWarning, match="0 of 2 new entries are in"):
        assert started(url, entry=f"{TYPES},dim=2") == [[0, 0], [0, 0]]
    with pytest.raises(tws.PlanError, match=r"must equal that of 'emb', \[0, 3\]"):
        started(url, entry=f"{TYPES},dim=3")


@pytest.mark.parametrize("has_rows", ["emb", "emb-adagrad_acc"])
def test_a_table_and_its_slots_tell_each_other(tmp_path, has_rows):
    for name in ("emb", "emb-adagrad_acc"):
        url = tfra(tmp_path / "t", name, [7] if name == has_rows else [])
    with tws.load_checkpoint(url, entry=TYPES) as checkpoint:
        shapes = {key: spec.shape for key, spec in checkpoint.items()}
    empty = {"emb", "emb-adagrad_acc"} - {has_rows}
    assert shapes == {has_rows: (1, 2), **dict.fromkeys(empty, (0, 2))}


def test_slots_of_several_widths_tell_nothing(tmp_path):
    tfra(tmp_path / "t", "emb", [])
    tfra(tmp_path / "t", "emb-adam_m", [7], width=2)
    url = tfra(tmp_path / "t", "emb-adam_v", [7], width=1)
    with pytest.raises(tws.PlanError, match="has no rows"):
        started(url, entry=TYPES)


def test_what_the_file_states_is_taken(tmp_path):
    write_bundle(tmp_path / "m", deeprec("emb", {}))
    with pytest.warns(tws.WarmStartWarning, match="0 of 2 new entries are in"):
        assert started(str(tmp_path / "m")) == [[0, 0], [0, 0]]


def test_an_optimizer_without_state_leaves_empty_files(tmp_path):
    """optimizer.py: SGD keeps nothing, so that a row has no numbers of it."""
    url = dynamicemb(tmp_path / "d", "emb", [[4], [7]], opt=0)
    with tws.load_checkpoint(url) as checkpoint:
        assert list(checkpoint) == ["emb"]
        assert not checkpoint.tables()["emb"].slots
    assert started(url) == [[7, -7], [4, -4]]


def test_the_others_of_a_folder_are_read(tmp_path):
    dynamicemb(tmp_path / "d", "young", [[], []], 2)
    url = dynamicemb(tmp_path / "d", "emb", [[4], [7]])
    assert started(url) == [[7, -7], [4, -4]]
    with tws.load_checkpoint(url) as checkpoint:
        text = str(checkpoint.to_dict())
    assert "young" in text
    converted = tws.convert(url, tmp_path / "out.safetensors")
    assert "has no rows" in str(converted)
    with tws.load_checkpoint(tmp_path / "out.safetensors") as checkpoint:
        assert list(checkpoint) == ["emb"]
    assert "could not be compared" in str(tws.diff(url, url))
