"""What the framework that wrote a checkpoint calls things, and who asks which it was."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

import torch_warmstart
from torch_warmstart.names.conventions import conventions_of

PACKAGE = Path(torch_warmstart.__file__).parent
TF = conventions_of(SimpleNamespace(family="tensorflow"))
TORCH = conventions_of(SimpleNamespace(family="torch"))


def test_keys_are_spelt_as_each_framework_spells_them():
    assert list(TF.spellings("a.b", "kernel")) == [
        "a.b.kernel",
        "a.b/kernel",
        "a/b/kernel",
        "a.b/kernel:0",
        "a/b/kernel:0",
        "a/b/kernel/.ATTRIBUTES/VARIABLE_VALUE",
    ]
    assert list(TORCH.spellings("a.b", "weight")) == [
        "a.b.weight",
        "module.a.b.weight",
        "_orig_mod.a.b.weight",
        "_orig_mod.module.a.b.weight",
        "module._orig_mod.a.b.weight",
        "a/b/weight",
    ]


@pytest.mark.parametrize("conventions", [TF, TORCH])
@pytest.mark.parametrize(("path", "name"), [("a.b", "kernel"), ("", "x"), ("a", "")])
def test_every_spelling_is_told_by_its_bare_name(conventions, path, name):
    slashed = "/".join(filter(None, (*path.split("."), name)))
    assert all(slashed in conventions.bare(key) for key in conventions.spellings(path, name))


def test_only_a_framework_with_layers_of_its_own_has_forms_of_its_own():
    layer = nn.Linear(2, 3)
    names = [form.names for form in TORCH.forms(layer, "weight")]
    assert names[0] == (("weight",),)
    assert not any("kernel" in each for form in names for each in form)
    assert any("kernel" in form.names[0] for form in TF.forms(layer, "weight"))


def test_conventions_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TF.separator = "."


@pytest.mark.parametrize("folder", ["names", "slots", "suggesting", "layouts"])
def test_nobody_else_asks_which_framework_it_was(folder):
    asking = {
        path.relative_to(PACKAGE).as_posix()
        for path in (PACKAGE / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "family"
    }
    assert asking <= {"names/conventions.py"}
