"""What is shown to people as a value: a title, a table, what follows it; and its text.

A plan, a report, suggestions, a comparison and a checkpoint each make one; `page` makes HTML of it.
What the text does so that no line is too wide, in this order: what is equal in all rows is said
once, reasons are numbered, paths lose their middle where they stay apart or get a line of their
own, cells go on below.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from torch_warmstart.display.folding import Row, fold, fold_endings, shorten_apart
from torch_warmstart.display.tables import natural_widths, table_lines, total_width
from torch_warmstart.display.wrapping import (
    terminal_width,
    text_width,
    wrapped,
    wrapped_clauses,
    wrapped_prose,
)
from torch_warmstart.errors import plural, printable
from torch_warmstart.values import frozen

Kind = Literal["title", "head", "row", "detail", "text", "note", "warning"]
_INDENT = "    "  # of what belongs to the line above
_LEAST_REASON = 6  # columns; a shorter one is not worth a number


@frozen
class Entry:
    """A row of the table."""

    cells: Row  # one a column
    detail: str = ""  # a line of its own below
    short: str = ""  # what is said instead where that is more than a line
    bar: tuple[tuple[str, int], ...] = ()  # parts of a whole, with what each is
    is_aside: bool = False  # named in one line with others, instead of a row


@frozen
class Sheet:
    """A table with a title and what there is to say."""

    title: str
    columns: tuple[str, ...]
    entries: tuple[Entry, ...]
    totals: str
    noun: str = "variable"  # what an entry is
    aside: str = ""  # what the entries have in common that have no row
    names: int = 1  # the first columns hold names, which are folded together
    joined: str | None = None  # a column that may differ in what is folded by its endings
    paths: str | None = None  # a column of long paths
    reasons: str | None = None  # a column of sentences, or of names that rows share
    state: str | None = None  # a column of few words, which colours and filters go by
    right: frozenset[str] = frozenset()  # columns of numbers
    remarks: tuple[str, ...] = ()  # lines after the totals
    folds: bool = True  # whether rows that differ in a number only are one
    folds_endings: bool = False

    def as_text(self, width: int | None = None) -> str:
        """The text, for a width; None: what the terminal has."""
        return "\n".join(line for _, line in self.lines(width))

    def lines(self, width: int | None = None) -> Iterator[tuple[Kind, str]]:
        """The lines of the text, each with what it is."""
        limit = terminal_width() if width is None else width
        yield from _text("title", self.title, limit)
        yield "text", ""
        if self.entries:
            yield from self._table(limit)
            yield "text", ""
        yield from _text("text", self.totals, limit)
        for remark in self.remarks:
            yield from _text(kind_of_remark(remark), remark, limit)

    def _table(self, limit: int) -> Iterator[tuple[Kind, str]]:
        shown = [entry for entry in self.entries if not entry.is_aside]
        folded = self._folded([(*entry.cells, entry.detail, entry.short) for entry in shown])
        if folded:
            details = [_fitting(row[-2:], limit - len(_INDENT)) for row in folded]
            rows, same = self._without_same([row[:-2] for row in folded])
            rows, numbered = self._with_numbers(rows, limit)
            rows, below, alike = self._with_short_paths(rows, limit)
            head, body = table_lines(self.columns, rows, self.right, limit)
            yield from (("head", line) for line in head)
            for lines, path, detail in zip(body, below, details, strict=True):
                yield from (("row", line) for line in lines)
                for text in filter(None, (printable(path), detail)):
                    yield from _text("detail", _INDENT + text, limit)
            for text in filter(None, (same, *numbered, alike)):
                yield from _text("text", printable(text), limit)
        aside = [entry.cells[0] for entry in self.entries if entry.is_aside]
        if aside:
            yield "text", self._aside(aside, limit)

    def _folded(self, rows: Iterable[Row]) -> list[Row]:
        if not self.folds:
            return list(rows)
        folded = fold(rows, names=self.names)
        if not self.folds_endings:
            return folded
        joined = None if self.joined is None else self.columns.index(self.joined)
        return fold_endings(folded, names=self.names, joined=joined)

    def _without_same(self, rows: list[Row]) -> tuple[list[Row], str]:
        """The rows without the cells that are the same in all of them, and those in a line."""
        if len(rows) < 2:
            return rows, ""
        columns = list(zip(*rows, strict=True))
        same = [
            at
            for at in range(self.names, len(columns))
            if columns[at][0] and len(set(columns[at])) == 1
        ]
        left = [tuple("" if at in same else c for at, c in enumerate(row)) for row in rows]
        said = ", ".join(f"{self.columns[at]} {columns[at][0]}" for at in same)
        return left, f"In all rows: {said}" if same else ""

    def _with_numbers(self, rows: list[Row], limit: int) -> tuple[list[Row], list[str]]:
        """The rows with reasons numbered, if they do not fit else, and the reasons."""
        if self.reasons is None or self._fits(rows, limit):
            return rows, []
        at = self.columns.index(self.reasons)
        reasons = dict.fromkeys(row[at] for row in rows if len(row[at]) > _LEAST_REASON)
        marks = {reason: f"[{number}]" for number, reason in enumerate(reasons, 1)}
        marked = [_with_cell(row, at, marks.get(row[at], row[at])) for row in rows]
        return marked, [f"{mark} {reason}" for reason, mark in marks.items()]

    def _with_short_paths(
        self, rows: list[Row], limit: int
    ) -> tuple[list[Row], Sequence[str], str]:
        """The rows with paths short or, if they do not fit even so, without.

        Also what is below each row then, and what that leaves out in all of them: a path that is
        the row's own name.
        """
        nothing = [""] * len(rows)
        if self.paths is None or self._fits(rows, limit):
            return rows, nothing, ""
        at = self.columns.index(self.paths)
        short = shorten_apart(part for row in rows for part in row[at].split(" + "))
        joined = [" + ".join(short[part] for part in row[at].split(" + ")) for row in rows]
        shortened = [_with_cell(row, at, path) for row, path in zip(rows, joined, strict=True)]
        if self._fits(shortened, limit):
            return shortened, nothing, ""
        without = [_with_cell(row, at, "") for row in rows]
        below = [f"{self.paths} {row[at]}" if row[at] else "" for row in rows]
        if not any(row[at] == row[0] for row in rows):
            return without, below, ""
        none = f"{self.paths} nothing"
        below = ["" if r[at] == r[0] else line or none for r, line in zip(rows, below, strict=True)]
        return without, below, f"Where no line says {self.paths!r}, the name is the same."

    def _fits(self, rows: Sequence[Row], limit: int) -> bool:
        widths = natural_widths([self.columns, *rows])
        used = [w for at, w in enumerate(widths) if any(row[at] for row in rows)]
        return total_width(used) <= limit

    def _aside(self, names: Sequence[str], limit: int) -> str:
        """What has no row: how many, and as many names as a line holds."""
        folded = [printable(cell) for (cell,) in fold_endings(fold(((n,) for n in names), 1), 1)]
        line = f"{self.aside}: {plural(len(names), self.noun)}: {folded[0]}"
        for number, name in enumerate(folded[1:], 2):
            more = ", ..." if number < len(folded) else ""
            if text_width(f"{line}, {name}{more}") > limit:
                line += ", ..."
                break
            line += f", {name}"
        return _cut(line, limit)


def kind_of_remark(remark: str) -> Literal["warning", "note"]:
    """Whether it is shown as a warning is."""
    return "warning" if remark.startswith(("Warning", "Error")) else "note"


def _fitting(texts: Sequence[str], width: int) -> str:
    """The first text that fits into a line, else the last one that is there."""
    there = [text for text in texts if text]
    return next((t for t in there if text_width(t) <= width), there[-1] if there else "")


def _with_cell(row: Row, at: int, cell: str) -> Row:
    return (*row[:at], cell, *row[at + 1 :])


def _text(kind: Kind, text: str, limit: int) -> Iterator[tuple[Kind, str]]:
    cut = wrapped_clauses if kind == "detail" else wrapped_prose
    for line in text.split("\n"):
        inset = line[: len(line) - len(line.lstrip())]
        parts = cut(printable(line), limit, indent=inset + "  ")
        yield from ((kind, part) for part in parts)


def _cut(line: str, limit: int) -> str:
    """A list of names that no row is about, in one line."""
    if text_width(line) <= limit:
        return line
    return wrapped(line, limit - 3)[0] + "..."
