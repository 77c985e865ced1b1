"""Raising at a chosen line of what carries out a plan, and again while that is dealt with.

Lines are those of `torch_warmstart/execution` and `slots/targets.py`. Python takes a trace function
away that raises; a profile function, which it leaves alone, puts it back, so that the handlers of
the first fault meet the second.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

import torch_warmstart

PACKAGE = Path(torch_warmstart.__file__).parent
IS_FULL = "TORCH_WARMSTART_FAULTS" in os.environ  # all points; else a sample
WHERE = (str(PACKAGE / "execution"), str(PACKAGE / "slots" / "targets.py"))


_ROUNDS = 6  # of a loop, or calls of a function, that are struck one by one


class Interrupted(Exception):
    """Raised by a handler."""


class Lines:
    """Counts the lines that are run, and raises at some of them."""

    def __init__(
        self, at: Iterable[int] = (), kind: type[BaseException] = KeyboardInterrupt
    ) -> None:
        self.count = 0  # lines so far
        self.hits: list[str] = []  # where it has raised
        self._times: dict[object, int] = {}  # by line: how often it was run
        self.points: list[int] = []  # numbers of lines, without the later rounds of loops
        self._at, self._kind = frozenset(at), kind

    @contextmanager
    def running(self):
        """While something is run."""
        before = sys.gettrace(), sys.getprofile()
        sys.setprofile(self._rearm if len(self._at) > 1 else None)
        sys.settrace(self._enter)
        try:
            yield self
        finally:
            sys.setprofile(before[1])  # first: it would put the other back
            sys.settrace(before[0])

    def _enter(self, frame, event, arg):
        return self._line if frame.f_code.co_filename.startswith(WHERE) else None

    def _line(self, frame, event, arg):
        if event == "line":
            self.count += 1
            where = (frame.f_code, frame.f_lineno)
            self._times[where] = self._times.get(where, 0) + 1
            if self._times[where] <= _ROUNDS:
                self.points.append(self.count)
            if self.count in self._at:
                self.hits.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
                raise self._kind(f"at line {self.count}")
        return self._line

    def _rearm(self, frame, event, arg):
        if sys.gettrace() is None and len(self.hits) < len(self._at):
            while frame is not None:
                if frame.f_code.co_filename.startswith(WHERE):
                    frame.f_trace = self._line
                frame = frame.f_back
            sys.settrace(self._enter)
