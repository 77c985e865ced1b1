"""The nightly loop of docs/recommenders.md, with files as each stack writes them."""

from __future__ import annotations

import re
from pathlib import Path

import monolith_writer as mw
import pytest
import torch
import torch.distributed.checkpoint as dcp
from bundle_writer import write_bundle
from embedding_variable_writer import deeprec as deeprec_tensors
from test_folders_of_tables import dynamicemb as dynamicemb_folder
from test_folders_of_tables import hugectr as hugectr_folder
from test_tfra_folders import rows_of, save

import torch_warmstart as tws

PAGE = Path(__file__).parents[3] / "docs" / "recommenders.md"
STACK = re.compile(r"\n\*\*([\w]+)[^*]*\*\* .*?```python\n(.*?)```", re.DOTALL)
IDS = [4, 7, 9, 30]
COUNTS = {"entry": [4, 9, 50, 51], "count": [9, 2, 7, 1]}  # 50 is admitted, 51 seen once

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::FutureWarning:torch")


class Items(torch.nn.Module):
    def __init__(self, count):
        super().__init__()
        self.item = torch.nn.Embedding(count, 2)


def deeprec(path):
    path.joinpath("deeprec").mkdir()
    freqs = {4: 5, 7: 5, 9: 1, 30: 5}  # 9 is below min_frequency
    entries = deeprec_tensors("item_emb", rows_of(IDS), freqs=freqs)
    slots = deeprec_tensors("item_emb/Adagrad", rows_of([7, 30], 0.5))
    write_bundle(path / "deeprec" / "model.ckpt-1000", [*entries, *slots])
    return [4, 7, 30], [7, 30]


def tfra(path):
    save(path / "tfra", "item_emb", rows_of(IDS), size=2)
    save(path / "tfra", "item_emb-adagrad_acc", rows_of([7], 0.5), size=2)
    return IDS, [7]


def torchrec(path):
    identities = torch.full((8, 1), -1)
    identities[[1, 3, 4, 6], 0] = torch.tensor(IDS)
    weight = torch.zeros(8, 2)
    weight[[1, 3, 4, 6]] = torch.tensor([[i, -i] for i in IDS], dtype=torch.float32)
    state = {
        "m.embeddings.item_table.weight": weight,
        "m._managed_collision_modules.item_table._hash_zch_identities": identities,
    }
    dcp.save(state, storage_writer=dcp.FileSystemWriter(path / "torchrec"), no_dist=True)
    return IDS, []


def hugectr(path):
    (path / "hugectr").mkdir()
    hugectr_folder(path / "hugectr" / "item_table", IDS, [[i, -i] for i in IDS])
    return IDS, []


def dynamicemb(path):
    scores = {4: 1, 7: 0, 9: 1, 30: 1}
    dynamicemb_folder(path / "dynamicemb", "item_table", IDS, 2, opt=0.5, scores=scores)
    return [4, 9, 30], [4, 9, 30]


def monolith(path):
    now = 1_700_000_000
    entries = [
        mw.entry_dump(i, [i, -i], [("adagrad", {1: [i + 0.5, -i - 0.5]})], now - (i == 30))
        for i in IDS
    ]
    mw.table(path / "model.ckpt-1000.assets", "item_table", entries, 2)
    return [4, 7, 9], [4, 7, 9]


def nvtabular(path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    for day, ids in (("monday", IDS), ("tuesday", [50, *reversed(IDS)])):
        folder = path / day / "categories"
        folder.mkdir(parents=True)
        frame = pandas.DataFrame({"item": ids, "item_size": range(len(ids))})
        frame.index = pandas.RangeIndex(3, 3 + len(ids))
        frame.to_parquet(folder / "unique.item.parquet")
    weight = torch.tensor([[0, 0]] * 3 + [[i, -i] for i in IDS], dtype=torch.float32)
    optimizer = {
        "state": {0: {"step": torch.tensor(1.0), "sum": weight + 0.5}},
        "param_groups": [{"params": [0], "lr": 0.01}],
    }
    torch.save({"model": {"item.weight": weight}, "optimizer": optimizer}, path / "monday.pt")
    return IDS, IDS


STACKS = {
    "DeepRec": deeprec,
    "TFRA": tfra,
    "TorchRec": torchrec,
    "HugeCTR": hugectr,
    "dynamicemb": dynamicemb,
    "Monolith": monolith,
    "NVTabular": nvtabular,
}


# What the slots of an id are, where it is not [i + 0.5, -i - 0.5].
SLOTS = {"dynamicemb": lambda i: [i + 0.5, i - 0.5], "NVTabular": lambda i: [i + 0.5, 0.5 - i]}


def section():
    text = PAGE.read_text(encoding="utf-8")
    return text.partition("## The nightly loop for each of them")[2].partition("\n## ")[0]


def test_each_stack_has_a_block():
    assert [name for name, _ in STACK.findall(section())] == list(STACKS)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.filterwarnings("error::torch_warmstart.WarmStartWarning")
def test_a_block_begins_tuesday_from_monday(tmp_path, monkeypatch, stack):
    monkeypatch.chdir(tmp_path)
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(COUNTS), tmp_path / "tuesday_counts.parquet")
    of_rows, of_slots = STACKS[stack](tmp_path)
    shared = re.findall(r"```python\n(.*?)```", section(), re.DOTALL)[0]
    known = {"Items": Items, "torch": torch}
    exec(shared, known)
    made = {}
    tuesday = known["tuesday"]
    known["tuesday"] = lambda new, settings: made.update(
        zip(("new", "model", "optimizer"), (new, *tuesday(new, settings)), strict=True)
    )
    exec(dict(STACK.findall(section()))[stack], known)

    new, weight = made["new"], made["model"].item.weight
    rows = dict(zip(new.listed.values(slice(None)), new.entry_rows.tolist(), strict=True))
    assert set(rows) >= {*IDS, 50}
    assert 51 not in rows
    sums = made["optimizer"].state[weight]["sum"]
    for entry, row in rows.items():
        expected = [entry, -entry] if entry in of_rows else [0, 0]
        assert weight[row].tolist() == expected, entry
        slot = SLOTS.get(stack, lambda i: [i + 0.5, -i - 0.5])(entry)
        fresh = torch.tensor([0.1, 0.1])
        assert torch.equal(sums[row], torch.tensor(slot) if entry in of_slots else fresh), entry
    again = tws.Vocabulary.load("tuesday.parquet")
    assert again.fingerprint == new.fingerprint
