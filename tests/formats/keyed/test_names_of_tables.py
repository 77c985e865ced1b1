"""Names: which table is a slot's, whose ids are whose, and which part of a table is missing."""

from __future__ import annotations

import monolith_writer as mw
import numpy as np
import pytest
import torch
from bundle_writer import BundleEntry, DType, write_bundle
from embedding_variable_writer import deeprec, floats, increment
from test_embedding_variables import rows_of
from torch import nn

import torch_warmstart as tws

EMPTY = (1 << 63) - 1


def tables(url):
    with tws.load_checkpoint(str(url)) as checkpoint:
        return {name: list(table.slots) for name, table in checkpoint.tables().items()}


def rows(url, key, new, **info):
    model = nn.ModuleDict({"emb": nn.Embedding(len(new), 2)})
    infos = {"emb.weight": tws.VocabInfo(new, **info)}
    tws.warm_start(model, tws.WarmStartSettings(str(url), ".*", infos, {"emb.weight": key}))
    return model["emb"].weight.tolist()


def test_a_table_whose_name_begins_as_anothers_is_no_slot(tmp_path):
    others = ["user-v2", "user_item", "user_m", "user_v2", "user/item", "user-system"]
    slots = ["user/Adagrad", "user/Adam_1", "user-adagrad_acc", "user_Adam_m", "user-x/shadow_m"]
    entries = [entry for name in ["user", *others, *slots] for entry in deeprec(name, rows_of([7]))]
    write_bundle(tmp_path / "m", entries)
    found = tables(tmp_path / "m")
    assert sorted(found) == sorted(["user", *others])
    assert sorted(found["user"]) == sorted(name[5:] for name in slots)
    for name in ("user-v2", "user/Adagrad"):
        assert rows(tmp_path / "m", name, [7], old_vocab=tws.FROM_CHECKPOINT[name]) == [[7, -7]]


def test_a_part_of_which_only_the_increment_is_there_is_missing(tmp_path):
    entries = [
        *deeprec("emb/part_0", rows_of([4])),
        *increment("emb/part_0", rows_of([4], 5)),
        *increment("emb/part_1", rows_of([7], 5)),
    ]
    write_bundle(tmp_path / "m", entries)
    with pytest.raises(tws.CorruptCheckpointError, match="part 1 of 2 is missing"):
        rows(tmp_path / "m", "emb", [4, 7])


def zch(ids):
    """The buffers of a table of five rows, whose ids are in rows of their order."""
    sorted_ids = torch.tensor([*sorted(ids), *[EMPTY] * (5 - len(ids))])
    return {"_mch_sorted_raw_ids": sorted_ids, "_mch_remapped_ids_mapping": torch.arange(5)}


def managed(module, ids, offset, collisions="_managed_collision_collection."):
    held = {f"{collisions}_managed_collision_modules.t.{k}": v for k, v in zch(ids).items()}
    held["_embedding_module.embeddings.t.weight"] = torch.arange(10.0).view(5, 2) + offset
    return {f"{module}.{key}": value for key, value in held.items()}


@pytest.mark.parametrize("order", [1, -1])
def test_tables_of_one_name_have_the_ids_of_their_own_module(tmp_path, order):
    both = [managed("user", [4, 7], 0), managed("item", [7, 9], 100)][::order]
    torch.save({**both[0], **both[1]}, tmp_path / "m.pt")
    stems = [f"{module}._embedding_module.embeddings.t" for module in ("item", "user")]
    assert sorted(tables(tmp_path / "m.pt")) == stems
    assert rows(tmp_path / "m.pt", f"{stems[1]}.weight", [7, 4]) == [[2, 3], [0, 1]]
    assert rows(tmp_path / "m.pt", f"{stems[0]}.weight", [7, 9]) == [[100, 101], [102, 103]]


def test_whose_ids_are_not_clear_are_nobodys(tmp_path):
    held = managed("user", [4, 7], 0)
    held["user._embedding_module.embedding_bags.t.weight"] = torch.zeros(5, 2)
    torch.save(held, tmp_path / "m.pt")
    for kind in ("embeddings", "embedding_bags"):
        with pytest.raises(tws.CorruptCheckpointError, match="is not clear"):
            rows(tmp_path / "m.pt", f"user._embedding_module.{kind}.t.weight", [7, 4])


