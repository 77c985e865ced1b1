"""Vectors of rows, as long as a vocabulary: made, counted and searched.

On a CPU by numpy, in the caller's thread. torch splits what is longer than its grain among threads
that spin while they wait for each other: of tables of 40,000 rows that took most of the time.
"""

from __future__ import annotations

import numpy as np
import torch

from torch_warmstart.entries.words import new_words

_BLOCK = 1 << 15  # numbers at a time where some are made on the way, so that they stay in the cache


def filled(count: int, value: int, device: torch.device) -> torch.Tensor:
    """`count` times one number: int64."""
    made = new_words(count, device)
    if device.type != "cpu":
        return made.fill_(value)
    made.numpy().fill(value)
    return made


def with_old_row(rows: torch.Tensor) -> torch.Tensor:
    """Where rows are at least 0: int64."""
    if rows.device.type != "cpu":
        return (rows >= 0).nonzero().flatten()
    return torch.from_numpy(np.flatnonzero(rows.numpy() >= 0))


def without_old_row(rows: torch.Tensor) -> torch.Tensor:
    """Where rows are below 0: int64."""
    if rows.device.type != "cpu":
        return (rows < 0).nonzero().flatten()
    return torch.from_numpy(np.flatnonzero(rows.numpy() < 0))


def count_with_old_row(rows: torch.Tensor) -> int:
    """How many rows are at least 0."""
    if rows.device.type != "cpu":
        return int((rows >= 0).sum())
    return int(np.count_nonzero(rows.numpy() >= 0))


def extremes(rows: torch.Tensor) -> tuple[int, int]:
    """The lowest and the highest of a vector that has one."""
    if rows.device.type != "cpu":
        lowest, highest = torch.stack(torch.aminmax(rows)).tolist()
        return lowest, highest
    numbers = rows.numpy()
    return int(numbers.min()), int(numbers.max())


def count_in_place(rows: torch.Tensor) -> int:
    """How many rows are their own number."""
    if rows.device.type != "cpu":
        return int((rows == torch.arange(len(rows), device=rows.device)).sum())
    numbers, found = rows.numpy(), 0
    for start in range(0, len(numbers), _BLOCK):
        part = numbers[start : start + _BLOCK]
        found += int(np.count_nonzero(part == np.arange(start, start + len(part))))
    return found
