"""For `make docs`: what griffe knows by other words: sections of docstrings, and `frozen`."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTIONS = (
    (r"^( *)Example:$", r"\1Examples:"),  # otherwise it is shown as quoted text, in one line
    (r"^( *)Raises:\n +As (`\w+`)\.$", r"\1Raises as \2."),
)


_DATACLASS = griffe.ExprName("dataclasses.dataclass")


class Sections(griffe.Extension):
    """Says sections and decorators otherwise, before they are looked at."""

    def on_class_instance(self, *, cls: griffe.Class, **_: Any) -> None:
        """Takes `frozen` for what it stands for: a class's fields are arguments."""
        for decorator in cls.decorators:
            if str(decorator.value).partition("(")[0] == "frozen":
                decorator.value = _DATACLASS

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Looks at the docstring of whatever has one."""
        if obj.docstring is not None:
            for ours, theirs in _SECTIONS:
                obj.docstring.value = re.sub(ours, theirs, obj.docstring.value, flags=re.MULTILINE)
