"""What a benchmark is made of: cases, contenders, and what their runs add up to.

A benchmark is a module of `suite`. It makes inputs once, with the digest of the right result worked
out without any contender, and says how every contender prepares and then does the work. Nothing
here imports a library that is measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Parameters = dict[str, Any]  # what a worker is told about its case: JSON
Run = dict[str, Any]  # what a worker measured: JSON
OURS = "ours"  # the contender that targets are about
MIB = 1 << 20


@dataclass(frozen=True)
class Prepared:
    """A contender that is ready to start."""

    run: Callable[[], object]  # the measured part
    result: Callable[[], str]  # a digest of what it left behind, asked for afterwards
    files: Sequence[Path] = ()  # read once before, so that they are in the page cache
    result_bytes: int = 0  # of the result, where it gets its memory during `run`
    cold: Sequence[Path] = ()  # dropped from the page cache before, where the system can do that


@dataclass(frozen=True)
class Contender:
    """One way of doing the work."""

    label: str
    prepare: Callable[[Parameters, Path], Prepared]  # not measured: imports, models, sessions
    needs: tuple[str, ...] = ()  # packages to import
    is_first: bool = False  # without the same work at a toy size before it


@dataclass(frozen=True)
class Case:
    """One size of a benchmark."""

    name: str
    parameters: Parameters
    contenders: tuple[str, ...]
    folder: str  # of the inputs; cases that follow each other and name the same one share them
    expects: str = "sha256"  # which of the inputs' digests its results must have
    runs: int | None = None  # of each contender, unless the command line wants fewer


@dataclass(frozen=True)
class Sizes:
    """What the command line says about sizes; None: as the benchmark thinks best."""

    quick: bool = False
    rows: list[int] | None = None
    dim: int | None = None
    tensors: int | None = None
    mebibytes: int | None = None


@dataclass(frozen=True)
class Summary:
    """The runs of one case by contender, and the medians that targets ask for."""

    parameters: Parameters
    runs: Mapping[str, Sequence[Run]]

    def seconds(self, contender: str) -> float | None:
        """The median time of a contender, or None if it did not run."""
        return self._median(contender, "seconds")

    def beyond(self, contender: str) -> float | None:
        """The median of a contender's peak of anonymous memory beyond its result, in bytes."""
        return self._median(contender, "beyond_result")

    def cpu_seconds(self, contender: str) -> float | None:
        """The median CPU time of a contender, of all threads, or None if it did not run."""
        return self._median(contender, "cpu_seconds")

    def times_faster(self, *others: str, of: str = OURS) -> float | None:
        """The time of the fastest of `others` in times of ours; None unless all of them ran."""
        ours, theirs = self.seconds(of), [self.seconds(other) for other in others]
        if ours is None or None in theirs:
            return None
        return min(time for time in theirs if time is not None) / ours

    def _median(self, contender: str, name: str) -> float | None:
        values = [run.get(name) for run in self.runs.get(contender, ())]
        known = [value for value in values if value is not None]
        return statistics.median(known) if known and len(known) == len(values) else None


@dataclass(frozen=True)
class Verdict:
    """A target, what was measured, and whether it was met; None: not measured."""

    target: str
    measured: str = "not measured"
    met: bool | None = None


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as the harness sees it."""

    title: str
    about: str  # what is measured, in a few sentences; shown above its table
    contenders: Mapping[str, Contender]  # the first is what the others are compared with
    cases: Callable[[Sizes], list[Case]]
    make: Callable[[Parameters, Path], dict[str, Any]]  # writes inputs; their digests and remarks
    judge: Callable[[Mapping[str, Summary]], list[Verdict]]  # by the name of the case
    # The same work at a toy size, which every contender does before it is measured: what is
    # imported or started on first use is then there. None: without.
    toy: Callable[[Parameters], Parameters] | None = None
    plot: Callable[[Mapping[str, Summary], Path], None] | None = None
    beyond: str = "beyond the result"  # what the column of anonymous memory is called


class LeftOutError(Exception):
    """Raised by `make` where a case cannot run here; the text says why."""


@dataclass
class CaseResult:
    """What the parent process collects about one case."""

    case: Case
    made: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, list[Run]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # contender, or "everyone": why

    @property
    def equal(self) -> bool:
        """Whether every run left behind what it should have."""
        expected = self.made.get(self.case.expects)
        return all(run["sha256"] == expected for of_one in self.runs.values() for run in of_one)

    def summary(self) -> Summary:
        return Summary(self.case.parameters, self.runs)


def at_least(target: str, value: float | None, limit: float, unit: str = "x") -> Verdict:
    """Whether a figure is as large as it should be."""
    return _verdict(target, value, unit, value is not None and value >= limit)


def at_most(target: str, value: float | None, limit: float, unit: str = "x") -> Verdict:
    """Whether a figure is as small as it should be."""
    return _verdict(target, value, unit, value is not None and value <= limit)


def _verdict(target: str, value: float | None, unit: str, met: bool) -> Verdict:
    if value is None:
        return Verdict(target)
    digits = 2 if unit == "x" and value < 10 else 1 if unit == "x" else 0
    return Verdict(target, f"{value:,.{digits}f} {unit}", met)
