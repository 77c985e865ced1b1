"""A table with a row or two more than its vocabulary: they may stand in front of the others."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import torch_warmstart as tws

OLD = ["a", "b", "c", "d"]
NEW = ["d", "e", "a"]


def told(extra, old=OLD, new=NEW, **options):
    table = torch.arange(2.0 * (4 + extra)).reshape(-1, 2)
    info = tws.VocabInfo(new, old_vocab=old, **options)
    rows = len(new) + options.get("num_oov_buckets", 0)
    model = nn.ModuleDict({"emb": nn.Embedding(rows, 2)})
    settings = tws.WarmStartSettings({"emb.weight": table}, ".*", {"emb.weight": info})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        tws.warm_start(model, settings)
    return [str(warning.message) for warning in said], model["emb"].weight.detach(), table


@pytest.mark.parametrize("extra", [1, 2])
def test_rows_that_may_stand_in_front_are_told(extra):
    (said,), weight, table = told(extra)
    assert f"has {extra} row{'s' * (extra > 1)} more than the old vocabulary has (4)" in said
    assert said.endswith("[old-rows-unexplained]")
    assert torch.equal(weight[2], table[0])  # as TensorFlow has it


@pytest.mark.parametrize("extra", [0, 3, 60])
def test_none_and_padding_to_a_multiple_are_not(extra):
    assert told(extra)[0] == []


def test_it_can_be_said_that_they_are_behind():
    assert told(2, old_num_oov_buckets=0)[0] == []


def test_what_stands_in_front_is_an_entry():
    said, weight, table = told(2, ["", "[UNK]", *OLD])
    assert said == []
    assert torch.equal(weight[2], table[2])


def test_rows_for_oov_entries_have_a_note_of_their_own():
    assert told(1, num_oov_buckets=1)[0] == []


KERAS = ["", "[UNK]", "d", "a"]  # as Keras's layers list their rows


@pytest.mark.parametrize(
    ("old", "options", "is_told"),
    [
        (
            [None, None, "a", "d"],
            {},
            True,
        ),  # as Keras exports a layer: what is in front is not said
        ({"a": 2, "d": 5}, {}, True),
        ([None, None, "a", "d"], {"old_num_oov_buckets": 0}, False),
        (["", "[UNK]", "a", "d"], {}, False),  # both are copied
        (["a", None, "d"], {}, False),
    ],
    ids=["nothing in front", "mapping", "meant", "layer", "gap"],
)
def test_rows_in_front_that_nobody_says_what_they_are_for_are_told(old, options, is_told):
    info = tws.VocabInfo(KERAS, old_vocab=old, **options)
    model = nn.ModuleDict({"emb": nn.Embedding(4, 2)})
    settings = tws.WarmStartSettings({"emb.weight": torch.ones(6, 2)}, ".*", {"emb.weight": info})
    notes = [note.text for note in tws.plan_warm_start(model, settings).notes]
    assert any("2 rows of no entry in front of the old" in note for note in notes) == is_told
