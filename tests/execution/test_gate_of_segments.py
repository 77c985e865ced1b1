"""`report.check` asks the vocabularies of features in a SegmentInfo too."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import torch_warmstart as tws


def _report(new, old, *, axis=1, found=0.0):
    """The report of columns of a feature of one column, and of one with vocabularies."""
    info = tws.SegmentInfo(
        {"age": 1, "city": tws.VocabInfo(new, old_vocab=old, min_found=found)},
        {"age": 1, "city": len(old)},
        axis=axis,
    )
    sizes = (1 + len(new), 1 + len(old))
    shape, before = ((size, 2) if axis == 0 else (2, size) for size in sizes)
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(shape))
    settings = tws.WarmStartSettings(
        {"weight": torch.ones(before)}, var_name_to_vocab_info={"weight": info}
    )
    return tws.warm_start(model, settings)


@pytest.mark.filterwarnings("ignore::torch_warmstart.WarmStartWarning")
@pytest.mark.parametrize("axis", [0, 1])
def test_a_feature_that_found_too_few_is_named(axis):
    report = _report(["p", "q", "a"], ["a", "b"], axis=axis)
    said = "weight, feature 'city': 1 of 3 new entries (33.3%) had an old row, and min_found=0.5"
    with pytest.raises(tws.WarmStartError) as raised:
        report.check(min_found=0.5)
    assert said in str(raised.value)
    report.check(min_found=0.33)
    assert json.loads(json.dumps(report.to_dict()))["variables"][0]["segments"] == [["city", 1, 3]]


def test_all_found_is_enough():
    report = _report(["b", "a"], ["a", "b"], found=1.0)
    assert report.check(min_found=1) is report


def test_features_without_vocabularies_are_not_asked():
    model = nn.Linear(3, 1, bias=False)
    info = tws.SegmentInfo({"new": 2, "age": 1}, {"age": 1})
    settings = tws.WarmStartSettings(
        {"weight": torch.ones(1, 1)}, var_name_to_vocab_info={"weight": info}
    )
    report = tws.warm_start(model, settings).check(min_found=1)
    assert report["weight"].segments == ()
