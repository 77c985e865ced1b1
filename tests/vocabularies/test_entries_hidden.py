"""TORCH_WARMSTART_HIDE_ENTRIES=1: no message, report or traceback holds an entry."""

from __future__ import annotations

import struct
import traceback

import numpy as np
import pytest
import torch
from bundle_writer import BundleEntry, DType, write_bundle
from torch import nn

import torch_warmstart as tws

ID, NUMBER = "person-4711", 47114711
TWICE = [ID, "a", ID]


def written(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def start(source, info, key="emb"):
    model = nn.ModuleDict({"emb": nn.Embedding(3, 2)})
    settings = tws.WarmStartSettings(source, ".*", {"emb.weight": info}, {"emb.weight": key})
    return tws.warm_start(model, settings)


STATE = {"emb.weight": torch.zeros(3, 2)}


def twice_new(_):
    start(STATE, tws.VocabInfo(TWICE, old_vocab=["a", "b", ID]), "emb.weight")


def twice_old(_):
    start(STATE, tws.VocabInfo(["a", "b", ID], old_vocab=TWICE), "emb.weight")


def twice_updated(_):
    tws.update_vocabulary(TWICE, {ID: 1})


def twice_compared(_):
    tws.diff_vocabularies(TWICE, ["a", ID])


def rows_alike(_):
    tws.Vocabulary.load({ID: 0, "b": 0})


def half_a_pair(_):
    tws.Vocabulary.load([ID + "\ud83d"])


def beyond_64_bits(_):
    tws.Vocabulary.load([NUMBER * 10**20])


def counts_that_are_none(tmp_path):
    pytest.importorskip("pyarrow")
    tws.update_vocabulary(["a"], written(tmp_path / "c.csv", f"entry,count\na,{ID}\n"))


def counts_without_names(tmp_path):
    pytest.importorskip("pyarrow")
    tws.update_vocabulary(["a"], written(tmp_path / "c.csv", f"{ID},3\na,4\n"))


def a_table_without_names(tmp_path):
    pytest.importorskip("pyarrow")
    tws.Vocabulary.load(written(tmp_path / "c.csv", f"{ID},3\na,4\n"), column="entry")


def an_alias_of_none(_):
    alias = tws.init.alias({"b": ID})
    info = tws.VocabInfo(["a", "b", "c"], old_vocab=["a", "x", "y"], backup_initializer=alias)
    start(STATE, info, "emb.weight")


def a_saved_table_that_is_damaged(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "v.tsv"
    tws.update_vocabulary(["a"], {"b": 1}).save(path)
    tws.Vocabulary.load(written(path, path.read_bytes().replace(b"b\t1", b"b\t" + ID.encode())))


def keys_of_a_bundle(tmp_path):
    keys, values = struct.pack("<2q", NUMBER, NUMBER), struct.pack("<4f", 1, 1, 2, 2)
    write_bundle(
        tmp_path / "m",
        [
            BundleEntry("emb-keys", DType.INT64, (2,), keys),
            BundleEntry("emb-values", DType.FLOAT, (2, 2), values),
        ],
    )
    start(str(tmp_path / "m"), tws.VocabInfo([1, 2, 3]))


def keys_of_ranks(tmp_path):
    for rank in (0, 1):
        end = f"rank_{rank}.world_size_2"
        written(tmp_path / f"emb_emb_keys.{end}", struct.pack("<q", NUMBER + 1 - rank))
        written(tmp_path / f"emb_emb_values.{end}", struct.pack("<2f", 1, 2))
    written(tmp_path / "emb_emb_keys.rank_0.world_size_2", struct.pack("<q", NUMBER))
    start(str(tmp_path), tws.VocabInfo([1, 2, 3]))


CASES = [
    twice_new,
    twice_old,
    twice_updated,
    twice_compared,
    rows_alike,
    half_a_pair,
    beyond_64_bits,
    counts_that_are_none,
    counts_without_names,
    a_table_without_names,
    an_alias_of_none,
    a_saved_table_that_is_damaged,
    keys_of_a_bundle,
    keys_of_ranks,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("hidden", ["1", "0", None])
def test_no_message_holds_an_entry_where_they_are_hidden(tmp_path, monkeypatch, case, hidden):
    monkeypatch.delenv("TORCH_WARMSTART_HIDE_ENTRIES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("TORCH_WARMSTART_HIDE_ENTRIES", hidden)
    with pytest.raises(tws.WarmStartError) as told:
        case(tmp_path)
    shown = "".join(traceback.format_exception_only(told.value))
    shown += "".join(traceback.format_exception_only(told.value.__cause__ or ValueError()))
    is_there = ID in shown or "4711" in shown
    assert is_there == (hidden != "1")
    if hidden == "1":
        assert "hidden" in shown


def test_new_rows_and_vocabularies_show_none(monkeypatch):
    monkeypatch.setenv("TORCH_WARMSTART_HIDE_ENTRIES", "1")
    found = tws.Vocabulary.load([ID, "b"])
    assert found.show(0) == "(hidden) (entry 1)"
    assert ID not in repr(found)
    info = tws.VocabInfo(
        ["b", "new", "c"],
        old_vocab=[ID, "b", "c"],
        backup_initializer=tws.init.alias({"new": ID}),
    )
    state = {"emb.weight": torch.from_numpy(np.arange(6.0, dtype=np.float32).reshape(3, 2))}
    report = start(state, info, "emb.weight")
    assert report["emb.weight"].new_rows.show("new") == "new = row 0"
    assert ID not in str(report) + report.to_html() + str(report.to_dict())


def test_a_blank_entry_in_a_file_of_counts_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    for name, text in (
        ("c.csv", "entry,count\na,1\n,3\n"),
        ("c.tsv", "entry\tcount\na\t1\n\t3\n"),
    ):
        path = written(tmp_path / name, text)
        with pytest.raises(tws.VocabularyError, match="row 2 has a count, but its entry is blank"):
            tws.update_vocabulary(["a"], path)


def _counted(path):
    tws.update_vocabulary(["a"], path)


def _as_table(path):
    tws.Vocabulary.load(path, column="token")


@pytest.mark.parametrize("read", [_counted, _as_table])
def test_of_a_first_line_that_may_be_entries_three_are_shown(read, tmp_path):
    (tmp_path / "c.csv").write_text("ann,bob,cid,dan,eve,fay\ngus,hal,x,y,z,w\n")
    with pytest.raises(tws.VocabularyError, match="'ann', 'bob', 'cid' and 3 more"):
        read(tmp_path / "c.csv")


OTHER = tws.VocabInfo([ID])


@pytest.mark.parametrize(
    "slip",
    [
        lambda: tws.VocabInfo(["a"], [ID]),  # the old vocabulary where a size is
        lambda: tws.VocabInfo(["a"], min_found=[ID]),
        lambda: tws.VocabInfo(["a"], backup_initializer=[ID]),
        lambda: tws.WarmStartSettings("m", ".*", {"w": [ID]}),
        lambda: tws.WarmStartSettings("m", ".*", {"w": {ID: 0}}),
        lambda: tws.WarmStartSettings("m", ".*", None, {"w": OTHER}),
        lambda: tws.WarmStartSettings("m", ".*", var_name_to_layout={"w": OTHER}),
        lambda: tws.save_settings("s.toml", OTHER),
    ],
    ids=["size", "share", "initialiser", "list", "dict", "rename", "layout", "settings"],
)
def test_an_argument_in_the_place_of_another_is_told_by_its_kind(slip):
    """Entries in the wrong place are not shown at all, hidden or not: there may be a million."""
    with pytest.raises(tws.SettingsError) as caught:
        slip()
    assert ID not in str(caught.value)
    assert len(str(caught.value)) < 250
