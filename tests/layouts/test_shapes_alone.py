"""Shapes are worked out on meta, where torch's own `cat` and sums would import torch._dynamo."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from torch_warmstart.layouts.layout import cat

PROGRAM = """\
import sys
import torch
import torch_warmstart as tws
from torch import nn
import torch.nn.utils.prune

gru = {"kernel": [3, 12], "recurrent_kernel": [4, 12], "bias": [2, 12]}
lstm = {"kernel": [7, 16], "bias": [16]}
heads = {f"{n}/{k}": s for n in ("query", "key", "value")
         for k, s in {"kernel": [4, 2, 2], "bias": [2, 2]}.items()}
heads |= {"attention_output/kernel": [2, 2, 4], "attention_output/bias": [4]}
plain = {"kernel": [3, 4], "bias": [4]}
table = {"weights_0": [3, 4], "weights_1": [2, 4]}
named = {"gru/gru_cell": gru, "lstm/basic_lstm_cell": lstm, "att": heads, "table": table,
         "normed": plain}
tensors = {
    f"{layer}/{leaf}:0": torch.ones(shape)
    for layer, leaves in named.items() for leaf, shape in leaves.items()
}
model = nn.ModuleDict({
    "gru": nn.GRU(3, 4), "lstm": nn.LSTM(3, 4), "att": nn.MultiheadAttention(4, 2),
    "table": nn.Embedding(5, 4),
    "normed": nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)),
})
old = nn.ModuleDict({name: nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)) for name in "a"})
old["b"] = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
old["c"] = nn.Linear(4, 4)
nn.utils.prune.random_unstructured(old["c"], "weight", 0.5)
new = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(4, 4), "c": nn.Linear(4, 4)})
tws.warm_start(new, old.state_dict())
print(len(tws.warm_start(model, tensors).variables), "torch._dynamo" in sys.modules)
"""


def test_a_plan_does_without_the_compiler() -> None:
    command = [sys.executable, "-c", PROGRAM]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.stdout.split() == ["16", "False"], run.stderr


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_what_is_joined_has_the_shape_that_torch_makes(dim: int) -> None:
    shapes = [[2, 3], [2, 3], [2, 3]]
    shapes[1][dim] = 5
    on_meta = cat([torch.empty(shape, device="meta") for shape in shapes], dim)
    assert on_meta.shape == torch.cat([torch.empty(shape) for shape in shapes], dim).shape


def test_other_sizes_do_not_fit() -> None:
    parts = [torch.empty(2, 3, device="meta"), torch.empty(2, 4, device="meta")]
    with pytest.raises(RuntimeError):
        cat(parts)
