"""The consumer uses every public name, and what it does works. `make lint` checks its types."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import uses_of_every_name as consumer

import torch_warmstart

TREE = ast.parse(Path(consumer.__file__).read_text(encoding="utf-8"))


@pytest.mark.parametrize("use", consumer.USES, ids=lambda use: use.__name__)
def test_a_use_works(use, tmp_path):
    use(tmp_path)


def test_every_public_name_is_used():
    used = {
        node.attr
        for node in ast.walk(TREE)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("tws", "init")
    }
    expected = {*torch_warmstart.__all__, *torch_warmstart.init.__all__}
    assert expected - used == set()


def test_every_use_is_run():
    functions = [node for node in TREE.body if isinstance(node, ast.FunctionDef)]
    named = [node.name for node in functions if not node.name.startswith("_")]
    assert named == [use.__name__ for use in consumer.USES]


def test_nothing_is_cast_or_ignored():
    text = Path(consumer.__file__).read_text(encoding="utf-8")
    assert "type: ignore" not in text
    assert "Any" not in text
    assert "cast(" not in text
