"""The laws of the house: which folders there are, who may import what, and what is handed on.

docs/architecture.md says why. A folder is a package directly below `torch_warmstart`; what lies
deeper belongs to it.
"""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import torch_warmstart

PACKAGE = Path(torch_warmstart.__file__).parent
PREFIX = "torch_warmstart"

# From the ground up. A folder may import what stands below its line, and nothing beside it.
LAYERS = (
    {"values"},
    {"errors", "dtypes", "computing"},
    {"storage"},
    {"entries", "display"},
    {"settings", "model", "layouts", "formats"},
    {"names", "vocabularies"},
    {"slots", "new_rows"},
    {"planning"},
    {"execution", "suggesting", "proof", "conversion"},
    {"init"},
    {"api"},
    {"tensorflow_names", "cli", "integrations"},
    {"__init__", "__main__"},
)
LAYER_OF = {folder: number for number, layer in enumerate(LAYERS) for folder in layer}
# Formats use each other's parts, in this order.
FORMATS = ("", "listing", "keyed", "arrays", "tensorflow", "torch", "keras", "huggingface")
TOP = {"__init__", "__main__", "api", "init", "tensorflow_names", "errors", "dtypes"}
# What a folder or a module must not know, whatever its layer.
FORBIDDEN = {
    "errors": ("storage", "formats"),
    "computing": ("errors", "dtypes"),
    "settings": ("entries", "display"),
    "model": ("storage", "entries", "display"),
    "layouts": ("storage", "entries", "display"),
    "vocabularies": ("model", "layouts"),
    "new_rows": ("model", "formats", "names", "vocabularies"),
    "slots": ("settings", "vocabularies", "storage"),
    "execution": ("names", "vocabularies", "suggesting"),
    "execution/gathering": ("settings", "planning", "model", "entries"),
}
FOR_ALL = {"__version__", "on_demand"}  # what the package has for whoever asks
MODULES = sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*/__init__.pyi")])
FOLDERS = sorted(path.parent for path in MODULES if path.name == "__init__.py")[1:]


def _name_of(folder: Path) -> str:
    return ".".join((PREFIX, *folder.relative_to(PACKAGE).parts))


def _folder(path: Path) -> str:
    """The folder or top module that a file belongs to: `names`, `api`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def _imports(path: Path) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What a file imports of this package, anywhere in it: a module and the names from it."""
    here = _name_of(path.parent)
    return tuple(_imports_in(ast.parse(path.read_text()), here))


def _imports_in(tree: ast.Module, here: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names if alias.name.startswith(PREFIX))
        elif isinstance(node, ast.ImportFrom) and node.level:  # in a stub, of its own folder
            yield f"{here}.{node.module}", tuple(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PREFIX):
            names = tuple(alias.name for alias in node.names if alias.name not in FOR_ALL)
            yield from [(str(node.module), names)] if names else []


def _modules(path: Path) -> Iterator[str]:
    """Modules of this package that a file imports; `from folder import module` too."""
    for module, names in _imports(path):
        inner = [f"{module}.{name}" for name in names if _exists(f"{module}.{name}")]
        yield from inner or [module]


@cache
def _exists(module: str) -> bool:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def _is_folder(module: str) -> bool:
    return PACKAGE.parent.joinpath(*module.split(".")).is_dir()


