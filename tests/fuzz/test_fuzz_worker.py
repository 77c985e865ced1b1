"""The limits of fuzz/worker hold: each is crossed here on purpose."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz import worker
from fuzz.cases import Case
from fuzz.worker import Outcome, run_one

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, reads /proc")

CASE = Case("text", "none", "v.txt", {"v.txt": b"a 1\n"})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Outcome]:
    """Runs what stands for a reader, under small limits."""

    def run(reader: Callable[[str], object], **limits: float) -> Outcome:
        for name, value in limits.items():
            monkeypatch.setattr(worker, name, value)
        monkeypatch.setattr(worker, "read_case", lambda case, url, _: reader(url))
        return run_one(CASE, tmp_path / "case", {})

    return run


def _loop(_: str) -> None:
    while True:
        pass


def _loop_in_spite_of_the_signal(url: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPROF])
    _loop(url)


def test_a_loop_is_ended_after_some_cpu_time(run: Callable[..., Outcome]) -> None:
    finding = run(_loop, MAX_CPU_SECONDS=0.1).finding

    assert finding is not None
    assert (finding.kind, finding.detail) == ("too slow", "more than 0.1 s of CPU")


def test_a_loop_where_no_signal_is_handled_is_ended(run: Callable[..., Outcome]) -> None:
    limits = {"MAX_CPU_SECONDS": 0.1, "_GRACE_CPU_SECONDS": 1}
    finding = run(_loop_in_spite_of_the_signal, **limits).finding

    assert finding is not None
    assert finding.kind == "hang"


def test_a_wait_without_end_is_ended(run: Callable[..., Outcome]) -> None:
    finding = run(lambda _: signal.pause(), _DEADLOCK_SECONDS=0.5).finding  # ITIMER_REAL

    assert finding is not None
    assert finding.kind == "hang"


def test_waiting_is_not_work(run: Callable[..., Outcome]) -> None:
    def wait(_: str) -> bool:
        signal.sigtimedwait([signal.SIGUSR1], 0.3)
        return True

    outcome = run(wait, MAX_CPU_SECONDS=0.1)

    assert outcome.finding is None
    assert outcome.cost.cpu_seconds < 0.1


def _read(url: str, *, times: int = 1, size: int = 1) -> bool:
    with open(url, "rb", buffering=0) as file:
        for _ in range(times):
            os.pread(file.fileno(), size, 0)
    return True


def test_bytes_and_operations_are_counted(run: Callable[..., Outcome]) -> None:
    few, many = (run(lambda url, n=n: _read(url, times=n, size=4)).cost for n in (10, 110))

    assert 400 <= many.bytes_read - few.bytes_read < 410  # the counters themselves are read
    assert many.operations - few.operations == 100


def test_a_file_read_over_and_over_is_found(run: Callable[..., Outcome]) -> None:
    outcome = run(lambda url: _read(url, times=3_000))
    assert outcome.finding is not None
    assert outcome.finding.kind == "operations"

    outcome = run(lambda url: _read(url, times=100, size=4), _MAX_BYTES_READ=100)
    assert outcome.finding is not None
    assert outcome.finding.kind == "bytes read"
