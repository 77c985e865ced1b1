"""Arithmetic on half-open byte ranges. Pure functions; knows no files."""

from __future__ import annotations

from collections.abc import Iterable

Range = tuple[int, int]  # start, stop


def union(ranges: Iterable[Range], gap: int = 0) -> list[Range]:
    """The ranges sorted and joined; those at most `gap` bytes apart become one."""
    joined: list[Range] = []
    for start, stop in sorted(r for r in ranges if r[0] < r[1]):
        if joined and start <= joined[-1][1] + gap:
            joined[-1] = (joined[-1][0], max(joined[-1][1], stop))
        else:
            joined.append((start, stop))
    return joined


def subtract(wanted: Iterable[Range], present: list[Range]) -> list[Range]:
    """The parts of `wanted` that are not in `present`, which is sorted and disjoint."""
    missing: list[Range] = []
    at = 0
    for start, stop in union(wanted):
        while at < len(present) and present[at][1] <= start:
            at += 1
        reached, look = start, at
        while look < len(present) and present[look][0] < stop:
            if reached < present[look][0]:
                missing.append((reached, present[look][0]))
            reached = max(reached, present[look][1])
            look += 1
        if reached < stop:
            missing.append((reached, stop))
    return missing


def batches(ranges: Iterable[Range], piece: int, total: int) -> list[list[Range]]:
    """The ranges cut into pieces of at most `piece` bytes, in groups of at most `total` bytes."""
    groups: list[list[Range]] = []
    held = 0
    for start, stop in ranges:
        for begin in range(start, stop, piece):
            end = min(begin + piece, stop)
            if not groups or held + end - begin > total:
                groups.append([])
                held = 0
            groups[-1].append((begin, end))
            held += end - begin
    return groups
