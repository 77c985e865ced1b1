"""How wide a text is in a terminal, how wide the terminal is, and a text cut into lines that fit.

Nothing is left out: a text that is too long goes on in the next line, if possible behind a
separator of names and paths.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Iterator

LEAST_WIDTH = 80  # columns; what is narrower scrolls
_WITHOUT_TERMINAL = 120
_MOST_WIDTH = 1_000_000  # of what the environment says

_PIECE = re.compile(r"[^ /.,_:|=+]*[ /.,_:|=+]?")  # of names: a line may end behind each
_WORD = re.compile(r" *[^ ]* ?")
_CLAUSE = re.compile(r"[^;]*;? ?")
_SMALLER = {_CLAUSE: _WORD, _WORD: _PIECE}  # what a part that is too long is cut into


def terminal_width() -> int:
    """The columns that a line may have: the terminal's, 80 at least, or 120 without a terminal.

    `COLUMNS` in the environment counts first, as for other programs.
    """
    try:
        columns = int(os.environ.get("COLUMNS", ""))
    except ValueError:
        columns = 0
    columns = columns if columns > 0 else _columns_of_stdout()
    return min(max(columns, LEAST_WIDTH), _MOST_WIDTH) if columns > 0 else _WITHOUT_TERMINAL


def _columns_of_stdout() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (AttributeError, OSError, ValueError):  # no terminal; none at all; closed
        return 0


def text_width(text: str) -> int:
    """Columns that a terminal gives to a text."""
    if text.isascii():
        return len(text)
    return sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def wrapped(text: str, width: int, *, indent: str = "") -> list[str]:
    """A name in lines of at most `width` columns, all but the first with an indent before them."""
    return _lines(text, _PIECE, width, indent)


def wrapped_prose(text: str, width: int, *, indent: str = "") -> list[str]:
    """The same of sentences, whose words stay whole where that is possible."""
    return _lines(text, _WORD, width, indent)


def wrapped_clauses(text: str, width: int, *, indent: str = "") -> list[str]:
    """The same of a list whose parts end with semicolons: they stay whole first of all."""
    return _lines(text, _CLAUSE, width, indent)


def _lines(text: str, part: re.Pattern[str], width: int, indent: str) -> list[str]:
    if text_width(text) <= width:
        return [text]
    lines: list[str] = []
    line = ""
    for piece in _pieces(text, part, max(1, width - len(indent))):
        begin = indent if lines else ""
        if line and text_width(begin + line + piece.rstrip()) > width:
            lines.append((begin + line).rstrip())
            line = ""
        line += piece if line or not lines else piece.lstrip(" ")
    return [*lines, ((indent if lines else "") + line).rstrip()]


def _pieces(text: str, part: re.Pattern[str], width: int) -> Iterator[str]:
    """The parts that stay together: of a long one its smaller parts, of the smallest any."""
    for piece in part.findall(text):
        if text_width(piece.rstrip()) <= width:
            yield piece
        elif part in _SMALLER:
            yield from _pieces(piece, _SMALLER[part], width)
        else:
            yield from _cut(piece, width)


def _cut(piece: str, width: int) -> Iterator[str]:
    part, used = "", 0
    for character in piece:
        size = _character_width(character)
        if part and used + size > width:
            yield part
            part, used = "", 0
        part, used = part + character, used + size
    yield part
