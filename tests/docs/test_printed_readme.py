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
    code = re.search(r"```python\n(.*?)report = ", README, re.DOTALL)
    shown = re.search(r"```text\n(Warm start from.*?)\n```", README, re.DOTALL)
    assert code
    assert shown
    namespace: dict[str, Any] = {}
    exec(code[1], namespace)
    plan = tws.plan_warm_start(namespace["model"], namespace["settings"])
    assert str(plan) == shown[1]
    assert max(map(len, shown[1].splitlines())) <= 100