def test_the_state_of_a_table_of_torchrec_lies_as_its_rows(tmp_path):
    weight = torch.arange(10.0).view(5, 2)
    model = {"t.embeddings.t.weight": weight} | {
        f"t._managed_collision_modules.t.{key}": value for key, value in zch([4, 7]).items()
    }
    held = {"step": torch.tensor(3.0), "sum": weight + 0.5}
    optimizer = {"state": {0: held}, "param_groups": [{"params": [0], "lr": 0.1}]}
    torch.save({"model": model, "optimizer": optimizer}, tmp_path / "m.pt")

    class Items(nn.Module):
        def __init__(self):
            super().__init__()
            self.t = nn.ModuleDict({"embeddings": nn.ModuleDict({"t": nn.Embedding(3, 2)})})

    made, asked = Items(), []

    def where(columns):
        asked.append(sorted(columns))
        return columns["key"] != 4

    info = tws.VocabInfo([9, 7, 4], where=where)
    settings = tws.WarmStartSettings(str(tmp_path / "m.pt"), ".*", {"t.embeddings.t.weight": info})
    adagrad = torch.optim.Adagrad(made.parameters(), initial_accumulator_value=0.25)
    tws.warm_start(made, settings, optimizer=adagrad)
    (table,) = made.parameters()
    assert table.tolist() == [[0, 0], [2, 3], [0, 0]]
    assert adagrad.state[table]["sum"].tolist() == [[0.25, 0.25], [2.5, 3.5], [0.25, 0.25]]
    assert asked == [["key"]]  # once, not for every slot


def test_an_empty_place_alone_finds_nothing(tmp_path):
    held = {
        "m.embeddings.t.weight": torch.ones(5, 2),
        "m._managed_collision_modules.t._hash_zch_identities": torch.full((5, 1), -1),
    }
    torch.save(held, tmp_path / "m.pt")
    with pytest.warns(tws.WarmStartWarning, match="0 of 2 new entries"):
        assert rows(tmp_path / "m.pt", "m.embeddings.t.weight", [7, 4]) == [[0, 0]] * 2


@pytest.mark.parametrize(
    "counts", [[("a", 1), ("b", 1)], [("a", 2)], [("a", 1), ("b", 0)]], ids=str
)
def test_counts_that_leave_records_out_are_refused(tmp_path, counts):
    """With one record of `a` not counted, the next would be the first of `b`."""
    entries = [mw.entry_dump(i, [i, -i]) for i in (4, 7, 9)]
    mw.tables(tmp_path / "m", "MonolithMultiHashTable_x", {"a": entries[:2], "b": entries[2:]})
    assert rows(tmp_path / "m", "b", [9, 7]) == [[9, -9], [0, 0]]
    told = (mw.message(1, name.encode()) + b"\x10" + mw.varint(count) for name, count in counts)
    meta = tmp_path / "m" / "MonolithMultiHashTable_x.meta-00000-of-00001"
    meta.write_bytes(b"".join(map(mw.record, told)))
    with pytest.raises(tws.CorruptCheckpointError, match="3 records, but its tables' counts make"):
        rows(tmp_path / "m", "b", [9, 7])


def test_rows_of_a_part_on_an_ssd_are_refused_by_name(tmp_path):
    """embedding_var_restore.cc names the files by the variable, which is the part."""
    entries = [*deeprec("a/emb/part_0", rows_of([4])), *deeprec("a/emb/part_1", rows_of([7]))]
    write_bundle(tmp_path / "m", entries)
    (tmp_path / "m-a_emb_part_1-ssd_record.index").write_bytes(b"")
    with pytest.raises(tws.WarmStartError, match="m-a_emb_part_1-ssd_record, which is how DeepRec"):
        rows(tmp_path / "m", "a/emb", [4, 7])


def test_ids_without_a_sign_are_found(tmp_path):
    high = (1 << 63) + 5
    keys = BundleEntry("emb-keys", DType.UINT64, (2,), np.array([high, 4], "<u8").tobytes())
    write_bundle(tmp_path / "m", [keys, floats("emb-values", [[1, 2], [3, 4]])])
    new = np.array([4, high, 9], np.uint64)
    assert rows(tmp_path / "m", "emb", new) == [[3, 4], [1, 2], [0, 0]]
    with tws.load_checkpoint(str(tmp_path / "m")) as checkpoint:
        assert list(checkpoint.tables()["emb"].keys.entries) == [high, 4]


def test_a_filter_that_leaves_nothing_is_named(tmp_path):
    write_bundle(tmp_path / "m", deeprec("emb", rows_of([4, 7]), freqs={4: 1, 7: 2}))
    with pytest.raises(tws.PlanError, match="Of the 2 ids of .* none is left by min_frequency"):
        rows(tmp_path / "m", "emb", [4, 7], min_frequency=3)


def test_a_folder_of_sparse_operation_kit_is_refused_by_name(tmp_path):
    (tmp_path / "meta_info").write_bytes(bytes(308))
    (tmp_path / "t-key").write_bytes(bytes(304))
    with pytest.raises(tws.WarmStartError, match="meta_info, as SparseOperationKit writes it"):
        tws.load_checkpoint(str(tmp_path))


def test_many_tables_of_one_name_are_told_apart_at_once():
    count = 2000  # of which each pair compared with all others would take minutes
    weight, ids = torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.int64)
    held = {f"m{n}.embeddings.t.weight": weight for n in range(count)}
    held |= {f"m{n}._managed_collision_modules.t._hash_zch_identities": ids for n in range(count)}
    with tws.load_checkpoint(held) as checkpoint:
        found = checkpoint.tables()
        assert len(found) == count
        assert found["m7.embeddings.t"].values == "m7.embeddings.t.weight"
