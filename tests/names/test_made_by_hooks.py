"""What a model's load hooks make of other tensors is said to be so, never left out in silence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(4, 4) for _ in range(3))
        self.register_buffer("scale", torch.ones(()))
        self.register_load_state_dict_pre_hook(split)


def split(module, state, prefix, *_):
    for leaf in ("weight", "bias"):
        if f"{prefix}qkv.{leaf}" in state:
            parts = state.pop(f"{prefix}qkv.{leaf}").chunk(3)
            state.update({f"{prefix}{n}.{leaf}": p for n, p in zip("qkv", parts, strict=True)})
    state.setdefault(f"{prefix}scale", module.scale)


def model():
    return nn.ModuleDict({"att": Attention(), "out": nn.Linear(4, 2)})


FUSED = {
    "att.qkv.weight": torch.randn(12, 4),
    "att.qkv.bias": torch.randn(12),
    "att.scale": torch.tensor(2.0),
    "out.weight": torch.randn(2, 4),
    "out.bias": torch.randn(2),
}


def test_tensors_that_a_hook_splits_are_one_problem_with_the_way_round():
    with pytest.raises(tws.PlanError) as caught:
        tws.warm_start(model(), FUSED)
    (problem,) = caught.value.problems
    assert problem.code == "made-by-hook"
    assert "att.q.weight (and 5 other variables) would be made by a load hook" in problem.text
    loaded, new = model(), model()
    loaded.load_state_dict(FUSED)
    tws.warm_start(new, loaded.state_dict())
    assert torch.equal(new["att"].k.weight, FUSED["att.qkv.weight"][4:8])


def test_what_is_kept_for_it_is_heard():
    settings = tws.WarmStartSettings(FUSED, on_missing="keep")
    with pytest.warns(tws.WarmStartWarning, match="made by a load hook"):
        report = tws.warm_start(model(), settings)
    assert "made-by-hook" in [note.code for note in report.notes if note.severity == "warning"]


def test_what_a_hook_fills_in_itself_is_only_missing():
    state = {key: tensor for key, tensor in FUSED.items() if key != "att.scale"}
    state = {**state, **{f"att.{n}.{x}": torch.ones(4, 4) if x == "weight" else torch.ones(4)
                         for n in "qkv" for x in ("weight", "bias")}}  # fmt: skip
    state = {key: tensor for key, tensor in state.items() if "qkv" not in key}
    with pytest.raises(tws.PlanError) as caught:
        tws.warm_start(model(), tws.WarmStartSettings(state, [".*"]))
    assert [problem.code for problem in caught.value.problems] == ["not-in-checkpoint"]
