"""Whatever a checkpoint, its server or the memory refuses: as before or as planned, never mixed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import fsspec
import pytest
import safetensors.torch
import torch
from fsspec.implementations.memory import MemoryFileSystem
from torch.utils._python_dispatch import TorchDispatchMode

import torch_warmstart as tws
from faults.injector import IS_FULL
from faults.scenes import Plain, scenes, snapshot
from torch_warmstart import VocabInfo, WarmStartSettings

_ERRORS = (
    OSError(errno.EIO, "input/output error"),
    FileNotFoundError("shard is gone"),
    ValueError("a wrong reply"),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    KeyboardInterrupt(),
    SystemExit(1),
)
_ASKED = ("view_tensor", "row_blocks", "prefetch", "verify", "location", "metadata")


class _Failing:
    """A checkpoint whose n-th request raises."""

    def __init__(self, checkpoint, at, error):
        self._checkpoint, self._at, self._error, self.count = checkpoint, at, error, 0

    def __getattr__(self, name):
        found = getattr(self._checkpoint, name)
        if name not in _ASKED:
            return found

        def ask(*args):
            self.count += 1
            if self.count == self._at:
                raise self._error
            return found(*args)

        return ask


def _check(model, optimizer, plan, before, error):
    """Carries a plan out that fails, and returns what was raised; nothing has changed then."""
    with pytest.raises(BaseException) as raised:  # noqa: PT011
        tws.apply_plan(plan)
    is_exception = isinstance(error, Exception)
    assert isinstance(raised.value, tws.WarmStartError if is_exception else type(error))
    if is_exception:
        chain, seen = raised.value, []
        while chain is not None:
            seen.append(chain)
            chain = chain.__cause__
        assert error in seen
    assert snapshot(model, optimizer) == before


@pytest.mark.parametrize("scene", scenes()[1:], ids=lambda scene: scene.name)
def test_a_checkpoint_that_fails_at_any_request_changes_nothing(scene):
    _, _, plan = scene.make()
    counting = _put_in_front(plan, -1, OSError())
    tws.apply_plan(plan)
    assert counting.count > 10
    for at in range(1, counting.count + 1):
        for error in _ERRORS if IS_FULL else [_ERRORS[at % len(_ERRORS)]]:
            model, optimizer, plan = scene.make()
            _put_in_front(plan, at, error)
            _check(model, optimizer, plan, snapshot(model, optimizer), error)


def _put_in_front(plan, at, error):
    failing = _Failing(plan.checkpoint, at, error)
    object.__setattr__(plan, "checkpoint", failing)
    return failing


# -- a server --------------------------------------------------------------------------------------


@pytest.fixture
def url():
    torch.manual_seed(1)
    state = {k: v.contiguous() for k, v in Plain(5).state_dict().items()}
    for name in list(state):  # so that each is asked for by itself
        state[f"others.{name}"] = torch.zeros(1 << 18)
    with fsspec.open("memory://faults/model.safetensors", "wb") as file:
        file.write(safetensors.torch.save(state))
    return "memory://faults/model.safetensors"


@pytest.mark.parametrize("error", _ERRORS, ids=lambda error: type(error).__name__)
def test_a_server_that_fails_at_any_request_changes_nothing(url, error, monkeypatch):
    asked, fails_at = [0], [-1]
    ranges = MemoryFileSystem.cat_ranges

    def cat_ranges(self, *args, **more):
        asked[0] += 1
        if asked[0] == fails_at[0]:
            raise error
        return ranges(self, *args, **more)

    monkeypatch.setattr(MemoryFileSystem, "cat_ranges", cat_ranges)
    info = {"words.weight": VocabInfo(["c", "x", "a", "y"], -1, 0, list("abcde"))}
    at, is_done = 0, False
    while not is_done:
        at += 1
        model = Plain(4)
        fails_at[0] = -1
        plan = tws.plan_warm_start(model, WarmStartSettings(url, [".*"], info))
        asked[0], fails_at[0] = 0, at
        before = snapshot(model, None)
        try:
            tws.apply_plan(plan)
        except (tws.WarmStartError, KeyboardInterrupt, SystemExit):
            assert asked[0] == at
            assert snapshot(model, None) == before
        else:
            assert asked[0] < at
            is_done = True
    assert at > 1


# -- memory ----------------------------------------------------------------------------------------


class _Refusing(TorchDispatchMode):
    """Memory that runs out at the n-th operation, for once."""

    def __init__(self, at):
        super().__init__()
        self.at, self.count = at, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        if self.count == self.at:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("scene", scenes(), ids=lambda scene: scene.name)
def test_an_operation_that_fails_anywhere_leaves_it_as_before_or_as_planned(scene):
    model, optimizer, plan = scene.make()
    with _Refusing(-1) as counting:
        tws.apply_plan(plan)
    after = _values(snapshot(model, optimizer))
    assert counting.count > 20
    for at in range(1, counting.count + 1, 1 if IS_FULL else 7):
        model, optimizer, plan = scene.make()
        before = _values(snapshot(model, optimizer))
        raised = None
        try:
            with _Refusing(at):
                tws.apply_plan(plan)
        except tws.WarmStartError as error:
            raised = error
        held = _values(snapshot(model, optimizer))
        assert held in (before, after), (at, raised)
        if held == before:
            assert raised is not None


def _values(found):
    return {k: v[2] if isinstance(v, tuple) and k[:5] != "state" else v for k, v in found.items()}


_HOOKED = """
    import resource
    import torch
    torch.set_num_threads(1)
    import torch_warmstart as tws

    model = torch.nn.Sequential(torch.nn.Linear(6000, 6000), torch.nn.Linear(6000, 6000))
    own = torch.nn.Linear(100, 100)  # small, with a hook of its own
    own.register_load_state_dict_post_hook(lambda module, keys: None)
    model.append(own)
    names = []
    model.register_load_state_dict_pre_hook(lambda _, state, *rest: names.extend(
        (key, value.shape) for key, value in state.items()
    ))
    source = {k: torch.ones_like(v) for k, v in model.state_dict().items()}
    now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 60 * 2**20, -1))  # of a model of 275 MiB
    tws.warm_start(model, source)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    print(len(names), all(bool((p == 1).all()) for p in model.parameters()))
