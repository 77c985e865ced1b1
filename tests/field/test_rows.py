"""Every row has a test that is there."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest
from field.rows import TESTS

HERE = Path(__file__).parents[1]
SIZES = {"A": 10, "B": 20, "C": 13, "D": 11}


@functools.cache
def _names(path: str) -> frozenset[str]:
    tree = ast.parse((HERE / path).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_no_row_is_left_out():
    numbered = {f"{letter}{n + 1}" for letter, size in SIZES.items() for n in range(size)}
    assert numbered == {row for row in TESTS if not row.startswith("E: ")}


@pytest.mark.parametrize("row", TESTS)
def test_its_tests_are_there(row):
    assert TESTS[row]
    for test in TESTS[row]:
        path, _, name = test.partition("::")
        assert name in _names(path)
