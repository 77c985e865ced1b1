"""Sizes that no variable has are told before memory is asked for them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws


@pytest.mark.parametrize("new", [["a"], ["a", "b", "c"]])
def test_buckets_without_number_are_an_error_of_ours(new):
    model = nn.ModuleDict({"e": nn.Embedding(3, 4)})
    info = tws.VocabInfo(new, num_oov_buckets=1 << 40, old_vocab=["a", "b"])
    settings = tws.WarmStartSettings(
        {"e.weight": torch.ones(2, 4)}, var_name_to_vocab_info={"e": info}
    )
    with pytest.raises(tws.PlanError, match=r"num_oov_buckets=1,099,511,627,776 are more rows"):
        tws.plan_warm_start(model, settings)
