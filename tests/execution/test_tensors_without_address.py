"""Parameters whose class keeps their values elsewhere, as torchao's do, and alone can write."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

import torch_warmstart as tws


class Wrapped(torch.Tensor):
    """Another tensor holds the values."""

    takes = True

    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.copy_.default and not cls.takes:
            raise NotImplementedError("copy_")
        plain = tree_map(lambda one: one.inner if isinstance(one, cls) else one, (args, kwargs))
        made = func(*plain[0], **(plain[1] or {}))
        if func is torch.ops.aten.copy_.default:
            return args[0]
        return cls(made) if isinstance(made, torch.Tensor) else made


class Refusing(Wrapped):
    takes = False


def build(kind):
    model = nn.Module()
    model.fine = nn.Parameter(torch.zeros(3, 2))
    model.table = nn.Parameter(kind(torch.zeros(3, 2)))
    return model


SOURCE = {"fine": torch.ones(3, 2), "table": torch.arange(6.0).view(3, 2)}
INFO = tws.VocabInfo(["c", "new", "a"], old_vocab=["a", "b", "c"])


def test_they_are_filled_as_a_whole():
    model = build(Wrapped)
    tws.warm_start(model, SOURCE)
    assert torch.equal(model.table.inner, SOURCE["table"])


@pytest.mark.parametrize(
    ("kind", "infos", "why"),
    [
        (Wrapped, {"table": INFO}, "table is a Wrapped, .* not row by row"),
        (Wrapped, {"table": tws.ClipOrPad()}, "not row by row"),
        (Refusing, None, "table is of a class that refuses plain values, so it cannot be filled"),
    ],
)
def test_what_cannot_be_written_is_found_while_planning(kind, infos, why):
    model = build(kind)
    with pytest.raises(tws.PlanError, match=why) as error:
        tws.plan_warm_start(model, tws.WarmStartSettings(SOURCE, ".*", infos))
    assert [problem.code for problem in error.value.problems] == ["unwritable-tensor"]
    assert model.fine.count_nonzero() == 0
