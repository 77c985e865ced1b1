"""What tests of the commands share."""

from __future__ import annotations

import shlex

import pytest

from torch_warmstart import cli


@pytest.fixture
def call(capsys):
    """Runs a command: its exit code, stdout and stderr."""

    def run(command: str) -> tuple[int, str, str]:
        code = cli.main(shlex.split(command))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
