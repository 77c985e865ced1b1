"""Gaps, special rows and padding: new rows without an entry, and old ones that are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rows_helpers import table
from torch import nn

import torch_warmstart as tws
from torch_warmstart import NewRows, init
from torch_warmstart.entries import MASK, OOV, Entries, Vocabulary
from torch_warmstart.formats import Checkpoint
from torch_warmstart.vocabularies import remapping

GAPPY = {"a": 1, "b": 4, "c": 5}  # rows 0, 2 and 3 stand for nothing


def _keras(*entries, oov=1):
    """Rows as of a lookup layer with a mask: "", "[UNK]", and the entries."""
    return ["", *["[UNK]"] * oov, *entries]


def _start(values, old, new, rows, initializer, **more):
    model = nn.Embedding(rows, values.shape[1], dtype=values.dtype)
    vocab = tws.VocabInfo(new, old_vocab=old, backup_initializer=initializer, **more)
    settings = tws.WarmStartSettings({"weight": values}, var_name_to_vocab_info={"weight": vocab})
    report = tws.warm_start(model, settings)
    return model.weight.detach(), report["weight"]


def test_gaps_of_the_old_table_are_none_of_its_rows():
    values = table(6, 3)
    new = ["a", "b", "c", "x", "y"]
    weight, account = _start(values, GAPPY, new, 5, init.alias({"x": "c"}) | init.mean(of="all"))
    assert torch.equal(weight[:4], values[[1, 4, 5, 5]])
    torch.testing.assert_close(weight[4], values[[1, 4, 5]].mean(0))
    assert account.new_rows.answered == (("alias", 1), ("mean", 1))
    assert account.new_rows.show("x") == "x = c"


def test_gaps_of_the_new_table_are_asked_for_without_an_entry():
    values = table(2, 3)
    asked = []

    def seen(new: NewRows):
        asked.append((new.rows.tolist(), new.has_entry.tolist(), new.entries().values(slice(None))))
        return torch.ones(len(new), new.width)

    weight, _ = _start(values, ["a", "b"], GAPPY, 6, init.alias("casefold") | seen)
    assert asked == [([0, 2, 3, 5], [False, False, False, True], [b"c"])]
    assert torch.equal(weight[[1, 4]], values)


@pytest.mark.parametrize("how", ["subword", "group_mean", "vectors", "similar", "omp", "prefix"])
def test_every_method_finds_old_rows_by_their_entries(how):
    values, given = table(6, 4), table(4, 4, 1)
    outside = (["c", "x1", "a", "b"], given)
    made = {
        "subword": init.subword({"x1": ["b", "c"]}),
        "group_mean": init.group_mean({"x1": 1, "b": 1, "c": 1, "a": 2}),
        "vectors": init.vectors((["c", "x1", "a", "b"], given), align=None),
        "similar": init.similar(outside, k=3, weights="proportional", of="all"),
        "omp": init.omp(outside, k=3, of="all"),
        "prefix": init.alias("prefix"),
    }[how]
    old = {"a": 1, "x": 2, "b": 4, "c": 5} if how == "subword" else GAPPY
    old = {"a": 1, "x1": 2, "b": 4, "c": 5} if how == "prefix" else old
    name = "x1y" if how == "prefix" else "x1"
    weight, _ = _start(values, old, ["a", name], 2, made)
    unit = nn.functional.normalize(given, dim=1)
    alike = (unit[[2, 3, 0]] @ unit[1]).clamp(min=0)
    wanted = {
        "subword": values[[4, 5]].mean(0),
        "group_mean": values[[4, 5]].mean(0),
        "vectors": given[1],
        "similar": alike @ values[[1, 4, 5]] / alike.sum(),
        "omp": torch.linalg.lstsq(given[[2, 3, 0]].double().T, given[1].double()).solution.float()
        @ values[[1, 4, 5]],
        "prefix": values[2],
    }[how]
    torch.testing.assert_close(weight[1], wanted, rtol=1e-4, atol=1e-5)


def test_the_rows_for_no_input_and_for_what_is_not_listed_are_no_entries():
    values = table(5, 3)
    values[0] = 100
    weight, account = _start(
        values, _keras("a", "b", "c"), _keras("c", "x"), 4, init.mean(of="all")
    )
    assert torch.equal(weight[:3], values[[0, 1, 4]])
    torch.testing.assert_close(weight[3], values[2:].mean(0))
    assert account.new_rows.answered == (("mean", 1),)


def test_an_entry_takes_the_oov_row_that_the_old_vocabulary_gave_it():
    values = table(10, 3)  # a mask, five OOV rows, "a" to "d"
    old = _keras("a", "b", "c", "d", oov=5)
    weight, _ = _start(values, old, _keras("x", "yy", oov=5), 8, init.alias("oov_bucket"))
    # tf.strings.to_hash_bucket_fast(["x", "yy"], 5) is [0, 2].
    assert torch.equal(weight[6:], values[[1, 3]])
    how = init.alias("oov_bucket", num_oov_buckets=4)
    with pytest.raises(tws.PlanError, match="the old vocabulary has 5 OOV rows. Leave"):
        _start(values, old, _keras("x", oov=5), 7, how)


def _ids(count, oov, oov_hash):
    listed = Entries("the ids", "entry", ids=torch.arange(100, 100 + count))
    special = {MASK: range(1), OOV: range(1, 1 + oov)}
    return Vocabulary(listed, 1 + oov + count, first=1 + oov, special=special, oov_hash=oov_hash)


def test_an_oov_row_is_chosen_by_the_hash_that_chose_it():
    values = table(8, 3)  # a mask, three OOV rows, 100 to 103
    new = np.array([100, 7, -1, 101])
    how = init.alias("oov_bucket")
    weight, _ = _start(values, _ids(4, 3, "floormod"), new, 4, how)
    assert torch.equal(weight, values[[4, 1 + 7 % 3, 1 + -1 % 3, 5]])
    with pytest.raises(tws.PlanError, match="OOV rows were chosen by siphash64"):
        _start(values, _ids(4, 3, "siphash64:[1, 2]"), new, 4, how)


def test_oov_rows_that_are_not_all_there_are_not_used():
    behind = Vocabulary(
        Entries("the ids", "entry", ids=torch.arange(4)), 8, special={OOV: range(4, 8)}
    )
    with pytest.warns(tws.WarmStartWarning, match="is it the vocabulary that it was trained with"):
        weight, _ = _start(table(6, 3), behind, np.arange(4), 4, init.alias("oov_bucket"))
    assert torch.equal(weight, table(6, 3)[:4])
    with pytest.raises(tws.PlanError, match="must know how many OOV rows"):
        _start(table(6, 3), behind, np.arange(5), 5, init.alias("oov_bucket"))


def test_more_oov_rows_than_there_are_is_an_error():
    how = init.alias("oov_bucket", num_oov_buckets=5)
    with pytest.raises(tws.PlanError, match="behind the vocabulary's the old variable has 3 rows"):
        _start(table(5, 3), ["a", "b"], ["a", "x"], 2, how)


# -- vocabularies that are read elsewhere ----------------------------------------------------------


def test_new_rows_are_told_the_vocabulary_of_the_checkpoint(monkeypatch):
    held = {"tokens": Vocabulary.load({"a": 2, "b": 0})}
    monkeypatch.setattr(Checkpoint, "vocabularies", lambda self: held)
    values = table(3, 4)
    old = tws.FROM_CHECKPOINT["tokens"]
    weight, _ = _start(values, old, ["a", "x", "b"], 3, init.alias({"x": "a"}))
    assert torch.equal(weight, values[[2, 2, 0]])


def test_with_forms_only_what_no_form_finds_is_new():
    values = table(2, 3)
    more = {"forms": {"new": "sentencepiece", "old": "byte_level"}}
    weight, account = _start(
        values, ["Ġnet", "work"], ["▁net", "▁x"], 2, init.alias({"▁x": "work"}), **more
    )
    assert torch.equal(weight, values)
    assert account.new_rows.answered == (("alias", 1),)


def test_a_vocabulary_is_read_once_for_all_tables(tmp_path, monkeypatch):
    read, original = [], remapping.read_vocabulary

    def counted(source, *more, **others):
        read.append(source)
        return original(source, *more, **others)

    monkeypatch.setattr(remapping, "read_vocabulary", counted)
    old, new = (tmp_path / name for name in ("old.txt", "new.txt"))
    old.write_text("a\nb\n")
    new.write_text("b\nx\n")
    model = nn.ModuleDict({name: nn.Embedding(2, 3) for name in "pq"})
    for initializer in (init.mean(), None):
        vocab = tws.VocabInfo(str(new), old_vocab=str(old), backup_initializer=initializer)
        infos = {"p.weight": vocab, "q.weight": tws.VocabInfo(str(new), old_vocab=str(old))}
        values = {f"{name}.weight": table(2, 3) for name in "pq"}
        tws.warm_start(model, tws.WarmStartSettings(values, var_name_to_vocab_info=infos))
    assert read == [str(new), str(old)] * 2


def test_a_tables_vocabulary_from_outside_may_have_gaps():
    values, vectors = table(2, 4), table(6, 4, 1)
    made = init.vectors((GAPPY | {"x": 3}, vectors), align=None)
    weight, _ = _start(values, ["a", "b"], ["b", "x"], 2, made)
    assert torch.equal(weight, torch.stack([values[1], vectors[3]]))
