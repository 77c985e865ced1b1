"""The example of a sharded model runs as its page says."""

from __future__ import annotations

import os
import subprocess
import sys

from example_runs import ROOT


def test_the_example_runs_with_torchrun() -> None:
    script = ROOT / "examples" / "distributed" / "train.py"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    process = subprocess.run(
        [*torchrun, "--standalone", script],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )

    assert process.returncode == 0, process.stdout
    rows = "900 copied, 200 initialised; 100 dropped"
    for rank in (0, 1):
        assert f"rank {rank}: {rows}; 550 of 1,100 rows here" in process.stdout
    assert "by columns: 500 copied; 600 dropped" in process.stdout
