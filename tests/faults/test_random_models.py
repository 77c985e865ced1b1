"""Models drawn at random against a slow loop, each undisturbed and with a fault somewhere.

A hundred in the normal run; a thousand with TORCH_WARMSTART_FAULTS=1 (`make faults`).
"""

from __future__ import annotations

import random

import pytest
import torch

import torch_warmstart as tws
from faults.injector import IS_FULL, Interrupted, Lines, Strikes
from faults.random_models import draw, held, run

_COUNT = 1200 if IS_FULL else 100
_GROUPS = 4


def _same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("group", range(_GROUPS))
def test_a_random_model_is_as_before_or_as_a_slow_loop_says(group):
    for seed in range(group, _COUNT, _GROUPS):
        case = draw(seed)
        before = held(case)
        after = {**before, **case.expected}
        source = {k: v.clone() for k, v in case.source.items() if isinstance(v, torch.Tensor)}
        if case.contradicts:
            with pytest.raises(tws.SettingsError, match="share memory"):
                run(case)
            assert _same(held(case), before), seed
            continue
        report = run(case)
        assert _same(held(case), after), seed
        for account in report.variables:
            if account.kind == "slot":
                continue
            if account.state == "copied":
                assert set(account.names) <= case.copied, (seed, account)
            if account.state == "kept":
                assert torch.equal(before[account.name], after[account.name]), (seed, account)
        assert all(torch.equal(source[key], case.source[key]) for key in source), seed
        _strike(seed, before, after)


def _strike(seed, before, after):
    """The same model again, with a fault at a line drawn at random."""
    rng = random.Random(f"strike {seed}")
    with Lines().running() as lines:
        run(draw(seed))
    at = rng.choice(lines.points)
    for again in ((), (rng.randint(1, 12),)):
        case = draw(seed)
        points = Strikes(at, again, rng.choice([KeyboardInterrupt, Interrupted]))
        raised = None
        try:
            with points.running():
                run(case)
        except (tws.WarmStartError, KeyboardInterrupt, Interrupted) as error:
            raised = error
        now = held(case)
        assert _same(now, before) or _same(now, after), (seed, str(points), raised)
        if _same(now, before) and not _same(before, after):
            assert raised is not None, (seed, str(points))
