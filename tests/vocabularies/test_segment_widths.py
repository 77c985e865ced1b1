"""What a feature's old vocabulary and its old width say of each other must agree."""

from __future__ import annotations

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
