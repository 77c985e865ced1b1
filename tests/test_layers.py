"""Imports only go down, the package's own names are complete, and importing it is cheap."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import torch_warmstart

PACKAGE = Path(torch_warmstart.__file__).parent
PREFIX = "torch_warmstart"

# A module may import modules of lower layers, and of its own layer where no cycle arises.
LAYERS = {
    "errors": 0,
    "bits": 0,
    "tables": 0,
    "progress": 0,
    "storage": 0,
    "ranges": 0,
    "gfile": 0,
    "words": 0,
    "parallel": 0,
    "formats": 1,
    "settings": 2,
    "variables": 2,
    "layouts": 2,
    "gates": 2,
    "heads": 2,
    "layer_layouts": 2,
    "tf_layers": 2,
    "names": 2,
    "name_index": 2,
    "spellings": 2,
    "rename_rules": 2,
    "renames": 2,
    "rules_file": 2,
    "similarity": 2,
    "suggest": 2,
    "suggestions": 2,
    "systematic": 2,
    "catalog": 2,
    "places": 2,
    "vocab": 2,
    "join": 2,
    "remapping": 2,
    "selection": 2,
    "assignment": 2,
    "keras_initializers": 2,
    "plan": 2,
    "fitting": 2,
    "planner": 2,
    "planning": 2,
    "sources": 2,
    "variable_plans": 2,
    "slot_plans": 2,
    "audit": 2,
    "losses": 2,
    "flattenings": 2,
    "slots": 2,
    "slot_names": 2,
    "slot_source": 2,
    "tf_slots": 2,
    "tf_slot_index": 2,
    "tf_slot_messages": 2,
    "tf_slot_rules": 2,
    "tf_steps": 2,
    "torch_slot_positions": 2,
    "torch_slot_rules": 2,
    "torch_slots": 2,
    "tf_attention": 2,
    "tf_recurrent": 2,
    "gather": 3,
    "row_kernel": 3,
    "streaming": 3,
    "initialise": 3,
    "report": 3,
    "execute": 3,
    "verify": 3,
    "comparison": 3,
    "api": 4,
    "tf_compat": 4,
    "__init__": 4,
    "cli": 5,
    "cli_verify": 5,
    "__main__": 5,
}
# What a room must not know, whatever its layer.
FORBIDDEN = {
    "errors": ("storage", "formats"),
    "storage": ("formats",),
    "formats": ("settings", "variables", "vocab"),
    "settings": ("variables", "vocab", "formats"),
    "variables": ("formats", "names"),
    "layouts": ("names", "formats"),
    "layer_layouts": ("names", "formats"),
    "gates": ("names", "formats"),
    "heads": ("names", "formats"),
    "vocab": ("variables", "formats", "names"),
    "join": ("variables", "formats"),
    "plan": ("storage",),
    "gather": ("settings", "plan", "variables", "vocab"),
    "row_kernel": ("settings", "plan", "variables", "vocab"),
    "streaming": ("settings", "plan", "variables", "vocab"),
    "execute": ("names", "vocab", "selection", "planner", "slot_names"),
    "slots": ("formats", "names", "settings"),
    "report": ("execute",),
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def _imports(path: Path) -> set[str]:
    """Names of this package's modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module in (PREFIX, f"{PREFIX}.formats"):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith(f"{PREFIX}.")}


def _room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_go_down(path):
    room = _room_of(path)
    for name in _imports(path):
        target = _room(name)
        assert LAYERS[target] <= LAYERS[room], f"{room} imports {name}, which is above it"
        assert target not in FORBIDDEN.get(room, ()), f"{room} must not know {target}"


def test_no_two_rooms_import_each_other():
    edges = {(_room_of(p), _room(name)) for p in MODULES for name in _imports(p)}
    mutual = {(a, b) for a, b in edges if a != b and (b, a) in edges}
    assert mutual == set()


def test_every_module_has_a_layer():
    assert {_room_of(path) for path in MODULES} == set(LAYERS)


def test_every_public_name_is_there_and_documented():
    for name in torch_warmstart.__all__:
        assert getattr(torch_warmstart, name).__doc__, name


def test_tensorflow_is_imported_only_by_the_adapter_for_its_filesystems():
    for path in MODULES:
        if path.name == "gfile.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(
                name.split(".")[0] in ("tensorflow", "keras", "tf_keras") for name in names
            )


def test_only_the_command_line_prints():
    for path in MODULES:
        calls = (
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        )
        prints = any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls)
        assert prints == (path.name == "cli.py"), path


def test_importing_the_package_brings_no_slow_package_with_it():
    code = (
        "import torch, sys; before = set(sys.modules); import torch_warmstart; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new & {'rich', 'fsspec', 'tensorflow', 'h5py', 'matplotlib', 'pandas'}))"
    )
    # PYTHONPATH as here, so that the source tree is found when that is what is tested.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout
    assert printed.strip() == "[]"


@pytest.mark.skipif(
    "TORCH_WARMSTART_INSTALLED" not in os.environ, reason="the source tree is being tested"
)
def test_it_is_the_installed_wheel_that_is_tested():
    assert "site-packages" in str(PACKAGE)
    assert (PACKAGE / "py.typed").exists()
