"""Lines of a table with colours, for a terminal, by rich."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from rich.text import Text

from torch_warmstart.display import Kind

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


def coloured(lines: Iterable[tuple[Kind, str]]) -> Iterator[Text]:
    """The lines of a sheet, each as rich prints it."""
    for kind, line in lines:
        text = Text(line, style=_STYLES[kind])
        if kind == "row":
            for match in _STATES.finditer(line):
                text.stylize(str(match.lastgroup), *match.span())
        yield text
