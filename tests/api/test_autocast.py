"""A call within `torch.autocast` computes as one outside does; the caller's own code has it on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws

OLD = [f"w{number}" for number in range(40)]
NEW = [f"w{number}" for number in range(30, 50)]
NAMES = [f"w{number}" for number in range(50)]
VECTORS = torch.randn(50, 16, generator=torch.Generator().manual_seed(1))
TABLE = torch.randn(40, 12, generator=torch.Generator().manual_seed(2)) + 3

MAKERS = {
    "normal": tws.init.normal,
    "similar": lambda: tws.init.similar((NAMES, VECTORS), k=5),
    "omp": lambda: tws.init.omp((NAMES, VECTORS), k=8),
}


def _made(maker):
    model = nn.Embedding(20, 12)
    info = tws.VocabInfo(
        NEW,
        old_vocab=OLD,
        backup_initializer=maker,
    )
    torch.manual_seed(4)
    tws.warm_start(model, tws.WarmStartSettings({"weight": TABLE}, ".*", {"weight": info}))
    return model.weight.detach()


@pytest.mark.parametrize("which", MAKERS)
def test_new_rows_are_the_same_within_it(which):
    expected = _made(MAKERS[which]())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = _made(MAKERS[which]())
    assert torch.equal(found, expected)


def test_code_of_the_callers_has_it_as_they_left_it():
    seen = []

    def own(tensor):
        is_on = torch.is_autocast_enabled("cpu")
        seen.append((is_on, torch.get_autocast_dtype("cpu"), torch.get_default_device().type))
        return nn.init.ones_(tensor)

    with torch.autocast("cpu", dtype=torch.float16):
        _made(own)
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") is torch.float16
    assert set(seen) == {(True, torch.float16, "cpu")}
    assert not torch.is_autocast_enabled("cpu")
