"""Work in blocks, by as many threads as torch may use.

A block is smaller than what torch itself would split (its grain size), because torch's own threads
wait for each other after every single operation, and on a busy machine that costs many times the
work. numpy and torch let go of the GIL while they compute.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

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
    return _Shared(work, items).done_by(threads)


class _Shared(Generic[Item, Result]):
    """Items that several threads take from, the caller's among them.

    So all is done even if the system has no threads left to start, as where a container limits
    them.
    """

    def __init__(self, work: Callable[[Item], Result], items: Sequence[Item]) -> None:
        self._work, self._count = work, len(items)
        self._left = deque(enumerate(items))
        self._results: dict[int, Result] = {}
        self._raised: dict[int, BaseException] = {}

    def done_by(self, threads: int) -> list[Result]:
        """The results, in order; raises what the first item raised for which something was."""
        started: list[threading.Thread] = []
        try:
            for _ in range(threads - 1):
                thread = threading.Thread(target=self._take)
                try:
                    thread.start()
                except RuntimeError:  # no more of them
                    break
                started.append(thread)
            self._take()
        finally:
            self._left.clear()  # if this thread is interrupted, the others begin nothing new
            for thread in started:
                thread.join()
        if self._raised:
            raise self._raised[min(self._raised)]
        return [self._results[number] for number in range(self._count)]

    def _take(self) -> None:
        while True:
            try:
                number, item = self._left.popleft()
            except IndexError:
                return
            try:
                self._results[number] = self._work(item)
            except Exception as error:
                self._raised[number] = error
                self._left.clear()


def blocks(count: int, device: torch.device, size: int | None = None) -> list[slice]:
    """The blocks of `count` elements; on a CPU of `size` each."""
    step = (size or GRAIN) if device.type == "cpu" else _ON_DEVICE
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
