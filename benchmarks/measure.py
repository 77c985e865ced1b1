"""Measuring one run: a process of its own, its wall time, and what it added to its memory.

Two memories are reported. The resident set counts every page the process touched, and pages of a
memory-mapped file among them, although the kernel can drop those at any time. Anonymous memory is
what the process really holds. The kernel keeps the peak of the first; the second is sampled from
outside the process, where neither the GIL nor a long call can keep the sampler from its work.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from case import Prepared, Run

CLOCK, CPU = "BENCH_CLOCK", "cpu"  # what "seconds" are, in the environment of the workers
SAMPLE_SECONDS = 0.005
_PIECE = 8 << 20  # bytes read at a time


def measure(prepared: Prepared) -> Run:
    """In the worker: one run, its seconds, its memory and the digest of its result."""
    for path in prepared.files:
        _read_through(path)
    for path in prepared.cold:
        _drop(path)
    _reset_peak()
    before = _memory()
    busy = _cpu_seconds()
    started = time.perf_counter()
    prepared.run()
    ended = time.perf_counter()
    busy = _cpu_seconds() - busy
    after = _memory()
    return {
        "seconds": busy if os.environ.get(CLOCK) == CPU else ended - started,
        "cpu_seconds": busy,
        "window": (started, ended),  # on Linux, one clock for all processes
        "start_anonymous": before.get("RssAnon"),
        "end_anonymous": after.get("RssAnon"),
        "peak_resident": after.get("VmHWM"),
        "result_bytes": prepared.result_bytes,
        "sha256": prepared.result(),
    }


def run_worker(command: Sequence[str], log: Path) -> dict[str, Any]:
    """In the parent: starts a worker, samples its memory, returns the JSON it printed."""
    with log.open("w") as errors:
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
        samples = _sample(process)
        output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"A worker failed ({process.returncode}):\n{log.read_text()[-4000:]}")
    return _with_memory(json.loads(output.splitlines()[-1]), samples)


def _sample(process: subprocess.Popen[str]) -> list[tuple[float, int]]:
    """Time and anonymous memory of a process, until it ends."""
    samples = []
    while process.poll() is None:
        anonymous = _memory(process.pid).get("RssAnon")
        if anonymous is not None:
            samples.append((time.perf_counter(), anonymous))
        time.sleep(SAMPLE_SECONDS)
    return samples


def _with_memory(result: dict[str, Any], samples: list[tuple[float, int]]) -> dict[str, Any]:
    """Adds the peak of anonymous memory beyond the result, where the system tells it."""
    if result.get("start_anonymous") is None:
        return result
    begin, end = result["window"]
    inside = [size for at, size in samples if begin <= at <= end]
    peak = max([*inside, result["end_anonymous"]])
    result["anonymous"] = peak - result["start_anonymous"]
    result["beyond_result"] = result["anonymous"] - result["result_bytes"]
    return result


def _cpu_seconds() -> float:
    """Of this process's threads, and of the processes that it has waited for."""
    times = os.times()  # in hundredths of a second, which is too much for short work of one's own
    return time.process_time() + times.children_user + times.children_system


def _memory(process: int | str = "self") -> dict[str, int]:
    """The sizes in a process's status, in bytes; nothing where there is no such file."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return {}
    sizes = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(size) * 1024 for name, size, _ in sizes}


def _reset_peak() -> None:
    """Makes VmHWM forget the preparation."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux, or not permitted: the peak may then be of the preparation
        return


def _drop(path: Path) -> None:
    """Drops a file that nobody has mapped from the page cache, so that it is read from the disk."""
    if not hasattr(os, "posix_fadvise"):
        return
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read_through(path: Path) -> None:
    """Reads a file, so that no contender pays for a disk that another one warmed."""
    with path.open("rb") as file:
        while file.read(_PIECE):
            pass
