"""Ray Train's workers warm-start the model that they train: `make ray`."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys

import pytest
from example_runs import ROOT

SCRIPT = ROOT / "examples" / "distributed" / "ray_train.py"
HAS_RAY = importlib.util.find_spec("ray") is not None


def test_the_recipe_is_what_the_example_runs() -> None:
    page = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
    section = page.split("## Ray Train")[1]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None
    body = block[1].split(":\n", 1)[1].split("\n    ...")[0]
    assert len(body.splitlines()) > 4
    assert f"{body}\n" in SCRIPT.read_text(encoding="utf-8")


@pytest.mark.skipif(not HAS_RAY, reason="Ray Train comes with `make ray`")
def test_two_workers_warm_start_and_train() -> None:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.run(
        [sys.executable, SCRIPT],
        env={**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )

    assert process.returncode == 0, process.stderr[-4_000:]
    for worker in (0, 1):
        assert f"worker {worker}: 900 copied, 200 initialised; 100 dropped" in process.stdout
    assert "the workers have the same rows: True" in process.stdout
    assert "untrained rows are yesterday's: True" in process.stdout
    assert "trained rows are not: True" in process.stdout
