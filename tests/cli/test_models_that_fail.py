"""Models that cannot be made, places that cannot be written, and a closed stdout."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from torch_warmstart import cli

MODELS = """
from torch import nn


def make():
    return nn.Linear(2, 1)


def raises():
    raise RuntimeError("my own bug")


def number():
    return 3
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "failing_models.py").write_text(MODELS)
    (tmp_path / "broken_models.py").write_text("1 / 0\n")
    torch.save(torch.nn.Linear(2, 1).state_dict(), "old.pt")
    yield
    for name in ("failing_models", "broken_models"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("failing_models:raises", "failing_models:raises raised RuntimeError: my own bug\n  "),
        ("failing_models:number", "failing_models:number makes no torch.nn.Module, but int."),
        ("failing_models:mkae", "failing_models has no 'mkae'. Did you mean 'make'?"),
        ("broken_models:make", "Importing broken_models raised ZeroDivisionError: "),
    ],
)
def test_a_model_that_cannot_be_made_is_an_error_of_two(model, said, capsys):
    assert cli.main(["plan", model, "old.pt"]) == 2
    assert said in capsys.readouterr().err


def test_where_the_users_code_raised_is_said(capsys):
    cli.main(["plan", "failing_models:raises", "old.pt"])
    assert "failing_models.py, line 10, in raises" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["convert old.pt", "warm-start failing_models:make old.pt"])
def test_a_folder_that_is_not_there_is_named_before_anything_is_done(command, capsys):
    out = ["--apply", "--out"] if command.startswith("warm") else []
    assert cli.main([*command.split(), *out, "nowhere/new.pt"]) == 2
    error = capsys.readouterr().err
    assert f"there is no directory {os.path.abspath('nowhere')}." in error


def test_a_closed_stdout_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m torch_warmstart explain shape-mismatch >&-",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert (done.returncode, done.stderr) == (0, "")
