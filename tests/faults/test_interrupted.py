"""Interrupted at every line, and again in the handlers: as before or as planned, never mixed.

A sample in the normal run, of which more than half strikes the lines that write; all of it with
TORCH_WARMSTART_FAULTS=1 (`make faults`).
"""

from __future__ import annotations

import gc
import random

import pytest

import torch_warmstart as tws
from faults.injector import IS_FULL, Interrupted, Lines
from faults.scenes import Scene, scenes, snapshot

_SAMPLE = 60  # runs of each scene and kind
_BEFORE_ALL = 40  # lines of `apply_plan` and what it calls, where nothing has begun
_KINDS = (KeyboardInterrupt, Interrupted)


def _outcomes(scene: Scene) -> tuple[object, object, list[int]]:
    """What there is before and after, and the lines that lie between."""
    model, optimizer, plan = scene.make()
    before = _held(model, optimizer)
    with Lines().running() as lines:
        tws.apply_plan(plan)
    return before, _held(model, optimizer), lines.points


def _held(model, optimizer):
    """Without the identities of this run's objects."""
    found = snapshot(model, optimizer)
    return {k: v[1:] if isinstance(v, tuple) and k[:5] != "state" else v for k, v in found.items()}


def _strike(scene: Scene, at: tuple[int, ...], kind: type[BaseException]):
    """What is held after faults at some lines, what was raised, and where."""
    model, optimizer, plan = scene.make()
    objects = [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    lines, raised = Lines(at, kind), None
    try:
        with lines.running():
            tws.apply_plan(plan)
    except BaseException as error:
        raised = error
    assert objects == [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    return _held(model, optimizer), raised, lines.hits


def _points(lines: list[int], seed: str) -> list[tuple[int, ...]]:
    """Where to strike: once, and up to three times in a row."""
    rng = random.Random(seed)
    once = [(at,) for at in lines]
    again = [(at, at + rng.choice([1, 2, 3, 5, 8, 13])) for at in lines]
    thrice = [(at, at + rng.randint(1, 9), at + rng.randint(10, 30)) for at in lines]
    if IS_FULL:
        return once + again[::4] + thrice[1::4]
    return [rng.choice(kind) for kind in (once, again, thrice) for _ in range(_SAMPLE // 3)]


# Where it strikes a generator that is let go of, there is nobody to raise to.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", _KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("scene", scenes(), ids=lambda scene: scene.name)
def test_interrupted_anywhere_it_is_as_before_or_as_planned(scene, kind):
    before, after, lines = _outcomes(scene)
    assert before != after
    ends = {"before": 0, "after": 0}
    for at in _points(lines, f"{scene.name} {kind.__name__}"):
        held, raised, hits = _strike(scene, at, kind)
        where = f"{at} {hits}: {raised!r}"
        assert held in (before, after), f"mixed, struck at {where}"
        end = "before" if held == before else "after"
        ends[end] += 1
        if not hits:
            assert raised is None
            continue
        # An exception is made ours, but not one that strikes before all, or where that is done.
        is_left_alone = kind is KeyboardInterrupt or len(hits) > 1 or at[0] <= _BEFORE_ALL
        assert isinstance(raised, tws.WarmStartError) or (is_left_alone and type(raised) is kind), (
            where
        )
        said = str(raised) + " ".join(getattr(raised, "__notes__", ()))
        assert not isinstance(raised, tws.PartialWriteError), where
        if "is complete" in said:
            assert end == "after", where
        if "as they were" in said:
            assert end == "before", where
    gc.collect()  # what is let go of with an error is told of here, not in the next test
    assert all(ends.values())
