"""What a nightly job may meet: entries twice, damaged files, colons in names of checkpoints."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws


@pytest.mark.parametrize("more", [{}, {"earlier": [["c"]]}, {"counts": {"b": 1}}])
def test_an_entry_twice_is_an_error_where_no_other_day_has_it(more):
    with pytest.raises(tws.VocabularyError, match="has an entry twice: 'b'"):
        tws.diff_vocabularies(["a"], ["b", "b"], **more)


def test_shares_are_by_entries_where_one_day_was_not_counted():
    after = tws.update_vocabulary(["x"], {"x": 5}, today=1)
    found = tws.diff_vocabularies(["a", "b", "c"], after)
    assert (found.dropped, found.shares["dropped"], found.shares["new"]) == (3, 1.0, 1.0)
    assert "dropped" not in found.weights
    assert "100.00% of the old" in str(found)


def test_one_older_checkpoint_may_have_two_vocabularies(tmp_path):
    older = tmp_path / "older.pt"
    torch.save({"emb.weight": torch.tensor([[1.0], [2.0]])}, older)
    torch.save({"emb.weight": torch.tensor([[7.0]])}, tmp_path / "now.pt")
    fallback = [(older, ["q", "y"]), (older, ["r", "z"])]
    info = tws.VocabInfo(["a", "q", "r"], old_vocab=["a"], fallback=fallback)
    model = nn.ModuleDict({"emb": nn.Embedding(3, 1)})
    settings = tws.WarmStartSettings(
        tmp_path / "now.pt", var_name_to_vocab_info={"emb.weight": info}
    )
    tws.warm_start(model, settings)
    assert model["emb"].weight.flatten().tolist() == [7.0, 1.0, 1.0]


def _saved(tmp_path):
    path = tmp_path / "v.voc"
    tws.update_vocabulary(["a", "b", "c"], {"a": 1, "d": 1}, today=20_000).save(path)
    return path


def _with(path, change):
    """The file with another header and other tensors."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + size]), bytearray(raw[8 + size :])
    about = json.loads(header["__metadata__"]["vocabulary"])
    change(header, about, data)
    header["__metadata__"]["vocabulary"] = json.dumps(about)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def _no_rows(header, about, data):
    header["rows"] = {"dtype": "I64", "shape": [0], "data_offsets": [0, 0]}


def _day(number):
    def change(header, about, data):
        start, _ = header["last_seen"]["data_offsets"]
        data[start : start + 4] = np.int32(number).tobytes()

    return change


def _infinite(header, about, data):
    about["special"] = {"oov": [0, float("inf")]}


@pytest.mark.parametrize(
    "change", [_no_rows, _day(-(2**31)), _day(2**31 - 1), _infinite], ids=lambda f: f.__name__
)
def test_a_file_whose_numbers_are_none_is_refused(tmp_path, change):
    with pytest.raises(tws.VocabularyError, match="is a damaged vocabulary"):
        tws.Vocabulary.load(_with(_saved(tmp_path), change))


def test_rows_that_a_file_only_claims_take_no_memory(tmp_path):
    def claim(header, about, data):
        about["num_rows"] = 10**12

    old = tws.Vocabulary.load(_with(_saved(tmp_path), claim))
    new = tws.update_vocabulary(old, {"e": 1, "f": 1}, today=20_001)
    assert new.rows(["e", "f"]).tolist() == [4, 5]


def test_a_checkpoint_may_have_the_time_in_its_name(tmp_path):
    path = tmp_path / "2024-11-29T12:00.pt"
    torch.save({"emb.weight": torch.tensor([[1.0], [2.0]])}, path)
    tws.save_vocabularies(path, {"emb.weight": ["a", "b"]})
    model = nn.ModuleDict({"emb": nn.Embedding(2, 1)})
    info = tws.VocabInfo(["b", "a"])
    tws.warm_start(model, tws.WarmStartSettings(path, var_name_to_vocab_info={"emb.weight": info}))
    assert model["emb"].weight.flatten().tolist() == [2.0, 1.0]


def test_long_rows_tell_a_checkpoint_that_was_written_anew(tmp_path):
    path, weight = tmp_path / "m.pt", torch.rand(2, 300_000)
    ids = np.arange(300_000)
    torch.save({"l.weight": weight}, path)
    tws.save_vocabularies(path, {"l.weight": ids})
    torch.save({"l.weight": weight.flip(1)}, path)
    model = nn.ModuleDict({"l": nn.Linear(300_000, 2, bias=False)})
    info = tws.VocabInfo(ids[::-1].copy(), axis=1)
    settings = tws.WarmStartSettings(path, var_name_to_vocab_info={"l.weight": info})
    with pytest.raises(tws.PlanError, match="anew|another"):
        tws.warm_start(model, settings)


def test_counts_of_other_shapes():
    with pytest.raises(tws.VocabularyError, match="a number for each entry"):
        tws.update_vocabulary(["a"], (["a", "b"], np.ones((2, 2), np.int64)))
    ours = tws.update_vocabulary(["a"], (iter(["a", "b"]), np.ones(2, np.int64)), today=1)
    assert ours.usage.counts.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("mine", "is_shuffled"), [(["b", "a", "c"], True), (["a", "b", "c"], False)]
)
def test_rows_by_position_are_those_of_the_modules_own_vocabulary(tmp_path, mine, is_shuffled):
    path = tmp_path / "m.pt"
    torch.save({"emb.weight": torch.tensor([[1.0], [2.0]])}, path)
    tws.save_vocabularies(path, {"emb.weight": ["a", "b"]})
    model = nn.ModuleDict({"emb": nn.Embedding(3, 1)})
    model["emb"].vocabulary = tws.Vocabulary.load(mine)
    infos = {"emb.weight": tws.ClipOrPad(backup_initializer="keep")}
    settings = tws.WarmStartSettings(path, var_name_to_vocab_info=infos)
    if is_shuffled:
        with pytest.raises(tws.PlanError, match="2 entries of its module's vocabulary"):
            tws.warm_start(model, settings)
    else:
        tws.warm_start(model, settings)
        assert model["emb"].weight.flatten()[:2].tolist() == [1.0, 2.0]
