"""What goes wrong on one of several ranks, and what each of them then says of itself."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from jobs import NEW_WORDS, OLD_WORDS, old_state
from ranks import kill_me
from sharded_models import SHARDINGS, Tower, assert_slices
from torch import nn

import torch_warmstart as tws
from torch_warmstart.execution import commit
from torch_warmstart.execution.ranks import agreement
from torch_warmstart.model.sharding import local_tensors

SOON = 8.0  # seconds until a rank that is gone is given up


class Scene:
    """A sharded model and its optimizer on one rank, and what they were."""

    def __init__(self, how: str = "fsdp", rows: int = 7) -> None:
        torch.manual_seed(1)
        self.model = SHARDINGS[how](Tower(rows)) if how else Tower(rows)
        self.before = self._bytes()

    def _bytes(self) -> list[torch.Tensor]:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return [local.detach().clone() for t in tensors for local in local_tensors(t)]

    def told(self, settings: Any, **more: Any) -> tuple[str, str]:
        """What a warm start raises, and what has become of the model."""
        error = "nothing"
        try:
            tws.warm_start(self.model, settings, **more)
        except BaseException as raised:
            notes = "".join(getattr(raised, "__notes__", []))
            error = f"{type(raised).__name__}: {raised} {notes}"
        return error, self.state()

    def state(self) -> str:
        """The model as it was, as the checkpoint has it, or between."""
        now = self._bytes()
        if all(torch.equal(a, b) for a, b in zip(now, self.before, strict=True)):
            return "as before"
        expected = Tower()
        expected.load_state_dict(old_state())
        try:
            assert_slices(self.model, expected)
        except AssertionError:
            return "between"
        return "complete"


def _everything(source: Any) -> tws.WarmStartSettings:
    return tws.WarmStartSettings(source, [".*"])


def on_rank(wanted: int, act: Callable[[], Any]) -> Callable[..., None]:
    """Does something on one rank only."""

    def done(*_: Any, **__: Any) -> None:
        if dist.get_rank() == wanted:
            act()

    return done


def _raise() -> None:
    raise RuntimeError("out of luck")


def no_file_on_rank_1(how: str, path: str) -> list[tuple[str, str]]:
    """Planning fails there; then all is well, and a second try succeeds."""
    scene = Scene(how)
    source = path if dist.get_rank() != 1 else f"{path}.nowhere"
    first = scene.told(_everything(source))
    return [first, scene.told(_everything(path))]


def hook_raises_on_rank_0(how: str) -> tuple[str, str]:
    """The rank that collects what the others say is the one that cannot."""
    scene = Scene(how)
    for module in scene.model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.register_load_state_dict_pre_hook(on_rank(0, _raise))
    return scene.told(_everything(old_state()))


def warnings_are_errors_on_rank_1(path: str) -> tuple[str, str]:
    """What is warned of comes before everything else."""
    import warnings

    scene = Scene()
    with warnings.catch_warnings():
        if dist.get_rank() == 1:
            warnings.simplefilter("error")
        return scene.told(tws.WarmStartSettings(path, ".*"))


def other_content_on_rank_1(how: str, in_memory: bool) -> tuple[str, str]:
    """The same names and shapes, other values."""
    state = old_state()
    if dist.get_rank() == 1:
        state["up.weight"] = state["up.weight"] + 1
    if in_memory:
        return Scene(how).told(_everything(state))
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "own.pt")
        torch.save(state, path)
        return Scene(how).told(_everything(path))


def other_vocabulary_on_rank_1(how: str) -> tuple[str, str]:
    """The same words in another order."""
    words = NEW_WORDS if dist.get_rank() != 1 else NEW_WORDS[::-1]
    info = {"table.weight": tws.VocabInfo(words, -1, 1, OLD_WORDS)}
    return Scene(how, 10).told(tws.WarmStartSettings(old_state(), ".*", info))


def other_settings_on_rank_1(how: str) -> tuple[str, str]:
    """One selects less."""
    return Scene(how).told(
        tws.WarmStartSettings(old_state(), ".*" if dist.get_rank() != 1 else "up")
    )


def interrupted_while_waiting(path: str) -> list[tuple[str, str]]:
    """Ctrl-C on rank 1, when it has said that it is ready; then a second try."""
    scene = Scene()
    with pytest.MonkeyPatch.context() as patch:
        if dist.get_rank() == 1:
            said = agreement.Agreement.say_ready

            def interrupt(seconds: float) -> None:
                raise KeyboardInterrupt

            def say(self: Any, *made: Any) -> None:
                said(self, *made)
                patch.setattr(agreement.time, "sleep", interrupt)

            patch.setattr(agreement.Agreement, "say_ready", say)
        else:  # the last to say it
            patch.setattr(agreement.Agreement, "say_ready", _late(agreement.Agreement.say_ready))
        first = scene.told(_everything(path))
    return [first, scene.told(_everything(path))]


def _late(say: Callable[..., None]) -> Callable[..., None]:
    """Waits until the other one has given up, or all would be well."""

    def wait(self: Any, *made: Any) -> None:
        self._store.wait([self._key("ready")])
        say(self, *made)

    return wait


def killed_before_agreement(rank: int) -> tuple[str, str]:
    """In the midst of what can fail."""
    scene = Scene()
    scene.model.norm.register_load_state_dict_pre_hook(on_rank(rank, kill_me))
    return scene.told(_everything(old_state()), timeout=SOON)


def killed_during_commit(rank: int) -> tuple[str, str]:
    """When all have agreed, and something is written."""
    scene = Scene()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commit.Copy, "run", _then(commit.Copy.run, on_rank(rank, kill_me)))
        return scene.told(_everything(old_state()), timeout=SOON)


def _then(first: Callable[..., Any], second: Callable[..., Any]) -> Callable[..., None]:
    def both(*args: Any) -> None:
        first(*args)
        second()

    return both


def alone_on_rank_0() -> str:
    """A plain model of one rank is nobody else's business."""
    if dist.get_rank() != 0:
        return "elsewhere"
    return Scene("").told(_everything(old_state()), timeout=SOON)[1]


