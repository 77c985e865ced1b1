"""docs/recipes.md: the programs run, and the commands print what is shown."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from torch_warmstart import cli

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"```console\n\$ torch-warmstart (.*?)\n(.*?)```", TEXT, re.DOTALL)


def test_an_unknown_checkpoint_is_explored_by_commands(tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "examples/census/day1_model", tmp_path / "day1_model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    codes = []
    for command, expected in SHOWN:
        codes.append(cli.main(shlex.split(command)))
        printed = capsys.readouterr()
        assert printed.out + printed.err == expected
    assert codes == [0, 0, 0, 1]  # the last one finds a difference


def test_a_keras_cnn_becomes_its_twin(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow")
    pytest.importorskip("keras")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"<!-- needs keras -->\n```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == TEXT.count("```python") == 4
    names = {"__name__": "page"}
    for block in blocks:
        exec(block, names)
    assert names["check"].ok
