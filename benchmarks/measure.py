"""Measuring one run: a process of its own, its wall time, and what it added to its memory.

Two memories are reported. The resident set counts every page the process touched, and pages of a
memory-mapped file among them, although the kernel can drop those at any time. Anonymous memory is
what the process really holds. The kernel keeps the peak of the first; the second is sampled from
outside the process, where neither the GIL nor a long call can keep the sampler from its work.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contenders import Prepared
from inputs import Inputs, digest

SAMPLE_SECONDS = 0.005
_DISTRIBUTIONS = ("torch", "tensorflow-cpu", "tensorflow", "numpy", "google-crc32c")
_THREAD_SETTINGS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MKL_NUM_THREADS")


def measure(prepared: Prepared, inputs: Inputs) -> dict[str, Any]:
    """In the worker: one run, its seconds, its memory and the digest of its result."""
    inputs.warm_page_cache()
    _reset_peak()
    before = _memory()
    started = time.perf_counter()
    stages = prepared.run()
    ended = time.perf_counter()
    after = _memory()
    return {
        "seconds": ended - started,
        "window": (started, ended),  # on Linux, one clock for all processes
        "stages": stages,
        "start_rss": before.get("VmRSS"),
        "start_anonymous": before.get("RssAnon"),
        "peak_rss": after.get("VmHWM"),
        "new_table": 0 if prepared.has_table else inputs.table_bytes,
        "sha256": digest(prepared.table()),
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
    """Adds what follows from the samples; None where the system does not tell."""
    if result.get("peak_rss") is None:
        return result
    begin, end = result["window"]
    anonymous = max((size for at, size in samples if begin <= at <= end), default=None)
    result["above_start"] = result["peak_rss"] - result["start_rss"]
    if anonymous is not None:
        result["anonymous_above_start"] = anonymous - result["start_anonymous"]
        result["beyond_table"] = result["anonymous_above_start"] - result["new_table"]
    return result


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


def describe_machine() -> dict[str, str]:
    """Processor, memory, versions, and settings that change how threads behave."""
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    info = {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": str(len(usable(0))),
        "memory": _gibibytes(_field("/proc/meminfo", "MemTotal")),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "system": platform.platform(),
        "Python": platform.python_version(),
    }
    installed = {
        found.name.lower().replace("_", "-"): found.version
        for found in importlib.metadata.distributions()
    }
    info |= {name: installed[name] for name in _DISTRIBUTIONS if name in installed}
    return info | {name: os.environ[name] for name in _THREAD_SETTINGS if name in os.environ}


def _field(path: str, name: str) -> str:
    """The first value of a field in one of the kernel's tables, or nothing."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


def _gibibytes(text: str) -> str:
    """`24 GiB` of `25165824 kB`."""
    return f"{int(text.removesuffix('kB')) / 2**20:.1f} GiB" if text else "unknown"
