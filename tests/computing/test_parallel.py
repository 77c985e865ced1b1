"""Work that threads share: all of it is done, in order, whatever becomes of the threads."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart.computing.parallel import in_threads
from torch_warmstart.execution import commit

CPU = torch.device("cpu")


@pytest.fixture
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def _no_threads(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.mark.usefixtures("_two_threads")
def test_results_come_in_the_order_of_the_items():
    assert in_threads(lambda item: item * 2, range(100), CPU) == [*range(0, 200, 2)]


@pytest.mark.usefixtures("_two_threads", "_no_threads")
def test_all_is_done_where_the_system_starts_no_more_threads():
    assert in_threads(lambda item: item * 2, range(100), CPU) == [*range(0, 200, 2)]


@pytest.mark.usefixtures("_two_threads")
def test_what_an_item_raises_is_raised_and_nothing_new_is_begun():
    begun = []

    def work(item):
        begun.append(item)
        raise ValueError(item)

    with pytest.raises(ValueError, match="0"):
        in_threads(work, range(100), CPU)
    assert len(begun) <= 2


@pytest.mark.usefixtures("_two_threads")
def test_an_interrupt_of_the_callers_thread_is_raised_when_the_others_are_done():
    main, threads = threading.current_thread(), threading.active_count()

    def work(_):
        if threading.current_thread() is main:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_threads(work, range(100_000), CPU)
    assert threading.active_count() == threads


def _large() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A model whose tensors are copied by threads, and values for it."""
    model = nn.ModuleList(nn.Linear(1500, 1500, bias=False) for _ in range(5))
    return model, {name: torch.ones(1500, 1500) for name in model.state_dict()}


@pytest.mark.usefixtures("_two_threads", "_no_threads")
def test_a_warm_start_is_complete_where_the_system_starts_no_more_threads():
    model, source = _large()
    tws.warm_start(model, tws.WarmStartSettings(source))
    assert all(bool((value == 1).all()) for value in model.state_dict().values())


def test_a_commit_ends_where_what_is_copied_ahead_always_fails(monkeypatch):
    model, source = _large()
    calls = []

    def fail(*_):
        calls.append(0)
        if len(calls) > 2 * commit.ATTEMPTS:
            raise KeyboardInterrupt  # or it would go on for ever
        raise MemoryError

    monkeypatch.setattr(commit, "in_threads", fail)
    with pytest.raises(tws.PartialWriteError):
        tws.warm_start(model, tws.WarmStartSettings(source))
