"""Real processes with gloo on this machine, which run functions together.

They are forked from one that has imported torch, so that to start some is cheap. The store through
which they find each other is the test's own, as torchrun's is the agent's: a rank that is killed
does not take it away.
"""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist

_CONTEXT = multiprocessing.get_context("forkserver")
HAS_TORCHREC = importlib.util.find_spec("torchrec") is not None
_CONTEXT.set_forkserver_preload(
    ["torch", "torch.distributed.fsdp", "torch_warmstart", *(["torchrec"] * HAS_TORCHREC)]
)
ENDED = "ended"  # what is said of a rank that did not answer


class RanksFailedError(AssertionError):
    """What went wrong on which rank."""


class Ranks:
    """Some processes of one process group."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._store = dist.TCPStore("127.0.0.1", 0, count, True, wait_for_workers=False)
        pipes = [_CONTEXT.Pipe() for _ in range(count)]
        self._pipes = [mine for mine, _ in pipes]
        self._processes = [
            _CONTEXT.Process(
                target=_serve, args=(rank, count, self._store.port, theirs), daemon=True
            )
            for rank, (_, theirs) in enumerate(pipes)
        ]
        for process in self._processes:
            process.start()
        for _, theirs in pipes:
            theirs.close()

    def each(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What a function returns on each rank, or `Raised`, or `ENDED` if the process has."""
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send((function, args))
        return [self._answer(rank) for rank in range(self.count)]

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What a function returns on each rank; raises if it raises on one."""
        answers = self.each(function, *args)
        failed = [
            f"rank {rank}: {answer}"
            for rank, answer in enumerate(answers)
            if isinstance(answer, Raised) or answer == ENDED
        ]
        if failed:
            raise RanksFailedError("\n".join(failed))
        return answers

    def call(self, module: str, name: str, *args: Any) -> list[Any]:
        """The same of a function in a module that the test itself does not import."""
        return self.run(_call, module, name, *args)

    def _answer(self, rank: int) -> Any:
        try:
            return self._pipes[rank].recv()
        except EOFError:
            return ENDED

    def close(self) -> None:
        """Ends them."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.kill()
            process.join()


class Raised:
    """An exception on its way between processes."""

    def __init__(self, error: BaseException) -> None:
        self.kind, self.text = type(error).__name__, str(error)
        self.trace = "".join(traceback.format_exception(error))

    def __repr__(self) -> str:
        return self.trace


def kill_me() -> None:
    """Ends this process at once, as the system does that runs out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def _call(module: str, name: str, *args: Any) -> Any:
    return getattr(importlib.import_module(module), name)(*args)


def _serve(rank: int, count: int, port: int, pipe: Any) -> None:
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, count, False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count)
    while True:
        try:
            function, args = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)
        try:
            answer = function(*args)
        except BaseException as error:
            answer = Raised(error)
        pipe.send(answer)


@contextlib.contextmanager
def started(count: int) -> Iterator[Ranks]:
    """Some ranks, ended in the end."""
    ranks = Ranks(count)
    try:
        yield ranks
    finally:
        ranks.close()