"""


_LIMITED = """
    import resource, sys
    import torch
    torch.set_num_threads(1)
    import torch_warmstart as tws
    from torch_warmstart import VocabInfo, WarmStartSettings

    rows, dim = 100_000, 64
    model = torch.nn.Sequential(torch.nn.Embedding(rows, dim), torch.nn.Linear(512, 4096))
    before = [p.detach().clone() for p in model.parameters()]
    source = {k: torch.ones_like(v) for k, v in model.state_dict().items()}
    new = [*range(1, rows), -1]
    info = {"0.weight": VocabInfo(new, -1, 0, list(range(rows)), backup_initializer="keep")}
    plan = tws.plan_warm_start(model, WarmStartSettings(source, ".*", info))
    now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + int(sys.argv[1]) * 2**20, -1))
    try:
        tws.apply_plan(plan)
        end = "complete"
    except tws.PartialWriteError:
        end = "partial"
    except tws.WarmStartError:
        end = "nothing"
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    same = all(torch.equal(p, b) for p, b in zip(model.parameters(), before))
    whole = bool((model[0].weight[:-1] == 1).all() and (model[1].weight == 1).all())
    print(end, same, whole)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="Linux tells the memory")
def test_a_model_with_hooks_is_not_copied():
    assert _run(_HOOKED).stdout.split() == ["6", "True"]


def _run(script, *arguments):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(tws.__file__).parents[1])},
        check=False,
    )


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="Linux tells the memory")
@pytest.mark.parametrize("mebibytes", [1, 30, 60, 90, 120, 400])
def test_too_little_memory_shows_before_anything_is_written(mebibytes):
    done = _run(_LIMITED, str(mebibytes))
    assert done.stdout.split() in (["nothing", "True", "False"], ["complete", "False", "True"]), (
        done
    )
