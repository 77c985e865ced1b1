"""Raising at a chosen line of what carries out a plan, and again while that is dealt with.

Lines are those of `torch_warmstart/execution` and `slots/targets.py`. All are counted once; then
only the code is traced in which a fault is to be, and nothing after the last fault, so that a run
costs little more than one without. Python takes a trace function away that raises; a profile
function, which it leaves alone, puts it back, so that the handlers of the first fault meet the
second.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

import torch_warmstart

PACKAGE = Path(torch_warmstart.__file__).parent
IS_FULL = "TORCH_WARMSTART_FAULTS" in os.environ  # all points; else a sample
WHERE = (str(PACKAGE / "execution"), str(PACKAGE / "slots" / "targets.py"))

_ROUNDS = 6  # of a loop, or calls of a function, that are struck one by one


class Interrupted(Exception):
    """Raised by a handler."""


@dataclass(frozen=True, slots=True)
class Point:
    """A line that is about to be run for the n-th time."""

    number: int  # of all lines that a run goes through
    code: CodeType
    line: int
    time: int

    def __str__(self) -> str:
        return f"{Path(self.code.co_filename).name}:{self.line}"


class Lines:
    """Counts the lines that are run."""

    def __init__(self) -> None:
        self.count = 0
        self.points: list[Point] = []  # without the later rounds of loops
        self._times: Counter[tuple[CodeType, int]] = Counter()

    @contextmanager
    def running(self):
        """While something is run."""
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield self
        finally:
            sys.settrace(before)

    def _enter(self, frame, event, arg):
        return self._line if frame.f_code.co_filename.startswith(WHERE) else None

    def _line(self, frame, event, arg):
        if event == "line":
            self.count += 1
            where = (frame.f_code, frame.f_lineno)
            self._times[where] += 1
            if self._times[where] <= _ROUNDS:
                self.points.append(Point(self.count, *where, self._times[where]))
        return self._line


class Strikes:
    """Raises at a point, and again so many lines after it."""

    def __init__(
        self, at: Point, again: Iterable[int] = (), kind: type[BaseException] = KeyboardInterrupt
    ) -> None:
        self.at, self.again = at, tuple(again)
        self.hits: list[str] = []  # where it has raised
        self._kind = kind
        self._times = 0  # that the line of the point was run
        self._after = 0  # lines since then

    def __str__(self) -> str:
        return f"{self.at} and {self.again} lines later, as {self._kind.__name__}: {self.hits}"

    @contextmanager
    def running(self):
        """While something is run."""
        before = sys.gettrace(), sys.getprofile()
        sys.settrace(self._enter)
        try:
            yield self
        finally:
            sys.setprofile(before[1])  # first: it would put the other back
            sys.settrace(before[0])

    def _enter(self, frame, event, arg):
        if not self.hits:
            return self._wait if frame.f_code is self.at.code else None
        return self._follow if frame.f_code.co_filename.startswith(WHERE) else None

    def _wait(self, frame, event, arg):
        if event == "line" and frame.f_lineno == self.at.line and not self.hits:
            self._times += 1
            if self._times == self.at.time:
                self._raise(frame)
        return self._wait

    def _follow(self, frame, event, arg):
        if event == "line":
            self._after += 1
            if self._after in self.again:
                self._raise(frame)
        return self._follow

    def _raise(self, frame):
        self.hits.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
        sys.setprofile(self._rearm if len(self.hits) <= len(self.again) else None)
        raise self._kind(f"at {self.hits[-1]}")

    def _rearm(self, frame, event, arg):
        if sys.gettrace() is None:
            while frame is not None:
                if frame.f_code.co_filename.startswith(WHERE):
                    frame.f_trace = self._follow
                frame = frame.f_back
            sys.settrace(self._enter)
