"""What the command line answers without torch, whose import is what takes long."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import torch_warmstart

ANSWER = """\
import sys
from torch_warmstart.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as stopped:
    code = stopped.code
slow = {"torch", "numpy", "rich", "fsspec"} & set(sys.modules)
print(f"exits with {code}, imported {sorted(slow)}")
"""


def _answer(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", ANSWER, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "--help"], ["verify", "--help"]])
def test_help_does_without_torch(arguments):
    answer = _answer(*arguments).stdout
    assert answer.startswith("usage: torch-warmstart")
    assert answer.endswith("exits with 0, imported []\n")


def test_the_version_does_without_torch():
    version = torch_warmstart.__version__
    assert _answer("--version").stdout == (
        f"torch-warmstart {version}\nexits with 0, imported []\n"
    )


@pytest.mark.parametrize("arguments", [[], ["inspect"], ["inspect", "x", "--rows", "1"], ["lst"]])
def test_a_wrong_call_is_told_without_torch(arguments):
    answer = _answer(*arguments)
    assert "usage: torch-warmstart" in answer.stderr
    assert answer.stdout == "exits with 2, imported []\n"
