"""Ctrl-C, from the first line of the process to its last; only for a process of our own.

While modules are imported there is nothing to undo, and what is written in C may lose a
KeyboardInterrupt or make another error of it: the process ends where it is. While a command runs
it is raised as usual, so that half-written files go. After the answer it is no news any more.
"""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

CODE = 130  # as shells have it
SAID = "torch-warmstart: interrupted\n"


def leave_at_once() -> None:
    """From now on an interrupt ends the process, unless whoever started it has it ignored."""
    _exchange(signal.default_int_handler, _leave)


def raise_again() -> None:
    """From now on an interrupt is raised, as in any program of Python's."""
    _exchange(_leave, signal.default_int_handler)


def ignore() -> None:
    """From now on an interrupt is nothing: all is said, and Python is tidying up."""
    _exchange(signal.default_int_handler, signal.SIG_IGN)
    _exchange(_leave, signal.SIG_IGN)


def _exchange(old: signal._HANDLER, new: signal._HANDLER) -> None:
    if signal.getsignal(signal.SIGINT) is old:
        signal.signal(signal.SIGINT, new)


def _leave(_number: int, _frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):  # nobody listens
        os.write(2, SAID.encode())
    os._exit(CODE)
