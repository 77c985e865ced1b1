"""No test looks at the clock on the wall: it says only how busy the machine is.

What a test may measure is CPU time (`cpu_time`), bytes and operations.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
WALL_CLOCK = re.compile(
    r"perf_counter|monotonic|\btime\.time\(|ITIMER_REAL|datetime\.now|\bsleep\(\d"
    r"|timeout=\d|\.wait\(\d|\.join\(\d|deadline=(?!None)"
)
ALLOWED = {
    "test_clocks.py": "names them all",
    "fuzz/fuzz.py": "the fuzzer runs as long as it is told to; the tests tell it a count",
    "fuzz/worker.py": "ends a process that waits for ever, which spends no CPU time",
    "fuzz/test_fuzz_worker.py": "shortens that wait: only a process that never ends is waited for",
}


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.name)
def test_no_wall_clock_decides(path):
    if path.relative_to(TESTS).as_posix() not in ALLOWED:
        assert not WALL_CLOCK.findall(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ALLOWED)
def test_every_exception_is_needed(name):
    assert WALL_CLOCK.search((TESTS / name).read_text(encoding="utf-8"))
