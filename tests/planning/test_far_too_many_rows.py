"""Sizes that no variable has are told before memory is asked for them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws

FAR = 1 << 47


def _plan(info):
    model = nn.ModuleDict({"e": nn.Embedding(3, 4)})
    settings = tws.WarmStartSettings(
        {"e.weight": torch.ones(2, 4)}, var_name_to_vocab_info={"e": info}
    )
    tws.plan_warm_start(model, settings)


@pytest.mark.parametrize("new", [["a"], ["a", "b", "c"]])
def test_buckets_without_number_are_an_error_of_ours(new):
    info = tws.VocabInfo(new, num_oov_buckets=1 << 40, old_vocab=["a", "b"])
    with pytest.raises(tws.PlanError, match=r"num_oov_buckets=1,099,511,627,776 has .* rows, far"):
        _plan(info)


@pytest.mark.parametrize(
    "info",
    [
        tws.VocabInfo({"a": FAR}, old_vocab=["a", "b"]),
        tws.SegmentInfo({"new": FAR}, {"f": 2}, axis=0),
        tws.SegmentInfo({"new": tws.VocabInfo({"a": FAR})}, {"f": 2}, axis=0),
        tws.SegmentInfo({"f": tws.VocabInfo({"a": FAR}, old_vocab=["a", "b"])}, {"f": 2}, axis=0),
    ],
    ids=["a row", "a feature's width", "a new feature's row", "a feature's row"],
)
def test_so_are_rows_that_no_variable_has(info):
    with pytest.raises(tws.PlanError, match="rows, far more than there are in"):
        _plan(info)


def test_so_are_those_that_no_memory_holds():
    info = tws.VocabInfo({"a": FAR}, old_vocab=["a", "b"])
    with pytest.raises(tws.PlanError, match="more rows than there is memory for"):
        tws.change_vocabulary(nn.Embedding(2, 3), {"weight": info})
