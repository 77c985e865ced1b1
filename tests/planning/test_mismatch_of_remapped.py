"""What does not fit is kept, if that is asked for, whether its rows are to be moved or not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws

OLD = ["a", "b", "c"]
INFOS = {
    "vocabulary": lambda: tws.VocabInfo(["d", *OLD], old_vocab=OLD),
    "position": tws.ClipOrPad,
    "segments": lambda: tws.SegmentInfo({"one": 3, "two": 1}, {"one": 3}),
}


def _settings(old, info, **more):
    return tws.WarmStartSettings(
        {"weight": old}, var_name_to_vocab_info={"weight": INFOS[info]()}, **more
    )


@pytest.mark.parametrize("info", INFOS)
@pytest.mark.parametrize(
    "old",
    [
        torch.ones(3, 8),
        torch.ones(3),
        torch.ones(3, 4, 2),
        torch.ones(3, 4, dtype=torch.int64),
    ],
    ids=["wider", "a vector", "deeper", "integers"],
)
def test_what_does_not_fit_is_an_error_or_kept(info, old):
    model = nn.Embedding(4, 4)
    before = model.weight.detach().clone()
    with pytest.raises(tws.PlanError):
        tws.warm_start(model, _settings(old, info))
    with pytest.warns(tws.WarmStartWarning, match="Nothing is taken"):
        report = tws.warm_start(model, _settings(old, info, on_mismatch="keep"))
    assert report.mismatched_keys == (("weight", tuple(old.shape), (4, 4)),)
    assert report["weight"].state == "kept"
    assert torch.equal(model.weight, before)


def test_what_fits_is_moved_and_its_own_problems_stay_problems():
    model = nn.Embedding(4, 4)
    old = torch.arange(12.0).reshape(3, 4)
    tws.warm_start(model, _settings(old, "vocabulary", on_mismatch="keep"))
    assert torch.equal(model.weight[1:], old)
    info = tws.VocabInfo(["x", "y", "z", "a"], old_vocab=OLD, min_found=0.9)
    settings = tws.WarmStartSettings(
        {"weight": old}, var_name_to_vocab_info={"weight": info}, on_mismatch="keep"
    )
    with pytest.raises(tws.PlanError, match="min_found"):
        tws.warm_start(model, settings)
