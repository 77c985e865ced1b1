"""Of a table behind a URL, old rows that only new ones are made of are fetched, and no others."""

from __future__ import annotations

import fsspec
import pytest
import torch
from rows_helpers import info_of, letters, table
from safetensors.torch import save
from torch import nn

import torch_warmstart as tws
from torch_warmstart import init

OLD = letters(4_000)
VALUES = table(4_000, 64)


@pytest.fixture
def url():
    memory = fsspec.filesystem("memory")
    memory.pipe("/rows/m.safetensors", save({"weight": VALUES}))
    yield "memory://rows/m.safetensors"
    memory.rm("/rows", recursive=True)


@pytest.mark.parametrize(
    ("initializer", "wanted"),
    [
        (init.alias({"new": "t3900"}), VALUES[3900]),
        (init.subword({"new": ["t17", "t2000"]}), VALUES[[17, 2000]].mean(0)),
        (init.mean(), VALUES.mean(0)),
    ],
)
def test_rows_are_made_of_what_is_fetched_for_them(url, monkeypatch, initializer, wanted):
    fetched = []
    real = fsspec.implementations.memory.MemoryFileSystem.cat_file

    def cat_file(self, path, start=None, end=None, **more):
        found = real(self, path, start=start, end=end, **more)
        fetched.append(len(found))
        return found

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFileSystem, "cat_file", cat_file)
    new = [*OLD[:3], "new"]
    model = nn.Embedding(4, 64)
    settings = tws.WarmStartSettings(
        url, var_name_to_vocab_info={"weight": info_of(new, OLD, initializer)}, max_gap=0
    )
    tws.warm_start(model, settings)
    assert torch.equal(model.weight[:3], VALUES[:3])
    torch.testing.assert_close(model.weight[3].detach(), wanted)
    share = sum(fetched) / VALUES.nbytes
    assert share > 0.95 if str(initializer) == "mean" else 0 < share < 0.05
