"""Runs cases in a forked process with limits, and judges what it sees.

A case may be refused with a WarmStartError or read. Everything else is a finding: another
exception, too much memory or work, a file opened elsewhere, code run, a wrong value, a crash.

Work is what the process itself spends: seconds of CPU, bytes read, operations. What a clock on the
wall shows says only how busy the machine is.
"""

from __future__ import annotations

import gc
import os
import pickle
import resource
import signal
import sys
import sysconfig
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import h5py  # noqa: F401  # importing it asks `uname`, which must not count as a file's doing
import torch

import torch_warmstart
from fuzz.cases import Case, write_files
from fuzz.reading import Values, WrongValueError, read_case

MAX_CPU_SECONDS = 10.0
_GRACE_CPU_SECONDS = 20  # then the system ends the process: it is stuck where no signal is handled
_DEADLOCK_SECONDS = 1200.0  # of the clock: only this ends a process that waits and spends nothing
_MAX_MEMORY, _MAX_MEMORY_RATIO = 64 << 20, 64
_MAX_BYTES_READ, _MAX_BYTES_READ_RATIO = 16 << 20, 8  # the first file of a kind imports modules
_MAX_OPERATIONS = 2_000
_MAX_ADDRESSES = 2 << 30  # beyond what the process has: more is an allocation that must not be
_PACKAGE = str(Path(torch_warmstart.__file__).parent)

_FORBIDDEN_EVENTS = frozenset(
    [
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.fork",
        "subprocess.Popen",
        "ctypes.dlopen",
        "socket.connect",
        "socket.getaddrinfo",
        "urllib.Request",
        "shutil.rmtree",
        "shutil.unpack_archive",
        "os.remove",
        "os.rename",
        "os.symlink",
        "os.chmod",
        "os.mkdir",
    ]
)


@dataclass(frozen=True)
class Finding:
    """What a case did that it must not do; equal ones have the same cause, as far as we can say."""

    kind: str
    where: str
    detail: str

    @property
    def signature(self) -> tuple[str, str]:
        """What tells it from others."""
        return self.kind, self.where


@dataclass(frozen=True)
class Cost:
    """What was spent on a case."""

    cpu_seconds: float = 0.0
    bytes_read: int = 0
    operations: int = 0  # files opened, and reads of them

    @classmethod
    def so_far(cls, opened: int) -> Cost:
        """Of the process; where the system does not count reads, only the rest."""
        try:
            lines = Path("/proc/self/io").read_text().splitlines()
        except OSError:
            return cls(time.process_time(), 0, opened)
        counts = dict(line.split(": ") for line in lines)
        return cls(time.process_time(), int(counts["rchar"]), int(counts["syscr"]) + opened)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            self.cpu_seconds - other.cpu_seconds,
            self.bytes_read - other.bytes_read,
            self.operations - other.operations,
        )


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    accepted: bool = False
    finding: Finding | None = None
    cost: Cost = Cost()


class _TooSlowError(BaseException):
    """Not an Exception: nobody may catch it on the way."""


# ---- In the worker ---------------------------------------------------------------------------


