"""For `make docs`: sections of docstrings in the words that griffe knows them by."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTIONS = (
    (r"^( *)Example:$", r"\1Examples:"),  # otherwise it is shown as quoted text, in one line
    (r"^( *)Raises:\n +As (`\w+`)\.$", r"\1Raises as \2."),
)


class Sections(griffe.Extension):
    """Says sections otherwise, before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Looks at the docstring of whatever has one."""
        if obj.docstring is not None:
            for ours, theirs in _SECTIONS:
                obj.docstring.value = re.sub(ours, theirs, obj.docstring.value, flags=re.MULTILINE)
