"""The blocks of docs/distributed.md, by the headings that they stand under."""

from __future__ import annotations

import re

from example_runs import ROOT

_SECTION = re.compile(r"^## (.*?)$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def blocks() -> dict[str, list[str]]:
    """The blocks of each section that has some."""
    page = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
    found = {name: _BLOCK.findall(text) for name, text in _SECTION.findall(page)}
    return {name: codes for name, codes in found.items() if codes}
