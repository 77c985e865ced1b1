"""Dtypes of which torch has little more than the names: numbers of some bits, each in a byte."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws

DTYPES = ["int1", "int4", "uint4", "uint7", "bits8", "float8_e8m0fnu"]
ENTRIES = ["a", "b", "c", "d"]


@pytest.mark.parametrize("entries", [None, ["c", "a", "x", "d"]], ids=["whole", "by rows"])
@pytest.mark.parametrize("name", DTYPES)
def test_they_are_copied_as_they_are(name, entries):
    """torch cannot save or load them; a whole tensor was said to be written in part."""
    dtype = getattr(torch, name)
    held, model = torch.arange(1, 9, dtype=torch.uint8).reshape(4, 2), nn.Module()
    zeros = torch.zeros(4, 2, dtype=torch.uint8).view(dtype)
    model.weight = nn.Parameter(zeros, requires_grad=False)
    info = {"weight": tws.VocabInfo(entries, old_vocab=ENTRIES)} if entries else None
    source = {"weight": held.view(dtype)}
    tws.warm_start(model, tws.WarmStartSettings(source, var_name_to_vocab_info=info))
    expected = held if entries is None else torch.stack([held[2], held[0], held[0] * 0, held[3]])
    assert torch.equal(model.weight.data.view(torch.uint8), expected)
