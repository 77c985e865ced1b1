"""Arithmetic on half-open byte ranges, and that a server has none. Knows no files.

Some rows of a large table can be millions of ranges, so they are arrays here, not tuples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from torch_warmstart.errors import StorageError

Range = tuple[int, int]  # start, stop
RangeArray = np.ndarray[tuple[Any, ...], np.dtype[np.int64]]  # of [n, 2]
Ranges = Sequence[Range] | RangeArray

NO_RANGES: RangeArray = np.empty((0, 2), dtype=np.int64)
_FIRST, _LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


class NoRangesError(StorageError):
    """A server answers with a whole file where a part of it was asked for."""

    def __init__(self, url: str) -> None:
        super().__init__(f"{url}: its server does not serve parts of files.")


def union(ranges: Ranges, gap: int = 0) -> RangeArray:
    """The ranges sorted and joined; those at most `gap` bytes apart become one."""
    wanted = as_array(ranges)
    wanted = wanted[wanted[:, 0] < wanted[:, 1]]
    if not len(wanted):
        return NO_RANGES
    starts, stops = wanted[np.argsort(wanted[:, 0], kind="stable")].T
    return joined(starts, np.maximum.accumulate(stops), gap)


def joined(starts: RangeArray, stops: RangeArray, gap: int) -> RangeArray:
    """Ranges whose starts and stops both ascend; those at most `gap` bytes apart become one."""
    breaks = np.flatnonzero(starts[1:] - stops[:-1] > gap)
    firsts = np.concatenate([[0], breaks + 1])
    lasts = np.concatenate([breaks, [len(starts) - 1]])
    return np.stack([starts[firsts], stops[lasts]], axis=1)


def subtract(wanted: Ranges, present: RangeArray) -> RangeArray:
    """The parts of `wanted` that are not in `present`, which is sorted, disjoint and joined.

    They are what `wanted` has in common with the gaps around and between those of `present`.
    """
    starts, stops = _columns(union(wanted))
    gap_stops, gap_starts = _columns(present)
    gap_starts = np.concatenate([[_FIRST], gap_starts])
    gap_stops = np.concatenate([gap_stops, [_LAST]])
    first = np.searchsorted(gap_stops, starts, side="right")
    counts = np.searchsorted(gap_starts, stops, side="left") - first
    which = np.repeat(np.arange(len(starts)), counts)
    gap = np.arange(len(which)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
    return np.stack(
        [np.maximum(starts[which], gap_starts[gap]), np.minimum(stops[which], gap_stops[gap])],
        axis=1,
    )


def covers(present: RangeArray, start: int, stop: int) -> bool:
    """Whether all of `[start, stop)` is in `present`, which is sorted, disjoint and joined."""
    at = int(np.searchsorted(present[:, 0], start, side="right")) - 1
    return start >= stop or (at >= 0 and stop <= int(present[at, 1]))


def shifted(ranges: Ranges, offset: int) -> RangeArray:
    """The ranges, each `offset` bytes further on."""
    return as_array(ranges) + offset


def within(ranges: RangeArray, start: int, stop: int) -> list[list[int]]:
    """The parts that lie between two places, of ranges that are sorted and disjoint."""
    first = np.searchsorted(ranges[:, 1], start, side="right")
    last = np.searchsorted(ranges[:, 0], stop)
    found: list[list[int]] = np.clip(ranges[first:last], start, stop).tolist()
    return found


def batches(ranges: RangeArray, piece: int, total: int, count: int) -> Iterator[list[Range]]:
    """The ranges cut into pieces of at most `piece` bytes, in groups.

    A group holds at most `total` bytes and `count` pieces, and at least one piece.
    """
    group: list[Range] = []
    held = 0
    for start, stop in ranges:
        for begin in range(int(start), int(stop), piece):
            end = min(begin + piece, int(stop))
            if group and (held + end - begin > total or len(group) == count):
                yield group
                group, held = [], 0
            group.append((begin, end))
            held += end - begin
    if group:
        yield group


def as_array(ranges: Ranges) -> RangeArray:
    """Ranges as one array of [n, 2]."""
    return np.asarray(ranges, dtype=np.int64).reshape(-1, 2)


def _columns(ranges: RangeArray) -> tuple[RangeArray, RangeArray]:
    """Starts and stops, each in one run of memory, as a search wants them."""
    return np.ascontiguousarray(ranges[:, 0]), np.ascontiguousarray(ranges[:, 1])
