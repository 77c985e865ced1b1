"""docs/cli.md: what it shows is what is printed, and every command is in its table."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from torch_warmstart import cli
from torch_warmstart.cli.arguments import COMMANDS

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_example_prints_what_it_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "my_models.py").write_text(re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1])
    (tmp_path / "warmstart.toml").write_text(re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)[1])
    state = {
        "embed.weight": torch.arange(8.0).reshape(4, 2),
        "head.weight": torch.full((2, 2), 5.0),
        "head.bias": torch.ones(2),
    }
    torch.save({"model": state, "epoch": 3}, "old.pt")
    (tmp_path / "monday.txt").write_text("rome\noslo\nparis\n")
    (tmp_path / "counts.csv").write_text("entry,count\nlima,5\nrome,4\ncairo,3\n")
    blocks = re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    shown = [
        (command, expected)
        for block in blocks
        for command, expected in re.findall(
            r"^\$ torch-warmstart (.*?)\n(.*?)(?=^\$|\Z)", block, re.DOTALL | re.MULTILINE
        )
    ]
    assert len(shown) == 6
    for command, expected in shown:
        cli.main(shlex.split(command))
        captured = capsys.readouterr()
        printed = re.sub(r"in \d+\.\d\d s", "in 0.01 s", captured.out + captured.err)
        assert printed == expected


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_every_command_has_a_row(command):
    assert re.search(rf"^\| `{command} ", TEXT, re.MULTILINE)


def test_no_line_is_wider_than_120():
    assert max(map(len, TEXT.splitlines())) <= 120