def plain_models_of_a_group(path: str) -> tuple[str, str]:
    """With `process_group` plain models go together too."""
    source = path if dist.get_rank() != 1 else f"{path}.nowhere"
    return Scene("").told(_everything(source), process_group=dist.group.WORLD)


def group_of_rank_0() -> tuple[str, str]:
    """A group that rank 1 is not in, and calls with all the same."""
    group = dist.new_group([0])
    told = Scene("").told(_everything(old_state()), process_group=group)
    dist.barrier()
    if dist.get_rank() == 0:
        dist.destroy_process_group(group)
    return told


def plans_applied(how: str, path: str) -> str:
    """A plan that each rank makes and applies."""
    scene = Scene(how)
    plan = tws.plan_warm_start(scene.model, _everything(path))
    assert scene.state() == "as before"
    tws.apply_plan(plan)
    return scene.state()


def half_written_on_rank_1() -> tuple[str, str]:
    """A step that fails there each time."""
    scene = Scene()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commit.Copy, "run", _then(commit.Copy.run, on_rank(1, _raise)))
        return scene.told(_everything(old_state()))


def interrupted_during_commit(rank: int) -> tuple[str, str]:
    """Ctrl-C when something is written: it is finished, and then raised, on that rank only."""
    scene = Scene()
    times = iter([KeyboardInterrupt])

    def once() -> None:
        for error in times:
            raise error

    with pytest.MonkeyPatch.context() as patch:
        act = on_rank(rank, once)
        patch.setattr(commit.Copy, "run", _then(commit.Copy.run, act))
        return scene.told(_everything(old_state()))
