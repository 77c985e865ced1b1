"""TorchRec's ZCH and MPZCH in directories of torch.distributed.checkpoint: as in state dicts."""

from __future__ import annotations

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn

import torch_warmstart as tws

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::FutureWarning:torch")

NEW = [7, 4, 1000, 9]
EMPTY = (1 << 63) - 1
FOLDER = "m._managed_collision_modules.t"
MODULES = "m._managed_collision_collection._managed_collision_modules.t"


def zch(**lies):
    """modules/mc_modules.py:1142-1193 of TorchRec 1.9: the buffers of MCHManagedCollisionModule."""
    return {
        "m.embedding_bags.t.weight": torch.arange(10.0).view(5, 2),
        f"{FOLDER}._mch_sorted_raw_ids": torch.tensor([4, 9, 200, EMPTY, EMPTY]),
        f"{FOLDER}._mch_remapped_ids_mapping": torch.tensor([3, 0, 1, 2, 4]),
        f"{FOLDER}._mch_counts": torch.tensor([1, 2, 3, 0, 0]),
        f"{FOLDER}._mch_last_access_iter": torch.tensor([10, 30, 20, 0, 0]),
        f"{FOLDER}._output_segments_tensor": torch.tensor([0, 5] + [-1] * 1023),
        f"{FOLDER}._current_iter_tensor": torch.tensor([40]),
        **{f"{FOLDER}.{leaf}": values for leaf, values in lies.items()},
    }


def mpzch(**lies):
    """modules/hash_mc_modules.py:340-365: identities and metadata of [size, 1]."""
    return {
        "m.embeddings.t.weight": torch.arange(8.0).view(4, 2),
        f"{MODULES}._hash_zch_identities": torch.tensor([[9], [-1], [4], [-1]]),
        f"{MODULES}._hash_zch_metadata": torch.tensor([[1], [0], [2], [0]], dtype=torch.int32),
        f"{MODULES}._hash_zch_bucket": torch.tensor([4]),
        **{f"{MODULES}.{leaf}": values for leaf, values in lies.items()},
    }


def save(state, folder, entry):
    contents = {entry: state, "step": 7} if entry else state
    dcp.save(contents, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    return str(folder)


def start(source, key, **info):
    model = nn.ModuleDict({"emb": nn.Embedding(len(NEW), 2)})
    infos = {"emb.weight": tws.VocabInfo(NEW, **info)}
    tws.warm_start(model, tws.WarmStartSettings(source, ".*", infos, {"emb.weight": key}))
    return model["emb"].weight.tolist()


@pytest.mark.parametrize("entry", ["", "model"])
@pytest.mark.parametrize("info", [{}, {"min_frequency": 2}, {"since_version": 30}])
def test_zch_is_read_as_from_its_state_dict(tmp_path, entry, info):
    url = save(zch(), tmp_path, entry)
    key = "m.embedding_bags.t.weight"
    found = start(url, key, **info)
    assert found == start(zch(), key, **info)
    assert found == [[0, 0], [0, 0] if info else [6, 7], [0, 0], [0, 1]]
    with tws.load_checkpoint(url) as checkpoint:
        (table,) = checkpoint.tables().values()
        assert (table.name, table.shape, table.values) == ("t", (5, 2), key)
        assert dict(table.keys.special) == {"oov": range(4, 5)}
        assert table.versions.tolist() == [30, 20, 10]  # of rows 0, 1 and 3


@pytest.mark.parametrize("entry", ["", "model"])
def test_mpzch_is_read_as_from_its_state_dict(tmp_path, entry):
    url = save(mpzch(), tmp_path, entry)
    found = start(url, "m.embeddings.t.weight")
    assert found == [[0, 0], [4, 5], [0, 0], [0, 1]]
    assert found == start(mpzch(), "m.embeddings.t.weight")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (zch(_mch_sorted_raw_ids=torch.tensor([9, 4, 200, EMPTY, EMPTY])), "not sorted"),
        (zch(_mch_remapped_ids_mapping=torch.tensor([3, 3, 1, 0, 2])), "two ids have one row"),
        (zch(_mch_remapped_ids_mapping=torch.tensor([3, 0, 1])), "for 5 rows"),
        (zch(_mch_sorted_raw_ids=torch.tensor([4.0, 9, 200, 300, 400])), "holds no integers"),
        (zch(_mch_counts=torch.tensor([1, -2, 3, 0, 0])), "a frequency of it is -2"),
        (mpzch(_hash_zch_identities=torch.tensor([[9], [9], [4], [-1]])), "an id is there twice"),
        (mpzch(_hash_zch_identities=torch.tensor([[9], [4]])), "for 4 rows"),
    ],
)
def test_what_lies_is_refused_there_too(tmp_path, state, said):
    url = save(state, tmp_path, "")
    key = next(iter(state))
    info = {"min_frequency": 1} if said == "a frequency of it is -2" else {}
    with pytest.raises(tws.WarmStartError, match=said):
        start(url, key, **info)


def test_the_bytes_are_what_lies_in_memory(tmp_path):
    """mc_modules.py:1142-1148: int64, the largest where there is no id; a file has them as torch
    saves any tensor, one behind the other, little-endian."""
    save(zch(), tmp_path, "")
    (file,) = tmp_path.glob("*.distcp")
    ids = (
        b"\x04"
        + b"\0" * 7
        + b"\x09"
        + b"\0" * 7
        + b"\xc8"
        + b"\0" * 7
        + (b"\xff" * 7 + b"\x7f") * 2
    )
    rows = b"".join(bytes([row]) + b"\0" * 7 for row in (3, 0, 1, 2, 4))
    raw = file.read_bytes()
    assert ids in raw
    assert rows in raw
