"""Locks that survive a fork.

A forked process has one thread, and a copy of every lock: one that another thread held at that
moment would stay locked for ever.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType


class Guard:
    """A lock that the same thread may take twice; with `wait` and `wake` for those who wait."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        _ALL.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def wait(self) -> None:
        """Lets go of the lock until another thread calls `wake`."""
        self._lock.wait()

    def wake(self) -> None:
        """Wakes all who wait."""
        self._lock.notify_all()

    def renew(self) -> None:
        """Forgets who holds it."""
        self._lock = threading.Condition()

    def __reduce__(self) -> tuple[type[Guard], tuple[()]]:
        return Guard, ()  # a copy of what it guards is guarded by itself


_ALL: weakref.WeakSet[Guard] = weakref.WeakSet()


_OF_OBJECTS: weakref.WeakValueDictionary[int, Guard] = weakref.WeakValueDictionary()  # by id
_FINDING = Guard()


@contextmanager
def alone_with(thing: object) -> Iterator[None]:
    """Holds up other threads that would be alone with the same object; the same thread may again.

    Its lock is there while somebody has or wants it, and so while there is the object.
    """
    with _FINDING:
        guard = _OF_OBJECTS.setdefault(id(thing), Guard())
    with guard:
        yield


def _renew_all() -> None:
    for guard in list(_ALL):
        guard.renew()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_all)
