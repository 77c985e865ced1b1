"""Lines of a table with colours, by rich: when there are any, and which."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

    from torch_warmstart.display import Kind

_MOST_LINES = 3_000  # rich takes a millisecond for one
_STYLES: dict[Kind, str] = {
    "title": "bold",
    "head": "bold",
    "detail": "dim",
    "warning": "yellow",
    "note": "",
    "row": "",
    "text": "",
}
_STATES = re.compile(
    r"(?<= )(?:(?P<green>copied|renamed|high|added)|(?P<blue>remapped|converted|medium)|"
    r"(?P<yellow>low|shape|dtype|values)|(?P<red>removed|unreadable)|(?P<dim>kept|none))(?= |$)"
)


def are_shown(num_lines: int) -> bool:
    """Whether a table of so many lines has colours: on a terminal, unless the user has none."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and num_lines <= _MOST_LINES


def coloured(lines: Iterable[tuple[Kind, str]]) -> Iterator[Text]:
    """The lines of a sheet, each as rich prints it."""
    from rich.text import Text

    for kind, line in lines:
        text = Text(line, style=_STYLES[kind])
        if kind == "row":
            for match in _STATES.finditer(line):
                text.stylize(str(match.lastgroup), *match.span())
        yield text
