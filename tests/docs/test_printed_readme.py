"""The README shows the plan that its example prints, and no line of it is wider than a page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import torch_warmstart as tws

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_plan_is_the_one_that_is_printed_at_100_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "100")
    code = re.search(r"```python\n((?:(?!```).)*?)print\(tws\.plan", README, re.DOTALL)
    shown = re.search(r"```text\n(Warm start from.*?)\n```", README, re.DOTALL)
    assert code
    assert shown
    namespace: dict[str, Any] = {}
    exec(code[1], namespace)
    plan = tws.plan_warm_start(namespace["model"], namespace["settings"])
    assert str(plan) == shown[1]
    assert max(map(len, shown[1].splitlines())) <= 100


def test_the_first_example_prints_what_it_says_and_needs_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code
    exec(code[1], {})
    assert capsys.readouterr().out.strip() == code[1].strip().rpartition("#")[2].strip()


def test_no_line_is_wider_than_a_page() -> None:
    assert max(map(len, README.splitlines())) <= 100
