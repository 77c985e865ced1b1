"""Work in blocks, by as many threads as torch may use.

A block is smaller than what torch itself would split (its grain size), because torch's own threads
wait for each other after every single operation, and on a busy machine that costs many times the
work. numpy and torch let go of the GIL while they compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

GRAIN = (1 << 15) - 1  # elements; at::internal::GRAIN_SIZE is 1 << 15
_ON_DEVICE = 1 << 22  # elements of a block elsewhere: it bounds what is made on the way

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_blocks(work: Callable[[slice], Result], count: int, device: torch.device) -> list[Result]:
    """What `work` returns for each block of `count` elements, in order."""
    return in_threads(work, blocks(count, device), device)


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], device: torch.device
) -> list[Result]:
    """What `work` returns for each item, in order; in threads where torch computes on the CPU."""
    threads = min(len(items), torch.get_num_threads()) if device.type == "cpu" else 1
    if threads < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


def blocks(count: int, device: torch.device, size: int | None = None) -> list[slice]:
    """The blocks of `count` elements; on a CPU of `size` each."""
    step = (size or GRAIN) if device.type == "cpu" else _ON_DEVICE
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