class Watch:
    """The audit hook: what the process does beyond computing. It cannot be removed again."""

    def __init__(self, folder: Path) -> None:
        paths = sysconfig.get_paths()
        code = {paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"], _PACKAGE}
        self._allowed = tuple(os.path.realpath(path) for path in (*code, folder))
        self._temporary = os.path.join(tempfile.gettempdir(), "torch_warmstart_")
        self.active = False
        self.events: list[str] = []
        self.opened = 0
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event == "open":
            self.opened += 1
        if event in _FORBIDDEN_EVENTS:
            self.events.append(f"{event} {arguments!r:.200}")
        elif event == "open" and not self._may_open(arguments[0]):
            self.events.append(f"open {arguments[0]!r:.200}")
        elif event == "exec" and not self._may_run(arguments[0].co_filename):
            self.events.append(f"exec of code from {arguments[0].co_filename!r:.200}")

    def _may_open(self, path: object) -> bool:
        if not isinstance(path, str | bytes):
            return True  # a file descriptor
        text = os.fsdecode(path)
        if text.startswith(self._temporary) or text == os.devnull:
            return True
        return os.path.realpath(text).startswith(self._allowed)

    def _may_run(self, path: str) -> bool:
        """Modules are imported on first use, and dataclasses compile their methods."""
        if path.startswith("<frozen"):
            return True
        if path in ("<string>", "<frozen>") or path.startswith("<"):
            return _called_by_import()
        return os.path.realpath(path).startswith(self._allowed)


def _called_by_import() -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def judge(case: Case, folder: Path, expected: Values, watch: Watch) -> Outcome:
    """Reads one case under all limits that can be set inside a process."""
    url = write_files(case, folder)
    _reset_peak()
    before = _memory()
    _limit_cpu()
    gc.freeze()  # what other tests have left behind is not let go of while a file is watched
    watch.events.clear()
    started = Cost.so_far(watch.opened)
    watch.active = True
    accepted, finding = False, None
    signal.setitimer(signal.ITIMER_PROF, MAX_CPU_SECONDS)
    try:
        accepted = read_case(case, url, expected)
    except WrongValueError as error:
        finding = Finding("wrong value", case.seed, str(error))
    except _TooSlowError as error:
        finding = Finding("too slow", _where(error), f"more than {MAX_CPU_SECONDS} s of CPU")
    except BaseException as error:  # whatever it is, it should have been a WarmStartError
        finding = Finding(type(error).__name__, _where(error), f"{error!s:.300}")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        watch.active = False
    cost = Cost.so_far(watch.opened) - started
    finding = finding or _side_effect(watch.events) or _greed(case, before) or _toil(case, cost)
    return Outcome(accepted, finding, cost)


def _side_effect(events: Sequence[str]) -> Finding | None:
    return Finding("side effect", events[0].split(" ")[0], events[0]) if events else None


def _greed(case: Case, before: int) -> Finding | None:
    grown, allowed = _memory() - before, _MAX_MEMORY + _MAX_MEMORY_RATIO * case.size
    if grown <= allowed:
        return None
    return Finding("memory", case.seed, f"grew by {grown:,} bytes on files of {case.size:,}")


def _toil(case: Case, cost: Cost) -> Finding | None:
    """Bytes and operations are counted, so that they are the same on every machine."""
    if cost.bytes_read > _MAX_BYTES_READ + _MAX_BYTES_READ_RATIO * case.size:
        return Finding("bytes read", case.seed, f"{cost.bytes_read:,} of files of {case.size:,}")
    if cost.operations > _MAX_OPERATIONS:
        return Finding("operations", case.seed, f"{cost.operations:,} on files of {case.size:,}")
    return None


def _reset_peak() -> None:
    with suppress(OSError):  # else later cases are judged by the peak of the whole process
        Path("/proc/self/clear_refs").write_text("5")


def _memory() -> int:
    """The peak of resident memory since `_reset_peak`, bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _where(error: BaseException) -> str:
    """The innermost line of the package that the error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(_PACKAGE)]
    if not ours:
        return f"{Path(frames[-1].filename).name}:{frames[-1].name}"
    return f"{Path(ours[-1].filename).relative_to(_PACKAGE).as_posix()}:{ours[-1].name}"


def _limit_addresses() -> None:
    size = Path("/proc/self/statm")
    used = int(size.read_text().split()[0]) * resource.getpagesize() if size.exists() else 0
    limit = used + _MAX_ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_cpu() -> None:
    """Behind the signal, for what does not come back from C to handle it."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    limit = int(time.process_time() + MAX_CPU_SECONDS) + _GRACE_CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def _on_timer(_: int, __: FrameType | None) -> None:
    raise _TooSlowError


# ---- In the parent ---------------------------------------------------------------------------


def run_batch(
    cases: Callable[[], Iterator[Case]], folder: Path, expected: Callable[[Case], Values]
) -> list[Outcome]:
    """The outcomes of a batch, run in a fork; the last one tells if the process died on it."""
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        os.close(reader)
        _work(cases, folder, expected, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as results:
        outcomes, killed = _collect(results, process)
    _, status = os.waitpid(process, 0)
    if killed or os.WTERMSIG(status) == signal.SIGXCPU:
        outcomes.append(Outcome(finding=Finding("hang", "", "stuck where no signal is handled")))
    elif status:
        code = os.waitstatus_to_exitcode(status)
        outcomes.append(Outcome(finding=Finding("crash", f"exit {code}", "the process died")))
    return outcomes


def _collect(results: Any, process: int) -> tuple[list[Outcome], bool]:
    """Reads outcomes until there are no more; kills a process that waits for what never comes."""
    outcomes: list[Outcome] = []

    def kill(_: int, __: FrameType | None) -> None:
        os.kill(process, signal.SIGKILL)
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, kill)
    try:
        while True:
            signal.setitimer(signal.ITIMER_REAL, _DEADLOCK_SECONDS)
            outcomes.append(pickle.load(results))
    except EOFError:
        return outcomes, False
    except TimeoutError:
        return outcomes, True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _work(
    cases: Callable[[], Iterator[Case]],
    folder: Path,
    expected: Callable[[Case], Values],
    results: int,
) -> None:
    """The whole life of the forked process."""
    status = 1
    try:
        torch.set_num_threads(1)  # torch would wait for threads that a fork leaves behind
        sys.setrecursionlimit(1000)
        signal.signal(signal.SIGPROF, _on_timer)
        watch = Watch(folder)
        _limit_addresses()
        with _quiet():
            for case in cases():
                outcome = judge(case, folder, expected(case), watch)
                os.write(results, pickle.dumps(outcome))
                if outcome.finding is not None:
                    break  # its memory, and what it may have left behind, go with the process
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


@contextmanager
def _quiet() -> Iterator[None]:
    """Warnings of libraries about broken files are not worth reading a million times."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def run_one(case: Case, folder: Path, expected: Mapping[str, Any]) -> Outcome:
    """The outcome of one case, in a process of its own."""
    outcomes = run_batch(lambda: iter([case]), folder, lambda _: expected)
    return outcomes[-1]
