"""The command line: arguments, `commands`, and the one module that prints.

What is imported here is imported before Ctrl-C is answered, so next to nothing is.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence


def run() -> None:
    """The console script: a process of its own."""
    from torch_warmstart.cli import interrupts

    interrupts.leave_at_once()
    gc.disable()  # of a short run's 100,000 small objects, none is garbage: a third of the time
    code = main()
    interrupts.ignore()
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0; 1 for a difference; 2 with a message on stderr.

    130 if it is interrupted. `--help` and `--version` leave by SystemExit, as argparse has it.
    """
    from torch_warmstart.cli.running import answer_call

    return answer_call(arguments)
