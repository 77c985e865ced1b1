"""`python -m torch_warmstart`: the command line of `cli`."""

from __future__ import annotations

from torch_warmstart.cli import run

if __name__ == "__main__":
    run()
