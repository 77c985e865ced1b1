"""Rows of text as an aligned table that fits into a width. Knows nothing of what it shows.

Written out by hand: rich takes forty seconds over the 100,000 rows of a large checkpoint, and
breaks names only where they have blanks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

from torch_warmstart.display.folding import Row
from torch_warmstart.display.wrapping import text_width, wrapped
from torch_warmstart.errors import printable

GAP = "  "
_INDENT = "  "  # of a cell's second line
_NARROW = 8  # columns; no column of text is made narrower while another is wider than that


def render(
    columns: Sequence[str],
    rows: Iterable[Row],
    right: Iterable[str] = (),
    width: int | None = None,
) -> str:
    """An aligned table; columns named in `right` are right-aligned, empty ones are left out.

    A cell that is too wide for its column goes on below, the first has a line of its own if it fits
    into one; nothing is left out.

    Args:
        columns: The headings.
        rows: The cells of each row.
        right: Headings of the columns that are aligned on the right.
        width: How wide a line may be; None: as wide as it is.
    """
    head, body = table_lines(columns, rows, right, width)
    return "\n".join([*head, *(line for lines in body for line in lines)])


def table_lines(
    columns: Sequence[str],
    rows: Iterable[Row],
    right: Iterable[str] = (),
    width: int | None = None,
) -> tuple[list[str], list[list[str]]]:
    """As `render`: the lines of the headings, and those of each row."""
    listed = [tuple(printable(cell) for cell in row) for row in (tuple(columns), *rows)]
    used = [at for at in range(len(columns)) if any(row[at] for row in listed[1:])]
    to_right = [columns[at] in set(right) for at in used]
    cells = [tuple(row[at] for at in used) for row in listed]
    widths = fitted(natural_widths(cells), to_right, width)
    head, *body = (_lines(row, widths, to_right) for row in cells)
    return head, body


def natural_widths(rows: Sequence[Row]) -> list[int]:
    """The width of the widest cell of each column."""
    return [max(map(text_width, column)) for column in zip(*rows, strict=True)]


def total_width(widths: Sequence[int]) -> int:
    """How wide a table is."""
    return sum(widths) + len(GAP) * max(0, len(widths) - 1)


def fitted(widths: list[int], to_right: Sequence[bool], width: int | None) -> list[int]:
    """The widths of columns that fit: the widest give way, numbers last of all."""
    if width is None:
        return list(widths)
    gentle = [w if right else min(w, _NARROW) for w, right in zip(widths, to_right, strict=True)]
    return _shrunk(_shrunk(list(widths), gentle, width), [1] * len(widths), width)


def _shrunk(widths: list[int], least: Sequence[int], width: int) -> list[int]:
    """The widths with the widest of those that may give way narrower, until they fit."""
    found = list(widths)
    while total_width(found) > width:
        room = [(size, at) for at, size in enumerate(found) if size > least[at]]
        if not room:
            break
        found[max(room, key=lambda one: (one[0], -one[1]))[1]] -= 1
    return found


def _lines(row: Row, widths: Sequence[int], to_right: Sequence[bool]) -> list[str]:
    """A row as lines: more than one if a cell is wider than its column.

    A name that is too wide stays whole if that costs no line: it stands above what it is the name
    of, as wide as the table.
    """
    in_columns = _in_columns(row, widths, to_right)
    if not any(row[1:]) or text_width(row[0]) <= widths[0]:
        return in_columns
    name = wrapped(row[0], total_width(widths), indent=_INDENT)
    above = [*name, *_in_columns(("", *row[1:]), widths, to_right)]
    return above if len(above) <= len(in_columns) else in_columns


def _in_columns(row: Row, widths: Sequence[int], to_right: Sequence[bool]) -> list[str]:
    if all(text_width(cell) <= width for cell, width in zip(row, widths, strict=True)):
        cells: Iterable[tuple[str, ...]] = [row]
    else:
        parts = [
            wrapped(cell, width, indent=_INDENT if width > _NARROW else "")
            for cell, width in zip(row, widths, strict=True)
        ]
        cells = zip_longest(*parts, fillvalue="")
    return [GAP.join(map(_padded, line, widths, to_right)).rstrip() for line in cells]


def _padded(cell: str, width: int, to_right: bool) -> str:
    padding = " " * (width - text_width(cell))
    return padding + cell if to_right else cell + padding
