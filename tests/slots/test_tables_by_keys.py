"""Slots of tables that are kept by keys: each has a list of its own, so rows go by these or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bundle_writer import BundleEntry, DType, write_bundle
from torch import nn

import torch_warmstart as tws


def _table(name, ends, ids):
    keys = np.array(ids, "<i8")
    values = np.array([[i, -i] for i in ids], "<f4")
    return [
        BundleEntry(name + ends.format("keys"), DType.INT64, keys.shape, keys.tobytes()),
        BundleEntry(name + ends.format("values"), DType.FLOAT, values.shape, values.tobytes()),
    ]


@pytest.mark.parametrize("ends", ["-{}", "-sparse_incr_{}"])
def test_the_values_of_a_slots_table_are_no_rows_of_the_variable(tmp_path, ends):
    values, keys = ends.format("values"), ends.format("keys")
    tables = [*_table("emb", ends, [4, 5, 6]), *_table("emb/Adagrad", ends, [6, 5, 4])]
    write_bundle(tmp_path / "m", tables)
    model = nn.ModuleDict({"emb": nn.Embedding(3, 2)})
    optimizer = torch.optim.Adagrad(model.parameters())
    names = {"emb.weight": f"emb{values}", "emb.weight/sum": f"emb/Adagrad{values}"}
    settings = tws.WarmStartSettings(str(tmp_path / "m"), [".*"], None, names)
    with pytest.raises(tws.PlanError, match="rows are those of the ids that it keeps"):
        tws.warm_start(model, settings, optimizer=optimizer)
    infos = {"emb.weight": tws.VocabInfo([6, 4, 5])}
    settings = tws.WarmStartSettings(str(tmp_path / "m"), [".*"], infos, names)
    with pytest.raises(
        tws.PlanError, match=f"rows are those of 'emb/Adagrad{keys}'.*'emb/Adagrad'"
    ):
        tws.warm_start(model, settings, optimizer=optimizer)
    named = {**names, "emb.weight/sum": "emb/Adagrad"}
    settings = tws.WarmStartSettings(str(tmp_path / "m"), [".*weight$", ".*sum"], infos, named)
    tws.warm_start(model, settings, optimizer=optimizer)
    assert model["emb"].weight.tolist() == [[6, -6], [4, -4], [5, -5]]
    assert optimizer.state[model["emb"].weight]["sum"].tolist() == [[6, -6], [4, -4], [5, -5]]
