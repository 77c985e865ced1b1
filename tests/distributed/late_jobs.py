"""What the ranks do in tests of ranks that come late, not at all, or to a store that is gone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from differing_jobs import bits, placed
from torch import nn
from torch.distributed.tensor import Shard

import torch_warmstart as tws
from torch_warmstart.execution.ranks import agreement

AT_ONCE, SOON = 1.0, 20.0  # seconds: for one that does not come, for one that does
STATE = {"weight": torch.arange(8.0).view(4, 2), "bias": torch.ones(4)}


class Scene:
    """A model of which each rank has rows."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.model = nn.Linear(2, 4)
        self.model.weight = nn.Parameter(placed(self.model.weight.detach(), Shard(0)))

    def told(self, state: Any = STATE, timeout: float = SOON) -> str:
        """What a warm start raises, with nothing changed; "" if all is filled."""
        before = bits(self.model)
        try:
            tws.warm_start(self.model, tws.WarmStartSettings(state, [".*"]), timeout=timeout)
        except tws.WarmStartError as error:
            assert all(map(torch.equal, before, bits(self.model))), "it has been changed"
            return f"{type(error).__name__}: {error}"
        weight: Any = self.model.weight
        assert torch.equal(weight.full_tensor(), STATE["weight"])
        return ""


def miss_one() -> list[str]:
    """The second rank does not come; then all try again, twice."""
    scene = Scene()
    first = "" if dist.get_rank() == 1 else scene.told(timeout=AT_ONCE)
    dist.barrier()
    return [first, scene.told(), scene.told()]


def come_late() -> list[str]:
    """The second rank comes when it has been given up; then all try again."""
    scene = Scene()
    if dist.get_rank():
        dist.barrier()  # behind the first one's error
    first = scene.told(timeout=AT_ONCE)
    if not dist.get_rank():
        dist.barrier()
    dist.barrier()
    return [first, scene.told()]


def begin_anew(folder: str) -> list[str]:
    """Ranks that have been in another number of runs, and a group and a store that are new."""
    scene = Scene()
    first = "" if dist.get_rank() else scene.told(timeout=AT_ONCE)
    dist.barrier()
    rank, count = dist.get_rank(), dist.get_world_size()
    dist.destroy_process_group()
    store = dist.FileStore(os.path.join(folder, "store"), count)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count)
    model = nn.Linear(2, 4)
    settings = tws.WarmStartSettings(STATE, [".*"])
    group = dist.group.WORLD
    tws.warm_start(model, settings, process_group=group, timeout=SOON)
    assert torch.equal(model.weight.detach(), STATE["weight"])
    return [first]


class _Gone:
    """A store of which nothing comes any more when it has been told something so often."""

    def __init__(self, times: int) -> None:
        self._store, self._left = agreement.shared_store(), times

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def ask(*args: Any) -> Any:
            self._left -= name == "set"
            if self._left < 0:
                raise dist.DistNetworkError("Broken pipe")
            return getattr(self._store, name)(*args)

        return ask


def lose_the_store(times: int, is_planned: bool) -> list[str]:
    """The second rank loses it; it says so, or what is wrong with what it was to do."""
    scene = Scene()
    state = STATE if is_planned else {**STATE, "bias": torch.ones(5)}
    with pytest.MonkeyPatch.context() as patch:
        if dist.get_rank() == 1:
            gone = _Gone(times)
            patch.setattr(agreement, "shared_store", lambda: gone)
        first = scene.told(state, AT_ONCE)
    dist.barrier()
    return [first, scene.told()]


def _wait_for(key: str, times: int = 2_000, pause: float = 0.001) -> None:
    """Until somebody has counted there, or for so many looks."""
    while times and not agreement.shared_store().add(key, 0):
        times -= 1
        time.sleep(pause)


def end_at_once() -> int:
    """How many ranks know that all is done when the first one goes on, which may end then."""
    seen: list[agreement.Agreement] = []
    finish, wait = agreement.Agreement.finish, agreement.Agreement._wait

    def finished(self: Any) -> None:
        seen.append(self)
        finish(self)

    def slow(self: Any, stage: Any) -> Any:
        if dist.get_rank() and stage == "done":
            _wait_for(f"{self._run}/done/read")  # the first one is about to go on
        return wait(self, stage)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement.Agreement, "finish", finished)
        patch.setattr(agreement.Agreement, "_wait", slow)
        assert not Scene().told()
    key = f"{seen[0]._run}/done/read"
    return int(agreement.shared_store().add(key, 0)) if not dist.get_rank() else 0
