"""What `make types` would find, without pyright: a public attribute whose type is to be guessed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import torch_warmstart

PACKAGE = Path(torch_warmstart.__file__).parent
# Of what they hold checkers guess; arguments and what functions return have types.
GUESSED = (ast.Dict, ast.List, ast.Set, ast.Tuple, ast.DictComp, ast.ListComp, ast.SetComp)


def guessed(code: str) -> list[str]:
    """Assignments of public attributes in `__init__` whose type checkers may see differently."""
    return [
        ast.unparse(node)
        for of in ast.walk(ast.parse(code))
        if isinstance(of, ast.ClassDef) and not of.name.startswith("_")
        for method in of.body
        if isinstance(method, ast.FunctionDef) and method.name == "__init__"
        for node in ast.walk(method)
        if isinstance(node, ast.Assign) and isinstance(node.value, GUESSED)
        for target in node.targets
        if isinstance(target, ast.Attribute) and not target.attr.startswith("_")
    ]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_public_attributes_have_types(path):
    assert guessed(path.read_text(encoding="utf-8")) == []


def test_a_guess_is_found():
    code = "class A:\n def __init__(self, n):\n  self.n = n\n  self._x = {n}\n  self.x = {n}\n"
    assert guessed(code) == ["self.x = {n}"]
