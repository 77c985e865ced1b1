"""docs/architecture.md answers "where is it decided" with files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/architecture.md").read_text()
ROWS = [
    line.strip("|").split(" | ")
    for line in TEXT.splitlines()
    if line.startswith("| ") and "`" in line.rpartition(" | ")[2] + line
]


def _paths(cell: str) -> list[str]:
    return [
        path for path in re.findall(r"`([\w/.]+)`", cell) if "/" in path or path.endswith(".py")
    ]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip()[:60])
def test_what_the_map_names_is_there(row):
    package, folder = ROOT / "torch_warmstart", Path()
    for path in _paths(row[-1]):
        if "/" in path:
            folder = Path(path) if path.endswith("/") else Path(path).parent
        places = [package / path, package / folder / path, ROOT / path]
        assert any(place.exists() for place in places), f"{path} is not there"


def test_no_question_is_asked_twice():
    questions = [row[0].strip() for row in ROWS]
    assert len(questions) == len(set(questions)) > 60
