"""docs/architecture.md answers "where is it decided" with what is there, and leaves nothing out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "torch_warmstart"
_PATH = re.compile(r"[\w/.]+(?:\.\w+|/)")


class Row(NamedTuple):
    """A question, and the cell that answers it, in a table about some folders."""

    folders: tuple[Path, ...]
    question: str
    answer: str

    def places(self) -> Iterator[tuple[Path | None, list[str]]]:
        """The files that are named, each with the names of what is in it; None: there is none."""
        for path, more in re.findall(r"`([^`]+)`(?: \(((?:`[^`]+`(?:, )?)+)\))?", self.answer):
            if _PATH.fullmatch(path):
                found = (folder / path for folder in (*self.folders, PACKAGE, ROOT))
                yield next(filter(Path.exists, found), None), re.findall(r"`([^`]+)`", more)


def _rows() -> Iterator[Row]:
    folders: tuple[Path, ...] = (PACKAGE,)
    for line in (ROOT / "docs/architecture.md").read_text().splitlines():
        if line.startswith("#"):
            folders = tuple(PACKAGE / folder for folder in re.findall(r"`([\w/]+)/`", line))
        elif line.startswith("| ") and " | " in line:
            question, answer = line.strip("| ").rsplit(" | ", 1)
            yield Row(folders, question.strip(), answer)


ROWS = [row for row in _rows() if "`" in row.answer]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.question[:60])
def test_what_the_map_names_is_there(row):
    for place, names in row.places():
        assert place is not None, row.answer
        text = place.read_text() if place.is_file() else ""
        assert all(re.search(rf"\b{re.escape(name.split('.')[-1])}\b", text) for name in names)


def test_no_row_is_wider_than_120():
    lines = (ROOT / "docs/architecture.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("|") and len(line) > 120] == []


def test_every_module_is_on_the_map():
    named = {place for row in ROWS for place, _ in row.places()}
    modules = {path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    assert sorted(map(str, modules - named)) == []


def test_each_code_of_a_finding_leads_to_where_it_is_said():
    codes = set(re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs/findings.md").read_text(), re.M))
    rows = [row for row in ROWS if re.fullmatch(r"(`[\w-]+`(, )?)+", row.question)]
    assert {code for row in rows for code in row.question.replace("`", "").split(", ")} == codes
    for row in rows:
        texts = [place.read_text() for place, _ in row.places() if place is not None]
        for code in row.question.replace("`", "").split(", "):
            assert all(f'"{code}"' in text for text in texts), code


def test_no_question_is_asked_twice():
    questions = [row.question for row in ROWS if not row.question.startswith("...")]
    assert len(questions) == len(set(questions)) > 60
