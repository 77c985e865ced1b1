"""What a piece of work holds of the process's own memory at the most, watched from within."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

_PAUSE = 0.01  # seconds between two looks


def held() -> int:
    """Bytes of memory that are the process's own, not a file's."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))


def watched(work: Callable[[], Any]) -> tuple[Any, int]:
    """What work returns, and the bytes that were held at the most beyond the start."""
    before = most = held()
    is_done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not is_done.wait(_PAUSE):
            most = max(most, held())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        made = work()
    finally:
        is_done.set()
        watcher.join()
    return made, most - before
