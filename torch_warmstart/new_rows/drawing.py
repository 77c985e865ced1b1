"""Random rows by counter: what a row gets depends on the seed and its number, on nothing else.

So the rows are the same whichever part of them is made, on whichever device and rank.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

_TOGETHER = 64  # rows drawn from one stream, which begins at their counter


def draw_normals(seed: int, stream: str, numbers: torch.Tensor, width: int) -> torch.Tensor:
    """Standard normals: float32 of `[len(numbers), width]` on the CPU.

    Args:
        seed: What all streams are drawn from.
        stream: Which one; another name gives other rows.
        numbers: int64, the rows' numbers.
        width: Of a row.
    """
    key = int.from_bytes(
        hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=16).digest(), "big"
    )
    out = torch.empty(len(numbers), width, dtype=torch.float32)
    order = torch.argsort(numbers, stable=True)
    ordered = numbers[order]
    groups, counts = torch.unique_consecutive(ordered // _TOGETHER, return_counts=True)
    start = 0
    for group, count in zip(groups.tolist(), counts.tolist(), strict=True):
        here = slice(start, start + count)
        within = ordered[here] - group * _TOGETHER
        rows = int(within[-1]) + 1
        bits = np.random.Philox(key=key, counter=group << 128)
        drawn = np.random.Generator(bits).standard_normal((rows, width), dtype=np.float32)
        out[order[here]] = torch.from_numpy(drawn)[within]
        start += count
    return out


def draw_seed(generator: torch.Generator | None) -> int:
    """One seed, from a generator or from torch's own."""
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(1 << 62, (), generator=generator, device=device))
