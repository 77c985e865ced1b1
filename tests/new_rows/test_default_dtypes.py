"""New rows are the same whatever `torch.set_default_dtype` says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import VocabInfo, WarmStartSettings

TABLE = torch.linspace(-1, 1, 18).reshape(6, 3).cos()
VECTORS = (list("abcdefxy"), torch.linspace(-2, 3, 24).reshape(8, 3).sin())
INITIALISERS = {
    "normal": tws.init.normal(),
    "noise": tws.init.mean() + tws.init.noise(0.1),
    "similar": tws.init.similar(VECTORS, k=2),
    "omp": tws.init.omp(VECTORS, k=2),
    "vectors": tws.init.vectors(VECTORS),
    "groups": tws.init.group_mean({"a": "1", "b": "1", "x": "1"}) | tws.init.mean(),
    "alias": tws.init.alias({"x": "a"}) | tws.init.mean(),
    "subword": tws.init.subword({"x": ["a", "b", "c"]}) | tws.init.mean(),
}


@pytest.fixture
def default():
    before = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(before)


def _rows(initializer):
    model = nn.Embedding(4, 3, dtype=torch.float32)
    info = VocabInfo(
        list("axyd"),
        old_vocab=list("abcdef"),
        backup_initializer=initializer,
        generator=torch.Generator().manual_seed(7),
    )
    settings = WarmStartSettings({"weight": TABLE}, var_name_to_vocab_info={"weight": info})
    tws.warm_start(model, settings)
    return model.weight.detach()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", INITIALISERS)
def test_rows_are_the_same_whatever_the_default_is(name, dtype, default):
    wanted = _rows(INITIALISERS[name])
    default(dtype)
    assert torch.equal(_rows(INITIALISERS[name]), wanted)
