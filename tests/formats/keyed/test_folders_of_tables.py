"""HugeCTR's and dynamicemb's folders, and TorchRec's ZCH: right rows, or refused."""

from __future__ import annotations

import struct

import pytest
import torch
from torch import nn

import torch_warmstart as tws

NEW = [7, 4, 1000, 9]


def keys_of(ids):
    return struct.pack(f"<{len(ids)}q", *ids)


def floats_of(rows):
    flat = [number for row in rows for number in row]
    return struct.pack(f"<{len(flat)}f", *flat)


def hugectr(folder, ids, rows):
    folder.mkdir()
    (folder / "key").write_bytes(keys_of(ids))
    (folder / "emb_vector").write_bytes(floats_of(rows))
    return str(folder)


def dynamicemb(folder, table, ids, world, *, opt=None, scores=None):
    """Rank r of w has the keys with `key % w == r`; a row of key k is [k, -k]."""
    folder.mkdir(exist_ok=True)
    for rank in range(world):
        mine = [i for i in ids if i % world == rank]
        end = f"rank_{rank}.world_size_{world}"
        (folder / f"{table}_emb_keys.{end}").write_bytes(keys_of(mine))
        (folder / f"{table}_emb_values.{end}").write_bytes(floats_of([[i, -i] for i in mine]))
        if opt:
            values = floats_of([[i + opt, i - opt] for i in mine])
            (folder / f"{table}_emb_opt_values.{end}").write_bytes(values)
        if scores:
            (folder / f"{table}_emb_scores.{end}").write_bytes(keys_of([scores[i] for i in mine]))
    return str(folder)


def start(url, key, optimizer=None, model=None, rename=None, **info):
    model = model or nn.ModuleDict({"emb": nn.Embedding(len(NEW), 2)})
    names = {"emb.weight": key, **(rename or {})}
    selection = [".*weight$", ".*/sum"] if rename else ".*"
    settings = tws.WarmStartSettings(
        url, selection, {"emb.weight": tws.VocabInfo(NEW, **info)}, names
    )
    tws.warm_start(model, settings, optimizer=optimizer)
    return model["emb"].weight.tolist()


def test_a_folder_of_hugectr(tmp_path):
    url = hugectr(tmp_path / "t", [4, 9, 7], [[1, 2], [3, 4], [5, 6]])
    # python_interface.md: `key` is int64, `emb_vector` float32, in one order
    assert (tmp_path / "t" / "key").read_bytes()[:8] == b"\x04" + b"\0" * 7
    assert (tmp_path / "t" / "emb_vector").read_bytes()[:8] == b"\0\0\x80\x3f\0\0\0\x40"
    assert start(url, "t") == [[5, 6], [1, 2], [0, 0], [3, 4]]


@pytest.mark.parametrize("world", [1, 3])
def test_the_ranks_of_dynamicemb_are_one_table(tmp_path, world):
    scores = {4: 1, 7: 5, 9: 5, 30: 5}
    url = dynamicemb(tmp_path / "d", "t1", [4, 7, 9, 30], world, opt=100, scores=scores)
    dynamicemb(tmp_path / "d", "t2", [1], 1)
    model = nn.ModuleDict({"emb": nn.Embedding(len(NEW), 2)})
    optimizer = torch.optim.Adagrad(model.parameters(), initial_accumulator_value=0.5)
    rename = {"emb.weight/sum": "t1/opt_values"}
    found = start(url, "t1", optimizer, model, rename)
    assert found == [[7, -7], [4, -4], [0, 0], [9, -9]]
    sums = optimizer.state[model["emb"].weight]["sum"].tolist()
    assert sums == [[107, -93], [104, -96], [0.5, 0.5], [109, -91]]
    only = start(url, "t1", where=lambda columns: columns["score"] > 1)
    assert only == [[7, -7], [0, 0], [0, 0], [9, -9]]
    with tws.load_checkpoint(url) as checkpoint:
        assert list(checkpoint.tables()) == ["t1", "t2"]
        assert checkpoint.tables()["t1"].parts == world


