"""What was found by attacking keyed tables: empty ones, links, pipes, functions that raise."""

from __future__ import annotations

import os
import struct

import pytest
import torch
from bundle_writer import write_bundle
from embedding_variable_writer import deeprec
from test_embedding_variables import rows_of
from torch import nn

import torch_warmstart as tws
from torch_warmstart.errors import CallbackError

NEW = [7, 4, 9]
TYPES = "keys=int64,values=float"


def start(url, key="emb", entry=None, optimizer=None, model=None, **info):
    model = model or nn.ModuleDict({"emb": nn.Embedding(len(NEW), 2)})
    infos = {"emb.weight": tws.VocabInfo(NEW, **info)}
    settings = tws.WarmStartSettings(url, ".*", infos, {"emb.weight": key}, entry=entry)
    tws.warm_start(model, settings, optimizer=optimizer)
    return model["emb"].weight.tolist()


def folder(path, keys=(7,), values=(1, 2)):
    path.mkdir()
    (path / "emb-keys").write_bytes(struct.pack(f"<{len(keys)}q", *keys))
    (path / "emb-values").write_bytes(struct.pack(f"<{len(values)}f", *values))
    return path


def test_a_slot_that_no_id_has_come_to_begins_anew(tmp_path):
    tensors = [*deeprec("emb", rows_of([7, 4])), *deeprec("emb/Adagrad", {})]
    write_bundle(tmp_path / "m", tensors)
    model = nn.ModuleDict({"emb": nn.Embedding(len(NEW), 2)})
    optimizer = torch.optim.Adagrad(model.parameters(), initial_accumulator_value=0.25)
    rows = start(str(tmp_path / "m"), optimizer=optimizer, model=model)
    assert rows == [[7, -7], [4, -4], [0, 0]]
    assert optimizer.state[model["emb"].weight]["sum"].eq(0.25).all()


def test_a_table_without_any_id_finds_none(tmp_path):
    write_bundle(tmp_path / "m", deeprec("emb", {}))
    with pytest.warns(tws.WarmStartWarning, match="0 of 3 new entries are in"):
        assert start(str(tmp_path / "m")) == [[0, 0]] * 3


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    made = folder(tmp_path / "t")
    (tmp_path / "secret").write_bytes((made / "emb-keys").read_bytes())
    (made / "emb-keys").unlink()
    (made / "emb-keys").symlink_to(tmp_path / "secret")
    with pytest.raises(tws.CorruptCheckpointError, match="a link that leads out"):
        start(str(made), entry=TYPES)
    (made / "emb-keys").unlink()
    (made / "real").write_bytes((tmp_path / "secret").read_bytes())
    (made / "emb-keys").symlink_to("real")
    os.symlink(made, tmp_path / "latest")
    for url in (made, tmp_path / "latest"):
        assert start(str(url), entry=TYPES) == [[1, 2], [0, 0], [0, 0]]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_waited_for(tmp_path, make):
    made = folder(tmp_path / "t")
    (made / "emb-keys").unlink()
    make(made / "emb-keys")
    with pytest.raises(tws.CorruptCheckpointError, match="emb-keys, which does not exist"):
        start(str(made), entry=TYPES)


def test_a_where_that_raises_is_told_with_what_it_was_given(tmp_path):
    tensors = deeprec("emb", rows_of([7, 4]), freqs={7: 1, 4: 2})
    write_bundle(tmp_path / "m", tensors)
    said = "where raised KeyError for .*, of which it was given frequency, key"
    with pytest.raises(CallbackError, match=said) as told:
        start(str(tmp_path / "m"), where=lambda columns: columns["version"] > 0)
    assert isinstance(told.value.__cause__, KeyError)


def test_types_are_said_once(tmp_path):
    made = folder(tmp_path / "t")
    with pytest.raises(tws.SettingsError, match="once each"):
        start(str(made), entry=f"{TYPES},keys=int32")


def test_no_other_ids_are_saved_for_a_table_that_keeps_its_own(tmp_path):
    write_bundle(tmp_path / "m", deeprec("emb", rows_of([7, 4])))
    url = str(tmp_path / "m")
    with tws.load_checkpoint(url) as checkpoint:
        own = checkpoint.tables()["emb"].keys
    tws.save_vocabularies(url, {"emb": own})
    assert start(url) == [[7, -7], [4, -4], [0, 0]]
    for key in ("emb", "emb-values"):
        with pytest.raises(tws.SettingsError, match="keeps its own ids"):
            tws.save_vocabularies(url, {key: [7, 4]})


def test_ids_that_are_back_come_from_older_tables_with_their_slots(tmp_path):
    today = [*deeprec("emb", rows_of([7])), *deeprec("emb/Adagrad", rows_of([7], 0.5))]
    before = [*deeprec("emb", rows_of([9, 7], 100)), *deeprec("emb/Adagrad", rows_of([9], 7))]
    write_bundle(tmp_path / "today", today)
    write_bundle(tmp_path / "before", before)
    model = nn.ModuleDict({"emb": nn.Embedding(len(NEW), 2)})
    optimizer = torch.optim.Adagrad(model.parameters(), initial_accumulator_value=0.25)
    rows = start(
        str(tmp_path / "today"),
        optimizer=optimizer,
        model=model,
        fallback=[(str(tmp_path / "before"), tws.FROM_CHECKPOINT)],
    )
    assert rows == [[7, -7], [0, 0], [109, -109]]
    sums = optimizer.state[model["emb"].weight]["sum"].tolist()
    assert sums == [[7.5, -7.5], [0.25, 0.25], [16, -16]]
