"""No test looks at the clock on the wall: it says only how busy the machine is.

What a test may measure is CPU time (`cpu_time`), bytes and operations.
"""

from __future__ import annotations

import re
from pathlib import Path

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


def test_no_wall_clock_decides():
    """Every exception is needed, too."""
    found = {
        path.relative_to(TESTS).as_posix()
        for path in TESTS.rglob("*.py")
        if WALL_CLOCK.search(path.read_text(encoding="utf-8"))
    }
    assert found == {*ALLOWED}
