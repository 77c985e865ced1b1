"""Interrupted at every line, and again in the handlers: as before or as planned, never mixed.

A sample in the normal run; all of it with TORCH_WARMSTART_FAULTS=1 (`make faults`).
"""

from __future__ import annotations

import gc
import random

import pytest
import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

import torch_warmstart as tws
from faults.injector import IS_FULL, Interrupted, Lines, Point, Strikes
from faults.rare_scenes import rare_scenes
from faults.scenes import Standing, scenes, snapshot

_SAMPLE = 60  # runs of each scene and kind
_BEFORE_ALL = 2  # lines of `execute_plan`: before its `try` there is nobody to explain anything
_KINDS = (KeyboardInterrupt, Interrupted)


def _outcomes(standing: Standing) -> tuple[object, object, list[Point]]:
    """What there is before and after, and the lines that lie between."""
    before = held(standing)
    standing.apply()  # once before, for what is imported and made once
    standing.restore()
    with Lines().running() as lines:
        standing.apply()
    after = held(standing)
    standing.restore()
    return before, after, lines.points


def held(standing):
    """Without the identities of this run's objects."""
    found = snapshot(standing.model, standing.optimizer)
    return {k: v[1:] if isinstance(v, tuple) and k[:5] != "state" else v for k, v in found.items()}


def _strike(standing: Standing, strikes: Strikes):
    """What is held after faults at some lines, what was raised, and whether all are the same."""
    raised = None
    try:
        with strikes.running():
            standing.apply()
    except BaseException as error:
        raised = error
    assert torch.is_grad_enabled(), str(strikes)
    assert torch._C._is_torch_function_enabled(), str(strikes)
    assert _get_current_dispatch_mode() is None, str(strikes)
    now, has_its_objects = held(standing), standing.has_its_objects()
    standing.restore()
    return now, raised, has_its_objects


def _points(points: list[Point], seed: str) -> list[tuple[Point, tuple[int, ...]]]:
    """Where to strike: once, and up to three times in a row."""
    rng = random.Random(seed)
    once = [(at, ()) for at in points]
    again = [(at, (rng.choice([1, 2, 3, 5, 8, 13]),)) for at in points]
    thrice = [(at, (rng.randint(1, 9), rng.randint(10, 30))) for at in points]
    if IS_FULL:
        return once + again[::4] + thrice[1::4]
    return [rng.choice(kind) for kind in (once, again, thrice) for _ in range(_SAMPLE // 3)]


# Where it strikes a generator that is let go of, there is nobody to raise to.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", _KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("scene", [*scenes(), *rare_scenes()], ids=lambda scene: scene.name)
def test_interrupted_anywhere_it_is_as_before_or_as_planned(scene, kind):
    standing = Standing(scene)
    before, after, points = _outcomes(standing)
    assert before != after
    ends = {"before": 0, "after": 0}
    for at, again in _points(points, f"{scene.name} {kind.__name__}"):
        strikes = Strikes(at, again, kind)
        now, raised, has_its_objects = _strike(standing, strikes)
        where = f"{strikes}: {raised!r}"
        assert strikes.hits, where
        assert now in (before, after), f"mixed, struck at {where}"
        end = "before" if now == before else "after"
        ends[end] += 1
        assert has_its_objects or (end == "after" and scene.name == "meta"), where
        # An exception is made ours, wherever it strikes, unless it strikes what does so.
        is_left_alone = kind is KeyboardInterrupt or len(strikes.hits) > 1
        is_left_alone |= at.number <= _BEFORE_ALL
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
    standing.apply()
    assert held(standing) == after
    print(f"{scene.name}: {len(points):,} points, {sum(ends.values()):,} runs {ends}, 0 mixed")