def _parent(module: str) -> str:
    """The folder whose `__init__.py` answers for a module."""
    return module if _is_folder(module) else module.rpartition(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_go_down(path):
    folder = _folder(path)
    for module in _modules(path):
        parts = module.split(".")
        target = parts[1] if len(parts) > 1 else "__init__"
        below = LAYER_OF[target] < LAYER_OF[folder]
        assert below or target == folder, f"{folder} imports {module}, which is not below it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_must_not_be_known_is_not(path):
    at = path.relative_to(PACKAGE).with_suffix("")
    unknown = {name for part in (at, *at.parents) for name in FORBIDDEN.get(part.as_posix(), ())}
    known = {module.split(".")[1] for module in _modules(path) if "." in module}
    assert not known & unknown


def test_every_folder_has_a_layer():
    assert {_folder(path) for path in MODULES} == set(LAYER_OF)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_of_another_folder_only_what_it_hands_on_is_imported(path):
    here = f"{PREFIX}.{'.'.join(path.parent.relative_to(PACKAGE).parts)}".rstrip(".")
    for module in _modules(path):
        folder = _parent(module)
        inside = here == folder or here.startswith(f"{folder}.")
        opener = path == PACKAGE / "formats" / "registry.py"  # opens each format when it is needed
        assert inside or _is_folder(module) or opener, f"{path} reaches into {folder} for {module}"


def test_formats_use_each_other_in_one_order():
    for path in (PACKAGE / "formats").rglob("*/*.py"):
        mine = FORMATS.index(path.relative_to(PACKAGE / "formats").parts[0])
        for module in _modules(path):
            parts = module.split(".")
            if parts[1] == "formats" and _is_folder(".".join(parts[:3])):
                theirs = parts[2] if len(parts) > 2 else ""
                assert FORMATS.index(theirs) <= mine, f"{path} imports {module}"


def test_no_two_modules_import_each_other():
    of = {path: set(_modules(path)) for path in MODULES if path.name != "__init__.py"}
    named = {f"{PREFIX}.{'.'.join(p.relative_to(PACKAGE).with_suffix('').parts)}": p for p in of}
    edges = {(a, b) for a, path in named.items() for b in of[path] if b in named}
    assert not {(a, b) for a, b in edges if a != b and (b, a) in edges}


def test_at_the_top_stands_what_connects():
    assert {path.stem for path in PACKAGE.glob("*.py")} == TOP


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_folder_holds_two_to_fourteen_modules(folder):
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert 2 <= len(modules) <= 14


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_do_not_share_a_prefix_that_a_folder_should_say(folder):
    first_words = [path.stem.split("_")[0] for path in folder.glob("[a-z]*.py") if "_" in path.stem]
    assert all(first_words.count(word) < 3 for word in first_words)


def _handed_on(folder: Path) -> set[str]:
    """What a folder hands on: by its stub, or where it has none, by its `__init__.py`."""
    stub = folder / "__init__.pyi"
    tree = ast.parse((stub if stub.exists() else folder / "__init__.py").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    inner = [node for node in imports if node.level or f"{node.module}".startswith(f"{PREFIX}.")]
    return {alias.asname or alias.name for node in inner for alias in node.names}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_folder_imports_what_it_hands_on_when_it_is_asked_for(folder):
    # Of whoever imports one name of a folder the others would cost the time too.
    handed = _handed_on(folder)
    assert (folder / "__init__.pyi").exists() == bool(handed)
    for name in handed:
        assert getattr(importlib.import_module(_name_of(folder)), name) is not None
    # A module that is imported becomes an attribute, which would hide a name of that module.
    assert not handed & {path.stem for path in folder.iterdir()}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_folder_says_its_law_and_hands_on_only_what_is_asked_for(folder):
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    handed = _handed_on(folder)
    name = _name_of(folder)
    asked = {
        asked
        for path in MODULES
        if path != folder / "__init__.py"
        for module, names in _imports(path)
        if module == name
        for asked in names
    }
    assert not handed - asked - set(torch_warmstart.__all__)


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
        assert prints == (path == PACKAGE / "cli" / "running.py"), path


def test_no_tensor_is_made_of_whatever_dtype_is_the_callers_default():
    """A module may set `torch.set_default_dtype(torch.bfloat16)`; on meta only shapes count."""
    makers = ("empty", "zeros", "ones", "eye", "linspace", "rand", "randn")
    found = []
    for path in MODULES:
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        for call in calls:
            said = {word.arg: ast.unparse(word.value) for word in call.keywords}
            is_told = said.keys() & {"dtype", None} or said.get("device") == "'meta'"
            if ast.unparse(call.func) in {f"torch.{name}" for name in makers} and not is_told:
                found.append(f"{path.relative_to(PACKAGE)}:{call.lineno}")
    assert found == []


def test_variables_are_keys_themselves_and_not_their_ids():
    for path in MODULES:
        calls = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call))
        of_ids = {ast.unparse(call) for call in calls if ast.unparse(call.func) == "id"}
        assert not of_ids & {"id(variable)", "id(v)", "id(item.variable)"}, path


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


# What asks a model's own class, which may answer otherwise than by what is registered.
_ASKED = {f"{named}{of}" for named in ("", "named_") for of in ("modules", "children", "buffers")}
_ASKED |= {"parameters", "named_parameters"}
# Of TorchRec's own classes; of callbacks' averages and the model that they are of; of Arrow.
_MAY_ASK = {
    "model/sharding/torchrec.py",
    "integrations/lightning.py",
    "vocabularies/kept_table.py",
}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_model_is_gone_through_by_what_it_has_registered(path):
    """By `model/modules.py`: a class may leave something out of what its methods give."""
    if path.suffix == ".pyi" or path.relative_to(PACKAGE).as_posix() in _MAY_ASK:
        return
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    asked = [c.func.attr for c in calls if isinstance(c.func, ast.Attribute)]
    assert _ASKED.isdisjoint(asked)
