"""How much work a block may be, in seconds of the processor: other processes do not count."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cpu_seconds_below(limit: float) -> Iterator[None]:
    """Fails where this process spends more, all of its threads together."""
    started = time.process_time()
    yield
    spent = time.process_time() - started
    assert spent < limit, f"{spent:.2f} s of CPU"
