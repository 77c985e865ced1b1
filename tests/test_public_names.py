"""The public names: imported when they are asked for, and seen by whoever looks for them before."""

from __future__ import annotations

import importlib
import os
import pickle
import pydoc
import re
import subprocess
import sys
import types
import typing
from pathlib import Path

import pytest

import torch_warmstart

# What the package promised from the beginning; none of it goes away.
FIXED = {
    "VocabInfo",
    "WarmStartReport",
    "WarmStartSettings",
    "apply_plan",
    "gather_rows",
    "generate_vocab_remapping",
    "latest_checkpoint",
    "list_variables",
    "load_checkpoint",
    "load_variable",
    "plan_warm_start",
    "warm_start",
}
STUB = Path(torch_warmstart.__file__).with_suffix(".pyi").read_text()
PUBLIC = {name: getattr(torch_warmstart, name) for name in torch_warmstart.__all__}
LINES = [line for line in STUB.splitlines() if line.startswith("from")]
SLOW_PACKAGES = {"fsspec", "h5py", "matplotlib", "pandas", "rich", "safetensors", "tensorflow"}
WARM_START = "m = torch.nn.Linear(2, 3); torch_warmstart.warm_start(m, m.state_dict())"


def _run(code: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, which finds the package where this one does."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )


def _modules_after(code: str) -> set[str]:
    """The modules that a statement brings into an interpreter that has torch."""
    done = _run(
        f"import torch, sys; before = set(sys.modules); {code}; print(*(set(sys.modules) - before))"
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_stub_hands_on_one_name_of_a_folder(line):
    # Without `as`, a type checker would not take it as exported again.
    assert re.fullmatch(r"from \.[a-z_.]* import (\w+) as \1", line)


def test_all_is_sorted_and_complete():
    assert torch_warmstart.__all__ == sorted(line.split()[-1] for line in LINES)
    assert set(torch_warmstart.__all__) >= FIXED


@pytest.mark.parametrize("name", torch_warmstart.__all__)
def test_a_name_is_that_of_its_module(name):
    value = getattr(torch_warmstart, name)
    if isinstance(value, types.ModuleType):
        assert value is importlib.import_module(f"torch_warmstart.{name}")
        return
    module = importlib.import_module(value.__module__)
    folder = importlib.import_module(torch_warmstart._MODULE_OF[name], "torch_warmstart")
    assert value is getattr(module, name)
    assert value is getattr(folder, name)
    assert f"{value.__module__}.".startswith(f"{folder.__name__}.")
    if not isinstance(value, type):
        assert typing.get_type_hints(value, localns=PUBLIC)  # its annotations can be looked up


def test_to_import_the_package_is_to_import_nothing_else():
    assert _modules_after("import torch_warmstart") == {"torch_warmstart"}


def test_a_warm_start_imports_only_what_it_needs():
    found = _modules_after(f"import torch_warmstart; {WARM_START}")
    assert not {name.partition(".")[0] for name in found} & SLOW_PACKAGES
    others = ("cli", "suggesting", "tensorflow_names", "slots.tensorflow", "slots.torch", "proof")
    others += ("formats.keyed.folders", "execution.ranks.all_to_all", "new_rows.composing")
    others += ("vocabularies.loading.arrays", "vocabularies.kept_table", "storage.web")
    others += ("planning.checks.file_audit", "names.common", "names.hooked", "display.findings")
    assert not {f"torch_warmstart.{folder}" for folder in others} & found


def test_an_error_can_be_caught_without_importing_the_rest():
    found = _modules_after("from torch_warmstart import CheckpointError")
    own = {"errors", "values", "values.frozen_classes"}
    assert found == {"torch_warmstart", *(f"torch_warmstart.{name}" for name in own)}


def test_all_names_are_there_before_they_are_asked_for():
    listed = _run("import torch_warmstart; print(*dir(torch_warmstart))").stdout.split()
    assert set(torch_warmstart.__all__) <= set(listed)


def test_a_star_import_takes_all_names():
    done = _run("from torch_warmstart import *; print(*globals())")
    assert set(torch_warmstart.__all__) <= set(done.stdout.split())


def test_a_misspelt_name_is_answered_as_python_does():
    with pytest.raises(
        AttributeError, match="^module 'torch_warmstart' has no attribute 'warm_strat'$"
    ):
        torch_warmstart.warm_strat  # noqa: B018
    done = _run("import torch_warmstart; torch_warmstart.warm_strat")
    assert "Did you mean: 'warm_start'?" in done.stderr
    assert "ImportError" in _run("from torch_warmstart import warm_strat").stderr


def test_help_shows_the_public_names():
    text = pydoc.plain(pydoc.render_doc(torch_warmstart))
    assert "class WarmStartSettings" in text
    assert "plan_warm_start(model" in text


def test_a_pickle_is_read_where_nothing_has_been_imported():
    spec = torch_warmstart.TensorSpec("w", (2, 3), None, "string")
    done = _run(f"import pickle; print(pickle.loads({pickle.dumps(spec)!r}))")
    assert done.stdout.strip() == repr(spec)


def test_nothing_is_listed_but_public_names():
    everything = "[getattr(torch_warmstart, name) for name in torch_warmstart.__all__]"
    done = _run(f"import torch_warmstart; {everything}; print(*dir(torch_warmstart))")
    listed = [name for name in done.stdout.split() if not name.startswith("__")]
    assert listed == torch_warmstart.__all__


def test_the_help_has_nothing_private():
    text = pydoc.plain(pydoc.render_doc(torch_warmstart))
    shown = re.findall(r"^(?: \|  |    )(?:class )?(_[a-z]\w*)", text, re.MULTILINE)
    assert not shown


def test_to_open_a_checkpoint_is_not_to_import_what_plans_and_executes():
    found = _modules_after(
        "import torch_warmstart; torch_warmstart.load_checkpoint({'w': torch.ones(1)})"
    )
    others = ("planning", "execution", "suggesting", "settings", "slots", "names", "model")
    assert not {f"torch_warmstart.{folder}" for folder in others} & found
