"""A change of vocabulary is interrupted anywhere: all is old, or all is new."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

import torch_warmstart as tws
from faults.injector import IS_FULL, Interrupted, Lines, Point, Strikes
from faults.scenes import snapshot

_SAMPLE = 10
_UNGUARDED = 2  # lines: before the first `try` there is nobody to explain anything
_INFO = tws.VocabInfo(["c", "x", "p", "a", "y"], old_vocab=["a", "p", "b", "c"])


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tok = nn.Embedding(4, 3, padding_idx=1)
        self.head = nn.Linear(3, 4)
        self.head.weight = self.tok.weight


def _scene():
    torch.manual_seed(2)
    model = _Tied()
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.rand_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer, torch.optim.swa_utils.AveragedModel(model)


def _change(model, optimizer, ema):
    return tws.change_vocabulary(model, {"tok.weight": _INFO}, optimizer=optimizer, ema=ema)


def _held(model, optimizer, ema):
    """All that may change, without the identities of this run's objects."""
    found = {**snapshot(model, optimizer), "ema": snapshot(ema, None)}
    found["ema"] = {k: v[1:] for k, v in found["ema"].items()}
    values = {
        k: v[1:] if k in dict(model.named_parameters(remove_duplicate=False)) else v
        for k, v in found.items()
    }
    sizes = [
        (
            m.tok.num_embeddings,
            m.tok.padding_idx,
            m.head.out_features,
            m.tok.weight is m.head.weight,
        )
        for m in (model, ema.module)
    ]
    return values, sizes, len(optimizer.state)


def _points(points: list[Point]) -> list[tuple[Point, tuple[int, ...]]]:
    rng = random.Random(7)
    once = [(at, ()) for at in points]
    again = [(at, (rng.choice([1, 2, 3, 5, 8]),)) for at in points]
    if IS_FULL:
        return once + again[::3]
    last = once[-60:]  # where entries are written
    return [rng.choice(kind) for kind in (once, again, last) for _ in range(_SAMPLE)]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Interrupted], ids=lambda kind: kind.__name__)
def test_interrupted_anywhere_all_is_old_or_all_is_new(kind):
    _change(*_scene())  # once before, for what is imported and made once
    scene = _scene()
    before = _held(*scene)
    with Lines().running() as lines:
        _change(*scene)
    after = _held(*scene)
    assert before != after
    ends = {"before": 0, "after": 0}
    for at, again in _points(lines.points):
        scene, struck, raised = _scene(), Strikes(at, again, kind), None
        parameters = [id(p) for p in scene[0].parameters()]
        try:
            with struck.running():
                _change(*scene)
        except BaseException as error:
            raised = error
        assert torch.is_grad_enabled(), str(struck)
        assert torch._C._is_torch_function_enabled(), str(struck)
        assert _get_current_dispatch_mode() is None, str(struck)
        held = _held(*scene)
        assert held in (before, after), f"mixed, struck at {struck}"
        end = "before" if held == before else "after"
        ends[end] += 1
        if end == "before":
            assert [id(p) for p in scene[0].parameters()] == parameters
        assert bool(struck.hits) == (raised is not None)
        is_left_alone = kind is KeyboardInterrupt or len(struck.hits) > 1
        is_left_alone |= at.number <= _UNGUARDED
        assert isinstance(raised, tws.WarmStartError) or is_left_alone, f"{struck}: {raised!r}"
        said = str(raised) + " ".join(getattr(raised, "__notes__", ()))
        assert "is complete" not in said, struck
        if "The vocabulary is changed" in said:
            assert end == "after", struck
        elif "as they were" in said:
            assert end == "before", struck
    assert ends["before"]
    print(f"vocabulary: {len(lines.points):,} points, {sum(ends.values()):,} runs {ends}, 0 mixed")
