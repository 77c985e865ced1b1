"""What `get_vocabulary()` of Keras returned, as people hold it: with rows in front."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

import torch_warmstart as tws

LIST = ["", "[UNK]", "[UNK]", "a", "b"]
KINDS = {
    "list": lambda made, _: made,
    "array": lambda made, _: np.array(made),
    "array of objects": lambda made, _: np.array(made, dtype=object),
    "array of bytes": lambda made, _: np.array([entry.encode() for entry in made]),
    "Series": lambda made, _: pd.Series(made),
    "Index": lambda made, _: pd.Index(made),
    "polars": lambda made, _: pl.Series(made),
    "pyarrow": lambda made, _: pa.array(made),
    "npy": lambda made, path: _saved(path.with_suffix(".npy"), made),
    "json": lambda made, path: _written(path.with_suffix(".json"), json.dumps(made)),
}


def _saved(path, made):
    np.save(path, np.array(made))
    return path


def _written(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_rows_in_front_are_told_however_it_is_held(kind, tmp_path):
    def load(made):
        return tws.Vocabulary.load(KINDS[kind](made, tmp_path / "vocabulary"))

    found = load(LIST)
    assert dict(found.special) == {"mask": range(1), "oov": range(1, 3)}
    assert list(found.entries) == [b"", None, None, b"a", b"b"]
    assert dict(load(["[UNK]", "a"]).special) == {"oov": range(1)}
    assert not load(["a", "[UNK]"]).special


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("npy", "json")])
def test_what_is_asked_for_is_an_entry_as_any_other(kind, tmp_path):
    known = tws.Vocabulary.load(["a", "[UNK]", "b"])
    asked = KINDS[kind](["[UNK]", "[UNK]", "b"], tmp_path)
    assert known.rows(asked).tolist() == [1, 1, 2]
    remapping, present = tws.generate_vocab_remapping(asked[:1], ["a", "[UNK]"])
    assert (remapping.tolist(), present) == ([1], 1)


def test_a_mapping_says_itself_what_its_rows_are():
    assert not tws.Vocabulary.load({"[UNK]": 0, "a": 1}).special


def test_the_row_for_what_is_not_listed_follows():
    old, new = np.array(["", "[UNK]", "a"]), np.array(["", "[UNK]", "b", "a"])
    model, table = torch.nn.Embedding(4, 1), torch.tensor([[1.0], [2.0], [3.0]])
    info = {"weight": tws.VocabInfo(new, old_vocab=old)}
    tws.warm_start(model, tws.WarmStartSettings({"weight": table}, ".*", info))
    assert model.weight.flatten().tolist() == [1, 2, 0, 3]


def test_the_old_oov_rows_can_be_said_where_the_new_vocabulary_has_its_own():
    model = torch.nn.ModuleDict({"e": torch.nn.Embedding(3, 1)})
    old = {"e.weight": torch.tensor([[1.0], [2.0], [3.0]])}  # b, a, and what is not listed
    info = tws.VocabInfo(["[UNK]", "a", "b"], old_vocab=["b", "a"], old_num_oov_buckets=1)
    report = tws.warm_start(model, tws.WarmStartSettings(old, ".*", {"e.weight": info}))
    assert model["e"].weight.flatten().tolist() == [3.0, 2.0, 1.0]
    assert (report["e.weight"].rows.copied, report["e.weight"].rows.oov_copied) == (2, 1)


@pytest.mark.parametrize(("new", "now"), [(["a", "b"], "0 OOV rows"), (["[UNK]", "a"], "1 OOV")])
def test_old_oov_rows_of_another_number_are_refused(new, now):
    model = torch.nn.ModuleDict({"e": torch.nn.Embedding(len(new), 1)})
    old = {"e.weight": torch.ones(4, 1)}
    info = tws.VocabInfo(new, old_vocab=["b", "a"], old_num_oov_buckets=2)
    settings = tws.WarmStartSettings(old, ".*", {"e.weight": info})
    with pytest.raises(tws.PlanError, match=f"=2, but the new variable has {now}"):
        tws.plan_warm_start(model, settings)
