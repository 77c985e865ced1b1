"""Repeated layers as one row, and long paths without their middle. Knows no models."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable

Row = tuple[str, ...]

_NUMBER = re.compile(r"(?<!\d)\d{1,18}(?!\d)")  # nothing is counted further
_GAP = "..."
_LONGEST_PATH = 48  # characters; names of feature columns reach a hundred


def shorten_apart(paths: Iterable[str]) -> dict[str, str]:
    """Long paths without what says nothing: `dnn/.../city/embedding_weights`.

    What is left out of the middle of a path is in every other path of the same ending too, and no
    two look the same afterwards.
    """
    parts = {path: path.split("/") for path in paths}
    shared: dict[str, set[str]] = {}
    for listed in parts.values():
        shared[listed[-1]] = shared.get(listed[-1], set(listed)) & set(listed)
    short = {path: _shorten(listed, shared[listed[-1]]) for path, listed in parts.items()}
    counts = Counter(short.values())
    return {path: shown if counts[shown] == 1 else path for path, shown in short.items()}


def _shorten(parts: list[str], shared: set[str]) -> str:
    """A path without shared parts of its middle, from the left, until it is short enough."""
    left: list[str] = list(parts)
    length, gap = len(_joined(left)), len(_GAP) + 1
    for at in range(1, len(parts) - 1):
        if length <= _LONGEST_PATH:
            break
        if parts[at] in shared and parts[at] != _GAP:
            left[at] = _GAP
            length -= len(parts[at]) + 1
            length += gap * (1 - (left[at - 1] == _GAP) - (left[at + 1] == _GAP))
    return _joined(left)


def _joined(parts: list[str]) -> str:
    """The parts as a path, with one gap for several in a row."""
    gaps = [part == _GAP for part in parts]
    return "/".join(p for at, p in enumerate(parts) if not (at and gaps[at] and gaps[at - 1]))


def fold(rows: Iterable[Row], names: int) -> list[Row]:
    """Joins rows that differ only in one number within their first `names` cells.

    `layers.0.weight` to `layers.11.weight` become `layers.{0...11}.weight`; the other cells must be
    equal. A folded row stands where its first row stood.
    """
    groups: dict[Row, list[_Numbered]] = {}
    for at, row in enumerate(rows):
        template = tuple(_NUMBER.sub("#", cell) for cell in row[:names])
        groups.setdefault(template + row[names:], []).append((at, row))
    parts = itertools.chain.from_iterable(_split(group) for group in groups.values())
    return _in_order(_fold_group(part, names) for part in parts)


def fold_endings(rows: Iterable[Row], names: int, joined: int | None = None) -> list[Row]:
    """Joins rows that differ only in what follows the last slash of their first `names` cells.

    `w/exp_avg` and `w/exp_avg_sq` become `w/{exp_avg,exp_avg_sq}`. A folded row stands where its
    first row stood.

    Args:
        rows: The rows.
        names: How many cells may differ.
        joined: The number of another cell that may differ; each value is shown once.
    """
    groups: dict[Row, list[_Numbered]] = {}
    for at, row in enumerate(rows):
        stems = tuple(stem for stem, _ in _endings(row, names))
        others = tuple(c for n, c in enumerate(row) if n >= names and n != joined)
        key = (*stems, *others) if "/" in row[0] else (*row, str(at))
        groups.setdefault(key, []).append((at, row))
    return _in_order(_join_endings(group, names, joined) for group in groups.values())


_Numbered = tuple[int, Row]  # a row and its place


def _in_order(groups: Iterable[list[_Numbered]]) -> list[Row]:
    """The rows, each where the first of those that it stands for stood."""
    rows = itertools.chain.from_iterable(groups)
    return [row for _, row in sorted(rows, key=lambda numbered: numbered[0])]


def _split(group: list[_Numbered]) -> Iterable[list[_Numbered]]:
    """Rows of one template by all numbers of their first cells but the one that varies most.

    Numbers that vary alike count as one: `hiddenlayer_0/batchnorm_0`.
    """
    columns = list(zip(*(_NUMBER.findall(row[0]) for _, row in group), strict=True))
    varying = list(dict.fromkeys(column for column in columns if len(set(column)) > 1))
    if len(varying) < 2:
        return [group]
    widest = max(varying, key=lambda column: len(set(column)))
    others = list(zip(*(column for column in varying if column != widest), strict=True))
    parts: dict[tuple[str, ...], list[_Numbered]] = {}
    for numbered, values in zip(group, others, strict=True):
        parts.setdefault(values, []).append(numbered)
    return parts.values()


def _fold_group(group: list[_Numbered], names: int) -> list[_Numbered]:
    if len(group) == 1:
        return group
    at, first = group[0]
    cells = [_fold_cells([row[number] for _, row in group]) for number in range(names)]
    if any(cell is None for cell in cells):
        return group
    return [(at, (*(cell or "" for cell in cells), *first[names:]))]


def _fold_cells(cells: list[str]) -> str | None:
    """One cell for several, or None if they differ in more than one number."""
    numbers = [_NUMBER.findall(cell) for cell in cells]
    columns = list(zip(*numbers, strict=True))
    varying = {column for column in columns if len(set(column)) > 1}
    if len(varying) > 1:  # `hiddenlayer_0/batchnorm_0` varies as one number, `0.1` and `1.0` do not
        return None
    texts = iter(_range(column) if column in varying else column[0] for column in columns)
    return _NUMBER.sub(lambda _: next(texts), cells[0])


def _range(numbers: tuple[str, ...]) -> str:
    """`{0...11}`, `{1,13...133}` or `{0,2,5}`."""
    values = sorted(int(number) for number in numbers)
    steps = {after - before for before, after in itertools.pairwise(values)}
    if steps == {1} and len(values) > 2:
        return f"{{{values[0]}...{values[-1]}}}"
    if len(steps) == 1 and 0 not in steps and len(values) > 3:
        return f"{{{values[0]},{values[1]}...{values[-1]}}}"
    return "{" + ",".join(str(value) for value in values) + "}"


def _endings(row: Row, names: int) -> list[tuple[str, str]]:
    """The first cells as stem and ending: the first's ending if they have it, or their own."""
    ending = row[0].rpartition("/")[2]
    found = []
    for cell in row[:names]:
        has_it = cell.endswith((f"/{ending}", f".{ending}"))
        own = ending if has_it else cell.rpartition("/")[2]
        found.append((cell.removesuffix(own), own))
    return found


def _join_endings(group: list[_Numbered], names: int, joined: int | None) -> list[_Numbered]:
    if len(group) == 1:
        return group
    at, first = group[0]
    endings = [_endings(row, names) for _, row in group]
    cells = list(first)
    for number in range(names):
        ends = [ending[number][1] for ending in endings]
        cells[number] = endings[0][number][0] + ("{" + ",".join(ends) + "}" if any(ends) else "")
    if joined is not None:
        cells[joined] = ", ".join(dict.fromkeys(row[joined] for _, row in group))
    return [(at, tuple(cells))]
