"""Memory that was freed and is still the process's, given back before much is asked for anew."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable


def give_back_memory() -> None:
    """Gives back what the C library has of freed memory; where that cannot be asked, nothing.

    Of arrays of less than 32 MB glibc keeps the pages, in which no larger one finds a place: a
    vocabulary of two million entries would take twice the memory that it has to.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    with contextlib.suppress(OSError, TypeError, AttributeError):
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        return trim
    return None
