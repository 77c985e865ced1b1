"""Ctrl-C at any time: one line and 130, never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import torch

# What pip makes a console script of, with an interrupt at the import of one module.
SCRIPT = """\
import atexit, os, signal, sys
strikes_at, sys.argv = sys.argv[1], ["torch-warmstart", *sys.argv[2:]]

def strike(*_):
    os.kill(os.getpid(), signal.SIGINT)

class Striking:
    def find_spec(self, name, path=None, target=None):
        if name == strikes_at:
            try:
                strike()
            except KeyboardInterrupt:  # as modules in C lose it
                print("went on", file=sys.stderr)

sys.meta_path.insert(0, Striking())
if strikes_at == "the end":
    atexit.register(strike)
from torch_warmstart.cli import run
sys.exit(run())
"""


def _run(strikes_at: str, *arguments: str, handler=signal.default_int_handler):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, strikes_at, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
    )


@pytest.fixture
def checkpoint(tmp_path) -> str:
    torch.save({"weight": torch.ones(2, 2)}, tmp_path / "old.pt")
    return str(tmp_path / "old.pt")


@pytest.mark.parametrize("module", ["torch_warmstart.cli.running", "argparse", "numpy", "torch._C"])
def test_ctrl_c_while_modules_are_imported_ends_the_process(checkpoint, module):
    done = _run(module, "inspect", checkpoint)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "torch-warmstart: interrupted\n"


def test_ctrl_c_after_the_answer_is_no_news(checkpoint):
    done = _run("the end", "inspect", checkpoint)
    assert (done.returncode, done.stderr) == (0, "")
    assert "weight" in done.stdout


def test_whoever_ignores_it_goes_on_ignoring_it(checkpoint):
    done = _run("torch", "inspect", checkpoint, handler=signal.SIG_IGN)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_of_somebody_else_keeps_its_handler(checkpoint):
    code = f"""\
import signal
from torch_warmstart.cli import main
code = main(["inspect", {checkpoint!r}])
print(code, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.stdout.splitlines()[-1] == "0 True"
