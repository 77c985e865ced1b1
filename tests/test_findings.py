"""Every code of a problem, a warning or a note is on the page that lists them, and no other is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import torch_warmstart as tws
from torch_warmstart import errors

PACKAGE = Path(tws.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "findings.md"
_SAID_BY = {"Finding", "ProblemError", "_Cause", "_Form"}
_EXAMPLES = "## What each warning says, by an example"
_CODE = re.compile(r"[a-z]+(-[a-z]+)*")


def _texts(node: ast.expr, names: dict[str, ast.expr]) -> Iterator[str]:
    """The strings that an expression may be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from (*_texts(node.body, names), *_texts(node.orelse, names))
    elif isinstance(node, ast.Name) and node.id in names:
        yield from _texts(names[node.id], {k: v for k, v in names.items() if k != node.id})


def _said_in(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    names = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    for call in calls:
        if isinstance(call.func, ast.Name) and call.func.id in _SAID_BY:
            yield from _texts(call.args[0], names)


def _codes() -> set[str]:
    said = {code for path in PACKAGE.rglob("*.py") for code in _said_in(path)}
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    raised = {cls.code for cls in classes if issubclass(cls, tws.WarmStartError)}
    return said | raised


def _first_table() -> str:
    return PAGE.read_text().partition("\n## ")[0]


def _listed() -> list[str]:
    return re.findall(r"^\| `([\w-]+)` \|", _first_table(), re.MULTILINE)


def test_the_page_lists_every_code_once_in_order():
    listed = _listed()
    assert listed == sorted(set(listed))
    assert set(listed) == _codes()


@pytest.mark.parametrize("code", sorted(_codes()))
def test_a_code_is_in_kebab_case(code):
    assert _CODE.fullmatch(code)


def _rows(heading: str) -> dict[str, list[str]]:
    """The rows of the table behind a line of the page, by their codes."""
    lines = PAGE.read_text().partition(heading)[2].partition("\n## ")[0].splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| `")]
    return {code.strip("`"): rest for code, *rest in cells}


def _literals() -> list[str]:
    """The sentences, or parts of them, that messages are made of."""
    trees = [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")]
    texts = (n.value for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Constant))
    ends = re.compile(r"\{[^}]*\}|(?<=[.:]) ")
    parts = (part.strip() for t in texts if isinstance(t, str) for part in ends.split(t))
    return [part for part in parts if len(part) >= 18]


def test_each_warning_has_an_example_in_the_words_that_it_says():
    warnings = {c for c, cells in _rows("# Findings").items() if "warning" in cells[0]}
    examples = {code: text for code, (text,) in _rows(_EXAMPLES).items()}
    assert set(examples) == warnings
    literals = _literals()
    stale = [c for c, text in examples.items() if not any(part in text for part in literals)]
    assert stale == []