def test_folders_that_lie_are_refused(tmp_path):
    url = dynamicemb(tmp_path / "d", "t", [4, 7, 9], 2)
    gone = tmp_path / "d" / "t_emb_values.rank_1.world_size_2"
    kept = gone.read_bytes()
    gone.unlink()
    with pytest.raises(tws.CorruptCheckpointError, match="the values of rank 1 are missing"):
        start(url, "t")
    gone.write_bytes(kept[:-4])
    with pytest.raises(tws.CorruptCheckpointError, match="no rows of one width"):
        start(url, "t")
    gone.write_bytes(kept)
    keys = tmp_path / "d" / "t_emb_keys.rank_1.world_size_2"
    keys.write_bytes(keys_of([7, 8]))
    with pytest.raises(tws.WarmStartError, match="key 8 is in the file of rank 1 of 2"):
        start(url, "t")
    keys.write_bytes(keys_of([7, 7]))
    with pytest.raises(tws.WarmStartError, match="key 7 is there twice"):
        start(url, "t")
    keys.write_bytes(keys_of([7, 9])[:-3])
    with pytest.raises(tws.CorruptCheckpointError, match="no whole keys"):
        start(url, "t")
    short = hugectr(tmp_path / "t", [1, 2, 3], [[1, 2], [3, 4]])
    with pytest.raises(tws.CorruptCheckpointError, match="no rows of one width"):
        start(short, "t")


EMPTY = (1 << 63) - 1


def zch(ids, rows, size=5):
    """modules/mc_modules.py: ids sorted, the largest int64 where none is; the row of each."""
    pad = size - len(ids)
    folder = "m._managed_collision_modules.t"
    return {
        "m.embedding_bags.t.weight": torch.arange(2.0 * size).view(size, 2),
        f"{folder}._mch_sorted_raw_ids": torch.tensor([*ids, *[EMPTY] * pad]),
        f"{folder}._mch_remapped_ids_mapping": torch.tensor([*rows, *range(len(ids), size)]),
        f"{folder}._mch_counts": torch.tensor([*range(1, len(ids) + 1), *[0] * pad]),
    }


def test_zch_keeps_which_row_an_id_has():
    state = zch([4, 9, 200], [3, 0, 1])
    key = "m.embedding_bags.t.weight"
    assert start(state, key) == [[0, 0], [6, 7], [0, 0], [0, 1]]
    assert start(state, key, min_frequency=2) == [[0, 0], [0, 0], [0, 0], [0, 1]]
    folder = "m._managed_collision_modules.t"
    for leaf, values, said in (
        ("_mch_sorted_raw_ids", [9, 4, 200, EMPTY, EMPTY], "not sorted"),
        ("_mch_sorted_raw_ids", [4, 4, 200, EMPTY, EMPTY], "twice"),
        ("_mch_remapped_ids_mapping", [3, 3, 1, 0, 2], "two ids have one row"),
        ("_mch_remapped_ids_mapping", [3, 9, 1, 0, 2], "a row is none"),
        ("_mch_counts", [1, 2], "for 5 rows"),
    ):
        lie = {**state, f"{folder}.{leaf}": torch.tensor(values)}
        with pytest.raises(tws.WarmStartError, match=said):
            start(lie, key, min_frequency=1)


def test_the_place_of_an_id_is_its_row_in_mpzch():
    folder = "m._managed_collision_modules.t"
    state = {
        "m.embeddings.t.weight": torch.arange(8.0).view(4, 2),
        f"{folder}._hash_zch_identities": torch.tensor([[9], [-1], [4], [-1]]),
    }
    assert start(state, "m.embeddings.t.weight") == [[0, 0], [4, 5], [0, 0], [0, 1]]
