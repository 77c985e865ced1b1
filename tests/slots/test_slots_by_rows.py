"""Slots that lack axes of their parameter: a number for each row, or for each column."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import ClipOrPad, VocabInfo, WarmStartSettings


class Sums(torch.optim.Optimizer):
    """Keeps the sum of squares over an axis."""

    def __init__(self, named, axis: int):
        self.axis = axis
        super().__init__(named, {})

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            if p.grad is not None:
                zeros = torch.zeros_like(p).sum(self.axis)
                self.state[p].setdefault("sums", zeros).add_(p.grad.square().sum(self.axis))


def _trained(shape, axis):
    torch.manual_seed(0)
    table = nn.Embedding(*shape)
    optimizer = Sums(list(table.named_parameters()), axis)
    (table.weight * torch.randn(shape)).sum().backward()
    optimizer.step()
    return table, optimizer


def _started(shape, new_shape, axis, infos):
    old, old_optimizer = _trained(shape, axis)
    model, optimizer = _trained(new_shape, axis)
    saved = {"model": old.state_dict(), "optimizer": old_optimizer.state_dict()}
    settings = WarmStartSettings(saved, var_name_to_vocab_info={"weight": infos})
    tws.warm_start(model, settings, optimizer=optimizer)
    return old_optimizer.state[old.weight]["sums"], optimizer.state[model.weight]["sums"]


SHUFFLED = VocabInfo(["c", "a", "b"], old_vocab=["a", "b", "c"])


def test_rows_that_move_take_their_number_along():
    before, after = _started((3, 2), (3, 2), 1, SHUFFLED)
    assert torch.equal(after, before[[2, 0, 1]])
    larger = VocabInfo(["c", "new", "a", "b"], old_vocab=["a", "b", "c"])
    before, after = _started((3, 2), (4, 2), 1, larger)
    assert torch.equal(after, torch.cat([before[[2]], torch.zeros(1), before[[0, 1]]]))


def test_numbers_of_columns_stay_where_rows_move_and_go_where_columns_do():
    before, after = _started((3, 2), (3, 2), 0, SHUFFLED)
    assert torch.equal(after, before)
    before, after = _started((3, 2), (3, 4), 0, [SHUFFLED, ClipOrPad(axis=1)])
    assert torch.equal(after, torch.cat([before, torch.zeros(2)]))


def test_which_axis_it_is_in_a_square_nobody_knows():
    with pytest.raises(tws.PlanError, match="slot-axes-unclear|a number for each row"):
        _started((3, 3), (3, 3), 1, SHUFFLED)


def _changed(shape, axis, new):
    model, optimizer = _trained(shape, axis)
    before = optimizer.state[model.weight]["sums"].clone()
    info = VocabInfo(new, old_vocab=list("abcd"[: shape[0]]))
    tws.change_vocabulary(model, {"weight": info}, optimizer=optimizer)
    return before, optimizer.state[model.weight]["sums"]


def test_a_live_model_that_changes_its_vocabulary_takes_them_along():
    before, after = _changed((4, 2), 1, ["d", "x", "a"])
    assert torch.equal(after, torch.stack([before[3], torch.zeros(()), before[0]]))
    before, after = _changed((4, 2), 1, ["d", "c", "b", "a", "x"])
    assert torch.equal(after, torch.cat([before.flip(0), torch.zeros(1)]))
    before, after = _changed((4, 2), 0, ["d", "x", "a"])
    assert torch.equal(after, before)


def test_a_live_square_table_leaves_it_open():
    with pytest.raises(tws.UnsupportedError, match="for each row or along another axis"):
        _changed((3, 3), 1, ["c", "x", "a", "b"])
