"""What the figures were measured on: processor, memory, versions, and settings of threads."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

_DISTRIBUTIONS = (
    "torch",
    "tensorflow-cpu",
    "tensorflow",
    "tf-keras",
    "polars",
    "pyarrow",
    "safetensors",
    "numpy",
    "google-crc32c",
)
_PIECE = 64 << 20  # bytes of a block that is touched
_LEFT_ALONE = 0.15  # of the memory that is available, for whatever else runs
_THREAD_SETTINGS = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "MKL_NUM_THREADS",
    "POLARS_MAX_THREADS",
)


def describe_machine() -> dict[str, str]:
    """Everything that one needs to know to compare figures."""
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    info = {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": str(len(usable(0))),
        "memory": f"{memory_limit() / 2**30:.1f} GiB",
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


def touch_memory() -> None:
    """Writes once to nearly all memory that is available.

    A virtual machine is given memory by its host when it is first written to, which takes ten
    times as long as any later time: the first contenders that need much would pay for all others.
    Some hosts take back what is free for minutes, so it is done before each benchmark.
    In a process of its own, so that it is free again and counted with nobody.
    """
    subprocess.run([sys.executable, "-c", _TOUCH, str(_touchable() // _PIECE)], check=False)


_TOUCH = f"""
import sys
blocks = []
for _ in range(int(sys.argv[1])):
    blocks.append(bytearray(b"1") * {_PIECE})
"""


def _touchable() -> int:
    """Bytes of the memory that is available, less what is left to others; 0 where nobody tells."""
    available = _field("/proc/meminfo", "MemAvailable").removesuffix("kB")
    known = min(int(available) * 1024, memory_limit()) if available else 0
    return int(known * (1 - _LEFT_ALONE))


def memory_limit() -> int:
    """Bytes that this process and the pages it reads may take: the machine's, or its cgroup's."""
    total = _field("/proc/meminfo", "MemTotal").removesuffix("kB")
    limits = [int(total) * 1024] if total else []
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        names = {"memory": "memory/memory.limit_in_bytes", "": "memory.max"}
        if controllers in names:
            folder, _, name = names[controllers].rpartition("/")
            limits += _limits_upwards(Path("/sys/fs/cgroup", folder), path, name)
    return min(limits, default=0)


def _limits_upwards(root: Path, path: str, name: str) -> list[int]:
    """The limits of a cgroup and of all that it is in."""
    here = root / path.lstrip("/")
    folders = [here, *here.parents][: len(here.parts) - len(root.parts) + 1]
    texts = [" ".join(_lines(str(folder / name))) for folder in folders]
    return [int(text) for text in texts if text.isdigit()]


def _field(path: str, name: str) -> str:
    """The first value of a field in one of the kernel's tables, or nothing."""
    found = (line.split(":", 1)[1].strip() for line in _lines(path) if line.startswith(name))
    return next(found, "")


def _lines(path: str) -> list[str]:
    """The lines of one of the kernel's tables; none where there is no such table."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
