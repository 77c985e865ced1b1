"""An attention whose query, key and value are layers of their own."""

from __future__ import annotations

import math

from torch import nn

WIDTH, HEADS = 6, 2
NAMES = {"q_proj": ("q_proj", "k_proj", "v_proj"), "query": ("query", "key", "value")}


class Apart(nn.Module):
    """Attention as BART and CLIP write it."""

    def __init__(self, names=NAMES["q_proj"], key_bias=True):
        super().__init__()
        self.names = names
        for name, bias in zip(names, (True, key_bias, True), strict=True):
            self.add_module(name, nn.Linear(WIDTH, WIDTH, bias=bias))
        self.out_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        parts = [getattr(self, name)(x) for name in self.names]
        q, k, v = (p.unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in parts)
        weights = (q @ k.mT / math.sqrt(WIDTH // HEADS)).softmax(-1)
        return self.out_proj((weights @ v).transpose(1, 2).flatten(2))
