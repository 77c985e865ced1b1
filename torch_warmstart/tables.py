"""Rows of text as an aligned table, with repeated layers folded into one row. Knows no models."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence

Row = tuple[str, ...]

_NUMBER = re.compile(r"\d+")
_LONGEST_PATH = 48  # characters; names of feature columns reach a hundred
_GAP = "  "  # a table is never wrapped, whatever the terminal; pipe it through less -S


def render(columns: Sequence[str], rows: Iterable[Row], right: Iterable[str] = ()) -> str:
    """An aligned table; columns named in `right` are right-aligned, empty ones are left out.

    Written out by hand: rich takes forty seconds over the 100,000 rows of a large checkpoint.
    """
    listed = [tuple(printable(cell) for cell in row) for row in (tuple(columns), *rows)]
    used = [at for at in range(len(columns)) if any(row[at] for row in listed[1:])]
    to_right = set(right)
    cells = [_column([row[at] for row in listed], columns[at] in to_right) for at in used]
    return "\n".join(_GAP.join(line).rstrip() for line in zip(*cells, strict=True))


def _column(cells: list[str], to_right: bool) -> list[str]:
    """The cells padded to the width of the widest."""
    widths = [_width(cell) for cell in cells]
    widest = max(widths)
    padding = [" " * (widest - width) for width in widths]
    if to_right:
        return [pad + cell for pad, cell in zip(padding, cells, strict=True)]
    return [cell + pad for pad, cell in zip(padding, cells, strict=True)]


def _width(cell: str) -> int:
    """Columns that a terminal gives to a text."""
    if cell.isascii():
        return len(cell)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in cell)
    narrow = sum(not unicodedata.combining(character) for character in cell)
    return wide + narrow


def printable(text: str) -> str:
    r"""A text with what a terminal would act upon spelt out: a name may hold `\n` or `\x1b`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


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
