"""Rows of text as an aligned table, with repeated layers folded into one row. Knows no models."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Sequence

Row = tuple[str, ...]

_NUMBER = re.compile(r"\d+")
_LONGEST_PATH = 48  # characters; names of feature columns reach a hundred
_WIDE = 10_000  # columns: a table is never wrapped, whatever the terminal; pipe it through less -S


def render(columns: Sequence[str], rows: Iterable[Row], right: Iterable[str] = ()) -> str:
    """An aligned table; columns named in `right` are right-aligned, empty ones are left out."""
    from rich.console import Console  # rich costs more to import than this whole package
    from rich.table import Table
    from rich.text import Text

    listed = list(rows)
    used = [at for at in range(len(columns)) if any(row[at] for row in listed)]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for at in used:
        side = "right" if columns[at] in set(right) else "left"
        table.add_column(columns[at], justify=side, no_wrap=True)  # type: ignore[arg-type]
    for row in listed:
        table.add_row(*(Text(row[at]) for at in used))  # Text: brackets are not markup
    console = Console(file=io.StringIO(), width=_WIDE, color_system=None, record=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def shorten(path: str) -> str:
    """A long path with its middle parts left out: `dnn/.../city/embedding_weights`."""
    first, *parts = path.split("/")
    while len(path) > _LONGEST_PATH and len(parts) > 1:
        parts = parts[1:]
        path = "/".join([first, "...", *parts])
    return path


def fold(rows: Iterable[Row], names: int) -> list[Row]:
    """Joins rows that differ only in one number within their first `names` cells.

    `layers.0.weight` to `layers.11.weight` become `layers.{0...11}.weight`; the other cells must be
    equal. A folded row stands where its first row stood.
    """
    groups: dict[Row, list[Row]] = {}
    for row in rows:
        template = tuple(_NUMBER.sub("#", cell) for cell in row[:names])
        groups.setdefault(template + row[names:], []).append(row)
    folded = (_fold_group(group, names) for group in groups.values())
    return list(itertools.chain.from_iterable(folded))


def _fold_group(group: list[Row], names: int) -> list[Row]:
    if len(group) == 1:
        return group
    cells = [_fold_cells([row[at] for row in group]) for at in range(names)]
    if any(cell is None for cell in cells):
        return group
    return [(*(cell or "" for cell in cells), *group[0][names:])]


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
    values = sorted(int(number) for number in numbers)
    if values == list(range(values[0], values[-1] + 1)) and len(values) > 2:
        return f"{{{values[0]}...{values[-1]}}}"
    return "{" + ",".join(str(value) for value in values) + "}"
