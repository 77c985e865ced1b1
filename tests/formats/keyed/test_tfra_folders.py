"""TFRA's raw files: of the types that are said, all parts of all ranks, or refused.

The bytes are those of dynamic_embedding_variable.py:1002 (`save_to_file_system`) and
cuckoo_hashtable_op.cc (`SaveToFileSystemImpl`): keys and values as they lie in memory.
"""

from __future__ import annotations

import struct

import pytest
import torch
from torch import nn

import torch_warmstart as tws

NEW = [7, 4, 1000, 9]
ENTRY = "keys=int64,values=float"
_CODES = {"int64": "q", "int32": "i", "float": "f", "half": "e", "double": "d"}


def save(folder, table, rows, keys="int64", values="float", size=1, count=1):
    """Key k is with rank `k % size` on device `k // size % count`; from what is said by name."""
    folder.mkdir(exist_ok=True)
    for rank in range(size):
        for number in range(1, count + 1):
            here = [k for k in rows if k % size == rank and k // size % count == number - 1]
            flat = [value for k in here for value in rows[k]]
            stem = folder / f"{table}_mht_{number}of{count}_rank{rank}_size{size}"
            packed = struct.pack(f"<{len(here)}{_CODES[keys]}", *here)
            stem.with_name(stem.name + "-keys").write_bytes(packed)
            packed = struct.pack(f"<{len(flat)}{_CODES[values]}", *flat)
            stem.with_name(stem.name + "-values").write_bytes(packed)
    return str(folder)


def rows_of(ids, offset=0.0):
    return {i: [i + offset, -i - offset] for i in ids}


def start(url, entry=ENTRY, optimizer=None, model=None, rename=None, key="emb", **more):
    model = model or nn.ModuleDict({"emb": nn.Embedding(len(NEW), 2)})
    selection = [".*weight$", ".*/sum"] if rename else ".*"
    settings = tws.WarmStartSettings(
        url,
        selection,
        {"emb.weight": tws.VocabInfo(NEW)},
        {"emb.weight": key, **(rename or {})},
        entry=entry,
        **more,
    )
    tws.warm_start(model, settings, optimizer=optimizer)
    return model["emb"].weight.tolist()


def test_the_bytes_are_what_lies_in_memory(tmp_path):
    save(tmp_path, "emb", {7: [1.0, -2.0]}, "int32", "half")
    stem = tmp_path / "emb_mht_1of1_rank0_size1"
    assert stem.with_name(stem.name + "-keys").read_bytes() == b"\7\0\0\0"
    assert stem.with_name(stem.name + "-values").read_bytes() == b"\0\x3c\0\xc0"


@pytest.mark.parametrize(("keys", "values"), [("int64", "float"), ("int32", "half")])
@pytest.mark.parametrize(("size", "count"), [(1, 1), (1, 3), (3, 2)])
def test_rows_of_all_parts(tmp_path, keys, values, size, count):
    save(tmp_path, "emb", rows_of([4, 7, 9, 30]), keys, values, size, count)
    save(tmp_path, "emb-adagrad_acc", rows_of([7], 0.5), keys, values, size, count)
    entry = f"keys={keys}, values={values}, dim=2"
    model = nn.ModuleDict({"emb": nn.Embedding(len(NEW), 2)})
    optimizer = torch.optim.Adagrad(model.parameters(), initial_accumulator_value=0.25)
    found = start(str(tmp_path), entry, optimizer, model, {"emb.weight/sum": "emb-adagrad_acc"})
    assert found == [[7, -7], [4, -4], [0, 0], [9, -9]]
    sums = optimizer.state[model["emb"].weight]["sum"].tolist()
    assert sums == [[7.5, -7.5], [0.25] * 2, [0.25] * 2, [0.25] * 2]
    with tws.load_checkpoint(tmp_path, entry=entry) as checkpoint:
        (table,) = checkpoint.tables().values()
        assert (table.name, table.parts, list(table.slots)) == (
            "emb",
            size * count,
            ["adagrad_acc"],
        )
        at = table.keys.rows([30, 4])
        assert checkpoint.get_tensor("emb", at).tolist() == [[30, -30], [4, -4]]


def test_files_that_somebody_named_are_one_part(tmp_path):
    (tmp_path / "mine-keys").write_bytes(struct.pack("<2q", 4, 9))
    (tmp_path / "mine-values").write_bytes(struct.pack("<4f", 1, 2, 3, 4))
    assert start(str(tmp_path), key="mine") == [[0, 0], [1, 2], [0, 0], [3, 4]]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (None, "do not say of what types their keys and values are.*there was no keys="),
        ("keys=int64", "there was no values="),
        ("keys=uint64,values=float", "there was keys=uint64, and keys are int32, int64, string"),
        ("keys=int64,values=float,dim=two", "dim=two of .* is no number of columns"),
        ("keys=int64,values=float,dim=-2", "is no number of columns"),
        ("model", "says 'model' of .*; it says keys, values and dim"),
    ],
)
def test_types_must_be_said(tmp_path, entry, said):
    save(tmp_path, "emb", rows_of([4, 9]))
    with pytest.raises(tws.SettingsError, match=said):
        start(str(tmp_path), entry)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("keys=int32,values=float", r"its shape \[4, 2\] must equal that of 'emb', \[4, 1\]"),
        ("keys=int64,values=half,dim=2", "a row of table 'emb' has 4 numbers, not 2"),
        ("keys=int64,values=double,dim=2", "a row of table 'emb' has 1 numbers, not 2"),
    ],
)
def test_other_types_than_those_written_are_refused(tmp_path, entry, said):
    save(tmp_path, "emb", rows_of([4, 9]))
    with pytest.raises(tws.WarmStartError, match=said):
        start(str(tmp_path), entry)


def test_folders_that_lie_are_refused(tmp_path):
    url = save(tmp_path, "emb", rows_of([4, 7, 9]), size=2)

    def refused(said):
        with pytest.raises(tws.WarmStartError, match=said):
            start(url)

    values, keys = (tmp_path / f"emb_mht_1of1_rank1_size2-{word}" for word in ("values", "keys"))
    whole, ids = values.read_bytes(), keys.read_bytes()
    values.write_bytes(whole[:-4])
    refused("no rows of one width")
    values.write_bytes(whole + whole)
    refused("no rows of one width")
    values.unlink()
    refused("emb_mht_1of1_rank1_size2-values")
    values.write_bytes(whole)
    keys.write_bytes(ids[:-1])
    refused("no whole keys")
    keys.write_bytes(ids[:8] * 2)
    refused("key 7 is there twice")
    keys.unlink()
    refused("part 1 of 1 of rank 1 is missing")
    keys.write_bytes(ids)
    save(tmp_path, "emb", rows_of([4]), size=1)
    refused("of several saves")
    (tmp_path / "emb_mht_2of1_rank0_size1-keys").write_bytes(b"")
    refused("is part 2 of 1")


def test_a_table_without_rows_is_as_wide_as_is_said(tmp_path):
    save(tmp_path, "emb", {})
    with tws.load_checkpoint(tmp_path, entry=f"{ENTRY},dim=2") as checkpoint:
        assert checkpoint.spec("emb").shape == (0, 2)
        assert len(checkpoint.tables()["emb"].keys) == 0
    with pytest.warns(tws.WarmStartWarning, match="0 of 4 new entries"):
        assert start(str(tmp_path), f"{ENTRY},dim=2") == [[0, 0]] * 4
