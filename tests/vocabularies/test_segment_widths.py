"""What a feature's old vocabulary and its old width say of each other must agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import torch_warmstart as tws

OLD = torch.arange(1.0, 7.0)[None]  # age; red, blue, what is not listed; zip, 2 columns


def start(new: list[str], old: list[str], oov: int = 0, **more: Any) -> list[float]:
    colour = tws.VocabInfo(new, -1, oov, old, **more)
    segments = tws.SegmentInfo(
        {"zip": 2, "colour": colour, "age": 1}, {"age": 1, "colour": 3, "zip": 2}
    )
    model = torch.nn.Linear(3 + len(new) + oov, 1, bias=False)
    infos = {"weight": segments}
    tws.warm_start(model, tws.WarmStartSettings({"weight": OLD}, var_name_to_vocab_info=infos))
    return model.weight[0].tolist()


def test_columns_that_no_entry_has_are_never_left_behind_without_a_word():
    with pytest.raises(tws.PlanError) as refused:
        start(["blue", "pink"], ["red", "blue"], oov=1)
    assert "'colour' has 2 rows, and old_segments gives it 3 columns" in str(refused.value)
    assert "write old_num_oov_buckets=1 in its VocabInfo; 0 leaves" in str(refused.value)
    kept = start(["blue", "pink"], ["red", "blue"], oov=1, old_num_oov_buckets=1)
    assert kept == [5, 6, 3, 0, 4, 1]
    left = start(["blue", "pink"], ["red", "blue"], oov=1, old_num_oov_buckets=0)
    assert left == [5, 6, 3, 0, 0, 1]


def test_a_vocabulary_of_more_entries_than_columns_is_another_s():
    for extra in (["x"], ["x", "y"]):
        with pytest.raises(tws.PlanError, match="old_segments gives it 3 columns. Do they belong"):
            start(["blue"], ["red", "blue", "teal", *extra])
    assert start(["blue"], ["red", "blue", "teal"]) == [5, 6, 3, 1]


def test_buckets_that_are_said_must_fill_the_width():
    for buckets in (2, 3):
        with pytest.raises(tws.PlanError, match="old_segments gives it 3 columns"):
            start(["blue"], ["red", "blue"], oov=buckets, old_num_oov_buckets=buckets)


def _of_tokenizer(*tokens: str) -> tws.Vocabulary:
    """A vocabulary whose tables are customarily made higher, as a tokenizer's."""
    return replace(tws.Vocabulary.load(list(tokens)), is_padded=True)


def _of_width(new: Any, old: Any, width: int) -> list[float]:
    weight = torch.arange(1.0, width + 1)[None]
    info = tws.VocabInfo(new, old_vocab=old)
    segments = tws.SegmentInfo({"colour": info}, {"colour": width})
    model = torch.nn.Linear(len(new), 1, bias=False)
    infos = {"weight": segments}
    tws.warm_start(model, tws.WarmStartSettings({"weight": weight}, var_name_to_vocab_info=infos))
    return model.weight[0].tolist()


def test_an_old_tokenizer_s_columns_may_be_padded():
    assert _of_width(["b", "a"], _of_tokenizer("a", "b", "c"), 8) == [2, 1]
    with pytest.raises(tws.PlanError, match="has 3 rows, and old_segments gives it 7 columns"):
        _of_width(["b", "a"], _of_tokenizer("a", "b", "c"), 7)


def test_that_the_new_ones_may_be_says_nothing_of_the_old():
    with pytest.raises(tws.PlanError, match="write old_num_oov_buckets=1 in its VocabInfo"):
        _of_width(_of_tokenizer("b", "a"), ["a", "b", "c"], 4)
