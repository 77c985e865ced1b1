"""Python's collector pauses while a large header is read, and goes on whatever happens."""

from __future__ import annotations

import gc
import os
import threading

import pytest

from torch_warmstart.storage import uncollected


def test_it_is_off_within_and_on_again_behind():
    assert gc.isenabled()
    with uncollected:
        assert not gc.isenabled()
        with uncollected:
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_is_on_again_after_an_error():
    with pytest.raises(ValueError, match="x"), uncollected:
        raise ValueError("x")
    assert gc.isenabled()


def test_who_has_turned_it_off_keeps_it_off():
    gc.disable()
    try:
        with uncollected:
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_last_thread_turns_it_on():
    first, second = threading.Event(), threading.Event()

    def work() -> None:
        with uncollected:
            first.set()
            second.wait(60)

    other = threading.Thread(target=work)
    with uncollected:
        other.start()
        first.wait(60)
    assert not gc.isenabled()
    second.set()
    other.join()
    assert gc.isenabled()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_has_it_on():
    with uncollected:
        child = os.fork()
        if not child:
            os._exit(0 if gc.isenabled() else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert gc.isenabled()
