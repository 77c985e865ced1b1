"""Freed memory that the C library keeps is given back, where it can be asked for it."""

from __future__ import annotations

import ctypes
import platform
import sys

import pytest

from torch_warmstart.entries import give_back_memory, heap

PIECES, SIZE = 1000, 100_000  # less than glibc takes from the system one by one


def held() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="the C library is another"
)
def test_what_was_freed_is_no_longer_the_process_s():
    pieces = [bytearray(b"x" * SIZE) for _ in range(PIECES)]
    pins = pieces[::100]  # between which there are holes
    del pieces
    before = held()
    give_back_memory()
    assert held() < before - PIECES * SIZE // 2
    assert all(len(pin) == SIZE for pin in pins)


@pytest.mark.parametrize("error", [OSError, TypeError, AttributeError])
def test_where_it_cannot_be_asked_nothing_happens(monkeypatch, error):
    def refuse(name):
        raise error(name)

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    heap._trim.cache_clear()
    give_back_memory()
    monkeypatch.undo()
    heap._trim.cache_clear()
