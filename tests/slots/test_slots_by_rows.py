"""Slots with other axes than their parameter: a number for each row, histories, factors."""

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


@pytest.mark.parametrize("axis", [0, 1])
def test_which_axis_it_is_in_a_square_the_optimizer_tells(axis):
    before, after = _started((3, 3), (3, 3), axis, SHUFFLED)
    assert torch.equal(after, before[[2, 0, 1]] if axis == 1 else before)


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


def test_so_it_does_of_a_live_square_table():
    before, after = _changed((3, 3), 1, ["c", "x", "a", "b"])
    assert torch.equal(after, torch.stack([before[2], torch.zeros(()), before[0], before[1]]))


class Keeping(torch.optim.Optimizer):
    """Keeps something of the sum of gradients, of a table; of other parameters nothing."""

    def __init__(self, named, makes, first=1):
        self.makes, self.first, self.taken = makes, first, 0
        super().__init__(named, {})

    @torch.no_grad()
    def step(self, closure=None):
        self.taken += 1
        for p in self.param_groups[0]["params"]:
            if p.grad is not None:
                self.state[p].setdefault("sum", torch.zeros_like(p)).add_(p.grad)
                if self.taken >= self.first:
                    self.state[p]["kept"] = self.makes(self.state[p]["sum"])


FOLLOWING = {
    "a history in front": lambda g: torch.stack([g, g * 2, g * 3]),
    "a history behind": lambda g: torch.stack([g, g * 2], -1),
    "transposed": lambda g: g.t().contiguous(),
    "a number for each row": lambda g: g.sum(1),
    "for each column": lambda g: g.sum(0).abs(),
    "of rows, kept": lambda g: g.sum(1, keepdim=True),
    "constants": lambda g: torch.arange(3.0),
}


def _kept(rows, makes, steps=1, first=1):
    model = nn.Embedding(rows, 3)
    optimizer = Keeping(list(model.named_parameters()), makes, first)
    for _ in range(steps):
        model.zero_grad()
        (model.weight * torch.arange(1.0, rows * 3 + 1).view(rows, 3)).sum().backward()
        optimizer.step()
    return model, optimizer


def _state(optimizer, model):
    return optimizer.state[model.weight]


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("name", FOLLOWING)
def test_a_slot_follows_along_the_axes_that_it_has(name, steps):
    makes = FOLLOWING[name]
    old, old_optimizer = _kept(3, makes)
    model, optimizer = _kept(4, makes, steps)
    saved = {"model": old.state_dict(), "optimizer": old_optimizer.state_dict()}
    info = VocabInfo(["c", "new", "a", "b"], old_vocab=["a", "b", "c"])
    settings = WarmStartSettings(saved, var_name_to_vocab_info={"weight": info})
    tws.warm_start(model, settings, optimizer=optimizer)
    _check(makes, _state(old_optimizer, old), _state(optimizer, model))


@pytest.mark.parametrize("name", FOLLOWING)
def test_so_it_does_in_a_live_model(name):
    makes = FOLLOWING[name]
    model, optimizer = _kept(3, makes)
    before = {key: value.clone() for key, value in _state(optimizer, model).items()}
    info = VocabInfo(["c", "new", "a", "b"], old_vocab=["a", "b", "c"])
    tws.change_vocabulary(model, {"weight": info}, optimizer=optimizer)
    _check(makes, before, _state(optimizer, model))


def _check(makes, before, after):
    moved = torch.cat([before["sum"], torch.zeros(1, 3)])[[2, 3, 0, 1]]
    assert torch.equal(after["sum"], moved)
    assert torch.equal(after["kept"], makes(moved))


REFUSED = {
    "rows twice": lambda g: g @ g.t(),
    "blocks": lambda g: torch.zeros(-(-g.numel() // 4)),
}


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("name", REFUSED)
def test_a_slot_whose_rows_are_not_told_is_refused(name, first):
    makes = REFUSED[name] if first == 1 else lambda g: g.sum(1)  # made later, of a square
    old, old_optimizer = _kept(3, makes, 2, first)
    model, optimizer = _kept(3, makes, 2, first)
    saved = {"model": old.state_dict(), "optimizer": old_optimizer.state_dict()}
    settings = WarmStartSettings(saved, var_name_to_vocab_info={"weight": SHUFFLED})
    optimizer.taken = old_optimizer.taken = 0
    with pytest.raises(tws.PlanError, match="along which axis it has the rows of weight"):
        tws.warm_start(model, settings, optimizer=optimizer)
    with pytest.raises(tws.UnsupportedError, match="along which axis it has the rows"):
        tws.change_vocabulary(old, {"weight": SHUFFLED}, optimizer=old_optimizer)
