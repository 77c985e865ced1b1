"""Slots of tables that are kept by keys: each has a list of its own, so their rows are refused."""

from __future__ import annotations

import pytest
import torch
from bundle_writer import write_random_bundle
from torch import nn

import torch_warmstart as tws


@pytest.mark.parametrize("ends", ["-{}", "-sparse_incr_{}"])
def test_the_values_of_a_slots_table_are_no_rows_of_the_variable(tmp_path, ends):
    values, keys = ends.format("values"), ends.format("keys")
    shapes = {f"emb{values}": (3, 2), f"emb{keys}": (3,), "w": (3, 2)}
    shapes |= {f"emb/Adagrad{values}": (3, 2), f"emb/Adagrad{keys}": (3,)}
    write_random_bundle(str(tmp_path / "m"), shapes)
    model = nn.ModuleDict({"emb": nn.Embedding(3, 2)})
    optimizer = torch.optim.Adagrad(model.parameters())
    names = {"emb.weight": f"emb{values}", "emb.weight/sum": f"emb/Adagrad{values}"}
    settings = tws.WarmStartSettings(str(tmp_path / "m"), [".*"], None, names)
    with pytest.raises(tws.PlanError, match=f"rows are those of 'emb/Adagrad{keys}'"):
        tws.warm_start(model, settings, optimizer=optimizer)
