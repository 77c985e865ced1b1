"""A warm start of one table through a vocabulary change, and the table's new rows."""

from __future__ import annotations

import torch
from torch import nn

import torch_warmstart as tws


def letters(count, prefix="t"):
    return [f"{prefix}{number}" for number in range(count)]


def table(rows, width, seed=0, dtype=torch.float32):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def info_of(new, old, initializer, **more):
    oov = more.pop("num_oov_buckets", 0)
    return tws.VocabInfo(new, len(new), oov, old, backup_initializer=initializer, **more)


def start(values, old, new, initializer, **more):
    """The model's table after a warm start, and the variable's account."""
    device = more.pop("device", "cpu")
    rows = len(new) + more.get("num_oov_buckets", 0)
    model = nn.Embedding(rows, values.shape[1], dtype=values.dtype, device=device)
    settings = tws.WarmStartSettings(
        {"weight": values},
        var_name_to_vocab_info={"weight": info_of(new, old, initializer, **more)},
    )
    report = tws.warm_start(model, settings)
    return model.weight.detach().cpu(), report["weight"]
